//! What must hold beside each single run, in one organization, when everything has come to rest: runs that start runs, keys that
//! are held, rows that wait, schedules, hooks, and what people were told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::check::Told;
use super::history::{Life, MOST_SKEW};
use super::memory::Memory;
use super::people::Said;
use super::process::Process;
use super::scenario::Scenario;
use super::tally::Tally;
use super::triggers::Scheduled;
use crate::audit::Event;
use crate::domain::{HookId, RunId, Status, Timestamp};
use crate::scheduler::{Action, Work, child};
use crate::store::envelope::{self, Message};
use crate::store::key;
use crate::store::repo::audit_log::{AuditQuery, Entry};
use crate::store::repo::runs::StoredRun;
use crate::store::repo::schedules::fired_run;
use crate::tenancy::{RunRef, Scope};
use crate::usecase::deliver::{From, deliver};

/// How soon what an instance has to tell another is heard where nothing goes wrong.
const HEARD_WITHIN: Duration = Duration::from_secs(35);
/// The same whatever goes wrong: a host hides a message for ten minutes, and another one stands up after seven.
pub(super) const HEARD_AT_LAST: Duration = Duration::from_secs(25 * 60);
/// Most tries of a child that are looked for.
const CHILD_TRIES: u32 = 20;
/// How soon a run that needs nothing but a place begins where nothing goes wrong, when it may wait so long.
const BEGINS_WITHIN: Duration = Duration::from_secs(30 * 60);

/// From when to when a run held something.
type Span<'a> = (Duration, Duration, &'a RunId);

/// One organization at the end.
pub(super) struct Rest<'a> {
    pub(super) auditor: &'a Process,
    pub(super) memory: &'a Memory,
    pub(super) scenario: &'a Scenario,
    pub(super) told: &'a Told<'a>,
    pub(super) scope: &'a Scope,
    pub(super) lives: &'a BTreeMap<RunId, Life>,
    pub(super) runs: &'a BTreeMap<RunId, StoredRun>,
}

