//! Results that later runs may take instead of making an attempt: opt-in for each step, found by everything that made them.
//!
//! The rows of an organization are one partition. Their number stands beside them and changes in the same transaction, so the
//! bound on it holds whoever writes at the same time; when it is reached, what has expired goes, and the oldest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::runs::{payload, put_payload};
use crate::clock::Clock;
use crate::domain::{Payload, RunId, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Match, Operation, Ports, Properties, Query, Result, TableName};
use crate::tenancy::Scope;

/// How many go at once when there is no more room, at most; of few a twentieth.
const EVICTED: i64 = 50;
/// How often a write that met another one is tried again; a result that is not kept is made again.
const TRIES: u32 = 4;
const SCHEMA: i64 = 1;

/// A result of an earlier attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What came out.
    pub output: Payload,
    /// In which run.
    pub run: RunId,
    /// When.
    pub at: Timestamp,
}

/// Results of organizations.
#[derive(Debug, Clone)]
pub struct Results {
    ports: Ports,
    clock: Arc<dyn Clock>,
    looks: Arc<Looks>,
    most: i64,
}

#[derive(Debug, Default)]
struct Looks {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Results {
    /// Over these ports, keeping so many results of an organization at most; 0 for none.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>, most: u32) -> Self {
        Self {
            ports,
            clock,
            looks: Arc::default(),
            most: i64::from(most),
        }
    }

    /// How often a result was found, and how often none was, since this process began.
    #[must_use]
    pub fn looks(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.looks.hits), read(&self.looks.misses))
    }

    /// The result that a digest leads to, unless it has expired.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope, digest: &str) -> Result<Option<Kept>> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::results(), &key::result_row(digest))
            .await?;
        let kept = match &row {
            Some(row) if row.properties.require_time("expiresAt")? > self.clock.now() => Some(Kept {
                output: payload(&row.properties, "output")?,
                run: row
                    .properties
                    .require_text("run")?
                    .parse()
                    .map_err(|_| Error::corrupt("a kept result names no run"))?,
                at: row.properties.require_time("createdAt")?,
            }),
            _ => None,
        };
        let count = if kept.is_some() {
            &self.looks.hits
        } else {
            &self.looks.misses
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(kept)
    }

    /// Keeps a result for a while. One that meets too many others at the same moment is not kept.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn put(
        &self,
        scope: &Scope,
        digest: &str,
        output: &Payload,
        run: &RunId,
        good_for: Duration,
    ) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        let table = key::org_table(scope.org());
        let now = self.clock.now();
        let mut properties = Properties::new()
            .with("v", SCHEMA)
            .with("run", run.as_str())
            .with("createdAt", now)
            .with("expiresAt", now.plus(good_for));
        put_payload(&mut properties, "output", output);
        for _ in 0..TRIES {
            let operations = self.operations(&table, digest, properties.clone(), now).await?;
            match self.ports.tables.commit(&table, &key::results(), operations).await {
                Ok(_) => return Ok(()),
                Err(Error::PreconditionFailed { .. } | Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn operations(
        &self,
        table: &TableName,
        digest: &str,
        properties: Properties,
        now: Timestamp,
    ) -> Result<Vec<Operation>> {
        let row = key::result_row(digest);
        if let Some(there) = self.ports.tables.get(table, &key::results(), &row).await? {
            return Ok(vec![Operation::Replace(row, properties, Match::Exactly(there.etag))]);
        }
        let counted = self
            .ports
            .tables
            .get(table, &key::results(), &key::result_count_row())
            .await?;
        let mut count = match &counted {
            Some(row) => row.properties.require_int("results")?,
            None => 0,
        };
        let mut operations = vec![Operation::Insert(row, properties)];
        if count >= self.most {
            let room = (self.most / 20).max(1);
            for row in self.oldest(table, now, (count - self.most + room).min(EVICTED)).await? {
                operations.push(row);
                count -= 1;
            }
        }
        let properties = Properties::new().with("v", SCHEMA).with("results", count + 1);
        operations.push(match counted {
            None => Operation::Insert(key::result_count_row(), properties),
            Some(row) => Operation::Replace(row.row, properties, Match::Exactly(row.etag)),
        });
        Ok(operations)
    }

    /// Deletes what has expired, and the oldest: so many.
    async fn oldest(&self, table: &TableName, now: Timestamp, evicted: i64) -> Result<Vec<Operation>> {
        let mut query = Query::partition(key::results()).prefix(key::RESULTS)?;
        query.select = vec!["createdAt".to_owned(), "expiresAt".to_owned()];
        let page = self.ports.tables.query(table, query).await?;
        let mut rows = Vec::new();
        for row in page.entities {
            let has_expired = row.properties.require_time("expiresAt")? <= now;
            rows.push((
                !has_expired,
                row.properties.require_time("createdAt")?,
                row.row,
                row.etag,
            ));
        }
        rows.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        rows.truncate(usize::try_from(evicted).unwrap_or_default());
        Ok(rows
            .into_iter()
            .map(|(_, _, row, etag)| Operation::Delete(row, Match::Exactly(etag)))
            .collect())
    }
}
