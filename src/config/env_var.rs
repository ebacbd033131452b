//! Every environment variable that Weft reads: name, meaning, allowed values, default. Declared here and nowhere else;
//! `docs/env-vars.md` is [`markdown`].

use std::fmt::Write as _;

use crate::domain::edit_distance;

/// What a variable is about; one heading of the generated page, one struct of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Where the program runs.
    Mode,
    /// The listener.
    Http,
    /// Where data is kept.
    Storage,
    /// Whom to believe.
    Auth,
    /// Python processes.
    Runner,
    /// How far steps are kept apart.
    Isolation,
    /// Sizes, counts and times.
    Limits,
    /// Keys.
    Signing,
    /// Secrets of workflows.
    Secrets,
    /// Logs.
    Telemetry,
    /// Read by the test suites only, never by the program.
    Tests,
}

impl Section {
    /// All of them, in the order of the generated page.
    pub const ALL: [Self; 11] = [
        Self::Mode,
        Self::Http,
        Self::Storage,
        Self::Auth,
        Self::Runner,
        Self::Isolation,
        Self::Limits,
        Self::Signing,
        Self::Secrets,
        Self::Telemetry,
        Self::Tests,
    ];

    pub(super) const fn heading(self) -> &'static str {
        match self {
            Self::Mode => "Where it runs",
            Self::Http => "HTTP",
            Self::Storage => "Storage",
            Self::Auth => "Callers",
            Self::Runner => "Python steps",
            Self::Isolation => "Isolation of steps",
            Self::Limits => "Limits",
            Self::Signing => "Keys",
            Self::Secrets => "Secrets of workflows",
            Self::Telemetry => "Logs",
            Self::Tests => "Tests only",
        }
    }
}

/// What a value may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Any text.
    Text,
    /// A path; a relative one starts at the working directory.
    Path,
    /// A whole number within bounds, both included.
    Number(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true`, `1`, `false` or `0`.
    Switch,
    /// Words with commas between them.
    List,
}

/// What is used when the variable is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: the feature is off.
    Unset,
    /// This value.
    Value(&'static str),
    /// A value that depends on something else, in words.
    Words(&'static str),
}

/// Which files may set a variable, under its [`Variable::key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// None: it is the process's own, or the host's.
    Never,
    /// Those of the user, of the system, and one that is named. Not a project's: it could weaken the machine.
    Machine,
    /// Every one.
    Any,
    /// Every one; a project's may only lower it, or take an earlier word; of true and false, false.
    Lower,
    /// Every one; a project's may only raise it, or take a later word.
    Higher,
}

/// The declaration of one variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub section: Section,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// What a value may look like.
    pub shape: Shape,
    /// What is used when it is not set.
    pub fallback: Fallback,
    /// Which files may set it.
    pub files: Files,
    /// What it does.
    pub doc: &'static str,
}

impl Variable {
    /// Its name in files: `WEFT_MAX_BODY_BYTES` is `max_body_bytes`, `AzureWebJobsStorage` is `azure_web_jobs_storage`. None
    /// where no file may set it.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        if self.files == Files::Never || self.section == Section::Tests {
            return None;
        }
        let name = self.name.strip_prefix("WEFT_").unwrap_or(self.name).replace("__", "_");
        if name.chars().all(|c| !c.is_lowercase()) {
            return Some(name.to_lowercase());
        }
        let mut key = String::with_capacity(name.len() + 8);
        let mut before = '_';
        for c in name.chars() {
            if c.is_uppercase() && before != '_' {
                key.push('_');
            }
            key.extend(c.to_lowercase());
            before = c;
        }
        Some(key)
    }
}

macro_rules! files {
    () => {
        Files::Machine
    };
    ($files:ident) => {
        Files::$files
    };
}

macro_rules! variables {
    ($( $konst:ident = $name:literal, $section:ident, $shape:expr, $fallback:expr, $(files $files:ident,)? $(secret $secret:literal,)? $doc:literal; )*) => {
        $(
            #[doc = $doc]
            pub const $konst: Variable = Variable {
                name: $name,
                section: Section::$section,
                secret: false $(|| $secret)?,
                shape: $shape,
                fallback: $fallback,
                files: files!($($files)?),
                doc: $doc,
            };
        )*

        /// All of them, in the order of the generated page.
        pub const ALL: &[&Variable] = &[$(&$konst),*];
    };
}

use Fallback::{Unset, Value, Words};
use Shape::{Choice, List, Number, Path, Switch, Text};

