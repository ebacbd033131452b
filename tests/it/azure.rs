//! The Azure backend against a real emulator, and against servers that misbehave.
//!
//! `WEFT_TEST_AZURITE` is the connection string of a running Azurite, `WEFT_TEST_AZURITE_BIN` the program to start
//! another one with. Without them a test says so and passes, but not where `CI` is set.

use std::error::Error as StdError;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use weft::clock::Entropy;
use weft::domain::Timestamp;
use weft::store::azure::{Identity, Settings, open};
use weft::store::error::Error;
use weft::store::port::{
    BlobPath, Comparison, ContainerName, Continuation, ETag, Filter, Key, Match, Operation, Ports, Properties, Put,
    Query, QueueName, TableName, Value,
};

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment where the emulator is"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(clippy::print_stderr, reason = "a test that did nothing has to say so")]
fn required(name: &str) -> Option<String> {
    let value = variable(name);
    if value.is_none() {
        assert!(variable("CI").is_none(), "{name} is not set");
        eprintln!("not run: {name} is not set (scripts/test sets it)");
    }
    value
}

fn connect(connection: &str) -> Ports {
    open(Settings::from_connection_string(connection).expect("a connection string")).expect("ports")
}

/// The emulator's connection string and ports, when there is one.
pub(crate) fn azurite() -> Option<(String, Ports)> {
    let connection = required("WEFT_TEST_AZURITE")?;
    let ports = connect(&connection);
    Some((connection, ports))
}

fn part<'a>(connection: &'a str, name: &str) -> &'a str {
    connection
        .split(';')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {name} in the emulator's connection string"))
}

fn endpoints(connection: &str) -> String {
    ["BlobEndpoint", "QueueEndpoint", "TableEndpoint"]
        .map(|name| format!("{name}={};", part(connection, name)))
        .concat()
}

fn unique() -> String {
    format!("t{:032x}", u128::from_be_bytes(Entropy::System.bytes()))
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn path(text: &str) -> BlobPath {
    BlobPath::new(text).expect("a path")
}

async fn table(ports: &Ports) -> TableName {
    let table = TableName::new(unique()).expect("a name");
    ports.tables.create_table(&table).await.expect("a table");
    table
}

async fn container(ports: &Ports) -> ContainerName {
    let container = ContainerName::new(unique()).expect("a name");
    ports.blobs.create_container(&container).await.expect("a container");
    container
}

async fn queue(ports: &Ports) -> QueueName {
    let queue = QueueName::new(unique()).expect("a name");
    ports.queues.create_queue(&queue).await.expect("a queue");
    queue
}

fn insert(row: &str, properties: Properties) -> Operation {
    Operation::Insert(key(row), properties)
}

/// Everything that an error says, in every form.
fn all_texts(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(" {inner} {inner:?}"));
        source = inner.source();
    }
    text
}

/// One operation on each service.
async fn one_of_each(ports: &Ports) -> [Result<(), Error>; 3] {
    let (container, queue) = (
        ContainerName::new("container").unwrap(),
        QueueName::new("queue").unwrap(),
    );
    let (table, partition, blob) = (TableName::new("table").unwrap(), key("p"), path("blob"));
    let (tables, blobs, queues) = tokio::join!(
        ports
            .tables
            .commit(&table, &partition, vec![insert("r", Properties::new())]),
        ports
            .blobs
            .put(&container, &blob, Bytes::from_static(b"x"), Put::Overwrite),
        ports.queues.send(&queue, "text", Duration::ZERO),
    );
    [tables.map(|_| ()), blobs, queues.map(|_| ())]
}

// --- The contract ----------------------------------------------------------------------------------------------------

/// A test for each function of the contract, so that a difference does not hide the next one.
macro_rules! contract {
    ($($name:ident($($pace:expr)?);)+) => {
        mod contract {
            use weft::store::conformance;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let Some((_, ports)) = super::azurite() else { return };
                    conformance::$name(&ports, &super::unique()[..16], $($pace)?).await;
                }
            )+
        }
    };
}

contract! {
    tables_exist_or_not();
    rows_are_written_under_conditions();
    batches_are_all_or_nothing();
    increments_are_exact();
    batches_stay_atomic_under_contention();
    limits_hold_at_the_edge();
    keys_are_never_syntax();
    values_come_back_as_they_were();
    ranges_and_pages();
    filters_of_every_type();
    filters_are_never_syntax();
    impossible_queries_are_refused();
    partitions_are_apart();
    blobs_are_put_and_read();
    blobs_grow_where_expected();
    blobs_are_listed();
    blobs_are_made_of_parts();
    blobs_are_deleted_as_they_were_seen();
    queues_exist_or_not();
    messages_are_hidden_and_come_back(conformance::Pace::Real);
    receipts_go_stale(conformance::Pace::Real);
    messages_are_delayed(conformance::Pace::Real);
    messages_carry_any_text();
    every_message_comes_once();
}

// --- Rows ------------------------------------------------------------------------------------------------------------

