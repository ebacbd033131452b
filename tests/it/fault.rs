//! Ports that fail on demand.

use std::sync::Arc;
use std::time::Duration;

use weft::clock::SystemClock;
use weft::store::Error;
use weft::store::fault::{Call, Fault, Faults, Faulty, Plan, Rule};
use weft::store::port::{Key, Operation, Ports, Properties, QueueName, TableName};
use weft::store::sqlite;

struct Setting {
    ports: Ports,
    faults: Arc<Faults>,
    table: TableName,
}

impl Setting {
    async fn new() -> Self {
        let (ports, faults) = Faulty::wrap(sqlite::open(None, Arc::new(SystemClock)).unwrap(), Plan::Calm);
        let table = TableName::new("org1").unwrap();
        ports.tables.create_table(&table).await.unwrap();
        faults.reset();
        Self { ports, faults, table }
    }

    async fn insert(&self, row: &str) -> Result<(), Error> {
        let insert = vec![Operation::Insert(Key::new(row).unwrap(), Properties::new())];
        self.ports
            .tables
            .commit(&self.table, &Key::new("p").unwrap(), insert)
            .await
            .map(drop)
    }

    async fn has(&self, row: &str) -> bool {
        let found = self
            .ports
            .tables
            .get(&self.table, &Key::new("p").unwrap(), &Key::new(row).unwrap())
            .await;
        found.unwrap().is_some()
    }
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Unavailable { .. })), "{result:?}");
}

#[tokio::test]
async fn before_nothing_is_done_after_all_is() {
    let it = Setting::new().await;
    it.faults.plan(Plan::Script(vec![
        Rule::new(Fault::Before).calls(&[Call::Commit]).only(1),
        Rule::new(Fault::After).calls(&[Call::Commit]).only(2),
        Rule::new(Fault::Throttle).calls(&[Call::Commit]).only(3),
        Rule::new(Fault::Delay(Duration::from_millis(1)))
            .calls(&[Call::Commit])
            .only(4),
    ]));
    unavailable(it.insert("before").await);
    unavailable(it.insert("after").await);
    assert!(matches!(it.insert("throttled").await, Err(Error::Throttled { .. })));
    it.insert("delayed").await.unwrap();
    it.insert("calm").await.unwrap();
    assert!(!it.has("before").await && !it.has("throttled").await);
    assert!(it.has("after").await && it.has("delayed").await && it.has("calm").await);
    assert_eq!(
        (
            it.faults.count(Call::Commit),
            it.faults.count(Call::Get),
            it.faults.injected()
        ),
        (5, 5, 4)
    );
    assert_eq!(it.faults.total(), it.faults.calls().values().sum::<u64>());
}

#[tokio::test]
async fn a_crash_lasts_until_it_is_healed() {
    for (fault, done) in [(Fault::Crash, false), (Fault::CrashAfter, true)] {
        let it = Setting::new().await;
        it.faults
            .plan(Plan::Script(vec![Rule::new(fault).writes().prefix("org").only(2)]));
        it.insert("first").await.unwrap();
        unavailable(it.insert("second").await);
        assert!(it.faults.crashed());
        unavailable(it.insert("third").await);
        let queue = QueueName::new("work").unwrap();
        unavailable(it.ports.queues.create_queue(&queue).await);
        it.faults.heal();
        assert!(it.has("first").await && !it.has("third").await);
        assert_eq!(it.has("second").await, done);
    }
}

#[tokio::test]
async fn an_outage_is_switched_on_and_off() {
    let it = Setting::new().await;
    it.insert("before").await.unwrap();
    it.faults.down(true);
    unavailable(it.insert("down").await);
    unavailable(it.ports.queues.create_queue(&QueueName::new("work").unwrap()).await);
    it.faults.down(false);
    assert!(it.has("before").await && !it.has("down").await);
}

#[tokio::test]
async fn a_plan_in_code_sees_what_is_called() {
    let it = Setting::new().await;
    it.faults.plan(Plan::Custom(Box::new(|moment| {
        (moment.call == Call::Commit && moment.name == "org1" && moment.of_kind == 2).then_some(Fault::Before)
    })));
    it.insert("first").await.unwrap();
    unavailable(it.insert("second").await);
    it.insert("third").await.unwrap();
}
