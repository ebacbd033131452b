//! Looks into the queues of triggers: which, when, and how many at once.
//!
//! Each instance reads the one list of all triggers, and looks into each queue by itself: at once again where there was
//! something, ever less often where there was nothing. Organizations take turns, and none has more than a share of what is
//! done at once; how many of the runs begin is admission's to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Context, Result};
use super::message::{self, Took};
use crate::domain::{OrgId, QueueTriggerId};
use crate::store;
use crate::store::port::Message;
use crate::store::repo::queue_triggers::{ListedTrigger, QueueTrigger};
use crate::tenancy::{self, Scope};

/// The part of Weft that this is, in scopes and records.
const PART: &str = "queue_trigger";
/// How old the list of triggers may be.
pub const LIST_EVERY: Duration = Duration::from_secs(15);
/// How long a queue is left alone that was empty, at first; twice as long each time.
const SHORTEST: Duration = Duration::from_millis(500);
/// The most of that.
pub const LONGEST: Duration = Duration::from_secs(15);
/// Queues that are looked into at the same time.
const AT_ONCE: usize = 8;
/// Of one organization.
const OF_ONE: usize = 2;
/// Most messages of a queue before it is another's turn (service limit).
pub const BATCH: usize = 32;
/// Messages of a queue that become runs at the same time.
const SIDE_BY_SIDE: usize = 4;
/// For how long messages are hidden from others while they become runs.
const HIDDEN: Duration = Duration::from_secs(60);
/// No message is begun with when less than a quarter of that is left.
const WORK: Duration = Duration::from_secs(45);
/// How long a tick begins with further queues; the next one goes on.
const BUDGET: Duration = Duration::from_secs(40);
/// How often it is looked whether a trigger is still there, while its queue is empty.
const CHECK_EVERY: Duration = Duration::from_secs(3600);
/// How long messages stay hidden that came while nothing may be started.
const BLOCKED: Duration = Duration::from_secs(30);
/// The same of a trigger that was switched off a moment ago.
const SWITCHED_OFF: Duration = Duration::from_secs(5);
/// How long a process that stops waits for the messages at hand.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Which queues are looked into on this instance, and when next.
#[derive(Debug, Clone, Default)]
pub struct Polling(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    leaving: CancellationToken,
    /// Held by whoever listens.
    listening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<QueueTriggerId, Watched>,
    read_at: Option<Instant>,
    reading: bool,
    turns: u64,
    /// When an organization had its last turn.
    last_turn: BTreeMap<OrgId, u64>,
}

#[derive(Debug)]
struct Watched {
    listed: ListedTrigger,
    next: Instant,
    pause: Duration,
    busy: bool,
    /// Something was sent to it here while it was looked into.
    woken: bool,
    /// Nothing could be started the last time.
    blocked: bool,
    checked_at: Option<Instant>,
}

impl Watched {
    fn is_to_check(&self, now: Instant) -> bool {
        self.checked_at.is_none_or(|at| now.duration_since(at) >= CHECK_EVERY)
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.busy && self.next <= now && (self.listed.enabled || self.is_to_check(now))
    }
}

/// One look into one queue; nobody else looks into it here meanwhile.
struct Turn {
    polling: Polling,
    listed: ListedTrigger,
    blocked: bool,
    check: bool,
    came: Came,
    /// By how many of 1024 parts the pause after it is shorter.
    jitter: u8,
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// There were messages.
    Something,
    /// There were none.
    Nothing,
    /// Nothing may be started now, or storage is away.
    Blocked,
    /// There is no such trigger any more.
    Gone,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.polling.end(self);
    }
}

impl Polling {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the list read again at once: something of it was changed here.
    pub(super) fn list_changed(&self) {
        self.state().read_at = None;
        self.0.changed.notify_one();
    }

    /// Has a queue looked into at once: something was sent to it here.
    pub(super) fn wake(&self, id: &QueueTriggerId) {
        if let Some(watched) = self.state().queues.get_mut(id) {
            (watched.next, watched.pause) = (Instant::now(), Duration::ZERO);
            watched.woken = watched.busy;
        }
        self.0.changed.notify_one();
    }

    /// Ends looking, and waits a moment for the messages at hand.
    pub(in super::super) async fn leave(&self) {
        self.0.leaving.cancel();
        if tokio::time::timeout(HAND_OVER, self.0.listening.lock()).await.is_err() {
            tracing::warn!("messages of queue triggers are still at hand; they are delivered again");
        }
    }

