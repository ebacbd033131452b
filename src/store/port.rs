//! The three storage ports that every backend implements, and the values that cross them.
//!
//! The contract is what Azure Tables, Blobs and Queues give; the embedded backend is as strict. `store/conformance.rs`
//! says it as functions that run against every backend. Nothing here takes a filter as text: a [`Filter`] is built from
//! typed values, so there is nothing to escape and nothing to inject into.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::Error;
use crate::domain::{Secret, Timestamp};

/// What an operation answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Most operations in one entity-group transaction. The service allows 100; a reserve is kept for audit records.
pub const MAX_BATCH_OPERATIONS: usize = 80;
/// Most bytes in one entity-group transaction. The service allows 4 MiB with its framing.
pub const MAX_BATCH_BYTES: usize = 3 * 1024 * 1024;
/// Most bytes in one entity, names included (service limit).
pub const MAX_ENTITY_BYTES: usize = 1024 * 1024;
/// Most bytes in one property: 64 KiB, text counted as UTF-16 (service limit).
pub const MAX_PROPERTY_BYTES: usize = 64 * 1024;
/// Most properties beside the two keys and the timestamp (service limit).
pub const MAX_PROPERTIES: usize = 252;
/// Most UTF-16 units in a partition or row key (service limit: 1 KiB).
pub const MAX_KEY_UNITS: usize = 512;
/// Most bytes of text in a queue message: 64 KiB on the wire after base64 (service limit).
pub const MAX_MESSAGE_BYTES: usize = 48 * 1024;
/// Longest delay or visibility timeout of a message (service limit).
pub const MAX_VISIBILITY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most bytes in one append to a blob (service limit).
pub const MAX_APPEND_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of each part of a blob that is written in parts, but the last. Of so large ones a blob may have 50,000 (service limit).
pub const PART_BYTES: usize = 4 * 1024 * 1024;
/// Most rows in a page (service limit).
pub const MAX_PAGE: usize = 1000;

/// A partition key or row key that the service accepts: at most 512 UTF-16 units, none of `/ \ # ?` or control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a text.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the service would refuse it.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let forbidden = |c: char| matches!(c, '/' | '\\' | '#' | '?') || c.is_control();
        if text.encode_utf16().count() > MAX_KEY_UNITS || text.chars().any(forbidden) {
            return Err(Error::Malformed {
                what: text.chars().take(60).collect(),
                expected: "partition or row key",
            });
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! resource_name {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// [`Error::Malformed`] when the service would refuse it.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok(Self(text))
                } else {
                    Err(Error::Malformed { what: text.chars().take(60).collect(), expected: $expected })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

resource_name!(
    /// A table: 3 to 63 letters and digits, a letter first.
    TableName, "table name",
    |text| (3..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
        && text.as_bytes()[0].is_ascii_alphabetic()
);
resource_name!(
    /// A blob container: 3 to 63 of a–z, 0–9 and single hyphens, no hyphen at either end.
    ContainerName, "container name", is_dns_name
);
resource_name!(
    /// A queue: as a container.
    QueueName, "queue name", is_dns_name
);
resource_name!(
    /// A blob's path: 1 to 1024 characters, segments of letters, digits and `-_.=:` between `/`, no segment of dots only.
    BlobPath, "blob path",
    |text| !text.is_empty() && text.len() <= 1024 && text.split('/').all(|segment| {
        !segment.is_empty()
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.=:".contains(&b))
            && segment.bytes().any(|b| b != b'.')
    })
);

fn is_dns_name(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// A property's value, with the type that the service keeps for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, at most 32 Ki UTF-16 units.
    Text(String),
    /// A 64-bit integer (`Edm.Int64`); there is no 32-bit one, so that a filter's literal always fits its column.
    Int(i64),
    /// A finite number. The sign of zero may be lost.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// A point in time, to the millisecond.
    Time(Timestamp),
    /// Bytes, at most 64 KiB.
    Bytes(Vec<u8>),
}

impl Value {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.encode_utf16().count() * 2,
            Self::Int(_) | Self::Double(_) | Self::Time(_) => 8,
            Self::Bool(_) => 1,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Time(at)
    }
}

/// The properties of an entity, without its keys. Names match `[A-Za-z_][A-Za-z0-9_]{0,254}`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Properties(BTreeMap<String, Value>);

impl Properties {
    /// No properties.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds one where there is a value.
    #[must_use]
    pub fn with_some<V: Into<Value>>(self, name: &str, value: Option<V>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Sets one.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Removes one.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// One of any type.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Text, or nothing when it is missing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has another type.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(name)),
        }
    }

    /// Text that must be there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is missing or has another type.
    pub fn require_text(&self, name: &str) -> Result<&str> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// An integer that must be there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is missing or has another type.
    pub fn require_int(&self, name: &str) -> Result<i64> {
        self.int(name)?.ok_or_else(|| missing(name))
    }

    /// An integer, or nothing when it is missing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has another type.
    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(_) => Err(wrong_type(name)),
        }
    }

    /// True or false; missing counts as false.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has another type.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.0.get(name) {
            None => Ok(false),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(_) => Err(wrong_type(name)),
        }
    }

    /// A point in time, or nothing when it is missing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has another type.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Time(at)) => Ok(Some(*at)),
            Some(_) => Err(wrong_type(name)),
        }
    }

    /// A point in time that must be there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is missing or has another type.
    pub fn require_time(&self, name: &str) -> Result<Timestamp> {
        self.time(name)?.ok_or_else(|| missing(name))
    }

    /// Bytes, or nothing when they are missing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has another type.
    pub fn bytes(&self, name: &str) -> Result<Option<&[u8]>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(wrong_type(name)),
        }
    }

    fn size(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| name.len() * 2 + value.size() + 8)
            .sum()
    }
}

