//! A death at every single call of storage, one after the other.

use weft::testing::sim::{CrashAt, Ground, Scenario, simulate};

/// More calls than the scenario ever makes.
const MOST: u64 = 5_000;

#[test]
fn a_death_at_any_call_breaks_no_promise() {
    let ground = Ground::new();
    let undisturbed = simulate(&ground, &Scenario::small(None), false);
    assert_eq!(undisturbed.violations, Vec::<String>::new());
    let processes = undisturbed.processes;
    let mut deaths = 0;
    for call in 1..MOST {
        let mut died = false;
        for done in [false, true] {
            let crash = CrashAt { call, done };
            let verdict = simulate(&ground, &Scenario::small(Some(crash)), false);
            assert_eq!(verdict.violations, Vec::<String>::new(), "{crash:?}");
            died |= verdict.processes > processes;
        }
        if !died {
            // Beyond the last call of the scenario.
            assert!(call > 60, "the scenario makes {call} calls");
            println!("{deaths} deaths");
            return;
        }
        deaths += 2;
    }
    panic!("the scenario does not come to its end");
}
