//! Somebody wants the run to end: it has ended with this commit; killing what still runs is an effect.

use crate::domain::{Status, StepError, Timestamp};
use crate::scheduler::{Plan, RunState, Transition};

use super::{move_to, stop_all};

pub fn cancel(plan: &Plan, state: &RunState, by: &str, now: Timestamp) -> Transition {
    let mut next = state.clone();
    let (mut facts, mut effects) = (Vec::new(), Vec::new());
    // A later report of the owner is fenced off.
    next.epoch += 1;
    next.error = Some(StepError::new("cancelled", format!("cancelled by {by}")));
    stop_all(plan, &mut next, Status::Cancelled, &mut facts, &mut effects, now);
    move_to(&mut next, Status::Cancelled, &mut facts, &mut effects, now);
    Transition::new(Some(state), next, facts, effects)
}
