//! A message that failed too often: a visible fact on its run, not a loss; and putting it back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::deliver::MAX_DEQUEUE_COUNT;
use super::drive_run::{self, Continued};
use super::on_record::recorded;
use super::{Context, Error, Result, query_run};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Extent, Origin, Resource};
use crate::domain::{RunId, Timestamp};
use crate::error::Coded as _;
use crate::store::envelope::{self, Message};
use crate::store::key::Queue;
use crate::store::port::Continuation;
use crate::store::repo::quarantines::About;
pub use crate::store::repo::quarantines::{Listed, Quarantined};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::{RunRef, Scope, rehydrate};

/// Most runs whose last failure is remembered.
const REMEMBERED: usize = 1000;
/// Most characters of a failure.
pub(super) const FAILURE: usize = 300;

/// How messages about runs last failed on this instance: all that is known when one is set aside.
#[derive(Debug, Default)]
pub struct Failures {
    last: Mutex<HashMap<RunId, String>>,
    set_aside: AtomicU64,
}

impl Failures {
    /// Remembers how a delivery failed.
    pub(super) fn note(&self, run: &RunId, error: &Error) {
        let mut known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let text = format!("{}: {error}", error.code());
        known.insert(run.clone(), text.chars().take(FAILURE).collect());
    }

    fn take(&self, run: &RunId) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(run)
    }

    pub(super) fn count_set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a run was set aside here because it can't be read.
    pub(super) fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }
}

fn about(run: &StoredRun) -> About<'_> {
    About {
        run: &run.new.run,
        workflow: &run.new.workflow,
        requester: &run.new.requester.id,
    }
}

/// Records that a message about a run was quarantined, and goes on with the run when it is still alive: what made the message
/// fail may be over.
///
/// # Errors
/// When storage fails.
pub async fn quarantine(cx: &Arc<Context>, run: &RunRef, from: Queue, delivered_at: Timestamp) -> Result<Continued> {
    let scope = rehydrate(run, "drive_run_poison");
    let Some(stored) = cx.runs.get(&scope, &run.run).await? else {
        return Ok(Continued::Unknown);
    };
    let now = cx.clock.now();
    let fact = Quarantined {
        number: 0,
        queue: from.name().to_string(),
        at: now.minus(Duration::from_millis(now.millis().unsigned_abs() % 60_000)),
        deliveries: MAX_DEQUEUE_COUNT,
        failure: cx.failures.take(&run.run),
        requeued_at: None,
        requeued_by: None,
    };
    let add = async { Ok(cx.quarantines.add(&scope, about(&stored), &fact).await?) };
    // What can't be handled here either comes again and again: it is one fact, and one record, a minute.
    if cx.quarantines.knows(&scope, &run.run, &fact).await? {
        // Listed again, by whoever comes after one that has died.
        add.await?;
    } else {
        let origin = Origin {
            request_id: stored.new.request_id.clone(),
            endpoint: "drive_run_poison".to_owned(),
            ..Origin::default()
        };
        let detail = json!({
            "queue": fact.queue, "status": stored.state.status, "deliveries": fact.deliveries, "failure": fact.failure,
        });
        let record = || {
            cx.audit
                .by(&scope, AuditEvent::MessageQuarantined)
                .came_from(&origin)
                .resource("run", run.run.as_str())
                .detail(&detail)
        };
        recorded(cx, &scope, record, add).await?;
        cx.watch.committed(&run.run);
    }
    drive_run::continue_run(cx, run, delivered_at).await
}

/// What was set aside of the organization's runs, newest first. Whoever may see own runs only, sees those.
///
/// # Errors
/// When the scope may not, the cursor is none, or storage fails.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    limit: usize,
    cursor: Option<Continuation>,
) -> Result<(Vec<Listed>, Option<Continuation>)> {
    let own = match scope.authorize(Action::List, Resource::Run)? {
        Extent::Own => Some(scope.principal().id()),
        _ => None,
    };
    let with_cursor = cursor.is_some();
    let page = cx.quarantines.list(scope, own.as_deref(), limit, cursor).await;
    page.map_err(|error| Error::of_page(error, with_cursor))
}

/// Sends the message about a run again that was set aside.
///
/// # Errors
/// When the scope may not, there is no such run, it has ended, nothing of it is set aside, or storage fails.
pub async fn requeue(cx: &Context, scope: &Scope, origin: &Origin, id: &RunId) -> Result<StoredRun> {
    let run = query_run::visible_or_remains(cx, scope, id, Action::Modify).await?;
    if run.state.status.is_terminal() {
        let status = run.state.status.as_str();
        return Err(Error::conflict(
            "run_ended",
            format!("run `{id}` has ended already as `{status}`"),
            "start a new run",
        ));
    }
    let facts = cx.quarantines.of_run(scope, id).await?;
    let open: Vec<_> = facts.iter().filter(|fact| fact.requeued_at.is_none()).collect();
    if open.is_empty() {
        return Err(Error::conflict(
            "run_not_quarantined",
            format!("no message about run `{id}` is set aside"),
            "`GET /api/quarantine` lists those that are",
        ));
    }
    let detail = json!({"status": run.state.status, "messages": open.len()});
    let record = || {
        cx.audit
            .by(scope, AuditEvent::MessageRequeued)
            .came_from(origin)
            .resource("run", id.as_str())
            .detail(&detail)
    };
    // One message is enough, whichever it was: what is to be done, the run says.
    let message = Message::DriveRun {
        run: RunRef {
            org: scope.org().clone(),
            run: id.clone(),
        },
        reason: "requeued".to_owned(),
    };
    let message = envelope::seal(&cx.signing, &message);
    let by = scope.principal().id();
    let requeue = async {
        cx.ports
            .queues
            .send(&Queue::Runs.name(), &message, Duration::ZERO)
            .await?;
        Ok(cx.quarantines.requeued(scope, about(&run), cx.clock.now(), &by).await?)
    };
    recorded(cx, scope, record, requeue).await?;
    Ok(run)
}
