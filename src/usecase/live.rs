//! Runs that are driven in this process, so that a cancellation takes effect at once and no run is driven twice here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::RunId;

/// The runs that are driven here.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    runs: Arc<Mutex<HashMap<RunId, Entry>>>,
    leaving: CancellationToken,
    /// Runs with an attempt that waits for a slot.
    slotless: Arc<Mutex<BTreeMap<RunId, usize>>>,
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

    /// Resolves when there are any. For one who asks.
    pub(super) async fn is_busy(&self) {
        while self.count() == 0 {
            self.entered.notified().await;
        }
    }

    /// Tells the driver of a run that there is something in the run's inbox; whether the driver is here.
    pub(super) fn poke(&self, run: &RunId) -> bool {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.get(run).map(|entry| entry.poke.notify_one()).is_some()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
