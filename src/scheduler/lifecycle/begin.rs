//! A run is asked for.

use crate::domain::{Phase, RunId, Status, Timestamp};
use crate::scheduler::{Carried, Fact, Plan, RunState, StepState, Transition};

pub fn begin(run: &RunId, plan: &Plan, carried: &[Carried], deadline: Timestamp, now: Timestamp) -> Transition {
    // What the workflow itself says may be less.
    let own = plan
        .deadline_ms
        .map(|ms| now.plus(std::time::Duration::from_millis(ms)));
    let deadline = own.map_or(deadline, |own| own.min(deadline));
    let mut state = RunState {
        run: run.clone(),
        status: Status::Pending,
        epoch: 0,
        owner: None,
        lease_until: None,
        deadline,
        started_at: None,
        finished_at: None,
        error: None,
        phase: Phase::Main,
        verdict: None,
        concluded: false,
        yields: false,
        orphans: Vec::new(),
        sequence: 1,
        steps: vec![StepState::pending(); plan.steps.len()],
    };
    for done in carried {
        let step = &mut state.steps[done.step];
        step.status = Status::Succeeded;
        step.attempts = 1;
        step.carried = true;
        step.branch.clone_from(&done.branch);
    }
    let facts = vec![Fact::RunStatus {
        status: Status::Pending,
    }];
    Transition::new(now, state, (Vec::new(), facts, Vec::new()), Vec::new(), false)
}
