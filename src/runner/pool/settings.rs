//! What a pool is made with, and what it is where nobody says otherwise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Limits, Tier};
use crate::egress::Egress;
use crate::runner::cgroup;
use crate::runner::debug::Debugger;
use crate::runner::jail::setup::Uids;
use crate::runner::python::Python;

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
