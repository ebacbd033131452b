//! What was committed and what was begun, in order, and whether each of it may follow what was before: the invariants that are
//! checked at every commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value as Json;

use super::clock::VirtualClock;
use super::site::lock;
use super::tally::Tally;
use crate::clock::Clock as _;
use crate::domain::{OnCrash, RunId, Status};
use crate::scheduler::{Doing, LEGAL, Plan, RunState, Slot, Work};
use crate::store::key;
use crate::store::port::{Key, Match, Operation, TableName};

/// How wrong the clocks of two processes may be against each other.
pub const MOST_SKEW: Duration = Duration::from_secs(4);

/// How an attempt ended, as its runner saw it.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// With this value.
    Returned(Json),
    /// With an error of its own, or at its time limit.
    Failed,
    /// It was killed, by its token or by being dropped.
    Killed,
    /// With its process.
    Vanished,
}

/// One attempt that was really begun.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Its run.
    pub run: RunId,
    /// Its step.
    pub step: String,
    /// The item or iteration.
    pub item: Option<u32>,
    /// By which process.
    pub site: String,
    /// When, since the simulation began.
    pub at: Duration,
    /// How it ended; nothing while it runs.
    pub end: Option<(Duration, End)>,
}

/// What became of one run.
#[derive(Debug, Clone)]
pub struct Life {
    /// The table that it lies in.
    pub table: TableName,
    /// What is executed.
    pub plan: Plan,
    /// Where it is.
    pub state: RunState,
    /// When a commit first had somebody drive it.
    pub begun_at: Option<Duration>,
    /// When its last commit ended it.
    pub ended_at: Option<Duration>,
    /// Every attempt that a commit has begun, by its id.
    pub declared: BTreeSet<String>,
    /// The attempt whose success was committed, by step and item.
    pub succeeded: BTreeMap<Slot, String>,
    /// How often it was taken.
    pub takes: u64,
}

/// A step that waits for people.
#[derive(Debug, Clone)]
pub struct Question {
    /// The table of its organization.
    pub table: TableName,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: String,
    /// How long people have, in milliseconds.
    pub within_ms: u64,
}

#[derive(Debug, Default)]
struct Inner {
    runs: BTreeMap<RunId, Life>,
    attempts: BTreeMap<String, Begun>,
    violations: Vec<String>,
    tally: Tally,
}

/// Everything so far.
#[derive(Debug)]
pub struct History {
    clock: VirtualClock,
    inner: Mutex<Inner>,
}

