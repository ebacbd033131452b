//! Child runs: runs that a step of a graph starts and waits for.
//!
//! A child's id follows from what waits for it, so starting it twice finds it. Its end is put into its parent's inbox, and
//! whoever finds the child's wake-up later puts it there once more; the parent takes it once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::launch::{self, Launch};
use super::sub_run::MAX_DEPTH;
use super::{Context, Error, Result, control_run, drive_run};
use crate::authz::Origin;
use crate::domain::{Ask, Outcome, Payload, RunId, Status, StepError, Timestamp};
use crate::scheduler::{Action, Slot};
use crate::store;
use crate::store::repo::runs::{Awaited, Letter, Parent, StoredRun};
use crate::tenancy::{RunRef, Scope};

/// How many runs are followed back to the one whose plan a run is held to.
const MOST_EARLIER: usize = 20;

/// Starts a child, or finds that it was; what keeps it from being started is its outcome.
///
/// # Errors
/// When storage fails.
pub(super) async fn start(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    run: &StoredRun,
    (slot, child): (Slot, &RunId),
    arguments: Value,
) -> Result<Option<(Outcome, Payload)>> {
    match cx.runs.get(scope, child).await {
        Ok(Some(run)) => return Ok(ended(cx, scope, &run).await?),
        Ok(None) => {}
        // Whoever ends it tells of that.
        Err(store::Error::Unreadable { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let refused = |kind: &str, message: String| {
        let error = StepError::new(kind, message);
        Ok(Some((Outcome::Failed { error }, Payload::Inline(Value::Null))))
    };
    let step = &run.new.plan.steps[slot.0];
    let Some(Action::Child { workflow }) = step.work.action() else {
        return Ok(None);
    };
    let depth = run.new.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
    if depth > MAX_DEPTH {
        return refused(
            "too_deep",
            format!("runs may start runs {MAX_DEPTH} deep, and this one is the last"),
        );
    }
    let Value::Object(arguments) = arguments else {
        return refused("arguments_invalid", "the inputs are not an object".to_owned());
    };
    let prepared = match launch::prepare(cx, scope, origin, workflow, &arguments, run.new.plan.profile).await {
        Ok(prepared) => prepared,
        Err(Error::Request {
            code, detail, findings, ..
        }) => {
            let findings: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
            let message = [detail.as_str()]
                .into_iter()
                .chain(findings)
                .collect::<Vec<_>>()
                .join("; ");
            return refused(code, message);
        }
        Err(error) => return Err(error),
    };
    // A plan names the workflows that the run starts, and the code of all of them.
    let is_later = match prepared.since.filter(|_| run.new.ask.plan.is_some()) {
        Some(since) => planned_by(cx, scope, run).await?.is_none_or(|at| since > at),
        None => false,
    };
    if is_later || (run.new.ask.plan.is_some() && prepared.plan.bundle != run.new.plan.bundle) {
        return refused(
            "plan_changed",
            format!(
                "the run is held to a plan, and the code of workflow `{workflow}` has changed since; plan it again"
            ),
        );
    }
    let parent = Parent {
        run: run.new.run.clone(),
        step: step.id.clone(),
        depth,
        awaited: Some(Awaited {
            place: slot.0,
            item: slot.1,
        }),
    };
    let launch = Launch {
        run: child.clone(),
        prepared,
        requester: run.new.requester.clone(),
        origin,
        cause: json!({"parent": parent}),
        ask: Ask {
            plan: run.new.ask.plan.clone(),
            ..Ask::default()
        },
        parent: Some(parent),
        resumes: None,
    };
    launch::enqueue(cx, scope, launch).await?;
    Ok(None)
}

/// When the run was asked for whose plan a run is held to: its own, or one that it is a child of, repeats or resumes. None where that
/// can't be told.
async fn planned_by(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<Option<Timestamp>> {
    let earlier = |run: &StoredRun| {
        let parent = run.new.parent.as_ref().map(|parent| parent.run.clone());
        parent
            .or_else(|| run.new.resumes.clone())
            .or_else(|| run.new.ask.rerun_of.clone())
    };
    let (mut at, mut next) = (run.new.created_at, earlier(run));
    for _ in 0..MOST_EARLIER {
        let Some(id) = next else { return Ok(Some(at)) };
        let Some(run) = cx.runs.get(scope, &id).await? else {
            return Ok(None);
        };
        // It was started without a plan: this one is the first.
        if run.new.ask.plan.is_none() {
            return Ok(Some(at));
        }
        (at, next) = (run.new.created_at, earlier(&run));
    }
    Ok(None)
}

/// How a child has ended, as its parent's step sees it, with what came out; none while it hasn't. The parent's step may refer to that
/// from here on.
///
/// # Errors
/// Those of storage.
pub(super) async fn ended(
    cx: &Context,
    scope: &Scope,
    child: &StoredRun,
) -> store::port::Result<Option<(Outcome, Payload)>> {
    let Some(outcome) = outcome(child) else {
        return Ok(None);
    };
    cx.runs.rely(scope, &child.result).await?;
    Ok(Some((outcome, child.result.clone())))
}

/// How a child has ended, as its parent's step sees it; none while it hasn't.
fn outcome(child: &StoredRun) -> Option<Outcome> {
    let state = &child.state;
    if !state.status.is_terminal() {
        return None;
    }
    let failed = || {
        let id = &child.new.run;
        let (kind, message) = match &state.error {
            Some(error) => (error.kind.clone(), format!("run `{id}`: {}", error.message)),
            None => (
                "child_failed".to_owned(),
                format!("run `{id}` has ended as {}", state.status.as_str()),
            ),
        };
        StepError {
            retriable: state.error.as_ref().and_then(|error| error.retriable),
            ..StepError::new(kind, message)
        }
    };
    Some(match state.status {
        Status::Succeeded => Outcome::Succeeded { value: Value::Null },
        Status::TimedOut => Outcome::TimedOut { error: failed() },
        _ => Outcome::Failed { error: failed() },
    })
}

/// Tells what waits for a run that the run has ended. Repeating it does no harm.
///
/// # Errors
/// When storage fails.
pub(super) async fn tell_parent(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<()> {
    let Some((parent, awaited)) = run
        .new
        .parent
        .as_ref()
        .and_then(|parent| Some((parent, parent.awaited?)))
    else {
        return Ok(());
    };
    // A letter to a run that has ended would never be taken.
    let above = match cx.runs.get(scope, &parent.run).await {
        // It takes nothing any more.
        Err(store::Error::Unreadable { .. }) => None,
        above => above?,
    };
    match above {
        Some(above) if !above.state.status.is_terminal() => {
            let slot = (awaited.place, awaited.item);
            let waits = above.state.unit(slot).and_then(|unit| unit.child.as_ref()) == Some(&run.new.run);
            if !waits {
                return Ok(());
            }
        }
        _ => return Ok(()),
    }
    let letter = Letter::ChildEnded {
        child: run.new.run.clone(),
        awaited,
    };
    let cause = format!("child:{}", run.new.run);
    cx.runs.tell(scope, &parent.run, &cause, &letter).await?;
    poke(cx, scope, &parent.run).await
}

/// Brings whoever drives a run to its inbox, or somebody to the run.
///
/// # Errors
/// When storage fails.
pub(super) async fn poke(cx: &Context, scope: &Scope, run: &RunId) -> Result<()> {
    if cx.live.poke(run) {
        return Ok(());
    }
    let reference = RunRef {
        org: scope.org().clone(),
        run: run.clone(),
    };
    drive_run::send(cx, &reference, "inbox", std::time::Duration::ZERO).await?;
    Ok(())
}

/// Ends a child that nothing waits for any more, and what it has started; one that has ended stays as it is.
///
/// # Errors
/// When storage fails.
pub(super) async fn end(cx: &Arc<Context>, scope: &Scope, origin: &Origin, child: &RunId) -> Result<()> {
    let by = scope.principal().id();
    match Box::pin(control_run::end_known(cx, scope, origin, child, &by)).await {
        Ok(_) => Ok(()),
        Err(Error::Request { code: "run_ended", .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
