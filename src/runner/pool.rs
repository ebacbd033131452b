//! Workers that are forked ahead: which are kept, who gets one, and what happens when the zygote ends.
//!
//! Callers wait for any worker of their kind, not for a certain one, so that whoever has waited longest gets the first that
//! is ready; those before all others whose organization has nothing running here, and one ready worker is kept for them. The
//! successor of a worker that was taken is asked for when the attempt has been given away, not before.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::cgroup::{self, Bounds, Group};
use super::debug::{self, Debugger};
use super::environment::{ROOT_NAME, Scratch, harden_self};
use super::environments::EnvironmentRef;
use super::jail::Jail;
use super::jail::posture::{Isolation, Posture};
use super::jail::setup::{self, Setup, Uids};
use super::limits::ForkLimits;
use super::meter::Meter;
use super::network::AttemptNetwork;
use super::protocol::{Resume, Task};
use super::python::Python;
use super::worker::{BroughtUp, Description, Finished, Worker};
use super::zygote::{Order, Phase, WayOut, Zygote};
use super::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, LogLine, NodeRunner, RunnerError, RunnerTimings,
    WorkerMessage,
};
use crate::clock::{Clock, Entropy};
use crate::domain::{Limits, ModuleRules, Network, Outcome, Rights, StepError, Tier, Trust};
use crate::egress::{Egress, Gate};
use crate::error::Finding;

/// The time in which [`FAILURES`] ends of a zygote are too many.
const FAILURE_WINDOW: Duration = Duration::from_secs(30);
const FAILURES: usize = 5;
/// The wait before the third start within the window; doubles with each further one.
const BACK_OFF: Duration = Duration::from_millis(50);
/// How often one attempt looks for another worker when its own was lost before it began.
const TRIES: usize = 3;
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(30);
const DESCRIPTIONS: usize = 2;
/// How many files of a bundle may take their worker down before the rest is left undescribed.
const MAX_CRASHES: u32 = 20;
/// Modules are imported to be described, which is no reason to reach anything.
const DESCRIBING: Rights = Rights {
    trust: Trust::Trusted,
    network: Network::None,
    modules: ModuleRules {
        allow: None,
        deny: Vec::new(),
    },
    minimum: Tier::Process,
};
/// The version of Landlock from which it can say which ports may be connected to.
const LANDLOCK_WITH_PORTS: u32 = 4;
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// How a pool is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interpreter.
    pub python: Python,
    /// The folder that holds `weft` and `weft_runtime`.
    pub engine_dir: PathBuf,
    /// Where workers get their folders; made when missing.
    pub scratch_dir: PathBuf,
    /// How many attempts may run at once.
    pub slots: usize,
    /// How many attempts may wait for a slot.
    pub queue: usize,
    /// How many idle workers are kept for each module in use.
    pub ahead: usize,
    /// How many idle workers are kept in all.
    pub idle: usize,
    /// How long a module counts as in use after its last attempt.
    pub idle_for: Duration,
    /// How long importing a module may take.
    pub import_timeout: Duration,
    /// Modules that the zygote imports once for all workers.
    pub preload: Vec<String>,
    /// What workers get that are forked for no attempt yet, and those that describe.
    pub limits: Limits,
    /// When all workers together get a control group.
    pub group: cgroup::When,
    /// What steps with network may reach, and how much of it.
    pub egress: Egress,
    /// How isolation is set up.
    pub isolation: IsolationSettings,
    /// Which attempts wait for a debugger; development only.
    pub debugger: Option<Arc<Debugger>>,
}

/// How isolation is set up.
#[derive(Debug, Clone, Default)]
pub struct IsolationSettings {
    /// Below this no code of anybody is run.
    pub minimum: Tier,
    /// Layers that are not to be entered.
    pub off: Vec<String>,
    /// User ids for workers, where the zygote is root.
    pub uids: Option<Uids>,
    /// Folders that workers may read.
    pub read: Vec<PathBuf>,
    /// Folders that they see nothing of.
    pub hide: Vec<PathBuf>,
}