impl History {
    pub(super) fn new(clock: VirtualClock) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
        }
    }

    /// Something is as it must not be.
    pub fn violation(&self, what: impl Into<String>) {
        let what = format!("at {:.3}: {}", self.clock.elapsed().as_secs_f64(), what.into());
        let mut inner = lock(&self.inner);
        // One defect tends to show many times.
        if inner.violations.len() < 20 {
            inner.violations.push(what);
        }
    }

    /// Whether anything was wrong.
    #[must_use]
    pub fn has_violations(&self) -> bool {
        !lock(&self.inner).violations.is_empty()
    }

    /// Everything that was wrong.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.inner).violations.clone()
    }

    /// Every run, by its id.
    #[must_use]
    pub fn runs(&self) -> BTreeMap<RunId, Life> {
        lock(&self.inner).runs.clone()
    }

    /// Every attempt that was really begun, by its id.
    #[must_use]
    pub fn attempts(&self) -> BTreeMap<String, Begun> {
        lock(&self.inner).attempts.clone()
    }

    /// What was committed, counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        lock(&self.inner).tally.clone()
    }

    /// The steps that wait for people now.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let inner = lock(&self.inner);
        let waiting = inner.runs.iter().filter(|(_, life)| !life.state.status.is_terminal());
        let mut questions = Vec::new();
        for (run, life) in waiting {
            for (planned, step) in life.plan.steps.iter().zip(&life.state.steps) {
                if let Work::Approval { within_ms, .. } = planned.work
                    && step.status == Status::Waiting
                {
                    questions.push(Question {
                        table: life.table.clone(),
                        run: run.clone(),
                        step: planned.id.clone(),
                        within_ms,
                    });
                }
            }
        }
        questions
    }

    /// Whether a run is there and has ended.
    #[must_use]
    pub fn has_ended(&self, run: &RunId) -> bool {
        let inner = lock(&self.inner);
        inner.runs.get(run).is_some_and(|life| life.state.status.is_terminal())
    }

    /// Whether every run has ended.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        lock(&self.inner)
            .runs
            .values()
            .all(|life| life.state.status.is_terminal())
    }

    /// A transaction is in.
    pub fn committed(&self, site: &str, table: &TableName, partition: &Key, operations: &[Operation]) {
        let Some(id) = partition.as_str().strip_prefix("run:") else {
            return;
        };
        let header = operations.iter().find(|operation| operation.row().as_str() == "header");
        let (properties, inserted) = match header {
            Some(Operation::Insert(_, properties)) => (properties, true),
            // That another run takes over values of it changes nothing else.
            Some(Operation::Merge(_, properties, Match::Any))
                if properties.text("checkpoint").ok().flatten().is_none() =>
            {
                return;
            }
            Some(Operation::Merge(_, properties, Match::Exactly(_))) => (properties, false),
            Some(other) => return self.violation(format!("{id}: {site} wrote a header by {other:?}")),
            // Artifacts of a run are written beside its header.
            None => return,
        };
        let read = |name: &str| properties.text(name).ok().flatten().unwrap_or_default().to_owned();
        let (Ok(id), Ok(state)) = (
            id.parse::<RunId>(),
            serde_json::from_str::<RunState>(&read("checkpoint")),
        ) else {
            return self.violation(format!("{id}: {site} wrote a header that can't be read"));
        };
        let mut wrong = Vec::new();
        let facts = facts(operations);
        {
            let mut inner = lock(&self.inner);
            let Inner {
                runs, attempts, tally, ..
            } = &mut *inner;
            for fact in facts {
                tally.add(fact);
            }
            match (runs.get_mut(&id), inserted) {
                (None, true) => {
                    if state.sequence != 1 {
                        wrong.push(format!("began with transition {}", state.sequence));
                    }
                    let Ok(plan) = serde_json::from_str::<Plan>(&read("plan")) else {
                        drop(inner);
                        return self.violation(format!("{id}: {site} wrote a plan that can't be read"));
                    };
                    bounds(&plan, &state, &mut wrong);
                    runs.insert(
                        id.clone(),
                        Life {
                            begun_at: (state.epoch > 0).then(|| self.clock.elapsed()),
                            table: table.clone(),
                            declared: running(&state),
                            takes: state.epoch,
                            ended_at: None,
                            succeeded: BTreeMap::new(),
                            plan,
                            state,
                        },
                    );
                }
                (Some(_), true) => wrong.push("was begun a second time".to_owned()),
                (None, false) => wrong.push("was continued before it was begun".to_owned()),
                (Some(life), false) => {
                    let now = self.clock.now();
                    follows(life, &state, operations, attempts, &mut wrong);
                    bounds(&life.plan, &state, &mut wrong);
                    // Whoever is cancelled while it waits was never driven.
                    if life.begun_at.is_none() && state.owner.is_some() {
                        life.begun_at = Some(self.clock.elapsed());
                    }
                    if let (Some(before), Some(after), Some(until)) =
                        (&life.state.owner, &state.owner, life.state.lease_until)
                        && before != after
                        && now.plus(MOST_SKEW) < until
                    {
                        wrong.push(format!("was taken from {before} by {after} before {until}, at {now}"));
                    }
                    life.takes += state.epoch.saturating_sub(life.state.epoch);
                    life.declared.extend(running(&state));
                    if state.status.is_terminal() && life.ended_at.is_none() {
                        life.ended_at = Some(self.clock.elapsed());
                    }
                    life.state = state;
                }
            }
        }
        for wrong in wrong {
            self.violation(format!("{id}: {site} committed what must not be: it {wrong}"));
        }
    }

    /// A runner really begins an attempt.
    pub fn begun(&self, attempt: &str, begun: Begun) {
        let wrong = {
            let mut inner = lock(&self.inner);
            let declared = inner
                .runs
                .get(&begun.run)
                .is_some_and(|life| life.declared.contains(attempt));
            let wrong = if !declared {
                Some(format!(
                    "{}: attempt {attempt} was begun, and no commit says so",
                    begun.run
                ))
            } else if inner.attempts.contains_key(attempt) {
                Some(format!("{}: attempt {attempt} was begun twice", begun.run))
            } else {
                None
            };
            inner.attempts.insert(attempt.to_owned(), begun);
            wrong
        };
        if let Some(wrong) = wrong {
            self.violation(wrong);
        }
    }

    /// A process has died, and every attempt that it was making with it.
    pub fn vanished(&self, site: &str) {
        let at = self.clock.elapsed();
        for begun in lock(&self.inner).attempts.values_mut() {
            if begun.site == site {
                begun.end.get_or_insert((at, End::Vanished));
            }
        }
    }

    /// An attempt has ended. What ended it first counts.
    pub fn ended(&self, attempt: &str, end: End) {
        let at = self.clock.elapsed();
        if let Some(begun) = lock(&self.inner).attempts.get_mut(attempt) {
            begun.end.get_or_insert((at, end));
        }
    }
}

/// The names of what a transaction tells.
fn facts(operations: &[Operation]) -> Vec<String> {
    let mut names = Vec::new();
    for operation in operations {
        let Operation::Insert(row, properties) = operation else {
            continue;
        };
        let Some(text) = properties
            .text("facts")
            .ok()
            .flatten()
            .filter(|_| row.as_str().starts_with("event:"))
        else {
            continue;
        };
        let facts: Vec<Json> = serde_json::from_str(text).unwrap_or_default();
        for fact in facts {
            let name = fact["fact"].as_str().unwrap_or_default();
            names.push(match (name, fact["phase"].as_str()) {
                ("phase_begun", Some(phase)) => format!("fact: phase_begun {phase}"),
                _ => format!("fact: {name}"),
            });
        }
    }
    names
}

