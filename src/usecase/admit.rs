//! Before anything else happens: record who came in by a door that must leave a trace, and who was turned away.

use serde_json::json;

use super::{Context, Result};
use crate::audit::{Event as AuditEvent, LinkedRecord, Record};
use crate::authz::{Caller, Origin, Tier};
use crate::domain::OrgId;
use crate::tenancy::{self, Scope};

/// Records that a function key stands in for user authentication. The call goes on only when the record is durable.
///
/// # Errors
/// When the record can't be written: the call is refused with a retriable 503.
pub async fn key_bypass(cx: &Context, scope: &Scope, caller: &Caller) -> Result<LinkedRecord> {
    let record = cx
        .audit
        .of(AuditEvent::KeyBypass, caller)
        .resource("organization", scope.org().as_str());
    Ok(cx.audit.append(scope, record).await?)
}

/// Records that a platform administrator who is no member acts in an organization.
///
/// # Errors
/// When the record can't be written: the call is refused with a retriable 503.
pub async fn crossing(cx: &Context, scope: &Scope, caller: &Caller) -> Result<LinkedRecord> {
    let record = cx
        .audit
        .of(AuditEvent::AccessCrossed, caller)
        .resource("organization", scope.org().as_str());
    Ok(cx.audit.append(scope, record).await?)
}

/// Lists records of an admitted request that no run has listed.
///
/// # Errors
/// When storage fails: the records are durable in their chain, and missing from the list until `repair_index` is called for it.
pub async fn list(cx: &Context, scope: &Scope, records: &[LinkedRecord]) -> Result<()> {
    Ok(cx.audit.index(scope, records).await?)
}

/// Records that a permitted caller was refused a verb or an organization's resource.
///
/// # Errors
/// When the record can't be written.
pub async fn denied_in(cx: &Context, scope: &Scope, caller: &Caller, code: &str) -> Result<()> {
    let record = cx
        .audit
        .of(AuditEvent::AccessDenied, caller)
        .resource("organization", scope.org().as_str())
        .detail(&json!({"problem": code}));
    write(cx, scope, record).await
}

/// Records that a permitted caller was refused a verb on a route without an organization.
///
/// # Errors
/// When the record can't be written.
pub async fn denied_on_platform(cx: &Context, caller: &Caller, code: &str) -> Result<()> {
    let record = cx.audit.of(AuditEvent::AccessDenied, caller);
    write_platform(cx, record.detail(&json!({"problem": code}))).await
}

/// Records that a function key stands in for user authentication on a route without an organization.
///
/// # Errors
/// When the record can't be written: the call is refused with a retriable 503.
pub async fn key_bypass_of_platform(cx: &Context, caller: &Caller) -> Result<()> {
    if caller.tier != Tier::FunctionKey {
        return Ok(());
    }
    let record = cx.audit.of(AuditEvent::KeyBypass, caller);
    write_platform(cx, record).await
}

/// A request that was not let in, as far as it is known.
#[derive(Debug)]
pub struct Refused<'a> {
    /// The code of the answer.
    pub code: &'static str,
    /// Which kind of credential decided.
    pub credential: &'static str,
    /// Why, more openly than the answer says it.
    pub reason: &'a str,
    /// The name of the key.
    pub key: Option<&'a str>,
    /// The user that was claimed.
    pub claimed_user: Option<&'a str>,
    /// The organization that was asked for.
    pub organization: Option<&'a OrgId>,
}

/// Records a refusal that belongs to no organization: a bad credential, an unknown user, a foreign organization.
///
/// # Errors
/// When the record can't be written.
pub async fn denied(cx: &Context, caller: Option<&Caller>, origin: &Origin, refused: &Refused<'_>) -> Result<()> {
    let mut record = match caller {
        Some(caller) => cx.audit.of(AuditEvent::AccessDenied, caller),
        None => cx.audit.anonymous(AuditEvent::AccessDenied, origin),
    };
    if let (None, Some(claimed)) = (caller, refused.claimed_user) {
        record = record.claimed(claimed);
    }
    // `code` and `credential` as names would have their values redacted.
    let record = record.detail(&json!({
        "problem": refused.code,
        "presented": refused.credential,
        "reason": refused.reason,
        "label": refused.key,
        "organization": refused.organization,
    }));
    write_platform(cx, record).await
}

async fn write_platform(cx: &Context, record: Record) -> Result<()> {
    let platform = tenancy::system("admit");
    let linked = cx.audit.append(&platform, record).await?;
    cx.audit.index(&platform, &[linked]).await?;
    Ok(())
}

async fn write(cx: &Context, scope: &Scope, record: Record) -> Result<()> {
    let linked = cx.audit.append(scope, record).await?;
    cx.audit.index(scope, &[linked]).await?;
    Ok(())
}
