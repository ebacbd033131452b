//! Named outputs of runs: rows in the run's partition, bytes named by their digest in the organization's container.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::damage::{known, noted};
use crate::domain::{ArtifactId, AttemptId, RunId, Timestamp, sha256_hex};
use crate::store::claim_check::{self, Coming, Named};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{ETag, Entity, Match, Operation, Ports, Properties, Query, Result, Upload};
use crate::store::repo::usage::{Room, Usage};
use crate::store::turns::{self, Turns};
use crate::tenancy::Scope;

/// Most artifacts of a run.
pub const MAX_RUN_ARTIFACTS: u64 = 1_000;

/// How many bytes artifacts may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// One.
    pub artifact: u64,
    /// All of a run together.
    pub run: u64,
    /// All of an organization together; policies may say less.
    pub organization: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            artifact: 256 << 20,
            run: 1 << 30,
            organization: 100 << 30,
        }
    }
}

const SCHEMA: i64 = 1;
/// How often a write that met another one is tried again.
const TRIES: u32 = 20;

/// A named output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its id, which follows from run, name and content.
    pub id: ArtifactId,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub sha256: String,
    /// What its author says it is.
    pub media_type: Option<String>,
    /// The step that wrote it.
    pub step: String,
    /// The attempt that wrote it.
    pub attempt: AttemptId,
    /// When it was written last.
    pub created_at: Timestamp,
}

/// Artifacts of runs.
#[derive(Debug, Clone)]
pub struct Artifacts {
    ports: Ports,
    usage: Arc<Usage>,
    quotas: Quotas,
    turns: Turns,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written, or was there.
    Done,
    /// The run's artifacts would be more, or larger, than a run may have.
    Full,
}

#[derive(Default)]
struct Total {
    count: u64,
    bytes: u64,
    etag: Option<ETag>,
}

impl Total {
    const fn has_room_for(&self, size: u64, quotas: &Quotas) -> bool {
        self.count < MAX_RUN_ARTIFACTS && self.bytes.saturating_add(size) <= quotas.run
    }
}