variables! {
    WEFT_ENVIRONMENT = "WEFT_ENVIRONMENT", Mode, Choice(&["development", "staging", "production"]),
        Words("`development` under `func start`, else `production`"), files Higher,
        "`staging` is `production` with smaller defaults. `development` trusts callers on this machine, reports mistakes in the workspace strictly and needs no isolation by the kernel. Ignored on Azure, with a warning.";
    WEFT_CONFIG_FILE = "WEFT_CONFIG_FILE", Mode, Path, Unset, files Never,
        "A file with settings; it comes after those of the user, the system and the project, and before the environment. docs/configuration.md has them all.";
    XDG_CONFIG_HOME = "XDG_CONFIG_HOME", Mode, Path, Words("`.config` in `HOME`"), files Never,
        "The folder of the user's own settings: `weft/config.yaml` in it.";
    HOME = "HOME", Mode, Path, Unset, files Never,
        "The user's folder.";
    AZURE_FUNCTIONS_ENVIRONMENT = "AZURE_FUNCTIONS_ENVIRONMENT", Mode, Text, Unset, files Never,
        "Set by `func start`. `Development` means development where `WEFT_ENVIRONMENT` says nothing.";
    FUNCTIONS_CORETOOLS_ENVIRONMENT = "FUNCTIONS_CORETOOLS_ENVIRONMENT", Mode, Text, Unset, files Never,
        "Set by `func start`. Any value means development where `WEFT_ENVIRONMENT` says nothing.";
    WEBSITE_INSTANCE_ID = "WEBSITE_INSTANCE_ID", Mode, Text, Unset, files Never,
        "Set by Azure. Its presence means that this is Azure.";
    CONTAINER_NAME = "CONTAINER_NAME", Mode, Text, Unset, files Never,
        "Set by Azure on plans that run containers. Its presence means that this is Azure.";
    WEBSITE_POD_NAME = "WEBSITE_POD_NAME", Mode, Text, Unset, files Never,
        "Set by Azure on the Flex Consumption plan. Its presence means that this is Azure.";
    LEGION_SERVICE_HOST = "LEGION_SERVICE_HOST", Mode, Text, Unset, files Never,
        "Set by Azure on the Flex Consumption plan. Its presence means that this is Azure.";
    FUNCTIONS_APP_ROOT_PATH = "FUNCTIONS_APP_ROOT_PATH", Mode, Path,
        Words("`AzureWebJobsScriptRoot`, else the nearest folder with `engine/weft_runtime` at or above the working directory or the program, else the working directory"), files Never,
        "Set by the Functions host: the folder with `host.json`.";
    AZURE_WEB_JOBS_SCRIPT_ROOT = "AzureWebJobsScriptRoot", Mode, Path, Unset, files Never,
        "Set by `func start`: the same where `FUNCTIONS_APP_ROOT_PATH` is missing.";
    TMPDIR = "TMPDIR", Mode, Path, Value("/tmp"), files Never,
        "Where local files go on Azure, where the app's own folder is read-only.";

    FUNCTIONS_CUSTOMHANDLER_PORT = "FUNCTIONS_CUSTOMHANDLER_PORT", Http, Number(1, 65_535), Words("`WEFT_PORT`"), files Never,
        "Set by the Functions host: the port to listen on.";
    WEFT_PORT = "WEFT_PORT", Http, Number(0, 65_535), Value("7071"), files Any,
        "The port to listen on without a Functions host; 0 takes a free one.";
    WEFT_MAX_BODY_BYTES = "WEFT_MAX_BODY_BYTES", Http, Number(1_024, 104_857_600), Value("1048576"), files Lower,
        "Largest request body. The host itself refuses what is above 100 MiB.";
    WEFT_SYNC_WAIT_SECONDS = "WEFT_SYNC_WAIT_SECONDS", Http, Number(0, 220), Value("60"), files Lower,
        "How long a call waits for its run before it is answered by 202, unless it asks for less. Azure cuts a silent request at 230 seconds.";
    WEFT_CLIENT_IP_HEADER = "WEFT_CLIENT_IP_HEADER", Http, Text, Unset,
        "The request header that carries the caller's address, set by a proxy that overwrites what callers send. Without it `X-Forwarded-For` is recorded as unverified.";

    WEFT_SERVER = "WEFT_SERVER", Http, Text, Words("the data that the settings name"),
        "The installation that `weft publish` and `weft bundles` work on, as `https://weft.example`, without `/api`. Read by these commands only.";
    WEFT_KEY = "WEFT_KEY", Http, Text, Unset, secret true,
        "The function key that they send there.";

    WEFT_STORE = "WEFT_STORE", Storage, Choice(&["sqlite", "azure"]),
        Words("`azure` when `AzureWebJobsStorage` or `AzureWebJobsStorage__accountName` is set, else `sqlite`"),
        "Where everything is kept: one file on this machine, or a storage account.";
    WEFT_DATA = "WEFT_DATA", Storage, Path, Words("`.weft` in the app's folder; on Azure `weft` in `TMPDIR`"),
        "The folder for the embedded store and for local copies of bundles.";
    WEFT_BUNDLE_CACHE_MIB = "WEFT_BUNDLE_CACHE_MIB", Storage, Number(128, 1_048_576), Value("1024"), files Any,
        "What unpacked copies of published bundles take in the data folder at most, in MiB; those not used for longest are removed, and fetched again when a run needs them.";
    AZURE_WEB_JOBS_STORAGE = "AzureWebJobsStorage", Storage, Text, Unset, secret true,
        "The storage account's connection string. `UseDevelopmentStorage=true` is the emulator on its usual ports.";
    AZURE_WEB_JOBS_STORAGE_ACCOUNT_NAME = "AzureWebJobsStorage__accountName", Storage, Text, Unset,
        "The storage account's name, for access by managed identity instead of a connection string.";
    AZURE_WEB_JOBS_STORAGE_CLIENT_ID = "AzureWebJobsStorage__clientId", Storage, Text, Unset,
        "The client id of a user-assigned identity; without it the app's own identity is used.";
    AZURE_WEB_JOBS_STORAGE_CREDENTIAL = "AzureWebJobsStorage__credential", Storage, Choice(&["managedidentity"]), Unset,
        "Kind of credential.";

    WEFT_PRINCIPAL_SOURCE = "WEFT_PRINCIPAL_SOURCE", Auth, Choice(&["none", "swa", "easyauth"]), Value("none"),
        "What stands in front and sets `X-MS-CLIENT-PRINCIPAL`: nothing, Static Web Apps, or App Service authentication. With `none` the header is refused.";
    WEBSITE_AUTH_ENABLED = "WEBSITE_AUTH_ENABLED", Auth, Switch, Value("false"), files Never,
        "Set by Azure where App Service authentication is on. Needed there before a principal header is believed.";

    WEFT_PYTHON = "WEFT_PYTHON", Runner, Path, Value("python3"),
        "The Python interpreter, 3.11 or newer: a path, or a name that is looked up in `PATH`.";
    WEFT_ENGINE = "WEFT_ENGINE", Runner, Path, Words("`engine` in the app's folder"),
        "The folder with the Python packages `weft` and `weft_runtime`.";
    WEFT_REQUIRE_INTACT_ENGINE = "WEFT_REQUIRE_INTACT_ENGINE", Runner, Switch, Value("false"),
        "Whether nothing is started where the engine's files are not as upstream has released them, or there is no release file to compare them with.";
    WEFT_WORKSPACE = "WEFT_WORKSPACE", Runner, Path, Words("`workspace` in the app's folder"), files Any,
        "The folder with the workflows that developers write.";
    WEFT_WORKER_SLOTS = "WEFT_WORKER_SLOTS", Runner, Number(1, 1_024), Words("four for each processor"), files Any,
        "How many steps run at the same time on this instance.";
    WEFT_WORKERS_AHEAD = "WEFT_WORKERS_AHEAD", Runner, Number(0, 64), Value("4"), files Any,
        "How many workers are forked ahead for each module that is in use.";
    WEFT_PRELOAD = "WEFT_PRELOAD", Runner, List, Value("json,datetime"),
        "Standard library or installed modules that are imported once and shared by all workers; each makes every fork dearer.";
    WEFT_DISCOVERY = "WEFT_DISCOVERY", Runner, Choice(&["strict", "quarantine"]),
        Words("`strict` in development, else `quarantine`"), files Any,
        "What a file of the workspace that breaks the rules does: `strict` stops the start, `quarantine` leaves that file out and reports degraded health.";
    WEFT_PIP_INDEX_URL = "WEFT_PIP_INDEX_URL", Runner, Text, Words("`PIP_INDEX_URL`, else PyPI"), secret true,
        "The package index that `requirements.txt` is installed from; credentials in it are masked wherever it would be shown.";
    PIP_INDEX_URL = "PIP_INDEX_URL", Runner, Text, Unset, files Never, secret true,
        "The same, by the name that `pip` has for it.";
    PIP_EXTRA_INDEX_URL = "PIP_EXTRA_INDEX_URL", Runner, Text, Unset, secret true,
        "Further package indexes, with spaces between them. A package of the same name may come from any of them, so prefer one index that has all.";
    PIP_FIND_LINKS = "PIP_FIND_LINKS", Runner, Text, Unset,
        "Folders or pages with wheels, with spaces between them.";
    PIP_NO_INDEX = "PIP_NO_INDEX", Runner, Switch, Value("false"),
        "Packages come from `PIP_FIND_LINKS` alone.";
    PIP_CERT = "PIP_CERT", Runner, Path, Unset,
        "Certificates that the package index is checked by.";
    HTTPS_PROXY = "HTTPS_PROXY", Runner, Text, Unset, secret true,
        "The proxy to the package index.";
    NO_PROXY = "NO_PROXY", Runner, Text, Unset,
        "Hosts that are reached without the proxy.";
    PATH = "PATH", Runner, Text, Unset, files Never,
        "Where `uv` is looked for, which installs faster than `pip`.";
    WEFT_ENVIRONMENT_KEEP_DAYS = "WEFT_ENVIRONMENT_KEEP_DAYS", Runner, Number(1, 3_650), Value("14"),
        "How long installed packages are kept that no workspace and no run uses. The last two environments always are.";
    WEFT_SCRATCH = "WEFT_SCRATCH", Runner, Path, Words("`scratch` in the data folder"),
        "The folder in which each attempt gets its own temporary folder.";
    WEFT_CGROUP = "WEFT_CGROUP", Runner, Choice(&["auto", "v1", "off"]), Value("auto"),
        "Whether all steps together get a control group, with bounds on memory and tasks. `auto`: where one with both controllers is delegated to this process (version 2). `v1`: also with version 1, where nothing tells whether that is so.";
    WEFT_EGRESS_PRIVATE = "WEFT_EGRESS_PRIVATE", Runner, List, Value(""),
        "Private networks that steps may reach where their `network` names a host in them, each with a port, as `10.1.0.0/16:5432,[fd12:3456::/48]:443`; `*` is every port. Loopback, link-local and metadata addresses can't be opened.";
    WEFT_ALLOW_OUTBOUND_REQUESTS = "WEFT_ALLOW_OUTBOUND_REQUESTS", Runner, Switch, Value("true"), files Lower,
        "Whether steps may use the network at all. `false` comes before every policy: a step that declares hosts is refused.";
    WEFT_ALLOWED_DOMAINS = "WEFT_ALLOWED_DOMAINS", Runner, List, Value(""),
        "The only hosts that steps may declare, whatever policies allow besides: `api.example.com`, `*.example.com`, either with `:port`. Without it, policies decide alone.";

    WEFT_SECURITY_PROFILE = "WEFT_SECURITY_PROFILE", Isolation, Choice(&["plan_only", "restricted", "standard", "elevated"]),
        Words("`elevated` in development, else `standard`"), files Lower,
        "The security profile under which everything runs at most; policies, workflows and requests may choose a stricter one. `weft config show-profile` shows what each allows.";
    WEFT_ISOLATION_MINIMUM = "WEFT_ISOLATION_MINIMUM", Isolation, Choice(&["process", "confined", "namespaces"]),
        Words("`process` in development, else `confined`"), files Higher,
        "How far steps must be kept apart to be run: a process of their own, the kernel's walls around it (Landlock and seccomp), or namespaces of their own as well. Where there is less, steps are refused; `weft doctor` shows what there is.";
    WEFT_ISOLATION_OFF = "WEFT_ISOLATION_OFF", Isolation, List, Value(""),
        "Layers of isolation to leave out, in development only, to see which one stands in the way. Runs record it.";
    WEFT_STEP_UIDS = "WEFT_STEP_UIDS", Isolation, Text, Value("61000-62023"),
        "User ids that nobody else has, one for each step that runs; used where the handler is root.";

    WEFT_STEP_TIMEOUT_SECONDS = "WEFT_STEP_TIMEOUT_SECONDS", Limits, Number(1, 86_400), Value("300"), files Lower,
        "Wall time of an attempt whose workflow or node declares none, and the most that counts of what one declares.";
    WEFT_RUN_TIMEOUT_SECONDS = "WEFT_RUN_TIMEOUT_SECONDS", Limits, Number(1, 31_536_000), Words("3600 in development and staging, else 7200"), files Lower,
        "Time from the start of a run to its end, waiting included, where it declares none.";
    WEFT_DRIVER_SECONDS = "WEFT_DRIVER_SECONDS", Limits, Number(1, 86_400), Value("120"),
        "How long an instance begins attempts of a run before it lets the run go on by a message, here or elsewhere. Attempts that run then are waited for. Keep it well below `functionTimeout` in `host.json`.";
    WEFT_HAND_OFF_SECONDS = "WEFT_HAND_OFF_SECONDS", Limits, Number(0, 3_600), Value("1"),
        "How long an attempt waits for a worker on the instance that drives its run before other instances are asked to make it; 0 for never.";
    WEFT_MAX_CONCURRENT_RUNS = "WEFT_MAX_CONCURRENT_RUNS", Limits, Number(1, 100_000), Words("10 in development, 25 in staging, else 100"), files Lower,
        "How many runs of one organization are under way at once; further ones wait in its backlog. Runs that a step has started don't count.";
    WEFT_MAX_CACHE_ENTRIES = "WEFT_MAX_CACHE_ENTRIES", Limits, Number(0, 10_000), Value("1000"), files Lower,
        "How many results of an organization are kept for later runs to take (`cacheSeconds`); the oldest go first. 0 for none.";
    WEFT_CACHE_TTL_SECONDS = "WEFT_CACHE_TTL_SECONDS", Limits, Number(1, 2_592_000), Value("2592000"), files Lower,
        "The longest time for which a result may be taken from an earlier run; a shorter `cacheSeconds` holds.";
    WEFT_MAX_ARTIFACT_BYTES = "WEFT_MAX_ARTIFACT_BYTES", Limits, Number(1_024, 109_951_162_777), Value("268435456"), files Lower,
        "Largest artifact of a step.";
    WEFT_MAX_RUN_ARTIFACT_BYTES = "WEFT_MAX_RUN_ARTIFACT_BYTES", Limits, Number(1_024, 1_099_511_627_776), Value("1073741824"), files Lower,
        "Bytes of a run's artifacts together.";
    WEFT_MAX_ORGANIZATION_ARTIFACT_BYTES = "WEFT_MAX_ORGANIZATION_ARTIFACT_BYTES", Limits, Number(1_024, 1_125_899_906_842_624), Value("107374182400"), files Lower,
        "Bytes of an organization's artifacts together, the same on all instances. `artifactBytes` of a policy may say less.";
    WEFT_RETENTION_DAYS = "WEFT_RETENTION_DAYS", Limits, Number(0, 36_500), Value("90"),
        "How many days runs are kept after their end, with their logs and events; 0 for ever.";
    WEFT_BLOB_GRACE_HOURS = "WEFT_BLOB_GRACE_HOURS", Limits, Number(0, 87_600), Value("24"),
        "How many hours large values and artifacts that nothing refers to any more are kept; 0 for ever.";
    WEFT_STEP_CPU_SECONDS = "WEFT_STEP_CPU_SECONDS", Limits, Number(1, 86_400), Words("`WEFT_STEP_TIMEOUT_SECONDS`"), files Lower,
        "Processor time of an attempt.";
    WEFT_STEP_MEMORY_MIB = "WEFT_STEP_MEMORY_MIB", Limits, Number(32, 1_048_576), Value("512"), files Lower,
        "Resident memory of an attempt with everything that it starts, in MiB.";
    WEFT_STEP_PROCESSES = "WEFT_STEP_PROCESSES", Limits, Number(1, 4_096), Value("32"), files Lower,
        "Processes of an attempt at the same time, its own included.";
    WEFT_STEP_THREADS = "WEFT_STEP_THREADS", Limits, Number(1, 65_536), Value("128"), files Lower,
        "Threads of an attempt at the same time, of all its processes together.";
    WEFT_STEP_OPEN_FILES = "WEFT_STEP_OPEN_FILES", Limits, Number(32, 1_048_576), Value("256"), files Lower,
        "Open files, sockets and pipes of one process of an attempt.";
    WEFT_STEP_DISK_BYTES = "WEFT_STEP_DISK_BYTES", Limits, Number(65_536, 1_099_511_627_776), Value("67108864"), files Lower,
        "Bytes that an attempt may have in its folder and in shared memory; no file can be larger.";
    WEFT_STEP_DISK_FILES = "WEFT_STEP_DISK_FILES", Limits, Number(16, 16_777_216), Value("8192"), files Lower,
        "Files and folders that an attempt may have in its folder.";
    WEFT_MAX_OUTPUT_BYTES = "WEFT_MAX_OUTPUT_BYTES", Limits, Number(0, 1_073_741_824), Value("1048576"), files Lower,
        "Bytes of stdout and of stderr that are kept of an attempt.";
    WEFT_MAX_RESULT_BYTES = "WEFT_MAX_RESULT_BYTES", Limits, Number(1_024, 104_857_600), Value("1048576"), files Lower,
        "Largest result of an attempt, as JSON.";
    WEFT_MAX_LOG_LINES = "WEFT_MAX_LOG_LINES", Limits, Number(0, 1_000_000), Value("10000"), files Lower,
        "Log lines that are kept of an attempt.";
    WEFT_EGRESS_OPEN = "WEFT_EGRESS_OPEN", Limits, Number(1, 1_024), Value("64"), files Lower,
        "Network connections of an attempt at the same time.";
    WEFT_EGRESS_CONNECTIONS = "WEFT_EGRESS_CONNECTIONS", Limits, Number(1, 1_000_000), Value("1000"), files Lower,
        "Network connections of an attempt in all.";
    WEFT_EGRESS_BYTES = "WEFT_EGRESS_BYTES", Limits, Number(1_024, 1_099_511_627_776), Value("1073741824"), files Lower,
        "Bytes that an attempt may send and receive over the network.";

    WEFT_SIGNING_KEY = "WEFT_SIGNING_KEY", Signing, Text, Words("a key that is made once and kept with the data"), secret true,
        "Signs queue messages; the same on every instance, at least 32 characters.";
    WEFT_SERVER_KEY = "WEFT_SERVER_KEY", Signing, Text, Unset, files Never, secret true,
        "The function key with which commands ask another server (`weft replay --server`): one with the scope `run:read`.";

    WEFT_KEY_VAULT_URL = "WEFT_KEY_VAULT_URL", Secrets, Text, Words("secrets are sealed and kept with the data"),
        "The Azure Key Vault that keeps secrets, as `https://NAME.vault.azure.net`. Read and written with the app's managed identity, in development with the login of the Azure CLI.";
    WEFT_KEY_VAULT_CLIENT_ID = "WEFT_KEY_VAULT_CLIENT_ID", Secrets, Text, Unset,
        "The client id of a user-assigned identity for the key vault; without it the app's own identity is used.";
    WEFT_SECRETS_KEY = "WEFT_SECRETS_KEY", Secrets, Text, Words("`WEFT_SECRETS_KEY_FILE`"), secret true,
        "Seals secrets that are kept with the data: 32 random bytes in base64 (`openssl rand -base64 32`), the same on every instance. Earlier keys may follow, with commas between them.";
    WEFT_SECRETS_KEY_FILE = "WEFT_SECRETS_KEY_FILE", Secrets, Path, Words("in development `secrets.key` in the data folder, made when it is missing"),
        "A file with such keys, one in a line, the one that seals first.";
    WEFT_SECRETS_SHARED = "WEFT_SECRETS_SHARED", Secrets, List, Value(""),
        "Names of the platform's secrets that workflows of every organization may declare; an organization's own of the same name comes first.";

    WEFT_LOG = "WEFT_LOG", Telemetry, Text, Value("info"), files Any,
        "What is logged: a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or levels by module as `info,weft::http=debug`. HTTP and Azure libraries never log below `warn`, because their records hold credentials.";
    WEFT_LOG_FORMAT = "WEFT_LOG_FORMAT", Telemetry, Choice(&["text", "json"]),
        Words("`text` in development on a terminal, else `json`"), files Any,
        "One line of text or one JSON object for each record.";
    WEFT_ENABLE_DETAILED_LOGGING = "WEFT_ENABLE_DETAILED_LOGGING", Telemetry, Switch, Value("false"), files Any,
        "Logs everything down to `debug` where `WEFT_LOG` says nothing.";
    WEFT_ENABLE_DEBUG_MODE = "WEFT_ENABLE_DEBUG_MODE", Telemetry, Switch, Value("false"), files Any,
        "Commands show the whole chain of causes of a failure, one in a line, and the Python tracebacks of failed steps.";
    WEFT_SAVE_EXECUTION_LOGS = "WEFT_SAVE_EXECUTION_LOGS", Telemetry, Switch, Value("true"),
        "Whether the output and the log lines of steps are kept. `false` keeps none, so nobody sees them; checkpoints, refused connections and everything else about a run are kept.";
    WEFT_RECORD_ATTEMPTS = "WEFT_RECORD_ATTEMPTS", Telemetry, Choice(&["all", "failed", "off"]), Value("all"),
        "Of which attempts it is kept what their code was given, what it asked for and was answered, so that `weft replay` can make them again: bounded, without secrets, for as long as their run. `docs/replay.md` has the bounds.";
    NO_COLOR = "NO_COLOR", Telemetry, Text, Unset, files Never,
        "Any value turns colours off.";

    WEFT_TEST_AZURITE = "WEFT_TEST_AZURITE", Tests, Text, Unset, secret true,
        "Connection string of a running emulator; set by `scripts/test`. Tests that need it are skipped without it.";
    WEFT_TEST_AZURITE_BIN = "WEFT_TEST_AZURITE_BIN", Tests, Path, Unset,
        "The emulator's program, for tests that start and stop it themselves; set by `scripts/test`.";
    WEFT_TEST_NIGHTLY = "WEFT_TEST_NIGHTLY", Tests, Switch, Value("false"),
        "Set by `scripts/test --nightly`: more seeds and longer histories.";
    WEFT_SIM_SEED = "WEFT_SIM_SEED", Tests, Text, Unset,
        "The one seed that the simulator's tests play, as a failing one names it.";
    WEFT_SIM_SEEDS = "WEFT_SIM_SEEDS", Tests, Text, Words("300, nightly 10000"),
        "How many seeds they play, from 0 on.";
    WEFT_SIM_TRACE = "WEFT_SIM_TRACE", Tests, Switch, Value("false"),
        "Prints everything that happens under a seed, with virtual times.";
    WEFT_BINARY = "WEFT_BINARY", Tests, Path, Unset,
        "The program that the tests in `tests/host` start; set by `scripts/test`.";
}

