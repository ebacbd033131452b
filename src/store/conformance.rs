//! The contract of `port.rs` as functions that run against every backend. Each makes what it needs under names of its
//! own, asserts only what all backends hold, and removes what it made.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::error::Error;
use super::port::{
    BlobPath, Comparison, ContainerName, Continuation, ETag, Entity, Filter, Key, MAX_APPEND_BYTES,
    MAX_BATCH_OPERATIONS, MAX_MESSAGE_BYTES, MAX_PAGE, MAX_PROPERTIES, MAX_PROPERTY_BYTES, Match, Message, Operation,
    PART_BYTES, Page, Ports, Properties, Put, Query, QueueName, TableName, Upload, Value, check_operations,
};
use crate::clock::ManualClock;
use crate::domain::Timestamp;

/// How time passes for the backend under test.
#[derive(Debug, Clone, Copy)]
pub enum Pace<'a> {
    /// The backend's clock is moved.
    Manual(&'a ManualClock),
    /// The backend has a clock of its own: poll, within bounds.
    Real,
}

/// How often and how long a message is looked for where time can't be moved.
const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(15);

impl Pace<'_> {
    /// A visibility or delay that is worth waiting for.
    const fn short(self) -> Duration {
        match self {
            Self::Manual(_) => Duration::from_secs(30),
            Self::Real => Duration::from_secs(1),
        }
    }

    /// Receives the next message, which becomes visible after `after`.
    async fn receive(self, ports: &Ports, queue: &QueueName, after: Duration, visibility: Duration) -> Message {
        let mut waited = Duration::ZERO;
        if let Self::Manual(clock) = self {
            clock.advance(after);
        }
        loop {
            let mut messages = ok(ports.queues.receive(queue, 1, visibility).await);
            match (messages.pop(), self) {
                (Some(message), _) => return message,
                (None, Self::Manual(_)) => panic!("a message of `{queue}` is visible after {after:?}"),
                (None, Self::Real) => {
                    assert!(
                        waited < after + PATIENCE,
                        "a message of `{queue}` is visible within {waited:?}"
                    );
                    tokio::time::sleep(POLL).await;
                    waited += POLL;
                }
            }
        }
    }
}

/// Everything. `unique` is added to all names: at most 20 of a–z and 0–9.
pub async fn all(ports: &Ports, unique: &str, pace: Pace<'_>) {
    Box::pin(async {
        tables_exist_or_not(ports, unique).await;
        rows_are_written_under_conditions(ports, unique).await;
        batches_are_all_or_nothing(ports, unique).await;
        increments_are_exact(ports, unique).await;
        batches_stay_atomic_under_contention(ports, unique).await;
        limits_hold_at_the_edge(ports, unique).await;
        keys_are_never_syntax(ports, unique).await;
        values_come_back_as_they_were(ports, unique).await;
    })
    .await;
    Box::pin(async {
        ranges_and_pages(ports, unique).await;
        filters_of_every_type(ports, unique).await;
        filters_are_never_syntax(ports, unique).await;
        impossible_queries_are_refused(ports, unique).await;
        partitions_are_apart(ports, unique).await;
    })
    .await;
    Box::pin(async {
        blobs_are_put_and_read(ports, unique).await;
        blobs_grow_where_expected(ports, unique).await;
        blobs_are_listed(ports, unique).await;
        blobs_are_made_of_parts(ports, unique).await;
        blobs_are_deleted_as_they_were_seen(ports, unique).await;
    })
    .await;
    Box::pin(async {
        queues_exist_or_not(ports, unique).await;
        messages_are_hidden_and_come_back(ports, unique, pace).await;
        receipts_go_stale(ports, unique, pace).await;
        messages_are_delayed(ports, unique, pace).await;
        messages_carry_any_text(ports, unique).await;
        every_message_comes_once(ports, unique).await;
    })
    .await;
}

#[track_caller]
fn ok<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("expected success: {error} ({error:?})"),
    }
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::NotFound { .. })),
        "expected NotFound: {result:?}"
    );
}

#[track_caller]
fn malformed<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::Malformed { .. })),
        "expected Malformed: {result:?}"
    );
}

#[track_caller]
fn too_large<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::TooLarge { .. })),
        "expected TooLarge: {result:?}"
    );
}

#[track_caller]
fn exists_already<T: std::fmt::Debug>(result: Result<T, Error>, at: usize) {
    assert!(
        matches!(result, Err(Error::AlreadyExists { index, .. }) if index == at),
        "expected AlreadyExists by operation {at}: {result:?}"
    );
}

#[track_caller]
fn precondition_failed<T: std::fmt::Debug>(result: Result<T, Error>, at: usize) {
    assert!(
        matches!(result, Err(Error::PreconditionFailed { index, .. }) if index == at),
        "expected PreconditionFailed by operation {at}: {result:?}"
    );
}

fn key(text: &str) -> Key {
    ok(Key::new(text))
}

fn one(value: impl Into<Value>) -> Properties {
    Properties::new().with("value", value)
}

/// A table of a check's own.
struct Table<'a> {
    ports: &'a Ports,
    name: TableName,
}

impl<'a> Table<'a> {
    async fn new(ports: &'a Ports, check: &str, unique: &str) -> Self {
        let name = ok(TableName::new(format!("Conf{check}{unique}")));
        ok(ports.tables.create_table(&name).await);
        Self { ports, name }
    }

    async fn commit(&self, partition: &str, operations: Vec<Operation>) -> Result<Vec<ETag>, Error> {
        self.ports.tables.commit(&self.name, &key(partition), operations).await
    }

    async fn insert(&self, partition: &str, row: &str, properties: Properties) -> ETag {
        let etags = ok(self
            .commit(partition, vec![Operation::Insert(key(row), properties)])
            .await);
        assert_eq!(etags.len(), 1, "one ETag for each operation");
        etags.into_iter().next().unwrap_or_else(|| panic!("an ETag"))
    }

    async fn get(&self, partition: &str, row: &str) -> Option<Entity> {
        ok(self.ports.tables.get(&self.name, &key(partition), &key(row)).await)
    }

    async fn query(&self, query: Query) -> Result<Page, Error> {
        self.ports.tables.query(&self.name, query).await
    }

    /// All rows of a query, over all of its pages.
    async fn all(&self, query: Query) -> Vec<Entity> {
        let mut found = Vec::new();
        let mut query = query;
        for _ in 0..10_000 {
            let page = ok(self.query(query.clone()).await);
            assert!(page.entities.len() <= query.limit, "no more rows than asked for");
            found.extend(page.entities);
            match page.next {
                None => return found,
                next => query = query.after(next),
            }
        }
        panic!("a query ends");
    }

    async fn rows(&self, query: Query) -> Vec<String> {
        self.all(query)
            .await
            .into_iter()
            .map(|entity| entity.row.to_string())
            .collect()
    }

    async fn drop(self) {
        ok(self.ports.tables.delete_table(&self.name).await);
    }
}

/// Creating twice and deleting twice is fine; a missing table is told.
pub async fn tables_exist_or_not(ports: &Ports, unique: &str) {
    let table = ok(TableName::new(format!("ConfExist{unique}")));
    let (partition, row) = (key("p"), key("r"));
    let insert = || vec![Operation::Insert(row.clone(), one(1))];
    not_found(ports.tables.get(&table, &partition, &row).await);
    not_found(ports.tables.query(&table, Query::partition(partition.clone())).await);
    not_found(ports.tables.commit(&table, &partition, insert()).await);
    not_found(
        ports
            .tables
            .commit(&table, &partition, vec![Operation::Upsert(row.clone(), one(1))])
            .await,
    );
    ok(ports.tables.delete_table(&table).await);
    ok(ports.tables.create_table(&table).await);
    assert_eq!(
        ok(ports.tables.get(&table, &partition, &row).await),
        None,
        "a missing row is nothing"
    );
    assert_eq!(
        ok(ports.tables.query(&table, Query::partition(partition.clone())).await),
        Page::default()
    );
    ok(ports.tables.commit(&table, &partition, insert()).await);
    ok(ports.tables.create_table(&table).await);
    assert!(
        ok(ports.tables.get(&table, &partition, &row).await).is_some(),
        "a table created again stays as it is"
    );
    ok(ports.tables.delete_table(&table).await);
    not_found(ports.tables.get(&table, &partition, &row).await);
    ok(ports.tables.delete_table(&table).await);
}