impl FromIterator<(String, Value)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

fn wrong_type(name: &str) -> Error {
    Error::corrupt(format!("property `{name}` has another type"))
}

fn missing(name: &str) -> Error {
    Error::corrupt(format!("property `{name}` is missing"))
}

/// An opaque version of a row or blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// A stored row.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Its partition.
    pub partition: Key,
    /// Its key in the partition.
    pub row: Key,
    /// Its version.
    pub etag: ETag,
    /// The rest.
    pub properties: Properties,
}

/// Under which condition a write happens. A row that is not there fails either: [`Error::PreconditionFailed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The row must exist, in any version.
    Any,
    /// The row must exist in this version.
    Exactly(ETag),
}

/// One operation on a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// The row must not exist.
    Insert(Key, Properties),
    /// All properties are replaced.
    Replace(Key, Properties, Match),
    /// The given properties are set, the others stay. The limits hold for what comes out of it.
    Merge(Key, Properties, Match),
    /// Inserted, or replaced whole.
    Upsert(Key, Properties),
    /// The row must exist.
    Delete(Key, Match),
}

impl Operation {
    /// The row that it is about.
    #[must_use]
    pub const fn row(&self) -> &Key {
        match self {
            Self::Insert(row, _)
            | Self::Replace(row, _, _)
            | Self::Merge(row, _, _)
            | Self::Upsert(row, _)
            | Self::Delete(row, _) => row,
        }
    }

    const fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Insert(_, properties)
            | Self::Replace(_, properties, _)
            | Self::Merge(_, properties, _)
            | Self::Upsert(_, properties) => Some(properties),
            Self::Delete(..) => None,
        }
    }
}

