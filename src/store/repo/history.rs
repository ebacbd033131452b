//! A run's history as it is read by watchers: what each transition changed, and what attempts have said.
//!
//! One row for each transition, written with it, and never changed. It names the attempts that the transition began and
//! ended: a reader knows from the rows alone whose logs there are to read, and when a log is whole.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::quarantines::Quarantined;
use super::runs::StoredRun;
use crate::domain::{AttemptId, LogLine, RunId, Timestamp};
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

    /// Rows behind `after`, at most `limit` (1 to 1000), in order. One request.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn rows(&self, scope: &Scope, run: &RunId, after: u64, limit: usize) -> Result<Rows> {
        let mut query = Query::partition(key::run(run)).limit(limit);
        query.from = Some(key::event_row(after + 1));
        query.until = Some(key::events_end());
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let mut entities = page.entities;
        let set_aside = entities.pop_if(|row| row.row == key::run_set_aside_row());
        Ok(Rows {
            rows: entities.iter().map(read).collect::<Result<_>>()?,
            set_aside: set_aside.as_ref().map(facts).transpose()?.unwrap_or_default(),
            more: page.next.is_some(),
        })
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
        row.as_ref().map_or_else(|| Ok(Vec::new()), facts)
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

fn facts(row: &Entity) -> Result<Vec<Quarantined>> {
    let mut facts: Vec<Quarantined> = list(&row.properties, "facts")?;
    facts.sort_by_key(|fact| fact.number);
    Ok(facts)
}

fn read(row: &Entity) -> Result<Row> {
    let properties = &row.properties;
    let sequence = row.row.as_str().rsplit(':').next().and_then(|text| text.parse().ok());
    Ok(Row {
        sequence: sequence.ok_or_else(|| Error::corrupt("a row of a history has no number"))?,
        at: properties.require_time("at")?,
        facts: list(properties, "facts")?,
        begun: list(properties, "begun")?,
        ended: list(properties, "ended")?,
        killed: list(properties, "killed")?,
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