fn every_value() -> Properties {
    let doubles = [
        0.0,
        -0.0,
        2.0,
        0.1,
        1e15,
        1e21,
        123_456_789.123_456_79,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
    ];
    let mut properties = Properties::new()
        .with("empty", "")
        .with(
            "text",
            "it's <b> \"ü\" \u{1F600} \\ \r\n --changeset\r\n\r\nHTTP/1.1 500",
        )
        .with("looks_like_time", "2026-11-21T00:00:00.000Z")
        .with("looks_like_number", "5")
        .with("low", i64::MIN)
        .with("high", i64::MAX)
        .with("beyond_double", 9_007_199_254_740_993_i64)
        .with("yes", true)
        .with("no", false)
        .with("epoch", Timestamp::from_millis(0))
        .with("milli", Timestamp::from_millis(1_795_219_200_001))
        .with("end", Timestamp::from_millis(i64::MAX));
    properties.set("bytes", Value::Bytes((0..=255).collect()));
    properties.set("no_bytes", Value::Bytes(Vec::new()));
    for (index, number) in doubles.into_iter().enumerate() {
        properties.set(&format!("double{index}"), Value::Double(number));
    }
    properties
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    let Some((_, ports)) = azurite() else { return };
    let table = table(&ports).await;
    let partition = key("p");
    let values = every_value();
    ports
        .tables
        .commit(&table, &partition, vec![insert("one", values.clone())])
        .await
        .unwrap();
    let two = vec![insert("two", values.clone()), insert("three", values.clone())];
    ports.tables.commit(&table, &partition, two).await.unwrap();
    for row in ["one", "two", "three"] {
        let entity = ports
            .tables
            .get(&table, &partition, &key(row))
            .await
            .unwrap()
            .expect("a row");
        assert_eq!(entity.properties, values, "{row}");
    }
    let page = ports.tables.query(&table, Query::partition(partition)).await.unwrap();
    assert_eq!(page.entities.len(), 3);
    assert!(page.entities.iter().all(|entity| entity.properties == values));
}

