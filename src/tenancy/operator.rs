//! Work across organizations, which is a different type.

use crate::authz::{Principal, Tier};
use crate::domain::OrgId;

use super::Scope;

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
