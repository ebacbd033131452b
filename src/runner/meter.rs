//! Holds workers to their limits from outside: memory, processes, threads, processor time and, where the folder has no quota,
//! disk, each of the worker with everything that it has started.
//!
//! One thread for all workers. It looks at a busy one every 100 ms, every 25 ms when it is above half of a limit or will be
//! soon, and at one that waits for its attempt every second. What is over is killed at once; the verdict is there before the
//! kill is asked for, so whoever hears of the end knows the reason.
//!
//! Memory is what can't be taken back: anonymous, shared and swapped-out pages, not those of files on disk. It is estimated
//! from above as long as that is enough. Only then it is read exactly, with shared pages divided among those who share them;
//! where that may not be read (another user's process without the right to trace it), the estimate stands, and pages that a
//! tree shares within itself count once for each process. Files in a folder with a quota are the quota's business.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::disk_usage::{self, Usage};
use super::limits::{ForkLimits, Limit};
use super::process_tree::{Reader, TICKS_PER_SECOND, Tree};

/// Between two looks at a busy worker.
const PERIOD: Duration = Duration::from_millis(100);
/// The same when it is near a limit.
const NEAR: Duration = Duration::from_millis(25);
/// The same for a worker that waits.
const IDLE: Duration = Duration::from_secs(1);
/// Between two counts of a folder, at least.
const DISK_PERIOD: Duration = Duration::from_millis(250);
/// What a dear measurement may take of the time between two of its kind.
const SHARE: u32 = 20;
/// How long an exact reading of memory may take before the estimate stands.
const EXACT_PATIENCE: Duration = Duration::from_millis(800);

/// A limit that was found exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub limit: Limit,
    /// How much was in use.
    pub used: u64,
}

/// Who is to be watched.
pub struct Subject {
    /// The worker's process id as this process sees it; 0 until it is known.
    pub pid: Arc<AtomicU32>,
    /// What it may use.
    pub limits: ForkLimits,
    /// Its folder, where that has no quota.
    pub folder: Option<PathBuf>,
    /// Kills it with everything below it.
    pub kill: Box<dyn Fn() + Send>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// The meter of one pool. Its thread ends with it.
#[derive(Debug)]
pub struct Meter {
    wake: mpsc::Sender<Option<Entry>>,
    cost: Arc<Cost>,
}

/// What metering has cost so far.
#[derive(Debug, Default)]
pub struct Cost {
    looks: AtomicU64,
    nanos: AtomicU64,
}

impl Cost {
    /// Looks at a worker, and microseconds for one of them.
    #[must_use]
    pub fn per_look(&self) -> (u64, f64) {
        let looks = self.looks.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a mean, for people")]
        let micros = self.nanos.load(Ordering::Relaxed) as f64 / 1_000.0 / looks.max(1) as f64;
        (looks, micros)
    }
}

/// A worker that is watched until this is dropped, and every [`Life`] of it.
#[derive(Debug)]
pub struct Watch {
    life: Arc<Life>,
    verdict: oneshot::Receiver<Exceeded>,
    wake: mpsc::Sender<Option<Entry>>,
}

/// For as long as this exists, a worker is watched.
#[derive(Debug)]
pub struct Life {
    busy: AtomicBool,
}

impl Watch {
    /// Whether foreign code is at work. Starts as true.
    pub fn set_busy(&self, busy: bool) {
        self.life.busy.store(busy, Ordering::Relaxed);
        if busy {
            let _ = self.wake.send(None);
        }
    }

    /// Comes when a limit was exceeded, and otherwise never.
    pub async fn exceeded(&mut self) -> Exceeded {
        if !self.verdict.is_terminated()
            && let Ok(exceeded) = (&mut self.verdict).await
        {
            return exceeded;
        }
        std::future::pending().await
    }

    /// Has it watched on when the rest of it is not needed any more.
    #[must_use]
    pub fn life(&self) -> Arc<Life> {
        Arc::clone(&self.life)
    }
}

/// Whether this process can see what others use.
///
/// # Errors
/// Why not.
pub fn available() -> Result<(), String> {
    let this = std::process::id();
    let mut reader = Reader::default();
    if reader.process(1).is_none() {
        return Err("the processes of others can't be seen in /proc".to_owned());
    }
    if !std::path::Path::new(&format!("/proc/{this}/task/{this}/children")).exists() {
        return Err("the kernel does not list the children of a process".to_owned());
    }
    reader
        .own_memory(this)
        .map(drop)
        .ok_or_else(|| "/proc/self/status can't be read".to_owned())
}

impl Meter {
    /// Starts its thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start() -> std::io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let cost = Arc::new(Cost::default());
        let of_thread = Arc::clone(&cost);
        std::thread::Builder::new().name("weft-meter".into()).spawn(move || {
            let mut instrument = Instrument {
                reader: Reader::default(),
                exact: None,
            };
            watch_all(&woken, &mut instrument, &of_thread);
        })?;
        Ok(Self { wake, cost })
    }

