//! Python steps in single-use processes that are forked ahead from a zygote.
//!
//! A worker gets one attempt, holds no credential and no descriptor but its own socket; whatever it may have, it asks for
//! over that socket, and the caller of [`NodeRunner::run`] answers. `docs/runner-protocol.md` is the contract with
//! `engine/weft_runtime/`.

pub mod archive;
pub mod bundle;
pub mod cgroup;
pub mod debug;
mod disk_usage;
mod environment;
pub mod environments;
pub mod fetched;
pub mod folders;
pub mod graphs;
pub mod jail;
pub mod leave_out;
mod limits;
mod meter;
mod network;
mod outcome;
mod output;
pub mod played;
pub mod pool;
mod process;
mod process_tree;
pub mod protocol;
pub mod python;
mod remove;
pub mod replayed;
#[cfg(feature = "testing")]
pub mod scripted;
pub mod tools;
mod worker;
mod zygote;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use self::jail::posture::Isolation;
pub use crate::domain::LogLine;
use crate::domain::{AttemptId, Limits, NetworkUse, Outcome, Rights, Timestamp};
pub use crate::egress::Refusal as RefusedConnection;
use crate::error::{Coded, Finding, Kind};
use environments::EnvironmentRef;

/// Code that a run is pinned to: an immutable folder named by the digest of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BundleRef {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Where it lies on this machine.
    pub dir: PathBuf,
    /// The packages that it was pinned with; none when it asks for none.
    pub environment: Option<EnvironmentRef>,
}

/// What of a bundle is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Entry {
    /// `workflow`, `data_provider` or `node`; `check` has a [`Source`] looked at, and nothing of it called.
    pub kind: String,
    /// Its declared name.
    pub name: String,
    /// The Python module in the bundle, as `workflows.hello`.
    #[serde(skip_serializing, default)]
    pub module: String,
    /// The function in it.
    pub function: String,
}

/// Code that is no part of a bundle: the worker is given it when it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The node type, for tracebacks.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `sha256:` and 64 hexadecimal digits: what the code was taken from.
    pub digest: String,
    /// Python.
    pub code: String,
}

/// Everything that one attempt needs. Complete: the runner looks nothing up.
#[derive(Debug)]
pub struct AttemptSpec {
    /// The attempt.
    pub attempt: AttemptId,
    /// The code.
    pub bundle: BundleRef,
    /// What of it is called.
    pub entry: Entry,
    /// Code that is no part of the bundle, for a worker of [`crate::domain::LIBRARY_MODULE`].
    pub source: Option<Arc<Source>>,
    /// Keyword arguments, a JSON object.
    pub arguments: Value,
    /// What `Context` is made of: the `context` of the protocol.
    pub context: Value,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// Whether its organization has nothing else running here: it need not stand behind the attempts of others.
    pub is_first: bool,
    /// Whether it leaves the processors to others whenever they want them.
    pub is_nice: bool,
    /// Where requests, log lines and checkpoints go; bounded, so that a flood waits instead of filling memory.
    pub messages: mpsc::Sender<WorkerMessage>,
}

/// What a worker says before its last frame.
#[derive(Debug)]
pub enum WorkerMessage {
    /// A line of `ctx.log`, stdout or stderr.
    Line(LogLine),
    /// `ctx.checkpoint`.
    Checkpoint {
        /// Its name.
        name: String,
        /// JSON, at most 32 KiB.
        data: Value,
        /// When.
        at: Timestamp,
    },
    /// A connection that was refused; the log has a line of it already.
    RefusedConnection(RefusedConnection),
    /// A request to the broker.
    Call {
        /// A dotted name, as `config.get`.
        name: String,
        /// A JSON object.
        args: Value,
        /// Where the answer goes. Dropping it answers `unavailable`.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
}

/// Why a broker call is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// `denied`, `not_found`, `not_available`, `invalid`, `too_large`, `quota_exceeded`, `unavailable`.
    pub code: String,
    /// One sentence for the workflow's author.
    pub message: String,
}

