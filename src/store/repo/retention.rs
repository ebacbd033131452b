//! Deletes runs that are no longer kept. What is deleted last leads to the rest, so whatever interrupts it, the next one goes on.

use super::damage::{known, noted};
use super::runs::StoredRun;
use crate::audit::Head;
use crate::domain::{RunId, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{
    Continuation, ETag, Entity, Key, MAX_BATCH_OPERATIONS, Match, Operation, Ports, Properties, Query, Result,
};
use crate::tenancy::Scope;

/// The shape of the rows that this build writes.
const SCHEMA: i64 = 1;

/// A run that was asked for before a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// The run.
    pub run: RunId,
    /// The head of its audit chain, while it has one: the number of its last record, and its hash.
    pub chain: Option<Head>,
    /// Its header as it was looked at.
    header: Option<ETag>,
    listed: Key,
}

/// A place in the list of runs; a later one is that of older runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Key);

impl Old {
    /// Where it stands in the list.
    #[must_use]
    pub fn place(&self) -> Place {
        Place(self.listed.clone())
    }

    /// With its header.
    #[must_use]
    pub fn with(mut self, run: &StoredRun) -> Self {
        self.chain = Some(run.audit);
        self.header = Some(run.etag.clone());
        self
    }
}

/// Runs that are no longer kept.
#[derive(Debug, Clone)]
pub struct Retention {
    ports: Ports,
}

impl Retention {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Rows of the list whose runs were asked for before a time, newest first, at most `limit`; those from a place on. One request.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn listed_before(
        &self,
        scope: &Scope,
        before: Timestamp,
        from: Option<&Place>,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<(Vec<Old>, Option<Continuation>)> {
        let mut query = Query::partition(key::index())
            .prefix(key::INDEX_RUNS)?
            .limit(limit)
            .after(after);
        let start = key::index_runs_before(before);
        query.from = Some(from.map_or(start.clone(), |from| from.0.clone().max(start)));
        query.select = vec!["v".to_owned()];
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let old = |row: &Entity| {
            let Ok(run) = row.row.as_str().rsplit(':').next().unwrap_or_default().parse() else {
                noted(row, &["it names no run".to_owned()]);
                return None;
            };
            Some(Old {
                run,
                chain: None,
                header: None,
                listed: row.row.clone(),
            })
        };
        Ok((page.entities.iter().filter_map(old).collect(), page.next))
    }

    /// Where an earlier tick has ended among runs that stay; none when it came to the end of the list.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn place(&self, scope: &Scope) -> Result<Option<Place>> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::retention(), &key::retention_row())
            .await?;
        // What can't be read says nothing: the next tick begins with the newest again.
        let place = |row: &Entity| {
            row.properties
                .require_text("after")
                .ok()
                .and_then(|text| Key::new(text).ok())
        };
        Ok(row.as_ref().and_then(place).map(Place))
    }

    /// Says where a tick has ended. Of two at once the last one counts: a place that is lost is only looked at again.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn set_place(&self, scope: &Scope, place: Option<&Place>) -> Result<()> {
        let mut properties = Properties::new().with("v", SCHEMA);
        if let Some(place) = place {
            properties = properties.with("after", place.0.as_str());
        }
        let operations = vec![Operation::Upsert(key::retention_row(), properties)];
        let table = key::org_table(scope.org());
        self.ports.tables.commit(&table, &key::retention(), operations).await?;
        Ok(())
    }

    /// Says that another run takes over values of a run, before it does. The header changes with it, so that whoever is about to
    /// delete the run notices.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when there is no such run any more; else those of the table store.
    pub async fn keep_for(&self, scope: &Scope, run: &RunId, by: &RunId, now: Timestamp) -> Result<()> {
        let operations = vec![
            Operation::Merge(
                key::run_header_row(),
                Properties::new().with("resumed", true),
                Match::Any,
            ),
            Operation::Upsert(
                key::resumed_row(by),
                Properties::new().with("v", SCHEMA).with("at", now),
            ),
        ];
        let table = key::org_table(scope.org());
        self.ports.tables.commit(&table, &key::run(run), operations).await?;
        Ok(())
    }

    /// The runs that take over values of a run, or have deleted that since, and when they said so, where that can be read. One
    /// request for each thousand.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn kept_for(&self, scope: &Scope, run: &RunId) -> Result<Vec<(RunId, Option<Timestamp>)>> {
        let (table, mut found, mut after) = (key::org_table(scope.org()), Vec::new(), None);
        loop {
            let query = Query::partition(key::run(run)).prefix(key::RESUMED)?.after(after);
            let page = self.ports.tables.query(&table, query).await?;
            for row in &page.entities {
                let by = row.row.as_str().strip_prefix(key::RESUMED).unwrap_or_default();
                let Ok(by) = by.parse() else {
                    noted(row, &["it names no run".to_owned()]);
                    continue;
                };
                let mut why = Vec::new();
                found.push((by, known(row.properties.require_time("at"), &mut why)));
                noted(row, &why);
            }
            after = page.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Deletes a run: its header, its logs, everything else in its partition, and last the row that lists it; whether it did, since
    /// its header may have changed after it was looked at. Values and artifacts, which other runs may share, stay, as do the rows
    /// that list its audit records.
    ///
    /// # Errors
    /// Those of the stores; the next call goes on.
    pub async fn delete(&self, scope: &Scope, old: &Old) -> Result<bool> {
        let (table, container) = (key::org_table(scope.org()), key::org_container(scope.org()));
        if let Some(seen) = &old.header {
            let header = vec![Operation::Delete(key::run_header_row(), Match::Exactly(seen.clone()))];
            match self.ports.tables.commit(&table, &key::run(&old.run), header).await {
                Err(Error::PreconditionFailed { .. }) => return Ok(false),
                deleted => deleted?,
            };
        }
        loop {
            let page = self
                .ports
                .blobs
                .list(&container, &key::log_blobs(&old.run), None)
                .await?;
            for blob in &page.blobs {
                self.ports.blobs.delete(&container, &blob.path, Match::Any).await?;
            }
            if page.next.is_none() {
                break;
            }
        }
        let partition = key::run(&old.run);
        loop {
            let query = Query::partition(partition.clone()).limit(MAX_BATCH_OPERATIONS);
            let page = self.ports.tables.query(&table, query).await?;
            let is_last = page.next.is_none();
            let rows = page
                .entities
                .into_iter()
                .map(|row| Operation::Delete(row.row, Match::Any));
            let rows: Vec<_> = rows.collect();
            if !rows.is_empty() {
                match self.ports.tables.commit(&table, &partition, rows).await {
                    // Another instance does the same, or an answer was lost: what is left is seen by looking again.
                    Err(Error::PreconditionFailed { .. }) => continue,
                    deleted => deleted?,
                };
            }
            if is_last {
                break;
            }
        }
        let listed = vec![Operation::Delete(old.listed.clone(), Match::Any)];
        match self.ports.tables.commit(&table, &key::index(), listed).await {
            Ok(_) | Err(Error::PreconditionFailed { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
