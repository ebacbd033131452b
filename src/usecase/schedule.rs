//! Schedules: make, change, delete, look at, preview, and fire one by hand. What fires them by themselves is in `fire`.
//!
//! A schedule's due row is written before the schedule says that it waits for it, so whoever dies between the two leaves a row
//! too many, which is harmless, and never one too few.

mod definition;
mod fire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::catalog::Current;
use super::launch::{self, Launch};
use super::on_record::recorded;
use super::{Context, Error, Result, start_run, workflow_assignment};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Origin, Resource};
use crate::domain::{Ask, RunId, ScheduleId, Shown, Timestamp, Timing};
use crate::error::{Finding, Kind};
use crate::store;
use crate::store::port::Continuation;
use crate::store::repo::due::DueKind;
use crate::store::repo::runs::StoredRun;
pub use crate::store::repo::schedules::{Definition, Fire, StoredSchedule};
use crate::store::repo::schedules::{MAX_SCHEDULES, triggered_run};
use crate::tenancy::Scope;

pub(super) use fire::fire;

/// Most fire times in a preview.
pub const MAX_PREVIEWED: usize = 50;

/// How often a change is tried against a schedule that fires at the same moment.
const TRIES: usize = 8;
/// A due row that was written longer ago is written again once the schedule expects it: until then somebody may have taken it
/// for one that nobody expects.
const FRESH: Duration = Duration::from_secs(60);

/// A change of a schedule.
#[derive(Debug)]
pub struct Change {
    /// The schedule as it was written.
    pub written: Map<String, Value>,
    /// The tag of the definition that it is to replace; none to replace any.
    pub if_tag: Option<String>,
}

/// A page of schedules, in the order in which they were made.
///
/// # Errors
/// When the scope may not, the cursor is none, or storage fails.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    limit: usize,
    cursor: Option<String>,
) -> Result<(Vec<StoredSchedule>, Option<String>)> {
    scope.authorize(Action::List, Resource::Schedule)?;
    let with_cursor = cursor.is_some();
    let page = cx.schedules.list(scope, limit, cursor.map(Continuation)).await;
    let mut page = page.map_err(|error| Error::of_page(error, with_cursor))?;
    if let Some(given) = workflow_assignment::given(cx, scope).await? {
        let current = cx.catalogs.current().await?;
        page.items
            .retain(|one| is_shown(&current, &given, &one.definition.workflow));
    }
    Ok((page.items, page.next.map(|next| next.0)))
}

/// Whether somebody who was given these workflows may know of another's schedule: it has arguments.
fn is_shown(current: &Current, given: &BTreeSet<String>, workflow: &str) -> bool {
    given.contains(workflow) || current.catalog.workflows.contains_key(workflow)
}

/// One schedule.
///
/// # Errors
/// When the scope may not, there is none of this id, or storage fails.
pub async fn get(cx: &Context, scope: &Scope, id: &str) -> Result<StoredSchedule> {
    scope.authorize(Action::Read, Resource::Schedule)?;
    let found = existing(cx, scope, id).await?;
    if let Some(given) = workflow_assignment::given(cx, scope).await?
        && !is_shown(&cx.catalogs.current().await?, &given, &found.definition.workflow)
    {
        return Err(not_found(id));
    }
    Ok(found)
}

