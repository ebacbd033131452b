//! Values over the inline limit go to a blob named by their digest, and come back checked.

use bytes::Bytes;
use serde_json::Value;

use super::error::Error;
use super::key;
use super::port::{BlobStore, Put, Result};
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
    match blobs
        .put(
            &key::org_container(scope.org()),
            &key::value_blob(&sha256),
            Bytes::from(text),
            Put::Create,
        )
        .await
    {
        Ok(()) | Err(Error::AlreadyExists { .. }) => Ok(ClaimCheck { sha256, size }),
        Err(error) => Err(error),
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
