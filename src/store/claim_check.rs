//! Values over the inline limit go to a blob named by their digest, and come back checked.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::Value;

use super::error::Error;
use super::key;
use super::port::{BlobPath, BlobStore, Put, Result};
use crate::domain::{ClaimCheck, INLINE_BYTES, Payload, sha256_hex};
use crate::tenancy::Scope;

/// Keeps a value: small ones as they are, large ones in the organization's container. The same value is stored once.
///
/// # Errors
/// Those of the blob store.
pub async fn save(blobs: &dyn BlobStore, scope: &Scope, value: Value) -> Result<Payload> {
    let text = value.to_string();
    if text.len() <= INLINE_BYTES {
        return Ok(Payload::Inline(value));
    }
    put(blobs, scope, text).await.map(Payload::Claim)
}

/// Keeps a JSON text outside, however short it is.
///
/// # Errors
/// Those of the blob store.
pub async fn put(blobs: &dyn BlobStore, scope: &Scope, text: String) -> Result<ClaimCheck> {
    let sha256 = sha256_hex(text.as_bytes());
    let size = text.len() as u64;
    put_once(blobs, scope, &key::value_blob(&sha256), Bytes::from(text)).await?;
    Ok(ClaimCheck { sha256, size })
}

/// How often a blob is written that is deleted whenever it is there.
const TRIES: u32 = 5;

/// Writes a blob that is named by its bytes, or relies on the one that is there: that is touched, so that whoever is about to delete
/// it, since nothing referred to it, doesn't. Whether it is new.
///
/// # Errors
/// Those of the blob store.
pub async fn put_once(blobs: &dyn BlobStore, scope: &Scope, path: &BlobPath, bytes: Bytes) -> Result<bool> {
    let container = key::org_container(scope.org());
    for _ in 0..TRIES {
        match blobs.put(&container, path, bytes.clone(), Put::Create).await {
            Ok(()) => return Ok(true),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        if blobs.touch(&container, path).await? {
            return Ok(false);
        }
    }
    Err(Error::Throttled {
        source: "what is written is deleted at the same time, again and again".into(),
    })
}

/// Lets another row refer to a value that some row has referred to until now, perhaps the last one that does; whether it is there.
/// Asked before the row is written.
///
/// # Errors
/// Those of the blob store.
pub async fn rely(blobs: &dyn BlobStore, scope: &Scope, payload: &Payload) -> Result<bool> {
    match payload {
        Payload::Inline(_) => Ok(true),
        Payload::Claim(check) => {
            let path = key::value_blob(&check.sha256);
            blobs.touch(&key::org_container(scope.org()), &path).await
        }
    }
}

/// The value that was kept.
///
/// # Errors
/// Those of the blob store; [`Error::Corrupt`] when the blob is gone or is not what was put there.
pub async fn load(blobs: &dyn BlobStore, scope: &Scope, payload: &Payload) -> Result<Value> {
    let check = match payload {
        Payload::Inline(value) => return Ok(value.clone()),
        Payload::Claim(check) => check,
    };
    let path = key::value_blob(&check.sha256);
    let bytes = blobs
        .get(&key::org_container(scope.org()), &path, check.size)
        .await?
        .ok_or_else(|| Error::corrupt(format!("value `{}` is missing", check.sha256)))?;
    if sha256_hex(&bytes) != check.sha256 {
        return Err(Error::corrupt(format!("value `{}` has another digest", check.sha256)));
    }
    serde_json::from_slice(&bytes).map_err(|_| Error::corrupt(format!("value `{}` is not JSON", check.sha256)))
}

/// Bytes that are read from storage at once for somebody who takes them as they come.
const CHUNK: u64 = 2 << 20;

/// A blob that is named by its bytes.
#[derive(Debug, Clone)]
pub struct Named {
    /// Where it is.
    pub path: BlobPath,
    /// How many bytes it has.
    pub size: u64,
    /// Their digest.
    pub sha256: String,
}

impl From<&ClaimCheck> for Named {
    fn from(check: &ClaimCheck) -> Self {
        Self {
            path: key::value_blob(&check.sha256),
            size: check.size,
            sha256: check.sha256.clone(),
        }
    }
}

/// Bytes as they come.
pub type Coming = BoxStream<'static, Result<Bytes>>;

/// The bytes of a blob in a range, which are read as they are taken. All of them end in [`Error::Corrupt`] before the last of them when
/// they are not what was written; of a part of them that can't be told, only that none are missing.
///
/// # Errors
/// Those of the blob store with the first of them, so that storage that is away is an answer and not one that breaks off.
pub async fn coming(blobs: &Arc<dyn BlobStore>, scope: &Scope, named: Named, range: Range<u64>) -> Result<Coming> {
    let range = range.start..range.end.min(named.size);
    let whole = range == (0..named.size);
    let reader = Arc::new(Reader {
        blobs: blobs.clone(),
        scope: scope.clone(),
        named,
    });
    let first = reader.read(range.start, range.end).await?;
    let digest = whole.then(|| aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
    let begin = (Some(first), range.start, digest);
    let bytes = stream::try_unfold(begin, move |(ready, at, mut digest)| {
        let (reader, until) = (reader.clone(), range.end);
        async move {
            if at >= until {
                return Ok(None);
            }
            let bytes = match ready {
                Some(bytes) => bytes,
                None => reader.read(at, until).await?,
            };
            let end = at + bytes.len() as u64;
            if let Some(digest) = &mut digest {
                digest.update(&bytes);
                if end >= until {
                    let sum = digest.clone().finish();
                    let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                    if sum != reader.named.sha256 {
                        return Err(reader.others());
                    }
                }
            }
            Ok(Some((bytes, (None, end, digest))))
        }
    });
    Ok(bytes.boxed())
}

struct Reader {
    blobs: Arc<dyn BlobStore>,
    scope: Scope,
    named: Named,
}

impl Reader {
    async fn read(&self, at: u64, until: u64) -> Result<Bytes> {
        let length = until.saturating_sub(at).min(CHUNK);
        let container = key::org_container(self.scope.org());
        let bytes = self.blobs.read(&container, &self.named.path, at, length).await?;
        bytes
            .filter(|bytes| bytes.len() as u64 == length)
            .ok_or_else(|| self.others())
    }

    fn others(&self) -> Error {
        let path = &self.named.path;
        Error::corrupt(format!("the bytes of `{path}` are others than those written"))
    }
}
