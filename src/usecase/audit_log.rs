//! Read the audit log.

use super::{Context, Error, Result};
use crate::authz::{Action, Resource};
pub use crate::store::repo::audit_log::{AuditPage, AuditQuery, Entry};
use crate::tenancy::Scope;

/// A page of an organization's records, newest first.
///
/// # Errors
/// When the scope may not, or the cursor is none.
pub async fn list(cx: &Context, scope: &Scope, query: AuditQuery) -> Result<AuditPage> {
    scope.authorize(Action::List, Resource::Audit)?;
    let cursor = query.cursor.is_some();
    let page = cx.audit.list(scope, query).await;
    page.map_err(|error| Error::of_page(error, cursor))
}
