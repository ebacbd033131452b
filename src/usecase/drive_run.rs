//! Drive a run: decide, commit, make the attempts that are ready, decide again, until it has ended or may rest.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::attempt::{Attempt, Done};
use super::{Context, Error, LEASE, Result, WAKE_UP_AFTER_LEASE};
use crate::audit::{Event as AuditEvent, LinkedRecord, Record};
use crate::authz::Origin;
use crate::domain::{AttemptId, Outcome, Status, StepError, Timestamp};
use crate::scheduler::{self, Effect, Event, Rejected, Transition};
use crate::store::envelope::{self, Message};
use crate::store::key::Queue;
use crate::store::port::MessageReceipt;
use crate::store::repo::runs::{Additions, AttemptRecord, StoredRun, Timings};
use crate::store::{self};
use crate::tenancy::{RunRef, Scope, rehydrate};

/// When it is looked again for a run that a message is about and that isn't there, one after the other.
const LOOKS: [(&str, Duration); 3] = [
    ("look_1", Duration::from_secs(65)),
    ("look_2", Duration::from_secs(5 * 60)),
    ("look_3", Duration::from_secs(30 * 60)),
];
/// A run that waits longer than this for its next attempt is left to a message.
const REST_AFTER: Duration = Duration::from_secs(5);
/// A run that takes longer than this is listed as running; a shorter one is listed when it has ended.
const LIST_AFTER: Duration = Duration::from_millis(20);
/// How long a driver tries to write while storage is away; less than a lease, so that it ends as the owner or not at all.
const KEEP_TRYING: Duration = Duration::from_secs(45);

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
}

/// Goes on with a run, as a queue message asks for.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub async fn continue_run(cx: &Arc<Context>, run: &RunRef, delivered_at: Timestamp) -> Result<Continued> {
    go_on(cx, run, delivered_at, false).await
}

/// Begins with a run that was left to the queue and is listed, with the record of its start.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub(super) async fn begin_listed(cx: &Arc<Context>, run: &RunRef, delivered_at: Timestamp) -> Result<Continued> {
    go_on(cx, run, delivered_at, true).await
}

async fn go_on(cx: &Arc<Context>, run: &RunRef, delivered_at: Timestamp, is_listed: bool) -> Result<Continued> {
    let scope = rehydrate(run, "drive_run");
    let Some(stored) = cx.runs.get(&scope, &run.run).await? else {
        return Ok(Continued::Unknown);
    };
    if stored.state.status.is_terminal() {
        cx.runs.index(&scope, &stored, &[]).await?;
        cx.audit.repair_run_index(&scope, &stored.new.run).await?;
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
    let receipt = send(cx, run, "wake_up", LEASE + WAKE_UP_AFTER_LEASE).await?;
    let queued = delivered_at.since(stored.new.created_at);
    let first = stored.state.epoch == 0;
    let mut driver = Driver {
        cx: cx.clone(),
        scope,
        origin: Origin {
            request_id: stored.new.request_id.clone(),
            endpoint: "drive_run".to_owned(),
            ..Origin::default()
        },
        wake_up: Some(receipt),
        unindexed: Vec::new(),
        is_listed,
    };
    let effects = transition.effects().to_vec();
    let mut additions = Additions {
        attempts: unreported(&stored, &transition, now),
        ..Additions::default()
    };
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
            driver.unindexed = records;
            stored
        }
        // Another instance took it at the same moment.
        Err(store::Error::PreconditionFailed { .. }) => return Ok(Continued::Elsewhere),
        Err(error) => return Err(error.into()),
    };
    let ended = Box::pin(driver.drive(stored, effects, if first { queued } else { Duration::ZERO })).await?;
    Ok(Continued::Driven(ended.state.status))
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
    let next = LOOKS
        .iter()
        .position(|(look, _)| *look == reason)
        .map_or(0, |look| look + 1);
    if let Some((look, after)) = LOOKS.get(next) {
        send(cx, run, look, *after).await?;
    }
    Ok(())
}

async fn rearm(cx: &Context, run: &RunRef, stored: &StoredRun, now: Timestamp) -> Result<()> {
    let rest = stored.state.lease_until.map_or(LEASE, |until| until.since(now));
    send(cx, run, "wake_up", rest + WAKE_UP_AFTER_LEASE).await?;
    Ok(())
}

async fn send(cx: &Context, run: &RunRef, reason: &str, delay: Duration) -> Result<MessageReceipt> {
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

/// Drives one run that this instance has taken.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) cx: Arc<Context>,
    pub(super) scope: Scope,
    pub(super) origin: Origin,
    /// The message that brings another instance here if this one dies.
    pub(super) wake_up: Option<MessageReceipt>,
    /// Records of the first transition, to be listed.
    pub(super) unindexed: Vec<LinkedRecord>,
    /// Whether all other records of the run are listed. Whoever had the run before may have died before that.
    pub(super) is_listed: bool,
}