#[tokio::test]
async fn any_key_is_found_again() {
    let Some((_, ports)) = azurite() else { return };
    let table = table(&ports).await;
    let keys = [
        "",
        "it's",
        "''",
        "a b",
        "ü€\u{1F600}",
        "100%",
        "%27",
        "a+b",
        "a&b=c",
        "a:b;c,d",
        "<x>",
        "(p)",
        "..",
        "$batch",
    ];
    for text in keys {
        let partition = key(&format!("p{text}"));
        let rows = [text, "second"].map(|row| insert(row, Properties::new().with("a", text)));
        ports
            .tables
            .commit(&table, &partition, rows.into())
            .await
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let got = ports
            .tables
            .get(&table, &partition, &key(text))
            .await
            .unwrap()
            .expect(text);
        assert_eq!((got.partition.as_str(), got.row.as_str()), (partition.as_str(), text));
        let range = Query {
            from: Some(key(text)),
            until: Some(key(&format!("{text}\u{1}").replace('\u{1}', "!"))),
            ..Query::partition(partition.clone())
        };
        let page = ports.tables.query(&table, range).await.unwrap();
        assert!(page.entities.iter().any(|entity| entity.row.as_str() == text), "{text}");
        let etag = ports
            .tables
            .commit(
                &table,
                &partition,
                vec![Operation::Merge(
                    key(text),
                    Properties::new().with("b", 1),
                    Match::Exactly(got.etag),
                )],
            )
            .await
            .unwrap()
            .remove(0);
        ports
            .tables
            .commit(
                &table,
                &partition,
                vec![Operation::Delete(key(text), Match::Exactly(etag))],
            )
            .await
            .unwrap();
        assert_eq!(ports.tables.get(&table, &partition, &key(text)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_failed_batch_names_its_operation_and_leaves_nothing() {
    let Some((_, ports)) = azurite() else { return };
    let table = table(&ports).await;
    let partition = key("p");
    let old = ports
        .tables
        .commit(&table, &partition, vec![insert("old", Properties::new().with("v", 1))])
        .await
        .unwrap();
    let stale = old[0].clone();
    let merge = Operation::Merge(
        key("old"),
        Properties::new().with("v", 2),
        Match::Exactly(stale.clone()),
    );
    let new = ports.tables.commit(&table, &partition, vec![merge]).await.unwrap();
    assert_ne!(stale, new[0]);

    let fresh = |row: &str| insert(row, Properties::new());
    let cases: Vec<(Operation, bool)> = vec![
        (insert("old", Properties::new()), true),
        (
            Operation::Replace(key("old"), Properties::new(), Match::Exactly(stale.clone())),
            false,
        ),
        (
            Operation::Merge(key("old"), Properties::new(), Match::Exactly(stale.clone())),
            false,
        ),
        (Operation::Delete(key("old"), Match::Exactly(stale.clone())), false),
        (Operation::Replace(key("gone"), Properties::new(), Match::Any), false),
        (Operation::Merge(key("gone"), Properties::new(), Match::Any), false),
        (Operation::Delete(key("gone"), Match::Any), false),
        (
            Operation::Replace(key("gone"), Properties::new(), Match::Exactly(stale.clone())),
            false,
        ),
        (
            Operation::Merge(key("gone"), Properties::new(), Match::Exactly(stale.clone())),
            false,
        ),
        (Operation::Delete(key("gone"), Match::Exactly(stale.clone())), false),
        (Operation::Delete(key("old"), Match::Exactly(ETag("*".into()))), false),
        (
            Operation::Delete(key("old"), Match::Exactly(ETag("W/\"\r\nX-Other: 1\"".into()))),
            false,
        ),
    ];
    for (bad, exists) in cases {
        let row = bad.row().to_string();
        for (operations, expected) in [
            (vec![bad.clone()], 0),
            (vec![bad.clone(), fresh("a")], 0),
            (vec![fresh("a"), fresh("b"), bad.clone(), fresh("c")], 2),
        ] {
            let alone = operations.len();
            let error = ports
                .tables
                .commit(&table, &partition, operations)
                .await
                .expect_err("a refusal");
            match error {
                Error::AlreadyExists { what, index } if exists => assert_eq!((what, index), (row.clone(), expected)),
                Error::PreconditionFailed { what, index } if !exists => {
                    assert_eq!((what, index), (row.clone(), expected));
                }
                other => panic!("{bad:?} of {alone}: {other:?}"),
            }
        }
    }
    let page = ports.tables.query(&table, Query::partition(partition)).await.unwrap();
    assert_eq!(page.entities.len(), 1);
    assert_eq!(page.entities[0].etag, new[0]);
    assert_eq!(page.entities[0].properties.require_int("v").unwrap(), 2);
}

#[tokio::test]
async fn a_missing_table_is_not_found_everywhere() {
    let Some((_, ports)) = azurite() else { return };
    let table = TableName::new(unique()).unwrap();
    let partition = key("p");
    let not_found = |what: &str, outcome: Result<(), Error>| {
        assert!(
            matches!(&outcome, Err(Error::NotFound { what }) if what == table.as_str()),
            "{what}: {outcome:?}"
        );
    };
    not_found("get", ports.tables.get(&table, &partition, &key("r")).await.map(|_| ()));
    not_found(
        "query",
        ports
            .tables
            .query(&table, Query::partition(partition.clone()))
            .await
            .map(|_| ()),
    );
    let one = || Operation::Upsert(key("a"), Properties::new());
    let many = || vec![one(), insert("b", Properties::new())];
    not_found(
        "one",
        ports.tables.commit(&table, &partition, vec![one()]).await.map(|_| ()),
    );
    not_found(
        "many",
        ports.tables.commit(&table, &partition, many()).await.map(|_| ()),
    );
    let delete = vec![Operation::Delete(key("a"), Match::Any)];
    not_found(
        "delete",
        ports.tables.commit(&table, &partition, delete).await.map(|_| ()),
    );
    ports.tables.delete_table(&table).await.unwrap();
    ports.tables.create_table(&table).await.unwrap();
    ports.tables.create_table(&table).await.unwrap();
    ports.tables.delete_table(&table).await.unwrap();
    ports.tables.delete_table(&table).await.unwrap();
}

#[tokio::test]
async fn filters_compare_typed_values() {
    let Some((_, ports)) = azurite() else { return };
    let table = table(&ports).await;
    let partition = key("p");
    let at = Timestamp::from_millis;
    let row = |name: &str, text: &str, int: i64, double: f64, truth: bool, millis: i64, bytes: u8| {
        let mut properties = Properties::new()
            .with("t", text)
            .with("i", int)
            .with("b", truth)
            .with("at", at(millis));
        properties.set("d", Value::Double(double));
        properties.set("x", Value::Bytes(vec![bytes]));
        insert(name, properties)
    };
    let rows = vec![
        row("1", "a", -5, -1.5, false, 1_000, 1),
        row("2", "it's", 9_007_199_254_740_993, 2.0, true, 2_000, 2),
        row("3", "c", 9_007_199_254_740_992, 1e300, true, 3_000, 3),
        insert("4", Properties::new().with("other", 1)),
    ];
    ports.tables.commit(&table, &partition, rows).await.unwrap();
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let is = |name: &str, comparison, value: Value| Filter::Is(name.into(), comparison, value);
    let big = Value::Int(9_007_199_254_740_993);
    let cases = [
        (is("t", Equal, "it's".into()), "2"),
        (is("t", NotEqual, "it's".into()), "13"),
        (is("t", GreaterOrEqual, "c".into()), "23"),
        (is("i", Equal, big.clone()), "2"),
        (is("i", NotEqual, big.clone()), "13"),
        (is("i", Less, big.clone()), "13"),
        (is("i", Less, Value::Int(0)), "1"),
        (is("d", Equal, Value::Double(2.0)), "2"),
        (is("d", NotEqual, Value::Double(2.0)), "13"),
        (is("d", Greater, Value::Double(1e299)), "3"),
        (is("d", LessOrEqual, Value::Double(-1.5)), "1"),
        (is("b", Equal, true.into()), "23"),
        (is("b", NotEqual, true.into()), "1"),
        (is("at", Equal, at(2_000).into()), "2"),
        (is("at", NotEqual, at(2_000).into()), "13"),
        (is("at", Less, at(2_001).into()), "12"),
        (is("x", Equal, Value::Bytes(vec![2])), "2"),
        (is("x", NotEqual, Value::Bytes(vec![2])), "13"),
        (is("i", Equal, (-5).into()).or(is("t", Equal, "c".into())), "13"),
        (
            is("b", Equal, true.into()).and(is("t", Equal, "c".into()).or(is("t", Equal, "a".into()))),
            "3",
        ),
        (is("nowhere", Equal, 1.into()), ""),
        (is("nowhere", NotEqual, 1.into()), ""),
    ];
    for (filter, expected) in cases {
        let query = Query::partition(partition.clone()).filter(filter.clone());
        let page = ports
            .tables
            .query(&table, query)
            .await
            .unwrap_or_else(|error| panic!("{filter:?}: {error:?}"));
        let found: String = page.entities.iter().map(|entity| entity.row.as_str()).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let query = Query {
        select: vec!["i".into(), "nowhere".into()],
        ..Query::partition(partition.clone())
    };
    let page = ports.tables.query(&table, query).await.unwrap();
    assert_eq!(page.entities[0].properties, Properties::new().with("i", -5));
    let row = ports
        .tables
        .get(&table, &partition, &key("1"))
        .await
        .unwrap()
        .expect("a row");
    assert_eq!(page.entities[0].etag, row.etag);
}

#[tokio::test]
async fn a_filter_can_not_leave_its_partition() {
    let Some((_, ports)) = azurite() else { return };
    let table = table(&ports).await;
    for partition in ["mine", "theirs"] {
        ports
            .tables
            .commit(
                &table,
                &key(partition),
                vec![insert("r", Properties::new().with("a", "x"))],
            )
            .await
            .unwrap();
    }
    let mine = || Query::partition(key("mine"));
    let hostile = [
        "x' or PartitionKey ne '",
        "x') or (PartitionKey ne '",
        "' or '1' eq '1",
        "x&$filter=true",
        "x%27 or true or %27",
    ];
    for text in hostile {
        let page = ports
            .tables
            .query(&table, mine().filter(Filter::equal("a", text)))
            .await
            .unwrap();
        assert!(page.entities.is_empty(), "{text}");
        let page = ports.tables.query(&table, Query::partition(key(text))).await;
        assert!(page.unwrap().entities.is_empty(), "{text}");
        let from = Query {
            from: Some(key(text)),
            ..mine()
        };
        let page = ports.tables.query(&table, from).await.unwrap();
        assert!(
            page.entities.iter().all(|entity| entity.partition == key("mine")),
            "{text}"
        );
        let name = mine().filter(Filter::equal(text, "x"));
        assert!(
            matches!(ports.tables.query(&table, name).await, Err(Error::Malformed { .. })),
            "{text}"
        );
        let select = Query {
            select: vec![text.into()],
            ..mine()
        };
        assert!(
            matches!(ports.tables.query(&table, select).await, Err(Error::Malformed { .. })),
            "{text}"
        );
    }
}

#[tokio::test]
async fn pages_go_on_and_forged_ones_do_not() {
    let Some((_, ports)) = azurite() else { return };
    let table = table(&ports).await;
    for partition in ["mine", "theirs"] {
        let rows = (0..60)
            .map(|number| insert(&format!("{number:03}"), Properties::new()))
            .collect();
        ports.tables.commit(&table, &key(partition), rows).await.unwrap();
    }
    let read_all = async |after: Option<Continuation>| {
        let (mut rows, mut next, mut first) = (Vec::new(), after, None);
        loop {
            let query = Query::partition(key("mine")).limit(7).after(next);
            let page = ports.tables.query(&table, query).await.unwrap();
            assert!(page.entities.len() <= 7);
            rows.extend(
                page.entities
                    .into_iter()
                    .map(|entity| (entity.partition.to_string(), entity.row.to_string())),
            );
            next = page.next;
            if first.is_none() {
                first.clone_from(&next);
            }
            if next.is_none() {
                return (rows, first);
            }
        }
    };
    let (rows, first) = read_all(None).await;
    let expected: Vec<_> = (0..60)
        .map(|number| ("mine".to_owned(), format!("{number:03}")))
        .collect();
    assert_eq!(rows, expected);
    let first = first.expect("more than one page");

    // Of another partition, or made up.
    let elsewhere = Query::partition(key("theirs")).after(Some(first.clone()));
    assert!(matches!(
        ports.tables.query(&table, elsewhere).await,
        Err(Error::Malformed { .. })
    ));
    for text in ["", "x", "WyJhIiwiYiIsImMiXQ", "../../x", "a&$filter=true"] {
        let query = Query::partition(key("mine")).after(Some(Continuation(text.into())));
        assert!(
            matches!(ports.tables.query(&table, query).await, Err(Error::Malformed { .. })),
            "{text}"
        );
    }
    // With a right mark but a place of somebody else's choice: still only rows of the partition.
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let parts: (String, String, String) = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&first.0).unwrap()).unwrap();
    let forged = serde_json::json!([parts.0, STANDARD.encode("theirs"), STANDARD.encode("000")]).to_string();
    let query = Query::partition(key("mine")).after(Some(Continuation(URL_SAFE_NO_PAD.encode(forged))));
    let page = ports.tables.query(&table, query).await.unwrap();
    assert!(page.entities.iter().all(|entity| entity.partition == key("mine")));
}

// --- Blobs and queues --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn blobs_of_every_size() {
    let Some((_, ports)) = azurite() else { return };
    let container = container(&ports).await;
    let blob = path("a/b-c_d.e=f:g/blob");
    // Over 4 MiB the client sends blocks.
    for size in [0, 1, 4 * 1024 * 1024, 9 * 1024 * 1024 + 1] {
        let bytes: Bytes = (0..size)
            .map(|index| u8::try_from(index % 251).unwrap())
            .collect::<Vec<_>>()
            .into();
        ports
            .blobs
            .put(&container, &blob, bytes.clone(), Put::Overwrite)
            .await
            .unwrap();
        let error = ports
            .blobs
            .put(&container, &blob, Bytes::from_static(b"other"), Put::Create)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
        let limit = bytes.len() as u64;
        assert_eq!(
            ports.blobs.get(&container, &blob, limit).await.unwrap().as_ref(),
            Some(&bytes),
            "{size}"
        );
        assert_eq!(
            ports.blobs.get(&container, &blob, u64::MAX).await.unwrap().as_ref(),
            Some(&bytes),
            "{size}"
        );
        if size > 0 {
            let error = ports.blobs.get(&container, &blob, limit - 1).await.unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
        }
        for (offset, length) in [
            (0, 0),
            (0, 10),
            (limit / 2, 10),
            (limit, 10),
            (limit + 5, 10),
            (0, u64::MAX),
            (u64::MAX, u64::MAX),
        ] {
            let start = usize::try_from(offset).unwrap().min(bytes.len());
            let end = usize::try_from(offset.saturating_add(length)).unwrap().min(bytes.len());
            let read = ports
                .blobs
                .read(&container, &blob, offset, length)
                .await
                .unwrap()
                .expect("a blob");
            assert_eq!(read, bytes.slice(start..end), "{size}: {offset}+{length}");
        }
    }
    assert!(ports.blobs.delete(&container, &blob, Match::Any).await.unwrap());
    assert!(!ports.blobs.delete(&container, &blob, Match::Any).await.unwrap());
    assert_eq!(ports.blobs.read(&container, &blob, 0, 0).await.unwrap(), None);
}

#[tokio::test]
async fn listings_go_on() {
    let Some((_, ports)) = azurite() else { return };
    let container = container(&ports).await;
    for number in 0..1003 {
        let path = path(&format!("logs/{number:04}"));
        ports
            .blobs
            .put(&container, &path, Bytes::from_static(b"xy"), Put::Create)
            .await
            .unwrap();
    }
    ports
        .blobs
        .put(&container, &path("other"), Bytes::new(), Put::Create)
        .await
        .unwrap();
    let first = ports.blobs.list(&container, "logs/", None).await.unwrap();
    assert_eq!(first.blobs.len(), 1000);
    let next = first.next.expect("more");
    let other = ports.blobs.list(&container, "", Some(next.clone())).await;
    assert!(matches!(other, Err(Error::Malformed { .. })), "{other:?}");
    let second = ports.blobs.list(&container, "logs/", Some(next)).await.unwrap();
    assert_eq!((second.blobs.len(), second.next), (3, None));
    assert_eq!((second.blobs[2].path.as_str(), second.blobs[2].size), ("logs/1002", 2));
}

#[tokio::test]
async fn appends_happen_once() {
    let Some((_, ports)) = azurite() else { return };
    let container = container(&ports).await;
    let log = path("log");
    let append = |at, bytes: &'static [u8]| ports.blobs.append(&container, &log, at, Bytes::from_static(bytes));
    let elsewhere = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::PreconditionFailed { .. })), "{outcome:?}");
    };
    elsewhere(append(3, b"abc").await);
    append(0, b"abc").await.unwrap();
    elsewhere(append(0, b"abc").await);
    append(3, b"def").await.unwrap();
    elsewhere(append(9, b"x").await);
    assert!(matches!(append(6, b"").await, Err(Error::Malformed { .. })));
    assert_eq!(ports.blobs.get(&container, &log, 100).await.unwrap().unwrap(), "abcdef");
    let large = Bytes::from(vec![1; 4 * 1024 * 1024]);
    ports.blobs.append(&container, &log, 6, large).await.unwrap();
    let larger = Bytes::from(vec![1; 4 * 1024 * 1024 + 1]);
    let error = ports.blobs.append(&container, &log, 0, larger).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn messages_are_base64_for_others_and_text_for_us() {
    let Some((_, ports)) = azurite() else { return };
    let queue = queue(&ports).await;
    let text = "\u{1} <a>&amp; ü \u{1F600}\r\n";
    let sent = ports.queues.send(&queue, text, Duration::ZERO).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), ports.queues.sent_here(&queue))
        .await
        .expect("a bell");
    let second = Duration::from_secs(30);
    let got = ports.queues.receive(&queue, 32, second).await.unwrap().remove(0);
    assert_eq!(
        (got.text.as_str(), got.dequeue_count, &got.receipt.id),
        (text, 1, &sent.id)
    );
    // The sender's receipt ended with the delivery.
    assert!(!ports.queues.delete(&queue, &sent).await.unwrap());
    let extended = ports.queues.extend(&queue, &got.receipt, second).await.unwrap();
    let stale = ports.queues.extend(&queue, &got.receipt, second).await;
    assert!(matches!(stale, Err(Error::PreconditionFailed { .. })), "{stale:?}");
    assert!(!ports.queues.delete(&queue, &got.receipt).await.unwrap());
    // Visible again at once, and unchanged.
    let extended = ports.queues.extend(&queue, &extended, Duration::ZERO).await.unwrap();
    let again = ports.queues.receive(&queue, 32, second).await.unwrap().remove(0);
    assert_eq!((again.text.as_str(), again.dequeue_count), (text, 2));
    assert!(!ports.queues.delete(&queue, &extended).await.unwrap());
    assert!(ports.queues.delete(&queue, &again.receipt).await.unwrap());
    assert!(!ports.queues.delete(&queue, &again.receipt).await.unwrap());

    let largest = "x".repeat(weft::store::port::MAX_MESSAGE_BYTES);
    let sent = ports
        .queues
        .send(&queue, &largest, Duration::from_secs(60 * 60))
        .await
        .unwrap();
    assert!(ports.queues.receive(&queue, 32, second).await.unwrap().is_empty());
    assert!(ports.queues.delete(&queue, &sent).await.unwrap());
    let error = ports
        .queues
        .send(&queue, &format!("{largest}x"), Duration::ZERO)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");

    let missing = QueueName::new(unique()).unwrap();
    let error = ports.queues.receive(&missing, 1, second).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    for id in ["../../x", "", "a?b"] {
        let forged = weft::store::port::MessageReceipt {
            id: id.into(),
            pop_receipt: "x&y=/..".into(),
        };
        assert!(!ports.queues.delete(&queue, &forged).await.unwrap());
    }
}

