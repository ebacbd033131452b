//! Published code: its archives, which of it is active, and which was.
//!
//! Every row is signed with the installation's key, and the signature covers all that a reader relies on: whoever can write
//! rows and blobs but does not hold the key can't have instances run other code. All rows are in one partition, so that a
//! bundle becomes active in the same transaction that says that it is there.

use bytes::Bytes;

use super::super::envelope::SigningKey;
use super::super::error::Error as StoreError;
use super::super::key::{self, PlatformTable};
use super::super::port::{ETag, Entity, MAX_PAGE, Match, Operation, Ports, Properties, Put, Query};
use crate::domain::{BundleDigest, Timestamp, sha256_hex};
use crate::tenancy::PlatformScope;

/// Most bundles of an installation.
pub const MAX_BUNDLES: usize = 500;
/// Most characters of a note.
pub const MAX_NOTE: usize = 200;

const SCHEMA: i64 = 1;
const BUNDLE: &str = "weft bundle 1";
const ACTIVATION: &str = "weft activation 1";
/// How the row is called that says which bundle is active.
pub const POINTER: &str = "what says which bundle is active";

/// Why something of published code can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row was not written by this installation, or with another key than it has now.
    #[error("{0} is not signed with the key of this installation")]
    Untrusted(String),
    /// An archive is gone, or is not the one that was published.
    #[error("the archive of `{0}` is missing, or is not the one that was published")]
    Damaged(BundleDigest),
    /// There are as many as there may be.
    #[error("there are {MAX_BUNDLES} bundles, as many as there may be")]
    Full,
}

/// What this repository answers.
pub type Result<T> = std::result::Result<T, Error>;

/// A published bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBundle {
    /// Its digest.
    pub digest: BundleDigest,
    /// The SHA-256 of its archive.
    pub archive: String,
    /// The archive's bytes.
    pub archive_bytes: u64,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When it was published first.
    pub published_at: Timestamp,
    /// By whom: the stable id of a principal.
    pub published_by: String,
    /// What whoever published it says of it.
    pub note: Option<String>,
    /// When it last became active; none if it never was.
    pub activated_at: Option<Timestamp>,
    /// Whether the row is signed by this installation.
    pub is_trusted: bool,
}

/// What was done to what is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A bundle, or the deployed folder, was chosen.
    Activated,
    /// What was active before was taken back.
    RolledBack,
}

impl Act {
    /// As written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activated => "activated",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// That something became active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its number, from 1.
    pub sequence: u64,
    /// What became active; none for the deployed folder.
    pub digest: Option<BundleDigest>,
    /// How.
    pub act: Act,
    /// The number of the activation that it brings back, or its own.
    pub restores: u64,
    /// When.
    pub at: Timestamp,
    /// By whom: the stable id of a principal.
    pub by: String,
    /// Whether its row is signed by this installation.
    pub is_trusted: bool,
}

/// What is active now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// The last activation.
    pub activation: Activation,
    etag: ETag,
}

/// Published code.
#[derive(Debug, Clone)]
pub struct Bundles {
    ports: Ports,
    key: SigningKey,
}

impl Bundles {
    /// Over these ports, signed with this key.
    #[must_use]
    pub const fn new(ports: Ports, key: SigningKey) -> Self {
        Self { ports, key }
    }

    /// Keeps a bundle with its archive; one that is there, whole and signed, is left as it is. Whether it is new.
    ///
    /// # Errors
    /// [`Error::Full`]; those of storage. What was written of the archive alone counts for nothing.
    pub async fn put(
        &self,
        platform: &PlatformScope,
        bundle: &StoredBundle,
        archive: Bytes,
    ) -> Result<(StoredBundle, bool)> {
        let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
        let row = key::bundle_row(&bundle.digest);
        let there = self.ports.tables.get(&table, &partition, &row).await?;
        let before = there.as_ref().and_then(|entity| self.read_bundle(entity));
        if before.is_none() && self.list(platform).await?.len() >= MAX_BUNDLES {
            return Err(Error::Full);
        }
        // The archive that is there is used again where it is still what was published.
        if let Some(before) = &before
            && self.is_whole(platform, before).await
        {
            return Ok((before.clone(), false));
        }
        let path = key::bundle_blob(&bundle.digest, &bundle.archive);
        // Over one that was damaged, too: the path is the digest of what is written.
        self.ports
            .blobs
            .put(&key::bundles_container(), &path, archive, Put::Overwrite)
            .await?;
        let stored = StoredBundle {
            activated_at: before.as_ref().and_then(|before| before.activated_at),
            is_trusted: true,
            ..bundle.clone()
        };
        let operation = Operation::Upsert(row, self.bundle_properties(&stored));
        self.ports.tables.commit(&table, &partition, vec![operation]).await?;
        Ok((stored, before.is_none()))
    }

