//! What keeps an e-mail address one user's.

use super::{EPOCH, Error, Identities, RESERVED, Result, TRIES, contended, identities, parsed};
use crate::domain::{Email, UserId};
use crate::store::Error as StoreError;
use crate::store::key;
use crate::store::port::{Match, Operation, Properties};

impl Identities {
    pub(super) async fn reserve_email(&self, email: &Email, user: &UserId) -> Result<()> {
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

    pub(super) async fn release_email(&self, email: &Email, user: &UserId) -> Result<()> {
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
}
