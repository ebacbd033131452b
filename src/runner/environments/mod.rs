//! Environments: the packages that a workspace asks for in `requirements.txt`, installed once, read-only, and named by the
//! digest of what was asked for and of the interpreter.
//!
//! Builds go on in threads of their own; nobody has to wait for one who does not need it. Several handlers on one data folder
//! share environments: a lock lets one build, and the others take what it has built.

mod build;
mod folder;
mod requirements;
mod resolver;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use folder::{Failure, Manifest, Package};
pub use requirements::{FILE, Requirements};
pub use resolver::{Hidden, Index};

use self::folder::{Folder, Lock};
use super::RunnerError;
use super::python::{self, Python};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::error::{Coded, Finding, Kind};

/// How often a lock that somebody else has is tried.
const LOCK_EVERY: Duration = Duration::from_millis(200);
/// How long a failure is believed; after that the next who needs the environment has it built again.
const FAILURE_HOLDS: Duration = Duration::from_secs(60);
/// How often the use of an environment is noted.
const NOTE_EVERY: Duration = Duration::from_secs(3600);
/// However long they were not used, the last ones are kept.
const KEEP_LAST: usize = 2;
/// Lines that are kept of the output of a build that goes on.
const TAIL: usize = 200;
/// How long a stopping handler waits for its builds to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// An environment that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvironmentRef {
    /// Its name: 64 hexadecimal digits.
    pub digest: String,
    /// What goes on `sys.path`.
    pub lib: PathBuf,
}

/// How environments are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where they are kept.
    pub root: PathBuf,
    /// The interpreter as it is configured.
    pub python: String,
    /// Where packages come from.
    pub index: Index,
    /// How long one is kept that nobody uses.
    pub keep: Duration,
}

/// What a workspace asks for, and the name of the environment that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub digest: String,
    /// What it is made of.
    pub requirements: Arc<Requirements>,
}

/// How far an environment is.
#[derive(Debug, Clone)]
pub enum Progress {
    /// It is being made.
    Building {
        /// Since when.
        since: Timestamp,
        /// The last line of the resolver.
        line: Arc<str>,
    },
    /// It can be used.
    Ready(EnvironmentRef),
    /// It can't be made.
    Failed(Arc<Failure>),
}

/// Why there is no environment right now.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// It is being made.
    #[error("the environment is being built{}", last(.line))]
    Building {
        /// The resolver's last line.
        line: String,
    },
    /// It can't be made.
    #[error("the environment could not be built: {}{}", .0.message, told(&.0.last_lines))]
    Failed(Arc<Failure>),
    /// `requirements.txt` is wrong.
    #[error("the requirements have {} finding(s)", .0.len())]
    Requirements(Vec<Finding>),
    /// A run is pinned to one that can't be made any more.
    #[error("the environment `{digest}` that the run is pinned to is not on this instance and can't be made here")]
    Lost {
        /// Which.
        digest: String,
    },
    /// There is no interpreter to make it for.
    #[error(transparent)]
    Python(#[from] RunnerError),
}

fn last(line: &str) -> String {
    if line.is_empty() {
        String::new()
    } else {
        format!(": {line}")
    }
}

fn told(lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().rev().take(5).rev().map(String::as_str).collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("\n{}", lines.join("\n"))
    }
}

impl Coded for EnvironmentError {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Building { .. } => "environment_building",
            Self::Failed(_) => "environment_failed",
            Self::Requirements(_) => "requirements_invalid",
            Self::Lost { .. } => "environment_unavailable",
            Self::Python(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Building { .. } => {
                "repeat the request after `Retry-After`; `GET /api/environments/current` and `weft env log` show how far it is".into()
            }
            Self::Failed(_) => {
                "mend `requirements.txt`; `weft env log` and `GET /api/environments/current` have the whole output".into()
            }
            Self::Requirements(_) => "`weft check` shows them again".into(),
            Self::Lost { .. } => "start a new run, which takes the current environment".into(),
            Self::Python(error) => return error.hint(),
        })
    }

    fn findings(&self) -> &[Finding] {
        match self {
            Self::Requirements(findings) => findings,
            _ => &[],
        }
    }
}

