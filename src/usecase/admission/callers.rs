//! Who waits here for the end of which run. When the last of them has hung up, or was answered before the end, the run goes on as
//! one that nobody waits for: others don't hold back for it any more, and its organization's runs that somebody does wait for go
//! before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::courtesy::Called;
use crate::domain::RunId;

/// The runs that somebody waits for here.
#[derive(Debug, Default)]
pub(in crate::usecase) struct Callers(Mutex<BTreeMap<RunId, Weak<Awaited>>>);

/// What is known here of those who wait for a run.
#[derive(Debug, Default)]
pub(in crate::usecase) struct Awaited(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// That others hold back for it.
    called: Option<Called>,
}

/// One who waits for a run, until it is dropped.
#[derive(Debug)]
pub(in crate::usecase) struct Waits(Arc<Awaited>);

/// The run's own end of a call: while it is there, the run is driven here.
#[derive(Debug)]
pub(in crate::usecase) struct Driven(Arc<Awaited>);

impl Callers {
    /// Somebody waits for a run from now on.
    pub(in crate::usecase) fn wait(&self, run: &RunId) -> Waits {
        let mut calls = self.calls();
        calls.retain(|_, call| call.strong_count() > 0);
        let call = calls.get(run).and_then(Weak::upgrade).unwrap_or_else(|| {
            let call = Arc::new(Awaited::default());
            calls.insert(run.clone(), Arc::downgrade(&call));
            call
        });
        call.state().waiting += 1;
        Waits(call)
    }

    /// The call of a run that is going to be driven here, where there is one.
    pub(super) fn drive(&self, run: &RunId) -> Option<Driven> {
        self.calls().get(run).and_then(Weak::upgrade).map(Driven)
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<RunId, Weak<Awaited>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// Whether somebody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        self.state().waiting > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits {
    /// The run begins with whoever waits: others hold back for it as long as somebody does.
    pub(super) fn begins(&self, called: Called) -> Driven {
        self.0.state().called = Some(called);
        Driven(self.0.clone())
    }

    /// Waits no longer; whether nobody does now.
    pub(super) fn leave(self) -> bool {
        let call = self.0.clone();
        drop(self);
        !call.is_waited_for()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        if state.waiting == 0 {
            let called = state.called.take();
            // It tells others, who may ask at once.
            drop(state);
            drop(called);
        }
    }
}

impl Driven {
    /// For what its attempts wait for.
    pub(in crate::usecase) fn call(&self) -> Arc<Awaited> {
        self.0.clone()
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let called = self.0.state().called.take();
        drop(called);
    }
}

#[cfg(test)]
mod tests {
    use super::super::courtesy::Courtesy;
    use super::*;
    use crate::domain::OrgId;

    #[tokio::test(start_paused = true)]
    async fn others_hold_back_until_the_last_who_waits_has_gone() {
        let (callers, courtesy) = (Callers::default(), Courtesy::new(4));
        let (quiet, flood): (OrgId, OrgId) = ("quiet".parse().unwrap(), "flood".parse().unwrap());
        let run: RunId = format!("run_{}", "0".repeat(26)).parse().unwrap();
        let begin = || {
            let waits = callers.wait(&run);
            let driven = waits.begins(courtesy.call(&quiet));
            (waits, driven)
        };
        let (first, driven) = begin();
        let second = callers.wait(&run);
        assert!(courtesy.is_called_for(&quiet) && !courtesy.is_called_for(&flood));
        assert!(!first.leave(), "another waits");
        assert!(courtesy.is_called_for(&quiet) && driven.call().is_waited_for());
        assert!(second.leave());
        assert!(!courtesy.is_called_for(&quiet) && !driven.call().is_waited_for());
        // Whoever comes back later waits for the same run.
        let third = callers.wait(&run);
        assert!(driven.call().is_waited_for());
        drop((third, driven));
        assert!(callers.drive(&run).is_none());
        // The end of the run is the end of its call, also where somebody still reads the answer.
        let (waits, driven) = begin();
        drop(driven);
        assert!(!courtesy.is_called_for(&quiet));
        assert!(waits.leave());
    }
}