    fn is_leaving(&self) -> bool {
        self.0.leaving.is_cancelled()
    }

    /// Whether the list is to be read now; then nobody else does.
    fn begin_list(&self, now: Instant) -> bool {
        let mut state = self.state();
        let old = state.read_at.is_none_or(|at| now.duration_since(at) >= LIST_EVERY);
        let begins = old && !state.reading;
        if begins {
            state.reading = true;
            // A change from now on has it read once more.
            state.read_at = Some(now);
        }
        begins
    }

    fn listed(&self, listed: Option<Vec<ListedTrigger>>) {
        let now = Instant::now();
        let mut state = self.state();
        state.reading = false;
        let Some(listed) = listed else { return };
        let known = std::mem::take(&mut state.queues);
        let mut known = known.into_iter().collect::<BTreeMap<_, _>>();
        for row in listed {
            let watched = match known.remove(&row.id) {
                Some(mut watched) => {
                    if row.enabled && !watched.listed.enabled {
                        (watched.next, watched.pause) = (now, Duration::ZERO);
                    }
                    watched.listed = row;
                    watched
                }
                None => Watched {
                    listed: row,
                    next: now,
                    pause: Duration::ZERO,
                    busy: false,
                    woken: false,
                    blocked: false,
                    checked_at: None,
                },
            };
            state.queues.insert(watched.listed.id.clone(), watched);
        }
        let orgs: std::collections::BTreeSet<_> = state
            .queues
            .values()
            .map(|watched| watched.listed.what.org.clone())
            .collect();
        state.last_turn.retain(|org, _| orgs.contains(org));
    }

    /// The next queue that is due: of the organization that has fewest under way, then of the one whose last turn is longest
    /// ago, the one that has waited longest.
    fn begin_due(&self, now: Instant) -> Option<Turn> {
        let mut state = self.state();
        let busy = busy(&state);
        let of = |org: &OrgId| busy.get(org).copied().unwrap_or_default();
        let next = state
            .queues
            .iter()
            .filter(|(_, watched)| watched.is_due(now) && of(&watched.listed.what.org) < OF_ONE)
            .min_by_key(|(id, watched)| {
                let org = &watched.listed.what.org;
                let last = state.last_turn.get(org).copied().unwrap_or_default();
                (of(org), last, watched.next, (*id).clone())
            })
            .map(|(id, _)| id.clone())?;
        self.begin(&mut state, &next, now)
    }

    fn begin(&self, state: &mut State, id: &QueueTriggerId, now: Instant) -> Option<Turn> {
        let watched = state.queues.get_mut(id).filter(|watched| !watched.busy)?;
        watched.busy = true;
        let turn = Turn {
            polling: self.clone(),
            listed: watched.listed.clone(),
            blocked: watched.blocked,
            check: watched.is_to_check(now),
            came: Came::Blocked,
            jitter: 0,
        };
        state.turns += 1;
        let turns = state.turns;
        state.last_turn.insert(turn.listed.what.org.clone(), turns);
        Some(turn)
    }

    fn checked(&self, id: &QueueTriggerId) {
        if let Some(watched) = self.state().queues.get_mut(id) {
            watched.checked_at = Some(Instant::now());
        }
    }

    fn end(&self, turn: &Turn) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(watched) = state.queues.get_mut(&turn.listed.id) else {
            return;
        };
        watched.busy = false;
        watched.blocked = turn.came == Came::Blocked;
        watched.pause = match turn.came {
            Came::Something => Duration::ZERO,
            Came::Nothing => (watched.pause * 2).clamp(SHORTEST, LONGEST),
            Came::Blocked | Came::Gone => LONGEST,
        };
        let is_woken = std::mem::take(&mut watched.woken) && turn.came != Came::Blocked;
        // Instances that began together don't go on together.
        let pause = watched.pause - watched.pause * u32::from(turn.jitter) / 1024;
        watched.next = if is_woken { now } else { now + pause };
    }

    /// When something is to be done next, where there is room for it.
    fn next(&self, room: bool) -> Option<Instant> {
        let state = self.state();
        let busy = busy(&state);
        let list = state.read_at.map_or_else(Instant::now, |at| at + LIST_EVERY);
        let queues = state.queues.values().filter(|watched| {
            let of = busy.get(&watched.listed.what.org).copied().unwrap_or_default();
            room && !watched.busy && of < OF_ONE
        });
        let queues = queues.map(|watched| match (watched.listed.enabled, watched.checked_at) {
            (false, Some(at)) => watched.next.max(at + CHECK_EVERY),
            _ => watched.next,
        });
        queues.chain((!state.reading).then_some(list)).min()
    }

    /// All that are switched on, organizations by turns.
    fn round(&self) -> Vec<QueueTriggerId> {
        let state = self.state();
        let mut of: BTreeMap<&OrgId, usize> = BTreeMap::new();
        let mut all: Vec<_> = state
            .queues
            .iter()
            .filter(|(_, watched)| watched.listed.enabled)
            .map(|(id, watched)| {
                let place = of.entry(&watched.listed.what.org).or_default();
                *place += 1;
                (*place, id.clone())
            })
            .collect();
        all.sort();
        all.into_iter().map(|(_, id)| id).collect()
    }
}