// --- Credentials -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_wrong_key_is_forbidden() {
    let Some((connection, _)) = azurite() else { return };
    let (account, right) = (part(&connection, "AccountName"), part(&connection, "AccountKey"));
    let wrong = "d3Jvbmcga2V5IG9mIHRoZSBhY2NvdW50";
    let ports = connect(&format!(
        "AccountName={account};AccountKey={wrong};{}",
        endpoints(&connection)
    ));
    for outcome in one_of_each(&ports).await {
        let error = outcome.expect_err("a refusal");
        assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
        let text = all_texts(&error);
        assert!(!text.contains(wrong) && !text.contains(right), "{text}");
    }
    let debug = format!("{ports:?}");
    assert!(!debug.contains(wrong), "{debug}");
}

/// An account SAS for everything, until the year 2099.
fn shared_access_signature(connection: &str) -> String {
    let (account, key) = (part(connection, "AccountName"), part(connection, "AccountKey"));
    let (permissions, expiry, version) = ("rwdlacup", "2099-01-01T00:00:00Z", "2018-11-09");
    let text = format!("{account}\n{permissions}\nbqt\nsco\n\n{expiry}\n\nhttps,http\n{version}\n");
    let signature = hmac_sha256(&text, &Secret::new(key.to_owned())).unwrap();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("sv", version),
        ("ss", "bqt"),
        ("srt", "sco"),
        ("sp", permissions),
        ("se", expiry),
        ("spr", "https,http"),
        ("sig", &signature),
    ]);
    query.finish()
}