impl Settings {
    /// The defaults: two slots for each core and four at least, two idle workers for a module, sixteen in all.
    #[must_use]
    pub fn new(python: Python, engine_dir: impl Into<PathBuf>, scratch_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            python,
            engine_dir: engine_dir.into(),
            scratch_dir: scratch_dir.into(),
            slots: (2 * cores).max(4),
            queue: 1_024,
            ahead: 2,
            idle: 16,
            idle_for: Duration::from_secs(600),
            import_timeout: Duration::from_secs(30),
            preload: Vec::new(),
            limits: Limits::default(),
            group: cgroup::When::default(),
            egress: Egress::default(),
            isolation: IsolationSettings::default(),
            debugger: None,
        }
    }
}

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

/// Workers of equal keys are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(Arc<Kind>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    bundle: BundleRef,
    module: String,
    limits: ForkLimits,
    jail: Jail,
    minimum: Tier,
}

struct Shelf {
    ready: VecDeque<Box<Worker>>,
    starting: usize,
    waiters: VecDeque<Waiter>,
    last_used: Instant,
    /// The last import failed: nothing is forked ahead until one succeeds.
    broken: bool,
}

/// Who waits for a worker.
struct Waiter {
    sender: oneshot::Sender<Arrival>,
    /// [`AttemptSpec::is_first`] of its attempt.
    is_first: bool,
}

impl Shelf {
    fn new(now: Instant) -> Self {
        Self {
            ready: VecDeque::new(),
            starting: 0,
            waiters: VecDeque::new(),
            last_used: now,
            broken: false,
        }
    }

    /// Workers that nobody has asked for yet.
    fn spare(&self) -> usize {
        self.ready.len() + self.starting.saturating_sub(self.waiters.len())
    }

    /// Whoever is to have the next worker; nobody when it is to be kept for those who are not there yet.
    fn next(&mut self, kept: usize) -> Option<Waiter> {
        self.waiters.retain(|waiter| !waiter.sender.is_closed());
        match self.waiters.iter().position(|waiter| waiter.is_first) {
            Some(place) => self.waiters.remove(place),
            None if self.ready.len() < kept => None,
            None => self.waiters.pop_front(),
        }
    }
}

