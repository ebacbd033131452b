//! What only the embedded store promises: durability, several processes on one file, and recovery without a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use weft::clock::{Clock, ManualClock, SystemClock};
use weft::domain::Timestamp;
use weft::store::Error;
use weft::store::port::{
    BlobPath, Comparison, ContainerName, Continuation, ETag, Filter, Key, Match, Operation, Ports, Properties, Put,
    Query, QueueName, TableName, Value,
};
use weft::store::sqlite;

/// The variable that tells a helper test, run as a child, which file to use.
const FILE: &str = "WEFT_TEST_STORE_FILE";

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn table() -> TableName {
    TableName::new("org1").unwrap()
}

fn open(path: &Path) -> Ports {
    sqlite::open(Some(path), Arc::new(SystemClock)).unwrap()
}

async fn insert(ports: &Ports, row: &str, text: String) -> Result<ETag, Error> {
    let insert = vec![Operation::Insert(key(row), Properties::new().with("value", text))];
    Ok(ports.tables.commit(&table(), &key("p"), insert).await?.remove(0))
}

async fn rows(ports: &Ports) -> BTreeSet<String> {
    let (mut rows, mut after) = (BTreeSet::new(), None);
    loop {
        let page = ports
            .tables
            .query(&table(), Query::partition(key("p")).after(after))
            .await
            .unwrap();
        rows.extend(page.entities.into_iter().map(|entity| entity.row.to_string()));
        if page.next.is_none() {
            return rows;
        }
        after = page.next;
    }
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unavailable { what, .. }) => what,
        other => panic!("expected Unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn its_files_are_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let modes = || -> Vec<(String, u32)> {
        let mut found: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        found.sort();
        found
    };
    let expected = ["weft.db", "weft.db-shm", "weft.db-wal"].map(|name| (name.to_owned(), 0o600));
    let store = open(&path);
    store.tables.create_table(&table()).await.unwrap();
    assert_eq!(modes(), expected);
    for (name, _) in &expected {
        std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let again = open(&path);
    assert_eq!(modes(), expected, "a file that was readable is so no more");
    drop((store, again));
}

