//! Key-value pairs that a workflow keeps from run to run: small JSON values, in a partition of each workflow.
//!
//! A pair is one row. Beside the pairs of a workflow stands their number, which changes in the same transaction as a pair
//! comes or goes, so the bound on it holds whoever writes at the same time. An expired pair counts until it is written
//! over, deleted, or swept because there is no more room.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::clock::Clock;
use crate::domain::{INLINE_BYTES, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{ETag, Entity, Key, MAX_BATCH_OPERATIONS, Match, Operation, Ports, Properties, Query, Result};
use crate::store::turns::{self, Turns};
use crate::tenancy::Scope;

/// Most pairs of one workflow.
pub const MAX_PAIRS: u64 = 10_000;
/// Most bytes of a value, as JSON.
pub const MAX_VALUE_BYTES: usize = INLINE_BYTES;
/// Most characters of a key.
pub const MAX_KEY_CHARS: usize = 256;
/// Most keys in a page.
pub const MAX_LISTED: usize = 1_000;

const SCHEMA: i64 = 1;
/// How often a write that met another one is tried again.
const TRIES: u32 = 30;

/// Pairs of workflows.
#[derive(Debug, Clone)]
pub struct Kv {
    ports: Ports,
    clock: Arc<dyn Clock>,
    turns: Turns,
}

/// A pair as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The value.
    pub value: Json,
    /// When it stops being there.
    pub expires_at: Option<Timestamp>,
}

/// Under which condition a value is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected<'a> {
    /// Under none.
    Anything,
    /// There is no such pair.
    Nothing,
    /// The value is this one.
    Value(&'a Json),
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// The value is another than the expected one; nothing is written.
    Unexpected,
    /// The workflow has [`MAX_PAIRS`] pairs.
    Full,
    /// Others kept writing the same pair, or adding pairs, at the same time; nothing is written.
    Contended,
}

/// Whether a text can be a key.
#[must_use]
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_KEY_CHARS && key::pair_row(text).is_ok()
}

/// A stored row: its version, and the pair unless it has expired.
struct Row {
    etag: ETag,
    pair: Option<Pair>,
}

