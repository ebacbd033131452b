//! Fires a schedule that is due. Each fire time leads to exactly one run, or to a reason why there is none.
//!
//! The order of writes is what makes that so. First the due row of the time after is written; then, in one write, the schedule
//! says which fire times are being fired, by whom and until when, and expects the time after; then the runs are started; then
//! what came of it is written; last, the due row that brought us here is deleted. Whoever dies anywhere leaves that row, and the
//! next tick goes on: with the decision as it was made, and without starting a run twice, since a run's id follows from its fire
//! time. Two who tick at once meet at the schedule's ETag.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::due::{EARLY, Handled};
use super::super::launch::{self, Launch};
use super::super::on_record::keep;
use super::super::{Context, Error, Result, control_run};
use super::{arm, definition, due_at, expect, still_armed};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::{Ask, CatchUpPolicy, Overlap, RunId, ScheduleId, Timestamp};
use crate::error::{Coded as _, Kind};
use crate::store;
use crate::store::repo::due::DueRow;
use crate::store::repo::runs::Requester;
use crate::store::repo::schedules::{Fire, Firing, MissedFires, StoredSchedule, fired_run};
use crate::tenancy::{self, Scope};

/// How long whoever fires a schedule is left alone with it: less than the time between two ticks.
const LEASE: Duration = Duration::from_secs(45);
/// A further fire time is not begun when less than this is left of it.
const RESERVE: Duration = Duration::from_secs(15);
/// How often the last run is looked at while a fire time waits for its end.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A due row that no schedule expects is deleted when it is so old: whoever wrote it is not about to expect it.
const ORPHANED: Duration = Duration::from_secs(10 * 60);
/// How far back fire times are counted after a downtime.
const COUNTED: Duration = Duration::from_secs(31 * 24 * 3600);
/// So many failures in a row switch a schedule off.
const MAX_FAILURES: u32 = 10;
/// How often a write that met another one is tried again.
const TRIES: usize = 8;
/// Most characters of a reason.
const MAX_REASON: usize = 300;

/// Handles a due row of a schedule.
pub(in super::super) async fn fire(cx: &Arc<Context>, row: &DueRow) -> Result<Handled> {
    let scope = tenancy::rehydrate_due(&row.what, "schedule");
    let Ok(id) = row.what.id.parse::<ScheduleId>() else {
        return Ok(orphan(cx, row));
    };
    let token = RunId::generate(cx.clock.now(), cx.entropy.bytes()).to_string();
    for _ in 0..TRIES {
        let found = match cx.schedules.get(&scope, &id).await {
            // The organization was deleted with its table.
            Err(store::Error::NotFound { .. }) => None,
            found => found?,
        };
        let Some(schedule) = found else {
            return Ok(orphan(cx, row));
        };
        let taken = match &schedule.progress.firing {
            Some(firing) if firing.until > cx.clock.now() => return Ok(Handled::Left),
            // Whoever was at it has not come to the end.
            Some(_) => take_over(cx, &scope, schedule, &token).await?,
            None if schedule.progress.due_at == Some(row.at) => begin(cx, &scope, schedule, row.at, &token).await?,
            None => return Ok(orphan(cx, row)),
        };
        match taken {
            Taken::Missed => {}
            Taken::Nothing => return Ok(Handled::Done),
            Taken::Mine(schedule, firing) => {
                let brought_by = firing.row;
                if !carry_out(cx, &scope, *schedule, firing).await? {
                    return Ok(Handled::Left);
                }
                if brought_by == row.at {
                    return Ok(Handled::Done);
                }
                // What was left over was of an earlier row; now for this one.
            }
        }
    }
    Ok(Handled::Left)
}

/// A row that nobody expects: too many, or too early, before the schedule is written that will.
fn orphan(cx: &Context, row: &DueRow) -> Handled {
    if cx.clock.now().since(row.put_at) > ORPHANED {
        Handled::Done
    } else {
        Handled::Left
    }
}

