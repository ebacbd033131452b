//! An attempt ended: the step ends, or waits for its next attempt.

use crate::domain::{AttemptId, Outcome, Status, StepError, Timestamp};
use crate::scheduler::{Fact, Plan, Rejected, RunState, Transition};

use super::{owned, settle, start_ready};

#[expect(clippy::too_many_arguments, reason = "the fields of one event")]
pub fn attempt_finished(
    plan: &Plan,
    state: &RunState,
    epoch: u64,
    step_id: &str,
    attempt: &AttemptId,
    outcome: &Outcome,
    sample: f64,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let place = plan.position(step_id).ok_or(Rejected::NotRunning)?;
    if state.steps[place].status != Status::Running || state.steps[place].attempt.as_ref() != Some(attempt) {
        return Err(Rejected::NotRunning);
    }
    let mut next = state.clone();
    let (mut facts, mut effects) = (Vec::new(), Vec::new());
    let step = &mut next.steps[place];
    step.attempt = None;
    let (status, error) = match outcome {
        Outcome::Succeeded { .. } => (Status::Succeeded, None),
        Outcome::Failed { error } => (Status::Failed, Some(error)),
        Outcome::TimedOut { error } => (Status::TimedOut, Some(error)),
        Outcome::Cancelled => (Status::Cancelled, None),
    };
    let delay = error.and_then(|error| plan.steps[place].retry.next_delay(step.attempts, error, sample));
    let due = delay.map(|delay| now.plus(delay)).filter(|due| *due < state.deadline);
    if let (Some(due), Some(error)) = (due, error) {
        step.status = Status::Waiting;
        step.due = Some(due);
        facts.push(Fact::RetryPlanned {
            step: step_id.to_owned(),
            attempt: step.attempts,
            due,
            error: error.clone(),
        });
    } else {
        // An attempt that was killed without the run having been cancelled was killed by its instance going away.
        step.status = if status == Status::Cancelled {
            Status::Failed
        } else {
            status
        };
        step.finished_at = Some(now);
        facts.push(Fact::StepStatus {
            step: step_id.to_owned(),
            status: step.status,
            attempt: step.attempts,
        });
        let error = match (outcome, error) {
            (_, Some(error)) => Some(error.clone()),
            (Outcome::Cancelled, None) => Some(StepError::new("crashed", "the attempt was stopped before it ended")),
            _ => None,
        };
        if let Some(error) = error {
            next.error = Some(StepError {
                step: Some(step_id.to_owned()),
                ..error
            });
        }
    }
    start_ready(plan, &mut next, &mut facts, &mut effects, now);
    settle(plan, &mut next, &mut facts, &mut effects, now);
    Ok(Transition::new(Some(state), next, facts, effects))
}
