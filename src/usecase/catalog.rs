//! What the workspace offers right now: looked at again when a file has changed, described in a worker, kept until then.

use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::{info, warn};

use super::policy::Ceilings;
use super::{CodeSource, Context, Error, Result};
use crate::authz::{Action, Resource};
use crate::definition::Catalog;
use crate::domain::{Declared, Limits, Rights};
use crate::error::Finding;
use crate::runner::bundle::{self, Fingerprint};
use crate::runner::{BundleRef, NodeRunner};
use crate::tenancy::Scope;

/// A bundle and what it declares.
#[derive(Debug, Clone)]
pub struct Current {
    /// The code.
    pub bundle: BundleRef,
    /// What is in it.
    pub catalog: Arc<Catalog>,
}

/// The workspace's bundle.
#[derive(Debug)]
pub struct Catalogs {
    code: CodeSource,
    runner: Arc<dyn NodeRunner>,
    ceilings: Limits,
    current: Mutex<Option<(Fingerprint, Current)>>,
}

impl Catalogs {
    /// Of this code, in which nothing may declare more than the ceilings; nothing is read yet.
    #[must_use]
    pub fn new(code: CodeSource, runner: Arc<dyn NodeRunner>, ceilings: Limits) -> Self {
        Self {
            code,
            runner,
            ceilings,
            current: Mutex::new(None),
        }
    }

    /// The bundle as the workspace is now. When nothing has changed this costs a look at each file's metadata, and not even
    /// that for a deployed workspace, which doesn't change under a running process.
    ///
    /// # Errors
    /// When the workspace can't be read or no worker can describe it.
    pub async fn current(&self) -> Result<Current> {
        let mut slot = self.current.lock().await;
        if let Some((_, current)) = slot.as_ref()
            && !self.code.live
        {
            return Ok(current.clone());
        }
        let fingerprint = bundle::fingerprint(&self.code.workspace)?;
        if let Some((seen, current)) = slot.as_ref()
            && *seen == fingerprint
        {
            return Ok(current.clone());
        }
        let (workspace, bundles) = (self.code.workspace.clone(), self.code.bundles.clone());
        let bundle = tokio::task::spawn_blocking(move || bundle::snapshot(&workspace, &bundles))
            .await
            .map_err(|error| Error::unavailable("workspace_unavailable", error.to_string(), "repeat the request"))??;
        if let Some((_, current)) = slot.as_ref()
            && current.bundle == bundle
        {
            let current = current.clone();
            *slot = Some((fingerprint, current.clone()));
            return Ok(current);
        }
        let description = self.runner.describe(&bundle).await?;
        let catalog = Catalog::from_description(
            &bundle.digest,
            &description.modules,
            description.findings,
            description.files,
            description.ms,
        )
        .within(&self.ceilings);
        for finding in &catalog.findings {
            warn!(
                place = finding.pointer,
                code = finding.code,
                "workspace finding: {}",
                finding.message
            );
        }
        info!(
            bundle.digest = bundle.digest,
            bundle.files = catalog.files,
            workflows = catalog.workflows.len(),
            describe.ms = catalog.ms,
            "workspace loaded"
        );
        for workflow in catalog.workflows.values() {
            let rights = Rights::of_workspace(&workflow.network);
            self.runner.warm(&bundle, &workflow.module, &rights);
        }
        let current = Current {
            bundle,
            catalog: Arc::new(catalog),
        };
        *slot = Some((fingerprint, current.clone()));
        Ok(current)
    }

    /// The copy of a digest that a run is pinned to.
    ///
    /// # Errors
    /// When this instance doesn't have it.
    pub fn pinned(&self, digest: &str) -> Result<BundleRef> {
        bundle::find(&self.code.bundles, digest).ok_or_else(|| {
            Error::unavailable(
                "bundle_unavailable",
                format!("the code `{digest}` that the run is pinned to is not on this instance"),
                "start a new run, which takes the current code",
            )
        })
    }

    /// Whether findings stop the start.
    #[must_use]
    pub const fn strict(&self) -> bool {
        self.code.strict
    }
}

/// A workflow as an organization may use it.
#[derive(Debug, Clone)]
pub struct Offered {
    /// What the workspace declares.
    pub declared: Declared,
    /// What of that a policy refuses: a run is not started while there is any.
    pub refused: Vec<Finding>,
}

/// A page of workflows, by name.
///
/// # Errors
/// When the scope may not, or the workspace can't be read.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    after: Option<&str>,
    limit: usize,
) -> Result<(Current, Vec<Offered>, bool)> {
    scope.authorize(Action::List, Resource::Workflow)?;
    let current = cx.catalogs.current().await?;
    let mut items: Vec<Declared> = current
        .catalog
        .workflows
        .values()
        .filter(|workflow| after.is_none_or(|after| workflow.name.as_str() > after))
        .take(limit + 1)
        .cloned()
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let ceilings = Ceilings::of(cx, scope).await?;
    let items = items.into_iter().map(|declared| offered(&ceilings, declared)).collect();
    Ok((current, items, more))
}

/// One workflow.
///
/// # Errors
/// When the scope may not, or there is none of this name.
pub async fn get(cx: &Context, scope: &Scope, name: &str) -> Result<(Current, Offered)> {
    scope.authorize(Action::Read, Resource::Workflow)?;
    let current = cx.catalogs.current().await?;
    let workflow = find(&current, name)?.clone();
    let ceilings = Ceilings::of(cx, scope).await?;
    Ok((current, offered(&ceilings, workflow)))
}

fn offered(ceilings: &Ceilings, declared: Declared) -> Offered {
    Offered {
        refused: ceilings.refusals(&declared),
        declared,
    }
}

/// The workflow of a name, or an error that says which there are and what is in quarantine.
pub(super) fn find<'a>(current: &'a Current, name: &str) -> Result<&'a Declared> {
    if let Some(workflow) = current.catalog.workflows.get(name) {
        return Ok(workflow);
    }
    let shown: String = name.chars().take(80).collect();
    let known: Vec<_> = current
        .catalog
        .workflows
        .keys()
        .take(20)
        .map(|known| format!("`{known}`"))
        .collect();
    let mut hint = if known.is_empty() {
        "the workspace declares no workflow".to_owned()
    } else {
        format!("the workspace declares {}", known.join(", "))
    };
    if !current.catalog.findings.is_empty() {
        use std::fmt::Write as _;
        let _ = write!(
            hint,
            "; {} finding(s) keep files out, see `weft check`",
            current.catalog.findings.len()
        );
    }
    Err(Error::not_found(
        "workflow_not_found",
        format!("there is no workflow `{shown}`"),
        hint,
    ))
}
