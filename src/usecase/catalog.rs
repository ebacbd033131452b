//! What the workspace offers right now: looked at again when a file has changed, described in a worker, kept until then. Where
//! a published bundle is active it is offered instead of the folder (`follow.rs`).
//!
//! A workspace that asks for packages is described when they are installed. While they are, what it offered before stays;
//! where nothing was before, whoever needs it waits for a while.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::{info, warn};

use super::follow::Follow;
use super::{CodeSource, Error, Result, node_type};
use crate::clock::Clock;
use crate::definition::{Catalog, INEXACT, Longest};
use crate::domain::{Declared, DeclaredAs, Limits, Timestamp};
use crate::error::Finding;
use crate::runner::bundle::{self, Fingerprint};
use crate::runner::environments::{EnvironmentError, EnvironmentRef, Environments, Wanted};
use crate::runner::graphs::graph_files;
use crate::runner::{BundleRef, NodeRunner};
use crate::store::repo::bundles::Bundles;
use crate::store::repo::node_types::NodeTypes;
use crate::tenancy::system;

/// How long a caller waits for the workspace's packages.
const ENVIRONMENT_PATIENCE: Duration = Duration::from_secs(50);

/// For how long a copy is kept after it was asked for, whoever needs it: another process may be about to begin a run of it.
const SPARED: Duration = Duration::from_secs(600);

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
    pub(super) code: CodeSource,
    runner: Arc<dyn NodeRunner>,
    ceilings: Limits,
    longest: Longest,
    /// What hints name the newest versions by.
    library: NodeTypes,
    state: Mutex<State>,
    pub(super) follow: Follow,
}

#[derive(Debug, Default)]
struct State {
    current: Option<(Fingerprint, Current)>,
    /// A newer workspace, and what it asks for.
    next: Option<(Fingerprint, Next)>,
}

#[derive(Debug, Clone)]
struct Next {
    bundle: BundleRef,
    wanted: Option<Wanted>,
    /// What is wrong with what it asks for.
    findings: Vec<Finding>,
}

