//! Who is calling, and in which organization.
//!
//! A request's headers and query are read once ([`RequestFacts`]), what must be known is looked up, and one pure function
//! ([`decide`]) says who it is or why nobody. `docs/auth.md` has the tiers, the trust rules and the status table. Writing the
//! audit records of a bypass, a crossing or a denial is the HTTP layer's: it finds all that they need in [`Caller`],
//! [`Admission`] and [`Refusal`]. Nothing here logs a credential.

mod client_principal;
mod decide;
mod facts;
mod refusal;
mod source;
mod trust;

use std::sync::Arc;

pub use client_principal::{ClientPrincipal, MAX_PRINCIPAL_BYTES, Malformed, Shape, read as read_client_principal};
pub use decide::{
    Decision, LookedUp, MAX_CLAIMED_USER, Needed, credential_kind, decide, needed, requested_organization,
};
pub use facts::{Given, MAX_KEY_BYTES, Request, RequestFacts};
pub use refusal::{Attempted, Code, CredentialKind, Refusal};
pub use source::{SourceAddress, SourceSettings, source_address};
pub use trust::{PrincipalSource, Trust, TrustSettings, WayIn, is_local_host, says_enabled, trust};

use crate::authz::{Caller, Principal, Tier};
use crate::clock::Clock;
use crate::domain::OrgId;
use crate::store::repo::identity::Identities;
use crate::store::repo::keys::Keys;
use crate::tenancy::{Scope, cross, resolve, resolve_key};

/// What the operator says.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// About who may be believed.
    pub trust: TrustSettings,
    /// About the way in.
    pub source: SourceSettings,
}

/// A caller in an organization, by the right that let them in.
#[derive(Debug, Clone)]
pub enum Admission {
    /// A person who is a member.
    Member(Scope),
    /// A system with a key. A warning-level audit record is written before anything else happens.
    Key(Scope),
    /// A platform administrator who is no member. An audit record of the crossing is written before anything else happens.
    Crossing(Scope),
}

impl Admission {
    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        match self {
            Self::Member(scope) | Self::Key(scope) | Self::Crossing(scope) => scope,
        }
    }

    /// The scope, for keeping.
    #[must_use]
    pub fn into_scope(self) -> Scope {
        match self {
            Self::Member(scope) | Self::Key(scope) | Self::Crossing(scope) => scope,
        }
    }
}

/// Looks up what a decision needs, and decides.
#[derive(Debug, Clone)]
pub struct Authenticator {
    identities: Arc<Identities>,
    keys: Arc<Keys>,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// Over the repositories.
    #[must_use]
    pub const fn new(identities: Arc<Identities>, keys: Arc<Keys>, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            identities,
            keys,
            settings,
            clock,
        }
    }

    /// Reads a request.
    #[must_use]
    pub fn facts(&self, request: &Request<'_>) -> RequestFacts {
        RequestFacts::read(request, &self.settings.source)
    }

    /// Who it is.
    ///
    /// # Errors
    /// A [`Refusal`]; also when what must be looked up can't be.
    pub async fn authenticate(&self, facts: &RequestFacts) -> Result<Caller, Refusal> {
        let trust = trust(&self.settings.trust, &facts.way);
        let mut looked_up = LookedUp::default();
        match needed(facts, &trust) {
            Needed::Nothing => {}
            Needed::Key(secret) => match self.keys.find(secret).await {
                Ok(found) => looked_up.key = found,
                Err(error) => {
                    return Err(Refusal::unavailable(
                        &error,
                        Attempted::with(CredentialKind::FunctionKey),
                    ));
                }
            },
            Needed::Person(identity) => match self.identities.person(&identity).await {
                Ok(found) => looked_up.person = found,
                Err(error) => {
                    let mut audit = Attempted::with(CredentialKind::ClientPrincipal);
                    audit.identity = Some(identity.to_string());
                    return Err(Refusal::unavailable(&error, audit));
                }
            },
        }
        let caller = decide(facts, &looked_up, &trust, self.clock.now())?;
        if let (Some(record), Given::Once(secret)) = (&looked_up.key, &facts.key) {
            self.keys.note_use(record, secret);
        }
        Ok(caller)
    }

    /// The caller's scope in an organization.
    ///
    /// # Errors
    /// A [`Refusal`] that tells no more than the caller may know; also when what must be looked up can't be.
    pub async fn organization(&self, caller: &Caller, requested: &OrgId) -> Result<Admission, Refusal> {
        let attempted = || attempted(caller, requested);
        let organization = self
            .identities
            .organization(requested)
            .await
            .map_err(|error| Refusal::unavailable(&error, attempted()))?;
        let principal = caller.principal.clone();
        let admitted = match &caller.principal {
            Principal::Service { .. } => {
                resolve_key(requested, organization.as_ref(), &caller.key_organizations, principal).map(Admission::Key)
            }
            Principal::User { id, administrator, .. } => {
                // Looked up whether or not the organization exists, so that the time tells nothing either.
                let membership = self
                    .identities
                    .membership(id, requested)
                    .await
                    .map_err(|error| Refusal::unavailable(&error, attempted()))?;
                if *administrator && membership.is_none() {
                    cross(requested, organization.as_ref(), principal, caller.tier).map(Admission::Crossing)
                } else {
                    resolve(
                        requested,
                        organization.as_ref(),
                        membership.as_ref(),
                        principal,
                        caller.tier,
                    )
                    .map(Admission::Member)
                }
            }
            // None comes in by a request with an organization's header; `resolve` without a membership says that there is no such organization.
            Principal::System { .. } | Principal::Hook { .. } | Principal::Operator => {
                resolve(requested, None, None, principal, caller.tier).map(Admission::Member)
            }
        };
        admitted.map_err(|refused| Refusal::of(&refused, attempted()))
    }
}

fn attempted(caller: &Caller, requested: &OrgId) -> Attempted {
    let mut audit = Attempted::with(CredentialKind::None);
    match &caller.principal {
        Principal::Service {
            key,
            name,
            claimed_user,
            ..
        } => {
            audit.credential = CredentialKind::FunctionKey;
            audit.key = Some((key.clone(), name.clone()));
            audit.claimed_user.clone_from(claimed_user);
            audit.identity.clone_from(&caller.also_principal);
        }
        Principal::User { id, .. } => {
            audit.credential = match caller.tier {
                Tier::Session => CredentialKind::Session,
                _ => CredentialKind::ClientPrincipal,
            };
            audit.user = Some(id.clone());
        }
        Principal::System { .. } | Principal::Hook { .. } | Principal::Operator => {}
    }
    audit.organization = Some(requested.clone());
    audit
}
