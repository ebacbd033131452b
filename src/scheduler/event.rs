//! Facts that can arrive.

use super::Decision;
use super::state::Slot;
use crate::domain::{AttemptId, Outcome, RunId, StepError, Timestamp};

/// What looking at values said.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Its `when` is false.
    Skip,
    /// It may begin.
    Go,
    /// It is worked out: its value, where that is small enough to decide with. The driver keeps the whole of it.
    Done,
    /// It takes this branch; none when none is true and there is no other.
    Branch(Option<String>),
    /// It has so many items.
    Items(u32),
    /// A loop has come to its end, or goes round again.
    Ends(bool),
    /// It pauses until then.
    Until(Timestamp),
    /// The values are not what they should be.
    Wrong(StepError),
}

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
    /// Values that a step needs were looked at.
    Evaluated {
        /// The owner's epoch.
        epoch: u64,
        /// The step, and the iteration that has ended.
        slot: Slot,
        /// What they say.
        verdict: Verdict,
    },
    /// The run's result was worked out.
    Concluded {
        /// The owner's epoch.
        epoch: u64,
        /// Why it couldn't be.
        error: Option<StepError>,
    },
    /// An attempt ended.
    AttemptFinished {
        /// In which epoch its driver is.
        epoch: u64,
        /// What it tried.
        slot: Slot,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Box<Outcome>,
        /// A random number from 0 to 1 for the jitter of a retry.
        sample: f64,
    },
    /// Attempts may be made by any instance.
    HandedOff {
        /// The owner's epoch.
        epoch: u64,
        /// Which.
        slots: Vec<Slot>,
    },
    /// A child run ended.
    ChildFinished {
        /// The owner's epoch.
        epoch: u64,
        /// What waits for it.
        slot: Slot,
        /// The child.
        child: RunId,
        /// How it ended.
        outcome: Box<Outcome>,
        /// A random number from 0 to 1 for the jitter of a retry.
        sample: f64,
    },
    /// A person has decided.
    Decided {
        /// The owner's epoch.
        epoch: u64,
        /// The step.
        step: usize,
        /// What.
        decision: Decision,
    },
    /// Time has passed: retries may be due, or the deadline; or there is room for what is ready.
    Woken {
        /// The owner's epoch.
        epoch: u64,
    },
    /// The owner is about to let go: what runs may end, and nothing begins before somebody takes the run again.
    Yielding {
        /// The owner's epoch.
        epoch: u64,
    },
    /// The owner goes on after all.
    Resumed {
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
