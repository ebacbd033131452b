//! Work across organizations, which is a different type.

use crate::authz::{Action, Caller, Extent, Principal, Resource, Tier, permitted_to_key};
use crate::domain::OrgId;

use super::{Denied, Scope};

/// The proof that somebody may work across organizations: the command line, the timer, a platform administrator.
#[derive(Debug, Clone)]
pub struct PlatformScope {
    principal: Principal,
}

impl PlatformScope {
    /// Who it is.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// For a caller who may use a verb on the platform: an administrator, or a key that is for every organization. A key of some
/// organizations is not one of the platform, whatever its scopes say.
///
/// # Errors
/// [`Denied`].
pub fn platform(caller: &Caller, action: Action) -> Result<PlatformScope, Denied> {
    over_all(caller, action, Resource::Platform)
}

/// For a caller who may use a verb on published code, which every organization runs: an administrator, or a key that is for
/// every organization.
///
/// # Errors
/// [`Denied`].
pub fn publisher(caller: &Caller, action: Action) -> Result<PlatformScope, Denied> {
    over_all(caller, action, Resource::Bundle)
}

/// For a caller who may use a verb on the node library, which every organization uses.
///
/// # Errors
/// [`Denied`].
pub fn librarian(caller: &Caller, action: Action) -> Result<PlatformScope, Denied> {
    over_all(caller, action, Resource::NodeType)
}

fn over_all(caller: &Caller, action: Action, resource: Resource) -> Result<PlatformScope, Denied> {
    let extent = match &caller.principal {
        Principal::User {
            administrator: true, ..
        }
        | Principal::Operator => Extent::All,
        Principal::Service { scopes, .. } if caller.key_organizations.is_empty() => {
            permitted_to_key(scopes, action, resource)
        }
        _ => Extent::None,
    };
    if extent > Extent::None {
        return Ok(PlatformScope {
            principal: caller.principal.clone(),
        });
    }
    Err(Denied {
        action,
        resource,
        hint: format!(
            "a platform administrator may, and a key for every organization with the scope `{}:{}`",
            resource.as_str(),
            action.as_str()
        ),
    })
}

/// For the command line: whoever holds the storage credential holds everything in it.
#[must_use]
pub const fn operator() -> PlatformScope {
    PlatformScope {
        principal: Principal::Operator,
    }
}

/// For `tick` and other parts of Weft that look at every organization.
#[must_use]
pub const fn system(part: &'static str) -> PlatformScope {
    PlatformScope {
        principal: Principal::System { part },
    }
}

/// From the platform into one organization.
#[must_use]
pub fn operator_in(platform: &PlatformScope, org: &OrgId) -> Scope {
    let tier = match platform.principal {
        Principal::Operator => Tier::Terminal,
        _ => Tier::Host,
    };
    Scope::new(org.clone(), org.to_string(), platform.principal.clone(), None, tier)
}
