//! Read the audit log.

use super::{Context, Result};
use crate::authz::{Action, Resource};
pub use crate::store::repo::audit_log::{AuditPage, AuditQuery, Entry};
use crate::tenancy::Scope;

/// A page of an organization's records, newest first.
///
/// # Errors
/// When the scope may not, or the cursor is none.
pub async fn list(cx: &Context, scope: &Scope, query: AuditQuery) -> Result<AuditPage> {
    scope.authorize(Action::List, Resource::Audit)?;
    cx.audit.list(scope, query).await.map_err(super::query_run::bad_cursor)
}
