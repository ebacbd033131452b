//! One public function per verb: `(cx, &Scope, input) → Result<output, Error>`.
//!
//! Every function asks its scope for permission first, and reads and writes only through repositories that take the scope.

pub mod admission;
pub mod admit;
pub mod api_key;
pub mod approval;
pub mod artifact;
pub mod audit_log;
pub mod bundle;
pub mod catalog;
pub mod config;
pub mod control_run;
pub mod deliver;
pub mod drive_run;
pub mod environment;
pub mod error;
pub mod hook;
pub mod hook_delivery;
pub mod me;
pub mod node_type;
pub mod offer;
pub mod organization;
pub mod person;
pub mod plan;
pub mod policy;
pub mod provide_data;
pub mod quarantine;
pub mod query_run;
pub mod queue_trigger;
pub mod recording;
pub mod rerun;
pub mod resolve;
pub mod resume_run;
pub mod run_event;
pub mod schedule;
pub mod secret;
pub mod seed;
pub mod signal;
pub mod start_run;
pub mod status;
pub mod tick;
pub mod usage;
pub mod watch;
pub mod workflow;
pub mod workflow_assignment;
pub mod workflow_file;
mod written;

mod attempt;
mod attempt_step;
mod broker;
mod cached;
mod children;
mod collect;
mod driver;
mod due;
mod event_reader;
mod follow;
mod handoff;
mod isolation;
mod launch;
mod live;
mod on_record;
mod report;
mod retention;
mod sub_run;
mod unreadable;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Clock, Entropy};
use crate::definition::Longest;
use crate::domain::{Limits, NetworkPolicy, RunId, SecretName, SecurityProfile};
use crate::egress::Egress;
use crate::runner::NodeRunner;
use crate::runner::environments::Environments;
use crate::runner::fetched::Fetched;
use crate::store::envelope::SigningKey;
use crate::store::port::Ports;
use crate::store::repo::artifacts::Artifacts;
pub use crate::store::repo::artifacts::Quotas;
use crate::store::repo::audit_log::AuditLog;
use crate::store::repo::backlog::Backlog;
use crate::store::repo::bundles::Bundles;
use crate::store::repo::collector::Collector;
use crate::store::repo::configs::Configs;
use crate::store::repo::due::Due;
use crate::store::repo::history::History;
use crate::store::repo::hooks::Hooks;
use crate::store::repo::identity::Identities;
use crate::store::repo::keys::Keys;
use crate::store::repo::kv::Kv;
use crate::store::repo::node_types::NodeTypes;
use crate::store::repo::policies::Policies;
use crate::store::repo::quarantines::Quarantines;
use crate::store::repo::queue_triggers::QueueTriggers;
use crate::store::repo::recordings::Recordings;
use crate::store::repo::results::Results;
use crate::store::repo::retention::Retention;
use crate::store::repo::runs::Runs;
use crate::store::repo::schedules::Schedules;
use crate::store::repo::signals::Signals;
use crate::store::repo::usage::Usage;
use crate::store::repo::workflows::Workflows;
use crate::store::secret::SecretStore;

pub use error::Error;

/// What an operation answers.
pub type Result<T> = std::result::Result<T, Error>;

/// How long an instance owns a run without renewing.
pub const LEASE: Duration = Duration::from_secs(60);
/// How long after the end of a lease its wake-up is delivered.
pub const WAKE_UP_AFTER_LEASE: Duration = Duration::from_secs(5);

/// How long a process that stops waits for its runs to be handed over.
const HAND_OVER: Duration = Duration::from_secs(3);

/// How long a process that stops tries to give back what it has taken of organizations' quotas.
const GIVE_BACK: Duration = Duration::from_millis(500);

/// What artifacts that are being written may hold of memory at once, in KiB.
const UPLOAD_MEMORY_KIB: usize = 128 << 10;

/// Bounds that the operator sets.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Ceiling of one attempt.
    pub attempt: Limits,
    /// Time limit of a run.
    pub run: Duration,
    /// How long a driver begins attempts before it lets go of its run.
    pub driver: Duration,
    /// How long an attempt stands in line before other instances are asked to make it; never without it.
    pub hand_off: Option<Duration>,
    /// How many runs of one organization may be under way at once.
    pub concurrent_runs: u32,
    /// The security profile under which everything runs at most.
    pub profile: SecurityProfile,
    /// How long a synchronous caller waits by default, and at most.
    pub wait: (Duration, Duration),
    /// How many results of an organization are kept for later runs, and for how long at most.
    pub cache: (u32, Duration),
    /// Whether output and log lines of steps are kept.
    pub save_logs: bool,
    /// Of which attempts what they were given and answered is kept.
    pub record: recording::Record,
    /// What of the network steps may use, whatever policies allow; none for what those allow.
    pub network: Option<NetworkPolicy>,
}

