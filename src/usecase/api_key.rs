//! Function keys, as the operator manages them.

use std::time::Duration;

use serde_json::json;

use super::on_record::recorded;
use super::{Context, Result};
use crate::audit::{Event as AuditEvent, Record};
use crate::domain::KeyId;
use crate::store::port::Continuation;
use crate::store::repo::identity::Listed;
use crate::store::repo::keys;
pub use crate::store::repo::keys::{Created, KeyRecord, NewKey};
use crate::tenancy::PlatformScope;

/// Makes a key. Its text is in the answer and nowhere else.
///
/// # Errors
/// When the key has no right, or storage fails.
pub async fn create(cx: &Context, platform: &PlatformScope, new: NewKey) -> Result<Created> {
    let new = cx.keys.prepare(platform, new)?;
    let record = || record(cx, platform, AuditEvent::KeyCreated, &new.record);
    let create = async { Ok(cx.keys.create(platform, &new).await?) };
    recorded(cx, platform, record, create).await?;
    Ok(new)
}

/// Some keys.
///
/// # Errors
/// When storage fails.
pub async fn list(
    cx: &Context,
    platform: &PlatformScope,
    limit: usize,
    after: Option<Continuation>,
) -> Result<Listed<KeyRecord>> {
    Ok(cx.keys.list(platform, limit, after).await?)
}

/// Refuses a key from now on.
///
/// # Errors
/// When there is no such key, or storage fails.
pub async fn revoke(cx: &Context, platform: &PlatformScope, id: &KeyId) -> Result<KeyRecord> {
    let before = cx.keys.get(platform, id).await?;
    let before = before.ok_or_else(|| keys::Error::Unknown(id.clone()))?;
    let record = || record(cx, platform, AuditEvent::KeyRevoked, &before);
    let revoke = async { Ok(cx.keys.revoke(platform, id).await?) };
    recorded(cx, platform, record, revoke).await
}

/// Makes a successor with the same rights; the old key stays good for `overlap`.
///
/// # Errors
/// When there is no such key, it is no longer good, or storage fails.
pub async fn rotate(cx: &Context, platform: &PlatformScope, id: &KeyId, overlap: Duration) -> Result<Created> {
    let successor = cx.keys.prepare_successor(platform, id).await?;
    let record = || {
        cx.audit
            .by(platform, AuditEvent::KeyRotated)
            .resource("key", id.as_str())
            .detail(&json!({"successor": successor.record.id, "overlapSeconds": overlap.as_secs()}))
    };
    let rotate = async { Ok(cx.keys.rotate(platform, id, &successor, overlap).await?) };
    recorded(cx, platform, record, rotate).await?;
    Ok(successor)
}

fn record(cx: &Context, platform: &PlatformScope, event: AuditEvent, key: &KeyRecord) -> Record {
    cx.audit
        .by(platform, event)
        .resource("key", key.id.as_str())
        .detail(&json!({
            "label": key.name.as_str(),
            "organizations": key.organizations,
            "rights": key.scopes,
            "expiresAt": key.expires_at,
        }))
}
