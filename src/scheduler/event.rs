//! Facts that can arrive.

use crate::domain::{AttemptId, Outcome, Timestamp};

/// A fact about a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An instance takes the run, for the first time or after the last owner's lease ran out.
    Taken {
        /// The instance.
        owner: String,
        /// Until when it will have renewed.
        lease_until: Timestamp,
    },
    /// The owner is still at it.
    Renewed {
        /// In which epoch it took the run.
        epoch: u64,
        /// The new end of the lease.
        lease_until: Timestamp,
    },
    /// An attempt ended.
    AttemptFinished {
        /// In which epoch it was started.
        epoch: u64,
        /// Its step.
        step: String,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Box<Outcome>,
        /// A random number from 0 to 1 for the jitter of a retry.
        sample: f64,
    },
    /// Time has passed: retries may be due, or the deadline.
    Woken {
        /// The owner's epoch.
        epoch: u64,
    },
    /// The owner lets go: of a run that rests, or of every run because its instance ends.
    Released {
        /// The owner's epoch.
        epoch: u64,
    },
    /// Somebody wants it to end.
    CancelRequested {
        /// The principal's id.
        by: String,
    },
}