/// Refuses, before anything is sent, what the service would refuse. Every backend calls it first.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::Malformed`].
pub fn check_operations(partition: &Key, operations: &[Operation]) -> Result<()> {
    let over = |what: String, size: usize, limit: usize, unit: &'static str| {
        if size > limit {
            Err(Error::TooLarge {
                what,
                size,
                limit,
                unit,
            })
        } else {
            Ok(())
        }
    };
    over(
        "a transaction".into(),
        operations.len(),
        MAX_BATCH_OPERATIONS,
        "operations",
    )?;
    if operations.is_empty() {
        return Err(Error::Malformed {
            what: "a transaction without operations".into(),
            expected: "transaction",
        });
    }
    let mut rows = std::collections::BTreeSet::new();
    let mut total = 0;
    for operation in operations {
        let row = operation.row();
        if !rows.insert(row) {
            return Err(Error::Malformed {
                what: format!("two operations on row `{row}`"),
                expected: "transaction",
            });
        }
        let Some(properties) = operation.properties() else {
            continue;
        };
        over(format!("row `{row}`"), properties.len(), MAX_PROPERTIES, "properties")?;
        for (name, value) in properties.iter() {
            check_property(name, value)?;
            over(
                format!("property `{name}` of row `{row}`"),
                value.size(),
                MAX_PROPERTY_BYTES,
                "bytes",
            )?;
        }
        let size = properties.size() + (partition.as_str().len() + row.as_str().len()) * 2 + 64;
        over(format!("row `{row}`"), size, MAX_ENTITY_BYTES, "bytes")?;
        total += size;
    }
    over("a transaction".into(), total, MAX_BATCH_BYTES, "bytes")
}

fn check_property_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 255
        && !matches!(name, "PartitionKey" | "RowKey" | "Timestamp");
    if good {
        Ok(())
    } else {
        Err(Error::Malformed {
            what: name.chars().take(60).collect(),
            expected: "property",
        })
    }
}

fn check_property(name: &str, value: &Value) -> Result<()> {
    check_property_name(name)?;
    if matches!(value, Value::Double(number) if !number.is_finite()) {
        return Err(Error::Malformed {
            what: name.to_owned(),
            expected: "property",
        });
    }
    Ok(())
}

/// Refuses, before anything is sent, a query that the service would refuse or whose property names are none: those go
/// into the filter's text as they are. Every backend calls it first.
///
/// # Errors
/// [`Error::Malformed`].
pub fn check_query(query: &Query) -> Result<()> {
    fn check_filter(filter: &Filter) -> Result<()> {
        match filter {
            Filter::Is(name, _, value) => check_property(name, value),
            Filter::And(left, right) | Filter::Or(left, right) => check_filter(left).and_then(|()| check_filter(right)),
        }
    }
    if !(1..=MAX_PAGE).contains(&query.limit) {
        return Err(Error::Malformed {
            what: query.limit.to_string(),
            expected: "number of rows in a page",
        });
    }
    query.select.iter().try_for_each(|name| check_property_name(name))?;
    query.filter.as_ref().map_or(Ok(()), check_filter)
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`; rows without the property don't match.
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition on properties (not on keys), built from typed values. A row without the property never matches a
/// comparison; one where it has another type never matches `=`, and is best not asked with the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Property, comparison, value. Text compares by UTF-16 code units in Azure and by UTF-8 bytes in SQLite: the same
    /// below U+10000 except that surrogates sort lower, so order comparisons are used on ASCII only.
    Is(String, Comparison, Value),
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// Either.
    Or(Box<Filter>, Box<Filter>),
}

impl Filter {
    /// Property equals value.
    #[must_use]
    pub fn equal(property: &str, value: impl Into<Value>) -> Self {
        Self::Is(property.to_owned(), Comparison::Equal, value.into())
    }

    /// This and that.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::And(Box::new(self), Box::new(other))
    }

    /// This or that.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Or(Box::new(self), Box::new(other))
    }
}

/// Which rows of one partition, in row key order. A query always names its partition: there is no scan of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The partition.
    pub partition: Key,
    /// First row key, included.
    pub from: Option<Key>,
    /// End of the row keys, excluded.
    pub until: Option<Key>,
    /// Condition on properties.
    pub filter: Option<Filter>,
    /// Properties to return; all when empty.
    pub select: Vec<String>,
    /// Most rows to return, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Where an earlier page ended.
    pub continuation: Option<Continuation>,
}

impl Query {
    /// All rows of a partition, up to a full page.
    #[must_use]
    pub const fn partition(partition: Key) -> Self {
        Self {
            partition,
            from: None,
            until: None,
            filter: None,
            select: Vec::new(),
            limit: MAX_PAGE,
            continuation: None,
        }
    }

    /// Only rows whose key starts with a prefix.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the prefix can't be part of a key.
    pub fn prefix(mut self, prefix: &str) -> Result<Self> {
        self.from = Some(Key::new(prefix)?);
        // U+FFFD sorts after everything that the key functions form, which is ASCII.
        self.until = Some(Key::new(format!("{prefix}\u{fffd}"))?);
        Ok(self)
    }

    /// At most this many rows.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Only rows that match.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// From where an earlier page ended.
    #[must_use]
    pub fn after(mut self, continuation: Option<Continuation>) -> Self {
        self.continuation = continuation;
        self
    }
}

/// Where a page ended, in the backend's own words. Opaque; safe to hand to a caller and to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation(pub String);

/// Some rows, and where to go on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// In row key order. May be shorter than the limit, even empty, while `next` is set.
    pub entities: Vec<Entity>,
    /// Set while there may be more.
    pub next: Option<Continuation>,
}

/// Rows in partitions of tables.
#[async_trait]
pub trait TableStore: Send + Sync + fmt::Debug {
    /// Creates a table; one that exists stays as it is.
    async fn create_table(&self, table: &TableName) -> Result<()>;
    /// Deletes a table with everything in it; a missing one is no error.
    async fn delete_table(&self, table: &TableName) -> Result<()>;
    /// One row, or nothing. A missing table is [`Error::NotFound`].
    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>>;
    /// Rows of one partition.
    async fn query(&self, table: &TableName, query: Query) -> Result<Page>;
    /// One entity-group transaction: all operations or none, one ETag for each (empty after a delete).
    ///
    /// After [`Error::Unavailable`] the outcome is unknown: it may have been committed. Whoever repeats carries something
    /// in the rows that tells (an epoch, an id).
    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>>;
}

/// What a blob is, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its path in the container.
    pub path: BlobPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its version.
    pub etag: ETag,
    /// When it was last written or touched, by the storage's clock.
    pub modified: Timestamp,
}

/// A writer of a blob in parts, by a number that no other has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Upload(pub u64);

/// Refuses a part that is not one: it begins at a multiple of [`PART_BYTES`] and has at most so many. Every backend calls it first.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::Malformed`].
pub fn check_part(path: &BlobPath, at: u64, size: usize) -> Result<()> {
    if size > PART_BYTES {
        return Err(Error::TooLarge {
            what: format!("a part of `{path}`"),
            size,
            limit: PART_BYTES,
            unit: "bytes",
        });
    }
    if size == 0 || !at.is_multiple_of(PART_BYTES as u64) {
        return Err(Error::Malformed {
            what: path.to_string(),
            expected: "part of a blob",
        });
    }
    Ok(())
}

