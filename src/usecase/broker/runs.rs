//! `runs.*`: runs that a step starts, looks at and waits for.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Asker, Broker, args, refusal, refusal_of};
use crate::domain::RunId;
use crate::runner::Refusal;
use crate::store::repo::runs::{Parent, StoredRun};
use crate::usecase::sub_run::{self, Key, MAX_DEPTH, SubRun};
use crate::usecase::{Error, query_run};

/// How many runs an attempt may start.
const STARTED: u32 = 100;
/// Longest key.
const KEY_CHARS: usize = 256;
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    workflow: String,
    #[serde(default)]
    inputs: Map<String, Value>,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    id: String,
    timeout_seconds: Option<f64>,
}

pub(super) async fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    let Asker::Step { run, parent, .. } = &broker.bound.asker else {
        return Err(broker.not_available(&format!("runs.{verb}")));
    };
    match verb {
        "start" => start(broker, args::read("runs.start", args)?).await,
        "get" => {
            let Get { id } = args::read("runs.get", args)?;
            let found = visible(broker, "runs.get", run, &id).await?;
            shown(broker, found).await
        }
        "wait" => {
            let Wait { id, timeout_seconds } = args::read("runs.wait", args)?;
            let timeout = match timeout_seconds {
                None => MAX_WAIT,
                Some(seconds) => match Duration::try_from_secs_f64(seconds) {
                    Ok(timeout) if timeout <= MAX_WAIT => timeout,
                    _ => {
                        let most = MAX_WAIT.as_secs();
                        return Err(refusal(
                            "invalid",
                            format!("`timeout_seconds` must be from 0 to {most}"),
                        ));
                    }
                },
            };
            let found = visible(broker, "runs.wait", run, &id).await?;
            if found.state.status.is_terminal() {
                return shown(broker, found).await;
            }
            let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
            let above = sub_run::is_above(cx, scope, run, parent.as_ref(), &found.new.run).await;
            if above.map_err(|error| refusal_of(&error))? {
                let message = "a run can't wait for itself, or for one that may wait for it";
                return Err(refusal("invalid", message));
            }
            take_place(broker)?;
            let run = sub_run::wait(cx, scope, found, timeout).await;
            let run = run.map_err(|error| refusal_of(&error))?;
            if run.state.status.is_terminal() {
                *broker.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            shown(broker, run).await
        }
        _ => Err(broker.not_available(&format!("runs.{verb}"))),
    }
}

/// Whoever waits holds a worker slot; one slot must stay for what is waited for. An attempt that waits by and by keeps its
/// place meanwhile.
fn take_place(broker: &Broker) -> Result<(), Refusal> {
    let mut place = broker.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if place.is_none() {
        let free = broker.bound.cx.waiting.clone().try_acquire_owned();
        *place = Some(free.map_err(|_| {
            refusal(
                "unavailable",
                "every worker slot but one is held by steps that wait for other runs, so waiting would end nothing; end \
                 this step without waiting, or try again later",
            )
        })?);
    }
    Ok(())
}

async fn start(broker: &Broker, asked: Start) -> Answer {
    let Asker::Step { run, step, parent, .. } = &broker.bound.asker else {
        return Err(broker.not_available("runs.start"));
    };
    if broker.bound.plan.is_some() {
        // What code starts is not known before it runs, so no plan has it.
        return Err(refusal(
            "denied",
            format!(
                "the run is held to a plan, in which this step starts no run of `{:.63}`: let a node of type `workflow` start it",
                asked.workflow
            ),
        ));
    }
    let depth = parent.as_ref().map_or(0, |parent| parent.depth) + 1;
    if depth > MAX_DEPTH {
        return Err(refusal(
            "denied",
            format!("runs may start runs {MAX_DEPTH} deep, and this one is the last"),
        ));
    }
    let before = broker.started.fetch_add(1, Ordering::Relaxed);
    if before >= STARTED {
        return Err(refusal(
            "denied",
            format!("an attempt may start {STARTED} runs, and this one has"),
        ));
    }
    let key = match asked.key {
        Some(key) if key.is_empty() || key.chars().count() > KEY_CHARS => {
            return Err(refusal("invalid", format!("`key` has 1 to {KEY_CHARS} characters")));
        }
        Some(key) => Key::Given(key),
        None => Key::Ordinal(broker.unkeyed.fetch_add(1, Ordering::Relaxed)),
    };
    broker.pace_writes().await?;
    let bound = &broker.bound;
    let input = SubRun {
        parent: Parent {
            run: run.clone(),
            step: step.clone(),
            depth,
            awaited: None,
        },
        requester: bound.requester.clone(),
        origin: bound.origin.clone(),
        workflow: asked.workflow,
        arguments: asked.inputs,
        key,
        profile: bound.profile,
    };
    let started = sub_run::start(&bound.cx, &bound.scope, input).await;
    let (run, repeated) = started.map_err(|error| refusal_of(&error))?;
    Ok(json!({"id": run.new.run, "status": run.state.status, "repeated": repeated}))
}

async fn visible(broker: &Broker, call: &str, own: &RunId, id: &str) -> Result<StoredRun, Refusal> {
    let bound = &broker.bound;
    let id: RunId = id
        .parse()
        .map_err(|error: crate::domain::IdError| refusal("invalid", error.to_string()))?;
    let found = sub_run::get(&bound.cx, &bound.scope, own, &bound.requester, &id).await;
    let found = found.map_err(|error| refusal_of(&error));
    if let Err(Refusal { code, .. }) = &found
        && code == "not_found"
    {
        broker.record(call, code).await;
    }
    found
}

async fn shown(broker: &Broker, run: StoredRun) -> Answer {
    let values = query_run::values(&broker.bound.cx, &broker.bound.scope, &run).await;
    let [_, result, _] = values.map_err(|error: Error| refusal_of(&error))?;
    let state = &run.state;
    Ok(json!({
        "id": run.new.run,
        "workflow": run.new.workflow,
        "status": state.status,
        "result": result,
        "error": state.error.as_ref().map(|error| json!({"type": error.kind, "message": error.message})),
        "created_at": run.new.created_at,
        "started_at": state.started_at,
        "finished_at": state.finished_at,
    }))
}
