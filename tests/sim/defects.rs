//! That the simulator finds something: storage that breaks a promise, and code that makes a mistake, are noticed, each time by
//! what they must be noticed by.

use weft::testing::sim::memory::Defect;
use weft::testing::sim::{Ground, Scenario, Slip, simulate};

/// Most seeds until a defect is noticed.
const SEEDS: u64 = 150;

/// Plays seeds over storage with a defect until one is noticed.
fn is_noticed(defect: Defect, by: &[&str]) {
    noticed(&format!("{defect:?}"), |scenario| scenario.defect = Some(defect), by);
}

/// Plays seeds with processes that make a mistake until one is noticed.
fn is_told(slip: Slip, by: &[&str]) {
    noticed(&format!("{slip:?}"), |scenario| scenario.slip = Some(slip), by);
}

fn noticed(what: &str, with: impl Fn(&mut Scenario), by: &[&str]) {
    let ground = Ground::new();
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let mut scenario = Scenario::of_seed(seed);
        with(&mut scenario);
        let verdict = simulate(&ground, &scenario, false);
        let found = |violation: &String| by.iter().any(|by| violation.contains(by));
        if let Some(violation) = verdict.violations.iter().find(|violation| found(violation)) {
            println!("{what}: seed {seed}: {violation:.300}");
            return;
        }
        others.extend(verdict.violations);
    }
    panic!("{what} was not noticed; only {others:#?}");
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

#[test]
fn wake_ups_that_nobody_sends() {
    is_told(Slip::SendsNoWakeUp, &["is stuck"]);
}

#[test]
fn continuations_that_nobody_sends() {
    is_told(Slip::SendsNoContinuation, &["is stuck", "long after its deadline"]);
}

#[test]
fn children_that_are_started_twice() {
    is_told(Slip::DoublesChildren, &["which did not start it"]);
}

#[test]
fn fire_times_that_start_two_runs() {
    is_told(Slip::DoublesFires, &["none of its times"]);
}

#[test]
fn letters_that_are_lost() {
    is_told(Slip::LosesLetters, &["these were said before", "could have begun"]);
}

#[test]
fn concurrency_keys_that_two_hold() {
    is_told(Slip::ForgetsHolders, &["others with the key"]);
}

#[test]
fn items_in_another_order() {
    is_told(Slip::SwapsItems, &["should have"]);
}

#[test]
fn ends_without_a_record() {
    is_told(Slip::SkipsRecords, &["audit chain is broken", "audit records are"]);
}

#[test]
fn calls_without_their_arguments() {
    is_told(Slip::ForgetsArguments, &["was given"]);
}
