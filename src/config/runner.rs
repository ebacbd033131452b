//! Python: interpreter, folders, how many workers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;
use super::secret::Secret;
use super::storage::Storage;

/// How Python steps are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runner {
    /// The interpreter: an absolute path, or a bare name to look up in `PATH`.
    pub python: PathBuf,
    /// The folder with `weft` and `weft_runtime`.
    pub engine_dir: PathBuf,
    /// Whether nothing is started unless the engine is as it was released.
    pub require_intact_engine: bool,
    /// The folder with the developers' workflows.
    pub workspace_dir: PathBuf,
    /// Attempts at the same time.
    pub worker_slots: usize,
    /// Workers that are forked ahead for each module in use.
    pub workers_ahead: usize,
    /// Modules that the zygote imports.
    pub preload: Vec<String>,
    /// What a file that breaks the rules does.
    pub discovery: Discovery,
    /// Where attempts have their temporary folders.
    pub scratch_dir: PathBuf,
    /// Whether all steps together get a control group.
    pub control_group: ControlGroup,
    /// Where packages come from.
    pub packages: Packages,
}

/// Where packages come from, and how long they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packages {
    /// Where installed ones are kept.
    pub dir: PathBuf,
    /// The index; none is PyPI.
    pub index_url: Option<Secret>,
    /// Further ones.
    pub extra_index_url: Option<Secret>,
    /// Folders or pages with wheels.
    pub find_links: Option<String>,
    /// Whether those are all.
    pub no_index: bool,
    /// What an index is checked by.
    pub certificates: Option<PathBuf>,
    /// The way to an index.
    pub proxy: Option<Secret>,
    /// Where it is not needed.
    pub no_proxy: Option<String>,
    /// Folders in which the installer is looked for.
    #[serde(skip)]
    pub search_path: Option<String>,
    /// Days after which what nobody uses is removed.
    pub keep_days: u64,
}

impl Packages {
    fn read(reader: &mut Reader<'_>, storage: &Storage) -> Self {
        Self {
            dir: storage.data_dir.join("envs"),
            index_url: reader
                .secret("runner.packages.indexUrl", &var::WEFT_PIP_INDEX_URL)
                .or_else(|| reader.secret("runner.packages.indexUrl", &var::PIP_INDEX_URL)),
            extra_index_url: reader.secret("runner.packages.extraIndexUrl", &var::PIP_EXTRA_INDEX_URL),
            find_links: reader.text("runner.packages.findLinks", &var::PIP_FIND_LINKS),
            no_index: reader.switch("runner.packages.noIndex", &var::PIP_NO_INDEX),
            certificates: reader.path("runner.packages.certificates", &var::PIP_CERT),
            proxy: reader.secret("runner.packages.proxy", &var::HTTPS_PROXY),
            no_proxy: reader.text("runner.packages.noProxy", &var::NO_PROXY),
            search_path: reader.environment.get(&var::PATH).map(str::to_owned),
            keep_days: reader.number_or_default("runner.packages.keepDays", &var::WEFT_ENVIRONMENT_KEEP_DAYS),
        }
    }
}

/// What a file of the workspace that breaks the rules does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// It stops the start.
    Strict,
    /// It is left out, and health is degraded.
    Quarantine,
}

/// When all steps together get a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlGroup {
    /// Where one is delegated.
    Auto,
    /// Also with version 1.
    V1,
    /// Never.
    Off,
}

impl Runner {
    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode, storage: &Storage) -> Self {
        let slots = reader
            .number("runner.workerSlots", &var::WEFT_WORKER_SLOTS)
            .and_then(|slots| slots.try_into().ok());
        let ahead = reader.number_or_default("runner.workersAhead", &var::WEFT_WORKERS_AHEAD);
        Self {
            python: python(reader),
            engine_dir: reader
                .path("runner.engineDir", &var::WEFT_ENGINE)
                .unwrap_or_else(|| mode.app_root.join("engine")),
            require_intact_engine: reader.switch("runner.requireIntactEngine", &var::WEFT_REQUIRE_INTACT_ENGINE),
            workspace_dir: reader
                .path("runner.workspaceDir", &var::WEFT_WORKSPACE)
                .unwrap_or_else(|| mode.app_root.join("workspace")),
            worker_slots: slots.unwrap_or_else(|| reader.environment.processors().max(1) * 4),
            workers_ahead: usize::try_from(ahead).unwrap_or_default(),
            preload: preload(reader),
            discovery: reader
                .choice("runner.discovery", &var::WEFT_DISCOVERY)
                .unwrap_or(if mode.development {
                    Discovery::Strict
                } else {
                    Discovery::Quarantine
                }),
            scratch_dir: reader
                .path("runner.scratchDir", &var::WEFT_SCRATCH)
                .unwrap_or_else(|| storage.data_dir.join("scratch")),
            control_group: reader
                .choice("runner.controlGroup", &var::WEFT_CGROUP)
                .unwrap_or(ControlGroup::Auto),
            packages: Packages::read(reader, storage),
        }
    }
}

/// A bare name stays one: it is looked up in `PATH`, not in the working directory.
fn python(reader: &mut Reader<'_>) -> PathBuf {
    let python = reader.text_or_default("runner.python", &var::WEFT_PYTHON);
    if python.contains('/') {
        reader.environment.current_dir().join(python)
    } else {
        PathBuf::from(python)
    }
}

fn preload(reader: &mut Reader<'_>) -> Vec<String> {
    let variable = &var::WEFT_PRELOAD;
    let mut modules = reader.list_or_default("runner.preload", variable);
    modules.retain(|module| {
        let good = module.split('.').all(is_identifier);
        if !good {
            let message = format!(
                "`{}` names `{module}`, which is not the name of a module",
                variable.name
            );
            let hint = "give names as `json,email.message`".to_owned();
            reader.refuse(variable, "not_a_module_name", message, Some(hint));
        }
        good
    });
    modules
}

fn is_identifier(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
