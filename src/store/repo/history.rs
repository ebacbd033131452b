//! A run's history as it is read by watchers: what each transition changed, and what attempts have said.
//!
//! One row for each transition, written with it, and never changed. It names the attempts that the transition began and
//! ended: a reader knows from the rows alone whose logs there are to read, and when a log is whole.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::damage::{known, noted};
use super::quarantines::Quarantined;
use super::runs::StoredRun;
use crate::domain::{AttemptId, LogLine, RunId, Status, Timestamp};
use crate::scheduler::{Effect, Transition};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Entity, Operation, Ports, Properties, Query, Result};
use crate::tenancy::Scope;

/// The shape of the rows that this build writes.
const SCHEMA: i64 = 1;

/// An attempt that a transition began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its id.
    pub id: AttemptId,
    /// Its step.
    pub step: String,
    /// The item of a map, or the iteration of a loop, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// Its number, from 1.
    pub number: u32,
}

/// What one transition changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number. They rise, and some are missing: not every transition changes something that is told.
    pub sequence: u64,
    /// When it was decided on.
    pub at: Timestamp,
    /// What it changed, as `scheduler::Fact` writes it; facts of a newer build are among them.
    pub facts: Vec<Json>,
    /// Attempts that it began.
    pub begun: Vec<Begun>,
    /// Attempts that run no longer; their logs are whole, save those of `killed`.
    pub ended: Vec<AttemptId>,
    /// Attempts that it ended from outside: their last words may come after it.
    pub killed: Vec<AttemptId>,
    /// Why its row can't be read; the rest is what can be, and its time may be that of what stands before it.
    pub unreadable: Option<String>,
}

/// What a transition has to tell, if it has; `running` are the attempts before it.
///
/// # Errors
/// [`Error::Corrupt`] when a fact can't be written.
pub(crate) fn row(running: &[AttemptId], run: &StoredRun, transition: &Transition) -> Result<Option<Row>> {
    let after: Vec<_> = run.state.running().map(|(_, attempt)| attempt).collect();
    let mut begun = Vec::new();
    let mut killed = Vec::new();
    for effect in transition.effects() {
        match effect {
            Effect::StartAttempt { slot, attempt, number } if after.contains(&attempt) => begun.push(Begun {
                id: attempt.clone(),
                step: run.new.plan.steps[slot.0].id.clone(),
                item: slot.1,
                number: *number,
            }),
            Effect::KillAttempt { attempt, .. } => killed.push(attempt.clone()),
            Effect::StartAttempt { .. } | Effect::StartChild { .. } | Effect::CancelChild { .. } | Effect::Finished => {
            }
        }
    }
    let ended = running.iter().filter(|attempt| !after.contains(attempt));
    let ended: Vec<_> = ended.cloned().collect();
    if transition.facts().is_empty() && begun.is_empty() && ended.is_empty() {
        return Ok(None);
    }
    let facts = transition.facts().iter().map(serde_json::to_value);
    Ok(Some(Row {
        sequence: run.state.sequence,
        at: transition.at(),
        facts: facts
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::corrupt(error.to_string()))?,
        begun,
        ended,
        killed,
        unreadable: None,
    }))
}

/// The operation that keeps a transition in the history, where it has something to tell.
pub(super) fn operation(running: &[AttemptId], run: &StoredRun, transition: &Transition) -> Result<Option<Operation>> {
    let Some(row) = row(running, run, transition)? else {
        return Ok(None);
    };
    let mut properties = Properties::new()
        .with("v", SCHEMA)
        .with("at", row.at)
        .with("facts", json(&row.facts)?);
    if !row.begun.is_empty() {
        properties.set("begun", json(&row.begun)?);
    }
    if !row.ended.is_empty() {
        properties.set("ended", json(&row.ended)?);
    }
    if !row.killed.is_empty() {
        properties.set("killed", json(&row.killed)?);
    }
    Ok(Some(Operation::Insert(key::event_row(row.sequence), properties)))
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::corrupt(error.to_string()))
}

/// Lines of an attempt's log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lines {
    /// Each with the offset behind it.
    pub lines: Vec<(LogLine, u64)>,
    /// Whether there may be more at once.
    pub more: bool,
}

/// A part of a history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// In order.
    pub rows: Vec<Row>,
    /// Behind the last row: messages about the run that were set aside, the first of those that are kept first.
    pub set_aside: Vec<Quarantined>,
    /// Whether there may be more.
    pub more: bool,
}

/// Histories of runs.
#[derive(Debug, Clone)]
pub struct History {
    ports: Ports,
}

