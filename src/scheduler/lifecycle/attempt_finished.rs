//! An attempt ended, or a child run did: what was tried ends, or waits for its next attempt.

use crate::domain::{AttemptId, Outcome, Phase, RunId, Status, StepError, Timestamp};
use crate::scheduler::draft::Draft;
use crate::scheduler::state::Slot;
use crate::scheduler::{Fact, Plan, Rejected, RunState, Transition};

use super::{lease, owned};

pub fn attempt_finished(
    (plan, state): (&Plan, &RunState),
    epoch: u64,
    slot: Slot,
    attempt: &AttemptId,
    outcome: &Outcome,
    sample: f64,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    if state.unit(slot).and_then(|unit| unit.attempt.as_ref()) != Some(attempt) {
        return Err(Rejected::NotRunning);
    }
    // One that was killed without the run having been cancelled was killed by its instance going away.
    if matches!(outcome, Outcome::Cancelled) {
        let mut draft = Draft::of(plan, state, now);
        lease::lose(&mut draft, vec![slot]);
        return Ok(draft.settled().finish());
    }
    Ok(tried(plan, state, slot, outcome, sample, now))
}

pub fn child_finished(
    (plan, state): (&Plan, &RunState),
    epoch: u64,
    slot: Slot,
    child: &RunId,
    outcome: &Outcome,
    sample: f64,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    if state.unit(slot).and_then(|unit| unit.child.as_ref()) != Some(child) {
        return Err(Rejected::NotRunning);
    }
    Ok(tried(plan, state, slot, outcome, sample, now))
}

fn tried(plan: &Plan, state: &RunState, slot: Slot, outcome: &Outcome, sample: f64, now: Timestamp) -> Transition {
    let mut draft = Draft::of(plan, state, now);
    let (place, item) = slot;
    let planned = &plan.steps[place];
    let (status, error) = match outcome {
        Outcome::Succeeded { .. } => (Status::Succeeded, None),
        Outcome::Failed { error } => (Status::Failed, Some(error.clone())),
        Outcome::TimedOut { error } => (Status::TimedOut, Some(error.clone())),
        // Of an attempt that is `lost`; a child run that was cancelled has failed.
        Outcome::Cancelled => (
            Status::Failed,
            Some(StepError::new("cancelled", "it was stopped before it ended")),
        ),
    };
    let until = state.steps[place].activity.as_ref().and_then(|activity| activity.until);
    // A run that has failed tries nothing again.
    let goes_on = state.phase != Phase::Main || state.verdict.is_none();
    let mut retry = None;
    if let Some(unit) = draft.state.steps[place].unit_mut(item) {
        (unit.attempt, unit.child, unit.handed) = (None, None, false);
        let told = !matches!(outcome, Outcome::Cancelled);
        retry = error
            .as_ref()
            .filter(|_| goes_on && told)
            .and_then(|error| planned.retry.next_delay(unit.attempts, error, sample))
            .map(|delay| now.plus(delay))
            .filter(|due| *due < state.deadline && until.is_none_or(|until| *due < until));
        unit.due = retry;
    }
    match (retry, error) {
        (Some(due), Some(error)) => {
            let attempt = state.unit(slot).map_or(0, |unit| unit.attempts);
            draft.tell(Fact::RetryPlanned {
                step: planned.id.clone(),
                item,
                attempt,
                due,
                error: StepError {
                    traceback: None,
                    data: None,
                    ..error
                },
            });
            draft.refresh(place);
        }
        (_, error) => draft.end_unit(slot, status, error),
    }
    draft.settled().finish()
}
