//! An attempt that any instance may make: claimed, made as the run's driver would make it, reported to the driver.
//!
//! Whoever inserts the attempt's claim makes it, the instance that drives the run as well as any other. How it ended is a letter
//! in the run's inbox, which only who has the claim can write.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::admission::WorkerSlot;
use super::attempt::{Attempt, Done, Made};
use super::drive_run::Continued;
use super::live::Claimed;
use super::report::keep_trying;
use super::values::{Known, Values};
use super::{Context, Error, LEASE, Result, children, quarantine, report, signal};
use crate::authz::Origin;
use crate::domain::{AttemptId, Outcome, RunId, Timestamp};
use crate::scheduler::Slot;
use crate::store;
use crate::store::envelope::{self, Message};
use crate::store::key::Queue;
use crate::store::repo::claims::{Claim, Stage};
use crate::store::repo::runs::{Letter, StoredRun};
use crate::tenancy::{RunRef, Scope, rehydrate};

/// How often a claim is renewed, and looked after whether the attempt is still wanted.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// How much later than by its claim's end somebody is given up: clocks differ.
const GRACE: Duration = Duration::from_secs(5);
/// How long it is tried to claim an attempt while storage is away.
const CLAIMING: Duration = Duration::from_secs(10);
/// After how long a message is sent on that no worker was found for: twice as long each time.
const SENT_ON: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// An attempt that a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// What it tries.
    pub(super) slot: Slot,
    /// Which.
    pub(super) attempt: AttemptId,
    /// How often the message was sent on.
    pub(super) sent_on: u32,
}

/// Makes the attempt that a message is about, when nobody does and a worker is free here.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub(super) async fn arrive(cx: &Arc<Context>, run: &RunRef, asked: Asked) -> Result<Continued> {
    if cx.live.is_leaving() {
        return Err(Error::unavailable(
            "stopping",
            "the handler is stopping",
            "the message is delivered again",
        ));
    }
    // It stands in line here, and gets the next worker: the message is for others.
    if cx.live.offers(&asked.attempt) {
        return send_on(cx, run, asked).await;
    }
    let scope = rehydrate(run, "attempt_step");
    let Some(stored) = cx.runs.get(&scope, &run.run).await? else {
        return Ok(Continued::Unknown);
    };
    if !is_wanted(&stored, asked.slot, &asked.attempt) {
        return Ok(Continued::Over);
    }
    match cx.runs.claim_of(&scope, &run.run, &asked.attempt).await? {
        None => {}
        Some(claim) if claim.stage == Stage::Reported => {
            bring(cx, &scope, &run.run).await?;
            return Ok(Continued::Over);
        }
        // Whoever drives the run looks after it.
        Some(_) => return Ok(Continued::Over),
    }
    // What has another deployment's workspace can't make it; an instance that has the run's may.
    if cx.catalogs.pinned(&stored.new.plan.bundle).await.is_err() {
        return send_on(cx, run, asked).await;
    }
    let Some(slot) = cx.admission.gate.slot_at_once(scope.org()) else {
        return send_on(cx, run, asked).await;
    };
    let origin = Origin {
        request_id: stored.new.request_id.clone(),
        endpoint: "attempt_step".to_owned(),
        ..Origin::default()
    };
    let place = (asked.slot, &asked.attempt);
    let Some((held, stored)) = Held::claim(cx, &scope, &run.run, place).await? else {
        return Ok(Continued::Over);
    };
    match prepare(cx, &scope, &origin, &stored, place).await {
        Ok(attempt) => held.make(attempt, slot, &stored).await?,
        Err(error @ Error::Store(_)) => {
            // Nothing was begun; whoever gets the message next may.
            held.give_back().await;
            return Err(error);
        }
        Err(error) => {
            let number = stored.state.unit(asked.slot).map_or(1, |unit| unit.attempts);
            let done = Done::not_made(asked.slot, asked.attempt, number, cx.clock.now(), &error);
            held.report(&stored, done).await?;
        }
    }
    Ok(Continued::Made)
}

