//! Runs that are driven in this process, and attempts of other instances' runs that are made in it, so that a cancellation takes
//! effect at once and no run is driven twice here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::{AttemptId, RunId};

/// The runs that are driven here.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    runs: Arc<Mutex<HashMap<RunId, Entry>>>,
    leaving: CancellationToken,
    /// Runs with an attempt that waits for a slot.
    slotless: Arc<Mutex<BTreeMap<RunId, usize>>>,
    /// Attempts that were claimed here, and how to end them.
    claimed: Arc<Mutex<HashMap<AttemptId, CancellationToken>>>,
    /// Attempts that other instances were asked to make, and that stand in line here as well.
    offered: Arc<Mutex<HashSet<AttemptId>>>,
    /// Whoever waits for the first.
    entered: Arc<Notify>,
    /// Who wants to hear of the end of which run.
    listeners: Arc<Mutex<HashMap<RunId, Weak<Notify>>>>,
}

/// How to reach the driver of a run.
#[derive(Debug, Clone)]
struct Entry {
    stop: CancellationToken,
    poke: Arc<Notify>,
}

/// Hears when a run is driven here no longer, from the moment on that it was made.
#[derive(Debug)]
pub(super) struct EndOf {
    run: RunId,
    heard: Arc<Notify>,
    listeners: Arc<Mutex<HashMap<RunId, Weak<Notify>>>>,
}

impl EndOf {
    /// Resolves when its driver has let go of the run; that may be a rest, and not the end.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }
}

impl Drop for EndOf {
    fn drop(&mut self) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one takes the entry along; another may have been made meanwhile.
        if Arc::strong_count(&self.heard) == 1
            && listeners
                .get(&self.run)
                .is_some_and(|it| std::ptr::eq(it.as_ptr(), &raw const *self.heard))
        {
            listeners.remove(&self.run);
        }
    }
}

/// A place in the list; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Driving {
    live: Live,
    run: RunId,
    stop: CancellationToken,
    poke: Arc<Notify>,
}

impl Driving {
    /// Resolves when there may be something in the run's inbox.
    pub(super) async fn poked(&self) {
        self.poke.notified().await;
    }

    /// Fires when somebody has ended the run.
    pub(super) const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Fires when this process is to hand its runs over.
    pub(super) const fn leaving(&self) -> &CancellationToken {
        &self.live.leaving
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.live
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.run);
        self.live.tell(&self.run);
    }
}

/// An attempt that was claimed here; so until it is dropped.
#[derive(Debug)]
pub(super) struct Claimed {
    live: Live,
    attempt: AttemptId,
    killed: CancellationToken,
}

impl Claimed {
    /// Resolves when nobody wants the attempt any more.
    pub(super) async fn killed(&self) {
        self.killed.cancelled().await;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        lock(&self.live.claimed).remove(&self.attempt);
    }
}

/// An attempt that stands in line here while other instances are asked to make it.
#[derive(Debug)]
pub(super) struct Offered {
    live: Live,
    attempt: AttemptId,
}

