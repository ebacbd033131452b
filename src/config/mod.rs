//! The configuration: read once at the start, all mistakes reported at once, passed on as values.
//!
//! Settings come from files, the environment and flags ([`Environment`] has the order). Variables are declared in [`env_var`]; each section below is a plain struct that reads its own part. Nothing here opens
//! a connection or creates a file.

mod auth;
mod egress;
pub mod env_var;
mod environment;
mod explain;
mod file;
mod files;
mod http;
mod isolation;
mod limits;
mod mode;
mod read;
mod remote;
mod runner;
mod secret;
mod secrets;
mod signing;
mod storage;
mod telemetry;
mod template;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

pub use auth::{Auth, PrincipalSource};
pub use egress::Egress;
pub use environment::{Environment, Given, SYSTEM_FILE};
pub use explain::{Explained, Overridden};
pub use files::{Kind as FileKind, PROJECT_FILE};
pub use http::Http;
pub use isolation::{Isolation, UidRange};
pub use limits::Limits;
pub use mode::Mode;
pub use remote::{Remote, may_be_told_a_key};
pub use runner::{ControlGroup, Discovery, Packages, Runner};
pub use secret::{MASK, Secret};
pub use secrets::Secrets;
pub use signing::Signing;
pub use storage::{Backend, Credential, Storage};
pub use telemetry::{LogFormat, Recorded, Telemetry};
pub use template::{Wanted as WantedTemplate, template};

use crate::error::Finding;

