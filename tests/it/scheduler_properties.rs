//! Any plan, any events in any order: late, doubled, from owners long gone, by clocks that jump. What `src/scheduler/mod.rs`
//! promises holds after every one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::Value;
use weft::domain::{
    AttemptId, Backoff, Limits, OnCrash, Outcome, RetryPolicy, Rights, RunId, Status, StepError, Timestamp,
};
use weft::scheduler::{
    Effect, Event, Fact, LEGAL, Plan, Rejected, RunState, StepPlan, StepState, Transition, begin, decide,
};

const START: i64 = 1_795_219_200_000;
const LEASE: Duration = Duration::from_secs(60);

/// How an attempt ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Succeeds,
    Fails,
    FailsForGood,
    TimesOut,
    IsKilled,
}

/// Whose word an event is: of the present owner, of one before, or of one that never was.
#[derive(Debug, Clone, Copy)]
enum Age {
    Present,
    Past(u64),
    Future,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Move {
    Take {
        owner: u8,
        lease_ms: u64,
    },
    Renew(Age),
    Finish {
        which: usize,
        end: End,
        age: Age,
        sample: f64,
    },
    /// An attempt that was begun at any time ends, in the epoch that it was begun in.
    FinishOld {
        which: usize,
        end: End,
    },
    Wake(Age),
    Release(Age),
    Cancel,
    /// The last event is delivered once more.
    Again,
    /// The clock moves; it may be set back.
    Time(i64),
    /// The clock moves to what is due next.
    Due,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        5 => Just(End::Succeeds),
        3 => Just(End::Fails),
        1 => Just(End::FailsForGood),
        1 => Just(End::TimesOut),
        1 => Just(End::IsKilled),
    ]
}

fn age() -> impl Strategy<Value = Age> {
    prop_oneof![6 => Just(Age::Present), 1 => (1_u64..4).prop_map(Age::Past), 1 => Just(Age::Future)]
}

fn happening() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0_u8..3, 0_u64..120_000).prop_map(|(owner, lease_ms)| Move::Take { owner, lease_ms }),
        1 => age().prop_map(Move::Renew),
        12 => (any::<usize>(), end(), age(), 0.0..=1.0)
            .prop_map(|(which, end, age, sample)| Move::Finish { which, end, age, sample }),
        2 => (any::<usize>(), end()).prop_map(|(which, end)| Move::FinishOld { which, end }),
        3 => age().prop_map(Move::Wake),
        1 => age().prop_map(Move::Release),
        1 => prop::bool::weighted(0.2).prop_map(|yes| if yes { Move::Cancel } else { Move::Again }),
        2 => Just(Move::Again),
        4 => (-5_000_i64..200_000).prop_map(Move::Time),
        3 => Just(Move::Due),
    ]
}

fn step() -> impl Strategy<Value = (u16, RetryPolicy, OnCrash)> {
    let backoff = prop_oneof![Just(Backoff::Fixed), Just(Backoff::Linear), Just(Backoff::Exponential)];
    let policy = (1_u32..5, 0_u32..100, backoff, 0.0..=1.0, any::<bool>()).prop_map(
        |(attempts, delay, backoff, jitter, picky)| RetryPolicy {
            attempts,
            delay_seconds: f64::from(delay),
            backoff,
            jitter,
            retry_on: if picky { vec!["Flaky".into()] } else { Vec::new() },
            ..RetryPolicy::default()
        },
    );
    (
        any::<u16>(),
        policy,
        prop_oneof![Just(OnCrash::Retry), Just(OnCrash::Fail)],
    )
}

/// A directed graph without cycles, in an order that respects it.
fn plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec(step(), 0..=12).prop_map(|steps| Plan {
        workflow: "any".into(),
        bundle: "sha256:0".into(),
        environment: None,
        steps: steps
            .into_iter()
            .enumerate()
            .map(|(place, (edges, retry, on_crash))| StepPlan {
                rights: Rights::default(),
                secrets: Vec::new(),
                id: format!("step-{place}"),
                module: "workflows.any".into(),
                function: "any".into(),
                // Two bits for each edge keep the graphs sparse.
                depends_on: (0..place)
                    .filter(|earlier| edges.rotate_left(u32::try_from(*earlier).unwrap()) & 3 == 3)
                    .collect(),
                retry,
                on_crash,
                limits: Limits::default(),
            })
            .collect(),
    })
}

