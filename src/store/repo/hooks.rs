//! Webhooks: each in its organization's table, a platform row that leads from its id to the organization, and what was
//! delivered lately. Secrets of hooks are kept where other secrets are.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cache::Cache;
use crate::clock::Clock;
use crate::domain::{HookId, OrgId, RunId, Timestamp, sha256_hex};
use crate::hooks::Hook;
use crate::store::error::Error;
use crate::store::key::{self, PlatformTable};
use crate::store::port::{ETag, Entity, Match, Operation, Ports, Properties, Query, Result};
use crate::tenancy::{PlatformScope, Scope};

/// How long a change may stay unseen by other instances.
pub const CACHED_FOR: Duration = Duration::from_secs(5);
/// How long an organization is remembered for a hook; it never changes.
const OWNER_CACHED_FOR: Duration = Duration::from_secs(600);
/// Most hooks that are kept in memory.
const CACHED: usize = 4096;
/// Most deliveries of a hook that are kept.
pub const KEPT_DELIVERIES: usize = 50;
/// How often a writing of deliveries that met another's is tried again.
const TRIES: usize = 5;

/// A hook as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredHook {
    /// The hook.
    pub hook: Hook,
    etag: ETag,
}

impl StoredHook {
    /// Names its content: two hooks of the same content have the same tag.
    #[must_use]
    pub fn tag(&self) -> String {
        let text = json!(self.hook).to_string();
        sha256_hex(text.as_bytes()).chars().take(32).collect()
    }
}

/// A hook with its organization, for a delivery that nobody has verified yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whose it is.
    pub org: OrgId,
    /// The hook.
    pub hook: Hook,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// When it came.
    pub at: Timestamp,
    /// `accepted`, `repeated`, `answered`, `failed`, `refused` or `throttled`.
    pub outcome: String,
    /// Why, where it was not accepted: a code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The sender's id of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivery: Option<String>,
    /// The run that it led to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<RunId>,
    /// How many like it this line stands for: refusals are written at most once a minute.
    pub count: u32,
}

/// What was delivered to a hook.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deliveries {
    /// Deliveries that led to a run of their own.
    pub accepted: u64,
    /// Deliveries that had come before.
    pub repeated: u64,
    /// Signed deliveries that led to no run: wrong arguments, no such workflow.
    pub failed: u64,
    /// Deliveries that were not let in.
    pub refused: u64,
    /// When one last led to a run.
    pub last_accepted_at: Option<Timestamp>,
    /// The latest, newest first; at most [`KEPT_DELIVERIES`].
    pub latest: Vec<Delivery>,
}

impl Deliveries {
    fn add(&mut self, delivery: Delivery) {
        let count = u64::from(delivery.count);
        match delivery.outcome.as_str() {
            "accepted" => {
                self.accepted += count;
                self.last_accepted_at = Some(delivery.at);
            }
            "repeated" => self.repeated += count,
            "refused" | "throttled" => self.refused += count,
            "answered" => {}
            _ => self.failed += count,
        }
        self.latest.insert(0, delivery);
        self.latest.truncate(KEPT_DELIVERIES);
    }
}

/// Hooks of organizations.
#[derive(Debug, Clone)]
pub struct Hooks {
    ports: Ports,
    clock: Arc<dyn Clock>,
    owners: Arc<Cache<HookId, OrgId>>,
    found: Arc<Cache<HookId, Option<Arc<Found>>>>,
}