/// A message about an attempt that failed too often. What nobody has begun, or somebody makes, is none of its business: whoever
/// drives the run has it in line, or waits for it.
///
/// # Errors
/// When storage fails.
pub(super) async fn set_aside(
    cx: &Arc<Context>,
    run: &RunRef,
    asked: &Asked,
    delivered_at: Timestamp,
) -> Result<Continued> {
    let scope = rehydrate(run, "attempt_step_poison");
    let Some(stored) = cx.runs.get(&scope, &run.run).await? else {
        return Ok(Continued::Unknown);
    };
    let claim = cx.runs.claim_of(&scope, &run.run, &asked.attempt).await?;
    let is_lost = claim.is_some_and(|claim| is_lost(&claim, cx.clock.now()));
    if !is_lost || !is_wanted(&stored, asked.slot, &asked.attempt) {
        return Ok(Continued::Over);
    }
    quarantine::quarantine(cx, run, Queue::Attempts, delivered_at).await
}

/// Whether nobody will see the end of what was claimed.
pub(super) fn is_lost(claim: &Claim, now: Timestamp) -> bool {
    match claim.stage {
        Stage::Making => claim.until.plus(GRACE) < now,
        Stage::Reported => false,
        Stage::Lost => true,
    }
}

/// Makes an attempt that has got a worker here where it stands in line, unless somebody else has claimed it meanwhile.
pub(super) async fn take(attempt: Attempt, slot: WorkerSlot) {
    let (cx, scope, run) = (attempt.cx.clone(), attempt.scope.clone(), attempt.run.clone());
    let place = (attempt.slot, &attempt.attempt.clone());
    let taken = async {
        match Held::claim(&cx, &scope, &run, place).await? {
            Some((held, stored)) => held.make(attempt, slot, &stored).await,
            None => Ok(()),
        }
    };
    if let Err(error) = taken.await {
        tracing::warn!(run.id = %run, error = %error, "an attempt that had been offered could not be made or reported; whoever drives the run looks after it");
    }
}

/// Ends attempts that other instances may be making. Never fails: without it they find out when they renew.
pub(super) async fn kill(cx: &Context, scope: &Scope, run: &RunId, attempts: Vec<AttemptId>) {
    if attempts.is_empty() {
        return;
    }
    let claims = match cx.runs.claims(scope, run).await {
        Ok(claims) => claims,
        Err(error) => {
            tracing::warn!(run.id = %run, error = %error, "who makes attempts that are to end is not known");
            return;
        }
    };
    let told = claims
        .iter()
        .filter(|claim| claim.stage == Stage::Making && attempts.contains(&claim.attempt))
        .map(|claim| signal::kill(cx, &claim.instance, run, &claim.attempt));
    futures::future::join_all(told).await;
}

/// Asks other instances to make an attempt.
pub(super) async fn ask(cx: &Context, run: &RunRef, asked: Asked, delay: Duration) -> store::port::Result<()> {
    let message = Message::Attempt {
        run: run.clone(),
        step: asked.slot.0,
        item: asked.slot.1,
        attempt: asked.attempt,
        sent_on: asked.sent_on,
    };
    let text = envelope::seal(&cx.signing, &message);
    cx.ports.queues.send(&Queue::Attempts.name(), &text, delay).await?;
    Ok(())
}

async fn send_on(cx: &Context, run: &RunRef, asked: Asked) -> Result<Continued> {
    let (first, most) = SENT_ON;
    let delay = first.saturating_mul(1 << asked.sent_on.min(10)).min(most);
    let asked = Asked {
        sent_on: asked.sent_on.saturating_add(1),
        ..asked
    };
    ask(cx, run, asked, delay).await?;
    Ok(Continued::SentOn)
}

