//! Watch runs: what happens to them is told as it happens, whichever instance drives them.
//!
//! All watchers of a run share one feed. It is handed what this instance writes, looks into storage once a second for what
//! others write, and keeps the newest events in memory, bounded. A watcher that is further back, or slower, reads storage itself
//! from its cursor on, so nothing is ever kept for it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event_reader::{LAST_WORDS, Look, Reader};
use super::run_event::{Cursor, Event, Happening, Item, Relation};
use super::written::{self, Step};
use super::{Context, Error, Result, query_run};
use crate::authz::Action;
use crate::domain::{AttemptId, LogLine, OrgId, RunId, Status};
use crate::error::Finding;
use crate::store::envelope::SigningKey;
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;

/// Items and bytes that a feed keeps.
const KEPT_ITEMS: usize = 1024;
const KEPT_BYTES: usize = 1 << 20;
/// Events that a watcher is given at once.
const AT_ONCE: usize = 256;
/// How often a run that is driven elsewhere is looked at.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// How often a run that is driven here is looked at: what this instance writes is told at once.
const OWN: Duration = Duration::from_secs(5);
/// What happens within this time is told together, and so much more for each watcher, up to a most: each word to each of many
/// costs more than the run that says it.
const TOGETHER: Duration = Duration::from_millis(10);
const FOR_EACH: Duration = Duration::from_micros(250);
const TOGETHER_AT_MOST: Duration = Duration::from_millis(100);
/// After so many failures in a row watchers are told that storage is away.
const FAILURES: u32 = 3;

/// What is wanted of a run's events.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The id of the last event that was heard; none for all of them.
    pub after: Option<String>,
    /// Where that stood in the request, for the error: `query:after` or `header:Last-Event-ID`.
    pub pointer: &'static str,
    /// Without what attempts say.
    pub without_logs: bool,
    /// Only what is about this step, or about the run as a whole.
    pub step: Option<String>,
}

/// Some events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// In order.
    pub events: Vec<Event>,
    /// Where to go on: behind the last of them, and what was left out.
    pub cursor: String,
    /// The run's last status, when nothing follows.
    pub ended: Option<Status>,
}

/// Watches a run from a cursor on.
///
/// # Errors
/// When the scope may not, there is no such run that it may know of, or the cursor is none.
pub async fn open(cx: &Arc<Context>, scope: &Scope, id: &RunId, wanted: Wanted) -> Result<Watcher> {
    let run = query_run::visible(cx, scope, id, Action::Read).await?;
    let wrong = || {
        let message = "the cursor is not the id of an event of this run";
        let hint = "begin without one, and go on with the `id` of the last event or with `nextCursor`";
        let finding = Finding::new(wanted.pointer, "invalid", message);
        Error::invalid("parameter_invalid", message, hint, vec![finding])
    };
    let (cursor, was_over) = match &wanted.after {
        None => (Cursor::default(), false),
        Some(text) => Cursor::read(&cx.signing, id, text).ok_or_else(wrong)?,
    };
    // Storage that was set back to an earlier state.
    if cursor.row > run.state.sequence {
        return Err(wrong());
    }
    Ok(Watcher {
        cx: cx.clone(),
        scope: scope.clone(),
        run: id.clone(),
        with_logs: !wanted.without_logs,
        teller: Teller {
            signing: cx.signing.clone(),
            run: id.clone(),
            step: wanted.step,
            hidden: query_run::hidden_children(cx, scope, &run).await?,
        },
        was_over,
        reader: Some(Reader::new(&run, cursor.clone(), !wanted.without_logs)),
        cursor,
        seat: None,
        ended: None,
    })
}

/// Events from a cursor on: those that are there, else the first that come within `wait`.
///
/// # Errors
/// As [`open`], and when storage fails.
pub async fn page(cx: &Arc<Context>, scope: &Scope, id: &RunId, wanted: Wanted, wait: Duration) -> Result<Told> {
    let mut watcher = open(cx, scope, id, wanted).await?;
    if wait.is_zero() {
        return watcher.stored().await;
    }
    let until = Instant::now() + wait;
    match tokio::time::timeout_at(until, watcher.next()).await {
        Ok(told) => told,
        Err(_) => Ok(watcher.told(Vec::new())),
    }
}

