//! Somebody wants the run to end: it has ended with this commit; killing what still runs is an effect.

use crate::domain::{Status, StepError, Timestamp};
use crate::scheduler::draft::Draft;
use crate::scheduler::{Plan, RunState, Transition};

pub fn cancel(plan: &Plan, state: &RunState, by: &str, now: Timestamp) -> Transition {
    let mut draft = Draft::of(plan, state, now);
    // A later report of the owner is fenced off.
    draft.state.epoch += 1;
    draft.state.error = Some(StepError::new("cancelled", format!("cancelled by {by}")));
    draft.state.verdict = Some(Status::Cancelled);
    draft.end_all(Status::Cancelled);
    draft.finish()
}
