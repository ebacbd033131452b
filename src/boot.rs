//! The one composition root: configuration → backends → use cases → servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::authn::{self, Authenticator, SourceSettings, TrustSettings};
use crate::clock::{Clock, Entropy, SystemClock};
use crate::config::{self, Config, Discovery};
use crate::definition::Longest;
use crate::domain::{self, NetworkMode, NetworkPolicy, Policy, sha256_hex};
use crate::egress::{Egress, EgressLimits, Opened};
use crate::error::{Coded as _, Finding};
use crate::http::problem::ApiError;
use crate::http::{self, App, Gate};
use crate::runner::cgroup;
use crate::runner::debug::Debugger;
use crate::runner::environments::{self, Environments, Hidden, Index};
use crate::runner::fetched::Fetched;
use crate::runner::folders::make_passable;
use crate::runner::jail::setup::Uids;
use crate::runner::pool::{IsolationSettings, Pool};
use crate::runner::{Isolation, NodeRunner, python};
use crate::secrets::keyring::Keyring;
use crate::store::envelope::SigningKey;
use crate::store::key::{self, PLATFORM_TABLES, QUEUES};
use crate::store::port::Ports;
use crate::store::repo::identity::Identities;
use crate::store::repo::installation;
use crate::store::repo::policies::Policies;
use crate::store::repo::quarantines::Quarantines;
use crate::store::repo::runs::Runs;
use crate::store::repo::secrets::{Secrets, key_file};
use crate::store::secret::SecretStore;
use crate::store::{self, azure, sqlite};
use crate::tenancy::PlatformScope;
use crate::usecase::recording::Record;
use crate::usecase::{Bounds, CodeSource, Context, Parts, Quotas};
use crate::{host, integrity, telemetry, tenancy, usecase};