impl Drop for Offered {
    fn drop(&mut self) {
        lock(&self.live.offered).remove(&self.attempt);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An attempt that waits for a slot.
#[derive(Debug)]
pub(super) struct WithoutSlot {
    live: Live,
    run: RunId,
}

impl Drop for WithoutSlot {
    fn drop(&mut self) {
        let mut slotless = self.live.slotless.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = slotless.get_mut(&self.run) {
            *count -= 1;
            if *count == 0 {
                slotless.remove(&self.run);
            }
        }
    }
}

impl Live {
    /// For hearing of a run's end, should it be driven here.
    pub(super) fn end_of(&self, run: &RunId) -> EndOf {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = listeners.get(run).and_then(Weak::upgrade).unwrap_or_else(|| {
            let heard = Arc::new(Notify::new());
            listeners.insert(run.clone(), Arc::downgrade(&heard));
            heard
        });
        EndOf {
            run: run.clone(),
            heard,
            listeners: self.listeners.clone(),
        }
    }

    fn tell(&self, run: &RunId) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = listeners.get(run).and_then(Weak::upgrade) {
            heard.notify_waiters();
            // For one that has looked, and does not wait yet.
            heard.notify_one();
        }
    }

    /// Asks every driver to let go of its run.
    pub(super) fn leave(&self) {
        self.leaving.cancel();
    }

    /// Says that an attempt of a run waits for a slot, until what is answered is dropped.
    pub(super) fn without_slot(&self, run: &RunId) -> WithoutSlot {
        let mut slotless = self.slotless.lock().unwrap_or_else(PoisonError::into_inner);
        *slotless.entry(run.clone()).or_default() += 1;
        WithoutSlot {
            live: self.clone(),
            run: run.clone(),
        }
    }

    /// Whether an attempt of a run waits here for a slot.
    pub(super) fn waits_for_slot(&self, run: &RunId) -> bool {
        self.slotless
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(run)
    }

    /// Whether no run is to be taken any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Resolves when no run is to be taken any more.
    pub(super) async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Enters a run; nothing when it is driven here already.
    pub(super) fn enter(&self, run: &RunId) -> Option<Driving> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.contains_key(run) {
            return None;
        }
        let stop = CancellationToken::new();
        let poke = Arc::new(Notify::new());
        let entry = Entry {
            stop: stop.clone(),
            poke: poke.clone(),
        };
        runs.insert(run.clone(), entry);
        self.entered.notify_one();
        Some(Driving {
            live: self.clone(),
            run: run.clone(),
            stop,
            poke,
        })
    }

    /// Whether a run is driven here.
    pub(super) fn has(&self, run: &RunId) -> bool {
        self.runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(run)
    }

    /// Tells the driver of a run, when it is here, that the run has ended.
    pub(super) fn stop(&self, run: &RunId) {
        if let Some(entry) = self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(run) {
            entry.stop.cancel();
        }
    }

    /// Says that an attempt is made here that any instance may make, until what is answered is dropped; nothing when it is made
    /// here already.
    pub(super) fn claim(&self, attempt: &AttemptId) -> Option<Claimed> {
        let killed = CancellationToken::new();
        {
            let mut claimed = lock(&self.claimed);
            if claimed.contains_key(attempt) {
                return None;
            }
            claimed.insert(attempt.clone(), killed.clone());
        }
        self.entered.notify_one();
        Some(Claimed {
            live: self.clone(),
            attempt: attempt.clone(),
            killed,
        })
    }

    /// Ends an attempt, when it was claimed here.
    pub(super) fn kill(&self, attempt: &AttemptId) {
        if let Some(killed) = lock(&self.claimed).get(attempt) {
            killed.cancel();
        }
    }

    /// Says that other instances were asked to make an attempt that stands in line here, until what is answered is dropped.
    pub(super) fn offer(&self, attempt: &AttemptId) -> Offered {
        lock(&self.offered).insert(attempt.clone());
        Offered {
            live: self.clone(),
            attempt: attempt.clone(),
        }
    }

    /// Whether an attempt that others were asked to make stands in line here.
    pub(super) fn offers(&self, attempt: &AttemptId) -> bool {
        lock(&self.offered).contains(attempt)
    }

    /// Resolves when there are any. For one who asks.
    pub(super) async fn is_busy(&self) {
        while self.under_way() == 0 {
            self.entered.notified().await;
        }
    }

    /// Tells the driver of a run that there is something in the run's inbox; whether the driver is here.
    pub(super) fn poke(&self, run: &RunId) -> bool {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.get(run).map(|entry| entry.poke.notify_one()).is_some()
    }

    /// How many runs are driven here, and how many attempts were claimed.
    pub(super) fn under_way(&self) -> usize {
        self.count() + lock(&self.claimed).len()
    }

    /// How many runs there are.
    pub(super) fn count(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
