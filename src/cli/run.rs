//! `weft run`: a run of a workflow of the workspace, here and without a server.
//!
//! It is one more instance on the data that the settings name: the run goes through the queue as every other, is driven by this
//! process or by a `weft dev` on the same data, and is kept. While it goes on, this process does whatever else is due there.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::debugging::{self, Debugging};
use super::dev::ticks;
use super::follow::{self, Manner, follow};
use super::inputs::Inputs;
use super::{Failure, Outcome, Places, block_on, load, output, quiet};
use crate::boot;
use crate::config::Backend;
use crate::domain::{Ask, Begins, DisplayName, OrgId};
use crate::tenancy::{self, operator_in};
use crate::usecase::organization::{self, NewOrganization};
use crate::usecase::start_run::{StartRun, start_run};
use crate::usecase::{Context, bundle, deliver, offer, signal};

/// The organization of those who have none.
pub(super) const LOCAL: &str = "local";

/// How long a run is waited for that begins here; then it is followed.
const BEGINNING: Duration = Duration::from_millis(1);

/// Flags of `weft run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the run succeeded; 1 it failed, or was not started; 2 wrong usage; 3 it timed out; \
                        4 somebody else cancelled it; 130 Ctrl-C cancelled it."
)]
pub(super) struct Run {
    /// The workflow's name
    name: String,
    #[command(flatten)]
    inputs: Inputs,
    /// Organization that it runs in; `local` when missing, which is made in the embedded store
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    /// Wait for the end and show what happens; that is how it is without a word
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Start it, print its id, and leave it to the next `weft dev` or handler
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    debugging: Debugging,
    #[command(flatten)]
    places: Places,
    /// Print the run as JSON, and not its result alone
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.places.environment();
        environment.prefer_development("weft run");
        let config = load(&environment)?;
        quiet(&config)?;
        block_on(self.work(config))
    }

    async fn work(self, config: crate::config::Config) -> Outcome {
        let is_embedded = config.storage.backend == Backend::Sqlite;
        let manner = Manner {
            json: self.json,
            debug: config.telemetry.debug,
        };
        let debugger = self.debugging.listen(&config).await?;
        if self.no_wait && debugger.is_some() {
            return Err(Failure::new("a run that nobody waits for can't be debugged").hint("leave `--no-wait` out"));
        }
        let base = boot::debugged(config, debugger.clone())?;
        let cx = boot::opened(&base).await?;
        let cx = Arc::new(if debugger.is_some() { cx.without_hurry() } else { cx });
        let done = Box::pin(self.start(&base, &cx, is_embedded, manner)).await;
        // Each edit makes a copy, and no `weft dev` may ever run here.
        if let Err(error) = bundle::tidy(&cx).await {
            output::note(&format!(
                "warning: old copies of the workspace can't be removed: {error}"
            ));
        }
        cx.leave().await;
        base.runner.shutdown().await;
        done
    }

    async fn start(&self, base: &boot::Base, cx: &Arc<Context>, is_embedded: bool, manner: Manner) -> Outcome {
        let platform = tenancy::operator();
        let org = match &self.organization {
            Some(org) => organization::get(cx, &platform, org).await?.id,
            None if is_embedded => local(cx).await?,
            None => {
                return Err(
                    Failure::new("no organization is named, and the store is not this machine's own")
                        .hint("name one with `--organization`; `weft org list` shows them"),
                );
            }
        };
        let scope = operator_in(&platform, &org);
        let (_, offered) = offer::get(cx, &scope, &self.name, None).await?;
        if self.debugging.is_on() {
            self.debugging.check(&base.config, cx, &offered.declared).await?;
        }
        let input = StartRun {
            draft: false,
            workflow: self.name.clone(),
            arguments: self.inputs.of(&offered.declared)?.given,
            // What is debugged begins here, and is left to no other instance.
            wait: self.debugging.is_on().then_some(BEGINNING),
            idempotency_key: None,
            received_at: cx.clock.now(),
            origin: follow::origin("weft run"),
            ask: Ask::default(),
            begins: Begins::AtOnce,
            gone: CancellationToken::new(),
            unindexed: Vec::new(),
        };
        if self.no_wait {
            let started = start_run(cx, &scope, input).await?;
            let id = &started.run.new.run;
            if self.json {
                output::json(
                    &json!({"run": id, "workflow": self.name, "organization": org, "status": started.run.state.status}),
                );
            } else {
                output::data(id.as_str());
            }
            output::note("the run waits for a `weft dev` or a handler on the same data");
            return Ok(ExitCode::SUCCESS);
        }
        let background = [
            tokio::spawn(deliver::consume(cx.clone())),
            tokio::spawn(ticks(cx.clone())),
            tokio::spawn(signal::listen(Arc::downgrade(cx))),
        ];
        let done = async {
            let started = start_run(cx, &scope, input).await?;
            let id = &started.run.new.run;
            if self.debugging.is_on() {
                Box::pin(debugging::is_here(cx, &scope, &started.run)).await?;
            }
            output::note(&format!("run {id} of `{}` in organization `{org}`", self.name));
            Box::pin(follow(cx, &scope, id, manner, |step, _| async move {
                output::note(&format!(
                    "hint: decide on `{step}` through the API of a `weft dev` on the same data: POST /api/runs/{id}/steps/{step}/decision"
                ));
                Ok(())
            }))
            .await
        };
        let done = Box::pin(done).await;
        for task in &background {
            task.abort();
        }
        done
    }
}

/// The organization of the embedded store for those who have made none.
pub(super) async fn local(cx: &Context) -> Result<OrgId, Failure> {
    let wrong = |error: String| Failure::new(format!("the organization `{LOCAL}` can't be made: {error}"));
    let new = NewOrganization {
        id: Some(LOCAL.parse::<OrgId>().map_err(|error| wrong(error.to_string()))?),
        name: "Local"
            .parse::<DisplayName>()
            .map_err(|error| wrong(error.to_string()))?,
        slug: None,
    };
    // One that was renamed is there all the same.
    let platform = tenancy::operator();
    if let Some(id) = &new.id
        && let Ok(there) = organization::get(cx, &platform, id).await
    {
        return Ok(there.id);
    }
    let (_, made) = organization::create(cx, &platform, new).await?;
    Ok(made.id)
}
