//! Workers that are forked ahead: how many are kept, who gets one, and when the next is started.
//!
//! Callers wait for any worker of their kind, not for a certain one, so that whoever has waited longest gets the first that
//! is ready; those before all others whose organization has nothing running here, and one ready worker is kept for them. The
//! successor of a worker that was taken is asked for when the attempt has been given away, not before.
//!
//! `shelf.rs` keeps workers of one kind, `fork.rs` has them forked, `zygotes.rs` keeps the processes that they are forked from,
//! `describe.rs` has workers say what is in a bundle.

mod describe;
mod fork;
mod settings;
mod shelf;
mod zygotes;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use self::describe::DESCRIPTIONS;
use self::fork::NoFork;
pub use self::settings::{IsolationSettings, Settings};
use self::shelf::{Arrival, Key, Kind, Shelf, Waiter};
use self::zygotes::parts_of_uids;
use super::cgroup::{self, Bounds, Group};
use super::debug;
use super::environment::{Scratch, harden_self};
use super::environments::EnvironmentRef;
use super::jail::Jail;
use super::jail::posture::{Isolation, Posture};
use super::jail::setup::{self, Setup, Uids};
use super::limits::ForkLimits;
use super::meter::Meter;
use super::network::AttemptNetwork;
use super::protocol::Task;
use super::worker::{BroughtUp, Finished, Worker};
use super::zygote::Zygote;
use super::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, NodeRunner, RunnerError, RunnerTimings, WorkerMessage,
};
use crate::clock::Clock;
use crate::domain::{Outcome, Rights};

/// How often one attempt looks for another worker when its own was lost before it began.
const TRIES: usize = 3;
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Runs attempts in real processes.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    scratch: Scratch,
    meter: Meter,
    group: Option<Arc<Group>>,
    setup: Setup,
    slots: Semaphore,
    waiting: AtomicUsize,
    descriptions: Semaphore,
    next_id: AtomicU64,
    stopping: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One for each environment in use: what it has imported ahead is of that one.
    zygotes: HashMap<Option<EnvironmentRef>, Arc<Zygote>>,
    /// The environment that was asked for last.
    latest: Option<EnvironmentRef>,
    /// Parts of the user ids, each with the zygote that has it: two would lend the same ones. Empty where none is used.
    uids: Vec<(Uids, Weak<Zygote>)>,
    /// Ends of zygotes within the window, and what the last one died of.
    failures: VecDeque<Instant>,
    last_failure: Option<RunnerError>,
    /// Of zygotes that are gone.
    past: (u64, u64),
    shelves: HashMap<Key, Shelf>,
}