/// Insert, replace, merge, upsert and delete, each where it succeeds and where it must not.
pub async fn rows_are_written_under_conditions(ports: &Ports, unique: &str) {
    use Operation::{Delete, Insert, Merge, Replace, Upsert};
    let table = Table::new(ports, "Write", unique).await;
    let r = || key("r");
    let two = || Properties::new().with("a", 1).with("b", "x");

    let first = table.insert("p", "r", two()).await;
    let stored = table
        .get("p", "r")
        .await
        .unwrap_or_else(|| panic!("the row was inserted"));
    assert_eq!((&stored.partition, &stored.row), (&key("p"), &r()));
    assert_eq!(stored.etag, first, "a commit answers the ETag that a read gives");
    assert_eq!(stored.properties, two());
    exists_already(table.commit("p", vec![Insert(r(), one(2))]).await, 0);

    // Merge: the given ones are set, the others stay.
    let second = ok(table
        .commit(
            "p",
            vec![Merge(
                r(),
                Properties::new().with("a", 2),
                Match::Exactly(first.clone()),
            )],
        )
        .await);
    let stored = table.get("p", "r").await.unwrap_or_else(|| panic!("the row is there"));
    assert_eq!(stored.properties, Properties::new().with("a", 2).with("b", "x"));
    assert_eq!((second.len(), &second[0]), (1, &stored.etag));
    assert_ne!(second[0], first, "each write has an ETag of its own");

    // An old version fits nothing.
    precondition_failed(
        table
            .commit("p", vec![Merge(r(), one(3), Match::Exactly(first.clone()))])
            .await,
        0,
    );
    precondition_failed(
        table
            .commit("p", vec![Replace(r(), one(3), Match::Exactly(first.clone()))])
            .await,
        0,
    );
    precondition_failed(
        table
            .commit("p", vec![Delete(r(), Match::Exactly(first.clone()))])
            .await,
        0,
    );
    assert_eq!(table.get("p", "r").await, Some(stored), "what failed left no trace");

    // Replace: nothing else stays.
    let third = ok(table
        .commit("p", vec![Replace(r(), one(4), Match::Exactly(second[0].clone()))])
        .await);
    let fourth = ok(table.commit("p", vec![Replace(r(), one(4), Match::Any)]).await);
    assert_ne!(third, fourth, "the same content written again is a new version");
    assert_eq!(table.get("p", "r").await.map(|row| row.properties), Some(one(4)));
    ok(table.commit("p", vec![Merge(r(), Properties::new(), Match::Any)]).await);
    assert_eq!(table.get("p", "r").await.map(|row| row.properties), Some(one(4)));

    // Upsert replaces whole, and inserts.
    ok(table
        .commit("p", vec![Upsert(r(), Properties::new().with("other", true))])
        .await);
    assert_eq!(
        table.get("p", "r").await.map(|row| row.properties),
        Some(Properties::new().with("other", true))
    );
    let inserted = ok(table.commit("p", vec![Upsert(key("s"), one(5))]).await);
    assert_eq!(table.get("p", "s").await.map(|row| row.etag), Some(inserted[0].clone()));

    // Delete; then every condition fails.
    assert_eq!(
        ok(table
            .commit("p", vec![Delete(key("s"), Match::Exactly(inserted[0].clone()))])
            .await),
        [ETag(String::new())]
    );
    assert_eq!(table.get("p", "s").await, None);
    for condition in [Match::Any, Match::Exactly(inserted[0].clone())] {
        precondition_failed(table.commit("p", vec![Delete(key("s"), condition.clone())]).await, 0);
        precondition_failed(
            table
                .commit("p", vec![Merge(key("s"), one(6), condition.clone())])
                .await,
            0,
        );
        precondition_failed(table.commit("p", vec![Replace(key("s"), one(6), condition)]).await, 0);
    }
    assert_eq!(table.get("p", "s").await, None);

    // The ETag of a deleted row doesn't fit the row that is inserted in its place.
    let again = table.insert("p", "s", one(5)).await;
    assert_ne!(again, inserted[0]);
    precondition_failed(
        table
            .commit("p", vec![Delete(key("s"), Match::Exactly(inserted[0].clone()))])
            .await,
        0,
    );
    ok(table.commit("p", vec![Delete(key("s"), Match::Any)]).await);

    // A row may have no properties at all.
    table.insert("p", "bare", Properties::new()).await;
    assert_eq!(
        table.get("p", "bare").await.map(|row| row.properties),
        Some(Properties::new())
    );
    table.drop().await;
}

/// One operation that fails undoes the others, and is named.
pub async fn batches_are_all_or_nothing(ports: &Ports, unique: &str) {
    use Operation::{Delete, Insert, Merge, Replace, Upsert};
    let table = Table::new(ports, "Batch", unique).await;
    let old = table.insert("p", "there", one(1)).await;
    let before = table.all(Query::partition(key("p"))).await;

    type Expected = fn(Result<Vec<ETag>, Error>, usize);
    let failing: [(Operation, Expected); 5] = [
        (Insert(key("there"), one(9)), exists_already),
        (
            Replace(key("there"), one(9), Match::Exactly(ETag("none".into()))),
            precondition_failed,
        ),
        (Merge(key("gone"), one(9), Match::Any), precondition_failed),
        (Delete(key("gone"), Match::Exactly(old.clone())), precondition_failed),
        (Replace(key("gone"), one(9), Match::Any), precondition_failed),
    ];
    for (operation, expected) in failing {
        for at in 0..3 {
            let mut batch = vec![Insert(key("a"), one(1)), Upsert(key("b"), one(2))];
            batch.insert(at, operation.clone());
            expected(table.commit("p", batch).await, at);
        }
    }
    assert_eq!(
        table.all(Query::partition(key("p"))).await,
        before,
        "nothing of the failed batches is there"
    );

    let batch = vec![
        Insert(key("a"), one(1)),
        Upsert(key("b"), one(2)),
        Merge(key("there"), Properties::new().with("more", true), Match::Exactly(old)),
    ];
    let etags = ok(table.commit("p", batch).await);
    let stored = table.all(Query::partition(key("p"))).await;
    assert_eq!(
        stored.iter().map(|row| row.etag.clone()).collect::<Vec<_>>(),
        etags,
        "ETags in the order of operations"
    );
    let batch = vec![
        Delete(key("a"), Match::Exactly(etags[0].clone())),
        Replace(key("b"), one(3), Match::Exactly(etags[1].clone())),
        Delete(key("there"), Match::Any),
    ];
    let etags = ok(table.commit("p", batch).await);
    assert_eq!(
        (etags[0].0.as_str(), etags[2].0.as_str()),
        ("", ""),
        "a delete has an empty ETag"
    );
    assert_eq!(table.rows(Query::partition(key("p"))).await, ["b"]);

    malformed(table.commit("p", Vec::new()).await);
    malformed(
        table
            .commit("p", vec![Insert(key("x"), one(1)), Upsert(key("x"), one(2))])
            .await,
    );

    let rows = |count: usize| {
        (0..count)
            .map(|row| Insert(key(&format!("m{row:03}")), one(1)))
            .collect::<Vec<_>>()
    };
    too_large(table.commit("q", rows(MAX_BATCH_OPERATIONS + 1)).await);
    assert_eq!(table.rows(Query::partition(key("q"))).await, [""; 0]);
    assert_eq!(
        ok(table.commit("q", rows(MAX_BATCH_OPERATIONS)).await).len(),
        MAX_BATCH_OPERATIONS
    );
    assert_eq!(table.rows(Query::partition(key("q"))).await.len(), MAX_BATCH_OPERATIONS);
    table.drop().await;
}

