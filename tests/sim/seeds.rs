//! Many seeds, none of which may break a promise.
//!
//! `WEFT_SIM_SEED` plays one, `WEFT_SIM_SEEDS` says how many from 0 on, `WEFT_SIM_TRACE` prints everything that happens.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use weft::testing::sim::{Ground, Scenario, Tally, Verdict, simulate};

/// Seeds of an ordinary run: about 95 s of one core, unoptimized.
const ORDINARY: u64 = 300;
/// Seeds of a nightly run.
const NIGHTLY: u64 = 10_000;

/// What an ordinary run of the seeds meets, each at least [`LEAST`] times: so a workload that silently stops making something
/// fails.
const MET: &[&str] = &[
    // Each kind of step, with the ends that it may come to.
    "python: succeeded",
    "python: failed",
    "python: timed_out",
    "python: cancelled",
    "python: skipped",
    "python: left out",
    "python: carried",
    "map: succeeded",
    "map: failed",
    "map: timed_out",
    "map: cancelled",
    "map: skipped",
    "map of runs: succeeded",
    "loop: succeeded",
    "loop: failed",
    "loop of runs: succeeded",
    "choose: succeeded",
    "compute: succeeded",
    "delay: succeeded",
    "approval: succeeded",
    "approval: failed",
    "approval: timed_out",
    "workflow: succeeded",
    "workflow: failed",
    "workflow: timed_out",
    "workflow: cancelled",
    // How runs end, and what starts them.
    "run: succeeded",
    "run: failed",
    "run: timed_out",
    "run: cancelled",
    "origin: caller",
    "origin: child",
    "origin: started by a step",
    "origin: schedule",
    "origin: hook",
    "origin: resume",
    "origin: rerun",
    "depth: 2",
    "depth: 3",
    // What is asked for and told.
    "ask: waits",
    "ask: repeated",
    "ask: begins later",
    "ask: priority",
    "ask: key, Queue",
    "ask: key, Skip",
    "ask: key, CancelRunning",
    "ask: skipped for its concurrency key",
    "ask: resume repeated",
    "ask: rerun repeated",
    "key: held by several, one after the other",
    "decision: taken",
    "decision: refused as a second one",
    "decision: refused as too late",
    "delivery: taken",
    "delivery: repeated",
    "schedule: fired",
    "schedule: skipped or missed",
    // What happens to runs.
    "fact: retry_planned",
    "fact: taken_over",
    "fact: phase_begun on_failure",
    "fact: phase_begun finally",
    // What goes wrong.
    "fault: killed",
    "fault: dies before a call",
    "fault: dies after a call",
    "fault: stopped",
    "fault: frozen",
    "fault: outage",
    "fault: call not done",
    "fault: answer lost",
    "fault: done late",
    "fault: throttled",
    "fault: slow",
    "fault: handed out twice",
    "fault: handed out late",
    "fault: no worker",
];
/// How often each of them at least.
const LEAST: u64 = 3;
/// What comes of five failed deliveries in a row, so that an ordinary run meets it a few times or once.
const RARE: &str = "fault: quarantined";

fn variable(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a setting of the tests, declared in `config/env_var.rs`"
    )]
    std::env::var(name)
        .ok()
        .filter(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

fn number(name: &str) -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a setting of the tests, declared in `config/env_var.rs`"
    )]
    let text = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{name}` is a number")))
}

fn play(ground: &Ground, seed: u64) -> Verdict {
    let verdict = simulate(ground, &Scenario::of_seed(seed), variable("WEFT_SIM_TRACE").is_some());
    for line in &verdict.trace {
        println!("{line}");
    }
    verdict
}

fn replay(seed: u64) -> String {
    format!("WEFT_SIM_SEED={seed} WEFT_SIM_TRACE=1 cargo test --test sim no_seed -- --nocapture")
}

/// Plays seeds on every core; the verdicts by seed.
fn play_all(seeds: std::ops::Range<u64>) -> Vec<Verdict> {
    let ground = Ground::new();
    let (next, verdicts) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    // What panics below says where, and not under which seed.
                    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&ground, seed)));
                    match played {
                        Ok(verdict) => verdicts.lock().unwrap().push(verdict),
                        Err(panic) => {
                            println!("seed {seed} panicked: {}", replay(seed));
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap();
    verdicts.sort_by_key(|verdict| verdict.seed);
    verdicts
}

#[test]
fn no_seed_breaks_a_promise() {
    let ordinary = if variable("WEFT_TEST_NIGHTLY").is_some() {
        NIGHTLY
    } else {
        ORDINARY
    };
    let seeds = match number("WEFT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEFT_SIM_SEEDS").unwrap_or(ordinary),
    };
    let many = seeds.end - seeds.start >= ORDINARY;
    let begun = Instant::now();
    let verdicts = play_all(seeds);
    let sum = |of: fn(&Verdict) -> u64| verdicts.iter().map(of).sum::<u64>();
    let vanished = sum(|verdict| verdict.vanished as u64);
    let taken_over = sum(|verdict| verdict.taken_over);
    println!(
        "{} seeds in {:.1?}: {} runs, {} attempts, {vanished} that vanished with their process, {taken_over} take-overs, {} \
         processes, {} calls of storage",
        verdicts.len(),
        begun.elapsed(),
        sum(|verdict| verdict.runs as u64),
        sum(|verdict| verdict.attempts as u64),
        sum(|verdict| verdict.processes),
        sum(|verdict| verdict.calls),
    );
    let mut met = Tally::default();
    verdicts.iter().for_each(|verdict| met.merge(&verdict.met));
    for (what, count) in met.iter() {
        println!("{count:>9}  {what}");
    }
    let broken: Vec<_> = verdicts
        .iter()
        .filter(|verdict| !verdict.violations.is_empty())
        .collect();
    for verdict in &broken {
        println!("seed {}: {}", verdict.seed, replay(verdict.seed));
        for violation in &verdict.violations {
            println!("    {violation}");
        }
    }
    assert!(broken.is_empty(), "{} seed(s) broke a promise", broken.len());
    // Seeds under which nothing happens would break nothing either.
    assert!(!many || (vanished > 80 && taken_over > 300), "too little goes wrong");
    let missed: Vec<_> = MET.iter().filter(|what| met.of(what) < LEAST).collect();
    assert!(!many || missed.is_empty(), "hardly met: {missed:?}");
    assert!(!many || met.of(RARE) > 0, "never met: {RARE}");
}

#[test]
fn a_seed_is_one_history() {
    let ground = Ground::new();
    for seed in [1, 7, 20, 33, 48, 56] {
        let first = simulate(&ground, &Scenario::of_seed(seed), true);
        let second = simulate(&ground, &Scenario::of_seed(seed), true);
        for (one, other) in first.trace.iter().zip(&second.trace) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}
