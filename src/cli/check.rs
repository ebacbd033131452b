//! `weft check`: the workspace without a server.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;

/// Flags of `weft check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    places: Places,
    /// Print findings and what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        let config = prepare(&self.places)?;
        block_on(async move {
            let checked = boot::check_workspace(config).await.map_err(Failure::from)?;
            if self.json {
                output::json(&json!({
                    "files": checked.files,
                    "ms": checked.ms,
                    "workflows": checked.workflows.keys().collect::<Vec<_>>(),
                    "dataProviders": checked.data_providers.keys().collect::<Vec<_>>(),
                    "findings": checked.findings,
                }));
            } else {
                for finding in &checked.findings {
                    output::data(&format!("{}: {}", finding.pointer, finding.message));
                    if let Some(hint) = &finding.hint {
                        output::note(&format!("  hint: {hint}"));
                    }
                }
                output::note(&format!(
                    "{} files, {} workflows, {} data providers, {} findings",
                    checked.files,
                    checked.workflows.len(),
                    checked.data_providers.len(),
                    checked.findings.len()
                ));
            }
            Ok(if checked.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        })
    }
}