/// Older names of variables, which are read where the variable itself is not set.
pub const ALIASES: &[(&str, &str)] = &[
    ("CLAUDE_SECURITY_PROFILE", "WEFT_SECURITY_PROFILE"),
    ("CLAUDE_MAX_CONCURRENT_WORKFLOWS", "WEFT_MAX_CONCURRENT_RUNS"),
    ("CLAUDE_DEFAULT_TIMEOUT", "WEFT_RUN_TIMEOUT_SECONDS"),
    ("CLAUDE_ENABLE_DEBUG", "WEFT_ENABLE_DEBUG_MODE"),
    ("CLAUDE_ENABLE_DETAILED_LOGGING", "WEFT_ENABLE_DETAILED_LOGGING"),
    ("CLAUDE_WORKSPACE_ROOT", "WEFT_WORKSPACE"),
    ("CLAUDE_MAX_MEMORY_MB", "WEFT_STEP_MEMORY_MIB"),
    ("CLAUDE_CONFIG_FILE", "WEFT_CONFIG_FILE"),
];

/// Other names of keys in files.
pub const OTHER_KEYS: &[(&str, &str)] = &[
    ("max_concurrent_workflows", "WEFT_MAX_CONCURRENT_RUNS"),
    ("default_timeout", "WEFT_RUN_TIMEOUT_SECONDS"),
    ("enable_debug", "WEFT_ENABLE_DEBUG_MODE"),
    ("cache_ttl", "WEFT_CACHE_TTL_SECONDS"),
    ("workspace_root", "WEFT_WORKSPACE"),
    ("max_memory_mb", "WEFT_STEP_MEMORY_MIB"),
];

