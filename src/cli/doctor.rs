//! `weft doctor`: whether everything that Weft needs is there, and what to mend.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Outcome, Places, block_on, output};
use crate::boot;
use crate::clock::SystemClock;
use crate::config::{Config, Environment};
use crate::domain::{LAYERS, Tier};
use crate::runner::{Isolation, python};

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
}

fn tier(word: &str) -> Result<Tier, String> {
    [Tier::Process, Tier::Confined, Tier::Namespaces]
        .into_iter()
        .find(|tier| tier.as_str() == word)
        .ok_or_else(|| "give `process`, `confined` or `namespaces`".to_owned())
}

#[derive(Debug, Serialize)]
struct Checked {
    what: &'static str,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<Isolation>,
}

impl Checked {
    fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self {
            what,
            ok: true,
            detail: detail.into(),
            hint: None,
            isolation: None,
        }
    }

    fn bad(what: &'static str, error: &boot::Error) -> Self {
        Self {
            what,
            ok: false,
            detail: output::chain(error),
            hint: error.hint(),
            isolation: None,
        }
    }

    /// Whether steps are kept apart as far as they must be.
    fn isolation(found: Isolation, required: Option<Tier>) -> Self {
        let needed = found.minimum.max(required.unwrap_or_default());
        let shortfall = found.posture.shortfall(needed);
        Self {
            what: "isolation",
            ok: shortfall.is_none(),
            hint: shortfall
                .as_ref()
                .map(|_| "docs/operations.md says what each layer needs of the platform".to_owned()),
            detail: match shortfall {
                None => format!("{}; {} is needed", found.posture.tier.as_str(), needed.as_str()),
                Some(shortfall) => shortfall,
            },
            isolation: Some(found),
        }
    }
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
        let mut environment = Environment::of_process();
        self.places.apply(&mut environment);
        let checks = match Config::from_env(&environment) {
            Err(findings) => {
                let detail: Vec<_> = findings
                    .iter()
                    .map(|finding| format!("{}: {}", finding.pointer, finding.message))
                    .collect();
                let error = boot::Error::Config(findings);
                vec![Checked {
                    detail: detail.join("; "),
                    ..Checked::bad("configuration", &error)
                }]
            }
            Ok(config) => block_on(async move { Ok(examine(config, self.require).await) })?,
        };
        let sound = checks.iter().all(|check| check.ok);
        if self.json {
            output::json(&checks);
        } else {
            for check in &checks {
                output::data(&format!(
                    "{} {:<14} {}",
                    if check.ok { "ok  " } else { "FAIL" },
                    check.what,
                    check.detail
                ));
                for line in check.isolation.iter().flat_map(layers) {
                    output::data(&format!("     {:<14} {line}", ""));
                }
                if let Some(hint) = &check.hint {
                    output::data(&format!("     {:<14} hint: {hint}", ""));
                }
            }
        }
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

async fn examine(config: Config, required: Option<Tier>) -> Vec<Checked> {
    let mut checks = vec![Checked::good(
        "configuration",
        format!("{} warning(s)", config.warnings.len()),
    )];
    let found = python::find(Some(&config.runner.python.display().to_string()));
    checks.push(match &found {
        Ok(python) => Checked::good("python", format!("{} at {}", python.version, python.path.display())),
        Err(error) => Checked {
            hint: crate::error::Coded::hint(error),
            ok: false,
            what: "python",
            detail: error.to_string(),
            isolation: None,
        },
    });
    let storage = async {
        let ports = boot::open_store(&config, std::sync::Arc::new(SystemClock))?;
        boot::prepare(&ports).await?;
        Ok::<_, boot::Error>(())
    };
    checks.push(match storage.await {
        Ok(()) => Checked::good(
            "storage",
            format!("{:?} answers", config.storage.backend).to_lowercase(),
        ),
        Err(error) => Checked::bad("storage", &error),
    });
    if found.is_ok() {
        checks.push(match boot::examine_isolation(&config).await {
            Ok(found) => Checked::isolation(found, required),
            Err(error) => Checked::bad("isolation", &error),
        });
        let workspace = config.runner.workspace_dir.display().to_string();
        checks.push(match boot::check_workspace(config).await {
            Ok(catalog) if catalog.findings.is_empty() => Checked::good(
                "workspace",
                format!("{} workflows in {workspace}", catalog.workflows.len()),
            ),
            Ok(catalog) => Checked::bad("workspace", &boot::Error::Workspace(catalog.findings)),
            Err(error) => Checked::bad("workspace", &error),
        });
    }
    checks
}
