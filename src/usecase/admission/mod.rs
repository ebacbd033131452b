//! Who may begin, and when.
//!
//! A run that is left to the queue stands in its organization's backlog, a few rows that are read in order. One message says
//! that an organization has runs there; whoever receives it serves the organization: takes the first, drives it, takes the
//! next, as long as there is room for it here and the organization's limit allows. So a thousand runs of one organization are
//! one message to everybody else. Each run keeps a message of its own, sent before it was written, that puts it back into the
//! backlog or drives it, should anything in between be lost.

mod callers;
mod courtesy;
mod desk;
mod gate;
mod key;
mod place;
mod why;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(super) use self::callers::{Awaited, Waits};
pub(super) use self::gate::{Purpose, WorkerSlot};
pub(super) use self::key::living;
pub(super) use self::place::Place;
pub use self::why::{Reason, WaitingFor, why};

use self::desk::{Asked, Call, Desks};
use super::drive_run::{self, Continued};
use super::{Context, Error, LEASE, Result, WAKE_UP_AFTER_LEASE, control_run, policy, unreadable};
use crate::audit::LinkedRecord;
use crate::authz::Origin;
use crate::domain::{OnConflict, RunId, Timestamp};
use crate::store::envelope::{self, Message};
use crate::store::key::Queue;
use crate::store::repo::backlog::{self, Guard};
use crate::store::repo::runs::StoredRun;
use crate::store::turns::Turns;
use crate::tenancy::{RunRef, Scope, rehydrate};

/// Most messages of one organization, of those that say that it has a backlog.
const PLACES: u8 = 32;
/// How long after a look nothing is expected to have changed elsewhere, when an organization has as many runs as it may.
const ELSEWHERE: Duration = Duration::from_millis(500);
/// How much later a run's own message comes for each that stands before it, and at most.
const FOR_EACH: Duration = Duration::from_millis(20);
const GUARD_AT_MOST: Duration = Duration::from_secs(600);
/// The longest way of a message about a run that begins later, below the seven days that a queue keeps one back; then it is
/// sent on.
const HOP: Duration = Duration::from_secs(6 * 86_400);
/// The place of a message that stays while somebody serves, so that the host sees that there is work.
const STAY: u8 = u8::MAX;
/// How much later than at a run's deadline somebody looks at it, should nobody have come before.
const LATE: Duration = Duration::from_secs(1);
/// Most runs that are driven at once by the messages that lead to them. A message that is not done with takes one of the host's
/// places for messages, 12 by `host.json`, until the run ends or pauses; those beyond stand in the backlog, where one message of
/// each organization is enough.
const BY_MESSAGE: usize = 6;
/// How often it is looked whether somebody still serves.
const LOOK: Duration = Duration::from_secs(1);

/// What this instance knows of admission.
#[derive(Debug)]
pub(super) struct Admission {
    desks: Desks,
    /// In front of the workers.
    pub(super) gate: gate::Gate,
    /// How many runs are driven here at once out of backlogs.
    room: usize,
    /// For those that are driven by their own message.
    by_message: Arc<Semaphore>,
    /// For changes of who holds a concurrency key.
    keys: Turns,
    /// Between organizations, on the engine's own work and on the processors.
    pub(super) courtesy: courtesy::Courtesy,
    /// Who waits here for which run.
    pub(super) callers: callers::Callers,
}

impl Admission {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            desks: Desks::default(),
            gate: gate::Gate::new(slots),
            // While one is in a worker another is in storage.
            room: slots.max(1) * 2,
            keys: Turns::default(),
            by_message: Arc::new(Semaphore::new(BY_MESSAGE)),
            courtesy: courtesy::Courtesy::new(slots),
            callers: callers::Callers::default(),
        }
    }

    /// How many runs one organization may have here: what there is, divided by those who want it, and one at least.
    fn share(&self) -> usize {
        self.room.div_ceil(self.desks.served().max(self.gate.users()).max(1))
    }

    /// How long until the message comes that is sent before a run is written.
    pub(super) fn guard_after(&self, scope: &Scope) -> Duration {
        let waiting = u32::try_from(self.desks.of(scope.org()).waiting()).unwrap_or(u32::MAX);
        (LEASE + WAKE_UP_AFTER_LEASE).max((LEASE + FOR_EACH.saturating_mul(waiting)).min(GUARD_AT_MOST))
    }
}

