//! What must hold when everything has come to rest, read from storage by the use cases themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::callers::{Callers, scope};
use super::history::{End, Life};
use super::judge::Case;
use super::memory::Memory;
use super::people::People;
use super::process::Process;
use super::rest::Rest;
use super::scenario::Scenario;
use super::tally::Tally;
use super::triggers::Triggers;
use crate::audit::{Chain, Event};
use crate::domain::{OrgId, RunId, Status};
use crate::scheduler::{Action, Output, Work};
use crate::store::key;
use crate::store::repo::audit_log::AuditQuery;
use crate::store::repo::runs::{ListedRun, RunQuery, StoredRun};
use crate::tenancy::Scope;
use crate::usecase::tick;

/// An owner that isn't told that its run has ended finds out when it renews its lease.
const KILLED_WITHIN: Duration = Duration::from_secs(35);
/// Between the commit that begins an attempt and its begin there are a few reads.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);

/// What those heard who asked for something.
pub(super) struct Told<'a> {
    pub(super) callers: &'a Callers,
    pub(super) people: &'a People,
    pub(super) triggers: &'a Triggers,
}

/// Reports everything that is not as it must be to the history.
///
/// # Panics
/// When storage fails for somebody for whom it can't.
pub(super) async fn check(auditor: &Process, memory: &Memory, scenario: &Scenario, told: &Told<'_>) {
    let callers = told.callers;
    let world = auditor.site.world.clone();
    let violation = |what: String| world.history.violation(what);
    for lying in memory.queues.lying() {
        violation(format!(
            "a message in {} never goes away: received {} times, visible again at {}: {}",
            lying.queue, lying.dequeued, lying.visible, lying.text
        ));
    }
    let lives = world.history.runs();
    for (id, life) in &lives {
        if !life.state.status.is_terminal() {
            violation(format!(
                "{id} is stuck as {}: {:?}",
                life.state.status.as_str(),
                life.state
            ));
        }
    }
    for (number, org) in scenario.orgs.iter().enumerate() {
        let scope = scope(org, 0);
        let table = key::org_table(org);
        let of_org: BTreeMap<_, _> = lives.iter().filter(|(_, life)| life.table == table).collect();
        let stored = memory.tables.partitions(&table);
        let stored = stored
            .iter()
            .filter(|partition| partition.as_str().starts_with("run:"))
            .count();
        if stored != of_org.len() {
            violation(format!(
                "organization {number} has {stored} runs, {} were written",
                of_org.len()
            ));
        }
        let mut runs = BTreeMap::new();
        let listed = listed(auditor, &scope).await;
        if listed.len() != of_org.len() {
            violation(format!("{} of {} runs of {org} are listed", listed.len(), of_org.len()));
        }
        for (id, life) in of_org {
            let run = auditor.cx.runs.get(&scope, id).await.expect("nothing fails here");
            let Some(run) = run else {
                violation(format!("{id} was written and is gone"));
                continue;
            };
            let mut tally = Tally::default();
            tally.add(format!("run: {}", run.state.status.as_str()));
            let judged = match scenario.graphs.get(&run.new.workflow) {
                Some(graph) if run.state.status.is_terminal() => {
                    let case = Case::read(
                        auditor,
                        &scope,
                        &run,
                        graph,
                        (scenario.settings.run_limit, scenario.begins_within()),
                    )
                    .await;
                    case.judged(&mut tally)
                }
                _ => Vec::new(),
            };
            world.count(&tally);
            for wrong in [
                judged,
                of_run(auditor, &scope, &run, life).await,
                of_audit(auditor, &scope, &run).await,
                of_list(&run, listed.get(id)),
            ]
            .concat()
            {
                violation(format!("{id}: {wrong}"));
            }
            runs.insert(id.clone(), run);
        }
        let rest = Rest {
            auditor,
            memory,
            scenario,
            told,
            scope: &scope,
            lives: &lives,
            runs: &runs,
        };
        for wrong in rest.wrong().await {
            violation(wrong);
        }
        of_day(auditor, &scope, scenario).await;
    }
    for wrong in of_callers(auditor, callers, &lives).await {
        violation(wrong);
    }
    // Whoever was told to end has ended, in time where nothing was in the way.
    for (attempt, begun) in world.history.attempts() {
        let ended = lives.get(&begun.run).and_then(|life| life.ended_at);
        if let (true, Some(ended), Some((at, _))) = (scenario.is_calm(), ended, &begun.end)
            && (*at > ended + KILLED_WITHIN || begun.at > ended + BEGUN_WITHIN)
        {
            violation(format!(
                "{attempt} of {} ran from {:?} to {at:?}, and the run had ended at {ended:?}",
                begun.run, begun.at
            ));
        }
        if begun.end.is_none() {
            violation(format!("{attempt} of {} on {} still runs", begun.run, begun.site));
        }
    }
}

