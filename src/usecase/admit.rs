//! Before anything else happens: record who came in by a door that must leave a trace, and who was turned away.

use serde_json::json;

use super::{Context, Result};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Caller, Origin, Principal};
use crate::domain::OrgId;
use crate::tenancy::Scope;

/// Records that a function key stands in for user authentication. The call goes on only when the record is durable.
///
/// # Errors
/// When the record can't be written: the call is refused with a retriable 503.
pub async fn key_bypass(cx: &Context, scope: &Scope, caller: &Caller) -> Result<()> {
    let Principal::Service { name, claimed_user, .. } = &caller.principal else { return Ok(()) };
    let mut record = Record::of(cx.audit.new_id(), cx.clock.now(), AuditEvent::KeyBypass, caller)
        .detail(&json!({"keyName": name, "endpoint": caller.origin.endpoint, "claimed": claimed_user.is_some()}));
    record = record.resource("organization", scope.org().as_str());
    write(cx, scope, record).await
}

/// Records that a platform administrator who is no member acts in an organization.
///
/// # Errors
/// When the record can't be written: the call is refused with a retriable 503.
pub async fn crossing(cx: &Context, scope: &Scope, caller: &Caller) -> Result<()> {
    let record = Record::of(cx.audit.new_id(), cx.clock.now(), AuditEvent::AccessCrossed, caller)
        .resource("organization", scope.org().as_str())
        .detail(&json!({"endpoint": caller.origin.endpoint}));
    write(cx, scope, record).await
}

/// Records that a permitted caller was refused a verb or an organization's resource.
///
/// # Errors
/// When the record can't be written.
pub async fn denied_in(cx: &Context, scope: &Scope, caller: &Caller, code: &str) -> Result<()> {
    let record = Record::of(cx.audit.new_id(), cx.clock.now(), AuditEvent::AccessDenied, caller)
        .resource("organization", scope.org().as_str())
        .detail(&json!({"endpoint": caller.origin.endpoint, "code": code}));
    write(cx, scope, record).await
}

/// Records a refusal that belongs to no organization: a bad credential, an unknown user, a foreign organization.
///
/// # Errors
/// When the record can't be written.
pub async fn denied(
    cx: &Context,
    caller: Option<&Caller>,
    origin: &Origin,
    requested: Option<&OrgId>,
    code: &str,
    credential: &str,
) -> Result<()> {
    let (id, now) = (cx.audit.new_id(), cx.clock.now());
    let record = match caller {
        Some(caller) => Record::of(id, now, AuditEvent::AccessDenied, caller),
        None => Record::anonymous(id, now, AuditEvent::AccessDenied, origin),
    };
    let record = record.detail(&json!({
        "endpoint": origin.endpoint,
        "code": code,
        "credential": credential,
        "requestedOrganization": requested,
    }));
    let sealed = cx.audit.seal(None, record).await?;
    cx.audit.write_platform(sealed).await?;
    Ok(())
}

async fn write(cx: &Context, scope: &Scope, record: Record) -> Result<()> {
    let sealed = cx.audit.seal(Some(scope), record).await?;
    cx.audit.write(scope, sealed.clone()).await?;
    cx.audit.index(scope, vec![sealed]).await?;
    Ok(())
}
