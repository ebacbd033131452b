//! Follows a run for somebody at a terminal: what happens goes to stderr, what came out to stdout, how it ended is the exit code.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, output};
use crate::authz::Origin;
use crate::domain::{RunId, Status, StepError};
use crate::tenancy::Scope;
use crate::usecase::run_event::Happening;
use crate::usecase::watch::{self, Wanted};
use crate::usecase::{Context, Error, control_run, query_run};

/// Exit code of a run that failed.
const FAILED: u8 = 1;
/// Of one that was ended by its time limit.
const TIMED_OUT: u8 = 3;
/// Of one that somebody else cancelled.
const CANCELLED: u8 = 4;
/// Of one that Ctrl-C cancelled: as a shell has it.
const INTERRUPTED: u8 = 130;

/// How to show a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// One JSON document on stdout instead of the result alone.
    pub(super) json: bool,
    /// Tracebacks of failures.
    pub(super) debug: bool,
}

/// Where requests of the command line come from.
pub(super) fn origin(command: &str) -> Origin {
    Origin {
        endpoint: command.to_owned(),
        ..Origin::default()
    }
}

/// Follows a run to its end, and cancels it on Ctrl-C. `decide` answers the approvals that are asked for meanwhile; it is given
/// the step, and says nothing where nobody will.
pub(super) async fn follow<D, F>(
    cx: &Arc<Context>,
    scope: &Scope,
    id: &RunId,
    manner: Manner,
    decide: D,
) -> Result<ExitCode, Failure>
where
    D: Fn(String, u32) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Failure::new(format!("signals can't be received: {error}")))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Failure::new(format!("signals can't be received: {error}")))?;
    let mut watcher = watch::open(cx, scope, id, Wanted::default()).await?;
    let mut running = BTreeSet::new();
    let mut interrupted = false;
    loop {
        let told = tokio::select! {
            biased;
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            told = watcher.next() => Some(told?),
        };
        let Some(told) = told else {
            output::progress_done();
            // A second Ctrl-C is not patient.
            if interrupted {
                output::note(&format!("run {id} is left to itself"));
                return Ok(ExitCode::from(INTERRUPTED));
            }
            interrupted = true;
            output::note("cancelling");
            let from = origin("cli");
            let cancelled = tokio::select! {
                biased;
                _ = interrupt.recv() => {
                    output::note(&format!("run {id} is left to itself"));
                    return Ok(ExitCode::from(INTERRUPTED));
                }
                cancelled = control_run::cancel(cx, scope, &from, id) => cancelled,
            };
            match cancelled {
                Ok(_) => {}
                // It was faster.
                Err(Error::Request { code: "run_ended", .. }) => interrupted = false,
                Err(error) => return Err(error.into()),
            }
            continue;
        };
        output::progress_done();
        for event in &told.events {
            if let Some(line) = line(&event.what) {
                output::note(&line);
            }
            if let Happening::StepStatus { step, status, .. } = &event.what {
                if *status == Status::Running {
                    running.insert(step.clone());
                } else {
                    running.remove(step);
                }
            }
            if let Happening::ApprovalAsked { step, needed, .. } = &event.what {
                decide(step.clone(), *needed).await?;
            }
        }
        if told.ended.is_some() || watcher.is_leaving() {
            break;
        }
        if !running.is_empty() {
            let names: Vec<_> = running.iter().map(String::as_str).collect();
            output::progress(&format!("running {}", names.join(", ")));
        }
    }
    show(cx, scope, id, manner, interrupted).await
}

/// What came of a run.
async fn show(
    cx: &Arc<Context>,
    scope: &Scope,
    id: &RunId,
    manner: Manner,
    interrupted: bool,
) -> Result<ExitCode, Failure> {
    let details = query_run::get(cx, scope, id).await?;
    let state = &details.run.state;
    let ran_ms = match (state.started_at, state.finished_at) {
        (Some(from), Some(to)) => Some(u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)),
        _ => None,
    };
    if manner.json {
        let steps = query_run::steps(cx, scope, id).await?;
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "id": step.id,
                    "type": step.kind,
                    "status": step.status,
                    "attempts": step.attempts_begun,
                    "branch": step.branch,
                    "startedAt": step.started_at,
                    "finishedAt": step.finished_at,
                })
            })
            .collect();
        output::json(&json!({
            "run": id,
            "workflow": details.run.new.workflow,
            "organization": scope.org(),
            "status": state.status,
            "arguments": details.arguments,
            "result": details.result,
            "error": state.error,
            "durationMs": ran_ms,
            "steps": steps,
        }));
    }
    let time = ran_ms.map(|ms| format!(" after {ms} ms")).unwrap_or_default();
    let code = match state.status {
        Status::Succeeded => {
            output::note(&format!("run {id} succeeded{time}"));
            if !manner.json {
                output::json(&details.result);
            }
            return Ok(ExitCode::SUCCESS);
        }
        Status::Cancelled => {
            output::note(&format!("run {id} was cancelled{time}"));
            if interrupted { INTERRUPTED } else { CANCELLED }
        }
        Status::TimedOut => TIMED_OUT,
        _ => FAILED,
    };
    if let Some(error) = state.error.as_ref().filter(|_| state.status != Status::Cancelled) {
        output::note(&format!("run {id} {}{time}: {}", words(state.status), sentence(error)));
        match &error.traceback {
            Some(traceback) if manner.debug => output::note(traceback.trim_end()),
            Some(_) => output::note("hint: the traceback is shown with `WEFT_ENABLE_DEBUG_MODE=true`"),
            None => {}
        }
    }
    Ok(ExitCode::from(code))
}

