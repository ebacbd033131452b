//! `weft config`: settings and their origins.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Outcome, load, output};
use crate::config::Environment;

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show every effective setting with its origin, as JSON; secrets are masked
    Explain,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Explain => {
                let config = load(&Environment::of_process())?;
                output::json(&config.redacted());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