#[tokio::test]
async fn a_shared_access_signature_opens_everything() {
    let Some((connection, _)) = azurite() else { return };
    let sas = shared_access_signature(&connection);
    let ports = connect(&format!("SharedAccessSignature={sas};{}", endpoints(&connection)));
    assert!(!format!("{ports:?}").contains("sig="));
    let (table, container, queue) = (table(&ports).await, container(&ports).await, queue(&ports).await);
    let rows = vec![insert("a", Properties::new()), insert("b", Properties::new())];
    ports.tables.commit(&table, &key("p"), rows).await.unwrap();
    assert_eq!(
        ports
            .tables
            .query(&table, Query::partition(key("p")).limit(1))
            .await
            .unwrap()
            .entities
            .len(),
        1
    );
    ports
        .blobs
        .put(&container, &path("x"), Bytes::from_static(b"x"), Put::Create)
        .await
        .unwrap();
    assert_eq!(ports.blobs.list(&container, "", None).await.unwrap().blobs.len(), 1);
    ports.queues.send(&queue, "x", Duration::ZERO).await.unwrap();
    assert_eq!(
        ports
            .queues
            .receive(&queue, 1, Duration::from_secs(5))
            .await
            .unwrap()
            .len(),
        1
    );

    let bad = connect(&format!(
        "SharedAccessSignature={};{}",
        sas.replace("sig=", "sig=AAAA"),
        endpoints(&connection)
    ));
    for outcome in one_of_each(&bad).await {
        let error = outcome.expect_err("a refusal");
        assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
        assert!(!all_texts(&error).contains("AAAA"), "{error:?}");
    }
}

