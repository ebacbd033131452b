//! Look at runs: lists, details, steps, logs.

use serde_json::Value;

use super::{Context, Error, Result};
use crate::authz::{Action, Extent, Resource};
use crate::domain::{AttemptId, RunId};
pub use crate::runner::LogLine;
pub use crate::store::port::Continuation;
pub use crate::store::repo::runs::{AttemptRecord, ListedRun, Requester, RunQuery, StoredRun, StoredStep, Timings};
use crate::tenancy::Scope;

/// A page of runs, newest first. Whoever may see own runs only, sees those.
///
/// # Errors
/// When the scope may not, or the cursor is none.
pub async fn list(cx: &Context, scope: &Scope, mut query: RunQuery) -> Result<(Vec<ListedRun>, Option<Continuation>)> {
    if scope.authorize(Action::List, Resource::Run)? == Extent::Own {
        let own = scope.principal().id();
        if query.requester.as_ref().is_some_and(|requester| *requester != own) {
            return Ok((Vec::new(), None));
        }
        query.requester = Some(own);
    }
    let page = cx.runs.list(scope, &query).await;
    page.map_err(|error| Error::of_page(error, query.cursor.is_some()))
}

/// A run with its values.
#[derive(Debug)]
pub struct Details {
    /// The run.
    pub run: StoredRun,
    /// Its arguments.
    pub arguments: Value,
    /// Its result; null while there is none.
    pub result: Value,
    /// `ctx.variables`.
    pub variables: Value,
}

/// One run.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn get(cx: &Context, scope: &Scope, id: &RunId) -> Result<Details> {
    let run = visible(cx, scope, id, Action::Read).await?;
    details(cx, scope, run).await
}

/// A run with its values, for an answer that holds it.
///
/// # Errors
/// When storage fails.
pub async fn details(cx: &Context, scope: &Scope, run: StoredRun) -> Result<Details> {
    let arguments = cx.runs.resolve(scope, &run.new.arguments).await?;
    let result = cx.runs.resolve(scope, &run.result).await?;
    let variables = cx.runs.resolve(scope, &run.variables).await?;
    Ok(Details {
        run,
        arguments,
        result,
        variables,
    })
}

/// A run's steps.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn steps(cx: &Context, scope: &Scope, id: &RunId) -> Result<Vec<StoredStep>> {
    let run = visible(cx, scope, id, Action::Read).await?;
    Ok(cx.runs.steps(scope, &run).await?)
}

/// A part of a run's log.
#[derive(Debug)]
pub struct LogPage {
    /// Lines with the step and the attempt that said them.
    pub lines: Vec<(String, u32, LogLine)>,
    /// Where to go on: the place of the attempt among all, and the offset in its log.
    pub next: (usize, u64),
    /// Whether there is nothing more, now and later.
    pub ended: bool,
}

/// A run's log from a place on, attempt by attempt. At most 1 MiB at once.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn logs(cx: &Context, scope: &Scope, id: &RunId, after: (usize, u64)) -> Result<LogPage> {
    let run = visible(cx, scope, id, Action::Read).await?;
    let mut attempts: Vec<(String, u32, AttemptId)> = Vec::new();
    for step in cx.runs.steps(scope, &run).await? {
        attempts.extend(
            step.attempts
                .into_iter()
                .map(|attempt| (step.id.clone(), attempt.number, attempt.id)),
        );
    }
    let running: Vec<_> = run
        .state
        .running()
        .map(|(slot, attempt)| {
            (
                run.new.plan.steps[slot.0].id.clone(),
                run.state.unit(slot).map_or(1, |unit| unit.attempts),
                attempt.clone(),
            )
        })
        .collect();
    let settled = attempts.len();
    attempts.extend(running);
    let (mut place, mut offset) = after;
    while place < attempts.len() {
        let (step, number, attempt) = &attempts[place];
        let (lines, end) = cx.runs.read_log(scope, id, attempt, offset).await?;
        if lines.is_empty() && place < settled {
            (place, offset) = (place + 1, 0);
            continue;
        }
        let lines = lines.into_iter().map(|line| (step.clone(), *number, line)).collect();
        return Ok(LogPage {
            lines,
            next: (place, end),
            ended: false,
        });
    }
    Ok(LogPage {
        lines: Vec::new(),
        next: (place, offset),
        ended: run.state.status.is_terminal(),
    })
}

/// A run that the scope may use a verb on, or the same "not found" for one that is not there and one that is not its own.
pub(super) async fn visible(cx: &Context, scope: &Scope, id: &RunId, action: Action) -> Result<StoredRun> {
    let extent = scope.authorize(action, Resource::Run)?;
    let run = cx.runs.get(scope, id).await?;
    match run {
        Some(run) if extent == Extent::All || run.new.requester.id == scope.principal().id() => Ok(run),
        _ => Err(Error::not_found(
            "run_not_found",
            format!("there is no run `{id}` in this organization"),
            "check the id and `X-Organization-Id`; `GET /api/runs` lists what you may see",
        )),
    }
}
