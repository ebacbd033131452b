//! Secrets as sealed rows: an organization's in its own table, the platform's beside its configuration. And for secrets that
//! are kept anywhere, when each was last used.

pub mod key_file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use super::audit_log::Within;
use crate::audit::Owner;
use crate::clock::Entropy;
use crate::domain::{OrgId, SecretName, Timestamp};
use crate::secrets::keyring::{Keyring, Place, Sealed};
use crate::store::error::Error;
use crate::store::key::{self, PlatformTable};
use crate::store::port::{Entity, Match, Operation, Ports, Properties, Query, Result, TableName, Value};
use crate::store::secret::{NewSecret, Presented, SecretRecord, SecretStore, StoredSecret};
use crate::tenancy::Scope;

/// How often a writing that met another's is tried again.
const ATTEMPTS: usize = 5;
/// How often the use of one secret is written down at most.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Most secrets whose last use is remembered in memory.
const REMEMBERED: usize = 4096;

/// Secrets in rows that a key outside the store opens.
#[derive(Clone)]
pub struct Secrets {
    ports: Ports,
    entropy: Arc<Entropy>,
    keys: Arc<RwLock<Keyring>>,
    file: Option<PathBuf>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

fn table(owner: &Owner) -> TableName {
    match owner {
        Owner::Platform => PlatformTable::Config.name(),
        Owner::Organization(org) => key::org_table(org),
    }
}

impl Secrets {
    /// Over these ports, with these keys. Where they come from a file, it is read again when a row names a key that is not
    /// among them: another process has added one.
    #[must_use]
    pub fn new(ports: Ports, entropy: Arc<Entropy>, keys: Keyring, file: Option<PathBuf>) -> Self {
        Self {
            ports,
            entropy,
            keys: Arc::new(RwLock::new(keys)),
            file,
        }
    }

    fn keys(&self) -> Keyring {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys, with one of this id among them if there is one anywhere.
    fn keys_for(&self, id: &str) -> Keyring {
        let keys = self.keys();
        let Some(file) = self.file.as_ref().filter(|_| !keys.knows(id)) else {
            return keys;
        };
        match key_file::keys(file) {
            Some(newer) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = newer.clone();
                newer
            }
            None => keys,
        }
    }

    async fn row(&self, owner: &Owner, name: &SecretName) -> Result<Option<Entity>> {
        self.ports
            .tables
            .get(&table(owner), &key::secrets(), &key::secret_row(name))
            .await
    }

    async fn rows(&self, owner: &Owner) -> Result<Vec<Entity>> {
        let mut rows = Vec::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::secrets())
                .prefix(key::SECRETS)?
                .after(continuation);
            let page = self.ports.tables.query(&table(owner), query).await?;
            rows.extend(page.entities);
            continuation = page.next;
            if continuation.is_none() {
                return Ok(rows);
            }
        }
    }

    fn open(&self, owner: &Owner, entity: &Entity) -> Result<StoredSecret> {
        let record = record(&entity.properties)?;
        let sealed = Sealed {
            key: entity.properties.require_text("key")?.to_owned(),
            bytes: entity.properties.bytes("sealed")?.unwrap_or_default().to_vec(),
        };
        let place = Place {
            owner: &owner.to_string(),
            name: &record.name.canonical(),
            version: entity.properties.require_int("version")?,
        };
        let keys = self.keys_for(&sealed.key);
        let value = keys.open(place, &sealed).ok_or_else(|| {
            Error::corrupt(if keys.knows(&sealed.key) {
                format!("the secret `{}` was not sealed for its place", record.name)
            } else {
                format!(
                    "the secret `{}` is sealed with a key that is not known here",
                    record.name
                )
            })
        })?;
        Ok(StoredSecret { record, value })
    }

    async fn find(&self, owner: &Owner, name: &SecretName) -> Result<Option<StoredSecret>> {
        let row = self.row(owner, name).await?;
        row.map(|entity| self.open(owner, &entity)).transpose()
    }

    async fn write(&self, owner: &Owner, before: Option<&Entity>, new: &StoredSecret) -> Result<()> {
        let StoredSecret { record, value } = new;
        let version = match before {
            Some(entity) => entity.properties.require_int("version")? + 1,
            None => 1,
        };
        let place = Place {
            owner: &owner.to_string(),
            name: &record.name.canonical(),
            version,
        };
        let sealed = self.keys().seal(place, value, self.entropy.bytes());
        let properties = Properties::new()
            .with("v", 1i64)
            .with("name", record.name.as_str())
            .with("version", version)
            .with("key", sealed.key)
            .with("sealed", Value::Bytes(sealed.bytes))
            .with("hosts", record.hosts.join(","))
            .with("presented", record.presented.to_string())
            .with("description", record.description.as_str())
            .with("updatedAt", record.updated_at)
            .with("updatedBy", record.updated_by.as_str());
        let row = key::secret_row(&record.name);
        let operation = match before {
            Some(entity) => Operation::Replace(row, properties, Match::Exactly(entity.etag.clone())),
            None => Operation::Insert(row, properties),
        };
        self.ports
            .tables
            .commit(&table(owner), &key::secrets(), vec![operation])
            .await?;
        Ok(())
    }
}

