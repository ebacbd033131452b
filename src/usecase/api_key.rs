//! Function keys, as the operator manages them.

use std::time::Duration;

use serde_json::json;

use super::{Context, Result};
use crate::audit::Event as AuditEvent;
use crate::domain::KeyId;
use crate::store::port::Continuation;
use crate::store::repo::identity::Listed;
pub use crate::store::repo::keys::{Created, KeyRecord, NewKey};
use crate::tenancy::PlatformScope;

/// Makes a key. Its text is in the answer and nowhere else.
///
/// # Errors
/// When the key has no right, or storage fails.
pub async fn create(cx: &Context, platform: &PlatformScope, new: NewKey) -> Result<Created> {
    let created = cx.keys.create(platform, new).await?;
    record(cx, platform, AuditEvent::KeyCreated, &created.record).await?;
    Ok(created)
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
    let revoked = cx.keys.revoke(platform, id).await?;
    record(cx, platform, AuditEvent::KeyRevoked, &revoked).await?;
    Ok(revoked)
}

/// Makes a successor with the same rights; the old key stays good for `overlap`.
///
/// # Errors
/// When there is no such key, it is no longer good, or storage fails.
pub async fn rotate(cx: &Context, platform: &PlatformScope, id: &KeyId, overlap: Duration) -> Result<Created> {
    let created = cx.keys.rotate(platform, id, overlap).await?;
    let record = cx
        .audit
        .by(platform, AuditEvent::KeyRotated)
        .resource("key", id.as_str())
        .detail(&json!({"successor": created.record.id, "overlapSeconds": overlap.as_secs()}));
    let linked = cx.audit.append(platform, record).await?;
    cx.audit.index(platform, &[linked]).await?;
    Ok(created)
}

async fn record(cx: &Context, platform: &PlatformScope, event: AuditEvent, key: &KeyRecord) -> Result<()> {
    let record = cx.audit.by(platform, event).resource("key", key.id.as_str()).detail(&json!({
        "label": key.name.as_str(),
        "organizations": key.organizations,
        "rights": key.scopes,
        "expiresAt": key.expires_at,
    }));
    let linked = cx.audit.append(platform, record).await?;
    cx.audit.index(platform, &[linked]).await?;
    Ok(())
}