fn outcome(end: End) -> Outcome {
    match end {
        End::Succeeds => Outcome::Succeeded { value: Value::Null },
        End::Fails => Outcome::Failed {
            error: StepError::new("Flaky", "again, perhaps"),
        },
        End::FailsForGood => Outcome::Failed {
            error: StepError {
                retriable: Some(false),
                ..StepError::new("ValueError", "never")
            },
        },
        End::TimesOut => Outcome::TimedOut {
            error: StepError::new("time_limit", "too long"),
        },
        End::IsKilled => Outcome::Cancelled,
    }
}

/// A run, everything that was recorded of it, and every attempt that was ever begun.
struct World {
    plan: Plan,
    state: RunState,
    now: Timestamp,
    last: Option<Event>,
    events: Vec<(Event, Timestamp)>,
    recorded: Vec<Transition>,
    begun: Vec<(u64, usize, AttemptId)>,
    accepted: BTreeSet<AttemptId>,
    /// How often an attempt was lost with its owner, by step.
    lost: Vec<u32>,
}

impl World {
    fn new(plan: Plan, limit: Duration) -> Self {
        let now = Timestamp::from_millis(START);
        let run = RunId::derived(now, "property");
        let first = begin(&run, &plan, now.plus(limit));
        Self {
            state: first.state().clone(),
            lost: vec![0; plan.steps.len()],
            recorded: vec![first],
            plan,
            now,
            last: None,
            events: Vec::new(),
            begun: Vec::new(),
            accepted: BTreeSet::new(),
        }
    }

    fn epoch(&self, age: Age) -> u64 {
        match age {
            Age::Present => self.state.epoch,
            Age::Past(by) => self.state.epoch.saturating_sub(by),
            Age::Future => self.state.epoch + 1,
        }
    }

    fn finished(&self, epoch: u64, place: usize, attempt: &AttemptId, end: End, sample: f64) -> Event {
        Event::AttemptFinished {
            epoch,
            step: self.plan.steps[place].id.clone(),
            attempt: attempt.clone(),
            outcome: Box::new(outcome(end)),
            sample,
        }
    }

    fn event(&mut self, happening: &Move) -> Option<Event> {
        Some(match happening {
            Move::Take { owner, lease_ms } => Event::Taken {
                owner: format!("instance-{owner}"),
                lease_until: self.now.plus(Duration::from_millis(*lease_ms)),
            },
            Move::Renew(age) => Event::Renewed {
                epoch: self.epoch(*age),
                lease_until: self.now.plus(LEASE),
            },
            Move::Finish {
                which,
                end,
                age,
                sample,
            } => {
                let running: Vec<_> = self.state.running().collect();
                let (place, attempt) = *running.get(which % running.len().max(1))?;
                self.finished(self.epoch(*age), place, attempt, *end, *sample)
            }
            Move::FinishOld { which, end } => {
                let (epoch, place, attempt) = self.begun.get(which % self.begun.len().max(1))?;
                self.finished(*epoch, *place, attempt, *end, 0.5)
            }
            Move::Wake(age) => Event::Woken {
                epoch: self.epoch(*age),
            },
            Move::Release(age) => Event::Released {
                epoch: self.epoch(*age),
            },
            Move::Cancel => Event::CancelRequested { by: "somebody".into() },
            Move::Again => self.last.clone()?,
            Move::Time(by) => {
                self.now = Timestamp::from_millis((self.now.millis() + by).max(START));
                return None;
            }
            Move::Due => {
                self.now = self.state.next_due().map_or(self.now, |due| due.max(self.now));
                return None;
            }
        })
    }

    /// Delivers an event, and checks what comes of it.
    fn deliver(&mut self, event: Event) -> Result<Option<Rejected>, TestCaseError> {
        let before = self.state.clone();
        let decided = decide(&self.plan, &before, event.clone(), self.now);
        self.last = Some(event.clone());
        match decided {
            Err(rejected) => {
                if before.status.is_terminal() {
                    prop_assert_eq!(rejected, Rejected::Terminal(before.status));
                }
                Ok(Some(rejected))
            }
            Ok(transition) => {
                prop_assert!(!before.status.is_terminal(), "a terminal run changed: {:?}", event);
                self.check(&before, &event, &transition)?;
                self.state = transition.state().clone();
                self.events.push((event, self.now));
                self.recorded.push(transition);
                Ok(None)
            }
        }
    }

