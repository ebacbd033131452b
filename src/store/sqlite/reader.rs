//! Reads of a database file: a few threads, each with a connection of its own, so that a long one doesn't hold up the
//! others. A read sees every commit that was answered before it began.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::sync::oneshot;

use super::connection::{Failure, Session, Slot};
use crate::store::error::Error;
use crate::store::port::Result;

/// Reads that run at the same time.
const THREADS: usize = 3;

type Job = Box<dyn FnOnce(&mut Slot) + Send>;

/// The door to the reading threads. They end when the last door is closed.
#[derive(Debug, Clone)]
pub(super) struct Readers(mpsc::Sender<Job>);

impl Readers {
    /// Starts the threads; each opens its connection when it is first used.
    pub(super) fn start(slot: impl Fn() -> Slot) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 1..=THREADS {
            let (receiver, mut slot) = (Arc::clone(&receiver), slot());
            std::thread::Builder::new()
                .name(format!("weft-store-read{number}"))
                .spawn(move || {
                    loop {
                        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        if catch_unwind(AssertUnwindSafe(|| job(&mut slot))).is_err() {
                            slot.close();
                        }
                    }
                })?;
        }
        Ok(Self(sender))
    }

    /// Runs a read on one of the threads.
    pub(super) async fn run<T, F>(&self, what: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Session) -> std::result::Result<T, Failure> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |slot| {
            let _ = answer.send(read(slot, what, work));
        });
        let ended = || Error::Unavailable {
            what: what.into(),
            source: "the read ended abnormally".into(),
        };
        self.0.send(job).map_err(|_| ended())?;
        result.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Runs a read in a transaction, so that all of its statements see the same state.
pub(super) fn read<T>(
    slot: &mut Slot,
    what: &'static str,
    work: impl FnOnce(&Session) -> std::result::Result<T, Failure>,
) -> Result<T> {
    let done = slot.session().and_then(|session| {
        let execute = |sql| {
            session
                .connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute([]))
        };
        execute("BEGIN")?;
        let result = work(session);
        // Nothing was written: a failure to end the transaction only means that the connection is not sound.
        match execute("COMMIT") {
            Err(error) if result.is_ok() => Err(error.into()),
            _ => result,
        }
    });
    done.map_err(|failure| {
        let unsound = slot
            .current()
            .is_some_and(|session| !session.connection.is_autocommit());
        if unsound || failure.breaks_connection() {
            slot.close();
        }
        failure.into_error(what)
    })
}