/// Some blobs, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobPage {
    /// In order of their paths.
    pub blobs: Vec<BlobInfo>,
    /// Set while there may be more.
    pub next: Option<Continuation>,
}

/// How a put treats what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// [`Error::AlreadyExists`] when there is one.
    Create,
    /// Replaces it.
    Overwrite,
}

/// Bytes in containers.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Creates a container; one that exists stays as it is.
    async fn create_container(&self, container: &ContainerName) -> Result<()>;
    /// Deletes a container with everything in it; a missing one is no error.
    async fn delete_container(&self, container: &ContainerName) -> Result<()>;
    /// Writes a whole blob. A missing container is [`Error::NotFound`].
    async fn put(&self, container: &ContainerName, path: &BlobPath, bytes: Bytes, put: Put) -> Result<()>;
    /// Reads a whole blob, or nothing. `limit` bytes at most, else [`Error::TooLarge`].
    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>>;
    /// Reads from `offset`, at most `length` bytes, fewer at the end, none beyond it; nothing when there is no blob.
    async fn read(&self, container: &ContainerName, path: &BlobPath, offset: u64, length: u64)
    -> Result<Option<Bytes>>;
    /// Appends to an append blob, which is made by the first append. `at` is where the caller believes the end to be:
    /// [`Error::PreconditionFailed`] when it is elsewhere (a repeat, or a second writer), [`Error::AlreadyExists`] when
    /// the blob was put whole. At most [`MAX_APPEND_BYTES`] at once, and at least one.
    async fn append(&self, container: &ContainerName, path: &BlobPath, at: u64, bytes: Bytes) -> Result<()>;
    /// Lays a part of a blob aside, which nobody sees before [`BlobStore::assemble`]. Every part but the last has [`PART_BYTES`];
    /// they come in order, and a repeat does no harm. What is never assembled goes by itself, after a day at the earliest.
    async fn lay_aside(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        upload: Upload,
        at: u64,
        bytes: Bytes,
    ) -> Result<()>;
    /// Makes a blob of the parts that were laid aside. [`Error::AlreadyExists`] when there is one, whose bytes stay;
    /// [`Error::PreconditionFailed`] when parts are missing, as they may be after somebody else has written the same blob.
    async fn assemble(&self, container: &ContainerName, path: &BlobPath, upload: Upload, size: u64) -> Result<()>;
    /// Gives up what was laid aside, where that takes room; what is not there is no error.
    async fn throw_away(&self, container: &ContainerName, path: &BlobPath, upload: Upload) -> Result<()>;
    /// Gives a blob another version and the time of now, and leaves its bytes as they are; whether there is one.
    async fn touch(&self, container: &ContainerName, path: &BlobPath) -> Result<bool>;
    /// Deletes a blob; whether there was one. [`Error::PreconditionFailed`] when it has another version than the one that is asked
    /// for; a missing one may be said to have another version as well.
    async fn delete(&self, container: &ContainerName, path: &BlobPath, condition: Match) -> Result<bool>;
    /// Blobs whose path starts with a prefix.
    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage>;
}