impl Catalogs {
    /// Of this code, in which nothing may declare more than the ceilings; nothing is read yet.
    #[must_use]
    pub fn new(
        code: CodeSource,
        runner: Arc<dyn NodeRunner>,
        (ceilings, longest): (Limits, Longest),
        (bundles, library): (Bundles, NodeTypes),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            code,
            runner,
            ceilings,
            longest,
            library,
            state: Mutex::default(),
            follow: Follow::new(bundles, clock),
        }
    }

    /// The bundle as the workspace is now. When nothing has changed this costs a look at each file's metadata, and not even
    /// that for a deployed workspace, which doesn't change under a running process. Waits for packages that are being
    /// installed, for a while, where nothing was offered before.
    ///
    /// # Errors
    /// When the workspace can't be read, its packages can't be installed, or no worker can describe it.
    pub async fn current(&self) -> Result<Current> {
        self.within(ENVIRONMENT_PATIENCE).await
    }

    /// The same without waiting for packages.
    ///
    /// # Errors
    /// As above; `environment_building` while they are being installed.
    pub async fn at_once(&self) -> Result<Current> {
        self.within(Duration::ZERO).await
    }

    async fn within(&self, patience: Duration) -> Result<Current> {
        if let Some(published) = self.published(patience).await? {
            self.note_use(&published);
            return Ok(published);
        }
        match self.look().await {
            Err(Look::Wait(wanted)) => {
                // Not under the lock: whoever is content with less must not wait along.
                self.code.environments.ready(&wanted, patience).await?;
                match self.look().await {
                    Ok(current) => Ok(current),
                    // It has changed meanwhile.
                    Err(Look::Wait(_)) => Err(EnvironmentError::Building { line: String::new() }.into()),
                    Err(Look::Failed(error)) => Err(*error),
                }
            }
            Err(Look::Failed(error)) => Err(*error),
            Ok(current) => Ok(current),
        }
    }

    async fn look(&self) -> std::result::Result<Current, Look> {
        let mut state = self.state.lock().await;
        if let Some((_, current)) = &state.current
            && !self.code.live
        {
            self.note_use(current);
            return Ok(current.clone());
        }
        let fingerprint = bundle::fingerprint(&self.code.workspace)?;
        if let Some((seen, current)) = &state.current
            && *seen == fingerprint
        {
            self.note_use(current);
            return Ok(current.clone());
        }
        let next = match &state.next {
            Some((seen, next)) if *seen == fingerprint => next.clone(),
            _ => self.next().await?,
        };
        state.next = Some((fingerprint, next.clone()));
        let Next {
            mut bundle,
            wanted,
            findings,
        } = next;
        if let Some(wanted) = wanted {
            bundle.environment = match self.code.environments.ready(&wanted, Duration::ZERO).await {
                Ok(environment) => Some(environment),
                Err(EnvironmentError::Building { .. }) => {
                    return match &state.current {
                        Some((_, before)) => Ok(before.clone()),
                        None => Err(Look::Wait(wanted)),
                    };
                }
                Err(error) => return Err(Error::from(error).into()),
            };
        }
        if let Some((_, current)) = &state.current
            && current.bundle == bundle
        {
            let current = current.clone();
            state.current = Some((fingerprint, current.clone()));
            return Ok(current);
        }
        let catalog = self.describe(&bundle, findings).await?;
        let current = Current {
            bundle,
            catalog: Arc::new(catalog),
        };
        state.current = Some((fingerprint, current.clone()));
        state.next = None;
        Ok(current)
    }

    /// Copies the workspace, and looks what it asks for.
    async fn next(&self) -> Result<Next> {
        let code = self.code.clone();
        let next: Result<Next> = tokio::task::spawn_blocking(move || {
            let bundle = bundle::snapshot(&code.workspace, &code.bundles)?;
            // Of the copy, so that both are of one moment.
            let (wanted, findings) = match code.environments.wanted(&bundle.dir) {
                Ok(wanted) => (wanted, Vec::new()),
                Err(EnvironmentError::Requirements(findings)) => (None, findings),
                Err(error) => return Err(error.into()),
            };
            Ok(Next {
                bundle,
                wanted,
                findings,
            })
        })
        .await
        .map_err(|error| Error::unavailable("workspace_unavailable", error.to_string(), "repeat the request"))?;
        let next = next?;
        self.follow.note_whole(&next.bundle);
        Ok(next)
    }

    pub(super) async fn describe(&self, bundle: &BundleRef, mut findings: Vec<Finding>) -> Result<Catalog> {
        let description = self.runner.describe(bundle).await?;
        findings.extend(description.findings);
        let catalog = Catalog::from_description(
            &bundle.digest,
            &description.modules,
            findings,
            description.files,
            description.ms,
        )
        .within(&self.ceilings)
        .noticing(self.longest);
        let mut without = catalog;
        let mut catalog = with_graphs(without.clone(), bundle).await?;
        if catalog.findings.iter().any(|finding| finding.code == INEXACT) {
            // Only to say what to write instead.
            without.newest = node_type::newest(&self.library, &system("catalog")).await;
            catalog = with_graphs(without, bundle).await?;
        }
        for finding in &catalog.findings {
            warn!(
                place = finding.pointer,
                code = finding.code,
                "workspace finding: {}",
                finding.message
            );
        }
        for finding in &catalog.noticed {
            info!(
                place = finding.pointer,
                code = finding.code,
                "noticed of the workspace: {}",
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
        let functions = catalog.workflows.values().filter(|declared| declared.graph.is_none());
        // Nodes are called by graphs alone, and many of them by none.
        let graphs = catalog
            .workflows
            .values()
            .filter_map(|declared| declared.graph.as_deref());
        let nodes = graphs.flat_map(|graph| catalog.functions_of(graph).into_values());
        let nodes = nodes.filter(|declared| declared.declared_as == DeclaredAs::Node);
        for declared in functions.chain(nodes) {
            self.runner.warm(bundle, &declared.module, &declared.rights());
        }
        Ok(catalog)
    }

    fn note_use(&self, current: &Current) {
        if let Some(environment) = &current.bundle.environment {
            self.code.environments.note_use(environment);
        }
    }

    /// How many copies of the workspace lie on this machine.
    pub(super) fn copies(&self) -> usize {
        bundle::count(&self.code.bundles)
    }

    /// Removes the oldest copies of the workspace beyond `most`, but none that is offered or `needed`. How many.
    ///
    /// # Errors
    /// When one can't be removed.
    pub(super) async fn prune(&self, mut needed: BTreeSet<String>, most: usize, now: Timestamp) -> Result<usize> {
        // Under the lock, so that no copy is made or taken meanwhile.
        let state = self.state.lock().await;
        needed.extend(state.current.iter().map(|(_, current)| current.bundle.digest.clone()));
        needed.extend(state.next.iter().map(|(_, next)| next.bundle.digest.clone()));
        let bundles = self.code.bundles.clone();
        let pruned = tokio::task::spawn_blocking(move || bundle::prune(&bundles, &needed, most, SPARED, now)).await;
        drop(state);
        pruned
            .map_err(std::io::Error::other)
            .and_then(std::convert::identity)
            .map_err(|error| Error::unavailable("workspace_unavailable", error.to_string(), "repeat the request"))
    }

    /// The bundle that has nothing in it: for code that is given to its worker.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub(super) fn nothing(&self) -> Result<BundleRef> {
        Ok(bundle::nothing(&self.code.bundles)?)
    }

    /// The environment that a run is pinned to, made again where this instance doesn't have it.
    ///
    /// # Errors
    /// When it can't be made here, or is not ready after `patience`.
    pub(super) async fn pinned_environment(
        &self,
        bundle: &BundleRef,
        digest: &str,
        patience: Duration,
    ) -> Result<EnvironmentRef> {
        let environments = self.code.environments.clone();
        if let Some(environment) = environments.find(digest) {
            return Ok(environment);
        }
        let dir = bundle.dir.clone();
        let wanted = tokio::task::spawn_blocking(move || environments.wanted(&dir))
            .await
            .map_err(|error| Error::unavailable("workspace_unavailable", error.to_string(), "repeat the request"))??;
        // Another interpreter than when the run was started makes another environment of the same requirements.
        match wanted.filter(|wanted| wanted.digest == digest) {
            Some(wanted) => Ok(self.code.environments.ready(&wanted, patience).await?),
            None => Err(EnvironmentError::Lost {
                digest: digest.to_owned(),
            }
            .into()),
        }
    }

    /// All environments.
    #[must_use]
    pub const fn environments(&self) -> &Arc<Environments> {
        &self.code.environments
    }

    /// The folder that is offered.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.code.workspace
    }

    /// Whether findings stop the start.
    #[must_use]
    pub const fn strict(&self) -> bool {
        self.code.strict
    }
}

