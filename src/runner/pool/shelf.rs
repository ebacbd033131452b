//! Workers of one kind that are kept ready, and who gets the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::domain::{Outcome, Tier};
use crate::runner::jail::Jail;
use crate::runner::limits::ForkLimits;
use crate::runner::worker::Worker;
use crate::runner::{BundleRef, LogLine, RunnerError};

/// Workers of equal keys are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) Arc<Kind>);

/// What a worker was forked for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) bundle: BundleRef,
    pub(super) module: String,
    pub(super) limits: ForkLimits,
    pub(super) jail: Jail,
    pub(super) minimum: Tier,
}

/// Workers of one kind, and who waits for one.
pub(super) struct Shelf {
    pub(super) ready: VecDeque<Box<Worker>>,
    pub(super) starting: usize,
    pub(super) waiters: VecDeque<Waiter>,
    pub(super) last_used: Instant,
    /// The last import failed: nothing is forked ahead until one succeeds.
    pub(super) broken: bool,
}

/// Who waits for a worker.
pub(super) struct Waiter {
    pub(super) sender: oneshot::Sender<Arrival>,
    /// [`is_first`](crate::runner::AttemptSpec::is_first) of its attempt.
    pub(super) is_first: bool,
}

impl Shelf {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ready: VecDeque::new(),
            starting: 0,
            waiters: VecDeque::new(),
            last_used: now,
            broken: false,
        }
    }

    /// Workers that nobody has asked for yet.
    pub(super) fn spare(&self) -> usize {
        self.ready.len() + self.starting.saturating_sub(self.waiters.len())
    }

    /// Whoever is to have the next worker; nobody when it is to be kept for those who are not there yet.
    pub(super) fn next(&mut self, kept: usize) -> Option<Waiter> {
        self.waiters.retain(|waiter| !waiter.sender.is_closed());
        match self.waiters.iter().position(|waiter| waiter.is_first) {
            Some(place) => self.waiters.remove(place),
            None if self.ready.len() < kept => None,
            None => self.waiters.pop_front(),
        }
    }
}

/// What comes to whoever has waited.
pub(super) enum Arrival {
    Ready(Box<Worker>),
    /// Its module can't be imported, or there is too little isolation for it; what it had printed, and what was in force.
    Failed(Outcome, Vec<LogLine>, Arc<Vec<&'static str>>),
    /// Try again.
    Lost(RunnerError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_running_goes_before_others_and_a_worker_is_kept_for_them() {
        let mut shelf = Shelf::new(Instant::now());
        let mut wait = |is_first| {
            let (sender, arrival) = oneshot::channel();
            shelf.waiters.push_back(Waiter { sender, is_first });
            arrival
        };
        let (_flood, gone, first, _more) = (wait(false), wait(true), wait(true), wait(false));
        drop(gone);
        let next = shelf.next(1).expect("somebody waits");
        assert!(next.is_first && !next.sender.is_closed());
        drop(first);
        assert!(shelf.next(1).is_none(), "the one that is ready next is kept");
        assert!(shelf.next(0).is_some_and(|next| !next.is_first));
        assert_eq!(shelf.waiters.len(), 1);
    }
}
