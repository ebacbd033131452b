//! The proof that a principal may act in an organization.

use crate::authz::{Action, Extent, Principal, Resource, Role, Tier, permitted, permitted_to_key};
use crate::domain::OrgId;
use crate::error::{Coded, Kind};

/// One organization and one principal in it.
#[derive(Debug, Clone)]
pub struct Scope {
    org: OrgId,
    org_name: String,
    principal: Principal,
    role: Option<Role>,
    tier: Tier,
}

/// A verb that the principal may not use here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this caller may not {} a {}", action.as_str(), resource.as_str())]
pub struct Denied {
    /// The verb.
    pub action: Action,
    /// The kind of thing.
    pub resource: Resource,
    /// What would be enough.
    pub hint: String,
}

impl Coded for Denied {
    fn kind(&self) -> Kind {
        Kind::Denied
    }

    fn code(&self) -> &'static str {
        "not_permitted"
    }

    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

impl Scope {
    pub(super) const fn new(
        org: OrgId,
        org_name: String,
        principal: Principal,
        role: Option<Role>,
        tier: Tier,
    ) -> Self {
        Self {
            org,
            org_name,
            principal,
            role,
            tier,
        }
    }

    /// The organization.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        &self.org
    }

    /// The organization's name.
    #[must_use]
    pub fn org_name(&self) -> &str {
        &self.org_name
    }

    /// The principal.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The person's role; services, the system and the operator have none.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        self.role
    }

    /// By which door the principal came in.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// On how much of a kind of thing the principal may use a verb.
    ///
    /// # Errors
    /// [`Denied`] when on none.
    pub fn authorize(&self, action: Action, resource: Resource) -> Result<Extent, Denied> {
        let extent = match (&self.principal, self.role) {
            (Principal::System { .. } | Principal::Operator, _) => Extent::All,
            // A delivery starts runs, and does nothing else.
            (Principal::Hook { .. }, _) if (action, resource) == (Action::Run, Resource::Workflow) => Extent::All,
            (Principal::Hook { .. }, _) => Extent::None,
            (Principal::Service { scopes, .. }, _) => permitted_to_key(scopes, action, resource),
            (Principal::User { .. }, Some(role)) => permitted(role, action, resource),
            (Principal::User { .. }, None) => Extent::None,
        };
        if extent > Extent::None {
            return Ok(extent);
        }
        let hint = match self.principal {
            Principal::Service { .. } => format!("the key needs the scope `{}:{}`", resource.as_str(), action.as_str()),
            _ => "ask an administrator of the organization for a role that may".to_owned(),
        };
        Err(Denied { action, resource, hint })
    }
}