    fn check(&mut self, before: &RunState, event: &Event, transition: &Transition) -> Result<(), TestCaseError> {
        let after = transition.state();
        prop_assert_eq!(
            (&after.run, after.deadline, after.steps.len()),
            (&before.run, before.deadline, before.steps.len())
        );
        prop_assert_eq!(after.sequence, before.sequence + 1);
        prop_assert!(
            before.status == after.status || LEGAL.contains(&(before.status, after.status)),
            "{:?} → {:?} is no row of the table",
            before.status,
            after.status
        );
        let rises = matches!(event, Event::Taken { .. } | Event::CancelRequested { .. });
        prop_assert_eq!(
            after.epoch,
            before.epoch + u64::from(rises),
            "the epoch after {:?}",
            event
        );
        if let Event::AttemptFinished {
            epoch, step, attempt, ..
        } = event
        {
            let place = self.plan.position(step).unwrap();
            prop_assert_eq!(*epoch, before.epoch);
            prop_assert_eq!(before.steps[place].attempt.as_ref(), Some(attempt));
            prop_assert!(
                self.begun.contains(&(*epoch, place, attempt.clone())),
                "not the epoch in which it was begun"
            );
            prop_assert!(self.accepted.insert(attempt.clone()), "an outcome was accepted twice");
        }
        let changed: Vec<_> = (0..after.steps.len())
            .filter(|place| before.steps[*place] != after.steps[*place])
            .collect();
        prop_assert_eq!(transition.changed_steps(), &changed[..]);
        for place in changed {
            self.check_step(place, before, after, event)?;
        }
        whole(&self.plan, after)?;
        self.check_effects(before, transition)?;
        told(&self.plan, before, transition)
    }

    fn check_step(
        &mut self,
        place: usize,
        before: &RunState,
        after: &RunState,
        event: &Event,
    ) -> Result<(), TestCaseError> {
        let (old, new, planned) = (&before.steps[place], &after.steps[place], &self.plan.steps[place]);
        prop_assert!(
            !old.status.is_terminal(),
            "a terminal step changed: {:?} → {:?}",
            old,
            new
        );
        prop_assert!(new.attempts == old.attempts || new.attempts == old.attempts + 1);
        prop_assert!(old.started_at.is_none() || new.started_at == old.started_at);
        let lost = old.status == Status::Running && matches!(event, Event::Taken { .. } | Event::Released { .. });
        self.lost[place] += u32::from(lost);
        if lost && planned.on_crash == OnCrash::Fail && !after.status.is_terminal() {
            prop_assert_eq!(new.status, Status::Failed, "it may not be made again");
        }
        prop_assert!(
            new.attempts <= planned.retry.attempts + self.lost[place],
            "more attempts than the policy and the losses allow"
        );
        Ok(())
    }

    fn check_effects(&mut self, before: &RunState, transition: &Transition) -> Result<(), TestCaseError> {
        let after = transition.state();
        let running = |state: &RunState| -> BTreeSet<_> { state.running().map(|(_, id)| id.clone()).collect() };
        let (was, is) = (running(before), running(after));
        let (mut started, mut killed, mut finished) = (BTreeSet::new(), BTreeSet::new(), 0);
        for effect in transition.effects() {
            match effect {
                Effect::StartAttempt { step, attempt, number } => {
                    let state = &after.steps[*step];
                    prop_assert_eq!((state.attempt.as_ref(), state.attempts), (Some(attempt), *number));
                    prop_assert!(
                        !self.begun.iter().any(|(_, _, there)| there == attempt),
                        "an attempt's id was used twice"
                    );
                    self.begun.push((after.epoch, *step, attempt.clone()));
                    prop_assert!(started.insert(attempt.clone()));
                }
                Effect::KillAttempt { attempt } => prop_assert!(killed.insert(attempt.clone())),
                Effect::Finished => finished += 1,
            }
        }
        prop_assert_eq!(
            &started,
            &(&is - &was),
            "what runs now and did not is started, and nothing else"
        );
        prop_assert!(killed.is_subset(&(&was - &is)), "what still runs is not killed");
        if matches!(after.status, Status::Cancelled | Status::TimedOut) && !killed.is_empty() {
            prop_assert_eq!(&killed, &was, "all that ran is killed");
        }
        prop_assert_eq!(finished, usize::from(after.status.is_terminal()));
        Ok(())
    }
}

