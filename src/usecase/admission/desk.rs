//! What this instance knows of one organization: the first of its backlog, what it drives of it, and what it has taken of the
//! organization's limit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::super::{Context, Result};
use super::courtesy::Begun;
use crate::domain::{OrgId, RunId};
use crate::store::repo::backlog::{Taken, Waiting};
use crate::tenancy::Scope;

/// Rows of a backlog that are read at once.
const PAGE: usize = 64;
/// What was read of a backlog is read again after this long: others may have added what goes before.
const FRESH: Duration = Duration::from_secs(1);
/// How long a run that could not be taken, or has just ended, is left out.
const PASSED_OVER: Duration = Duration::from_secs(5);
/// How long seats are taken for.
const SEATS_FOR: Duration = Duration::from_secs(60);
/// With less left than this they are renewed.
const RENEW_AT: Duration = Duration::from_secs(40);
/// How often it is looked whether seats are to be renewed or given back.
const LOOK: Duration = Duration::from_secs(1);
/// Seats that nobody has used for so long are given back.
const IDLE: Duration = Duration::from_secs(2);
/// How often a change of the seats is tried against other instances.
const TRIES: usize = 8;
/// A message that no room was found for is sent again after this long, one of each place.
pub(super) const BOUNCE: Duration = Duration::from_secs(5);

/// Runs that are put into a backlog within this time are told of by one message.
const TOGETHER: Duration = Duration::from_millis(50);

/// What is to be done so that somebody sees a run that was put into the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Nothing: it will be seen.
    Nothing,
    /// Send a message.
    Now,
    /// Send one then, for this and all that come until then.
    At(Instant),
}

/// One organization on this instance.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// Fires when more can be begun, perhaps.
    pub(super) wake: Notify,
    /// One change of the seats at a time.
    ledger: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    serving: bool,
    /// Something was added since the backlog was read.
    dirty: bool,
    shelf: VecDeque<Waiting>,
    read_at: Option<Instant>,
    /// Whether there was more than was read.
    more: bool,
    /// Driven here, and since ended or passed over until then.
    begun: BTreeMap<RunId, Option<Instant>>,
    /// Driven here out of the backlog, each since when.
    drives: BTreeMap<RunId, Instant>,
    /// When the last of them began.
    last_drive: Option<Instant>,
    /// How long the last one took that has ended.
    last_took: Option<Duration>,
    /// When it was last said by a message that there is a backlog, and whether it will be again.
    called: Option<Instant>,
    calling: bool,
    /// When each place's message was last sent on from here.
    bounced: BTreeMap<u8, Instant>,
    /// About how many stand in the backlog, as far as it is known here.
    waiting: usize,
    seats: SeatState,
}

#[derive(Debug, Default)]
struct SeatState {
    held: u32,
    used: u32,
    peak: u32,
    until: Option<Instant>,
    last_used: Option<Instant>,
    kept: bool,
}

/// What came of asking for a seat.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is there.
    Granted(Seat),
    /// The organization has as many runs as it may.
    Full,
}

/// A place in the organization's limit; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Desk>);

impl Drop for Seat {
    fn drop(&mut self) {
        {
            let seats = &mut self.0.state().seats;
            seats.used -= 1;
            seats.last_used = Some(Instant::now());
        }
        self.0.wake.notify_one();
    }
}

/// A run that is driven here out of the backlog.
#[derive(Debug)]
pub(super) struct Drive {
    desk: Arc<Desk>,
    run: RunId,
}