/// Accepts tokens' requests as the Functions host's identity endpoint does, and keeps what it was asked.
async fn identity_endpoint(answer: String) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 16 * 1024];
            let length = stream.read(&mut buffer).await.unwrap_or_default();
            keep.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, asked)
}

/// The identity endpoint is found through the environment, so this test runs itself once more in another one.
#[tokio::test]
async fn a_managed_identity_asks_for_a_token() {
    if let Some(expected) = variable("WEFT_TEST_IDENTITY_EXPECTS") {
        let [port, ..] = free_ports().await;
        let address = format!("https://127.0.0.1:{port}");
        let identity = Identity::Managed {
            client_id: Some("11111111-2222-3333-4444-555555555555".into()),
        };
        let settings = Settings::from_account("weft", identity).unwrap();
        let ports = open(settings.with_endpoints(&address, &address, &address).unwrap()).unwrap();
        assert!(!format!("{ports:?}").contains("SECRETTOKEN"));
        for outcome in one_of_each(&ports).await {
            let error = outcome.expect_err("nobody listens");
            match expected.as_str() {
                "unavailable" => assert!(matches!(error, Error::Unavailable { .. }), "{error:?}"),
                _ => assert!(matches!(error, Error::Forbidden { .. }), "{error:?}"),
            }
            assert!(!all_texts(&error).contains("SECRETTOKEN"), "{error:?}");
        }
        return;
    }
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    let token = r#"{"access_token":"SECRETTOKEN","expires_on":"4102444800","resource":"x","token_type":"Bearer"}"#;
    let refusal = r#"{"statusCode":400,"message":"no such identity"}"#;
    for (answer, expected) in [
        (answer("200 OK", token), "unavailable"),
        (answer("400 Bad", refusal), "forbidden"),
    ] {
        let (port, asked) = identity_endpoint(answer).await;
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "azure::a_managed_identity_asks_for_a_token"])
            .env("IDENTITY_ENDPOINT", format!("http://127.0.0.1:{port}/msi/token"))
            .env("IDENTITY_HEADER", "header-of-the-host")
            .env("WEFT_TEST_IDENTITY_EXPECTS", expected)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        let asked = asked.lock().unwrap();
        assert!(!asked.is_empty());
        for request in asked.iter() {
            let line = request.lines().next().unwrap_or_default();
            assert!(
                line.contains("client_id=11111111-2222-3333-4444-555555555555"),
                "{line}"
            );
            assert!(
                line.contains("resource=https") && line.contains("storage.azure.com"),
                "{line}"
            );
            assert!(
                request.to_lowercase().contains("x-identity-header: header-of-the-host"),
                "{request}"
            );
        }
    }
}

