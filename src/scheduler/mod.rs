//! State + event → transition. No clock, no store, no async: [`decide`] is handed the time, and what must be done comes back
//! as [`Effect`]s.
//!
//! Invariants, each held by construction or by a property test in `tests/it/scheduler_properties.rs`:
//! - a terminal run never changes; a terminal step never changes;
//! - the epoch never falls, and rises at every take-over and at every cancellation;
//! - an outcome is accepted only for the attempt that is running, in the epoch in which it was started;
//! - every transition that changes the run's status is a row of [`transition::LEGAL`];
//! - a run whose steps are all terminal is terminal.

mod effect;
mod event;
mod lifecycle;
mod plan;
mod readiness;
mod state;
mod transition;

pub use effect::{Effect, Fact};
pub use event::Event;
pub use plan::{MAIN_STEP, Plan, StepPlan};
pub use state::{RunState, StepState};
pub use transition::{LEGAL, Rejected, Transition};

use crate::domain::{RunId, Timestamp};

/// The first transition of a run: pending, with every step pending.
#[must_use]
pub fn begin(run: &RunId, plan: &Plan, deadline: Timestamp) -> Transition {
    lifecycle::begin(run, plan, deadline)
}

/// What follows from an event.
///
/// # Errors
/// [`Rejected`] when the event is late, stale or not for this state: nothing changes, and the caller goes on.
pub fn decide(plan: &Plan, state: &RunState, event: Event, now: Timestamp) -> Result<Transition, Rejected> {
    if state.status.is_terminal() {
        return Err(Rejected::Terminal(state.status));
    }
    let transition = match event {
        Event::Taken { owner, lease_until } => lifecycle::take(plan, state, &owner, lease_until, now),
        Event::Renewed { epoch, lease_until } => lifecycle::renew(state, epoch, lease_until),
        Event::AttemptFinished {
            epoch,
            step,
            attempt,
            outcome,
            sample,
        } => lifecycle::attempt_finished(plan, state, epoch, &step, &attempt, &outcome, sample, now),
        Event::Woken { epoch } => lifecycle::wake(plan, state, epoch, now),
        Event::Released { epoch } => lifecycle::release(plan, state, epoch, now),
        Event::CancelRequested { by } => Ok(lifecycle::cancel(plan, state, &by, now)),
    };
    transition.map(|transition| transition.stamped(now))
}
