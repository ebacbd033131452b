//! `weft env`: the packages that the workspace asks for in `requirements.txt`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::runner::environments::{EnvironmentError, Environments, Progress, Report};

/// What to do with the environment.
#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// Show whether the packages are installed, which they are, and the end of the output. Exits with 1 unless they can be
    /// used
    Status(Flags),
    /// Install the packages now, and show the output. Nothing is done when they are installed already
    Build(Flags),
    /// Show the whole output of the last installation
    Log(Flags),
}

/// Flags of all of them.
#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lines of output that the status shows.
const TAIL: usize = 20;
/// Lines of output that the log shows as JSON.
const WHOLE: usize = usize::MAX;

impl Env {
    pub(super) fn run(self) -> Outcome {
        let (Self::Status(flags) | Self::Build(flags) | Self::Log(flags)) = &self;
        let config = prepare(&flags.places)?;
        let environments = boot::environments(&config, Arc::new(SystemClock));
        match &self {
            Self::Status(flags) => {
                let report = environments.report(&config.runner.workspace_dir, TAIL);
                Ok(show(&report, flags.json))
            }
            Self::Build(flags) => build(environments, config, flags.json),
            Self::Log(flags) => log(&environments, &config, flags.json),
        }
    }
}

fn build(environments: Environments, config: Config, json: bool) -> Outcome {
    let workspace = config.runner.workspace_dir;
    let wanted = match environments.wanted(&workspace) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return Ok(show(&environments.report(&workspace, TAIL), json)),
        Err(error) => return Err(failure(error)),
    };
    environments.listen(output::note);
    block_on(async move {
        let mut progress = environments.retry(&wanted);
        let stop = tokio::signal::ctrl_c();
        tokio::select! {
            _ = progress.wait_for(|progress| !matches!(progress, Progress::Building { .. })) => {}
            _ = stop => {
                environments.shutdown().await;
                return Err(Failure::new("stopped; nothing of it is used"));
            }
        }
        let ready = environments.ready(&wanted, Duration::ZERO).await;
        let report = environments.report(&workspace, TAIL);
        match ready {
            Ok(_) => Ok(show(&report, json)),
            Err(_) if json => Ok(show(&report, json)),
            // The output has been shown already, line by line.
            Err(EnvironmentError::Failed(why)) => Err(Failure::new(format!(
                "the packages could not be installed: {}",
                why.message
            ))
            .hint("mend `requirements.txt`; `weft env log` shows the output again")),
            Err(error) => Err(failure(error)),
        }
    })
}

fn log(environments: &Environments, config: &Config, json: bool) -> Outcome {
    let workspace = &config.runner.workspace_dir;
    if json {
        let report = environments.report(workspace, WHOLE);
        output::json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = environments.wanted(workspace).map_err(failure)?;
    let text = wanted.and_then(|wanted| std::fs::read_to_string(environments.log_of(&wanted)).ok());
    match text {
        Some(text) => {
            output::data(text.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Failure::new("nothing was installed for this workspace yet")
            .hint("`weft env build` does so when `requirements.txt` names packages")),
    }
}

fn failure(error: EnvironmentError) -> Failure {
    let findings = crate::error::Coded::findings(&error).to_vec();
    let mut failure = Failure::from(crate::usecase::Error::from(error));
    failure.findings = findings;
    failure
}

fn show(report: &Report, json: bool) -> ExitCode {
    if json {
        output::json(report);
    } else {
        describe(report);
    }
    match report.status.as_str() {
        "ready" | "none" => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    }
}

fn describe(report: &Report) {
    output::data(&format!("status    {}", report.status));
    if let Some(digest) = &report.digest {
        output::data(&format!("digest    {digest}"));
    }
    if let (Some(resolver), Some(ms)) = (&report.resolver, report.duration_ms) {
        output::data(&format!("installed by {resolver} in {}.{:03} s", ms / 1000, ms % 1000));
    }
    for package in &report.packages {
        output::data(&format!("package   {} {}", package.name, package.version));
    }
    if let Some(error) = &report.error {
        output::data(&format!("error     {error}"));
    }
    for finding in &report.findings {
        output::data(&format!("{}: {}", finding.pointer, finding.message));
        if let Some(hint) = &finding.hint {
            output::note(&format!("  hint: {hint}"));
        }
    }
    if matches!(report.status.as_str(), "building" | "failed") {
        for line in &report.log_tail {
            output::data(&format!("  {line}"));
        }
    }
    match report.status.as_str() {
        "none" => output::note("requirements.txt names no packages"),
        "missing" => output::note("hint: run `weft env build`; `weft dev` and the handler do so by themselves"),
        "failed" => output::note("hint: mend requirements.txt, then run `weft env build`"),
        _ => {}
    }
}
