//! Look at runs: lists, details, steps, logs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::admission::{self, Reason, WaitingFor};
use super::values::{Known, Values};
use super::{Context, Error, Result, unreadable, workflow_assignment};
use crate::authz::{Action, Extent, Resource};
use crate::domain::{AttemptId, Payload, RunId, Status, StepError};
pub use crate::runner::LogLine;
use crate::store;
use crate::store::claim_check::Coming;
pub use crate::store::port::Continuation;
use crate::store::repo::quarantines::Quarantined;
pub use crate::store::repo::runs::{
    AttemptRecord, ListedRun, Requester, RunQuery, StoredItem, StoredRun, StoredStep, Timings, Visible,
};
use crate::tenancy::Scope;

/// A page of runs, newest first. Whoever may see own runs only, sees those, and those of workflows that are assigned to them.
///
/// # Errors
/// When the scope may not, or the cursor is none.
pub async fn list(cx: &Context, scope: &Scope, mut query: RunQuery) -> Result<(Vec<ListedRun>, Option<Continuation>)> {
    if scope.authorize(Action::List, Resource::Run)? == Extent::Own {
        let assigned = workflow_assignment::assigned(cx, scope).await?;
        query.visible = Some(Visible {
            requester: scope.principal().id(),
            workflows: assigned.as_ref().clone(),
        });
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
    /// Messages about it that were set aside, newest first; not looked up for an answer that starts it.
    pub quarantined: Vec<Quarantined>,
    /// Why it is not done yet, where that was asked for.
    pub waiting_for: Option<WaitingFor>,
}

/// What can be told of a run that can't be read.
async fn remains(cx: &Context, scope: &Scope, id: &RunId, error: &Error) -> Result<Details> {
    let extent = scope.authorize(Action::Read, Resource::Run)?;
    let remains = unreadable::remains(cx, scope, id, extent).await?;
    without_values(cx, scope, remains.ok_or_else(|| not_found(id))?.run, error).await
}

/// A run without its values, and why.
async fn without_values(cx: &Context, scope: &Scope, mut run: StoredRun, error: &Error) -> Result<Details> {
    let why = unreadable::why(error);
    let waiting_for = (!run.state.status.is_terminal()).then(|| waits_to_be_read(&run, &why));
    run.state
        .error
        .get_or_insert_with(|| StepError::new(unreadable::CODE, why));
    let quarantined = cx.quarantines.of_run(scope, &run.new.run).await?;
    Ok(Details {
        run,
        arguments: Value::Null,
        result: Value::Null,
        variables: Value::Null,
        quarantined,
        waiting_for,
    })
}

fn waits_to_be_read(run: &StoredRun, why: &str) -> WaitingFor {
    WaitingFor {
        reason: Reason::Unreadable,
        detail: format!("{why}; somebody has to end it, or mend what is stored and put it back"),
        since: run.new.created_at,
        until: None,
        position: None,
    }
}

/// One run. Of one that can't be read, what can be told of it.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn get(cx: &Context, scope: &Scope, id: &RunId) -> Result<Details> {
    let run = match visible(cx, scope, id, Action::Read).await {
        Err(error) if unreadable::run_of(&error) == Some(id) => return remains(cx, scope, id, &error).await,
        run => run?,
    };
    let [arguments, result, variables] = match values(cx, scope, &run).await {
        Err(error) if unreadable::run_of(&error) == Some(id) => {
            return without_values(cx, scope, run, &error).await;
        }
        values => values?,
    };
    let quarantined = cx.quarantines.of_run(scope, id).await?;
    // What can't be read may be a step, which nobody looks at here.
    let aside = if !run.state.status.is_terminal() && quarantined.iter().any(Quarantined::is_about_reading) {
        cx.runs.set_aside(scope, &run).await?
    } else {
        None
    };
    let waiting_for = match aside {
        Some(why) => Some(waits_to_be_read(&run, &why)),
        None => admission::why(cx, scope, &run).await?,
    };
    Ok(Details {
        run,
        arguments,
        result,
        variables,
        quarantined,
        waiting_for,
    })
}

