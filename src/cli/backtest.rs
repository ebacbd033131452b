//! `weft backtest`: a workflow as it is now over runs that were recorded, without effects, and which of them would differ.
//!
//! The scheduler and the driver are those of a server, over a store in memory; attempts are made again offline, with the answers
//! that were recorded. So steps may have come or gone since.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::records::{Records, Source};
use super::replay::show;
use super::run::local;
use super::{Failure, Outcome, Places, block_on, load, output, quiet};
use crate::boot;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::{Ask, Begins, Declared, Graph, NodeWork, RecordedRun, Status};
use crate::runner::NodeRunner;
use crate::runner::replayed::{Comparison, Replayed, first_difference};
use crate::tenancy::{self, Scope, operator_in};
use crate::usecase::start_run::{StartRun, start_run};
use crate::usecase::{Context, deliver, offer, query_run, signal};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Flags of `weft backtest`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every run would end as it did; 1 one would not, or nothing could be compared; 2 wrong usage."
)]
pub(super) struct Backtest {
    /// The workflow's name
    workflow: String,
    /// How many of its newest recorded runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    against: usize,
    #[command(flatten)]
    records: Records,
    #[command(flatten)]
    places: Places,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A run as it would be now.
struct Tried {
    status: Status,
    result: Value,
    compared: Vec<Comparison>,
    /// In what its end differs, if it does.
    difference: Option<Value>,
}

impl Backtest {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.places.environment();
        environment.prefer_development("weft backtest");
        let config = load(&environment)?;
        quiet(&config)?;
        block_on(async move {
            let source: Source = self.records.open(&environment, &config).await?;
            let runs = source.latest(&self.workflow, self.against).await;
            source.close().await;
            let runs = runs?;
            if runs.is_empty() {
                return Err(
                    Failure::new(format!("no run of `{}` was recorded", output::plain(&self.workflow))).hint(
                        "attempts are recorded as `WEFT_RECORD_ATTEMPTS` says; `--organization` and `--server` say where",
                    ),
                );
            }
            Box::pin(self.test(config, &runs)).await
        })
    }

    async fn test(&self, config: Config, runs: &[RecordedRun]) -> Outcome {
        let home = tempfile::Builder::new().prefix("weft-backtest-").tempdir();
        let home = home.map_err(|error| Failure::new(format!("no temporary folder can be made: {error}")))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut replayed = None;
        let wrap = |runner: Arc<dyn NodeRunner>| {
            let made = Arc::new(Replayed::new(runner, clock));
            replayed = Some(made.clone());
            made as Arc<dyn NodeRunner>
        };
        let base = boot::ephemeral(config, home.path(), wrap, None)?;
        let cx = Arc::new(boot::opened(&base).await?.without_pauses());
        let done = match replayed {
            Some(replayed) => Box::pin(self.all(&cx, &replayed, runs)).await,
            None => Err(Failure::new("there is no runner")),
        };
        cx.leave().await;
        base.runner.shutdown().await;
        done
    }

