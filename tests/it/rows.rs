//! Rows of runs that can't be read: they stop nothing but themselves, and are seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Notify;
use weft::clock::{ManualClock, SystemClock};
use weft::domain::{OrgId, RunId, Timestamp};
use weft::runner::scripted::Scene;
use weft::store::fault::Call;
use weft::store::key;
use weft::store::port::{
    ETag, Entity, Key, Match, Operation, Properties, Query, Result, TableName, TableStore, Value as Property,
};
use weft::store::sqlite;
use weft::tenancy::{RunRef, Scope, operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp, WORKFLOW};
use weft::usecase::deliver::{Delivered, From, consume, deliver};
use weft::usecase::drive_run::Continued;
use weft::usecase::seed::DEVELOPMENT_KEY;

use crate::tapped::{Tap, tapped};

const PATIENCE: Duration = Duration::from_secs(60);

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

fn table() -> TableName {
    key::org_table(&contoso())
}

fn scope() -> Scope {
    operator_in(&operator(), &contoso())
}

async fn ask(app: &TestApp, method: &str, path: &str) -> Answer {
    let request = app.request(method, path).key(DEVELOPMENT_KEY).organization("contoso");
    let request = match method {
        "POST" => request.json(&json!({})).header("prefer", "respond-async"),
        _ => request,
    };
    request.send().await
}

