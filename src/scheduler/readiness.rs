//! Which steps may begin: what their edges say.

use super::{Dependency, Plan, RunState};
use crate::domain::{DependsOn, Join, OnFailure, Status};

/// What the edges that lead to a pending step say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Something is still to come.
    Waits,
    /// It may begin.
    Ready,
    /// It never will.
    Never,
}

pub(super) fn of(plan: &Plan, state: &RunState, place: usize) -> Readiness {
    let planned = &plan.steps[place];
    let mut said = planned.depends_on.iter().map(|edge| says(plan, state, edge));
    match planned.join {
        Join::All => {
            let mut waits = false;
            for one in said {
                match one {
                    // No use waiting for the others.
                    Some(false) => return Readiness::Never,
                    None => waits = true,
                    Some(true) => {}
                }
            }
            if waits { Readiness::Waits } else { Readiness::Ready }
        }
        Join::Any if planned.depends_on.is_empty() => Readiness::Ready,
        Join::Any => {
            let came = said.try_fold(false, |came, one| one.map(|one| came || one));
            match came {
                None => Readiness::Waits,
                Some(true) => Readiness::Ready,
                Some(false) => Readiness::Never,
            }
        }
    }
}

/// Whether what an edge wants has come; none while it may still come.
fn says(plan: &Plan, state: &RunState, edge: &Dependency) -> Option<bool> {
    let step = &state.steps[edge.step];
    if !step.status.is_terminal() {
        return None;
    }
    let failed = matches!(step.status, Status::Failed | Status::TimedOut);
    Some(match edge.on {
        DependsOn::Success => match &edge.branch {
            Some(branch) => step.status == Status::Succeeded && step.branch.as_ref() == Some(branch),
            None => {
                step.status == Status::Succeeded
                    || (step.status == Status::Skipped && !step.omitted)
                    || (failed && plan.steps[edge.step].on_failure == OnFailure::Continue)
            }
        },
        DependsOn::Failure => failed,
        DependsOn::End => true,
    })
}