// --- Outages -----------------------------------------------------------------------------------------------------------

/// Addresses of three ports of this computer.
fn at(ports: [u16; 3]) -> String {
    let [blob, queue, table] = ports.map(|port| format!("http://127.0.0.1:{port}/devstoreaccount1"));
    format!("BlobEndpoint={blob};QueueEndpoint={queue};TableEndpoint={table};")
}

/// Three ports that nobody listens on.
async fn free_ports() -> [u16; 3] {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    [0, 1, 2].map(|index| listeners[index].local_addr().unwrap().port())
}

async fn expect_unavailable(ports: &Ports, within: Duration) -> Vec<Error> {
    let begun = Instant::now();
    let outcomes = one_of_each(ports).await;
    assert!(begun.elapsed() < within, "took {:?}", begun.elapsed());
    let errors: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect_err("an outage"))
        .collect();
    for error in &errors {
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
    errors
}

#[tokio::test]
async fn an_outage_is_known_soon_and_tells_no_signature() {
    let signature = "c2VjcmV0c2lnbmF0dXJl";
    let sas = format!(
        "SharedAccessSignature=sv=2018-11-09&sig={signature};{}",
        at(free_ports().await)
    );
    for error in expect_unavailable(&connect(&sas), Duration::from_secs(3)).await {
        let text = all_texts(&error);
        assert!(!text.contains(signature) && !text.contains("sig="), "{text}");
        assert!(text.contains("refused"), "the cause is lost: {text}");
    }
}

/// A server that answers every request in the same way, and counts them.
async fn server(answer: &'static str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 64 * 1024];
            if stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (port, count)
}

async fn against(answer: &'static str) -> (Ports, Arc<AtomicUsize>) {
    let (port, count) = server(answer).await;
    let sas = "SharedAccessSignature=sv=2018-11-09&sig=c2VjcmV0c2lnbmF0dXJl";
    (connect(&format!("{sas};{}", at([port; 3]))), count)
}

