//! Look at the named outputs of a run.

use std::ops::Range;

use super::query_run::visible;
use super::resume_run::MOST_RESUMED;
use super::{Context, Error, Result};
use crate::authz::Action;
use crate::domain::{ArtifactId, RunId};
use crate::store;
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
    let Some(artifact) = find(cx, scope, run, &Wanted::Id(id)).await? else {
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

/// How an artifact is named.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// By its id.
    Id(&'a ArtifactId),
    /// By its name: the newest of that name.
    Name(&'a str),
}

/// An artifact of a run, or of one that it resumes: what the run takes over of it may name its artifacts.
///
/// # Errors
/// When storage fails.
pub(super) async fn find(
    cx: &Context,
    scope: &Scope,
    run: &RunId,
    wanted: &Wanted<'_>,
) -> store::port::Result<Option<Artifact>> {
    let mut run = run.clone();
    for _ in 0..=MOST_RESUMED {
        let found = match wanted {
            Wanted::Id(id) => cx.artifacts.get(scope, &run, id).await?,
            Wanted::Name(name) => {
                let all = cx.artifacts.list(scope, &run).await?;
                all.into_iter().find(|artifact| artifact.name == **name)
            }
        };
        if found.is_some() {
            return Ok(found);
        }
        match cx.runs.get(scope, &run).await?.and_then(|run| run.new.resumes) {
            Some(resumed) => run = resumed,
            None => break,
        }
    }
    Ok(None)
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
