//! Whether this process can work, and how it is.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Context, Result};
use crate::authz::{Action, Caller};
use crate::error::Finding;
use crate::store::repo::installation;
use crate::tenancy;

/// How the process is.
#[derive(Debug)]
pub struct Status {
    /// The runner's own words.
    pub workers: Value,
    /// The digest of the current bundle.
    pub revision: Option<String>,
    /// Names of its workflows.
    pub workflows: Vec<String>,
    /// Names of its data providers.
    pub data_providers: Vec<String>,
    /// What keeps files out.
    pub findings: Vec<Finding>,
    /// Why the workspace can't be used at all.
    pub workspace_error: Option<String>,
    /// Runs that are driven here.
    pub live_runs: usize,
    /// How often a step's result was taken from an earlier run since the process began, and how often there was none.
    pub cached_results: (u64, u64),
    /// Streams and long polls that are told of runs here.
    pub watchers: usize,
}

/// When storage last took a write that was made to find out. Asked by everybody, so it must cost next to nothing.
#[derive(Debug, Default)]
pub(super) struct LastWritten(tokio::sync::Mutex<Option<Instant>>);

impl LastWritten {
    /// For how long one answer is good.
    const GOOD_FOR: Duration = Duration::from_secs(5);

    async fn look(&self, cx: &Context) -> Result<()> {
        // One at a time: those who come meanwhile take what the first has found.
        let mut last = self.0.lock().await;
        if last.is_some_and(|at| at.elapsed() < Self::GOOD_FOR) {
            return Ok(());
        }
        *last = None;
        installation::write_probe(&tenancy::system("ready"), &cx.ports, cx.clock.now()).await?;
        *last = Some(Instant::now());
        Ok(())
    }
}

/// `ok`, or `degraded` when files of the workspace are in quarantine, or steps are refused for want of isolation.
///
/// # Errors
/// When storage can't be read or written, or the workspace can't be used.
pub async fn ready(cx: &Context) -> Result<&'static str> {
    cx.identities
        .list_organizations(&tenancy::system("ready"), 1, None)
        .await?;
    cx.last_written.look(cx).await?;
    let current = cx.catalogs.at_once().await?;
    // Said by the first worker, which has described the workspace by now.
    let is_isolated = cx.runner.isolation().is_none_or(|isolation| isolation.is_enough());
    Ok(if current.catalog.findings.is_empty() && is_isolated {
        "ok"
    } else {
        "degraded"
    })
}

/// How the process is, for whoever may look at the platform.
///
/// # Errors
/// When the caller may not.
pub async fn status(cx: &Context, caller: &Caller) -> Result<Status> {
    tenancy::platform(caller, Action::Read)?;
    let (current, workspace_error) = match cx.catalogs.at_once().await {
        Ok(current) => (Some(current), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let catalog = current.as_ref().map(|current| current.catalog.as_ref());
    Ok(Status {
        workers: cx.runner.status(),
        revision: current.as_ref().map(|current| current.bundle.digest.clone()),
        workflows: catalog
            .map(|catalog| catalog.workflows.keys().cloned().collect())
            .unwrap_or_default(),
        data_providers: catalog
            .map(|catalog| catalog.data_providers.keys().cloned().collect())
            .unwrap_or_default(),
        findings: catalog.map(|catalog| catalog.findings.clone()).unwrap_or_default(),
        workspace_error,
        live_runs: cx.live.count(),
        cached_results: cx.results.looks(),
        watchers: cx.watch.count(),
    })
}