/// Where an attempt's time went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RunnerTimings {
    /// From the request for a worker to a worker that is ready; near zero when one was forked ahead.
    pub boot_ms: f64,
    /// Of `boot_ms`, or before it when the worker was forked ahead: importing the module.
    pub import_ms: f64,
    /// The user's function, by the worker's clock.
    pub user_ms: f64,
}

/// How an attempt ended, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptReport {
    /// How it ended.
    pub outcome: Outcome,
    /// `ctx.variables` at the end; an empty object without any.
    pub variables: Value,
    /// Where the time went.
    pub timings: RunnerTimings,
    /// Bytes of stdout and stderr, dropped ones included.
    pub output_bytes: u64,
    /// Whether lines were dropped because of a limit.
    pub output_truncated: bool,
    /// Peak resident memory of the worker, when it was reaped in time to say so.
    pub max_rss_kib: Option<u64>,
    /// Which layers of isolation were in force, by name; none for an attempt that had no worker.
    pub posture: Arc<Vec<&'static str>>,
    /// What was used of the network, when the attempt had one.
    pub network: Option<NetworkUse>,
}

/// What a bundle declares.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BundleDescription {
    /// `described` frames of the protocol, one per file, sorted by path.
    pub modules: Vec<Value>,
    /// Every finding of every file.
    pub findings: Vec<Finding>,
    /// How many files were looked at.
    pub files: u64,
    /// How long it took in the worker, in milliseconds.
    pub ms: f64,
}

/// Why no attempt could be made. The attempt has not run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Python is missing, too old, or the runtime can't be started.
    #[error("python can't be started: {reason}")]
    NoPython {
        /// What was found.
        reason: String,
    },
    /// No worker became ready: forking failed, or the zygote died and its successor too.
    #[error("no worker could be started: {reason}")]
    NoWorker {
        /// What happened.
        reason: String,
    },
    /// Every slot is taken and the queue for one is full.
    #[error("all {slots} worker slots are taken")]
    Busy {
        /// How many there are.
        slots: usize,
    },
    /// The runner is being shut down.
    #[error("the handler is stopping")]
    Stopping,
}

impl Coded for RunnerError {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoPython { .. } => "python_unavailable",
            Self::NoWorker { .. } => "worker_unavailable",
            Self::Busy { .. } => "workers_busy",
            Self::Stopping => "stopping",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPython { .. } => {
                Some("install Python 3.11 or newer, or name one in `WEFT_PYTHON`; `weft doctor` checks it".into())
            }
            _ => Some("repeat the request after `Retry-After`".into()),
        }
    }
}

/// Runs attempts.
#[async_trait]
pub trait NodeRunner: Send + Sync + fmt::Debug {
    /// Runs one attempt to its end. When `cancel` fires, the process tree is killed and the outcome is `Cancelled`.
    /// Dropping the future kills the process tree as well.
    ///
    /// # Errors
    /// Only when the attempt has not run; whatever user code does is an [`Outcome`].
    async fn run(&self, spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError>;

    /// Finds what a bundle declares, in a worker, under a deadline of 30 s.
    ///
    /// # Errors
    /// When no worker could do it; what is wrong with the bundle is a finding.
    async fn describe(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError>;

    /// Forks workers ahead for a module that will probably be called soon; returns at once.
    fn warm(&self, bundle: &BundleRef, module: &str, rights: &Rights);

    /// How many attempts may run at once.
    fn slots(&self) -> usize;

    /// Kills everything and waits until it is gone.
    async fn shutdown(&self);

    /// What keeps attempts apart here, found out now if it was not yet.
    ///
    /// # Errors
    /// When Python can't be started.
    async fn posture(&self) -> Result<Isolation, RunnerError>;

    /// The same, as far as it is known.
    fn isolation(&self) -> Option<Isolation>;

    /// For `/api/status`: interpreter, pid of the zygote, idle and busy workers, forks so far, posture.
    fn status(&self) -> Value;
}