#[tokio::test]
async fn what_may_have_arrived_is_not_sent_again() {
    let table = TableName::new("table").unwrap();
    let queue = QueueName::new("queue").unwrap();
    let cut_off = "";
    let down = "HTTP/1.1 500 Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let busy = "HTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let busy_for_long = "HTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\nretry-after: 30\r\ncontent-length: 0\r\n\
                         connection: close\r\n\r\n";
    for (answer, write_tries, read_tries) in [(cut_off, 1, 4), (down, 1, 4), (busy, 4, 4), (busy_for_long, 1, 1)] {
        let (ports, count) = against(answer).await;
        let is_expected = |error: &Error| match answer {
            _ if answer == busy || answer == busy_for_long => matches!(error, Error::Throttled { .. }),
            _ => matches!(error, Error::Unavailable { .. }),
        };
        for operations in [1, 2] {
            let rows = (0..operations)
                .map(|row| insert(&row.to_string(), Properties::new()))
                .collect();
            let error = ports.tables.commit(&table, &key("p"), rows).await.unwrap_err();
            assert!(is_expected(&error), "{answer}: {error:?}");
            assert_eq!(
                count.swap(0, Ordering::SeqCst),
                write_tries,
                "commit of {operations}: {answer}"
            );
        }
        let error = ports.queues.send(&queue, "x", Duration::ZERO).await.unwrap_err();
        assert!(is_expected(&error), "{answer}: {error:?}");
        let tries = count.swap(0, Ordering::SeqCst);
        assert_eq!(tries, read_tries, "a message may be there twice: {answer}");
        let error = ports.queues.send_once(&queue, "x").await.unwrap_err();
        assert!(is_expected(&error), "{answer}: {error:?}");
        assert_eq!(count.swap(0, Ordering::SeqCst), write_tries, "send once: {answer}");
        let error = ports
            .queues
            .receive(&queue, 1, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(is_expected(&error), "{answer}: {error:?}");
        assert_eq!(count.swap(0, Ordering::SeqCst), write_tries, "receive: {answer}");
        let error = ports.tables.get(&table, &key("p"), &key("r")).await.unwrap_err();
        assert!(is_expected(&error), "{answer}: {error:?}");
        assert_eq!(count.swap(0, Ordering::SeqCst), read_tries, "get: {answer}");
    }
}

/// A server that resets the first connection when a request has come, and says on the next that a message was put.
async fn resets_once() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList><QueueMessage><MessageId>0f</MessageId>\
                <InsertionTime>Sun, 29 Nov 2026 08:00:00 GMT</InsertionTime><ExpirationTime>Fri, 31 Dec 9999 23:59:59 GMT\
                </ExpirationTime><PopReceipt>cg==</PopReceipt><TimeNextVisible>Sun, 29 Nov 2026 08:00:00 GMT\
                </TimeNextVisible></QueueMessage></QueueMessagesList>";
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.readable().await.unwrap();
            if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                // Closed with something unread: the other side sees a reset.
                drop(stream);
                continue;
            }
            let mut buffer = vec![0; 64 * 1024];
            let _ = stream.read(&mut buffer).await;
            let length = body.len();
            let head = "HTTP/1.1 201 Created\r\ncontent-type: application/xml\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, count)
}

#[tokio::test]
async fn a_message_is_sent_again_when_its_connection_is_reset() {
    let queue = QueueName::new("queue").unwrap();
    let sas = "SharedAccessSignature=sv=2018-11-09&sig=c2VjcmV0c2lnbmF0dXJl";
    let (port, count) = resets_once().await;
    let ports = connect(&format!("{sas};{}", at([port; 3])));
    let receipt = ports.queues.send(&queue, "x", Duration::ZERO).await.unwrap();
    assert_eq!((receipt.id.as_str(), receipt.pop_receipt.as_str()), ("0f", "cg=="));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // What would be two runs is not sent again.
    let (port, count) = resets_once().await;
    let ports = connect(&format!("{sas};{}", at([port; 3])));
    let error = ports.queues.send_once(&queue, "x").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ports = connect(&format!("SharedAccessSignature=sig=abc;{}", at([port; 3])));
    // Connections are accepted by the system and never answered.
    expect_unavailable(&ports, Duration::from_secs(6)).await;
}

/// An emulator of our own, stopped when dropped.
struct Azurite(Child);

impl Azurite {
    #[expect(clippy::disallowed_methods, reason = "the test owns this process")]
    fn start(program: &str, ports: [u16; 3]) -> Self {
        let [blob, queue, table] = ports.map(|port| port.to_string());
        let mut child = std::process::Command::new(program)
            .args([
                "--inMemoryPersistence",
                "--silent",
                "--disableTelemetry",
                "--skipApiVersionCheck",
            ])
            .args([
                "--blobHost",
                "127.0.0.1",
                "--queueHost",
                "127.0.0.1",
                "--tableHost",
                "127.0.0.1",
            ])
            .args(["--blobPort", &blob, "--queuePort", &queue, "--tablePort", &table])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an emulator");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let ready = output
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.contains("successfully listening"));
        assert_eq!(ready.take(3).count(), 3, "the emulator did not start");
        Self(child)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_restarted_service_is_used_again() {
    let Some(program) = required("WEFT_TEST_AZURITE_BIN") else {
        return;
    };
    let at_ports = free_ports().await;
    let account = "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/\
                   K1SZFPTOtr/KBHBeksoGMGw==";
    let ports = connect(&format!("{account};{}", at(at_ports)));
    let work = async || {
        let (table, container, queue) = (table(&ports).await, container(&ports).await, queue(&ports).await);
        ports
            .tables
            .commit(&table, &key("p"), vec![insert("r", Properties::new())])
            .await
            .unwrap();
        ports
            .blobs
            .put(&container, &path("b"), Bytes::new(), Put::Create)
            .await
            .unwrap();
        ports.queues.send(&queue, "x", Duration::ZERO).await.unwrap();
    };
    let first = Azurite::start(&program, at_ports);
    work().await;
    drop(first);
    expect_unavailable(&ports, Duration::from_secs(3)).await;
    let second = Azurite::start(&program, at_ports);
    work().await;
    drop(second);
}
