//! One file per kind of event.

mod attempt_finished;
mod begin;
mod cancel;
mod lease;

pub(super) use attempt_finished::attempt_finished;
pub(super) use begin::begin;
pub(super) use cancel::cancel;
pub(super) use lease::{release, renew, take, wake};

use crate::domain::{AttemptId, Status, StepError, Timestamp};

use super::{Effect, Fact, Plan, Rejected, RunState, readiness};

/// Only whoever drives the run now is heard about it.
fn owned(state: &RunState, epoch: u64) -> Result<(), Rejected> {
    if epoch != state.epoch {
        return Err(Rejected::Stale {
            sent: epoch,
            current: state.epoch,
        });
    }
    // Released, or never taken: the epoch alone would let its last owner, or anybody, begin attempts without a lease.
    if state.owner.is_none() {
        return Err(Rejected::Unowned);
    }
    Ok(())
}

/// Begins every step that may begin.
fn start_ready(plan: &Plan, state: &mut RunState, facts: &mut Vec<Fact>, effects: &mut Vec<Effect>, now: Timestamp) {
    for place in readiness::ready(plan, state, now) {
        let number = state.steps[place].attempts + 1;
        let id = &plan.steps[place].id;
        // The epoch is part of the cause: the same number begun by another owner is another attempt.
        let attempt = AttemptId::derived(now, &format!("{}:{id}:{number}:{}", state.run, state.epoch));
        let step = &mut state.steps[place];
        step.status = Status::Running;
        step.attempts = number;
        step.attempt = Some(attempt.clone());
        step.due = None;
        step.started_at = step.started_at.or(Some(now));
        facts.push(Fact::StepStatus {
            step: id.clone(),
            status: Status::Running,
            attempt: number,
        });
        effects.push(Effect::StartAttempt {
            step: place,
            attempt,
            number,
        });
    }
}

/// The run's status as its steps have it; ends the run when nothing can follow.
fn settle(plan: &Plan, state: &mut RunState, facts: &mut Vec<Fact>, effects: &mut Vec<Effect>, now: Timestamp) {
    let ended = |state: &RunState, wanted: Status| state.steps.iter().any(|step| step.status == wanted);
    let status = if ended(state, Status::Running) {
        Status::Running
    } else if ended(state, Status::Failed) {
        skip_rest(plan, state, facts, now);
        Status::Failed
    } else if ended(state, Status::TimedOut) {
        skip_rest(plan, state, facts, now);
        Status::TimedOut
    } else if state.steps.iter().all(|step| step.status.is_terminal()) {
        Status::Succeeded
    } else {
        Status::Waiting
    };
    move_to(state, status, facts, effects, now);
}

fn move_to(state: &mut RunState, status: Status, facts: &mut Vec<Fact>, effects: &mut Vec<Effect>, now: Timestamp) {
    if state.status == status {
        return;
    }
    // A run that ends before its first step passes through no other status.
    state.status = status;
    facts.push(Fact::RunStatus { status });
    if status == Status::Running {
        state.started_at = state.started_at.or(Some(now));
    }
    if status.is_terminal() {
        state.finished_at = Some(now);
        state.owner = None;
        state.lease_until = None;
        effects.push(Effect::Finished);
    }
}

fn skip_rest(plan: &Plan, state: &mut RunState, facts: &mut Vec<Fact>, now: Timestamp) {
    for (step, planned) in state.steps.iter_mut().zip(&plan.steps) {
        if !step.status.is_terminal() {
            step.status = Status::Skipped;
            step.attempt = None;
            step.due = None;
            step.finished_at = Some(now);
            facts.push(Fact::StepStatus {
                step: planned.id.clone(),
                status: Status::Skipped,
                attempt: step.attempts,
            });
        }
    }
}

/// Ends every running step with a status and kills its attempt; what has not begun is skipped.
fn stop_all(
    plan: &Plan,
    state: &mut RunState,
    status: Status,
    facts: &mut Vec<Fact>,
    effects: &mut Vec<Effect>,
    now: Timestamp,
) {
    for (step, planned) in state.steps.iter_mut().zip(&plan.steps) {
        if matches!(step.status, Status::Running | Status::Waiting) {
            if let Some(attempt) = step.attempt.take() {
                effects.push(Effect::KillAttempt { attempt });
            }
            step.status = status;
            step.due = None;
            step.finished_at = Some(now);
            facts.push(Fact::StepStatus {
                step: planned.id.clone(),
                status,
                attempt: step.attempts,
            });
        }
    }
    skip_rest(plan, state, facts, now);
}

fn deadline_error(state: &RunState) -> StepError {
    StepError::new(
        "time_limit",
        format!(
            "the run had not ended at its deadline, {}; raise the run's time limit or make its steps shorter",
            state.deadline
        ),
    )
}