async fn get(app: &TestApp, path: &str) -> Value {
    let answer = ask(app, "GET", path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn begin(app: &TestApp, workflow: &str, query: &str) -> String {
    let answer = ask(app, "POST", &format!("/api/workflows/{workflow}/execute{query}")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["runId"].as_str().unwrap().to_owned()
}

async fn cancel(app: &TestApp, run: &str) -> Answer {
    ask(app, "POST", &format!("/api/runs/{run}/cancel")).await
}

async fn until(app: &TestApp, run: &str, status: &str) -> Value {
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = get(app, &format!("/api/runs/{run}")).await;
        if now["status"] == status {
            return now;
        }
        assert!(tokio::time::Instant::now() < patience, "never {status}: {now:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The part of the host, for as long as it lives.
struct Host(tokio::task::JoinHandle<()>);

impl Host {
    fn of(app: &TestApp) -> Self {
        Self(tokio::spawn(consume(app.cx.clone())))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn partition(run: &str) -> Key {
    key::run(&run.parse().unwrap())
}

async fn write(app: &TestApp, partition: &Key, operation: Operation) {
    app.ports
        .tables
        .commit(&table(), partition, vec![operation])
        .await
        .unwrap();
}

/// Writes something over a property of a row of a run.
async fn overwrite(app: &TestApp, run: &str, row: Key, name: &str, value: impl Into<Property>) {
    let change = Operation::Merge(row, Properties::new().with(name, value), Match::Any);
    write(app, &partition(run), change).await;
}

async fn row(app: &TestApp, partition: &Key, row: &Key) -> Option<Entity> {
    app.ports.tables.get(&table(), partition, row).await.unwrap()
}

async fn rows(app: &TestApp, partition: Key, prefix: &str) -> Vec<Entity> {
    let query = Query::partition(partition).prefix(prefix).unwrap();
    app.ports.tables.query(&table(), query).await.unwrap().entities
}

/// Brings somebody to a run, as a message does.
async fn visit(app: &TestApp, run: &str) -> Continued {
    let message = weft::store::envelope::Message::DriveRun {
        run: RunRef {
            org: contoso(),
            run: run.parse().unwrap(),
        },
        reason: "test".to_owned(),
    };
    let message = weft::store::envelope::seal(&app.cx.signing, &message);
    match deliver(&app.cx, From::Runs, &message, app.cx.clock.now(), None).await {
        Ok(Delivered::Done(done)) => done,
        other => panic!("{other:?}"),
    }
}

/// A run that has failed once and waits for its next attempt, in an application whose time stands still.
async fn waiting(app: &TestApp) -> String {
    app.scripted.push("again", Scene::raises("ValueError", "once more"));
    let run = begin(app, "again", "").await;
    visit(app, &run).await;
    until(app, &run, "waiting").await;
    run
}

fn again() -> Builder {
    Builder::default().declares(
        json!({"name": "again", "function": "again", "line": 1, "parameters": [],
            "retry": {"attempts": 2, "delay_seconds": 600.0, "backoff": "fixed"}}),
    )
}

// ── headers ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Holds up whoever comes to a run's header for the n-th time, reading or writing.
#[derive(Debug, Default)]
struct HeldUp {
    left: AtomicUsize,
    reached: Notify,
    go: Notify,
}

impl HeldUp {
    async fn pass(&self, partition: &Key, mut rows: impl Iterator<Item = &Key>) {
        if !partition.as_str().starts_with("run:") || !rows.any(|row| *row == key::run_header_row()) {
            return;
        }
        let count = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1) {
            self.reached.notify_one();
            self.go.notified().await;
        }
    }
}

#[async_trait]
impl Tap for HeldUp {
    async fn get(
        &self,
        store: &dyn TableStore,
        table: &TableName,
        partition: &Key,
        row: &Key,
    ) -> Result<Option<Entity>> {
        self.pass(partition, std::iter::once(row)).await;
        store.get(table, partition, row).await
    }

    async fn commit(
        &self,
        store: &dyn TableStore,
        table: &TableName,
        partition: &Key,
        operations: Vec<Operation>,
    ) -> Result<Vec<ETag>> {
        self.pass(partition, operations.iter().map(Operation::row)).await;
        store.commit(table, partition, operations).await
    }
}

/// One cancels while another is held up, wherever that can be.
#[tokio::test]
async fn of_two_who_cancel_a_run_that_cannot_be_read_one_ends_it() {
    // It can't be read, or can't be written since it is older than its records.
    for (name, value) in [
        ("checkpoint", Property::from("{")),
        ("auditSequence", Property::from(0_i64)),
    ] {
        let storage = sqlite::open(None, Arc::new(SystemClock)).unwrap();
        let held_up = Arc::new(HeldUp::default());
        let app = Arc::new(again().storage(tapped(&storage, &held_up)).start().await);
        let mut place = 1;
        loop {
            let run = waiting(&app).await;
            overwrite(&app, &run, key::run_header_row(), name, value.clone()).await;
            held_up.left.store(place, Ordering::SeqCst);
            let mut first = tokio::spawn({
                let (app, run) = (app.clone(), run.clone());
                async move { cancel(&app, &run).await }
            });
            tokio::select! {
                () = held_up.reached.notified() => {}
                answer = &mut first => {
                    assert_eq!(answer.unwrap().status, 200);
                    break;
                }
            }
            let second = cancel(&app, &run).await;
            held_up.go.notify_one();
            let answers = [first.await.unwrap(), second];
            let mut said: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            said.sort_unstable();
            assert_eq!(said, [200, 409], "{name} {place}: {answers:?}");
            let refused = answers.iter().find(|answer| answer.status == 409).unwrap();
            assert_eq!(refused.code(), "run_ended", "{name} {place}");
            let events = rows(&app, partition(&run), key::EVENTS).await;
            let ends = events.iter().filter(|event| {
                let facts = event.properties.text("facts").unwrap().unwrap();
                facts.contains(r#""run_status""#) && facts.contains(r#""cancelled""#)
            });
            assert_eq!(ends.count(), 1, "{name} {place}: {events:#?}");
            let records = get(&app, &format!("/api/audit?resource={run}&event=run.cancelled")).await;
            assert_eq!(records["items"].as_array().unwrap().len(), 1, "{name} {place}");
            place += 1;
        }
        assert!(place > 3, "{name}: nobody was held up");
    }
}

#[tokio::test]
async fn a_run_whose_time_cannot_be_read_is_listed_where_it_was() {
    let app = TestApp::start().await;
    // An id that follows from a key has no time in it.
    let idempotent = app
        .request("POST", &format!("/api/workflows/{WORKFLOW}/execute"))
        .key(DEVELOPMENT_KEY)
        .organization("contoso")
        .header("prefer", "respond-async")
        .header("idempotency-key", "once")
        .json(&json!({}))
        .send()
        .await;
    let idempotent = idempotent.json()["runId"].as_str().unwrap().to_owned();
    for run in [begin(&app, WORKFLOW, "").await, idempotent] {
        let asked = get(&app, &format!("/api/runs/{run}")).await["createdAt"].clone();
        overwrite(&app, &run, key::run_header_row(), "createdAt", "yesterday").await;
        assert_eq!(visit(&app, &run).await, Continued::SetAside);
        let listed = async || {
            let page = get(&app, "/api/runs?limit=200").await;
            let items = page["items"].as_array().unwrap().clone();
            let mut items = items.into_iter().filter(|item| item["runId"] == run.as_str());
            let item = items.next().unwrap();
            assert!(items.next().is_none(), "{run} is listed twice");
            item
        };
        assert!(listed().await["setAside"].is_string());
        let ended = cancel(&app, &run).await;
        assert_eq!(ended.status, 200, "{}", ended.text());
        let (shown, listed) = (get(&app, &format!("/api/runs/{run}")).await, listed().await);
        for one in [&shown, &listed] {
            assert_eq!(
                (&one["status"], &one["createdAt"]),
                (&json!("cancelled"), &asked),
                "{one:#}"
            );
        }
        assert!(
            rows(&app, key::index(), key::BACKLOG)
                .await
                .iter()
                .all(|row| !row.row.as_str().ends_with(&run))
        );
    }
}

#[tokio::test]
async fn a_run_whose_header_is_older_than_its_events_is_set_aside_and_ended() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let app = again().clock(clock.clone()).start().await;
    app.scripted.push("again", Scene::raises("ValueError", "once more"));
    let run = begin(&app, "again", "").await;
    let header = key::run_header_row();
    let older = row(&app, &partition(&run), &header).await.unwrap().properties;
    assert!(app.deliver_all().await);
    until(&app, &run, "waiting").await;
    let last = async || {
        let events = rows(&app, partition(&run), key::EVENTS).await;
        let is_number = |event: &Entity| !event.row.as_str().contains('~');
        events.into_iter().rfind(is_number).unwrap().row
    };
    let before = last().await;
    write(&app, &partition(&run), Operation::Replace(header, older, Match::Any)).await;
    assert_eq!(visit(&app, &run).await, Continued::SetAside);
    assert_eq!(cancel(&app, &run).await.status, 200);
    let ended = get(&app, &format!("/api/runs/{run}")).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["type"]),
        (&json!("cancelled"), &json!("run_unreadable"))
    );
    // Its events go on where they were.
    let stored = app
        .cx
        .runs
        .get(&scope(), &run.parse::<RunId>().unwrap())
        .await
        .unwrap()
        .unwrap();
    let end = key::event_row(stored.state.sequence);
    assert!(end > before, "{end} {before}");
    assert_eq!(last().await, end);
}

// ── concurrency keys and the backlog ───────────────────────────────────────────────────────────────────────────────────

async fn break_key(app: &TestApp) {
    let broken = Properties::new().with("v", 1_i64).with("runs", "[\"nobody\"]");
    write(app, &key::index(), Operation::Upsert(key::concurrency_row("k"), broken)).await;
}

/// Who holds the key, as its row says.
async fn holders(app: &TestApp) -> Value {
    let row = row(app, &key::index(), &key::concurrency_row("k")).await.unwrap();
    serde_json::from_str(row.properties.text("runs").unwrap().unwrap()).unwrap()
}

/// Somebody who doesn't wait for the key is told who holds it, and the row says so again.
async fn is_held_by(app: &TestApp, holder: &str) {
    let path = format!("/api/workflows/{WORKFLOW}/execute?concurrencyKey=k&onConflict=skip");
    let refused = ask(app, "POST", &path).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "concurrency_key_taken"),
        "{refused:?}"
    );
    assert!(refused.text().contains(holder), "{}", refused.text());
    assert_eq!(holders(app).await, json!([holder]));
}

#[tokio::test]
async fn a_row_of_a_key_that_cannot_be_read_is_made_again_from_the_runs_that_hold_it() {
    let app = TestApp::start().await;
    // Nobody does.
    break_key(&app).await;
    app.scripted.takes(WORKFLOW, PATIENCE * 1000);
    let holder = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
    // Others with no key or another one, one that waits for it, and one that is to ask for it later.
    begin(&app, WORKFLOW, "?concurrencyKey=l").await;
    let next = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
    let later = begin(&app, WORKFLOW, "?concurrencyKey=k&delay=3600").await;
    // One stands in the backlog.
    assert_eq!(holders(&app).await, json!([holder]));
    break_key(&app).await;
    is_held_by(&app, &holder).await;
    // It has begun.
    let host = Host::of(&app);
    until(&app, &holder, "running").await;
    break_key(&app).await;
    let why = get(&app, &format!("/api/runs/{next}")).await["waitingFor"].clone();
    assert!(
        why["reason"] == "concurrency_key" && why["detail"].as_str().unwrap().contains(&holder),
        "{why}"
    );
    is_held_by(&app, &holder).await;
    // It can't be read, and nobody has set it aside yet.
    drop(host);
    let id: RunId = holder.parse().unwrap();
    let header = row(&app, &key::run(&id), &key::run_header_row()).await.unwrap();
    let checkpoint = header.properties.text("checkpoint").unwrap().unwrap().to_owned();
    overwrite(&app, &holder, key::run_header_row(), "checkpoint", "{").await;
    break_key(&app).await;
    is_held_by(&app, &holder).await;
    overwrite(&app, &holder, key::run_header_row(), "checkpoint", checkpoint.as_str()).await;
    // It ends, and the one that waits is next.
    break_key(&app).await;
    app.scripted.takes(WORKFLOW, Duration::ZERO);
    assert_eq!(cancel(&app, &holder).await.status, 200);
    assert_eq!(holders(&app).await, json!([next]));
    let _host = Host::of(&app);
    until(&app, &next, "succeeded").await;
    assert_eq!(get(&app, &format!("/api/runs/{later}")).await["status"], "pending");
}

#[tokio::test]
async fn a_key_goes_to_the_next_past_rows_that_cannot_be_read() {
    let app = TestApp::start().await;
    let holder = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
    let waiting = [
        begin(&app, WORKFLOW, "?concurrencyKey=k").await,
        begin(&app, WORKFLOW, "?concurrencyKey=k").await,
    ];
    let parked = rows(&app, key::index(), &key::parked("k")).await;
    assert_eq!(parked.len(), 2);
    let broken = Properties::new().with("v", 1_i64).with("run", "nobody");
    // What its name says is enough; two that name nobody stand before all.
    for (name, is_new) in [(parked[0].row.as_str(), false), ("", true), ("00:0:nobody", true)] {
        let operation = if is_new {
            Operation::Insert(Key::new(format!("{}{name}", key::parked("k"))).unwrap(), broken.clone())
        } else {
            Operation::Replace(Key::new(name).unwrap(), broken.clone(), Match::Any)
        };
        write(&app, &key::index(), operation).await;
    }
    assert_eq!(cancel(&app, &holder).await.status, 200);
    let first = holders(&app).await[0].as_str().unwrap().to_owned();
    assert!(parked[0].row.as_str().ends_with(&first));
    let _host = Host::of(&app);
    for run in &waiting {
        until(&app, run, "succeeded").await;
    }
}

#[tokio::test]
async fn a_row_of_seats_that_cannot_be_read_stops_nobody() {
    let app = TestApp::start().await;
    let broken = Properties::new().with("v", 1_i64).with("taken", "[");
    write(&app, &key::seats(), Operation::Upsert(key::only_row(), broken)).await;
    let _host = Host::of(&app);
    let run = begin(&app, WORKFLOW, "").await;
    until(&app, &run, "succeeded").await;
    let row = row(&app, &key::seats(), &key::only_row()).await.unwrap();
    let taken: Value = serde_json::from_str(row.properties.text("taken").unwrap().unwrap()).unwrap();
    assert!(taken.is_object(), "{taken}");
}

// ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn events_that_cannot_be_read_are_told_as_such_and_hide_no_others() {
    let app = TestApp::start().await;
    let run = begin(&app, WORKFLOW, "").await;
    assert!(app.deliver_all().await);
    until(&app, &run, "succeeded").await;
    let path = format!("/api/runs/{run}/events");
    let whole = get(&app, &path).await;
    let numbers: Vec<u64> = rows(&app, partition(&run), key::EVENTS)
        .await
        .iter()
        .map(|row| row.row.as_str().rsplit(':').next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.len() >= 3, "{numbers:?}");
    let at = whole["items"][0]["at"].clone();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    // One has no time; of the last, which ended the run, nothing is left; and two rows are none.
    overwrite(&app, &run, key::event_row(first), "at", "once").await;
    overwrite(&app, &run, key::event_row(last), "facts", "[").await;
    let broken = Properties::new().with("v", 1_i64).with("facts", "[");
    for name in ["000000000a", "~set-aside"] {
        let name = Key::new(format!("{}{name}", key::EVENTS)).unwrap();
        write(&app, &partition(&run), Operation::Upsert(name, broken.clone())).await;
    }
    let told = get(&app, &path).await;
    assert_eq!(
        (&told["ended"], &told["status"]),
        (&json!(true), &json!("succeeded")),
        "{told:#}"
    );
    let items = told["items"].as_array().unwrap();
    let unreadable: Vec<_> = items.iter().filter(|item| item["type"] == "event.unreadable").collect();
    let marks: Vec<_> = unreadable
        .iter()
        .map(|item| item["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(marks, [first, last], "{told:#}");
    assert!(unreadable.iter().all(|item| item["reason"].is_string()));
    // What happened before it is about when it was.
    assert_eq!(unreadable[0]["at"], at);
    // All others are told, with what of the first can be read.
    let kinds = |items: &[Value]| -> Vec<String> {
        let kinds = items.iter().map(|item| item["type"].as_str().unwrap().to_owned());
        kinds.filter(|kind| kind != "event.unreadable").collect()
    };
    let all = kinds(whole["items"].as_array().unwrap());
    let left = kinds(items);
    assert!(left.len() < all.len() && all.starts_with(&left), "{all:?} {left:?}");
    // Cursors hold: whoever goes on behind each of them hears the rest, once.
    for (place, item) in items.iter().enumerate() {
        let rest = get(&app, &format!("{path}?after={}", item["id"].as_str().unwrap())).await;
        assert_eq!(rest["items"].as_array().unwrap()[..], items[place + 1..], "{place}");
        assert_eq!(rest["ended"], json!(true));
    }
    let stream = app.request("GET", &path).key(DEVELOPMENT_KEY).organization("contoso");
    let stream = tokio::time::timeout(PATIENCE, stream.header("accept", "text/event-stream").send()).await;
    let stream = stream.unwrap();
    assert_eq!(stream.status, 200);
    assert!(
        stream.text().contains("event.unreadable") && stream.text().contains("event: end"),
        "{}",
        stream.text()
    );
}

#[tokio::test]
async fn what_was_set_aside_is_known_while_one_of_its_rows_can_be_read() {
    let app = TestApp::start().await;
    let run = begin(&app, WORKFLOW, "").await;
    overwrite(&app, &run, key::run_header_row(), "plan", "7").await;
    assert_eq!(visit(&app, &run).await, Continued::SetAside);
    overwrite(&app, &run, key::run_quarantine_row(), "facts", "{").await;
    let listed = rows(&app, key::index(), key::INDEX_QUARANTINES).await.pop().unwrap();
    let broken = Properties::new().with("v", 1_i64);
    write(&app, &key::index(), Operation::Replace(listed.row, broken, Match::Any)).await;
    assert_eq!(get(&app, "/api/quarantine").await["items"], json!([]));
    let shown = get(&app, &format!("/api/runs/{run}")).await;
    assert_eq!(shown["quarantined"].as_array().unwrap().len(), 1, "{shown:#}");
    // The next change writes them anew.
    let requeued = ask(&app, "POST", &format!("/api/runs/{run}/requeue")).await;
    assert_eq!(requeued.status, 202, "{}", requeued.text());
    let listed = get(&app, "/api/quarantine").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed:#}");
}

// ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A run whose first step is done, and whose last needs what that has left and will be begun by another driver.
async fn in_two_parts(app: &TestApp) -> String {
    let run = begin(app, "parts", "").await;
    visit(app, &run).await;
    until(app, &run, "waiting").await;
    run
}

fn parts() -> Builder {
    let nodes = json!([
        {"id": "a", "type": "python", "use": "a", "inputs": {"x": 1}},
        {"id": "pause", "type": "delay", "seconds": 600},
        {"id": "b", "type": "python", "use": "b", "inputs": {"x": {"$": "steps.a.output"}}},
    ]);
    let edges = json!([{"from": "a", "to": "pause"}, {"from": "pause", "to": "b"}]);
    Builder::default()
        .function("a", &["x"])
        .function("b", &["x"])
        .graph(json!({"name": "parts", "nodes": nodes, "edges": edges}))
}

#[tokio::test]
async fn a_run_that_needs_a_step_that_cannot_be_read_is_set_aside_and_can_be_looked_at_and_ended() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let app = parts().clock(clock.clone()).start().await;
    let runs = [in_two_parts(&app).await, in_two_parts(&app).await];
    let step = || key::step_row("a").unwrap();
    let output = row(&app, &partition(&runs[0]), &step()).await.unwrap();
    let output = output.properties.text("output").unwrap().unwrap().to_owned();
    clock.advance(Duration::from_secs(601));
    for run in &runs {
        overwrite(&app, run, step(), "output", "{").await;
        let sent = || {
            let count = |call| app.faults.count(call);
            (count(Call::Send), count(Call::DeleteMessage))
        };
        let before = sent();
        assert_eq!(visit(&app, run).await, Continued::SetAside);
        // It was taken, and driven; the message that was sent for that is gone with the failure.
        let after = sent();
        assert!(after.0 > before.0);
        assert_eq!(after.1 - before.1, 1);

        let shown = get(&app, &format!("/api/runs/{run}")).await;
        let why = &shown["waitingFor"];
        assert!(
            why["reason"] == "unreadable" && why["detail"].as_str().unwrap().contains("step:a"),
            "{shown:#}"
        );
        let steps = get(&app, &format!("/api/runs/{run}/steps")).await;
        let told: Vec<_> = steps["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| {
                (
                    step["id"].as_str().unwrap(),
                    step["unreadable"].is_string(),
                    &step["status"],
                )
            })
            .collect();
        assert_eq!(
            told[..2],
            [("a", true, &json!("succeeded")), ("pause", false, &json!("succeeded"))],
            "{steps:#}"
        );
        assert_eq!(
            steps["items"][0]["attempts"].as_array().unwrap().len(),
            1,
            "what can be read is there"
        );
        let left = ask(&app, "GET", &format!("/api/runs/{run}/steps/a/output")).await;
        assert_eq!(
            (left.status, left.code().as_str()),
            (409, "step_unreadable"),
            "{left:?}"
        );
        assert_eq!(
            ask(&app, "GET", &format!("/api/runs/{run}/steps/b/output"))
                .await
                .status,
            200
        );
        assert_eq!(ask(&app, "GET", &format!("/api/runs/{run}/logs")).await.status, 200);
    }
    // One is ended; the other goes on when it was mended.
    assert_eq!(cancel(&app, &runs[0]).await.status, 200);
    assert_eq!(
        get(&app, &format!("/api/runs/{}", runs[0])).await["status"],
        "cancelled"
    );
    overwrite(&app, &runs[1], step(), "output", output.as_str()).await;
    let put_back = ask(&app, "POST", &format!("/api/runs/{}/requeue", runs[1])).await;
    assert_eq!(put_back.status, 202, "{}", put_back.text());
    // Whoever had it is no longer there.
    clock.advance(Duration::from_secs(70));
    visit(&app, &runs[1]).await;
    let ended = until(&app, &runs[1], "succeeded").await;
    assert_eq!(ended["waitingFor"], Value::Null);
}

#[tokio::test]
async fn items_that_cannot_be_read_are_listed_as_such() {
    let each = json!({"id": "each", "type": "map", "use": "a", "items": [1, 2, 3], "inputs": {"x": {"$": "item"}}});
    let app = Builder::default()
        .function("a", &["x"])
        .graph(json!({"name": "many", "nodes": [each], "edges": []}))
        .start()
        .await;
    let run = begin(&app, "many", "").await;
    assert!(app.deliver_all().await);
    until(&app, &run, "succeeded").await;
    let item = |number| key::item_row("each", number).unwrap();
    overwrite(&app, &run, item(1), "status", "odd").await;
    overwrite(&app, &run, item(2), "attempts", "odd").await;
    let broken = Properties::new().with("v", 2_i64);
    let none = Key::new(format!("{}none", key::item_prefix("each").unwrap())).unwrap();
    write(&app, &partition(&run), Operation::Insert(none, broken)).await;
    let items = get(&app, &format!("/api/runs/{run}/steps/each/items")).await;
    let told: Vec<_> = items["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["item"].as_u64().unwrap(),
                item["unreadable"].is_string(),
                item["status"].clone(),
            )
        })
        .collect();
    let succeeded = || json!("succeeded");
    assert_eq!(
        told,
        [(0, false, succeeded()), (1, true, succeeded()), (2, true, succeeded())]
    );
    // The list of what they have left can't be told; what one of them has left can.
    let path = format!("/api/runs/{run}/steps/each/output");
    let all = ask(&app, "GET", &path).await;
    assert_eq!((all.status, all.code().as_str()), (409, "step_unreadable"), "{all:?}");
    assert_eq!(get(&app, &format!("{path}?item=0")).await["output"], json!({"x": 1}));
}