/// Makes the events of one watcher.
#[derive(Debug)]
struct Teller {
    signing: SigningKey,
    run: RunId,
    /// The only step that it tells of, beside the run as a whole.
    step: Option<String>,
    /// Steps of whose child runs it doesn't tell.
    hidden: BTreeSet<String>,
}

impl Teller {
    fn event(&self, cursor: &Cursor, item: &Item) -> Option<Event> {
        let (at, what) = item.told.as_ref()?;
        let is_of_another = |wanted: &String| what.step().is_some_and(|step| step != wanted);
        if self.step.as_ref().is_some_and(is_of_another) {
            return None;
        }
        if let Happening::ChildStarted { step, .. } = what
            && self.hidden.contains(step)
        {
            return None;
        }
        Some(Event {
            id: cursor.write(&self.signing, &self.run, false),
            at: *at,
            what: what.clone(),
        })
    }
}

/// Somebody who is told what happens to a run.
#[derive(Debug)]
pub struct Watcher {
    cx: Arc<Context>,
    scope: Scope,
    run: RunId,
    with_logs: bool,
    teller: Teller,
    was_over: bool,
    cursor: Cursor,
    /// While it is behind what its feed keeps.
    reader: Option<Reader>,
    seat: Option<Seat>,
    ended: Option<Status>,
}

impl Watcher {
    /// Whether its cursor was the very last of the run: nothing follows, and the caller knows.
    #[must_use]
    pub const fn was_over(&self) -> bool {
        self.was_over
    }

    /// Its cursor as a caller may give it back.
    #[must_use]
    pub fn cursor(&self) -> String {
        self.cursor.write(&self.cx.signing, &self.run, self.ended.is_some())
    }

