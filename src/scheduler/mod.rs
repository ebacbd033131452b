//! State + event → transition. No clock, no store, no async: [`decide`] is handed the time, and what must be done comes back
//! as [`Effect`]s.
//!
//! Invariants, each held by construction or by a property test in `tests/it/scheduler_properties.rs`:
//! - a terminal run never changes; a terminal step never changes;
//! - the epoch never falls, and rises at every take-over and at every cancellation;
//! - an outcome is accepted only for the attempt that is running, from the driver of the present epoch;
//! - every transition that changes the run's status is a row of [`LEGAL`];
//! - a run whose steps are all terminal is terminal, once its result is worked out.
//!
//! The scheduler never sees a value. Where one decides (a `when`, a branch, the number of items), the transition asks for it
//! ([`Transition::evaluations`]), the driver looks and says what it saw with another event, and both are committed together.

mod draft;
mod effect;
mod event;
mod lifecycle;
mod of_graph;
mod plan;
mod readiness;
mod state;
mod transition;

pub use draft::child;
pub use effect::{Effect, Fact};
pub use event::{Event, Verdict};
pub use of_graph::MissingFunction;
pub use plan::{Action, BUILT_IN, Code, Dependency, GRACE_MS, MAIN_STEP, Output, Plan, Starts, StepPlan, Work};
pub use state::{Activity, Decision, Doing, Many, RunState, Slot, StepState, UNKNOWN, Unit};
pub use transition::{Counts, Ended, LEGAL, Rejected, Transition};

use crate::domain::{RunId, Timestamp};

/// A step that had succeeded in the run that a new one resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its place.
    pub step: usize,
    /// The branch that it chose.
    pub branch: Option<String>,
}

/// The first transition of a run: pending, with every step pending but those that an earlier run has done.
#[must_use]
pub fn begin(run: &RunId, plan: &Plan, carried: &[Carried], deadline: Timestamp, now: Timestamp) -> Transition {
    lifecycle::begin(run, plan, carried, deadline, now)
}

/// What follows from an event.
///
/// # Errors
/// [`Rejected`] when the event is late, stale or not for this state: nothing changes, and the caller goes on.
pub fn decide(plan: &Plan, state: &RunState, event: Event, now: Timestamp) -> Result<Transition, Rejected> {
    if state.status.is_terminal() {
        return Err(Rejected::Terminal(state.status));
    }
    match event {
        Event::Taken { owner, lease_until } => lifecycle::take(plan, state, &owner, lease_until, now),
        Event::Renewed { epoch, lease_until } => lifecycle::renew(plan, state, epoch, lease_until, now),
        Event::Evaluated { epoch, slot, verdict } => lifecycle::evaluated(plan, state, epoch, slot, verdict, now),
        Event::Concluded { epoch, error } => lifecycle::concluded(plan, state, epoch, error, now),
        Event::AttemptFinished {
            epoch,
            slot,
            attempt,
            outcome,
            sample,
        } => lifecycle::attempt_finished((plan, state), epoch, slot, &attempt, &outcome, sample, now),
        Event::HandedOff { epoch, slots } => lifecycle::hand_off(plan, state, epoch, &slots, now),
        Event::ChildFinished {
            epoch,
            slot,
            child,
            outcome,
            sample,
        } => lifecycle::child_finished((plan, state), epoch, slot, &child, &outcome, sample, now),
        Event::Decided { epoch, step, decision } => lifecycle::decided(plan, state, epoch, step, decision, now),
        Event::Woken { epoch } => lifecycle::wake(plan, state, epoch, now),
        Event::Yielding { epoch } => lifecycle::give_way(plan, state, epoch, now),
        Event::Resumed { epoch } => lifecycle::resume(plan, state, epoch, now),
        Event::Released { epoch } => lifecycle::release(plan, state, epoch, now),
        Event::CancelRequested { by } => Ok(lifecycle::cancel(plan, state, &by, now)),
    }
}