/// Whether an attempt is under way that any instance may make.
fn is_wanted(run: &StoredRun, slot: Slot, attempt: &AttemptId) -> bool {
    let unit = run.state.unit(slot);
    !run.state.status.is_terminal() && unit.is_some_and(|unit| unit.handed && unit.attempt.as_ref() == Some(attempt))
}

async fn prepare(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    run: &StoredRun,
    (slot, attempt): (Slot, &AttemptId),
) -> Result<Attempt> {
    let known = Known::default();
    let values = Values {
        cx,
        scope,
        run,
        state: &run.state,
        known: &known,
    };
    let arguments = values.arguments(slot).await?.map_err(|error| {
        Error::invalid(
            "arguments_invalid",
            error.message,
            "look at the step's `inputs`",
            Vec::new(),
        )
    })?;
    let number = run.state.unit(slot).map_or(1, |unit| unit.attempts);
    let id = (slot, attempt.clone(), number);
    Attempt::prepare(cx, scope, origin, run, id, arguments, &CancellationToken::new())
}

/// Brings whoever drives a run to its inbox. One that another instance drives looks there by itself.
async fn bring(cx: &Context, scope: &Scope, run: &RunId) -> Result<()> {
    if cx.live.poke(run) {
        return Ok(());
    }
    let Some(stored) = cx.runs.get(scope, run).await? else {
        return Ok(());
    };
    let (state, now) = (&stored.state, cx.clock.now());
    let is_driven = state.owner.is_some() && state.lease_until.is_some_and(|until| until > now);
    if state.status.is_terminal() || is_driven {
        return Ok(());
    }
    children::poke(cx, scope, run).await
}

/// An attempt that this instance has claimed.
struct Held {
    cx: Arc<Context>,
    scope: Scope,
    run: RunId,
    slot: Slot,
    claim: Claim,
    claimed: Claimed,
}

/// Why an attempt that is being made is not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwanted {
    /// It has ended without it.
    Over,
    /// Somebody else has the claim, or may have.
    Lost,
}

impl Held {
    /// Claims an attempt, with the run as it is then; none when somebody else has it, or nobody wants it any more.
    async fn claim(
        cx: &Arc<Context>,
        scope: &Scope,
        run: &RunId,
        (slot, attempt): (Slot, &AttemptId),
    ) -> Result<Option<(Self, StoredRun)>> {
        let Some(claimed) = cx.live.claim(attempt) else {
            return Ok(None);
        };
        let mut again = false;
        let claim = keep_trying(CLAIMING, || {
            let again = std::mem::replace(&mut again, true);
            let until = cx.clock.now().plus(LEASE);
            async move { cx.runs.claim(scope, run, attempt, &cx.instance, until, again).await }
        })
        .await?;
        let Some(claim) = claim else { return Ok(None) };
        let held = Self {
            cx: cx.clone(),
            scope: scope.clone(),
            run: run.clone(),
            slot,
            claim,
            claimed,
        };
        // A claim goes with its attempt: one that could be inserted may be of an attempt that has ended a moment ago.
        match cx.runs.get(scope, run).await {
            Ok(Some(stored)) if is_wanted(&stored, slot, attempt) => Ok(Some((held, stored))),
            Ok(_) => {
                held.give_back().await;
                Ok(None)
            }
            Err(error) => {
                held.give_back().await;
                Err(error.into())
            }
        }
    }

    async fn give_back(self) {
        if let Err(error) = self.cx.runs.unclaim(&self.scope, &self.run, &self.claim).await {
            tracing::debug!(run.id = %self.run, error = %error, "a claim could not be taken back; it runs out");
        }
    }

