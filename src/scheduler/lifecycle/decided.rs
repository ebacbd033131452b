//! A person has decided on a step that waits for people.

use std::collections::BTreeSet;

use serde_json::json;

use crate::domain::{Status, StepError, Timestamp};
use crate::scheduler::draft::Draft;
use crate::scheduler::state::Doing;
use crate::scheduler::{Decision, Fact, Plan, Rejected, RunState, Transition, Work};

use super::owned;

pub fn decided(
    plan: &Plan,
    state: &RunState,
    epoch: u64,
    place: usize,
    decision: Decision,
    now: Timestamp,
) -> Result<Transition, Rejected> {
    owned(state, epoch)?;
    let activity = state.steps.get(place).and_then(|step| step.activity.as_deref());
    let (Some(activity), Some(Work::Approval { needed, .. })) =
        (activity, plan.steps.get(place).map(|step| &step.work))
    else {
        return Err(Rejected::NotRunning);
    };
    let Doing::Approval(before) = &activity.doing else {
        return Err(Rejected::NotRunning);
    };
    if before.iter().any(|earlier| earlier.by == decision.by) {
        return Err(Rejected::Decided);
    }
    // When it was made counts, and not when somebody found it: who decided was told that it does.
    if activity.until.is_some_and(|until| until <= decision.at) {
        return Err(Rejected::NotRunning);
    }
    let mut draft = Draft::of(plan, state, now);
    draft.tell(Fact::ApprovalGiven {
        step: plan.steps[place].id.clone(),
        by: decision.by.clone(),
        approved: decision.approved,
    });
    let refused = (!decision.approved).then(|| match &decision.comment {
        Some(comment) => format!("`{}` refused: {comment}", decision.by),
        None => format!("`{}` refused", decision.by),
    });
    let mut decisions = before.clone();
    decisions.push(decision);
    let agreed: BTreeSet<String> = decisions
        .iter()
        .filter(|one| one.approved)
        .map(Decision::voice)
        .collect();
    let value = json!({"approved": refused.is_none(), "decisions": decisions});
    if let Some(activity) = draft.state.steps[place].activity.as_mut() {
        activity.doing = Doing::Approval(decisions);
    }
    if let Some(message) = refused {
        let error = StepError::new("approval_refused", message);
        draft.end_step(place, Status::Failed, Some(error), Some(value));
    } else if agreed.len() >= (*needed).max(1) as usize {
        draft.end_step(place, Status::Succeeded, None, Some(value));
    }
    Ok(draft.settled().finish())
}
