//! Who gets the next free slot for a worker: the organization that has fewest, then the one that has waited longest since its
//! last. Those who have had one within the last second share the slots equally. So one that starts a hundred attempts at once does
//! not stand before another that starts one. Whatever isn't a step of a run has at most half of its organization's share, and
//! goes first below that: somebody looks at a form.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::callers::Awaited;
use crate::domain::OrgId;
use crate::runner::RunnerError;

/// Attempts of one organization that may wait for a slot.
const MOST_WAITING: usize = 1_024;
/// For how long who has had a slot counts as one who wants slots.
const RECENT: Duration = Duration::from_secs(1);
/// From so many slots on, one is kept for organizations that have none.
const ENOUGH: usize = 3;

/// What a slot is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usecase) enum Purpose {
    /// A step of a run.
    Step,
    /// Somebody of the organization has a slot and waits for this.
    Inner,
    /// Somebody looks at a form, or tries code.
    Form,
}

/// The slots of this instance.
#[derive(Debug, Clone)]
pub(in crate::usecase) struct Gate {
    slots: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    organizations: BTreeMap<OrgId, Line>,
    /// Rises with every slot that is given.
    turn: u64,
}

#[derive(Debug, Default)]
struct Line {
    taken: usize,
    /// Of these, by forms.
    forms: usize,
    last_turn: u64,
    last_used: Option<Instant>,
    /// Those first whose slot lets somebody else go on who has one.
    inner: VecDeque<Waiter>,
    at_forms: VecDeque<Waiter>,
    steps: VecDeque<Waiter>,
}

/// An attempt, or a call, that waits for a slot.
#[derive(Debug)]
struct Waiter {
    slot: oneshot::Sender<WorkerSlot>,
    /// Of a step of a run that somebody waits for here, or did.
    call: Option<Arc<Awaited>>,
}

impl Waiter {
    fn is_waited_for(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_waited_for())
    }

    /// Whether whoever waited has gone.
    fn is_left(&self) -> bool {
        self.call.as_ref().is_some_and(|call| !call.is_waited_for())
    }
}

impl Line {
    fn waiting(&mut self) -> usize {
        let mut waiting = 0;
        for line in [&mut self.inner, &mut self.at_forms, &mut self.steps] {
            line.retain(|waiter| !waiter.slot.is_closed());
            waiting += line.len();
        }
        waiting
    }

    fn of(&mut self, purpose: Purpose) -> &mut VecDeque<Waiter> {
        match purpose {
            Purpose::Inner => &mut self.inner,
            Purpose::Form => &mut self.at_forms,
            Purpose::Step => &mut self.steps,
        }
    }

    /// The next in a line. A step of a run whose caller has gone changes places with the first whose caller waits: so nobody
    /// stands behind calls that were given up, and whoever is in between loses nothing by it.
    fn take(&mut self, purpose: Purpose) -> Option<Waiter> {
        let line = self.of(purpose);
        if line.front().is_some_and(Waiter::is_left)
            && let Some(place) = line.iter().position(Waiter::is_waited_for)
        {
            line.swap(0, place);
        }
        line.pop_front()
    }

    /// Who may have a slot, of an organization that has this share of them, and for what. With `is_last` there is only one, which
    /// is for who has none.
    fn next(&mut self, share: usize, is_last: bool) -> Option<(Waiter, Purpose)> {
        let forms = (share / 2).max(1);
        let may = self.taken < share && (self.taken == 0 || !is_last);
        let purposes = [
            (Purpose::Inner, true),
            (Purpose::Form, may && self.forms < forms),
            (Purpose::Step, may),
        ];
        let may = purposes.into_iter().filter(|(_, may)| *may);
        may.map(|(purpose, _)| purpose)
            .find_map(|purpose| Some((self.take(purpose)?, purpose)))
    }
}

/// How many slots one of so many organizations may have.
const fn share(slots: usize, organizations: usize) -> usize {
    match organizations {
        0 | 1 if slots >= ENOUGH => slots - 1,
        0 | 1 => slots,
        more => slots.div_ceil(more),
    }
}

/// A slot; given back when dropped.
#[derive(Debug)]
pub(in crate::usecase) struct WorkerSlot {
    gate: Gate,
    org: Option<OrgId>,
    is_first: bool,
    purpose: Purpose,
}

impl WorkerSlot {
    /// Whether the organization had no other slot when it got this one.
    pub(in crate::usecase) const fn is_first(&self) -> bool {
        self.is_first
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        if let Some(org) = self.org.take() {
            self.gate.give_back(&org, self.purpose);
        }
    }
}

impl State {
    fn forget(&mut self) {
        let now = Instant::now();
        self.organizations.retain(|_, line| {
            line.taken > 0 || line.waiting() > 0 || line.last_used.is_some_and(|last| last + RECENT > now)
        });
    }
}