/// A description with the graphs that lie in the bundle.
///
/// # Errors
/// When the bundle can't be read.
pub async fn with_graphs(catalog: Catalog, bundle: &BundleRef) -> Result<Catalog> {
    let unavailable = |reason: String| Error::unavailable("workspace_unavailable", reason, "repeat the request");
    let bundle = bundle.clone();
    tokio::task::spawn_blocking(move || {
        let (files, findings) = graph_files(&bundle)?;
        Ok(catalog.with_graphs(files, findings))
    })
    .await
    .map_err(|error| unavailable(error.to_string()))?
    .map_err(|error: std::io::Error| unavailable(format!("graph files can't be read: {error}")))
}

/// Why there is no bundle yet.
enum Look {
    Wait(Wanted),
    Failed(Box<Error>),
}

impl<E: Into<Error>> From<E> for Look {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// The name of the file that a finding points into, without its ending.
fn stem(pointer: &str) -> Option<&str> {
    let path = pointer.split_once(':').map_or(pointer, |(path, _)| path);
    path.rsplit('/').next()?.split('.').next()
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
    let findings = &current.catalog.findings;
    if !findings.is_empty() {
        use std::fmt::Write as _;
        let _ = write!(hint, "; {} finding(s) keep files out, see `weft check`", findings.len());
    }
    // Most workflows are in a file of their name, and then this is what its author looks for.
    if let Some(finding) = findings.iter().find(|finding| stem(&finding.pointer) == Some(name)) {
        hint = format!("`{}` keeps its file out ({}); {hint}", finding.pointer, finding.code);
    }
    Err(Error::not_found(
        "workflow_not_found",
        format!("there is no workflow `{shown}`"),
        hint,
    ))
}
