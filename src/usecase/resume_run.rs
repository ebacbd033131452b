//! Go on where a run has failed: a new run, in which what had succeeded is not done again.
//!
//! A run that has ended stays as it ended. The new one takes over the values of its steps by reference, with the code that the
//! first run was pinned to or with the current one; a step that the current code doesn't know, or knows as something else, is
//! not taken over.

use std::sync::Arc;

use serde_json::{Value, json};

use super::launch::{self, Launch, Prepared};
use super::{Context, Error, Result, query_run, resolve, start_run};
use crate::authz::{Action, Origin};
use crate::domain::{Ask, RunId, Status};
use crate::scheduler::{Carried, Plan};
use crate::store;
use crate::store::repo::runs::{StoredRun, resumed_run};
use crate::tenancy::Scope;

/// How many runs, each of which resumes the next, may stand behind a run: it looks through them for what it takes over.
pub(super) const MOST_RESUMED: usize = 32;

/// Which code a resumed run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeOf {
    /// What the first run was pinned to.
    Pinned,
    /// What the workspace has now.
    Current,
}

/// Resumes a run, with its priority and its concurrency key; whether an earlier request has: with the same idempotency key, or
/// without one.
///
/// # Errors
/// When the scope may not, there is no such run, it has not failed, or it can't be planned with the current code.
pub async fn resume(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    id: &RunId,
    code: CodeOf,
    idempotency_key: Option<&str>,
) -> Result<(StoredRun, bool)> {
    let before = query_run::visible(cx, scope, id, Action::Modify).await?;
    let status = before.state.status;
    if !status.is_terminal() {
        return Err(Error::conflict(
            "run_not_ended",
            format!("run `{id}` has not ended; it is {}", status.as_str()),
            "wait for its end, or cancel it first",
        ));
    }
    if status == Status::Succeeded {
        return Err(Error::conflict(
            "run_succeeded",
            format!("run `{id}` has succeeded: there is nothing to resume"),
            "`POST /api/runs/{id}/rerun` runs it once more",
        ));
    }
    let cause = match idempotency_key {
        Some(key) => format!("key:{}:{key}", scope.principal().id()),
        // Whoever resumes a run again, or at the same moment, is led to the run that goes on with it.
        None => format!("once:{code:?}"),
    };
    let new = resumed_run(scope, id, &cause);
    let asked = launch::digest_of_code(&before.new.arguments_digest, &format!("resume {code:?}"));
    if let Some(earlier) = cx.runs.get(scope, &new).await? {
        if idempotency_key.is_some() {
            start_run::same_request(&earlier, &asked)?;
        }
        return Ok((earlier, true));
    }
    start_run::refuse_taken_key(cx, scope, &before.new.ask).await?;
    if behind(cx, scope, &before).await? > MOST_RESUMED {
        return Err(Error::conflict(
            "resumed_too_often",
            format!("{MOST_RESUMED} runs stand behind run `{id}`, each of which resumes the one before it"),
            "`POST /api/runs/{id}/rerun` runs it from its beginning",
        ));
    }
    let mut prepared = match code {
        CodeOf::Pinned => {
            resolve::still_trusted(cx, scope, origin, &before.new.plan).await?;
            cx.runs.rely(scope, &before.new.arguments).await?;
            Prepared {
                workflow: before.new.workflow.clone(),
                plan: Plan::clone(&before.new.plan),
                arguments: before.new.arguments.clone(),
                arguments_digest: before.new.arguments_digest.clone(),
                since: None,
            }
        }
        CodeOf::Current => {
            let Value::Object(arguments) = cx.runs.resolve(scope, &before.new.arguments).await? else {
                return Err(store::Error::corrupt("the arguments of a run are no object").into());
            };
            launch::prepare(
                cx,
                scope,
                origin,
                &before.new.workflow,
                &arguments,
                before.new.plan.profile,
            )
            .await?
        }
    };
    prepared.arguments_digest.clone_from(&asked);
    let carried = carried(&before, &prepared.plan);
    let steps: Vec<&str> = carried
        .iter()
        .map(|one| prepared.plan.steps[one.step].id.as_str())
        .collect();
    let detail = json!({"resumes": id, "code": if code == CodeOf::Pinned { "pinned" } else { "current" }, "carried": steps.len()});
    if !carried.is_empty() {
        match cx.retention.keep_for(scope, id, &new, cx.clock.now()).await {
            Err(store::Error::PreconditionFailed { .. }) => {
                return Err(Error::not_found(
                    "run_not_found",
                    format!("run `{id}` was deleted at this moment: its time was over"),
                    "run the workflow anew",
                ));
            }
            kept => kept?,
        }
    }
    let launch = Launch {
        run: new,
        prepared,
        requester: start_run::requester(scope),
        origin,
        ask: Ask {
            priority: before.new.ask.priority,
            concurrency: before.new.ask.concurrency.clone(),
            // Of the same code it is the same plan.
            plan: before.new.ask.plan.clone().filter(|_| code == CodeOf::Pinned),
            ..Ask::default()
        },
        parent: None,
        cause: detail,
        resumes: Some((id.clone(), carried)),
    };
    let (run, repeated) = launch::enqueue(cx, scope, launch).await?;
    if idempotency_key.is_some() {
        start_run::same_request(&run, &asked)?;
    }
    Ok((run, repeated))
}

/// How many runs would stand behind one that resumes a run, each of which resumes the one before it. More than
/// [`MOST_RESUMED`] are not counted.
async fn behind(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<usize> {
    let (mut count, mut before) = (1, run.new.resumes.clone());
    while let Some(id) = before.filter(|_| count <= MOST_RESUMED) {
        count += 1;
        before = cx.runs.get(scope, &id).await?.and_then(|run| run.new.resumes);
    }
    Ok(count)
}

/// What need not be done again: steps that have succeeded and are still the same kind of step.
fn carried(before: &StoredRun, plan: &Plan) -> Vec<Carried> {
    let same = |step: usize| {
        let planned = &plan.steps[step];
        let place = before.new.plan.position(&planned.id)?;
        let state = &before.state.steps[place];
        let alike = std::mem::discriminant(&before.new.plan.steps[place].work) == std::mem::discriminant(&planned.work);
        // A step's values are found by its place, so one that has moved is done again.
        (alike && place == step && planned.phase == crate::domain::Phase::Main && state.status == Status::Succeeded)
            .then(|| Carried {
                step,
                branch: state.branch.clone(),
            })
    };
    (0..plan.steps.len()).filter_map(same).collect()
}
