//! An authenticated principal and a requested organization → a scope, or a refusal that tells no more than it may.

use crate::authz::{Principal, Role, Tier};
use crate::domain::OrgId;
use crate::error::{Coded, Kind};

use super::Scope;

/// What was looked up about an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
}

/// What was looked up about a person in an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The organization.
    pub org: OrgId,
    /// The role in it.
    pub role: Role,
}

/// Why there is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It doesn't exist, or the person is no member and may not know.
    #[error("organization `{0}` does not exist")]
    Unknown(OrgId),
    /// It doesn't exist, and the caller may know, being let into every one.
    #[error("organization `{0}` does not exist")]
    Absent(OrgId),
    /// It exists and is switched off.
    #[error("organization `{0}` is not active")]
    Inactive(OrgId),
    /// The key is for other organizations. Said whether or not this one exists.
    #[error("this key is not for organization `{0}`")]
    KeyNotForOrganization(OrgId),
}

impl Coded for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown(_) | Self::Absent(_) => Kind::NotFound,
            Self::Inactive(_) | Self::KeyNotForOrganization(_) => Kind::Denied,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) | Self::Absent(_) => "organization_not_found",
            Self::Inactive(_) => "organization_inactive",
            Self::KeyNotForOrganization(_) => "key_not_for_organization",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown(_) => "check `X-Organization-Id`; you must be a member of the organization".into(),
            Self::Absent(_) => {
                "check `X-Organization-Id`; `weft org list` shows the organizations that there are".into()
            }
            Self::Inactive(_) => "an administrator can activate it again".into(),
            Self::KeyNotForOrganization(_) => {
                "use a key of this organization, or add it: `weft keys create --organization`".into()
            }
        })
    }
}

/// The scope of a person: the organization must exist, the person must be a member, and it must be active. Someone who is no
/// member gets the same answer for one that exists as for one that doesn't.
///
/// # Errors
/// [`Refused`].
pub fn resolve(
    requested: &OrgId,
    organization: Option<&Organization>,
    membership: Option<&Membership>,
    principal: Principal,
    tier: Tier,
) -> Result<Scope, Refused> {
    match (organization, membership) {
        (Some(org), Some(member)) if org.id == *requested && member.org == *requested => {
            if org.active {
                Ok(Scope::new(
                    org.id.clone(),
                    org.name.clone(),
                    principal,
                    Some(member.role),
                    tier,
                ))
            } else {
                Err(Refused::Inactive(requested.clone()))
            }
        }
        _ => Err(Refused::Unknown(requested.clone())),
    }
}

/// The scope of a platform administrator who is no member. The caller writes the audit record of the crossing before anything
/// else happens.
///
/// # Errors
/// [`Refused`].
pub fn cross(
    requested: &OrgId,
    organization: Option<&Organization>,
    principal: Principal,
    tier: Tier,
) -> Result<Scope, Refused> {
    match (&principal, organization) {
        (
            Principal::User {
                administrator: true, ..
            },
            Some(org),
        ) if org.id == *requested => {
            if org.active {
                Ok(Scope::new(
                    org.id.clone(),
                    org.name.clone(),
                    principal,
                    Some(Role::Administrator),
                    tier,
                ))
            } else {
                Err(Refused::Inactive(requested.clone()))
            }
        }
        _ => Err(Refused::Unknown(requested.clone())),
    }
}

/// The scope of a system with a key. `allowed` are the key's organizations; none means every one.
///
/// # Errors
/// [`Refused`].
pub fn resolve_key(
    requested: &OrgId,
    organization: Option<&Organization>,
    allowed: &[OrgId],
    principal: Principal,
) -> Result<Scope, Refused> {
    if !allowed.is_empty() && !allowed.contains(requested) {
        return Err(Refused::KeyNotForOrganization(requested.clone()));
    }
    match organization {
        Some(org) if org.id == *requested && org.active => Ok(Scope::new(
            org.id.clone(),
            org.name.clone(),
            principal,
            None,
            Tier::FunctionKey,
        )),
        Some(org) if org.id == *requested => Err(Refused::Inactive(requested.clone())),
        _ => Err(Refused::Absent(requested.clone())),
    }
}