/// How many runs of an organization may be under way at once.
pub(super) async fn limit(cx: &Context, scope: &Scope) -> Result<u32> {
    policy::concurrent_runs(cx, scope).await
}

/// How long until a message about a run that waits is to come: not later than the run's deadline, so that the run ends then.
pub(super) fn until(cx: &Context, deadline: Timestamp, at_most: Duration) -> Duration {
    let now = cx.clock.now();
    if deadline <= now {
        return at_most;
    }
    // A queue that is a little early would bring somebody for nothing.
    at_most.min(deadline.since(now) + LATE)
}

/// A place for a run that begins with its caller, who waits; none when the organization has as many runs as it may.
pub(super) async fn place_at_once(cx: &Arc<Context>, scope: &Scope, waits: &Waits) -> Result<Option<Place>> {
    let desk = cx.admission.desks.of(scope.org());
    match desk.seat(cx, scope, limit(cx, scope).await?).await? {
        Asked::Granted(seat) => Ok(Some(Place {
            _seat: Some(seat),
            driven: Some(waits.begins(cx.admission.courtesy.call(scope.org()))),
            ..Place::none()
        })),
        Asked::Full => Ok(None),
    }
}

/// Lists a run that was just written and lets it wait for its turn, its time or its key.
///
/// # Errors
/// When storage fails; the run's own message brings somebody to it all the same.
pub(super) async fn submit(
    cx: &Arc<Context>,
    scope: &Scope,
    run: &StoredRun,
    records: &[LinkedRecord],
    guard: Guard,
) -> Result<()> {
    let ask = &run.new.ask;
    if ask.is_plain() {
        cx.backlog.enter(scope, run, records, Some(&guard)).await?;
        return call(cx, scope, &run.new.run, backlog::rank(run)).await;
    }
    cx.runs.index(scope, run, records).await?;
    let now = cx.clock.now();
    if let Some(at) = ask.not_before.filter(|at| *at > now) {
        let run = RunRef {
            org: scope.org().clone(),
            run: run.new.run.clone(),
        };
        defer(cx, &run, at, now).await?;
        // Until here it was what would have sent the other.
        drive_run::drop_wake_up(cx, guard.receipt);
        return Ok(());
    }
    admit_by_key(cx, scope, run, Some(&guard)).await.map(drop)
}

/// Lets a run have its key, or wait for it, or end for it, and then stand in the backlog. Whether it goes on.
async fn admit_by_key(cx: &Arc<Context>, scope: &Scope, run: &StoredRun, guard: Option<&Guard>) -> Result<bool> {
    let Some(key) = &run.new.ask.concurrency else {
        cx.backlog.put(scope, run, guard).await?;
        call(cx, scope, &run.new.run, backlog::rank(run)).await?;
        return Ok(true);
    };
    loop {
        match key::ask(cx, scope, run, key, guard).await? {
            key::Asked::Granted => {
                call(cx, scope, &run.new.run, backlog::rank(run)).await?;
                return Ok(true);
            }
            key::Asked::Parked => return Ok(true),
            key::Asked::Taken(holders) => {
                let origin = Origin {
                    request_id: run.new.request_id.clone(),
                    endpoint: "concurrency_key".to_owned(),
                    ..Origin::default()
                };
                let (victim, by) = match holders.first() {
                    Some(oldest) if key.on_conflict == OnConflict::CancelRunning => (
                        oldest.clone(),
                        format!("run {} with the same concurrency key", run.new.run),
                    ),
                    holder => {
                        let holder = holder.map_or_else(|| "another".to_owned(), ToString::to_string);
                        (
                            run.new.run.clone(),
                            format!("its concurrency key, which run {holder} holds"),
                        )
                    }
                };
                let ends_itself = victim == run.new.run;
                end(cx, scope, &origin, &victim, &by).await?;
                if ends_itself {
                    return Ok(false);
                }
            }
        }
    }
}

/// Ends a run by another's wish; one that has ended meanwhile is none the worse.
fn end<'a>(
    cx: &'a Arc<Context>,
    scope: &'a Scope,
    origin: &'a Origin,
    victim: &'a RunId,
    by: &'a str,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        match control_run::end_known(cx, scope, origin, victim, by).await {
            Ok(_) => Ok(()),
            Err(Error::Request { code: "run_ended", .. }) => {
                let ended = cx.runs.get(scope, victim).await?;
                match ended {
                    Some(run) => key::release(cx, scope, &run).await,
                    None => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    })
}

