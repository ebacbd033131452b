//! Where the program runs: on a developer's machine, elsewhere, on Azure; and in which folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::env_var as var;
use super::environment::Environment;
use super::read::Reader;

/// Where the program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    /// Whether this is a developer's machine. Never true on Azure.
    pub development: bool,
    /// Whether this is production in all but its size.
    pub staging: bool,
    /// Whether this is Azure.
    pub on_azure: bool,
    /// The folder with `host.json`, `engine` and `workspace`.
    pub app_root: PathBuf,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Declared {
    Development,
    Staging,
    Production,
}

const SIGNS_OF_AZURE: [&var::Variable; 4] = [
    &var::WEBSITE_INSTANCE_ID,
    &var::CONTAINER_NAME,
    &var::WEBSITE_POD_NAME,
    &var::LEGION_SERVICE_HOST,
];

impl Environment {
    /// Has it be development where nothing says what it is, and this is not Azure; `by` says who wants that.
    pub fn prefer_development(&mut self, by: &str) {
        if SIGNS_OF_AZURE.into_iter().all(|sign| self.get(sign).is_none()) {
            self.set_default(&var::WEFT_ENVIRONMENT, "development", by);
        }
    }
}

impl Mode {
    /// How many runs of one organization may be under way at once, where nothing else is said.
    pub(super) const fn concurrent_runs(&self) -> u32 {
        match (self.development, self.staging) {
            (true, _) => 10,
            (false, true) => 25,
            (false, false) => 100,
        }
    }

    /// The environment's name.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match (self.development, self.staging) {
            (true, _) => "development",
            (false, true) => "staging",
            (false, false) => "production",
        }
    }

    /// How long a run may last, in seconds, where nothing else is said.
    pub(super) const fn run_seconds(&self) -> u64 {
        if self.development || self.staging { 3_600 } else { 7_200 }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let sign = SIGNS_OF_AZURE.into_iter().find(|sign| reader.is_set(sign));
        if let Some(sign) = sign {
            reader.origins.insert("mode.onAzure", sign.name.to_owned());
        }
        let declared = reader.choice::<Declared>("mode.development", &var::WEFT_ENVIRONMENT);
        Self {
            staging: declared == Some(Declared::Staging),
            development: development(reader, declared, sign),
            on_azure: sign.is_some(),
            app_root: reader
                .path("mode.appRoot", &var::FUNCTIONS_APP_ROOT_PATH)
                .or_else(|| reader.path("mode.appRoot", &var::AZURE_WEB_JOBS_SCRIPT_ROOT))
                .unwrap_or_else(|| find_app_root(reader.environment)),
        }
    }
}

fn development(reader: &mut Reader<'_>, declared: Option<Declared>, sign_of_azure: Option<&var::Variable>) -> bool {
    match (declared, sign_of_azure) {
        (Some(Declared::Development), Some(sign)) => {
            let message = format!(
                "`WEFT_ENVIRONMENT` is `development`, but `{}` says that this is Azure",
                sign.name
            );
            let hint = format!(
                "callers on this machine are not trusted without proof, and the development key is refused; if this is not Azure, unset `{}`",
                sign.name
            );
            reader.warn(var::WEFT_ENVIRONMENT.name, "development_on_azure", message, Some(hint));
            false
        }
        (Some(declared), _) => declared == Declared::Development,
        (None, sign) => match implied(reader.environment) {
            Some(variable) if sign.is_none() => {
                reader.origins.insert("mode.development", variable.name.to_owned());
                true
            }
            Some(variable) => {
                let message = format!("`{}` asks for development, which is ignored on Azure", variable.name);
                reader.warn(variable.name, "development_on_azure", message, None);
                false
            }
            None => false,
        },
    }
}

/// The variable of `func start` that implies development.
fn implied(environment: &Environment) -> Option<&'static var::Variable> {
    let named = environment.get(&var::AZURE_FUNCTIONS_ENVIRONMENT);
    if named.is_some_and(|name| name.eq_ignore_ascii_case("Development")) {
        return Some(&var::AZURE_FUNCTIONS_ENVIRONMENT);
    }
    environment
        .get(&var::FUNCTIONS_CORETOOLS_ENVIRONMENT)
        .map(|_| &var::FUNCTIONS_CORETOOLS_ENVIRONMENT)
}

fn find_app_root(environment: &Environment) -> PathBuf {
    let starts = [
        Some(environment.current_dir()),
        environment.executable().and_then(Path::parent),
    ];
    starts
        .into_iter()
        .flatten()
        .flat_map(Path::ancestors)
        .find(|folder| folder.join("engine/weft_runtime").is_dir())
        .unwrap_or_else(|| environment.current_dir())
        .to_owned()
}
