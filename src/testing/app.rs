//! The builder: which store, which runner, which clock; then everything else as in production.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};

use super::Request;
use crate::authz::KeyScope;
use crate::boot::{self, Base};
use crate::clock::{Clock, Entropy, SystemClock};
use crate::config::Config;
use crate::domain::{OrgId, Timestamp};
use crate::egress::Egress;
use crate::http::Gate;
use crate::runner::pool::{self, Pool};
use crate::runner::scripted::Scripted;
use crate::runner::{BundleDescription, NodeRunner, python};
use crate::store::fault::{Faults, Faulty, Plan};
use crate::store::key::Queue;
use crate::store::port::Ports;
use crate::store::sqlite;
use crate::tenancy;
use crate::usecase::deliver::{From, deliver};
use crate::usecase::{Context, api_key, seed};

/// The workflow that the scripted runner declares; it takes any `name`, and returns its arguments without a script.
pub const WORKFLOW: &str = "hello";
/// The data provider that the scripted runner declares.
pub const DATA_PROVIDER: &str = "departments";

/// A folder below the system's temporary one, removed when dropped.
#[derive(Debug)]
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let random = Entropy::System.bytes::<8>().map(|byte| format!("{byte:02x}")).concat();
        let path = std::env::temp_dir().join(format!("weft-testing-{random}"));
        std::fs::create_dir_all(path.join("workspace/workflows")).expect("the temporary folder can be written");
        Self(path)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What is left behind is in the temporary folder.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Which application.
#[derive(Debug)]
pub struct Builder {
    on_disk: bool,
    python: bool,
    workspace: Option<PathBuf>,
    seeded: bool,
    concurrent_runs: Option<u32>,
    driver: Option<Duration>,
    hand_off: Option<Duration>,
    clock: Arc<dyn Clock>,
    storage: Option<(Ports, Arc<Faults>)>,
    file: Option<PathBuf>,
    runner: Option<Arc<dyn NodeRunner>>,
    graphs: Vec<Value>,
    functions: Vec<Value>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            on_disk: false,
            python: false,
            workspace: None,
            seeded: true,
            concurrent_runs: None,
            driver: None,
            hand_off: None,
            clock: Arc::new(SystemClock),
            storage: None,
            file: None,
            runner: None,
            graphs: Vec::new(),
            functions: Vec::new(),
        }
    }
}

impl Builder {
    /// Keeps the database in a file, [`TestApp::database`], so that a test can look at every row.
    #[must_use]
    pub const fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// Runs steps in real workers, of the repository's own workspace.
    #[must_use]
    pub const fn python(mut self) -> Self {
        self.python = true;
        self
    }

    /// Of another workspace than the repository's own; with real workers.
    #[must_use]
    pub fn workspace(mut self, folder: &Path) -> Self {
        self.workspace = Some(folder.to_owned());
        self
    }

    /// Over the storage of another one, as a second instance of the same installation.
    #[must_use]
    pub fn beside(mut self, other: &TestApp) -> Self {
        self.storage = Some((other.ports.clone(), other.faults.clone()));
        self.empty()
    }

    /// Over the file of another one, as a second process on the same machine.
    #[must_use]
    pub fn over(mut self, other: &TestApp) -> Self {
        self.file = Some(other.database.clone());
        self.empty()
    }

    /// Over this storage.
    #[must_use]
    pub fn storage(mut self, ports: Ports) -> Self {
        self.storage = Some(Faulty::wrap(ports, Plan::Calm));
        self
    }

    /// With this runner.
    #[must_use]
    pub fn runner(mut self, runner: Arc<dyn NodeRunner>) -> Self {
        self.runner = Some(runner);
        self
    }

    /// Without the sample organizations, people and keys.
    #[must_use]
    pub const fn empty(mut self) -> Self {
        self.seeded = false;
        self
    }

    /// With so many runs of an organization under way at once, at most.
    #[must_use]
    pub const fn concurrent_runs(mut self, most: u32) -> Self {
        self.concurrent_runs = Some(most);
        self
    }