/// Lets somebody know that an organization has a backlog: whoever serves it here, or by a message.
async fn call(cx: &Arc<Context>, scope: &Scope, run: &RunId, rank: u8) -> Result<()> {
    let desk = cx.admission.desks.of(scope.org());
    match desk.added(rank) {
        Call::Nothing => Ok(()),
        Call::Now => send(cx, scope, run, 0, Duration::ZERO).await,
        Call::At(then) => {
            let (cx, scope, run) = (cx.clone(), scope.clone(), run.clone());
            tokio::spawn(async move {
                tokio::time::sleep_until(then).await;
                if desk.call_now()
                    && let Err(error) = send(&cx, &scope, &run, 0, Duration::ZERO).await
                {
                    tracing::warn!(org.id = %scope.org(), error = %error, "nobody could be told of a backlog; its runs' own messages do");
                }
            });
            Ok(())
        }
    }
}

async fn send(cx: &Context, scope: &Scope, run: &RunId, place: u8, after: Duration) -> Result<()> {
    let run = RunRef {
        org: scope.org().clone(),
        run: run.clone(),
    };
    let message = envelope::seal(&cx.signing, &Message::Admit { run, place });
    cx.ports.queues.send(&Queue::Runs.name(), &message, after).await?;
    Ok(())
}

/// What a message about a run leads to: the run is driven when it may, else it waits where it belongs.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub(super) async fn arrive(cx: &Arc<Context>, run: &RunRef, delivered_at: Timestamp) -> Result<Continued> {
    let scope = rehydrate(run, "drive_run");
    let Some(stored) = cx.runs.get(&scope, &run.run).await? else {
        return Ok(Continued::Unknown);
    };
    let now = cx.clock.now();
    let state = &stored.state;
    let is_owned = state.owner.is_some() && state.lease_until.is_some_and(|until| until > now);
    if state.status.is_terminal() || is_owned || cx.live.is_leaving() || cx.live.has(&run.run) {
        return drive_run::go_on(cx, run, stored, Place::none(), delivered_at).await;
    }
    // Whose time is over needs no place to end.
    if drive_run::ends_at_once(cx, &stored, now) {
        let ended = drive_run::go_on(cx, run, stored.clone(), Place::none(), delivered_at).await?;
        cx.backlog.withdraw(&scope, &stored).await?;
        return Ok(ended);
    }
    let deadline = state.deadline;
    if let Some(at) = stored.new.ask.not_before.filter(|at| *at > now) {
        defer(cx, run, at, now).await?;
        return Ok(Continued::Queued);
    }
    if let Some(key) = &stored.new.ask.concurrency
        && !key::holds(cx, &scope, &stored, key).await?
    {
        let after = until(cx, deadline, LEASE + WAKE_UP_AFTER_LEASE);
        let receipt = drive_run::send(cx, run, "wake_up", after).await?;
        let admit = async {
            // Whoever has written it may have died before. Nobody holds a key who is not listed as one who asks for it.
            cx.runs.index(&scope, &stored, &[]).await?;
            admit_by_key(cx, &scope, &stored, None).await
        };
        if let Err(error) = admit.await {
            drive_run::forget_wake_up(cx, &receipt).await;
            return Err(error);
        }
        return Ok(Continued::Queued);
    }
    let desk = cx.admission.desks.of(scope.org());
    let is_first = backlog::rank(&stored) == backlog::FIRST;
    let by_message = cx.admission.by_message.clone().try_acquire_owned().ok();
    let seat = if by_message.is_none() {
        None
    } else if backlog::is_exempt(&stored) {
        Some(None)
    } else if is_first || desk.is_quiet() {
        match desk.seat(cx, &scope, limit(cx, &scope).await?).await? {
            Asked::Granted(seat) => Some(Some(seat)),
            Asked::Full => None,
        }
    } else {
        None
    };
    if let Some(seat) = seat {
        let place = Place {
            _seat: seat,
            row: (!is_first).then(|| backlog::waiting(&stored)),
            driven: cx.admission.callers.drive(&run.run),
            _message: by_message,
            ..Place::none()
        };
        return drive_run::go_on(cx, run, stored, place, delivered_at).await;
    }
    // Before it is let go of: a run that waits has a message under way too.
    let receipt = drive_run::send(cx, run, "wake_up", until(cx, deadline, GUARD_AT_MOST)).await?;
    let put = async {
        if !cx.backlog.has(&scope, &stored).await? {
            cx.runs.index(&scope, &stored, &[]).await?;
            cx.backlog.put(&scope, &stored, None).await?;
        }
        call(cx, &scope, &run.run, backlog::rank(&stored)).await
    };
    if let Err(error) = put.await {
        // The message that led here is delivered again. With another beside it, each failure would leave one more.
        drive_run::forget_wake_up(cx, &receipt).await;
        return Err(error);
    }
    Ok(Continued::Queued)
}

