//! `weft doctor`: whether everything that Weft needs is there, and what to mend.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::{Failure, Outcome, Places, block_on, output};
use crate::boot;
use crate::clock::SystemClock;
use crate::config::{Config, Environment};
use crate::domain::{LAYERS, Tier};
use crate::error::Finding;
use crate::integrity;
use crate::runner::{Isolation, python};
use crate::tenancy;

/// Flags of `weft doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    places: Places,
    /// Fail when steps are kept apart less than this: process, confined or namespaces
    #[arg(long, value_name = "TIER", value_parser = tier)]
    require: Option<Tier>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the report to this file as well, as a whole or not at all
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say more: how long each check took, every warning, every layer of isolation
    #[arg(long, short = 'v')]
    verbose: bool,
}

fn tier(word: &str) -> Result<Tier, String> {
    [Tier::Process, Tier::Confined, Tier::Namespaces]
        .into_iter()
        .find(|tier| tier.as_str() == word)
        .ok_or_else(|| "give `process`, `confined` or `namespaces`".to_owned())
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// It works, and is probably not what is meant.
    Warning,
    /// It must be mended.
    Failed,
}

#[derive(Debug, Serialize)]
struct Checked {
    what: &'static str,
    status: Status,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// What is behind the detail, in lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
    ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<Isolation>,
}

impl Checked {
    fn new(what: &'static str, status: Status, detail: impl Into<String>) -> Self {
        Self {
            what,
            status,
            ok: status != Status::Failed,
            detail: detail.into(),
            remedy: None,
            lines: Vec::new(),
            ms: 0,
            isolation: None,
        }
    }

    fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self::new(what, Status::Ok, detail)
    }

    fn bad(what: &'static str, error: &boot::Error) -> Self {
        let mut checked = Self::new(what, Status::Failed, output::chain(error));
        checked.remedy = error.hint();
        checked.lines = match error {
            boot::Error::Config(findings) | boot::Error::Workspace(findings) => lines_of(findings),
            _ => Vec::new(),
        };
        checked
    }

    /// The settings: which files were read, and what is probably not meant.
    fn configuration(config: &Config, environment: &Environment) -> Self {
        let files = environment
            .setting_files()
            .into_iter()
            .filter(|(_, path)| path.is_file());
        let files: Vec<_> = files
            .map(|(kind, path)| format!("{} file {}", kind.as_str(), path.display()))
            .collect();
        let warnings = config.warnings.len();
        let status = if warnings == 0 { Status::Ok } else { Status::Warning };
        let detail = format!("{warnings} warning(s), {} file(s) of settings", files.len());
        let mut checked = Self::new("configuration", status, detail);
        checked.remedy = (warnings > 0).then(|| "`weft config explain` shows every setting and its origin".to_owned());
        checked.lines = lines_of(&config.warnings).into_iter().chain(files).collect();
        checked
    }

    /// Whether the engine is as it was released. One that is not is somebody's own, unless the settings want no such.
    fn engine(report: &integrity::Report, is_required: bool) -> Self {
        let status = match report.state {
            integrity::State::Intact => Status::Ok,
            _ if is_required => Status::Failed,
            integrity::State::Unknown => Status::Ok,
            integrity::State::Modified => Status::Warning,
        };
        let mut checked = Self::new("engine", status, report.sentence());
        let line = |one: &integrity::Difference| format!("{}: {}", one.path, one.what.as_str());
        checked.lines = report.differences.iter().map(line).collect();
        checked.remedy =
            (status != Status::Ok).then(|| "take the release again, whole: docs/protect-engine.md says how".to_owned());
        checked
    }

    /// Whether a checkout can tell upstream's releases from other changes of the engine.
    fn protection(unset: Option<&[&str]>) -> Self {
        match unset {
            None => Self::good("protection", "this is no checkout"),
            Some([]) => Self::good("protection", "upstream and its keys are named"),
            Some(files) => {
                let files: Vec<_> = files.iter().map(|file| format!("`{file}`")).collect();
                let detail = format!("nothing but the placeholder in {}", files.join(" and "));
                let mut checked = Self::new("protection", Status::Warning, detail);
                checked.remedy = Some(
                    "a fork accepts no change of the engine until they say whose it is: take them with a release, or, where the \
                     engine is made, write them; docs/protect-engine.md says how"
                        .to_owned(),
                );
                checked
            }
        }
    }

    /// Runs that nobody goes on with, since they can't be read.
    fn runs(set_aside: Vec<String>) -> Self {
        if set_aside.is_empty() {
            return Self::good("runs", "none is set aside");
        }
        let detail = format!("{} can't be read and are set aside: {}", set_aside.len(), set_aside[0]);
        let mut checked = Self::new("runs", Status::Warning, detail);
        checked.lines = set_aside;
        checked.remedy = Some(
            "end them with `POST /api/runs/{id}/cancel`, or mend storage and `POST /api/runs/{id}/requeue`; docs/operations.md \
             says more"
                .to_owned(),
        );
        checked
    }

    /// Whether steps are kept apart as far as they must be.
    fn isolation(found: Isolation, required: Option<Tier>) -> Self {
        let needed = found.minimum.max(required.unwrap_or_default());
        let mut checked = match found.posture.shortfall(needed) {
            None => Self::good(
                "isolation",
                format!("{}; {} is needed", found.posture.tier.as_str(), needed.as_str()),
            ),
            Some(shortfall) => Self {
                remedy: Some("docs/operations.md says what each layer needs of the platform".to_owned()),
                ..Self::new("isolation", Status::Failed, shortfall)
            },
        };
        checked.isolation = Some(found);
        checked
    }

    /// How long it took.
    fn since(mut self, begun: Instant) -> Self {
        self.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self
    }
}

