//! What is told about a run, and cursors: how far somebody has been told.
//!
//! Two kinds of streams are merged: the rows of the run's history, and the logs of its attempts. A cursor holds a position in
//! each of them, so it means the same to every instance, in whatever order they have merged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{LogLine, Phase, RunId, Status, StepError, Timestamp};
use crate::scheduler::Fact;
use crate::store::envelope::SigningKey;
use crate::store::repo::history::Begun;
use crate::store::repo::quarantines::Quarantined;

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Happening {
    /// The run's status changed.
    #[serde(rename = "run.status")]
    RunStatus {
        /// The new status.
        status: Status,
    },
    /// A step's status changed.
    #[serde(rename = "step.status")]
    StepStatus {
        /// The step.
        step: String,
        /// The item of a map, or the iteration of a loop, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The new status.
        status: Status,
        /// The attempt's number, from 1; 0 before the first.
        attempt: u32,
    },
    /// An attempt failed and will be made again.
    #[serde(rename = "step.retry_planned")]
    RetryPlanned {
        /// The step.
        step: String,
        /// The item of a map, or the iteration of a loop, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The attempt that failed.
        attempt: u32,
        /// When the next is due.
        #[schema(value_type = String, format = DateTime)]
        due: Timestamp,
        /// Why it failed.
        error: StepError,
    },
    /// Steps that had not begun won't, or steps that had were stopped.
    #[serde(rename = "steps.ended")]
    StepsEnded {
        /// As what.
        status: Status,
        /// How many.
        count: usize,
        /// Which: the first hundred.
        steps: Vec<String>,
    },
    /// A map knows how many items it has.
    #[serde(rename = "step.items_counted")]
    ItemsCounted {
        /// The step.
        step: String,
        /// How many.
        items: u32,
    },
    /// A branch was chosen.
    #[serde(rename = "step.branch_chosen")]
    BranchChosen {
        /// The step.
        step: String,
        /// The branch; none when none was true.
        branch: Option<String>,
    },
    /// A step pauses.
    #[serde(rename = "step.paused")]
    Paused {
        /// The step.
        step: String,
        /// Until when.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// A step waits for a child run.
    #[serde(rename = "step.child_started")]
    ChildStarted {
        /// The step.
        step: String,
        /// The item of a map, or the iteration of a loop, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The child.
        #[schema(value_type = String)]
        child: RunId,
    },
    /// A step waits for people.
    #[serde(rename = "approval.asked")]
    ApprovalAsked {
        /// The step.
        step: String,
        /// How many must agree.
        needed: u32,
        /// Until when.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// A person has decided.
    #[serde(rename = "approval.given")]
    ApprovalGiven {
        /// The step.
        step: String,
        /// Who.
        by: String,
        /// Whether they agree.
        approved: bool,
    },
    /// Steps that handle a failure begin, or those that run in any case.
    #[serde(rename = "run.phase")]
    PhaseBegun {
        /// Which.
        phase: Phase,
    },
    /// An instance took the run over from another.
    #[serde(rename = "run.taken_over")]
    TakenOver {
        /// How often the run has been taken or ended from outside.
        epoch: u64,
    },
    /// A message about the run failed too often and was set aside, or the run can't be read.
    #[serde(rename = "message.set_aside")]
    MessageSetAside {
        /// The queue that it was delivered from.
        queue: String,
        /// How often it was delivered before.
        deliveries: u32,
        /// How its last delivery failed, as far as the instance that set it aside has seen it.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// A line of an attempt's output or of `ctx.log`.
    #[serde(rename = "log")]
    Log {
        /// The step.
        step: String,
        /// The item of a map, or the iteration of a loop, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The attempt's number, from 1.
        attempt: u32,
        /// `stdout`, `stderr`, `log` or `network`.
        stream: String,
        /// `debug`, `info`, `warning` or `error`.
        level: String,
        /// The text.
        message: String,
        /// What `ctx.log` was given beside the message.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Object>)]
        fields: Option<Value>,
    },
    /// A step has reached a point that it named.
    #[serde(rename = "checkpoint")]
    Checkpoint {
        /// The step.
        step: String,
        /// The item of a map, or the iteration of a loop, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The attempt's number, from 1.
        attempt: u32,
        /// The name.
        name: String,
        /// What it was given.
        #[schema(value_type = Object, nullable)]
        data: Value,
    },
    /// What one transition changed can't be read, or not all of it.
    #[serde(rename = "event.unreadable")]
    Unreadable {
        /// The transition's number in the run's history.
        sequence: u64,
        /// What can't be read of it.
        reason: String,
    },
    /// Something that this build doesn't know: written by a newer one.
    #[serde(rename = "other")]
    Other {
        /// As it is stored.
        #[schema(value_type = Object)]
        fact: Value,
    },
}

impl Happening {
    /// That a message was set aside.
    pub(super) fn of_message(fact: &Quarantined) -> Self {
        Self::MessageSetAside {
            queue: fact.queue.clone(),
            deliveries: fact.deliveries,
            failure: fact.failure.clone(),
        }
    }

    /// That a row of the history can't be read.
    pub(super) fn unreadable(sequence: u64, reason: &str) -> Self {
        Self::Unreadable {
            sequence,
            reason: reason.to_owned(),
        }
    }

    /// A stored fact.
    pub(super) fn of_fact(stored: &Value) -> Self {
        match serde_json::from_value::<Fact>(stored.clone()) {
            Ok(fact) => Self::from(fact),
            Err(_) => Self::Other { fact: stored.clone() },
        }
    }

    /// A line of a log.
    pub(super) fn of_line(begun: &Begun, line: LogLine) -> Self {
        let (step, item, attempt) = (begun.step.clone(), begun.item, begun.number);
        if line.stream == "checkpoint"
            && let Some(Value::Object(fields)) = &line.fields
            && let Some(name) = fields.get("checkpoint").and_then(Value::as_str)
        {
            return Self::Checkpoint {
                step,
                item,
                attempt,
                name: name.to_owned(),
                data: fields.get("data").cloned().unwrap_or_default(),
            };
        }
        Self::Log {
            step,
            item,
            attempt,
            stream: line.stream,
            level: line.level,
            message: line.message,
            fields: line.fields,
        }
    }

    /// The step that it is about, if it is about one.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::StepStatus { step, .. }
            | Self::RetryPlanned { step, .. }
            | Self::ItemsCounted { step, .. }
            | Self::BranchChosen { step, .. }
            | Self::Paused { step, .. }
            | Self::ChildStarted { step, .. }
            | Self::ApprovalAsked { step, .. }
            | Self::ApprovalGiven { step, .. }
            | Self::Log { step, .. }
            | Self::Checkpoint { step, .. } => Some(step),
            Self::Other { fact } => fact.get("step").and_then(Value::as_str),
            Self::RunStatus { .. }
            | Self::StepsEnded { .. }
            | Self::PhaseBegun { .. }
            | Self::TakenOver { .. }
            | Self::MessageSetAside { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

impl From<Fact> for Happening {
    /// One line for each kind of fact.
    fn from(fact: Fact) -> Self {
        match fact {
            Fact::RunStatus { status } => Self::RunStatus { status },
            Fact::StepStatus {
                step,
                item,
                status,
                attempt,
            } => Self::StepStatus {
                step,
                item,
                status,
                attempt,
            },
            Fact::StepsEnded { status, count, steps } => Self::StepsEnded { status, count, steps },
            Fact::ItemsCounted { step, items } => Self::ItemsCounted { step, items },
            Fact::BranchChosen { step, branch } => Self::BranchChosen { step, branch },
            Fact::Paused { step, until } => Self::Paused { step, until },
            Fact::ChildStarted { step, item, child } => Self::ChildStarted { step, item, child },
            Fact::ApprovalAsked { step, needed, until } => Self::ApprovalAsked { step, needed, until },
            Fact::ApprovalGiven { step, by, approved } => Self::ApprovalGiven { step, by, approved },
            Fact::RetryPlanned {
                step,
                item,
                attempt,
                due,
                error,
            } => Self::RetryPlanned {
                step,
                item,
                attempt,
                due,
                error,
            },
            Fact::PhaseBegun { phase } => Self::PhaseBegun { phase },
            Fact::TakenOver { epoch } => Self::TakenOver { epoch },
        }
    }
}

/// An event as it is told to one watcher.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// A cursor: whoever has heard this event, and all before it, goes on behind it with it, on any instance.
    pub id: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// Where an attempt began: the row of the history, and its place among those that the row began. It stands for the attempt
/// in cursors, since from there a reader finds everything else about it.
pub(super) type Place = (u64, u32);

/// How far somebody has been told of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// Rows up to this one have been told whole.
    pub(super) row: u64,
    /// So many facts of the next row have been told as well.
    pub(super) facts: u32,
    /// Messages that were set aside have been told up to this one.
    pub(super) set_aside: u32,
    /// Attempts whose logs are not whole, and up to where each has been told. The log of any other that began is told.
    pub(super) open: BTreeMap<Place, u64>,
}

/// A step that a cursor takes, and what is told with it, if anything.
#[derive(Debug)]
pub(super) struct Item {
    /// The step.
    pub(super) step: Advance,
    /// When, and what is told.
    pub(super) told: Option<(Timestamp, Happening)>,
    /// About how much memory it takes.
    pub(super) bytes: usize,
}

/// A step of a cursor.
#[derive(Debug, Clone)]
pub(super) enum Advance {
    /// A fact of a row, or the end of a row without facts.
    Fact {
        /// The row before.
        previous: u64,
        /// Facts of this row that were told before it.
        index: u32,
        /// Where it is the last: what becomes of the cursor.
        last: Option<Arc<RowEnd>>,
    },
    /// A line of a log.
    Line {
        /// The attempt.
        attempt: Place,
        /// Where the line begins.
        from: u64,
        /// And ends.
        to: u64,
    },
    /// That a message was set aside.
    SetAside {
        /// The one before that is known.
        previous: u32,
        /// Its number.
        number: u32,
    },
    /// Nothing will be told of a killed attempt any more.
    Closed {
        /// The attempt.
        attempt: Place,
    },
}

/// What a row means for cursors.
#[derive(Debug)]
pub(super) struct RowEnd {
    /// Its number.
    pub(super) row: u64,
    /// How many attempts it began.
    pub(super) begun: u32,
    /// Attempts whose logs have been told whole before it.
    pub(super) closed: Vec<Place>,
}

/// Whether a cursor is at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// It has taken it.
    Behind,
    /// It is the next one.
    Next,
    /// Something else comes before.
    Gap,
}

impl Cursor {
    /// Whether everything that `other` has been told has been told to this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        (self.row, self.facts) >= (other.row, other.facts)
            && self.set_aside >= other.set_aside
            && other
                .open
                .iter()
                .all(|(place, offset)| self.open.get(place).is_none_or(|own| own >= offset))
    }

    /// Where a step is, seen from here.
    pub(super) fn relation(&self, step: &Advance) -> Relation {
        match step {
            Advance::Fact { previous, index, .. } => match (self.row, self.facts).cmp(&(*previous, *index)) {
                std::cmp::Ordering::Equal => Relation::Next,
                std::cmp::Ordering::Greater => Relation::Behind,
                std::cmp::Ordering::Less => Relation::Gap,
            },
            Advance::Line { attempt, from, to } => match self.open.get(attempt) {
                None if attempt.0 > self.row => Relation::Gap,
                None => Relation::Behind,
                Some(offset) if offset == from => Relation::Next,
                Some(offset) if offset >= to => Relation::Behind,
                Some(_) => Relation::Gap,
            },
            Advance::SetAside { number, .. } if self.set_aside >= *number => Relation::Behind,
            Advance::SetAside { previous, .. } if self.set_aside < *previous => Relation::Gap,
            Advance::SetAside { .. } => Relation::Next,
            Advance::Closed { attempt } if self.open.contains_key(attempt) => Relation::Next,
            Advance::Closed { .. } => Relation::Behind,
        }
    }

    /// Takes the next step.
    pub(super) fn take(&mut self, step: &Advance) {
        match step {
            Advance::Fact { last: None, index, .. } => self.facts = index + 1,
            Advance::Fact { last: Some(end), .. } => {
                self.row = end.row;
                self.facts = 0;
                for place in &end.closed {
                    self.open.remove(place);
                }
                self.open.extend((0..end.begun).map(|number| ((end.row, number), 0)));
            }
            Advance::Line { attempt, to, .. } => {
                self.open.insert(*attempt, *to);
            }
            Advance::SetAside { number, .. } => self.set_aside = *number,
            Advance::Closed { attempt } => {
                self.open.remove(attempt);
            }
        }
    }

    /// As callers see it, for one run. `over` is said by the last one of a run: there is nothing behind it.
    pub(super) fn write(&self, key: &SigningKey, run: &RunId, over: bool) -> String {
        let mut text = format!("{}.{}", self.row, self.facts);
        if self.set_aside > 0 {
            let _ = write!(text, ".{}", self.set_aside);
        }
        for ((row, number), offset) in &self.open {
            let _ = write!(text, "-{row}.{number}.{offset}");
        }
        if over {
            text.push_str(OVER);
        }
        let tag = tag(key, run, &text);
        format!("{text}~{tag}")
    }

    /// What a caller gives back; and whether it was the last one. Nothing when it was not written by this installation for
    /// this run.
    pub(super) fn read(key: &SigningKey, run: &RunId, text: &str) -> Option<(Self, bool)> {
        let (text, given) = text.rsplit_once('~')?;
        if !crate::domain::equal_in_constant_time(tag(key, run, text).as_bytes(), given.as_bytes()) {
            return None;
        }
        let (text, over) = match text.strip_suffix(OVER) {
            Some(text) => (text, true),
            None => (text, false),
        };
        let mut parts = text.split('-');
        let mut rows = parts.next()?.split('.');
        let mut cursor = Self {
            row: rows.next()?.parse().ok()?,
            facts: rows.next()?.parse().ok()?,
            set_aside: rows.next().map_or(Some(0), |number| number.parse().ok())?,
            open: BTreeMap::new(),
        };
        for part in parts {
            let mut numbers = part.split('.');
            let place = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            cursor.open.insert(place, numbers.next()?.parse().ok()?);
        }
        Some((cursor, over))
    }
}

const OVER: &str = "-over";

/// So that no cursor leads a reader, who reads for others as well, anywhere but where it has been.
fn tag(key: &SigningKey, run: &RunId, text: &str) -> String {
    key.tag("events", &format!("{run}\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::generate(Timestamp::from_millis(5), [1; 10])
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_for_its_run() {
        let key = SigningKey::new(&[7; 32]);
        let cursor = Cursor {
            row: 17,
            facts: 2,
            set_aside: 4,
            open: BTreeMap::from([((3, 0), 0), ((12, 1), 4096)]),
        };
        for over in [false, true] {
            let text = cursor.write(&key, &run(), over);
            assert_eq!(
                Cursor::read(&key, &run(), &text),
                Some((cursor.clone(), over)),
                "{text}"
            );
            let other = RunId::generate(Timestamp::from_millis(5), [2; 10]);
            assert_eq!(Cursor::read(&key, &other, &text), None);
            assert_eq!(Cursor::read(&SigningKey::new(&[8; 32]), &run(), &text), None);
            for end in 0..text.len() {
                assert_eq!(Cursor::read(&key, &run(), &text[..end]), None);
            }
            assert_eq!(Cursor::read(&key, &run(), &text.replacen("17", "18", 1)), None);
        }
    }

    #[test]
    fn what_a_newer_build_wrote_is_passed_on() {
        let fact = serde_json::json!({"fact": "teleported", "step": "main", "to": "mars"});
        let told = Happening::of_fact(&fact);
        assert_eq!(told, Happening::Other { fact: fact.clone() });
        assert_eq!(told.step(), Some("main"));
        assert_eq!(
            serde_json::to_value(&told).unwrap(),
            serde_json::json!({"type": "other", "fact": fact})
        );
    }
}