enum Taken {
    /// Somebody else wrote first.
    Missed,
    /// There is nothing to start yet; the schedule is looked at again.
    Nothing,
    /// Nobody else is at it.
    Mine(Box<StoredSchedule>, Firing),
}

async fn write(cx: &Context, scope: &Scope, schedule: &StoredSchedule) -> Result<Option<StoredSchedule>> {
    match cx.schedules.replace(scope, schedule).await {
        Ok(stored) => Ok(Some(stored)),
        Err(store::Error::PreconditionFailed { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn take_over(cx: &Context, scope: &Scope, mut schedule: StoredSchedule, token: &str) -> Result<Taken> {
    if let Some(firing) = &mut schedule.progress.firing {
        token.clone_into(&mut firing.by);
        firing.until = cx.clock.now().plus(LEASE);
    }
    Ok(mine(write(cx, scope, &schedule).await?))
}

fn mine(stored: Option<StoredSchedule>) -> Taken {
    let firing = stored.as_ref().and_then(|stored| stored.progress.firing.clone());
    match (stored, firing) {
        (Some(stored), Some(firing)) => Taken::Mine(Box::new(stored), firing),
        (Some(_), None) => Taken::Nothing,
        (None, _) => Taken::Missed,
    }
}

/// Decides what is done about the fire times that have come, and writes that down before anything is done.
async fn begin(
    cx: &Context,
    scope: &Scope,
    mut schedule: StoredSchedule,
    row: Timestamp,
    token: &str,
) -> Result<Taken> {
    let now = cx.clock.now();
    let come_until = now.plus(EARLY);
    let definition = &schedule.definition;
    let timing = definition::timing_of(
        &definition.cron,
        &definition.time_zone,
        Some(definition.dst.as_str()),
        now,
    );
    let (Ok(timing), Some(next)) = (timing, schedule.progress.next_fire_at) else {
        return disable_unreadable(cx, scope, schedule, now).await;
    };
    let policy = catch_up(&schedule);
    let from = next.max(now.minus(COUNTED));
    let mut fires = timing
        .after(from.minus(Duration::from_millis(1)))
        .map(|fire| fire.at)
        .peekable();
    let come = std::iter::from_fn(|| fires.next_if(|at| due_at(&schedule, *at) <= come_until));
    let (times, missed) = policy.choose(come, now);
    let after = fires.next();
    let mut times = VecDeque::from(times);
    if let Some(waiting) = schedule.progress.waiting {
        let blocked = match &schedule.progress.last_run {
            Some(last) => is_active(cx, scope, last).await?,
            None => false,
        };
        if blocked && times.is_empty() {
            expect(&mut schedule, after);
            look_again(&mut schedule, now);
            let put_at = arm(cx, scope, &schedule).await?;
            return Ok(match write(cx, scope, &schedule).await? {
                Some(stored) => {
                    still_armed(cx, scope, &stored, put_at).await?;
                    Taken::Nothing
                }
                None => Taken::Missed,
            });
        }
        times.push_front(waiting);
    }
    expect(&mut schedule, after);
    schedule.progress.firing = Some(Firing {
        row,
        times: times.into(),
        missed: missed.map(|missed| MissedFires {
            count: missed.count,
            first: missed.first,
            last: missed.last,
        }),
        by: token.to_owned(),
        until: now.plus(LEASE),
    });
    let put_at = arm(cx, scope, &schedule).await?;
    let stored = write(cx, scope, &schedule).await?;
    if let Some(stored) = &stored {
        still_armed(cx, scope, stored, put_at).await?;
    }
    Ok(mine(stored))
}

fn catch_up(schedule: &StoredSchedule) -> CatchUpPolicy {
    let definition = &schedule.definition;
    CatchUpPolicy {
        which: definition.catch_up,
        at_most: usize::try_from(definition.catch_up_at_most).unwrap_or(1),
        within: Duration::from_secs(u64::from(definition.catch_up_within_seconds)),
        put_off: Duration::from_secs(u64::from(definition.jitter_seconds)),
    }
}

/// While a fire time waits, the schedule is looked at before the next one.
fn look_again(schedule: &mut StoredSchedule, now: Timestamp) {
    let look = now.plus(LOOK_AGAIN);
    let due = schedule.progress.due_at;
    schedule.progress.due_at = Some(due.map_or(look, |due| due.min(look)));
}

/// A schedule whose times can't be computed any more: a newer version of Weft may have left its time zone out.
async fn disable_unreadable(
    cx: &Context,
    scope: &Scope,
    mut schedule: StoredSchedule,
    now: Timestamp,
) -> Result<Taken> {
    let definition = &schedule.definition;
    let reason = format!(
        "`{}` in `{}` has no next fire time in this version of Weft",
        definition.cron, definition.time_zone
    );
    let at = schedule.progress.next_fire_at.unwrap_or(now);
    schedule.progress.remember(outcome("failed", &reason, at, now));
    switch_off(&mut schedule, reason);
    keep(cx, scope, disabled_record(cx, scope, &schedule)).await?;
    Ok(match write(cx, scope, &schedule).await? {
        Some(_) => Taken::Nothing,
        None => Taken::Missed,
    })
}

fn switch_off(schedule: &mut StoredSchedule, reason: String) {
    schedule.definition.enabled = false;
    schedule.progress.disabled_reason = Some(reason);
    schedule.progress.waiting = None;
    expect(schedule, None);
}

// ── starting runs ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// What came of one fire time.
enum Came {
    /// There is a run.
    Started(RunId),
    /// There is none, as the policy says.
    Skipped(String),
    /// It waits for the end of the last run.
    Waiting(String),
    /// A run could not be started.
    Failed(String),
    /// A run could not be started now; it is tried again.
    Delayed(String),
}

/// Does what was decided, and writes down what came of it; whether all of it is done.
async fn carry_out(cx: &Arc<Context>, scope: &Scope, mut schedule: StoredSchedule, firing: Firing) -> Result<bool> {
    let organization = cx.identities.organization(scope.org()).await?;
    let active = organization.is_some_and(|organization| organization.active);
    if let Some(missed) = &firing.missed {
        let reason = missed_reason(&schedule, missed);
        let fire = outcome("missed", &reason, missed.last, cx.clock.now());
        audit(
            cx,
            scope,
            &schedule,
            AuditEvent::ScheduleSkipped,
            &fire,
            json!({"count": missed.count, "first": missed.first}),
        )
        .await?;
        schedule.progress.remember(fire);
    }
    let mut rest = VecDeque::from(firing.times.clone());
    while let Some(at) = rest.front().copied() {
        if firing.until.minus(RESERVE) < cx.clock.now() {
            break;
        }
        let came = if active {
            one(cx, scope, &schedule, at).await?
        } else {
            Came::Skipped("the organization is not active".to_owned())
        };
        let now = cx.clock.now();
        let waiting = schedule.progress.waiting == Some(at);
        let fire = match came {
            Came::Started(run) => {
                schedule.progress.failures = 0;
                Fire {
                    at,
                    outcome: "started".to_owned(),
                    run: Some(run),
                    decided_at: now,
                }
            }
            Came::Skipped(reason) => {
                let fire = outcome("skipped", &reason, at, now);
                audit(cx, scope, &schedule, AuditEvent::ScheduleSkipped, &fire, json!({})).await?;
                fire
            }
            Came::Failed(reason) => {
                schedule.progress.failures += 1;
                let fire = outcome("failed", &reason, at, now);
                audit(cx, scope, &schedule, AuditEvent::ScheduleFailed, &fire, json!({})).await?;
                fire
            }
            Came::Waiting(reason) => {
                schedule.progress.waiting = Some(at);
                schedule.progress.remember(outcome("waiting", &reason, at, now));
                rest.pop_front();
                continue;
            }
            Came::Delayed(reason) => {
                schedule.progress.remember(outcome("delayed", &reason, at, now));
                break;
            }
        };
        if waiting {
            schedule.progress.waiting = None;
        }
        schedule.progress.remember(fire);
        rest.pop_front();
    }
    settle(cx, scope, schedule, &firing, rest).await
}

/// One fire time: is there a run, may there be one, and if so, start it.
async fn one(cx: &Arc<Context>, scope: &Scope, schedule: &StoredSchedule, at: Timestamp) -> Result<Came> {
    let run = fired_run(scope.org(), &schedule.id, at);
    match cx.runs.get(scope, &run).await {
        Ok(None) => {}
        // Whoever was at it before has come so far.
        Ok(Some(_)) | Err(store::Error::Unreadable { .. }) => return Ok(Came::Started(run)),
        Err(error) => return Err(error.into()),
    }
    if !schedule.definition.enabled {
        return Ok(Came::Skipped("the schedule was switched off".to_owned()));
    }
    let origin = Origin {
        request_id: run.to_string(),
        endpoint: "tick".to_owned(),
        ..Origin::default()
    };
    if let Some(last) = &schedule.progress.last_run
        && is_active(cx, scope, last).await?
    {
        let unfinished = format!("run `{last}` has not ended");
        let waits = schedule.progress.waiting;
        match schedule.definition.overlap {
            Overlap::Allow => {}
            Overlap::Skip => return Ok(Came::Skipped(unfinished)),
            Overlap::Queue if waits.is_none_or(|waiting| waiting == at) => return Ok(Came::Waiting(unfinished)),
            Overlap::Queue => {
                return Ok(Came::Skipped(format!(
                    "{unfinished}, and another fire time waits for it"
                )));
            }
            Overlap::CancelPrevious => match Box::pin(control_run::cancel(cx, scope, &origin, last)).await {
                // It may have ended meanwhile, which is as good.
                Err(error) if error.code() != "run_ended" => return Ok(refused(cx, schedule, at, &error)),
                Ok(_) | Err(_) => {}
            },
        }
    }
    let definition = &schedule.definition;
    let prepared = match launch::prepare(cx, scope, &origin, &definition.workflow, &definition.arguments, None).await {
        Ok(prepared) => prepared,
        Err(error) => return Ok(refused(cx, schedule, at, &error)),
    };
    let launch = Launch {
        run: run.clone(),
        prepared,
        requester: Requester {
            kind: "system".to_owned(),
            id: format!("schedule:{}", schedule.id),
            name: definition.name.clone(),
            claimed_user: None,
        },
        origin: &origin,
        ask: Ask::default(),
        parent: None,
        cause: json!({"schedule": schedule.id, "fireTime": at}),
        resumes: None,
    };
    launch::enqueue(cx, scope, launch).await?;
    Ok(Came::Started(run))
}

/// Why no run could be started: for good, or for now as long as the fire time is not too old.
fn refused(cx: &Context, schedule: &StoredSchedule, at: Timestamp, error: &Error) -> Came {
    let mut reason = error.to_string();
    for finding in error.findings().iter().take(3) {
        reason = format!("{reason}; {}", finding.message);
    }
    let for_now = matches!(error.kind(), Kind::Unavailable | Kind::Throttled | Kind::Internal);
    // One that waits has been waiting for something else.
    let in_time = at >= catch_up(schedule).oldest(cx.clock.now()) || schedule.progress.waiting == Some(at);
    if for_now && in_time {
        Came::Delayed(format!("{reason}; it is tried again every minute"))
    } else {
        Came::Failed(reason)
    }
}

async fn is_active(cx: &Context, scope: &Scope, run: &RunId) -> Result<bool> {
    let run = match cx.runs.get(scope, run).await {
        // Nobody goes on with it; its schedule does.
        Err(store::Error::Unreadable { .. }) => None,
        run => run?,
    };
    Ok(run.is_some_and(|run| !run.state.status.is_terminal()))
}

/// Writes down what came of it, onto the schedule as it is by now; whether nothing is left to do.
async fn settle(
    cx: &Arc<Context>,
    scope: &Scope,
    after: StoredSchedule,
    firing: &Firing,
    rest: VecDeque<Timestamp>,
) -> Result<bool> {
    let done = rest.is_empty();
    let mut base = after.clone();
    for _ in 0..TRIES {
        let now = cx.clock.now();
        let mut schedule = base.clone();
        let progress = &mut schedule.progress;
        progress.failures = after.progress.failures;
        progress.last_fire_at = after.progress.last_fire_at;
        progress.last_run.clone_from(&after.progress.last_run);
        progress.last_outcome.clone_from(&after.progress.last_outcome);
        progress.recent.clone_from(&after.progress.recent);
        progress.waiting = after.progress.waiting.filter(|_| schedule.definition.enabled);
        progress.firing = (!done).then(|| Firing {
            times: rest.clone().into(),
            missed: None,
            // The next tick goes on.
            until: now,
            ..firing.clone()
        });
        let disabled = schedule.definition.enabled && schedule.progress.failures >= MAX_FAILURES;
        if disabled {
            let last = schedule.progress.last_outcome.clone().unwrap_or_default();
            switch_off(
                &mut schedule,
                format!("{MAX_FAILURES} fire times in a row failed; the last: {last}"),
            );
            keep(cx, scope, disabled_record(cx, scope, &schedule)).await?;
        } else if schedule.progress.waiting.is_some() {
            look_again(&mut schedule, now);
        }
        let put_at = if schedule.progress.due_at == base.progress.due_at {
            now
        } else {
            arm(cx, scope, &schedule).await?
        };
        if let Some(stored) = write(cx, scope, &schedule).await? {
            still_armed(cx, scope, &stored, put_at).await?;
            return Ok(done);
        }
        // Somebody has changed the definition meanwhile, deleted the schedule, or taken over because we were too slow.
        match cx.schedules.get(scope, &after.id).await? {
            None => return Ok(done),
            Some(found) if found.progress.firing.as_ref().is_some_and(|now| now.by == firing.by) => base = found,
            Some(_) => return Ok(false),
        }
    }
    Ok(false)
}

// ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn outcome(word: &str, reason: &str, at: Timestamp, now: Timestamp) -> Fire {
    let mut reason: String = reason.chars().take(MAX_REASON).collect();
    if reason.chars().count() == MAX_REASON {
        reason.push('…');
    }
    Fire {
        at,
        outcome: format!("{word}: {reason}"),
        run: None,
        decided_at: now,
    }
}

fn missed_reason(schedule: &StoredSchedule, missed: &MissedFires) -> String {
    let which = schedule.definition.catch_up.as_str();
    let why = format!("they were noticed too late, and `catchUp` is `{which}`");
    if missed.count == 1 {
        format!(
            "the fire time {} was noticed too late, and `catchUp` is `{which}`",
            missed.first
        )
    } else {
        format!(
            "{} fire times from {} to {}: {why}",
            missed.count, missed.first, missed.last
        )
    }
}

async fn audit(
    cx: &Context,
    scope: &Scope,
    schedule: &StoredSchedule,
    event: AuditEvent,
    fire: &Fire,
    more: Value,
) -> Result<()> {
    let mut detail = json!({
        "workflow": schedule.definition.workflow,
        "fireTime": fire.at,
        "outcome": fire.outcome,
    });
    if let (Some(detail), Value::Object(more)) = (detail.as_object_mut(), more) {
        detail.extend(more);
    }
    let record = cx
        .audit
        .by(scope, event)
        .resource("schedule", schedule.id.as_str())
        .detail(&detail);
    keep(cx, scope, record).await
}

fn disabled_record(cx: &Context, scope: &Scope, schedule: &StoredSchedule) -> crate::audit::Record {
    cx.audit
        .by(scope, AuditEvent::ScheduleDisabled)
        .resource("schedule", schedule.id.as_str())
        .detail(&json!({
            "workflow": schedule.definition.workflow,
            "reason": schedule.progress.disabled_reason,
        }))
}