/// How an environment is, for people and programs.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `none` (nothing is asked for), `missing` (not built yet), `building`, `ready` or `failed`.
    pub status: String,
    /// The environment's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What is asked for, normalised.
    pub requirements: Vec<String>,
    /// What came of it.
    pub packages: Vec<Package>,
    /// What installed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// The interpreter that it is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// How long the build has taken, or takes so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is wrong with `requirements.txt`.
    pub findings: Vec<Finding>,
    /// The last lines of the resolver's output; `weft env log` has all of them.
    pub log_tail: Vec<String>,
}

/// All environments of a data folder.
pub struct Environments {
    inner: Arc<Inner>,
}

type Listener = Box<dyn Fn(&str) + Send + Sync>;

struct Inner {
    settings: Settings,
    clock: Arc<dyn Clock>,
    python: OnceLock<Python>,
    stop: CancellationToken,
    known: Mutex<HashMap<String, Known>>,
    /// Told every line of every build.
    listener: OnceLock<Listener>,
}

struct Known {
    progress: watch::Sender<Progress>,
    tail: VecDeque<String>,
    noted: Timestamp,
}

impl fmt::Debug for Environments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environments")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl Environments {
    /// Of this folder; nothing is read or made yet.
    #[must_use]
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                clock,
                python: OnceLock::new(),
                stop: CancellationToken::new(),
                known: Mutex::default(),
                listener: OnceLock::new(),
            }),
        }
    }

    /// Has every line of every build told to somebody, beside the log. The first one who asks gets them.
    pub fn listen(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        drop(self.inner.listener.set(Box::new(listener)));
    }

    /// What a workspace or a bundle asks for; none when nothing. Reads its files, and looks for the interpreter when there
    /// are requirements.
    ///
    /// # Errors
    /// When they are wrong, or there is no interpreter.
    pub fn wanted(&self, workspace: &Path) -> Result<Option<Wanted>, EnvironmentError> {
        let read = requirements::read(workspace).map_err(EnvironmentError::Requirements)?;
        let Some(requirements) = read else { return Ok(None) };
        let digest = requirements.digest(self.inner.python()?);
        Ok(Some(Wanted {
            digest,
            requirements: Arc::new(requirements),
        }))
    }

    /// The environment of this name, when it is here and whole.
    #[must_use]
    pub fn find(&self, digest: &str) -> Option<EnvironmentRef> {
        if !folder::is_digest(digest) {
            return None;
        }
        let folder = Folder::new(&self.inner.settings.root, digest);
        folder.manifest()?;
        self.inner.note_use(&folder);
        Some(reference(&folder))
    }

    /// Notes that an environment is in use, so that it is kept.
    pub fn note_use(&self, environment: &EnvironmentRef) {
        self.inner
            .note_use(&Folder::new(&self.inner.settings.root, &environment.digest));
    }

    /// How far an environment is; it is begun when it is not there. Returns at once.
    #[must_use]
    pub fn ensure(&self, wanted: &Wanted) -> watch::Receiver<Progress> {
        self.start(wanted, false)
    }

    /// The same, but a failure is tried again at once.
    #[must_use]
    pub fn retry(&self, wanted: &Wanted) -> watch::Receiver<Progress> {
        self.start(wanted, true)
    }

    fn start(&self, wanted: &Wanted, again: bool) -> watch::Receiver<Progress> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut known = inner.known();
        if let Some(one) = known.get(&wanted.digest) {
            let holds = match &*one.progress.borrow() {
                Progress::Building { .. } => true,
                Progress::Ready(environment) => environment.lib.is_dir(),
                Progress::Failed(failure) => !again && now.since(failure.at) < FAILURE_HOLDS,
            };
            if holds {
                return one.progress.subscribe();
            }
        }
        let folder = Folder::new(&inner.settings.root, &wanted.digest);
        let (progress, thread) = match folder.manifest() {
            Some(_) => {
                folder.touch(now);
                (Progress::Ready(reference(&folder)), false)
            }
            None => (
                Progress::Building {
                    since: now,
                    line: Arc::from(""),
                },
                true,
            ),
        };
        let one = Known {
            progress: watch::Sender::new(progress),
            tail: VecDeque::new(),
            noted: now,
        };
        let receiver = one.progress.subscribe();
        known.insert(wanted.digest.clone(), one);
        drop(known);
        if thread {
            let digest = wanted.digest.clone();
            let (inner, wanted) = (Arc::clone(inner), wanted.clone());
            let spawned = std::thread::Builder::new()
                .name("weft-environment".into())
                .spawn(move || inner.build(&folder, &wanted.requirements));
            if let Err(error) = spawned {
                let failure = self.inner.failure(format!("no thread can be started: {error}"));
                if let Some(one) = self.inner.known().get(&digest) {
                    one.progress.send_replace(Progress::Failed(Arc::new(failure)));
                }
            }
        }
        receiver
    }

    /// Waits until an environment can be used.
    ///
    /// # Errors
    /// When it can't be made, or is not ready after `patience`.
    pub async fn ready(&self, wanted: &Wanted, patience: Duration) -> Result<EnvironmentRef, EnvironmentError> {
        let mut progress = self.ensure(wanted);
        let done = progress.wait_for(|progress| !matches!(progress, Progress::Building { .. }));
        drop(tokio::time::timeout(patience, done).await);
        let progress = progress.borrow().clone();
        progress.outcome()
    }

    /// How the environment of a workspace is, here and now. Begins nothing.
    #[must_use]
    pub fn report(&self, workspace: &Path, tail: usize) -> Report {
        let mut report = Report {
            status: "none".to_owned(),
            digest: None,
            requirements: Vec::new(),
            packages: Vec::new(),
            resolver: None,
            python: None,
            duration_ms: None,
            bytes: None,
            error: None,
            findings: Vec::new(),
            log_tail: Vec::new(),
        };
        let wanted = match self.wanted(workspace) {
            Ok(None) => return report,
            Ok(Some(wanted)) => wanted,
            Err(error) => {
                "failed".clone_into(&mut report.status);
                report.error = Some(error.to_string());
                report.findings = error.findings().to_vec();
                return report;
            }
        };
        let folder = Folder::new(&self.inner.settings.root, &wanted.digest);
        report.digest = Some(wanted.digest.clone());
        report.requirements = wanted.requirements.lines.iter().cloned().collect();
        report.python = self.inner.python.get().map(|python| python.version.clone());
        report.log_tail = self.tail(&folder, tail);
        let status = if let Some(since) = folder.building_since() {
            let took = self.inner.clock.now().since(since).as_millis();
            report.duration_ms = u64::try_from(took).ok();
            "building"
        } else if let Some(manifest) = folder.manifest() {
            report.packages = manifest.packages;
            report.resolver = Some(manifest.resolver);
            report.duration_ms = Some(manifest.build_ms);
            report.bytes = Some(manifest.bytes);
            "ready"
        } else if let Some(failure) = folder.failure() {
            report.error = Some(failure.message);
            report.duration_ms = Some(failure.build_ms);
            "failed"
        } else {
            "missing"
        };
        status.clone_into(&mut report.status);
        report
    }

    fn tail(&self, folder: &Folder, most: usize) -> Vec<String> {
        let known = self.inner.known();
        let kept = known
            .get(folder.digest())
            .map(|one| &one.tail)
            .filter(|tail| !tail.is_empty());
        let lines: Vec<String> = match kept {
            Some(tail) => tail.iter().cloned().collect(),
            None => {
                drop(known);
                read_end(&folder.log()).lines().map(str::to_owned).collect()
            }
        };
        lines[lines.len().saturating_sub(most)..].to_vec()
    }

    /// Where the whole output of an environment's last build is.
    #[must_use]
    pub fn log_of(&self, wanted: &Wanted) -> PathBuf {
        Folder::new(&self.inner.settings.root, &wanted.digest).log()
    }

    /// Removes environments that were not used for as long as the settings say, but never the last two. Returns their names.
    pub fn remove_unused(&self) -> Vec<String> {
        self.inner.remove_unused()
    }

    /// Stops all builds, and waits for that for a moment.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let until = tokio::time::Instant::now() + STOP_PATIENCE;
        while self.inner.is_building() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Progress {
    fn outcome(self) -> Result<EnvironmentRef, EnvironmentError> {
        match self {
            Self::Ready(environment) => Ok(environment),
            Self::Failed(failure) => Err(EnvironmentError::Failed(failure)),
            Self::Building { line, .. } => Err(EnvironmentError::Building { line: line.to_string() }),
        }
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn python(&self) -> Result<&Python, RunnerError> {
        if let Some(python) = self.python.get() {
            return Ok(python);
        }
        let found = python::find(Some(&self.settings.python))?;
        Ok(self.python.get_or_init(|| found))
    }

    fn is_building(&self) -> bool {
        let known = self.known();
        known
            .values()
            .any(|one| matches!(*one.progress.borrow(), Progress::Building { .. }))
    }

    /// The thread of one build.
    fn build(&self, folder: &Folder, requirements: &Requirements) {
        let progress = match self.built(folder, requirements) {
            Ok(()) => {
                for digest in self.remove_unused() {
                    tracing::info!(environment = digest, "an environment that nobody uses was removed");
                }
                Progress::Ready(reference(folder))
            }
            Err(failure) => {
                // Whoever listens says so himself.
                if self.listener.get().is_none() {
                    tracing::error!(
                        environment = folder.digest(),
                        "the environment could not be built: {}",
                        failure.message
                    );
                }
                Progress::Failed(Arc::new(failure))
            }
        };
        if let Some(one) = self.known().get(folder.digest()) {
            one.progress.send_replace(progress);
        }
    }

    fn built(&self, folder: &Folder, requirements: &Requirements) -> Result<(), Failure> {
        let lock = self.wait_for_lock(folder)?;
        // Whoever had the lock may have built it.
        if folder.manifest().is_some() {
            return Ok(());
        }
        let python = self.python().map_err(|error| self.failure(error.to_string()))?;
        let order = build::Order {
            folder,
            lock: &lock,
            requirements,
            python,
            index: &self.settings.index,
            cache: self.settings.root.join("cache"),
            clock: &*self.clock,
            stop: &self.stop,
        };
        let manifest = build::build(&order, &mut |line| self.say(folder, line))?;
        tracing::info!(
            environment = manifest.digest,
            packages = manifest.packages.len(),
            build.ms = manifest.build_ms,
            "the environment is ready"
        );
        Ok(())
    }

    fn wait_for_lock(&self, folder: &Folder) -> Result<Lock, Failure> {
        let mut told = false;
        loop {
            match folder.lock() {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if self.stop.is_cancelled() => return Err(self.failure("the handler is stopping".to_owned())),
                Ok(None) => {
                    if !std::mem::replace(&mut told, true) {
                        self.say(folder, "weft: another process builds this environment");
                    }
                    std::thread::sleep(LOCK_EVERY);
                }
                Err(error) => {
                    tracing::error!(path = %folder.dir().display(), %error, "an environment can't be written");
                    return Err(self.failure(format!("its folder can't be written: {error}")));
                }
            }
        }
    }

    fn say(&self, folder: &Folder, line: &str) {
        tracing::info!(target: "weft::environment", "{line}");
        if let Some(listener) = self.listener.get() {
            listener(line);
        }
        let mut known = self.known();
        let Some(one) = known.get_mut(folder.digest()) else {
            return;
        };
        if one.tail.len() == TAIL {
            one.tail.pop_front();
        }
        one.tail.push_back(line.to_owned());
        one.progress.send_modify(|progress| {
            if let Progress::Building { line: shown, .. } = progress {
                *shown = Arc::from(line);
            }
        });
    }

    fn failure(&self, message: String) -> Failure {
        Failure {
            message,
            last_lines: Vec::new(),
            at: self.clock.now(),
            build_ms: 0,
        }
    }

    /// Now and then: a use each step would be a write each step.
    fn note_use(&self, folder: &Folder) {
        let now = self.clock.now();
        let mut known = self.known();
        let one = known.entry(folder.digest().to_owned()).or_insert_with(|| Known {
            progress: watch::Sender::new(Progress::Ready(reference(folder))),
            tail: VecDeque::new(),
            noted: Timestamp::from_millis(0),
        });
        if now.since(one.noted) >= NOTE_EVERY {
            one.noted = now;
            drop(known);
            folder.touch(now);
        }
    }

    fn remove_unused(&self) -> Vec<String> {
        let now = self.clock.now();
        let mut by_use = BTreeMap::new();
        for folder in Folder::all(&self.settings.root) {
            // What a killed build has left was not used at all.
            let used = match folder.manifest() {
                Some(_) => folder.used(),
                None => folder.failure().map(|failure| failure.at),
            };
            by_use.insert((used, folder.digest().to_owned()), folder);
        }
        let mut removed = Vec::new();
        for ((used, digest), folder) in by_use.into_iter().rev().skip(KEEP_LAST) {
            if used.is_some_and(|used| now.since(used) < self.settings.keep) {
                continue;
            }
            let outcome = match folder.lock() {
                Ok(Some(lock)) => folder.remove(&lock),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {
                    self.known().remove(&digest);
                    removed.push(digest);
                }
                Err(error) => tracing::warn!(environment = digest, %error, "an unused environment can't be removed"),
            }
        }
        removed
    }
}

fn reference(folder: &Folder) -> EnvironmentRef {
    EnvironmentRef {
        digest: folder.digest().to_owned(),
        lib: folder.lib(),
    }
}

/// The end of a log, whole lines of it.
fn read_end(path: &Path) -> String {
    use io::{Read as _, Seek as _};
    const MOST: u64 = 64 << 10;
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let skipped = file.metadata()?.len().saturating_sub(MOST);
        file.seek(io::SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(match (skipped, text.split_once('\n')) {
            (1.., Some((_, rest))) => rest.to_owned(),
            _ => text,
        })
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const DAY: Duration = Duration::from_secs(86_400);

    fn make(root: &Path, name: char, at: Timestamp) -> Folder {
        let folder = Folder::new(root, &name.to_string().repeat(64));
        let lock = folder.lock().unwrap().unwrap();
        drop(folder.begin(&lock, at).unwrap());
        let made = folder.unfinished().join("lib");
        std::fs::create_dir_all(made.join("package")).unwrap();
        std::fs::write(made.join("package/module.py"), "x = 1\n").unwrap();
        let manifest = Manifest {
            digest: folder.digest().to_owned(),
            requirements: Vec::new(),
            packages: Vec::new(),
            python: String::new(),
            resolver: String::new(),
            built_at: at,
            build_ms: 0,
            bytes: folder::seal(&made).unwrap(),
        };
        folder.finish(&lock, &made, &manifest).unwrap();
        folder
    }

    #[test]
    fn what_nobody_uses_is_removed_and_the_last_two_are_not() {
        let home = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        let settings = Settings {
            root: home.path().to_owned(),
            python: "python3".into(),
            index: Index::default(),
            keep: 14 * DAY,
        };
        let environments = Environments::new(settings, clock.clone());
        let [old, used, locked, killed] = ['a', 'b', 'c', 'd'].map(|name| make(home.path(), name, clock.now()));
        std::fs::remove_file(killed.dir().join("manifest.json")).unwrap();
        assert!(killed.manifest().is_none() && environments.find(killed.digest()).is_none());
        clock.advance(13 * DAY);
        let _last = [make(home.path(), 'e', clock.now()), make(home.path(), 'f', clock.now())];
        assert_eq!(environments.remove_unused(), [killed.digest()]);
        assert!(environments.find(used.digest()).is_some());
        clock.advance(2 * DAY);
        let lock = locked.lock().unwrap();
        assert_eq!(environments.remove_unused(), [old.digest()]);
        drop(lock);
        clock.advance(300 * DAY);
        let mut removed = environments.remove_unused();
        removed.sort();
        assert_eq!(removed, [used.digest(), locked.digest()]);
        assert_eq!(Folder::all(home.path()).len(), KEEP_LAST);
    }
}