impl Artifacts {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, usage: Arc<Usage>, quotas: Quotas) -> Self {
        Self {
            ports,
            usage,
            quotas,
            turns: Turns::default(),
        }
    }

    /// How many bytes they may have.
    #[must_use]
    pub const fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// Whether a run may write so many bytes more.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn has_room(&self, scope: &Scope, run: &RunId, size: u64) -> Result<bool> {
        Ok(self.total(scope, run).await?.has_room_for(size, &self.quotas))
    }

    /// Writes one, for which there is room. `bytes` must have the digest that it says.
    ///
    /// # Errors
    /// Those of the stores. After [`Error::Unavailable`] it may be written; repeating it does no harm.
    pub async fn put(
        &self,
        scope: &Scope,
        run: &RunId,
        artifact: &Artifact,
        (bytes, room): (Bytes, Room),
    ) -> Result<Written> {
        let path = key::artifact_blob(&artifact.sha256);
        let put = claim_check::put_once(self.ports.blobs.as_ref(), scope, &path, bytes).await;
        self.usage.settle(scope, room, &put, |is_new| *is_new);
        put?;
        self.enter(scope, run, artifact).await
    }

    /// Keeps a part of one that is too large to be held at once, under the digest that the whole is said to have. Nobody sees it
    /// before [`Artifacts::finish`]. Parts are as [`BlobStore::lay_aside`](crate::store::port::BlobStore::lay_aside) wants them.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn lay_aside(&self, scope: &Scope, sha256: &str, upload: Upload, at: u64, bytes: Bytes) -> Result<()> {
        let (container, path) = (key::org_container(scope.org()), key::artifact_blob(sha256));
        self.ports.blobs.lay_aside(&container, &path, upload, at, bytes).await
    }

    /// Gives up what was kept of one.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn throw_away(&self, scope: &Scope, sha256: &str, upload: Upload) -> Result<()> {
        let (container, path) = (key::org_container(scope.org()), key::artifact_blob(sha256));
        self.ports.blobs.throw_away(&container, &path, upload).await
    }

    /// Writes one whose parts were all kept, and for which there is room. They must have the digest that it says.
    ///
    /// # Errors
    /// Those of the stores. After [`Error::Unavailable`] it may be written; writing it all again does no harm.
    /// [`Error::PreconditionFailed`] when its parts are gone, so that they must be written again.
    pub async fn finish(
        &self,
        scope: &Scope,
        run: &RunId,
        artifact: &Artifact,
        (upload, room): (Upload, Room),
    ) -> Result<Written> {
        let made = self.made(scope, artifact, upload).await;
        self.usage.settle(scope, room, &made, |is_new| *is_new);
        made?;
        self.enter(scope, run, artifact).await
    }

    /// The blob of its parts; whether it is new.
    async fn made(&self, scope: &Scope, artifact: &Artifact, upload: Upload) -> Result<bool> {
        let (container, path) = (key::org_container(scope.org()), key::artifact_blob(&artifact.sha256));
        let blobs = &self.ports.blobs;
        let mut tries = 0;
        loop {
            let lost = match blobs.assemble(&container, &path, upload, artifact.size).await {
                Ok(()) => return Ok(true),
                // The same bytes are there, since their path is their digest; or they were when the parts got lost.
                Err(error) if error.is_conflict() => error,
                Err(error) => return Err(error),
            };
            if blobs.touch(&container, &path).await? {
                if let Err(error) = blobs.throw_away(&container, &path, upload).await {
                    tracing::warn!(error = %error, "parts of an artifact that was there already stay for a while");
                }
                return Ok(false);
            }
            tries += 1;
            if tries == TRIES || matches!(lost, Error::PreconditionFailed { .. }) {
                return Err(lost);
            }
        }
    }

    /// Its row, and the sums of its run.
    async fn enter(&self, scope: &Scope, run: &RunId, artifact: &Artifact) -> Result<Written> {
        let (table, partition) = (key::org_table(scope.org()), key::run(run));
        let row = key::artifact_row(&artifact.id);
        // A map writes artifacts of one run on as many workers as there are.
        let _turn = self.turns.take(format!("{table}/{partition}")).await;
        for lost in 0..TRIES {
            let operations = match self.ports.tables.get(&table, &partition, &row).await? {
                Some(_) => vec![Operation::Upsert(row.clone(), properties(artifact))],
                None => {
                    let total = self.total(scope, run).await?;
                    if !total.has_room_for(artifact.size, &self.quotas) {
                        return Ok(Written::Full);
                    }
                    let sum = Properties::new()
                        .with("v", SCHEMA)
                        .with("count", signed(total.count + 1))
                        .with("bytes", signed(total.bytes + artifact.size));
                    let total_row = key::artifact_total_row();
                    vec![
                        Operation::Insert(row.clone(), properties(artifact)),
                        match total.etag {
                            None => Operation::Insert(total_row, sum),
                            Some(etag) => Operation::Replace(total_row, sum, Match::Exactly(etag)),
                        },
                    ]
                }
            };
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => return Ok(Written::Done),
                Err(error) if error.is_conflict() => turns::pause(lost).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Throttled {
            source: "others kept writing artifacts of the same run".into(),
        })
    }

    /// One of a run, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope, run: &RunId, id: &ArtifactId) -> Result<Option<Artifact>> {
        let (table, partition) = (key::org_table(scope.org()), key::run(run));
        let row = self
            .ports
            .tables
            .get(&table, &partition, &key::artifact_row(id))
            .await?;
        row.as_ref().map(read_row).transpose()
    }

    /// All of a run, by name, and of one name the newest first; but for rows that can't be read.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list(&self, scope: &Scope, run: &RunId) -> Result<Vec<Artifact>> {
        let mut artifacts = Vec::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::run(run))
                .prefix(key::ARTIFACTS)?
                .after(continuation);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in &page.entities {
                let mut why = Vec::new();
                artifacts.extend(known(read_row(row), &mut why));
                noted(row, &why);
            }
            continuation = page.next;
            if continuation.is_none() {
                break;
            }
        }
        artifacts.sort_by(|a, b| (&a.name, b.created_at, &a.id).cmp(&(&b.name, a.created_at, &b.id)));
        Ok(artifacts)
    }

    /// A part of its bytes: at most `length`, fewer at the end.
    ///
    /// # Errors
    /// Those of the blob store; [`Error::Corrupt`] when the bytes are gone, or, where all are read, are not those that were
    /// written.
    pub async fn read(&self, scope: &Scope, artifact: &Artifact, offset: u64, length: u64) -> Result<Bytes> {
        let (container, path) = (key::org_container(scope.org()), key::artifact_blob(&artifact.sha256));
        let bytes = self.ports.blobs.read(&container, &path, offset, length).await?;
        let bytes =
            bytes.ok_or_else(|| Error::corrupt(format!("the bytes of artifact `{}` are missing", artifact.id)))?;
        let expected = artifact.size.saturating_sub(offset).min(length);
        let whole = offset == 0 && expected == artifact.size;
        if bytes.len() as u64 != expected || (whole && sha256_hex(&bytes) != artifact.sha256) {
            let message = format!("the bytes of artifact `{}` are others than those written", artifact.id);
            return Err(Error::corrupt(message));
        }
        Ok(bytes)
    }

    /// Its bytes in a range, as they are taken: [`claim_check::coming`].
    ///
    /// # Errors
    /// Those of the blob store; [`Error::Corrupt`] when the first of them are not there.
    pub async fn coming(&self, scope: &Scope, artifact: &Artifact, range: Range<u64>) -> Result<Coming> {
        let named = Named {
            path: key::artifact_blob(&artifact.sha256),
            size: artifact.size,
            sha256: artifact.sha256.clone(),
        };
        claim_check::coming(&self.ports.blobs, scope, named, range).await
    }

    async fn total(&self, scope: &Scope, run: &RunId) -> Result<Total> {
        let (table, partition) = (key::org_table(scope.org()), key::run(run));
        let row = self
            .ports
            .tables
            .get(&table, &partition, &key::artifact_total_row())
            .await?;
        let Some(row) = row else {
            return Ok(Total::default());
        };
        Ok(Total {
            count: unsigned(row.properties.require_int("count")?),
            bytes: unsigned(row.properties.require_int("bytes")?),
            etag: Some(row.etag),
        })
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn properties(artifact: &Artifact) -> Properties {
    Properties::new()
        .with("v", SCHEMA)
        .with("name", artifact.name.clone())
        .with("size", signed(artifact.size))
        .with("sha256", artifact.sha256.clone())
        .with_some("mediaType", artifact.media_type.clone())
        .with("step", artifact.step.clone())
        .with("attempt", artifact.attempt.to_string())
        .with("createdAt", artifact.created_at)
}

fn read_row(row: &Entity) -> Result<Artifact> {
    let properties = &row.properties;
    let id = row.row.as_str().strip_prefix(key::ARTIFACTS).unwrap_or_default();
    let corrupt = || Error::corrupt("an artifact's row can't be read");
    Ok(Artifact {
        id: id.parse().map_err(|_| corrupt())?,
        name: properties.require_text("name")?.to_owned(),
        size: unsigned(properties.require_int("size")?),
        sha256: properties.require_text("sha256")?.to_owned(),
        media_type: properties.text("mediaType")?.map(str::to_owned),
        step: properties.require_text("step")?.to_owned(),
        attempt: properties.require_text("attempt")?.parse().map_err(|_| corrupt())?,
        created_at: properties.require_time("createdAt")?,
    })
}