fn busy(state: &State) -> BTreeMap<OrgId, usize> {
    let mut busy = BTreeMap::new();
    for watched in state.queues.values().filter(|watched| watched.busy) {
        *busy.entry(watched.listed.what.org.clone()).or_default() += 1;
    }
    busy
}

/// Looks into the queues of all triggers, as long as there is a [`Context`] that does not leave.
pub async fn listen(cx: Weak<Context>) {
    let Some(polling) = cx.upgrade().map(|cx| cx.polling.clone()) else {
        return;
    };
    let _listening = polling.0.listening.lock().await;
    let mut flights: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    while !polling.is_leaving() {
        let now = Instant::now();
        {
            let Some(cx) = cx.upgrade() else { return };
            if polling.begin_list(now) {
                let cx = cx.clone();
                flights.push(
                    async move {
                        if let Err(error) = list(&cx).await {
                            tracing::debug!(error = %error, "the list of queue triggers can't be read, trying again");
                        }
                    }
                    .boxed(),
                );
            }
            while flights.len() < AT_ONCE
                && let Some(turn) = polling.begin_due(now)
            {
                flights.push(poll(cx.clone(), turn).map(drop).boxed());
            }
        }
        let next = polling.next(flights.len() < AT_ONCE);
        let time = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = polling.0.leaving.cancelled() => {}
            Some(()) = flights.next(), if !flights.is_empty() => {}
            () = polling.0.changed.notified() => {}
            () = time => {}
        }
    }
    // Each ends after the messages that it has begun with.
    while flights.next().await.is_some() {}
}

/// Looks once into the queue of every trigger that is switched on; how many messages were handled.
///
/// # Errors
/// When the list of triggers can't be read.
pub(in super::super) async fn poll_all(cx: &Arc<Context>) -> Result<usize> {
    let polling = &cx.polling;
    list(cx).await?;
    let end = Instant::now() + BUDGET;
    let turns: Vec<BoxFuture<'_, usize>> = polling
        .round()
        .into_iter()
        .map(|id| {
            async move {
                let now = Instant::now();
                if polling.is_leaving() || now > end {
                    return 0;
                }
                let turn = polling.begin(&mut polling.state(), &id, now);
                match turn {
                    Some(turn) => poll(cx.clone(), turn).await,
                    None => 0,
                }
            }
            .boxed()
        })
        .collect();
    let handled = futures::stream::iter(turns).buffer_unordered(AT_ONCE);
    Ok(handled.fold(0, async |sum, handled| sum + handled).await)
}

async fn list(cx: &Context) -> Result<()> {
    let platform = tenancy::system(PART);
    let listed = cx.queue_triggers.all(&platform).await;
    match listed {
        Ok((listed, unreadable)) => {
            if unreadable > 0 {
                tracing::warn!(rows = unreadable, "rows of the list of queue triggers can't be read");
            }
            cx.polling.listed(Some(listed));
            Ok(())
        }
        Err(error) => {
            cx.polling.listed(None);
            Err(error.into())
        }
    }
}

async fn poll(cx: Arc<Context>, mut turn: Turn) -> usize {
    turn.jitter = cx.entropy.bytes::<1>()[0];
    let scope = tenancy::rehydrate_due(&turn.listed.what, PART);
    match look(&cx, &scope, &turn).await {
        Ok((came, handled)) => {
            turn.came = came;
            handled
        }
        Err(error) => {
            tracing::warn!(
                queue_trigger.id = %turn.listed.id,
                org.id = %scope.org(),
                error = &error as &dyn std::error::Error,
                "a queue could not be looked into, trying again"
            );
            0
        }
    }
}

