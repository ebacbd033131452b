//! `weft check`: the workspace without a server.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::error::Finding;
use crate::usecase::policy::refused_by_platform;

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
            let policy = boot::platform_policy(&config).await;
            let checked = boot::check_workspace(config).await.map_err(Failure::from)?;
            let declared = checked.workflows.values().chain(checked.data_providers.values());
            let warnings: Vec<Finding> = match &policy {
                Ok(policy) => declared.flat_map(|one| refused_by_platform(policy, one)).collect(),
                Err(_) => Vec::new(),
            };
            if self.json {
                output::json(&json!({
                    "files": checked.files,
                    "ms": checked.ms,
                    "workflows": checked.workflows.keys().collect::<Vec<_>>(),
                    "dataProviders": checked.data_providers.keys().collect::<Vec<_>>(),
                    "findings": checked.findings,
                    "warnings": warnings,
                    "policyRead": policy.is_ok(),
                }));
            } else {
                for finding in &checked.findings {
                    output::data(&format!("{}: {}", finding.pointer, finding.message));
                    if let Some(hint) = &finding.hint {
                        output::note(&format!("  hint: {hint}"));
                    }
                }
                for warning in &warnings {
                    output::data(&format!("{}: warning: {}", warning.pointer, warning.message));
                    if let Some(hint) = &warning.hint {
                        output::note(&format!("  hint: {hint}"));
                    }
                }
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
            }
            Ok(if checked.findings.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            })
        })
    }
}