impl Hooks {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>) -> Self {
        Self {
            ports,
            clock,
            owners: Arc::new(Cache::new(OWNER_CACHED_FOR, CACHED)),
            found: Arc::new(Cache::new(CACHED_FOR, CACHED)),
        }
    }

    /// Writes a new hook. First the row that leads to it, which leads nowhere without it.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn create(&self, scope: &Scope, hook: Hook) -> Result<StoredHook> {
        let owner = Properties::new()
            .with("v", 1i64)
            .with("organization", scope.org().as_str());
        let operations = vec![Operation::Insert(key::only_row(), owner)];
        self.ports
            .tables
            .commit(&PlatformTable::Hooks.name(), &key::hook_owner(&hook.id), operations)
            .await?;
        let operation = Operation::Insert(key::hook_row(&hook.id), properties(&hook));
        self.write(scope, hook, operation).await
    }

    /// A hook of the organization.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope, id: &HookId) -> Result<Option<StoredHook>> {
        let row = self
            .ports
            .tables
            .get(&key::org_table(scope.org()), &key::hooks(), &key::hook_row(id))
            .await?;
        row.map(|row| read(&row)).transpose()
    }

    /// The organization's hooks.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list(&self, scope: &Scope) -> Result<Vec<StoredHook>> {
        let mut hooks = Vec::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::hooks()).prefix(key::HOOKS)?.after(continuation);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in &page.entities {
                hooks.push(read(row)?);
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(hooks);
            }
        }
    }

    /// Writes a hook in place of the one that was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote it meanwhile.
    pub async fn replace(&self, scope: &Scope, before: &StoredHook, hook: Hook) -> Result<StoredHook> {
        let row = key::hook_row(&hook.id);
        let operation = Operation::Replace(row, properties(&hook), Match::Exactly(before.etag.clone()));
        self.write(scope, hook, operation).await
    }

    async fn write(&self, scope: &Scope, hook: Hook, operation: Operation) -> Result<StoredHook> {
        let table = key::org_table(scope.org());
        let written = self.ports.tables.commit(&table, &key::hooks(), vec![operation]).await;
        self.found.invalidate();
        let etag = written?
            .pop()
            .ok_or_else(|| Error::corrupt("a commit answered no ETag"))?;
        Ok(StoredHook { hook, etag })
    }

    /// Deletes a hook with what was delivered to it; whether there was one.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn delete(&self, scope: &Scope, id: &HookId) -> Result<bool> {
        let table = key::org_table(scope.org());
        let mut there = false;
        for (place, row) in [key::hook_row(id), key::hook_deliveries_row(id)]
            .into_iter()
            .enumerate()
        {
            let operations = vec![Operation::Delete(row, Match::Any)];
            let deleted = self.ports.tables.commit(&table, &key::hooks(), operations).await;
            self.found.invalidate();
            match deleted {
                Ok(_) => there |= place == 0,
                Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) if place == 1 || there => {}
                // Not this organization's: what leads to it is not touched.
                Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let operations = vec![Operation::Delete(key::only_row(), Match::Any)];
        let owners = PlatformTable::Hooks.name();
        match self
            .ports
            .tables
            .commit(&owners, &key::hook_owner(id), operations)
            .await
        {
            Ok(_) | Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the organization of a hook is known here, so that finding the hook costs one read at most.
    #[must_use]
    pub fn is_known(&self, _: &PlatformScope, id: &HookId) -> bool {
        let now = self.clock.now();
        self.found.get(id, now).is_ok() || self.owners.get(id, now).is_ok()
    }

    /// The hook of an id, whoever's it is; at most [`CACHED_FOR`] old.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn find(&self, _: &PlatformScope, id: &HookId) -> Result<Option<Arc<Found>>> {
        let now = self.clock.now();
        let ticket = match self.found.get(id, now) {
            Ok(found) => return Ok(found),
            Err(ticket) => ticket,
        };
        let found = match self.owner(id).await? {
            None => None,
            Some(org) => {
                let table = key::org_table(&org);
                match self.ports.tables.get(&table, &key::hooks(), &key::hook_row(id)).await {
                    Ok(row) => row.map(|row| read(&row)).transpose()?,
                    // The organization was deleted with its table.
                    Err(Error::NotFound { .. }) => None,
                    Err(error) => return Err(error),
                }
                .map(|stored| Arc::new(Found { org, hook: stored.hook }))
            }
        };
        self.found.put(ticket, id.clone(), found.clone());
        Ok(found)
    }

    async fn owner(&self, id: &HookId) -> Result<Option<OrgId>> {
        let ticket = match self.owners.get(id, self.clock.now()) {
            Ok(owner) => return Ok(Some(owner)),
            Err(ticket) => ticket,
        };
        let table = PlatformTable::Hooks.name();
        let row = self
            .ports
            .tables
            .get(&table, &key::hook_owner(id), &key::only_row())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let org: OrgId = row
            .properties
            .require_text("organization")?
            .parse()
            .map_err(|_| Error::corrupt("a hook belongs to no organization"))?;
        self.owners.put(ticket, id.clone(), org.clone());
        Ok(Some(org))
    }

    /// What was delivered to a hook of the organization.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn deliveries(&self, scope: &Scope, id: &HookId) -> Result<Deliveries> {
        Ok(self.read_deliveries(scope, id).await?.0)
    }

    async fn read_deliveries(&self, scope: &Scope, id: &HookId) -> Result<(Deliveries, Option<ETag>)> {
        let row = key::hook_deliveries_row(id);
        let row = self
            .ports
            .tables
            .get(&key::org_table(scope.org()), &key::hooks(), &row)
            .await?;
        let Some(row) = row else {
            return Ok((Deliveries::default(), None));
        };
        let deliveries = serde_json::from_str(row.properties.require_text("deliveries")?)
            .map_err(|_| Error::corrupt("the deliveries of a hook can't be read"))?;
        Ok((deliveries, Some(row.etag)))
    }

    /// Adds deliveries, the oldest first. Hooks that are busy on many instances may lose some: it is for people to look at.
    ///
    /// # Errors
    /// Those of the table store; [`Error::PreconditionFailed`] when others were faster every time.
    pub async fn add_deliveries(&self, scope: &Scope, id: &HookId, new: &[Delivery]) -> Result<()> {
        let row = key::hook_deliveries_row(id);
        for attempt in 1.. {
            let (mut deliveries, etag) = self.read_deliveries(scope, id).await?;
            new.iter().cloned().for_each(|delivery| deliveries.add(delivery));
            let properties = Properties::new()
                .with("v", 1i64)
                .with("deliveries", json!(deliveries).to_string());
            let operation = match etag {
                None => Operation::Insert(row.clone(), properties),
                Some(etag) => Operation::Replace(row.clone(), properties, Match::Exactly(etag)),
            };
            let table = key::org_table(scope.org());
            match self.ports.tables.commit(&table, &key::hooks(), vec![operation]).await {
                Err(error) if error.is_conflict() && attempt < TRIES => {}
                other => return other.map(drop),
            }
        }
        unreachable!("the last try has answered")
    }
}