    /// With drivers that let go of their runs after so long.
    #[must_use]
    pub const fn driver(mut self, budget: Duration) -> Self {
        self.driver = Some(budget);
        self
    }

    /// Asking other instances to make what has stood in line for so long.
    #[must_use]
    pub const fn hand_off(mut self, after: Duration) -> Self {
        self.hand_off = Some(after);
        self
    }

    /// With a graph in the workspace of the scripted runner.
    #[must_use]
    pub fn graph(mut self, graph: Value) -> Self {
        self.graphs.push(graph);
        self
    }

    /// With a function that the scripted runner declares as well, with these parameters, of any type and none of them required.
    #[must_use]
    pub fn function(self, name: &str, parameters: &[&str]) -> Self {
        let parameter = |name: &&str| json!({"name": name, "type": "json"});
        let parameters: Vec<_> = parameters.iter().map(parameter).collect();
        self.declares(json!({"name": name, "function": name, "line": 1, "parameters": parameters}))
    }

    /// With a workflow that the scripted runner declares as well, as a worker describes it.
    #[must_use]
    pub fn declares(mut self, workflow: Value) -> Self {
        self.functions.push(workflow);
        self
    }

    /// By this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Puts it together.
    pub async fn start(self) -> TestApp {
        let home = Home::new();
        let mut config = Config::for_testing(&home.0);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        config.limits.concurrent_runs = self.concurrent_runs.unwrap_or(config.limits.concurrent_runs);
        config.limits.driver = self.driver.unwrap_or(config.limits.driver);
        config.limits.hand_off = self.hand_off.or(config.limits.hand_off);
        let on_disk = self.on_disk || self.file.is_some();
        let database = self.file.unwrap_or_else(|| home.0.join("weft.db"));
        let file = on_disk.then_some(database.as_path());
        let (storage, (ports, faults)) = match self.storage {
            Some((ports, faults)) => (ports.clone(), (ports, faults)),
            None => {
                let storage = sqlite::open(file, self.clock.clone()).expect("the embedded store can be opened");
                (storage.clone(), Faulty::wrap(storage, Plan::Calm))
            }
        };
        let scripted = Arc::new(Scripted::new());
        let functions = self.functions.clone();
        for (number, graph) in self.graphs.iter().enumerate() {
            let path = home.0.join(format!("workspace/workflows/graph{number}.json"));
            std::fs::write(path, format!("{graph:#}")).expect("the temporary folder can be written");
        }
        scripted.describes(description(self.functions));
        let runner: Arc<dyn NodeRunner> = if let Some(runner) = self.runner {
            runner
        } else if self.python {
            config.runner.workspace_dir = self.workspace.unwrap_or_else(|| root.join("workspace"));
            let python = python::find(None).expect("the tests need Python 3.11 or newer");
            let settings = pool::Settings::new(python, root.join("engine"), home.0.join("scratch"));
            std::fs::create_dir_all(&settings.scratch_dir).expect("the temporary folder can be written");
            Arc::new(Pool::start(settings, self.clock.clone()).expect("workers can be started"))
        } else {
            scripted.clone()
        };
        let base = Base {
            egress: Egress::default(),
            config: Arc::new(config),
            ports: ports.clone(),
            runner,
            clock: self.clock,
            entropy: Arc::new(Entropy::System),
        };
        let cx = Arc::new(boot::context(&base).await.expect("storage can be prepared"));
        if self.seeded {
            seed::seed(&cx, &tenancy::operator(), |_| {})
                .await
                .expect("the sample can be written");
        }
        let gate = Gate::default();
        gate.open(boot::app(&base, cx.clone(), true));
        TestApp {
            cx,
            ports,
            faults,
            scripted,
            router: boot::router(gate),
            database,
            storage,
            base,
            functions,
            _home: Arc::new(home),
        }
    }
}

