//! The decision about a request, as one pure function of what was presented, what was looked up, and what may be trusted.
//!
//! The tiers in their order: function key, client principal, session, nothing. The first credential that is present decides;
//! one that is present and bad is refused and never passed to the next tier.

use std::sync::Arc;

use super::client_principal::{self, ClientPrincipal};
use super::facts::{Given, RequestFacts};
use super::refusal::{Attempted, Code, CredentialKind, Refusal};
use super::trust::Trust;
use crate::authz::{Caller, Principal, Tier};
use crate::domain::{Identity, OrgId, Secret, Timestamp};
use crate::store::repo::identity::Person;
use crate::store::repo::keys::KeyRecord;

/// Most characters of `X-User-Id`.
pub const MAX_CLAIMED_USER: usize = 128;

/// What must be looked up before a request can be decided.
#[derive(Debug, Clone)]
pub enum Needed<'a> {
    /// Nothing: the request is decided by what it carries.
    Nothing,
    /// The record of this key.
    Key(&'a Secret),
    /// The person behind this identity.
    Person(Identity),
}

/// What was looked up. Only what [`needed`] asked for counts.
#[derive(Debug, Clone, Default)]
pub struct LookedUp {
    /// The record of the presented key.
    pub key: Option<Arc<KeyRecord>>,
    /// The person behind the presented identity.
    pub person: Option<Person>,
}

/// The outcome.
pub type Decision = Result<Caller, Refusal>;

/// What [`decide`] will want to know.
#[must_use]
pub fn needed<'a>(facts: &'a RequestFacts, trust: &Trust) -> Needed<'a> {
    if facts.key.is_present() {
        return match &facts.key {
            Given::Once(secret) if !secret.expose().is_empty() => Needed::Key(secret),
            _ => Needed::Nothing,
        };
    }
    if facts.principal.is_present() {
        return believed(facts, trust).map_or(Needed::Nothing, |principal| Needed::Person(principal.identity));
    }
    Needed::Nothing
}

/// Decides a request.
///
/// # Errors
/// A [`Refusal`], with what its audit record needs.
pub fn decide(facts: &RequestFacts, looked_up: &LookedUp, trust: &Trust, now: Timestamp) -> Decision {
    if facts.key.is_present() {
        return by_key(facts, looked_up.key.as_deref(), trust, now);
    }
    if facts.principal.is_present() {
        return by_principal(facts, looked_up.person.as_ref(), trust);
    }
    // Sessions take their place here: after what the platform vouches for, before nothing.
    Err(Refusal::new(
        Code::CredentialsMissing,
        Attempted::with(CredentialKind::None),
    ))
}

/// The organization that a request asks for.
///
/// # Errors
/// A [`Refusal`]: missing, malformed, or more than one.
pub fn requested_organization(facts: &RequestFacts) -> Result<OrgId, Refusal> {
    let refuse = |code| Err(Refusal::new(code, Attempted::with(credential_kind(facts))));
    match &facts.organization {
        Given::Absent => refuse(Code::OrganizationHeaderMissing),
        Given::Ambiguous => refuse(Code::OrganizationHeaderDuplicated),
        Given::TooLarge | Given::Unreadable => refuse(Code::OrganizationHeaderMalformed),
        Given::Once(text) => text.parse().or_else(|_| refuse(Code::OrganizationHeaderMalformed)),
    }
}

/// Which credential decides this request.
#[must_use]
pub fn credential_kind(facts: &RequestFacts) -> CredentialKind {
    if facts.key.is_present() {
        CredentialKind::FunctionKey
    } else if facts.principal.is_present() {
        CredentialKind::ClientPrincipal
    } else {
        CredentialKind::None
    }
}

// ── tier 1: a function key ─────────────────────────────────────────────────────────────────────────────────────────────