/// A run with its values, for an answer that holds it.
///
/// # Errors
/// When one of them can't be read, or storage fails.
pub async fn details(cx: &Context, scope: &Scope, run: StoredRun) -> Result<Details> {
    let [arguments, result, variables] = values(cx, scope, &run).await?;
    Ok(Details {
        run,
        arguments,
        result,
        variables,
        quarantined: Vec::new(),
        waiting_for: None,
    })
}

/// The arguments, the result and the variables of a run.
///
/// # Errors
/// When one of them can't be read, or storage fails.
pub(in crate::usecase) async fn values(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<[Value; 3]> {
    let value = async |payload| {
        let value = cx.runs.resolve(scope, payload).await;
        value.map_err(|error| error.of_run(&run.new.run))
    };
    Ok([
        value(&run.new.arguments).await?,
        value(&run.result).await?,
        value(&run.variables).await?,
    ])
}

/// A run's steps.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn steps(cx: &Context, scope: &Scope, id: &RunId) -> Result<Vec<StoredStep>> {
    let run = visible(cx, scope, id, Action::Read).await?;
    let hidden = hidden_children(cx, scope, &run).await?;
    let mut steps = cx.runs.steps(scope, &run).await?;
    for step in steps.iter_mut().filter(|step| hidden.contains(&step.id)) {
        step.children.clear();
    }
    Ok(steps)
}

/// The steps of a run whose child runs the scope may not know of. They are asked for by whom the run was asked for, so whoever sees
/// it as their own, or sees all, sees them; whoever sees it for its workflow sees those whose workflow they were given as well.
///
/// # Errors
/// When the scope may not look at runs, or storage fails.
pub(super) async fn hidden_children(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<BTreeSet<String>> {
    let extent = scope.authorize(Action::Read, Resource::Run)?;
    if extent == Extent::All || run.new.requester.id == scope.principal().id() {
        return Ok(BTreeSet::new());
    }
    let children: Vec<_> = run
        .new
        .plan
        .steps
        .iter()
        .filter_map(|step| Some((&step.id, step.work.child()?)))
        .collect();
    if children.is_empty() {
        return Ok(BTreeSet::new());
    }
    let assigned = workflow_assignment::assigned(cx, scope).await?;
    let hidden = children
        .into_iter()
        .filter(|(_, workflow)| !assigned.contains(*workflow));
    Ok(hidden.map(|(step, _)| step.clone()).collect())
}

/// A page of the items of a map, or the iterations of a loop, that have been tried, in their order.
///
/// # Errors
/// When the scope may not, there is no such run that it may know of, it has no such step, or the cursor is none.
pub async fn items(
    cx: &Context,
    scope: &Scope,
    (id, step): (&RunId, &str),
    limit: usize,
    cursor: Option<Continuation>,
) -> Result<(Vec<StoredItem>, Option<Continuation>)> {
    let run = visible(cx, scope, id, Action::Read).await?;
    let place = place_of(&run, step)?;
    let has_cursor = cursor.is_some();
    let page = cx.runs.items(scope, &run, place, limit, cursor).await;
    let (mut items, next) = page.map_err(|error| Error::of_page(error, has_cursor))?;
    if hidden_children(cx, scope, &run).await?.contains(step) {
        items.iter_mut().for_each(|item| item.children.clear());
    }
    Ok((items, next))
}

/// What a step, or one of its items, has left.
#[derive(Debug)]
pub struct StepOutput {
    /// Where the step is.
    pub status: Status,
    /// What came out; null while there is nothing.
    pub output: Output,
    /// Why it failed: type and message; null when it hasn't.
    pub error: Value,
}

/// What came out, as it is kept.
pub enum Output {
    /// A value.
    Value(Value),
    /// The text of one that is too large for a row, which is read as it is taken: so many bytes of JSON. It ends in an error before its
    /// last byte when it is not what was written.
    Text(u64, Coming),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(value) => f.debug_tuple("Value").field(value).finish(),
            Self::Text(size, _) => f.debug_tuple("Text").field(size).finish_non_exhaustive(),
        }
    }
}