/// Tasks that count together by ETag lose nothing.
pub async fn increments_are_exact(ports: &Ports, unique: &str) {
    const TASKS: i64 = 8;
    const EACH: i64 = 12;
    let table = Table::new(ports, "Count", unique).await;
    table.insert("p", "counter", one(0)).await;
    in_tasks(TASKS, |_| {
        let (ports, name) = (ports.clone(), table.name.clone());
        async move {
            let mut done = 0;
            for _ in 0..10_000 {
                let stored = ok(ports.tables.get(&name, &key("p"), &key("counter")).await);
                let stored = stored.unwrap_or_else(|| panic!("the counter is there"));
                let next = ok(stored.properties.int("value")).unwrap_or_default() + 1;
                let write = vec![Operation::Replace(
                    key("counter"),
                    one(next),
                    Match::Exactly(stored.etag),
                )];
                match ports.tables.commit(&name, &key("p"), write).await {
                    Ok(_) => done += 1,
                    Err(Error::PreconditionFailed { .. }) => {}
                    Err(error) => panic!("only a conflict may fail an increment: {error}"),
                }
                if done == EACH {
                    return;
                }
            }
            panic!("a task gets through");
        }
    })
    .await;
    let counter = table.get("p", "counter").await.map(|row| row.properties);
    assert_eq!(
        counter,
        Some(one(TASKS * EACH)),
        "no increment is lost and none counts twice"
    );
    table.drop().await;
}

/// Of batches that fight for one row, exactly one wins, whole.
pub async fn batches_stay_atomic_under_contention(ports: &Ports, unique: &str) {
    const ROUNDS: i64 = 5;
    let table = Table::new(ports, "Fight", unique).await;
    in_tasks(8, |task| {
        let (ports, name) = (ports.clone(), table.name.clone());
        async move {
            for round in 0..ROUNDS {
                let rows = ["a", "z"].map(|part| Operation::Insert(key(&format!("{round}-{task}-{part}")), one(task)));
                let mut batch = rows.to_vec();
                batch.insert(1, Operation::Insert(key(&format!("{round}-win")), one(task)));
                match ports.tables.commit(&name, &key("p"), batch).await {
                    Ok(_) | Err(Error::AlreadyExists { index: 1, .. }) => {}
                    Err(error) => panic!("only the contended row may fail: {error:?}"),
                }
            }
        }
    })
    .await;
    for round in 0..ROUNDS {
        let winner = table
            .get("p", &format!("{round}-win"))
            .await
            .unwrap_or_else(|| panic!("somebody wins"));
        let winner = ok(winner.properties.int("value")).unwrap_or_default();
        let rows = table
            .rows(ok(Query::partition(key("p")).prefix(&format!("{round}-"))))
            .await;
        assert_eq!(
            rows,
            [
                format!("{round}-{winner}-a"),
                format!("{round}-{winner}-z"),
                format!("{round}-win")
            ]
        );
    }
    table.drop().await;
}

/// What just fits is taken; what just doesn't is refused, before anything is sent.
pub async fn limits_hold_at_the_edge(ports: &Ports, unique: &str) {
    use Operation::Insert;
    let table = Table::new(ports, "Limit", unique).await;
    let insert = |row: &str, properties| vec![Insert(key(row), properties)];

    let text = |units: usize| Value::Text("x".repeat(units));
    ok(table
        .commit("p", insert("text", one(text(MAX_PROPERTY_BYTES / 2))))
        .await);
    too_large(
        table
            .commit("p", insert("text2", one(text(MAX_PROPERTY_BYTES / 2 + 1))))
            .await,
    );
    let bytes = |length: usize| Value::Bytes((0..length).map(|at| (at % 251) as u8).collect());
    ok(table.commit("p", insert("bytes", one(bytes(MAX_PROPERTY_BYTES)))).await);
    too_large(
        table
            .commit("p", insert("bytes2", one(bytes(MAX_PROPERTY_BYTES + 1))))
            .await,
    );
    assert_eq!(
        table.get("p", "bytes").await.map(|row| row.properties),
        Some(one(bytes(MAX_PROPERTY_BYTES)))
    );

    let many = |count: usize| {
        (0..count)
            .map(|at| (format!("p{at}"), Value::Bool(true)))
            .collect::<Properties>()
    };
    ok(table.commit("p", insert("many", many(MAX_PROPERTIES))).await);
    too_large(table.commit("p", insert("many2", many(MAX_PROPERTIES + 1))).await);

    // The largest row that fits, found by the check itself: text, which is half as long on the wire.
    let wide = |last: usize| {
        let full = (0..15).map(|at| (format!("p{at:02}"), text(MAX_PROPERTY_BYTES / 2)));
        full.chain([("z".to_owned(), text(last))]).collect::<Properties>()
    };
    let fits = |last: usize| check_operations(&key("p"), &insert("wide", wide(last))).is_ok();
    let (mut low, mut high) = (0, MAX_PROPERTY_BYTES / 2);
    assert!(fits(low) && !fits(high), "the edge lies between");
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if fits(middle) { low = middle } else { high = middle }
    }
    ok(table.commit("p", insert("wide", wide(low))).await);
    too_large(table.commit("p", insert("wide", wide(low + 1))).await);
    assert_eq!(table.get("p", "wide").await.map(|row| row.properties), Some(wide(low)));

    // Two of them and nearly a third fit into one transaction.
    let batch = |third: usize| {
        let mut rows = vec![Insert(key("w1"), wide(low)), Insert(key("w2"), wide(low))];
        rows.extend((0..third).map(|at| Insert(key(&format!("x{at:02}")), one(text(MAX_PROPERTY_BYTES / 2)))));
        rows
    };
    let most = (0..30)
        .take_while(|third| check_operations(&key("p"), &batch(*third)).is_ok())
        .last()
        .unwrap_or(0);
    assert!((10..29).contains(&most), "the edge is met: {most}");
    too_large(table.commit("p", batch(most + 1)).await);
    assert_eq!(
        table.get("p", "w1").await,
        None,
        "nothing of a refused transaction is there"
    );
    assert_eq!(ok(table.commit("p", batch(most)).await).len(), most + 2);

    // Impossible names and values.
    for name in [
        "",
        "a-b",
        "a b",
        "1a",
        "ü",
        "PartitionKey",
        "RowKey",
        "Timestamp",
        "a'b",
    ] {
        malformed(table.commit("p", insert("name", Properties::new().with(name, 1))).await);
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        malformed(table.commit("p", insert("number", one(Value::Double(number)))).await);
    }
    let long = "k".repeat(512);
    table.insert(&long, &long, one(1)).await;
    assert_eq!(table.get(&long, &long).await.map(|row| row.row), Some(key(&long)));
    for text in [
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a\nb",
        "a\u{7f}",
        &"k".repeat(513),
        &"😀".repeat(257),
    ] {
        malformed(Key::new(text));
    }
    table.drop().await;
}

