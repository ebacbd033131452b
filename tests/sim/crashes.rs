//! A death at every single call of storage, one after the other.

use weft::testing::sim::{CrashAt, Ground, Scenario, simulate};

/// More calls than a scenario ever makes.
const MOST: u64 = 5_000;

/// Plays a scenario with a death at each of its calls; `least` is how many it makes at least.
fn breaks_no_promise(scenario: impl Fn(Option<CrashAt>) -> Scenario, least: u64) {
    let ground = Ground::new();
    let undisturbed = simulate(&ground, &scenario(None), false);
    assert_eq!(undisturbed.violations, Vec::<String>::new());
    let processes = undisturbed.processes;
    let mut deaths = 0;
    for call in 1..MOST {
        let mut died = false;
        for done in [false, true] {
            let crash = CrashAt { call, done };
            let verdict = simulate(&ground, &scenario(Some(crash)), false);
            assert_eq!(verdict.violations, Vec::<String>::new(), "{crash:?}");
            died |= verdict.processes > processes;
        }
        if !died {
            // Beyond the last call of the scenario.
            assert!(call > least, "the scenario makes {call} calls");
            println!("{deaths} deaths");
            return;
        }
        deaths += 2;
    }
    panic!("the scenario does not come to its end");
}

#[test]
fn a_death_at_any_call_breaks_no_promise() {
    breaks_no_promise(Scenario::small, 60);
}

/// A step that takes longer than any invocation under the Functions host: it is made to its end, whatever dies.
#[test]
fn a_death_at_any_call_of_a_long_attempt_breaks_no_promise() {
    let undisturbed = simulate(&Ground::new(), &Scenario::long(None), false);
    assert_eq!(
        (undisturbed.met.of("run: succeeded"), undisturbed.attempts),
        (1, 1),
        "it is made once"
    );
    breaks_no_promise(Scenario::long, 40);
}

#[test]
fn a_death_at_any_call_of_a_graph_breaks_no_promise() {
    breaks_no_promise(Scenario::small_graph, 60);
}
