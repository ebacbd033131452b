//! Any plan, any events in any order: late, doubled, from owners long gone, by clocks that jump, with answers to what nobody
//! asked. What `src/scheduler/mod.rs` promises holds after every one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use weft::domain::{
    AttemptId, Backoff, DeclaredAs, DependsOn, ItemFailure, Join, Limits, MAX_ITEMS, OnCrash, OnFailure, Outcome,
    Phase, RetryPolicy, Rights, RunId, Status, StepError, Timestamp,
};
use weft::scheduler::{
    Action, Carried, Code, Decision, Dependency, Doing, Effect, Event, Fact, LEGAL, Output, Plan, Rejected, RunState,
    Slot, Starts, StepPlan, StepState, Transition, Unit, Verdict, Work, begin, decide,
};

const START: i64 = 1_795_219_200_000;
const LEASE: Duration = Duration::from_secs(60);
type Checked = Result<(), TestCaseError>;

// ── plans ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn action() -> impl Strategy<Value = Action> {
    let code = Code {
        starts: Starts::Nothing,
        declared_as: DeclaredAs::default(),
        name: "any".into(),
        module: "workflows.any".into(),
        function: "any".into(),
        limits: Limits::default(),
        rights: Rights::default(),
        secrets: Vec::new(),
        digest: None,
    };
    prop_oneof![
        2 => Just(Action::Code(Box::new(code))),
        1 => Just(Action::Child { workflow: "other".into() }),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    let failure = prop_oneof![
        Just(ItemFailure::Fail),
        Just(ItemFailure::Continue),
        (0_u32..3).prop_map(ItemFailure::AtMost)
    ];
    let branches = vec![("a".to_owned(), "x".to_owned()), ("b".to_owned(), "y".to_owned())];
    prop_oneof![
        5 => action().prop_map(Work::Once),
        3 => (action(), 1_u32..6, failure).prop_map(|(action, at_once, failure)| Work::Map {
            action,
            items: json!("{{ list }}"),
            at_once,
            failure,
        }),
        2 => (action(), 1_u32..5).prop_map(|(action, most)| Work::Loop { action, until: "done".into(), most }),
        2 => prop::option::of(Just("c".to_owned()))
            .prop_map(move |otherwise| Work::Choose { branches: branches.clone(), otherwise }),
        1 => Just(Work::Compute { value: json!({}) }),
        1 => Just(Work::Delay { seconds: json!(3) }),
        2 => (0_u32..3, 0_u64..90_000)
            .prop_map(|(needed, within_ms)| Work::Approval { needed, within_ms, question: json!("may it?") }),
    ]
}

fn step() -> impl Strategy<Value = (StepPlan, u64)> {
    let backoff = prop_oneof![Just(Backoff::Fixed), Just(Backoff::Linear), Just(Backoff::Exponential)];
    let retry = (1_u32..4, 0_u32..50, backoff, 0.0..=1.0, any::<bool>()).prop_map(
        |(attempts, delay, backoff, jitter, picky)| RetryPolicy {
            attempts,
            delay_seconds: f64::from(delay),
            backoff,
            jitter,
            retry_on: if picky { vec!["Flaky".into()] } else { Vec::new() },
            ..RetryPolicy::default()
        },
    );
    let settings = (
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.25),
        prop::option::weighted(0.2, 0_u64..120_000),
    );
    let phase = prop_oneof![6 => Just(Phase::Main), 1 => Just(Phase::OnFailure), 1 => Just(Phase::Finally)];
    (work(), retry, settings, phase, any::<u64>()).prop_map(
        |(work, retry, (when, any, bears, crashes, timeout_ms), phase, edges)| {
            let planned = StepPlan {
                join: if any { Join::Any } else { Join::All },
                when: when.then(|| "x > 1".to_owned()),
                phase,
                on_failure: if bears { OnFailure::Continue } else { OnFailure::Fail },
                retry,
                on_crash: if crashes { OnCrash::Fail } else { OnCrash::Retry },
                timeout_ms,
                ..StepPlan::new("", work)
            };
            (planned, edges)
        },
    )
}

/// A directed graph without cycles, in an order that respects it, as a compiler of graphs makes it.
fn plan() -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(step(), 0..=14);
    (steps, 1_u32..=8, any::<Option<prop::sample::Index>>()).prop_map(|(drawn, active, output)| {
        let mut steps: Vec<StepPlan> = Vec::new();
        for (place, (mut planned, edges)) in drawn.into_iter().enumerate() {
            planned.id = format!("step-{place}");
            for (earlier, before) in steps.iter_mut().enumerate() {
                // Two of some bits for each edge keep the graphs sparse.
                let bits = edges.rotate_left(u32::try_from(earlier).unwrap() * 5);
                if bits & 3 != 3 || before.phase != planned.phase {
                    continue;
                }
                let on = match (bits >> 2) & 7 {
                    0 => DependsOn::End,
                    1 => DependsOn::Failure,
                    _ => DependsOn::Success,
                };
                before.handled |= on == DependsOn::Failure;
                let chosen = matches!(before.work, Work::Choose { .. }) && on == DependsOn::Success;
                let branch = ["a", "b"][usize::from(bits & (1 << 20) != 0)];
                planned.depends_on.push(Dependency {
                    step: earlier,
                    on,
                    branch: (chosen && bits & (1 << 21) != 0).then(|| branch.to_owned()),
                });
            }
            steps.push(planned);
        }
        let output = match output {
            Some(index) if !steps.is_empty() => Output::Step(index.index(steps.len())),
            _ => Output::Value(json!("{{ steps }}")),
        };
        Plan {
            deadline_ms: None,
            profile: None,
            workflow: "any".into(),
            bundle: "sha256:0".into(),
            revision: None,
            environment: None,
            steps,
            output,
            active,
        }
    })
}

