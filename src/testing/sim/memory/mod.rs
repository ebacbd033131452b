//! Storage in memory, as strict as the service and wholly deterministic: ordered maps, one counter for versions, time from the
//! clock that it is handed, no threads. `store/conformance.rs` runs against it as against the real backends.
//!
//! A [`Defect`] makes it break one promise on purpose, so that a test can show that the simulator notices.

mod blobs;
mod queues;
mod tables;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::store::error::Error;
use crate::store::port::{BlobStore, Ports, QueueStore, TableStore};

pub use self::blobs::Blobs;
pub use self::queues::Queues;
pub use self::tables::Tables;

/// A promise of storage that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A replace happens whatever the row's version is.
    IgnoresVersions,
    /// An insert overwrites what is there.
    InsertsOver,
    /// Of a transaction that changes a row in one version and adds others, the added rows are lost.
    TearsTransactions,
    /// Messages that are sent with a delay never arrive.
    LosesDelayed,
    /// A message that was deleted stays.
    KeepsDeleted,
    /// A touch answers that it was done, and leaves a blob as it is.
    IgnoresTouches,
}

/// Storage in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Rows.
    pub tables: Arc<Tables>,
    /// Bytes.
    pub blobs: Arc<Blobs>,
    /// Messages.
    pub queues: Arc<Queues>,
}

impl Memory {
    /// Empty, by this clock. Pages hold at most `page` rows, whatever is asked for.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, page: usize) -> Self {
        Self::with(clock, page, None)
    }

    /// The same with a defect.
    #[must_use]
    pub fn with(clock: Arc<dyn Clock>, page: usize, defect: Option<Defect>) -> Self {
        let versions = Arc::new(Versions::default());
        Self {
            tables: Arc::new(Tables::new(versions.clone(), page.max(1), defect)),
            blobs: Arc::new(Blobs::new(versions.clone(), clock.clone(), defect)),
            queues: Arc::new(Queues::new(versions, clock, defect)),
        }
    }

    /// As ports.
    #[must_use]
    pub fn ports(&self) -> Ports {
        Ports {
            tables: self.tables.clone() as Arc<dyn TableStore>,
            blobs: self.blobs.clone() as Arc<dyn BlobStore>,
            queues: self.queues.clone() as Arc<dyn QueueStore>,
        }
    }
}

/// Numbers that are given once.
#[derive(Debug, Default)]
struct Versions(AtomicU64);

impl Versions {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(what: &str) -> Error {
    Error::NotFound { what: what.to_owned() }
}
