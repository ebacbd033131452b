//! Reads what is told about a run out of storage, from a cursor on.
//!
//! The order within one reading: an attempt's log comes before the fact that the attempt has ended, and after the fact that
//! it has begun; between attempts that run at once lines are in the order of their times.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::run_event::{Advance, Cursor, Happening, Item, Place, RowEnd};
use super::written::{Line, Written};
use crate::domain::{AttemptId, LogLine, RunId, Status, Timestamp};
use crate::store::port::Result;
use crate::store::repo::history::{Begun, History, Row, Rows};
use crate::store::repo::quarantines::Quarantined;
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;

/// Rows of the history that are asked for at once.
const ROWS: usize = 200;
/// Bytes of a log that are read at once.
const LOG_BYTES: u64 = 256 * 1024;
/// After so many items or bytes a reading ends before it has everything.
const ITEMS: usize = 512;
const BYTES: usize = 512 * 1024;
/// From so many logs on, their sizes are asked for before they are read.
const LOGS: usize = 3;
/// For how long a killed attempt may still say its last words: as long as its driver waits for them.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where to look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Whether there may be new rows.
    pub(super) rows: bool,
    /// Whether the log of any attempt may have grown.
    pub(super) logs: bool,
    /// Attempts whose logs have grown.
    pub(super) grown: HashSet<AttemptId>,
    /// Attempts that have said their last words for sure, if they were killed.
    pub(super) silent: HashSet<AttemptId>,
    /// What needs no look.
    pub(super) written: Written,
}

impl Look {
    /// Everywhere.
    pub(super) fn everywhere() -> Self {
        Self {
            rows: true,
            logs: true,
            ..Self::default()
        }
    }
}

#[derive(Debug)]
struct Known {
    begun: Begun,
    killed: Option<Timestamp>,
}

/// Reads one run.
#[derive(Debug)]
pub(super) struct Reader {
    run: RunId,
    with_logs: bool,
    cursor: Cursor,
    known: HashMap<Place, Known>,
    resolved: bool,
    rows: VecDeque<Row>,
    /// The last transition up to which every row is in `rows`, or was told.
    through: u64,
    /// What this instance has written, as far as it has not been told.
    written: Written,
    ended: Option<(Timestamp, Status)>,
    /// When what was told last happened.
    at: Timestamp,
    /// Whether the last row could not be read, which may be the one that ended the run.
    is_in_doubt: bool,
    /// Messages that were set aside and have not been told, in order.
    set_aside: VecDeque<Quarantined>,
    /// Whether it was looked for those since the end of the run was read.
    is_complete: bool,
}

impl Reader {
    /// From a cursor on. `run` is as it was after the cursor was written.
    pub(super) fn new(run: &StoredRun, cursor: Cursor, with_logs: bool) -> Self {
        let state = &run.state;
        // An ended run changes no more, so its last transition is the one that ended it.
        let has_told_end = state.status.is_terminal() && cursor.row >= state.sequence;
        Self {
            run: run.new.run.clone(),
            with_logs,
            resolved: cursor.open.is_empty(),
            ended: has_told_end.then(|| (state.finished_at.unwrap_or(run.new.created_at), state.status)),
            at: run.new.created_at,
            is_in_doubt: false,
            through: cursor.row,
            cursor,
            known: HashMap::new(),
            rows: VecDeque::new(),
            written: Written::default(),
            set_aside: VecDeque::new(),
            is_complete: false,
        }
    }

    /// The run.
    pub(super) const fn run(&self) -> &RunId {
        &self.run
    }

    /// How far it is.
    pub(super) const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The run's last status, when everything has been told.
    pub(super) fn over(&self) -> Option<Status> {
        let (_, status) = self.ended?;
        (self.rows.is_empty() && self.cursor.open.is_empty() && self.is_complete).then_some(status)
    }