async fn look(cx: &Arc<Context>, scope: &Scope, turn: &Turn) -> Result<(Came, usize)> {
    let id = &turn.listed.id;
    if turn.blocked && !may_begin(cx, scope).await? {
        return Ok((Came::Blocked, 0));
    }
    if turn.check {
        if trigger(cx, scope, id).await?.is_none() {
            return gone(cx, scope, turn).await;
        }
        cx.polling.checked(id);
    }
    if !turn.listed.enabled {
        return Ok((Came::Nothing, 0));
    }
    let messages = match cx.queue_triggers.receive(scope, id, BATCH, HIDDEN).await {
        // Deleted a moment ago, or by somebody else than us.
        Err(store::Error::NotFound { .. }) => {
            if trigger(cx, scope, id).await?.is_none() {
                return gone(cx, scope, turn).await;
            }
            cx.queue_triggers.mend(scope, id).await?;
            return Ok((Came::Nothing, 0));
        }
        messages => messages?,
    };
    if messages.is_empty() {
        return Ok((Came::Nothing, 0));
    }
    let Some(trigger) = trigger(cx, scope, id).await? else {
        return gone(cx, scope, turn).await;
    };
    let hold = match (trigger.enabled, may_begin(cx, scope).await?) {
        (true, true) => None,
        (true, false) => Some((Came::Blocked, BLOCKED)),
        (false, _) => Some((Came::Nothing, SWITCHED_OFF)),
    };
    if let Some((came, after)) = hold {
        for message in &messages {
            cx.queue_triggers.later(scope, id, &message.receipt, after).await?;
        }
        return Ok((came, 0));
    }
    Ok(work(cx, scope, &trigger, &messages).await)
}

/// Makes runs of messages. One that fails keeps no other from its run.
async fn work(cx: &Arc<Context>, scope: &Scope, trigger: &QueueTrigger, messages: &[Message]) -> (Came, usize) {
    let until = Instant::now() + WORK;
    let throttled = AtomicBool::new(false);
    let taken: Vec<BoxFuture<'_, usize>> = messages
        .iter()
        .map(|message| {
            let throttled = &throttled;
            async move {
                if Instant::now() > until {
                    // It is about to be delivered again, here or elsewhere.
                    return 0;
                }
                let took = if cx.polling.is_leaving() || throttled.load(Ordering::Relaxed) {
                    let after = if cx.polling.is_leaving() {
                        Duration::ZERO
                    } else {
                        LONGEST
                    };
                    let later = cx
                        .queue_triggers
                        .later(scope, &trigger.id, &message.receipt, after)
                        .await;
                    later.map(|()| Took::Later).map_err(super::super::Error::from)
                } else {
                    message::take(cx, scope, trigger, message).await
                };
                match took {
                    Ok(Took::Done) => 1,
                    Ok(Took::Later) => 0,
                    Ok(Took::Throttled) => {
                        throttled.store(true, Ordering::Relaxed);
                        0
                    }
                    Err(error) => {
                        tracing::warn!(
                            queue_trigger.id = %trigger.id,
                            error = &error as &dyn std::error::Error,
                            "a message could not be handled to its end, and is delivered again"
                        );
                        0
                    }
                }
            }
            .boxed()
        })
        .collect();
    let done = futures::stream::iter(taken).buffer_unordered(SIDE_BY_SIDE);
    let done = done.fold(0, async |sum, done| sum + done).await;
    let came = if throttled.into_inner() {
        Came::Blocked
    } else {
        Came::Something
    };
    (came, done)
}

/// The trigger of a row of the list, or nothing: also when the organization was deleted with its table.
async fn trigger(cx: &Context, scope: &Scope, id: &QueueTriggerId) -> Result<Option<QueueTrigger>> {
    match cx.queue_triggers.get(scope, id).await {
        Ok(found) => Ok(found.map(|stored| stored.trigger)),
        Err(store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn gone(cx: &Context, scope: &Scope, turn: &Turn) -> Result<(Came, usize)> {
    if cx.queue_triggers.forget(scope, &turn.listed, cx.clock.now()).await? {
        cx.polling.list_changed();
    }
    Ok((Came::Gone, 0))
}

/// Whether runs of an organization can be started at all: else every message would fail alike.
async fn may_begin(cx: &Context, scope: &Scope) -> Result<bool> {
    let organization = cx.identities.organization(scope.org()).await?;
    if !organization.is_some_and(|organization| organization.active) {
        return Ok(false);
    }
    Ok(cx.catalogs.current().await.is_ok())
}
