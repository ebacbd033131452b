//! The storage contract against the storage of the simulator: what holds there holds for the real ones.

use std::sync::Arc;

use weft::clock::{Clock, ManualClock};
use weft::domain::Timestamp;
use weft::store::conformance::{Pace, all};
use weft::store::port::MAX_PAGE;
use weft::testing::sim::memory::Memory;

#[tokio::test]
async fn the_contract_holds() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let memory = Memory::new(Arc::clone(&clock) as Arc<dyn Clock>, MAX_PAGE);
    all(&memory.ports(), "one", Pace::Manual(&clock)).await;
}