enum Arrival {
    Ready(Box<Worker>),
    /// Its module can't be imported, or there is too little isolation for it; what it had printed, and what was in force.
    Failed(Outcome, Vec<LogLine>, Arc<Vec<&'static str>>),
    /// Try again.
    Lost(RunnerError),
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
        let _one = self
            .shared
            .descriptions
            .acquire()
            .await
            .map_err(|_| RunnerError::Stopping)?;
        let started = Instant::now();
        let described = tokio::time::timeout(DESCRIBE_PATIENCE, self.shared.describe(bundle)).await;
        described.unwrap_or_else(|_| {
            let message = format!(
                "the workspace could not be described within {} s: a module of it does not end its import",
                DESCRIBE_PATIENCE.as_secs()
            );
            Ok(BundleDescription {
                findings: vec![
                    Finding::new(ROOT_NAME, "import_failed", message).hint("move work out of the top level of modules"),
                ],
                ms: millis(started.elapsed()),
                ..BundleDescription::default()
            })
        })
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

    /// Has a worker forked, if what is in force here is enough for it.
    async fn fork(
        &self,
        task: Task,
        bundle: &BundleRef,
        module: Option<&str>,
        limits: ForkLimits,
        (jail, minimum): (&Jail, Tier),
        debugged: bool,
    ) -> Result<Worker, NoFork> {
        let environment = &bundle.environment;
        let zygote = self.zygote(environment).await?;
        let mut way = Way::None;
        // Otherwise nothing depends on it, and the order need not wait for the zygote.
        if minimum > Tier::Process || jail.network {
            let Some(posture) = zygote.posture().await else {
                return Err(self.why_lost(environment, "the zygote is gone".into()).into());
            };
            if let Some(error) = posture.refusal(minimum) {
                return Err(NoFork::Refused(Box::new(error)));
            }
            if jail.network && posture.is_said {
                way = Self::way_out(&posture)?;
            }
        }
        let paths = self.paths(environment);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let order = Order {
            id,
            task,
            bundle,
            module,
            scratch: self.scratch.of_worker(id),
            limits,
            jail,
            paths: &paths,
            way_out: match &way {
                Way::None => WayOut::None,
                Way::Asked { local } => WayOut::Asked { local: *local },
                Way::Proxy(gate) => WayOut::Proxy(gate.proxy().unwrap_or_default()),
            },
            debug: self
                .settings
                .debugger
                .as_deref()
                .filter(|_| debugged)
                .map(Debugger::workspace),
        };
        let forked = Worker::fork(zygote, Arc::clone(&self.clock), &self.meter, &order);
        let mut worker = forked.map_err(|error| {
            NoFork::Lost(RunnerError::NoWorker {
                reason: error.to_string(),
            })
        })?;
        if let Way::Proxy(gate) = way {
            worker.gate = Some(gate);
        }
        Ok(worker)
    }

    /// How a worker that may use the network reaches it. Where nothing is closed, nothing is opened either.
    fn way_out(posture: &Posture) -> Result<Way, NoFork> {
        let has_network = !posture.has("network_namespace");
        let proxied = posture.has("landlock") && posture.landlock_abi >= LANDLOCK_WITH_PORTS && has_network;
        if let Some(error) = posture.refusal_of_network(proxied) {
            return Err(NoFork::Refused(Box::new(error)));
        }
        if posture.has("network_notify") {
            let local = posture.has("mount_namespace") && !has_network;
            return Ok(Way::Asked { local });
        }
        if !proxied {
            return Ok(Way::None);
        }
        let password = u128::from_ne_bytes(Entropy::System.bytes());
        match Gate::by_proxy(&format!("{password:032x}")) {
            Ok(gate) => Ok(Way::Proxy(gate)),
            Err(error) => Err(RunnerError::NoWorker {
                reason: format!("there is no port for its proxy: {error}"),
            }
            .into()),
        }
    }

    /// The zygote, a new one when there is none: at once after a first failure, later after longer and longer, and not at
    /// all after too many within a short time.
    async fn zygote(&self, environment: &Option<EnvironmentRef>) -> Result<Arc<Zygote>, RunnerError> {
        loop {
            let wait = {
                let mut state = self.state();
                if self.stopping.load(Ordering::SeqCst) {
                    return Err(RunnerError::Stopping);
                }
                let now = Instant::now();
                state.note_death(now);
                state.latest.clone_from(environment);
                if let Some(zygote) = state.zygotes.get(environment) {
                    return Ok(Arc::clone(zygote));
                }
                while state
                    .failures
                    .front()
                    .is_some_and(|at| now.duration_since(*at) > FAILURE_WINDOW)
                {
                    state.failures.pop_front();
                }
                if state.failures.len() >= FAILURES {
                    return Err(state.give_up());
                }
                let due = state.failures.back().map(|last| *last + back_off(state.failures.len()));
                match due.map(|due| due.saturating_duration_since(now)) {
                    Some(wait) if !wait.is_zero() => wait,
                    _ => {
                        let Settings {
                            python,
                            engine_dir,
                            preload,
                            ..
                        } = &self.settings;
                        let paths = self.paths(environment);
                        let uids = state.free_uids()?;
                        let setup = Setup {
                            uids: uids.map_or(self.setup.uids, |(_, uids)| Some(uids)),
                            ..self.setup.clone()
                        };
                        let group = self.group.clone();
                        let started = Zygote::start(python, engine_dir, preload, &paths, group, &setup, &self.runtime);
                        let zygote = started.map_err(|error| RunnerError::NoPython {
                            reason: error.to_string(),
                        })?;
                        let zygote = Arc::new(zygote);
                        if let Some((place, _)) = uids {
                            state.uids[place].1 = Arc::downgrade(&zygote);
                        }
                        state.zygotes.insert(environment.clone(), Arc::clone(&zygote));
                        return Ok(zygote);
                    }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// A worker was lost: because of the zygote, or for its own reason.
    fn why_lost(&self, environment: &Option<EnvironmentRef>, reason: String) -> RunnerError {
        let mut state = self.state();
        if self.stopping.load(Ordering::SeqCst) {
            return RunnerError::Stopping;
        }
        let died = state.zygotes.get(environment).is_some_and(|zygote| zygote.is_dead());
        state.note_death(Instant::now());
        if died {
            state.give_up()
        } else {
            RunnerError::NoWorker { reason }
        }
    }

    async fn describe(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        let started = Instant::now();
        let limits = &self.settings.limits;
        let mut lost = RunnerError::Stopping;
        let mut modules = Vec::new();
        let mut resume: Option<Resume> = None;
        let mut failures = 0;
        // How many files a worker had described when it was lost, and how often that was doubted.
        let mut lost_behind = None;
        let mut doubts = 0;
        while failures < TRIES {
            let worker = match self
                .fork(
                    Task::Describe,
                    bundle,
                    None,
                    ForkLimits::from(limits),
                    (&Jail::from(&DESCRIBING), self.settings.isolation.minimum),
                    false,
                )
                .await
            {
                Ok(worker) => worker,
                Err(NoFork::Refused(error)) => return Ok(undescribed(*error)),
                Err(NoFork::Lost(error)) => {
                    lost = error;
                    failures += 1;
                    continue;
                }
            };
            let (described, outcome) = match worker.bring_up(ROOT_NAME, limits, self.settings.import_timeout).await {
                BroughtUp::Ready(worker) => match worker.describe(ROOT_NAME, resume.as_ref(), limits).await {
                    Ok(Description {
                        modules: rest,
                        files,
                        ms,
                    }) => {
                        modules.extend(rest);
                        let ms = if resume.is_none() {
                            ms
                        } else {
                            millis(started.elapsed())
                        };
                        return Ok(description(modules, files, ms));
                    }
                    Err((described, outcome)) => (described, outcome),
                },
                BroughtUp::Failed(outcome, _) => (Vec::new(), outcome),
                BroughtUp::No(reason) => {
                    lost = self.why_lost(&bundle.environment, reason);
                    failures += 1;
                    continue;
                }
            };
            // The next file may have taken it down, or somebody else: the system for want of memory, or with the process that
            // it came from. What a file does it does again, so it is blamed when the next worker ends at the same place.
            if is_crash(&outcome) && lost_behind != Some(described.len()) && doubts < MAX_CRASHES {
                lost_behind = Some(described.len());
                doubts += 1;
                continue;
            }
            lost_behind = None;
            let progress = resume.is_none() || !described.is_empty();
            modules.extend(described);
            if let Outcome::Failed { error } | Outcome::TimedOut { error } = &outcome
                && progress
                && resume.as_ref().is_none_or(|resume| resume.crashes < MAX_CRASHES)
            {
                // Another worker goes on behind the file that took it down.
                resume = Some(behind(&modules, error, resume.map_or(0, |resume| resume.crashes)));
                continue;
            }
            let files = modules.len() as u64;
            let mut description = description(modules, files, millis(started.elapsed()));
            description.findings.push(interrupted(&description.modules, &outcome));
            return Ok(description);
        }
        Err(lost)
    }

    /// Where packages are that code of an environment may import: its own first, then those that are installed for the
    /// interpreter.
    fn paths(&self, environment: &Option<EnvironmentRef>) -> Vec<PathBuf> {
        let own = environment.iter().map(|environment| environment.lib.clone());
        own.chain(self.settings.python.packages.iter().cloned()).collect()
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

/// Whether a process ended that nobody had told to.
fn is_crash(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { error } if error.kind == "crashed")
}

/// Where to go on after the worker that has described these files was lost.
fn behind(modules: &[Value], error: &StepError, crashes: u32) -> Resume {
    let mut taken = Vec::new();
    for module in modules {
        let path = module["path"].as_str().unwrap_or_default();
        for (list, kind) in [
            ("workflows", "workflow"),
            ("data_providers", "data_provider"),
            ("nodes", "node"),
        ] {
            for declared in module[list].as_array().into_iter().flatten() {
                let name = declared["name"].as_str().unwrap_or_default();
                taken.push((kind.to_owned(), name.to_owned(), format!("{path}:{}", declared["line"])));
            }
        }
    }
    Resume {
        described: modules.len(),
        reason: error.message.clone(),
        taken,
        crashes: crashes + 1,
    }
}

/// How a worker reaches the network.
#[derive(Debug)]
enum Way {
    /// Not at all, or by nobody's leave.
    None,
    /// Its `connect()` is answered.
    Asked {
        /// Its `AF_UNIX` connections are made.
        local: bool,
    },
    /// It is told of a proxy of its own.
    Proxy(Gate),
}

/// Why there is no worker.
#[derive(Debug)]
enum NoFork {
    /// There is too little isolation for it.
    Refused(Box<StepError>),
    /// Try again.
    Lost(RunnerError),
}

impl From<RunnerError> for NoFork {
    fn from(error: RunnerError) -> Self {
        Self::Lost(error)
    }
}

impl State {
    /// User ids for another zygote, with their place in the list; none where no zygote changes its workers' user.
    fn free_uids(&self) -> Result<Option<(usize, Uids)>, RunnerError> {
        if self.uids.is_empty() {
            return Ok(None);
        }
        let mut parts = self.uids.iter().enumerate();
        match parts.find(|(_, (_, owner))| owner.strong_count() == 0) {
            Some((place, (uids, _))) => Ok(Some((place, *uids))),
            None => Err(RunnerError::NoWorker {
                reason: format!(
                    "workers of {} environments use all user numbers, and another environment needs some of its own: \
                     widen `WEFT_STEP_UIDS`",
                    self.uids.len()
                ),
            }),
        }
    }

    fn note_death(&mut self, now: Instant) {
        let dead: Vec<_> = self.zygotes.extract_if(|_, zygote| zygote.is_dead()).collect();
        for (_, zygote) in dead {
            let Phase::Dead { reason, was_ready } = zygote.phase() else {
                continue;
            };
            let (forks, kills) = zygote.counts();
            self.past = (self.past.0 + forks, self.past.1 + kills);
            self.failures.push_back(now);
            tracing::error!(reason, "the process that workers are forked from has ended");
            self.last_failure = Some(if was_ready {
                RunnerError::NoWorker { reason }
            } else {
                RunnerError::NoPython { reason }
            });
        }
    }

    fn give_up(&self) -> RunnerError {
        match &self.last_failure {
            Some(RunnerError::NoPython { reason }) => RunnerError::NoPython { reason: reason.clone() },
            Some(other) => RunnerError::NoWorker {
                reason: other.to_string(),
            },
            None => RunnerError::NoWorker {
                reason: "the zygote ended".into(),
            },
        }
    }

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

/// The user ids in parts that each suffice for all workers that there can be at once, those on their way out included.
fn parts_of_uids(settings: &Settings) -> Vec<(Uids, Weak<Zygote>)> {
    let Some(all) = settings.isolation.uids.filter(|_| rustix::process::geteuid().is_root()) else {
        return Vec::new();
    };
    let enough = 2 * (settings.slots + settings.idle + DESCRIPTIONS);
    let parts = parts(all, u32::try_from(enough).unwrap_or(u32::MAX));
    parts.into_iter().map(|uids| (uids, Weak::new())).collect()
}

/// As many parts as can have that many, at least one.
fn parts(all: Uids, enough: u32) -> Vec<Uids> {
    let parts = (all.count / enough).max(1);
    let count = all.count / parts;
    let part = |part| Uids {
        first: all.first + part * count,
        count,
    };
    (0..parts).map(part).collect()
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

/// The description of a bundle that may not even be imported here.
fn undescribed(error: StepError) -> BundleDescription {
    let message = error
        .message
        .replace("the step was not run", "the workspace was not looked at");
    BundleDescription {
        findings: vec![
            Finding::new(ROOT_NAME, error.kind, message)
                .hint("`WEFT_ISOLATION_MINIMUM` says what is needed; docs/operations.md says what gives it"),
        ],
        ..BundleDescription::default()
    }
}

fn back_off(failures: usize) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => BACK_OFF * (1 << (more - 2).min(5)),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn description(mut modules: Vec<Value>, files: u64, ms: f64) -> BundleDescription {
    modules.sort_by(|a, b| text(a, "path").cmp(text(b, "path")));
    let findings = modules
        .iter()
        .flat_map(|module| module["findings"].as_array().into_iter().flatten())
        .map(|finding| {
            let place = |name: &str| finding[name].as_u64().unwrap_or(1);
            let pointer = format!("{}:{}:{}", text(finding, "path"), place("line"), place("column"));
            let mapped = Finding::new(pointer, text(finding, "code"), text(finding, "message"));
            match finding["hint"].as_str() {
                Some(hint) => mapped.hint(hint),
                None => mapped,
            }
        })
        .collect();
    BundleDescription {
        modules,
        findings,
        files,
        ms,
    }
}

/// A description that did not come to its end: a module of the workspace ended the process.
fn interrupted(modules: &[Value], outcome: &Outcome) -> Finding {
    let why = match outcome {
        Outcome::Failed { error } | Outcome::TimedOut { error } => error.message.as_str(),
        Outcome::Succeeded { .. } | Outcome::Cancelled => "it ended",
    };
    let after = modules
        .last()
        .map(|module| format!(" after `{}`", text(module, "path")))
        .unwrap_or_default();
    Finding::new(
        ROOT_NAME,
        "import_failed",
        format!("describing the workspace ended early{after}: {why}"),
    )
    .hint("importing a module must not end the process")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_running_goes_before_others_and_a_worker_is_kept_for_them() {
        let mut shelf = Shelf::new(Instant::now());
        let mut wait = |is_first| {
            let (sender, arrival) = oneshot::channel();
            shelf.waiters.push_back(Waiter { sender, is_first });
            arrival
        };
        let (_flood, gone, first, _more) = (wait(false), wait(true), wait(true), wait(false));
        drop(gone);
        let next = shelf.next(1).expect("somebody waits");
        assert!(next.is_first && !next.sender.is_closed());
        drop(first);
        assert!(shelf.next(1).is_none(), "the one that is ready next is kept");
        assert!(shelf.next(0).is_some_and(|next| !next.is_first));
        assert_eq!(shelf.waiters.len(), 1);
    }

    #[test]
    fn no_two_zygotes_lend_the_same_user() {
        let all = Uids {
            first: 61_000,
            count: 1_024,
        };
        let split = parts(all, 100);
        assert_eq!(split.len(), 10);
        let numbers: std::collections::HashSet<_> = split
            .iter()
            .flat_map(|uids| uids.first..uids.first + uids.count)
            .collect();
        assert_eq!(numbers.len(), 1_020);
        assert!(numbers.iter().all(|number| (61_000..62_024).contains(number)));
        assert_eq!(parts(all, 2_000), [all]);
    }
}
