//! The lookups of authentication, cached: whose identity this is, and in what that person is a member.

use super::memberships::membership;
use super::{Identities, Result, identities};
use crate::domain::{Identity, OrgId, UserId};
use crate::store::key;
use crate::tenancy;

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

impl Identities {
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
}