async fn existing(cx: &Context, scope: &Scope, id: &str) -> Result<StoredSchedule> {
    let found = match id.parse::<ScheduleId>() {
        Ok(id) => cx.schedules.get(scope, &id).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Error {
    Error::not_found(
        "schedule_not_found",
        format!("there is no schedule `{id:.60}` in this organization"),
        "`GET /api/schedules` lists those that there are",
    )
}

/// Makes a schedule.
///
/// # Errors
/// When the scope may not, the schedule is wrong, the organization has as many as it may, or storage fails.
pub async fn create(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    written: &Map<String, Value>,
) -> Result<StoredSchedule> {
    may_change(scope, Action::Create)?;
    let (definition, timing) = definition::checked(cx, scope, origin, written).await?;
    let now = cx.clock.now();
    let id = ScheduleId::generate(now, cx.entropy.bytes());
    let mut new = StoredSchedule::new(id, definition, scope.principal().id(), now);
    expect_next(&mut new, &timing, now);
    let put_at = arm(cx, scope, &new).await?;
    let insert = async {
        if cx.schedules.insert(scope, &new).await? {
            return Ok(());
        }
        if let Some(at) = new.progress.due_at {
            cx.due.remove(scope, DueKind::Schedule, at, new.id.as_str()).await?;
        }
        Err(Error::conflict(
            "schedules_full",
            format!("the organization has {MAX_SCHEDULES} schedules already"),
            "delete one that is not needed",
        ))
    };
    recorded(cx, scope, || change_record(cx, scope, origin, &new, "created"), insert).await?;
    still_armed(cx, scope, &new, put_at).await?;
    existing(cx, scope, new.id.as_str()).await
}

/// Replaces a schedule's definition. What is due by the old one and not started yet is forgotten when the cron expression, the
/// time zone or the rule for changed clocks is another; else it stays due.
///
/// # Errors
/// When the scope may not, there is none of this id, the schedule is wrong, it isn't the one that was to be replaced, or storage
/// fails.
pub async fn update(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    id: &str,
    change: &Change,
) -> Result<StoredSchedule> {
    may_change(scope, Action::Modify)?;
    existing(cx, scope, id).await?;
    let (definition, timing) = definition::checked(cx, scope, origin, &change.written).await?;
    for _ in 0..TRIES {
        let before = existing(cx, scope, id).await?;
        same(&before, change.if_tag.as_deref())?;
        if before.definition == definition {
            return Ok(before);
        }
        let now = cx.clock.now();
        let mut after = before.clone();
        let old = std::mem::replace(&mut after.definition, definition.clone());
        let new = &after.definition;
        let retimed = (&old.cron, &old.time_zone, old.dst, old.jitter_seconds, old.enabled)
            != (&new.cron, &new.time_zone, new.dst, new.jitter_seconds, new.enabled);
        after.updated_at = now;
        after.updated_by = scope.principal().id();
        after.progress.failures = 0;
        after.progress.disabled_reason = None;
        if retimed {
            expect_next(&mut after, &timing, now);
        }
        let put_at = arm(cx, scope, &after).await?;
        let replace = async { Ok(cx.schedules.replace(scope, &after).await?) };
        match recorded(
            cx,
            scope,
            || change_record(cx, scope, origin, &after, "changed"),
            replace,
        )
        .await
        {
            Ok(stored) => {
                still_armed(cx, scope, &stored, put_at).await?;
                return Ok(stored);
            }
            // It has fired at the same moment, or somebody else has changed it.
            Err(Error::Store(store::Error::PreconditionFailed { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Err(contended())
}

/// Deletes a schedule. Its runs go on.
///
/// # Errors
/// When the scope may not, there is none of this id, it isn't the one that was to be deleted, or storage fails.
pub async fn delete(cx: &Context, scope: &Scope, origin: &Origin, id: &str, if_tag: Option<&str>) -> Result<()> {
    scope.authorize(Action::Delete, Resource::Schedule)?;
    for _ in 0..TRIES {
        let stored = existing(cx, scope, id).await?;
        same(&stored, if_tag)?;
        let delete = async { Ok(cx.schedules.delete(scope, &stored).await?) };
        match recorded(
            cx,
            scope,
            || change_record(cx, scope, origin, &stored, "deleted"),
            delete,
        )
        .await
        {
            Ok(()) => {
                if let Some(at) = stored.progress.due_at {
                    cx.due.remove(scope, DueKind::Schedule, at, stored.id.as_str()).await?;
                }
                return Ok(());
            }
            Err(Error::Store(store::Error::PreconditionFailed { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Err(contended())
}

/// Starts a run of a schedule's workflow now, for the caller. Neither the policy for overlaps nor the next fire time has to do
/// with it. The same key leads to the same run; whether it was there.
///
/// # Errors
/// When the scope may not, there is none of this id, its arguments don't fit the workflow any more, or storage fails.
pub async fn trigger(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    id: &str,
    key: Option<&str>,
) -> Result<(StoredRun, bool)> {
    may_change(scope, Action::Run)?;
    let schedule = existing(cx, scope, id).await?;
    let run = match key {
        None => RunId::generate(cx.clock.now(), cx.entropy.bytes()),
        Some(key) => triggered_run(scope.org(), &schedule.id, &scope.principal().id(), key),
    };
    if key.is_some()
        && let Some(run) = cx.runs.get(scope, &run).await?
    {
        return Ok((run, true));
    }
    let definition = &schedule.definition;
    let prepared = launch::prepare(cx, scope, origin, &definition.workflow, &definition.arguments, None).await?;
    let launch = Launch {
        run,
        prepared,
        requester: start_run::requester(scope),
        origin,
        ask: Ask::default(),
        parent: None,
        cause: json!({"schedule": schedule.id, "triggered": true}),
        resumes: None,
    };
    launch::enqueue(cx, scope, launch).await
}

/// A fire time to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previewed {
    /// When.
    pub at: Timestamp,
    /// What a clock there shows.
    pub local: String,
    /// How it came about.
    pub shown: Shown,
}

/// The next fire times of a cron expression in a time zone, or everything that is wrong with them.
///
/// # Errors
/// The findings, which point into `cron`, `timeZone` and `dst`.
pub fn next_times(
    cron: &str,
    time_zone: &str,
    dst: Option<&str>,
    after: Timestamp,
    count: usize,
) -> std::result::Result<Vec<Previewed>, Vec<Finding>> {
    let timing = definition::timing_of(cron, time_zone, dst, after)?;
    let fires = timing.after(after).take(count.min(MAX_PREVIEWED));
    Ok(fires
        .map(|fire| Previewed {
            at: fire.at,
            local: timing.zone.show(fire.at),
            shown: fire.shown,
        })
        .collect())
}

/// [`next_times`] from now on, for a caller who may look at schedules.
///
/// # Errors
/// When the scope may not.
pub fn preview(
    cx: &Context,
    scope: &Scope,
    (cron, time_zone, dst): (&str, &str, Option<&str>),
    count: usize,
) -> Result<std::result::Result<Vec<Previewed>, Vec<Finding>>> {
    scope.authorize(Action::Read, Resource::Schedule)?;
    Ok(next_times(cron, time_zone, dst, cx.clock.now(), count))
}

/// What a clock in a schedule's time zone shows at a time; nothing for a zone that this version doesn't know.
#[must_use]
pub fn local(schedule: &StoredSchedule, at: Timestamp) -> Option<String> {
    let zone = crate::domain::Zone::find(&schedule.definition.time_zone).ok()?;
    Some(zone.show(at))
}

// ── what making, changing and firing have in common ────────────────────────────────────────────────────────────────────

/// Whoever makes a schedule has runs started, so whoever may not start one may not do that either.
fn may_change(scope: &Scope, action: Action) -> Result<()> {
    scope.authorize(action, Resource::Schedule)?;
    scope.authorize(Action::Run, Resource::Workflow)?;
    Ok(())
}

fn same(stored: &StoredSchedule, if_tag: Option<&str>) -> Result<()> {
    if if_tag.is_none_or(|tag| tag == stored.definition.tag()) {
        return Ok(());
    }
    Err(Error::Request {
        kind: Kind::PreconditionFailed,
        code: "schedule_changed",
        detail: format!("schedule `{}` is no longer the one that `If-Match` names", stored.id),
        hint: Some("read it again, apply the change to it, and send its `ETag` as `If-Match`".to_owned()),
        findings: Vec::new(),
    })
}

fn contended() -> Error {
    Error::unavailable(
        "conflict",
        "the schedule was changed by others at every try",
        "repeat the request",
    )
}

/// Has a schedule expect its first fire time after `now`, or none when it is switched off.
fn expect_next(schedule: &mut StoredSchedule, timing: &Timing, now: Timestamp) {
    let next = schedule.definition.enabled.then(|| timing.next(now)).flatten();
    expect(schedule, next.map(|fire| fire.at));
    if !schedule.definition.enabled {
        schedule.progress.waiting = None;
    }
}

fn expect(schedule: &mut StoredSchedule, next: Option<Timestamp>) {
    schedule.progress.next_fire_at = next;
    schedule.progress.due_at = next.map(|at| due_at(schedule, at));
}

/// A fire time with its jitter.
fn due_at(schedule: &StoredSchedule, at: Timestamp) -> Timestamp {
    at.plus(Duration::from_secs(schedule.definition.jitter(&schedule.id, at)))
}

/// Writes the due row that the schedule is about to expect; when.
async fn arm(cx: &Context, scope: &Scope, schedule: &StoredSchedule) -> Result<Timestamp> {
    let now = cx.clock.now();
    if let Some(at) = schedule.progress.due_at {
        cx.due
            .put(scope, DueKind::Schedule, at, schedule.id.as_str(), now)
            .await?;
    }
    Ok(now)
}

/// After the schedule was written: makes sure that its row has not been taken for one that nobody expects.
async fn still_armed(cx: &Context, scope: &Scope, schedule: &StoredSchedule, put_at: Timestamp) -> Result<()> {
    if cx.clock.now().since(put_at) > FRESH {
        arm(cx, scope, schedule).await?;
    }
    Ok(())
}

/// What is said of a change, before it is made.
fn change_record(cx: &Context, scope: &Scope, origin: &Origin, schedule: &StoredSchedule, what: &str) -> Record {
    let definition = &schedule.definition;
    cx.audit
        .by(scope, AuditEvent::ScheduleChanged)
        .came_from(origin)
        .resource("schedule", schedule.id.as_str())
        .detail(&json!({
            "change": what,
            "workflow": definition.workflow,
            "cron": definition.cron,
            "timeZone": definition.time_zone,
            "enabled": definition.enabled,
        }))
}