/// Keys of any allowed text name one row each, in every position.
pub async fn keys_are_never_syntax(ports: &Ports, unique: &str) {
    const KEYS: [&str; 17] = [
        "it's",
        "''",
        "a b",
        " ",
        "ü€",
        "100%",
        "%27",
        "a%2Fb",
        "a+b",
        "a&b=c",
        "a:b;c,d",
        "<x>",
        "(p)",
        "",
        "$x",
        "😀",
        "x') or (RowKey ne '",
    ];
    let table = Table::new(ports, "Keys", unique).await;
    for text in KEYS {
        table.insert(text, text, one(text)).await;
        table.insert("all", text, one(text)).await;
    }
    for text in KEYS {
        let row = table
            .get(text, text)
            .await
            .unwrap_or_else(|| panic!("`{text}` is found"));
        assert_eq!(
            (row.partition, row.row),
            (key(text), key(text)),
            "keys come back as they were"
        );
        assert_eq!(row.properties, one(text));
        assert_eq!(
            table.rows(Query::partition(key(text))).await,
            [text],
            "a partition `{text}` holds its row only"
        );
        let mut from = Query::partition(key("all")).limit(1);
        from.from = Some(key(text));
        assert_eq!(
            table.rows(from.clone()).await.first().map(String::as_str),
            Some(text),
            "a range begins at `{text}`"
        );
        assert_eq!(
            table
                .rows(Query::partition(key("all")).filter(Filter::equal("value", text)))
                .await,
            [text]
        );
        let change = Operation::Merge(key(text), Properties::new().with("more", 1), Match::Exactly(row.etag));
        ok(table.commit(text, vec![change]).await);
    }
    let all: BTreeSet<_> = table.rows(Query::partition(key("all"))).await.into_iter().collect();
    assert_eq!(all, KEYS.iter().map(|&text| text.to_owned()).collect());
    let mut one_by_one = table.rows(Query::partition(key("all")).limit(1)).await;
    one_by_one.sort();
    assert_eq!(
        one_by_one,
        all.into_iter().collect::<Vec<_>>(),
        "a page may end at any key"
    );
    for text in KEYS {
        ok(table.commit(text, vec![Operation::Delete(key(text), Match::Any)]).await);
        assert_eq!(table.get(text, text).await, None);
    }
    assert_eq!(table.rows(Query::partition(key("all"))).await.len(), KEYS.len());
    table.drop().await;
}

/// Every type keeps its type and its value.
pub async fn values_come_back_as_they_were(ports: &Ports, unique: &str) {
    let table = Table::new(ports, "Value", unique).await;
    let values: Vec<Value> = vec![
        "".into(),
        " leading and trailing ".into(),
        "it's \"quoted\" <b>&amp;</b> \\ / \u{1}\t\r\n".into(),
        "ü€😀\u{10ffff}".into(),
        "2026-11-21T00:00:00Z".into(),
        "42".into(),
        "true".into(),
        "null".into(),
        "x".repeat(32 * 1024).into(),
        0.into(),
        (-1).into(),
        i64::MAX.into(),
        i64::MIN.into(),
        9_007_199_254_740_993.into(),
        i64::from(i32::MAX).into(),
        (i64::from(i32::MAX) + 1).into(),
        Value::Double(0.0),
        Value::Double(-0.0),
        Value::Double(2.0),
        Value::Double(-1.5),
        Value::Double(0.1),
        Value::Double(1e300),
        Value::Double(f64::MAX),
        Value::Double(f64::MIN_POSITIVE),
        Value::Double(9_007_199_254_740_992.0),
        true.into(),
        false.into(),
        Timestamp::from_millis(0).into(),
        Timestamp::from_millis(1_795_219_200_123).into(),
        Timestamp::from_millis(1_795_219_200_100).into(),
        Timestamp::from_millis(1_795_219_200_000).into(),
        Timestamp::from_millis(i64::MAX).into(),
        Value::Bytes(Vec::new()),
        Value::Bytes((0..=255).collect()),
        Value::Bytes(vec![0xff; 64 * 1024]),
    ];
    let rows: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(at, value)| (format!("v{at:02}"), value.clone()))
        .collect();
    for (row, value) in &rows {
        table.insert("p", row, one(value.clone())).await;
        assert_eq!(
            table.get("p", row).await.map(|stored| stored.properties),
            Some(one(value.clone())),
            "{row}"
        );
    }
    let stored = table.all(Query::partition(key("p"))).await;
    let expected: Vec<_> = rows.iter().map(|(row, value)| (key(row), one(value.clone()))).collect();
    assert_eq!(
        stored
            .into_iter()
            .map(|row| (row.row, row.properties))
            .collect::<Vec<_>>(),
        expected
    );
    // All in one row, by a transaction, then merged one by one.
    let small = |value: &&(String, Value)| !matches!(&value.1, Value::Text(text) if text.len() > 99);
    let together: Properties = rows.iter().filter(small).cloned().collect();
    ok(table
        .commit(
            "p",
            vec![
                Operation::Upsert(key("together"), together.clone()),
                Operation::Upsert(key("x"), one(1)),
            ],
        )
        .await);
    assert_eq!(
        table.get("p", "together").await.map(|row| row.properties),
        Some(together.clone())
    );
    ok(table
        .commit(
            "p",
            vec![Operation::Merge(
                key("together"),
                Properties::new().with("v10", "other type"),
                Match::Any,
            )],
        )
        .await);
    assert_eq!(
        table.get("p", "together").await.map(|row| row.properties),
        Some(together.with("v10", "other type"))
    );
    table.drop().await;
}

/// 2 500 rows: order, ranges, prefixes, limits, pages and continuations.
pub async fn ranges_and_pages(ports: &Ports, unique: &str) {
    const ROWS: usize = 2500;
    let table = Table::new(ports, "Range", unique).await;
    let name = |row: usize| format!("r{row:05}");
    for start in (0..ROWS).step_by(50) {
        let insert = |row| {
            let number = i64::try_from(row).unwrap_or_default();
            Operation::Insert(
                key(&name(row)),
                Properties::new()
                    .with("number", number)
                    .with("even", row % 2 == 0)
                    .with("text", "x"),
            )
        };
        ok(table.commit("p", (start..start + 50).map(insert).collect()).await);
    }
    table.insert("o", "r00000", one(1)).await;
    table.insert("q", "r00000", one(1)).await;
    let names = |range: std::ops::Range<usize>| range.map(name).collect::<Vec<_>>();
    let p = || Query::partition(key("p"));

    let first = ok(table.query(p()).await);
    assert!(!first.entities.is_empty() && first.entities.len() <= MAX_PAGE);
    assert!(first.next.is_some(), "there is more than a page");
    assert_eq!(table.rows(p()).await, names(0..ROWS), "all rows, in order, once");
    assert_eq!(table.rows(p().limit(7)).await, names(0..ROWS));
    let page = ok(table.query(p().limit(10)).await);
    assert_eq!(
        page.entities.iter().map(|row| row.row.to_string()).collect::<Vec<_>>(),
        names(0..10)
    );
    let page = ok(table.query(p().limit(5).after(page.next)).await);
    assert_eq!(
        page.entities.iter().map(|row| row.row.to_string()).collect::<Vec<_>>(),
        names(10..15)
    );

    let range = |from: usize, until: usize| {
        let mut query = p();
        (query.from, query.until) = (Some(key(&name(from))), Some(key(&name(until))));
        query
    };
    assert_eq!(
        table.rows(range(1200, 1210)).await,
        names(1200..1210),
        "from is included, until is not"
    );
    assert_eq!(table.rows(range(1200, 1210).limit(3)).await, names(1200..1210));
    assert_eq!(table.rows(range(1210, 1200)).await, [""; 0]);
    assert_eq!(table.rows(range(1200, 1200)).await, [""; 0]);
    assert_eq!(table.rows(range(2490, 9999)).await, names(2490..ROWS));
    assert_eq!(table.rows(ok(p().prefix("r001"))).await, names(100..200));
    assert_eq!(table.rows(ok(p().prefix("r0010"))).await, names(100..110));
    assert_eq!(table.rows(ok(p().prefix("s"))).await, [""; 0]);
    assert_eq!(table.rows(ok(p().prefix(""))).await, names(0..ROWS));

    // A condition that matches little goes through all pages.
    assert_eq!(
        table.rows(p().filter(Filter::equal("number", 2499))).await,
        [name(2499)]
    );
    let even = table.rows(p().filter(Filter::equal("even", true)).limit(100)).await;
    assert_eq!(even, (0..ROWS).step_by(2).map(name).collect::<Vec<_>>());

    // Only what is selected.
    let mut select = range(0, 2);
    select.select = vec!["number".into(), "missing".into()];
    let selected = table.all(select).await;
    assert_eq!(
        selected.iter().map(|row| row.row.clone()).collect::<Vec<_>>(),
        [key(&name(0)), key(&name(1))]
    );
    assert_eq!(
        selected[1].properties,
        Properties::new().with("number", 1),
        "a missing property is no property"
    );
    assert!(!selected[1].etag.0.is_empty(), "a selected row has its ETag");

    // What isn't a continuation is refused, or at the worst stays in the partition.
    let page = ok(table.query(p().limit(10)).await);
    let Continuation(good) = page.next.unwrap_or_else(|| panic!("there is more"));
    for text in ["", "x", "!", "YQ==", &format!("{good}x"), &good[1..]] {
        match table
            .query(p().limit(10).after(Some(Continuation(text.to_owned()))))
            .await
        {
            Err(Error::Malformed { .. }) => {}
            Ok(page) => assert!(
                page.entities.iter().all(|row| row.partition == key("p")),
                "no other partition"
            ),
            Err(error) => panic!("a garbled continuation is malformed: {error:?}"),
        }
    }
    let elsewhere = table
        .query(Query::partition(key("q")).after(Some(Continuation(good))))
        .await;
    if let Ok(page) = elsewhere {
        assert!(
            page.entities.iter().all(|row| row.partition == key("q")),
            "a continuation leads to no other partition"
        );
    }
    table.drop().await;
}

