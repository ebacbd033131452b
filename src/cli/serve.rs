//! `weft serve`: the Functions host's custom handler.
//!
//! It listens before it does anything else, since the host asks `GET /` every 25 ms and routes wait behind a gate. It ignores
//! SIGINT, which a terminal sends to the host's whole group: the host would count an exit as a crash while it is stopping.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome, block_on, load, output};
use crate::boot;
use crate::config::Environment;
use crate::http::Gate;
use crate::telemetry::Sink;

pub(super) fn run() -> Outcome {
    let mut environment = Environment::of_process();
    environment.read_files();
    let config = load(&environment)?;
    boot::init_telemetry(&config, Sink::Stdout).map_err(|error| Failure::new(output::chain(&error)))?;
    block_on(async move {
        let fail = |error: std::io::Error| Failure::new(format!("signals can't be received: {error}"));
        // Receiving it is what keeps it from ending the process.
        let _interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let listener = boot::listen(config.http.port).await?;
        let gate = Gate::default();
        let stop = CancellationToken::new();
        let mut server = tokio::spawn(boot::serve(listener, gate.clone(), stop.clone()));
        let base = boot::base(config)?;
        let opened = gate.clone();
        let becoming_ready = tokio::spawn(boot::become_ready(base.clone(), gate, true));
        tokio::select! {
            _ = terminate.recv() => {}
            served = &mut server => {
                tracing::error!(outcome = ?served, "the listener ended");
            }
        }
        stop.cancel();
        if let Some(app) = opened.app() {
            app.cx.leave().await;
        }
        becoming_ready.abort();
        base.runner.shutdown().await;
        Ok(ExitCode::from(143))
    })
}
