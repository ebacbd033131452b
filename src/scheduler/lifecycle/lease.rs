//! Who drives: taking, renewing, waking.

use crate::domain::{OnCrash, Status, StepError, Timestamp};
use crate::scheduler::{Effect, Fact, Plan, Rejected, RunState, Transition};

use super::{deadline_error, move_to, owned, settle, start_ready, stop_all};

/// An instance takes the run. Attempts of the last owner, whose end nobody saw, are made again or fail, as their step says.
pub fn take(
    plan: &Plan,
    state: &RunState,
    owner: &str,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    if state.owner.as_deref().is_some_and(|current| current != owner)
        && state.lease_until.is_some_and(|until| until > now)
    {
        return Err(Rejected::Leased);
    }
    let mut next = state.clone();
    let (mut facts, mut effects) = (Vec::new(), Vec::new());
    next.epoch += 1;
    next.owner = Some(owner.to_owned());
    next.lease_until = Some(lease_until);
    if state.epoch > 0 {
        facts.push(Fact::TakenOver { epoch: next.epoch });
    }
    if now >= next.deadline {
        next.error = Some(deadline_error(&next));
        stop_all(plan, &mut next, Status::TimedOut, &mut facts, &mut effects, now);
        move_to(&mut next, Status::TimedOut, &mut facts, &mut effects, now);
        return Ok(Transition::new(Some(state), next, facts, effects));
    }
    lose_attempts(plan, &mut next, &mut facts, now);
    start_ready(plan, &mut next, &mut facts, &mut effects, now);
    if next.status == Status::Pending {
        // Every path from here is legal from `running`, so a run that is taken has begun.
        move_to(&mut next, Status::Running, &mut facts, &mut effects, now);
    }
    settle(plan, &mut next, &mut facts, &mut effects, now);
    Ok(Transition::new(Some(state), next, facts, effects))
}

/// The owner is still at it.
pub fn renew(state: &RunState, epoch: u64, lease_until: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let next = RunState {
        lease_until: Some(lease_until),
        ..state.clone()
    };
    Ok(Transition::new(Some(state), next, Vec::new(), Vec::new()))
}

/// The owner lets go; whoever takes the run next raises the epoch. Attempts that still run are killed by the owner and are made
/// again or fail, as their step says.
pub fn release(plan: &Plan, state: &RunState, epoch: u64, now: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let mut next = RunState {
        owner: None,
        lease_until: None,
        ..state.clone()
    };
    let (mut facts, mut effects) = (Vec::new(), Vec::new());
    effects.extend(state.running().map(|(_, attempt)| Effect::KillAttempt {
        attempt: attempt.clone(),
    }));
    lose_attempts(plan, &mut next, &mut facts, now);
    for (place, _) in state.running() {
        let step = &next.steps[place];
        if step.status == Status::Waiting {
            facts.push(Fact::StepStatus {
                step: plan.steps[place].id.clone(),
                status: Status::Waiting,
                attempt: step.attempts,
            });
        }
    }
    settle(plan, &mut next, &mut facts, &mut effects, now);
    Ok(Transition::new(Some(state), next, facts, effects))
}

/// Running attempts whose end nobody will see: their steps wait for the next one, or fail.
fn lose_attempts(plan: &Plan, next: &mut RunState, facts: &mut Vec<Fact>, now: Timestamp) {
    for (place, planned) in plan.steps.iter().enumerate() {
        let step = &mut next.steps[place];
        if step.status != Status::Running {
            continue;
        }
        step.attempt = None;
        match planned.on_crash {
            OnCrash::Retry => {
                step.status = Status::Waiting;
                step.due = Some(now);
            }
            OnCrash::Fail => {
                let message = format!(
                    "the instance that ran attempt {} ended and its outcome is not known; the step is declared `on_crash=\"fail\"`",
                    step.attempts
                );
                step.status = Status::Failed;
                step.finished_at = Some(now);
                facts.push(Fact::StepStatus {
                    step: planned.id.clone(),
                    status: Status::Failed,
                    attempt: step.attempts,
                });
                next.error = Some(StepError {
                    step: Some(planned.id.clone()),
                    ..StepError::new("crashed", message)
                });
            }
        }
    }
}

/// Time has passed.
pub fn wake(plan: &Plan, state: &RunState, epoch: u64, now: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let mut next = state.clone();
    let (mut facts, mut effects) = (Vec::new(), Vec::new());
    if now >= next.deadline {
        next.error = Some(deadline_error(&next));
        stop_all(plan, &mut next, Status::TimedOut, &mut facts, &mut effects, now);
        move_to(&mut next, Status::TimedOut, &mut facts, &mut effects, now);
    } else {
        start_ready(plan, &mut next, &mut facts, &mut effects, now);
        settle(plan, &mut next, &mut facts, &mut effects, now);
    }
    if next == *state {
        return Err(Rejected::NothingDue);
    }
    Ok(Transition::new(Some(state), next, facts, effects))
}
