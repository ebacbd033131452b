//! Runs that have been kept long enough are deleted, others are not, and what interrupts it is gone on with.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft::audit::Event;
use weft::clock::{Clock as _, ManualClock};
use weft::domain::{LogLine, OrgId, RunId, Timestamp};
use weft::runner::WorkerMessage;
use weft::runner::scripted::Scene;
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key;
use weft::store::port::Query;
use weft::store::repo::retention::Retention;
use weft::tenancy::{operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{TestApp, WORKFLOW};
use weft::usecase::audit_log::{AuditQuery, Entry};
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::tick;

const DAY: Duration = Duration::from_secs(86_400);

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

/// A run with a line in its log.
async fn run(app: &TestApp) -> RunId {
    let line = LogLine {
        at: app.cx.clock.now(),
        stream: "stdout".into(),
        level: "info".into(),
        message: "said".into(),
        fields: None,
    };
    app.scripted
        .push(WORKFLOW, Scene::returns(json!(1)).says(WorkerMessage::Line(line)));
    let answer = app.run("contoso", json!({})).await;
    answer["runId"].as_str().unwrap().parse().unwrap()
}

/// How many rows, logs and entries of the list there are of a run.
async fn left(app: &TestApp, run: &RunId) -> (usize, usize, usize) {
    let table = key::org_table(&contoso());
    let rows = app
        .ports
        .tables
        .query(&table, Query::partition(key::run(run)))
        .await
        .unwrap();
    let logs = app
        .ports
        .blobs
        .list(&key::org_container(&contoso()), &key::log_blobs(run), None)
        .await
        .unwrap();
    let list = Query::partition(key::index()).prefix(key::INDEX_RUNS).unwrap();
    let listed = app.ports.tables.query(&table, list).await.unwrap().entities;
    let listed = listed
        .iter()
        .filter(|row| row.row.as_str().ends_with(run.as_str()))
        .count();
    (rows.entities.len(), logs.blobs.len(), listed)
}

async fn records(app: &TestApp) -> Vec<Value> {
    let query = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    let page = app
        .cx
        .audit
        .list(&operator_in(&operator(), &contoso()), query)
        .await
        .unwrap();
    let deleted = page
        .items
        .into_iter()
        .filter(|entry| entry.plain.event == Event::RunDeleted.as_str());
    deleted.filter_map(|entry| entry.plain.detail).collect()
}

fn start() -> (Arc<ManualClock>, Builder) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    (clock.clone(), Builder::default().clock(clock))
}