/// What holds of every state.
fn whole(plan: &Plan, state: &RunState) -> Result<(), TestCaseError> {
    let terminal = state.status.is_terminal();
    prop_assert_eq!(
        terminal,
        state.status != Status::Pending && state.steps.iter().all(|step| step.status.is_terminal()),
        "a run is terminal when its steps are, and only then: {:?}",
        state
    );
    let running = state.steps.iter().any(|step| step.status == Status::Running);
    prop_assert_eq!(running, state.status == Status::Running);
    prop_assert!(!running || state.owner.is_some(), "something runs that nobody drives");
    if state.status == Status::Waiting {
        prop_assert!(
            state.steps.iter().any(|step| step.status == Status::Waiting),
            "it waits for nothing"
        );
    }
    prop_assert_eq!(terminal, state.finished_at.is_some());
    prop_assert_eq!(terminal, state.next_due().is_none());
    if terminal {
        prop_assert_eq!((&state.owner, state.lease_until), (&None, None));
        prop_assert_eq!(state.status == Status::Succeeded, state.error.is_none());
    }
    for (step, planned) in state.steps.iter().zip(&plan.steps) {
        let StepState {
            status,
            attempts,
            attempt,
            due,
            started_at,
            finished_at,
        } = step;
        prop_assert_eq!(*status == Status::Running, attempt.is_some(), "{:?}", step);
        prop_assert_eq!(*status == Status::Waiting, due.is_some(), "{:?}", step);
        prop_assert_eq!(status.is_terminal(), finished_at.is_some(), "{:?}", step);
        prop_assert_eq!(*attempts > 0, started_at.is_some(), "{:?}", step);
        if *attempts > 0 {
            let ready = planned
                .depends_on
                .iter()
                .all(|earlier| state.steps[*earlier].status == Status::Succeeded);
            prop_assert!(ready, "`{}` began before what it depends on had succeeded", planned.id);
        }
        if *status == Status::Succeeded {
            prop_assert!(*attempts > 0);
        }
    }
    let read: RunState = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
    prop_assert_eq!(&read, state, "a checkpoint is read as it was written");
    Ok(())
}

/// What is told of a transition is what it changed.
fn told(plan: &Plan, before: &RunState, transition: &Transition) -> Result<(), TestCaseError> {
    let after = transition.state();
    let mut run = before.status;
    let mut steps: BTreeMap<_, _> = plan
        .steps
        .iter()
        .zip(&before.steps)
        .map(|(planned, step)| (planned.id.clone(), step.status))
        .collect();
    for fact in transition.facts() {
        match fact {
            Fact::RunStatus { status } => {
                prop_assert!(LEGAL.contains(&(run, *status)), "{:?} → {:?} was told", run, status);
                run = *status;
            }
            Fact::StepStatus { step, status, attempt } => {
                prop_assert_eq!(*attempt, after.steps[plan.position(step).unwrap()].attempts);
                steps.insert(step.clone(), *status);
            }
            Fact::RetryPlanned { step, due, .. } => {
                prop_assert!(*due < after.deadline);
                steps.insert(step.clone(), Status::Waiting);
            }
            Fact::TakenOver { epoch } => prop_assert_eq!(*epoch, after.epoch),
        }
    }
    prop_assert_eq!(run, after.status);
    for (planned, step) in plan.steps.iter().zip(&after.steps) {
        prop_assert_eq!(steps[&planned.id], step.status, "what is told of `{}`", planned.id);
    }
    Ok(())
}

/// The state as storage has it: the header of each transition, and the rows of the steps that it changed.
fn replayed(recorded: &[Transition]) -> RunState {
    let mut rows: BTreeMap<usize, StepState> = BTreeMap::new();
    let mut last = None;
    for transition in recorded {
        for place in transition.changed_steps() {
            rows.insert(*place, transition.state().steps[*place].clone());
        }
        last = Some(transition.state());
    }
    let last = last.expect("a run begins with a transition");
    RunState {
        steps: (0..last.steps.len())
            .map(|place| rows.remove(&place).unwrap_or_else(StepState::pending))
            .collect(),
        ..last.clone()
    }
}

fn play(plan: Plan, limit: Duration, moves: &[Move]) -> Result<World, TestCaseError> {
    let mut world = World::new(plan, limit);
    for happening in moves {
        if let Some(event) = world.event(happening) {
            world.deliver(event)?;
        }
    }
    Ok(world)
}