async fn listed(auditor: &Process, scope: &Scope) -> BTreeMap<RunId, ListedRun> {
    let mut listed = BTreeMap::new();
    let mut query = RunQuery {
        limit: 5,
        ..RunQuery::default()
    };
    loop {
        let page = auditor.cx.runs.list(scope, &query).await;
        let (runs, next) = page.expect("nothing fails here");
        for run in runs {
            let id = run.run.clone();
            if listed.insert(id.clone(), run).is_some() {
                auditor.site.world.history.violation(format!("{id} is listed twice"));
            }
        }
        query.cursor = next;
        if query.cursor.is_none() {
            return listed;
        }
    }
}

/// The run as it is stored is the run as it was committed, and its result is the value of an attempt that really ran.
async fn of_run(auditor: &Process, scope: &Scope, run: &StoredRun, life: &Life) -> Vec<String> {
    let mut wrong = Vec::new();
    if run.state != life.state {
        wrong.push("is not as its last commit left it".to_owned());
    }
    let result = auditor.cx.runs.resolve(scope, &run.result).await;
    let result = result.expect("nothing fails here");
    let attempts = auditor.site.world.history.attempts();
    if run.state.status == Status::Succeeded {
        for (place, step) in run.new.plan.steps.iter().enumerate() {
            // Other steps succeed without an attempt, or with many.
            let state = &run.state.steps[place];
            if !matches!(step.work, Work::Once(Action::Code(_))) || state.status != Status::Succeeded || state.carried {
                continue;
            }
            let Some(attempt) = life.succeeded.get(&(place, None)) else {
                wrong.push(format!("succeeded, and no outcome of `{}` was committed", step.id));
                continue;
            };
            match attempts.get(attempt).and_then(|begun| begun.end.as_ref()) {
                Some((_, End::Returned(value))) if run.new.plan.output != Output::Step(place) || *value == result => {}
                other => wrong.push(format!(
                    "has a result that {attempt} did not return: {result}, {other:?}"
                )),
            }
        }
    } else if !result.is_null() && !run.state.concluded {
        wrong.push(format!("did not succeed, and has a result: {result}"));
    }
    let steps = auditor.cx.runs.steps(scope, run).await.expect("nothing fails here");
    for ((step, state), planned) in steps.iter().zip(&run.state.steps).zip(&run.new.plan.steps) {
        if !matches!(planned.work, Work::Once(Action::Code(_))) || state.carried {
            continue;
        }
        let begun = attempts
            .values()
            .filter(|begun| begun.run == run.new.run && begun.step == step.id)
            .count();
        if begun > state.attempts as usize {
            wrong.push(format!(
                "began {begun} attempts of `{}`, and {} are committed",
                step.id, state.attempts
            ));
        }
        // Every attempt that was committed has a record of its end.
        if step.attempts.len() != state.attempts as usize {
            wrong.push(format!(
                "has records of {} of {} attempts of `{}`",
                step.attempts.len(),
                state.attempts,
                step.id
            ));
        }
    }
    wrong
}