/// What a state must not exceed.
fn bounds(plan: &Plan, state: &RunState, wrong: &mut Vec<String>) {
    let mut active = 0;
    for (planned, step) in plan.steps.iter().zip(&state.steps) {
        let Some(activity) = step.activity.as_deref() else {
            continue;
        };
        if step.status.is_terminal() {
            wrong.push(format!("goes on with `{}`, which has ended", planned.id));
        }
        active += match &activity.doing {
            Doing::Many(many) => {
                let at_once = match &planned.work {
                    Work::Map { at_once, .. } => *at_once as usize,
                    _ => 1,
                };
                if many.active.len() > at_once {
                    let active = many.active.len();
                    wrong.push(format!("does {active} items of `{}` at once", planned.id));
                }
                many.active.len().max(1)
            }
            _ => 1,
        };
    }
    if active > plan.active as usize {
        wrong.push(format!("does {active} things at once, and may do {}", plan.active));
    }
    if state.status.is_terminal() && active > 0 {
        wrong.push(format!("has ended with {active} things going on"));
    }
}

fn running(state: &RunState) -> BTreeSet<String> {
    state.running().map(|(_, attempt)| attempt.to_string()).collect()
}

/// What is wrong with a state that follows what is known of a run.
fn follows(
    life: &mut Life,
    next: &RunState,
    operations: &[Operation],
    attempts: &BTreeMap<String, Begun>,
    wrong: &mut Vec<String>,
) {
    let before = &life.state;
    if before.status.is_terminal() {
        wrong.push(format!(
            "changed after it had ended as {} (now {})",
            before.status.as_str(),
            next.status.as_str()
        ));
        return;
    }
    if before.status != next.status && !LEGAL.contains(&(before.status, next.status)) {
        wrong.push(format!("went from {:?} to {:?}", before.status, next.status));
    }
    if next.epoch < before.epoch {
        wrong.push(format!("fell from epoch {} to {}", before.epoch, next.epoch));
    }
    if next.sequence != before.sequence + 1 {
        wrong.push(format!("went from transition {} to {}", before.sequence, next.sequence));
    }
    for (planned, (was, is)) in life.plan.steps.iter().zip(before.steps.iter().zip(&next.steps)) {
        if was.status.is_terminal() && was != is {
            wrong.push(format!("changed step `{}` after its end", planned.id));
        }
        if is.attempts < was.attempts {
            wrong.push(format!(
                "went from {} to {} attempts of `{}`",
                was.attempts, is.attempts, planned.id
            ));
        }
    }
    for (slot, attempt) in before.running() {
        let Some(planned) = life.plan.steps.get(slot.0) else {
            continue;
        };
        let after = next.unit(slot);
        if after.is_some_and(|unit| unit.attempt.as_ref() == Some(attempt)) {
            continue;
        }
        let begun = attempts.get(attempt.as_str());
        if is_committed_as(Status::Succeeded, &planned.id, slot, operations) {
            match begun.and_then(|begun| begun.end.as_ref()) {
                Some((_, End::Returned(_))) => {}
                other => wrong.push(format!(
                    "committed the success of {attempt}, which had ended as {other:?}"
                )),
            }
            if let Some(other) = life.succeeded.insert(slot, attempt.to_string()) {
                wrong.push(format!(
                    "has a second outcome of `{}`: {attempt} after {other}",
                    planned.id
                ));
            }
        }
        // What may have run and is declared to fail then is not made again, unless its own report says how it ended.
        let again = after.is_some() && !next.steps[slot.0].status.is_terminal();
        if again && planned.on_crash == OnCrash::Fail && begun.is_some_and(|begun| !begun.has_reported()) {
            wrong.push(format!(
                "makes `{}` again after {attempt}, whose end nobody saw",
                planned.id
            ));
        }
    }
}

/// Whether a transaction writes that a step or item has ended so.
fn is_committed_as(status: Status, step: &str, (_, item): Slot, operations: &[Operation]) -> bool {
    let row = item.map_or_else(|| key::step_row(step), |item| key::item_row(step, item));
    operations.iter().any(|operation| {
        let (Operation::Upsert(_, properties) | Operation::Merge(_, properties, _) | Operation::Insert(_, properties)) =
            operation
        else {
            return false;
        };
        row.as_ref().is_ok_and(|row| row == operation.row())
            && properties.text("status").ok().flatten() == Some(status.as_str())
    })
}

impl Begun {
    fn has_reported(&self) -> bool {
        matches!(self.end, Some((_, End::Returned(_) | End::Failed)))
    }
}