fn any_run() -> impl Strategy<Value = (Plan, Duration, Vec<Move>)> {
    (
        plan(),
        (1_u64..7200).prop_map(Duration::from_secs),
        prop::collection::vec(happening(), 0..80),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The invariants after every event, and the same state from what was recorded.
    #[test]
    fn every_order_of_events_keeps_the_promises((plan, limit, moves) in any_run()) {
        let world = play(plan, limit, &moves)?;
        prop_assert_eq!(replayed(&world.recorded), world.state.clone());
        // Deciding again from the recorded events gives the same transitions: nothing but the arguments counts.
        let mut state = world.recorded[0].state().clone();
        for ((event, at), recorded) in world.events.iter().zip(&world.recorded[1..]) {
            let again = decide(&world.plan, &state, event.clone(), *at).unwrap();
            prop_assert_eq!(&again, recorded);
            state = again.state().clone();
        }
    }

    /// From wherever a run is, each of three ways leads to an end: somebody cancels it, its deadline passes, or an owner
    /// goes on with it.
    #[test]
    fn every_run_can_be_ended((plan, limit, moves) in any_run(), ends in prop::collection::vec(end(), 1..20)) {
        let world = play(plan.clone(), limit, &moves)?;
        if world.state.status.is_terminal() {
            return Ok(());
        }
        let taken = |world: &World| Event::Taken { owner: "last".into(), lease_until: world.now.plus(LEASE) };

        let mut cancelled = play(plan.clone(), limit, &moves)?;
        cancelled.deliver(Event::CancelRequested { by: "somebody".into() })?;
        prop_assert_eq!(cancelled.state.status, Status::Cancelled);

        let mut late = play(plan.clone(), limit, &moves)?;
        late.now = late.state.deadline.max(late.state.lease_until.unwrap_or(late.now)).max(late.now);
        prop_assert_eq!(late.deliver(taken(&late))?, None);
        prop_assert_eq!(late.state.status, Status::TimedOut);

        let mut driven = world;
        driven.now = driven.now.max(driven.state.lease_until.unwrap_or(driven.now));
        prop_assert_eq!(driven.deliver(taken(&driven))?, None);
        let mut ends = ends.into_iter().cycle();
        // No more than its attempts and the waits between them.
        for _ in 0..200 {
            if driven.state.status.is_terminal() {
                break;
            }
            let epoch = driven.state.epoch;
            let running = driven.state.running().next().map(|(place, attempt)| (place, attempt.clone()));
            let event = match running {
                Some((place, attempt)) => {
                    driven.finished(epoch, place, &attempt, ends.next().unwrap(), 1.0)
                }
                None => {
                    driven.now = driven.state.next_due().unwrap().max(driven.now);
                    Event::Woken { epoch }
                }
            };
            prop_assert_eq!(driven.deliver(event)?, None, "an owner that does what is due is not refused");
        }
        prop_assert!(driven.state.status.is_terminal(), "it never ends: {:?}", driven.state);
    }

    /// A run that begins where it is driven is one commit; it is the same as two.
    #[test]
    fn beginning_and_taking_can_be_one_commit(plan in plan(), limit in 0_u64..100) {
        let now = Timestamp::from_millis(START);
        let first = begin(&RunId::derived(now, "one"), &plan, now.plus(Duration::from_secs(limit)));
        let taken = Event::Taken { owner: "one".into(), lease_until: now.plus(LEASE) };
        let second = decide(&plan, first.state(), taken, now).unwrap();
        let both = first.clone().then(second.clone());
        prop_assert_eq!(both.state(), second.state());
        prop_assert_eq!(both.changed_steps(), second.changed_steps());
        prop_assert_eq!(both.effects(), second.effects());
        let facts: Vec<_> = first.facts().iter().chain(second.facts()).cloned().collect();
        prop_assert_eq!(both.facts(), &facts[..]);
    }
}

/// The table itself: nothing follows an end, every status but the first is reached, and every one that is no end can go on
/// to being cancelled and to timing out.
#[test]
fn the_table_of_moves_is_sound() {
    for (from, to) in LEGAL {
        assert!(
            !from.is_terminal() && from != to && *to != Status::Pending,
            "{from:?} → {to:?}"
        );
    }
    assert_eq!(LEGAL.iter().collect::<BTreeSet<_>>().len(), LEGAL.len());
    for from in [Status::Pending, Status::Running, Status::Waiting] {
        for to in [Status::Cancelled, Status::TimedOut] {
            assert!(LEGAL.contains(&(from, to)), "{from:?} → {to:?}");
        }
    }
    for to in Status::ALL {
        let reached = LEGAL.iter().any(|(_, status)| status == to);
        assert_eq!(
            reached,
            !matches!(to, Status::Pending | Status::Skipped),
            "a run is {to:?}"
        );
    }
}
