//! A run is asked for.

use crate::domain::{RunId, Status, Timestamp};
use crate::scheduler::{Fact, Plan, RunState, StepState, Transition};

pub fn begin(run: &RunId, plan: &Plan, deadline: Timestamp) -> Transition {
    let state = RunState {
        run: run.clone(),
        status: Status::Pending,
        epoch: 0,
        owner: None,
        lease_until: None,
        deadline,
        started_at: None,
        finished_at: None,
        error: None,
        sequence: 0,
        steps: vec![StepState::pending(); plan.steps.len()],
    };
    Transition::new(
        None,
        state,
        vec![Fact::RunStatus {
            status: Status::Pending,
        }],
        Vec::new(),
    )
}
