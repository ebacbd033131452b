//! Look at the named outputs of a run.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::query_run::visible;
use super::{Context, Error, Result};
use crate::authz::Action;
use crate::domain::{ArtifactId, RunId};
use crate::store;
pub use crate::store::repo::artifacts::Artifact;
use crate::store::repo::artifacts::Artifacts;
use crate::tenancy::Scope;

/// Bytes that are read from storage at once for a download.
const CHUNK: u64 = 2 << 20;

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
    pub async fn bytes(self, range: Range<u64>) -> Result<BoxStream<'static, store::port::Result<Bytes>>> {
        let Self {
            artifact,
            artifacts,
            scope,
        } = self;
        let range = range.start..range.end.min(artifact.size);
        // The first now, so that storage that is away is an answer and not a download that breaks off.
        let length = range.end.saturating_sub(range.start).min(CHUNK);
        let first = artifacts.read(&scope, &artifact, range.start, length).await?;
        let whole = range == (0..artifact.size);
        let digest = whole.then(|| aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
        let begin = (Some(first), range.start, digest);
        let bytes = stream::try_unfold(begin, move |(ready, at, mut digest)| {
            let (artifacts, scope, artifact) = (artifacts.clone(), scope.clone(), artifact.clone());
            let until = range.end;
            async move {
                if at >= until {
                    return Ok(None);
                }
                let bytes = match ready {
                    Some(bytes) => bytes,
                    None => artifacts.read(&scope, &artifact, at, CHUNK.min(until - at)).await?,
                };
                let end = at + bytes.len() as u64;
                if let Some(digest) = &mut digest {
                    digest.update(&bytes);
                    if end >= until && hex(digest.clone().finish().as_ref()) != artifact.sha256 {
                        let message = format!("the bytes of artifact `{}` are others than those written", artifact.id);
                        return Err(store::Error::corrupt(message));
                    }
                }
                Ok(Some((bytes, (None, end, digest))))
            }
        });
        Ok(bytes.boxed())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
