//! Go on with a run, as a queue message asks for: take it, and drive it until it has ended or may rest.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::admission::{self, Place};
use super::driver::{After, Driver, unreported};
use super::values::Known;
use super::{Context, Error, LEASE, Result, WAKE_UP_AFTER_LEASE, control_run};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::{Status, Timestamp};
use crate::scheduler::{self, Event, Rejected};
use crate::store;
use crate::store::envelope::{self, Message};
use crate::store::key::Queue;
use crate::store::port::MessageReceipt;
use crate::store::repo::runs::{Additions, StoredRun, Timings};
use crate::tenancy::{RunRef, rehydrate};

/// When it is looked again for a run that a message is about and that isn't there, one after the other.
const LOOKS: [(&str, Duration); 3] = [
    ("look_1", Duration::from_secs(65)),
    ("look_2", Duration::from_secs(5 * 60)),
    ("look_3", Duration::from_secs(30 * 60)),
];

/// What a message about a run led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continued {
    /// The run was driven to its end, or to a rest.
    Driven(Status),
    /// There is no such run: a wake-up whose run was never written, or is not written yet.
    Unknown,
    /// It had ended before; its derived rows were written again.
    Ended(Status),
    /// Another instance drives it; a new wake-up waits for the end of its lease.
    Elsewhere,
    /// It is driven in this process.
    Here,
    /// It waits for its time, its key or its turn.
    Queued,
    /// An organization was served; so many runs were taken from its backlog.
    Served(usize),
    /// An attempt was made here.
    Made,
    /// An attempt waits for another instance: there is no worker for it here.
    SentOn,
    /// An attempt has ended, or somebody makes it.
    Over,
    /// The run can't be read, and was set aside.
    SetAside,
}

/// Goes on with a run, as a queue message asks for.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub async fn continue_run(cx: &Arc<Context>, run: &RunRef, delivered_at: Timestamp) -> Result<Continued> {
    Box::pin(admission::arrive(cx, run, delivered_at)).await
}

/// Goes on with a run that has a place.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub(super) async fn go_on(
    cx: &Arc<Context>,
    run: &RunRef,
    stored: StoredRun,
    mut place: Place,
    delivered_at: Timestamp,
) -> Result<Continued> {
    let scope = rehydrate(run, "drive_run");
    if stored.state.status.is_terminal() {
        cx.runs.index(&scope, &stored, &[]).await?;
        cx.audit.repair_run_index(&scope, &stored.new.run).await?;
        control_run::finish(cx, &scope, &origin_of(&stored), &stored).await?;
        return Ok(Continued::Ended(stored.state.status));
    }
    if cx.live.is_leaving() {
        return Err(Error::unavailable(
            "stopping",
            "the handler is stopping",
            "the message is delivered again",
        ));
    }
    let now = cx.clock.now();
    let take = Event::Taken {
        owner: cx.instance.clone(),
        lease_until: now.plus(LEASE),
    };
    if cx.live.has(&run.run) {
        cx.live.poke(&run.run);
        // This message was the run's wake-up; another takes its place, or nobody would come if this instance died now.
        rearm(cx, run, &stored, now).await?;
        return Ok(Continued::Here);
    }
    let transition = match scheduler::decide(&stored.new.plan, &stored.state, take, now) {
        Ok(transition) => transition,
        Err(Rejected::Leased) => {
            rearm(cx, run, &stored, now).await?;
            return Ok(Continued::Elsewhere);
        }
        Err(_) => return Ok(Continued::Here),
    };
    let is_by_message = place.is_by_message();
    let (receipt, is_new) = match place.guard(now.plus(WAKE_UP_AFTER_LEASE)) {
        Some(receipt) => (receipt, false),
        None => (send(cx, run, "wake_up", LEASE + WAKE_UP_AFTER_LEASE).await?, true),
    };
    let queued = delivered_at.since(stored.new.created_at);
    let first = stored.state.epoch == 0;
    let mut driver = Driver {
        cx: cx.clone(),
        scope,
        origin: origin_of(&stored),
        wake_up: Some(receipt.clone()),
        unindexed: Vec::new(),
        // Whoever had it before may have died before it had listed everything.
        is_listed: false,
        known: Known::default(),
        place,
    };
    let after = After::of(&transition);
    let mut additions = Additions {
        attempts: unreported(&stored, &transition, &[], now),
        ..Additions::default()
    };
    if let Some(from) = &stored.state.owner {
        let record = cx.audit.by(&driver.scope, AuditEvent::RunTakenOver);
        let record = record.came_from(&driver.origin).resource("run", run.run.as_str());
        let record = record.detail(&json!({"from": from, "by": cx.instance, "epoch": transition.state().epoch}));
        additions.audit.push(cx.audit.seal(&driver.scope, record).await?);
    }
    // Taking a run over may be what ends it.
    if transition.state().status.is_terminal() {
        additions.audit.push(
            cx.audit
                .seal(&driver.scope, driver.finish_record(&stored, &transition))
                .await?,
        );
    }
    let stored = match cx.runs.apply(&driver.scope, stored, &transition, additions).await {
        Ok((stored, records)) => {
            cx.watch.committed(&run.run);
            driver.unindexed = records;
            stored
        }
        // Another instance took it at the same moment.
        Err(store::Error::PreconditionFailed { .. }) => return Ok(Continued::Elsewhere),
        Err(error) => {
            if is_new {
                forget_wake_up(cx, &receipt).await;
            }
            return Err(error.into());
        }
    };
    match Box::pin(driver.drive(stored, after, if first { queued } else { Duration::ZERO })).await {
        Ok(ended) => Ok(Continued::Driven(ended.state.status)),
        Err(error) => {
            // The message that led here is delivered again. With another beside it, each failure would leave one more.
            if is_by_message {
                forget_wake_up(cx, &receipt).await;
            }
            Err(error)
        }
    }
}

