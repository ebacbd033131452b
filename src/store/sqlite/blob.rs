//! Blobs: their bytes in chunks, so that a range is read and an append is written without touching the rest.
//!
//! What is laid aside is a blob under a name that no blob can have, so making a blob of it moves no bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::connection::{Failure, Session};
use super::writer::{Tx, stamped};
use super::{Database, missing};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::store::cursor;
use crate::store::error::Error;
use crate::store::port::{
    BlobInfo, BlobPage, BlobPath, BlobStore, ContainerName, Continuation, ETag, MAX_APPEND_BYTES, MAX_PAGE, Match, Put,
    Result, Upload, check_part,
};

/// Most bytes in a chunk.
const CHUNK: usize = 64 * 1024;
/// What the names of blobs begin with that are laid aside: behind every path, and part of none.
const ASIDE: &str = "~";
/// How long something is kept aside.
const KEPT_ASIDE: Duration = Duration::from_secs(24 * 60 * 60);

/// The blob port.
#[derive(Debug)]
pub(super) struct Blobs {
    database: Database,
    clock: Arc<dyn Clock>,
}

impl Blobs {
    pub(super) fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }
}

struct Found {
    id: i64,
    size: u64,
    appendable: bool,
    version: i64,
}

fn aside(path: &BlobPath, upload: Upload) -> String {
    format!("{ASIDE}{:016x}/{path}", upload.0)
}

fn parts_missing(path: &BlobPath) -> Failure {
    Error::PreconditionFailed {
        what: path.to_string(),
        index: 0,
    }
    .into()
}

fn container_id(connection: &Connection, container: &ContainerName) -> std::result::Result<i64, Failure> {
    let id = connection
        .prepare_cached("SELECT id FROM container WHERE name = ?1")?
        .query_row([container.as_str()], |row| row.get(0))
        .optional()?;
    id.ok_or_else(|| missing(container.as_str()).into())
}

fn find(connection: &Connection, container: &ContainerName, path: &str) -> std::result::Result<Option<Found>, Failure> {
    let container = container_id(connection, container)?;
    let found = connection
        .prepare_cached("SELECT id, size, appendable, version FROM blob WHERE container = ?1 AND path = ?2")?
        .query_row(params![container, path], |row| {
            Ok(Found {
                id: row.get(0)?,
                size: row.get(1)?,
                appendable: row.get(2)?,
                version: row.get(3)?,
            })
        })
        .optional()?;
    Ok(found)
}

fn insert(
    tx: &Tx<'_>,
    (container, path): (&ContainerName, &str),
    size: usize,
    appendable: bool,
    now: Timestamp,
) -> std::result::Result<i64, Failure> {
    let container = container_id(tx.connection, container)?;
    let id = tx.next();
    tx.connection
        .prepare_cached(
            "INSERT INTO blob (id, container, path, size, appendable, version, modified)
             VALUES (?1, ?2, ?3, ?4, ?5, ?1, ?6)",
        )?
        .execute(params![id, container, path, size, appendable, now.millis()])?;
    Ok(id)
}

fn remove(tx: &Tx<'_>, blob: i64) -> std::result::Result<(), Failure> {
    tx.connection
        .prepare_cached("DELETE FROM blob WHERE id = ?1")?
        .execute([blob])?;
    Ok(())
}

fn write_chunks(tx: &Tx<'_>, blob: i64, at: u64, bytes: &[u8]) -> std::result::Result<(), Failure> {
    let mut statement = tx
        .connection
        .prepare_cached("INSERT INTO chunk (blob, start, bytes) VALUES (?1, ?2, ?3)")?;
    let mut start = at;
    for chunk in bytes.chunks(CHUNK) {
        statement.execute(params![blob, start, chunk])?;
        start += chunk.len() as u64;
    }
    Ok(())
}

/// The bytes from `start` to `end` (excluded), which lie within the blob.
fn read_chunks(connection: &Connection, blob: i64, start: u64, end: u64) -> std::result::Result<Bytes, Failure> {
    let mut out = Vec::with_capacity(usize::try_from(end.saturating_sub(start)).unwrap_or(0));
    let mut statement = connection.prepare_cached(
        "SELECT start, bytes FROM chunk WHERE blob = ?1 AND start < ?3
         AND start >= (SELECT max(start) FROM chunk WHERE blob = ?1 AND start <= ?2) ORDER BY start",
    )?;
    let mut rows = statement.query(params![blob, start, end])?;
    while let Some(row) = rows.next()? {
        let at: u64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        // Both lie in the chunk, so they fit.
        let skip = usize::try_from(start.saturating_sub(at))
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let stop = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
        out.extend_from_slice(&bytes[skip..stop.max(skip)]);
    }
    if out.len() as u64 != end.saturating_sub(start) {
        return Err(Error::corrupt("a blob lacks some of its bytes").into());
    }
    Ok(out.into())
}

