//! `--debug` of commands that run steps here: a port for a debugger's client, and everything that must be so before it is opened.

use std::sync::Arc;

use clap::Args;

use super::follow::origin;
use super::{Failure, output};
use crate::boot;
use crate::config::Config;
use crate::domain::Declared;
use crate::runner::debug::{Debugger, Said, is_installed};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;
use crate::usecase::{Context, control_run};

/// The port that editors try first.
const PORT: u16 = 5678;
/// The step of a workflow that is one function.
const MAIN: &str = "main";

/// Flags of a debugger.
#[derive(Debug, Clone, Args)]
pub(super) struct Debugging {
    /// Let Python steps wait for a debugger (debugpy). Development only
    #[arg(long)]
    debug: bool,
    /// Debug this step alone; all Python steps when missing
    #[arg(long, value_name = "STEP", requires = "debug")]
    step: Option<String>,
    /// Port of this machine where a debugger connects; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = PORT, requires = "debug")]
    debug_port: u16,
}

impl Debugging {
    /// The chosen step.
    pub(super) fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }

    /// Whether it was asked for.
    pub(super) const fn is_on(&self) -> bool {
        self.debug
    }

    /// Opens the port, if it was asked for.
    ///
    /// # Errors
    /// When this is no development machine, or the port is taken.
    pub(super) async fn listen(&self, config: &Config) -> Result<Option<Arc<Debugger>>, Failure> {
        if !self.debug {
            return Ok(None);
        }
        if !config.mode.development {
            return Err(Failure::new(format!(
                "`--debug` is for development, and this is {}: whoever reaches the port runs code in the step",
                config.mode.word()
            ))
            .hint("unset `WEFT_ENVIRONMENT`, or set it to `development`, on a machine of your own"));
        }
        let debugger = Debugger::listen(self.debug_port, self.step.clone(), &config.runner.workspace_dir, tell);
        let debugger = debugger.await.map_err(|error| {
            Failure::new(format!(
                "port {} can't be opened for a debugger: {error}",
                self.debug_port
            ))
            .hint("choose another with `--debug-port`; 0 takes a free one")
        })?;
        Ok(Some(Arc::new(debugger)))
    }

    /// Whether there is something to debug, and something to debug it with.
    ///
    /// # Errors
    /// When debugpy is not installed, or the workflow has no such step.
    pub(super) async fn check(&self, config: &Config, cx: &Context, workflow: &Declared) -> Result<(), Failure> {
        if let Some(step) = &self.step {
            let known = match &workflow.graph {
                Some(graph) => graph.nodes.iter().map(|node| node.id.as_str()).collect(),
                None => vec![MAIN],
            };
            if !known.contains(&step.as_str()) {
                return Err(
                    Failure::new(format!("`{}` has no step `{}`", workflow.name, output::plain(step)))
                        .hint(format!("it has {}", known.join(", "))),
                );
            }
        }
        self.check_installed(config, cx).await
    }

    /// Whether debugpy is there.
    ///
    /// # Errors
    /// When it is not, with the command that installs it.
    pub(super) async fn check_installed(&self, config: &Config, cx: &Context) -> Result<(), Failure> {
        let python = boot::interpreter(config)?;
        let environment = cx.catalogs.current().await?.bundle.environment;
        let mut folders = python.packages;
        folders.extend(environment.map(|environment| environment.lib));
        if is_installed(&folders) {
            return Ok(());
        }
        let python = python.path.display();
        Err(Failure::new(format!(
            "`debugpy` is not installed for the Python that steps run with, `{python}`"
        ))
        .hint(format!(
            "run `{python} -m pip install debugpy`; where that Python is the system's own, make an environment first: \
             `python3 -m venv .venv && .venv/bin/pip install -r workspace/requirements-dev.txt`, and set \
             `WEFT_PYTHON=.venv/bin/python`"
        )))
    }
}

/// Whether a run is driven by this process: another one would not let its steps wait.
///
/// # Errors
/// When it is not; then it is cancelled.
pub(super) async fn is_here(cx: &Arc<Context>, scope: &Scope, run: &StoredRun) -> Result<(), Failure> {
    let is_here = run.state.owner.as_deref().is_none_or(|owner| owner == cx.instance);
    if is_here && (run.state.owner.is_some() || run.state.status.is_terminal()) {
        return Ok(());
    }
    let id = &run.new.run;
    control_run::cancel(cx, scope, &origin("weft run"), id).await?;
    Err(Failure::new(format!(
        "run {id} can't be debugged: too many runs of `{}` are under way, so it would wait for whichever instance is free",
        scope.org()
    ))
    .hint("wait until they have ended, or cancel them; `weft dev` shows them at GET /api/runs"))
}

/// What happens at the port, for whoever looks on.
fn tell(said: Said) {
    output::progress_done();
    match said {
        Said::Waiting { step, address } => {
            output::note(&format!("{step} waits for a debugger at {address}"));
            output::note(
                "hint: in VS Code choose `Attach to weft run --debug` (.vscode/launch.json); elsewhere attach by the debug \
                 adapter protocol. Time limits wait as long as you do; everything else that keeps steps apart stays",
            );
        }
        Said::Attached { step } => output::note(&format!("{step} has a debugger")),
        Said::Strange => output::note("warning: something connected to the debugger's port that is no debugger"),
    }
}