// ---- several users of one file

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_see_and_count_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let stores = [open(&path), open(&path)];
    stores[0].tables.create_table(&table()).await.unwrap();
    let first = insert(&stores[1], "a", "x".into()).await.unwrap();
    let seen = stores[0]
        .tables
        .get(&table(), &key("p"), &key("a"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.etag, first);
    let change = vec![Operation::Delete(key("a"), Match::Exactly(first))];
    stores[0].tables.commit(&table(), &key("p"), change).await.unwrap();
    assert_eq!(
        stores[1].tables.get(&table(), &key("p"), &key("a")).await.unwrap(),
        None
    );

    insert(&stores[0], "counter", "0".into()).await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|task| tokio::spawn(increment(stores[task % 2].clone(), 25)))
        .collect();
    let mut etags = BTreeSet::new();
    for task in tasks {
        for etag in task.await.unwrap() {
            assert!(etags.insert(etag.0), "no ETag is given twice");
        }
    }
    let counter = stores[0]
        .tables
        .get(&table(), &key("p"), &key("counter"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(counter.properties.require_text("value").unwrap(), "100");
}

async fn increment(ports: Ports, times: usize) -> Vec<ETag> {
    let mut etags = Vec::new();
    while etags.len() < times {
        let stored = ports
            .tables
            .get(&table(), &key("p"), &key("counter"))
            .await
            .unwrap()
            .unwrap();
        let next = stored.properties.require_text("value").unwrap().parse::<u64>().unwrap() + 1;
        let properties = Properties::new().with("value", next.to_string());
        let write = vec![Operation::Replace(
            key("counter"),
            properties,
            Match::Exactly(stored.etag),
        )];
        match ports.tables.commit(&table(), &key("p"), write).await {
            Ok(mut written) => etags.append(&mut written),
            Err(Error::PreconditionFailed { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    etags
}

#[tokio::test]
async fn every_memory_database_is_its_own() {
    let [one, two] = [(), ()].map(|()| sqlite::open(None, Arc::new(SystemClock)).unwrap());
    one.tables.create_table(&table()).await.unwrap();
    let other = two.tables.get(&table(), &key("p"), &key("r")).await;
    assert!(matches!(other, Err(Error::NotFound { .. })), "{other:?}");
}

// ---- killed processes

#[expect(
    clippy::disallowed_methods,
    reason = "a helper test is told its file by the test that starts it"
)]
fn file_of_helper() -> Option<PathBuf> {
    std::env::var_os(FILE).map(PathBuf::from)
}

/// Starts a helper test of this binary as a process of its own. A file that grows beyond a limit gives it an error, not a
/// signal.
#[expect(clippy::disallowed_methods, reason = "the child is this test binary")]
fn start_helper(name: &str, file: &Path) -> Child {
    let this = std::env::current_exe().unwrap();
    Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env(FILE, file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "started as a child by `a_killed_process_loses_no_acknowledged_write`"]
fn helper_writes_until_it_is_killed() {
    let Some(file) = file_of_helper() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ports = open(&file);
        ports.tables.create_table(&table()).await.unwrap();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let ports = ports.clone();
                tokio::spawn(async move {
                    for number in 0..20_000 {
                        let row = format!("{}-{writer}-{number}", std::process::id());
                        insert(&ports, &row, "x".repeat(500)).await.unwrap();
                        // Fails when the parent is gone, which ends the helper.
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "ack {row}").unwrap();
                        out.flush().unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let mut acknowledged = BTreeSet::new();
    for kill_after in [150, 400, 1000] {
        let mut child = start_helper("sqlite::helper_writes_until_it_is_killed", &path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < kill_after {
            let line = lines.next().expect("the helper writes until it is killed").unwrap();
            // The test runner's own words may stand in front.
            if let Some((_, row)) = line.split_once("ack ") {
                acknowledged.insert(row.to_owned());
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was said before the kill and not yet read was acknowledged as well; the last line may be torn.
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        acknowledged.extend(
            rest[..whole]
                .iter()
                .filter_map(|line| Some(line.split_once("ack ")?.1.to_owned())),
        );

        let ports = open(&path);
        let stored = rows(&ports).await;
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged rows are lost: {lost:?}",
            lost.len(),
            acknowledged.len()
        );
        insert(&ports, &format!("after-{kill_after}"), "x".into())
            .await
            .unwrap();
    }
}

// ---- storage that fails for a while

#[test]
#[ignore = "started as a child by `a_full_disk_is_told_and_survived`"]
fn helper_fills_its_disk() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Some(file) = file_of_helper() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ports = open(&file);
        ports.tables.create_table(&table()).await.unwrap();
        insert(&ports, "first", "x".into()).await.unwrap();
        let free = getrlimit(Resource::Fsize);
        for round in 0..3 {
            // No file of this process may grow beyond this: what a full disk is to SQLite.
            let full = Rlimit {
                current: Some(1_000_000 * (round + 1)),
                maximum: free.maximum,
            };
            setrlimit(Resource::Fsize, full).unwrap();
            let mut stored = rows(&ports).await;
            let mut failed = None;
            for number in 0..1000 {
                let row = format!("{round}-{number}");
                match insert(&ports, &row, "x".repeat(30_000)).await {
                    Ok(_) => assert!(stored.insert(row)),
                    Err(error) => {
                        failed = Some((row, unavailable::<()>(Err(error))));
                        break;
                    }
                }
            }
            let (row, what) = failed.expect("the disk is full at some time");
            assert!(what.contains("disk"), "`{what}` tells the reason");
            assert!(!what.contains(&row), "`{what}` holds no value");
            assert_eq!(
                rows(&ports).await,
                stored,
                "everything that was acknowledged is there, and nothing else"
            );
            unavailable(insert(&ports, "still full", "x".repeat(30_000)).await);
            setrlimit(Resource::Fsize, free).unwrap();
            insert(&ports, &row, "there is room again".into()).await.unwrap();
            stored.insert(row);
            assert_eq!(rows(&ports).await, stored);
        }
    });
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let helper = start_helper("sqlite::helper_fills_its_disk", &folder.path().join("weft.db"));
    let output = helper.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("1 passed"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_goes_away_is_told_and_one_that_comes_back_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let [data, away] = ["data", "away"].map(|name| folder.path().join(name));
    let ports = open(&data.join("weft.db"));
    ports.tables.create_table(&table()).await.unwrap();
    let etag = insert(&ports, "kept", "x".into()).await.unwrap();

    // Away for a while, as a disk that isn't mounted.
    std::fs::rename(&data, &away).unwrap();
    for _ in 0..5 {
        unavailable(insert(&ports, "lost", "x".into()).await);
        unavailable(ports.tables.get(&table(), &key("p"), &key("kept")).await);
    }
    assert!(!data.exists(), "a folder that went away isn't replaced by an empty one");
    std::fs::rename(&away, &data).unwrap();
    for _ in 0..5 {
        let kept = ports
            .tables
            .get(&table(), &key("p"), &key("kept"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept.etag, etag);
    }
    insert(&ports, "more", "x".into()).await.unwrap();
    assert_eq!(rows(&ports).await, ["kept", "more"].map(str::to_owned).into());

    // Deleted: the database that is made in its place is another one.
    std::fs::remove_dir_all(&data).unwrap();
    unavailable(insert(&ports, "lost", "x".into()).await);
    std::fs::create_dir(&data).unwrap();
    for _ in 0..5 {
        let gone = ports.tables.get(&table(), &key("p"), &key("kept")).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    }
    ports.tables.create_table(&table()).await.unwrap();
    let again = insert(&ports, "kept", "x".into()).await.unwrap();
    assert_ne!(again, etag, "an ETag of the deleted database fits nothing");
    let stale = vec![Operation::Delete(key("kept"), Match::Exactly(etag))];
    let stale = ports.tables.commit(&table(), &key("p"), stale).await;
    assert!(matches!(stale, Err(Error::PreconditionFailed { .. })), "{stale:?}");
}

/// A file of schema 1, as it was before blobs had a version and a time: what is in it stays, and counts as written now.
#[tokio::test]
async fn a_file_of_the_first_schema_is_taken_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let ports = open(&path);
    let (container, blob) = (ContainerName::new("org-a").unwrap(), BlobPath::new("value/x").unwrap());
    ports.blobs.create_container(&container).await.unwrap();
    ports
        .blobs
        .put(&container, &blob, Bytes::from_static(b"kept"), Put::Create)
        .await
        .unwrap();
    drop(ports);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "ALTER TABLE blob DROP COLUMN version; ALTER TABLE blob DROP COLUMN modified; PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    let before = SystemClock.now();
    let ports = open(&path);
    assert_eq!(
        ports.blobs.get(&container, &blob, 9).await.unwrap().as_deref(),
        Some(&b"kept"[..])
    );
    let listed = ports.blobs.list(&container, "", None).await.unwrap().blobs.remove(0);
    assert!(listed.modified.since(before) < Duration::from_secs(60), "{listed:?}");
    assert!(listed.modified >= before, "{listed:?}");
    let condition = Match::Exactly(listed.etag);
    assert!(ports.blobs.touch(&container, &blob).await.unwrap());
    assert!(ports.blobs.delete(&container, &blob, condition).await.is_err());
    drop((ports, open(&path)));
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    std::fs::write(&path, "no database, but long enough to be taken for one ".repeat(100)).unwrap();
    let refused = sqlite::open(Some(&path), Arc::new(SystemClock));
    let what = unavailable(refused);
    assert!(what.contains("not a database"), "{what}");
    std::fs::remove_file(&path).unwrap();

    drop(open(&path));
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let newer = sqlite::open(Some(&path), Arc::new(SystemClock)).map(drop);
    assert!(
        matches!(&newer, Err(Error::Corrupt { what }) if what.contains("schema 99")),
        "{newer:?}"
    );

    let folder_as_file = unavailable(sqlite::open(Some(folder.path()), Arc::new(SystemClock)));
    assert!(folder_as_file.contains("can't be opened"), "{folder_as_file}");
    std::fs::write(folder.path().join("file"), "").unwrap();
    unavailable(sqlite::open(
        Some(&folder.path().join("file/weft.db")),
        Arc::new(SystemClock),
    ));
}

#[tokio::test]
async fn a_continuation_is_good_for_its_query_only() {
    let ports = sqlite::open(None, Arc::new(SystemClock)).unwrap();
    ports.tables.create_table(&table()).await.unwrap();
    for row in ["a", "b", "c"] {
        insert(&ports, row, "x".into()).await.unwrap();
    }
    let page = ports
        .tables
        .query(&table(), Query::partition(key("p")).limit(1))
        .await
        .unwrap();
    let Continuation(good) = page.next.unwrap();
    assert!(!good.contains("b'"), "it is opaque");
    for (partition, text) in [
        ("q", good.clone()),
        ("p", format!("{good}A")),
        ("p", good[2..].to_owned()),
        ("p", "".into()),
    ] {
        let query = Query::partition(key(partition)).after(Some(Continuation(text)));
        let refused = ports.tables.query(&table(), query).await;
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{refused:?}");
    }
}

// ---- waiting for messages

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_queue_is_woken() {
    /// Never reached: a bound, not a wait.
    const BOUND: Duration = Duration::from_secs(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let open = || sqlite::open(Some(&path), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let (ports, elsewhere) = (open(), open());
    let queue = QueueName::new("work").unwrap();
    ports.queues.create_queue(&queue).await.unwrap();
    let wait = || {
        let (ports, queue) = (ports.clone(), queue.clone());
        tokio::spawn(async move {
            tokio::time::timeout(BOUND, ports.queues.sent_here(&queue))
                .await
                .unwrap()
        })
    };
    let take = async || {
        let messages = ports.queues.receive(&queue, 32, Duration::from_secs(60)).await.unwrap();
        for message in &messages {
            assert!(ports.queues.delete(&queue, &message.receipt).await.unwrap());
        }
        messages.into_iter().map(|message| message.text).collect::<Vec<_>>()
    };

    // Sent before the wait begins, and during it.
    ports.queues.send(&queue, "before", Duration::ZERO).await.unwrap();
    wait().await.unwrap();
    assert_eq!(take().await, ["before"]);
    let waiting = wait();
    ports.queues.send(&queue, "during", Duration::ZERO).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(take().await, ["during"]);

    // Delayed: not before its time, by the given clock.
    ports
        .queues
        .send(&queue, "later", Duration::from_secs(3600))
        .await
        .unwrap();
    let mut waiting = wait();
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut waiting)
            .await
            .is_err(),
        "it isn't visible yet"
    );
    clock.advance(Duration::from_secs(3600));
    waiting.await.unwrap();
    assert_eq!(take().await, ["later"]);

    // Sent by another process.
    let waiting = wait();
    elsewhere
        .queues
        .send(&queue, "elsewhere", Duration::ZERO)
        .await
        .unwrap();
    waiting.await.unwrap();
    assert_eq!(take().await, ["elsewhere"]);
}

#[tokio::test]
async fn messages_come_in_the_order_of_their_visibility() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let ports = sqlite::open(None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let queue = QueueName::new("work").unwrap();
    ports.queues.create_queue(&queue).await.unwrap();
    for (text, delay) in [("c", 20), ("a", 0), ("d", 20), ("b", 10)] {
        ports
            .queues
            .send(&queue, text, Duration::from_millis(delay))
            .await
            .unwrap();
    }
    clock.advance(Duration::from_millis(20));
    let messages = ports.queues.receive(&queue, 32, Duration::from_secs(1)).await.unwrap();
    assert_eq!(
        messages.iter().map(|message| message.text.as_str()).collect::<String>(),
        "abcd"
    );
}

// ---- the table port against a model

#[derive(Debug, Clone)]
enum Condition {
    Any,
    /// The version that the row has in the model; none when it isn't there.
    Current,
    /// The version of an earlier write to any row.
    Earlier(prop::sample::Index),
}

#[derive(Debug, Clone)]
enum Step {
    Insert,
    Replace(Condition),
    Merge(Condition),
    Upsert,
    Delete(Condition),
}

type Drawn = (Step, u8, Properties);

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4i64).prop_map(Value::Int),
        prop_oneof![Just("a"), Just("b'"), Just("")].prop_map(Value::from),
        any::<bool>().prop_map(Value::Bool),
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![
        2 => Just(Condition::Any),
        4 => Just(Condition::Current),
        1 => any::<prop::sample::Index>().prop_map(Condition::Earlier),
    ]
}

fn steps() -> impl Strategy<Value = Drawn> {
    let step = prop_oneof![
        3 => Just(Step::Insert),
        1 => conditions().prop_map(Step::Replace),
        2 => conditions().prop_map(Step::Merge),
        1 => Just(Step::Upsert),
        1 => conditions().prop_map(Step::Delete),
    ];
    let properties = prop::collection::btree_map("[xyz]", values(), 0..3).prop_map(Properties::from_iter);
    (step, 0..5u8, properties)
}

#[derive(Debug, Default, Clone)]
struct Model(BTreeMap<(u8, u8), (ETag, Properties)>);

#[derive(Debug, PartialEq)]
enum Expected {
    Done,
    Malformed,
    AlreadyExists(usize),
    PreconditionFailed(usize),
}

impl Model {
    /// What should come of a batch, and the rows after it; versions are filled in from the answer.
    fn apply(&self, partition: u8, operations: &[(u8, Operation)]) -> (Expected, Self) {
        let mut next = self.clone();
        let rows: BTreeSet<_> = operations.iter().map(|(row, _)| row).collect();
        if rows.len() < operations.len() {
            return (Expected::Malformed, next);
        }
        for (index, (row, operation)) in operations.iter().enumerate() {
            let at = (partition, *row);
            let there = next.0.get(&at).cloned();
            let fits = |condition: &Match| match (&there, condition) {
                (None, _) => false,
                (Some(_), Match::Any) => true,
                (Some((etag, _)), Match::Exactly(expected)) => etag == expected,
            };
            let unset = || ETag(String::new());
            match operation {
                Operation::Insert(..) if there.is_some() => return (Expected::AlreadyExists(index), self.clone()),
                Operation::Replace(_, _, condition)
                | Operation::Merge(_, _, condition)
                | Operation::Delete(_, condition)
                    if !fits(condition) =>
                {
                    return (Expected::PreconditionFailed(index), self.clone());
                }
                Operation::Insert(_, new) | Operation::Upsert(_, new) | Operation::Replace(_, new, _) => {
                    next.0.insert(at, (unset(), new.clone()));
                }
                Operation::Merge(_, new, _) => {
                    let mut merged = there.map(|(_, properties)| properties).unwrap_or_default();
                    new.iter().for_each(|(name, value)| merged.set(name, value.clone()));
                    next.0.insert(at, (unset(), merged));
                }
                Operation::Delete(..) => {
                    next.0.remove(&at);
                }
            }
        }
        (Expected::Done, next)
    }
}

async fn follow(ports: &Ports, batches: Vec<(u8, Vec<Drawn>)>) {
    ports.tables.create_table(&table()).await.unwrap();
    let mut model = Model::default();
    let mut given: Vec<ETag> = Vec::new();
    for (partition, drawn) in batches {
        let condition = |row: u8, condition: Condition| match condition {
            Condition::Any => Match::Any,
            Condition::Current => Match::Exactly(
                model
                    .0
                    .get(&(partition, row))
                    .map_or(ETag("none".into()), |(etag, _)| etag.clone()),
            ),
            Condition::Earlier(_) if given.is_empty() => Match::Exactly(ETag(String::new())),
            Condition::Earlier(index) => Match::Exactly(index.get(&given).clone()),
        };
        let operations: Vec<_> = drawn
            .into_iter()
            .map(|(step, row, properties)| {
                let name = key(&format!("r{row}"));
                let operation = match step {
                    Step::Insert => Operation::Insert(name, properties),
                    Step::Upsert => Operation::Upsert(name, properties),
                    Step::Replace(when) => Operation::Replace(name, properties, condition(row, when)),
                    Step::Merge(when) => Operation::Merge(name, properties, condition(row, when)),
                    Step::Delete(when) => Operation::Delete(name, condition(row, when)),
                };
                (row, operation)
            })
            .collect();
        let (expected, mut next) = model.apply(partition, &operations);
        let batch = operations.iter().map(|(_, operation)| operation.clone()).collect();
        let answer = ports
            .tables
            .commit(&table(), &key(&format!("p{partition}")), batch)
            .await;
        let found = match &answer {
            Ok(_) => Expected::Done,
            Err(Error::Malformed { .. }) => Expected::Malformed,
            Err(Error::AlreadyExists { index, .. }) => Expected::AlreadyExists(*index),
            Err(Error::PreconditionFailed { index, .. }) => Expected::PreconditionFailed(*index),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(found, expected, "{operations:?}");
        if let Ok(etags) = answer {
            for ((row, _), etag) in operations.iter().zip(etags) {
                match next.0.get_mut(&(partition, *row)) {
                    None => assert_eq!(etag.0, "", "a delete has no version"),
                    Some(stored) => {
                        assert!(!given.contains(&etag), "a version is given once");
                        given.push(etag.clone());
                        stored.0 = etag;
                    }
                }
            }
            model = next;
        }
        compare(ports, &model).await;
    }
}

async fn compare(ports: &Ports, model: &Model) {
    for partition in 0..2 {
        let name = key(&format!("p{partition}"));
        let modelled = || model.0.iter().filter(move |((at, _), _)| *at == partition);
        let page = ports
            .tables
            .query(&table(), Query::partition(name.clone()))
            .await
            .unwrap();
        let stored: Vec<_> = page
            .entities
            .into_iter()
            .map(|it| (it.row.to_string(), it.etag, it.properties))
            .collect();
        let expected: Vec<_> = modelled()
            .map(|((_, row), (etag, it))| (format!("r{row}"), etag.clone(), it.clone()))
            .collect();
        assert_eq!(stored, expected);
        let filter = Filter::Is("x".into(), Comparison::Greater, 1.into()).or(Filter::equal("y", "b'"));
        let page = ports
            .tables
            .query(&table(), Query::partition(name).filter(filter))
            .await
            .unwrap();
        let stored: Vec<_> = page.entities.into_iter().map(|it| it.row.to_string()).collect();
        let matches = |it: &Properties| {
            matches!(it.get("x"), Some(Value::Int(number)) if *number > 1) || it.get("y") == Some(&"b'".into())
        };
        let expected: Vec<_> = modelled()
            .filter(|(_, (_, it))| matches(it))
            .map(|((_, row), _)| format!("r{row}"))
            .collect();
        assert_eq!(stored, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_do_what_the_model_does(
        batches in prop::collection::vec((0..2u8, prop::collection::vec(steps(), 1..5)), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ports = sqlite::open(None, Arc::new(SystemClock)).unwrap();
        runtime.block_on(follow(&ports, batches));
    }
}