    /// Reads on; whether there is more to be read at once. What was read before a failure is in `into` as well.
    ///
    /// # Errors
    /// Those of storage: the next call goes on where this one failed.
    pub(super) async fn read(
        &mut self,
        history: &History,
        scope: &Scope,
        look: &mut Look,
        now: Timestamp,
        into: &mut Vec<Item>,
    ) -> Result<bool> {
        self.written.extend(std::mem::take(&mut look.written));
        if !self.resolved {
            self.resolve(history, scope).await?;
        }
        let more_rows = self.more_rows(history, scope, look.rows).await?;
        while let Some(row) = self.rows.pop_front() {
            let whole = self.tell(history, scope, &row, into).await;
            if !matches!(whole, Ok(true)) {
                self.rows.push_front(row);
                return whole.map(|_| true);
            }
            if is_full(into) {
                return Ok(true);
            }
        }
        if more_rows {
            return Ok(true);
        }
        if self.is_in_doubt && self.ended.is_none() {
            let ended = history.ended(scope, &self.run, self.cursor.row).await?;
            self.ended = ended.map(|status| (self.at, status));
        }
        // What this instance has written was told without a look at anything else.
        if self.ended.is_some() && !self.is_complete {
            let set_aside = history.set_aside(scope, &self.run).await?;
            self.found(set_aside);
            self.is_complete = true;
        }
        while let Some(fact) = self.set_aside.pop_front() {
            let step = Advance::SetAside {
                previous: self.cursor.set_aside,
                number: fact.number,
            };
            let bytes = 256 + fact.failure.as_ref().map_or(0, String::len);
            let told = Some((fact.at, Happening::of_message(&fact)));
            self.push(Item { step, told, bytes }, into);
        }
        let more_lines = self.with_logs && self.logs(history, scope, look, into).await?;
        if !more_lines {
            self.close(look, now, into);
        }
        let known = &self.known;
        self.written
            .keep_logs_of(|attempt| known.values().any(|known| known.begun.id == *attempt));
        Ok(more_lines)
    }

    /// Adds the rows that follow to `rows`: those that were written here, as long as none is missing between, else those in
    /// storage. Whether there are more.
    async fn more_rows(&mut self, history: &History, scope: &Scope, look: bool) -> Result<bool> {
        let (mut newest, mut gap) = (self.through, false);
        for step in std::mem::take(&mut self.written.steps) {
            newest = newest.max(step.sequence);
            gap |= step.previous > self.through;
            if step.previous == self.through && !gap {
                self.through = step.sequence;
                self.rows.extend(step.row);
            }
        }
        if gap {
            // What waits here is in storage as well.
            self.rows.clear();
        }
        if !self.rows.is_empty() || !(look || gap) {
            return Ok(look);
        }
        let Rows { rows, set_aside, more } = history.rows(scope, &self.run, self.cursor.row, self.at, ROWS).await?;
        self.rows.extend(rows);
        self.found(set_aside);
        let last = self.rows.back().map_or(self.cursor.row, |row| row.sequence);
        self.through = if more { last } else { last.max(newest) };
        Ok(more)
    }

    /// Messages that were set aside, as they are stored; those that have not been told are.
    fn found(&mut self, set_aside: Vec<Quarantined>) {
        let told = self.cursor.set_aside;
        self.set_aside = set_aside.into_iter().filter(|fact| fact.number > told).collect();
    }

    /// Finds out about the attempts of the cursor.
    async fn resolve(&mut self, history: &History, scope: &Scope) -> Result<()> {
        let first = self
            .cursor
            .open
            .keys()
            .map(|(row, _)| *row)
            .min()
            .unwrap_or(self.cursor.row);
        let mut after = first.saturating_sub(1);
        while after < self.cursor.row {
            let Rows { rows, more, .. } = history.rows(scope, &self.run, after, self.at, ROWS).await?;
            let told = self.cursor.row;
            for row in rows.iter().filter(|row| row.sequence <= told) {
                self.learn(row);
            }
            match rows.last() {
                Some(last) if more => after = last.sequence,
                _ => break,
            }
        }
        // What can't be found is nothing that this build could tell of.
        let known = &self.known;
        self.cursor.open.retain(|place, _| known.contains_key(place));
        self.resolved = true;
        Ok(())
    }

