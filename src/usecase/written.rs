//! What this instance has written about a run, handed to its feed as it is: whoever watches a run where it is driven costs no
//! reads.
//!
//! It is only a shorter way to what storage holds. What doesn't follow on what a feed has is dropped, and storage is read.

use std::collections::{HashMap, VecDeque};

use crate::domain::{AttemptId, LogLine};
use crate::store::repo::history::Row;

/// What may wait for a feed to take it. More is read from storage.
const ITEMS: usize = 1024;
const BYTES: usize = 1 << 20;

/// A transition.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The number of the transition before.
    pub(super) previous: u64,
    /// Its own.
    pub(super) sequence: u64,
    /// Its row in the history, if it has one.
    pub(super) row: Option<Row>,
}

/// A line of a log, and where in the log it stands.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The offset of its first byte.
    pub(super) from: u64,
    /// The offset behind it.
    pub(super) to: u64,
    /// What it says.
    pub(super) line: LogLine,
}

/// What has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// In their order.
    pub(super) steps: VecDeque<Step>,
    /// By attempt, in their order.
    pub(super) lines: HashMap<AttemptId, VecDeque<Line>>,
    /// How long the logs are of attempts that say no more.
    pub(super) ends: HashMap<AttemptId, u64>,
    bytes: usize,
}

impl Written {
    /// Adds a transition; false when there is no room, and the row must be read.
    #[must_use]
    pub(super) fn step(&mut self, step: &Step) -> bool {
        let facts = step.row.iter().flat_map(|row| &row.facts);
        let has_room = self.has_room(256 + facts.map(|fact| fact.to_string().len()).sum::<usize>());
        if has_room {
            self.steps.push_back(step.clone());
        }
        has_room
    }

    /// Adds lines of a log that begins at an offset there; false when they must be read.
    #[must_use]
    pub(super) fn logged(&mut self, attempt: &AttemptId, lines: &[Line]) -> bool {
        let bytes = lines
            .iter()
            .map(|line| 128 + usize::try_from(line.to - line.from).unwrap_or(usize::MAX));
        let has_room = self.has_room(bytes.sum());
        if has_room {
            self.lines
                .entry(attempt.clone())
                .or_default()
                .extend(lines.iter().cloned());
        }
        has_room
    }

    fn has_room(&mut self, more: usize) -> bool {
        let items = self.steps.len() + self.lines.values().map(VecDeque::len).sum::<usize>();
        let has_room = items < ITEMS && self.bytes + more <= BYTES;
        if has_room {
            self.bytes += more;
        }
        has_room
    }

    /// The next line of an attempt's log, if it begins there. Lines before it are dropped, and so is everything behind a gap.
    pub(super) fn next_line(&mut self, attempt: &AttemptId, from: u64) -> Option<Line> {
        let lines = self.lines.get_mut(attempt)?;
        while lines.front().is_some_and(|line| line.from < from) {
            lines.pop_front();
        }
        let next = lines.pop_front().filter(|line| line.from == from);
        if next.is_none() {
            self.lines.remove(attempt);
        }
        next
    }

    /// Adds what was written later.
    pub(super) fn extend(&mut self, later: Self) {
        self.steps.extend(later.steps);
        for (attempt, lines) in later.lines {
            self.lines.entry(attempt).or_default().extend(lines);
        }
        self.ends.extend(later.ends);
    }

    /// Forgets logs of attempts that are told whole.
    pub(super) fn keep_logs_of(&mut self, is_open: impl Fn(&AttemptId) -> bool) {
        self.lines
            .retain(|attempt, lines| !lines.is_empty() && is_open(attempt));
        self.ends.retain(|attempt, _| is_open(attempt));
    }
}

/// The lines of one append, each with its place in the log; none when they are not what the append wrote.
pub(super) fn placed(lines: &[LogLine], from: u64, to: u64) -> Option<Vec<Line>> {
    let mut at = from;
    let mut placed = Vec::with_capacity(lines.len());
    for line in lines {
        let end = at + serde_json::to_vec(line).ok()?.len() as u64 + 1;
        placed.push(Line {
            from: at,
            to: end,
            line: line.clone(),
        });
        at = end;
    }
    (at == to).then_some(placed)
}
