//! Configuration entries: an organization's own, over those of the platform.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::clock::Clock;
use crate::domain::{OrgId, Timestamp};
use crate::store::error::Error;
use crate::store::key::{self, PlatformTable};
use crate::store::port::{Match, Operation, Ports, Properties, Query, Result, TableName};
use crate::tenancy::{PlatformScope, Scope};

/// How long a change may stay unseen by other instances.
pub const CACHED_FOR: Duration = Duration::from_secs(5);
/// Most organizations whose entries are kept in memory.
const CACHED_ORGANIZATIONS: usize = 256;
/// Most characters of a name.
const MAX_NAME: usize = 128;

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigEntry {
    /// Its name: letters, digits and `._-`, at most 128.
    pub name: String,
    /// JSON, at most 32 KiB as text.
    pub value: Value,
    /// What it is for.
    pub description: String,
    /// When it was written.
    pub updated_at: Timestamp,
}

/// The merged entries of an organization, by name.
pub type Merged = Arc<BTreeMap<String, Value>>;

/// Configuration of organizations and of the platform.
#[derive(Debug, Clone)]
pub struct Configs {
    ports: Ports,
    clock: Arc<dyn Clock>,
    cache: Arc<Mutex<HashMap<OrgId, (Timestamp, Merged)>>>,
}

/// Whether a text can name an entry.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Configs {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>) -> Self {
        Self {
            ports,
            clock,
            cache: Arc::default(),
        }
    }

    /// What a run of the organization may see: its own entries over the platform's. At most [`CACHED_FOR`] old.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn merged(&self, scope: &Scope) -> Result<Merged> {
        let now = self.clock.now();
        if let Some((read_at, merged)) = self
            .cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(scope.org())
            && now.since(*read_at) < CACHED_FOR
            && now >= *read_at
        {
            return Ok(merged.clone());
        }
        let mut entries = BTreeMap::new();
        for table in [PlatformTable::Config.name(), key::org_table(scope.org())] {
            entries.extend(
                self.read(&table)
                    .await?
                    .into_iter()
                    .map(|entry| (entry.name, entry.value)),
            );
        }
        let merged: Merged = Arc::new(entries);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_ORGANIZATIONS {
            cache.clear();
        }
        cache.insert(scope.org().clone(), (now, merged.clone()));
        Ok(merged)
    }

    /// The organization's own entries.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list(&self, scope: &Scope) -> Result<Vec<ConfigEntry>> {
        self.read(&key::org_table(scope.org())).await
    }

    /// The entries that every organization inherits.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list_platform(&self, _platform: &PlatformScope) -> Result<Vec<ConfigEntry>> {
        self.read(&PlatformTable::Config.name()).await
    }

    /// Writes an entry of the organization.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a bad name, [`Error::TooLarge`] for a large value.
    pub async fn put(&self, scope: &Scope, entry: &ConfigEntry) -> Result<()> {
        self.write(&key::org_table(scope.org()), entry).await?;
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(scope.org());
        Ok(())
    }

    /// Writes an entry that every organization inherits.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a bad name, [`Error::TooLarge`] for a large value.
    pub async fn put_platform(&self, _platform: &PlatformScope, entry: &ConfigEntry) -> Result<()> {
        self.write(&PlatformTable::Config.name(), entry).await?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// Deletes an entry of the organization; whether there was one. It inherits the platform's again, where there is one.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn delete(&self, scope: &Scope, name: &str) -> Result<bool> {
        let deleted = self.remove(&key::org_table(scope.org()), name).await?;
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(scope.org());
        Ok(deleted)
    }

    /// Deletes an entry that every organization inherits; whether there was one.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn delete_platform(&self, _platform: &PlatformScope, name: &str) -> Result<bool> {
        let deleted = self.remove(&PlatformTable::Config.name(), name).await?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(deleted)
    }

    async fn remove(&self, table: &TableName, name: &str) -> Result<bool> {
        let operations = vec![Operation::Delete(key::config_row(name)?, Match::Any)];
        match self.ports.tables.commit(table, &key::config(), operations).await {
            Ok(_) => Ok(true),
            Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, table: &TableName, entry: &ConfigEntry) -> Result<()> {
        if !is_name(&entry.name) {
            return Err(Error::Malformed {
                what: entry.name.chars().take(60).collect(),
                expected: "name of a configuration entry",
            });
        }
        let properties = Properties::new()
            .with("v", 1i64)
            .with("value", entry.value.to_string())
            .with("description", entry.description.clone())
            .with("updatedAt", entry.updated_at);
        let operations = vec![Operation::Upsert(key::config_row(&entry.name)?, properties)];
        self.ports.tables.commit(table, &key::config(), operations).await?;
        Ok(())
    }

    async fn read(&self, table: &TableName) -> Result<Vec<ConfigEntry>> {
        let mut entries = Vec::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::config()).after(continuation);
            let page = self.ports.tables.query(table, query).await?;
            for row in page.entities {
                let text = row.properties.require_text("value")?;
                entries.push(ConfigEntry {
                    name: row.row.as_str().to_owned(),
                    value: serde_json::from_str(text)
                        .map_err(|_| Error::corrupt("a configuration value is not JSON"))?,
                    description: row.properties.text("description")?.unwrap_or_default().to_owned(),
                    updated_at: row.properties.require_time("updatedAt")?,
                });
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(entries);
            }
        }
    }
}
