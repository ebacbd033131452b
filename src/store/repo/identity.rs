//! Organizations, users, identities and memberships: the one repository that is not about one organization.
//!
//! It answers authentication ("whose identity is this, and in what is that person a member?") and administers what the
//! answers come from. Methods that cross organizations or make identities take `&PlatformScope` first; a membership is a
//! matter of one organization and takes its `&Scope`; the lookups of authentication take plain ids, since there is no scope
//! before them, and are cached for [`FACTS_FRESH`]: so long may another instance still act on what was just changed.
//!
//! The source of a membership is the row in the user's partition (`WeftIdentities`); the row in the organization's table is
//! derived from it, for listing, and is written second and removed second. Repeating a write repairs it.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Cache;
use crate::authz::Role;
use crate::clock::{Clock, Entropy};
use crate::domain::{DisplayName, Email, Identity, OrgId, Slug, Timestamp, UserId};
use crate::error::{Coded, Kind};
use crate::store::key::{self, PlatformTable};
use crate::store::port::{
    Continuation, ETag, Entity, Key, MAX_PAGE, Match, Operation, Ports, Properties, Query, TableName,
};
use crate::store::{Error as StoreError, port};
use crate::tenancy::{self, PlatformScope, Scope};

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

/// An organization as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationRecord {
    /// Its id, part of the names of its table and container.
    pub id: OrgId,
    /// Its name.
    pub name: DisplayName,
    /// A short name that no other organization has.
    pub slug: Option<Slug>,
    /// Whether anybody may work in it.
    pub active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An organization to make.
#[derive(Debug, Clone)]
pub struct NewOrganization {
    /// Its id; generated when none is given.
    pub id: Option<OrgId>,
    /// Its name.
    pub name: DisplayName,
    /// Its slug.
    pub slug: Option<Slug>,
}

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Their id.
    pub id: UserId,
    /// A name to show.
    pub name: DisplayName,
    /// An address to write to; unique, but never an identity.
    pub email: Option<Email>,
    /// Whether they may come in.
    pub active: bool,
    /// Whether they are a platform administrator.
    pub administrator: bool,
    /// When they were made.
    pub created_at: Timestamp,
    /// When they were last changed.
    pub updated_at: Timestamp,
}

/// A user to make.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Their id; generated when none is given.
    pub id: Option<UserId>,
    /// A name to show.
    pub name: DisplayName,
    /// An address to write to.
    pub email: Option<Email>,
    /// Whether they are a platform administrator.
    pub administrator: bool,
}

/// What authentication needs to know about the person behind an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their id.
    pub id: UserId,
    /// A name to show.
    pub name: String,
    /// Whether they may come in.
    pub active: bool,
    /// Whether they are a platform administrator.
    pub administrator: bool,
}

