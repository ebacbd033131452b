//! The embedded backend: one SQLite file, or a database in memory for tests and simulations.
//!
//! It is as strict as Azure's services (`store/port.rs`), and durable: a write is answered after its bytes are on the
//! disk. All writes of a process go through one thread that commits what waits together (`writer.rs`); reads have
//! threads and connections of their own (`reader.rs`). A second process may use the same file: its write transactions
//! take turns with ours, and each side sees the other's commits.

mod blob;
mod connection;
mod encoding;
mod queue;
mod reader;
mod table;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use self::connection::{Failure, Place, Role, Session, Slot, prepare};
use self::reader::Readers;
use self::writer::{Committer, Tx, Writer};
use super::error::Error;
use super::port::{Ports, Result};
use crate::clock::Clock;

/// Opens the database at `path`, making it and its folder when they are not there; without a path a new one in memory,
/// which nothing else shares and which ends with its ports. `clock` decides which messages are visible, and says when blobs were
/// written.
///
/// Later failures of the file are answered with [`Error::Unavailable`] as long as they last, and need no restart: when
/// the file was replaced or removed, the one in its place is opened, or an empty one is made where the folder is there.
///
/// # Errors
/// [`Error::Unavailable`] when the file can't be opened, written or understood as a database, [`Error::Corrupt`] when a
/// newer program has written it.
pub fn open(path: Option<&Path>, clock: Arc<dyn Clock>) -> Result<Ports> {
    let database = match path {
        None => {
            let mut committer = Committer::new(Slot::new(Place::Memory, Role::Writer));
            committer.check().map_err(|failure| failure.into_error(OPENING))?;
            Database::Memory(Arc::new(Mutex::new(committer)))
        }
        Some(path) => open_file(path)?,
    };
    Ok(Ports {
        tables: Arc::new(table::Tables(database.clone())),
        blobs: Arc::new(blob::Blobs::new(database.clone(), clock.clone())),
        queues: Arc::new(queue::Queues::new(database, clock)),
    })
}

const OPENING: &str = "opening the database";

fn open_file(path: &Path) -> Result<Database> {
    let unavailable = |source: std::io::Error| Error::Unavailable {
        what: OPENING.into(),
        source: Box::new(source),
    };
    // A relative path must mean the same after a change of the working folder.
    let path = std::path::absolute(path).map_err(unavailable)?;
    prepare(&path).map_err(unavailable)?;
    let place = Place::File(path);
    let mut committer = Committer::new(Slot::new(place.clone(), Role::Writer));
    committer.check().map_err(|failure| failure.into_error(OPENING))?;
    let writer = Writer::start(committer).map_err(unavailable)?;
    let readers = Readers::start(|| Slot::new(place.clone(), Role::Reader)).map_err(unavailable)?;
    Ok(Database::File { writer, readers })
}

/// Where reads and writes go.
#[derive(Debug, Clone)]
enum Database {
    File {
        writer: Writer,
        readers: Readers,
    },
    /// Used on the caller's thread: nothing blocks for long, and a simulation repeats exactly.
    Memory(Arc<Mutex<Committer>>),
}

impl Database {
    /// Runs work in a transaction and answers when it is durable. `what` names the operation in an error.
    async fn write<T, F>(&self, what: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> std::result::Result<T, Failure> + Send + 'static,
    {
        match self {
            Self::File { writer, .. } => writer.run(what, work).await,
            Self::Memory(committer) => committer.lock().unwrap_or_else(PoisonError::into_inner).run(what, work),
        }
    }

    /// Runs a read that sees one state, with everything that was answered before.
    async fn read<T, F>(&self, what: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Session) -> std::result::Result<T, Failure> + Send + 'static,
    {
        match self {
            Self::File { readers, .. } => readers.run(what, work).await,
            Self::Memory(committer) => reader::read(
                committer.lock().unwrap_or_else(PoisonError::into_inner).slot(),
                what,
                work,
            ),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::NotFound { what: name.to_owned() }
}
