//! Which steps may begin.

use crate::domain::{Status, Timestamp};

use super::{Plan, RunState};

/// Steps that may begin now: pending ones whose dependencies have succeeded, waiting ones whose time has come.
pub(super) fn ready(plan: &Plan, state: &RunState, now: Timestamp) -> Vec<usize> {
    (0..plan.steps.len())
        .filter(|place| match state.steps[*place].status {
            Status::Pending => plan.steps[*place]
                .depends_on
                .iter()
                .all(|dependency| state.steps[*dependency].status == Status::Succeeded),
            Status::Waiting => state.steps[*place].due.is_some_and(|due| due <= now),
            _ => false,
        })
        .collect()
}
