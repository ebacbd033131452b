//! Values over the inline limit go to a blob named by their digest, and come back checked.

use bytes::Bytes;
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
/// it, since nothing referred to it, doesn't.
///
/// # Errors
/// Those of the blob store.
pub async fn put_once(blobs: &dyn BlobStore, scope: &Scope, path: &BlobPath, bytes: Bytes) -> Result<()> {
    let container = key::org_container(scope.org());
    for _ in 0..TRIES {
        match blobs.put(&container, path, bytes.clone(), Put::Create).await {
            Ok(()) => return Ok(()),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        if blobs.touch(&container, path).await? {
            return Ok(());
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
