//! What must be done after a transition is committed, and what is told about it.

use serde::{Deserialize, Serialize};

use crate::domain::{AttemptId, Status, StepError, Timestamp};

/// Work that follows from a committed transition.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make an attempt.
    StartAttempt {
        /// The step's place in the plan.
        step: usize,
        /// The attempt.
        attempt: AttemptId,
        /// Its number, from 1.
        number: u32,
    },
    /// Kill an attempt that is running.
    KillAttempt {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Nothing follows any more.
    Finished,
}

/// What a transition changed, as the run's history and live events tell it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Fact {
    /// The run's status changed.
    RunStatus {
        /// The new status.
        status: Status,
    },
    /// A step's status changed.
    StepStatus {
        /// The step.
        step: String,
        /// The new status.
        status: Status,
        /// The attempt's number, from 1.
        attempt: u32,
    },
    /// An attempt failed and will be made again.
    RetryPlanned {
        /// The step.
        step: String,
        /// The attempt that failed.
        attempt: u32,
        /// When the next is due.
        due: Timestamp,
        /// Why it failed.
        error: StepError,
    },
    /// An instance took the run over from another.
    TakenOver {
        /// The new epoch.
        epoch: u64,
    },
}
