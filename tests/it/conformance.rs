//! The storage contract against each backend.

use std::sync::Arc;

use weft::clock::{Clock, ManualClock};
use weft::domain::Timestamp;
use weft::store::conformance::{Pace, all};
use weft::store::fault::{Faulty, Plan};
use weft::store::sqlite;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let ports = sqlite::open(
        Some(&folder.path().join("new/weft.db")),
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .unwrap();
    all(&ports, "one", Pace::Manual(&clock)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_in_memory() {
    let clock = clock();
    let ports = sqlite::open(None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    all(&ports, "one", Pace::Manual(&clock)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_through_ports_that_could_fail() {
    let clock = clock();
    let (ports, faults) = Faulty::wrap(
        sqlite::open(None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap(),
        Plan::Calm,
    );
    all(&ports, "one", Pace::Manual(&clock)).await;
    assert_eq!(faults.injected(), 0);
    assert!(faults.total() > 1000);
}