    /// The next events, as soon as there are any; without any when the run has ended, or this instance is about to, which
    /// [`Watcher::is_leaving`] tells. Nothing is lost when it is dropped half-way.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn next(&mut self) -> Result<Told> {
        loop {
            if self.cx.live.is_leaving() {
                return Ok(self.told(Vec::new()));
            }
            if self.ended.is_some() {
                return Ok(self.told(Vec::new()));
            }
            if self.seat.is_none() {
                self.seat = Some(self.sit().await?);
            }
            let Some(seat) = &mut self.seat else { continue };
            // Before the look: what comes after it is news.
            let mut news = seat.feed.version.subscribe();
            let mut events = Vec::new();
            let before = self.cursor.clone();
            let taken = seat.take(&mut self.cursor, &mut |cursor, item| {
                events.extend(self.teller.event(cursor, item));
            });
            let is_settled = match taken {
                Taken::All { ended } => {
                    self.ended = ended;
                    true
                }
                Taken::Some => false,
                Taken::Behind => !self.catch_up(&mut events).await? && self.cursor == before,
                // It has failed; storage says why, or another try succeeds.
                Taken::Failed => {
                    self.seat = None;
                    self.catch_up(&mut events).await?;
                    if events.is_empty() {
                        continue;
                    }
                    return Ok(self.told(events));
                }
            };
            if is_settled && events.is_empty() && self.ended.is_none() {
                tokio::select! {
                    biased;
                    () = self.cx.live.left() => {}
                    // The feed is held by the seat, so it can't be gone.
                    _ = news.changed() => {}
                }
            }
            if !events.is_empty() || self.ended.is_some() {
                return Ok(self.told(events));
            }
        }
    }

    /// Whether [`Watcher::next`] answered nothing because this instance ends: another goes on.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.ended.is_none() && self.cx.live.is_leaving()
    }

    /// What is in storage now, as far as one answer holds it.
    async fn stored(&mut self) -> Result<Told> {
        let mut events = Vec::new();
        while self.catch_up(&mut events).await? && events.len() < AT_ONCE {}
        Ok(self.told(events))
    }

    /// Reads storage from the cursor on; whether there is more.
    async fn catch_up(&mut self, events: &mut Vec<Event>) -> Result<bool> {
        // Taken out: a reading that is dropped half-way must not be gone on with.
        let mut reader = match self.reader.take() {
            Some(reader) if *reader.cursor() == self.cursor => reader,
            _ => Reader::new(&self.found().await?, self.cursor.clone(), self.with_logs),
        };
        let mut items = Vec::new();
        let now = self.cx.clock.now();
        let read = reader
            .read(&self.cx.history, &self.scope, &mut Look::everywhere(), now, &mut items)
            .await;
        for item in &items {
            self.cursor.take(&item.step);
            events.extend(self.teller.event(&self.cursor, item));
        }
        match read {
            Ok(more) => {
                self.ended = if more { None } else { reader.over() };
                self.reader = Some(reader);
                Ok(more)
            }
            // What was read is told; the failure comes again.
            Err(_) if !events.is_empty() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    async fn found(&self) -> Result<StoredRun> {
        query_run::visible(&self.cx, &self.scope, &self.run, Action::Read).await
    }

    async fn sit(&mut self) -> Result<Seat> {
        let key = (self.scope.org().clone(), self.run.clone(), self.with_logs);
        if let Some(seat) = self.cx.watch.sit(&key) {
            return Ok(seat);
        }
        let reader = match self.reader.take() {
            Some(reader) if *reader.cursor() == self.cursor => reader,
            _ => Reader::new(&self.found().await?, self.cursor.clone(), self.with_logs),
        };
        Ok(self.cx.watch.begin(&self.cx, &self.scope, key, reader))
    }

    fn told(&self, events: Vec<Event>) -> Told {
        Told {
            cursor: self.cursor(),
            ended: self.ended,
            events,
        }
    }
}

/// A run, in its organization, with or without what attempts say.
type Key = (OrgId, RunId, bool);

/// The feeds of this process.
#[derive(Debug, Default)]
pub(super) struct Watch {
    feeds: Arc<Mutex<HashMap<Key, Arc<Feed>>>>,
    /// Attempts that are made here.
    made: Arc<Mutex<HashSet<AttemptId>>>,
}

/// While it is there, an attempt is made here, and what it says is told at once.
#[derive(Debug)]
pub(super) struct Making {
    cx: Arc<Context>,
    run: RunId,
    attempt: AttemptId,
    is_elsewhere: bool,
}

impl Making {
    /// It is not made here, but where somebody else claims it.
    pub(super) fn elsewhere(mut self) {
        self.is_elsewhere = true;
    }

    /// From now on.
    pub(super) fn begin(cx: &Arc<Context>, run: &RunId, attempt: &AttemptId) -> Self {
        lock(&cx.watch.made).insert(attempt.clone());
        Self {
            cx: cx.clone(),
            run: run.clone(),
            attempt: attempt.clone(),
            is_elsewhere: false,
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        lock(&self.cx.watch.made).remove(&self.attempt);
        if self.is_elsewhere {
            return;
        }
        self.cx.watch.tell(&self.run, |news| {
            news.silent.insert(self.attempt.clone());
        });
    }
}

impl Watch {
    /// Something of a run was written here.
    pub(super) fn committed(&self, run: &RunId) {
        self.tell(run, |news| news.rows = true);
    }

    /// A transition of a run was written here; which, is asked for where somebody watches. Without an answer it is read.
    pub(super) fn stepped(&self, run: &RunId, step: impl FnOnce() -> Option<Step>) {
        if !lock(&self.feeds).keys().any(|(_, watched, _)| watched == run) {
            return;
        }
        let step = step();
        self.tell(run, |news| {
            let is_handed = step.as_ref().is_some_and(|step| news.written.step(step));
            news.rows |= !is_handed;
        });
    }

    /// Lines of an attempt were written here, at these offsets of its log.
    pub(super) fn logged(&self, run: &RunId, attempt: &AttemptId, lines: &[LogLine], (from, to): (u64, u64)) {
        if !self.is_heard(run) {
            return;
        }
        let placed = written::placed(lines, from, to);
        self.tell(run, |news| {
            let is_handed = placed.as_ref().is_some_and(|lines| news.written.logged(attempt, lines));
            if !is_handed {
                news.grown.insert(attempt.clone());
            }
        });
    }

    /// An attempt that was made here says no more, and everything that it said is written: so many bytes.
    pub(super) fn is_silent(&self, run: &RunId, attempt: &AttemptId, bytes: u64) {
        self.tell(run, |news| {
            news.written.ends.insert(attempt.clone(), bytes);
        });
    }

    /// Whether somebody here listens to what a run's attempts say.
    pub(super) fn is_heard(&self, run: &RunId) -> bool {
        let feeds = lock(&self.feeds);
        !feeds.is_empty() && feeds.keys().any(|(_, watched, logs)| watched == run && *logs)
    }

    /// How many watchers there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.feeds).values().map(|feed| feed.watchers()).sum()
    }

    fn tell(&self, run: &RunId, what: impl Fn(&mut Look)) {
        for (_, feed) in lock(&self.feeds).iter().filter(|((_, watched, _), _)| watched == run) {
            what(&mut lock(&feed.news));
            feed.wake.notify_one();
        }
    }

    /// A seat at a feed that there is.
    fn sit(&self, key: &Key) -> Option<Seat> {
        let feeds = lock(&self.feeds);
        let feed = feeds.get(key).filter(|feed| !lock(&feed.ring).failed)?;
        Some(self.seat(key, feed))
    }

    /// A seat at a feed, which begins with what this reader reads if there is none.
    fn begin(&self, cx: &Arc<Context>, scope: &Scope, key: Key, reader: Reader) -> Seat {
        if let Some(seat) = self.sit(&key) {
            return seat;
        }
        let feed = Arc::new(Feed::new(reader.cursor().clone()));
        let seat = self.seat(&key, &feed);
        // One that has failed stays with those who sit there.
        lock(&self.feeds).insert(key, feed.clone());
        let reading = Reading {
            cx: Arc::downgrade(cx),
            scope: scope.clone(),
            feed,
            reader,
            silent: HashSet::new(),
        };
        tokio::spawn(reading.go());
        seat
    }

    fn seat(&self, key: &Key, feed: &Arc<Feed>) -> Seat {
        let next = lock(&feed.ring).first;
        feed.watchers.fetch_add(1, Ordering::Relaxed);
        Seat {
            key: key.clone(),
            feeds: self.feeds.clone(),
            feed: feed.clone(),
            next,
            is_placed: false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is told of one run, for all who watch it here.
#[derive(Debug)]
struct Feed {
    ring: Mutex<Ring>,
    /// How many have a seat.
    watchers: AtomicUsize,
    version: watch::Sender<u64>,
    /// What was written here since the last look.
    news: Mutex<Look>,
    wake: Notify,
    /// Nobody watches any more.
    deserted: CancellationToken,
}

/// The newest items.
#[derive(Debug)]
struct Ring {
    /// Before the first of them.
    start: Cursor,
    /// The number of the first of them.
    first: u64,
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    ended: Option<Status>,
    failed: bool,
}

impl Feed {
    fn new(start: Cursor) -> Self {
        Self {
            ring: Mutex::new(Ring {
                start,
                first: 0,
                items: VecDeque::new(),
                bytes: 0,
                ended: None,
                failed: false,
            }),
            watchers: AtomicUsize::new(0),
            version: watch::Sender::new(0),
            news: Mutex::new(Look::everywhere()),
            wake: Notify::new(),
            deserted: CancellationToken::new(),
        }
    }

    fn tell(&self, items: Vec<Item>, ended: Option<Status>) {
        if items.is_empty() && ended.is_none() {
            return;
        }
        let mut ring = lock(&self.ring);
        for item in items {
            ring.bytes += item.bytes;
            ring.items.push_back(Arc::new(item));
        }
        while ring.items.len() > KEPT_ITEMS || ring.bytes > KEPT_BYTES {
            let Some(oldest) = ring.items.pop_front() else { break };
            ring.bytes -= oldest.bytes;
            ring.first += 1;
            ring.start.take(&oldest.step);
        }
        ring.ended = ended;
        drop(ring);
        self.version.send_modify(|version| *version += 1);
    }

    fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    fn fail(&self) {
        lock(&self.ring).failed = true;
        self.version.send_modify(|version| *version += 1);
    }
}

/// A watcher's place at a feed.
#[derive(Debug)]
struct Seat {
    key: Key,
    feeds: Arc<Mutex<HashMap<Key, Arc<Feed>>>>,
    feed: Arc<Feed>,
    /// The number of the next item to look at.
    next: u64,
    /// Whether everything before that has been told to the watcher.
    is_placed: bool,
}

enum Taken {
    /// Everything that there is.
    All { ended: Option<Status> },
    /// As much as one answer holds.
    Some,
    /// The feed doesn't reach so far back.
    Behind,
    /// The feed has ended, because storage is away.
    Failed,
}

impl Seat {
    fn take(&mut self, cursor: &mut Cursor, tell: &mut dyn FnMut(&Cursor, &Item)) -> Taken {
        let (items, ended) = {
            let ring = lock(&self.feed.ring);
            if self.next < ring.first {
                (self.next, self.is_placed) = (ring.first, false);
            }
            if !self.is_placed {
                if !cursor.covers(&ring.start) {
                    return if ring.failed { Taken::Failed } else { Taken::Behind };
                }
                (self.next, self.is_placed) = (ring.first, true);
            }
            let skipped = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
            let items: Vec<_> = ring.items.iter().skip(skipped).take(AT_ONCE).cloned().collect();
            if items.is_empty() && ring.failed {
                return Taken::Failed;
            }
            let is_all = skipped + items.len() >= ring.items.len();
            (items, is_all.then_some(ring.ended))
        };
        for item in items {
            match cursor.relation(&item.step) {
                Relation::Behind => {}
                Relation::Next => {
                    cursor.take(&item.step);
                    tell(cursor, &item);
                }
                Relation::Gap => {
                    self.is_placed = false;
                    return Taken::Behind;
                }
            }
            self.next += 1;
        }
        match ended {
            Some(ended) => Taken::All { ended },
            None => Taken::Some,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut feeds = lock(&self.feeds);
        let is_last = self.feed.watchers.fetch_sub(1, Ordering::Relaxed) == 1;
        if !is_last {
            return;
        }
        // One that has failed may have been replaced.
        if feeds.get(&self.key).is_some_and(|feed| Arc::ptr_eq(feed, &self.feed)) {
            feeds.remove(&self.key);
        }
        self.feed.deserted.cancel();
    }
}

/// Keeps a feed.
struct Reading {
    cx: Weak<Context>,
    scope: Scope,
    feed: Arc<Feed>,
    reader: Reader,
    /// Attempts that were made here and say nothing more. That one was killed may be found out later.
    silent: HashSet<AttemptId>,
}

impl Reading {
    /// Whether whatever could be told next is written by this instance.
    fn is_all_here(&self, run: &RunId) -> bool {
        let Some(cx) = self.cx.upgrade() else { return false };
        let made = lock(&cx.watch.made);
        // What others were asked to make may be made anywhere.
        let is_here = |attempt: &AttemptId| made.contains(attempt) && !cx.live.offers(attempt);
        cx.live.has(run) && self.reader.open().all(is_here)
    }

    /// Until the run has been told whole, or nobody listens.
    async fn go(mut self) {
        let run = self.reader.run().clone();
        let mut look_at = Instant::now();
        let mut failures = 0;
        let deserted = self.feed.deserted.clone();
        let Some(cx) = self.cx.upgrade() else { return };
        let end = cx.live.end_of(&run);
        let history = cx.history.clone();
        drop(cx);
        loop {
            let has_ended_here = tokio::select! {
                biased;
                () = deserted.cancelled() => return,
                () = end.heard() => true,
                () = self.feed.wake.notified() => false,
                () = tokio::time::sleep_until(look_at) => false,
            };
            let watchers = u32::try_from(self.feed.watchers()).unwrap_or(u32::MAX);
            tokio::time::sleep((TOGETHER + FOR_EACH.saturating_mul(watchers)).min(TOGETHER_AT_MOST)).await;
            let Some(cx) = self.cx.upgrade() else { return };
            let now = cx.clock.now();
            drop(cx);
            let mut look = std::mem::take(&mut *lock(&self.feed.news));
            if has_ended_here || Instant::now() >= look_at || self.reader.waits_for_last_words() {
                (look.rows, look.logs) = (true, true);
            }
            let open: HashSet<_> = self.reader.open().cloned().collect();
            self.silent.extend(look.silent.drain());
            self.silent.retain(|attempt| open.contains(attempt));
            look.silent.clone_from(&self.silent);
            let mut items = Vec::new();
            let read = self
                .reader
                .read(&history, &self.scope, &mut look, now, &mut items)
                .await;
            let over = self.reader.over();
            self.feed.tell(items, over);
            if over.is_some() {
                deserted.cancelled().await;
                return;
            }
            look_at = Instant::now()
                + match read {
                    Ok(true) => Duration::ZERO,
                    _ if self.reader.waits_for_last_words() => LAST_WORDS / 8,
                    Ok(false) if self.is_all_here(&run) => OWN,
                    _ => ELSEWHERE,
                };
            match read {
                Ok(_) => failures = 0,
                Err(error) => {
                    tracing::debug!(run.id = %run, error = %error, "a run that is watched could not be read");
                    failures += 1;
                    if failures >= FAILURES {
                        self.feed.fail();
                        return;
                    }
                }
            }
        }
    }
}
