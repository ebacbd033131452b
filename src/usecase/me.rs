//! What a caller may know about themselves.

use super::{Context, Result};
use crate::authz::{Caller, Principal};
use crate::tenancy::{self, Membership};

/// The organizations that a person is a member of.
///
/// # Errors
/// When storage fails.
pub async fn memberships(cx: &Context, caller: &Caller) -> Result<Vec<Membership>> {
    match &caller.principal {
        Principal::User { id, .. } => Ok(cx.identities.list_memberships(&tenancy::system("me"), id).await?),
        _ => Ok(Vec::new()),
    }
}
