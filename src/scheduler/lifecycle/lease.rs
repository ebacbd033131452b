//! Who drives: taking, renewing, waking, handing attempts to others, letting go.

use crate::domain::{OnCrash, Status, StepError, Timestamp};
use crate::scheduler::draft::Draft;
use crate::scheduler::state::Slot;
use crate::scheduler::{Effect, Fact, Plan, Rejected, RunState, Transition};

use super::owned;

/// An instance takes the run. Attempts of the last owner, whose end nobody saw, are made again or fail, as their step says;
/// those that any instance may make, and child runs, are waited for on.
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
    let mut draft = Draft::of(plan, state, now);
    draft.state.epoch += 1;
    draft.state.owner = Some(owner.to_owned());
    draft.state.lease_until = Some(lease_until);
    draft.state.yields = false;
    if state.epoch > 0 {
        draft.tell(Fact::TakenOver {
            epoch: draft.state.epoch,
        });
    }
    // Its last owner may have died before it ended them.
    for child in &state.orphans {
        draft.effect(Effect::CancelChild { child: child.clone() });
    }
    if now >= state.deadline {
        return Ok(draft.out_of_time().finish());
    }
    for (slot, unit) in state.active() {
        if let Some(child) = &unit.child {
            // The last owner may have died before it started it.
            draft.effect(Effect::StartChild {
                slot,
                child: child.clone(),
                number: unit.attempts,
            });
        }
    }
    lose_attempts(&mut draft, state);
    Ok(draft.settled().finish())
}

/// The owner is still at it.
pub fn renew(
    plan: &Plan,
    state: &RunState,
    epoch: u64,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let mut draft = Draft::of(plan, state, now);
    draft.state.lease_until = Some(lease_until);
    Ok(draft.finish())
}

/// The owner lets go; whoever takes the run next raises the epoch. Attempts that still run here are killed by the owner and are
/// made again or fail, as their step says.
pub fn release(plan: &Plan, state: &RunState, epoch: u64, now: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let mut draft = Draft::of(plan, state, now);
    draft.state.owner = None;
    draft.state.lease_until = None;
    draft.state.yields = false;
    for (slot, attempt) in state.running() {
        if state.unit(slot).is_some_and(|unit| !unit.handed) {
            draft.effect(Effect::KillAttempt {
                slot,
                attempt: attempt.clone(),
                handed: false,
            });
        }
    }
    lose_attempts(&mut draft, state);
    Ok(draft.rested().finish())
}

/// The owner is about to let go: nothing begins any more, and what runs may end.
pub fn give_way(plan: &Plan, state: &RunState, epoch: u64, now: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    if state.yields {
        return Err(Rejected::NothingDue);
    }
    let mut draft = Draft::of(plan, state, now);
    draft.state.yields = true;
    Ok(draft.finish())
}

/// The owner goes on after all: what could have begun meanwhile, begins.
pub fn resume(plan: &Plan, state: &RunState, epoch: u64, now: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    if !state.yields {
        return Err(Rejected::NothingDue);
    }
    let mut draft = Draft::of(plan, state, now);
    draft.state.yields = false;
    Ok(draft.settled().finish())
}

/// Running attempts whose end nobody will see: what they tried waits for the next one, or fails.
fn lose_attempts(draft: &mut Draft<'_>, state: &RunState) {
    let lost: Vec<Slot> = state
        .running()
        .map(|(slot, _)| slot)
        .filter(|slot| state.unit(*slot).is_some_and(|unit| !unit.handed))
        .collect();
    lose(draft, lost);
}

/// What was tried in these places waits for its next attempt, or fails, as its step says.
pub(super) fn lose(draft: &mut Draft<'_>, lost: Vec<Slot>) {
    // First of all: what the loss of one ends must not kill the others, which are gone already.
    for (place, item) in &lost {
        if let Some(unit) = draft.state.steps[*place].unit_mut(*item) {
            (unit.attempt, unit.handed) = (None, false);
        }
    }
    for (place, item) in lost {
        let planned = &draft.plan.steps[place];
        let now = draft.now;
        let Some(unit) = draft.state.steps[place].unit_mut(item) else {
            continue;
        };
        let attempts = unit.attempts;
        match planned.on_crash {
            OnCrash::Retry => {
                unit.due = Some(now);
                draft.tell(Fact::StepStatus {
                    step: planned.id.clone(),
                    item,
                    status: Status::Waiting,
                    attempt: attempts,
                });
                draft.refresh(place);
            }
            OnCrash::Fail => {
                let message = format!(
                    "the instance that ran attempt {attempts} ended and its outcome is not known; the step is declared `on_crash=\"fail\"`"
                );
                draft.end_unit((place, item), Status::Failed, Some(StepError::new("crashed", message)));
            }
        }
    }
}

/// Any instance may make these attempts: they are not lost with the owner.
pub fn hand_off(
    plan: &Plan,
    state: &RunState,
    epoch: u64,
    slots: &[Slot],
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let mut draft = Draft::of(plan, state, now);
    for (place, item) in slots {
        if let Some(unit) = draft.state.steps.get_mut(*place).and_then(|step| step.unit_mut(*item))
            && unit.attempt.is_some()
        {
            unit.handed = true;
        }
    }
    Ok(draft.finish())
}

/// Time has passed.
pub fn wake(plan: &Plan, state: &RunState, epoch: u64, now: Timestamp) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let draft = Draft::of(plan, state, now);
    let draft = if now >= state.deadline {
        draft.out_of_time()
    } else {
        draft.waking().settled()
    };
    if !draft.has_changed(state) {
        return Err(Rejected::NothingDue);
    }
    Ok(draft.finish())
}