/// The older name of a variable, where it has one.
#[must_use]
pub fn alias(name: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(_, of)| *of == name).map(|(alias, _)| *alias)
}

/// The variable that a key of a file sets.
#[must_use]
pub fn of_key(key: &str) -> Option<&'static Variable> {
    let other = OTHER_KEYS.iter().find(|(other, _)| *other == key);
    match other {
        Some((_, name)) => find(name),
        None => ALL
            .iter()
            .copied()
            .find(|variable| variable.key().as_deref() == Some(key)),
    }
}

/// The key that was probably meant, if one is near enough.
#[must_use]
pub fn nearest_key(key: &str) -> Option<String> {
    let others = OTHER_KEYS.iter().map(|(other, _)| (*other).to_owned());
    let keys = ALL.iter().filter_map(|variable| variable.key()).chain(others);
    keys.map(|known| (edit_distance(key, &known), known))
        .min()
        .filter(|(distance, _)| *distance <= key.len() / 4 + 1)
        .map(|(_, known)| known)
}

/// The declaration of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Variable> {
    ALL.iter().copied().find(|variable| variable.name == name)
}

/// The declared name that was probably meant, if one is near enough.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    ALL.iter()
        .map(|variable| (edit_distance(name, variable.name), variable.name))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 4 + 1)
        .map(|(_, name)| name)
}

