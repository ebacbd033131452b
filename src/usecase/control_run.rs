//! End a run on request.

use std::sync::Arc;

use serde_json::json;

use super::driver::unreported;
use super::{Context, Error, Result, admission, attempt_step, children, query_run, signal, unreadable};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Origin};
use crate::domain::RunId;
use crate::scheduler::{self, Event};
use crate::store;
use crate::store::repo::runs::{Additions, StoredRun};
use crate::tenancy::Scope;

/// How often a cancellation is tried against a run that changes at the same moment, as one with many short steps does all the
/// time.
const TRIES: usize = 64;

/// Cancels a run. The run has ended when this returns; its processes are killed at once when they are here, and within a
/// second by the instance that drives it otherwise.
///
/// # Errors
/// When the scope may not, there is no such run, or it has ended already.
pub async fn cancel(cx: &Arc<Context>, scope: &Scope, origin: &Origin, id: &RunId) -> Result<StoredRun> {
    match query_run::visible(cx, scope, id, Action::Modify).await {
        Err(error) if unreadable::run_of(&error) == Some(id) => Box::pin(unreadable::end(cx, scope, origin, id)).await,
        run => Box::pin(end(cx, scope, origin, run?)).await,
    }
}

/// What somebody is told who would end a run that has ended.
pub(super) fn has_ended(run: &StoredRun) -> Error {
    Error::conflict(
        "run_ended",
        format!(
            "run `{}` has ended already as `{}`",
            run.new.run,
            run.state.status.as_str()
        ),
        "nothing is left to cancel",
    )
}

/// Ends a run, and the child runs that it waits for.
pub(super) async fn end(cx: &Arc<Context>, scope: &Scope, origin: &Origin, run: StoredRun) -> Result<StoredRun> {
    let by = scope.principal().id();
    end_by(cx, scope, origin, run, &by).await
}

/// As [`end`], in somebody's name.
pub(super) async fn end_by(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    run: StoredRun,
    by: &str,
) -> Result<StoredRun> {
    let id = run.new.run.clone();
    match try_end(cx, scope, origin, run, by).await {
        // Its steps may be what can't be read.
        Err(error) if unreadable::run_of(&error) == Some(&id) => {
            Box::pin(unreadable::end(cx, scope, origin, &id)).await
        }
        ended => ended,
    }
}

/// As [`end_by`], of a run of which no more than its id is known; nothing when there is none.
pub(super) async fn end_known(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    id: &RunId,
    by: &str,
) -> Result<Option<StoredRun>> {
    let ended = match cx.runs.get(scope, id).await {
        Ok(Some(run)) => Box::pin(end_by(cx, scope, origin, run, by)).await,
        Ok(None) => return Ok(None),
        Err(store::Error::Unreadable { .. }) => Box::pin(unreadable::end(cx, scope, origin, id)).await,
        Err(error) => return Err(error.into()),
    };
    ended.map(Some)
}

async fn try_end(cx: &Arc<Context>, scope: &Scope, origin: &Origin, mut run: StoredRun, by: &str) -> Result<StoredRun> {
    let id = run.new.run.clone();
    for _ in 0..TRIES {
        if run.state.status.is_terminal() {
            return Err(has_ended(&run));
        }
        let owner = run.state.owner.clone();
        let now = cx.clock.now();
        let transition = scheduler::decide(
            &run.new.plan,
            &run.state,
            Event::CancelRequested { by: by.to_owned() },
            now,
        )
        .map_err(|rejected| Error::conflict("run_ended", rejected.to_string(), "nothing is left to cancel"))?;
        let record = cx
            .audit
            .by(scope, AuditEvent::RunCancelled)
            .came_from(origin)
            .resource("run", id.as_str())
            .detail(&json!({"workflow": run.new.workflow, "status": transition.state().status}));
        let sealed = cx.audit.seal(scope, record).await?;
        let additions = Additions {
            audit: vec![sealed],
            attempts: unreported(&run, &transition, &[], now),
            ..Additions::default()
        };
        match cx.runs.apply(scope, run.clone(), &transition, additions).await {
            Ok((stored, records)) => {
                cx.live.stop(&id);
                cx.watch.committed(&id);
                if let Some(owner) = owner {
                    signal::stop(cx, &owner, &id).await;
                }
                let handed = run.state.handed().map(|(_, attempt)| attempt.clone()).collect();
                attempt_step::kill(cx, scope, &id, handed).await;
                admission::withdraw(cx, scope, &run).await?;
                cx.runs.index(scope, &stored, &records).await?;
                finish(cx, scope, origin, &stored).await?;
                return Ok(stored);
            }
            Err(store::Error::PreconditionFailed { .. }) => {
                let newer = cx.runs.get(scope, &id).await?;
                run = newer.ok_or_else(|| store::Error::corrupt("a run that was written is gone"))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::unavailable(
        "conflict",
        "the run changed at every try to cancel it",
        "repeat the request",
    ))
}

/// What is left to do for a run that has ended: what it had started is ended, and what waits for it hears of it. Repeating it
/// does no harm.
pub(super) async fn finish(cx: &Arc<Context>, scope: &Scope, origin: &Origin, run: &StoredRun) -> Result<()> {
    admission::ended(cx, scope, run).await?;
    for child in &run.state.orphans {
        children::end(cx, scope, origin, child).await?;
    }
    children::tell_parent(cx, scope, run).await
}