fn by_key(facts: &RequestFacts, record: Option<&KeyRecord>, trust: &Trust, now: Timestamp) -> Decision {
    let also_principal = also_principal(facts);
    let claimed = claimed_user(facts);
    let mut audit = Attempted::with(CredentialKind::FunctionKey);
    audit.identity.clone_from(&also_principal);
    audit.claimed_user = claimed.clone().ok().flatten();
    match &facts.key {
        Given::Ambiguous => return Err(Refusal::new(Code::CredentialAmbiguous, audit)),
        Given::TooLarge => return Err(Refusal::new(Code::CredentialTooLarge, audit)),
        Given::Absent | Given::Unreadable => return Err(Refusal::new(Code::KeyInvalid, audit)),
        Given::Once(secret) if secret.expose().is_empty() => return Err(Refusal::new(Code::KeyInvalid, audit)),
        Given::Once(_) => {}
    }
    let Some(record) = record else {
        audit.reason = "there is no such key".into();
        return Err(Refusal::new(Code::KeyInvalid, audit));
    };
    audit.key = Some((record.id.clone(), record.name.to_string()));
    if record.development && !trust.development {
        audit.reason = "a development key outside development trust".into();
        return Err(Refusal::new(Code::KeyInvalid, audit));
    }
    if record.revoked_at.is_some() {
        return Err(Refusal::new(Code::KeyRevoked, audit));
    }
    if record.expires_at.is_some_and(|at| at <= now) {
        return Err(Refusal::new(Code::KeyExpired, audit));
    }
    let Ok(claimed_user) = claimed else {
        return Err(Refusal::new(Code::UserHeaderMalformed, audit));
    };
    Ok(Caller {
        principal: Principal::Service {
            key: record.id.clone(),
            name: record.name.to_string(),
            scopes: record.scopes.clone(),
            made_by: record.made_by.clone(),
            claimed_user,
        },
        tier: Tier::FunctionKey,
        key_organizations: record.organizations.clone(),
        also_principal,
        origin: facts.origin.clone(),
    })
}

/// `X-User-Id`; `Err` when no record could show it.
fn claimed_user(facts: &RequestFacts) -> Result<Option<String>, ()> {
    match &facts.user {
        Given::Absent => Ok(None),
        Given::Once(text)
            if (1..=MAX_CLAIMED_USER).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b)) =>
        {
            Ok(Some(text.clone()))
        }
        _ => Err(()),
    }
}

/// The principal that came along with a key, for the record only: believed by nobody, and no reason to refuse.
fn also_principal(facts: &RequestFacts) -> Option<String> {
    Some(match &facts.principal {
        Given::Absent => return None,
        Given::Once(value) => match client_principal::read(value) {
            Ok(principal) => principal.identity.to_string(),
            Err(malformed) => format!("malformed: {malformed}"),
        },
        Given::Ambiguous => "malformed: `X-MS-CLIENT-PRINCIPAL` is there more than once".into(),
        Given::TooLarge => "malformed: `X-MS-CLIENT-PRINCIPAL` is larger than 32 KiB".into(),
        Given::Unreadable => "malformed: `X-MS-CLIENT-PRINCIPAL` is not base64".into(),
    })
}

// ── tier 2: a client principal ─────────────────────────────────────────────────────────────────────────────────────────

fn by_principal(facts: &RequestFacts, person: Option<&Person>, trust: &Trust) -> Decision {
    let principal = believed(facts, trust)?;
    let mut audit = Attempted::with(CredentialKind::ClientPrincipal);
    audit.identity = Some(principal.identity.to_string());
    let Some(person) = person else {
        return Err(Refusal::new(Code::UserUnknown, audit));
    };
    audit.user = Some(person.id.clone());
    if !person.active {
        return Err(Refusal::new(Code::UserInactive, audit));
    }
    Ok(Caller {
        principal: Principal::User {
            id: person.id.clone(),
            name: person.name.clone(),
            administrator: person.administrator,
        },
        tier: Tier::ClientPrincipal,
        key_organizations: Vec::new(),
        also_principal: None,
        origin: facts.origin.clone(),
    })
}

/// The principal, when it can be read and may be believed.
fn believed(facts: &RequestFacts, trust: &Trust) -> Result<ClientPrincipal, Refusal> {
    let mut audit = Attempted::with(CredentialKind::ClientPrincipal);
    let read = match &facts.principal {
        Given::Once(value) => client_principal::read(value),
        Given::Ambiguous => return Err(Refusal::new(Code::CredentialAmbiguous, audit)),
        Given::TooLarge => return Err(Refusal::new(Code::CredentialTooLarge, audit)),
        Given::Absent | Given::Unreadable => Err(client_principal::Malformed("is not base64")),
    };
    audit.identity = read.as_ref().ok().map(|principal| principal.identity.to_string());
    if !trust.any() {
        return Err(Refusal::saying(Code::PrincipalNotTrusted, trust.why_not, audit));
    }
    let principal = match read {
        Ok(principal) => principal,
        Err(malformed) => return Err(Refusal::saying(Code::PrincipalMalformed, malformed.to_string(), audit)),
    };
    if !trust.covers(principal.shape) {
        let detail = format!(
            "`X-MS-CLIENT-PRINCIPAL` has the shape of `{}`, which is not the source that is trusted here",
            principal.shape.as_str()
        );
        return Err(Refusal::saying(Code::PrincipalWrongShape, detail, audit));
    }
    Ok(principal)
}
