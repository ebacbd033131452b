//! One connection to the database: how it is opened, its schema, and what SQLite's errors mean to a caller. Threads and
//! transactions are left to `writer.rs` and `reader.rs`.

use std::cell::Cell;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::clock::Entropy;
use crate::store::error::Error;

/// The schema that this program reads and writes, kept in `user_version`.
const SCHEMA_VERSION: i64 = 2;

/// How long a statement waits for another process's write transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Cached pages per connection, in KiB (negative by SQLite's convention). The operating system caches the file as well.
const WRITER_CACHE: i64 = -4096;
const READER_CACHE: i64 = -1024;

/// Prepared statements kept per connection: more than this module has.
const STATEMENTS: usize = 64;

/// Names are compared without case, as Azure does with tables. Every id and version comes from `state.counter`, so none
/// is ever used twice; children go with their parents. Rows lie in their primary key: one tree to write, not two.
const SCHEMA: &str = "
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), counter INTEGER NOT NULL, stamp TEXT NOT NULL) STRICT;
CREATE TABLE tables (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE) STRICT;
CREATE TABLE entity (
  tbl INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
  partition TEXT NOT NULL, row TEXT NOT NULL, etag INTEGER NOT NULL, props BLOB NOT NULL,
  PRIMARY KEY (tbl, partition, row)) STRICT, WITHOUT ROWID;
CREATE TABLE container (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE blob (
  id INTEGER PRIMARY KEY, container INTEGER NOT NULL REFERENCES container (id) ON DELETE CASCADE,
  path TEXT NOT NULL, size INTEGER NOT NULL, appendable INTEGER NOT NULL,
  version INTEGER NOT NULL DEFAULT 0, modified INTEGER NOT NULL DEFAULT 0, UNIQUE (container, path)) STRICT;
CREATE TABLE chunk (
  blob INTEGER NOT NULL REFERENCES blob (id) ON DELETE CASCADE, start INTEGER NOT NULL, bytes BLOB NOT NULL,
  PRIMARY KEY (blob, start)) STRICT, WITHOUT ROWID;
CREATE TABLE queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE message (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL REFERENCES queue (id) ON DELETE CASCADE,
  visible INTEGER NOT NULL, receipt INTEGER NOT NULL, dequeued INTEGER NOT NULL, text TEXT NOT NULL) STRICT;
CREATE INDEX message_visible ON message (queue, visible, id);
";

/// From schema 1 to 2: blobs have a version and a time. Those that are there count as written now, so that none is taken for one
/// that nothing has referred to for long.
const TO_SCHEMA_2: &str = "
ALTER TABLE blob ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blob ADD COLUMN modified INTEGER NOT NULL DEFAULT 0;
UPDATE blob SET version = id, modified = CAST(unixepoch('subsec') * 1000 AS INTEGER);
";

/// Why a piece of work on a connection did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The contract says so; the connection is sound.
    Store(Error),
    /// SQLite says so.
    Sql(rusqlite::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Failure {
    /// What the caller gets. `what` names the operation.
    pub(super) fn into_error(self, what: &str) -> Error {
        match self {
            Self::Store(error) => error,
            Self::Sql(error) => match reason(&error) {
                Some(reason) => Error::Unavailable {
                    what: format!("{what}: {reason}"),
                    source: Box::new(error),
                },
                None => Error::corrupt(format!("{what}: the database holds something unexpected")),
            },
        }
    }

    /// Whether the connection should be opened anew before it is used again.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::Store(_) => false,
            Self::Sql(error) => !matches!(
                error.sqlite_error_code(),
                None | Some(ErrorCode::ConstraintViolation | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ),
        }
    }
}

/// SQLite's reason in words, or nothing when the fault lies in what was read.
pub(super) fn reason(error: &rusqlite::Error) -> Option<&'static str> {
    let code = error.sqlite_error_code()?;
    Some(match code {
        ErrorCode::NotADatabase => "the file is not a database",
        ErrorCode::DatabaseCorrupt => "the database file is damaged",
        ErrorCode::DiskFull => "the disk is full",
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another process keeps the database locked",
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => "the database file can't be written",
        ErrorCode::CannotOpen => "the database file can't be opened",
        ErrorCode::SystemIoFailure => "the disk failed to read or write",
        _ => "the database refused the operation",
    })
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// A database file, or a database in memory.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Memory,
}

/// An open connection, and which file it holds.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Begins every ETag and receipt: those of a database that was deleted never fit the one that took its place.
    pub(super) stamp: String,
    /// Numbers taken from `state.counter` and not yet given out: the next one, and their end.
    pub(super) numbers: Cell<(i64, i64)>,
    identity: Option<(u64, u64)>,
}