/// What happened while the driver waited.
enum Happened {
    Finished(Box<Done>),
    Stopped,
    Leaving,
    Time,
}

impl Driver {
    /// Drives until the run has ended, rests, or belongs to another.
    pub(super) async fn drive(
        mut self,
        mut run: StoredRun,
        effects: Vec<Effect>,
        queued: Duration,
    ) -> Result<StoredRun> {
        let Some(driving) = self.cx.live.enter(&run.new.run) else {
            return Ok(run);
        };
        let epoch = run.state.epoch;
        let mut attempts: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        run.timings.queue_ms += millis(queued);
        self.perform(&run, effects, &mut attempts, driving.stop()).await?;
        let mut list_at = Some(Instant::now() + LIST_AFTER);
        while !run.state.status.is_terminal() {
            let now = self.cx.clock.now();
            let due = run.state.next_due().unwrap_or(run.state.deadline);
            let renew = run.state.lease_until.map_or(now, |until| until.minus(LEASE / 2));
            if attempts.is_empty() && due.since(now) > REST_AFTER {
                return self.rest(run, due).await;
            }
            let pause = due.min(renew).since(now).max(Duration::from_millis(1));
            let happened = loop {
                tokio::select! {
                    biased;
                    // Before what is finished: a shutdown that kills workers must not look like their own end.
                    () = driving.leaving().cancelled() => break Happened::Leaving,
                    Some(done) = attempts.next() => break Happened::Finished(Box::new(done)),
                    () = driving.stop().cancelled() => break Happened::Stopped,
                    () = wait_until(list_at) => {
                        list_at = None;
                        self.list_as_running(&run).await;
                    }
                    () = tokio::time::sleep(pause) => break Happened::Time,
                }
            };
            let now = self.cx.clock.now();
            let (event, additions) = match happened {
                Happened::Stopped => {
                    killed(&run, &mut attempts).await;
                    return self.reload(&run).await;
                }
                Happened::Leaving => {
                    driving.stop().cancel();
                    killed(&run, &mut attempts).await;
                    return self.rest(run, now).await;
                }
                Happened::Time if now >= due => (Event::Woken { epoch }, Additions::default()),
                Happened::Time => (
                    Event::Renewed {
                        epoch,
                        lease_until: now.plus(LEASE),
                    },
                    Additions::default(),
                ),
                Happened::Finished(done) => self.finished(&run, epoch, *done, now).await?,
            };
            let transition = match scheduler::decide(&run.new.plan, &run.state, event, now) {
                Ok(transition) => transition,
                Err(Rejected::NothingDue) => continue,
                Err(rejected) => {
                    tracing::info!(run.id = %run.new.run, "a late event was dropped: {rejected}");
                    continue;
                }
            };
            let mut additions = additions;
            additions.attempts.extend(unreported(&run, &transition, now));
            let effects = transition.effects().to_vec();
            match self.commit(run, &transition, additions).await? {
                Committed::Ours(stored) => run = *stored,
                Committed::Theirs(stored) => {
                    return Ok(*stored);
                }
            }
            self.perform(&run, effects, &mut attempts, driving.stop()).await?;
        }
        self.close(&run).await;
        Ok(run)
    }

    async fn perform(
        &self,
        run: &StoredRun,
        effects: Vec<Effect>,
        attempts: &mut FuturesUnordered<BoxFuture<'static, Done>>,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<()> {
        for effect in effects {
            if let Effect::StartAttempt { step, attempt, number } = effect {
                let id = (step, attempt.clone(), number);
                match Attempt::prepare(&self.cx, &self.scope, &self.origin, run, id, stop).await {
                    Ok(attempt) => attempts.push(Box::pin(attempt.make())),
                    Err(error @ Error::Store(_)) => return Err(error),
                    Err(error) => {
                        let step = run.new.plan.steps[step].id.clone();
                        let started_at = self.cx.clock.now();
                        attempts.push(Box::pin(async move {
                            Done::not_made(step, attempt, number, started_at, &error)
                        }));
                    }
                }
            }
            // A killed attempt's run has ended or timed out; its future is dropped with the driver, which kills it.
        }
        Ok(())
    }

