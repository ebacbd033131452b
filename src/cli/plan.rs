//! `weft plan`: what a run would do, without a server and without doing it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::follow::origin;
use super::inputs::Inputs;
use super::place::{Place, chosen};
use super::run::local;
use super::{Failure, Outcome, Settings, block_on, load, output, quiet};
use crate::boot;
use crate::domain::SecurityProfile;
use crate::tenancy::{self, operator_in};
use crate::usecase::plan::{self, Planned};

/// Flags of `weft plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 a run would be started; 1 it would be refused, or can't be planned; 2 wrong usage."
)]
pub(super) struct PlanCommand {
    /// File with the workflow: a graph or steps (.json, .yaml), or Python (.py)
    file: PathBuf,
    /// Which workflow, where the file has several
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Under this security profile, where that is stricter than the others
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    profile: Option<SecurityProfile>,
    /// Folder with the functions that it calls; the workspace that the file lies in when missing
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Print the whole manifest as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn profile(word: &str) -> Result<SecurityProfile, String> {
    SecurityProfile::parse(word).ok_or_else(|| {
        let names = SecurityProfile::ALL.map(SecurityProfile::as_str);
        format!("give one of {}", names.join(", "))
    })
}

impl PlanCommand {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.settings.environment();
        environment.prefer_development("weft plan");
        let here = environment.current_dir().to_owned();
        let mut config = load(&environment)?;
        quiet(&config)?;
        let home = tempfile::Builder::new().prefix("weft-plan-").tempdir();
        let home = home.map_err(|error| Failure::new(format!("no temporary folder can be made: {error}")))?;
        let workspace = self.workspace.as_ref().map(|path| here.join(path));
        let place = Place::find(&here.join(&self.file), workspace)?;
        config.runner.workspace_dir = place.lay_out(home.path())?;
        block_on(async {
            let base = boot::ephemeral(config, home.path(), |runner| runner, None)?;
            let cx = Arc::new(boot::opened(&base).await?);
            let planned = Box::pin(self.plan(&cx, &place.inside)).await;
            cx.leave().await;
            base.runner.shutdown().await;
            let planned = planned?;
            if self.json {
                output::json(&json!({
                    "hash": planned.hash,
                    "startable": planned.refused.is_empty(),
                    "refused": planned.refused,
                    "manifest": planned.manifest,
                }));
            } else {
                show(&planned);
            }
            Ok(if planned.refused.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            })
        })
    }

    async fn plan(&self, cx: &Arc<crate::usecase::Context>, inside: &str) -> Result<Planned, Failure> {
        let scope = operator_in(&tenancy::operator(), &local(cx).await?);
        let current = cx.catalogs.current().await?;
        let workflow = chosen(&current.catalog, inside, (&self.file, self.workflow.as_deref()))?;
        let arguments = self.inputs.of(workflow)?;
        let origin = origin("weft plan");
        let planned = plan::make(
            cx,
            &scope,
            &origin,
            &workflow.name,
            &arguments.given,
            (self.profile, false),
        )
        .await?;
        Ok(planned)
    }
}

fn show(planned: &Planned) {
    let manifest = &planned.manifest;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let listed = |value: &Value| match value {
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Null => "?".to_owned(),
        other => text(other),
    };
    let rows: Vec<Vec<String>> = manifest["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, step)| {
            let effects = &step["effects"];
            let of = |name: &str| {
                if effects.is_null() {
                    "-".to_owned()
                } else {
                    listed(&effects[name])
                }
            };
            let says = &step["says"];
            let does = [
                "command",
                "use",
                "workflow",
                "url",
                "condition",
                "template",
                "value",
                "question",
                "seconds",
                "items",
            ];
            let does = does
                .iter()
                .find_map(|name| says.get(*name))
                .map(listed)
                .unwrap_or_default();
            let does: String = does.replace('\n', " ").chars().take(60).collect();
            vec![
                (index + 1).to_string(),
                text(&step["id"]),
                text(&step["type"]),
                listed(&step["after"]),
                does,
                of("network"),
                of("secrets"),
            ]
        })
        .collect();
    output::table(&["#", "STEP", "TYPE", "AFTER", "DOES", "NETWORK", "SECRETS"], &rows);
    let profile = &manifest["profile"];
    output::note(&format!(
        "profile {} (chosen by the {}), at most {} s; nothing was executed",
        text(&profile["name"]),
        text(&profile["chosenBy"]),
        manifest["runSeconds"]
    ));
    for finding in &planned.refused {
        output::note(&format!("refused: {}", finding.message));
        if let Some(hint) = &finding.hint {
            output::note(&format!("  hint: {hint}"));
        }
    }
    output::data(&format!("plan {}", planned.hash));
}
