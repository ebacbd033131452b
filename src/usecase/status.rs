//! Whether this process can work, and how it is.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Context, Result, bundle};
use crate::authz::{Action, Caller};
use crate::definition::Catalog;
use crate::error::Finding;
use crate::store;
use crate::store::repo::installation;
use crate::tenancy::{self, PlatformScope, operator_in};

/// How many organizations are looked at for workflows whose name the workspace has taken.
const LOOKED_AT: usize = 100;
/// How many of them at once.
const AT_ONCE: usize = 10;

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
    /// Workflows of organizations that aren't called because the workspace has one of their name; of the first organizations.
    pub shadowed: Vec<Finding>,
    /// Where the code comes from that is offered, and why that is not what is active.
    pub followed: bundle::Followed,
    /// Why the workspace can't be used at all.
    pub workspace_error: Option<String>,
    /// Runs that are driven here.
    pub live_runs: usize,
    /// Runs that were set aside here since the process began because they can't be read.
    pub set_aside_runs: u64,
    /// How often a step's result was taken from an earlier run since the process began, and how often there was none.
    pub cached_results: (u64, u64),
    /// Blobs that nothing referred to any more and that this process has deleted, and their bytes.
    pub collected: (u64, u64),
    /// Bytes of artifacts that were stored here since the process began, and how often an organization's quota refused one.
    pub artifacts: (u64, u64),
    /// For how long such blobs are kept; for ever without it.
    pub grace: Option<Duration>,
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

/// `ok`, or `degraded` when files of the workspace are in quarantine, what is active could not be fetched and what was active
/// before is offered, or steps are refused for want of isolation.
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
    let follows = cx.catalogs.followed().trouble.is_none();
    Ok(if current.catalog.findings.is_empty() && is_isolated && follows {
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
    let platform = tenancy::platform(caller, Action::Read)?;
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
        shadowed: match catalog {
            Some(catalog) => shadowed(cx, &platform, catalog).await?,
            None => Vec::new(),
        },
        findings: catalog.map(|catalog| catalog.findings.clone()).unwrap_or_default(),
        followed: cx.catalogs.followed(),
        workspace_error,
        live_runs: cx.live.count(),
        set_aside_runs: cx.failures.set_aside(),
        cached_results: cx.results.looks(),
        collected: cx.collected.freed(),
        artifacts: cx.usage.counts(),
        grace: cx.grace,
        watchers: cx.watch.count(),
    })
}

/// Workflows of organizations whose name the workspace has taken.
async fn shadowed(cx: &Context, platform: &PlatformScope, catalog: &Catalog) -> Result<Vec<Finding>> {
    let organizations = cx.identities.list_organizations(platform, LOOKED_AT, None).await?.items;
    let mut findings = Vec::new();
    for some in organizations.chunks(AT_ONCE) {
        let scopes: Vec<_> = some.iter().map(|one| operator_in(platform, &one.id)).collect();
        let listed = futures::future::try_join_all(scopes.iter().map(async |scope| {
            match cx.workflows.list(scope).await {
                // Deleted with its table.
                Err(store::Error::NotFound { .. }) => Ok(Vec::new()),
                listed => listed,
            }
        }))
        .await?;
        for (scope, heads) in scopes.iter().zip(listed) {
            for head in heads
                .iter()
                .filter(|head| head.current.is_some() && head.archived.is_none())
            {
                let Some(declared) = catalog.workflows.get(&head.name) else {
                    continue;
                };
                let message = format!(
                    "workflow `{}` of organization `{}` isn't called: {}:{} has its name",
                    head.name,
                    scope.org(),
                    declared.path,
                    declared.line
                );
                let hint = "rename the workspace's, or tell the organization";
                findings.push(
                    Finding::new(format!("{}:{}", declared.path, declared.line), "name_taken", message).hint(hint),
                );
            }
        }
    }
    Ok(findings)
}
