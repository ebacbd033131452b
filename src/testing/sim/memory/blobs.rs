//! Blobs: whole ones and ones that grow.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{lock, missing};
use crate::store::cursor;
use crate::store::error::Error;
use crate::store::port::{
    BlobInfo, BlobPage, BlobPath, BlobStore, ContainerName, Continuation, MAX_APPEND_BYTES, MAX_PAGE, Put, Result,
};

#[derive(Debug)]
enum Blob {
    Whole(Bytes),
    Growing(BytesMut),
}

impl Blob {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Growing(bytes) => bytes,
        }
    }
}

/// The blob port.
#[derive(Debug, Default)]
pub struct Blobs {
    containers: Mutex<BTreeMap<ContainerName, BTreeMap<BlobPath, Blob>>>,
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
        let blobs = containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?;
        if put == Put::Create && blobs.contains_key(path) {
            return Err(Error::AlreadyExists {
                what: path.to_string(),
                index: 0,
            });
        }
        blobs.insert(path.clone(), Blob::Whole(bytes));
        Ok(())
    }

    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>> {
        let containers = lock(&self.containers);
        let blobs = containers.get(container).ok_or_else(|| missing(container.as_str()))?;
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
        let blobs = containers.get(container).ok_or_else(|| missing(container.as_str()))?;
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
        let blobs = containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?;
        let elsewhere = || Error::PreconditionFailed {
            what: path.to_string(),
            index: 0,
        };
        match blobs.get_mut(path) {
            Some(Blob::Whole(_)) => {
                return Err(Error::AlreadyExists {
                    what: path.to_string(),
                    index: 0,
                });
            }
            Some(Blob::Growing(held)) if held.len() as u64 == at => held.extend_from_slice(&bytes),
            None if at == 0 => {
                blobs.insert(path.clone(), Blob::Growing(BytesMut::from(bytes.as_ref())));
            }
            Some(_) | None => return Err(elsewhere()),
        }
        Ok(())
    }

    async fn delete(&self, container: &ContainerName, path: &BlobPath) -> Result<bool> {
        let mut containers = lock(&self.containers);
        let blobs = containers
            .get_mut(container)
            .ok_or_else(|| missing(container.as_str()))?;
        Ok(blobs.remove(path).is_some())
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage> {
        let place = [container.as_str(), prefix];
        let start = match &after {
            Some(continuation) => cursor::read(&place, continuation)?,
            None => String::new(),
        };
        let containers = lock(&self.containers);
        let blobs = containers.get(container).ok_or_else(|| missing(container.as_str()))?;
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
            });
        }
        Ok(page)
    }
}