/// Each comparison on each type, `and`, `or`, and rows without the property.
pub async fn filters_of_every_type(ports: &Ports, unique: &str) {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let table = Table::new(ports, "Filter", unique).await;
    let at = |millis: i64| Value::Time(Timestamp::from_millis(1_795_219_200_000 + millis));
    // For each type three values in order.
    let types: [(&str, [Value; 3]); 5] = [
        ("text", ["apple".into(), "banana".into(), "cherry".into()]),
        ("int", [i64::MIN.into(), 3.into(), i64::MAX.into()]),
        ("double", [Value::Double(-1.5), Value::Double(2.0), Value::Double(2.5)]),
        ("time", [at(0), at(1), at(1000)]),
        ("small", [(-2).into(), 0.into(), 7.into()]),
    ];
    for row in 0..3 {
        let properties: Properties = types
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values[row].clone()))
            .collect();
        let properties = properties
            .with("truth", row == 1)
            .with("bytes", Value::Bytes(vec![0, 0xff, row as u8]));
        table
            .insert(
                "p",
                &row.to_string(),
                properties.with("unicode", ["ü€", "😀", "it's"][row]),
            )
            .await;
    }
    table.insert("p", "without", Properties::new().with("other", 1)).await;
    let rows = |filter: Filter| table.rows(Query::partition(key("p")).filter(filter));
    let is = |name: &str, comparison, value: &Value| Filter::Is(name.to_owned(), comparison, value.clone());

    for (name, values) in &types {
        let middle = &values[1];
        assert_eq!(rows(is(name, Equal, middle)).await, ["1"], "{name} equal");
        assert_eq!(
            rows(is(name, NotEqual, middle)).await,
            ["0", "2"],
            "{name} not equal; without it never matches"
        );
        assert_eq!(rows(is(name, Less, middle)).await, ["0"], "{name} less");
        assert_eq!(
            rows(is(name, LessOrEqual, middle)).await,
            ["0", "1"],
            "{name} less or equal"
        );
        assert_eq!(rows(is(name, Greater, middle)).await, ["2"], "{name} greater");
        assert_eq!(
            rows(is(name, GreaterOrEqual, middle)).await,
            ["1", "2"],
            "{name} greater or equal"
        );
        assert_eq!(
            rows(is(name, Equal, &values[0])).await,
            ["0"],
            "{name} equal to the least"
        );
        assert_eq!(
            rows(is(name, Equal, &values[2])).await,
            ["2"],
            "{name} equal to the greatest"
        );
    }
    assert_eq!(rows(Filter::equal("truth", true)).await, ["1"]);
    assert_eq!(rows(Filter::equal("truth", false)).await, ["0", "2"]);
    assert_eq!(rows(is("truth", NotEqual, &true.into())).await, ["0", "2"]);
    assert_eq!(
        rows(Filter::equal("bytes", Value::Bytes(vec![0, 0xff, 1]))).await,
        ["1"]
    );
    for (row, text) in [("0", "ü€"), ("1", "😀"), ("2", "it's")] {
        assert_eq!(rows(Filter::equal("unicode", text)).await, [row], "{text}");
    }
    // Another type is another value.
    assert_eq!(rows(Filter::equal("text", 3)).await, [""; 0]);
    assert_eq!(rows(Filter::equal("truth", "true")).await, [""; 0]);
    assert_eq!(rows(Filter::equal("missing", "")).await, [""; 0]);

    let apple = || Filter::equal("text", "apple");
    let three = || Filter::equal("int", 3);
    let truth = || Filter::equal("truth", true);
    assert_eq!(rows(apple().or(three())).await, ["0", "1"]);
    assert_eq!(rows(apple().and(three())).await, [""; 0]);
    assert_eq!(rows(three().and(truth())).await, ["1"]);
    assert_eq!(rows(apple().or(three().and(truth()))).await, ["0", "1"]);
    assert_eq!(rows(apple().or(three()).and(truth())).await, ["1"], "nesting is kept");
    assert_eq!(rows(truth().and(apple().or(three()))).await, ["1"], "nesting is kept");
    assert_eq!(rows(Filter::equal("other", 1).or(apple())).await, ["0", "without"]);
    let many = (0..14)
        .map(|n| Filter::equal("int", n))
        .reduce(Filter::or)
        .unwrap_or_else(three);
    assert_eq!(rows(many).await, ["1"]);
    table.drop().await;
}

/// A value is a value, whatever it looks like.
pub async fn filters_are_never_syntax(ports: &Ports, unique: &str) {
    const TRICKS: [&str; 6] = [
        "x' or PartitionKey ne '",
        "x' or 1 eq 1 or value eq '",
        "' or true or '",
        "%27 or PartitionKey ne %27",
        "x'&$top=1000&$filter=value ne '",
        "x\u{2019} or PartitionKey ne \u{2019}",
    ];
    let table = Table::new(ports, "Trick", unique).await;
    table.insert("p", "r", one("x")).await;
    table.insert("other", "r", one("x")).await;
    for trick in TRICKS {
        let rows = table
            .rows(Query::partition(key("p")).filter(Filter::equal("value", trick)))
            .await;
        assert_eq!(rows, [""; 0], "`{trick}` matches nothing");
        assert_eq!(
            table.rows(Query::partition(key(trick))).await,
            [""; 0],
            "`{trick}` is no partition"
        );
        let mut range = Query::partition(key("p"));
        range.from = Some(key(trick));
        range.until = Some(key(trick));
        assert_eq!(table.rows(range).await, [""; 0], "`{trick}` is an empty range");
        table.insert("p", "trick", one(trick)).await;
        assert_eq!(
            table
                .rows(Query::partition(key("p")).filter(Filter::equal("value", trick)))
                .await,
            ["trick"]
        );
        ok(table
            .commit("p", vec![Operation::Delete(key("trick"), Match::Any)])
            .await);
    }
    table.drop().await;
}

/// Limits out of range, and names that are none, in filter and selection.
pub async fn impossible_queries_are_refused(ports: &Ports, unique: &str) {
    let table = Table::new(ports, "Query", unique).await;
    let p = || Query::partition(key("p"));
    malformed(table.query(p().limit(0)).await);
    malformed(table.query(p().limit(MAX_PAGE + 1)).await);
    for name in ["", "a b", "a eq 1 or b", "PartitionKey", "RowKey", "a'", "a,b"] {
        malformed(table.query(p().filter(Filter::equal(name, 1))).await);
        malformed(
            table
                .query(p().filter(Filter::equal("fine", 1).or(Filter::equal(name, 1))))
                .await,
        );
        let mut select = p();
        select.select = vec![name.to_owned()];
        malformed(table.query(select).await);
    }
    malformed(
        table
            .query(p().filter(Filter::equal("value", Value::Double(f64::NAN))))
            .await,
    );
    table.drop().await;
}

