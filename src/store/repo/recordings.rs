//! What is kept of attempts for replaying them: a blob for each, beside its log, and deleted with it.

use bytes::Bytes;

use crate::domain::{AttemptId, Recording, RunId};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Ports, Put, Result};
use crate::tenancy::Scope;

/// Most bytes of one recording.
pub const MAX_BYTES: u64 = 4 << 20;

/// Recordings of attempts.
#[derive(Debug, Clone)]
pub struct Recordings {
    ports: Ports,
}

impl Recordings {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Keeps one. Repeating it changes nothing.
    ///
    /// # Errors
    /// Those of the blob store; [`Error::TooLarge`] over [`MAX_BYTES`].
    pub async fn keep(&self, scope: &Scope, recording: &Recording) -> Result<()> {
        let bytes = serde_json::to_vec(recording).map_err(|error| Error::corrupt(error.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::TooLarge {
                what: "a recording".to_owned(),
                size: bytes.len(),
                limit: usize::try_from(MAX_BYTES).unwrap_or(usize::MAX),
                unit: "bytes",
            });
        }
        let path = key::recording_blob(&recording.run, &recording.attempt);
        let container = key::org_container(scope.org());
        self.ports
            .blobs
            .put(&container, &path, Bytes::from(bytes), Put::Overwrite)
            .await
    }

    /// Those of a run in the order in which their attempts began, at most so many bytes of them; and the attempts of the rest.
    ///
    /// # Errors
    /// Those of the blob store; [`Error::Corrupt`] for what is none.
    pub async fn of_run(&self, scope: &Scope, run: &RunId, limit: u64) -> Result<(Vec<Recording>, Vec<AttemptId>)> {
        let container = key::org_container(scope.org());
        let (mut found, mut left_out, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut after = None;
        loop {
            let page = self.ports.blobs.list(&container, &key::log_blobs(run), after).await?;
            for blob in page.blobs {
                let Some(attempt) = key::attempt_of_recording(&blob.path) else {
                    continue;
                };
                if bytes + blob.size > limit {
                    left_out.push(attempt);
                    continue;
                }
                bytes += blob.size;
                if let Some(text) = self.ports.blobs.get(&container, &blob.path, MAX_BYTES).await? {
                    let read = serde_json::from_slice::<Recording>(&text);
                    found.push(read.map_err(|error| Error::corrupt(format!("a recording can't be read: {error}")))?);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        found.sort_by(|one, other| (one.started_at, &one.attempt).cmp(&(other.started_at, &other.attempt)));
        Ok((found, left_out))
    }
}
