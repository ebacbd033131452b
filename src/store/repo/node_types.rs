//! The node library: types, the draft of each, published versions. All of a version is one blob that is named by its digest, so
//! whoever holds the digest knows every byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::error::Error;
use super::super::key::{self, PlatformTable};
use super::super::port::{ETag, Entity, Match, Operation, Ports, Properties, Put, Query, Result};
use super::audit_log::Within;
use crate::clock::Clock;
use crate::domain::{
    LibraryVersion, NodeDocument, NodeState, NodeTypeName, NodeUse, NodeVersion, Timestamp, Trust, sha256_hex,
};
use crate::tenancy::PlatformScope;

/// Largest version, in bytes: its code as JSON, and the rest.
const MAX_BYTES: u64 = 2 << 20;
/// Most bytes of versions that are kept in memory.
const CACHED_BYTES: usize = 16 << 20;
/// Most names of versions that are kept in memory.
const CACHED_NAMES: usize = 1_024;

/// A type, without what its versions say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its name.
    pub name: NodeTypeName,
    /// What it is called; of the newest version, else of the draft. So are the next three.
    pub title: String,
    /// What it does.
    pub description: String,
    /// Under what it is listed.
    pub category: String,
    /// The name of a picture.
    pub icon: String,
    /// How far its code is trusted.
    pub trust: Trust,
    /// The newest published version: a release, where there is one.
    pub newest: Option<NodeVersion>,
    /// Whether that one is deprecated.
    pub deprecated: bool,
    /// How many versions are published.
    pub versions: u32,
    /// The version that its draft is to become.
    pub draft: Option<NodeVersion>,
    /// When something of it was last changed.
    pub updated_at: Timestamp,
}

impl Head {
    /// A type that has nothing yet.
    #[must_use]
    pub fn new(name: NodeTypeName, now: Timestamp) -> Self {
        Self {
            title: name.to_string(),
            name,
            description: String::new(),
            category: String::new(),
            icon: String::new(),
            trust: Trust::Restricted,
            newest: None,
            deprecated: false,
            versions: 0,
            draft: None,
            updated_at: now,
        }
    }

    fn describe(&mut self, document: &NodeDocument) {
        self.title.clone_from(&document.title);
        self.description.clone_from(&document.description);
        self.category.clone_from(&document.category);
        self.icon.clone_from(&document.icon);
        self.trust = document.trust;
    }
}

/// A type as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredHead {
    /// The type.
    pub head: Head,
    etag: ETag,
}

/// A draft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// What it is to become.
    pub version: NodeVersion,
    /// The digest of its document.
    pub digest: String,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
}

/// A draft as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDraft {
    /// The draft.
    pub draft: Draft,
    etag: ETag,
}

/// A published version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The version.
    pub version: NodeVersion,
    /// The digest of its document.
    pub digest: String,
    /// Published, or deprecated.
    pub state: NodeState,
    /// What those are told who use a deprecated one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// How far its code is trusted.
    pub trust: Trust,
    /// When it was published.
    pub published_at: Timestamp,
    /// By whom.
    pub published_by: String,
}

/// What was read of the library lately. Nothing in it can become wrong: a digest and a published version stay what they are.
#[derive(Debug, Default)]
struct Known {
    documents: HashMap<String, (usize, Arc<LibraryVersion>)>,
    bytes: usize,
    digests: HashMap<NodeUse, String>,
}

/// The node library.
#[derive(Debug, Clone)]
pub struct NodeTypes {
    ports: Ports,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Known>>,
}

impl NodeTypes {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>) -> Self {
        Self {
            ports,
            clock,
            known: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// All types, by name.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn heads<'a>(&self, _within: impl Into<Within<'a>> + Send) -> Result<Vec<Head>> {
        let rows = self.rows(key::NODE_TYPE_HEADS).await?;
        rows.iter().map(|row| read(row, "type")).collect()
    }