/// Why the process can't start, in one sentence each, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings.
    #[error("the configuration has {} finding(s)", .0.len())]
    Config(Vec<Finding>),
    /// Storage settings.
    #[error("storage can't be set up: {0}")]
    Storage(String),
    /// Storage.
    #[error("storage can't be used")]
    Store(#[from] store::Error),
    /// A storage account that doesn't answer.
    #[error("storage can't be used (`{place}` does not answer)")]
    Away {
        /// Its address.
        place: String,
        /// Whether that is of this machine, where an emulator would listen.
        is_here: bool,
        /// What came of it.
        source: store::Error,
    },
    /// Python.
    #[error(transparent)]
    Runner(#[from] crate::runner::RunnerError),
    /// The port.
    #[error("port {port} can't be listened on: {source}")]
    Listen {
        /// Which.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder.
    #[error("`{path}` can't be used: {source}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A use case.
    #[error(transparent)]
    UseCase(#[from] usecase::Error),
    /// The workspace has findings, and the mode is strict.
    #[error("the workspace has {} finding(s)", .0.len())]
    Workspace(Vec<Finding>),
    /// Something that a sentence says.
    #[error("{detail}")]
    Said {
        /// What is wrong.
        detail: String,
        /// What to do.
        hint: String,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(_) => {
                Some("`weft config explain` shows every setting and its origin; docs/env-vars.md lists them".into())
            }
            Self::Storage(_) => Some("set `AzureWebJobsStorage`, or `WEFT_STORE=sqlite` for the embedded store".into()),
            Self::Store(error) => error.hint(),
            Self::Away { is_here: true, .. } => Some(
                "start the storage emulator (`npx azurite`) and try again, or set `WEFT_STORE=sqlite` to work without it"
                    .into(),
            ),
            Self::Away { .. } => Some(
                "check the address in `AzureWebJobsStorage` and the network in between; `weft doctor` tries it again".into(),
            ),
            Self::Runner(error) => error.hint(),
            Self::Listen { port, source } if source.kind() == std::io::ErrorKind::AddrInUse => Some(format!(
                "another process listens on {port}; stop it, or choose another port with `--port`"
            )),
            Self::Listen { .. } => Some("choose another port with `--port`".into()),
            Self::Path { .. } => Some("check that the folder exists and may be written, or name another".into()),
            Self::UseCase(error) => error.hint(),
            Self::Workspace(_) => Some("mend them; `weft check` shows them again without starting".into()),
            Self::Said { hint, .. } => Some(hint.clone()),
        }
    }
}

/// Opens the backend that the configuration names. Sends nothing.
///
/// # Errors
/// When the settings are no settings, or the embedded store's file can't be opened.
pub fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Ports, Error> {
    let storage = &config.storage;
    match storage.backend {
        config::Backend::Sqlite => {
            make_dir(&storage.data_dir)?;
            Ok(sqlite::open(Some(&storage.data_dir.join("weft.db")), clock)?)
        }
        config::Backend::Azure => Ok(azure::open(account(config)?)?),
    }
}

/// Steps that have a user of their own go through it to their code; what is in it they can't list.
/// The storage account that the configuration names.
fn account(config: &Config) -> Result<azure::Settings, Error> {
    let storage = &config.storage;
    let settings = match (&storage.connection_string, &storage.account_name) {
        (Some(text), _) => azure::Settings::from_connection_string(text.expose()),
        (None, Some(account)) => {
            // On a developer's computer there is no managed identity; there the tools' login stands in for it.
            let identity = if storage.credential.is_some() || config.mode.on_azure {
                azure::Identity::Managed {
                    client_id: storage.client_id.clone(),
                }
            } else {
                azure::Identity::DeveloperTools
            };
            azure::Settings::from_account(account, identity)
        }
        (None, None) => return Err(Error::Storage("no storage account is named".to_owned())),
    };
    settings.map_err(|error| Error::Storage(error.to_string()))
}

/// A failure of storage as a command says it, which does not try again: an account that doesn't answer with its address and
/// what to do about it.
#[must_use]
pub fn storage_failed(config: &Config, error: store::Error) -> Error {
    let is_away = matches!(error, store::Error::Unavailable { .. }) && config.storage.backend == config::Backend::Azure;
    match account(config) {
        Ok(settings) if is_away => Error::Away {
            place: settings.place(),
            is_here: settings.is_here(),
            source: error,
        },
        _ => error.into(),
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    make_passable(path).map_err(|source| Error::Path {
        path: path.to_owned(),
        source,
    })
}

/// Creates the platform's tables, containers and queues. Repeating it changes nothing.
///
/// # Errors
/// When storage fails.
pub async fn prepare(ports: &Ports) -> Result<(), store::Error> {
    let tables = PLATFORM_TABLES.map(key::PlatformTable::name);
    futures::future::try_join_all(tables.iter().map(|table| ports.tables.create_table(table))).await?;
    ports.blobs.create_container(&key::bundles_container()).await?;
    ports.blobs.create_container(&key::library_container()).await?;
    let queues = QUEUES.map(key::Queue::name);
    futures::future::try_join_all(queues.iter().map(|queue| ports.queues.create_queue(queue))).await?;
    Ok(())
}

/// What is made before storage is asked for anything: cheap, and the same for every try to become ready.
#[derive(Debug, Clone)]
pub struct Base {
    /// The settings.
    pub config: Arc<Config>,
    /// Storage.
    pub ports: Ports,
    /// Python.
    pub runner: Arc<dyn NodeRunner>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<Entropy>,
    /// What steps may reach, and requests on their behalf.
    pub egress: Egress,
}

/// Compares the engine's files with those of the release file.
#[must_use]
pub fn engine(config: &Config) -> integrity::Report {
    integrity::check(&config.mode.app_root, &config.runner.engine_dir)
}

/// Opens the store and starts the runner. Neither waits for anything: the zygote is started by the first step.
///
/// # Errors
/// When Python is missing or the settings are wrong.
pub fn base(config: Config) -> Result<Base, Error> {
    debugged(config, None)
}

/// The same, in which attempts wait for a debugger.
///
/// # Errors
/// As [`base`].
pub fn debugged(config: Config, debugger: Option<Arc<Debugger>>) -> Result<Base, Error> {
    if config.runner.require_intact_engine {
        let report = engine(&config);
        if report.state != integrity::State::Intact {
            return Err(Error::Said {
                detail: format!("the engine is not as it was released: {}", report.sentence()),
                hint: "`weft doctor` names every file; take the release again, whole, or unset `WEFT_REQUIRE_INTACT_ENGINE`"
                    .to_owned(),
            });
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ports = open_store(&config, clock.clone())?;
    let runner = start_runner(&config, clock.clone(), debugger)?;
    Ok(Base {
        egress: egress(&config.egress)?,
        config: Arc::new(config),
        ports,
        runner,
        clock,
        entropy: Arc::new(Entropy::System),
    })
}

/// The packages that workspaces ask for. Nothing is read or made yet.
#[must_use]
pub fn environments(config: &Config, clock: Arc<dyn Clock>) -> Environments {
    let packages = &config.runner.packages;
    let text = |secret: &Option<config::Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    let variables = [
        ("PIP_INDEX_URL", text(&packages.index_url)),
        ("PIP_EXTRA_INDEX_URL", text(&packages.extra_index_url)),
        ("PIP_FIND_LINKS", packages.find_links.clone()),
        ("PIP_NO_INDEX", packages.no_index.then(|| "1".to_owned())),
        (
            "PIP_CERT",
            packages.certificates.as_ref().map(|path| path.display().to_string()),
        ),
        ("HTTPS_PROXY", text(&packages.proxy)),
        ("NO_PROXY", packages.no_proxy.clone()),
    ];
    let settings = environments::Settings {
        root: packages.dir.clone(),
        python: config.runner.python.display().to_string(),
        index: Index {
            variables: variables
                .into_iter()
                .filter_map(|(name, value)| Some((name, Hidden(value?))))
                .collect(),
            search_path: packages.search_path.clone().map(Into::into),
        },
        keep: Duration::from_secs(packages.keep_days * 86_400),
    };
    Environments::new(settings, clock)
}

fn start_runner(
    config: &Config,
    clock: Arc<dyn Clock>,
    debugger: Option<Arc<Debugger>>,
) -> Result<Arc<dyn NodeRunner>, Error> {
    let runner = &config.runner;
    let python = python::find(Some(&runner.python.display().to_string()))?;
    make_dir(&runner.scratch_dir)?;
    let mut settings = crate::runner::pool::Settings::new(python, &runner.engine_dir, &runner.scratch_dir);
    settings.slots = runner.worker_slots;
    settings.ahead = runner.workers_ahead;
    settings.preload.clone_from(&runner.preload);
    settings.limits = config.limits.attempt.clone();
    settings.group = match runner.control_group {
        config::ControlGroup::Auto => cgroup::When::Delegated,
        config::ControlGroup::V1 => cgroup::When::Possible,
        config::ControlGroup::Off => cgroup::When::Never,
    };
    settings.egress = egress(&config.egress)?;
    let isolation = &config.isolation;
    settings.isolation = IsolationSettings {
        minimum: isolation.minimum,
        off: isolation.off.clone(),
        uids: Some(Uids {
            first: isolation.uids.first,
            count: isolation.uids.last - isolation.uids.first + 1,
        }),
        hide: hidden(config),
        ..IsolationSettings::default()
    };
    settings.debugger = debugger;
    Ok(Arc::new(Pool::start(settings, clock)?))
}

/// The interpreter that steps run with.
///
/// # Errors
/// When there is none that is new enough.
pub fn interpreter(config: &Config) -> Result<python::Python, Error> {
    Ok(python::find(Some(&config.runner.python.display().to_string()))?)
}

/// Folders that no step may look into: the data, and that of the installation where this one is a simulation's.
fn hidden(config: &Config) -> Vec<PathBuf> {
    let mut hidden = vec![config.storage.data_dir.clone()];
    let beside = config.runner.packages.dir.parent();
    hidden.extend(beside.filter(|beside| **beside != hidden[0]).map(Path::to_owned));
    hidden
}

/// As [`base`], over a store that ends with the process and with everything that is written below `home`. Packages that are
/// installed are taken from where they are. `wrap` may put something in front of the runner.
///
/// # Errors
/// As [`base`].
pub fn ephemeral(
    mut config: Config,
    home: &Path,
    wrap: impl FnOnce(Arc<dyn NodeRunner>) -> Arc<dyn NodeRunner>,
    debugger: Option<Arc<Debugger>>,
) -> Result<Base, Error> {
    make_dir(home)?;
    config.storage.backend = config::Backend::Sqlite;
    config.storage.data_dir = home.join("data");
    config.runner.scratch_dir = home.join("scratch");
    config.signing.key = None;
    // Secrets of the installation are none of a simulation's.
    config.secrets.key_vault_url = None;
    config.secrets.key = None;
    config.secrets.key_file = Some(home.join("secrets.key"));
    config.secrets.make_key_file = true;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(Base {
        egress: egress(&config.egress)?,
        ports: sqlite::open(None, clock.clone())?,
        runner: wrap(start_runner(&config, clock.clone(), debugger)?),
        config: Arc::new(config),
        clock,
        entropy: Arc::new(Entropy::System),
    })
}

fn egress(config: &config::Egress) -> Result<Egress, Error> {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Egress {
        limits: EgressLimits {
            open: count(config.open),
            connections: count(config.connections),
            bytes: config.bytes,
        },
        opened: Opened::parse(&config.private, "env:WEFT_EGRESS_PRIVATE").map_err(Error::Config)?,
        ..Egress::default()
    })
}

/// The use cases for a command, which says what is missing and does not try again.
///
/// # Errors
/// When storage fails.
pub async fn opened(base: &Base) -> Result<Context, Error> {
    context(base).await.map_err(|error| storage_failed(&base.config, error))
}

/// Prepares storage and puts the use cases together.
///
/// # Errors
/// When storage fails.
pub async fn context(base: &Base) -> Result<Context, store::Error> {
    let config = &base.config;
    prepare(&base.ports).await?;
    let signing = match &config.signing.key {
        Some(secret) => SigningKey::new(sha256_hex(secret.expose().as_bytes()).as_bytes()),
        None => installation::signing_key(&base.ports, &base.entropy).await?,
    };
    let http = &config.http;
    let cx = Context::new(Parts {
        ports: base.ports.clone(),
        runner: base.runner.clone(),
        clock: base.clock.clone(),
        entropy: base.entropy.clone(),
        bounds: Bounds {
            attempt: config.limits.attempt.clone(),
            run: config.limits.run(),
            driver: config.limits.driver,
            hand_off: config.limits.hand_off,
            concurrent_runs: config.limits.concurrent_runs,
            profile: config.isolation.profile,
            wait: (http.sync_wait(), MAX_WAIT),
            cache: (
                u32::try_from(config.limits.cache_entries).unwrap_or(u32::MAX),
                Duration::from_secs(config.limits.cache_seconds),
            ),
            save_logs: config.telemetry.save_logs,
            record: match config.telemetry.record {
                config::Recorded::All => Record::All,
                config::Recorded::Failed => Record::Failed,
                config::Recorded::Off => Record::Off,
            },
            network: network_of(&config.egress),
        },
        code: CodeSource {
            workspace: config.runner.workspace_dir.clone(),
            bundles: config.storage.data_dir.join("bundles"),
            fetched: fetched(config),
            environments: Arc::new(environments(config, base.clock.clone())),
            live: config.mode.development,
            strict: config.runner.discovery == Discovery::Strict,
        },
        signing,
        secrets: open_secrets(base)?,
        inherited_secrets: config
            .secrets
            .inherited
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect(),
        egress: base.egress.clone(),
    })
    .keeping_runs(config.limits.retention())
    .collecting(config.limits.blob_grace())
    .with_quotas(Quotas {
        artifact: config.limits.artifact_bytes,
        run: config.limits.run_artifact_bytes,
        organization: config.limits.organization_artifact_bytes,
    });
    match cx.catalogs.begin().await {
        Ok(()) => Ok(cx),
        Err(usecase::Error::Store(error)) => Err(error),
        Err(error) => Err(store::Error::corrupt(error.to_string())),
    }
}

/// Copies of published bundles, below the data folder. What an attempt may run in is not removed.
#[must_use]
pub fn fetched(config: &Config) -> Fetched {
    let spared = config.limits.attempt.wall() + Duration::from_secs(300);
    let dir = config.storage.data_dir.join("fetched");
    Fetched::new(dir, config.storage.bundle_cache_mib << 20, spared)
}

/// What of the network the operator allows, whatever policies allow besides.
fn network_of(egress: &config::Egress) -> Option<NetworkPolicy> {
    if egress.outbound && egress.domains.is_empty() {
        return None;
    }
    Some(NetworkPolicy {
        mode: if egress.outbound {
            NetworkMode::Open
        } else {
            NetworkMode::None
        },
        domains: match egress.domains.as_slice() {
            [] => vec!["*".to_owned()],
            domains => domains.to_vec(),
        },
        // Where every host is allowed, that is a matter of the policies.
        open_granted: egress.domains.iter().any(|domain| domain == "*"),
    })
}

/// Most organizations, and facts of each, that are looked at for runs that are set aside.
const SET_ASIDE_LOOKS: usize = 200;

/// Runs that are set aside because they can't be read, as `organization/run`; of the first organizations, the newest of each.
///
/// # Errors
/// When storage fails.
pub async fn unreadable_runs(ports: &Ports, platform: &PlatformScope) -> Result<Vec<String>, Error> {
    let identities = Identities::new(ports.clone(), Arc::new(SystemClock), Arc::new(Entropy::System));
    let organizations = identities
        .list_organizations(platform, SET_ASIDE_LOOKS, None)
        .await
        .map_err(|error| Error::Storage(error.to_string()))?;
    let (quarantines, runs) = (Quarantines::new(ports.clone()), Runs::new(ports.clone()));
    let mut found = Vec::new();
    for organization in organizations.items {
        let scope = tenancy::operator_in(platform, &organization.id);
        let (facts, _) = quarantines.list(&scope, None, SET_ASIDE_LOOKS, None).await?;
        for listed in facts {
            let name = format!("{}/{}", organization.id, listed.run);
            if found.contains(&name) || !listed.fact.is_about_reading() {
                continue;
            }
            // What was ended or mended since can be read.
            if matches!(
                runs.get(&scope, &listed.run).await,
                Err(store::Error::Unreadable { .. })
            ) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Puts a new key at the head of the file with the keys of secrets.
///
/// # Errors
/// When the file can't be read or written.
pub fn add_secrets_key(file: &Path) -> Result<(), Error> {
    key_file::read(file, true, &Entropy::System)
        .and_then(|_| key_file::add(file, &Entropy::System))
        .map_err(|source| Error::Path {
            path: file.to_owned(),
            source,
        })
}

/// The store of secrets that the configuration names; none in production without a key.
fn open_secrets(base: &Base) -> Result<Option<Arc<dyn SecretStore>>, store::Error> {
    let settings = &base.config.secrets;
    if let Some(url) = &settings.key_vault_url {
        let identity = if settings.key_vault_client_id.is_some() || base.config.mode.on_azure {
            azure::Identity::Managed {
                client_id: settings.key_vault_client_id.clone(),
            }
        } else {
            azure::Identity::DeveloperTools
        };
        let vault = azure::open_vault(&azure::VaultSettings {
            url: url.clone(),
            identity,
        })?;
        return Ok(Some(Arc::new(vault)));
    }
    let unreadable = |what: String| store::Error::Corrupt { what };
    let (text, file) = match (&settings.key, &settings.key_file) {
        (Some(key), _) => (domain::Secret::value(key.expose()), None),
        (None, Some(file)) => {
            let found = key_file::read(file, settings.make_key_file, &base.entropy);
            let text = found.map_err(|error| unreadable(format!("the key file `{}`: {error}", file.display())))?;
            (text, Some(file.clone()))
        }
        (None, None) => return Ok(None),
    };
    let keys = Keyring::parse(&text).map_err(|error| unreadable(format!("the keys of secrets: {error}")))?;
    let (ports, entropy) = (base.ports.clone(), base.entropy.clone());
    Ok(Some(Arc::new(Secrets::new(ports, entropy, keys, file))))
}

/// Longest time that a synchronous caller waits: the platform's front end cuts an idle answer at 230 s.
const MAX_WAIT: Duration = Duration::from_secs(220);

/// Puts the application behind the routes, and starts to follow what other instances tell this one.
#[must_use]
pub fn app(base: &Base, cx: Arc<Context>, listener_loopback: bool) -> Arc<App> {
    let config = &base.config;
    let trust = TrustSettings {
        principal_source: match config.auth.principal_source {
            config::PrincipalSource::None => authn::PrincipalSource::None,
            config::PrincipalSource::Swa => authn::PrincipalSource::Swa,
            config::PrincipalSource::Easyauth => authn::PrincipalSource::Easyauth,
        },
        website_auth_enabled: config.auth.website_auth_enabled,
        on_azure: config.mode.on_azure,
        development: config.mode.development,
    };
    let source = SourceSettings {
        behind_host: config.mode.on_azure,
        client_ip_header: config
            .http
            .client_ip_header
            .as_deref()
            .and_then(|name| name.parse().ok()),
    };
    let settings = authn::Settings { trust, source };
    let authenticator = Authenticator::new(cx.identities.clone(), cx.keys.clone(), settings, base.clock.clone());
    let settings = http::Settings {
        max_body_bytes: usize::try_from(config.http.max_body_bytes).unwrap_or(usize::MAX),
        wait: config.http.sync_wait(),
        max_wait: MAX_WAIT,
        listener_loopback,
        about: json!({
            "development": config.mode.development,
            "onAzure": config.mode.on_azure,
            "settings": config.redacted(),
        }),
        engine: Arc::default(),
    };
    tokio::task::spawn_blocking({
        let (config, shown) = (config.clone(), settings.engine.clone());
        move || {
            let report = engine(&config);
            if report.state == integrity::State::Modified {
                tracing::warn!(
                    files = report.differences.len(),
                    "the engine is not as it was released: {}",
                    report.sentence()
                );
            }
            drop(shown.set(shown_of(report)));
        }
    });
    tokio::spawn(usecase::signal::listen(Arc::downgrade(&cx)));
    Arc::new(App {
        cx,
        authenticator,
        settings,
    })
}

/// What `/api/status` shows: not more files than somebody reads.
fn shown_of(mut report: integrity::Report) -> serde_json::Value {
    let count = report.differences.len();
    report.differences.truncate(50);
    let mut shown = serde_json::to_value(report).unwrap_or_default();
    shown["count"] = json!(count);
    shown
}

/// Becomes ready, and keeps trying while storage is away. Says why not to whoever asks meanwhile.
pub async fn become_ready(base: Base, gate: Gate, listener_loopback: bool) -> Arc<Context> {
    let mut pause = Duration::from_millis(200);
    loop {
        match context(&base).await {
            Ok(cx) => {
                let cx = Arc::new(cx);
                gate.open(app(&base, cx.clone(), listener_loopback));
                tokio::spawn(usecase::queue_trigger::listen(Arc::downgrade(&cx)));
                tokio::spawn(usecase::bundle::listen(Arc::downgrade(&cx)));
                // Described now rather than at the first call; what is wrong with it is said there.
                // Packages may take minutes to install, and are told of while they are.
                let mut loaded = cx.catalogs.current().await;
                while loaded
                    .as_ref()
                    .is_err_and(|error| error.code() == "environment_building")
                {
                    loaded = cx.catalogs.current().await;
                }
                if let Err(error) = loaded {
                    tracing::error!(error = %error, error.code = error.code(), "the workspace can't be loaded");
                }
                return cx;
            }
            Err(error) => {
                tracing::error!(error = %error, error.code = error.code(), "storage can't be used yet, trying again");
                gate.failing(ApiError::from(usecase::Error::from(error)));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}

/// Binds the loopback. Port 0 takes a free one.
///
/// # Errors
/// When the port is taken or may not be used.
pub async fn listen(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| Error::Listen { port, source })
}

/// Every route of this process: the API, and the functions that the host invokes.
pub fn router(gate: Gate) -> axum::Router {
    http::router(gate.clone()).merge(host::router(gate))
}

/// Serves until `stop` fires; then lets requests end for a moment.
pub async fn serve(listener: TcpListener, gate: Gate, stop: CancellationToken) {
    let patience = http::listener::Patience::default();
    tokio::select! {
        () = http::listener::serve(listener, router(gate), patience, stop.clone()) => {}
        () = async { stop.cancelled().await; tokio::time::sleep(Duration::from_secs(3)).await } => {}
    }
}

/// Logs to a sink as the configuration says.
///
/// # Errors
/// When the filter is none.
pub fn init_telemetry(config: &Config, sink: telemetry::Sink) -> Result<(), telemetry::Error> {
    telemetry::init(&telemetry::Options {
        filter: &config.telemetry.filter,
        json: config.telemetry.format == config::LogFormat::Json,
        color: config.telemetry.color,
        sink,
    })
}

/// The platform's policy where the store is there already; nothing is made, and nobody waits for a store that is away.
///
/// # Errors
/// In one sentence, why it can't be read.
pub async fn platform_policy(config: &Config) -> Result<Policy, String> {
    let here = config.storage.data_dir.join("weft.db");
    if matches!(config.storage.backend, config::Backend::Sqlite) && !here.exists() {
        return Ok(Policy::of_platform());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ports = open_store(config, clock.clone()).map_err(|error| error.to_string())?;
    let policies = Policies::new(ports, clock);
    let platform = tenancy::system("check");
    match tokio::time::timeout(Duration::from_secs(3), policies.platform(&platform)).await {
        Ok(Ok(stored)) => Ok(stored.policy),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("storage does not answer".to_owned()),
    }
}

/// What keeps steps apart here: starts what they come from, and has it find out.
///
/// # Errors
/// When Python is missing or does not start.
pub async fn examine_isolation(config: &Config) -> Result<Isolation, Error> {
    let runner = start_runner(config, Arc::new(SystemClock), None)?;
    let found = runner.posture().await;
    runner.shutdown().await;
    Ok(found?)
}

/// Describes the workspace in a worker, without storage.
///
/// # Errors
/// When Python is missing or the workspace can't be read; what is wrong with it is in the catalog.
pub async fn check_workspace(config: Config) -> Result<crate::definition::Catalog, Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let runner = start_runner(&config, clock.clone(), None)?;
    // Nobody is pinned to the copy that is looked at, so it goes when that is done.
    let home = tempfile::Builder::new().prefix("weft-check-").tempdir();
    let home = home.map_err(|source| Error::Path {
        path: std::env::temp_dir(),
        source,
    })?;
    make_dir(home.path())?;
    let bundles = home.path().join("bundles");
    let mut bundle =
        crate::runner::bundle::snapshot(&config.runner.workspace_dir, &bundles).map_err(usecase::Error::from)?;
    let mut findings = Vec::new();
    let environments = environments(&config, clock);
    match environments.wanted(&bundle.dir) {
        Ok(None) => {}
        Ok(Some(wanted)) => {
            bundle.environment = environments.find(&wanted.digest);
            if bundle.environment.is_none() {
                let message =
                    "the packages that it names are not installed, so modules that import them can't be checked";
                let pointer = format!("workspace/{}", environments::FILE);
                findings.push(
                    Finding::new(pointer, "environment_missing", message)
                        .hint("run `weft env build`; `weft dev` and the handler do so by themselves"),
                );
            }
        }
        Err(environments::EnvironmentError::Requirements(wrong)) => findings.extend(wrong),
        Err(error) => return Err(usecase::Error::from(error).into()),
    }
    let described = runner.describe(&bundle).await;
    runner.shutdown().await;
    let described = described?;
    findings.extend(described.findings);
    let catalog = crate::definition::Catalog::from_description(
        &bundle.digest,
        &described.modules,
        findings,
        described.files,
        described.ms,
    )
    .within(&config.limits.attempt)
    .noticing(Longest::of(
        &config.limits.attempt,
        config.limits.run(),
        config.isolation.profile,
    ));
    Ok(usecase::catalog::with_graphs(catalog, &bundle).await?)
}
