//! Look at the named outputs of a run.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::query_run::visible;
use super::{Context, Error, Result};
use crate::authz::Action;
use crate::domain::{ArtifactId, RunId};
use crate::store;
pub use crate::store::repo::artifacts::Artifact;
use crate::tenancy::Scope;

/// Bytes that are read from storage at once for a download.
const CHUNK: u64 = 1 << 20;

/// The artifacts of a run, by name, and of one name the newest first.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn list(cx: &Context, scope: &Scope, run: &RunId) -> Result<Vec<Artifact>> {
    visible(cx, scope, run, Action::Read).await?;
    Ok(cx.artifacts.list(scope, run).await?)
}

/// An artifact with its bytes, which are read as they are taken. They end in an error when they are not what was written.
pub struct Content {
    /// What it is.
    pub artifact: Artifact,
    /// Its bytes.
    pub bytes: BoxStream<'static, store::port::Result<Bytes>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("artifact", &self.artifact)
            .finish_non_exhaustive()
    }
}

/// One artifact of a run.
///
/// # Errors
/// When the scope may not, or there is no such run or artifact that it may know of.
pub async fn open(cx: &Context, scope: &Scope, run: &RunId, id: &ArtifactId) -> Result<Content> {
    visible(cx, scope, run, Action::Read).await?;
    let Some(artifact) = cx.artifacts.get(scope, run, id).await? else {
        return Err(Error::not_found(
            "artifact_not_found",
            format!("run `{run}` has no artifact `{id}`"),
            format!("`GET /api/runs/{run}/artifacts` lists those that there are"),
        ));
    };
    // The first part now, so that storage that is away is an answer and not a download that breaks off.
    let first = cx.artifacts.read(scope, &artifact, 0, CHUNK).await?;
    let artifacts = cx.artifacts.clone();
    let (scope, wanted) = (scope.clone(), artifact.clone());
    let digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let rest = stream::try_unfold((Some(first), 0, digest), move |(ready, offset, mut digest)| {
        let (artifacts, scope, wanted) = (artifacts.clone(), scope.clone(), wanted.clone());
        async move {
            if offset >= wanted.size {
                return Ok(None);
            }
            let bytes = match ready {
                Some(bytes) => bytes,
                None => artifacts.read(&scope, &wanted, offset, CHUNK).await?,
            };
            digest.update(&bytes);
            let end = offset + bytes.len() as u64;
            if end >= wanted.size {
                let sum = digest.clone().finish();
                let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                if hex != wanted.sha256 {
                    let message = format!("the bytes of artifact `{}` are others than those written", wanted.id);
                    return Err(store::Error::corrupt(message));
                }
            }
            Ok(Some((bytes, (None, end, digest))))
        }
    });
    Ok(Content {
        artifact,
        bytes: rest.boxed(),
    })
}
