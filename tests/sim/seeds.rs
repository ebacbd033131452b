//! Many seeds, none of which may break a promise.

use weft::testing::sim::{Ground, Scenario, Verdict, simulate};

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, declared in `config/env_var.rs`")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    variable(name).map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` is a number")))
}

fn play(ground: &Ground, seed: u64) -> Verdict {
    let verdict = simulate(ground, &Scenario::of_seed(seed), variable("WEFT_SIM_TRACE").is_some());
    for line in &verdict.trace {
        println!("{line}");
    }
    verdict
}

#[test]
fn no_seed_breaks_a_promise() {
    let ground = Ground::new();
    let seeds = match number("WEFT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEFT_SIM_SEEDS").unwrap_or(200),
    };
    let mut broken = Vec::new();
    let (mut runs, mut attempts, mut vanished, mut taken, mut calls, mut processes) = (0, 0, 0, 0, 0, 0);
    let begun = std::time::Instant::now();
    for seed in seeds.clone() {
        let verdict = play(&ground, seed);
        runs += verdict.runs;
        attempts += verdict.attempts;
        vanished += verdict.vanished;
        taken += verdict.taken_over;
        calls += verdict.calls;
        processes += verdict.processes;
        if !verdict.violations.is_empty() {
            broken.push(verdict);
        }
    }
    println!(
        "{} seeds in {:?}: {runs} runs, {attempts} attempts, {vanished} vanished with their process, {taken} take-overs, \
         {processes} processes, {calls} calls of storage",
        seeds.end - seeds.start,
        begun.elapsed()
    );
    for verdict in &broken {
        println!(
            "seed {}: replay it with `WEFT_SIM_SEED={} WEFT_SIM_TRACE=1 cargo test --test sim no_seed -- --nocapture`",
            verdict.seed, verdict.seed
        );
        for violation in &verdict.violations {
            println!("    {violation}");
        }
    }
    assert!(broken.is_empty(), "{} seed(s) broke a promise", broken.len());
}

#[test]
fn a_seed_is_one_history() {
    let ground = Ground::new();
    for seed in [1, 7, 20, 33, 48] {
        let first = simulate(&ground, &Scenario::of_seed(seed), true);
        let second = simulate(&ground, &Scenario::of_seed(seed), true);
        for (one, other) in first.trace.iter().zip(&second.trace) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}
