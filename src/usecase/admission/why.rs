//! Why a run is not done yet, for whoever asks.

use serde::Serialize;

use super::{Context, Result, key, limit};
use crate::domain::{Status, Timestamp};
use crate::scheduler::Work;
use crate::store::repo::backlog;
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;

/// Most runs that are counted before one.
const COUNTED: usize = 1_000;

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The time that was asked for.
    Scheduled,
    /// Runs of its organization that go before it.
    Queue,
    /// The organization has as many runs under way as it may.
    OrganizationLimit,
    /// Other runs hold its concurrency key.
    ConcurrencyKey,
    /// An instance.
    Instance,
    /// A free worker.
    WorkerSlot,
    /// The time of its next attempt.
    Retry,
    /// The end of a pause.
    Pause,
    /// People who decide.
    Approval,
    /// A run that one of its steps has started.
    ChildRun,
    /// Somebody who ends it, or mends what is stored of it, which can't be read.
    Unreadable,
}

/// Why a run is not done yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingFor {
    /// For programs.
    pub reason: Reason,
    /// One sentence.
    pub detail: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When it is expected to go on, where that is a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// How many go before it, at most 1,000; others may overtake it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

/// Why a run is not done yet; nothing when it has ended or is being worked on.
///
/// # Errors
/// When storage fails.
pub async fn why(cx: &Context, scope: &Scope, run: &StoredRun) -> Result<Option<WaitingFor>> {
    let state = &run.state;
    let of = |reason, detail: String, since| WaitingFor {
        reason,
        detail,
        since,
        until: None,
        position: None,
    };
    let created = run.new.created_at;
    match state.status {
        Status::Pending => {}
        Status::Waiting => return Ok(of_steps(run)),
        Status::Running => {
            let (slots, taken, waiting) = cx.admission.gate.figures(scope.org());
            let is_here = cx.live.has(&run.new.run);
            let since = state.started_at.unwrap_or(created);
            return Ok((is_here && cx.live.waits_for_slot(&run.new.run)).then(|| {
                let detail = format!(
                    "all places for workers are busy on this instance: {taken} of {slots}, and {waiting} attempts of the organization wait"
                );
                of(Reason::WorkerSlot, detail, since)
            }));
        }
        _ => return Ok(None),
    }
    if let Some(at) = run.new.ask.not_before.filter(|at| *at > cx.clock.now()) {
        return Ok(Some(WaitingFor {
            until: Some(at),
            ..of(Reason::Scheduled, format!("it is to begin at {at}"), created)
        }));
    }
    let since = run.new.ask.not_before.unwrap_or(created);
    if let Some(asked) = &run.new.ask.concurrency
        && !key::holds(cx, scope, run, asked).await?
    {
        let holders = key::living(cx, scope, asked).await?;
        if let Some(first) = holders.first() {
            let others = match holders.len() - 1 {
                0 => String::new(),
                1 => " and another".to_owned(),
                more => format!(" and {more} others"),
            };
            let detail = format!("the concurrency key `{}` is held by run `{first}`{others}", asked.key);
            return Ok(Some(of(Reason::ConcurrencyKey, detail, since)));
        }
    }
    let before = cx.backlog.before(scope, run, COUNTED).await?;
    let most = limit(cx, scope).await?;
    let now = cx.clock.now();
    let seats = cx.backlog.seats(scope).await?;
    let taken: u32 = seats
        .taken
        .values()
        .filter(|taken| taken.until > now)
        .map(|taken| taken.seats)
        .sum();
    let position = Some(before);
    if taken >= most && !backlog::is_exempt(run) {
        let detail = format!(
            "the organization may have {most} runs under way at once and has them; {before} stand before this one"
        );
        return Ok(Some(WaitingFor {
            position,
            ..of(Reason::OrganizationLimit, detail, since)
        }));
    }
    if before > 0 {
        let runs = if before == 1 { "run" } else { "runs" };
        let about = if before == COUNTED { "at least " } else { "" };
        let detail = format!("{about}{before} {runs} of the organization stand before it");
        return Ok(Some(WaitingFor {
            position,
            ..of(Reason::Queue, detail, since)
        }));
    }
    let detail = "it is the next, and no instance has taken it yet".to_owned();
    Ok(Some(WaitingFor {
        position,
        ..of(Reason::Instance, detail, since)
    }))
}

/// What the steps of a run wait for that rests.
fn of_steps(run: &StoredRun) -> Option<WaitingFor> {
    let steps = run.state.steps.iter().zip(&run.new.plan.steps);
    let open: Vec<_> = steps.filter(|(step, _)| step.activity.is_some()).collect();
    // What is due first; else whatever is waited for.
    let due = open
        .iter()
        .filter_map(|(step, planned)| Some((step.due()?, *step, *planned)));
    let first = due
        .min_by_key(|(due, ..)| *due)
        .map(|(_, step, planned)| (step, planned));
    let (step, planned) = first.or_else(|| open.first().copied())?;
    let id = &planned.id;
    let retry = step
        .units()
        .filter_map(|(_, unit)| Some((unit.due?, unit.attempts)))
        .min();
    let child = step.units().find_map(|(_, unit)| unit.child.as_ref());
    let until = step.due();
    let (reason, detail) = match (&planned.work, retry, child, until) {
        (Work::Delay { .. }, _, _, Some(due)) => (Reason::Pause, format!("step `{id}` pauses until {due}")),
        (Work::Approval { .. }, _, _, Some(due)) => (
            Reason::Approval,
            format!("step `{id}` waits until {due} for people to decide"),
        ),
        (_, Some((due, attempts)), _, _) => (
            Reason::Retry,
            format!(
                "the next attempt of step `{id}`, number {}, is due at {due}",
                attempts + 1
            ),
        ),
        (_, None, Some(child), _) => (Reason::ChildRun, format!("step `{id}` waits for run `{child}`")),
        _ => return None,
    };
    Some(WaitingFor {
        reason,
        detail,
        since: step
            .activity
            .as_ref()
            .map_or(run.new.created_at, |activity| activity.since),
        until,
        position: None,
    })
}
