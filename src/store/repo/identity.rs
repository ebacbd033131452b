//! Organizations, users, identities and memberships: the one repository that is not about one organization.
//!
//! It answers authentication ("whose identity is this, and in what is that person a member?") and administers what the
//! answers come from. Methods that cross organizations or make identities take `&PlatformScope` first; a membership is a
//! matter of one organization and takes its `&Scope`; the lookups of authentication take plain ids, since there is no scope
//! before them, and are cached for [`FACTS_FRESH`]: so long may another instance still act on what was just changed.
//!
//! The source of a membership is the row in the user's partition (`WeftIdentities`); the row in the organization's table is
//! derived from it, for listing, and is written second and removed second. Repeating a write repairs it.

mod authentication;
mod emails;
mod memberships;
mod organizations;
mod sign_ins;
mod users;

use std::sync::Arc;
use std::time::Duration;

use super::cache::Cache;
use crate::clock::{Clock, Entropy};
use crate::domain::{Identity, OrgId, Slug, UserId};
use crate::error::{Coded, Kind};
use crate::store::key::PlatformTable;
use crate::store::port::{Continuation, Entity, MAX_PAGE, Ports, Properties, Query, TableName};
use crate::store::{Error as StoreError, port};
use crate::tenancy;

pub use authentication::Person;
pub use memberships::Member;
pub use organizations::{NewOrganization, OrganizationRecord};
pub use users::{NewUser, UserRecord};

/// How long authentication may act on an organization, a membership or a user as it was read: five seconds.
pub const FACTS_FRESH: Duration = Duration::from_secs(5);

/// Most entries of each cache.
const CACHED: usize = 4096;
/// How often a change is tried again when somebody else changed the same row in between.
const TRIES: usize = 5;
/// How long an e-mail address stays reserved for a user whose record was never written.
const RESERVED: Duration = Duration::from_secs(60);
/// The schema epoch of the rows written here.
const EPOCH: i64 = 1;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// There is, or was, an organization with this id.
    #[error("organization id `{0}` is or was in use")]
    OrganizationIdUsed(OrgId),
    /// Another organization has this slug.
    #[error("slug `{0}` belongs to another organization")]
    SlugTaken(Slug),
    /// No such organization.
    #[error("organization `{0}` does not exist")]
    OrganizationUnknown(OrgId),
    /// No such user.
    #[error("user `{0}` does not exist")]
    UserUnknown(UserId),
    /// There is a user with this id.
    #[error("user id `{0}` is in use")]
    UserIdUsed(UserId),
    /// Another user has this e-mail address.
    #[error("this e-mail address belongs to another user")]
    EmailTaken,
    /// The identity belongs to another user.
    #[error("this identity of `{issuer}` belongs to another user")]
    IdentityTaken {
        /// Its issuer.
        issuer: String,
    },
    /// Nobody is `administrator` by membership.
    #[error("`administrator` is no role of a member")]
    NotAMembersRole,
}

impl Coded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::OrganizationIdUsed(_)
            | Self::SlugTaken(_)
            | Self::UserIdUsed(_)
            | Self::EmailTaken
            | Self::IdentityTaken { .. } => Kind::Conflict,
            Self::OrganizationUnknown(_) | Self::UserUnknown(_) => Kind::NotFound,
            Self::NotAMembersRole => Kind::Invalid,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::OrganizationIdUsed(_) => "organization_id_used",
            Self::SlugTaken(_) => "slug_taken",
            Self::OrganizationUnknown(_) => "organization_not_found",
            Self::UserUnknown(_) => "user_not_found",
            Self::UserIdUsed(_) => "user_id_used",
            Self::EmailTaken => "email_taken",
            Self::IdentityTaken { .. } => "identity_taken",
            Self::NotAMembersRole => "role_not_for_members",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.hint(),
            Self::OrganizationIdUsed(_) => {
                Some("leave the id out and one is generated; ids are never used twice".into())
            }
            Self::NotAMembersRole => Some("set the user's administrator flag instead".into()),
            Self::IdentityTaken { .. } => Some("remove it from the other user first".into()),
            _ => None,
        }
    }
}

/// What an operation answers.
pub type Result<T> = std::result::Result<T, Error>;

/// What a write that may be repeated did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was not there.
    Created,
    /// It was there, just so.
    Unchanged,
    /// It was there and differed.
    Changed,
}

/// Some of a list, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// In the order of the list. May be fewer than asked for, even none, while `next` is set.
    pub items: Vec<T>,
    /// Set while there may be more.
    pub next: Option<Continuation>,
}

/// The repository.
#[derive(Debug)]
pub struct Identities {
    ports: Ports,
    clock: Arc<dyn Clock>,
    entropy: Arc<Entropy>,
    organizations: Cache<OrgId, Option<tenancy::Organization>>,
    memberships: Cache<(UserId, OrgId), Option<tenancy::Membership>>,
    people: Cache<Identity, Option<Person>>,
}

impl Identities {
    /// Over the ports of a backend.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>, entropy: Arc<Entropy>) -> Self {
        Self {
            ports,
            clock,
            entropy,
            organizations: Cache::new(FACTS_FRESH, CACHED),
            memberships: Cache::new(FACTS_FRESH, CACHED),
            people: Cache::new(FACTS_FRESH, CACHED),
        }
    }

    /// Rows of a short list, over as many pages as the service makes of it.
    async fn all(&self, table: &TableName, mut query: Query) -> Result<Vec<Entity>> {
        let mut rows = Vec::new();
        loop {
            let page = self.ports.tables.query(table, query.clone()).await?;
            rows.extend(page.entities);
            if page.next.is_none() || rows.len() >= MAX_PAGE {
                return Ok(rows);
            }
            query.continuation = page.next;
        }
    }
}

fn identities() -> TableName {
    PlatformTable::Identities.name()
}

fn parsed<T: std::str::FromStr>(properties: &Properties, name: &str) -> port::Result<T> {
    properties.require_text(name)?.parse().map_err(|_| unreadable(name))
}

fn unreadable(what: &str) -> StoreError {
    StoreError::corrupt(format!("property `{what}` can't be read"))
}

/// Somebody else kept changing it: the caller may repeat.
fn contended(what: &str) -> Error {
    StoreError::PreconditionFailed {
        what: what.to_owned(),
        index: 0,
    }
    .into()
}
