//! Organizations, their slugs, and the storage that each has.

use super::{EPOCH, Error, Identities, Listed, Result, TRIES, Written, contended, parsed, unreadable};
use crate::domain::{DisplayName, OrgId, Slug, Timestamp};
use crate::store::key::{self, PlatformTable};
use crate::store::port::{Continuation, ETag, Entity, Key, MAX_PAGE, Match, Operation, Properties, Query, TableName};
use crate::store::{Error as StoreError, port};
use crate::tenancy::PlatformScope;

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

impl Identities {
    /// Table and container of an organization that is about to be made; its id, generated when none is given. They count for
    /// nothing before the organization is there.
    ///
    /// # Errors
    /// [`Error::OrganizationIdUsed`], storage.
    pub async fn prepare_organization(&self, _: &PlatformScope, id: Option<OrgId>) -> Result<OrgId> {
        let id = id.unwrap_or_else(|| OrgId::generate(self.entropy.bytes()));
        if self.read_organization(&id).await?.is_some() {
            return Err(Error::OrganizationIdUsed(id));
        }
        self.prepare_storage(&id).await?;
        Ok(id)
    }

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

    pub(super) async fn read_organization(&self, id: &OrgId) -> Result<Option<OrganizationRow>> {
        let row = self
            .ports
            .tables
            .get(&organizations(), &key::organizations(), &key::organization_row(id))
            .await?;
        Ok(row.map(|entity| OrganizationRow::read(&entity)).transpose()?)
    }
}

pub(super) struct OrganizationRow {
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

    pub(super) fn live(self) -> Option<(OrganizationRecord, ETag)> {
        (!self.deleted).then_some((self.record, self.etag))
    }
}

fn organizations() -> TableName {
    PlatformTable::Organizations.name()
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