/// Everything that an operator can set.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Where the program runs.
    pub mode: Mode,
    /// The listener.
    pub http: Http,
    /// Where data is kept.
    pub storage: Storage,
    /// Another installation, for commands.
    pub remote: Remote,
    /// Whom to believe.
    pub auth: Auth,
    /// Python processes.
    pub runner: Runner,
    /// How far steps are kept apart.
    pub isolation: Isolation,
    /// Sizes, counts and times.
    pub limits: Limits,
    /// The network of steps.
    pub egress: Egress,
    /// Keys.
    pub signing: Signing,
    /// Secrets of workflows.
    pub secrets: Secrets,
    /// Logs.
    pub telemetry: Telemetry,
    /// What is probably not meant, and not wrong enough to stop.
    #[serde(skip)]
    pub warnings: Vec<Finding>,
    #[serde(skip)]
    origins: BTreeMap<&'static str, String>,
    #[serde(skip)]
    fields: BTreeMap<&'static str, &'static str>,
}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// Every mistake that was found; `pointer` is `env:NAME` or `file:line:column`. No finding holds the value of a secret.
    pub fn from_env(environment: &Environment) -> Result<Self, Vec<Finding>> {
        let reader = &mut read::Reader::new(environment);
        reader.findings.clone_from(&environment.findings);
        let mode = Mode::read(reader);
        let storage = Storage::read(reader, &mode);
        let mut config = Self {
            http: Http::read(reader),
            remote: Remote::read(reader),
            auth: Auth::read(reader, &mode),
            runner: Runner::read(reader, &mode, &storage),
            isolation: Isolation::read(reader, &mode),
            limits: Limits::read(reader, &mode),
            egress: Egress::read(reader),
            signing: Signing::read(reader),
            secrets: Secrets::read(reader, &mode, &storage),
            telemetry: Telemetry::read(reader, &mode),
            mode,
            storage,
            warnings: Vec::new(),
            origins: BTreeMap::new(),
            fields: BTreeMap::new(),
        };
        reader.warn_of_unknown();
        if !reader.findings.is_empty() {
            return Err(std::mem::take(&mut reader.findings));
        }
        config.warnings = std::mem::take(&mut reader.warnings);
        config.origins = std::mem::take(&mut reader.origins);
        config.fields = std::mem::take(&mut reader.fields);
        Ok(config)
    }

    /// Development on a free port, everything that is written below `dir`, the engine of this source tree, the embedded
    /// store.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn for_testing(dir: &std::path::Path) -> Self {
        let below = |name: &str| dir.join(name).display().to_string();
        let environment = Environment::of([
            ("WEFT_ENVIRONMENT", "development".to_owned()),
            ("WEFT_PORT", "0".to_owned()),
            ("WEFT_STORE", "sqlite".to_owned()),
            ("WEFT_DATA", below("data")),
            ("WEFT_WORKSPACE", below("workspace")),
            ("WEFT_LOG_FORMAT", "text".to_owned()),
            ("FUNCTIONS_APP_ROOT_PATH", env!("CARGO_MANIFEST_DIR").to_owned()),
        ]);
        Self::from_env(&environment).expect("the settings of the tests are right")
    }

    /// The effective settings as JSON: for each its value and its origin, which is `default`, the name of a variable, a place
    /// in a file, or a flag. Secrets are `"***"`.
    #[must_use]
    pub fn redacted(&self) -> Value {
        let sections = serde_json::to_value(self).unwrap_or_default();
        self.with_origins(String::new(), sections)
    }

    fn with_origins(&self, path: String, value: Value) -> Value {
        let Value::Object(fields) = value else {
            let origin = self.origins.get(path.as_str()).map_or("default", String::as_str);
            return json!({ "value": value, "origin": origin });
        };
        let wrap = |(name, value): (String, Value)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            (name, self.with_origins(path, value))
        };
        Value::Object(fields.into_iter().map(wrap).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read<const N: usize>(variables: [(&str, &str); N]) -> Config {
        Config::from_env(&Environment::of(variables)).expect("right")
    }

    fn mistakes<const N: usize>(variables: [(&str, &str); N]) -> Vec<(String, String)> {
        let findings = Config::from_env(&Environment::of(variables)).expect_err("wrong");
        findings
            .into_iter()
            .map(|finding| (finding.pointer, finding.code))
            .collect()
    }

    fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected
            .map(|(pointer, code)| (pointer.to_owned(), code.to_owned()))
            .to_vec()
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let config = Config::from_env(&Environment::of([("", ""); 0]).in_dir("/nowhere")).expect("right");
        assert!(!config.mode.development && !config.mode.on_azure);
        assert_eq!(config.http.port, 7071);
        assert_eq!(config.storage.backend, Backend::Sqlite);
        assert_eq!(config.storage.data_dir, Path::new("/nowhere/.weft"));
        assert_eq!(config.runner.python, Path::new("python3"));
        assert_eq!(config.runner.worker_slots, 8);
        assert_eq!(config.runner.discovery, Discovery::Quarantine);
        assert_eq!(config.runner.scratch_dir, Path::new("/nowhere/.weft/scratch"));
        assert_eq!(config.telemetry.format, LogFormat::Json);
        assert_eq!(config.limits.run_seconds, 7200);
        assert_eq!(read([("WEFT_ENVIRONMENT", "staging")]).limits.run_seconds, 3600);
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn declared_limits_are_those_of_the_domain() {
        assert_eq!(read([]).limits.attempt, crate::domain::Limits::default());
    }

    #[test]
    fn every_declared_word_is_understood() {
        for variable in env_var::ALL {
            let env_var::Shape::Choice(words) = variable.shape else {
                continue;
            };
            for word in words {
                // A choice that serde does not know would silently become the default.
                let config = read([("AzureWebJobsStorage", "x"), (variable.name, word)]);
                let (name, word) = (variable.name, json!(word));
                let shown = config.redacted().to_string();
                if name != "WEFT_ENVIRONMENT" {
                    assert!(
                        shown.contains(&format!(r#"{{"value":{word},"origin":"{name}"}}"#)),
                        "{name}={word}: {shown}"
                    );
                }
            }
        }
        assert!(read([("WEFT_ENVIRONMENT", "development")]).mode.development);
        assert!(!read([("WEFT_ENVIRONMENT", "Production")]).mode.development);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let found = mistakes([
            ("WEFT_PORT", "http"),
            ("WEFT_MAX_BODY_BYTES", "104857601"),
            ("WEFT_SYNC_WAIT_SECONDS", "221"),
            ("WEFT_CLIENT_IP_HEADER", "x forwarded"),
            ("WEFT_STORE", "postgres"),
            ("WEFT_PRINCIPAL_SOURCE", "header"),
            ("WEFT_PRELOAD", "json,os;rm"),
            ("WEFT_ENVIRONMENT", "development"),
            ("WEFT_ISOLATION_OFF", "landlock,selinux"),
            ("WEFT_STEP_UIDS", "0-100"),
            ("WEFT_SIGNING_KEY", "short"),
            ("WEFT_LOG", "inof"),
        ]);
        let expected = pairs([
            ("env:WEFT_STORE", "unknown_value"),
            ("env:WEFT_PORT", "not_an_integer"),
            ("env:WEFT_MAX_BODY_BYTES", "out_of_range"),
            ("env:WEFT_SYNC_WAIT_SECONDS", "out_of_range"),
            ("env:WEFT_CLIENT_IP_HEADER", "not_a_header_name"),
            ("env:WEFT_PRINCIPAL_SOURCE", "unknown_value"),
            ("env:WEFT_PRELOAD", "not_a_module_name"),
            ("env:WEFT_ISOLATION_OFF", "unknown_value"),
            ("env:WEFT_STEP_UIDS", "not_a_range"),
            ("env:WEFT_SIGNING_KEY", "too_short"),
            ("env:WEFT_LOG", "unknown_value"),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
        let config = read([("WEFT_WORKSPCE", "/w"), ("WEFT_TEST_AZURITE", "x"), ("WEFTY", "1")]);
        let [warning] = config.warnings.as_slice() else {
            panic!("{:?}", config.warnings)
        };
        assert_eq!(warning.pointer, "env:WEFT_WORKSPCE");
        assert_eq!(warning.hint.as_deref(), Some("did you mean `WEFT_WORKSPACE`?"));
    }

    #[test]
    fn func_start_means_development_and_azure_never_does() {
        assert!(read([("AZURE_FUNCTIONS_ENVIRONMENT", "Development")]).mode.development);
        assert!(read([("FUNCTIONS_CORETOOLS_ENVIRONMENT", "True")]).mode.development);
        let said = [
            ("FUNCTIONS_CORETOOLS_ENVIRONMENT", "True"),
            ("WEFT_ENVIRONMENT", "production"),
        ];
        assert!(!read(said).mode.development);
        for sign in [
            "WEBSITE_INSTANCE_ID",
            "CONTAINER_NAME",
            "WEBSITE_POD_NAME",
            "LEGION_SERVICE_HOST",
        ] {
            let implied = read([(sign, "1"), ("AZURE_FUNCTIONS_ENVIRONMENT", "Development")]);
            assert!(implied.mode.on_azure && !implied.mode.development);
            assert_eq!(implied.warnings[0].code, "development_on_azure");
            let declared = read([(sign, "1"), ("WEFT_ENVIRONMENT", "development")]);
            assert!(declared.mode.on_azure && !declared.mode.development);
            assert_eq!(declared.warnings[0].code, "development_on_azure");
        }
    }

    #[test]
    fn the_host_decides_the_port_and_a_flag_beats_it() {
        let mut environment = Environment::of([("FUNCTIONS_CUSTOMHANDLER_PORT", "5000"), ("WEFT_PORT", "6000")]);
        assert_eq!(Config::from_env(&environment).expect("right").http.port, 5000);
        environment.set(&env_var::WEFT_PORT, "0", "--port");
        let config = Config::from_env(&environment).expect("right");
        assert_eq!(config.http.port, 0);
        assert_eq!(
            config.redacted()["http"]["port"],
            json!({ "value": 0, "origin": "--port" })
        );
    }

    #[test]
    fn storage_follows_the_account() {
        let by_key = read([("AzureWebJobsStorage", "UseDevelopmentStorage=true")]);
        assert_eq!(by_key.storage.backend, Backend::Azure);
        let by_identity = read([
            ("AzureWebJobsStorage__accountName", "weft"),
            ("AzureWebJobsStorage__clientId", "c"),
        ]);
        assert_eq!(by_identity.storage.backend, Backend::Azure);
        assert_eq!(by_identity.storage.account_name.as_deref(), Some("weft"));
        assert_eq!(
            read([("AzureWebJobsStorage", "x"), ("WEFT_STORE", "sqlite")])
                .storage
                .backend,
            Backend::Sqlite
        );
        assert_eq!(read([("AzureWebJobsStorage", " ")]).storage.backend, Backend::Sqlite);
        assert_eq!(
            mistakes([("WEFT_STORE", "azure")]),
            pairs([("env:WEFT_STORE", "account_missing")])
        );
    }

    #[test]
    fn azure_keeps_local_files_out_of_the_read_only_app() {
        let config = read([
            ("CONTAINER_NAME", "1"),
            ("FUNCTIONS_APP_ROOT_PATH", "/home/site/wwwroot"),
        ]);
        assert_eq!(config.storage.data_dir, Path::new("/tmp/weft"));
        assert_eq!(config.runner.engine_dir, Path::new("/home/site/wwwroot/engine"));
    }

    #[test]
    fn a_principal_header_needs_authentication_on_azure() {
        let found = mistakes([("CONTAINER_NAME", "1"), ("WEFT_PRINCIPAL_SOURCE", "easyauth")]);
        assert_eq!(found, pairs([("env:WEFT_PRINCIPAL_SOURCE", "authentication_off")]));
        let on = [
            ("CONTAINER_NAME", "1"),
            ("WEFT_PRINCIPAL_SOURCE", "swa"),
            ("WEBSITE_AUTH_ENABLED", "True"),
        ];
        assert_eq!(read(on).auth.principal_source, PrincipalSource::Swa);
        assert_eq!(
            read([("WEFT_PRINCIPAL_SOURCE", "swa")]).auth.principal_source,
            PrincipalSource::Swa
        );
    }

    #[test]
    fn paths_start_at_the_working_directory_and_a_bare_python_does_not() {
        let environment = Environment::of([("WEFT_DATA", "d"), ("WEFT_PYTHON", "python3.12")]).in_dir("/somewhere");
        let config = Config::from_env(&environment).expect("right");
        assert_eq!(config.storage.data_dir, Path::new("/somewhere/d"));
        assert_eq!(config.runner.python, Path::new("python3.12"));
        let environment = Environment::of([("WEFT_PYTHON", "venv/bin/python")]).in_dir("/somewhere");
        assert_eq!(
            Config::from_env(&environment).expect("right").runner.python,
            Path::new("/somewhere/venv/bin/python")
        );
    }

    #[test]
    fn the_app_is_found_from_a_folder_inside_it() {
        let inside = tempfile::tempdir().expect("a folder");
        let below = inside.path().join("workspace/workflows");
        std::fs::create_dir_all(&below).expect("a folder");
        std::fs::create_dir_all(inside.path().join("engine/weft_runtime")).expect("a folder");
        let config = Config::from_env(&Environment::of([("", ""); 0]).in_dir(below)).expect("right");
        assert_eq!(config.mode.app_root, inside.path());
    }

    #[test]
    fn text_is_for_developers_on_a_terminal() {
        let development = Environment::of([("WEFT_ENVIRONMENT", "development")]).on_terminal();
        assert_eq!(
            Config::from_env(&development).expect("right").telemetry.format,
            LogFormat::Text
        );
        let production = Environment::of([("NO_COLOR", "1")]).on_terminal();
        let telemetry = Config::from_env(&production).expect("right").telemetry;
        assert_eq!((telemetry.format, telemetry.color), (LogFormat::Json, false));
        assert_eq!(
            read([("WEFT_LOG", "Info,weft::http=DEBUG")]).telemetry.filter,
            "info,weft::http=debug"
        );
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let environment = Environment::of([
            ("AzureWebJobsStorage", "AccountKey=tell-nobody"),
            ("WEFT_SIGNING_KEY", "tell-nobody-tell-nobody-tell-nobody"),
            ("SOMETHING_ELSE", "tell-nobody"),
        ]);
        let config = Config::from_env(&environment).expect("right");
        assert_eq!(
            config.storage.connection_string.as_ref().map(Secret::expose),
            Some("AccountKey=tell-nobody")
        );
        let shown = format!("{environment:?} {config:?} {}", config.redacted());
        assert!(!shown.contains("tell-nobody"), "{shown}");
        assert_eq!(
            config.redacted()["signing"]["key"],
            json!({ "value": "***", "origin": "WEFT_SIGNING_KEY" })
        );
        let wrong = Environment::of([("WEFT_SIGNING_KEY", "tell-nobody"), ("WEFT_SIGNING_KY", "tell-nobody")]);
        let findings = Config::from_env(&wrong).expect_err("too short");
        assert!(!format!("{findings:?}").contains("tell-nobody"));
    }

    /// Files in a folder, as an environment that reads them: `user.yaml`, `system.yaml`, `weft.yaml`, `named.yaml`.
    fn with_files<const N: usize>(
        files: [(&str, &str); N],
        variables: &[(&str, &str)],
    ) -> (tempfile::TempDir, Environment) {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let here = |name: &str| folder.path().join(name).display().to_string();
        let mut all = vec![("XDG_CONFIG_HOME".to_owned(), here("home"))];
        for (name, text) in files {
            let path = match name {
                "user.yaml" => folder.path().join("home/weft/config.yaml"),
                _ => folder.path().join(name),
            };
            std::fs::create_dir_all(path.parent().expect("below a folder")).expect("a folder");
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
            if name == "named.yaml" {
                all.push(("WEFT_CONFIG_FILE".to_owned(), here(name)));
            }
        }
        all.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let mut environment = Environment::of(all)
            .in_dir(folder.path())
            .with_system_file(folder.path().join("system.yaml"));
        environment.read_files();
        (folder, environment)
    }

    #[test]
    fn later_places_win_and_say_what_they_override() {
        let files = [
            ("user.yaml", "port: 1001\nlog_format: text\nworkspace: mine\n"),
            ("system.yaml", "port: 1002\nlog: warn\n"),
            ("weft.yaml", "port: 1003\n"),
            ("named.yaml", "# named\nport: 1004\n"),
        ];
        let (folder, environment) = with_files(files, &[]);
        let config = Config::from_env(&environment).expect("right");
        let here = folder.path().display().to_string();
        assert_eq!(config.http.port, 1004);
        assert_eq!(config.telemetry.filter, "warn");
        assert_eq!(config.telemetry.format, LogFormat::Text);
        assert_eq!(config.runner.workspace_dir, folder.path().join("home/weft/mine"));
        let explained = config.explain(&environment);
        let port = explained
            .iter()
            .find(|one| one.variable == "WEFT_PORT")
            .expect("declared");
        assert_eq!(port.origin, format!("{here}/named.yaml:2:1"));
        let overridden: Vec<_> = port.overrides.iter().map(|one| one.value.as_str()).collect();
        assert_eq!(overridden, ["1003", "1002", "1001"]);
        assert_eq!(port.key.as_deref(), Some("port"));

        let (_folder, mut environment) = with_files(files, &[("WEFT_PORT", "1006"), ("CLAUDE_MAX_MEMORY_MB", "64")]);
        let config = Config::from_env(&environment).expect("right");
        assert_eq!(config.http.port, 1006);
        assert_eq!(config.limits.attempt.memory_bytes, 64 << 20);
        let memory = &config.redacted()["limits"]["attempt"]["memoryBytes"]["origin"];
        assert_eq!(memory, "CLAUDE_MAX_MEMORY_MB, older name of WEFT_STEP_MEMORY_MIB");
        environment.set(&env_var::WEFT_PORT, "1007", "--port");
        assert_eq!(Config::from_env(&environment).expect("right").http.port, 1007);
    }

    #[test]
    fn an_older_name_gives_way_and_its_mistakes_name_it() {
        let config = read([("CLAUDE_DEFAULT_TIMEOUT", "60"), ("WEFT_RUN_TIMEOUT_SECONDS", "61")]);
        assert_eq!(config.limits.run_seconds, 61);
        assert_eq!(
            read([("CLAUDE_ENABLE_DETAILED_LOGGING", "true")]).telemetry.filter,
            "debug"
        );
        let found = Config::from_env(&Environment::of([("CLAUDE_MAX_MEMORY_MB", "lots")])).expect_err("no number");
        assert_eq!(found[0].pointer, "env:CLAUDE_MAX_MEMORY_MB");
        assert!(
            found[0].message.contains("`CLAUDE_MAX_MEMORY_MB`"),
            "{}",
            found[0].message
        );
    }

    #[test]
    fn mistakes_in_files_have_their_place() {
        let (folder, environment) = with_files([("weft.yaml", "prot: 1\nport: http\n")], &[("WEFT_WORKER_SLOTS", "0")]);
        let found = Config::from_env(&environment).expect_err("wrong");
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.pointer.as_str(), one.code.as_str()))
            .collect();
        let file = folder.path().join("weft.yaml").display().to_string();
        let (first, second) = (format!("{file}:1:1"), format!("{file}:2:1"));
        let expected = [
            (first.as_str(), "unknown_key"),
            (second.as_str(), "not_an_integer"),
            ("env:WEFT_WORKER_SLOTS", "out_of_range"),
        ];
        assert_eq!(found, expected);
        let missing = Environment::of([("WEFT_CONFIG_FILE", "/nowhere/weft.yaml")]);
        let mut missing = missing.in_dir(folder.path().join("elsewhere"));
        missing.read_files();
        let found = Config::from_env(&missing).expect_err("missing");
        assert_eq!(found[0].code, "config_file_missing");
    }

    #[test]
    fn a_projects_file_does_not_weaken_the_machine() {
        let weak = "signing_key: abcdefghijklmnopqrstuvwxyzabcdefghijklmnop\nprincipal_source: swa\nenvironment: development\n\
                    isolation_minimum: process\nisolation_off: landlock\nstep_memory_mib: 4096\nstep_timeout_seconds: 10\n\
                    egress_private: 10.0.0.0/8:443\npython: ./python\nsecrets_shared: x\n\
                    allow_outbound_requests: false\nsecurity_profile: elevated\n";
        let (folder, environment) = with_files([("weft.yaml", weak)], &[]);
        let found = Config::from_env(&environment).expect_err("it may not");
        let mut codes: Vec<_> = found.iter().map(|one| one.code.as_str()).collect();
        codes.sort_unstable();
        let no = std::iter::repeat_n("not_for_projects", 6);
        assert_eq!(
            codes,
            no.chain(std::iter::repeat_n("project_may_not_weaken", 4))
                .collect::<Vec<_>>()
        );
        assert!(
            found
                .iter()
                .all(|one| one.pointer.starts_with(&folder.path().display().to_string()))
        );
        // Named, it is trusted as the environment is, but for its secret, which others may read.
        let named = folder.path().join("weft.yaml").display().to_string();
        let mut environment = Environment::of([("WEFT_CONFIG_FILE", named)]).in_dir(folder.path());
        environment.read_files();
        let found = Config::from_env(&environment).expect_err("a secret");
        let codes: Vec<_> = found.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(codes, ["readable_by_others"]);
        assert_eq!(
            found[0].hint.as_deref(),
            Some(format!("chmod 600 {}/weft.yaml", folder.path().display()).as_str())
        );
        assert!(!format!("{found:?}").contains("abcdefghijklm"));
    }

    #[test]
    fn a_file_that_everybody_may_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, environment) = with_files([("system.yaml", "port: 1\n")], &[]);
        assert!(Config::from_env(&environment).is_ok());
        let path = folder.path().join("system.yaml");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("a mode");
        let mut environment = Environment::of([("", ""); 0]).in_dir("/nowhere").with_system_file(path);
        environment.read_files();
        let found = Config::from_env(&environment).expect_err("anybody's");
        assert_eq!(found[0].code, "writable_by_others");
    }

    #[test]
    fn tests_write_below_their_folder() {
        let config = Config::for_testing(Path::new("/t"));
        assert!(config.mode.development);
        assert_eq!(config.http.port, 0);
        assert_eq!(config.runner.scratch_dir, Path::new("/t/data/scratch"));
        assert_eq!(
            config.runner.engine_dir,
            Path::new(env!("CARGO_MANIFEST_DIR")).join("engine")
        );
    }
}
