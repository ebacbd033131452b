//! What an organization has stored, of what it may.

use super::{Context, Result, policy};
use crate::authz::{Action, Resource};
pub use crate::store::repo::usage::Used;
use crate::tenancy::Scope;

/// What an organization has stored, of what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What it has stored.
    pub used: Used,
    /// How many bytes of artifacts it may have.
    pub artifact_limit: u64,
    /// Who says so: `installation`, `platform` or `organization`.
    pub limited_by: &'static str,
}

/// What an organization has stored, of what it may.
///
/// # Errors
/// When the scope may not, or storage fails.
pub async fn get(cx: &Context, scope: &Scope) -> Result<Usage> {
    scope.authorize(Action::Read, Resource::Organization)?;
    let (artifact_limit, limited_by) = policy::artifact_bytes(cx, scope).await?;
    Ok(Usage {
        used: cx.usage.get(scope).await?,
        artifact_limit,
        limited_by,
    })
}