/// What came out of a step: of a map the list of what came out of its items, of a loop what came out of the last iteration; or of
/// one item.
///
/// # Errors
/// When the scope may not, there is no such run that it may know of, it has no such step or item, that can't be read, or the items
/// of a map have left more than is looked at as one list.
pub async fn output(cx: &Context, scope: &Scope, (id, step): (&RunId, &str), item: Option<u32>) -> Result<StepOutput> {
    let run = visible(cx, scope, id, Action::Read).await?;
    let place = place_of(&run, step)?;
    let state = &run.state.steps[place];
    if let Some(item) = item
        && (item >= state.attempts || run.new.plan.steps[place].work.is_once())
    {
        return Err(no_step(id, &format!("{step:.63}[{item}]")));
    }
    let known = Known::default();
    let values = Values {
        cx,
        scope,
        run: &run,
        state: &run.state,
        known: &known,
    };
    let is_one = item.is_some() || run.new.plan.steps[place].work.is_once();
    let read = async {
        let left = values.left((place, item)).await?;
        let output = match &left.output {
            Payload::Claim(check) if is_one => Output::Text(check.size, cx.runs.coming(scope, check).await?),
            _ => Output::Value(values.output((place, item)).await?),
        };
        Ok(StepOutput {
            status: state.status,
            output,
            error: left.error,
        })
    };
    read.await.map_err(|error: Error| match error {
        Error::Store(store::Error::Unreadable { what, .. } | store::Error::Corrupt { what }) => Error::conflict(
            "step_unreadable",
            format!("what step `{step}` of run `{id}` has left can't be read: {what}"),
            "the other steps can be read; an operator may mend what is stored",
        ),
        error => error,
    })
}

fn place_of(run: &StoredRun, step: &str) -> Result<usize> {
    let place = run.new.plan.position(step);
    place.ok_or_else(|| no_step(&run.new.run, step))
}

fn no_step(id: &RunId, step: &str) -> Error {
    Error::not_found(
        "step_not_found",
        format!("run `{id}` has no step `{step:.80}`"),
        "`GET /api/runs/{id}/steps` lists those that there are",
    )
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

/// A run that the scope may use a verb on, or the same "not found" for one that is not there and one that is not its own. Whoever a
/// workflow is assigned to may look at its runs, but for those that try drafts.
pub(super) async fn visible(cx: &Context, scope: &Scope, id: &RunId, action: Action) -> Result<StoredRun> {
    let extent = scope.authorize(action, Resource::Run)?;
    if extent == Extent::Own
        && action == Action::Read
        && let Some(run) = readable(cx.runs.get(scope, id).await)?
        && !run.new.plan.is_test()
        && workflow_assignment::assigned(cx, scope)
            .await?
            .contains(&run.new.workflow)
    {
        return Ok(run);
    }
    within(cx, scope, id, extent).await
}

/// As [`visible`], of all runs or of the scope's own.
pub(super) async fn within(cx: &Context, scope: &Scope, id: &RunId, extent: Extent) -> Result<StoredRun> {
    let run = match cx.runs.get(scope, id).await {
        Err(error @ store::Error::Unreadable { .. }) => {
            // Nobody else gets to know that there is one.
            let remains = unreadable::remains(cx, scope, id, extent).await?;
            return Err(remains.map_or_else(|| not_found(id), |_| error.into()));
        }
        run => run?,
    };
    match run {
        Some(run) if extent == Extent::All || run.new.requester.id == scope.principal().id() => Ok(run),
        _ => Err(not_found(id)),
    }
}

fn not_found(id: &RunId) -> Error {
    Error::not_found(
        "run_not_found",
        format!("there is no run `{id}` in this organization"),
        "check the id and `X-Organization-Id`; `GET /api/runs` lists what you may see",
    )
}

fn readable(run: store::port::Result<Option<StoredRun>>) -> Result<Option<StoredRun>> {
    match run {
        Err(store::Error::Unreadable { .. }) => Ok(None),
        run => Ok(run?),
    }
}

/// As [`visible`]; of a run that can't be read, what is left of it.
pub(super) async fn visible_or_remains(cx: &Context, scope: &Scope, id: &RunId, action: Action) -> Result<StoredRun> {
    match visible(cx, scope, id, action).await {
        Err(error) if unreadable::run_of(&error) == Some(id) => {
            let extent = scope.authorize(action, Resource::Run)?;
            let remains = unreadable::remains(cx, scope, id, extent).await?;
            Ok(remains.ok_or_else(|| not_found(id))?.run)
        }
        run => run,
    }
}
