//! Measures what the scheduler takes to decide on one event of a run with a thousand steps, and how large such a run's
//! checkpoint is. Run by `scripts/bench`; never a test.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::time::{Duration, Instant};

use serde_json::Value;
use weft::domain::{DeclaredAs, Limits, Outcome, Rights, RunId, Timestamp};
use weft::scheduler::{Action, Code, Dependency, Event, Output, Plan, Starts, StepPlan, Work, begin, decide};

const STEPS: usize = 1_000;

fn report(what: &str, figure: &str) {
    println!("{what:<78} {figure}");
}

fn plan(edges: impl Fn(usize) -> Vec<usize>) -> Plan {
    let code = Code {
        starts: Starts::Nothing,
        declared_as: DeclaredAs::default(),
        name: "hello".into(),
        module: "workflows.hello".into(),
        function: "hello".into(),
        limits: Limits::default(),
        rights: Rights::default(),
        secrets: Vec::new(),
        digest: None,
    };
    let step = |place: usize| StepPlan {
        depends_on: edges(place).into_iter().map(Dependency::on).collect(),
        ..StepPlan::new(
            format!("step-{place}"),
            Work::Once(Action::Code(Box::new(code.clone()))),
        )
    };
    Plan {
        deadline_ms: None,
        workflow: "large".into(),
        bundle: "sha256:0".into(),
        revision: None,
        environment: None,
        profile: None,
        steps: (0..STEPS).map(step).collect(),
        output: Output::Step(STEPS - 1),
        active: 32,
    }
}

/// Plays a run of `plan` to its end: what each decision took in microseconds, and the largest checkpoint.
fn play(plan: &Plan) -> (Vec<f64>, usize) {
    let now = Timestamp::from_millis(1_795_219_200_000);
    let run = RunId::derived(now, "bench");
    let deadline = now.plus(Duration::from_secs(3_600));
    let mut state = begin(&run, plan, &[], deadline, now).state().clone();
    let (mut samples, mut largest) = (Vec::new(), 0);
    let mut event = Event::Taken {
        owner: "here".into(),
        lease_until: deadline,
    };
    loop {
        let begun = Instant::now();
        let Ok(transition) = decide(plan, &state, event, now) else {
            unreachable!("what runs is heard about")
        };
        samples.push(begun.elapsed().as_secs_f64() * 1e6);
        state = transition.state().clone();
        largest = largest.max(serde_json::to_vec(&state).unwrap_or_default().len());
        let Some((slot, attempt)) = state.running().next().map(|(slot, attempt)| (slot, attempt.clone())) else {
            break;
        };
        event = Event::AttemptFinished {
            epoch: state.epoch,
            slot,
            attempt,
            outcome: Box::new(Outcome::Succeeded { value: Value::Null }),
            sample: 0.5,
        };
    }
    assert!(state.status.is_terminal(), "the run did not end");
    samples.sort_by(f64::total_cmp);
    (samples, largest)
}

fn main() {
    // The same graph on every machine.
    let random = |place: usize| {
        let mut seed = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut earlier: Vec<usize> = (0..5.min(place))
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (usize::from(seed.to_le_bytes()[3]) << 8 | usize::from(seed.to_le_bytes()[4])) % place
            })
            .collect();
        earlier.sort_unstable();
        earlier.dedup();
        earlier
    };
    let graphs: [(&str, Plan); 3] = [
        ("a chain", plan(|place| place.checked_sub(1).into_iter().collect())),
        (
            "one, then all, then one",
            plan(|place| match place {
                0 => Vec::new(),
                place if place + 1 == STEPS => (1..place).collect(),
                _ => vec![0],
            }),
        ),
        ("five random edges a step", plan(random)),
    ];
    for (what, plan) in &graphs {
        let (samples, largest) = play(plan);
        let at = |part: usize| samples[(samples.len() - 1) * part / 100];
        report(
            &format!("scheduler: one event of {STEPS} steps, {what}, p50 / p99"),
            &format!("{:.0} / {:.0} µs", at(50), at(99)),
        );
        report(
            &format!("scheduler: the largest checkpoint, {what}"),
            &format!("{:.1} KB", largest as f64 / 1e3),
        );
    }
}