/// `docs/env-vars.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Environment variables\n\n\
         <!-- Generated by `weft emit`; edit `src/config/env_var.rs` instead. -->\n\n\
         All of them are read once at the start, and all mistakes in them are reported at once. An empty value counts as \
         not set. On Azure they are app settings. A name that starts with `WEFT_` and is not listed here is warned about.\n\n\
         Most of them may stand in [files](configuration.md) as well, under the name in the second column. `†`: a project's \
         `weft.yaml` may set it too; `↓`, `↑`: it may only lower it, or raise it (take an earlier word, or a later one).\n",
    );
    for section in Section::ALL {
        let _ = write!(
            page,
            "\n## {}\n\n| variable | in files | value | default | meaning |\n|---|---|---|---|---|\n",
            section.heading()
        );
        for variable in ALL.iter().filter(|variable| variable.section == section) {
            let _ = writeln!(
                page,
                "| `{}` | {} | {}{} | {} | {} |",
                variable.name,
                in_files(variable),
                shape_in_words(variable.shape),
                if variable.secret { ", secret" } else { "" },
                match variable.fallback {
                    Unset | Value("") => "not set".to_owned(),
                    Value(value) => format!("`{value}`"),
                    Words(words) => words.to_owned(),
                },
                variable.doc,
            );
        }
    }
    page.push_str("\n## Older names\n\nEach is read where the variable itself is not set.\n\n| older name | variable |\n|---|---|\n");
    for (alias, name) in ALIASES.iter().filter(|(_, name)| find(name).is_some()) {
        let _ = writeln!(page, "| `{alias}` | `{name}` |");
    }
    page
}

