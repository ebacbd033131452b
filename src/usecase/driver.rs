//! The driver of one run that this instance has taken: decide, commit, do what follows, wait, decide again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::admission::{self, Place};
use super::attempt::{Attempt, Done, Made, Turn as Line};
use super::drive_run::{drop_wake_up, send};
use super::handoff::CLAIMS_EVERY;
use super::live::{Driving, Offered};
use super::report::{self, keep_trying};
use super::values::{Known, Said, Values};
use super::written::Step;
use super::{Context, Error, LEASE, Result, attempt_step, cached, children};
use crate::audit::{Event as AuditEvent, LinkedRecord, Outcome as AuditOutcome, Record};
use crate::authz::Origin;
use crate::domain::{AttemptId, Outcome, Payload, RunId, Status, StepError, Timestamp};
use crate::scheduler::{self, Doing, Effect, Event, Rejected, RunState, Slot, Transition};
use crate::store;
use crate::store::key;
use crate::store::port::{Key, MAX_VISIBILITY, MessageReceipt};
use crate::store::repo::history;
use crate::store::repo::results::Kept;
use crate::store::repo::runs::{Additions, AttemptRecord, INBOX_AT_ONCE, Left, Letter, Reported, StoredRun};
use crate::tenancy::{RunRef, Scope};

/// A run that waits longer than this is left to a message.
const REST_AFTER: Duration = Duration::from_secs(5);
/// For how long a run that has just started a child run waits for it here.
const LINGER: Duration = Duration::from_secs(1);
/// How often the inbox is looked at while something in it could be waited for; whoever puts something there on this instance
/// says so at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked at while other instances may be making attempts of the run.
const LOOK_HANDED_EVERY: Duration = Duration::from_millis(500);
/// For how long a driver whose time is used waits for what runs, before it begins something again.
const YIELDS_FOR: Duration = Duration::from_secs(30);
/// Most reports of other instances that one transition takes: each is three rows of it.
const REPORTS: usize = 8;
/// A run that takes longer than this is listed as running; a shorter one is listed when it has ended.
const LIST_AFTER: Duration = Duration::from_millis(20);
/// How long a driver tries to write while storage is away; less than a lease, so that it ends as the owner or not at all.
pub(super) const KEEP_TRYING: Duration = Duration::from_secs(45);
/// Most looks at values in one transition: each may write a row.
const LOOKS: usize = 24;
/// Most killed attempts that one transition records.
const RECORDED: usize = 40;

/// What follows a committed transition.
#[derive(Debug)]
pub(super) struct After {
    effects: Vec<Effect>,
    more: bool,
}

impl After {
    pub(super) fn of(transition: &Transition) -> Self {
        Self {
            effects: transition.effects().to_vec(),
            more: transition.has_more(),
        }
    }
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
    /// What the run's steps have left under this driver.
    pub(super) known: Known,
    /// What the run holds while it is driven.
    pub(super) place: Place,
}

/// What happened while the driver waited.
enum Happened {
    Ended(Box<Ending>),
    Poked,
    Stopped,
    Leaving,
    Time,
    More,
    /// Attempts may have stood in line for long enough.
    Line,
    /// The driver's time is used.
    Budget,
    /// What runs did not end soon enough after that.
    Resume,
}

/// What came to its end, or never began.
pub(super) enum Ending {
    Attempt(Done),
    /// An attempt that others were asked to make, and that stands in line here no longer.
    Gone(AttemptId),
    /// An attempt that was not made: an earlier run had its result.
    Cached {
        slot: Slot,
        attempt: AttemptId,
        number: u32,
        kept: Kept,
    },
    Child {
        slot: Slot,
        child: RunId,
        outcome: Outcome,
        output: Payload,
    },
}

/// Attempts that are made here, and how to stop them.
#[derive(Default)]
pub(super) struct Work {
    pub(super) endings: FuturesUnordered<BoxFuture<'static, Ending>>,
    pub(super) own: BTreeMap<AttemptId, Own>,
    /// Attempts that others are to be asked to make, once that is committed.
    pub(super) to_ask: Vec<(Slot, AttemptId)>,
    /// Under which digests results are kept for later runs.
    digests: BTreeMap<AttemptId, String>,
}