/// Serves an organization, until its backlog is empty and what was begun has ended.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub(super) async fn serve(cx: &Arc<Context>, run: &RunRef, place: u8) -> Result<Continued> {
    let scope = rehydrate(run, "drive_run");
    if cx.live.is_leaving() {
        return Err(stopping());
    }
    let desk = cx.admission.desks.of(scope.org());
    if !desk.begin() {
        if place == STAY {
            while !desk.is_quiet() && !cx.live.is_leaving() {
                tokio::time::sleep(LOOK).await;
            }
            return Ok(Continued::Served(0));
        }
        // Somebody serves it here. Where that is not enough the message goes on to another instance.
        if desk.overflow() > 0 && desk.may_bounce(place) {
            send(cx, &scope, &run.run, place, desk::BOUNCE).await?;
        }
        return Ok(Continued::Served(0));
    }
    let serving = Serving { cx: cx.clone(), desk };
    serving.serve(&scope, run).await
}

/// After an invocation has ended that served: another takes its place, while the work goes on here.
pub(super) async fn serve_on(cx: &Context, run: &RunRef) -> Result<()> {
    let scope = rehydrate(run, "drive_run");
    send(cx, &scope, &run.run, STAY, desk::BOUNCE).await
}

/// Sends the message that brings somebody to a run when its time has come.
async fn defer(cx: &Context, run: &RunRef, at: Timestamp, now: Timestamp) -> Result<()> {
    drive_run::send(cx, run, "deferred", at.since(now).min(HOP)).await?;
    Ok(())
}

/// Somebody who serves; does so no longer when it is dropped.
struct Serving {
    cx: Arc<Context>,
    desk: Arc<desk::Desk>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.desk.end();
        // What it had room for is there for others.
        self.cx.admission.desks.wake_all();
    }
}