impl Rest<'_> {
    /// Everything that is not as it must be.
    pub(super) async fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.origins(&mut wrong);
        self.children(&mut wrong);
        self.cancelled(&mut wrong);
        self.keys(&mut wrong);
        self.rows(&mut wrong).await;
        self.starved(&mut wrong);
        self.decisions(&mut wrong).await;
        for schedule in self.told.triggers.scheduled() {
            if schedule.org == *self.scope.org() {
                self.schedule(&schedule, &mut wrong).await;
            }
        }
        for (org, hook) in self.told.triggers.hooks() {
            if org == *self.scope.org() {
                self.hook(&hook, &mut wrong);
            }
        }
        wrong
    }

    /// Within which time somebody hears of what happened at one.
    fn heard_by(&self, at: Duration) -> Duration {
        if self.scenario.is_calm() {
            at + HEARD_WITHIN
        } else {
            at.max(self.scenario.foul_for) + HEARD_AT_LAST
        }
    }

    /// Counts what started the runs.
    fn origins(&self, wrong: &mut Vec<String>) {
        let world = &self.auditor.site.world;
        let kinds = self.told.callers.kinds();
        for (id, run) in self.runs {
            let by = &run.new.requester;
            let origin = match &run.new.parent {
                Some(parent) if parent.awaited.is_some() => "child",
                Some(_) => "started by a step",
                None if by.id.starts_with("schedule:") => "schedule",
                None if by.id.starts_with("hook:") => "hook",
                None => kinds.get(id).copied().unwrap_or("caller"),
            };
            world.met(format!("origin: {origin}"));
            if let Some(parent) = &run.new.parent {
                world.met(format!("depth: {}", parent.depth));
                if !self.runs.contains_key(&parent.run) {
                    wrong.push(format!("{id} was started by {}, which there isn't", parent.run));
                }
            }
            if let Some(resumed) = &run.new.resumes
                && self
                    .runs
                    .get(resumed)
                    .is_none_or(|run| matches!(run.state.status, Status::Succeeded) || !run.state.status.is_terminal())
            {
                wrong.push(format!("{id} resumes {resumed}, which did not fail"));
            }
        }
    }

    /// A step has the children that it started, each once, and they end with what waits for them.
    fn children(&self, wrong: &mut Vec<String>) {
        for (id, run) in self.runs {
            let Some((parent, awaited)) = run
                .new
                .parent
                .as_ref()
                .and_then(|parent| Some((parent, parent.awaited?)))
            else {
                continue;
            };
            let Some(above) = self.runs.get(&parent.run) else {
                continue;
            };
            let known = (1..=CHILD_TRIES).any(|number| child(&parent.run, &parent.step, awaited.item, number) == *id);
            if !known {
                wrong.push(format!(
                    "{id} is a child of {} `{}`, which did not start it",
                    parent.run, parent.step
                ));
            }
            let ended = |run: &RunId| self.lives.get(run).and_then(|life| life.ended_at);
            if let (Some(ended), Some(above)) = (ended(id), ended(&parent.run))
                && ended > self.heard_by(above)
            {
                wrong.push(format!(
                    "{id} went on until {ended:?}, and {}, which waited for it, had ended at {above:?}",
                    parent.run
                ));
            }
            if above.state.status == Status::Succeeded && !run.state.status.is_terminal() {
                wrong.push(format!("{id} goes on, and {} has succeeded", parent.run));
            }
        }
        for (id, run) in self.runs {
            for (place, planned) in run.new.plan.steps.iter().enumerate() {
                let state = &run.state.steps[place];
                if !matches!(planned.work, Work::Once(Action::Child { .. })) || state.carried {
                    continue;
                }
                let tries: Vec<&StoredRun> = (1..=state.attempts)
                    .filter_map(|number| self.runs.get(&child(id, &planned.id, None, number)))
                    .collect();
                let last = tries.last();
                if state.status == Status::Succeeded && last.is_none_or(|last| last.state.status != Status::Succeeded) {
                    wrong.push(format!("{id}: `{}` succeeded, and its child did not", planned.id));
                }
                let done = tries.iter().filter(|run| run.state.status == Status::Succeeded).count();
                if done > 1 {
                    wrong.push(format!("{id}: `{}` has {done} children that succeeded", planned.id));
                }
            }
        }
    }

    /// Who was cancelled was cancelled by somebody.
    fn cancelled(&self, wrong: &mut Vec<String>) {
        let asked = self.told.callers.cancelled();
        for (id, run) in self.runs {
            if run.state.status != Status::Cancelled {
                continue;
            }
            let may = asked.contains(id)
                || run.new.parent.is_some()
                || run.new.ask.concurrency.is_some()
                || run.new.requester.id.starts_with("schedule:");
            if !may {
                wrong.push(format!(
                    "{id} was cancelled, and nobody asked for it: {:?}",
                    run.state.error
                ));
            }
        }
    }

    /// A concurrency key is never held by more than may hold it.
    fn keys(&self, wrong: &mut Vec<String>) {
        let mut spans: BTreeMap<(&str, u32), Vec<Span<'_>>> = BTreeMap::new();
        for (id, run) in self.runs {
            let life = self.lives.get(id);
            if let (Some(key), Some((Some(begun), Some(ended)))) = (
                &run.new.ask.concurrency,
                life.map(|life| (life.begun_at, life.ended_at)),
            ) {
                let held = spans.entry((key.key.as_str(), key.limit)).or_default();
                held.push((begun, ended, id));
            }
        }
        for ((key, limit), mut held) in spans {
            held.sort();
            if held.len() > 1 {
                self.auditor.site.world.met("key: held by several, one after the other");
            }
            for (place, (begun, _, id)) in held.iter().enumerate() {
                let beside = held[..place].iter().filter(|(_, ended, _)| ended > begun).count();
                if beside >= limit as usize {
                    wrong.push(format!(
                        "{id} began at {begun:?} beside {beside} others with the key `{key}`, of which there may be {limit}: {held:?}"
                    ));
                }
            }
        }
    }

    /// Nothing waits any more for what has ended, once somebody has looked: a row too many in the backlog is taken out by whoever
    /// next serves the organization.
    async fn rows(&self, wrong: &mut Vec<String>) {
        let table = key::org_table(self.scope.org());
        if let Some(run) = self.runs.keys().next() {
            let message = Message::Admit {
                run: RunRef {
                    org: self.scope.org().clone(),
                    run: run.clone(),
                },
                place: 0,
            };
            let cx = &self.auditor.cx;
            let text = envelope::seal(&cx.signing, &message);
            let served = deliver(cx, From::Runs, &text, cx.clock.now(), None).await;
            if let Err(error) = served {
                wrong.push(format!("nobody can serve the organization: {error}"));
            }
        }
        for prefix in [key::BACKLOG, "parked:"] {
            for (row, _) in self.memory.tables.rows(&table, &key::index(), prefix) {
                wrong.push(format!("{row} waits, and nothing will come"));
            }
        }
        for (row, properties) in self.memory.tables.rows(&table, &key::index(), "concurrency:") {
            let runs = properties.text("runs").ok().flatten().unwrap_or_default();
            if runs != "[]" {
                wrong.push(format!("{row} is held by {runs}, which have ended"));
            }
        }
        let platform = crate::tenancy::system("auditor");
        let late = self.auditor.cx.clock.now().minus(HEARD_AT_LAST);
        for bucket in 0..key::DUE_BUCKETS {
            let page = self.auditor.cx.due.due_until(&platform, bucket, late, 100, None).await;
            for row in page.expect("nothing fails here").rows {
                wrong.push(format!("{row:?} is due, and nobody does it"));
            }
        }
    }

    /// Whoever needs nothing but a place gets one.
    fn starved(&self, wrong: &mut Vec<String>) {
        for (id, run) in self.runs {
            let Some(life) = self.lives.get(id) else { continue };
            let waited = run
                .state
                .finished_at
                .unwrap_or(run.new.created_at)
                .since(run.new.created_at);
            if self.scenario.is_calm()
                && run.new.ask.is_plain()
                && run.state.status == Status::TimedOut
                && run.state.started_at.is_none()
                && waited > BEGINS_WITHIN
            {
                wrong.push(format!("{id} waited {waited:?} for its turn, and did not begin"));
            }
            let deadline = run.state.deadline;
            let (Some(ended), since) = (life.ended_at, self.scenario.base) else {
                continue;
            };
            // While it waits for its turn nobody looks, whatever the weather.
            let late = deadline.since(since).max(self.scenario.foul_for) + HEARD_AT_LAST;
            if ended > late {
                wrong.push(format!("{id} ended at {ended:?}, long after its deadline {deadline}"));
            }
        }
    }

    /// Decisions count, once, in the sense in which they were meant, and each has its record.
    async fn decisions(&self, wrong: &mut Vec<String>) {
        let said = self.told.people.said();
        let mut heard: BTreeMap<(&RunId, &str, &str), Vec<&Said>> = BTreeMap::new();
        let mut meant: BTreeSet<(&RunId, &str, &str, bool)> = BTreeSet::new();
        for one in &said {
            meant.insert((&one.run, &one.step, &one.by, one.approved));
            if one.heard_at.is_some() {
                heard.entry((&one.run, &one.step, &one.by)).or_default().push(one);
            }
        }
        for ((run, step, by), words) in &heard {
            if words.len() > 1 {
                wrong.push(format!("{by} has decided {} times on {run} `{step}`", words.len()));
            }
        }
        for (id, run) in self.runs {
            for (place, planned) in run.new.plan.steps.iter().enumerate() {
                let (Work::Approval { needed, within_ms, .. }, state) = (&planned.work, &run.state.steps[place]) else {
                    continue;
                };
                if state.carried {
                    continue;
                }
                let left = self.auditor.cx.runs.left(self.scope, run, (place, None)).await;
                let left = left.expect("nothing fails here");
                let output = self.auditor.cx.runs.resolve(self.scope, &left.output).await;
                let output = output.expect("nothing fails here");
                let decisions = output["decisions"].as_array().cloned().unwrap_or_default();
                for decision in &decisions {
                    let by = decision["by"].as_str().unwrap_or_default();
                    let approved = decision["approved"] == true;
                    if !meant.contains(&(id, planned.id.as_str(), by, approved)) {
                        wrong.push(format!("{id} `{}`: nobody has said {decision}", planned.id));
                    }
                    let event = if approved {
                        Event::StepApproved
                    } else {
                        Event::StepRejected
                    };
                    if !self.is_recorded(event, id, &planned.id, by).await {
                        wrong.push(format!("{id} `{}`: there is no record of {decision}", planned.id));
                    }
                }
                let steps = self.auditor.cx.runs.steps(self.scope, run).await;
                let step = steps.expect("nothing fails here").swap_remove(place);
                let within = Duration::from_millis(*within_ms);
                let asked_until = step
                    .started_at
                    .map_or(Duration::MAX, |at| at.since(self.scenario.base) + within);
                let ended = step.finished_at.or(run.state.finished_at).unwrap_or(run.new.created_at);
                let ended = ended.since(self.scenario.base);
                // What was heard in time has counted, where the step ended by itself; else what was heard long before its end.
                let by_itself = left.error["type"] == "approval_expired";
                // A run that waits for a place goes on with nothing until it has one, and its own time may be over first.
                let waits = run.state.status == Status::TimedOut && self.scenario.is_calm();
                let patience = |at| match (by_itself, waits) {
                    (true, _) => at,
                    (false, true) => at + BEGINS_WITHIN,
                    (false, false) => self.heard_by(at),
                };
                let counts: Vec<&&Said> = heard
                    .iter()
                    .filter(|((run, step, _), _)| *run == id && *step == planned.id)
                    .flat_map(|(_, words)| words)
                    .filter(|one| {
                        one.heard_at
                            .is_some_and(|at| patience(at) + MOST_SKEW < asked_until.min(ended))
                    })
                    .collect();
                let agreed = counts.iter().filter(|one| one.approved).count();
                let last = decisions
                    .iter()
                    .filter_map(|decision| Timestamp::parse(decision["at"].as_str()?).ok())
                    .max();
                let last = last.map(|at| at.since(self.scenario.base));
                let lost = match state.status {
                    Status::TimedOut | Status::Cancelled => {
                        agreed >= *needed as usize || counts.iter().any(|one| !one.approved)
                    }
                    // What was said after the last word that was needed is as good as said too late.
                    _ => counts.iter().any(|one| {
                        !decisions.iter().any(|decision| decision["by"] == one.by.as_str())
                            && last.is_none_or(|last| one.heard_at.is_some_and(|at| at + MOST_SKEW < last))
                    }),
                };
                if lost {
                    wrong.push(format!(
                        "{id} `{}` ended at {ended:?} as {} with {output}, and these were said before: {counts:?}",
                        planned.id,
                        state.status.as_str()
                    ));
                }
            }
        }
    }

    async fn is_recorded(&self, event: Event, run: &RunId, step: &str, by: &str) -> bool {
        let query = AuditQuery {
            event: Some(event),
            resource_id: Some(run.to_string()),
            limit: 200,
            ..AuditQuery::default()
        };
        let page = self.auditor.cx.audit.list(self.scope, query).await;
        let page = page.expect("nothing fails here");
        page.items
            .iter()
            .any(|entry| detail(entry)["step"] == step && detail(entry)["by"] == by)
    }

    // ── what starts runs without a caller ──────────────────────────────────────────────────────────────────────────────

    /// Each fire time has led to one run, or to a reason why there is none.
    async fn schedule(&self, schedule: &Scheduled, wrong: &mut Vec<String>) {
        let world = &self.auditor.site.world;
        let step = i64::try_from(schedule.minutes * 60_000).unwrap_or(60_000);
        let first = schedule.asked.minus(MOST_SKEW).millis() / step;
        let times: Vec<Timestamp> = (first..)
            .map(|number| Timestamp::from_millis(number * step))
            .take_while(|at| *at <= schedule.off.plus(MOST_SKEW))
            .collect();
        let run_of = |at: &Timestamp| fired_run(self.scope.org(), &schedule.id, *at);
        let by = format!("schedule:{}", schedule.id);
        let expected: BTreeSet<RunId> = times.iter().map(run_of).collect();
        let mut fired = 0;
        for (id, run) in self.runs.iter().filter(|(_, run)| is_of(run, &by)) {
            fired += 1;
            if !expected.contains(id) {
                wrong.push(format!(
                    "{id} was started for {by} at {}, which is none of its times",
                    run.new.created_at
                ));
            }
        }
        let mut tally = Tally::default();
        tally.add_many("schedule: fired", fired);
        world.count(&tally);
        let reasons = self.reasons(schedule).await;
        let found = self.auditor.cx.schedules.get(self.scope, &schedule.id).await;
        let Some(found) = found.expect("nothing fails here") else {
            return wrong.push(format!("{by} is gone"));
        };
        let recent: BTreeSet<Timestamp> = found.progress.recent.iter().map(|fire| fire.at).collect();
        let is_known = |at: &Timestamp| {
            self.runs.contains_key(&run_of(at))
                || recent.contains(at)
                || reasons.iter().any(|(first, last)| first <= at && at <= last)
        };
        // What was about to come when it was switched off has no trace; everything before the last that has one has one.
        let last = times.iter().rev().find(|at| is_known(at));
        let begins = schedule.from.plus(MOST_SKEW);
        for at in times.iter().filter(|at| **at > begins && Some(*at) <= last) {
            if !is_known(at) {
                wrong.push(format!("{by} has neither a run nor a reason for {at}"));
            }
        }
        let due = schedule.until.minus(HEARD_AT_LAST);
        if last.is_none_or(|last| *last < due) && times.iter().any(|at| *at > begins && *at < due) {
            wrong.push(format!(
                "{by} has not fired since {last:?}, and was switched off at {}",
                schedule.until
            ));
        }
        let query = AuditQuery {
            event: Some(Event::ScheduleChanged),
            resource_id: Some(schedule.id.to_string()),
            limit: 200,
            ..AuditQuery::default()
        };
        let page = self.auditor.cx.audit.list(self.scope, query).await;
        let records = page.expect("nothing fails here").items;
        if !records.iter().any(|entry| detail(entry)["enabled"] == false) {
            wrong.push(format!("there is no record of switching {by} off"));
        }
    }

    /// The fire times for which there is a reason why there is no run, as spans.
    async fn reasons(&self, schedule: &Scheduled) -> Vec<(Timestamp, Timestamp)> {
        let mut reasons = Vec::new();
        for event in [Event::ScheduleSkipped, Event::ScheduleFailed] {
            let mut query = AuditQuery {
                event: Some(event),
                resource_id: Some(schedule.id.to_string()),
                limit: 200,
                ..AuditQuery::default()
            };
            loop {
                let page = self.auditor.cx.audit.list(self.scope, query.clone()).await;
                let page = page.expect("nothing fails here");
                for entry in page.items {
                    let at = |name: &str| serde_json::from_value::<Timestamp>(detail(&entry)[name].clone()).ok();
                    if let Some(last) = at("fireTime") {
                        reasons.push((at("first").unwrap_or(last), last));
                    }
                }
                query.cursor = page.next;
                if query.cursor.is_none() {
                    break;
                }
            }
        }
        if !reasons.is_empty() {
            self.auditor.site.world.met("schedule: skipped or missed");
        }
        reasons
    }

    /// Each delivery has started one run.
    fn hook(&self, hook: &HookId, wrong: &mut Vec<String>) {
        let delivered = self.told.triggers.delivered();
        let of_hook: Vec<_> = delivered.iter().filter(|((of, _), _)| of == hook).collect();
        for ((_, delivery), runs) in &of_hook {
            if runs.iter().any(|run| *run != runs[0]) {
                wrong.push(format!("{delivery} has led to {runs:?}"));
            }
            if !self.runs.contains_key(&runs[0]) {
                wrong.push(format!("{delivery} was told of {}, which there isn't", runs[0]));
            }
        }
        let by = format!("hook:{hook}");
        let started = self.runs.values().filter(|run| is_of(run, &by)).count();
        if started != of_hook.len() {
            wrong.push(format!("{by} has {started} runs of {} deliveries", of_hook.len()));
        }
    }
}

/// Whether a run was started for a schedule or a hook, and not by a step of such a run.
fn is_of(run: &StoredRun, by: &str) -> bool {
    run.new.requester.id == by && run.new.parent.is_none()
}

fn detail(entry: &Entry) -> Value {
    entry.plain.detail.clone().unwrap_or_default()
}
