//! The command line. Data goes to stdout, everything else to stderr.
//!
//! Exit codes: 0 done; 1 not done, or findings; 2 wrong usage; 143 ended by SIGTERM (`serve`); those of runs are in `follow.rs`. `serve` never exits with 0: the
//! Functions host would take that for "still there" and not start it again.

mod bundles;
mod check;
mod config;
mod config_entry;
mod dev;
mod doctor;
pub mod emit;
mod env;
mod follow;
mod inputs;
mod keys;
mod lock;
mod org;
mod output;
mod place;
mod plan;
mod policy;
mod publish;
mod run;
mod schedules;
mod secrets;
mod seed;
mod serve;
mod show_profile;
mod simulate;
mod site;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::boot;
use crate::config::{Config, Environment, env_var};
use crate::error::Coded as _;
use crate::telemetry::Sink;

/// A multi-tenant workflow engine for Azure Functions.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine: embedded store, sample data, workers, API. Nothing to install but Python
    Dev(dev::Dev),
    /// Run as the Functions host's custom handler
    Serve,
    /// Write the sample organizations, people, configuration and the development key
    Seed(seed::Seed),
    /// Make organizations, list them, switch them on and off
    #[command(subcommand)]
    Org(org::Org),
    /// Make people, say as whom they sign in and where they are members
    #[command(subcommand)]
    User(user::User),
    /// Manage function keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Manage configuration entries: what workflows read as `ctx.config`. (Settings of Weft itself: `weft config`)
    #[command(subcommand)]
    Entry(config_entry::Entry),
    /// Say what steps are allowed to do: trust, network, modules, isolation, limits
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Manage secrets: what workflows get by `ctx.secrets`. No command shows a value
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// Run a workflow of the workspace here, without a server, and show what happens
    Run(run::Run),
    /// Show what a run would do, and what it may reach, without doing it
    Plan(plan::PlanCommand),
    /// Try a workflow file: no server, no data that is kept; with `--dry-run` nothing is executed
    Simulate(simulate::Simulate),
    /// Show when a schedule fires
    #[command(subcommand)]
    Schedules(schedules::Schedules),
    /// Check the workspace, or workflow files: syntax, imports, declarations, graphs and YAML steps
    Check(check::Check),
    /// The packages that the workspace asks for: whether they are installed, installing them, the output
    #[command(subcommand)]
    Env(env::Env),
    /// Publish the workspace as a bundle, here or to another installation, and activate it
    Publish(publish::Publish),
    /// Manage published code: list, activate, roll back, compare, delete
    #[command(subcommand)]
    Bundles(bundles::Bundles),
    /// Show, explain, check and write settings of Weft. (What workflows read: `weft entry`)
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Check Python, storage and the workspace, and say what to mend
    Doctor(doctor::Doctor),
    /// Write the generated files of this repository
    #[command(hide = true)]
    Emit(emit::Emit),
}

/// Where the data and the workspace are.
#[derive(Debug, Clone, Args)]
struct Places {
    /// Folder for the embedded store and everything else that is written
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder with the workflows
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Which settings.
#[derive(Debug, Clone, Args)]
struct Settings {
    /// File with settings, stronger than those of the user, the system and the project
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Settings {
    /// The environment of this process with what files say.
    fn environment(&self) -> Environment {
        let mut environment = Environment::of_process();
        if let Some(file) = &self.config {
            environment.set(&env_var::WEFT_CONFIG_FILE, file.display().to_string(), "--config");
        }
        environment.read_files();
        environment
    }
}

impl Places {
    /// The environment of this process with what files and flags say.
    fn environment(&self) -> Environment {
        let mut environment = self.settings.environment();
        self.apply(&mut environment);
        environment
    }