impl Pool {
    /// Sets a pool up; Python is started when it is first needed. Must be called within a tokio runtime, which it goes on
    /// using. From here on this process can't be read by others of its user.
    ///
    /// # Errors
    /// When the scratch folder can't be made.
    pub fn start(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, RunnerError> {
        harden_self();
        let scratch = Scratch::create(&settings.scratch_dir).map_err(|error| RunnerError::NoWorker {
            reason: format!(
                "the scratch folder {} can't be made: {error}",
                settings.scratch_dir.display()
            ),
        })?;
        let meter = Meter::start().map_err(|error| RunnerError::NoWorker {
            reason: format!("the thread that holds workers to their limits can't be started: {error}"),
        })?;
        let bounds = Bounds::of(settings.slots, settings.limits.memory_bytes, settings.limits.threads);
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = Group::create(Path::new(cgroup::ROOT), &own, settings.group, bounds)
            .inspect_err(|reason| tracing::debug!(reason, "workers have no control group"))
            .ok()
            .map(Arc::new);
        let shared = Arc::new(Shared {
            meter,
            group,
            clock,
            runtime: tokio::runtime::Handle::current(),
            setup: set_up(&settings.isolation, &scratch),
            scratch,
            slots: Semaphore::new(settings.slots),
            waiting: AtomicUsize::new(0),
            descriptions: Semaphore::new(DESCRIPTIONS),
            next_id: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            state: Mutex::new(State {
                uids: parts_of_uids(&settings),
                ..State::default()
            }),
            settings,
        });
        let weak = Arc::downgrade(&shared);
        let period = shared
            .settings
            .idle_for
            .clamp(Duration::from_millis(100), Duration::from_secs(60));
        shared.runtime.spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(shared) = weak.upgrade() else { return };
                shared.forget_unused();
            }
        });
        Ok(Self { shared })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl NodeRunner for Pool {
    async fn run(&self, mut spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError> {
        let shared = &self.shared;
        let slot = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(not_begun(RunnerTimings::default())),
            slot = shared.slot() => slot?,
        };
        let key = Key(Arc::new(Kind {
            bundle: spec.bundle.clone(),
            module: spec.entry.module.clone(),
            limits: ForkLimits::from(&spec.limits),
            jail: Jail::from(&spec.rights),
            minimum: spec.rights.minimum.max(shared.settings.isolation.minimum),
        }));
        let debugger = shared.settings.debugger.as_deref();
        let debugged = debugger.and_then(|debugger| Some((debugger, debugger.wants(&spec)?)));
        let _turn = match &debugged {
            None => None,
            Some((debugger, _)) => {
                spec.limits.wall_ms = u64::try_from(debug::UNTIMED.as_millis()).unwrap_or(u64::MAX);
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Ok(not_begun(RunnerTimings::default())),
                    turn = debugger.turn() => Some(turn),
                }
            }
        };
        let asked = Instant::now();
        let mut timings = RunnerTimings::default();
        let mut lost = None;
        for _ in 0..TRIES {
            let arrival = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(not_begun(timings)),
                arrival = shared.worker(&key, spec.is_first), if debugged.is_none() => arrival?,
                arrival = shared.started(&key, true), if debugged.is_some() => arrival,
            };
            timings.boot_ms = millis(asked.elapsed());
            match arrival {
                Arrival::Ready(mut worker) => {
                    timings.import_ms = worker.import_ms;
                    let mut posture = worker.posture(&key.0.jail);
                    let socket = worker.debug.take();
                    if socket.is_some() {
                        Arc::make_mut(&mut posture).push(debug::MARK);
                    }
                    let (gate, clock) = (worker.gate.take(), Arc::clone(&shared.clock));
                    let network = match AttemptNetwork::open(gate, &shared.settings.egress, &spec, clock).await {
                        Ok(network) => network,
                        Err(outcome) => return Ok(report(Finished::with(outcome), timings, posture)),
                    };
                    let relay = async {
                        if let (Some((debugger, step)), Some(socket)) = (&debugged, socket) {
                            debugger.relay(step, socket).await;
                        }
                    };
                    let run = worker.run(&spec, &cancel, || shared.refill(&key));
                    match beside(run, relay).await {
                        Ok(mut finished) => {
                            drop(slot);
                            timings.user_ms = finished.user_ms;
                            let network = match network {
                                Some(network) => Some(network.end(&mut finished.outcome).await),
                                None => None,
                            };
                            return Ok(AttemptReport {
                                network,
                                ..report(finished, timings, posture)
                            });
                        }
                        Err(ended) => {
                            let reason = format!("it ended while it waited: {ended:?}");
                            lost = Some(RunnerError::NoWorker { reason });
                        }
                    }
                }
                Arrival::Failed(outcome, lines, posture) => {
                    drop(slot);
                    for line in lines {
                        if spec.messages.send(WorkerMessage::Line(line)).await.is_err() {
                            break;
                        }
                    }
                    return Ok(report(Finished::with(outcome), timings, posture));
                }
                Arrival::Lost(error) => lost = Some(error),
            }
        }
        Err(lost.unwrap_or(RunnerError::Stopping))
    }

    async fn describe(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        self.shared.describe(bundle).await
    }

    fn warm(&self, bundle: &BundleRef, module: &str, rights: &Rights) {
        let key = Key(Arc::new(Kind {
            bundle: bundle.clone(),
            module: module.to_owned(),
            limits: ForkLimits::from(&self.shared.settings.limits),
            jail: Jail::from(rights),
            minimum: rights.minimum.max(self.shared.settings.isolation.minimum),
        }));
        self.shared.refill(&key);
    }

    async fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.slots.close();
        self.shared.descriptions.close();
        let (zygotes, shelves) = {
            let mut state = self.shared.state();
            (std::mem::take(&mut state.zygotes), std::mem::take(&mut state.shelves))
        };
        let ends = zygotes.values().map(|zygote| zygote.shut_down(SHUTDOWN_PATIENCE));
        futures::future::join_all(ends).await;
        drop(shelves);
    }

    fn slots(&self) -> usize {
        self.shared.settings.slots
    }

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        let mut lost = RunnerError::Stopping;
        let environment = self.shared.state().latest.clone();
        for _ in 0..TRIES {
            let zygote = self.shared.zygote(&environment).await?;
            match zygote.posture().await {
                Some(posture) => return Ok(self.shared.isolation(&posture)),
                None => lost = self.shared.why_lost(&environment, "the zygote is gone".into()),
            }
        }
        Err(lost)
    }

    fn isolation(&self) -> Option<Isolation> {
        let posture = {
            let state = self.shared.state();
            let latest = state.zygotes.get(&state.latest);
            // The platform gives all of them the same; the latest may not have found out yet.
            let mut all = latest.into_iter().chain(state.zygotes.values());
            all.find_map(|zygote| zygote.posture_so_far())?
        };
        Some(self.shared.isolation(&posture))
    }

    fn status(&self) -> Value {
        let isolation = self.isolation();
        let shared = &self.shared;
        let state = shared.state();
        let zygote = state.zygotes.get(&state.latest).filter(|zygote| !zygote.is_dead());
        let group = zygote.and_then(|zygote| zygote.group());
        let (looks, micros) = shared.meter.cost().per_look();
        let (forks, kills) = state.zygotes.values().fold((0, 0), |(forks, kills), zygote| {
            let counts = zygote.counts();
            (forks + counts.0, kills + counts.1)
        });
        json!({
            "python": {"path": shared.settings.python.path, "version": shared.settings.python.version},
            "zygote": {
                "pid": zygote.and_then(|zygote| zygote.pid()),
                "failures": state.failures.len(),
                "lastFailure": state.last_failure.as_ref().map(ToString::to_string),
            },
            "slots": shared.settings.slots,
            "busy": shared.settings.slots - shared.slots.available_permits().min(shared.settings.slots),
            "waiting": shared.waiting.load(Ordering::Relaxed),
            "idle": state.shelves.values().map(|shelf| shelf.ready.len()).sum::<usize>(),
            "starting": state.shelves.values().map(|shelf| shelf.starting).sum::<usize>(),
            "forks": state.past.0 + forks,
            "kills": state.past.1 + kills,
            "meter": {"looks": looks, "microsPerLook": (micros * 10.0).round() / 10.0},
            "group": group.map(|group| json!({
                "memoryBytes": group.bounds().memory_bytes,
                "tasks": group.bounds().tasks,
                "memoryKills": group.memory_kills(),
            })),
            "isolation": isolation,
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn isolation(&self, posture: &Posture) -> Isolation {
        Isolation {
            posture: posture.clone(),
            minimum: self.settings.isolation.minimum,
        }
    }

    /// Waits for a slot, first come, first served, unless too many do already.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, RunnerError> {
        if self.slots.is_closed() {
            return Err(RunnerError::Stopping);
        }
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let waiting = Counted::one_more(&self.waiting);
        if waiting.before >= self.settings.queue {
            return Err(RunnerError::Busy {
                slots: self.settings.slots,
            });
        }
        self.slots.acquire().await.map_err(|_| RunnerError::Stopping)
    }

    /// A worker that is ready: an idle one, or the next that becomes ready.
    async fn worker(self: &Arc<Self>, key: &Key, is_first: bool) -> Result<Arrival, RunnerError> {
        let kept = if is_first { 0 } else { self.kept() };
        let arrival = {
            let mut state = self.state();
            if self.stopping.load(Ordering::SeqCst) {
                return Err(RunnerError::Stopping);
            }
            let now = Instant::now();
            let shelf = state.shelves.entry(key.clone()).or_insert_with(|| Shelf::new(now));
            shelf.last_used = now;
            shelf.ready.retain_mut(|worker| !worker.is_gone());
            if shelf.ready.len() > kept
                && let Some(worker) = shelf.ready.pop_front()
            {
                return Ok(Arrival::Ready(worker));
            }
            let (sender, arrival) = oneshot::channel();
            shelf.waiters.push_back(Waiter { sender, is_first });
            arrival
        };
        self.start_missing(key);
        arrival.await.map_err(|_| RunnerError::Stopping)
    }

    /// How many ready workers of a kind only those may take whose organization has nothing running here.
    fn kept(&self) -> usize {
        self.settings.ahead.min(self.settings.idle).min(1)
    }

    /// Starts workers until there is one on its way for everybody who waits.
    fn start_missing(self: &Arc<Self>, key: &Key) {
        let missing = {
            let mut state = self.state();
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let Some(shelf) = state.shelves.get_mut(key) else {
                return;
            };
            shelf.waiters.retain(|waiter| !waiter.sender.is_closed());
            let missing = shelf.waiters.len().saturating_sub(shelf.starting);
            shelf.starting += missing;
            missing
        };
        for _ in 0..missing {
            self.runtime.spawn(Arc::clone(self).bring_up(key.clone()));
        }
    }

    /// Forks workers ahead until there are as many spare ones as there should be.
    fn refill(self: &Arc<Self>, key: &Key) {
        let (missing, evicted) = {
            let mut state = self.state();
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let now = Instant::now();
            let shelf = state.shelves.entry(key.clone()).or_insert_with(|| Shelf::new(now));
            shelf.last_used = now;
            if shelf.broken {
                return;
            }
            let missing = self
                .settings
                .ahead
                .min(self.settings.idle)
                .saturating_sub(shelf.spare());
            shelf.starting += missing;
            let evicted = if missing > 0 {
                state.evict(key, self.settings.idle)
            } else {
                VecDeque::new()
            };
            (missing, evicted)
        };
        for _ in 0..missing {
            self.runtime.spawn(Arc::clone(self).bring_up(key.clone()));
        }
        drop(evicted);
    }

    /// Starts one worker, and gives it to whoever has waited longest.
    async fn bring_up(self: Arc<Self>, key: Key) {
        let arrival = self.started(&key, false).await;
        self.arrived(&key, arrival);
        // What has come may be kept although somebody waits.
        self.start_missing(&key);
    }

    /// Starts one worker.
    async fn started(&self, key: &Key, debugged: bool) -> Arrival {
        let Kind {
            bundle,
            module,
            limits,
            jail,
            minimum,
        } = &*key.0;
        let started = self
            .fork(Task::Attempt, bundle, Some(module), *limits, (jail, *minimum), debugged)
            .await;
        match started {
            Ok(worker) => {
                let zygote = worker.zygote();
                match worker
                    .bring_up(module, &limits.as_limits(), self.settings.import_timeout)
                    .await
                {
                    BroughtUp::Ready(worker) => Arrival::Ready(worker),
                    BroughtUp::Failed(outcome, lines) => {
                        let posture = zygote.posture_so_far().map(|posture| posture.of(jail));
                        Arrival::Failed(outcome, lines, posture.unwrap_or_default())
                    }
                    BroughtUp::No(reason) => Arrival::Lost(self.why_lost(&bundle.environment, reason)),
                }
            }
            Err(NoFork::Refused(error)) => {
                Arrival::Failed(Outcome::Failed { error: *error }, Vec::new(), Arc::default())
            }
            Err(NoFork::Lost(error)) => Arrival::Lost(error),
        }
    }

    fn arrived(&self, key: &Key, mut arrival: Arrival) {
        let mut state = self.state();
        let Some(shelf) = state.shelves.get_mut(key) else {
            return;
        };
        shelf.starting = shelf.starting.saturating_sub(1);
        match &arrival {
            Arrival::Ready(_) => shelf.broken = false,
            Arrival::Failed(..) => shelf.broken = true,
            Arrival::Lost(_) => {}
        }
        // A failure is for those alone that no other worker is being started for.
        shelf.waiters.retain(|waiter| !waiter.sender.is_closed());
        let kept = match arrival {
            Arrival::Ready(_) => self.kept(),
            _ if shelf.starting >= shelf.waiters.len() => return,
            _ => 0,
        };
        while let Some(waiter) = shelf.next(kept) {
            match waiter.sender.send(arrival) {
                Ok(()) => return,
                Err(back) => arrival = back,
            }
        }
        if let Arrival::Ready(worker) = arrival {
            shelf.ready.push_back(worker);
        }
    }

    /// Ends the workers of modules that have not been called for long, and the zygotes of environments that none of those
    /// left is of.
    fn forget_unused(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let mut unused = Vec::new();
        state.shelves.retain(|_, shelf| {
            if now.duration_since(shelf.last_used) < self.settings.idle_for {
                return true;
            }
            unused.extend(shelf.ready.drain(..));
            shelf.starting > 0 || !shelf.waiters.is_empty()
        });
        let State {
            zygotes,
            latest,
            past,
            shelves,
            ..
        } = &mut *state;
        let mut idle = Vec::new();
        zygotes.retain(|environment, zygote| {
            let used = environment == latest || shelves.keys().any(|key| key.0.bundle.environment == *environment);
            if !used {
                let (forks, kills) = zygote.counts();
                *past = (past.0 + forks, past.1 + kills);
                idle.push(Arc::clone(zygote));
            }
            used
        });
        drop(state);
        // A worker that still runs keeps its zygote.
        drop((unused, idle));
    }
}

/// What comes of an attempt, while a debugger's client and its worker speak with each other.
async fn beside<T>(run: impl Future<Output = T>, relay: impl Future<Output = ()>) -> T {
    tokio::pin!(run, relay);
    let mut is_relaying = true;
    loop {
        tokio::select! {
            biased;
            ran = &mut run => {
                if is_relaying {
                    drop(tokio::time::timeout(debug::LAST_WORDS, relay).await);
                }
                return ran;
            }
            () = &mut relay, if is_relaying => is_relaying = false,
        }
    }
}

impl State {
    /// Takes idle workers from the shelves that were not used for longest until `idle` are left; never from `keep`.
    fn evict(&mut self, keep: &Key, idle: usize) -> VecDeque<Box<Worker>> {
        let mut evicted = VecDeque::new();
        while self.shelves.values().map(Shelf::spare).sum::<usize>() > idle {
            let oldest = self
                .shelves
                .iter_mut()
                .filter(|(key, shelf)| *key != keep && !shelf.ready.is_empty())
                .min_by_key(|(_, shelf)| shelf.last_used);
            let Some((_, shelf)) = oldest else { break };
            evicted.extend(shelf.ready.pop_front());
        }
        evicted
    }
}

fn set_up(settings: &IsolationSettings, scratch: &Scratch) -> Setup {
    let text = |path: &Path| path.display().to_string();
    Setup {
        off: settings.off.clone(),
        uids: settings.uids,
        filters: setup::filters(),
        scratch: text(scratch.dir()),
        read: settings.read.iter().map(|path| text(path)).collect(),
        hide: settings.hide.iter().map(|path| text(path)).collect(),
    }
}

fn report(finished: Finished, timings: RunnerTimings, posture: Arc<Vec<&'static str>>) -> AttemptReport {
    AttemptReport {
        outcome: finished.outcome,
        variables: finished.variables,
        timings,
        output_bytes: finished.output_bytes,
        output_truncated: finished.output_truncated,
        max_rss_kib: finished.max_rss_kib,
        posture,
        network: None,
    }
}

/// An attempt that was cancelled before it had a worker.
fn not_begun(timings: RunnerTimings) -> AttemptReport {
    report(Finished::with(Outcome::Cancelled), timings, Arc::default())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// A count that is taken back when this is dropped.
struct Counted<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Counted<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        Self {
            count,
            before: count.fetch_add(1, Ordering::SeqCst),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}
