//! Memberships: a user's role in an organization. The source is the user's row, the organization's is for listing.

use super::{EPOCH, Error, Identities, Listed, Result, Written, identities, unreadable};
use crate::authz::Role;
use crate::domain::{OrgId, Timestamp, UserId};
use crate::store::key;
use crate::store::port::{Continuation, MAX_PAGE, Match, Operation, Properties, Query};
use crate::store::{Error as StoreError, port};
use crate::tenancy::{self, PlatformScope, Scope};

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

impl Identities {
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
}

pub(super) fn membership(org: OrgId, properties: &Properties) -> port::Result<tenancy::Membership> {
    let role = Role::parse(properties.require_text("role")?).filter(|role| *role != Role::Administrator);
    Ok(tenancy::Membership {
        org,
        role: role.ok_or_else(|| unreadable("role"))?,
    })
}
