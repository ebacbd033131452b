//! A delivery that a hook's secret has signed → a scope in which it may start runs, and nothing else.

use crate::authz::{Principal, Tier};
use crate::hooks::Verified;

use super::{Organization, Refused, Scope};

/// The scope of a delivery. The signature is the credential, so there is no other way to one of these; the organization must
/// be there and active as for everybody else.
///
/// # Errors
/// [`Refused`].
pub fn deliver(verified: &Verified, organization: Option<&Organization>) -> Result<Scope, Refused> {
    match organization {
        Some(org) if org.id == *verified.org() && org.active => Ok(Scope::new(
            org.id.clone(),
            org.name.clone(),
            Principal::Hook {
                id: verified.hook().clone(),
                name: verified.name().to_owned(),
            },
            None,
            Tier::Hook,
        )),
        Some(org) if org.id == *verified.org() => Err(Refused::Inactive(verified.org().clone())),
        _ => Err(Refused::Unknown(verified.org().clone())),
    }
}
