//! `weft check`: the workspace, or single workflow files, without a server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::place::Place;
use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::config::Config;
use crate::error::Finding;
use crate::runner::bundle;
use crate::usecase::policy::refused_by_platform;

/// Longest line that is shown, in characters.
const LONGEST_LINE: usize = 160;

/// Flags of `weft check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong; 1 there are findings, or it could not be checked; 2 wrong usage."
)]
pub(super) struct Check {
    /// Workflow files (.json, .yaml, .yml, .py); the whole workspace without any. What a file calls is looked for in the workspace
    /// that it lies in, or in --workspace
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// Print findings and what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        let config = prepare(&self.places)?;
        if self.files.is_empty() {
            let json = self.json;
            return block_on(async move { workspace(config, json).await });
        }
        let named = self.places.workspace.clone();
        block_on(async move {
            let mut findings = Vec::new();
            let (mut names, mut warnings) = (BTreeSet::new(), Vec::new());
            for file in &self.files {
                let (declared, wrong, noticed) = one(&config, file, named.as_deref()).await?;
                names.extend(declared);
                findings.extend(wrong);
                warnings.extend(noticed);
            }
            if self.json {
                output::json(&json!({
                    "files": self.files.len(),
                    "workflows": names,
                    "findings": findings,
                    "warnings": warnings,
                }));
            } else {
                show(&findings);
                warn(&warnings);
                output::note(&format!("{} file(s), {} finding(s)", self.files.len(), findings.len()));
            }
            Ok(code(&findings))
        })
    }
}

/// The workflows of one file, what is wrong with it, and what is merely noticed.
async fn one(
    config: &Config,
    file: &Path,
    named: Option<&Path>,
) -> Result<(Vec<String>, Vec<Finding>, Vec<Finding>), Failure> {
    let home = tempfile::Builder::new().prefix("weft-check-").tempdir();
    let home = home.map_err(|error| Failure::new(format!("no temporary folder can be made: {error}")))?;
    let place = Place::find(file, named.map(Path::to_owned))?;
    let mut config = config.clone();
    config.runner.workspace_dir = place.lay_out(home.path())?;
    let checked = boot::check_workspace(config).await.map_err(Failure::from)?;
    let inside = format!("workspace/{}", place.inside);
    let own = |of: &[Finding]| -> Vec<Finding> {
        let own = of.iter().filter_map(|finding| {
            let rest = finding.pointer.strip_prefix(&inside)?;
            rest.starts_with(':').then(|| Finding {
                pointer: format!("{}{rest}", file.display()),
                ..finding.clone()
            })
        });
        own.collect()
    };
    let (own, noticed) = (own(&checked.findings), own(&checked.noticed));
    let declared = checked.workflows.values().filter(|workflow| workflow.path == inside);
    let declared: Vec<_> = declared.map(|workflow| workflow.name.clone()).collect();
    // A Python file may declare nothing. Any other that neither offers anything nor has a finding was not looked at.
    if declared.is_empty() && own.is_empty() && file.extension().is_none_or(|ending| ending != "py") {
        return Err(
            Failure::new(format!("`{}` was not read: no workspace takes it in", file.display())).hint(
                "hidden files and folders, `venv`, `tests` and `node_modules` are left out; so are files beyond 1,000",
            ),
        );
    }
    Ok((declared, own, noticed))
}

/// Everything that is wrong with the workspace.
async fn workspace(config: Config, json: bool) -> Outcome {
    let policy = boot::platform_policy(&config).await;
    let folder = config.runner.workspace_dir.clone();
    let checked = boot::check_workspace(config).await.map_err(Failure::from)?;
    let declared = checked.workflows.values().chain(checked.data_providers.values());
    let mut warnings: Vec<Finding> = match &policy {
        Ok(policy) => declared.flat_map(|one| refused_by_platform(policy, one)).collect(),
        Err(_) => Vec::new(),
    };
    // Left out here, and refused by `weft publish`.
    let others = bundle::no_files(&folder).map_err(|error| Failure::new(output::chain(&error)))?;
    warnings.extend(others.into_iter().map(|finding| Finding {
        pointer: format!("workspace/{}", finding.pointer),
        ..finding
    }));
    warnings.extend(checked.noticed.iter().cloned());
    if json {
        output::json(&json!({
            "files": checked.files,
            "ms": checked.ms,
            "workflows": checked.workflows.keys().collect::<Vec<_>>(),
            "dataProviders": checked.data_providers.keys().collect::<Vec<_>>(),
            "findings": checked.findings,
            "warnings": warnings,
            "policyRead": policy.is_ok(),
        }));
        return Ok(code(&checked.findings));
    }
    show(&checked.findings);
    warn(&warnings);
    if let Err(reason) = &policy {
        output::note(&format!(
            "declarations were not compared with the platform's policy: {reason}"
        ));
    }
    output::note(&format!(
        "{} files, {} workflows, {} data providers, {} findings",
        checked.files,
        checked.workflows.len(),
        checked.data_providers.len(),
        checked.findings.len()
    ));
    Ok(code(&checked.findings))
}

fn code(findings: &[Finding]) -> ExitCode {
    if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

/// What keeps nothing from being run.
fn warn(warnings: &[Finding]) {
    for warning in warnings {
        output::data(&output::plain(&format!(
            "{}: warning: {}",
            warning.pointer, warning.message
        )));
        if let Some(hint) = &warning.hint {
            output::note(&output::plain(&format!("  hint: {hint}")));
        }
    }
}

/// `file:line:column: message` each, and on stderr the line with a caret below it, and what to do.
fn show(findings: &[Finding]) {
    for finding in findings {
        output::data(&output::plain(&format!("{}: {}", finding.pointer, finding.message)));
        if let Some((line, caret)) = line_of(&finding.pointer) {
            output::note(&format!("  | {line}"));
            output::note(&format!("  | {caret}"));
        }
        if let Some(hint) = &finding.hint {
            output::note(&output::plain(&format!("  hint: {hint}")));
        }
    }
}

/// The line that `file:line:column` names, and a caret below the column, where the file can be read.
fn line_of(place: &str) -> Option<(String, String)> {
    let (rest, column) = place.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().nth(line.checked_sub(1)?)?;
    if line.chars().count() > LONGEST_LINE || output::plain(&line.replace('\t', " ")) != line.replace('\t', " ") {
        return None;
    }
    // Tabs stay tabs, so that the caret stands below whatever width they have.
    let before = line.chars().take(column.saturating_sub(1));
    let caret: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    Some((line.to_owned(), format!("{caret}^")))
}