    fn apply(&self, environment: &mut Environment) {
        for (path, variable, flag) in [
            (&self.data, &env_var::WEFT_DATA, "--data"),
            (&self.workspace, &env_var::WEFT_WORKSPACE, "--workspace"),
        ] {
            if let Some(path) = path {
                environment.set(variable, path.display().to_string(), flag);
            }
        }
    }
}

/// Why a command was not done, ready to be shown.
#[derive(Debug)]
struct Failure {
    message: String,
    /// Every error from the first to what is at the bottom.
    causes: Vec<String>,
    hint: Option<String>,
    findings: Vec<crate::error::Finding>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            findings: Vec::new(),
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<boot::Error> for Failure {
    fn from(error: boot::Error) -> Self {
        let findings = match &error {
            boot::Error::Config(findings) | boot::Error::Workspace(findings) => findings.clone(),
            boot::Error::UseCase(error) => error.findings().to_vec(),
            _ => Vec::new(),
        };
        Self {
            message: output::chain(&error),
            causes: output::causes(&error),
            hint: error.hint(),
            findings,
        }
    }
}

impl From<crate::usecase::Error> for Failure {
    fn from(error: crate::usecase::Error) -> Self {
        boot::Error::from(error).into()
    }
}

impl From<crate::store::Error> for Failure {
    fn from(error: crate::store::Error) -> Self {
        boot::Error::from(error).into()
    }
}

/// What a command answers: an exit code.
type Outcome = Result<ExitCode, Failure>;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Dev(dev) => dev.run(),
        Command::Serve => serve::run(),
        Command::Seed(seed) => seed.run(),
        Command::Org(org) => org.run(),
        Command::User(user) => user.run(),
        Command::Keys(keys) => keys.run(),
        Command::Entry(entry) => entry.run(),
        Command::Policy(policy) => policy.run(),
        Command::Secrets(secrets) => secrets.run(),
        Command::Run(run) => run.run(),
        Command::Plan(plan) => plan.run(),
        Command::Simulate(simulate) => simulate.run(),
        Command::Schedules(schedules) => schedules.run(),
        Command::Check(check) => check.run(),
        Command::Env(env) => env.run(),
        Command::Publish(publish) => publish.run(),
        Command::Bundles(bundles) => bundles.run(),
        Command::Config(config) => config.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Emit(emit) => emit.run(),
    };
    outcome.unwrap_or_else(|failure| {
        output::failure(&failure.message, failure.hint.as_deref(), &failure.findings);
        if is_debug() {
            output::all_causes(&failure.causes);
        }
        ExitCode::from(1)
    })
}

/// Whether commands show every cause of a failure. Asked when one has failed, perhaps because of the settings.
fn is_debug() -> bool {
    let mut environment = Environment::of_process();
    environment.read_files();
    let said = environment.get(&env_var::WEFT_ENABLE_DEBUG_MODE);
    said.is_some_and(|said| said == "1" || said.eq_ignore_ascii_case("true"))
}

/// The settings of this process, with what flags say on top.
fn load(environment: &Environment) -> Result<Config, Failure> {
    let config = Config::from_env(environment).map_err(boot::Error::Config)?;
    for warning in &config.warnings {
        let hint = warning
            .hint
            .as_ref()
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        output::note(&format!("warning: {}{hint}", warning.message));
    }
    Ok(config)
}

/// The settings of a command that works on storage or on the workspace, with logs on stderr.
fn prepare(places: &Places) -> Result<Config, Failure> {
    let config = load(&places.environment())?;
    quiet(&config)?;
    Ok(config)
}

/// Commands that a person calls say what they have to say themselves; logs below a warning would only be in the way.
fn quiet(config: &Config) -> Result<(), Failure> {
    let mut config = config.clone();
    if config.telemetry.filter == "info" {
        // What is wrong with the workspace is theirs to say as well.
        "warn,weft::usecase::catalog=error".clone_into(&mut config.telemetry.filter);
    }
    boot::init_telemetry(&config, Sink::Stderr).map_err(|error| Failure::new(output::chain(&error)))
}

/// A runtime for a command's own work.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("weft-runtime")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("threads can't be started: {error}")))?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
