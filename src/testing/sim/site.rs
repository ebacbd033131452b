//! Where one process stands in the simulated world: whether it lives, whether it is frozen, how wrong its clock is, and what
//! befalls its calls of storage.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::VirtualClock;
use super::history::History;
use super::random::Random;
use super::slip::Slip;
use super::tally::Tally;
use super::trace::Trace;
use crate::clock::Clock as _;
use crate::domain::Timestamp;
use crate::store::fault::{Call, Fault, Faults, Moment};

/// Nobody waits longer for anything, since the simulation began.
const LATEST: Duration = Duration::from_secs(3 * 3600);

/// How often what goes wrong, of a hundred thousand calls of storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// The process dies before the call is done.
    pub die: u64,
    /// The process dies after the call is done, before it hears of it.
    pub die_after: u64,
    /// The call is not done, and is answered as unavailable.
    pub before: u64,
    /// The call is done, and is answered as unavailable.
    pub after: u64,
    /// The call is answered as unavailable, and done up to a minute later.
    pub late: u64,
    /// The call is throttled.
    pub throttle: u64,
    /// The call takes up to twenty seconds.
    pub slow: u64,
}

/// A death at one call, for trying them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashAt {
    /// Which call of storage by any process, from 1.
    pub call: u64,
    /// Whether the call is done.
    pub done: bool,
}

/// What all processes share.
#[derive(Debug)]
pub struct World {
    /// Virtual time as it is.
    pub clock: VirtualClock,
    /// What happened.
    pub trace: Trace,
    /// What it means.
    pub history: History,
    weather: Weather,
    foul: AtomicBool,
    outage_until: Mutex<Option<Instant>>,
    calls: AtomicU64,
    tally: Mutex<Tally>,
    crash_at: Option<CrashAt>,
    latency: Duration,
    /// What all make wrong.
    pub slip: Option<Slip>,
}

impl World {
    /// A world with this weather. `latency` is what most calls take at most, one way.
    #[must_use]
    pub fn new(
        clock: VirtualClock,
        keep_trace: bool,
        weather: Weather,
        latency: Duration,
        crash_at: Option<CrashAt>,
        slip: Option<Slip>,
    ) -> Self {
        Self {
            trace: Trace::new(clock.clone(), keep_trace),
            history: History::new(clock.clone()),
            clock,
            weather,
            foul: AtomicBool::new(true),
            outage_until: Mutex::default(),
            calls: AtomicU64::new(0),
            tally: Mutex::default(),
            crash_at,
            latency,
            slip,
        }
    }

    /// Ends all faults for good.
    pub fn clear_up(&self) {
        self.foul.store(false, Ordering::Relaxed);
        *lock(&self.outage_until) = None;
        self.trace.say("world", "the weather clears up");
    }

    /// Whether things may go wrong.
    #[must_use]
    pub fn is_foul(&self) -> bool {
        self.foul.load(Ordering::Relaxed)
    }

    /// Makes storage unavailable to everybody for a while.
    pub fn outage(&self, lasts: Duration) {
        *lock(&self.outage_until) = Some(Instant::now() + lasts);
        self.trace.say("world", &format!("storage is away for {lasts:?}"));
        self.met("fault: outage");
    }

    /// How many calls of storage there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether there is something to be waited for: no promise is broken, and it is not too late.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.clock.elapsed() < LATEST && !self.history.has_violations()
    }

    /// Counts something that happened.
    pub fn met(&self, what: impl Into<String>) {
        lock(&self.tally).add(what);
    }

    /// Counts all of these.
    pub fn count(&self, tally: &Tally) {
        lock(&self.tally).merge(tally);
    }

    /// What happened, counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// What a good clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn is_out(&self) -> bool {
        lock(&self.outage_until).is_some_and(|until| Instant::now() < until)
    }
}

/// One process.
#[derive(Debug)]
pub struct Site {
    /// Its name: the slot and how often it was started there, as `b3`.
    pub name: String,
    /// Its clock.
    pub clock: VirtualClock,
    /// What it shares with others.
    pub world: Arc<World>,
    /// Fires when it has died.
    pub dead: CancellationToken,
    random: Mutex<Random>,
    frozen_until: Mutex<Option<Instant>>,
    faults: OnceLock<Arc<Faults>>,
    is_immune: bool,
}

impl Site {
    /// A process that lives.
    #[must_use]
    pub fn new(name: String, world: Arc<World>, skew_ms: i64, random: Random) -> Self {
        Self {
            name,
            clock: world.clock.skewed(skew_ms),
            world,
            dead: CancellationToken::new(),
            random: Mutex::new(random),
            frozen_until: Mutex::default(),
            faults: OnceLock::new(),
            is_immune: false,
        }
    }

    /// One that nothing befalls, to look at everything in the end.
    #[must_use]
    pub fn immune(name: String, world: Arc<World>, random: Random) -> Self {
        Self {
            is_immune: true,
            ..Self::new(name, world, 0, random)
        }
    }