    async fn finished(
        &mut self,
        run: &StoredRun,
        epoch: u64,
        done: Done,
        now: Timestamp,
    ) -> Result<(Event, Additions)> {
        let Done {
            step,
            attempt,
            number,
            started_at,
            report,
        } = done;
        let mut additions = Additions::default();
        let mut timings = run.timings;
        timings.boot_ms += report.timings.boot_ms;
        timings.import_ms += report.timings.import_ms;
        timings.user_ms += report.timings.user_ms;
        let (outcome, name, error) = match report.outcome {
            Outcome::Succeeded { value } => {
                let kept = self
                    .keep_trying(|| self.cx.runs.keep(&self.scope, value.clone()))
                    .await?;
                additions.result = Some(kept);
                (Outcome::Succeeded { value: Value::Null }, "succeeded", None)
            }
            Outcome::Failed { error } => {
                let error = bounded(error);
                (Outcome::Failed { error: error.clone() }, "failed", Some(error))
            }
            Outcome::TimedOut { error } => {
                let error = bounded(error);
                (Outcome::TimedOut { error: error.clone() }, "timed_out", Some(error))
            }
            Outcome::Cancelled => (Outcome::Cancelled, "cancelled", None),
        };
        if report
            .variables
            .as_object()
            .is_some_and(|variables| !variables.is_empty())
        {
            let variables = report.variables;
            additions.variables = Some(
                self.keep_trying(|| self.cx.runs.keep(&self.scope, variables.clone()))
                    .await?,
            );
        }
        additions.timings = Some(timings);
        additions.attempts = vec![AttemptRecord {
            step: step.clone(),
            id: attempt.clone(),
            number,
            started_at,
            finished_at: now,
            outcome: name.to_owned(),
            error: error.map(|error| StepError {
                traceback: None,
                data: None,
                ..error
            }),
            max_rss_kib: report.max_rss_kib,
            output_bytes: report.output_bytes,
            output_truncated: report.output_truncated,
            posture: report.posture.iter().map(ToString::to_string).collect(),
            network: report.network,
        }];
        let [a, b] = self.cx.entropy.bytes::<2>();
        let sample = f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX);
        Ok((
            Event::AttemptFinished {
                epoch,
                step,
                attempt,
                outcome: Box::new(outcome),
                sample,
            },
            additions,
        ))
    }

    fn finish_record(&self, run: &StoredRun, transition: &Transition) -> Record {
        self.cx
            .audit
            .by(&self.scope, AuditEvent::RunFinished)
            .came_from(&self.origin)
            .resource("run", run.new.run.as_str())
            .detail(&json!({
                "workflow": run.new.workflow,
                "status": transition.state().status,
                "error": transition.state().error.as_ref().map(|error| error.kind.clone()),
            }))
    }

    /// Writes a transition, waiting out an outage of storage; finds out whether an attempt of unknown outcome was written.
    async fn commit(&mut self, run: StoredRun, transition: &Transition, mut additions: Additions) -> Result<Committed> {
        if transition.state().status.is_terminal() {
            let record = self.finish_record(&run, transition);
            additions.audit.push(
                self.keep_trying(|| self.cx.audit.seal(&self.scope, record.clone()))
                    .await?,
            );
        }
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let attempt = Additions {
                result: additions.result.clone(),
                variables: additions.variables.clone(),
                timings: additions.timings,
                attempts: additions.attempts.clone(),
                audit: additions.audit.clone(),
            };
            let error = match self.cx.runs.apply(&self.scope, run.clone(), transition, attempt).await {
                Ok((mut stored, records)) => {
                    self.unindexed.extend(records);
                    stored.timings.store_ms += millis(begun.elapsed());
                    return Ok(Committed::Ours(Box::new(stored)));
                }
                Err(error) => error,
            };
            match error {
                store::Error::PreconditionFailed { .. } => {}
                store::Error::Unavailable { .. } | store::Error::Throttled { .. } if begun.elapsed() < KEEP_TRYING => {
                    tracing::warn!(run.id = %run.new.run, error = %error, "a transition could not be written, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                error => return Err(error.into()),
            }
            match self.reload(&run).await {
                Ok(stored) if stored.state == *transition.state() => {
                    // Its records are in, in places that the lost answer would have said.
                    self.is_listed = false;
                    return Ok(Committed::Ours(Box::new(stored)));
                }
                Ok(stored) if stored.state != run.state => return Ok(Committed::Theirs(Box::new(stored))),
                // Not written: once more, and it must be the same version.
                Ok(_) => {}
                Err(error) if begun.elapsed() >= KEEP_TRYING => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn keep_trying<T, F, R>(&self, mut work: F) -> Result<T>
    where
        F: FnMut() -> R,
        R: Future<Output = store::port::Result<T>>,
    {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match work().await {
                Ok(value) => return Ok(value),
                Err(store::Error::Unavailable { .. } | store::Error::Throttled { .. })
                    if begun.elapsed() < KEEP_TRYING =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Written again when the run ends, and by whoever finds the run's wake-up.
    async fn list_as_running(&mut self, run: &StoredRun) {
        match self.cx.runs.index(&self.scope, run, &self.unindexed).await {
            Ok(()) => self.unindexed.clear(),
            Err(error) => tracing::warn!(run.id = %run.new.run, error = %error, "the run could not be listed yet"),
        }
    }

    /// After the last commit: the list shows it, and nobody needs to be woken.
    async fn close(&mut self, run: &StoredRun) {
        // Only when the list is whole may the wake-up go: it is what would mend the list.
        if let Err(error) = self.list(run).await {
            tracing::warn!(run.id = %run.new.run, error = %error, "the list lags until the run's wake-up");
            return;
        }
        self.unindexed.clear();
        if let Some(receipt) = self.wake_up.take() {
            drop_wake_up(&self.cx, receipt);
        }
    }

    async fn list(&mut self, run: &StoredRun) -> store::port::Result<()> {
        if run.state.status.is_terminal() && !self.is_listed {
            self.cx.audit.repair_run_index(&self.scope, &run.new.run).await?;
        }
        self.cx.runs.index(&self.scope, run, &self.unindexed).await
    }

    /// Lets go of a run that waits, or that this instance must leave, and sends a message for when it goes on.
    async fn rest(&mut self, run: StoredRun, due: Timestamp) -> Result<StoredRun> {
        let now = self.cx.clock.now();
        let reference = RunRef {
            org: self.scope.org().clone(),
            run: run.new.run.clone(),
        };
        let epoch = run.state.epoch;
        let Ok(transition) = scheduler::decide(&run.new.plan, &run.state, Event::Released { epoch }, now) else {
            return Ok(run);
        };
        let additions = Additions {
            attempts: unreported(&run, &transition, now),
            ..Additions::default()
        };
        match self.commit(run, &transition, additions).await? {
            Committed::Ours(stored) => {
                // Until this is sent the wake-up is still there. Sent before, it could find the run still owned.
                if !stored.state.status.is_terminal() {
                    send(&self.cx, &reference, "continued", due.since(now)).await?;
                }
                self.close(&stored).await;
                Ok(*stored)
            }
            Committed::Theirs(stored) => Ok(*stored),
        }
    }

    async fn reload(&self, run: &StoredRun) -> Result<StoredRun> {
        let stored = self.cx.runs.get(&self.scope, &run.new.run).await?;
        stored.ok_or_else(|| store::Error::corrupt("a run that was written is gone").into())
    }
}

enum Committed {
    /// The transition is in.
    Ours(Box<StoredRun>),
    /// Somebody else's is.
    Theirs(Box<StoredRun>),
}

/// Waits for attempts that are being killed: what they said before belongs into their logs.
async fn killed(run: &StoredRun, attempts: &mut FuturesUnordered<BoxFuture<'static, Done>>) {
    let all = async { while attempts.next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(2), all).await.is_err() {
        tracing::warn!(run.id = %run.new.run, "killed attempts did not end in time, their logs may be short");
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// What user code put into its error, cut to what a row holds.
fn bounded(mut error: StepError) -> StepError {
    const MESSAGE: usize = 4 * 1024;
    const TRACEBACK: usize = 12 * 1024;
    const DATA: usize = 4 * 1024;
    let cut = |text: &mut String, limit: usize| {
        if text.len() > limit {
            let mut end = limit;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(" … (cut)");
        }
    };
    cut(&mut error.kind, 200);
    cut(&mut error.message, MESSAGE);
    if let Some(traceback) = &mut error.traceback {
        cut(traceback, TRACEBACK);
    }
    if error.data.as_ref().is_some_and(|data| data.to_string().len() > DATA) {
        error.data = Some(json!({"cut": format!("more than {DATA} bytes")}));
    }
    error
}

/// Records of the attempts that a transition ends without a report of theirs, so that they and their logs stay to be seen.
pub(super) fn unreported(run: &StoredRun, transition: &Transition, now: Timestamp) -> Vec<AttemptRecord> {
    let ended_unseen = |(place, attempt): (usize, &AttemptId)| {
        let step = &transition.state().steps[place];
        if step.attempt.as_ref() == Some(attempt) {
            return None;
        }
        let (outcome, error) = match step.status {
            Status::Cancelled => ("cancelled", None),
            Status::TimedOut => ("timed_out", transition.state().error.clone()),
            _ => {
                let message = "the instance that ran the attempt ended, and its outcome is not known";
                ("failed", Some(StepError::new("crashed", message)))
            }
        };
        Some(AttemptRecord {
            step: run.new.plan.steps[place].id.clone(),
            id: attempt.clone(),
            number: run.state.steps[place].attempts,
            started_at: attempt.at(),
            finished_at: now,
            outcome: outcome.to_owned(),
            error,
            max_rss_kib: None,
            output_bytes: 0,
            output_truncated: false,
            posture: Vec::new(),
            network: None,
        })
    };
    run.state.running().filter_map(ended_unseen).collect()
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