/// The same row key in many partitions and tables is many rows.
pub async fn partitions_are_apart(ports: &Ports, unique: &str) {
    let table = Table::new(ports, "Apart", unique).await;
    let other = Table::new(ports, "Apart2", unique).await;
    let partitions = ["a", "A", "aa", "a ", "b", ""];
    for partition in partitions {
        table.insert(partition, "r", one(partition)).await;
    }
    other.insert("a", "r", one("other")).await;
    for partition in partitions {
        assert_eq!(
            table.get(partition, "r").await.map(|row| row.properties),
            Some(one(partition))
        );
        assert_eq!(
            table.all(Query::partition(key(partition))).await.len(),
            1,
            "`{partition}` holds one row"
        );
    }
    ok(table.commit("a", vec![Operation::Delete(key("r"), Match::Any)]).await);
    for partition in &partitions[1..] {
        assert!(table.get(partition, "r").await.is_some(), "`{partition}` is as it was");
    }
    table.drop().await;
    assert_eq!(other.get("a", "r").await.map(|row| row.properties), Some(one("other")));
    other.drop().await;
}

fn blob(path: &str) -> BlobPath {
    ok(BlobPath::new(path))
}

async fn container(ports: &Ports, check: &str, unique: &str) -> ContainerName {
    let name = ok(ContainerName::new(format!("conf-{check}-{unique}")));
    ok(ports.blobs.create_container(&name).await);
    name
}