/// The chain is whole, begins with the one start and ends with the one end, and is listed.
async fn of_audit(auditor: &Process, scope: &Scope, run: &StoredRun) -> Vec<String> {
    let mut wrong = Vec::new();
    let audit = &auditor.cx.audit;
    let verdict = audit.verify_run(scope, &run.new.run, Some(&run.audit)).await;
    if let Err(broken) = verdict.expect("nothing fails here").result {
        wrong.push(format!("its audit chain is broken: {broken:?}"));
    }
    let chain = Chain::Run {
        org: scope.org().clone(),
        run: run.new.run.clone(),
    };
    let records = audit.chain(scope, &chain, 0, 1000).await;
    let records = records.unwrap_or_default();
    let events: Vec<Option<Event>> = records
        .iter()
        .map(|record| record.sealed.plain().ok().and_then(|plain| plain.known_event()))
        .collect();
    let count = |event: Event| events.iter().filter(|found| **found == Some(event)).count();
    let ends = count(Event::RunFinished) + count(Event::RunCancelled);
    let starts = if run.new.resumes.is_some() { (0, 1) } else { (1, 0) };
    if (count(Event::RunStarted), count(Event::RunResumed)) != starts || (run.state.status.is_terminal() && ends != 1) {
        wrong.push(format!("its audit records are {events:?}"));
    }
    if run.state.status.is_terminal() && (count(Event::RunCancelled) == 1) != (run.state.status == Status::Cancelled) {
        wrong.push(format!(
            "ended as {:?}, and its audit records are {events:?}",
            run.state.status
        ));
    }
    let mut listed = 0;
    let mut query = AuditQuery {
        resource_id: Some(run.new.run.to_string()),
        ..AuditQuery::default()
    };
    loop {
        let page = audit.list(scope, query.clone()).await.expect("nothing fails here");
        listed += page
            .items
            .iter()
            .filter(|entry| matches!(&entry.chain, Chain::Run { run: of, .. } if *of == run.new.run))
            .count();
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    if listed != records.len() {
        wrong.push(format!("{listed} of its {} audit records are listed", records.len()));
    }
    wrong
}

/// The derived row says what the header says.
fn of_list(run: &StoredRun, listed: Option<&ListedRun>) -> Vec<String> {
    let Some(listed) = listed else {
        return vec!["is not listed".to_owned()];
    };
    let same = listed.status == run.state.status
        && listed.started_at == run.state.started_at
        && listed.finished_at == run.state.finished_at
        && listed.workflow == run.new.workflow
        && listed.requester == run.new.requester
        && listed.error_type == run.state.error.as_ref().map(|error| error.kind.clone());
    if same {
        Vec::new()
    } else {
        vec![format!("is listed as {listed:?}, and is {:?}", run.state)]
    }
}

/// Chains beside the runs' are whole.
async fn of_day(auditor: &Process, scope: &Scope, scenario: &Scenario) {
    let world = &auditor.site.world;
    if let Err(error) = tick::tick(&auditor.cx).await {
        world
            .history
            .violation(format!("a tick fails with nothing wrong: {error}"));
    }
    for day in [scenario.base.day(), auditor.cx.clock.now().day()] {
        let verdicts = auditor.cx.audit.verify_day(scope, &day).await;
        for verdict in verdicts.expect("nothing fails here") {
            if let Err(broken) = verdict.result {
                let chain = verdict.chain;
                world.history.violation(format!("{chain:?} is broken: {broken:?}"));
            }
        }
    }
}

/// What callers were told is still true.
async fn of_callers(auditor: &Process, callers: &Callers, lives: &BTreeMap<RunId, Life>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, told) in callers.told() {
        let Some(life) = lives.get(&id) else {
            wrong.push(format!("{id} was told to somebody, and there is none"));
            continue;
        };
        for told in told {
            let org: &OrgId = &told.org;
            if !told.status.is_terminal() {
                continue;
            }
            let run = auditor.cx.runs.get(&scope(org, 0), &id).await;
            let run = run.expect("nothing fails here");
            if told.status != life.state.status || run.is_none_or(|run| run.result != told.result) {
                wrong.push(format!(
                    "{id} was told to have ended as {}, and is {}",
                    told.status.as_str(),
                    life.state.status.as_str()
                ));
            }
        }
    }
    for (key, runs) in callers.by_key() {
        if runs.iter().any(|run| *run != runs[0]) {
            wrong.push(format!("the idempotency key `{key}` led to {runs:?}"));
        }
    }
    wrong
}
