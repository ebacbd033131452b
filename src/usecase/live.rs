//! Runs that are driven in this process, so that a cancellation takes effect at once and no run is driven twice here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::domain::RunId;

/// The runs that are driven here.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    runs: Arc<Mutex<HashMap<RunId, CancellationToken>>>,
    leaving: CancellationToken,
}

/// A place in the list; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Driving {
    live: Live,
    run: RunId,
    stop: CancellationToken,
}

impl Driving {
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
    }
}

impl Live {
    /// Asks every driver to let go of its run.
    pub(super) fn leave(&self) {
        self.leaving.cancel();
    }

    /// Whether no run is to be taken any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Enters a run; nothing when it is driven here already.
    pub(super) fn enter(&self, run: &RunId) -> Option<Driving> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.contains_key(run) {
            return None;
        }
        let stop = CancellationToken::new();
        runs.insert(run.clone(), stop.clone());
        Some(Driving {
            live: self.clone(),
            run: run.clone(),
            stop,
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
        if let Some(stop) = self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(run) {
            stop.cancel();
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
