//! What has to be looked at later, and when: one row for each, in the platform's table, so that nobody scans organizations.
//!
//! A row is a hint, never the truth: whatever it is about says itself whether it is due. So a row too many is harmless, and a
//! row is written before what it is about is changed to expect it. Rows are spread over [`DUE_BUCKETS`] partitions by what they
//! are about; within one they sort by time.

use super::super::error::Error;
use super::super::key::{self, PlatformTable};
use super::super::port::{Continuation, ETag, Entity, Key, Match, Operation, Ports, Properties, Query, Result};
use crate::domain::Timestamp;
use crate::tenancy::{DueRef, PlatformScope, Scope};

pub use super::super::key::DUE_BUCKETS;

const SCHEMA: i64 = 1;

/// What is due. The text is part of rows and stays for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DueKind {
    /// A schedule's next fire time.
    Schedule,
    /// A run that must be looked at again.
    Run,
    /// A run that is to be started later.
    Deferred,
}

impl DueKind {
    const ALL: [Self; 3] = [Self::Schedule, Self::Run, Self::Deferred];

    /// As written in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Run => "run",
            Self::Deferred => "deferred",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct DueRow {
    /// What kind of thing; none for one that another version of Weft knows, which leaves it to that version.
    pub kind: Option<DueKind>,
    /// When.
    pub at: Timestamp,
    /// Of which organization, and its id.
    pub what: DueRef,
    /// When the row was written.
    pub put_at: Timestamp,
    bucket: Key,
    row: Key,
    etag: ETag,
}

/// Some rows of a bucket, oldest first, and where to go on.
#[derive(Debug, Default)]
pub struct DuePage {
    /// The rows.
    pub rows: Vec<DueRow>,
    /// Rows beside them that can't be read: they keep nothing else from being done.
    pub unreadable: usize,
    /// Set while there may be more.
    pub next: Option<Continuation>,
}

/// The rows of all organizations.
#[derive(Debug, Clone)]
pub struct Due {
    ports: Ports,
}

impl Due {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Says that something of the organization is due at `at`. Repeating it renews the row's version, so that who is about to
    /// delete the row as it was fails.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for an id that is no key.
    pub async fn put(&self, scope: &Scope, kind: DueKind, at: Timestamp, id: &str, now: Timestamp) -> Result<()> {
        let row = key::due_row(at, kind.as_str(), scope.org(), id)?;
        let properties = Properties::new()
            .with("v", SCHEMA)
            .with("kind", kind.as_str())
            .with("at", at)
            .with("organization", scope.org().as_str())
            .with("id", id)
            .with("putAt", now);
        let bucket = key::due_bucket(scope.org(), id);
        let operations = vec![Operation::Upsert(row, properties)];
        let table = PlatformTable::Due.name();
        self.ports.tables.commit(&table, &bucket, operations).await?;
        Ok(())
    }

    /// What a bucket (from 0 to below [`DUE_BUCKETS`]) holds that is due at `until` or before, oldest first: a page of at most
    /// `limit` rows, 1 to 1,000, that begins where an earlier one ended.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn due_until(
        &self,
        _platform: &PlatformScope,
        bucket: u8,
        until: Timestamp,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<DuePage> {
        let mut query = Query::partition(key::due_bucket_number(bucket))
            .limit(limit)
            .after(after);
        query.until = Some(key::due_until(until));
        let page = self.ports.tables.query(&PlatformTable::Due.name(), query).await?;
        let found = page.entities.len();
        let rows: Vec<DueRow> = page.entities.into_iter().filter_map(|row| read(row).ok()).collect();
        Ok(DuePage {
            unreadable: found - rows.len(),
            rows,
            next: page.next,
        })
    }

    /// Deletes a row as it was read: whether it was still that one. One that was written again meanwhile stays.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn done(&self, _platform: &PlatformScope, row: &DueRow) -> Result<bool> {
        let operations = vec![Operation::Delete(row.row.clone(), Match::Exactly(row.etag.clone()))];
        match self
            .ports
            .tables
            .commit(&PlatformTable::Due.name(), &row.bucket, operations)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::PreconditionFailed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes what [`Due::put`] wrote, in any version: only for what is not there any more.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for an id that is no key.
    pub async fn remove(&self, scope: &Scope, kind: DueKind, at: Timestamp, id: &str) -> Result<()> {
        let row = key::due_row(at, kind.as_str(), scope.org(), id)?;
        let bucket = key::due_bucket(scope.org(), id);
        let operations = vec![Operation::Delete(row, Match::Any)];
        match self
            .ports
            .tables
            .commit(&PlatformTable::Due.name(), &bucket, operations)
            .await
        {
            Ok(_) | Err(Error::PreconditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn read(entity: Entity) -> Result<DueRow> {
    let properties = &entity.properties;
    if properties.require_int("v")? != SCHEMA {
        return Err(Error::corrupt("a due row is of a version that can't be read"));
    }
    let kind = properties.require_text("kind")?;
    Ok(DueRow {
        kind: DueKind::ALL.into_iter().find(|known| known.as_str() == kind),
        at: properties.require_time("at")?,
        what: DueRef {
            org: properties
                .require_text("organization")?
                .parse()
                .map_err(|_| Error::corrupt("a due row's organization can't be read"))?,
            id: properties.require_text("id")?.to_owned(),
        },
        put_at: properties.require_time("putAt")?,
        bucket: entity.partition,
        row: entity.row,
        etag: entity.etag,
    })
}