fn in_files(variable: &Variable) -> String {
    let mark = match variable.files {
        Files::Never | Files::Machine => "",
        Files::Any => " †",
        Files::Lower => " ↓",
        Files::Higher => " ↑",
    };
    variable
        .key()
        .map_or_else(|| "–".to_owned(), |key| format!("`{key}`{mark}"))
}

pub(super) fn shape_in_words(shape: Shape) -> String {
    match shape {
        Text => "text".to_owned(),
        Path => "path".to_owned(),
        Number(min, max) => format!("{min} to {max}"),
        Choice(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Switch => "`true` or `false`".to_owned(),
        List => "names with commas between them".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_declared_once() {
        let mut names: Vec<&str> = ALL.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn defaults_are_allowed_values() {
        for variable in ALL {
            let Value(value) = variable.fallback else { continue };
            let allowed = match variable.shape {
                Number(min, max) => value.parse().is_ok_and(|number| (min..=max).contains(&number)),
                Choice(words) => words.contains(&value),
                Switch => ["true", "false"].contains(&value),
                Text | Path | List => true,
            };
            assert!(allowed, "{} has the default {value}", variable.name);
        }
    }

    #[test]
    fn keys_are_unique_and_lead_back() {
        let mut keys: Vec<String> = ALL.iter().filter_map(|variable| variable.key()).collect();
        keys.extend(OTHER_KEYS.iter().map(|(key, _)| (*key).to_owned()));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        for variable in ALL {
            let Some(key) = variable.key() else { continue };
            assert_eq!(of_key(&key).map(|found| found.name), Some(variable.name));
        }
        assert_eq!(AZURE_WEB_JOBS_STORAGE.key().as_deref(), Some("azure_web_jobs_storage"));
        let account = AZURE_WEB_JOBS_STORAGE_ACCOUNT_NAME.key();
        assert_eq!(account.as_deref(), Some("azure_web_jobs_storage_account_name"));
        assert_eq!(WEFT_SIM_SEED.key(), None);
        assert_eq!(nearest_key("max_body_byte").as_deref(), Some("max_body_bytes"));
    }

    #[test]
    fn a_slip_finds_its_name() {
        assert_eq!(nearest("WEFT_PROT"), Some("WEFT_PORT"));
        assert_eq!(nearest("WEFT_SIGNINGKEY"), Some("WEFT_SIGNING_KEY"));
        assert_eq!(nearest("WEFT_SOMETHING_ELSE_ALTOGETHER"), None);
    }
}