    /// Keeps what a row, which has been told, says of attempts whose logs are open.
    fn learn(&mut self, row: &Row) {
        for known in self.known.values_mut() {
            if row.killed.contains(&known.begun.id) {
                known.killed = Some(row.at);
            }
        }
        for (number, begun) in (0..).zip(&row.begun) {
            let place = (row.sequence, number);
            if self.cursor.open.contains_key(&place) {
                let known = Known {
                    begun: begun.clone(),
                    killed: None,
                };
                self.known.insert(place, known);
            }
        }
    }

    /// Tells a row, after the logs of the attempts that it ended; whether it was told whole.
    async fn tell(&mut self, history: &History, scope: &Scope, row: &Row, into: &mut Vec<Item>) -> Result<bool> {
        let goes = |known: &Known| {
            row.ended.contains(&known.begun.id) && (!self.with_logs || !row.killed.contains(&known.begun.id))
        };
        let mut closed: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| goes(known))
            .map(|(place, _)| *place)
            .collect();
        closed.sort_unstable();
        if self.with_logs && self.cursor.facts == 0 {
            for place in &closed {
                self.tell_written(*place, into);
                while !self.is_whole(*place) {
                    let (lines, more) = self.lines(history, scope, *place).await?;
                    for item in lines {
                        self.push(item, into);
                    }
                    if !more {
                        break;
                    }
                    if is_full(into) {
                        return Ok(false);
                    }
                }
            }
        }
        let previous = self.cursor.row;
        let end = Arc::new(RowEnd {
            row: row.sequence,
            begun: u32::try_from(row.begun.len()).unwrap_or(u32::MAX),
            closed,
        });
        let mut told: Vec<_> = row
            .facts
            .iter()
            .map(|fact| (256 + fact.to_string().len(), Happening::of_fact(fact)))
            .collect();
        if let Some(reason) = &row.unreadable {
            told.push((256 + reason.len(), Happening::unreadable(row.sequence, reason)));
        }
        let facts = u32::try_from(told.len()).unwrap_or(u32::MAX);
        if facts <= self.cursor.facts {
            let step = Advance::Fact {
                previous,
                index: self.cursor.facts,
                last: Some(end.clone()),
            };
            self.push(silent(step), into);
        }
        for (index, (bytes, told)) in (0..).zip(told).skip(self.cursor.facts as usize) {
            if let Happening::RunStatus { status } = told
                && status.is_terminal()
            {
                self.ended = Some((row.at, status));
            }
            let step = Advance::Fact {
                previous,
                index,
                last: (index + 1 == facts).then(|| end.clone()),
            };
            let told = Some((row.at, told));
            self.push(Item { step, told, bytes }, into);
        }
        (self.at, self.is_in_doubt) = (row.at, row.unreadable.is_some());
        self.known.retain(|place, _| !end.closed.contains(place));
        self.learn(row);
        Ok(true)
    }

    /// Tells the lines of an attempt that were written here and follow on what was told.
    fn tell_written(&mut self, place: Place, into: &mut Vec<Item>) {
        let Some(begun) = self.known.get(&place).map(|known| known.begun.clone()) else {
            return;
        };
        loop {
            let offset = self.cursor.open.get(&place).copied().unwrap_or_default();
            let Some(Line { from, to, line }) = self.written.next_line(&begun.id, offset) else {
                return;
            };
            self.push(item_of(place, (from, to), &begun, line), into);
        }
    }

    /// Whether a log is told up to its end, for sure.
    fn is_whole(&self, place: Place) -> bool {
        let end = self
            .known
            .get(&place)
            .and_then(|known| self.written.ends.get(&known.begun.id));
        end.is_some_and(|end| self.cursor.open.get(&place).copied().unwrap_or_default() >= *end)
    }

    /// Reads the logs of attempts that run, or were killed a moment ago; whether there is more at once.
    async fn logs(&mut self, history: &History, scope: &Scope, look: &Look, into: &mut Vec<Item>) -> Result<bool> {
        let mut known: Vec<_> = self.known.keys().copied().collect();
        known.sort_unstable();
        for place in known {
            self.tell_written(place, into);
        }
        let mut places: Vec<_> = self
            .known
            .iter()
            .filter(|(place, known)| {
                let asked = look.logs || look.grown.contains(&known.begun.id) || look.silent.contains(&known.begun.id);
                asked && !self.is_whole(**place)
            })
            .map(|(place, _)| *place)
            .collect();
        places.sort_unstable();
        if places.len() >= LOGS && look.logs {
            let sizes = history.log_sizes(scope, &self.run).await?;
            places.retain(|place| {
                let size = self.known.get(place).and_then(|known| sizes.get(&known.begun.id));
                size.is_some_and(|size| *size > self.cursor.open.get(place).copied().unwrap_or_default())
            });
        }
        let mut logs = Vec::new();
        let mut more = false;
        for place in places {
            let (lines, rest) = self.lines(history, scope, place).await?;
            more |= rest;
            logs.push(VecDeque::from(lines));
        }
        // Each log in its own order, and the oldest of what is at their heads first.
        while let Some(next) = logs
            .iter_mut()
            .filter(|log| !log.is_empty())
            .min_by_key(|log| log.front().and_then(|item| item.told.as_ref()).map(|(at, _)| *at))
        {
            if let Some(item) = next.pop_front() {
                self.push(item, into);
            }
        }
        Ok(more)
    }

    async fn lines(&self, history: &History, scope: &Scope, place: Place) -> Result<(Vec<Item>, bool)> {
        let Some(known) = self.known.get(&place) else {
            return Ok((Vec::new(), false));
        };
        let mut from = self.cursor.open.get(&place).copied().unwrap_or_default();
        let found = history
            .lines(scope, &self.run, &known.begun.id, from, LOG_BYTES)
            .await?;
        let mut items = Vec::with_capacity(found.lines.len());
        for (line, to) in found.lines {
            items.push(item_of(place, (from, to), &known.begun, line));
            from = to;
        }
        Ok((items, found.more))
    }

    /// Waits no longer for what killed attempts might say.
    fn close(&mut self, look: &Look, now: Timestamp, into: &mut Vec<Item>) {
        let ended = self.ended.map(|(at, _)| at);
        let done: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| {
                let killed = known.killed.or(ended);
                killed.is_some_and(|at| {
                    !self.with_logs
                        || look.silent.contains(&known.begun.id)
                        || (look.logs && now.since(at) >= LAST_WORDS)
                })
            })
            .map(|(place, _)| *place)
            .collect();
        for attempt in done {
            self.known.remove(&attempt);
            self.push(silent(Advance::Closed { attempt }), into);
        }
    }

    /// Attempts whose logs are not whole.
    pub(super) fn open(&self) -> impl Iterator<Item = &AttemptId> {
        self.known.values().map(|known| &known.begun.id)
    }

    /// Whether it waits for the last words of a killed attempt.
    pub(super) fn waits_for_last_words(&self) -> bool {
        self.ended.is_some() || self.known.values().any(|known| known.killed.is_some())
    }

    fn push(&mut self, item: Item, into: &mut Vec<Item>) {
        self.cursor.take(&item.step);
        into.push(item);
    }
}

fn item_of(attempt: Place, (from, to): (u64, u64), begun: &Begun, line: LogLine) -> Item {
    Item {
        step: Advance::Line { attempt, from, to },
        bytes: 256 + usize::try_from(to - from).unwrap_or(usize::MAX),
        told: Some((line.at, Happening::of_line(begun, line))),
    }
}

const fn silent(step: Advance) -> Item {
    Item {
        step,
        told: None,
        bytes: 128,
    }
}

fn is_full(items: &[Item]) -> bool {
    items.len() >= ITEMS || items.iter().map(|item| item.bytes).sum::<usize>() >= BYTES
}
