//! Function keys: records by the hash of the key, never the key itself.
//!
//! A presented key costs one point read; what was found is cached for [`KEY_FRESH`], so a revocation reaches other instances
//! within that time, and that nothing was found for [`UNKNOWN_FRESH`]. Expiry is compared with the present at every use.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Cache;
use super::identity::Listed;
use crate::authz::KeyScope;
use crate::clock::{Clock, Entropy};
use crate::domain::{DisplayName, KeyId, OrgId, Secret, Timestamp, equal_in_constant_time};
use crate::error::{Coded, Kind};
use crate::store::key::{self, PlatformTable};
use crate::store::port::{Continuation, ETag, Entity, MAX_PAGE, Match, Operation, Ports, Properties, Query, TableName};
use crate::store::{Error as StoreError, port};
use crate::tenancy::PlatformScope;

/// How long a key's record may be used as it was read.
pub const KEY_FRESH: Duration = Duration::from_secs(30);
/// How long it is remembered that there is no such key.
pub const UNKNOWN_FRESH: Duration = Duration::from_secs(2);
/// How long a rotated key stays good when nothing else is said.
pub const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the last use is written at most.
pub const LAST_USE_EVERY: Duration = Duration::from_secs(60);
/// Most organizations that one key may name.
pub const MAX_ORGANIZATIONS: usize = 200;

const CACHED: usize = 1024;
const TRIES: usize = 5;
const EPOCH: i64 = 1;
/// How "every organization" is stored: a text that got lost must not mean it.
const EVERY: &str = "*";

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// No such key.
    #[error("key `{0}` does not exist")]
    Unknown(KeyId),
    /// A key that is revoked, expired or already replaced is not rotated.
    #[error("key `{id}` is {state}")]
    NotCurrent {
        /// Which.
        id: KeyId,
        /// `revoked`, `expired`, `replaced`.
        state: &'static str,
    },
    /// Only a development key may be one that somebody thought up.
    #[error("the given key was not made by Weft")]
    NotGenerated,
    /// A key without a right, or with too many organizations.
    #[error("{0}")]
    Malformed(&'static str),
}

impl Coded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Unknown(_) => Kind::NotFound,
            Self::NotCurrent { .. } => Kind::Conflict,
            Self::NotGenerated | Self::Malformed(_) => Kind::Invalid,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Unknown(_) => "key_not_found",
            Self::NotCurrent { .. } => "key_not_current",
            Self::NotGenerated => "key_not_generated",
            Self::Malformed(_) => "key_malformed",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.hint(),
            Self::Unknown(_) => Some("`weft keys list` shows the ids".into()),
            Self::NotCurrent { .. } => Some("create a new key".into()),
            Self::NotGenerated => Some("let Weft make the key: it has 256 random bits".into()),
            _ => None,
        }
    }
}

/// What an operation answers.
pub type Result<T> = std::result::Result<T, Error>;

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id, safe to show.
    pub id: KeyId,
    /// Its name, which audit records show.
    pub name: DisplayName,
    /// The organizations that it is for; empty means every one.
    pub organizations: Vec<OrgId>,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// The id of the principal that made it, or the first of those that it has followed; none of keys from before that was noted.
    pub made_by: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    pub revoked_at: Option<Timestamp>,
    /// The key that took its place.
    pub replaced_by: Option<KeyId>,
    /// When it was last used, give or take [`LAST_USE_EVERY`].
    pub last_used_at: Option<Timestamp>,
    /// Whether it is good only where development trust holds.
    pub development: bool,
}

/// A key to make.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name.
    pub name: DisplayName,
    /// The organizations that it is for; empty means every one.
    pub organizations: Vec<OrgId>,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Whether it is good only where development trust holds.
    pub development: bool,
}

/// A key that was made: the only time that its text is known.
#[derive(Debug, Clone)]
pub struct Created {
    /// The key itself, to be shown once.
    pub secret: Secret,
    /// What is stored of it.
    pub record: KeyRecord,
}

/// The repository.
#[derive(Debug)]
pub struct Keys {
    ports: Ports,
    clock: Arc<dyn Clock>,
    entropy: Arc<Entropy>,
    known: Cache<String, Arc<KeyRecord>>,
    unknown: Cache<String, ()>,
    touched: Cache<KeyId, ()>,
}

