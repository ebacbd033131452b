//! Look at the named outputs of a run.

use std::ops::Range;

use super::query_run::visible;
use super::{Context, Error, Result};
use crate::authz::Action;
use crate::domain::{ArtifactId, RunId};
pub use crate::store::claim_check::Coming;
pub use crate::store::repo::artifacts::Artifact;
use crate::store::repo::artifacts::Artifacts;
use crate::tenancy::Scope;

/// The artifacts of a run, by name, and of one name the newest first.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn list(cx: &Context, scope: &Scope, run: &RunId) -> Result<Vec<Artifact>> {
    visible(cx, scope, run, Action::Read).await?;
    Ok(cx.artifacts.list(scope, run).await?)
}

/// An artifact whose bytes can be read.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub artifact: Artifact,
    artifacts: Artifacts,
    scope: Scope,
}

/// One artifact of a run.
///
/// # Errors
/// When the scope may not, or there is no such run or artifact that it may know of.
pub async fn open(cx: &Context, scope: &Scope, run: &RunId, id: &ArtifactId) -> Result<Found> {
    visible(cx, scope, run, Action::Read).await?;
    let Some(artifact) = cx.artifacts.get(scope, run, id).await? else {
        return Err(Error::not_found(
            "artifact_not_found",
            format!("run `{run}` has no artifact `{id}`"),
            format!("`GET /api/runs/{run}/artifacts` lists those that there are"),
        ));
    };
    Ok(Found {
        artifact,
        artifacts: cx.artifacts.clone(),
        scope: scope.clone(),
    })
}

impl Found {
    /// Its bytes in a range, which are read as they are taken. All of them end in an error before the last of them when they are not
    /// what was written; of a part of them that can't be told, only that none are missing.
    ///
    /// # Errors
    /// When storage fails with the first of them.
    pub async fn bytes(&self, range: Range<u64>) -> Result<Coming> {
        Ok(self.artifacts.coming(&self.scope, &self.artifact, range).await?)
    }
}