    /// Watches a worker from now on.
    #[must_use]
    pub fn watch(&self, subject: Subject) -> Watch {
        let life = Arc::new(Life {
            busy: AtomicBool::new(true),
        });
        let (sender, verdict) = oneshot::channel();
        let _ = self.wake.send(Some(Entry::new(subject, Arc::downgrade(&life), sender)));
        Watch {
            life,
            verdict,
            wake: self.wake.clone(),
        }
    }

    /// What it has cost so far.
    #[must_use]
    pub fn cost(&self) -> &Cost {
        &self.cost
    }
}

#[derive(Debug)]
struct Entry {
    subject: Subject,
    life: Weak<Life>,
    verdict: Option<oneshot::Sender<Exceeded>>,
    due: Instant,
    was_busy: bool,
    /// When the process was started: the pid alone could be another's by now.
    started: Option<u64>,
    /// Ticks of each process at the last look.
    ticks: HashMap<(u32, u64), u64>,
    /// Ticks of processes that are gone.
    gone_ticks: u64,
    looked: Option<Look>,
    exact: Option<Exact>,
    disk_due: Instant,
}

/// What there was at the last look.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    memory: u64,
    tasks: u64,
}

/// The last exact reading of memory.
#[derive(Debug)]
struct Exact {
    due: Instant,
    estimate: u64,
    used: u64,
}

impl Entry {
    fn new(subject: Subject, life: Weak<Life>, verdict: oneshot::Sender<Exceeded>) -> Self {
        let now = Instant::now();
        Self {
            subject,
            life,
            verdict: Some(verdict),
            due: now + NEAR,
            was_busy: true,
            started: None,
            ticks: HashMap::new(),
            gone_ticks: 0,
            looked: None,
            exact: None,
            disk_due: now + DISK_PERIOD,
        }
    }
}

fn watch_all(woken: &Receiver<Option<Entry>>, instrument: &mut Instrument, cost: &Cost) {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = entries.iter().map(|entry| entry.due).min();
        let message = match next {
            None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => woken.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match message {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        entries.retain(|entry| entry.verdict.is_some() && entry.life.strong_count() > 0);
        let now = Instant::now();
        for entry in &mut entries {
            let busy = entry
                .life
                .upgrade()
                .is_some_and(|life| life.busy.load(Ordering::Relaxed));
            if busy && !entry.was_busy {
                entry.due = entry.due.min(now + NEAR);
            }
            entry.was_busy = busy;
            if entry.due > now {
                continue;
            }
            let begun = Instant::now();
            let exceeded = instrument.look(entry, busy);
            cost.looks.fetch_add(1, Ordering::Relaxed);
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            cost.nanos.fetch_add(nanos, Ordering::Relaxed);
            if let Some(exceeded) = exceeded
                && let Some(verdict) = entry.verdict.take()
            {
                tracing::debug!(
                    pid = entry.subject.pid.load(Ordering::Relaxed),
                    ?exceeded,
                    "over a limit"
                );
                // The order matters: see the head of the file.
                let _ = verdict.send(exceeded);
                (entry.subject.kill)();
            }
        }
    }
}

struct Instrument {
    reader: Reader,
    exact: Option<ExactReader>,
}

impl Instrument {
    /// Looks once, and says when to look again.
    fn look(&mut self, entry: &mut Entry, busy: bool) -> Option<Exceeded> {
        let now = Instant::now();
        let pid = entry.subject.pid.load(Ordering::Acquire);
        let limits = entry.subject.limits;
        entry.due = now + if busy { PERIOD } else { IDLE };
        if pid == 0 {
            entry.due = now + NEAR;
            return None;
        }
        let tree = self.reader.tree(pid, entry.started, limits.processes)?;
        entry.started = Some(tree.started);
        let over = |limit, used, allowed| (used > allowed).then_some(Exceeded { limit, used });
        if tree.cut {
            return Some(Exceeded {
                limit: Limit::Processes,
                used: tree.processes,
            });
        }
        let ticks = spent_ticks(entry, &tree);
        let allowed_ticks = limits.cpu_seconds.saturating_mul(TICKS_PER_SECOND);
        let memory = self.memory(entry, &tree, now);
        let exceeded = over(Limit::Threads, tree.threads, limits.threads)
            .or_else(|| over(Limit::Cpu, ticks, allowed_ticks))
            .or_else(|| over(Limit::Memory, memory, limits.memory_bytes));
        if exceeded.is_some() {
            return exceeded;
        }
        if busy
            && now >= entry.disk_due
            && let Some(exceeded) = disk(entry, &tree)
        {
            return Some(exceeded);
        }
        let this = Look {
            at: now,
            memory,
            tasks: tree.processes + tree.threads,
        };
        let near = memory > limits.memory_bytes / 2
            || tree.processes > limits.processes / 2
            || tree.threads > limits.threads / 2
            || entry
                .looked
                .is_none_or(|last| this.is_growing(last, limits.memory_bytes));
        if busy && near {
            entry.due = now + NEAR;
        }
        entry.looked = Some(this);
        None
    }

    /// From the cheapest number that is certainly not too small to the exact one.
    fn memory(&mut self, entry: &mut Entry, tree: &Tree, now: Instant) -> u64 {
        let limit = entry.subject.limits.memory_bytes;
        if tree.resident <= limit {
            return tree.resident;
        }
        let own = |reader: &mut Reader, pid| reader.own_memory(pid).unwrap_or(0);
        // What the worker was forked with is the zygote's: counted once, there. What its own children still share of it is not
        // told from what they have made their own, so it counts.
        let inherited = own(&mut self.reader, tree.parent).min(own(&mut self.reader, tree.pids[0]));
        let estimate = tree
            .pids
            .iter()
            .map(|pid| own(&mut self.reader, *pid))
            .sum::<u64>()
            .saturating_sub(inherited);
        if estimate <= limit {
            return estimate;
        }
        if let Some(last) = &entry.exact
            && now < last.due
            && last.used + estimate.saturating_sub(last.estimate) <= limit
        {
            return last.used;
        }
        let begun = Instant::now();
        let Some(used) = self.exact.get_or_insert_default().sum(tree.pids.clone()) else {
            return estimate;
        };
        entry.exact = Some(Exact {
            due: now + (begun.elapsed() * SHARE).max(PERIOD),
            estimate,
            used,
        });
        used
    }
}

/// What the whole tree has spent. A process that nobody waits for takes its time with it, so the last that was seen of it is
/// kept; one that was waited for is in its parent's account as well, so the larger of both counts.
fn spent_ticks(entry: &mut Entry, tree: &Tree) -> u64 {
    entry.gone_ticks += entry
        .ticks
        .iter()
        .filter(|(key, _)| !tree.ticks.contains_key(key))
        .map(|(_, ticks)| ticks)
        .sum::<u64>();
    entry.ticks.clone_from(&tree.ticks);
    tree.ticks.values().sum::<u64>() + entry.gone_ticks.max(tree.waited_ticks)
}

impl Look {
    /// Whether there are more processes or threads than before, which may double from one look to the next, or memory would
    /// be above its limit in a little while.
    fn is_growing(self, last: Self, memory_bytes: u64) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let grown = self.memory.saturating_sub(last.memory);
        let soon = grown.saturating_mul(millis(PERIOD * 3)) / millis(self.at.duration_since(last.at));
        self.tasks > last.tasks || self.memory.saturating_add(soon) > memory_bytes
    }
}