    /// The hand on the switches of its storage, once there is one.
    pub fn connected(&self, faults: Arc<Faults>) {
        // Set once, when the process is put together.
        drop(self.faults.set(faults));
    }

    /// Adds a line to the trace.
    pub fn say(&self, what: &str) {
        self.world.trace.say(&self.name, what);
    }

    /// Its own chance.
    pub fn random(&self) -> MutexGuard<'_, Random> {
        lock(&self.random)
    }

    /// Ends it at once: from now on nothing that it does is seen by anybody.
    pub fn kill(&self) {
        if self.dead.is_cancelled() {
            return;
        }
        self.say("is killed");
        self.world.met("fault: killed");
        if let Some(faults) = self.faults.get() {
            faults.kill();
        }
        self.dead.cancel();
    }

    /// Stops it for a while; then it goes on as if nothing had been.
    pub fn freeze(&self, lasts: Duration) {
        self.say(&format!("freezes for {lasts:?}"));
        self.world.met("fault: frozen");
        *lock(&self.frozen_until) = Some(Instant::now() + lasts);
    }

    fn frozen_for(&self) -> Option<Duration> {
        let until = (*lock(&self.frozen_until))?;
        until
            .checked_duration_since(Instant::now())
            .filter(|rest| !rest.is_zero())
    }

    /// Resolves when it isn't frozen.
    pub async fn thawed(&self) {
        while let Some(rest) = self.frozen_for() {
            tokio::time::sleep(rest).await;
        }
    }

    /// What befalls a call.
    pub fn befalls(&self, moment: &Moment<'_>) -> Option<Fault> {
        if self.is_immune {
            return None;
        }
        let world = &self.world;
        let number = world.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(crash) = world.crash_at
            && crash.call == number
        {
            return Some(self.dies(crash.done, moment));
        }
        if let Some(rest) = self.frozen_for() {
            return Some(Fault::Delay(rest));
        }
        if !world.is_foul() {
            return None;
        }
        if world.is_out() {
            return Some(Fault::Before);
        }
        let Weather {
            die,
            die_after,
            before,
            after,
            throttle,
            slow,
            ..
        } = world.weather;
        // Death comes where it matters: most calls only look whether there is something to do.
        let matters = moment.call.writes() && moment.call != Call::Receive && moment.name != "WeftAudit";
        let (die, die_after) = if matters {
            (die, die_after)
        } else {
            (die / 20, die_after / 20)
        };
        let mut chance = self.random().below(100_000);
        let mut happens = |share: u64| {
            let hit = chance < share;
            chance = chance.saturating_sub(share);
            // Beyond all other shares, so that nothing else happens as well.
            if hit {
                chance = u64::MAX;
            }
            hit
        };
        let fault = if happens(die) {
            return Some(self.dies(false, moment));
        } else if happens(die_after) {
            return Some(self.dies(true, moment));
        } else if happens(before) {
            Fault::Before
        } else if happens(after) {
            Fault::After
        } else if happens(throttle) {
            Fault::Throttle
        } else if happens(slow) {
            Fault::Delay(self.random().between(Duration::from_secs(1), Duration::from_secs(20)))
        } else {
            return None;
        };
        self.say(&format!("{:?} {} meets {fault:?}", moment.call, moment.name));
        self.world.met(match fault {
            Fault::Before => "fault: call not done",
            Fault::After => "fault: answer lost",
            Fault::Throttle => "fault: throttled",
            _ => "fault: slow",
        });
        Some(fault)
    }

    fn dies(&self, done: bool, moment: &Moment<'_>) -> Fault {
        let when = if done { "after" } else { "before" };
        self.say(&format!("dies {when} {:?} {}", moment.call, moment.name));
        self.world.met(format!("fault: dies {when} a call"));
        self.dead.cancel();
        if done { Fault::DieAfter } else { Fault::Die }
    }

    /// Whether an answer gets lost and the call is done much later, and how much.
    pub fn comes_late(&self, call: Call) -> Option<Duration> {
        if !self.world.is_foul() || self.world.weather.late == 0 || !matches!(call, Call::Commit | Call::Send) {
            return None;
        }
        let mut random = self.random();
        let late = (random.below(100_000) < self.world.weather.late)
            .then(|| random.between(Duration::from_millis(10), Duration::from_secs(60)));
        if late.is_some() {
            self.world.met("fault: done late");
        }
        late
    }

    /// The way of a request, or of an answer.
    pub async fn travel(&self) {
        let latency = self.world.latency;
        let way = {
            let mut random = self.random();
            // Now and then one takes much longer, so that two that are under way overtake each other.
            let most = if random.per_mille(20) { latency * 20 } else { latency };
            random.between(Duration::ZERO, most)
        };
        if !way.is_zero() {
            tokio::time::sleep(way).await;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