/// A sent message, good for deleting it before it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageReceipt {
    /// The message's id.
    pub id: String,
    /// The right to change it until it is received.
    pub pop_receipt: String,
}

/// A received message, invisible to others until its visibility timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id and the right to delete or extend it.
    pub receipt: MessageReceipt,
    /// How often it has been received, this time included.
    pub dequeue_count: u32,
    /// Its text.
    pub text: String,
}

/// Messages in queues, at least once, in no promised order.
#[async_trait]
pub trait QueueStore: Send + Sync + fmt::Debug {
    /// Creates a queue; one that exists stays as it is.
    async fn create_queue(&self, queue: &QueueName) -> Result<()>;
    /// Deletes a queue with every message in it; a missing one is no error.
    async fn delete_queue(&self, queue: &QueueName) -> Result<()>;
    /// Sends a text of at most [`MAX_MESSAGE_BYTES`], visible after `delay` (at most 7 days). Stored as base64, as the
    /// Functions host expects. Where it isn't known whether it has arrived, it is sent again, so it may be there twice.
    async fn send(&self, queue: &QueueName, text: &str, delay: Duration) -> Result<MessageReceipt>;
    /// As [`QueueStore::send`] without a delay, of what may not be there twice: where it isn't known whether it has arrived, that
    /// is an error.
    async fn send_once(&self, queue: &QueueName, text: &str) -> Result<MessageReceipt>;
    /// Receives at most `max` (1 to 32) visible messages and hides them for `visibility` (1 s to 7 days).
    async fn receive(&self, queue: &QueueName, max: usize, visibility: Duration) -> Result<Vec<Message>>;
    /// Deletes a message; whether the receipt was still good.
    async fn delete(&self, queue: &QueueName, receipt: &MessageReceipt) -> Result<bool>;
    /// Hides a message for `visibility` from now; a new receipt, or [`Error::PreconditionFailed`] when the receipt is
    /// no longer good.
    async fn extend(&self, queue: &QueueName, receipt: &MessageReceipt, visibility: Duration)
    -> Result<MessageReceipt>;
    /// An address at which whoever knows it may send messages to a queue from `now` until a time, and do nothing else; nothing
    /// where the backend has no addresses or can't sign one.
    async fn sender_address(&self, queue: &QueueName, now: Timestamp, until: Timestamp) -> Result<Option<Secret>>;
    /// Resolves soon after a message may have become visible in a queue that this process sent to, so that a local
    /// consumer need not poll; never resolves where the backend can't tell.
    async fn sent_here(&self, queue: &QueueName);
}

/// The three ports of one backend.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Rows.
    pub tables: Arc<dyn TableStore>,
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Messages.
    pub queues: Arc<dyn QueueStore>,
}