/// What an earlier run may have done of a plan: nothing that waits for what it has not.
fn carried(plan: &Plan, bits: u16) -> Vec<Carried> {
    let mut done: Vec<Carried> = Vec::new();
    for (place, planned) in plan.steps.iter().enumerate() {
        let follows = planned.depends_on.iter().all(|edge| {
            edge.on == DependsOn::Success
                && edge.branch.as_deref().is_none_or(|branch| branch == "a")
                && done.iter().any(|earlier| earlier.step == edge.step)
        });
        if planned.phase == Phase::Main && follows && bits & (1 << place) != 0 {
            let branch = matches!(planned.work, Work::Choose { .. }).then(|| "a".to_owned());
            done.push(Carried { step: place, branch });
        }
    }
    done
}

// ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// How an attempt or a child ends.
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
    /// An attempt or a child that was begun at any time ends.
    FinishOld {
        which: usize,
        end: End,
        age: Age,
    },
    EndChild {
        which: usize,
        end: End,
        age: Age,
        sample: f64,
    },
    EndOldChild {
        which: usize,
        end: End,
    },
    /// One of the questions of the last transition is answered as it may be.
    Answer {
        which: usize,
        pick: u32,
    },
    /// Anything is said about anything.
    Say {
        place: usize,
        item: Option<u32>,
        verdict: Verdict,
        age: Age,
    },
    Conclude {
        fails: bool,
        age: Age,
    },
    Decide {
        which: usize,
        by: u8,
        approved: bool,
        age: Age,
    },
    HandOff {
        which: usize,
        age: Age,
    },
    Wake(Age),
    Yield(Age),
    GoOn(Age),
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
    prop_oneof![12 => Just(Age::Present), 1 => (1_u64..4).prop_map(Age::Past), 1 => Just(Age::Future)]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Skip),
        Just(Verdict::Go),
        Just(Verdict::Done),
        prop::option::of(prop::sample::select(vec!["a", "c", "never"]))
            .prop_map(|branch| Verdict::Branch(branch.map(str::to_owned))),
        (0_u32..5).prop_map(Verdict::Items),
        any::<bool>().prop_map(Verdict::Ends),
        (0_i64..100_000).prop_map(|after| Verdict::Until(Timestamp::from_millis(START + after))),
        Just(Verdict::Wrong(StepError::new("expression", "it is not"))),
    ]
}

fn happening() -> impl Strategy<Value = Move> {
    let which = any::<usize>;
    prop_oneof![
        5 => (0_u8..3, 0_u64..120_000).prop_map(|(owner, lease_ms)| Move::Take { owner, lease_ms }),
        1 => age().prop_map(Move::Renew),
        12 => (which(), end(), age(), 0.0..=1.0)
            .prop_map(|(which, end, age, sample)| Move::Finish { which, end, age, sample }),
        1 => (which(), end(), age()).prop_map(|(which, end, age)| Move::FinishOld { which, end, age }),
        5 => (which(), end(), age(), 0.0..=1.0)
            .prop_map(|(which, end, age, sample)| Move::EndChild { which, end, age, sample }),
        1 => (which(), end()).prop_map(|(which, end)| Move::EndOldChild { which, end }),
        18 => (which(), any::<u32>()).prop_map(|(which, pick)| Move::Answer { which, pick }),
        2 => (0_usize..15, prop::option::of(0_u32..4), verdict(), age())
            .prop_map(|(place, item, verdict, age)| Move::Say { place, item, verdict, age }),
        1 => (prop::bool::weighted(0.2), age()).prop_map(|(fails, age)| Move::Conclude { fails, age }),
        4 => (which(), 0_u8..4, prop::bool::weighted(0.8), age())
            .prop_map(|(which, by, approved, age)| Move::Decide { which, by, approved, age }),
        2 => (which(), age()).prop_map(|(which, age)| Move::HandOff { which, age }),
        4 => age().prop_map(Move::Wake),
        1 => age().prop_map(Move::Yield),
        1 => age().prop_map(Move::GoOn),
        1 => age().prop_map(Move::Release),
        1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Move::Cancel } else { Move::Again }),
        2 => Just(Move::Again),
        3 => (-5_000_i64..100_000).prop_map(Move::Time),
        3 => Just(Move::Due),
    ]
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

/// What an honest driver may say when it is asked.
fn answer(plan: &Plan, (place, item): Slot, pick: u32, now: Timestamp) -> Verdict {
    let planned = &plan.steps[place];
    if pick % 13 == 12 {
        return Verdict::Wrong(StepError::new("expression", "it is not"));
    }
    if item.is_some() {
        return Verdict::Ends(pick.is_multiple_of(3));
    }
    if planned.when.is_some() && pick % 4 == 3 {
        return Verdict::Skip;
    }
    match &planned.work {
        Work::Map { .. } if pick % 17 == 16 => Verdict::Items(MAX_ITEMS + 1),
        Work::Map { .. } => Verdict::Items(pick / 4 % 9),
        Work::Choose { otherwise, .. } => Verdict::Branch(match pick / 4 % 4 {
            0 => otherwise.clone(),
            1 | 2 => Some("a".into()),
            _ => Some("b".into()),
        }),
        Work::Compute { .. } => Verdict::Done,
        Work::Delay { .. } => Verdict::Until(Timestamp::from_millis(
            now.millis() + i64::from(pick / 4 % 20_000) - 1_000,
        )),
        _ => Verdict::Go,
    }
}

// ── the world ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A run, everything that was recorded of it, and everything that was ever begun.
struct World {
    plan: Plan,
    state: RunState,
    now: Timestamp,
    last: Option<Event>,
    events: Vec<(Event, Timestamp)>,
    recorded: Vec<Transition>,
    begun: Vec<(u64, Slot, AttemptId)>,
    children: Vec<(Slot, RunId)>,
    accepted: BTreeSet<String>,
    /// How often an attempt was lost with its owner.
    lost: BTreeMap<Slot, u32>,
    /// What may not be tried again after that.
    dead: BTreeSet<Slot>,
    /// Items that have begun, by step.
    items: BTreeMap<usize, u32>,
}

