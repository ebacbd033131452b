//! What happens every minute: chains are sealed.

use serde::Serialize;

use super::{Context, Result};
use crate::tenancy::{self};

/// What a tick did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticked {
    /// Organizations that were looked at.
    pub organizations: usize,
    /// Chain heads that were sealed.
    pub sealed: usize,
    /// Organizations whose chains could not be sealed this time.
    pub failed: usize,
}

/// Seals the heads of the audit chains of every organization, and of the platform.
///
/// # Errors
/// When the organizations can't be listed; a single organization's failure is counted, logged, and tried again at the next
/// tick.
pub async fn tick(cx: &Context) -> Result<Ticked> {
    let platform = tenancy::system("tick");
    let mut ticked = Ticked { sealed: cx.audit.seal_platform_heads(&platform).await?, ..Ticked::default() };
    let mut cursor = None;
    loop {
        let (organizations, next) = cx.identities.list_organizations(&platform, cursor, 200).await?;
        for organization in organizations {
            let scope = tenancy::operator_in(&platform, &organization.id);
            ticked.organizations += 1;
            match cx.audit.seal_heads(&scope).await {
                Ok(sealed) => ticked.sealed += sealed,
                Err(error) => {
                    ticked.failed += 1;
                    tracing::warn!(org.id = %organization.id, error = %error, "audit chains could not be sealed");
                }
            }
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(ticked);
        }
    }
}
