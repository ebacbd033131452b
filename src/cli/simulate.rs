//! `weft simulate`: a workflow file by itself: no server, no data that is kept.
//!
//! The scheduler, the driver and the jail are those of a server; the store is in memory and the folder goes when the command
//! ends. With `--dry-run` nothing is executed; with `--outcomes` no process is started for a step, what is written down is played.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::dev::ticks;
use super::follow::{Manner, follow, origin};
use super::inputs::{Inputs, read_text};
use super::place::{Place, chosen};
use super::run::local;
use super::{Failure, Outcome, Settings, block_on, load, output, quiet};
use crate::boot;
use crate::config::Config;
use crate::definition::{DryStep, dry_run};
use crate::domain::{self, Ask, Begins, Declared, RunId, StepError};
use crate::runner::NodeRunner;
use crate::runner::played::Played;
use crate::tenancy::{self, Scope, operator_in};
use crate::usecase::approval::{self, Word};
use crate::usecase::start_run::{StartRun, start_run};
use crate::usecase::{Context, deliver, signal};

/// Flags of `weft simulate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it succeeded, or would be started; 1 it failed, or was not started; 2 wrong usage; 3 it timed \
                        out; 130 Ctrl-C cancelled it. Pauses take their time, but for those of a run that plays outcomes."
)]
pub(super) struct Simulate {
    /// File with the workflow: a graph or steps (.json, .yaml), or Python (.py)
    file: PathBuf,
    /// Which workflow, where the file has several
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Execute nothing: show the steps in order, with everything filled in that is known
    #[arg(long, conflicts_with = "outcomes")]
    dry_run: bool,
    /// Play these outcomes instead of executing steps: `{"step": [{"succeeded": 1}, {"failed": {"type": "…", "message": "…"}}]}`
    #[arg(long, value_name = "FILE")]
    outcomes: Option<String>,
    /// Folder with the functions that it calls; the workspace that the file lies in when missing
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Print one JSON document, and not the result alone
    #[arg(long)]
    json: bool,
}

/// What a step is made to end as.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Ending {
    /// With a value.
    Succeeded(Value),
    /// With an error.
    Failed(Reason),
    /// By its time limit.
    TimedOut(Reason),
    /// For an approval: what people say.
    Approved(bool),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reason {
    #[serde(rename = "type")]
    kind: Option<String>,
    message: String,
    retriable: Option<bool>,
}

impl Reason {
    fn error(self, kind: &str) -> StepError {
        let mut error = StepError::new(self.kind.unwrap_or_else(|| kind.to_owned()), self.message);
        error.retriable = self.retriable;
        error
    }
}

type Outcomes = BTreeMap<String, Vec<Ending>>;
/// What attempts of each step end as.
type Attempts = BTreeMap<String, Vec<domain::Outcome>>;

impl Simulate {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.settings.environment();
        environment.prefer_development("weft simulate");
        let here = environment.current_dir().to_owned();
        let mut config = load(&environment)?;
        quiet(&config)?;
        let outcomes = self.outcomes.as_deref().map(read_outcomes).transpose()?;
        let home = tempfile::Builder::new().prefix("weft-simulate-").tempdir();
        let home = home.map_err(|error| Failure::new(format!("no temporary folder can be made: {error}")))?;
        let place = Place::find(
            &here.join(&self.file),
            self.workspace.as_ref().map(|path| here.join(path)),
        )?;
        config.runner.workspace_dir = place.lay_out(home.path())?;
        block_on(self.work(config, home.path(), place.inside, outcomes))
    }

    async fn work(self, config: Config, home: &Path, inside: String, outcomes: Option<Outcomes>) -> Outcome {
        let manner = Manner {
            json: self.json,
            debug: config.telemetry.debug,
        };
        let (played, decisions) = split(outcomes.as_ref());
        let wrap = |runner: Arc<dyn NodeRunner>| match played {
            Some(played) => Arc::new(Played::new(runner, played)) as Arc<dyn NodeRunner>,
            None => runner,
        };
        let base = boot::ephemeral(config, home, wrap, None)?;
        let cx = boot::opened(&base).await?;
        let cx = Arc::new(if outcomes.is_some() { cx.without_pauses() } else { cx });
        let done = Box::pin(self.simulate(&cx, &inside, outcomes.as_ref(), &decisions, manner)).await;
        cx.leave().await;
        base.runner.shutdown().await;
        done
    }

    async fn simulate(
        &self,
        cx: &Arc<Context>,
        inside: &str,
        outcomes: Option<&Outcomes>,
        decisions: &BTreeMap<String, bool>,
        manner: Manner,
    ) -> Outcome {
        let current = cx.catalogs.current().await?;
        let workflow = chosen(&current.catalog, inside, (&self.file, self.workflow.as_deref()))?;
        let arguments = self.inputs.of(workflow)?;
        if let (Some(outcomes), Some(graph)) = (outcomes, &workflow.graph) {
            let unknown: Vec<_> = outcomes
                .keys()
                .filter(|step| graph.nodes.iter().all(|node| node.id != **step) && step.as_str() != "main")
                .map(|step| format!("`{step}`"))
                .collect();
            if !unknown.is_empty() {
                output::note(&format!(
                    "note: {} of the outcomes is no step of `{}`; it may be one of a workflow that this one starts",
                    unknown.join(", "),
                    workflow.name
                ));
            }
        }
        if self.dry_run {
            return Ok(self.show(workflow, &arguments.whole));
        }
        let platform = tenancy::operator();
        let scope = operator_in(&platform, &local(cx).await?);
        let background = [
            tokio::spawn(deliver::consume(cx.clone())),
            tokio::spawn(ticks(cx.clone())),
            tokio::spawn(signal::listen(Arc::downgrade(cx))),
        ];
        let done = async {
            let input = StartRun {
                draft: false,
                workflow: workflow.name.clone(),
                arguments: arguments.given,
                wait: None,
                idempotency_key: None,
                received_at: cx.clock.now(),
                origin: origin("weft simulate"),
                ask: Ask::default(),
                begins: Begins::AtOnce,
                gone: CancellationToken::new(),
                unindexed: Vec::new(),
            };
            let started = start_run(cx, &scope, input).await?;
            let id = &started.run.new.run;
            output::note(&format!("simulating `{}`", workflow.name));
            let scope = &scope;
            Box::pin(follow(cx, scope, id, manner, |step, needed| async move {
                match decisions.get(&step) {
                    Some(approved) => decide(cx, scope, (id, &step), needed, *approved).await,
                    None => {
                        output::note(&format!(
                            "hint: nobody decides on `{step}` here; write `{{\"{step}\": [{{\"approved\": true}}]}}` into `--outcomes`"
                        ));
                        Ok(())
                    }
                }
            }))
            .await
        };
        let done = Box::pin(done).await;
        for task in &background {
            task.abort();
        }
        done
    }

    fn show(&self, workflow: &Declared, arguments: &Map<String, Value>) -> ExitCode {
        let (steps, result) = dry_run(workflow, arguments);
        let is_wrong = steps.iter().any(|step| !step.wrong.is_empty());
        if self.json {
            output::json(&json!({
                "workflow": workflow.name,
                "dryRun": true,
                "arguments": arguments,
                "steps": steps,
                "result": result,
            }));
        } else {
            output::data(&format!("{} with {}", workflow.name, json!(arguments)));
            for (number, step) in steps.iter().enumerate() {
                describe(number + 1, step);
            }
            if let Some(result) = result {
                output::data(&format!("result: {result}"));
            }
            output::note(&format!("{} steps, nothing was executed", steps.len()));
        }
        ExitCode::from(u8::from(is_wrong))
    }
}