/// A member of an organization, as its own table lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub user: UserId,
    /// Their name when they became a member.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// Since when.
    pub since: Timestamp,
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

    // ── for authentication ─────────────────────────────────────────────────────────────────────────────────────────────

    /// An organization; at most [`FACTS_FRESH`] old.
    ///
    /// # Errors
    /// Storage.
    pub async fn organization(&self, org: &OrgId) -> Result<Option<tenancy::Organization>> {
        let ticket = match self.organizations.get(org, self.clock.now()) {
            Ok(known) => return Ok(known),
            Err(ticket) => ticket,
        };
        let found = self
            .read_organization(org)
            .await?
            .and_then(|row| row.live())
            .map(|(record, _)| tenancy::Organization {
                id: record.id,
                name: record.name.to_string(),
                active: record.active,
            });
        self.organizations.put(ticket, org.clone(), found.clone());
        Ok(found)
    }

    /// A person's membership; at most [`FACTS_FRESH`] old.
    ///
    /// # Errors
    /// Storage.
    pub async fn membership(&self, user: &UserId, org: &OrgId) -> Result<Option<tenancy::Membership>> {
        let at = (user.clone(), org.clone());
        let ticket = match self.memberships.get(&at, self.clock.now()) {
            Ok(known) => return Ok(known),
            Err(ticket) => ticket,
        };
        let row = self
            .ports
            .tables
            .get(&identities(), &key::user(user), &key::membership_row(org))
            .await?;
        let found = row.map(|row| membership(org.clone(), &row.properties)).transpose()?;
        self.memberships.put(ticket, at, found.clone());
        Ok(found)
    }

    /// The person behind an identity, active or not; at most [`FACTS_FRESH`] old.
    ///
    /// # Errors
    /// Storage.
    pub async fn person(&self, identity: &Identity) -> Result<Option<Person>> {
        let ticket = match self.people.get(identity, self.clock.now()) {
            Ok(known) => return Ok(known),
            Err(ticket) => ticket,
        };
        let found = match self.user_of(identity).await? {
            None => None,
            Some((user, _)) => self.read_user(&user).await?.map(|(record, _)| Person {
                id: record.id,
                name: record.name.to_string(),
                active: record.active,
                administrator: record.administrator,
            }),
        };
        self.people.put(ticket, identity.clone(), found.clone());
        Ok(found)
    }

    // ── organizations ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes an organization with its table and container.
    ///
    /// # Errors
    /// [`Error::OrganizationIdUsed`], [`Error::SlugTaken`], storage.
    pub async fn create_organization(&self, _: &PlatformScope, new: NewOrganization) -> Result<OrganizationRecord> {
        let id = new.id.unwrap_or_else(|| OrgId::generate(self.entropy.bytes()));
        if self.read_organization(&id).await?.is_some() {
            return Err(Error::OrganizationIdUsed(id));
        }
        self.insert_organization(id, new.name, new.slug).await
    }

    /// Makes an organization, or brings the one with this id to this name and slug. Whether it is active stays as it is.
    ///
    /// # Errors
    /// [`Error::OrganizationIdUsed`] when it was deleted, [`Error::SlugTaken`], storage.
    pub async fn upsert_organization(
        &self,
        _: &PlatformScope,
        id: &OrgId,
        name: &DisplayName,
        slug: Option<&Slug>,
    ) -> Result<(Written, OrganizationRecord)> {
        for _ in 0..TRIES {
            let Some(row) = self.read_organization(id).await? else {
                match self.insert_organization(id.clone(), name.clone(), slug.cloned()).await {
                    Ok(record) => return Ok((Written::Created, record)),
                    Err(Error::OrganizationIdUsed(_)) => continue,
                    Err(error) => return Err(error),
                }
            };
            let (mut record, etag) = row.live().ok_or_else(|| Error::OrganizationIdUsed(id.clone()))?;
            self.prepare_storage(id).await?;
            if record.name == *name && record.slug.as_ref() == slug {
                return Ok((Written::Unchanged, record));
            }
            let now = self.clock.now();
            let mut properties = Properties::new().with("name", name.as_str()).with("updated_at", now);
            // An empty text, since a merge can't remove a property.
            properties.set("slug", slug.map_or("", Slug::as_str));
            let mut operations = vec![Operation::Merge(
                key::organization_row(id),
                properties,
                Match::Exactly(etag.clone()),
            )];
            if record.slug.as_ref() != slug {
                if let Some(old) = &record.slug {
                    operations.push(Operation::Delete(key::organization_slug_row(old), Match::Any));
                }
                if let Some(new) = slug {
                    operations.push(Operation::Insert(key::organization_slug_row(new), slug_guard(id)));
                }
            }
            match self.commit_organization(operations).await {
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(StoreError::AlreadyExists { .. }) => return Err(slug_taken(slug, id)),
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    record.name = name.clone();
                    record.slug = slug.cloned();
                    record.updated_at = now;
                    return Ok((Written::Changed, record));
                }
            }
        }
        Err(contended("organization"))
    }

    /// One organization.
    ///
    /// # Errors
    /// Storage.
    pub async fn get_organization(&self, _: &PlatformScope, id: &OrgId) -> Result<Option<OrganizationRecord>> {
        Ok(self
            .read_organization(id)
            .await?
            .and_then(|row| row.live())
            .map(|(record, _)| record))
    }

    /// The organization with a slug.
    ///
    /// # Errors
    /// Storage.
    pub async fn organization_by_slug(&self, _: &PlatformScope, slug: &Slug) -> Result<Option<OrganizationRecord>> {
        let row = key::organization_slug_row(slug);
        let Some(guard) = self
            .ports
            .tables
            .get(&organizations(), &key::organizations(), &row)
            .await?
        else {
            return Ok(None);
        };
        let id: OrgId = parsed(&guard.properties, "organization")?;
        Ok(self
            .read_organization(&id)
            .await?
            .and_then(|row| row.live())
            .map(|(record, _)| record))
    }

    /// Organizations in the order of their ids, without deleted ones.
    ///
    /// # Errors
    /// Storage.
    pub async fn list_organizations(
        &self,
        _: &PlatformScope,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<Listed<OrganizationRecord>> {
        let mut query = Query::partition(key::organizations())
            .limit(limit.clamp(1, MAX_PAGE))
            .after(after);
        query.until = Some(Key::new(key::ORGANIZATIONS_END)?);
        let page = self.ports.tables.query(&organizations(), query).await?;
        let mut items = Vec::with_capacity(page.entities.len());
        for entity in page.entities {
            items.extend(OrganizationRow::read(&entity)?.live().map(|(record, _)| record));
        }
        Ok(Listed { items, next: page.next })
    }

    /// Switches an organization on or off.
    ///
    /// # Errors
    /// [`Error::OrganizationUnknown`], storage.
    pub async fn set_organization_active(&self, _: &PlatformScope, id: &OrgId, active: bool) -> Result<Written> {
        for _ in 0..TRIES {
            let found = self.read_organization(id).await?.and_then(|row| row.live());
            let (record, etag) = found.ok_or_else(|| Error::OrganizationUnknown(id.clone()))?;
            if record.active == active {
                return Ok(Written::Unchanged);
            }
            let properties = Properties::new()
                .with("active", active)
                .with("updated_at", self.clock.now());
            let operation = Operation::Merge(key::organization_row(id), properties, Match::Exactly(etag));
            match self.commit_organization(vec![operation]).await {
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Written::Changed),
            }
        }
        Err(contended("organization"))
    }

    /// Deletes an organization with its table and container. Its row stays, as the tombstone that keeps the id from being used
    /// again; its slug becomes free. Repeating it removes what an interrupted deletion left; whether there was anything to
    /// delete by its row. Memberships lead nowhere from then on.
    ///
    /// # Errors
    /// [`Error::OrganizationUnknown`], storage.
    pub async fn delete_organization(&self, _: &PlatformScope, id: &OrgId) -> Result<bool> {
        for _ in 0..TRIES {
            let row = self
                .read_organization(id)
                .await?
                .ok_or_else(|| Error::OrganizationUnknown(id.clone()))?;
            let was_live = !row.deleted;
            if was_live {
                let now = self.clock.now();
                let properties = Properties::new()
                    .with("active", false)
                    .with("slug", "")
                    .with("updated_at", now)
                    .with("deleted_at", now);
                let mut operations = vec![Operation::Merge(
                    key::organization_row(id),
                    properties,
                    Match::Exactly(row.etag),
                )];
                if let Some(slug) = &row.record.slug {
                    operations.push(Operation::Delete(key::organization_slug_row(slug), Match::Any));
                }
                match self.commit_organization(operations).await {
                    Err(StoreError::PreconditionFailed { .. }) => continue,
                    other => other?,
                }
            }
            self.ports.tables.delete_table(&key::org_table(id)).await?;
            self.ports.blobs.delete_container(&key::org_container(id)).await?;
            return Ok(was_live);
        }
        Err(contended("organization"))
    }

    async fn prepare_storage(&self, id: &OrgId) -> Result<()> {
        self.ports.tables.create_table(&key::org_table(id)).await?;
        self.ports.blobs.create_container(&key::org_container(id)).await?;
        Ok(())
    }

    /// Table and container first: an organization that can be seen has both.
    async fn insert_organization(
        &self,
        id: OrgId,
        name: DisplayName,
        slug: Option<Slug>,
    ) -> Result<OrganizationRecord> {
        self.prepare_storage(&id).await?;
        let now = self.clock.now();
        let properties = Properties::new()
            .with("v", EPOCH)
            .with("name", name.as_str())
            .with("slug", slug.as_ref().map_or("", Slug::as_str))
            .with("active", true)
            .with("created_at", now)
            .with("updated_at", now);
        let mut operations = vec![Operation::Insert(key::organization_row(&id), properties)];
        if let Some(slug) = &slug {
            operations.push(Operation::Insert(key::organization_slug_row(slug), slug_guard(&id)));
        }
        match self.commit_organization(operations).await {
            Err(StoreError::AlreadyExists { .. }) => {
                // Which of the two it was is read back rather than taken from the position, which not every service gives.
                if self.read_organization(&id).await?.is_some() {
                    return Err(Error::OrganizationIdUsed(id));
                }
                Err(slug_taken(slug.as_ref(), &id))
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(OrganizationRecord {
                id,
                name,
                slug,
                active: true,
                created_at: now,
                updated_at: now,
            }),
        }
    }

    async fn commit_organization(&self, operations: Vec<Operation>) -> port::Result<()> {
        let done = self
            .ports
            .tables
            .commit(&organizations(), &key::organizations(), operations)
            .await;
        self.organizations.invalidate();
        done.map(|_| ())
    }

    async fn read_organization(&self, id: &OrgId) -> Result<Option<OrganizationRow>> {
        let row = self
            .ports
            .tables
            .get(&organizations(), &key::organizations(), &key::organization_row(id))
            .await?;
        Ok(row.map(|entity| OrganizationRow::read(&entity)).transpose()?)
    }

    // ── users ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes a user, active.
    ///
    /// # Errors
    /// [`Error::UserIdUsed`], [`Error::EmailTaken`], storage.
    pub async fn create_user(&self, _: &PlatformScope, new: NewUser) -> Result<UserRecord> {
        let id = new
            .id
            .unwrap_or_else(|| UserId::generate(self.clock.now(), self.entropy.bytes()));
        if self.read_user(&id).await?.is_some() {
            return Err(Error::UserIdUsed(id));
        }
        self.insert_user(id, new.name, new.email, new.administrator).await
    }

    /// Makes a user, or brings the one with this id to this name, address and administrator flag. Whether they are active
    /// stays as it is.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], storage.
    pub async fn upsert_user(
        &self,
        _: &PlatformScope,
        id: &UserId,
        name: &DisplayName,
        email: Option<&Email>,
        administrator: bool,
    ) -> Result<(Written, UserRecord)> {
        for _ in 0..TRIES {
            let Some((mut record, etag)) = self.read_user(id).await? else {
                match self
                    .insert_user(id.clone(), name.clone(), email.cloned(), administrator)
                    .await
                {
                    Ok(record) => return Ok((Written::Created, record)),
                    Err(Error::UserIdUsed(_)) => continue,
                    Err(error) => return Err(error),
                }
            };
            if record.name == *name && record.email.as_ref() == email && record.administrator == administrator {
                return Ok((Written::Unchanged, record));
            }
            if let Some(email) = email {
                self.reserve_email(email, id).await?;
            }
            let now = self.clock.now();
            let properties = Properties::new()
                .with("name", name.as_str())
                .with("email", email.map_or("", Email::as_str))
                .with("administrator", administrator)
                .with("updated_at", now);
            match self
                .commit_user(
                    id,
                    vec![Operation::Merge(key::profile_row(), properties, Match::Exactly(etag))],
                )
                .await
            {
                Err(StoreError::PreconditionFailed { .. }) => continue,
                other => other?,
            }
            let old = std::mem::replace(&mut record.email, email.cloned());
            if let Some(old) =
                old.filter(|old| email.is_none_or(|new| key::email(new.as_str()) != key::email(old.as_str())))
            {
                self.release_email(&old, id).await?;
            }
            record.name = name.clone();
            record.administrator = administrator;
            record.updated_at = now;
            return Ok((Written::Changed, record));
        }
        Err(contended("user"))
    }

    /// One user.
    ///
    /// # Errors
    /// Storage.
    pub async fn get_user(&self, _: &PlatformScope, id: &UserId) -> Result<Option<UserRecord>> {
        Ok(self.read_user(id).await?.map(|(record, _)| record))
    }

    /// The user with an e-mail address, upper and lower case alike.
    ///
    /// # Errors
    /// Storage.
    pub async fn user_by_email(&self, _: &PlatformScope, email: &Email) -> Result<Option<UserRecord>> {
        let partition = key::email(email.as_str());
        let Some(guard) = self
            .ports
            .tables
            .get(&identities(), &partition, &key::only_row())
            .await?
        else {
            return Ok(None);
        };
        let user = self.read_user(&parsed(&guard.properties, "user")?).await?;
        // A guard whose user has another address is one that a broken-off change left.
        let same = |record: &UserRecord| {
            record
                .email
                .as_ref()
                .is_some_and(|e| key::email(e.as_str()) == partition)
        };
        Ok(user.map(|(record, _)| record).filter(same))
    }

    /// Lets a user in, or keeps them out.
    ///
    /// # Errors
    /// [`Error::UserUnknown`], storage.
    pub async fn set_user_active(&self, _: &PlatformScope, id: &UserId, active: bool) -> Result<Written> {
        self.set_flag(id, "active", active, |record| record.active).await
    }

    /// Makes a user a platform administrator, or no longer.
    ///
    /// # Errors
    /// [`Error::UserUnknown`], storage.
    pub async fn set_administrator(&self, _: &PlatformScope, id: &UserId, administrator: bool) -> Result<Written> {
        self.set_flag(id, "administrator", administrator, |record| record.administrator)
            .await
    }

    async fn set_flag(&self, id: &UserId, name: &str, to: bool, is: fn(&UserRecord) -> bool) -> Result<Written> {
        for _ in 0..TRIES {
            let (record, etag) = self
                .read_user(id)
                .await?
                .ok_or_else(|| Error::UserUnknown(id.clone()))?;
            if is(&record) == to {
                return Ok(Written::Unchanged);
            }
            let properties = Properties::new().with(name, to).with("updated_at", self.clock.now());
            match self
                .commit_user(
                    id,
                    vec![Operation::Merge(key::profile_row(), properties, Match::Exactly(etag))],
                )
                .await
            {
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Written::Changed),
            }
        }
        Err(contended("user"))
    }

    async fn insert_user(
        &self,
        id: UserId,
        name: DisplayName,
        email: Option<Email>,
        administrator: bool,
    ) -> Result<UserRecord> {
        if let Some(email) = &email {
            self.reserve_email(email, &id).await?;
        }
        let now = self.clock.now();
        let properties = Properties::new()
            .with("v", EPOCH)
            .with("name", name.as_str())
            .with("email", email.as_ref().map_or("", Email::as_str))
            .with("active", true)
            .with("administrator", administrator)
            .with("created_at", now)
            .with("updated_at", now);
        match self
            .commit_user(&id, vec![Operation::Insert(key::profile_row(), properties)])
            .await
        {
            Err(StoreError::AlreadyExists { .. }) => Err(Error::UserIdUsed(id)),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(UserRecord {
                id,
                name,
                email,
                active: true,
                administrator,
                created_at: now,
                updated_at: now,
            }),
        }
    }

    async fn commit_user(&self, id: &UserId, operations: Vec<Operation>) -> port::Result<()> {
        let done = self
            .ports
            .tables
            .commit(&identities(), &key::user(id), operations)
            .await;
        self.people.invalidate();
        self.memberships.invalidate();
        done.map(|_| ())
    }

    async fn read_user(&self, id: &UserId) -> Result<Option<(UserRecord, ETag)>> {
        let row = self
            .ports
            .tables
            .get(&identities(), &key::user(id), &key::profile_row())
            .await?;
        let Some(Entity { properties, etag, .. }) = row else {
            return Ok(None);
        };
        let email = properties.text("email")?.filter(|text| !text.is_empty());
        let record = UserRecord {
            id: id.clone(),
            name: parsed(&properties, "name")?,
            email: email
                .map(|text| text.parse().map_err(|_| unreadable("email")))
                .transpose()?,
            active: properties.flag("active")?,
            administrator: properties.flag("administrator")?,
            created_at: properties.require_time("created_at")?,
            updated_at: properties.require_time("updated_at")?,
        };
        Ok(Some((record, etag)))
    }

    // ── e-mail guards ──────────────────────────────────────────────────────────────────────────────────────────────────

    async fn reserve_email(&self, email: &Email, user: &UserId) -> Result<()> {
        let partition = key::email(email.as_str());
        let now = self.clock.now();
        let guard = Properties::new()
            .with("v", EPOCH)
            .with("user", user.as_str())
            .with("reserved_at", now);
        for _ in 0..TRIES {
            let Some(there) = self
                .ports
                .tables
                .get(&identities(), &partition, &key::only_row())
                .await?
            else {
                let insert = vec![Operation::Insert(key::only_row(), guard.clone())];
                match self.ports.tables.commit(&identities(), &partition, insert).await {
                    Err(StoreError::AlreadyExists { .. }) => continue,
                    other => return other.map(|_| ()).map_err(Into::into),
                }
            };
            let holder: UserId = parsed(&there.properties, "user")?;
            if holder == *user {
                return Ok(());
            }
            let in_use = self
                .read_user(&holder)
                .await?
                .is_some_and(|(record, _)| record.email.is_some_and(|held| key::email(held.as_str()) == partition));
            let young = now.since(there.properties.require_time("reserved_at")?) < RESERVED;
            if in_use || young {
                return Err(Error::EmailTaken);
            }
            let take = vec![Operation::Replace(
                key::only_row(),
                guard.clone(),
                Match::Exactly(there.etag),
            )];
            match self.ports.tables.commit(&identities(), &partition, take).await {
                Err(StoreError::PreconditionFailed { .. }) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
        Err(contended("e-mail address"))
    }

    async fn release_email(&self, email: &Email, user: &UserId) -> Result<()> {
        let partition = key::email(email.as_str());
        let Some(there) = self
            .ports
            .tables
            .get(&identities(), &partition, &key::only_row())
            .await?
        else {
            return Ok(());
        };
        if parsed::<UserId>(&there.properties, "user")? != *user {
            return Ok(());
        }
        let delete = vec![Operation::Delete(key::only_row(), Match::Exactly(there.etag))];
        match self.ports.tables.commit(&identities(), &partition, delete).await {
            Err(StoreError::PreconditionFailed { .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    // ── identities ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Says that an identity is this user's. One user may have several.
    ///
    /// # Errors
    /// [`Error::UserUnknown`], [`Error::IdentityTaken`], storage.
    pub async fn add_identity(&self, _: &PlatformScope, user: &UserId, identity: &Identity) -> Result<Written> {
        if self.read_user(user).await?.is_none() {
            return Err(Error::UserUnknown(user.clone()));
        }
        let row = Properties::new()
            .with("v", EPOCH)
            .with("user", user.as_str())
            .with("issuer", identity.issuer())
            .with("subject", identity.subject())
            .with("created_at", self.clock.now());
        let partition = key::identity(identity.issuer(), identity.subject());
        let insert = vec![Operation::Insert(key::only_row(), row.clone())];
        let written = match self.ports.tables.commit(&identities(), &partition, insert).await {
            Ok(_) => Written::Created,
            Err(StoreError::AlreadyExists { .. }) => match self.user_of(identity).await? {
                Some((holder, _)) if holder == *user => Written::Unchanged,
                _ => {
                    return Err(Error::IdentityTaken {
                        issuer: identity.issuer().to_owned(),
                    });
                }
            },
            Err(error) => return Err(error.into()),
        };
        // The user's own list of identities, derived from the row above.
        self.commit_user(user, vec![Operation::Upsert(partition, row)]).await?;
        Ok(written)
    }

    /// Takes an identity from a user; whether it was theirs.
    ///
    /// # Errors
    /// Storage.
    pub async fn remove_identity(&self, _: &PlatformScope, user: &UserId, identity: &Identity) -> Result<bool> {
        let partition = key::identity(identity.issuer(), identity.subject());
        let mut removed = false;
        if let Some((holder, etag)) = self.user_of(identity).await?
            && holder == *user
        {
            let delete = vec![Operation::Delete(key::only_row(), Match::Exactly(etag))];
            match self.ports.tables.commit(&identities(), &partition, delete).await {
                Ok(_) => removed = true,
                Err(StoreError::PreconditionFailed { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self
            .commit_user(user, vec![Operation::Delete(partition, Match::Any)])
            .await
        {
            Ok(()) | Err(StoreError::PreconditionFailed { .. } | StoreError::NotFound { .. }) => Ok(removed),
            Err(error) => Err(error.into()),
        }
    }

    /// A user's identities, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// Storage.
    pub async fn list_identities(&self, _: &PlatformScope, user: &UserId) -> Result<Vec<Identity>> {
        let query = Query::partition(key::user(user)).prefix(key::IDENTITIES)?;
        let mut found = Vec::new();
        for row in self.all(&identities(), query).await? {
            let identity = Identity::new(
                row.properties.require_text("issuer")?,
                row.properties.require_text("subject")?,
            );
            found.push(identity.map_err(|_| unreadable("issuer"))?);
        }
        Ok(found)
    }

    async fn user_of(&self, identity: &Identity) -> Result<Option<(UserId, ETag)>> {
        let partition = key::identity(identity.issuer(), identity.subject());
        let Some(row) = self
            .ports
            .tables
            .get(&identities(), &partition, &key::only_row())
            .await?
        else {
            return Ok(None);
        };
        Ok(Some((parsed(&row.properties, "user")?, row.etag)))
    }

    // ── memberships ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes a user a member of the scope's organization, or gives a member another role.
    ///
    /// # Errors
    /// [`Error::NotAMembersRole`], [`Error::UserUnknown`], [`Error::OrganizationUnknown`], storage.
    pub async fn put_member(&self, scope: &Scope, user: &UserId, role: Role) -> Result<Written> {
        let org = scope.org();
        if role == Role::Administrator {
            return Err(Error::NotAMembersRole);
        }
        let (record, _) = self
            .read_user(user)
            .await?
            .ok_or_else(|| Error::UserUnknown(user.clone()))?;
        if self.read_organization(org).await?.and_then(|row| row.live()).is_none() {
            return Err(Error::OrganizationUnknown(org.clone()));
        }
        let there = self
            .ports
            .tables
            .get(&identities(), &key::user(user), &key::membership_row(org))
            .await?;
        let now = self.clock.now();
        let (written, since) = match &there {
            None => (Written::Created, now),
            Some(row) => {
                let since = row.properties.require_time("since")?;
                let same = membership(org.clone(), &row.properties)?.role == role;
                (if same { Written::Unchanged } else { Written::Changed }, since)
            }
        };
        let row = Properties::new()
            .with("v", EPOCH)
            .with("role", role.as_str())
            .with("since", since);
        if written != Written::Unchanged {
            self.commit_user(user, vec![Operation::Upsert(key::membership_row(org), row.clone())])
                .await?;
        }
        let mirror = Operation::Upsert(key::member_row(user), row.with("name", record.name.as_str()));
        self.ports
            .tables
            .commit(&key::org_table(org), &key::members(), vec![mirror])
            .await?;
        Ok(written)
    }

    /// Ends a membership in the scope's organization; whether there was one.
    ///
    /// # Errors
    /// Storage.
    pub async fn remove_member(&self, scope: &Scope, user: &UserId) -> Result<bool> {
        let org = scope.org();
        let gone = |error: &StoreError| {
            matches!(
                error,
                StoreError::PreconditionFailed { .. } | StoreError::NotFound { .. }
            )
        };
        let removed = match self
            .commit_user(user, vec![Operation::Delete(key::membership_row(org), Match::Any)])
            .await
        {
            Ok(()) => true,
            Err(error) if gone(&error) => false,
            Err(error) => return Err(error.into()),
        };
        let mirror = vec![Operation::Delete(key::member_row(user), Match::Any)];
        match self
            .ports
            .tables
            .commit(&key::org_table(org), &key::members(), mirror)
            .await
        {
            Err(error) if !gone(&error) => Err(error.into()),
            _ => Ok(removed),
        }
    }

    /// The members of the scope's organization, in the order of their ids. From the derived rows: for showing, not for
    /// deciding.
    ///
    /// # Errors
    /// Storage.
    pub async fn list_members(
        &self,
        scope: &Scope,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<Listed<Member>> {
        let query = Query::partition(key::members())
            .limit(limit.clamp(1, MAX_PAGE))
            .after(after);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let mut items = Vec::with_capacity(page.entities.len());
        for row in page.entities {
            items.push(Member {
                user: row.row.as_str().parse().map_err(|_| unreadable("row key"))?,
                name: row.properties.text("name")?.unwrap_or_default().to_owned(),
                role: membership(scope.org().clone(), &row.properties)?.role,
                since: row.properties.require_time("since")?,
            });
        }
        Ok(Listed { items, next: page.next })
    }

    /// In which organizations a user is a member, deleted organizations included, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// Storage.
    pub async fn list_memberships(&self, _: &PlatformScope, user: &UserId) -> Result<Vec<tenancy::Membership>> {
        let query = Query::partition(key::user(user)).prefix(key::MEMBERSHIPS)?;
        let mut found = Vec::new();
        for row in self.all(&identities(), query).await? {
            let org = row.row.as_str().strip_prefix(key::MEMBERSHIPS).unwrap_or_default();
            found.push(membership(
                org.parse().map_err(|_| unreadable("row key"))?,
                &row.properties,
            )?);
        }
        Ok(found)
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

struct OrganizationRow {
    record: OrganizationRecord,
    deleted: bool,
    etag: ETag,
}

impl OrganizationRow {
    fn read(entity: &Entity) -> port::Result<Self> {
        let properties = &entity.properties;
        let slug = properties.text("slug")?.filter(|text| !text.is_empty());
        Ok(Self {
            record: OrganizationRecord {
                id: entity.row.as_str().parse().map_err(|_| unreadable("row key"))?,
                name: parsed(properties, "name")?,
                slug: slug
                    .map(|text| text.parse().map_err(|_| unreadable("slug")))
                    .transpose()?,
                active: properties.flag("active")?,
                created_at: properties.require_time("created_at")?,
                updated_at: properties.require_time("updated_at")?,
            },
            deleted: properties.time("deleted_at")?.is_some(),
            etag: entity.etag.clone(),
        })
    }

    fn live(self) -> Option<(OrganizationRecord, ETag)> {
        (!self.deleted).then_some((self.record, self.etag))
    }
}

fn organizations() -> TableName {
    PlatformTable::Organizations.name()
}

fn identities() -> TableName {
    PlatformTable::Identities.name()
}

fn slug_guard(org: &OrgId) -> Properties {
    Properties::new().with("v", EPOCH).with("organization", org.as_str())
}

fn slug_taken(slug: Option<&Slug>, id: &OrgId) -> Error {
    slug.map_or_else(
        || Error::OrganizationIdUsed(id.clone()),
        |slug| Error::SlugTaken(slug.clone()),
    )
}

fn membership(org: OrgId, properties: &Properties) -> port::Result<tenancy::Membership> {
    let role = Role::parse(properties.require_text("role")?).filter(|role| *role != Role::Administrator);
    Ok(tenancy::Membership {
        org,
        role: role.ok_or_else(|| unreadable("role"))?,
    })
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