impl World {
    fn new(plan: Plan, bits: u16, limit: Duration) -> Self {
        let now = Timestamp::from_millis(START);
        let run = RunId::derived(now, "property");
        let first = begin(&run, &plan, &carried(&plan, bits), now.plus(limit), now);
        Self {
            state: first.state().clone(),
            recorded: vec![first],
            plan,
            now,
            last: None,
            events: Vec::new(),
            begun: Vec::new(),
            children: Vec::new(),
            accepted: BTreeSet::new(),
            lost: BTreeMap::new(),
            dead: BTreeSet::new(),
            items: BTreeMap::new(),
        }
    }

    fn epoch(&self, age: Age) -> u64 {
        match age {
            Age::Present => self.state.epoch,
            Age::Past(by) => self.state.epoch.saturating_sub(by),
            Age::Future => self.state.epoch + 1,
        }
    }

    fn latest(&self) -> &Transition {
        self.recorded.last().unwrap()
    }

    fn finished(epoch: u64, slot: Slot, attempt: &AttemptId, end: End, sample: f64) -> Event {
        Event::AttemptFinished {
            epoch,
            slot,
            attempt: attempt.clone(),
            outcome: Box::new(outcome(end)),
            sample,
        }
    }

    fn child_ended(epoch: u64, slot: Slot, child: &RunId, end: End, sample: f64) -> Event {
        Event::ChildFinished {
            epoch,
            slot,
            child: child.clone(),
            outcome: Box::new(outcome(end)),
            sample,
        }
    }

    fn decides(&self, epoch: u64, step: usize, by: u8, approved: bool) -> Event {
        let decision = Decision {
            by: format!("person-{by}"),
            link_made_by: None,
            key_made_by: None,
            approved,
            comment: None,
            at: self.now,
        };
        Event::Decided { epoch, step, decision }
    }

    fn waiting_for_people(&self) -> Vec<usize> {
        let asks = |step: &StepState| {
            let activity = step.activity.as_ref();
            activity.is_some_and(|activity| matches!(activity.doing, Doing::Approval(_)))
        };
        let places = self.state.steps.iter().enumerate();
        places.filter(|(_, step)| asks(step)).map(|(place, _)| place).collect()
    }