    async fn all(&self, cx: &Arc<Context>, replayed: &Replayed, runs: &[RecordedRun]) -> Outcome {
        let scope = operator_in(&tenancy::operator(), &local(cx).await?);
        let (_, offered) = offer::get(cx, &scope, &self.workflow, None).await?;
        refuse_people(&offered.declared)?;
        let background = [
            tokio::spawn(deliver::consume(cx.clone())),
            tokio::spawn(signal::listen(Arc::downgrade(cx))),
        ];
        let done = async {
            let (mut shown, mut different) = (Vec::new(), 0);
            for run in runs {
                output::progress(&format!("{} of {}", shown.len() + 1, runs.len()));
                let tried = self.one(cx, &scope, replayed, run).await?;
                output::progress_done();
                let differs = tried.difference.is_some();
                different += usize::from(differs);
                if !self.json {
                    let how = if differs { "would differ" } else { "would end as it did" };
                    output::data(&format!(
                        "{} {how}: {}, now {}",
                        run.run,
                        run.status.as_str(),
                        tried.status.as_str()
                    ));
                    if let Some(difference) = &tried.difference {
                        output::data(&output::plain(&format!(
                            "  {} recorded: {}",
                            difference["at"].as_str().unwrap_or_default(),
                            difference["recorded"]
                        )));
                        output::data(&output::plain(&format!(
                            "  {} now:      {}",
                            difference["at"].as_str().unwrap_or_default(),
                            difference["replayed"]
                        )));
                        for one in tried.compared.iter().filter(|one| one.difference.is_some()) {
                            show(one);
                        }
                    }
                }
                shown.push(json!({
                    "run": run.run,
                    "same": !differs,
                    "recorded": {"status": run.status, "result": run.result, "error": run.error},
                    "replayed": {"status": tried.status, "result": tried.result},
                    "difference": tried.difference,
                    "attempts": tried.compared,
                }));
            }
            if self.json {
                output::json(&json!({"workflow": self.workflow, "different": different, "runs": shown}));
            } else {
                output::note(&format!("{} run(s), {different} would differ", runs.len()));
            }
            Ok(ExitCode::from(u8::from(different > 0)))
        };
        let done = Box::pin(done).await;
        for task in &background {
            task.abort();
        }
        done
    }

    async fn one(
        &self,
        cx: &Arc<Context>,
        scope: &Scope,
        replayed: &Replayed,
        run: &RecordedRun,
    ) -> Result<Tried, Failure> {
        replayed.load(&run.workflow, run.attempts.clone());
        let input = StartRun {
            workflow: self.workflow.clone(),
            arguments: run.arguments.as_object().cloned().unwrap_or_default(),
            wait: Some(PATIENCE),
            idempotency_key: None,
            received_at: cx.clock.now(),
            origin: super::follow::origin("weft backtest"),
            ask: Ask::default(),
            begins: Begins::AtOnce,
            gone: CancellationToken::new(),
            draft: false,
            unindexed: Vec::new(),
        };
        let started = match start_run(cx, scope, input).await {
            Ok(started) => started,
            // The arguments of then may be none of now's.
            Err(error) => {
                return Ok(Tried {
                    status: Status::Failed,
                    result: Value::Null,
                    compared: Vec::new(),
                    difference: Some(json!({
                        "at": "its start", "recorded": run.status, "replayed": output::chain(&error),
                    })),
                });
            }
        };
        let details = query_run::get(cx, scope, &started.run.new.run).await?;
        let state = &details.run.state;
        if !state.status.is_terminal() {
            return Err(Failure::new(format!(
                "run {} does not end within {} s when it is made again",
                run.run,
                PATIENCE.as_secs()
            )));
        }
        let error = |error: Option<&crate::domain::StepError>| {
            error.map(|error| json!({"type": error.kind, "message": error.message}))
        };
        let then = json!({"status": run.status, "error": error(run.error.as_ref()), "result": run.result});
        let now = json!({"status": state.status, "error": error(state.error.as_ref()), "result": details.result});
        let difference = first_difference(&then, &now, String::new()).map(|at| {
            let part = |value: &Value| value.pointer(&at).cloned().unwrap_or(Value::Null);
            json!({"at": at, "recorded": part(&then), "replayed": part(&now)})
        });
        Ok(Tried {
            status: state.status,
            result: details.result,
            compared: replayed.take(),
            difference,
        })
    }
}

/// Nobody is there to decide.
fn refuse_people(workflow: &Declared) -> Result<(), Failure> {
    let asks = |graph: &Graph| {
        graph
            .nodes
            .iter()
            .any(|node| matches!(node.work, NodeWork::Approval { .. }))
    };
    if workflow.graph.as_ref().is_some_and(|graph| asks(graph)) {
        return Err(Failure::new(format!(
            "`{}` asks people, and nobody decides in a backtest",
            workflow.name
        ))
        .hint("`weft replay RUN` makes the attempts of one run again; `weft simulate --outcomes` plays decisions"));
    }
    Ok(())
}