    /// A type.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn head<'a>(
        &self,
        _within: impl Into<Within<'a>> + Send,
        name: &NodeTypeName,
    ) -> Result<Option<StoredHead>> {
        let Some(row) = self.row(&key::node_type_row(name)).await? else {
            return Ok(None);
        };
        Ok(Some(StoredHead {
            head: read(&row, "type")?,
            etag: row.etag,
        }))
    }

    /// The published versions of a type, oldest first.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn versions<'a>(
        &self,
        _within: impl Into<Within<'a>> + Send,
        name: &NodeTypeName,
    ) -> Result<Vec<Version>> {
        let rows = self.rows(&key::node_type_versions(name)).await?;
        let mut versions: Vec<Version> = rows.iter().map(|row| read(row, "version")).collect::<Result<_>>()?;
        versions.sort_by(|one, other| one.version.cmp(&other.version));
        Ok(versions)
    }

    /// A published version.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn version<'a>(&self, _within: impl Into<Within<'a>> + Send, named: &NodeUse) -> Result<Option<Version>> {
        let row = self.row(&key::node_type_version_row(named)).await?;
        row.map(|row| read(&row, "version")).transpose()
    }

    /// All of a published version. Warm it costs nothing.
    ///
    /// # Errors
    /// Those of the stores; [`Error::Corrupt`] when what is stored is not what was published.
    pub async fn published<'a>(
        &self,
        within: impl Into<Within<'a>> + Send,
        named: &NodeUse,
    ) -> Result<Option<Arc<LibraryVersion>>> {
        let within = within.into();
        let known = self.known().digests.get(named).cloned();
        let digest = match known {
            Some(digest) => digest,
            None => match self.version(within, named).await? {
                Some(version) => version.digest,
                None => return Ok(None),
            },
        };
        let authored = self.document(within, &digest).await?;
        if authored.document.named() != *named {
            return Err(Error::corrupt(format!("`{named}` leads to another version")));
        }
        let mut known = self.known();
        if known.digests.len() >= CACHED_NAMES {
            known.digests.clear();
        }
        known.digests.insert(named.clone(), digest);
        Ok(Some(authored))
    }

    /// All of the version of a digest, draft or not.
    ///
    /// # Errors
    /// Those of the blob store; [`Error::Corrupt`] when it is gone, or is not what the digest names.
    pub async fn document<'a>(
        &self,
        _within: impl Into<Within<'a>> + Send,
        digest: &str,
    ) -> Result<Arc<LibraryVersion>> {
        if let Some((_, authored)) = self.known().documents.get(digest) {
            return Ok(authored.clone());
        }
        let sha256 = digest.strip_prefix("sha256:").unwrap_or_default();
        let bytes = self
            .ports
            .blobs
            .get(&key::library_container(), &key::node_type_blob(sha256), MAX_BYTES)
            .await?
            .ok_or_else(|| Error::corrupt(format!("node type `{digest}` is missing")))?;
        if sha256_hex(&bytes) != sha256 {
            return Err(Error::corrupt(format!("node type `{digest}` has another digest")));
        }
        let document: NodeDocument = serde_json::from_slice(&bytes)
            .map_err(|_| Error::corrupt(format!("node type `{digest}` can't be read")))?;
        let authored = Arc::new(LibraryVersion {
            digest: digest.to_owned(),
            document,
        });
        self.remember(bytes.len(), &authored);
        Ok(authored)
    }

    fn remember(&self, bytes: usize, authored: &Arc<LibraryVersion>) {
        let mut known = self.known();
        if known.bytes + bytes > CACHED_BYTES {
            known.documents.clear();
            known.bytes = 0;
        }
        let entry = (bytes, authored.clone());
        match known.documents.insert(authored.digest.clone(), entry) {
            Some((before, _)) => known.bytes = known.bytes + bytes - before,
            None => known.bytes += bytes,
        }
    }

    /// A type's draft.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn draft(&self, _platform: &PlatformScope, name: &NodeTypeName) -> Result<Option<StoredDraft>> {
        let Some(row) = self.row(&key::node_type_draft_row(name)).await? else {
            return Ok(None);
        };
        Ok(Some(StoredDraft {
            draft: read(&row, "draft")?,
            etag: row.etag,
        }))
    }

    // ── writing ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Writes a draft in place of the one that was read, or as the first. First the blob, to which nothing leads without the row.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] or [`Error::AlreadyExists`] when somebody else wrote the type meanwhile.
    pub async fn put_draft(
        &self,
        platform: &PlatformScope,
        (head, before): (Option<&StoredHead>, Option<&StoredDraft>),
        document: &NodeDocument,
    ) -> Result<Draft> {
        let now = self.clock.now();
        let digest = self.keep(document).await?;
        let draft = Draft {
            version: document.version.clone(),
            digest,
            updated_at: now,
            updated_by: platform.principal().id(),
        };
        let mut next = head.map_or_else(|| Head::new(document.name.clone(), now), |head| head.head.clone());
        if next.newest.is_none() {
            next.describe(document);
        }
        next.draft = Some(document.version.clone());
        next.updated_at = now;
        let row = key::node_type_draft_row(&document.name);
        let operations = vec![
            written(
                key::node_type_row(&document.name),
                &next,
                "type",
                head.map(|head| &head.etag),
            )?,
            written(row, &draft, "draft", before.map(|before| &before.etag))?,
        ];
        self.commit(operations).await?;
        if let Some(before) = before.filter(|before| before.draft.digest != draft.digest) {
            self.drop_unused(platform, &document.name, &before.draft.digest).await?;
        }
        Ok(draft)
    }

    /// Makes the draft that was read a version.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] or [`Error::AlreadyExists`] when somebody else wrote the type meanwhile.
    pub async fn publish(
        &self,
        platform: &PlatformScope,
        (head, draft): (&StoredHead, &StoredDraft),
        document: &NodeDocument,
    ) -> Result<Version> {
        let now = self.clock.now();
        let version = Version {
            version: document.version.clone(),
            digest: draft.draft.digest.clone(),
            state: NodeState::Published,
            message: None,
            trust: document.trust,
            published_at: now,
            published_by: platform.principal().id(),
        };
        let mut next = head.head.clone();
        let is_release = |version: &NodeVersion| !version.is_before_release();
        let is_newest = next
            .newest
            .as_ref()
            .is_none_or(|newest| (is_release(&document.version), &document.version) > (is_release(newest), newest));
        if is_newest {
            next.describe(document);
            next.newest = Some(document.version.clone());
            next.deprecated = false;
        }
        next.versions += 1;
        next.draft = None;
        next.updated_at = now;
        let operations = vec![
            written(key::node_type_row(&document.name), &next, "type", Some(&head.etag))?,
            Operation::Delete(
                key::node_type_draft_row(&document.name),
                Match::Exactly(draft.etag.clone()),
            ),
            written(key::node_type_version_row(&document.named()), &version, "version", None)?,
        ];
        self.commit(operations).await?;
        Ok(version)
    }

    /// Says of a published version what its users are to know. It can be used as before.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote the type meanwhile.
    pub async fn deprecate(
        &self,
        _platform: &PlatformScope,
        head: &StoredHead,
        named: &NodeUse,
        message: &str,
    ) -> Result<Option<Version>> {
        let row = key::node_type_version_row(named);
        let Some(stored) = self.row(&row).await? else {
            return Ok(None);
        };
        let before: Version = read(&stored, "version")?;
        let version = Version {
            state: NodeState::Deprecated,
            message: Some(message.to_owned()),
            ..before
        };
        let mut next = head.head.clone();
        next.deprecated |= next.newest.as_ref() == Some(&named.version);
        next.updated_at = self.clock.now();
        let operations = vec![
            written(key::node_type_row(&named.name), &next, "type", Some(&head.etag))?,
            written(row, &version, "version", Some(&stored.etag))?,
        ];
        self.commit(operations).await?;
        Ok(Some(version))
    }

    /// Deletes the draft that was read, and the type where it has no version.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote the type meanwhile.
    pub async fn delete_draft(
        &self,
        platform: &PlatformScope,
        name: &NodeTypeName,
        (head, draft): (&StoredHead, &StoredDraft),
    ) -> Result<()> {
        let row = key::node_type_row(name);
        let of_type = if head.head.versions == 0 {
            Operation::Delete(row, Match::Exactly(head.etag.clone()))
        } else {
            let next = Head {
                draft: None,
                updated_at: self.clock.now(),
                ..head.head.clone()
            };
            written(row, &next, "type", Some(&head.etag))?
        };
        let of_draft = Operation::Delete(key::node_type_draft_row(name), Match::Exactly(draft.etag.clone()));
        self.commit(vec![of_type, of_draft]).await?;
        self.drop_unused(platform, name, &draft.draft.digest).await
    }

    async fn commit(&self, operations: Vec<Operation>) -> Result<()> {
        let table = PlatformTable::NodeTypes.name();
        self.ports.tables.commit(&table, &key::node_types(), operations).await?;
        Ok(())
    }

    /// Keeps a document under its digest.
    async fn keep(&self, document: &NodeDocument) -> Result<String> {
        let bytes = document.to_bytes();
        let sha256 = sha256_hex(&bytes);
        let (container, path) = (key::library_container(), key::node_type_blob(&sha256));
        // What lies there may have been tampered with; what is written now is right.
        let put = self
            .ports
            .blobs
            .put(&container, &path, Bytes::from(bytes), Put::Overwrite);
        put.await?;
        Ok(format!("sha256:{sha256}"))
    }

    /// Deletes a document that no version leads to. Only drafts and versions of this name can: the name is in it.
    async fn drop_unused(&self, platform: &PlatformScope, name: &NodeTypeName, digest: &str) -> Result<()> {
        let versions = self.versions(platform, name).await?;
        let draft = self.draft(platform, name).await?;
        let is_used = versions.iter().any(|version| version.digest == digest)
            || draft.is_some_and(|draft| draft.draft.digest == digest);
        if !is_used {
            let sha256 = digest.strip_prefix("sha256:").unwrap_or_default();
            let blobs = &self.ports.blobs;
            blobs
                .delete(&key::library_container(), &key::node_type_blob(sha256), Match::Any)
                .await?;
        }
        Ok(())
    }

    async fn row(&self, row: &super::super::port::Key) -> Result<Option<Entity>> {
        let table = PlatformTable::NodeTypes.name();
        self.ports.tables.get(&table, &key::node_types(), row).await
    }

    async fn rows(&self, prefix: &str) -> Result<Vec<Entity>> {
        let table = PlatformTable::NodeTypes.name();
        let mut rows = Vec::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::node_types()).prefix(prefix)?.after(continuation);
            let page = self.ports.tables.query(&table, query).await?;
            rows.extend(page.entities);
            continuation = page.next;
            if continuation.is_none() {
                return Ok(rows);
            }
        }
    }
}

fn written<T: Serialize>(
    row: super::super::port::Key,
    value: &T,
    property: &'static str,
    before: Option<&ETag>,
) -> Result<Operation> {
    let text = serde_json::to_string(value).map_err(|_| Error::corrupt(format!("a {property} can't be written")))?;
    let properties = Properties::new().with("v", 1i64).with(property, text);
    Ok(match before {
        None => Operation::Insert(row, properties),
        Some(etag) => Operation::Replace(row, properties, Match::Exactly(etag.clone())),
    })
}

fn read<T: for<'de> Deserialize<'de>>(row: &Entity, property: &'static str) -> Result<T> {
    if row.properties.require_int("v")? != 1 {
        return Err(Error::corrupt(format!(
            "a {property} of the library is of a version that can't be read"
        )));
    }
    serde_json::from_str(row.properties.require_text(property)?)
        .map_err(|_| Error::corrupt(format!("a {property} of the library can't be read")))
}