impl Gate {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(1),
            state: Arc::default(),
        }
    }

    /// Waits for a slot; with the call of the run whose step it is for, where there is one.
    ///
    /// # Errors
    /// [`RunnerError::Busy`] when too many of the organization wait already.
    pub(in crate::usecase) async fn slot(
        &self,
        org: &OrgId,
        purpose: Purpose,
        call: Option<Arc<Awaited>>,
    ) -> Result<WorkerSlot, RunnerError> {
        let waiting = {
            let mut state = self.state();
            let line = state.organizations.entry(org.clone()).or_default();
            if line.waiting() >= MOST_WAITING {
                return Err(RunnerError::Busy { slots: self.slots });
            }
            let (sender, receiver) = oneshot::channel();
            line.of(purpose).push_back(Waiter { slot: sender, call });
            receiver
        };
        self.hand_out();
        waiting.await.map_err(|_| RunnerError::Stopping)
    }

    /// A slot for an attempt that doesn't wait, if it is the organization's turn.
    pub(in crate::usecase) fn slot_at_once(&self, org: &OrgId) -> Option<WorkerSlot> {
        let mut receiver = {
            let mut state = self.state();
            let line = state.organizations.entry(org.clone()).or_default();
            if line.waiting() > 0 {
                return None;
            }
            let (sender, receiver) = oneshot::channel();
            let (slot, call) = (sender, None);
            line.steps.push_back(Waiter { slot, call });
            receiver
        };
        self.hand_out();
        receiver.try_recv().ok()
    }

    /// How many slots there are, how many are taken, and how many attempts of an organization wait.
    pub(super) fn figures(&self, org: &OrgId) -> (usize, usize, usize) {
        let mut state = self.state();
        let waiting = state.organizations.get_mut(org).map_or(0, Line::waiting);
        (self.slots, state.taken, waiting)
    }

    /// How many organizations use slots, or have within the last second.
    pub(super) fn users(&self) -> usize {
        let mut state = self.state();
        state.forget();
        state.organizations.len()
    }

    fn give_back(&self, org: &OrgId, purpose: Purpose) {
        {
            let mut state = self.state();
            state.taken -= 1;
            if let Some(line) = state.organizations.get_mut(org) {
                line.taken -= 1;
                line.forms -= usize::from(purpose == Purpose::Form);
                line.last_used = Some(Instant::now());
            }
        }
        self.hand_out();
    }

    fn hand_out(&self) {
        while let Some((waiter, slot)) = self.next() {
            // One that has gone away gives its slot back by this.
            drop(waiter.slot.send(slot));
        }
    }

    fn next(&self) -> Option<(Waiter, WorkerSlot)> {
        let mut state = self.state();
        state.forget();
        if state.taken >= self.slots {
            return None;
        }
        let share = share(self.slots, state.organizations.len());
        let is_last = self.slots >= ENOUGH && state.taken + 1 == self.slots;
        let mut order: Vec<_> = state
            .organizations
            .iter()
            .map(|(org, line)| (line.taken, line.last_turn, org.clone()))
            .collect();
        order.sort();
        for (_, _, org) in order {
            let Some(line) = state.organizations.get_mut(&org) else {
                continue;
            };
            if let Some((waiter, purpose)) = line.next(share, is_last) {
                let is_first = line.taken == 0;
                line.taken += 1;
                line.forms += usize::from(purpose == Purpose::Form);
                state.taken += 1;
                state.turn += 1;
                let turn = state.turn;
                if let Some(line) = state.organizations.get_mut(&org) {
                    line.last_turn = turn;
                }
                let gate = self.clone();
                let org = Some(org);
                let slot = WorkerSlot {
                    gate,
                    org,
                    is_first,
                    purpose,
                };
                return Some((waiter, slot));
            }
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::callers::Callers;
    use super::*;
    use crate::domain::RunId;
    use futures::FutureExt as _;

    fn org(name: &str) -> OrgId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn one_slot_is_kept_for_others_and_the_next_goes_to_who_has_fewest() {
        let gate = Gate::new(5);
        let (busy, quiet) = (org("busy"), org("quiet"));
        let mut slots: Vec<_> = (0..4).filter_map(|_| gate.slot_at_once(&busy)).collect();
        assert_eq!(slots.len(), 4);
        let mut fifth = Box::pin(gate.slot(&busy, Purpose::Step, None));
        assert!(fifth.as_mut().now_or_never().is_none(), "the last slot is kept");
        let first = gate.slot(&quiet, Purpose::Step, None).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(gate.slot(&quiet, Purpose::Step, None));
        assert!(second.as_mut().now_or_never().is_none());
        drop(slots.pop());
        assert!(second.as_mut().now_or_never().is_none(), "both have one");
        drop(slots.pop());
        let second = second.as_mut().now_or_never();
        let _second = second.expect("it has one where the other has two").unwrap();
        assert!(fifth.as_mut().now_or_never().is_none());
        drop(first);
        let fifth = fifth.as_mut().now_or_never();
        let _fifth = fifth.expect("two are free").unwrap();
        assert!(gate.slot_at_once(&busy).is_none(), "two share five slots equally");
        assert_eq!(gate.figures(&busy), (5, 4, 0));
    }

    #[tokio::test]
    async fn however_many_organizations_want_slots_the_last_one_is_for_who_has_none() {
        let gate = Gate::new(8);
        let (one, other, quiet) = (org("one"), org("other"), org("quiet"));
        let mut slots: Vec<_> = (0..12)
            .filter_map(|turn| gate.slot_at_once(if turn % 2 == 0 { &one } else { &other }))
            .collect();
        assert_eq!(slots.len(), 7);
        slots.push(gate.slot_at_once(&quiet).unwrap());
        assert!(gate.slot_at_once(&quiet).is_none());
        assert_eq!(gate.figures(&quiet).1, 8);
    }

    #[tokio::test]
    async fn who_is_waited_for_takes_the_last_slot_and_who_goes_away_leaves_none_behind() {
        let gate = Gate::new(3);
        let busy = org("busy");
        let mut slots = Vec::new();
        for _ in 0..2 {
            slots.push(gate.slot(&busy, Purpose::Step, None).await.unwrap());
        }
        let mut waits = Box::pin(gate.slot(&busy, Purpose::Step, None));
        assert!(waits.as_mut().now_or_never().is_none());
        let urgent = gate.slot(&busy, Purpose::Inner, None).now_or_never().unwrap().unwrap();
        drop(waits);
        drop((urgent, slots));
        assert_eq!(gate.figures(&busy), (3, 0, 0));
    }

    #[tokio::test]
    async fn forms_have_half_of_the_share_and_go_before_steps_below_that() {
        let gate = Gate::new(6);
        let org = org("busy");
        let forms: Vec<_> = (0..9)
            .filter_map(|_| gate.slot(&org, Purpose::Form, None).now_or_never())
            .collect();
        assert_eq!(forms.len(), 2, "five of six are its share");
        let mut steps = Vec::new();
        for _ in 0..3 {
            steps.push(gate.slot(&org, Purpose::Step, None).now_or_never().unwrap().unwrap());
        }
        let mut step = Box::pin(gate.slot(&org, Purpose::Step, None));
        let mut form = Box::pin(gate.slot(&org, Purpose::Form, None));
        assert!(step.as_mut().now_or_never().is_none() && form.as_mut().now_or_never().is_none());
        drop(steps.pop());
        assert!(form.as_mut().now_or_never().is_none(), "there are two");
        let _step = step.as_mut().now_or_never().unwrap().unwrap();
        let mut step = Box::pin(gate.slot(&org, Purpose::Step, None));
        assert!(step.as_mut().now_or_never().is_none());
        drop(forms);
        assert!(form.as_mut().now_or_never().is_some() && step.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let gate = Gate::new(1);
        let busy = org("busy");
        let taken = gate.slot(&busy, Purpose::Step, None).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..MOST_WAITING {
            let mut one = Box::pin(gate.slot(&busy, Purpose::Step, None));
            assert!(one.as_mut().now_or_never().is_none());
            waiting.push(one);
        }
        let refused = gate.slot(&busy, Purpose::Step, None).now_or_never().unwrap();
        assert!(matches!(refused, Err(RunnerError::Busy { slots: 1 })));
        drop(taken);
        assert!(waiting.remove(0).now_or_never().is_some());
    }
    #[tokio::test]
    async fn whose_caller_has_gone_changes_places_with_one_whose_caller_waits() {
        let (gate, callers, org) = (Gate::new(1), Callers::default(), org("busy"));
        let run = |number: usize| -> RunId { format!("run_{number:026}").parse().unwrap() };
        let taken = gate.slot(&org, Purpose::Step, None).await.unwrap();
        let mut waits: Vec<_> = (0..4).map(|number| Some(callers.wait(&run(number)))).collect();
        let mut line = Vec::new();
        // Two calls that will be given up, an attempt that nobody ever waited for, and two whose callers stay.
        for of in [Some(0), Some(1), None, Some(2), Some(3)] {
            let call = of.map(|number| callers.drive(&run(number)).unwrap().call());
            let mut waiting = Box::pin(gate.slot(&org, Purpose::Step, call));
            assert!(waiting.as_mut().now_or_never().is_none());
            line.push(Some(waiting));
        }
        waits[0] = None;
        waits[1] = None;
        let (mut slot, mut order) = (Some(taken), Vec::new());
        while order.len() < line.len() {
            drop(slot.take());
            let came = line.iter_mut().enumerate().find_map(|(place, waiting)| {
                let got = waiting.as_mut()?.as_mut().now_or_never()?;
                Some((place, got.unwrap()))
            });
            let (place, got) = came.unwrap();
            line[place] = None;
            order.push(place);
            slot = Some(got);
        }
        assert_eq!(order, [3, 4, 2, 0, 1]);
    }
}