#[tokio::test]
async fn a_run_is_kept_for_ninety_days_after_its_end() {
    let (clock, builder) = start();
    let app = builder.start().await;
    let old = run(&app).await;
    clock.advance(10 * DAY);
    let younger = run(&app).await;
    clock.advance(80 * DAY);
    assert_eq!(tick::tick(&app.cx).await.unwrap().deleted_runs, 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(tick::tick(&app.cx).await.unwrap().deleted_runs, 1);
    assert_eq!(left(&app, &old).await, (0, 0, 0));
    let (rows, logs, listed) = left(&app, &younger).await;
    // The log of its attempt, and what is kept of it for a replay.
    assert!(rows > 3 && logs == 2 && listed == 1);
    let [record] = &records(&app).await[..] else {
        panic!("one record")
    };
    assert_eq!(record["runs"][0]["run"], old.as_str());
    assert_eq!(record["runs"][0]["records"], 2);
    assert_eq!(record["runs"][0]["hash"].as_str().unwrap().len(), 64);
    // What it did is still in the list of records.
    let of = |entry: &Entry| entry.plain.resource.as_ref().map(|target| target.id.clone());
    let query = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    let page = app
        .cx
        .audit
        .list(&operator_in(&operator(), &contoso()), query)
        .await
        .unwrap();
    assert_eq!(
        page.items
            .iter()
            .filter(|entry| of(entry).as_deref() == Some(old.as_str()))
            .count(),
        2
    );
    let answer = app
        .request("GET", &format!("/api/runs/{old}/events"))
        .key(DEVELOPMENT_KEY)
        .organization("contoso");
    assert_eq!(answer.send().await.status, 404);
}

#[tokio::test]
async fn a_deletion_that_is_interrupted_is_gone_on_with() {
    for call in [Call::DeleteBlob, Call::Commit] {
        for number in 1..6 {
            let (clock, builder) = start();
            let app = builder.start().await;
            let runs = [run(&app).await, run(&app).await];
            clock.advance(91 * DAY);
            app.faults.plan(Plan::Script(vec![
                Rule::new(Fault::Before).calls(&[call]).range(number, number),
            ]));
            // Other parts of a tick may fail as well; the next one makes up for it.
            drop(tick::tick(&app.cx).await);
            app.faults.plan(Plan::Calm);
            for _ in 0..2 {
                tick::tick(&app.cx).await.unwrap();
            }
            for run in &runs {
                assert_eq!(left(&app, run).await, (0, 0, 0), "{call:?} {number}");
            }
            assert!(!records(&app).await.is_empty());
        }
    }
}

/// An application whose workflow `two` has a step that succeeds and one that fails, and a run of it.
async fn half(app: &TestApp) -> RunId {
    app.scripted
        .push("first", Scene::returns(json!({"kept": "by the run that did it"})));
    app.scripted.push("second", Scene::raises("ValueError", "not yet"));
    let answer = post(app, "/api/workflows/two/execute").await;
    assert_eq!(answer["status"], "failed", "{answer:#}");
    answer["runId"].as_str().unwrap().parse().unwrap()
}

fn two(builder: Builder) -> Builder {
    let step = |id: &str| json!({"id": id, "type": "python", "use": id});
    builder.function("first", &[]).function("second", &[]).graph(json!({
        "name": "two", "nodes": [step("first"), step("second")], "edges": [{"from": "first", "to": "second"}],
    }))
}

async fn post(app: &TestApp, path: &str) -> Value {
    let request = app.request("POST", path).key(DEVELOPMENT_KEY).organization("contoso");
    let request = if path.ends_with("/resume") {
        request.header("prefer", "respond-async")
    } else {
        request
    };
    let answer = request.json(&json!({})).send().await;
    answer.json()
}

async fn first_output(app: &TestApp, run: &RunId) -> Value {
    let path = format!("/api/runs/{run}/steps/first/output");
    let request = app.request("GET", &path).key(DEVELOPMENT_KEY).organization("contoso");
    request.send().await.json()["output"].clone()
}

async fn resume(app: &TestApp, clock: &ManualClock, run: &RunId) -> RunId {
    let answer = post(app, &format!("/api/runs/{run}/resume")).await;
    let id = answer["runId"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
    let id: RunId = id.parse().unwrap();
    let scope = operator_in(&operator(), &contoso());
    // What it waits for, a place for example, comes by messages.
    for _ in 0..20 {
        assert!(app.deliver_all().await);
        let run = app.cx.runs.get(&scope, &id).await.unwrap();
        if run.is_some_and(|run| run.state.status.is_terminal()) {
            return id;
        }
        clock.advance(Duration::from_secs(10));
    }
    panic!("`{id}` does not end")
}

#[tokio::test]
async fn a_run_is_kept_as_long_as_those_that_take_over_what_it_did() {
    let (clock, builder) = start();
    let app = two(builder).start().await;
    let before = half(&app).await;
    clock.advance(10 * DAY);
    app.scripted.push("second", Scene::raises("ValueError", "not yet"));
    let middle = resume(&app, &clock, &before).await;
    clock.advance(10 * DAY);
    app.scripted.push("second", Scene::returns(json!(2)));
    let last = resume(&app, &clock, &middle).await;
    let kept = json!({"kept": "by the run that did it"});
    assert_eq!(first_output(&app, &last).await, kept);
    // The first two are over 90 days old, and the last is not.
    clock.advance(82 * DAY);
    assert_eq!(tick::tick(&app.cx).await.unwrap().deleted_runs, 0);
    assert_eq!(first_output(&app, &last).await, kept);
    clock.advance(10 * DAY);
    let mut deleted = 0;
    for _ in 0..3 {
        deleted += tick::tick(&app.cx).await.unwrap().deleted_runs;
    }
    assert_eq!(deleted, 3);
    for run in [&before, &middle, &last] {
        assert_eq!(left(&app, run).await, (0, 0, 0));
    }
}

/// More runs that stay than a tick looks at stand between it and one that may go.
#[tokio::test]
async fn runs_that_stay_hide_no_older_one() {
    let (clock, builder) = start();
    let app = builder.start().await;
    let old = run(&app).await;
    clock.advance(DAY);
    for _ in 0..410 {
        let later = "/api/workflows/hello/execute?runAt=2027-10-01T00:00:00Z";
        let request = app.request("POST", later).key(DEVELOPMENT_KEY).organization("contoso");
        let answer = request.header("prefer", "respond-async").json(&json!({})).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    clock.advance(92 * DAY);
    let mut deleted = Vec::new();
    for _ in 0..4 {
        deleted.push(tick::tick(&app.cx).await.unwrap().deleted_runs);
    }
    assert_eq!(deleted, [0, 1, 0, 0], "twenty pages a tick, and then on from there");
    assert_eq!(left(&app, &old).await, (0, 0, 0));
}

#[tokio::test]
async fn a_run_that_is_resumed_while_it_is_about_to_be_deleted_stays() {
    let (clock, builder) = start();
    let app = two(builder).start().await;
    let run = half(&app).await;
    clock.advance(91 * DAY);
    let (scope, now) = (operator_in(&operator(), &contoso()), clock.now());
    let retention = Retention::new(app.ports.clone());
    let seen = app.cx.runs.get(&scope, &run).await.unwrap().unwrap();
    let (listed, _) = retention.listed_before(&scope, now, None, 10, None).await.unwrap();
    let old = listed.into_iter().next().unwrap().with(&seen);
    let resumed = resume(&app, &clock, &run).await;
    assert!(
        !retention.delete(&scope, &old).await.unwrap(),
        "it was looked at too early"
    );
    assert_eq!(retention.kept_for(&scope, &run).await.unwrap(), [(resumed, Some(now))]);
    assert_ne!(left(&app, &run).await, (0, 0, 0));
    // Who comes too late is told so.
    let seen = app.cx.runs.get(&scope, &run).await.unwrap().unwrap();
    assert!(retention.delete(&scope, &old.with(&seen)).await.unwrap());
    let kept = retention.keep_for(&scope, &run, &run, now).await;
    assert!(
        matches!(kept, Err(weft::store::Error::PreconditionFailed { .. })),
        "{kept:?}"
    );
}

#[tokio::test]
async fn a_run_is_not_resumed_for_ever() {
    let (clock, builder) = start();
    let app = two(builder).start().await;
    let mut run = half(&app).await;
    for _ in 0..32 {
        app.scripted.push("second", Scene::raises("ValueError", "not yet"));
        run = resume(&app, &clock, &run).await;
    }
    assert_eq!(
        first_output(&app, &run).await,
        json!({"kept": "by the run that did it"})
    );
    let answer = post(&app, &format!("/api/runs/{run}/resume")).await;
    assert_eq!(answer["code"], "resumed_too_often", "{answer:#}");
}
