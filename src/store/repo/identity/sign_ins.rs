//! As whom a user signs in: issuer and subject, each one user's.

use super::{EPOCH, Error, Identities, Result, Written, identities, parsed, unreadable};
use crate::domain::{Identity, UserId};
use crate::store::Error as StoreError;
use crate::store::key;
use crate::store::port::{ETag, Match, Operation, Properties, Query};
use crate::tenancy::PlatformScope;

impl Identities {
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

    /// Whose identity it is, as it is stored now.
    ///
    /// # Errors
    /// Storage.
    pub async fn holder(&self, _: &PlatformScope, identity: &Identity) -> Result<Option<UserId>> {
        Ok(self.user_of(identity).await?.map(|(holder, _)| holder))
    }

    pub(super) async fn user_of(&self, identity: &Identity) -> Result<Option<(UserId, ETag)>> {
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
}
