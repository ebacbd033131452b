//! What steps are allowed to do: the platform's policy, and an organization's own below it.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::Error;
use super::super::key::{self, PlatformTable};
use super::super::port::{ETag, Match, Operation, Ports, Properties, Result, TableName};
use super::cache::Cache;
use crate::clock::Clock;
use crate::domain::{OrgId, Policy, Timestamp, sha256_hex};
use crate::tenancy::{PlatformScope, Scope};

/// How long a change may stay unseen by other instances.
pub const CACHED_FOR: Duration = Duration::from_secs(30);
/// Most organizations whose policies are kept in memory.
const CACHED_ORGANIZATIONS: usize = 1024;

/// A policy as it is stored, or the one that holds while nobody has written any.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPolicy {
    /// The policy.
    pub policy: Policy,
    /// When it was written; none for one that nobody has written.
    pub updated_at: Option<Timestamp>,
    version: Option<ETag>,
}

impl StoredPolicy {
    /// Names its content: two policies of the same content have the same tag.
    #[must_use]
    pub fn tag(&self) -> String {
        let text = serde_json::to_string(&self.policy).unwrap_or_default();
        sha256_hex(text.as_bytes()).chars().take(32).collect()
    }
}

/// Both that hold for an organization's steps.
#[derive(Debug, Clone)]
pub struct Both {
    /// The platform's.
    pub platform: Arc<Policy>,
    /// The organization's own.
    pub organization: Arc<Policy>,
}

/// Policies of organizations and of the platform.
#[derive(Debug, Clone)]
pub struct Policies {
    ports: Ports,
    clock: Arc<dyn Clock>,
    organizations: Arc<Cache<OrgId, Arc<Policy>>>,
    platform: Arc<Cache<(), Arc<Policy>>>,
}

impl Policies {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>) -> Self {
        Self {
            ports,
            clock,
            organizations: Arc::new(Cache::new(CACHED_FOR, CACHED_ORGANIZATIONS)),
            platform: Arc::new(Cache::new(CACHED_FOR, 1)),
        }
    }

    /// What holds for the organization's steps, at most [`CACHED_FOR`] old. Cold it is one read for the organization, and one for
    /// the platform that serves every organization, at the same time.
    ///
    /// # Errors
    /// Those of the table store: nothing is allowed by a policy that can't be read.
    pub async fn both(&self, scope: &Scope) -> Result<Both> {
        let now = self.clock.now();
        let platform = async {
            match self.platform.get(&(), now) {
                Ok(policy) => Ok(policy),
                Err(ticket) => {
                    let stored = self.read(&PlatformTable::Config.name(), Policy::of_platform).await?;
                    let policy = Arc::new(stored.policy);
                    self.platform.put(ticket, (), policy.clone());
                    Ok(policy)
                }
            }
        };
        let organization = async {
            match self.organizations.get(scope.org(), now) {
                Ok(policy) => Ok(policy),
                Err(ticket) => {
                    let policy = Arc::new(self.organization(scope).await?.policy);
                    self.organizations.put(ticket, scope.org().clone(), policy.clone());
                    Ok::<_, Error>(policy)
                }
            }
        };
        let (platform, organization) = futures::future::try_join(platform, organization).await?;
        Ok(Both { platform, organization })
    }

    /// The organization's own policy, as it is stored now.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn organization(&self, scope: &Scope) -> Result<StoredPolicy> {
        self.read(&key::org_table(scope.org()), Policy::default).await
    }

    /// The platform's policy, as it is stored now.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn platform(&self, _platform: &PlatformScope) -> Result<StoredPolicy> {
        self.read(&PlatformTable::Config.name(), Policy::of_platform).await
    }

    /// Writes the organization's policy in place of the one that was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] or [`Error::AlreadyExists`] when somebody else wrote one meanwhile.
    pub async fn put(&self, scope: &Scope, before: &StoredPolicy, policy: &Policy) -> Result<()> {
        let written = self.write(&key::org_table(scope.org()), before, policy).await;
        self.organizations.invalidate();
        written
    }

    /// Writes the platform's policy in place of the one that was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] or [`Error::AlreadyExists`] when somebody else wrote one meanwhile.
    pub async fn put_platform(&self, _platform: &PlatformScope, before: &StoredPolicy, policy: &Policy) -> Result<()> {
        let written = self.write(&PlatformTable::Config.name(), before, policy).await;
        self.platform.invalidate();
        written
    }

    async fn write(&self, table: &TableName, before: &StoredPolicy, policy: &Policy) -> Result<()> {
        let text = serde_json::to_string(policy).map_err(|_| Error::corrupt("a policy can't be written"))?;
        let properties = Properties::new()
            .with("v", 1i64)
            .with("policy", text)
            .with("updatedAt", self.clock.now());
        let operation = match &before.version {
            None => Operation::Insert(key::only_row(), properties),
            Some(version) => Operation::Replace(key::only_row(), properties, Match::Exactly(version.clone())),
        };
        self.ports.tables.commit(table, &key::policy(), vec![operation]).await?;
        Ok(())
    }

    async fn read(&self, table: &TableName, otherwise: fn() -> Policy) -> Result<StoredPolicy> {
        let Some(row) = self.ports.tables.get(table, &key::policy(), &key::only_row()).await? else {
            return Ok(StoredPolicy {
                policy: otherwise(),
                updated_at: None,
                version: None,
            });
        };
        if row.properties.require_int("v")? != 1 {
            return Err(Error::corrupt("a policy is of a version that can't be read"));
        }
        Ok(StoredPolicy {
            policy: serde_json::from_str(row.properties.require_text("policy")?)
                .map_err(|_| Error::corrupt("a policy can't be read"))?,
            updated_at: row.properties.time("updatedAt")?,
            version: Some(row.etag),
        })
    }
}