/// Whether a run that nobody drives ends as soon as it is taken, since its time is over.
pub(super) fn ends_at_once(cx: &Context, run: &StoredRun, now: Timestamp) -> bool {
    let take = Event::Taken {
        owner: cx.instance.clone(),
        lease_until: now.plus(LEASE),
    };
    run.state.deadline <= now
        && scheduler::decide(&run.new.plan, &run.state, take, now)
            .is_ok_and(|transition| transition.state().status.is_terminal())
}

fn origin_of(run: &StoredRun) -> Origin {
    Origin {
        request_id: run.new.request_id.clone(),
        endpoint: "drive_run".to_owned(),
        ..Origin::default()
    }
}

/// Takes a wake-up out of the queue, beside whatever else goes on. Left there it would find a run that has ended, and go.
pub(super) fn drop_wake_up(cx: &Arc<Context>, receipt: MessageReceipt) {
    let cx = cx.clone();
    tokio::spawn(async move { forget_wake_up(&cx, &receipt).await });
}

/// As [`drop_wake_up`], before going on.
pub(super) async fn forget_wake_up(cx: &Context, receipt: &MessageReceipt) {
    if let Err(error) = cx.ports.queues.delete(&Queue::Runs.name(), receipt).await {
        tracing::debug!(error = %error, "a wake-up could not be deleted");
    }
}

/// After a message whose run isn't there. A message is sent before its run is written, so the run may still be on its way,
/// from an instance that is slow or stands still; should that instance die right after, nobody else would come.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub(super) async fn look_again(cx: &Context, run: &RunRef, reason: &str) -> Result<()> {
    let next = match LOOKS.iter().position(|(look, _)| *look == reason) {
        Some(look) => LOOKS.get(look + 1),
        // All others are sent after their run was written: it was deleted since.
        None => LOOKS.first().filter(|_| reason == "wake_up"),
    };
    if let Some((look, after)) = next {
        send(cx, run, look, *after).await?;
    }
    Ok(())
}

async fn rearm(cx: &Context, run: &RunRef, stored: &StoredRun, now: Timestamp) -> Result<()> {
    let rest = stored.state.lease_until.map_or(LEASE, |until| until.since(now));
    send(cx, run, "wake_up", rest + WAKE_UP_AFTER_LEASE).await?;
    Ok(())
}

pub(super) async fn send(cx: &Context, run: &RunRef, reason: &str, delay: Duration) -> Result<MessageReceipt> {
    let message = Message::DriveRun {
        run: run.clone(),
        reason: reason.to_owned(),
    };
    Ok(cx
        .ports
        .queues
        .send(&Queue::Runs.name(), &envelope::seal(&cx.signing, &message), delay)
        .await?)
}

/// The sums of a run, as its answer shows them.
#[must_use]
pub fn shown(timings: &Timings) -> Timings {
    let round = |number: f64| (number * 1e3).round() / 1e3;
    Timings {
        queue_ms: round(timings.queue_ms),
        boot_ms: round(timings.boot_ms),
        import_ms: round(timings.import_ms),
        user_ms: round(timings.user_ms),
        store_ms: round(timings.store_ms),
    }
}
