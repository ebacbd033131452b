//! What must be done after a transition is committed, and what is told about it.

use serde::{Deserialize, Serialize};

use super::state::Slot;
use crate::domain::{AttemptId, Phase, RunId, Status, StepError, Timestamp};

/// Work that follows from a transition.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make an attempt.
    StartAttempt {
        /// What it tries.
        slot: Slot,
        /// The attempt.
        attempt: AttemptId,
        /// Its number, from 1.
        number: u32,
    },
    /// Start a child run, unless it is there.
    StartChild {
        /// What waits for it.
        slot: Slot,
        /// The child.
        child: RunId,
        /// The how-manieth try, from 1.
        number: u32,
    },
    /// Kill an attempt that is running.
    KillAttempt {
        /// What it tries.
        slot: Slot,
        /// The attempt.
        attempt: AttemptId,
        /// Whether any instance may be making it.
        handed: bool,
    },
    /// End a child run.
    CancelChild {
        /// The child.
        child: RunId,
    },
    /// Nothing follows any more.
    Finished,
}

/// Most steps that a fact names.
pub(super) const NAMED: usize = 100;

/// What a transition changed, as the run's history and live events tell it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Fact {
    /// The run's status changed.
    RunStatus {
        /// The new status.
        status: Status,
    },
    /// A step's status changed, or that of one of its items.
    StepStatus {
        /// The step.
        step: String,
        /// The item of a map, or the iteration of a loop, from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The new status.
        status: Status,
        /// The attempt's number, from 1.
        attempt: u32,
    },
    /// Steps that had not begun won't, or steps that had were stopped.
    StepsEnded {
        /// As what.
        status: Status,
        /// How many.
        count: usize,
        /// Which: the first hundred.
        steps: Vec<String>,
    },
    /// A map knows how many items it has.
    ItemsCounted {
        /// The step.
        step: String,
        /// How many.
        items: u32,
    },
    /// A branch was chosen.
    BranchChosen {
        /// The step.
        step: String,
        /// The branch; none when none was true.
        branch: Option<String>,
    },
    /// A step pauses.
    Paused {
        /// The step.
        step: String,
        /// Until when.
        until: Timestamp,
    },
    /// A step waits for a child run.
    ChildStarted {
        /// The step.
        step: String,
        /// The item or iteration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The child.
        child: RunId,
    },
    /// A step waits for people.
    ApprovalAsked {
        /// The step.
        step: String,
        /// How many must agree.
        needed: u32,
        /// Until when.
        until: Timestamp,
    },
    /// A person has decided.
    ApprovalGiven {
        /// The step.
        step: String,
        /// Who.
        by: String,
        /// Whether they agree.
        approved: bool,
    },
    /// An attempt failed and will be made again.
    RetryPlanned {
        /// The step.
        step: String,
        /// The item or iteration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The attempt that failed.
        attempt: u32,
        /// When the next is due.
        due: Timestamp,
        /// Why it failed.
        error: StepError,
    },
    /// Steps that handle a failure begin, or those that run in any case.
    PhaseBegun {
        /// Which.
        phase: Phase,
    },
    /// An instance took the run over from another.
    TakenOver {
        /// The new epoch.
        epoch: u64,
    },
}