impl History {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Rows behind `after`, at most `limit` (1 to 1000), in order. `since` is the time of what stands before them, for rows that can't
    /// say theirs. One request, and another for each whole page of rows that have no number.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn rows(
        &self,
        scope: &Scope,
        run: &RunId,
        after: u64,
        mut since: Timestamp,
        limit: usize,
    ) -> Result<Rows> {
        let mut query = Query::partition(key::run(run)).limit(limit);
        query.from = Some(key::event_row(after + 1));
        query.until = Some(key::events_end());
        loop {
            let page = self
                .ports
                .tables
                .query(&key::org_table(scope.org()), query.clone())
                .await?;
            let mut entities = page.entities;
            let set_aside = entities.pop_if(|row| row.row == key::run_set_aside_row());
            let mut rows = Vec::with_capacity(entities.len());
            for row in &entities {
                if let Some(row) = read(row, since) {
                    since = row.at;
                    rows.push(row);
                }
            }
            if !rows.is_empty() || page.next.is_none() {
                return Ok(Rows {
                    rows,
                    set_aside: set_aside.as_ref().map(facts).unwrap_or_default(),
                    more: page.next.is_some(),
                });
            }
            query.continuation = page.next;
        }
    }

    /// How a run has ended, where its header says so and no row stands behind `after`; none while it hasn't. Two requests.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn ended(&self, scope: &Scope, run: &RunId, after: u64) -> Result<Option<Status>> {
        let table = key::org_table(scope.org());
        let header = self
            .ports
            .tables
            .get(&table, &key::run(run), &key::run_header_row())
            .await?;
        let status = header.and_then(|header| Status::parse(header.properties.text("status").ok()??));
        let Some(status) = status.filter(|status| status.is_terminal()) else {
            return Ok(None);
        };
        // It changes no more: what there is to read is there.
        let Rows { rows, .. } = self.rows(scope, run, after, run.at(), 1).await?;
        Ok(rows.is_empty().then_some(status))
    }

    /// Messages about a run that were set aside, the first of those that are kept first. One request.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn set_aside(&self, scope: &Scope, run: &RunId) -> Result<Vec<Quarantined>> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::run(run), &key::run_set_aside_row())
            .await?;
        Ok(row.as_ref().map(facts).unwrap_or_default())
    }

    /// Whole lines of an attempt's log from an offset on, out of at most `most` bytes. One request.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn lines(
        &self,
        scope: &Scope,
        run: &RunId,
        attempt: &AttemptId,
        offset: u64,
        most: u64,
    ) -> Result<Lines> {
        let container = key::org_container(scope.org());
        let path = key::log_blob(run, attempt);
        let bytes = self.ports.blobs.read(&container, &path, offset, most).await?;
        let bytes = bytes.unwrap_or_default();
        let mut lines = Vec::new();
        let mut end = offset;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else { break };
            end += line.len() as u64;
            let line = serde_json::from_slice(text).map_err(|_| Error::corrupt("a log line is not JSON"))?;
            lines.push((line, end));
        }
        Ok(Lines {
            // A piece without a whole line is the end of what is there: an append is one piece with whole lines.
            more: bytes.len() as u64 == most && !lines.is_empty(),
            lines,
        })
    }

    /// How long the logs of a run's attempts are. One request for each 5000 attempts.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn log_sizes(&self, scope: &Scope, run: &RunId) -> Result<HashMap<AttemptId, u64>> {
        let container = key::org_container(scope.org());
        let mut sizes = HashMap::new();
        let mut after = None;
        loop {
            let page = self.ports.blobs.list(&container, &key::log_blobs(run), after).await?;
            for blob in page.blobs {
                if let Some(attempt) = key::attempt_of_log(&blob.path) {
                    sizes.insert(attempt, blob.size);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(sizes);
            }
        }
    }
}

/// What is told of messages; nothing where that can't be read.
fn facts(row: &Entity) -> Vec<Quarantined> {
    let mut why = Vec::new();
    let facts: Option<Vec<Quarantined>> = known(list(&row.properties, "facts"), &mut why);
    noted(row, &why);
    let mut facts = facts.unwrap_or_default();
    facts.sort_by_key(|fact| fact.number);
    facts
}

/// What a row says. One that can't be read hides nothing but itself: its number stays, and what of it can be read. A row without a
/// number is none.
fn read(row: &Entity, since: Timestamp) -> Option<Row> {
    let (properties, mut why) = (&row.properties, Vec::new());
    let Some(sequence) = row.row.as_str().rsplit(':').next().and_then(|text| text.parse().ok()) else {
        noted(row, &["it has no number".to_owned()]);
        return None;
    };
    let at = known(properties.require_time("at"), &mut why);
    // Every row has them, if only an empty list.
    let facts = properties.require_text("facts").and_then(|_| list(properties, "facts"));
    let facts = known(facts, &mut why);
    let begun = known(list(properties, "begun"), &mut why);
    let ended = known(list(properties, "ended"), &mut why);
    let killed = known(list(properties, "killed"), &mut why);
    Some(Row {
        sequence,
        at: at.unwrap_or(since),
        facts: facts.unwrap_or_default(),
        begun: begun.unwrap_or_default(),
        ended: ended.unwrap_or_default(),
        killed: killed.unwrap_or_default(),
        unreadable: noted(row, &why),
    })
}

fn list<T: serde::de::DeserializeOwned>(properties: &Properties, name: &str) -> Result<Vec<T>> {
    properties.text(name)?.map_or_else(
        || Ok(Vec::new()),
        |text| {
            serde_json::from_str(text)
                .map_err(|error| Error::corrupt(format!("property `{name}` of a history can't be read: {error}")))
        },
    )
}