    /// Makes the attempt and reports it.
    ///
    /// # Errors
    /// When storage fails: the claim then runs out, unless the report is there.
    async fn make(mut self, mut attempt: Attempt, slot: WorkerSlot, run: &StoredRun) -> Result<()> {
        let stop = CancellationToken::new();
        attempt.has_place(slot, stop.clone());
        let made = {
            let mut making = Box::pin(attempt.make());
            let made = {
                let keeping = keep(&self.cx, &self.scope, &self.run, self.slot, &mut self.claim);
                let mut keeping = std::pin::pin!(keeping);
                tokio::select! {
                    biased;
                    made = &mut making => Ok(Some(made)),
                    () = self.claimed.killed() => Err(Unwanted::Over),
                    unwanted = &mut keeping => Err(unwanted),
                    // What it was about to say is lost, and how it ended: with this instance.
                    () = self.cx.live.left() => Ok(None),
                }
            };
            match made {
                Ok(Some(Made::Here(done))) => Ok(*done),
                Ok(Some(Made::Handed(..) | Made::Gone)) => Err(Unwanted::Over),
                Ok(None) => {
                    stop.cancel();
                    match making.await {
                        Made::Here(done) => Ok(*done),
                        Made::Handed(..) | Made::Gone => Err(Unwanted::Over),
                    }
                }
                Err(unwanted) => {
                    stop.cancel();
                    drop(making.await);
                    Err(unwanted)
                }
            }
        };
        match made {
            Ok(done) => self.report(run, done).await,
            Err(Unwanted::Over) => {
                self.give_back().await;
                Ok(())
            }
            Err(Unwanted::Lost) => Ok(()),
        }
    }

    /// Writes the letter, and brings somebody to it.
    async fn report(self, run: &StoredRun, done: Done) -> Result<()> {
        let Self {
            cx,
            scope,
            run: id,
            claim,
            ..
        } = &self;
        let now = cx.clock.now();
        // Afterwards somebody else decides what became of it.
        let patience = claim.until.since(now);
        let is_killed = matches!(done.report.outcome, Outcome::Cancelled);
        let reported = report::keep(cx, scope, run, done, now, patience).await?;
        let letter = Letter::AttemptEnded {
            reported: Box::new(reported),
        };
        let is_heard = keep_trying(patience, || cx.runs.report(scope, id, claim, &letter)).await?;
        if !is_heard {
            tracing::info!(run.id = %id, "an attempt ended after its claim was lost, nobody hears of it");
            return Ok(());
        }
        tracing::debug!(run.id = %id, attempt.id = %claim.attempt, killed = is_killed, "an attempt was reported");
        bring(cx, scope, id).await
    }
}

/// Renews a claim, as long as its attempt is wanted; why it isn't any more.
async fn keep(cx: &Context, scope: &Scope, run: &RunId, slot: Slot, claim: &mut Claim) -> Unwanted {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        loop {
            match renew(cx, scope, run, slot, claim).await {
                Ok(None) => break,
                Ok(Some(unwanted)) => return unwanted,
                Err(_) if cx.clock.now() >= claim.until => return Unwanted::Lost,
                Err(error) => {
                    tracing::debug!(run.id = %run, error = %error, "a claim could not be renewed, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn renew(
    cx: &Context,
    scope: &Scope,
    run: &RunId,
    slot: Slot,
    claim: &mut Claim,
) -> store::port::Result<Option<Unwanted>> {
    let stored = cx.runs.get(scope, run).await?;
    if !stored.is_some_and(|stored| is_wanted(&stored, slot, &claim.attempt)) {
        return Ok(Some(Unwanted::Over));
    }
    let until = cx.clock.now().plus(LEASE);
    match cx.runs.renew_claim(scope, run, claim.clone(), until).await {
        Ok(renewed) => *claim = renewed,
        Err(store::Error::PreconditionFailed { .. }) => {
            // Renewed by a request whose answer was lost, or taken.
            match cx.runs.claim_of(scope, run, &claim.attempt).await? {
                Some(there) if there.instance == cx.instance && there.stage == Stage::Making => *claim = there,
                _ => return Ok(Some(Unwanted::Lost)),
            }
        }
        Err(error) => return Err(error),
    }
    Ok(None)
}