impl Kv {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>) -> Self {
        Self {
            ports,
            clock,
            turns: Turns::default(),
        }
    }

    /// A pair, or nothing.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for what is no key.
    pub async fn get(&self, scope: &Scope, workflow: &str, name: &str) -> Result<Option<Pair>> {
        Ok(self.read(scope, workflow, name).await?.and_then(|row| row.pair))
    }

    /// Writes a pair, when the condition holds.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for what is no key. After [`Error::Unavailable`] it may be written.
    pub async fn set(
        &self,
        scope: &Scope,
        workflow: &str,
        name: &str,
        expected: Expected<'_>,
        pair: &Pair,
    ) -> Result<Written> {
        let partition = key::pairs(workflow)?;
        let row = key::pair_row(name)?;
        let table = key::org_table(scope.org());
        let mut swept = false;
        let _turn = self.turns.take(format!("{table}/{partition}")).await;
        for lost in 0..TRIES {
            let found = self.read(scope, workflow, name).await?;
            let there = found.as_ref().and_then(|found| found.pair.as_ref());
            let as_expected = match (&expected, there) {
                (Expected::Anything, _) | (Expected::Nothing, None) => true,
                (Expected::Value(expected), Some(there)) => **expected == there.value,
                (Expected::Nothing, Some(_)) | (Expected::Value(_), None) => false,
            };
            if !as_expected {
                return Ok(Written::Unexpected);
            }
            let properties = properties(pair, self.clock.now());
            let operations = match found {
                Some(found) => vec![Operation::Replace(row.clone(), properties, Match::Exactly(found.etag))],
                None => {
                    let (count, etag) = self.count(scope, &partition).await?;
                    if count >= MAX_PAIRS {
                        if swept || self.sweep(scope, &partition).await? == 0 {
                            return Ok(Written::Full);
                        }
                        swept = true;
                        continue;
                    }
                    vec![
                        Operation::Insert(row.clone(), properties),
                        count_operation(count + 1, etag),
                    ]
                }
            };
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => return Ok(Written::Done),
                Err(error) if error.is_conflict() => turns::pause(lost).await,
                Err(error) => return Err(error),
            }
        }
        Ok(Written::Contended)
    }

    /// Deletes a pair; whether there was one.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for what is no key.
    pub async fn delete(&self, scope: &Scope, workflow: &str, name: &str) -> Result<bool> {
        let partition = key::pairs(workflow)?;
        let row = key::pair_row(name)?;
        let table = key::org_table(scope.org());
        let _turn = self.turns.take(format!("{table}/{partition}")).await;
        for lost in 0..TRIES {
            let Some(found) = self.read(scope, workflow, name).await? else {
                return Ok(false);
            };
            let (count, etag) = self.count(scope, &partition).await?;
            let operations = vec![
                Operation::Delete(row.clone(), Match::Exactly(found.etag)),
                count_operation(count.saturating_sub(1), etag),
            ];
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => return Ok(found.pair.is_some()),
                Err(error) if error.is_conflict() => turns::pause(lost).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Throttled {
            source: "others kept writing the same pairs".into(),
        })
    }

    /// Keys that begin with a prefix and stand behind `after`, in the order of their rows; and whether there are more.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a prefix that no key can have.
    pub async fn list(
        &self,
        scope: &Scope,
        workflow: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<String>, bool)> {
        let now = self.clock.now();
        let mut query = Query::partition(key::pairs(workflow)?).prefix(key::pair_row(prefix)?.as_str())?;
        query.select = vec!["expiresAt".to_owned()];
        if let Some(after) = after {
            query.from = query.from.max(Some(key::pair_row(after)?));
        }
        let mut names = Vec::new();
        let mut continuation = None;
        loop {
            let page = self
                .ports
                .tables
                .query(&key::org_table(scope.org()), query.clone().after(continuation))
                .await?;
            for row in page.entities {
                let expired = row.properties.time("expiresAt")?.is_some_and(|at| at <= now);
                // The number of pairs has a row that is no pair's.
                let Some(name) = key::pair_name(&row.row).filter(|_| !expired) else {
                    continue;
                };
                if after == Some(&*name) {
                    continue;
                }
                if names.len() >= limit {
                    return Ok((names, true));
                }
                names.push(name);
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok((names, false));
            }
        }
    }

    async fn read(&self, scope: &Scope, workflow: &str, name: &str) -> Result<Option<Row>> {
        let now = self.clock.now();
        let row = self
            .ports
            .tables
            .get(
                &key::org_table(scope.org()),
                &key::pairs(workflow)?,
                &key::pair_row(name)?,
            )
            .await?;
        row.map(|row| read_row(&row, now)).transpose()
    }

    async fn count(&self, scope: &Scope, partition: &Key) -> Result<(u64, Option<ETag>)> {
        let row = self
            .ports
            .tables
            .get(&key::org_table(scope.org()), partition, &key::pair_count_row())
            .await?;
        Ok(match row {
            None => (0, None),
            Some(row) => (
                u64::try_from(row.properties.require_int("pairs")?).unwrap_or_default(),
                Some(row.etag),
            ),
        })
    }

    /// Deletes expired pairs, as many as one transaction takes; how many.
    async fn sweep(&self, scope: &Scope, partition: &Key) -> Result<u64> {
        let now = self.clock.now();
        let table = key::org_table(scope.org());
        let (count, etag) = self.count(scope, partition).await?;
        let mut operations = Vec::new();
        let mut continuation = None;
        loop {
            let mut query = Query::partition(partition.clone()).after(continuation);
            query.select = vec!["expiresAt".to_owned()];
            let page = self.ports.tables.query(&table, query).await?;
            for row in page.entities {
                if row.properties.time("expiresAt")?.is_some_and(|at| at <= now)
                    && operations.len() + 1 < MAX_BATCH_OPERATIONS
                {
                    operations.push(Operation::Delete(row.row, Match::Exactly(row.etag)));
                }
            }
            continuation = page.next;
            if continuation.is_none() || operations.len() + 1 >= MAX_BATCH_OPERATIONS {
                break;
            }
        }
        let swept = operations.len() as u64;
        if swept == 0 {
            return Ok(0);
        }
        operations.push(count_operation(count.saturating_sub(swept), etag));
        match self.ports.tables.commit(&table, partition, operations).await {
            Ok(_) => Ok(swept),
            // Somebody else sweeps, or writes: that changes what there is to do as well.
            Err(error) if error.is_conflict() => Ok(1),
            Err(error) => Err(error),
        }
    }
}

fn count_operation(count: u64, etag: Option<ETag>) -> Operation {
    let properties = Properties::new()
        .with("v", SCHEMA)
        .with("pairs", i64::try_from(count).unwrap_or(i64::MAX));
    match etag {
        None => Operation::Insert(key::pair_count_row(), properties),
        Some(etag) => Operation::Replace(key::pair_count_row(), properties, Match::Exactly(etag)),
    }
}

fn properties(pair: &Pair, now: Timestamp) -> Properties {
    Properties::new()
        .with("v", SCHEMA)
        .with("value", pair.value.to_string())
        .with_some("expiresAt", pair.expires_at)
        .with("updatedAt", now)
}

fn read_row(row: &Entity, now: Timestamp) -> Result<Row> {
    let expires_at = row.properties.time("expiresAt")?;
    let pair = if expires_at.is_some_and(|at| at <= now) {
        None
    } else {
        let value = serde_json::from_str(row.properties.require_text("value")?)
            .map_err(|_| Error::corrupt("the value of a pair is not JSON"))?;
        Some(Pair { value, expires_at })
    };
    Ok(Row {
        etag: row.etag.clone(),
        pair,
    })
}