/// An attempt that is made here, or stands in line.
pub(super) struct Own {
    pub(super) slot: Slot,
    stop: CancellationToken,
    pub(super) line: Arc<Line>,
    /// While other instances are asked to make it.
    pub(super) offered: Option<Offered>,
}

/// A task that ends with whoever waits for it.
struct Task(JoinHandle<Ending>);

impl Task {
    async fn ended(mut self) -> Ending {
        match (&mut self.0).await {
            Ok(ending) => ending,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // With the process.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    /// Whether nothing is made here that could not go on elsewhere.
    fn is_idle(&self) -> bool {
        let elsewhere = self.own.values().filter(|own| own.line.is_offered());
        self.endings.len() == elsewhere.count()
    }

    /// Takes an attempt out of line.
    pub(super) fn forget(&mut self, attempt: &AttemptId) {
        if let Some(own) = self.own.remove(attempt) {
            own.stop.cancel();
        }
    }
}

/// What is to be committed at once.
#[derive(Default)]
pub(super) struct Turn {
    transition: Option<Transition>,
    pub(super) additions: Additions,
}

impl Turn {
    pub(super) fn state<'a>(&'a self, run: &'a StoredRun) -> &'a RunState {
        self.transition.as_ref().map_or(&run.state, Transition::state)
    }
}

impl Driver {
    /// Drives until the run has ended, rests, or belongs to another.
    pub(super) async fn drive(mut self, mut run: StoredRun, after: After, queued: Duration) -> Result<StoredRun> {
        let Some(driving) = self.cx.live.enter(&run.new.run) else {
            return Ok(run);
        };
        let epoch = run.state.epoch;
        let mut work = Work::default();
        run.timings.queue_ms += millis(queued);
        let mut more = after.more;
        // What came while nobody drove it.
        let mut look = epoch > 1;
        let mut linger = self.perform(&run, after.effects, &mut work, driving.stop()).await?;
        let mut list_at = Some(Instant::now() + LIST_AFTER);
        let mut budget_at = Some(Instant::now() + self.cx.bounds.driver);
        let mut resume_at = None;
        let mut claims_at = Instant::now();
        while !run.state.status.is_terminal() {
            let now = self.cx.clock.now();
            let due = run.state.next_due().unwrap_or(run.state.deadline);
            let renew = run.state.lease_until.map_or(now, |until| until.minus(LEASE / 2));
            let waits = waits_for_letters(&run.state);
            let handed = run.state.handed().next().is_some();
            let lingers = waits && linger.is_some_and(|until| Instant::now() < until);
            // The next driver goes on at once, and sees to what stands in line.
            if budget_at.is_none() && work.is_idle() {
                drop(work);
                return self.rest(run, now, driving).await;
            }
            let rests = !lingers && !handed && work.endings.is_empty() && due.since(now) > REST_AFTER;
            if !more && !look && rests {
                return self.rest(run, due, driving).await;
            }
            let mut pause = due.min(renew).since(now).max(Duration::from_millis(1));
            if waits {
                pause = pause.min(if handed { LOOK_HANDED_EVERY } else { LOOK_EVERY });
            }
            let line_at = self.line_at(&work, budget_at.is_none());
            let happened = loop {
                if look {
                    look = false;
                    break Happened::Poked;
                }
                tokio::select! {
                    biased;
                    // Before what is finished: a shutdown that kills workers must not look like their own end.
                    () = driving.leaving().cancelled() => break Happened::Leaving,
                    () = driving.stop().cancelled() => break Happened::Stopped,
                    () = std::future::ready(()), if more => break Happened::More,
                    Some(ending) = work.endings.next() => break Happened::Ended(Box::new(ending)),
                    () = wait_until(budget_at) => break Happened::Budget,
                    () = wait_until(resume_at) => break Happened::Resume,
                    () = driving.poked() => break Happened::Poked,
                    () = wait_until(line_at) => break Happened::Line,
                    () = wait_until(list_at) => {
                        list_at = None;
                        self.list_as_running(&run).await;
                    }
                    () = tokio::time::sleep(pause) => break Happened::Time,
                }
            };
            // A look at the inbox comes first, and leaves what was to be decided on.
            more &= !matches!(happened, Happened::More);
            let now = self.cx.clock.now();
            let mut turn = Turn::default();
            match happened {
                Happened::Stopped => {
                    stop_all(&run, &mut work).await;
                    return self.reload(&run).await;
                }
                Happened::Leaving => {
                    // What has not begun is not lost.
                    self.offer(&run, &mut turn, &mut work, true, now).await?;
                    if let Some(transition) = turn.transition.take() {
                        match self.commit(run, &transition, turn.additions).await? {
                            Committed::Ours(stored) => run = *stored,
                            Committed::Theirs(stored) => {
                                driving.stop().cancel();
                                stop_all(&stored, &mut work).await;
                                return Ok(*stored);
                            }
                        }
                        self.ask_others(&run, &mut work).await;
                    }
                    driving.stop().cancel();
                    stop_all(&run, &mut work).await;
                    return self.rest(run, now, driving).await;
                }
                Happened::Budget => {
                    budget_at = None;
                    if !work.is_idle() {
                        resume_at = Some(Instant::now() + YIELDS_FOR);
                        self.decide(&run, &mut turn, Event::Yielding { epoch }, now).await?;
                        self.offer(&run, &mut turn, &mut work, true, now).await?;
                    }
                }
                Happened::Resume => {
                    resume_at = None;
                    budget_at = Some(Instant::now() + self.cx.bounds.driver);
                    self.decide(&run, &mut turn, Event::Resumed { epoch }, now).await?;
                }
                Happened::Line => {
                    self.offer(&run, &mut turn, &mut work, budget_at.is_none(), now).await?;
                }
                Happened::More => self.decide(&run, &mut turn, Event::Woken { epoch }, now).await?,
                Happened::Time if now >= due => {
                    // What was decided in time counts, however late it is found.
                    if waits {
                        look = self.read_inbox(&run, &mut turn, &mut work, now).await?;
                    }
                    self.decide(&run, &mut turn, Event::Woken { epoch }, now).await?;
                }
                Happened::Time if now >= renew => {
                    let lease_until = now.plus(LEASE);
                    self.decide(&run, &mut turn, Event::Renewed { epoch, lease_until }, now)
                        .await?;
                }
                Happened::Time | Happened::Poked => {
                    if waits {
                        look = self.read_inbox(&run, &mut turn, &mut work, now).await?;
                    }
                    if handed && Instant::now() >= claims_at {
                        claims_at = Instant::now() + CLAIMS_EVERY;
                        self.look_after_claims(&run, &mut turn, &mut work, driving.stop(), now)
                            .await?;
                    }
                }
                Happened::Ended(ending) => {
                    let mut kept = None;
                    if let Ending::Gone(attempt) = ending.as_ref() {
                        work.own.remove(attempt);
                        continue;
                    }
                    if let Ending::Attempt(done) = ending.as_ref() {
                        work.own.remove(&done.attempt);
                        kept = work.digests.remove(&done.attempt).map(|digest| (done.slot, digest));
                    }
                    self.ended(&run, &mut turn, *ending, now).await?;
                    if let Some((slot, digest)) = kept {
                        self.keep_result(&run, &turn, slot, &digest).await;
                    }
                }
            }
            let Turn {
                transition,
                mut additions,
            } = turn;
            let Some(transition) = transition else { continue };
            additions
                .attempts
                .extend(unreported(&run, &transition, &additions.attempts, now));
            let after = After::of(&transition);
            match self.commit(run, &transition, additions).await? {
                Committed::Ours(stored) => run = *stored,
                Committed::Theirs(stored) => {
                    driving.stop().cancel();
                    stop_all(&stored, &mut work).await;
                    return Ok(*stored);
                }
            }
            self.known.shrink();
            more = after.more;
            self.ask_others(&run, &mut work).await;
            linger = self
                .perform(&run, after.effects, &mut work, driving.stop())
                .await?
                .or(linger);
        }
        self.close(&run).await;
        Ok(run)
    }

    /// Decides on an event, and on what values say that must be looked at then. What is late is dropped.
    pub(super) async fn decide(
        &mut self,
        run: &StoredRun,
        turn: &mut Turn,
        event: Event,
        now: Timestamp,
    ) -> Result<()> {
        let rejected = self.fold(run, turn, event, now).await?;
        match rejected {
            None | Some(Rejected::NothingDue) => {}
            Some(rejected) => tracing::info!(run.id = %run.new.run, "a late event was dropped: {rejected}"),
        }
        Ok(())
    }

    pub(super) async fn fold(
        &mut self,
        run: &StoredRun,
        turn: &mut Turn,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<Rejected>> {
        let plan = run.new.plan.clone();
        let next = match scheduler::decide(&plan, turn.state(run), event, now) {
            Ok(next) => next,
            Err(rejected) => return Ok(Some(rejected)),
        };
        self.add(turn, next);
        let epoch = turn.state(run).epoch;
        for _ in 0..LOOKS {
            let Some(transition) = &turn.transition else { break };
            let values = Values {
                cx: &self.cx,
                scope: &self.scope,
                run,
                state: transition.state(),
                known: &self.known,
            };
            let event = if let Some(slot) = transition.evaluations().first().copied() {
                let (verdict, value): Said = values.look(slot, now).await?;
                if let Some(value) = value {
                    let kept = keep_trying(KEEP_TRYING, || self.cx.runs.keep(&self.scope, value.clone())).await?;
                    turn.additions.outputs.push((slot, kept));
                }
                Event::Evaluated { epoch, slot, verdict }
            } else if transition.concludes() {
                let error = match values.result().await? {
                    Ok(value) => {
                        let kept = keep_trying(KEEP_TRYING, || self.cx.runs.keep(&self.scope, value.clone())).await?;
                        turn.additions.result = Some(kept);
                        None
                    }
                    Err(error) => Some(error),
                };
                Event::Concluded { epoch, error }
            } else {
                break;
            };
            match scheduler::decide(&plan, turn.state(run), event, now) {
                Ok(next) => self.add(turn, next),
                Err(rejected) => return Ok(Some(rejected)),
            }
        }
        Ok(None)
    }

    /// Adds a transition to what is committed at once, and keeps what it leaves for the steps that follow.
    fn add(&mut self, turn: &mut Turn, next: Transition) {
        for ended in next.ended() {
            let given = turn
                .additions
                .outputs
                .iter()
                .rev()
                .find(|(slot, _)| *slot == ended.slot);
            let output = given.map(|(_, output)| output.clone());
            let left = Left {
                output: output.unwrap_or_else(|| Payload::Inline(ended.value.clone().unwrap_or_default())),
                error: match &ended.error {
                    Some(error) => json!({"type": error.kind, "message": error.message}),
                    None => Value::Null,
                },
            };
            self.known.keep(ended.slot, left);
        }
        turn.transition = Some(match turn.transition.take() {
            Some(before) => before.then(next),
            None => next,
        });
    }

    /// Takes what others have put into the run's inbox; whether there may be more.
    async fn read_inbox(&mut self, run: &StoredRun, turn: &mut Turn, work: &mut Work, now: Timestamp) -> Result<bool> {
        let letters = keep_trying(KEEP_TRYING, || self.cx.runs.inbox(&self.scope, &run.new.run)).await?;
        let mut more = letters.len() >= INBOX_AT_ONCE;
        let mut reports = 0;
        let mut useless: Vec<Key> = Vec::new();
        let mut claims: Vec<Key> = Vec::new();
        let epoch = run.state.epoch;
        for (row, letter) in letters {
            let outputs = turn.additions.outputs.len();
            let event = match letter {
                Letter::Decided { place, decision } => Some(Event::Decided {
                    epoch,
                    step: place,
                    decision,
                }),
                Letter::AttemptEnded { reported } => {
                    let claim = key::claim_row(&reported.record.id);
                    let attempt = turn
                        .state(run)
                        .unit(reported.slot)
                        .and_then(|unit| unit.attempt.as_ref());
                    // One that ends with this transition is wanted until that is committed: without its claim another instance
                    // would make it once more meanwhile.
                    let committed = run.state.unit(reported.slot).and_then(|unit| unit.attempt.as_ref());
                    let is_wanted = attempt == Some(&reported.record.id);
                    if !is_wanted && committed != Some(&reported.record.id) {
                        claims.push(claim);
                        None
                    } else if reports >= REPORTS {
                        more = true;
                        continue;
                    } else if !is_wanted {
                        reports += 1;
                        turn.additions.taken.push(claim);
                        None
                    } else {
                        reports += 1;
                        turn.additions.taken.push(claim);
                        Some(self.reported(run, turn, work, *reported).await)
                    }
                }
                Letter::ChildEnded { child, awaited } => {
                    let ended = keep_trying(KEEP_TRYING, || self.cx.runs.get(&self.scope, &child)).await?;
                    let slot = (awaited.place, awaited.item);
                    let ended = match &ended {
                        Some(ended) => {
                            keep_trying(KEEP_TRYING, || children::ended(&self.cx, &self.scope, ended)).await?
                        }
                        None => None,
                    };
                    ended.map(|(outcome, output)| {
                        if matches!(outcome, Outcome::Succeeded { .. }) {
                            turn.additions.outputs.push((slot, output));
                        }
                        Event::ChildFinished {
                            epoch,
                            slot,
                            child,
                            outcome: Box::new(outcome),
                            sample: self.sample(),
                        }
                    })
                }
            };
            let rejected = match event {
                Some(event) => self.fold(run, turn, event, now).await?,
                None => Some(Rejected::NotRunning),
            };
            match rejected {
                None => turn.additions.taken.push(row),
                Some(rejected) => {
                    // Its value would be written over what has ended already.
                    turn.additions.outputs.truncate(outputs);
                    tracing::info!(run.id = %run.new.run, "a letter says nothing any more: {rejected}");
                    useless.push(row);
                }
            }
        }
        if turn.transition.is_some() {
            turn.additions.taken.append(&mut useless);
        }
        useless.append(&mut claims);
        // Who has lost the run knows nothing of what began since, and must not throw that away. What a state doesn't wait for
        // that is the present one after the letters were read, none will wait for any more.
        if !useless.is_empty() && self.reload(run).await?.state == run.state {
            self.cx.runs.discard(&self.scope, &run.new.run, useless).await?;
        }
        Ok(more)
    }

    /// What another instance reports of an attempt that runs.
    async fn reported(&self, run: &StoredRun, turn: &mut Turn, work: &mut Work, reported: Reported) -> Event {
        let (slot, attempt) = (reported.slot, reported.record.id.clone());
        work.forget(&attempt);
        let event = self.accept(run, &mut turn.additions, reported);
        if let Some(digest) = work.digests.remove(&attempt) {
            self.keep_result(run, turn, slot, &digest).await;
        }
        event
    }

    async fn keep_result(&self, run: &StoredRun, turn: &Turn, slot: Slot, digest: &str) {
        let mut outputs = turn.additions.outputs.iter();
        let output = outputs.find(|(of, _)| *of == slot).map(|(_, output)| output);
        cached::keep(&self.cx, &self.scope, run, slot, digest, output).await;
    }

    fn sample(&self) -> f64 {
        let [a, b] = self.cx.entropy.bytes::<2>();
        f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
    }

    /// Does what follows a commit; until when a child run that was just started is waited for here.
    async fn perform(
        &self,
        run: &StoredRun,
        effects: Vec<Effect>,
        work: &mut Work,
        stop: &CancellationToken,
    ) -> Result<Option<Instant>> {
        let mut linger = None;
        let mut killed = Vec::new();
        for effect in effects {
            match effect {
                Effect::StartAttempt { slot, attempt, number } => {
                    // Begun and ended in one commit.
                    if run.state.unit(slot).and_then(|unit| unit.attempt.as_ref()) != Some(&attempt) {
                        continue;
                    }
                    self.start_attempt(run, (slot, attempt, number), work, stop, Line::own())
                        .await?;
                }
                Effect::StartChild { slot, child, .. } => {
                    if run.state.unit(slot).and_then(|unit| unit.child.as_ref()) != Some(&child) {
                        continue;
                    }
                    linger = Some(Instant::now() + LINGER);
                    let outcome = match self.values(run).arguments(slot).await? {
                        Ok(arguments) => {
                            let id = (slot, &child);
                            children::start(&self.cx, &self.scope, &self.origin, run, id, arguments).await?
                        }
                        Err(error) => Some((Outcome::Failed { error }, Payload::Inline(Value::Null))),
                    };
                    if let Some((outcome, output)) = outcome {
                        work.endings.push(Box::pin(async move {
                            Ending::Child {
                                slot,
                                child,
                                outcome,
                                output,
                            }
                        }));
                    }
                }
                Effect::KillAttempt { attempt, handed, .. } => {
                    work.forget(&attempt);
                    if handed {
                        killed.push(attempt);
                    }
                }
                Effect::CancelChild { child } => children::end(&self.cx, &self.scope, &self.origin, &child).await?,
                Effect::Finished => {}
            }
        }
        attempt_step::kill(&self.cx, &self.scope, &run.new.run, killed).await;
        Ok(linger)
    }

    fn values<'a>(&'a self, run: &'a StoredRun) -> Values<'a> {
        Values {
            cx: &self.cx,
            scope: &self.scope,
            run,
            state: &run.state,
            known: &self.known,
        }
    }

    /// Lets an attempt stand in line.
    pub(super) async fn start_attempt(
        &self,
        run: &StoredRun,
        (slot, attempt, number): (Slot, AttemptId, u32),
        work: &mut Work,
        stop: &CancellationToken,
        line: Arc<Line>,
    ) -> Result<()> {
        let id = (slot, attempt.clone(), number);
        let prepared = match self.values(run).arguments(slot).await? {
            Ok(arguments) => Attempt::prepare(&self.cx, &self.scope, &self.origin, run, id, arguments, stop),
            Err(error) => Err(Error::invalid(
                "arguments_invalid",
                error.message,
                "look at the step's `inputs`",
                Vec::new(),
            )),
        };
        match prepared {
            Ok(mut made) => {
                let is_own = !line.is_offered();
                let digest = cached::digest(&self.scope, run, slot, &made.arguments);
                if let Some(digest) = &digest
                    && is_own
                    && let Some(kept) = cached::look(&self.cx, &self.scope, digest).await
                {
                    work.endings.push(Box::pin(async move {
                        Ending::Cached {
                            slot,
                            attempt,
                            number,
                            kept,
                        }
                    }));
                    return Ok(());
                }
                if let Some(digest) = digest {
                    work.digests.insert(attempt.clone(), digest);
                }
                made.stands_in_line(line.clone(), self.place.call());
                let own = Own {
                    slot,
                    stop: made.stop.clone(),
                    line,
                    offered: (!is_own).then(|| self.cx.live.offer(&attempt)),
                };
                work.own.insert(attempt.clone(), own);
                let making = async move {
                    match made.make().await {
                        Made::Here(done) => Ending::Attempt(*done),
                        Made::Handed(slot) => {
                            // It ends by a letter, wherever it is made, and goes on when this driver lets go.
                            tokio::spawn(attempt_step::take(made, slot));
                            Ending::Gone(attempt)
                        }
                        Made::Gone => Ending::Gone(attempt),
                    }
                };
                // What its code asks for is answered while a transition waits for storage.
                let task = Task(tokio::spawn(making.in_current_span()));
                work.endings.push(Box::pin(task.ended()));
            }
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => {
                let started_at = self.cx.clock.now();
                let done = Done::not_made(slot, attempt, number, started_at, &error);
                work.endings.push(Box::pin(async move { Ending::Attempt(done) }));
            }
        }
        Ok(())
    }

    async fn ended(&mut self, run: &StoredRun, turn: &mut Turn, ending: Ending, now: Timestamp) -> Result<()> {
        let (epoch, outputs) = (run.state.epoch, turn.additions.outputs.len());
        let event = match ending {
            // It is counted where it is taken out of what is made here.
            Ending::Gone(_) => return Ok(()),
            Ending::Attempt(done) => {
                let reported = report::keep(&self.cx, &self.scope, run, done, now, KEEP_TRYING).await?;
                self.accept(run, &mut turn.additions, reported)
            }
            Ending::Cached {
                slot,
                attempt,
                number,
                kept,
            } => {
                turn.additions.attempts = vec![cached::record(run, slot, &attempt, number, &kept, now)];
                turn.additions.outputs.push((slot, kept.output));
                Event::AttemptFinished {
                    epoch,
                    slot,
                    attempt,
                    outcome: Box::new(Outcome::Succeeded { value: Value::Null }),
                    sample: 0.0,
                }
            }
            Ending::Child {
                slot,
                child,
                outcome,
                output,
            } => {
                if matches!(outcome, Outcome::Succeeded { .. }) {
                    turn.additions.outputs.push((slot, output));
                }
                Event::ChildFinished {
                    epoch,
                    slot,
                    child,
                    outcome: Box::new(outcome),
                    sample: self.sample(),
                }
            }
        };
        if let Some(rejected) = self.fold(run, turn, event, now).await? {
            // It has ended by another way.
            turn.additions.outputs.truncate(outputs);
            tracing::info!(run.id = %run.new.run, "a late event was dropped: {rejected}");
        }
        Ok(())
    }

    /// Adds what an attempt has left to what is committed with its end.
    fn accept(&self, run: &StoredRun, additions: &mut Additions, reported: Reported) -> Event {
        let mut timings = additions.timings.unwrap_or(run.timings);
        timings.boot_ms += reported.timings.boot_ms;
        timings.import_ms += reported.timings.import_ms;
        timings.user_ms += reported.timings.user_ms;
        additions.timings = Some(timings);
        if let Some(output) = reported.output {
            additions.outputs.push((reported.slot, output));
        }
        additions.variables = reported.variables.or_else(|| additions.variables.take());
        let attempt = reported.record.id.clone();
        additions.attempts.push(reported.record);
        Event::AttemptFinished {
            epoch: run.state.epoch,
            slot: reported.slot,
            attempt,
            outcome: Box::new(reported.outcome),
            sample: self.sample(),
        }
    }

    pub(super) fn finish_record(&self, run: &StoredRun, transition: &Transition) -> Record {
        self.cx
            .audit
            .by(&self.scope, AuditEvent::RunFinished)
            .outcome(match transition.state().status {
                Status::Succeeded => AuditOutcome::Succeeded,
                _ => AuditOutcome::Failed,
            })
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
            additions
                .audit
                .push(keep_trying(KEEP_TRYING, || self.cx.audit.seal(&self.scope, record.clone())).await?);
        }
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        let before: Vec<_> = run.state.running().map(|(_, attempt)| attempt.clone()).collect();
        loop {
            let error = match self
                .cx
                .runs
                .apply(&self.scope, run.clone(), transition, additions.clone())
                .await
            {
                Ok((mut stored, records)) => {
                    self.cx.watch.stepped(&stored.new.run, || {
                        Some(Step {
                            previous: run.state.sequence,
                            sequence: stored.state.sequence,
                            row: history::row(&before, &stored, transition).ok()?,
                        })
                    });
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
                    self.cx.watch.committed(&stored.new.run);
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

    /// Written again when the run ends, and by whoever finds the run's wake-up.
    async fn list_as_running(&mut self, run: &StoredRun) {
        match self.place.list(&self.cx, &self.scope, run, &self.unindexed).await {
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
        if run.state.status.is_terminal()
            && let Err(error) = admission::ended(&self.cx, &self.scope, run).await
        {
            tracing::warn!(run.id = %run.new.run, error = %error, "what the run held is free with the run's wake-up");
            return;
        }
        if run.state.status.is_terminal()
            && let Err(error) = children::tell_parent(&self.cx, &self.scope, run).await
        {
            tracing::warn!(run.id = %run.new.run, error = %error, "what waits for the run hears of its end with the run's wake-up");
            return;
        }
        if let Some(receipt) = self.wake_up.take() {
            drop_wake_up(&self.cx, receipt);
        }
    }

    async fn list(&mut self, run: &StoredRun) -> store::port::Result<()> {
        if run.state.status.is_terminal() && !self.is_listed {
            self.cx.audit.repair_run_index(&self.scope, &run.new.run).await?;
        }
        self.place.list(&self.cx, &self.scope, run, &self.unindexed).await
    }

    /// Lets go of a run that waits, or that this instance must leave, and sends a message for when it goes on.
    async fn rest(&mut self, run: StoredRun, due: Timestamp, driving: Driving) -> Result<StoredRun> {
        let now = self.cx.clock.now();
        let reference = self.reference(&run);
        let epoch = run.state.epoch;
        let Ok(transition) = scheduler::decide(&run.new.plan, &run.state, Event::Released { epoch }, now) else {
            return Ok(run);
        };
        let additions = Additions {
            attempts: unreported(&run, &transition, &[], now),
            ..Additions::default()
        };
        match self.commit(run, &transition, additions).await? {
            Committed::Ours(stored) => {
                // From here on whoever puts something into the inbox brings somebody to the run.
                drop(driving);
                // Until this is sent the wake-up is still there. Sent before, it could find the run still owned.
                if !stored.state.status.is_terminal() {
                    let mut delay = due.since(now).min(MAX_VISIBILITY / 2);
                    if waits_for_letters(&stored.state)
                        && !self.cx.runs.inbox(&self.scope, &stored.new.run).await?.is_empty()
                    {
                        delay = Duration::ZERO;
                    }
                    send(&self.cx, &reference, "continued", delay).await?;
                }
                self.close(&stored).await;
                Ok(*stored)
            }
            Committed::Theirs(stored) => Ok(*stored),
        }
    }

    pub(super) fn reference(&self, run: &StoredRun) -> RunRef {
        RunRef {
            org: self.scope.org().clone(),
            run: run.new.run.clone(),
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

/// Whether something is waited for that comes by the run's inbox.
fn waits_for_letters(state: &RunState) -> bool {
    state.steps.iter().any(|step| {
        step.activity
            .as_ref()
            .is_some_and(|activity| matches!(activity.doing, Doing::Approval(_)))
            || step.units().any(|(_, unit)| unit.child.is_some() || unit.handed)
    })
}

/// Waits for attempts that are being killed: what they said before belongs into their logs.
async fn stop_all(run: &StoredRun, work: &mut Work) {
    let all = async { while work.endings.next().await.is_some() {} };
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

/// Records of the attempts that a transition ends without a report of theirs, so that they and their logs stay to be seen.
pub(super) fn unreported(
    run: &StoredRun,
    transition: &Transition,
    reported: &[AttemptRecord],
    now: Timestamp,
) -> Vec<AttemptRecord> {
    let after = transition.state();
    let ended_unseen = |(slot, attempt): (Slot, &AttemptId)| {
        if after.unit(slot).and_then(|unit| unit.attempt.as_ref()) == Some(attempt)
            || reported.iter().any(|record| record.id == *attempt)
        {
            return None;
        }
        let (outcome, error) = match after.steps[slot.0].status {
            Status::Cancelled => ("cancelled", None),
            Status::TimedOut => {
                let ended = transition.ended().iter().find(|ended| ended.slot.0 == slot.0);
                let error = ended.and_then(|ended| ended.error.clone());
                ("timed_out", error.or_else(|| after.error.clone()))
            }
            _ => {
                let message = "the instance that ran the attempt ended, and its outcome is not known";
                ("failed", Some(StepError::new("crashed", message)))
            }
        };
        Some(AttemptRecord {
            step: run.new.plan.steps[slot.0].id.clone(),
            item: slot.1,
            id: attempt.clone(),
            number: run.state.unit(slot).map_or(1, |unit| unit.attempts),
            cached: None,
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
    run.state.running().filter_map(ended_unseen).take(RECORDED).collect()
}