impl Keys {
    /// Over the ports of a backend.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>, entropy: Arc<Entropy>) -> Self {
        Self {
            ports,
            clock,
            entropy,
            known: Cache::new(KEY_FRESH, CACHED),
            unknown: Cache::new(UNKNOWN_FRESH, CACHED),
            touched: Cache::new(LAST_USE_EVERY, CACHED),
        }
    }

    /// The record of a presented key, whatever its state; at most [`KEY_FRESH`] old.
    ///
    /// # Errors
    /// Storage.
    pub async fn find(&self, presented: &Secret) -> Result<Option<Arc<KeyRecord>>> {
        let hash = presented.hash();
        let now = self.clock.now();
        let ticket = match self.known.get(&hash, now) {
            Ok(record) => return Ok(Some(record)),
            Err(ticket) => ticket,
        };
        let Err(unknown_ticket) = self.unknown.get(&hash, now) else {
            return Ok(None);
        };
        let found = self
            .ports
            .tables
            .get(&table(), &key::keys(), &key::key_row(&hash))
            .await?;
        let record = match found {
            // The row was found by its hash; comparing what it says of itself makes a misdirected read harmless.
            Some(row) if equal_in_constant_time(row.properties.require_text("hash")?.as_bytes(), hash.as_bytes()) => {
                Arc::new(read(&row)?)
            }
            _ => {
                self.unknown.put(unknown_ticket, hash, ());
                return Ok(None);
            }
        };
        self.known.put(ticket, hash, record.clone());
        Ok(Some(record))
    }

    /// Notes a use, in the background and at most once in [`LAST_USE_EVERY`]; a failure is not the request's concern.
    pub fn note_use(&self, record: &KeyRecord, presented: &Secret) {
        let now = self.clock.now();
        let Err(ticket) = self.touched.get(&record.id, now) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        self.touched.put(ticket, record.id.clone(), ());
        if record.last_used_at.is_some_and(|last| now.since(last) < LAST_USE_EVERY) {
            return;
        }
        let tables = self.ports.tables.clone();
        let row = key::key_row(&presented.hash());
        let id = record.id.clone();
        runtime.spawn(async move {
            let merge = Operation::Merge(row, Properties::new().with("last_used_at", now), Match::Any);
            if let Err(error) = tables.commit(&table(), &key::keys(), vec![merge]).await {
                tracing::debug!(key = %id, %error, "the last use of a key was not written");
            }
        });
    }

    /// A key that is about to be made: nothing is stored.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn prepare(&self, platform: &PlatformScope, new: NewKey) -> Result<Created> {
        let secret = Secret::generate(self.entropy.bytes());
        let record = self.new_record(new, Some(platform.principal().id()))?;
        Ok(Created { secret, record })
    }

    /// Makes a key that was prepared.
    ///
    /// # Errors
    /// Storage.
    pub async fn create(&self, _: &PlatformScope, new: &Created) -> Result<()> {
        self.insert(&new.secret, &new.record, Vec::new()).await
    }

    /// Makes a key of a given text unless it is there; for seeding. What is there stays as it is, even when its rights differ
    /// or it is revoked: its record says so. Whether it was made.
    ///
    /// # Errors
    /// [`Error::NotGenerated`] for a text of one's own on a key that is not for development, [`Error::Malformed`], storage.
    pub async fn ensure(&self, platform: &PlatformScope, secret: &Secret, new: NewKey) -> Result<(bool, KeyRecord)> {
        if !new.development && !secret.is_generated() {
            return Err(Error::NotGenerated);
        }
        if let Some((record, _)) = self.by_hash(&secret.hash()).await? {
            return Ok((false, record));
        }
        let record = self.new_record(new, Some(platform.principal().id()))?;
        match self.insert(secret, &record, Vec::new()).await {
            Ok(()) => Ok((true, record)),
            Err(Error::Storage(StoreError::AlreadyExists { .. })) => {
                let (record, _) = self.by_hash(&secret.hash()).await?.ok_or(Error::Unknown(record.id))?;
                Ok((false, record))
            }
            Err(error) => Err(error),
        }
    }

    /// Some keys; revoked and expired ones stay listed. In no promised order.
    ///
    /// # Errors
    /// Storage.
    pub async fn list(
        &self,
        _: &PlatformScope,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<Listed<KeyRecord>> {
        let query = Query::partition(key::keys())
            .limit(limit.clamp(1, MAX_PAGE))
            .after(after);
        let page = self.ports.tables.query(&table(), query).await?;
        let items = page.entities.iter().map(read).collect::<port::Result<Vec<_>>>()?;
        Ok(Listed { items, next: page.next })
    }

    /// One key.
    ///
    /// # Errors
    /// Storage.
    pub async fn get(&self, _: &PlatformScope, id: &KeyId) -> Result<Option<KeyRecord>> {
        Ok(self.by_id(id).await?.map(|(_, record, _)| record))
    }

    /// Refuses a key from now on: here at once, on other instances within [`KEY_FRESH`]. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Unknown`], storage.
    pub async fn revoke(&self, _: &PlatformScope, id: &KeyId) -> Result<KeyRecord> {
        let (hash, mut record, _) = self.by_id(id).await?.ok_or_else(|| Error::Unknown(id.clone()))?;
        if record.revoked_at.is_none() {
            let now = self.clock.now();
            let merge = Operation::Merge(
                key::key_row(&hash),
                Properties::new().with("revoked_at", now),
                Match::Any,
            );
            self.commit(vec![merge]).await?;
            record.revoked_at = Some(now);
        }
        // Also when it was revoked elsewhere: this instance may still hold it as good.
        self.known.invalidate();
        Ok(record)
    }

    /// A key with the same rights and the same lifetime that is about to take a key's place: nothing is stored.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotCurrent`], storage.
    pub async fn prepare_successor(&self, _: &PlatformScope, id: &KeyId) -> Result<Created> {
        let (_, old, _) = self.current(id).await?;
        let secret = Secret::generate(self.entropy.bytes());
        let lifetime = old.expires_at.map(|at| at.since(old.created_at));
        let new = NewKey {
            name: old.name,
            organizations: old.organizations,
            scopes: old.scopes,
            expires_at: lifetime.map(|lifetime| self.clock.now().plus(lifetime)),
            development: old.development,
        };
        // Whoever has one voice with a key has no other with its successor.
        let record = self.new_record(new, old.made_by)?;
        Ok(Created { secret, record })
    }

    /// Makes a successor that was prepared. The old key stays good for `overlap` and then expires.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotCurrent`], storage.
    pub async fn rotate(&self, _: &PlatformScope, id: &KeyId, successor: &Created, overlap: Duration) -> Result<()> {
        let mut tries = 0;
        loop {
            let (hash, old, etag) = self.current(id).await?;
            let until = self.clock.now().plus(overlap);
            let ends = Properties::new()
                .with("expires_at", old.expires_at.map_or(until, |at| at.min(until)))
                .with("replaced_by", successor.record.id.as_str());
            let retire = Operation::Merge(key::key_row(&hash), ends, Match::Exactly(etag));
            match self.insert(&successor.secret, &successor.record, vec![retire]).await {
                // The last use may have been noted in between.
                Err(Error::Storage(StoreError::PreconditionFailed { .. })) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// A key that is good, and has no successor yet.
    async fn current(&self, id: &KeyId) -> Result<(String, KeyRecord, ETag)> {
        let found = self.by_id(id).await?.ok_or_else(|| Error::Unknown(id.clone()))?;
        let state = match &found.1 {
            KeyRecord {
                revoked_at: Some(_), ..
            } => "revoked",
            KeyRecord {
                replaced_by: Some(_), ..
            } => "replaced",
            KeyRecord {
                expires_at: Some(at), ..
            } if *at <= self.clock.now() => "expired",
            _ => return Ok(found),
        };
        Err(Error::NotCurrent { id: id.clone(), state })
    }

    fn new_record(&self, new: NewKey, made_by: Option<String>) -> Result<KeyRecord> {
        if new.scopes.is_empty() {
            return Err(Error::Malformed("a key needs at least one scope"));
        }
        if new.organizations.len() > MAX_ORGANIZATIONS || new.scopes.len() > MAX_ORGANIZATIONS {
            return Err(Error::Malformed("a key names at most 200 organizations and 200 scopes"));
        }
        let now = self.clock.now();
        Ok(KeyRecord {
            id: KeyId::generate(now, self.entropy.bytes()),
            name: new.name,
            organizations: new.organizations,
            scopes: new.scopes,
            made_by,
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
            replaced_by: None,
            last_used_at: None,
            development: new.development,
        })
    }

    /// The way from the id to the hash first: without its record it leads nowhere, and the record is what counts.
    async fn insert(&self, secret: &Secret, record: &KeyRecord, mut with: Vec<Operation>) -> Result<()> {
        let hash = secret.hash();
        let lead = Properties::new().with("v", EPOCH).with("hash", hash.as_str());
        // Over its own, when what follows is tried again.
        let insert = vec![Operation::Upsert(key::key_id_row(&record.id), lead)];
        self.ports.tables.commit(&table(), &key::key_ids(), insert).await?;
        let properties = Properties::new()
            .with("v", EPOCH)
            .with("id", record.id.as_str())
            .with("hash", hash.as_str())
            .with("name", record.name.as_str())
            .with(
                "organizations",
                if record.organizations.is_empty() {
                    EVERY.into()
                } else {
                    joined(&record.organizations)
                },
            )
            .with("scopes", joined(&record.scopes))
            .with_some("made_by", record.made_by.as_deref())
            .with("created_at", record.created_at)
            .with_some("expires_at", record.expires_at)
            .with("development", record.development);
        with.push(Operation::Insert(key::key_row(&hash), properties));
        self.commit(with).await?;
        Ok(())
    }

    async fn commit(&self, operations: Vec<Operation>) -> port::Result<()> {
        let done = self.ports.tables.commit(&table(), &key::keys(), operations).await;
        self.known.invalidate();
        self.unknown.invalidate();
        done.map(|_| ())
    }

    async fn by_hash(&self, hash: &str) -> Result<Option<(KeyRecord, ETag)>> {
        let row = self
            .ports
            .tables
            .get(&table(), &key::keys(), &key::key_row(hash))
            .await?;
        Ok(row.map(|row| read(&row).map(|record| (record, row.etag))).transpose()?)
    }

    async fn by_id(&self, id: &KeyId) -> Result<Option<(String, KeyRecord, ETag)>> {
        let Some(lead) = self
            .ports
            .tables
            .get(&table(), &key::key_ids(), &key::key_id_row(id))
            .await?
        else {
            return Ok(None);
        };
        let hash = lead.properties.require_text("hash")?.to_owned();
        let found = self.by_hash(&hash).await?.filter(|(record, _)| record.id == *id);
        Ok(found.map(|(record, etag)| (hash, record, etag)))
    }
}

fn table() -> TableName {
    PlatformTable::Keys.name()
}

fn joined<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn split<T: std::str::FromStr>(properties: &Properties, name: &str) -> port::Result<Vec<T>> {
    properties
        .require_text(name)?
        .split_whitespace()
        .map(|part| part.parse().map_err(|_| unreadable(name)))
        .collect()
}

fn unreadable(name: &str) -> StoreError {
    StoreError::corrupt(format!("property `{name}` of a key can't be read"))
}

fn read(row: &Entity) -> port::Result<KeyRecord> {
    let properties = &row.properties;
    let replaced_by = properties.text("replaced_by")?;
    Ok(KeyRecord {
        id: properties.require_text("id")?.parse().map_err(|_| unreadable("id"))?,
        name: properties
            .require_text("name")?
            .parse()
            .map_err(|_| unreadable("name"))?,
        organizations: match properties.require_text("organizations")? {
            EVERY => Vec::new(),
            "" => return Err(unreadable("organizations")),
            _ => split(properties, "organizations")?,
        },
        scopes: split(properties, "scopes")?,
        made_by: properties.text("made_by")?.map(str::to_owned),
        created_at: properties.require_time("created_at")?,
        expires_at: properties.time("expires_at")?,
        revoked_at: properties.time("revoked_at")?,
        replaced_by: replaced_by
            .map(|text| text.parse().map_err(|_| unreadable("replaced_by")))
            .transpose()?,
        last_used_at: properties.time("last_used_at")?,
        development: properties.flag("development")?,
    })
}
