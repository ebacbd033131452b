//! Runs that have been kept long enough are deleted, others are not, and what interrupts it is gone on with.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft::audit::Event;
use weft::clock::ManualClock;
use weft::domain::{LogLine, OrgId, RunId, Timestamp};
use weft::runner::WorkerMessage;
use weft::runner::scripted::Scene;
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key;
use weft::store::port::Query;
use weft::tenancy::{operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{TestApp, WORKFLOW};
use weft::usecase::audit_log::{AuditQuery, Entry};
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
        .key(weft::usecase::seed::DEVELOPMENT_KEY)
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
