//! `weft dev`: everything on this machine, until Ctrl-C.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome, Places, block_on, load, lock, output};
use crate::boot::{self, Base};
use crate::config::env_var;
use crate::definition::Catalog;
use crate::error::Coded as _;
use crate::http::Gate;
use crate::runner::environments::EnvironmentError;
use crate::telemetry::Sink;
use crate::tenancy;
use crate::usecase::{self, Context, bundle, deliver, queue_trigger, seed};

/// Flags of `weft dev`.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    #[command(flatten)]
    places: Places,
    /// Leave the sample data out
    #[arg(long)]
    no_seed: bool,
}

impl Dev {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.places.environment();
        environment.set(&env_var::WEFT_ENVIRONMENT, "development", "weft dev");
        if let Some(port) = self.port {
            environment.set(&env_var::WEFT_PORT, port.to_string(), "--port");
        }
        let config = load(&environment)?;
        boot::init_telemetry(&config, Sink::Stderr).map_err(|error| Failure::new(output::chain(&error)))?;
        let _lock = lock::take(&config.storage.data_dir)?;
        block_on(self.serve(config))
    }

    async fn serve(self, config: crate::config::Config) -> Outcome {
        // The port first: what is wrong with it is known before anything is written.
        let listener = boot::listen(config.http.port).await?;
        let address = listener
            .local_addr()
            .map_err(|error| Failure::new(format!("the listener has no address: {error}")))?;
        let base = boot::base(config)?;
        let cx = Arc::new(boot::opened(&base).await?);
        // Packages are installed while everything else goes on; a workspace that needs none is looked at right now.
        let mut awaited = false;
        let current = match cx.catalogs.at_once().await {
            Ok(current) => Some(current),
            Err(usecase::Error::Environment(why)) => {
                output::note(&format!("{why}; the output follows, and workflows run when it is done"));
                awaited = true;
                None
            }
            // As under the Functions host: it can be mended through what is served here, and beside it.
            Err(error) if error.code().starts_with("bundle_") => {
                output::note(&format!(
                    "no workflow runs, for what is active can't be offered: {error}"
                ));
                if let Some(hint) = error.hint() {
                    output::note(&format!("hint: {hint}"));
                }
                None
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(current) = &current
            && cx.catalogs.strict()
            && !current.catalog.findings.is_empty()
        {
            base.runner.shutdown().await;
            return Err(boot::Error::Workspace(current.catalog.findings.clone()).into());
        }
        if !self.no_seed {
            seed_once(&cx).await?;
        }
        let gate = Gate::default();
        gate.open(boot::app(&base, cx.clone(), true));
        let stop = CancellationToken::new();
        let background = [
            tokio::spawn(deliver::consume(cx.clone())),
            tokio::spawn(ticks(cx.clone())),
        ];
        // Not one of these: `leave` ends it after the messages at hand.
        tokio::spawn(queue_trigger::listen(Arc::downgrade(&cx)));
        tokio::spawn(bundle::listen(Arc::downgrade(&cx)));
        let server = tokio::spawn(boot::serve(listener, gate, stop.clone()));
        greet(
            address.port(),
            current.as_ref().map(|current| &*current.catalog),
            base.config.mode.development,
        );
        let packages = tokio::spawn(tell_of_packages(cx.clone(), awaited));
        wait_for_signal().await?;
        output::note("stopping");
        let rest = async {
            stop.cancel();
            for task in background.iter().chain([&packages]) {
                task.abort();
            }
            cx.leave().await;
            base.runner.shutdown().await;
            drop(server.await);
        };
        tokio::select! {
            () = rest => {}
            // A second Ctrl-C is not patient.
            second = wait_for_signal() => second?,
        }
        finish(&base).await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Nothing that Weft started is left behind, whatever was interrupted.
async fn finish(base: &Base) {
    base.runner.shutdown().await;
}

/// Says when the packages are installed that the start has not waited for.
async fn tell_of_packages(cx: Arc<Context>, awaited: bool) {
    if !awaited {
        return;
    }
    loop {
        match cx.catalogs.current().await {
            Ok(current) => {
                let Catalog {
                    workflows, findings, ..
                } = &*current.catalog;
                output::note(&format!(
                    "the packages are installed; {} workflows, {} findings",
                    workflows.len(),
                    findings.len()
                ));
                return;
            }
            Err(usecase::Error::Environment(EnvironmentError::Building { .. })) => {}
            Err(error) => {
                output::failure(&error.to_string(), error.hint().as_deref(), error.findings());
                return;
            }
        }
    }
}

async fn seed_once(cx: &Context) -> Result<(), Failure> {
    let platform = tenancy::operator();
    let seeded = seed::seed(cx, &platform, |step| output::progress(&format!("seeding {step}"))).await?;
    output::progress_done();
    if seeded.created > 0 {
        output::note(&format!(
            "seeded {} organizations, {} people, {} configuration entries",
            seeded.organizations.len(),
            seeded.people.len(),
            seeded.config_entries
        ));
    }
    Ok(())
}

/// The line that scripts wait for, and a call that works as printed. The development key is shown here and nowhere else.
fn greet(port: u16, catalog: Option<&Catalog>, trusted: bool) {
    output::data(&format!("ready http://127.0.0.1:{port}"));
    if !trusted {
        output::note("the development key is refused here, so make one: weft keys create NAME --scope '*'");
        return;
    }
    let workflows = catalog.map(|catalog| &catalog.workflows);
    let example = match workflows.and_then(|workflows| workflows.get("hello")) {
        Some(_) => Some(("hello", r#"{"name": "Ada"}"#)),
        None => workflows
            .into_iter()
            .flat_map(|workflows| workflows.values())
            .find(|workflow| {
                !workflow
                    .parameters
                    .iter()
                    .any(|parameter| parameter.required && !parameter.has_default)
            })
            .map(|workflow| (workflow.name.as_str(), "{}")),
    };
    if let Some((name, arguments)) = example {
        output::data(&format!(
            "curl -s -X POST http://127.0.0.1:{port}/api/workflows/{name}/execute -H 'x-functions-key: {}' \
             -H 'X-Organization-Id: contoso' -H 'Content-Type: application/json' -d '{arguments}'",
            seed::DEVELOPMENT_KEY
        ));
    }
    output::note(&format!(
        "API: http://127.0.0.1:{port}/api/docs — Ctrl-C stops everything"
    ));
}

/// What the timer function does under the Functions host: as there, at the beginning of every minute.
pub(super) async fn ticks(cx: Arc<Context>) {
    const MINUTE: u64 = 60_000;
    loop {
        let gone = cx.clock.now().millis().unsigned_abs() % MINUTE;
        tokio::time::sleep(Duration::from_millis(MINUTE - gone)).await;
        if let Err(error) = usecase::tick::tick(&cx).await {
            tracing::warn!(error = %error, "a tick failed, the next one tries again");
        }
    }
}

async fn wait_for_signal() -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::new(format!("signals can't be received: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(fail)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
