//! All writes of this process: one thread, one transaction for everything that waits, one flush of the disk for all of
//! it. Each job runs in a savepoint, so that one that fails undoes only itself; answers are given after the commit.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::connection::{Failure, Slot, reason};
use crate::store::error::Error;
use crate::store::port::{ETag, MAX_BATCH_OPERATIONS, Result};

/// Jobs that may wait before callers wait to be let in.
const WAITING: usize = 1024;
/// Jobs in one transaction: bounds how long the first one waits for its answer.
const GROUP: usize = 256;
/// Numbers taken from the database at once. They come from outside the savepoints, and one job takes at most
/// [`MAX_BATCH_OPERATIONS`] and a few.
const NUMBERS: i64 = 1 << 16;

/// What a job sees: the open transaction, and a source of numbers that were never given out before.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    stamp: &'a str,
    numbers: &'a Cell<(i64, i64)>,
}

impl Tx<'_> {
    /// A number that no other row, version or receipt of this database ever had.
    pub(super) fn next(&self) -> i64 {
        let (next, end) = self.numbers.get();
        debug_assert!(next < end, "a job took more numbers than were reserved");
        self.numbers.set((next + 1, end));
        next
    }

    /// A number as an ETag or receipt.
    pub(super) fn stamped(&self, number: i64) -> String {
        stamped(self.stamp, number)
    }

    /// The number of an ETag or receipt of this database.
    pub(super) fn number(&self, text: &str) -> Option<i64> {
        text.strip_prefix(self.stamp)?.strip_prefix('-')?.parse().ok()
    }

    pub(super) fn etag(&self, number: i64) -> ETag {
        ETag(self.stamped(number))
    }
}

/// A number as an ETag or receipt.
pub(super) fn stamped(stamp: &str, number: i64) -> String {
    format!("{stamp}-{number}")
}