#[async_trait]
impl BlobStore for Blobs {
    async fn create_container(&self, container: &ContainerName) -> Result<()> {
        let container = container.clone();
        let create = move |tx: &Tx<'_>| {
            tx.connection
                .prepare_cached("INSERT INTO container (id, name) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?
                .execute(params![tx.next(), container.as_str()])?;
            Ok(())
        };
        self.database.write("creating a container", create).await
    }

    async fn delete_container(&self, container: &ContainerName) -> Result<()> {
        let container = container.clone();
        let delete = move |tx: &Tx<'_>| {
            tx.connection
                .prepare_cached("DELETE FROM container WHERE name = ?1")?
                .execute([container.as_str()])?;
            Ok(())
        };
        self.database.write("deleting a container", delete).await
    }

    async fn put(&self, container: &ContainerName, path: &BlobPath, bytes: Bytes, put: Put) -> Result<()> {
        let (container, path) = (container.clone(), path.clone());
        let now = self.clock.now();
        let write = move |tx: &Tx<'_>| {
            match (find(tx.connection, &container, path.as_str())?, put) {
                (Some(_), Put::Create) => {
                    return Err(Error::AlreadyExists {
                        what: path.to_string(),
                        index: 0,
                    }
                    .into());
                }
                (Some(found), Put::Overwrite) => remove(tx, found.id)?,
                (None, _) => {}
            }
            let id = insert(tx, (&container, path.as_str()), bytes.len(), false, now)?;
            write_chunks(tx, id, 0, &bytes)
        };
        self.database.write("writing a blob", write).await
    }

    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>> {
        let (container, path) = (container.clone(), path.clone());
        let get = move |session: &Session| {
            let Some(found) = find(&session.connection, &container, path.as_str())? else {
                return Ok(None);
            };
            if found.size > limit {
                return Err(Error::TooLarge {
                    what: path.to_string(),
                    size: usize::try_from(found.size).unwrap_or(usize::MAX),
                    limit: usize::try_from(limit).unwrap_or(usize::MAX),
                    unit: "bytes",
                }
                .into());
            }
            read_chunks(&session.connection, found.id, 0, found.size).map(Some)
        };
        self.database.read("reading a blob", get).await
    }

    async fn read(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>> {
        let (container, path) = (container.clone(), path.clone());
        let read = move |session: &Session| {
            let Some(found) = find(&session.connection, &container, path.as_str())? else {
                return Ok(None);
            };
            let start = offset.min(found.size);
            let end = offset.saturating_add(length).min(found.size);
            read_chunks(&session.connection, found.id, start, end).map(Some)
        };
        self.database.read("reading a blob", read).await
    }

    async fn append(&self, container: &ContainerName, path: &BlobPath, at: u64, bytes: Bytes) -> Result<()> {
        if bytes.len() > MAX_APPEND_BYTES {
            return Err(Error::TooLarge {
                what: path.to_string(),
                size: bytes.len(),
                limit: MAX_APPEND_BYTES,
                unit: "bytes",
            });
        }
        if bytes.is_empty() {
            return Err(Error::Malformed {
                what: path.to_string(),
                expected: "append of at least one byte",
            });
        }
        let (container, path) = (container.clone(), path.clone());
        let now = self.clock.now();
        let append = move |tx: &Tx<'_>| {
            let elsewhere = || Error::PreconditionFailed {
                what: path.to_string(),
                index: 0,
            };
            let id = match find(tx.connection, &container, path.as_str())? {
                Some(found) if !found.appendable => {
                    return Err(Error::AlreadyExists {
                        what: path.to_string(),
                        index: 0,
                    }
                    .into());
                }
                Some(found) if found.size == at => found.id,
                None if at == 0 => insert(tx, (&container, path.as_str()), 0, true, now)?,
                Some(_) | None => return Err(elsewhere().into()),
            };
            write_chunks(tx, id, at, &bytes)?;
            tx.connection
                .prepare_cached("UPDATE blob SET size = size + ?2, version = ?3, modified = ?4 WHERE id = ?1")?
                .execute(params![id, bytes.len(), tx.next(), now.millis()])?;
            Ok(())
        };
        self.database.write("appending to a blob", append).await
    }

    async fn lay_aside(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        upload: Upload,
        at: u64,
        bytes: Bytes,
    ) -> Result<()> {
        check_part(path, at, bytes.len())?;
        let (container, path, name) = (container.clone(), path.clone(), aside(path, upload));
        let now = self.clock.now();
        let write = move |tx: &Tx<'_>| {
            let id = match find(tx.connection, &container, &name)? {
                Some(found) if found.size == at => found.id,
                // A repeat.
                Some(found) if found.size == at + bytes.len() as u64 => return Ok(()),
                None if at == 0 => {
                    // Whoever begins takes away what others have left for good.
                    let before = now.minus(KEPT_ASIDE).millis();
                    tx.connection
                        .prepare_cached("DELETE FROM blob WHERE container = ?1 AND path >= ?2 AND modified < ?3")?
                        .execute(params![container_id(tx.connection, &container)?, ASIDE, before])?;
                    insert(tx, (&container, &name), 0, false, now)?
                }
                Some(_) | None => return Err(parts_missing(&path)),
            };
            write_chunks(tx, id, at, &bytes)?;
            tx.connection
                .prepare_cached("UPDATE blob SET size = size + ?2, modified = ?3 WHERE id = ?1")?
                .execute(params![id, bytes.len(), now.millis()])?;
            Ok(())
        };
        self.database.write("laying a part of a blob aside", write).await
    }

    async fn assemble(&self, container: &ContainerName, path: &BlobPath, upload: Upload, size: u64) -> Result<()> {
        let (container, path, name) = (container.clone(), path.clone(), aside(path, upload));
        let now = self.clock.now();
        let write = move |tx: &Tx<'_>| {
            if find(tx.connection, &container, path.as_str())?.is_some() {
                return Err(Error::AlreadyExists {
                    what: path.to_string(),
                    index: 0,
                }
                .into());
            }
            let found = find(tx.connection, &container, &name)?.filter(|found| found.size == size);
            let found = found.ok_or_else(|| parts_missing(&path))?;
            tx.connection
                .prepare_cached("UPDATE blob SET path = ?2, version = ?3, modified = ?4 WHERE id = ?1")?
                .execute(params![found.id, path.as_str(), tx.next(), now.millis()])?;
            Ok(())
        };
        self.database.write("making a blob of its parts", write).await
    }

    async fn throw_away(&self, container: &ContainerName, path: &BlobPath, upload: Upload) -> Result<()> {
        let (container, name) = (container.clone(), aside(path, upload));
        let delete = move |tx: &Tx<'_>| match find(tx.connection, &container, &name)? {
            Some(found) => remove(tx, found.id),
            None => Ok(()),
        };
        self.database.write("throwing parts of a blob away", delete).await
    }

    async fn touch(&self, container: &ContainerName, path: &BlobPath) -> Result<bool> {
        let (container, path) = (container.clone(), path.clone());
        let now = self.clock.now();
        let touch = move |tx: &Tx<'_>| {
            let Some(found) = find(tx.connection, &container, path.as_str())? else {
                return Ok(false);
            };
            tx.connection
                .prepare_cached("UPDATE blob SET version = ?2, modified = ?3 WHERE id = ?1")?
                .execute(params![found.id, tx.next(), now.millis()])?;
            Ok(true)
        };
        self.database.write("touching a blob", touch).await
    }

    async fn delete(&self, container: &ContainerName, path: &BlobPath, condition: Match) -> Result<bool> {
        let (container, path) = (container.clone(), path.clone());
        let delete = move |tx: &Tx<'_>| {
            let Some(found) = find(tx.connection, &container, path.as_str())? else {
                return Ok(false);
            };
            if let Match::Exactly(etag) = &condition
                && tx.number(&etag.0) != Some(found.version)
            {
                return Err(Error::PreconditionFailed {
                    what: path.to_string(),
                    index: 0,
                }
                .into());
            }
            remove(tx, found.id)?;
            Ok(true)
        };
        self.database.write("deleting a blob", delete).await
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage> {
        let (container, prefix) = (container.clone(), prefix.to_owned());
        let mut from = prefix.clone();
        if let Some(continuation) = &after {
            let start = cursor::read(&[container.as_str(), &prefix], continuation)?;
            from = from.max(start);
        }
        self.database
            .read("listing blobs", move |session| {
                list(session, &container, &prefix, &from)
            })
            .await
    }
}

fn list(
    session: &Session,
    container: &ContainerName,
    prefix: &str,
    from: &str,
) -> std::result::Result<BlobPage, Failure> {
    let id = container_id(&session.connection, container)?;
    let mut statement = session.connection.prepare_cached(
        "SELECT path, size, version, modified FROM blob
             WHERE container = ?1 AND path >= ?2 AND path < ?4 ORDER BY path LIMIT ?3",
    )?;
    let mut rows = statement.query(params![id, from, MAX_PAGE + 1, ASIDE])?;
    let mut page = BlobPage::default();
    while let Some(row) = rows.next()? {
        let path = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if !path.starts_with(prefix) {
            break;
        }
        if page.blobs.len() == MAX_PAGE {
            page.next = Some(cursor::write(&[container.as_str(), prefix], path));
            break;
        }
        let path = BlobPath::new(path).map_err(|_| Error::corrupt("a stored blob path is not a possible one"))?;
        page.blobs.push(BlobInfo {
            path,
            size: row.get(1)?,
            etag: ETag(stamped(&session.stamp, row.get(2)?)),
            modified: Timestamp::from_millis(row.get(3)?),
        });
    }
    Ok(page)
}