fn lines_of(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| {
        let hint = finding
            .hint
            .as_ref()
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        format!("{}: {} {}{hint}", finding.pointer, finding.code, finding.message)
    };
    findings.iter().map(line).collect()
}

/// Every layer with a mark, or with the reason why it is not in force.
fn layers(isolation: &Isolation) -> Vec<String> {
    let posture = &isolation.posture;
    let line = |layer| {
        if posture.has(layer) {
            format!("✓ {layer}")
        } else {
            format!("– {layer}: {}", posture.why_not(layer))
        }
    };
    LAYERS.into_iter().map(line).collect()
}

impl Doctor {
    pub(super) fn run(self) -> Outcome {
        let environment = self.places.environment();
        let checks = match Config::from_env(&environment) {
            Err(findings) => vec![refused(findings)],
            Ok(config) => {
                let first = Checked::configuration(&config, &environment);
                block_on(async move { Ok(examine(first, config, self.require).await) })?
            }
        };
        let sound = checks.iter().all(|check| check.ok);
        let report = if self.json {
            serde_json::to_string_pretty(&checks)
                .map_err(|error| Failure::new(format!("the report can't be written: {error}")))?
        } else {
            in_words(&checks, self.verbose)
        };
        output::data(report.trim_end());
        if let Some(file) = &self.output {
            output::write_file(file, format!("{}\n", report.trim_end()).as_bytes(), true)?;
        }
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// Settings that are none: everything that is wrong with them in the detail, so that one line of a log says it.
fn refused(findings: Vec<Finding>) -> Checked {
    let detail: Vec<_> = findings
        .iter()
        .map(|finding| format!("{}: {}", finding.pointer, finding.message))
        .collect();
    Checked {
        detail: detail.join("; "),
        ..Checked::bad("configuration", &boot::Error::Config(findings))
    }
}

fn in_words(checks: &[Checked], verbose: bool) -> String {
    let mut text = String::new();
    let below = |text: &mut String, line: &str| {
        let _ = writeln!(text, "     {:<14} {line}", "");
    };
    for check in checks {
        let mark = match check.status {
            Status::Ok => "ok  ",
            Status::Warning => "warn",
            Status::Failed => "FAIL",
        };
        let time = if verbose {
            format!(" ({} ms)", check.ms)
        } else {
            String::new()
        };
        let _ = writeln!(text, "{mark} {:<14} {}{time}", check.what, check.detail);
        // Which files of the engine differ is what whoever is warned asks next.
        let is_told = verbose || check.status == Status::Failed || check.what == "engine";
        if is_told {
            check.lines.iter().for_each(|line| below(&mut text, line));
        }
        for line in check.isolation.iter().flat_map(layers) {
            below(&mut text, &line);
        }
        if let Some(remedy) = &check.remedy {
            below(&mut text, &format!("hint: {remedy}"));
        }
    }
    text
}

/// Every check, each by itself: one that fails keeps none of the others from being made, but for those that need Python.
async fn examine(configuration: Checked, config: Config, required: Option<Tier>) -> Vec<Checked> {
    let mut checks = vec![configuration];
    let begun = Instant::now();
    let engine = Checked::engine(&boot::engine(&config), config.runner.require_intact_engine);
    checks.push(engine.since(begun));
    let begun = Instant::now();
    let protection = Checked::protection(integrity::unset(&config.mode.app_root).as_deref());
    checks.push(protection.since(begun));
    let begun = Instant::now();
    let found = python::find(Some(&config.runner.python.display().to_string()));
    let python = match &found {
        Ok(python) => Checked::good("python", format!("{} at {}", python.version, python.path.display())),
        Err(error) => Checked {
            remedy: crate::error::Coded::hint(error),
            ..Checked::new("python", Status::Failed, error.to_string())
        },
    };
    checks.push(python.since(begun));
    let begun = Instant::now();
    let storage = async {
        let ports = boot::open_store(&config, std::sync::Arc::new(SystemClock))?;
        let prepared = boot::prepare(&ports).await;
        prepared.map_err(|error| boot::storage_failed(&config, error))?;
        Ok::<_, boot::Error>(ports)
    };
    let storage = storage.await;
    let checked = match &storage {
        Ok(_) => Checked::good(
            "storage",
            format!(
                "{}; {}",
                format!("{:?} answers", config.storage.backend).to_lowercase(),
                match config.limits.blob_grace_hours {
                    0 => "blobs that nothing refers to stay, as `WEFT_BLOB_GRACE_HOURS` says".to_owned(),
                    hours => format!("blobs that nothing refers to go after {hours} hours"),
                }
            ),
        ),
        Err(error) => Checked::bad("storage", error),
    };
    checks.push(checked.since(begun));
    if let Ok(ports) = storage {
        let begun = Instant::now();
        let runs = match boot::unreadable_runs(&ports, &tenancy::operator()).await {
            Ok(runs) => Checked::runs(runs),
            Err(error) => Checked::bad("runs", &error),
        };
        checks.push(runs.since(begun));
    }
    if found.is_ok() {
        let begun = Instant::now();
        let isolation = match boot::examine_isolation(&config).await {
            Ok(found) => Checked::isolation(found, required),
            Err(error) => Checked::bad("isolation", &error),
        };
        checks.push(isolation.since(begun));
        let begun = Instant::now();
        let folder = config.runner.workspace_dir.display().to_string();
        let workspace = match boot::check_workspace(config).await {
            Ok(catalog) if catalog.findings.is_empty() => Checked::good(
                "workspace",
                format!("{} workflows in {folder}", catalog.workflows.len()),
            ),
            Ok(catalog) => Checked::bad("workspace", &boot::Error::Workspace(catalog.findings)),
            Err(error) => Checked::bad("workspace", &error),
        };
        checks.push(workspace.since(begun));
    }
    checks
}