    /// One that is there, whole and signed: to publish it again changes nothing.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn whole(&self, platform: &PlatformScope, digest: &BundleDigest) -> Result<Option<StoredBundle>> {
        Ok(match self.get(platform, digest).await? {
            Some(there) if self.is_whole(platform, &there).await => Some(there),
            _ => None,
        })
    }

    async fn is_whole(&self, platform: &PlatformScope, bundle: &StoredBundle) -> bool {
        bundle.is_trusted && self.archive(platform, bundle).await.is_ok()
    }

    /// One, or nothing.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn get(&self, _platform: &PlatformScope, digest: &BundleDigest) -> Result<Option<StoredBundle>> {
        let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
        let row = self
            .ports
            .tables
            .get(&table, &partition, &key::bundle_row(digest))
            .await?;
        Ok(row.as_ref().and_then(|entity| self.read_bundle(entity)))
    }

    /// All, newest first.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn list(&self, _platform: &PlatformScope) -> Result<Vec<StoredBundle>> {
        let rows = self.rows(key::BUNDLES, usize::MAX).await?;
        let mut bundles: Vec<_> = rows.iter().filter_map(|entity| self.read_bundle(entity)).collect();
        bundles.sort_by(|a, b| (b.published_at, &a.digest).cmp(&(a.published_at, &b.digest)));
        Ok(bundles)
    }

    /// The archive of one, as it was published.
    ///
    /// # Errors
    /// [`Error::Untrusted`], [`Error::Damaged`]; those of storage.
    pub async fn archive(&self, _platform: &PlatformScope, bundle: &StoredBundle) -> Result<Bytes> {
        if !bundle.is_trusted {
            return Err(Error::Untrusted(format!("`{}`", bundle.digest)));
        }
        let path = key::bundle_blob(&bundle.digest, &bundle.archive);
        let read = self
            .ports
            .blobs
            .get(&key::bundles_container(), &path, bundle.archive_bytes)
            .await;
        match read {
            Ok(Some(bytes)) if sha256_hex(&bytes) == bundle.archive => Ok(bytes),
            Ok(_) | Err(StoreError::TooLarge { .. } | StoreError::Corrupt { .. }) => {
                Err(Error::Damaged(bundle.digest.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is active; nothing while nothing ever was. A row that can't be read is one that nobody has signed.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn active(&self, _platform: &PlatformScope) -> Result<Option<Active>> {
        let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
        let row = self.ports.tables.get(&table, &partition, &key::active_row()).await?;
        let Some(entity) = row else { return Ok(None) };
        Ok(Some(Active {
            activation: self.read_activation(&entity),
            etag: entity.etag,
        }))
    }

    /// The newest activation that this installation has signed. What is active is the same, unless somebody has put an old row
    /// back, has changed it or has taken it away.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn newest(&self, _platform: &PlatformScope) -> Result<Option<Activation>> {
        // Most often it is the first; rows that were put before it are passed over.
        let (mut limit, mut continuation) = (1, None);
        loop {
            let query = Query::partition(key::bundles()).prefix(key::ACTIVATIONS)?;
            let query = query.limit(limit).after(continuation);
            let page = self.ports.tables.query(&PlatformTable::Bundles.name(), query).await?;
            let mut read = page.entities.iter().map(|entity| self.read_activation(entity));
            if let Some(newest) = read.find(|activation| activation.is_trusted) {
                return Ok(Some(newest));
            }
            (limit, continuation) = (MAX_PAGE, page.next);
            if continuation.is_none() {
                return Ok(None);
            }
        }
    }

    /// Activations, newest first.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn history(&self, _platform: &PlatformScope, limit: usize) -> Result<Vec<Activation>> {
        let rows = self.rows(key::ACTIVATIONS, limit).await?;
        Ok(rows.iter().map(|entity| self.read_activation(entity)).collect())
    }

    /// Makes an activation the one that holds, after the one that was read; nothing when none was. One transaction: the
    /// pointer, its history, and the bundle, which must be there.
    ///
    /// # Errors
    /// Those of storage; a conflict when somebody else has activated something, or the bundle is gone.
    pub async fn activate(
        &self,
        _platform: &PlatformScope,
        before: Option<&Active>,
        activation: &Activation,
    ) -> Result<Active> {
        let properties = self.activation_properties(activation);
        let mut operations = vec![
            match before {
                None => Operation::Insert(key::active_row(), properties.clone()),
                Some(before) => Operation::Replace(
                    key::active_row(),
                    properties.clone(),
                    Match::Exactly(before.etag.clone()),
                ),
            },
            // Whoever is first is told by the pointer. What lies at this number was written by nobody who may.
            Operation::Upsert(key::activation_row(activation.sequence), properties),
        ];
        if let Some(digest) = &activation.digest {
            let used = Properties::new().with("activatedAt", activation.at);
            operations.push(Operation::Merge(key::bundle_row(digest), used, Match::Any));
        }
        let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
        let etags = self.ports.tables.commit(&table, &partition, operations).await?;
        Ok(Active {
            activation: activation.clone(),
            etag: etags.into_iter().next().unwrap_or_else(|| ETag(String::new())),
        })
    }

    /// Deletes a bundle that is not active, under what was read as active.
    ///
    /// # Errors
    /// [`Error::Untrusted`] where nobody can tell what is active; those of storage; a conflict when somebody has activated something meanwhile, or the bundle is gone.
    pub async fn delete(
        &self,
        _platform: &PlatformScope,
        active: Option<&Active>,
        bundle: &StoredBundle,
    ) -> Result<()> {
        let mut operations = vec![Operation::Delete(key::bundle_row(&bundle.digest), Match::Any)];
        if let Some(active) = active {
            // Written anew it would be signed.
            if !active.activation.is_trusted {
                return Err(Error::Untrusted(POINTER.to_owned()));
            }
            let properties = self.activation_properties(&active.activation);
            operations.push(Operation::Replace(
                key::active_row(),
                properties,
                Match::Exactly(active.etag.clone()),
            ));
        }
        let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
        self.ports.tables.commit(&table, &partition, operations).await?;
        // What is left behind without a row counts for nothing.
        let path = key::bundle_blob(&bundle.digest, &bundle.archive);
        self.ports
            .blobs
            .delete(&key::bundles_container(), &path, Match::Any)
            .await?;
        Ok(())
    }

    async fn rows(&self, prefix: &str, limit: usize) -> Result<Vec<Entity>> {
        let mut rows = Vec::new();
        let mut continuation = None;
        while rows.len() < limit {
            let query = Query::partition(key::bundles()).prefix(prefix)?.after(continuation);
            let page = self.ports.tables.query(&PlatformTable::Bundles.name(), query).await?;
            rows.extend(page.entities);
            continuation = page.next;
            if continuation.is_none() {
                break;
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    fn bundle_properties(&self, bundle: &StoredBundle) -> Properties {
        Properties::new()
            .with("v", SCHEMA)
            .with("archive", bundle.archive.clone())
            .with("archiveBytes", signed(bundle.archive_bytes))
            .with("files", signed(bundle.files))
            .with("bytes", signed(bundle.bytes))
            .with("publishedAt", bundle.published_at)
            .with("publishedBy", bundle.published_by.clone())
            .with_some("note", bundle.note.clone())
            .with_some("activatedAt", bundle.activated_at)
            .with("signature", self.key.sign(BUNDLE, &said_of_bundle(bundle)))
    }

    /// A bundle's row. One that can't be read is one that nobody has signed; one of no digest is none.
    fn read_bundle(&self, entity: &Entity) -> Option<StoredBundle> {
        let hex = entity.row.as_str().strip_prefix(key::BUNDLES).unwrap_or_default();
        let digest: BundleDigest = format!("sha256:{hex}").parse().ok()?;
        let mut bundle = match stored(&entity.properties, digest.clone()) {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::warn!(bundle.digest = %digest, %error, "a bundle's row can't be read");
                StoredBundle {
                    digest,
                    archive: String::new(),
                    archive_bytes: 0,
                    files: 0,
                    bytes: 0,
                    published_at: Timestamp::from_millis(0),
                    published_by: String::new(),
                    note: None,
                    activated_at: None,
                    is_trusted: false,
                }
            }
        };
        let signature = entity.properties.text("signature").ok().flatten().unwrap_or_default();
        bundle.is_trusted = self.key.has_signed(BUNDLE, &said_of_bundle(&bundle), signature);
        Some(bundle)
    }

    fn activation_properties(&self, activation: &Activation) -> Properties {
        Properties::new()
            .with("v", SCHEMA)
            .with("sequence", signed(activation.sequence))
            .with_some("digest", activation.digest.as_ref().map(ToString::to_string))
            .with("act", activation.act.as_str())
            .with("restores", signed(activation.restores))
            .with("at", activation.at)
            .with("by", activation.by.clone())
            .with("signature", self.key.sign(ACTIVATION, &said_of_activation(activation)))
    }

    /// An activation's row. One that can't be read is one that nobody has signed.
    fn read_activation(&self, entity: &Entity) -> Activation {
        let mut activation = match activated(&entity.properties) {
            Ok(activation) => activation,
            Err(error) => {
                tracing::warn!(row = entity.row.as_str(), %error, "an activation can't be read");
                let number = entity.row.as_str().strip_prefix(key::ACTIVATIONS);
                let number = number.and_then(|number| number.parse::<u64>().ok());
                Activation {
                    sequence: number.map_or(0, |number| u64::MAX - number),
                    digest: None,
                    act: Act::Activated,
                    restores: 0,
                    at: Timestamp::from_millis(0),
                    by: String::new(),
                    is_trusted: false,
                }
            }
        };
        let signature = entity.properties.text("signature").ok().flatten().unwrap_or_default();
        activation.is_trusted = self
            .key
            .has_signed(ACTIVATION, &said_of_activation(&activation), signature);
        activation
    }
}

fn stored(properties: &Properties, digest: BundleDigest) -> Result<StoredBundle> {
    Ok(StoredBundle {
        digest,
        archive: properties.require_text("archive")?.to_owned(),
        archive_bytes: unsigned(properties.require_int("archiveBytes")?),
        files: unsigned(properties.require_int("files")?),
        bytes: unsigned(properties.require_int("bytes")?),
        published_at: properties.require_time("publishedAt")?,
        published_by: properties.require_text("publishedBy")?.to_owned(),
        note: properties.text("note")?.map(str::to_owned),
        activated_at: properties.time("activatedAt")?,
        is_trusted: false,
    })
}

fn activated(properties: &Properties) -> Result<Activation> {
    let corrupt = || StoreError::corrupt("what is active can't be read");
    Ok(Activation {
        sequence: unsigned(properties.require_int("sequence")?),
        digest: match properties.text("digest")? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| corrupt())?),
        },
        act: match properties.require_text("act")? {
            "activated" => Act::Activated,
            "rolled_back" => Act::RolledBack,
            _ => return Err(corrupt().into()),
        },
        restores: unsigned(properties.require_int("restores")?),
        at: properties.require_time("at")?,
        by: properties.require_text("by")?.to_owned(),
        is_trusted: false,
    })
}

/// What the signature of a bundle's row is of: all but when it was last activated, which nobody relies on.
fn said_of_bundle(bundle: &StoredBundle) -> String {
    serde_json::json!([
        bundle.digest,
        bundle.archive,
        bundle.archive_bytes,
        bundle.files,
        bundle.bytes,
        bundle.published_at.millis(),
        bundle.published_by,
        bundle.note,
    ])
    .to_string()
}

fn said_of_activation(activation: &Activation) -> String {
    serde_json::json!([
        activation.sequence,
        activation.digest,
        activation.act.as_str(),
        activation.restores,
        activation.at.millis(),
        activation.by,
    ])
    .to_string()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