enum Ran {
    /// It has done what it should.
    Done,
    /// It is refused by the contract; nothing else is affected.
    Refused,
    /// SQLite failed it.
    Failed(&'static str),
    /// SQLite failed it, and the connection is not to be trusted.
    Broke(&'static str),
}

trait Work: Send {
    fn run(&mut self, tx: &Tx<'_>) -> Ran;
    /// Answers the caller; with a reason, the whole transaction was lost.
    fn answer(self: Box<Self>, lost: Option<&str>);
}

struct Job<T, F> {
    what: &'static str,
    work: Option<F>,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnOnce(&Tx<'_>) -> std::result::Result<T, Failure> + Send> Work for Job<T, F> {
    fn run(&mut self, tx: &Tx<'_>) -> Ran {
        let Some(work) = self.work.take() else {
            return Ran::Refused;
        };
        let (ran, result) = match work(tx) {
            Ok(value) => (Ran::Done, Ok(value)),
            Err(failure) => {
                let reason = match &failure {
                    Failure::Store(_) => None,
                    Failure::Sql(error) => Some(reason(error).unwrap_or("the database holds something unexpected")),
                };
                let ran = match reason {
                    None => Ran::Refused,
                    Some(reason) if failure.breaks_connection() => Ran::Broke(reason),
                    Some(reason) => Ran::Failed(reason),
                };
                (ran, Err(failure.into_error(self.what)))
            }
        };
        self.result = Some(result);
        ran
    }

    fn answer(self: Box<Self>, lost: Option<&str>) {
        let result = match (lost, self.result) {
            (None, Some(result)) => result,
            (lost, _) => Err(unavailable(
                self.what,
                lost.unwrap_or("the transaction did not reach it"),
            )),
        };
        // The caller may have gone away.
        let _ = self.answer.send(result);
    }
}

fn unavailable(what: &str, reason: &str) -> Error {
    Error::Unavailable {
        what: format!("{what}: {reason}"),
        source: reason.into(),
    }
}

/// Runs groups of jobs on one connection.
#[derive(Debug)]
pub(super) struct Committer {
    slot: Slot,
}

impl Committer {
    pub(super) const fn new(slot: Slot) -> Self {
        Self { slot }
    }

    /// Opens the connection, to tell early what is wrong with it.
    pub(super) fn check(&mut self) -> std::result::Result<(), Failure> {
        self.slot.session().map(drop)
    }

    /// One job, in a transaction of its own. `Err` only when its work panicked.
    pub(super) fn run<T: Send, F>(&mut self, what: &'static str, work: F) -> Result<T>
    where
        F: FnOnce(&Tx<'_>) -> std::result::Result<T, Failure> + Send,
    {
        let (answer, mut result) = oneshot::channel();
        self.run_group(vec![Box::new(Job {
            what,
            work: Some(work),
            result: None,
            answer,
        })]);
        result
            .try_recv()
            .unwrap_or_else(|_| Err(unavailable(what, "the write ended abnormally")))
    }

    /// The connection, outside any transaction.
    pub(super) fn slot(&mut self) -> &mut Slot {
        &mut self.slot
    }

    fn run_group(&mut self, mut jobs: Vec<Box<dyn Work + '_>>) {
        // A panic in a job is a defect, but not a reason to write nothing any more. Unanswered callers see `Unavailable`.
        let ran = catch_unwind(AssertUnwindSafe(|| self.transaction(&mut jobs)));
        match ran {
            Ok(Ok(broke)) => {
                if broke {
                    self.slot.close();
                }
                jobs.into_iter().for_each(|job| job.answer(None));
            }
            Ok(Err(lost)) => {
                self.abandon();
                jobs.into_iter().for_each(|job| job.answer(Some(&lost)));
            }
            Err(_) => self.abandon(),
        }
    }

    fn abandon(&mut self) {
        if let Some(session) = self.slot.current() {
            // They may have been taken from the database in the transaction that is lost.
            session.numbers.set((0, 0));
            if !session.connection.is_autocommit() {
                let _ = session.connection.execute_batch("ROLLBACK");
            }
        }
        self.slot.close();
    }

    /// Whether the connection must be opened anew, or why nothing was committed.
    fn transaction(&mut self, jobs: &mut [Box<dyn Work + '_>]) -> std::result::Result<bool, String> {
        let lost = |failure: Failure| match failure {
            Failure::Sql(error) => reason(&error)
                .unwrap_or("the database refused the operation")
                .to_owned(),
            Failure::Store(error) => error.to_string(),
        };
        let session = self.slot.session().map_err(lost)?;
        let connection = &session.connection;
        let execute = |sql: &str| -> std::result::Result<(), String> {
            let done = connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute([]));
            done.map(drop).map_err(|error| lost(error.into()))
        };
        execute("BEGIN IMMEDIATE")?;
        reserve(connection, &session.numbers, jobs.len()).map_err(|error| lost(error.into()))?;
        let tx = Tx {
            connection,
            stamp: &session.stamp,
            numbers: &session.numbers,
        };
        let mut broke = false;
        for job in jobs {
            execute("SAVEPOINT job")?;
            let failed = match job.run(&tx) {
                Ran::Done => None,
                Ran::Refused => Some(""),
                Ran::Failed(reason) => Some(reason),
                Ran::Broke(reason) => {
                    broke = true;
                    Some(reason)
                }
            };
            if let Some(reason) = failed {
                // A full disk can take the whole transaction with it.
                if connection.is_autocommit() {
                    return Err(reason.to_owned());
                }
                execute("ROLLBACK TO job")?;
            }
            execute("RELEASE job")?;
        }
        execute("COMMIT")?;
        Ok(broke)
    }
}

fn reserve(connection: &Connection, numbers: &Cell<(i64, i64)>, jobs: usize) -> rusqlite::Result<()> {
    let needed = i64::try_from(jobs * (MAX_BATCH_OPERATIONS + 4)).unwrap_or(NUMBERS);
    let (next, end) = numbers.get();
    if end - next < needed {
        let end: i64 = connection
            .prepare_cached("UPDATE state SET counter = counter + ?1 RETURNING counter")?
            .query_row([NUMBERS], |row| row.get(0))?;
        numbers.set((end - NUMBERS + 1, end + 1));
    }
    Ok(())
}

/// The door to the writer thread. The thread ends when the last door is closed.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Box<dyn Work>>);

impl std::fmt::Debug for dyn Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(mut committer: Committer) -> std::io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<Box<dyn Work>>(WAITING);
        std::thread::Builder::new()
            .name("weft-store-write".into())
            .spawn(move || {
                while let Some(first) = receiver.blocking_recv() {
                    let mut group: Vec<Box<dyn Work + '_>> = vec![first];
                    while group.len() < GROUP
                        && let Ok(job) = receiver.try_recv()
                    {
                        group.push(job);
                    }
                    committer.run_group(group);
                }
            })?;
        Ok(Self(sender))
    }

    /// Runs work inside the next transaction and answers after it is durable.
    pub(super) async fn run<T, F>(&self, what: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> std::result::Result<T, Failure> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job = Box::new(Job {
            what,
            work: Some(work),
            result: None,
            answer,
        });
        if self.0.send(job).await.is_err() {
            return Err(unavailable(what, "the writer has ended"));
        }
        result
            .await
            .unwrap_or_else(|_| Err(unavailable(what, "the write ended abnormally")))
    }
}