impl Drop for Drive {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        if let Some(begun) = state.drives.remove(&self.run) {
            state.last_took = Some(begun.elapsed());
        }
        // A page that was read before it ended may still hold it.
        state.begun.insert(self.run.clone(), Some(Instant::now() + PASSED_OVER));
    }
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            ledger: Semaphore::new(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody serves here.
    pub(super) fn is_quiet(&self) -> bool {
        !self.state().serving
    }

    /// Whether nothing is remembered here that matters.
    pub(super) fn is_forgettable(&self) -> bool {
        let state = self.state();
        !state.serving && !state.seats.kept && state.seats.used == 0 && state.drives.is_empty()
    }

    /// Begins to serve, unless somebody does.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        state.dirty = true;
        let begun = !std::mem::replace(&mut state.serving, true);
        drop(state);
        self.wake.notify_one();
        begun
    }

    /// Serves no longer, unless something waits or was added that nobody has seen.
    pub(super) fn end_if_done(&self) -> bool {
        let mut state = self.state();
        if state.dirty || state.more || state.first().is_some() {
            return false;
        }
        state.serving = false;
        state.waiting = 0;
        true
    }

    /// Serves no longer, whatever there is.
    pub(super) fn end(&self) {
        self.state().serving = false;
    }

    /// A run was put into the backlog from here.
    pub(super) fn added(&self, rank: u8) -> Call {
        let mut state = self.state();
        state.waiting += 1;
        if !state.serving {
            return state.call();
        }
        // What stands behind all that was read is read in its turn.
        let behind = state.more || state.shelf.back().is_some_and(|last| last.rank <= rank);
        if !behind || state.shelf.is_empty() {
            state.read_at = None;
        }
        state.more |= behind;
        state.dirty = true;
        drop(state);
        self.wake.notify_one();
        Call::Nothing
    }

    /// A run stands elsewhere in the backlog than it was read.
    pub(super) fn moved(&self) {
        let mut state = self.state();
        (state.read_at, state.dirty) = (None, true);
        drop(state);
        self.wake.notify_one();
    }

    /// The time of a later call has come; whether a message is still needed.
    pub(super) fn call_now(&self) -> bool {
        let mut state = self.state();
        (state.calling, state.called) = (false, Some(Instant::now()));
        state.dirty = true;
        let serving = state.serving;
        drop(state);
        self.wake.notify_one();
        !serving
    }

    /// About how many wait, as far as it is known here.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// How many runs are driven here out of the backlog.
    pub(super) fn drives(&self) -> usize {
        self.state().drives.len()
    }

    /// When they and the last of all began.
    pub(super) fn begun(&self) -> Begun {
        let state = self.state();
        Begun {
            last: state.last_drive,
            took: state.last_took,
            open: state.drives.values().copied().collect(),
        }
    }

    /// Whether there is more in the backlog than can be begun here.
    pub(super) fn overflow(&self) -> usize {
        let state = self.state();
        if state.more { PAGE } else { state.shelf.len() }
    }

    /// Whether a message for a place is to be sent on: not more than one of each in a while.
    pub(super) fn may_bounce(&self, place: u8) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        if state.bounced.get(&place).is_some_and(|last| *last + BOUNCE > now) {
            return false;
        }
        state.bounced.insert(place, now);
        true
    }

    /// The run that is to begin next. It stays until it is taken.
    pub(super) async fn next(&self, cx: &Context, scope: &Scope) -> Result<Option<Waiting>> {
        {
            let mut state = self.state();
            if state.read_at.is_some_and(|at| at.elapsed() < FRESH) {
                if let Some(next) = state.first() {
                    return Ok(Some(next));
                }
                if !state.more && !state.dirty {
                    return Ok(None);
                }
            }
            state.dirty = false;
        }
        let read = cx.backlog.first(scope, PAGE).await;
        let mut state = self.state();
        let (rows, more) = match read {
            Ok(read) => read,
            Err(error) => {
                state.dirty = true;
                return Err(error.into());
            }
        };
        let now = Instant::now();
        state.begun.retain(|_, until| until.is_none_or(|until| until > now));
        state.shelf = rows.into();
        state.more = more;
        state.read_at = Some(now);
        Ok(state.first())
    }

    /// Takes a run off, to be driven here.
    pub(super) fn take(self: &Arc<Self>, waiting: &Waiting) -> Drive {
        let mut state = self.state();
        state.shelf.retain(|other| other.run != waiting.run);
        state.begun.insert(waiting.run.clone(), None);
        let now = Instant::now();
        state.drives.insert(waiting.run.clone(), now);
        state.last_drive = Some(now);
        state.waiting = state.waiting.saturating_sub(1);
        Drive {
            desk: self.clone(),
            run: waiting.run.clone(),
        }
    }

    /// A seat that was taken for this instance before.
    pub(super) fn seat_at_hand(self: &Arc<Self>) -> Option<Seat> {
        let seats = &mut self.state().seats;
        let now = Instant::now();
        if seats.used >= seats.held || seats.until.is_none_or(|until| until <= now) {
            return None;
        }
        seats.used += 1;
        seats.peak = seats.peak.max(seats.used);
        seats.last_used = Some(now);
        Some(Seat(self.clone()))
    }

    /// A seat, taken in storage when there is none at hand.
    pub(super) async fn seat(self: &Arc<Self>, cx: &Arc<Context>, scope: &Scope, limit: u32) -> Result<Asked> {
        if let Some(seat) = self.seat_at_hand() {
            return Ok(Asked::Granted(seat));
        }
        let Ok(_one) = self.ledger.acquire().await else {
            return Ok(Asked::Full);
        };
        for _ in 0..TRIES {
            if let Some(seat) = self.seat_at_hand() {
                return Ok(Asked::Granted(seat));
            }
            let seats = cx.backlog.seats(scope).await?;
            let now = cx.clock.now();
            let free = limit.saturating_sub(seats.of_others(&cx.instance, now));
            let used = self.state().seats.used;
            if free <= used {
                return Ok(Asked::Full);
            }
            let held = used + (free - used).div_ceil(2);
            let until = Instant::now() + SEATS_FOR;
            let taken = Taken {
                seats: held,
                until: now.plus(SEATS_FOR),
            };
            match cx.backlog.set_seats(scope, seats, &cx.instance, Some(taken), now).await {
                Ok(()) => {}
                Err(error) if error.is_conflict() => continue,
                Err(error) => return Err(error.into()),
            }
            let keep = {
                let seats = &mut self.state().seats;
                (seats.held, seats.until) = (held, Some(until));
                !std::mem::replace(&mut seats.kept, true)
            };
            if keep {
                tokio::spawn(self.clone().keep(cx.clone(), scope.clone()));
            }
        }
        Ok(self.seat_at_hand().map_or(Asked::Full, Asked::Granted))
    }

    /// Renews the seats while they are used, and gives them back when they are not.
    async fn keep(self: Arc<Self>, cx: Arc<Context>, scope: Scope) {
        loop {
            tokio::time::sleep(LOOK).await;
            let leaving = cx.live.is_leaving();
            let Ok(_one) = self.ledger.acquire().await else { return };
            let (wanted, due) = {
                let seats = &mut self.state().seats;
                let now = Instant::now();
                let idle = seats.used == 0 && (leaving || seats.last_used.is_none_or(|last| last + IDLE <= now));
                let left = seats
                    .until
                    .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
                if idle {
                    // Nobody is given one while they are given back.
                    seats.held = 0;
                }
                (
                    if idle { 0 } else { seats.peak.max(seats.used).max(1) },
                    idle || left < RENEW_AT,
                )
            };
            if !due {
                continue;
            }
            let until = Instant::now() + SEATS_FOR;
            match self.change(&cx, &scope, wanted).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(org.id = %scope.org(), error = %error, "places could not be renewed or given back");
                    if wanted > 0 {
                        continue;
                    }
                }
            }
            let seats = &mut self.state().seats;
            (seats.held, seats.peak) = (wanted, seats.used);
            seats.until = (wanted > 0).then_some(until);
            if wanted == 0 {
                seats.kept = false;
                return;
            }
        }
    }

    /// Writes how many seats this instance has; whether it could.
    async fn change(&self, cx: &Context, scope: &Scope, wanted: u32) -> Result<bool> {
        let seats = cx.backlog.seats(scope).await?;
        let now = cx.clock.now();
        let taken = (wanted > 0).then(|| Taken {
            seats: wanted,
            until: now.plus(SEATS_FOR),
        });
        match cx.backlog.set_seats(scope, seats, &cx.instance, taken, now).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl State {
    fn call(&mut self) -> Call {
        if self.calling {
            return Call::Nothing;
        }
        let now = Instant::now();
        if let Some(last) = self.called.filter(|last| *last + TOGETHER > now) {
            self.calling = true;
            return Call::At(last + TOGETHER);
        }
        self.called = Some(now);
        Call::Now
    }

    fn first(&mut self) -> Option<Waiting> {
        let now = Instant::now();
        let begun = &self.begun;
        self.shelf.retain(|waiting| {
            !begun
                .get(&waiting.run)
                .is_some_and(|until| until.is_none_or(|until| until > now))
        });
        self.shelf.front().cloned()
    }
}

/// All desks of this instance.
#[derive(Debug, Default)]
pub(super) struct Desks(Mutex<BTreeMap<OrgId, Arc<Desk>>>);

impl Desks {
    /// An organization's.
    pub(super) fn of(&self, org: &OrgId) -> Arc<Desk> {
        let mut desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desks.get(org) {
            return desk.clone();
        }
        desks.retain(|_, desk| Arc::strong_count(desk) > 1 || !desk.is_forgettable());
        desks
            .entry(org.clone())
            .or_insert_with(|| Arc::new(Desk::new()))
            .clone()
    }

    /// How many organizations are served here.
    pub(super) fn served(&self) -> usize {
        let desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        desks.values().filter(|desk| !desk.is_quiet()).count()
    }

    /// Lets everybody who serves look again how much room there is.
    pub(super) fn wake_all(&self) {
        let desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for desk in desks.values() {
            desk.wake.notify_one();
        }
    }
}
