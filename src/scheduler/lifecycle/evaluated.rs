//! Values were looked at: a step begins, is skipped, or has ended with that.

use crate::domain::{Phase, Status, StepError, Timestamp};
use crate::scheduler::draft::Draft;
use crate::scheduler::event::Verdict;
use crate::scheduler::readiness::{self, Readiness};
use crate::scheduler::state::{Doing, Slot};
use crate::scheduler::{Fact, Output, Plan, Rejected, RunState, StepPlan, Transition, Work};

use super::owned;

pub fn evaluated(
    plan: &Plan,
    state: &RunState,
    epoch: u64,
    slot: Slot,
    verdict: Verdict,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let (place, item) = slot;
    let step = state.steps.get(place).ok_or(Rejected::NotRunning)?;
    let mut draft = Draft::of(plan, state, now);
    if let Some(item) = item {
        let goes_round = matches!(
            step.activity.as_deref().map(|activity| &activity.doing),
            Some(Doing::Many(many)) if many.total.is_none() && many.active.is_empty() && many.next == item + 1
        );
        let fits = matches!(verdict, Verdict::Ends(_) | Verdict::Wrong(_));
        if !goes_round || !fits || now >= state.deadline || state.yields {
            return Err(Rejected::NotRunning);
        }
        round(&mut draft, place, item, verdict);
    } else {
        let ready = step.status == Status::Pending
            && plan.steps[place].phase == state.phase
            && readiness::of(plan, state, place) == Readiness::Ready;
        if !ready || !draft.has_room() || !fits(&plan.steps[place], &verdict) {
            return Err(Rejected::NotRunning);
        }
        first(&mut draft, place, verdict);
    }
    Ok(draft.settled().finish())
}

/// Whether it is what was asked of the step.
fn fits(planned: &StepPlan, verdict: &Verdict) -> bool {
    match (verdict, &planned.work) {
        (Verdict::Wrong(_), _) => planned.is_evaluated(),
        (Verdict::Skip, _) | (Verdict::Go, Work::Once(_) | Work::Loop { .. } | Work::Approval { .. }) => {
            planned.when.is_some()
        }
        (Verdict::Items(_), Work::Map { .. })
        | (Verdict::Done, Work::Compute { .. } | Work::Assert { .. })
        | (Verdict::Until(_), Work::Delay { .. }) => true,
        (Verdict::Branch(branch), Work::Choose { branches, otherwise }) => {
            branch == otherwise || branches.iter().any(|(name, _)| Some(name) == branch.as_ref())
        }
        _ => false,
    }
}

fn first(draft: &mut Draft<'_>, place: usize, verdict: Verdict) {
    match verdict {
        Verdict::Skip => draft.skip(place),
        Verdict::Go => draft.begin(place),
        // Asked of loops that go on, and refused here before.
        Verdict::Ends(_) => {}
        Verdict::Items(items) => draft.begin_items(place, items),
        Verdict::Until(until) => draft.begin_pause(place, until),
        Verdict::Done => {
            draft.state.steps[place].attempts = 1;
            draft.end_step(place, Status::Succeeded, None, None);
        }
        Verdict::Branch(branch) => {
            draft.tell(Fact::BranchChosen {
                step: draft.plan.steps[place].id.clone(),
                branch: branch.clone(),
            });
            draft.state.steps[place].branch = branch;
            draft.state.steps[place].attempts = 1;
            draft.end_step(place, Status::Succeeded, None, None);
        }
        Verdict::Wrong(error) => draft.end_step(place, Status::Failed, Some(error), None),
    }
}

fn round(draft: &mut Draft<'_>, place: usize, item: u32, verdict: Verdict) {
    let planned = &draft.plan.steps[place];
    let most = match &planned.work {
        Work::Loop { most, .. } => *most,
        _ => 0,
    };
    match verdict {
        Verdict::Wrong(error) => draft.end_step(place, Status::Failed, Some(error), None),
        Verdict::Ends(false) if item + 1 < most => draft.next_item(place),
        Verdict::Ends(false) => {
            let message = format!("loop `{}` had not come to its end after {most} iterations", planned.id);
            draft.end_step(place, Status::Failed, Some(StepError::new("loop_limit", message)), None);
        }
        _ => draft.end_step(place, Status::Succeeded, None, None),
    }
}

pub fn concluded(
    plan: &Plan,
    state: &RunState,
    epoch: u64,
    error: Option<StepError>,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let mut main = plan
        .steps
        .iter()
        .zip(&state.steps)
        .filter(|(planned, _)| planned.phase == Phase::Main);
    let over = state.phase == Phase::Main && main.all(|(_, step)| step.status.is_terminal());
    if !over || state.concluded || state.verdict.is_some() || !matches!(plan.output, Output::Value(_)) {
        return Err(Rejected::NotRunning);
    }
    let mut draft = Draft::of(plan, state, now);
    draft.state.concluded = true;
    if let Some(error) = error {
        draft.state.verdict = Some(Status::Failed);
        draft.state.error = Some(error);
    }
    Ok(draft.settled().finish())
}
