//! The fold of a run's committed transitions: what a checkpoint holds.

use serde::{Deserialize, Serialize};

use crate::domain::{AttemptId, RunId, Status, StepError, Timestamp};

/// Where one step is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Its status.
    pub status: Status,
    /// Attempts begun.
    pub attempts: u32,
    /// The attempt that is running.
    pub attempt: Option<AttemptId>,
    /// When the next attempt is due, while waiting for it.
    pub due: Option<Timestamp>,
    /// When the first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub finished_at: Option<Timestamp>,
}

impl StepState {
    /// Not begun.
    #[must_use]
    pub const fn pending() -> Self {
        Self {
            status: Status::Pending,
            attempts: 0,
            attempt: None,
            due: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// Where a run is. Steps stand in the plan's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Its status.
    pub status: Status,
    /// Fencing number: rises at every take-over and at cancellation.
    pub epoch: u64,
    /// The instance that drives it.
    pub owner: Option<String>,
    /// Until when nobody else may.
    pub lease_until: Option<Timestamp>,
    /// When it is ended as timed out.
    pub deadline: Timestamp,
    /// When the first step began.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or timed out.
    pub error: Option<StepError>,
    /// Transitions committed so far.
    pub sequence: u64,
    /// Its steps.
    pub steps: Vec<StepState>,
}

impl RunState {
    /// Attempts that are running now, with their steps' places.
    pub fn running(&self) -> impl Iterator<Item = (usize, &AttemptId)> {
        self.steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.status == Status::Running)
            .filter_map(|(place, step)| step.attempt.as_ref().map(|attempt| (place, attempt)))
    }

    /// When the next thing is due that no event announces: a retry, or the deadline.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.status.is_terminal() {
            return None;
        }
        self.steps
            .iter()
            .filter_map(|step| step.due)
            .chain([self.deadline])
            .min()
    }
}