fn record(properties: &Properties) -> Result<SecretRecord> {
    let name = properties.require_text("name")?.parse();
    let presented = Presented::parse(properties.text("presented")?.unwrap_or("bearer"));
    Ok(SecretRecord {
        name: name.map_err(|_| Error::corrupt("a secret's name is none"))?,
        hosts: split(properties.text("hosts")?.unwrap_or_default()),
        presented: presented.ok_or_else(|| Error::corrupt("how a secret is presented can't be read"))?,
        description: properties.text("description")?.unwrap_or_default().to_owned(),
        updated_at: properties.require_time("updatedAt")?,
        updated_by: properties.text("updatedBy")?.unwrap_or_default().to_owned(),
    })
}

fn split(hosts: &str) -> Vec<String> {
    hosts
        .split(',')
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect()
}

#[async_trait]
impl SecretStore for Secrets {
    fn kind(&self) -> &'static str {
        "sealed"
    }

    async fn get(&self, within: Within<'_>, name: &SecretName) -> Result<Option<StoredSecret>> {
        self.find(&within.owner(), name).await
    }

    async fn get_inherited(&self, _: &Scope, name: &SecretName) -> Result<Option<StoredSecret>> {
        self.find(&Owner::Platform, name).await
    }

    async fn put(&self, within: Within<'_>, new: NewSecret) -> Result<bool> {
        let owner = within.owner();
        let NewSecret { record, value } = new;
        let new = StoredSecret { record, value };
        for attempt in 1.. {
            let before = self.row(&owner, &new.record.name).await?;
            match self.write(&owner, before.as_ref(), &new).await {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
                other => return other.map(|()| before.is_none()),
            }
        }
        unreachable!("the last try has answered")
    }

    async fn delete(&self, within: Within<'_>, name: &SecretName) -> Result<bool> {
        let operations = vec![Operation::Delete(key::secret_row(name), Match::Any)];
        let table = table(&within.owner());
        match self.ports.tables.commit(&table, &key::secrets(), operations).await {
            Ok(_) => Ok(true),
            Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, within: Within<'_>) -> Result<Vec<SecretRecord>> {
        let rows = self.rows(&within.owner()).await?;
        rows.iter().map(|entity| record(&entity.properties)).collect()
    }

    async fn reseal(&self, within: Within<'_>) -> Result<usize> {
        let owner = within.owner();
        let mut changed = 0;
        for mut entity in self.rows(&owner).await? {
            for attempt in 1.. {
                if entity.properties.require_text("key")? == self.keys().current() {
                    break;
                }
                let secret = self.open(&owner, &entity)?;
                match self.write(&owner, Some(&entity), &secret).await {
                    Ok(()) => {
                        changed += 1;
                        break;
                    }
                    // Somebody else has written or deleted it meanwhile.
                    Err(error) if error.is_conflict() && attempt < ATTEMPTS => {
                        match self.row(&owner, &secret.record.name).await? {
                            Some(newer) => entity = newer,
                            None => break,
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(changed)
    }
}

/// When secrets were last used.
#[derive(Debug, Clone)]
pub struct SecretUses {
    ports: Ports,
    noted: Arc<Mutex<BTreeMap<(OrgId, String), Timestamp>>>,
}

impl SecretUses {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self {
            ports,
            noted: Arc::default(),
        }
    }

    /// Notes that an attempt of the organization has used a secret. At most one writing a minute for each.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn note(&self, scope: &Scope, name: &SecretName, at: Timestamp) -> Result<()> {
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            let known = (scope.org().clone(), name.canonical());
            if noted.get(&known).is_some_and(|last| at.since(*last) < NOTED_EVERY) {
                return Ok(());
            }
            if noted.len() >= REMEMBERED {
                noted.clear();
            }
            noted.insert(known, at);
        }
        let properties = Properties::new().with("v", 1i64).with("at", at);
        let operations = vec![Operation::Upsert(key::secret_use_row(name), properties)];
        let table = key::org_table(scope.org());
        self.ports.tables.commit(&table, &key::secrets(), operations).await?;
        Ok(())
    }

    /// Last uses by the canonical names of secrets, deleted ones among them.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list(&self, scope: &Scope) -> Result<BTreeMap<String, Timestamp>> {
        let mut uses = BTreeMap::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::secrets())
                .prefix(key::SECRET_USES)?
                .after(continuation);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in page.entities {
                let name = row.row.as_str().trim_start_matches(key::SECRET_USES).to_owned();
                uses.insert(name, row.properties.require_time("at")?);
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(uses);
            }
        }
    }
}