/// Create, overwrite, read whole and in ranges, delete.
pub async fn blobs_are_put_and_read(ports: &Ports, unique: &str) {
    const ALL: u64 = u64::MAX;
    let blobs = &ports.blobs;
    let missing = ok(ContainerName::new(format!("conf-none-{unique}")));
    let path = blob("a/b-c_d.e=f:g");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    not_found(blobs.put(&missing, &path, bytes("x"), Put::Create).await);
    not_found(blobs.put(&missing, &path, bytes("x"), Put::Overwrite).await);
    not_found(blobs.append(&missing, &path, 0, bytes("x")).await);
    not_found(blobs.get(&missing, &path, ALL).await);
    not_found(blobs.read(&missing, &path, 0, 1).await);
    not_found(blobs.list(&missing, "", None).await);
    not_found(blobs.delete(&missing, &path, Match::Any).await);
    ok(blobs.delete_container(&missing).await);

    let name = container(ports, "put", unique).await;
    assert_eq!(ok(blobs.get(&name, &path, ALL).await), None);
    assert_eq!(ok(blobs.read(&name, &path, 0, 10).await), None);
    assert!(!ok(blobs.delete(&name, &path, Match::Any).await), "there was none");
    ok(blobs.put(&name, &path, bytes("first"), Put::Create).await);
    exists_already(blobs.put(&name, &path, bytes("second"), Put::Create).await, 0);
    assert_eq!(
        ok(blobs.get(&name, &path, ALL).await),
        Some(bytes("first")),
        "what failed left no trace"
    );
    ok(blobs.put(&name, &path, bytes("other"), Put::Overwrite).await);
    ok(blobs.create_container(&name).await);
    assert_eq!(ok(blobs.get(&name, &path, 5).await), Some(bytes("other")));
    too_large(blobs.get(&name, &path, 4).await);
    assert_eq!(ok(blobs.get(&name, &blob("a"), ALL).await), None, "a folder is no blob");

    for (offset, length, expected) in [
        (0, 5, "other"),
        (0, 99, "other"),
        (1, 3, "the"),
        (4, 1, "r"),
        (4, 9, "r"),
        (5, 1, ""),
        (99, 1, ""),
        (2, 0, ""),
    ] {
        let read = ok(blobs.read(&name, &path, offset, length).await);
        assert_eq!(read, Some(bytes(expected)), "{length} bytes from {offset}");
    }

    // Larger than any block or chunk.
    let large: Bytes = (0..5_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into();
    ok(blobs.put(&name, &blob("large"), large.clone(), Put::Overwrite).await);
    assert!(
        ok(blobs.get(&name, &blob("large"), ALL).await).as_ref() == Some(&large),
        "a large blob comes back"
    );
    for (offset, length) in [
        (0, 1),
        (65_535, 2),
        (65_536, 65_536),
        (131_000, 200_000),
        (4_999_999, 10),
    ] {
        let read = ok(blobs.read(&name, &blob("large"), offset, length).await).unwrap_or_default();
        let (start, end) = (offset as usize, (offset as usize + length as usize).min(large.len()));
        assert!(read == large[start..end], "{length} bytes from {offset}");
    }
    too_large(blobs.get(&name, &blob("large"), 4_999_999).await);
    ok(blobs.put(&name, &blob("large"), bytes("small"), Put::Overwrite).await);
    assert_eq!(
        ok(blobs.get(&name, &blob("large"), ALL).await),
        Some(bytes("small")),
        "nothing of the large one is left"
    );

    ok(blobs.put(&name, &blob("empty"), Bytes::new(), Put::Create).await);
    assert_eq!(ok(blobs.get(&name, &blob("empty"), 0).await), Some(Bytes::new()));
    assert_eq!(ok(blobs.read(&name, &blob("empty"), 0, 10).await), Some(Bytes::new()));
    assert!(ok(blobs.delete(&name, &path, Match::Any).await));
    assert!(!ok(blobs.delete(&name, &path, Match::Any).await));
    assert_eq!(ok(blobs.get(&name, &path, ALL).await), None);
    ok(blobs.delete_container(&name).await);
    not_found(blobs.get(&name, &path, ALL).await);

    for text in [
        "", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "ü", "a?b", "a%2Fb", "a\\b",
    ] {
        malformed(BlobPath::new(text));
    }
}

/// An append succeeds where the caller believes the end to be, and only there.
pub async fn blobs_grow_where_expected(ports: &Ports, unique: &str) {
    let blobs = &ports.blobs;
    let name = container(ports, "append", unique).await;
    let log = blob("log");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    precondition_failed(blobs.append(&name, &log, 3, bytes("x")).await, 0);
    assert!(
        ok(blobs.get(&name, &log, 99).await).is_none_or(|stored| stored.is_empty()),
        "what failed wrote nothing"
    );
    ok(blobs.append(&name, &log, 0, bytes("one ")).await);
    precondition_failed(blobs.append(&name, &log, 0, bytes("one ")).await, 0);
    precondition_failed(blobs.append(&name, &log, 5, bytes("two ")).await, 0);
    ok(blobs.append(&name, &log, 4, bytes("two ")).await);
    ok(blobs.append(&name, &log, 8, bytes("three")).await);
    assert_eq!(ok(blobs.get(&name, &log, 99).await), Some(bytes("one two three")));
    assert_eq!(
        ok(blobs.read(&name, &log, 2, 8).await),
        Some(bytes("e two th")),
        "a range over several appends"
    );
    assert_eq!(ok(blobs.read(&name, &log, 13, 8).await), Some(Bytes::new()));
    too_large(
        blobs
            .append(&name, &log, 13, Bytes::from(vec![0; MAX_APPEND_BYTES + 1]))
            .await,
    );
    ok(blobs
        .append(&name, &log, 13, Bytes::from(vec![b'.'; MAX_APPEND_BYTES]))
        .await);
    let whole = ok(blobs.get(&name, &log, u64::MAX).await).unwrap_or_default();
    assert_eq!(whole.len(), 13 + MAX_APPEND_BYTES);
    assert_eq!(
        ok(blobs.list(&name, "log", None).await).blobs[0].size,
        13 + MAX_APPEND_BYTES as u64
    );

    // Of two that append at the same place, one wins.
    let race = blob("race");
    in_tasks(8, |task| {
        let (ports, name, race) = (ports.clone(), name.clone(), race.clone());
        async move {
            for round in 0..5 {
                match ports
                    .blobs
                    .append(&name, &race, round * 2, Bytes::from(format!("{task}{round}")))
                    .await
                {
                    Ok(()) | Err(Error::PreconditionFailed { .. }) => {}
                    Err(error) => panic!("only the position may fail an append: {error:?}"),
                }
            }
        }
    })
    .await;
    let raced = ok(blobs.get(&name, &race, 99).await).unwrap_or_default();
    let rounds: Vec<u8> = raced.chunks(2).map(|pair| pair[1]).collect();
    assert_eq!(rounds, b"01234", "each place was written once");

    let whole = blob("whole");
    ok(blobs.put(&name, &whole, bytes("x"), Put::Create).await);
    exists_already(blobs.append(&name, &whole, 1, bytes("y")).await, 0);
    exists_already(blobs.put(&name, &log, bytes("x"), Put::Create).await, 0);
    assert!(ok(blobs.delete(&name, &log, Match::Any).await));
    ok(blobs.append(&name, &log, 0, bytes("again")).await);
    assert_eq!(ok(blobs.get(&name, &log, 99).await), Some(bytes("again")));
    ok(blobs.delete_container(&name).await);
}

/// Parts are seen when they have become a blob, whoever writes the same one at the same time.
pub async fn blobs_are_made_of_parts(ports: &Ports, unique: &str) {
    let blobs = &ports.blobs;
    let name = container(ports, "parts", unique).await;
    let path = blob("parts/one");
    let bytes: Bytes = (0..PART_BYTES as u32 + 100_000)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into();
    let (size, first) = (bytes.len() as u64, bytes.slice(..PART_BYTES));
    let (rest, second) = (bytes.slice(PART_BYTES..), PART_BYTES as u64);
    let missing = ok(ContainerName::new(format!("conf-none-{unique}")));
    not_found(blobs.lay_aside(&missing, &path, Upload(1), 0, rest.clone()).await);
    too_large(
        blobs
            .lay_aside(&name, &path, Upload(1), 0, bytes.slice(..=PART_BYTES))
            .await,
    );
    malformed(blobs.lay_aside(&name, &path, Upload(1), 5, rest.clone()).await);
    malformed(blobs.lay_aside(&name, &path, Upload(1), 0, Bytes::new()).await);

    precondition_failed(blobs.assemble(&name, &path, Upload(1), size).await, 0);
    ok(blobs.lay_aside(&name, &path, Upload(1), 0, first.clone()).await);
    ok(blobs.lay_aside(&name, &path, Upload(1), 0, first.clone()).await);
    precondition_failed(blobs.assemble(&name, &path, Upload(1), size).await, 0);
    ok(blobs.lay_aside(&name, &path, Upload(1), second, rest.clone()).await);
    ok(blobs.lay_aside(&name, &path, Upload(1), second, rest.clone()).await);
    assert_eq!(ok(blobs.read(&name, &path, 0, 1).await), None, "nobody sees a part");
    assert_eq!(ok(blobs.list(&name, "", None).await).blobs, [], "no list has parts");

    // Another writer of the same: one of the two makes the blob, and what the other has laid aside is of no use.
    ok(blobs.lay_aside(&name, &path, Upload(2), 0, first.clone()).await);
    ok(blobs.assemble(&name, &path, Upload(1), size).await);
    let whole = ok(blobs.get(&name, &path, size).await);
    assert!(whole.as_ref() == Some(&bytes), "the blob has its parts in order");
    match blobs.lay_aside(&name, &path, Upload(2), second, rest.clone()).await {
        Ok(()) | Err(Error::PreconditionFailed { .. }) => {}
        Err(error) => panic!("the other writer meets nothing worse: {error:?}"),
    }
    match blobs.assemble(&name, &path, Upload(2), size).await {
        Err(Error::PreconditionFailed { .. } | Error::AlreadyExists { .. }) => {}
        other => panic!("there is one already: {other:?}"),
    }
    assert!(
        ok(blobs.get(&name, &path, size).await) == Some(bytes.clone()),
        "it is as it was"
    );

    let small = blob("parts/small");
    ok(blobs
        .lay_aside(&name, &small, Upload(3), 0, Bytes::from_static(b"x"))
        .await);
    ok(blobs.throw_away(&name, &small, Upload(3)).await);
    ok(blobs.throw_away(&name, &small, Upload(3)).await);
    assert_eq!(ok(blobs.get(&name, &small, 9).await), None);
    let listed = ok(blobs.list(&name, "", None).await).blobs;
    assert_eq!(listed.len(), 1, "{listed:?}");
    ok(blobs.delete_container(&name).await);
}

/// A touch is another version of the same bytes, and who has seen the version before deletes nothing.
pub async fn blobs_are_deleted_as_they_were_seen(ports: &Ports, unique: &str) {
    let blobs = &ports.blobs;
    let name = container(ports, "touch", unique).await;
    let path = blob("value/one");
    assert!(!ok(blobs.touch(&name, &path).await), "there is none");
    let is_missing = async |etag: ETag| match blobs.delete(&name, &path, Match::Exactly(etag)).await {
        Ok(false) | Err(Error::PreconditionFailed { .. }) => {}
        other => panic!("there is none: {other:?}"),
    };
    is_missing(ETag("none".into())).await;
    ok(blobs.put(&name, &path, Bytes::from_static(b"bytes"), Put::Create).await);
    let seen = async || ok(blobs.list(&name, "", None).await).blobs.remove(0);
    let first = seen().await;
    assert_eq!((first.path.as_str(), first.size), ("value/one", 5));
    assert_eq!(seen().await, first, "looking changes nothing");
    assert!(ok(blobs.touch(&name, &path).await));
    let second = seen().await;
    assert_ne!(second.etag, first.etag);
    assert!(second.modified >= first.modified);
    assert_eq!(ok(blobs.get(&name, &path, 9).await), Some(Bytes::from_static(b"bytes")));
    for wrong in [first.etag, ETag("none".into())] {
        precondition_failed(blobs.delete(&name, &path, Match::Exactly(wrong)).await, 0);
    }
    assert!(ok(blobs
        .delete(&name, &path, Match::Exactly(second.etag.clone()))
        .await));
    is_missing(second.etag).await;
    ok(blobs.put(&name, &path, Bytes::from_static(b"again"), Put::Create).await);
    let third = seen().await;
    ok(blobs.delete(&name, &path, Match::Exactly(third.etag)).await);
    ok(blobs.delete_container(&name).await);
}

/// In order, by prefix, in pages.
pub async fn blobs_are_listed(ports: &Ports, unique: &str) {
    const BLOBS: usize = 1005;
    let blobs = &ports.blobs;
    let name = container(ports, "list", unique).await;
    assert_eq!(ok(blobs.list(&name, "", None).await), Default::default());
    in_tasks(8, |task| {
        let (ports, name) = (ports.clone(), name.clone());
        async move {
            for number in (0..BLOBS).skip(task as usize).step_by(8) {
                let bytes = Bytes::from(vec![b'x'; number % 3]);
                ok(ports
                    .blobs
                    .put(&name, &blob(&format!("many/{number:04}")), bytes, Put::Create)
                    .await);
            }
        }
    })
    .await;
    for path in ["a", "b/1", "b/2", "b-1", "c"] {
        ok(blobs.put(&name, &blob(path), Bytes::new(), Put::Create).await);
    }
    let list = async |prefix: &str| {
        let (mut paths, mut after) = (Vec::new(), None);
        for _ in 0..100 {
            let page = ok(blobs.list(&name, prefix, after).await);
            assert!(page.blobs.len() <= MAX_PAGE);
            paths.extend(page.blobs.into_iter().map(|found| (found.path.to_string(), found.size)));
            if page.next.is_none() {
                return paths;
            }
            after = page.next;
        }
        panic!("a list ends");
    };
    let paths = |found: Vec<(String, u64)>| found.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(paths(list("b/").await), ["b/1", "b/2"]);
    assert_eq!(paths(list("b").await), ["b-1", "b/1", "b/2"]);
    assert_eq!(paths(list("z").await), [""; 0]);
    let many = list("many/").await;
    let expected: Vec<_> = (0..BLOBS)
        .map(|number| (format!("many/{number:04}"), (number % 3) as u64))
        .collect();
    assert_eq!(many, expected, "all, in order, once, with their sizes");
    assert_eq!(list("").await.len(), BLOBS + 5);
    assert!(
        ok(blobs.list(&name, "many/", None).await).next.is_some(),
        "a page has at most {MAX_PAGE}"
    );
    ok(blobs.delete_container(&name).await);
}

async fn queue(ports: &Ports, check: &str, unique: &str) -> QueueName {
    let name = ok(QueueName::new(format!("conf-{check}-{unique}")));
    ok(ports.queues.create_queue(&name).await);
    name
}

const MINUTE: Duration = Duration::from_secs(60);

/// A missing queue is told; creating twice changes nothing.
pub async fn queues_exist_or_not(ports: &Ports, unique: &str) {
    let name = ok(QueueName::new(format!("conf-exist-{unique}")));
    let queues = &ports.queues;
    not_found(queues.send(&name, "x", Duration::ZERO).await);
    not_found(queues.receive(&name, 1, MINUTE).await);
    ok(queues.create_queue(&name).await);
    let receipt = ok(queues.send(&name, "x", Duration::ZERO).await);
    ok(queues.create_queue(&name).await);
    let messages = ok(queues.receive(&name, 32, MINUTE).await);
    assert_eq!(messages.len(), 1, "a queue created again stays as it is");
    assert_eq!(messages[0].receipt.id, receipt.id, "a message keeps its id");
    assert!(ok(queues.delete(&name, &messages[0].receipt).await));
    assert_eq!(ok(queues.receive(&name, 1, MINUTE).await), []);
    ok(queues.send_once(&name, "y").await);
    let messages = ok(queues.receive(&name, 32, MINUTE).await);
    assert_eq!((messages.len(), messages[0].text.as_str()), (1, "y"));
    ok(queues.delete_queue(&name).await);
    not_found(queues.receive(&name, 1, MINUTE).await);
    not_found(queues.send(&name, "z", Duration::ZERO).await);
    not_found(queues.send_once(&name, "z").await);
    ok(queues.delete_queue(&name).await);
}

/// Received is hidden; not deleted comes back, and is counted.
pub async fn messages_are_hidden_and_come_back(ports: &Ports, unique: &str, pace: Pace<'_>) {
    let queues = &ports.queues;
    let name = queue(ports, "hidden", unique).await;
    ok(queues.send(&name, "work", Duration::ZERO).await);
    let first = pace.receive(ports, &name, Duration::ZERO, pace.short()).await;
    assert_eq!((first.text.as_str(), first.dequeue_count), ("work", 1));
    let second = pace.receive(ports, &name, pace.short(), MINUTE).await;
    assert_eq!((second.text.as_str(), second.dequeue_count), ("work", 2));
    assert_eq!(second.receipt.id, first.receipt.id);
    assert_ne!(
        second.receipt.pop_receipt, first.receipt.pop_receipt,
        "each receive has a receipt of its own"
    );
    assert_eq!(
        ok(queues.receive(&name, 32, MINUTE).await),
        [],
        "a received message is hidden"
    );
    assert!(
        !ok(queues.delete(&name, &first.receipt).await),
        "an old receipt is no good"
    );
    assert!(ok(queues.delete(&name, &second.receipt).await));
    assert!(!ok(queues.delete(&name, &second.receipt).await), "deleted once");
    assert_eq!(ok(queues.receive(&name, 32, MINUTE).await), []);
}

/// Extending gives a new receipt and ends the old one.
pub async fn receipts_go_stale(ports: &Ports, unique: &str, pace: Pace<'_>) {
    let queues = &ports.queues;
    let name = queue(ports, "stale", unique).await;
    ok(queues.send(&name, "work", Duration::ZERO).await);
    let received = pace.receive(ports, &name, Duration::ZERO, MINUTE).await;
    let extended = ok(queues.extend(&name, &received.receipt, MINUTE * 2).await);
    assert_eq!(extended.id, received.receipt.id);
    assert_ne!(extended.pop_receipt, received.receipt.pop_receipt);
    assert!(
        !ok(queues.delete(&name, &received.receipt).await),
        "the old receipt is no good"
    );
    precondition_failed(queues.extend(&name, &received.receipt, MINUTE).await, 0);
    assert_eq!(ok(queues.receive(&name, 1, MINUTE).await), [], "it is still hidden");

    // Given back: visible at once, with the text as it was.
    let given_back = ok(queues.extend(&name, &extended, Duration::ZERO).await);
    let again = pace.receive(ports, &name, Duration::ZERO, MINUTE).await;
    assert_eq!((again.text.as_str(), again.dequeue_count), ("work", 2));
    assert!(
        !ok(queues.delete(&name, &given_back).await),
        "received by somebody else"
    );
    precondition_failed(queues.extend(&name, &given_back, MINUTE).await, 0);
    assert!(ok(queues.delete(&name, &again.receipt).await));
    precondition_failed(queues.extend(&name, &again.receipt, MINUTE).await, 0);
}

/// A delayed message is hidden until its time, and can be deleted before.
pub async fn messages_are_delayed(ports: &Ports, unique: &str, pace: Pace<'_>) {
    let queues = &ports.queues;
    let name = queue(ports, "delay", unique).await;
    let never = ok(queues.send(&name, "never", pace.short()).await);
    ok(queues.send(&name, "later", pace.short() * 2).await);
    ok(queues.send(&name, "far", MINUTE * 60 * 24 * 7).await);
    assert_eq!(
        ok(queues.receive(&name, 32, MINUTE).await),
        [],
        "delayed messages are hidden"
    );
    assert!(
        ok(queues.delete(&name, &never).await),
        "deleted before it was delivered"
    );
    assert!(!ok(queues.delete(&name, &never).await));
    let later = pace.receive(ports, &name, pace.short() * 2, MINUTE).await;
    assert_eq!((later.text.as_str(), later.dequeue_count), ("later", 1));
    assert_eq!(ok(queues.receive(&name, 32, MINUTE).await), []);
    assert!(ok(queues.delete(&name, &later.receipt).await));
}

/// Text of any kind up to the limit.
pub async fn messages_carry_any_text(ports: &Ports, unique: &str) {
    let queues = &ports.queues;
    let name = queue(ports, "text", unique).await;
    let long = "x".repeat(MAX_MESSAGE_BYTES);
    let wide = "€".repeat(MAX_MESSAGE_BYTES / 3);
    for text in ["{\"id\":\"ü€😀\"}", "<a>&amp;'\"</a>\u{1}\r\n ", "eA==", &long, &wide] {
        ok(queues.send(&name, text, Duration::ZERO).await);
        let messages = ok(queues.receive(&name, 1, MINUTE).await);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].text == text, "the text comes back as it was");
        assert!(ok(queues.delete(&name, &messages[0].receipt).await));
    }
    too_large(queues.send(&name, &format!("{long}x"), Duration::ZERO).await);
    too_large(queues.send(&name, &format!("{wide}€"), Duration::ZERO).await);
    assert_eq!(ok(queues.receive(&name, 1, MINUTE).await), []);
}

