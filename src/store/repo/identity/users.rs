//! Users: people, as they are known to the whole platform.

use super::{EPOCH, Error, Identities, Result, TRIES, Written, contended, identities, parsed, unreadable};
use crate::domain::{DisplayName, Email, Timestamp, UserId};
use crate::store::key;
use crate::store::port::{ETag, Entity, Match, Operation, Properties};
use crate::store::{Error as StoreError, port};
use crate::tenancy::PlatformScope;

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

impl Identities {
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

    pub(super) async fn commit_user(&self, id: &UserId, operations: Vec<Operation>) -> port::Result<()> {
        let done = self
            .ports
            .tables
            .commit(&identities(), &key::user(id), operations)
            .await;
        self.people.invalidate();
        self.memberships.invalidate();
        done.map(|_| ())
    }

    pub(super) async fn read_user(&self, id: &UserId) -> Result<Option<(UserRecord, ETag)>> {
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
}