    fn event(&mut self, happening: &Move) -> Option<Event> {
        fn one<T: Clone>(all: &[T], which: usize) -> Option<T> {
            all.get(which % all.len().max(1)).cloned()
        }
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
                let (slot, attempt) = one(&running, *which)?;
                Self::finished(self.epoch(*age), slot, attempt, *end, *sample)
            }
            Move::FinishOld { which, end, age } => {
                let (epoch, slot, attempt) = one(&self.begun, *which)?;
                let epoch = if matches!(age, Age::Future) {
                    self.state.epoch
                } else {
                    epoch
                };
                Self::finished(epoch, slot, &attempt, *end, 0.5)
            }
            Move::EndChild {
                which,
                end,
                age,
                sample,
            } => {
                let waiting = children(&self.state).into_iter().collect::<Vec<_>>();
                let (child, slot) = one(&waiting, *which)?;
                Self::child_ended(self.epoch(*age), slot, &child, *end, *sample)
            }
            Move::EndOldChild { which, end } => {
                let (slot, child) = one(&self.children, *which)?;
                Self::child_ended(self.state.epoch, slot, &child, *end, 0.5)
            }
            Move::Answer { which, pick } => {
                let epoch = self.state.epoch;
                if self.latest().concludes() {
                    let error = (pick % 7 == 6).then(|| StepError::new("expression", "it is not"));
                    return Some(Event::Concluded { epoch, error });
                }
                let slot = one(self.latest().evaluations(), *which)?;
                let verdict = answer(&self.plan, slot, *pick, self.now);
                Event::Evaluated { epoch, slot, verdict }
            }
            Move::Say {
                place,
                item,
                verdict,
                age,
            } => Event::Evaluated {
                epoch: self.epoch(*age),
                slot: (*place, *item),
                verdict: verdict.clone(),
            },
            Move::Conclude { fails, age } => Event::Concluded {
                epoch: self.epoch(*age),
                error: fails.then(|| StepError::new("expression", "it is not")),
            },
            Move::Decide {
                which,
                by,
                approved,
                age,
            } => {
                let place = one(&self.waiting_for_people(), *which)?;
                self.decides(self.epoch(*age), place, *by, *approved)
            }
            Move::HandOff { which, age } => {
                let running: Vec<_> = self.state.running().map(|(slot, _)| slot).collect();
                Event::HandedOff {
                    epoch: self.epoch(*age),
                    slots: vec![one(&running, *which).unwrap_or((99, None))],
                }
            }
            Move::Wake(age) => Event::Woken {
                epoch: self.epoch(*age),
            },
            Move::Yield(age) => Event::Yielding {
                epoch: self.epoch(*age),
            },
            Move::GoOn(age) => Event::Resumed {
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
                self.heard(&before, &event)?;
                self.moved(&before, &event, &transition)?;
                self.attempts(&before, &event, &transition)?;
                self.child_runs(&before, &event, &transition)?;
                whole(&self.plan, transition.state())?;
                told(&self.plan, &before, &transition)?;
                self.state = transition.state().clone();
                self.events.push((event, self.now));
                self.recorded.push(transition);
                Ok(None)
            }
        }
    }

    /// Only what is going on is heard about, from who drives, and once.
    fn heard(&mut self, before: &RunState, event: &Event) -> Checked {
        let epoch = match event {
            Event::Taken { owner, .. } => {
                let free = before.owner.as_ref().is_none_or(|current| current == owner)
                    || before.lease_until.is_none_or(|until| until <= self.now);
                prop_assert!(free, "a lease that holds was broken");
                return Ok(());
            }
            Event::CancelRequested { .. } => return Ok(()),
            Event::Renewed { epoch, .. }
            | Event::Evaluated { epoch, .. }
            | Event::Concluded { epoch, .. }
            | Event::AttemptFinished { epoch, .. }
            | Event::HandedOff { epoch, .. }
            | Event::ChildFinished { epoch, .. }
            | Event::Decided { epoch, .. }
            | Event::Woken { epoch }
            | Event::Yielding { epoch }
            | Event::Resumed { epoch }
            | Event::Released { epoch } => *epoch,
        };
        prop_assert_eq!(epoch, before.epoch);
        prop_assert!(before.owner.is_some(), "somebody who doesn't drive was heard");
        match event {
            Event::AttemptFinished { slot, attempt, .. } => {
                let unit = before.unit(*slot).unwrap();
                prop_assert_eq!(unit.attempt.as_ref(), Some(attempt));
                let (begun, ..) = self.begun.iter().find(|(_, _, there)| there == attempt).unwrap();
                prop_assert!(unit.handed || *begun == epoch, "not the epoch in which it was begun");
                prop_assert!(
                    self.accepted.insert(attempt.to_string()),
                    "an outcome was accepted twice"
                );
            }
            Event::ChildFinished { slot, child, .. } => {
                prop_assert_eq!(before.unit(*slot).unwrap().child.as_ref(), Some(child));
                prop_assert!(self.accepted.insert(child.to_string()), "a child has ended twice");
            }
            Event::Evaluated {
                slot: (place, None), ..
            } => {
                prop_assert_eq!(before.steps[*place].status, Status::Pending);
                prop_assert_eq!(self.plan.steps[*place].phase, before.phase);
                prop_assert!(is_ready(&self.plan, before, *place));
            }
            Event::Evaluated {
                slot: (place, Some(item)),
                ..
            } => {
                let many = many(&before.steps[*place]).unwrap();
                prop_assert_eq!((many.next, many.active.len()), (item + 1, 0));
            }
            Event::Concluded { .. } => {
                prop_assert!(!before.concluded && before.verdict.is_none() && before.phase == Phase::Main);
                prop_assert!(
                    is_over(&self.plan, before, Phase::Main),
                    "a result before the end of the steps"
                );
            }
            Event::Decided { step, decision, .. } => {
                let Some(Doing::Approval(earlier)) = before.steps[*step].activity.as_ref().map(|there| &there.doing)
                else {
                    return Err(TestCaseError::fail("nobody was asked"));
                };
                prop_assert!(
                    earlier.iter().all(|one| one.by != decision.by),
                    "somebody was counted twice"
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn moved(&mut self, before: &RunState, event: &Event, transition: &Transition) -> Checked {
        let after = transition.state();
        prop_assert_eq!((&after.run, after.steps.len()), (&before.run, before.steps.len()));
        prop_assert_eq!(after.sequence, before.sequence + 1);
        prop_assert_eq!(transition.at(), self.now);
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
        prop_assert!(after.phase >= before.phase);
        prop_assert!(
            after.deadline == before.deadline || (after.deadline > before.deadline && after.phase > before.phase)
        );
        prop_assert!(before.verdict.is_none() || after.verdict == before.verdict || after.status == Status::Cancelled);
        prop_assert!(before.started_at.is_none() || after.started_at == before.started_at);
        for (place, (old, new)) in before.steps.iter().zip(&after.steps).enumerate() {
            prop_assert!(
                !old.status.is_terminal() || old == new,
                "a terminal step changed: {:?} → {:?}",
                old,
                new
            );
            prop_assert!(new.attempts >= old.attempts);
            if let (Some(was), Some(is)) = (&old.activity, &new.activity) {
                prop_assert_eq!((was.since, was.until), (is.since, is.until));
            }
            if let (Some(was), Some(is)) = (many(old), many(new)) {
                prop_assert!(was.total == is.total && was.next <= is.next && was.ended <= is.ended);
                prop_assert!(was.failed <= is.failed);
            }
            let begins = old.status == Status::Pending && new.activity.is_some();
            prop_assert!(
                !begins || self.now < after.deadline,
                "step {} began at the deadline",
                place
            );
            prop_assert!(!begins || !after.yields, "step {} began while the owner lets go", place);
        }
        let begins = matches!(event, Event::Yielding { .. });
        prop_assert!(!after.yields || before.yields || begins, "nobody lets go");
        prop_assert!(
            !after.yields || transition.evaluations().is_empty(),
            "what is asked for could not begin"
        );
        // What is asked for may begin, and has room.
        let mut reserved = busy(after);
        let asked: BTreeSet<_> = transition.evaluations().iter().collect();
        prop_assert_eq!(asked.len(), transition.evaluations().len());
        for (place, item) in transition.evaluations() {
            if item.is_none() {
                reserved += 1;
                prop_assert!(after.steps[*place].status == Status::Pending && is_ready(&self.plan, after, *place));
            }
            prop_assert_eq!(self.plan.steps[*place].phase, after.phase);
        }
        prop_assert!(
            reserved <= self.plan.active as usize || asked.is_empty(),
            "more is asked for than may begin"
        );
        prop_assert!(!transition.concludes() || (is_over(&self.plan, after, Phase::Main) && asked.is_empty()));
        prop_assert!(!after.status.is_terminal() || !transition.has_more());
        Ok(())
    }

    fn attempts(&mut self, before: &RunState, event: &Event, transition: &Transition) -> Checked {
        let after = transition.state();
        let running = |state: &RunState| -> BTreeSet<AttemptId> { state.running().map(|(_, id)| id.clone()).collect() };
        let (was, is) = (running(before), running(after));
        prop_assert_eq!(
            is.len(),
            after.running().count(),
            "an attempt's id stands in two places"
        );
        let leaves = matches!(event, Event::Taken { .. } | Event::Released { .. });
        let mut gone = BTreeSet::new();
        for (slot, unit) in before
            .active()
            .filter(|(_, unit)| leaves && unit.attempt.is_some() && !unit.handed)
        {
            gone.insert(unit.attempt.clone().unwrap());
            *self.lost.entry(slot).or_default() += 1;
            if self.plan.steps[slot.0].on_crash == OnCrash::Fail {
                self.dead.insert(slot);
                prop_assert_eq!(after.unit(slot), None, "what may not be tried again is still there");
            }
        }
        // One that was killed by an instance that went away is lost as well.
        if let Event::AttemptFinished { slot, outcome, .. } = event
            && **outcome == Outcome::Cancelled
        {
            *self.lost.entry(*slot).or_default() += 1;
            if self.plan.steps[slot.0].on_crash == OnCrash::Fail {
                self.dead.insert(*slot);
                prop_assert_eq!(after.unit(*slot), None, "what may not be tried again is still there");
            }
        }
        let (mut started, mut killed, mut finished) = (BTreeSet::new(), BTreeSet::new(), 0);
        for effect in transition.effects() {
            match effect {
                Effect::StartAttempt { slot, attempt, number } => {
                    prop_assert!(
                        self.begun.iter().all(|(_, _, there)| there != attempt),
                        "an attempt's id was used twice"
                    );
                    prop_assert!(started.insert(attempt.clone()));
                    self.begun.push((after.epoch, *slot, attempt.clone()));
                    if is.contains(attempt) {
                        let unit = after.unit(*slot).unwrap();
                        prop_assert_eq!((unit.attempt.as_ref(), unit.attempts), (Some(attempt), *number));
                    }
                    self.tried(before, after, *slot, *number)?;
                }
                Effect::KillAttempt { attempt, .. } => prop_assert!(killed.insert(attempt.clone()), "killed twice"),
                Effect::Finished => finished += 1,
                Effect::StartChild { .. } | Effect::CancelChild { .. } => {}
            }
        }
        prop_assert!((&is - &was).is_subset(&started), "something runs that was not started");
        prop_assert!(
            (&started - &is).is_subset(&killed),
            "something was started that nobody knows of"
        );
        prop_assert!(killed.is_disjoint(&is), "what still runs is not killed");
        prop_assert!(killed.is_subset(&(&was | &started)));
        let own = match event {
            Event::AttemptFinished { attempt, .. } => Some(attempt.clone()),
            _ => None,
        };
        prop_assert!(
            own.as_ref()
                .is_none_or(|own| !is.contains(own) && !killed.contains(own))
        );
        for attempt in &was - &is {
            let unseen = matches!(event, Event::Taken { .. }) && gone.contains(&attempt);
            prop_assert!(
                unseen || Some(&attempt) == own.as_ref() || killed.contains(&attempt),
                "an attempt has vanished, and nobody kills it"
            );
        }
        prop_assert_eq!(finished, usize::from(after.status.is_terminal()));
        Ok(())
    }

    fn child_runs(&mut self, before: &RunState, event: &Event, transition: &Transition) -> Checked {
        let after = transition.state();
        let (was, is) = (children(before), children(after));
        let (mut started, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
        for effect in transition.effects() {
            match effect {
                Effect::StartChild { slot, child, number } => {
                    prop_assert!(started.insert(child.clone()), "started twice");
                    if was.contains_key(child) {
                        prop_assert!(
                            matches!(event, Event::Taken { .. }),
                            "a child was started again for no reason"
                        );
                        continue;
                    }
                    prop_assert!(
                        self.children.iter().all(|(_, there)| there != child),
                        "a child's id was used twice"
                    );
                    self.children.push((*slot, child.clone()));
                    self.tried(before, after, *slot, *number)?;
                }
                Effect::CancelChild { child } => prop_assert!(cancelled.insert(child.clone()), "cancelled twice"),
                _ => {}
            }
        }
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
            before.orphans.iter().cloned().collect(),
            after.orphans.iter().cloned().collect(),
        );
        prop_assert_eq!(new.len(), after.orphans.len(), "an orphan is named twice");
        prop_assert!(old.is_subset(&new), "an orphan is forgotten");
        for child in is.keys() {
            prop_assert!(
                was.contains_key(child) || started.contains(child),
                "a child is waited for that was not started"
            );
            prop_assert!(!new.contains(child) && !cancelled.contains(child));
        }
        if matches!(event, Event::Taken { .. }) {
            prop_assert!(old.is_subset(&cancelled), "the last owner may not have ended them");
            prop_assert!(
                is.keys().all(|child| started.contains(child)),
                "the last owner may not have started them"
            );
        }
        let own = match event {
            Event::ChildFinished { child, .. } => Some(child),
            _ => None,
        };
        for child in was.keys().chain(&started).filter(|child| !is.contains_key(*child)) {
            prop_assert!(
                Some(child) == own || (cancelled.contains(child) && new.contains(child)),
                "a child has vanished, and nobody ends it"
            );
        }
        for child in &cancelled {
            prop_assert!(new.contains(child) && Some(child) != own);
        }
        prop_assert!((&new - &old).is_subset(&cancelled));
        Ok(())
    }

    /// What holds of every new try.
    fn tried(&mut self, before: &RunState, after: &RunState, slot: Slot, number: u32) -> Checked {
        let planned = &self.plan.steps[slot.0];
        prop_assert!(
            after.owner.is_some() || after.status.is_terminal(),
            "something began that nobody drives"
        );
        prop_assert!(self.now < after.deadline, "something began at the deadline");
        prop_assert!(!after.yields, "something began while the owner lets go");
        prop_assert!(!self.dead.contains(&slot), "what may not be tried again was");
        prop_assert!(
            before.verdict.is_none() || planned.phase != Phase::Main,
            "the run has failed, and goes on"
        );
        let lost = self.lost.get(&slot).copied().unwrap_or_default();
        prop_assert!(
            number <= planned.retry.attempts + lost,
            "more attempts than the policy and the losses allow"
        );
        if number == 1
            && let Some(item) = slot.1
        {
            let next = self.items.entry(slot.0).or_default();
            prop_assert_eq!(*next, item, "items begin in their order");
            *next += 1;
        }
        Ok(())
    }
}

fn children(state: &RunState) -> BTreeMap<RunId, Slot> {
    let waits = |(slot, unit): (Slot, &Unit)| Some((unit.child.clone()?, slot));
    state.active().filter_map(waits).collect()
}

fn many(step: &StepState) -> Option<&weft::scheduler::Many> {
    match &step.activity.as_ref()?.doing {
        Doing::Many(many) => Some(many),
        _ => None,
    }
}

fn busy(state: &RunState) -> usize {
    let open = state.steps.iter().filter(|step| step.activity.is_some());
    open.map(|step| many(step).map_or(1, |many| many.active.len().max(1)))
        .sum()
}

fn is_over(plan: &Plan, state: &RunState, phase: Phase) -> bool {
    let mut steps = plan.steps.iter().zip(&state.steps);
    steps.all(|(planned, step)| planned.phase != phase || step.status.is_terminal())
}

/// The rule of edges, written down a second time.
fn is_ready(plan: &Plan, state: &RunState, place: usize) -> bool {
    let came = |edge: &Dependency| {
        let (planned, step) = (&plan.steps[edge.step], &state.steps[edge.step]);
        let failed = step.status == Status::Failed || step.status == Status::TimedOut;
        match edge.on {
            DependsOn::End => step.status.is_terminal(),
            DependsOn::Failure => failed,
            DependsOn::Success if edge.branch.is_some() => {
                step.status == Status::Succeeded && step.branch == edge.branch
            }
            DependsOn::Success => {
                step.status == Status::Succeeded
                    || (step.status == Status::Skipped && !step.omitted)
                    || (failed && planned.on_failure == OnFailure::Continue)
            }
        }
    };
    let edges = &plan.steps[place].depends_on;
    match plan.steps[place].join {
        Join::All => edges.iter().all(came),
        Join::Any => {
            edges.iter().all(|edge| state.steps[edge.step].status.is_terminal())
                && (edges.is_empty() || edges.iter().any(came))
        }
    }
}

/// What holds of every state.
fn whole(plan: &Plan, state: &RunState) -> Checked {
    let terminal = state.status.is_terminal();
    let over = state.steps.iter().all(|step| step.status.is_terminal());
    let known = state.concluded || state.verdict.is_some() || matches!(plan.output, Output::Step(_));
    prop_assert!(!terminal || over, "a run has ended before its steps");
    prop_assert!(
        terminal || !over || !known || state.status == Status::Pending,
        "a run whose steps have ended goes on: {:?}",
        state
    );
    prop_assert_eq!(terminal, state.finished_at.is_some());
    prop_assert_eq!(terminal, state.next_due().is_none());
    prop_assert!(state.next_due().is_none_or(|due| due <= state.deadline));
    if terminal {
        prop_assert_eq!((&state.owner, state.lease_until), (&None, None));
        prop_assert_eq!(state.status == Status::Succeeded, state.error.is_none());
        prop_assert_eq!(state.verdict.unwrap_or(Status::Succeeded), state.status);
    }
    if state.status == Status::Succeeded {
        for (place, (step, planned)) in state.steps.iter().zip(&plan.steps).enumerate() {
            let failed = matches!(step.status, Status::Failed | Status::TimedOut) && planned.phase == Phase::Main;
            let handled = plan.steps.iter().zip(&state.steps).any(|(other, step)| {
                let mut edges = other.depends_on.iter();
                step.status != Status::Skipped && edges.any(|edge| edge.step == place && edge.on == DependsOn::Failure)
            });
            prop_assert!(
                !failed || handled || planned.on_failure == OnFailure::Continue,
                "a failure was swallowed"
            );
        }
    }
    let running = state.running().next().is_some();
    prop_assert!(!running || state.status == Status::Running);
    prop_assert!(state.owner.is_some() || state.active().all(|(_, unit)| unit.attempt.is_none() || unit.handed));
    prop_assert!(state.owner.is_some() || !state.yields);
    prop_assert!(busy(state) <= plan.active as usize, "more is going on than may");
    // What runs in any case begins: the first of them has nothing to wait for.
    let first = plan.steps.iter().position(|planned| planned.phase == Phase::Finally);
    if let Some(first) = first.filter(|_| terminal && state.status != Status::Cancelled) {
        let asked =
            plan.steps[first].when.is_some() || !matches!(plan.steps[first].work, Work::Once(_) | Work::Loop { .. });
        prop_assert!(
            asked || !state.steps[first].omitted,
            "what runs in any case was left out"
        );
    }
    for (place, (step, planned)) in state.steps.iter().zip(&plan.steps).enumerate() {
        whole_step(plan, state, place)?;
        match planned.phase.cmp(&state.phase) {
            std::cmp::Ordering::Less => prop_assert!(step.status.is_terminal(), "{:?}", step),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                prop_assert!(
                    step.status == Status::Pending || step.omitted,
                    "a later phase began: {:?}",
                    step
                );
            }
        }
        let handler_began = planned.phase == Phase::OnFailure && (step.attempts > 0 || step.activity.is_some());
        prop_assert!(
            !handler_began || state.verdict.is_some(),
            "a failure is handled that there was not"
        );
        if planned.phase == Phase::Main && state.verdict.is_some() {
            prop_assert!(step.status != Status::Pending, "a failed run has steps to come");
            prop_assert!(step.activity.is_none() || step.units().all(|(_, unit)| unit.attempt.is_some()));
        }
    }
    let read: RunState = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
    prop_assert_eq!(&read, state, "a checkpoint is read as it was written");
    Ok(())
}

fn whole_step(plan: &Plan, state: &RunState, place: usize) -> Checked {
    let (step, planned) = (&state.steps[place], &plan.steps[place]);
    prop_assert_eq!(
        matches!(step.status, Status::Running | Status::Waiting),
        step.activity.is_some(),
        "{:?}",
        step
    );
    if step.status == Status::Pending {
        prop_assert_eq!(step, &StepState::pending());
    }
    prop_assert!(!step.omitted || step.status == Status::Skipped);
    prop_assert!(step.status != Status::Skipped || step.omitted || planned.when.is_some());
    // A map of nothing has succeeded with nothing.
    let is_map = matches!(planned.work, Work::Map { .. });
    prop_assert!(step.status != Status::Succeeded || step.attempts > 0 || is_map);
    let began =
        step.activity.is_some() || step.attempts > 0 || matches!(step.status, Status::Succeeded | Status::Failed);
    prop_assert!(
        !began || is_ready(plan, state, place),
        "`{}` began before its edges said so",
        planned.id
    );
    let Some(activity) = &step.activity else { return Ok(()) };
    let works = step.units().any(|(_, unit)| unit.attempt.is_some());
    prop_assert_eq!(works, step.status == Status::Running, "{:?}", step);
    for (_, unit) in step.units() {
        let ways = [unit.attempt.is_some(), unit.child.is_some(), unit.due.is_some()];
        prop_assert_eq!(ways.iter().filter(|there| **there).count(), 1, "{:?}", unit);
        prop_assert!(unit.attempts > 0 && unit.since.is_some());
        prop_assert!(!unit.handed || unit.attempt.is_some());
        match planned.work.action() {
            Some(Action::Code(_)) => prop_assert!(unit.child.is_none()),
            Some(Action::Child { .. }) => prop_assert!(unit.attempt.is_none()),
            None => prop_assert!(false, "there is nothing to try"),
        }
    }
    match (&activity.doing, &planned.work) {
        (Doing::One(unit), Work::Once(_)) => prop_assert_eq!(unit.attempts, step.attempts),
        (Doing::Pause(_), Work::Delay { .. }) => {}
        (Doing::Approval(decisions), Work::Approval { needed, .. }) => {
            let people: BTreeSet<_> = decisions.iter().map(|one| &one.by).collect();
            prop_assert_eq!(people.len(), decisions.len());
            prop_assert!(decisions.iter().all(|one| one.approved) && decisions.len() < (*needed).max(1) as usize);
        }
        (Doing::Many(many), Work::Map { at_once, failure, .. }) => {
            let total = many.total.unwrap();
            let gone = many.ended + u32::try_from(many.active.len()).unwrap();
            prop_assert!(many.active.len() <= *at_once as usize && many.next <= total && total <= MAX_ITEMS);
            prop_assert!(many.active.keys().all(|item| *item < many.next));
            // A map of a run that has failed has let go of what waited.
            prop_assert!(gone == many.next || (gone < many.next && state.verdict.is_some()));
            let bears = match failure {
                ItemFailure::Fail => 0,
                ItemFailure::Continue => u32::MAX,
                ItemFailure::AtMost(most) => *most,
            };
            prop_assert!(many.failed <= bears && many.failed <= many.ended && many.ended < total);
            prop_assert_eq!(step.attempts, many.next);
        }
        (Doing::Many(many), Work::Loop { most, .. }) => {
            prop_assert!(many.total.is_none() && many.active.len() <= 1 && many.next <= *most && many.failed == 0);
            prop_assert_eq!(many.ended + u32::try_from(many.active.len()).unwrap(), many.next);
            prop_assert!(many.active.keys().all(|item| item + 1 == many.next));
        }
        (doing, work) => prop_assert!(false, "{:?} is not what {:?} does", doing, work),
    }
    Ok(())
}

/// What is told of a transition is what it changed, and not more than can be written.
fn told(plan: &Plan, before: &RunState, transition: &Transition) -> Checked {
    let after = transition.state();
    let mut run = before.status;
    let mut ended: BTreeMap<&str, Status> = BTreeMap::new();
    let bound = 10 + 6 * plan.active as usize;
    prop_assert!(transition.facts().len() <= bound, "{} facts", transition.facts().len());
    for fact in transition.facts() {
        match fact {
            Fact::RunStatus { status } => {
                prop_assert!(LEGAL.contains(&(run, *status)), "{:?} → {:?} was told", run, status);
                run = *status;
            }
            Fact::StepStatus {
                step,
                item: None,
                status,
                ..
            } if status.is_terminal() => {
                prop_assert!(ended.insert(step, *status).is_none(), "`{}` has ended twice", step);
            }
            Fact::StepsEnded { status, count, steps } => {
                prop_assert_eq!(*count, steps.len());
                for step in steps {
                    prop_assert!(ended.insert(step, *status).is_none(), "`{}` has ended twice", step);
                }
            }
            Fact::RetryPlanned { due, .. } => prop_assert!(*due < after.deadline),
            Fact::TakenOver { epoch } => prop_assert_eq!(*epoch, after.epoch),
            _ => {}
        }
    }
    prop_assert_eq!(run, after.status);
    for (planned, (old, new)) in plan.steps.iter().zip(before.steps.iter().zip(&after.steps)) {
        let ends = (!old.status.is_terminal() && new.status.is_terminal()).then_some(&new.status);
        prop_assert_eq!(ended.get(planned.id.as_str()), ends, "what is told of `{}`", planned.id);
    }
    let slots: BTreeSet<_> = transition.ended().iter().map(|ended| ended.slot).collect();
    prop_assert_eq!(slots.len(), transition.ended().len());
    for one in transition.ended() {
        prop_assert!(one.status.is_terminal());
        prop_assert_eq!(
            matches!(one.status, Status::Failed | Status::TimedOut),
            one.error.is_some()
        );
        if one.slot.1.is_none() {
            prop_assert_eq!(
                (one.status, one.attempts),
                (after.steps[one.slot.0].status, after.steps[one.slot.0].attempts)
            );
        }
    }
    Ok(())
}

// ── properties ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[derive(Debug, Clone)]
struct Case {
    plan: Plan,
    bits: u16,
    limit: Duration,
    moves: Vec<Move>,
}

impl Case {
    fn play(&self) -> Result<World, TestCaseError> {
        let mut world = World::new(self.plan.clone(), self.bits, self.limit);
        whole(&world.plan, &world.state)?;
        for happening in &self.moves {
            if let Some(event) = world.event(happening) {
                world.deliver(event)?;
            }
        }
        Ok(world)
    }
}

fn case() -> impl Strategy<Value = Case> {
    let bits = prop_oneof![3 => Just(0_u16), 1 => any::<u16>()];
    let moves = prop::collection::vec(happening(), 0..160);
    // Nearly every run is taken at once: what comes before that is soon seen.
    (plan(), bits, 1_u64..1800, moves, prop::bool::weighted(0.9)).prop_map(|(plan, bits, limit, mut moves, taken)| {
        if taken {
            moves.insert(
                0,
                Move::Take {
                    owner: 0,
                    lease_ms: 60_000,
                },
            );
        }
        Case {
            plan,
            bits,
            limit: Duration::from_secs(limit),
            moves,
        }
    })
}

/// Drives a run as an honest driver does, with anything that may come of what it tries. Answers how many events it took.
fn drive(world: &mut World, picks: &[u32], crashes: u32) -> Result<usize, TestCaseError> {
    let mut picks = picks.iter().copied().cycle();
    let mut crashes = crashes;
    world.now = world.now.max(world.state.lease_until.unwrap_or(world.now));
    let take = |world: &World| Event::Taken {
        owner: "last".into(),
        lease_until: world.now.plus(LEASE),
    };
    prop_assert_eq!(world.deliver(take(world))?, None);
    for events in 0..3_000 {
        if world.state.status.is_terminal() {
            return Ok(events);
        }
        let (epoch, pick) = (world.state.epoch, picks.next().unwrap());
        let latest = world.latest();
        let event = if let Some(slot) = latest.evaluations().first() {
            Event::Evaluated {
                epoch,
                slot: *slot,
                verdict: answer(&world.plan, *slot, pick, world.now),
            }
        } else if latest.concludes() {
            let error = (pick % 5 == 4).then(|| StepError::new("expression", "it is not"));
            Event::Concluded { epoch, error }
        } else if crashes > 0 && pick % 11 == 10 {
            crashes -= 1;
            world.now = world.now.plus(Duration::from_secs(u64::from(pick % 90)));
            take(world)
        } else {
            let running: Vec<_> = world.state.running().collect();
            let waiting: Vec<_> = children(&world.state).into_iter().collect();
            let ends = [
                End::Succeeds,
                End::Fails,
                End::Succeeds,
                End::FailsForGood,
                End::Succeeds,
                End::TimesOut,
            ];
            let (end, which) = (ends[(pick / 3 % 6) as usize], pick as usize);
            let people = world.waiting_for_people();
            let sample = f64::from(pick % 100) / 99.0;
            if pick.is_multiple_of(3)
                && let Some((slot, attempt)) = running.get(which % running.len().max(1))
            {
                World::finished(epoch, *slot, attempt, end, sample)
            } else if pick % 3 == 1
                && let Some((child, slot)) = waiting.get(which % waiting.len().max(1))
            {
                World::child_ended(epoch, *slot, child, end, sample)
            } else if pick % 5 == 2
                && let Some(place) = people.first()
            {
                let Some(Doing::Approval(so_far)) =
                    world.state.steps[*place].activity.as_ref().map(|there| &there.doing)
                else {
                    unreachable!("it waits for people")
                };
                let by = u8::try_from(so_far.len()).unwrap();
                world.now = world.now.min(world.state.next_due().unwrap());
                if world.state.next_due().unwrap() <= world.now {
                    Event::Woken { epoch }
                } else {
                    world.decides(epoch, *place, by, !pick.is_multiple_of(4))
                }
            } else {
                world.now = world.state.next_due().unwrap().max(world.now);
                Event::Woken { epoch }
            }
        };
        let told = format!("{event:?}");
        prop_assert_eq!(
            world.deliver(event)?,
            None,
            "an owner that does what is due is refused: {}",
            told
        );
    }
    Err(TestCaseError::fail(format!("it never ends: {:?}", world.state)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The invariants after every event, and the same transitions from what was recorded: nothing but the arguments counts.
    #[test]
    fn every_order_of_events_keeps_the_promises(case in case()) {
        let world = case.play()?;
        let mut state = world.recorded[0].state().clone();
        for ((event, at), recorded) in world.events.iter().zip(&world.recorded[1..]) {
            let again = decide(&world.plan, &state, event.clone(), *at).unwrap();
            prop_assert_eq!(&again, recorded);
            state = again.state().clone();
        }
    }

    /// Transitions that are committed together are the same as one after the other.
    #[test]
    fn two_transitions_can_be_one_commit(case in case()) {
        let world = case.play()?;
        for pair in world.recorded.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let both = first.clone().then(second.clone());
            let committed = RunState { sequence: first.state().sequence, ..second.state().clone() };
            prop_assert_eq!(both.state(), &committed);
            prop_assert_eq!((both.evaluations(), both.concludes()), (second.evaluations(), second.concludes()));
            prop_assert_eq!(both.effects(), &[first.effects(), second.effects()].concat()[..]);
            prop_assert_eq!(both.facts(), &[first.facts(), second.facts()].concat()[..]);
            // What is stored of an end is the last that was said of it.
            let rows = |of: &[&Transition]| -> BTreeMap<Slot, String> {
                of.iter().flat_map(|one| one.ended()).map(|ended| (ended.slot, format!("{ended:?}"))).collect()
            };
            prop_assert_eq!(rows(&[&both]), rows(&[first, second]));
            prop_assert_eq!(both.ended().len(), rows(&[&both]).len());
        }
    }

    /// From wherever a run is, each of three ways leads to an end: somebody cancels it, its deadlines pass, or an owner goes on
    /// with it.
    #[test]
    fn every_run_can_be_ended(case in case(), picks in prop::collection::vec(any::<u32>(), 1..60), crashes in 0_u32..4) {
        let mut driven = case.play()?;
        if driven.state.status.is_terminal() {
            return Ok(());
        }
        let mut cancelled = case.play()?;
        cancelled.deliver(Event::CancelRequested { by: "somebody".into() })?;
        prop_assert_eq!(cancelled.state.status, Status::Cancelled);

        let mut late = case.play()?;
        for _ in 0..3 {
            if !late.state.status.is_terminal() {
                let lease = late.state.lease_until.unwrap_or(late.now);
                late.now = late.state.deadline.max(lease).max(late.now);
                let take = Event::Taken { owner: "late".into(), lease_until: late.now };
                prop_assert_eq!(late.deliver(take)?, None);
            }
        }
        prop_assert!(late.state.status.is_terminal(), "one more deadline for each phase, and then: {:?}", late.state);
        prop_assert!(late.state.status != Status::Succeeded);

        drive(&mut driven, &picks, crashes)?;
    }

    /// A run that is driven from its beginning ends, and every step of it.
    #[test]
    fn every_driven_run_ends(plan in plan(), picks in prop::collection::vec(any::<u32>(), 1..200), crashes in 0_u32..4) {
        let mut world = World::new(plan, 0, Duration::from_secs(3_600));
        drive(&mut world, &picks, crashes)?;
        prop_assert!(world.state.status != Status::Cancelled);
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