/// Consumers side by side get each message once while it is hidden.
pub async fn every_message_comes_once(ports: &Ports, unique: &str) {
    const MESSAGES: usize = 60;
    let name = queue(ports, "once", unique).await;
    for number in 0..MESSAGES {
        ok(ports.queues.send(&name, &number.to_string(), Duration::ZERO).await);
    }
    let received = in_tasks(4, |_| {
        let (ports, name) = (ports.clone(), name.clone());
        async move {
            let mut texts = Vec::new();
            loop {
                let messages = ok(ports.queues.receive(&name, 7, MINUTE * 5).await);
                if messages.is_empty() {
                    return texts;
                }
                for message in messages {
                    assert!(ok(ports.queues.delete(&name, &message.receipt).await));
                    texts.push(message.text.parse::<usize>().unwrap_or(usize::MAX));
                }
            }
        }
    })
    .await;
    let mut received: Vec<_> = received.into_iter().flatten().collect();
    received.sort_unstable();
    assert_eq!(received, (0..MESSAGES).collect::<Vec<_>>(), "each message once");
}

/// Runs tasks side by side, and passes a panic on.
async fn in_tasks<F>(count: i64, task: impl Fn(i64) -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(task(number))).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        match task.await {
            Ok(output) => outputs.push(output),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    outputs
}