/// A connection that is opened when needed, and opened anew when its file was replaced or it met an I/O error.
#[derive(Debug)]
pub(super) struct Slot {
    place: Place,
    role: Role,
    session: Option<Session>,
}

impl Slot {
    pub(super) const fn new(place: Place, role: Role) -> Self {
        Self {
            place,
            role,
            session: None,
        }
    }

    /// The connection, sound as far as can be told without using it. Creates the file where its folder is there, so that
    /// a data folder that went away (an unmounted disk) isn't silently replaced by an empty one.
    pub(super) fn session(&mut self) -> Result<&mut Session, Failure> {
        if let Place::File(path) = &self.place
            && self
                .session
                .as_ref()
                .is_some_and(|session| session.identity != identity(path))
        {
            self.session = None;
        }
        match &mut self.session {
            Some(session) => Ok(session),
            slot => Ok(slot.insert(connect(&self.place, self.role)?)),
        }
    }

    /// The connection when it is open.
    pub(super) const fn current(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Closes the connection; the next use opens one.
    pub(super) fn close(&mut self) {
        // A database in memory lives in its connection.
        if matches!(self.place, Place::File(_)) {
            self.session = None;
        }
    }
}

/// Makes the folder of a database and its file, readable by their owner only. Before anything else uses the file: closing it
/// here would let go of the locks that this process holds on it.
pub(super) fn prepare(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
        && !parent.exists()
    {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Closes a database's files to other users, for whom its folder may be passable. By name, because a descriptor that is closed
/// lets go of locks.
fn keep_private(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let name = PathBuf::from(name);
        let Ok(metadata) = std::fs::metadata(&name) else {
            continue;
        };
        if metadata.mode() & 0o077 != 0
            && let Err(error) = std::fs::set_permissions(&name, Permissions::from_mode(metadata.mode() & 0o700))
        {
            tracing::warn!(path = %name.display(), %error, "the database can be read by other users");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn connect(place: &Place, role: Role) -> Result<Session, Failure> {
    let connection = match place {
        Place::Memory => Connection::open_in_memory()?,
        Place::File(path) => {
            let flags =
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            // Files that are made from here on have the mode of this one.
            keep_private(path);
            connection
        }
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    // No memory mapping: an I/O error would be a signal that ends the process instead of an answer.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(
        None,
        "cache_size",
        if role == Role::Writer {
            WRITER_CACHE
        } else {
            READER_CACHE
        },
    )?;
    if let Place::File(path) = place {
        enter_wal(&connection)?;
        connection.pragma_update(None, "synchronous", "full")?;
        let made = migrate(&connection, || {
            let random: [u8; 6] = Entropy::System.bytes();
            random.iter().map(|byte| format!("{byte:02x}")).collect()
        })?;
        // A new file's name must be as durable as its content.
        if made && let Some(parent) = path.parent() {
            let folder = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        }
    } else {
        // Always the same, so that a simulation repeats.
        migrate(&connection, || "memory".to_owned())?;
    }
    if role == Role::Reader {
        connection.pragma_update(None, "query_only", true)?;
    }
    let stamp = connection.query_row("SELECT stamp FROM state", [], |row| row.get(0))?;
    let identity = match place {
        Place::File(path) => identity(path),
        Place::Memory => None,
    };
    Ok(Session {
        connection,
        stamp,
        numbers: Cell::new((0, 0)),
        identity,
    })
}

/// Entering WAL needs the file alone for a moment and doesn't wait for it: two processes that start together meet here.
fn enter_wal(connection: &Connection) -> Result<(), Failure> {
    const STEP: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && waited < BUSY_TIMEOUT => {
                std::thread::sleep(STEP);
                waited += STEP;
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

fn version(connection: &Connection) -> Result<i64, Failure> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(Error::corrupt(format!(
            "the database has schema {found} and this program knows schema {SCHEMA_VERSION}: a newer program wrote it"
        ))
        .into());
    }
    Ok(found)
}

/// Brings an empty file, or one of an earlier schema, to the schema; whether it made a new one.
fn migrate(connection: &Connection, stamp: impl Fn() -> String) -> Result<bool, Failure> {
    if version(connection)? == SCHEMA_VERSION {
        return Ok(false);
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let made = (|| {
        // Another process may have been faster.
        let found = version(connection)?;
        if found == 0 {
            connection.execute_batch(SCHEMA)?;
            connection.execute("INSERT INTO state (id, counter, stamp) VALUES (1, 0, ?1)", [stamp()])?;
        } else if found == 1 {
            connection.execute_batch(TO_SCHEMA_2)?;
        }
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        connection.execute_batch("COMMIT")?;
        Ok(found == 0)
    })();
    if made.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    made
}