fn properties(hook: &Hook) -> Properties {
    Properties::new()
        .with("v", 1i64)
        .with("hook", json!(hook).to_string())
        .with("name", hook.name.as_str())
        .with("workflow", hook.workflow.as_str())
        .with("enabled", hook.enabled)
        .with("updatedAt", hook.updated_at)
}

fn read(row: &Entity) -> Result<StoredHook> {
    if row.properties.require_int("v")? != 1 {
        return Err(Error::corrupt("a hook is of a version that can't be read"));
    }
    let hook: Hook = serde_json::from_str(row.properties.require_text("hook")?)
        .map_err(|error| Error::corrupt(format!("a hook can't be read: {error}")))?;
    if key::hook_row(&hook.id) != row.row {
        return Err(Error::corrupt("a hook stands in the row of another"));
    }
    Ok(StoredHook {
        hook,
        etag: row.etag.clone(),
    })
}

/// The id of the run that a delivery leads to: the same for every time that it comes, and on every instance. `generation`
/// rises when it comes again after the hook's window.
#[must_use]
pub fn delivered_run(scope: &Scope, hook: &HookId, identity: &str, generation: u32) -> RunId {
    let org = scope.org();
    let cause = format!("hook\n{org}\n{hook}\n{generation}\n{identity}");
    RunId::derived(Timestamp::from_millis(0), &sha256_hex(cause.as_bytes()))
}
