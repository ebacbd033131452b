//! Messages from one instance to another: a run that you drive has ended, nobody wants an attempt that you make.
//!
//! Each instance reads its own partition. Where nobody reads any more, because the instance is gone, rows are found by a
//! second partition that lists what was sent by its time.

use crate::domain::Timestamp;
use crate::store::error::Error;
pub use crate::store::key::About;
use crate::store::key::{self, PlatformTable};
use crate::store::port::{Key, Match, Operation, Ports, Properties, Query, Result};
use crate::tenancy::PlatformScope;

/// The shape of the rows that this build writes.
const SCHEMA: i64 = 1;
/// Signals that are read at once.
const AT_ONCE: usize = 80;

/// Signals between instances.
#[derive(Debug, Clone)]
pub struct Signals {
    ports: Ports,
}

impl Signals {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Tells an instance that a run has ended, or an attempt. Repeating it does no harm.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] when the instance is none.
    pub async fn stop(&self, _: &PlatformScope, instance: &str, about: &About, at: Timestamp) -> Result<()> {
        let table = PlatformTable::Signals.name();
        let properties = Properties::new().with("v", SCHEMA).with("kind", "stop").with("at", at);
        let signal = Operation::Upsert(key::signal_row(about), properties.clone());
        let sent = Operation::Upsert(key::sent_signal_row(at, instance, about), properties);
        // Listed first: a signal that is not listed would stay for ever.
        self.ports
            .tables
            .commit(&table, &key::sent_signals(), vec![sent])
            .await?;
        self.ports
            .tables
            .commit(&table, &key::signals(instance), vec![signal])
            .await?;
        Ok(())
    }

    /// The runs and attempts that an instance was told to stop. One request when there are none.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn to_stop(&self, _: &PlatformScope, instance: &str) -> Result<Vec<About>> {
        let query = Query::partition(key::signals(instance)).limit(AT_ONCE);
        let page = self.ports.tables.query(&PlatformTable::Signals.name(), query).await?;
        let about = |row: &Key| {
            About::parse(row.as_str()).ok_or_else(|| Error::corrupt("a signal names no run and no attempt"))
        };
        page.entities.iter().map(|row| about(&row.row)).collect()
    }

    /// Takes a signal away that was followed; it may be gone already.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn followed(&self, _: &PlatformScope, instance: &str, about: &About) -> Result<()> {
        self.delete(&key::signals(instance), key::signal_row(about)).await
    }

    /// Takes signals away that were sent before `until`, and that nobody follows any more; how many were looked at, at most 80.
    ///
    /// # Errors
    /// Those of the table store; the next call goes on.
    pub async fn sweep(&self, _: &PlatformScope, until: Timestamp) -> Result<usize> {
        let mut query = Query::partition(key::sent_signals()).limit(AT_ONCE);
        query.until = Some(key::sent_signals_until(until));
        let page = self.ports.tables.query(&PlatformTable::Signals.name(), query).await?;
        for row in &page.entities {
            if let Some((instance, about)) = key::sent_signal(&row.row) {
                self.delete(&key::signals(&instance), key::signal_row(&about)).await?;
            }
            self.delete(&key::sent_signals(), row.row.clone()).await?;
        }
        Ok(page.entities.len())
    }

    async fn delete(&self, partition: &Key, row: Key) -> Result<()> {
        let operation = Operation::Delete(row, Match::Any);
        let table = PlatformTable::Signals.name();
        match self.ports.tables.commit(&table, partition, vec![operation]).await {
            Ok(_) | Err(Error::PreconditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
