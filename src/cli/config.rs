//! `weft config`: settings of Weft itself: what holds, where it comes from, files to write them in.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::show_profile;
use super::{Failure, Outcome, Settings, load, output};
use crate::config::{Config, Environment, Explained, FileKind, WantedTemplate, env_var, template};
use crate::error::Finding;

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show every effective setting with its origin, as JSON; secrets are masked
    Show(Show),
    /// Say of one setting, or of all, what holds, where it comes from and what that overrides
    Explain(Explain),
    /// Write a file with every setting, commented
    Template(Template),
    /// Show a security profile with its figures, or all of them; and which holds here
    ShowProfile(show_profile::ShowProfile),
    /// Check a file of settings: `file:line:column: code message` for each mistake, and exit code 1
    Validate(Validate),
}

/// Flags of `weft config show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    settings: Settings,
}

/// Flags of `weft config explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A key as in files (`port`), or a variable (`WEFT_PORT`); all of them when missing
    key: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft config template`.
#[derive(Debug, Args)]
pub(super) struct Template {
    /// Where to write it; printed when missing
    file: Option<PathBuf>,
    /// What it is for: `development`, `staging` or `production`
    #[arg(long, value_name = "NAME", value_parser = ["development", "staging", "production"])]
    environment: Option<String>,
    /// The security profile that it names
    #[arg(long, value_name = "NAME", value_parser = profile)]
    profile: Option<String>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

/// Flags of `weft config validate`.
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// The file
    file: PathBuf,
    /// As a project's `weft.yaml`, which may not say everything
    #[arg(long)]
    project: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Show(show) => {
                output::json(&load(&show.settings.environment())?.redacted());
                Ok(ExitCode::SUCCESS)
            }
            Self::Explain(explain) => explain.run(),
            Self::Template(template) => template.run(),
            Self::Validate(validate) => Ok(validate.run()),
            Self::ShowProfile(show) => show.run(),
        }
    }
}

fn profile(word: &str) -> Result<String, String> {
    let Some(variable) = env_var::find("WEFT_SECURITY_PROFILE") else {
        return Err("this build has no security profiles".to_owned());
    };
    match variable.shape {
        env_var::Shape::Choice(words) if !words.contains(&word) => Err(format!("give one of {}", words.join(", "))),
        _ => Ok(word.to_owned()),
    }
}

impl Explain {
    fn run(self) -> Outcome {
        let environment = self.settings.environment();
        let config = load(&environment)?;
        let all = config.explain(&environment);
        let Some(key) = &self.key else {
            if self.json {
                output::json(&json!({"files": files(&environment), "settings": all}));
                return Ok(ExitCode::SUCCESS);
            }
            let row = |one: &Explained| vec![one.name().to_owned(), shown(&one.value), one.origin.clone()];
            let rows = all.iter().filter(|one| one.key.is_some()).map(row);
            output::table(&["SETTING", "VALUE", "ORIGIN"], &rows.collect::<Vec<_>>());
            for file in files(&environment) {
                let there = if file["found"] == true { "read" } else { "not there" };
                output::note(&format!(
                    "{} file {}: {there}",
                    text(&file["kind"]),
                    text(&file["path"])
                ));
            }
            return Ok(ExitCode::SUCCESS);
        };
        let variable = env_var::of_key(key).or_else(|| env_var::find(key));
        let found = variable.and_then(|variable| all.iter().find(|one| one.variable == variable.name));
        let Some(one) = found else {
            let nearest = env_var::nearest_key(key).or_else(|| env_var::nearest(key).map(str::to_owned));
            let hint = match nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "`weft config explain` shows all".to_owned(),
            };
            return Err(Failure::new(format!("there is no setting `{key}`")).hint(hint));
        };
        if self.json {
            output::json(one);
            return Ok(ExitCode::SUCCESS);
        }
        output::data(&format!("{} = {}", one.name(), shown(&one.value)));
        output::data(&format!("  from      {}", one.origin));
        for other in &one.overrides {
            output::data(&format!("  overrides {} in {}", other.value, other.origin));
        }
        output::data(&format!("  default   {}", one.default));
        output::data(&format!("  variable  {}", one.variable));
        output::data(&format!("  meaning   {}", one.meaning));
        Ok(ExitCode::SUCCESS)
    }
}

impl Explained {
    /// The key, or the variable where no file may set it.
    fn name(&self) -> &str {
        self.key.as_deref().unwrap_or(self.variable)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A value as people read it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The files that are looked for, the weakest first.
fn files(environment: &Environment) -> Vec<Value> {
    let files = environment.setting_files().into_iter();
    files
        .map(|(kind, path)| json!({"kind": kind.as_str(), "path": path, "found": path.is_file()}))
        .collect()
}

impl Template {
    fn run(self) -> Outcome {
        let text = template(&WantedTemplate {
            environment: self.environment,
            profile: self.profile,
        });
        let Some(file) = &self.file else {
            output::data(text.trim_end());
            return Ok(ExitCode::SUCCESS);
        };
        output::write_file(file, text.as_bytes(), self.force)?;
        output::note(&format!("wrote {}", file.display()));
        Ok(ExitCode::SUCCESS)
    }
}

impl Validate {
    fn run(self) -> ExitCode {
        let (findings, warnings) = self.check();
        if self.json {
            output::json(&json!({
                "file": self.file,
                "valid": findings.is_empty(),
                "findings": findings,
                "warnings": warnings,
            }));
        } else {
            for (finding, mark) in findings
                .iter()
                .zip(std::iter::repeat(""))
                .chain(warnings.iter().zip(std::iter::repeat("warning: ")))
            {
                output::data(&format!(
                    "{}: {mark}{} {}",
                    finding.pointer, finding.code, finding.message
                ));
                if let Some(hint) = &finding.hint {
                    output::note(&format!("  hint: {hint}"));
                }
            }
            output::note(&format!(
                "{}: {} findings, {} warnings",
                self.file.display(),
                findings.len(),
                warnings.len()
            ));
        }
        if findings.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        }
    }

    /// The file by itself: neither other files nor variables of this process make it right or wrong.
    fn check(&self) -> (Vec<Finding>, Vec<Finding>) {
        let here = Environment::of_process().current_dir().to_owned();
        let path = here.join(&self.file);
        let folder = path.parent().map_or(here, Path::to_owned);
        let mut environment = Environment::of([("", ""); 0]).in_dir(folder);
        let kind = if self.project {
            FileKind::Project
        } else {
            FileKind::Named
        };
        if self.project && !path.is_file() {
            // A project's file may be missing; one that is to be checked may not.
            environment.read_file(FileKind::Named, &path);
        } else {
            environment.read_file(kind, &path);
        }
        match Config::from_env(&environment) {
            Ok(config) => (Vec::new(), config.warnings),
            Err(mut findings) => {
                findings.sort_by_key(|finding| place(&finding.pointer));
                (findings, Vec::new())
            }
        }
    }
}

/// Line and column at the end of `file:line:column`.
fn place(pointer: &str) -> (usize, usize) {
    let mut numbers = pointer.rsplit(':').map(|part| part.parse().unwrap_or_default());
    let (column, line) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    (line, column)
}