/// A step of a dry run, in lines.
fn describe(number: usize, step: &DryStep) {
    let mut line = format!("{number}. {} ({})", step.id, step.kind);
    if step.phase != domain::Phase::Main {
        line = format!("{line}, phase {}", json!(step.phase).as_str().unwrap_or_default());
    }
    if !step.after.is_empty() {
        line = format!("{line}, after {}", step.after.join(", "));
    }
    output::data(&line);
    if let Some(when) = &step.when {
        let what = match step.runs {
            Some(true) => "true",
            Some(false) => "false: it is skipped",
            None => "depends on earlier steps",
        };
        output::data(&format!("   when: {when} ({what})"));
    }
    for (name, value) in &step.says {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        output::data(&format!("   {name}: {value}"));
    }
    for wrong in &step.wrong {
        output::data(&format!("   would fail: {wrong}"));
    }
}

/// What attempts end as, and what people say.
fn split(outcomes: Option<&Outcomes>) -> (Option<Attempts>, BTreeMap<String, bool>) {
    let Some(outcomes) = outcomes else {
        return (None, BTreeMap::new());
    };
    let mut decisions = BTreeMap::new();
    let mut played = BTreeMap::new();
    for (step, endings) in outcomes {
        let mut list = Vec::new();
        for ending in endings.iter().cloned() {
            match ending {
                Ending::Succeeded(value) => list.push(domain::Outcome::Succeeded { value }),
                Ending::Failed(reason) => list.push(domain::Outcome::Failed {
                    error: reason.error("failed"),
                }),
                Ending::TimedOut(reason) => list.push(domain::Outcome::TimedOut {
                    error: reason.error("time_limit"),
                }),
                Ending::Approved(approved) => {
                    decisions.insert(step.clone(), approved);
                }
            }
        }
        played.insert(step.clone(), list);
    }
    (Some(played), decisions)
}

/// Lets as many people as are needed say the same.
async fn decide(
    cx: &Arc<Context>,
    scope: &Scope,
    (id, step): (&RunId, &str),
    needed: u32,
    approved: bool,
) -> Result<(), Failure> {
    for person in 1..=needed {
        let word = Word {
            approved,
            comment: None,
        };
        let name = format!("person {person}");
        approval::decide_as(cx, scope, &origin("weft simulate"), (id, step), &name, word).await?;
        // One is enough to refuse.
        if !approved {
            break;
        }
    }
    Ok(())
}

fn read_outcomes(path: &str) -> Result<Outcomes, Failure> {
    let text = read_text(path)?;
    let wrong = |message: String| {
        Failure::new(format!("`{path}` has no outcomes: {message}")).hint(
            r#"write {"step": [{"succeeded": {"id": 1}}, {"failed": {"type": "ValueError", "message": "no"}}, {"timed_out": {}}, {"approved": true}]}"#,
        )
    };
    let steps: BTreeMap<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut outcomes = Outcomes::new();
    for (step, said) in steps {
        let list = match said {
            Value::Array(list) => list,
            one => vec![one],
        };
        let list = list.into_iter().map(serde_json::from_value);
        let list: Result<Vec<Ending>, _> = list.collect();
        outcomes.insert(
            step.clone(),
            list.map_err(|error| wrong(format!("step `{step}`: {error}")))?,
        );
    }
    Ok(outcomes)
}