impl Serving {
    async fn serve(self, scope: &Scope, run: &RunRef) -> Result<Continued> {
        let (cx, desk) = (&self.cx, &self.desk);
        let mut drives = JoinSet::new();
        let mut served = 0;
        loop {
            let mut pause = Duration::from_secs(30);
            while let Some(waiting) = desk.next(cx, scope).await? {
                let has_room = desk.drives() < cx.admission.share();
                if !waiting.exempt && !has_room {
                    self.call_others(scope, &run.run).await?;
                    break;
                }
                if !waiting.exempt
                    && let Some(wait) = cx.admission.courtesy.wait(scope.org(), &desk.begun())
                {
                    self.call_others(scope, &run.run).await?;
                    pause = wait;
                    break;
                }
                let seat = if waiting.exempt {
                    None
                } else {
                    match desk.seat(cx, scope, limit(cx, scope).await?).await? {
                        Asked::Granted(seat) => Some(seat),
                        Asked::Full => {
                            pause = ELSEWHERE;
                            break;
                        }
                    }
                };
                let place = Place {
                    _seat: seat,
                    _drive: Some(desk.take(&waiting)),
                    driven: cx.admission.callers.drive(&waiting.run),
                    row: Some(waiting),
                    ..Place::none()
                };
                drives.spawn(take(cx.clone(), scope.clone(), place));
                served += 1;
            }
            if drives.is_empty() && desk.end_if_done() {
                return Ok(Continued::Served(served));
            }
            if desk.overflow() > 0 {
                pause = pause.min(ELSEWHERE);
            }
            tokio::select! {
                biased;
                () = cx.live.left() => {
                    // Its runs are let go of, with a message each; the backlog needs one.
                    while drives.join_next().await.is_some() {}
                    send(cx, scope, &run.run, 0, Duration::ZERO).await?;
                    return Ok(Continued::Served(served));
                }
                Some(_) = drives.join_next(), if !drives.is_empty() => {}
                () = desk.wake.notified() => {}
                () = cx.admission.courtesy.ended() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// There is more than there is room for here: messages for other instances, as many as there is work for.
    async fn call_others(&self, scope: &Scope, run: &RunId) -> Result<()> {
        let wanted = u8::try_from(self.desk.overflow() / 2).unwrap_or(PLACES).min(PLACES);
        for place in 1..wanted {
            if self.desk.may_bounce(place) {
                send(&self.cx, scope, run, place, Duration::ZERO).await?;
            }
        }
        Ok(())
    }
}

/// Drives a run of the backlog, when it is still one.
async fn take(cx: Arc<Context>, scope: Scope, mut place: Place) {
    let Some(waiting) = place.row.clone() else {
        return;
    };
    let id = waiting.run.clone();
    if let Err(error) = try_take(&cx, &scope, &id, &mut place).await {
        // It would be the first in line again at once, and stand there for ever.
        if unreadable::run_of(&error).is_some() {
            match set_aside(&cx, &scope, &waiting, &error).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(run.id = %id, error = %error, "a run could not be set aside"),
            }
        }
        tracing::warn!(run.id = %id, org.id = %scope.org(), error = %error, "a run of the backlog could not be driven, its message comes back to it");
    }
}

async fn set_aside(cx: &Arc<Context>, scope: &Scope, waiting: &backlog::Waiting, error: &Error) -> Result<bool> {
    let is_aside = unreadable::set_aside(cx, scope, &waiting.run, (Queue::Runs, error), false).await?;
    if is_aside {
        cx.backlog.remove(scope, waiting).await?;
    }
    Ok(is_aside)
}

async fn try_take(cx: &Arc<Context>, scope: &Scope, id: &RunId, place: &mut Place) -> Result<()> {
    let stored = cx.runs.get(scope, id).await?;
    let now = cx.clock.now();
    let stored = match stored {
        Some(run) if !run.state.status.is_terminal() => run,
        // Whoever was slow to put it here may have given it its key again, after it had ended; and it may stand in two places.
        Some(over) => {
            cx.backlog.withdraw(scope, &over).await?;
            place.row = None;
            return ended(cx, scope, &over).await;
        }
        None => {
            if let Some(row) = place.row.take() {
                cx.backlog.remove(scope, &row).await?;
            }
            return Ok(());
        }
    };
    let is_owned = stored.state.owner.is_some() && stored.state.lease_until.is_some_and(|until| until > now);
    if is_owned || cx.live.has(id) {
        // Whoever drives it takes the row out, unless it has come by another way; should it need a driver again, it is put
        // there again.
        if let Some(row) = place.row.take_if(|row| row.rank == backlog::FIRST) {
            cx.backlog.remove(scope, &row).await?;
        }
        return Ok(());
    }
    let run = RunRef {
        org: scope.org().clone(),
        run: id.clone(),
    };
    let span = tracing::info_span!("run", run.id = %id, org.id = %scope.org());
    let work = drive_run::go_on(cx, &run, stored, std::mem::take(place), now);
    tracing::Instrument::instrument(Box::pin(work), span).await.map(drop)
}

/// Somebody waits for a run no longer: they have hung up, or are answered before its end. Where nobody else waits here and it has
/// not begun, it stands from now on where it would if nobody ever had. `run` is as it is, or was.
pub(super) async fn leave(cx: &Context, scope: &Scope, waits: Waits, run: &StoredRun) {
    if !waits.leave() || run.state.status.is_terminal() || run.state.epoch > 0 {
        return;
    }
    match cx.backlog.step_back(scope, run).await {
        Ok(true) => cx.admission.desks.of(scope.org()).moved(),
        Ok(false) => {}
        // It is merely further ahead than it should be.
        Err(error) => {
            tracing::warn!(run.id = %run.new.run, error = %error, "a run that nobody waits for any more keeps its place in line");
        }
    }
}

/// Takes a run that is ended by a request out of wherever it waits. `run` is as it was before that.
pub(super) async fn withdraw(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<()> {
    Ok(cx.backlog.withdraw(scope, run).await?)
}

/// Lets the next have what a run that has ended held beside its place. Repeating it does no harm.
///
/// # Errors
/// When storage fails.
pub(super) async fn ended(cx: &Arc<Context>, scope: &Scope, run: &StoredRun) -> Result<()> {
    key::release(cx, scope, run).await
}

fn stopping() -> Error {
    Error::unavailable("stopping", "the handler is stopping", "the message is delivered again")
}

fn moved() -> Error {
    Error::unavailable("conflict", "others changed it at every try", "repeat the request")
}