fn sentence(error: &StepError) -> String {
    let step = error
        .step
        .as_ref()
        .map(|step| format!(" (step `{step}`)"))
        .unwrap_or_default();
    format!("{}: {}{step}", error.kind, error.message)
}

/// The same without what follows its first line, which the log has.
fn first_line(error: &StepError) -> String {
    match error.message.split_once('\n') {
        Some((first, _)) => format!("{}: {first} …", error.kind),
        None => sentence(error),
    }
}

/// A status as a sentence has it.
fn words(status: Status) -> &'static str {
    match status {
        Status::TimedOut => "timed out",
        other => other.as_str(),
    }
}

/// A step, with the item that it is about.
fn of(step: &str, item: Option<u32>) -> String {
    item.map_or_else(|| step.to_owned(), |item| format!("{step}[{item}]"))
}

/// An event as a line; none for what says nothing to a person who looks on.
fn line(what: &Happening) -> Option<String> {
    Some(match what {
        Happening::StepStatus {
            step,
            item,
            status,
            attempt,
        } => {
            let which = if *attempt > 1 && *status == Status::Running {
                format!(" (attempt {attempt})")
            } else {
                String::new()
            };
            format!("{} {}{which}", of(step, *item), words(*status))
        }
        Happening::RetryPlanned {
            step,
            item,
            attempt,
            due,
            error,
        } => format!(
            "{} attempt {attempt} failed, the next is at {due}: {}",
            of(step, *item),
            first_line(error)
        ),
        Happening::StepsEnded { status, steps, count } => {
            let more = count.saturating_sub(steps.len());
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("{}{more} {}", steps.join(", "), words(*status))
        }
        Happening::ItemsCounted { step, items } => format!("{step} has {items} items"),
        Happening::BranchChosen { step, branch } => match branch {
            Some(branch) => format!("{step} takes `{branch}`"),
            None => format!("{step} takes no branch"),
        },
        Happening::Paused { step, until } => format!("{step} waits until {until}"),
        Happening::ChildStarted { step, item, child } => format!("{} started run {child}", of(step, *item)),
        Happening::ApprovalAsked { step, needed, until } => {
            format!("{step} waits for {needed} approval(s), until {until}")
        }
        Happening::ApprovalGiven { step, by, approved } => {
            format!("{step} {} by {by}", if *approved { "approved" } else { "rejected" })
        }
        Happening::PhaseBegun { phase } => format!("phase {}", json!(phase).as_str().unwrap_or_default()),
        Happening::MessageSetAside { queue, failure, .. } => {
            let failure = failure.as_ref().map(|failure| format!(": {failure}"));
            format!("a message of {queue} was set aside{}", failure.unwrap_or_default())
        }
        Happening::Unreadable { sequence, .. } => format!("what happened at {sequence} can't be read"),
        Happening::TakenOver { .. } => "taken over by another instance".to_owned(),
        Happening::Log {
            step,
            item,
            stream,
            level,
            message,
            fields,
            ..
        } => {
            let mark = match stream.as_str() {
                "log" | "network" => format!(" {level}"),
                "stderr" => " stderr".to_owned(),
                _ => String::new(),
            };
            let fields = fields
                .as_ref()
                .filter(|fields| **fields != Value::Null && **fields != json!({}));
            let fields = fields.map(|fields| format!(" {fields}")).unwrap_or_default();
            format!("{}{mark} | {message}{fields}", of(step, *item))
        }
        Happening::Checkpoint { step, item, name, .. } => format!("{} reached {name}", of(step, *item)),
        Happening::RunStatus { .. } | Happening::Other { .. } => return None,
    })
}