/// What every bundle declares to the scripted runner.
#[must_use]
pub fn description(more: Vec<Value>) -> BundleDescription {
    let name = json!({"name": "name", "type": "string", "required": false, "default": "World", "has_default": true});
    let parameters = json!([name]);
    let mut workflows = vec![json!({"name": WORKFLOW, "function": "hello", "line": 1, "parameters": parameters})];
    workflows.extend(more);
    BundleDescription {
        modules: vec![json!({
            "module": "workflows.hello",
            "path": "workspace/workflows/hello.py",
            "workflows": workflows,
            "data_providers": [{"name": DATA_PROVIDER, "function": "departments", "line": 9, "parameters": parameters}],
        })],
        files: 1,
        ..BundleDescription::default()
    }
}

/// An application that answers in this process.
#[derive(Debug)]
pub struct TestApp {
    /// Use cases.
    pub cx: Arc<Context>,
    /// Storage, below the use cases.
    pub ports: Ports,
    /// The hand on the switches of storage, and its counters.
    pub faults: Arc<Faults>,
    /// The script of the runner; without effect on real workers.
    pub scripted: Arc<Scripted>,
    /// Every route, HTTP and host, as `boot::serve` serves them.
    pub router: Router,
    /// The file of the database, where it is kept in one.
    pub database: PathBuf,
    storage: Ports,
    base: Base,
    functions: Vec<Value>,
    _home: Arc<Home>,
}

impl TestApp {
    /// One with the sample data, in memory, by a script.
    pub async fn start() -> Self {
        Builder::default().start().await
    }

    /// Another instance over the same storage, with a script and a hand on the switches of its own.
    pub async fn another(&self) -> Self {
        let (ports, faults) = Faulty::wrap(self.storage.clone(), Plan::Calm);
        let scripted = Arc::new(Scripted::new());
        scripted.describes(description(self.functions.clone()));
        let base = Base {
            egress: Egress::default(),
            config: self.base.config.clone(),
            ports: ports.clone(),
            runner: scripted.clone(),
            clock: self.base.clock.clone(),
            entropy: Arc::new(Entropy::System),
        };
        let cx = Arc::new(boot::context(&base).await.expect("storage is prepared"));
        let gate = Gate::default();
        gate.open(boot::app(&base, cx.clone(), true));
        Self {
            cx,
            ports,
            faults,
            scripted,
            router: boot::router(gate),
            database: self.database.clone(),
            storage: self.storage.clone(),
            base,
            functions: self.functions.clone(),
            _home: self._home.clone(),
        }
    }

    /// Delivers every message that is visible now, and what these lead to, until there is none; whether all went well.
    pub async fn deliver_all(&self) -> bool {
        let queue = Queue::Runs.name();
        loop {
            let hidden = Duration::from_secs(30);
            let Ok(mut messages) = self.ports.queues.receive(&queue, 1, hidden).await else {
                return false;
            };
            let Some(message) = messages.pop() else { return true };
            let now = self.base.clock.now();
            if deliver(&self.cx, From::Runs, &message.text, now, None).await.is_err()
                || self.ports.queues.delete(&queue, &message.receipt).await.is_err()
            {
                return false;
            }
        }
    }

    /// Another instance on the same storage, with the same runner and clock; it answers no requests.
    pub async fn another_instance(&self) -> Arc<Context> {
        Arc::new(boot::context(&self.base).await.expect("storage is prepared"))
    }

    /// A request to it: from this machine, without a credential.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.router.clone(), method, path)
    }

    /// A new function key, as text. Without organizations it is for every one.
    pub async fn key(&self, organizations: &[&OrgId], scopes: &[KeyScope], expires_at: Option<Timestamp>) -> String {
        let new = api_key::NewKey {
            name: "test".parse().expect("a good name"),
            organizations: organizations.iter().map(|org| (*org).clone()).collect(),
            scopes: scopes.to_vec(),
            expires_at,
            development: false,
        };
        let created = api_key::create(&self.cx, &tenancy::operator(), new)
            .await
            .expect("a key can be made");
        created.secret.expose().to_owned()
    }

    /// Starts a run of [`WORKFLOW`] with a key that may everything, waits for its end, and answers what the API says.
    pub async fn run(&self, organization: &str, arguments: Value) -> Value {
        let answer = self
            .request("POST", &format!("/api/workflows/{WORKFLOW}/execute"))
            .key(seed::DEVELOPMENT_KEY)
            .organization(organization)
            .json(&arguments)
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}
