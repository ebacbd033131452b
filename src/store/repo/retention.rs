//! Deletes runs that are no longer kept. What is deleted last leads to the rest, so whatever interrupts it, the next one goes on.

use crate::audit::Head;
use crate::domain::{RunId, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Continuation, Entity, Key, MAX_BATCH_OPERATIONS, Match, Operation, Ports, Query, Result};
use crate::tenancy::Scope;

/// A run that was asked for before a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// The run.
    pub run: RunId,
    /// The head of its audit chain, while it has one: the number of its last record, and its hash.
    pub chain: Option<Head>,
    listed: Key,
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

    /// Rows of the list whose runs were asked for before a time, newest first, at most `limit`. One request.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn listed_before(
        &self,
        scope: &Scope,
        before: Timestamp,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<(Vec<Old>, Option<Continuation>)> {
        let mut query = Query::partition(key::index())
            .prefix(key::INDEX_RUNS)?
            .limit(limit)
            .after(after);
        query.from = Some(key::index_runs_before(before));
        query.select = vec!["v".to_owned()];
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let old = |row: &Entity| {
            let run = row.row.as_str().rsplit(':').next().unwrap_or_default().parse();
            let run = run.map_err(|_| Error::corrupt("an index row names no run"))?;
            Ok(Old {
                run,
                chain: None,
                listed: row.row.clone(),
            })
        };
        Ok((page.entities.iter().map(old).collect::<Result<_>>()?, page.next))
    }

    /// Deletes a run: its logs, everything in its partition, and last the row that lists it. Values and artifacts, which other
    /// runs may share, stay, as do the rows that list its audit records.
    ///
    /// # Errors
    /// Those of the stores; the next call goes on.
    pub async fn delete(&self, scope: &Scope, old: &Old) -> Result<()> {
        let (table, container) = (key::org_table(scope.org()), key::org_container(scope.org()));
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
            Ok(_) | Err(Error::PreconditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
