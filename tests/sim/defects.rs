//! That the simulator finds something: storage that breaks a promise is noticed, each time by what it must be noticed by.

use weft::testing::sim::memory::Defect;
use weft::testing::sim::{Ground, Scenario, simulate};

/// Plays seeds over storage with a defect until one is noticed.
fn is_noticed(defect: Defect, by: &[&str]) {
    let ground = Ground::new();
    let mut others = Vec::new();
    for seed in 0..150 {
        let mut scenario = Scenario::of_seed(seed);
        scenario.defect = Some(defect);
        let verdict = simulate(&ground, &scenario, false);
        let found = |violation: &String| by.iter().any(|by| violation.contains(by));
        if let Some(violation) = verdict.violations.iter().find(|violation| found(violation)) {
            println!("{defect:?}: seed {seed}: {violation:.300}");
            return;
        }
        others.extend(verdict.violations);
    }
    panic!("{defect:?} was not noticed; only {others:#?}");
}

#[test]
fn writes_over_what_others_wrote() {
    is_noticed(
        Defect::IgnoresVersions,
        &["changed after it had ended", "second outcome", "went from transition"],
    );
}

#[test]
fn inserts_over_what_is_there() {
    is_noticed(Defect::InsertsOver, &["was begun a second time"]);
}

#[test]
fn half_a_transaction() {
    is_noticed(
        Defect::TearsTransactions,
        &["audit chain is broken", "audit records are"],
    );
}

#[test]
fn lost_wake_ups() {
    is_noticed(Defect::LosesDelayed, &["is stuck"]);
}

#[test]
fn messages_that_stay() {
    is_noticed(Defect::KeepsDeleted, &["never goes away"]);
}
