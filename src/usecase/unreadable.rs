//! A run that can't be read is set aside: seen, recorded, out of everybody's way, and ended by whoever may.
//!
//! Nobody can go on with such a run, and trying again changes nothing, so nothing is left that would try: its message is taken,
//! its place in the backlog and its concurrency key are given to others. The fact stands among those of quarantine. A run that
//! a newer version has written is set aside only after its message has failed as often as any other's: an instance of that
//! version may get the next.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::deliver::MAX_DEQUEUE_COUNT;
use super::on_record::recorded;
use super::{Context, Error, Result, admission, control_run, signal};
use crate::audit::Event as AuditEvent;
use crate::authz::{Extent, Origin};
use crate::domain::{RunId, StepError};
use crate::store;
use crate::store::key::Queue;
use crate::store::repo::quarantines::{About, Quarantined, UNREADABLE};
use crate::store::repo::remains::Remains;
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;

/// The code of the problem, and the type of the error that such a run ends with.
pub(super) const CODE: &str = UNREADABLE;
/// How often ending one is tried against others who write it.
const TRIES: usize = 8;

/// Which run an error says can't be read.
pub(super) const fn run_of(error: &Error) -> Option<&RunId> {
    match error {
        Error::Store(store::Error::Unreadable { run, .. }) => Some(run),
        _ => None,
    }
}

/// What an error says can't be read, in one sentence.
pub(super) fn why(error: &Error) -> String {
    match error {
        Error::Store(store::Error::Unreadable { what, .. }) => what.clone(),
        error => error.to_string(),
    }
}

/// Sets a run aside that nobody can go on with, `error` says why. False when it is left to another version of Weft, which has
/// written it, and `is_last` does not say that it has had its time.
///
/// # Errors
/// When storage fails.
pub(super) async fn set_aside(
    cx: &Arc<Context>,
    scope: &Scope,
    run: &RunId,
    (queue, error): (Queue, &Error),
    is_last: bool,
) -> Result<bool> {
    let Some(remains) = cx.runs.remains(scope, run).await? else {
        return Ok(true);
    };
    if remains.is_newer && !is_last {
        return Ok(false);
    }
    let what = match error {
        Error::Store(store::Error::Unreadable { run: other, what }) if other == run => what.clone(),
        error => error.to_string(),
    };
    let now = cx.clock.now();
    let fact = Quarantined {
        number: 0,
        queue: queue.name().to_string(),
        at: now.minus(Duration::from_millis(now.millis().unsigned_abs() % 60_000)),
        deliveries: if is_last { MAX_DEQUEUE_COUNT } else { 1 },
        failure: Some(
            format!("{CODE}: {what}")
                .chars()
                .take(super::quarantine::FAILURE)
                .collect(),
        ),
        requeued_at: None,
        requeued_by: None,
    };
    // Given back before it is said, which whoever is interrupted repeats.
    withdraw(cx, scope, &remains).await?;
    let about = About {
        run,
        workflow: &remains.run.new.workflow,
        requester: &remains.run.new.requester.id,
    };
    let add = async { Ok(cx.quarantines.add(scope, about, &fact).await?) };
    if cx.quarantines.knows(scope, run, &fact).await? {
        // Listed again, by whoever comes after one that has died.
        add.await?;
    } else {
        cx.failures.count_set_aside();
        tracing::error!(run.id = %run, org.id = %scope.org(), "a run can't be read and was set aside: {what}");
        let origin = Origin {
            request_id: remains.run.new.request_id.clone(),
            endpoint: "drive_run".to_owned(),
            ..Origin::default()
        };
        let detail = json!({
            "workflow": remains.run.new.workflow, "status": remains.run.state.status, "problem": CODE, "reason": what,
        });
        let record = || {
            let record = cx.audit.by(scope, AuditEvent::RunSetAside).came_from(&origin);
            record.resource("run", run.as_str()).detail(&detail)
        };
        recorded(cx, scope, record, add).await?;
        cx.watch.committed(run);
    }
    cx.runs.list_set_aside(scope, &remains, &what).await?;
    Ok(true)
}

/// Takes what is left of a run out of wherever it waits, and gives its key to others.
async fn withdraw(cx: &Arc<Context>, scope: &Scope, remains: &Remains) -> Result<()> {
    if remains.has_time {
        cx.backlog
            .withdraw_everywhere(scope, &remains.run, remains.has_ask)
            .await?;
    }
    // Who asks for a key that is not known here finds that its holder is set aside.
    admission::ended(cx, scope, &remains.run).await
}

/// Whether a run that can't be read has been set aside, and not put back since.
///
/// # Errors
/// When storage fails.
pub(super) async fn is_set_aside(cx: &Context, scope: &Scope, run: &RunId) -> Result<bool> {
    let facts = cx.quarantines.of_run(scope, run).await?;
    Ok(facts.iter().any(Quarantined::is_about_reading))
}

/// What is left of a run, for whoever may do it: of all runs, or of those that the scope has asked for.
///
/// # Errors
/// When storage fails.
pub(super) async fn remains(cx: &Context, scope: &Scope, id: &RunId, extent: Extent) -> Result<Option<Remains>> {
    let remains = cx.runs.remains(scope, id).await?;
    let own = scope.principal().id();
    Ok(remains.filter(|remains| extent == Extent::All || remains.run.new.requester.id == own))
}

/// Ends a run that can't be read, in somebody's name: it is one that has ended and can be read afterwards.
///
/// # Errors
/// When there is no such run, it can be read and has ended, or storage fails.
pub(super) async fn end(cx: &Arc<Context>, scope: &Scope, origin: &Origin, id: &RunId) -> Result<StoredRun> {
    for _ in 0..TRIES {
        let Some(remains) = cx.runs.remains(scope, id).await? else {
            return Err(store::Error::corrupt("a run that was written is gone").into());
        };
        // Somebody else was first: what it was is a run that has ended and can be read.
        if remains.why.is_none() && remains.run.state.status.is_terminal() {
            return Err(control_run::has_ended(&remains.run));
        }
        let why = remains
            .why
            .clone()
            .unwrap_or_else(|| "what belongs to it can't be read".to_owned());
        let owner = remains.run.state.owner.clone();
        let record = cx
            .audit
            .by(scope, AuditEvent::RunCancelled)
            .came_from(origin)
            .resource("run", id.as_str())
            .detail(&json!({"workflow": remains.run.new.workflow, "problem": CODE, "reason": why}));
        let sealed = cx.audit.seal(scope, record).await?;
        let error = StepError::new(CODE, format!("the run could not be read, and was ended: {why:.400}"));
        let now = cx.clock.now();
        match cx.runs.bury(scope, remains.clone(), error, now, vec![sealed]).await {
            Ok((stored, records)) => {
                cx.live.stop(id);
                cx.watch.committed(id);
                if let Some(owner) = owner {
                    signal::stop(cx, &owner, id).await;
                }
                withdraw(cx, scope, &remains).await?;
                cx.runs.index(scope, &stored, &records).await?;
                control_run::finish(cx, scope, origin, &stored).await?;
                return Ok(stored);
            }
            // Somebody has mended it, or ended it.
            Err(store::Error::PreconditionFailed { .. }) => match cx.runs.get(scope, id).await {
                Ok(Some(run)) if run.state.status.is_terminal() => return Err(control_run::has_ended(&run)),
                Ok(_) | Err(store::Error::Unreadable { .. }) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::unavailable(
        "conflict",
        "the run changed at every try to end it",
        "repeat the request",
    ))
}