/// Where code comes from.
#[derive(Debug, Clone)]
pub struct CodeSource {
    /// The folder that developers edit, or that was deployed.
    pub workspace: PathBuf,
    /// Where immutable copies of it lie.
    pub bundles: PathBuf,
    /// Where those of published bundles lie.
    pub fetched: Fetched,
    /// The packages that it asks for.
    pub environments: Arc<Environments>,
    /// Whether the folder is looked at again at every call.
    pub live: bool,
    /// Whether a finding stops the start, or only the file that it is in.
    pub strict: bool,
}

/// Everything that operations need; made once, in `boot.rs`.
#[derive(Debug)]
pub struct Context {
    /// Runs.
    pub runs: Runs,
    /// Messages about runs that were set aside.
    pub quarantines: Quarantines,
    /// How messages about runs last failed here.
    failures: quarantine::Failures,
    /// Results that later runs may take.
    pub results: Results,
    /// What has happened to them.
    pub history: History,
    /// What is kept of attempts for replaying them.
    recordings: Recordings,
    /// The audit log.
    pub audit: AuditLog,
    /// Organizations, users, memberships.
    pub identities: Arc<Identities>,
    /// Function keys.
    pub keys: Arc<Keys>,
    /// Configuration.
    pub configs: Configs,
    /// Named outputs of runs.
    pub artifacts: Artifacts,
    /// How much organizations have stored.
    pub usage: Arc<Usage>,
    /// What artifacts that are being written may hold of memory, in KiB.
    uploads: Arc<Semaphore>,
    /// How many steps may wait for runs or data providers of this instance: one slot fewer than there are.
    waiting: Arc<Semaphore>,
    /// Key-value pairs of workflows.
    pub kv: Kv,
    /// What starts workflows at certain times.
    pub schedules: Schedules,
    /// What has to be looked at later.
    pub due: Due,
    /// What steps are allowed to do.
    pub policies: Policies,
    /// The node library.
    pub node_types: NodeTypes,
    /// How many trials of node types are under way here.
    trials: Arc<Semaphore>,
    /// Secrets of workflows.
    pub secrets: secret::Secrets,
    /// Webhooks.
    pub hooks: Hooks,
    /// What this instance remembers about those who deliver to them.
    doors: hook_delivery::Doors,
    /// What starts workflows for messages of queues.
    pub queue_triggers: QueueTriggers,
    /// Which of their queues are looked at here, and when.
    polling: queue_trigger::Polling,
    /// What requests on behalf of attempts may reach.
    pub egress: Egress,
    /// Workflows that organizations have authored.
    pub workflows: Workflows,
    /// Their graphs, read.
    read: resolve::Read,
    /// Queues, and what prepares storage.
    pub ports: Ports,
    /// Python.
    pub runner: Arc<dyn NodeRunner>,
    /// Published code.
    pub bundles: Bundles,
    /// The bundle that is offered, with what it declares.
    pub catalogs: catalog::Catalogs,
    /// Answers of data providers.
    provided: provide_data::Kept,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<Entropy>,
    /// Bounds.
    pub bounds: Bounds,
    /// The key of queue messages.
    pub signing: SigningKey,
    /// This process, among others on the same storage: fresh at every start.
    pub instance: String,
    /// Runs that are no longer kept.
    retention: Retention,
    /// What finds blobs that nothing refers to any more.
    pub collector: Collector,
    collected: collect::Known,
    /// How long a blob that nothing refers to is kept all the same; for ever without it.
    grace: Option<Duration>,
    /// For how long runs are kept; for ever without it.
    keep_runs: Option<Duration>,
    /// Whether pauses take their time.
    pauses: bool,
    /// Whether runs are ended when their time is up.
    hurries: bool,
    /// When storage last took a write.
    last_written: status::LastWritten,
    /// Messages between instances.
    signals: Signals,
    /// Runs that are driven here.
    live: live::Live,
    /// Runs that want to be.
    backlog: Backlog,
    /// Who may begin here.
    admission: admission::Admission,
    /// Runs that are watched here.
    watch: watch::Watch,
}

/// The parts of a [`Context`] that `boot.rs` chooses.
#[derive(Debug)]
pub struct Parts {
    /// Storage.
    pub ports: Ports,
    /// Python.
    pub runner: Arc<dyn NodeRunner>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<Entropy>,
    /// Bounds.
    pub bounds: Bounds,
    /// Code.
    pub code: CodeSource,
    /// The key of queue messages.
    pub signing: SigningKey,
    /// Where secrets are kept, if they are.
    pub secrets: Option<Arc<dyn SecretStore>>,
    /// Secrets of the platform that every organization's workflows may declare.
    pub inherited_secrets: Vec<SecretName>,
    /// What requests on behalf of attempts may reach.
    pub egress: Egress,
}