fn disk(entry: &mut Entry, tree: &Tree) -> Option<Exceeded> {
    let folder = entry.subject.folder.as_deref()?;
    let limits = &entry.subject.limits;
    let begun = Instant::now();
    // A file as large as it may be takes some blocks more for its own administration.
    let bound = Usage {
        bytes: limits.disk_bytes.saturating_add(limits.disk_bytes / 64),
        files: limits.disk_files,
    };
    let mut usage = disk_usage::of_folder(folder, bound).unwrap_or_default();
    let mut seen = Vec::new();
    for pid in &tree.pids {
        usage.bytes += disk_usage::of_nameless_files(*pid, folder, &mut seen);
    }
    entry.disk_due = begun + (begun.elapsed() * SHARE).clamp(DISK_PERIOD, DISK_PERIOD * 4);
    let (limit, used) = if usage.files > bound.files {
        (Limit::DiskFiles, usage.files)
    } else if usage.bytes > bound.bytes {
        (Limit::DiskBytes, usage.bytes)
    } else {
        return None;
    };
    Some(Exceeded { limit, used })
}

/// Reads exact memory on a thread of its own, because that can wait for a process that is changing its memory map.
#[derive(Debug)]
struct ExactReader {
    ask: SyncSender<(u64, Vec<u32>)>,
    answers: Receiver<(u64, Option<u64>)>,
    asked: u64,
}

impl Default for ExactReader {
    fn default() -> Self {
        let (ask, questions) = mpsc::sync_channel::<(u64, Vec<u32>)>(1);
        let (answer, answers) = mpsc::channel();
        let spawned = std::thread::Builder::new()
            .name("weft-meter-exact".into())
            .spawn(move || {
                let mut reader = Reader::default();
                while let Ok((number, pids)) = questions.recv() {
                    let sum = pids.into_iter().try_fold(0, |sum, pid| {
                        match reader.shared_memory(pid) {
                            Some(bytes) => Some(sum + bytes),
                            // Gone is nothing; there and unreadable is unknown.
                            None => reader.process(pid).is_none_or(|process| process.zombie).then_some(sum),
                        }
                    });
                    if answer.send((number, sum)).is_err() {
                        return;
                    }
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "memory is estimated from above, because there can be no more threads");
        }
        Self { ask, answers, asked: 0 }
    }
}

impl ExactReader {
    /// None when it may not be read, or takes too long.
    fn sum(&mut self, pids: Vec<u32>) -> Option<u64> {
        self.asked += 1;
        self.ask.try_send((self.asked, pids)).ok()?;
        let end = Instant::now() + EXACT_PATIENCE;
        loop {
            match self.answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((number, sum)) if number == self.asked => return sum,
                // The answer to a question that was given up.
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}
