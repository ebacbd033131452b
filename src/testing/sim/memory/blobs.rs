//! Blobs: whole ones and ones that grow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Defect, Versions, lock, missing};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::store::cursor;
use crate::store::error::Error;
use crate::store::port::{
    BlobInfo, BlobPage, BlobPath, BlobStore, ContainerName, Continuation, ETag, MAX_APPEND_BYTES, MAX_PAGE, Match, Put,
    Result, Upload, check_part,
};

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Growing(BytesMut),
}

#[derive(Debug)]
struct Blob {
    content: Content,
    version: u64,
    modified: Timestamp,
}

impl Blob {
    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Whole(bytes) => bytes,
            Content::Growing(bytes) => bytes,
        }
    }

    fn etag(&self) -> ETag {
        ETag(self.version.to_string())
    }
}

#[derive(Debug, Default)]
struct Container {
    blobs: BTreeMap<BlobPath, Blob>,
    aside: BTreeMap<(BlobPath, u64), BytesMut>,
}

/// The blob port.
#[derive(Debug)]
pub struct Blobs {
    containers: Mutex<BTreeMap<ContainerName, Container>>,
    versions: Arc<Versions>,
    clock: Arc<dyn Clock>,
    defect: Option<Defect>,
}

impl Blobs {
    pub(super) fn new(versions: Arc<Versions>, clock: Arc<dyn Clock>, defect: Option<Defect>) -> Self {
        Self {
            containers: Mutex::default(),
            versions,
            clock,
            defect,
        }
    }

    fn made(&self, content: Content) -> Blob {
        Blob {
            content,
            version: self.versions.next(),
            modified: self.clock.now(),
        }
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn create_container(&self, container: &ContainerName) -> Result<()> {
        lock(&self.containers).entry(container.clone()).or_default();
        Ok(())
    }

    async fn delete_container(&self, container: &ContainerName) -> Result<()> {
        lock(&self.containers).remove(container);
        Ok(())
    }

    async fn put(&self, container: &ContainerName, path: &BlobPath, bytes: Bytes, put: Put) -> Result<()> {
        let mut containers = lock(&self.containers);
        let blobs = &mut containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        if put == Put::Create && blobs.contains_key(path) {
            return Err(Error::AlreadyExists {
                what: path.to_string(),
                index: 0,
            });
        }
        blobs.insert(path.clone(), self.made(Content::Whole(bytes)));
        Ok(())
    }

    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>> {
        let containers = lock(&self.containers);
        let blobs = &containers
            .get(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        let Some(blob) = blobs.get(path) else {
            return Ok(None);
        };
        let size = blob.bytes().len();
        if size as u64 > limit {
            return Err(Error::TooLarge {
                what: path.to_string(),
                size,
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
                unit: "bytes",
            });
        }
        Ok(Some(Bytes::copy_from_slice(blob.bytes())))
    }

    async fn read(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>> {
        let containers = lock(&self.containers);
        let blobs = &containers
            .get(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        let Some(blob) = blobs.get(path) else {
            return Ok(None);
        };
        let bytes = blob.bytes();
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let (start, end) = (place(offset), place(offset.saturating_add(length)));
        Ok(Some(Bytes::copy_from_slice(&bytes[start..end])))
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
        let mut containers = lock(&self.containers);
        let blobs = &mut containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        let elsewhere = || Error::PreconditionFailed {
            what: path.to_string(),
            index: 0,
        };
        match blobs.get_mut(path) {
            Some(Blob {
                content: Content::Whole(_),
                ..
            }) => {
                return Err(Error::AlreadyExists {
                    what: path.to_string(),
                    index: 0,
                });
            }
            Some(Blob {
                content: Content::Growing(held),
                version,
                modified,
            }) if held.len() as u64 == at => {
                held.extend_from_slice(&bytes);
                (*version, *modified) = (self.versions.next(), self.clock.now());
            }
            None if at == 0 => {
                let held = BytesMut::from(bytes.as_ref());
                blobs.insert(path.clone(), self.made(Content::Growing(held)));
            }
            Some(_) | None => return Err(elsewhere()),
        }
        Ok(())
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
        let mut containers = lock(&self.containers);
        let found = containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?;
        let held = found.aside.entry((path.clone(), upload.0)).or_default();
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        if held.len() < start {
            return Err(parts_missing(path));
        }
        held.truncate(start);
        held.extend_from_slice(&bytes);
        Ok(())
    }

    async fn assemble(&self, container: &ContainerName, path: &BlobPath, upload: Upload, size: u64) -> Result<()> {
        let mut containers = lock(&self.containers);
        let found = containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?;
        if found.blobs.contains_key(path) {
            return Err(Error::AlreadyExists {
                what: path.to_string(),
                index: 0,
            });
        }
        let key = (path.clone(), upload.0);
        if found.aside.get(&key).is_none_or(|held| held.len() as u64 != size) {
            return Err(parts_missing(path));
        }
        let held = found.aside.remove(&key).unwrap_or_default();
        // As the service does: what others have laid aside for the same blob is gone.
        found.aside.retain(|(of, _), _| of != path);
        found
            .blobs
            .insert(path.clone(), self.made(Content::Whole(held.freeze())));
        Ok(())
    }

    async fn throw_away(&self, container: &ContainerName, path: &BlobPath, upload: Upload) -> Result<()> {
        let mut containers = lock(&self.containers);
        let found = containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?;
        found.aside.remove(&(path.clone(), upload.0));
        Ok(())
    }

    async fn touch(&self, container: &ContainerName, path: &BlobPath) -> Result<bool> {
        let mut containers = lock(&self.containers);
        let blobs = &mut containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        let Some(blob) = blobs.get_mut(path) else {
            return Ok(false);
        };
        if self.defect != Some(Defect::IgnoresTouches) {
            (blob.version, blob.modified) = (self.versions.next(), self.clock.now());
        }
        Ok(true)
    }

    async fn delete(&self, container: &ContainerName, path: &BlobPath, condition: Match) -> Result<bool> {
        let mut containers = lock(&self.containers);
        let blobs = &mut containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        match (blobs.get(path), condition) {
            (None, _) => return Ok(false),
            (Some(blob), Match::Exactly(etag)) if blob.etag() != etag => {
                return Err(Error::PreconditionFailed {
                    what: path.to_string(),
                    index: 0,
                });
            }
            (Some(_), _) => {}
        }
        Ok(blobs.remove(path).is_some())
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage> {
        let place = [container.as_str(), prefix];
        let start = match &after {
            Some(continuation) => cursor::read(&place, continuation)?,
            None => String::new(),
        };
        let containers = lock(&self.containers);
        let blobs = &containers
            .get(container)
            .ok_or_else(|| missing(container.as_str()))?
            .blobs;
        let mut page = BlobPage::default();
        for (path, blob) in blobs {
            if !path.as_str().starts_with(prefix) || path.as_str() < start.as_str() {
                continue;
            }
            if page.blobs.len() == MAX_PAGE {
                page.next = Some(cursor::write(&place, path.as_str()));
                break;
            }
            page.blobs.push(BlobInfo {
                path: path.clone(),
                size: blob.bytes().len() as u64,
                etag: blob.etag(),
                modified: blob.modified,
            });
        }
        Ok(page)
    }
}

fn parts_missing(path: &BlobPath) -> Error {
    Error::PreconditionFailed {
        what: path.to_string(),
        index: 0,
    }
}