impl Context {
    /// Hands the runs that are driven here over: their attempts are killed, and a message brings the next instance to each at
    /// once. Without it they would wait for the end of their leases. Waits a moment for it, and no longer. Before that no
    /// messages of queue triggers are taken any more, and builds of environments stop.
    pub async fn leave(&self) {
        self.polling.leave().await;
        self.live.leave();
        self.catalogs.environments().shutdown().await;
        let until = tokio::time::Instant::now() + HAND_OVER;
        while self.live.under_way() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It counts for an hour otherwise.
        if tokio::time::timeout(GIVE_BACK, self.usage.leave()).await.is_err() {
            tracing::warn!("room for artifacts could not be given back in time");
        }
    }

    /// The same, which deletes runs so long after their end; none for never.
    #[must_use]
    pub const fn keeping_runs(mut self, keep: Option<Duration>) -> Self {
        self.keep_runs = keep;
        self
    }

    /// The same, which deletes blobs that nothing refers to, so long after they were last relied upon; none for never.
    #[must_use]
    pub const fn collecting(mut self, grace: Option<Duration>) -> Self {
        self.grace = grace;
        self
    }

    /// The same, in which artifacts may have so many bytes.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.artifacts = Artifacts::new(self.ports.clone(), self.usage.clone(), quotas);
        self
    }

    /// The same, in which no pause and no delay before another attempt takes any time.
    #[must_use]
    pub const fn without_pauses(mut self) -> Self {
        self.pauses = false;
        self
    }

    /// The same, in which runs have a week: for somebody who stands at a breakpoint.
    #[must_use]
    pub const fn without_hurry(mut self) -> Self {
        self.hurries = false;
        self
    }

    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            ports,
            runner,
            clock,
            entropy,
            bounds,
            code,
            signing,
            secrets,
            inherited_secrets,
            egress,
        } = parts;
        let instance = RunId::generate(clock.now(), entropy.bytes())
            .as_str()
            .trim_start_matches("run_")
            .to_owned();
        let bundles = Bundles::new(ports.clone(), signing.clone());
        let usage = Arc::new(Usage::new(ports.clone(), clock.clone(), instance.clone()));
        Self {
            runs: Runs::new(ports.clone()),
            quarantines: Quarantines::new(ports.clone()),
            failures: quarantine::Failures::default(),
            results: Results::new(ports.clone(), clock.clone(), bounds.cache.0),
            history: History::new(ports.clone()),
            recordings: Recordings::new(ports.clone()),
            retention: Retention::new(ports.clone()),
            collector: Collector::new(ports.clone()),
            collected: collect::Known::default(),
            grace: None,
            keep_runs: None,
            pauses: true,
            hurries: true,
            last_written: status::LastWritten::default(),
            signals: Signals::new(ports.clone()),
            audit: AuditLog::new(ports.clone(), clock.clone(), entropy.clone()),
            identities: Arc::new(Identities::new(ports.clone(), clock.clone(), entropy.clone())),
            keys: Arc::new(Keys::new(ports.clone(), clock.clone(), entropy.clone())),
            configs: Configs::new(ports.clone(), clock.clone()),
            secrets: secret::Secrets::new(secrets, inherited_secrets, ports.clone()),
            hooks: Hooks::new(ports.clone(), clock.clone()),
            doors: hook_delivery::Doors::default(),
            queue_triggers: QueueTriggers::new(ports.clone()),
            polling: queue_trigger::Polling::default(),
            workflows: Workflows::new(ports.clone(), clock.clone()),
            read: resolve::Read::default(),
            egress,
            artifacts: Artifacts::new(ports.clone(), usage.clone(), Quotas::default()),
            usage,
            uploads: Arc::new(Semaphore::new(UPLOAD_MEMORY_KIB)),
            kv: Kv::new(ports.clone(), clock.clone()),
            schedules: Schedules::new(ports.clone()),
            due: Due::new(ports.clone()),
            waiting: Arc::new(Semaphore::new(runner.slots().saturating_sub(1))),
            policies: Policies::new(ports.clone(), clock.clone()),
            node_types: NodeTypes::new(ports.clone(), clock.clone()),
            trials: Arc::new(Semaphore::new(node_type::MAX_TRIALS)),
            backlog: Backlog::new(ports.clone()),
            admission: admission::Admission::new(runner.slots()),
            catalogs: catalog::Catalogs::new(
                code,
                runner.clone(),
                (
                    bounds.attempt.clone(),
                    Longest::of(&bounds.attempt, bounds.run, bounds.profile),
                ),
                (bundles.clone(), NodeTypes::new(ports.clone(), clock.clone())),
                clock.clone(),
            ),
            bundles,
            ports,
            runner,
            clock,
            entropy,
            bounds,
            signing,
            instance,
            live: live::Live::default(),
            watch: watch::Watch::default(),
            provided: provide_data::Kept::default(),
        }
    }
}
