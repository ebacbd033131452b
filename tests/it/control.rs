//! Control of runs where something is not as it should be: runs that can't be read, runs whose time is over before they began,
//! keys that are used twice, voices that are counted once, storage that is away, and records that say what came of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weft::audit::LinkedRecord;
use weft::authz::{KeyScope, Origin};
use weft::boot;
use weft::clock::{Clock as _, ManualClock};
use weft::domain::{OrgId, Outcome, Rights, RunId, StepError, Timestamp};
use weft::error::Coded as _;
use weft::runner::scripted::{Scene, Scripted};
use weft::runner::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, Isolation, NodeRunner, Refusal, RunnerError,
    RunnerTimings, WorkerMessage,
};
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key::{self, Queue};
use weft::store::port::{self, Key, Match, Operation, Properties, Query};
use weft::tenancy::{PlatformScope, RunRef, Scope, operator, operator_in, system};
use weft::testing::app::{Builder, description};
use weft::testing::{Answer, TestApp, WORKFLOW};
use weft::usecase::api_key::NewKey;
use weft::usecase::approval::{self, Word};
use weft::usecase::deliver::{Delivered, From, consume, deliver};
use weft::usecase::quarantine::quarantine;
use weft::usecase::run_event::Happening;
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::watch::{self, Wanted};

const PATIENCE: Duration = Duration::from_secs(60);

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

fn scope() -> Scope {
    operator_in(&operator(), &contoso())
}

async fn ask_as(app: &TestApp, organization: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app
        .request(method, path)
        .key(DEVELOPMENT_KEY)
        .organization(organization);
    let request = match body {
        Some(body) => request.json(&body).header("prefer", "respond-async"),
        None => request,
    };
    request.send().await
}

async fn ask(app: &TestApp, method: &str, path: &str, body: Option<Value>) -> Answer {
    ask_as(app, "contoso", method, path, body).await
}

async fn get(app: &TestApp, path: &str) -> Value {
    let answer = ask(app, "GET", path, None).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn begin(app: &TestApp, workflow: &str, query: &str) -> String {
    let path = format!("/api/workflows/{workflow}/execute{query}");
    let answer = ask(app, "POST", &path, Some(json!({}))).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["runId"].as_str().unwrap().to_owned()
}

async fn until(app: &TestApp, run: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = get(app, &format!("/api/runs/{run}")).await;
        if is(&now) {
            return now;
        }
        assert!(tokio::time::Instant::now() < patience, "never {what}: {now:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes something over a property of a row of a run.
async fn overwrite(app: &TestApp, run: &str, row: Row, name: &str, text: &str) {
    let id: RunId = run.parse().unwrap();
    let change = Operation::Merge(row(), Properties::new().with(name, text), Match::Any);
    let table = key::org_table(&contoso());
    app.ports
        .tables
        .commit(&table, &key::run(&id), vec![change])
        .await
        .unwrap();
}

/// Names a row.
type Row = fn() -> Key;

fn step_main() -> Key {
    key::step_row("main").unwrap()
}

fn message(app: &TestApp, run: &str) -> String {
    let run = RunRef {
        org: contoso(),
        run: run.parse().unwrap(),
    };
    let reason = "test".to_owned();
    weft::store::envelope::seal(
        &app.cx.signing,
        &weft::store::envelope::Message::DriveRun { run, reason },
    )
}

/// Hands out messages, for as long as it lives.
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

async fn events(app: &TestApp, run: &str, event: &str) -> Vec<Value> {
    let listed = get(app, &format!("/api/audit?resource={run}&event={event}")).await;
    listed["items"].as_array().unwrap().clone()
}

// ── runs that can't be read ────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_run_that_cannot_be_read_is_set_aside_and_ended_by_whoever_may() {
    let app = TestApp::start().await;
    for (row, name, text) in [
        (key::run_header_row as Row, "checkpoint", "{"),
        (key::run_header_row, "plan", "[1, 2]"),
        (key::run_header_row, "ask", "7"),
        (key::run_header_row, "requester", "\"nobody\""),
    ] {
        let run = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
        let next = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
        overwrite(&app, &run, row, name, text).await;
        // Whatever leads to it, leads to it once.
        assert!(app.deliver_all().await, "{name}");
        let done = deliver(&app.cx, From::Runs, &message(&app, &run), app.cx.clock.now(), None).await;
        assert!(matches!(done, Ok(Delivered::Done(_))), "{name}: {done:?}");

        let shown = get(&app, &format!("/api/runs/{run}")).await;
        assert_eq!(
            (
                &shown["status"],
                &shown["waitingFor"]["reason"],
                &shown["error"]["type"]
            ),
            (&json!("pending"), &json!("unreadable"), &json!("run_unreadable")),
            "{name}: {shown:#}"
        );
        let failure = shown["quarantined"][0]["failure"].as_str().unwrap();
        assert!(failure.starts_with("run_unreadable: "), "{failure}");
        let steps = ask(&app, "GET", &format!("/api/runs/{run}/steps"), None).await;
        assert_eq!((steps.status, steps.code().as_str()), (409, "run_unreadable"), "{name}");
        assert!(
            steps.json()["hint"].as_str().unwrap().contains("/cancel"),
            "{}",
            steps.text()
        );
        let listed = get(&app, "/api/runs?limit=200").await;
        let listed = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["runId"] == run.as_str());
        assert!(listed.unwrap()["setAside"].is_string(), "{name}: {listed:?}");
        assert_eq!(events(&app, &run, "run.set_aside").await.len(), 1, "{name}");
        assert_eq!(
            boot::unreadable_runs(&app.ports, &operator()).await.unwrap(),
            [format!("contoso/{run}")],
            "{name}"
        );
        // Its key and its place are others'.
        if name == "ask" {
            // Which key it was is not known, until somebody asks for it again, as each that waits does every minute.
            deliver(&app.cx, From::Runs, &message(&app, &next), app.cx.clock.now(), None)
                .await
                .unwrap();
        }
        let patience = tokio::time::Instant::now() + PATIENCE;
        while get(&app, &format!("/api/runs/{next}")).await["status"] != "succeeded" {
            assert!(tokio::time::Instant::now() < patience, "{name}: the next never goes on");
            assert!(app.deliver_all().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Others don't get to know of it.
        let theirs = ask_as(&app, "fabrikam", "GET", &format!("/api/runs/{run}"), None).await;
        assert_eq!(theirs.status, 404);
        let theirs = ask_as(
            &app,
            "fabrikam",
            "POST",
            &format!("/api/runs/{run}/cancel"),
            Some(json!({})),
        )
        .await;
        assert_eq!(theirs.status, 404);

        let ended = ask(&app, "POST", &format!("/api/runs/{run}/cancel"), Some(json!({}))).await;
        assert_eq!(ended.status, 200, "{name}: {}", ended.text());
        let ended = get(&app, &format!("/api/runs/{run}")).await;
        assert_eq!(
            (&ended["status"], &ended["error"]["type"], &ended["waitingFor"]),
            (&json!("cancelled"), &json!("run_unreadable"), &Value::Null),
            "{name}: {ended:#}"
        );
        assert_eq!(
            ask(&app, "GET", &format!("/api/runs/{run}/steps"), None).await.status,
            200
        );
        let again = ask(&app, "POST", &format!("/api/runs/{run}/cancel"), Some(json!({}))).await;
        assert_eq!((again.status, again.code().as_str()), (409, "run_ended"));
        assert_eq!(events(&app, &run, "run.cancelled").await.len(), 1, "{name}");
        let told = watch::page(&app.cx, &scope(), &run.parse().unwrap(), Wanted::default(), PATIENCE).await;
        assert!(
            told.unwrap()
                .events
                .iter()
                .any(|event| matches!(event.what, Happening::RunStatus { status } if status.is_terminal()))
        );
        let chain = app
            .cx
            .audit
            .verify_run(&scope(), &run.parse().unwrap(), None)
            .await
            .unwrap();
        assert!(chain.result.is_ok(), "{name}: {:?}", chain.result);
        assert_eq!(
            boot::unreadable_runs(&app.ports, &operator()).await.unwrap(),
            Vec::<String>::new()
        );
    }
}

#[tokio::test]
async fn a_run_whose_steps_cannot_be_read_is_set_aside_and_goes_on_when_they_can() {
    let app = Builder::default()
        .declares(
            json!({"name": "again", "function": "again", "line": 1, "parameters": [],
            "retry": {"attempts": 2, "delay_seconds": 600.0, "backoff": "fixed"}}),
        )
        .start()
        .await;
    app.scripted.push("again", Scene::raises("ValueError", "once more"));
    let run = begin(&app, "again", "").await;
    assert!(app.deliver_all().await);
    until(&app, &run, "waits", |run| run["status"] == "waiting").await;
    let id: RunId = run.parse().unwrap();
    let (table, partition) = (key::org_table(&contoso()), key::run(&id));
    let row = app
        .ports
        .tables
        .get(&table, &partition, &step_main())
        .await
        .unwrap()
        .unwrap();
    let attempts = row.properties.text("attempts").unwrap().unwrap().to_owned();
    overwrite(&app, &run, step_main, "attempts", "{").await;
    let cancelled = ask(&app, "POST", &format!("/api/runs/{run}/cancel"), Some(json!({}))).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    assert_eq!(get(&app, &format!("/api/runs/{run}")).await["status"], "cancelled");
    overwrite(&app, &run, step_main, "attempts", &attempts).await;
    let steps = get(&app, &format!("/api/runs/{run}/steps")).await;
    assert_eq!(steps["items"][0]["attempts"].as_array().unwrap().len(), 1, "{steps:#}");
}

#[tokio::test]
async fn a_run_that_was_set_aside_goes_on_when_what_is_stored_was_mended() {
    let app = TestApp::start().await;
    let run = begin(&app, WORKFLOW, "").await;
    let id: RunId = run.parse().unwrap();
    let (table, partition) = (key::org_table(&contoso()), key::run(&id));
    let header = app
        .ports
        .tables
        .get(&table, &partition, &key::run_header_row())
        .await
        .unwrap()
        .unwrap();
    let checkpoint = header.properties.text("checkpoint").unwrap().unwrap().to_owned();
    overwrite(&app, &run, key::run_header_row, "checkpoint", "no").await;
    assert!(app.deliver_all().await);
    let early = ask(&app, "POST", &format!("/api/runs/{run}/requeue"), Some(json!({}))).await;
    assert_eq!(early.status, 202, "{}", early.text());
    assert!(app.deliver_all().await, "it is set aside once more");
    overwrite(&app, &run, key::run_header_row, "checkpoint", &checkpoint).await;
    // By the minute: within one it is the same fact, which was put back.
    let mended = ask(&app, "POST", &format!("/api/runs/{run}/requeue"), Some(json!({}))).await;
    if mended.status == 202 {
        assert!(app.deliver_all().await);
    } else {
        let done = deliver(&app.cx, From::Runs, &message(&app, &run), app.cx.clock.now(), None).await;
        assert!(done.is_ok(), "{done:?}");
    }
    let run = until(&app, &run, "ends", |run| run["status"] == "succeeded").await;
    let listed = get(&app, "/api/runs").await;
    assert!(listed["items"][0]["setAside"].is_null(), "{listed:#} {run:#}");
}

// ── what records say ───────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn the_record_of_a_runs_end_says_what_came_of_it() {
    let app = TestApp::start().await;
    let _host = Host::of(&app);
    let ended = |status: &'static str, scene: Option<Scene>| {
        let app = &app;
        async move {
            if let Some(scene) = scene {
                app.scripted.push(WORKFLOW, scene);
            }
            let run = begin(app, WORKFLOW, "").await;
            until(app, &run, status, |run| run["status"] == status).await;
            let records = events(app, &run, "run.finished").await;
            assert_eq!(records.len(), 1, "{records:?}");
            (records[0]["outcome"].clone(), records[0]["detail"]["status"].clone())
        }
    };
    let error = StepError::new("time_limit", "too long");
    for (status, outcome, scene) in [
        ("succeeded", "succeeded", None),
        ("failed", "failed", Some(Scene::raises("ValueError", "no"))),
        ("timed_out", "failed", Some(Scene::ends(Outcome::TimedOut { error }))),
    ] {
        assert_eq!(ended(status, scene).await, (json!(outcome), json!(status)));
    }
}

/// A death at each write of a change: what was changed has its record.
#[tokio::test]
async fn no_change_of_a_trigger_is_without_its_record() {
    let schedule = json!({"name": "n", "workflow": WORKFLOW, "cron": "0 0 1 1 *"});
    let trigger = json!({"name": "n", "workflow": WORKFLOW, "arguments": {"wrap": "name"}});
    let changed = json!({"name": "m", "workflow": WORKFLOW, "cron": "0 0 1 1 *"});
    let renamed = json!({"name": "m", "workflow": WORKFLOW, "arguments": {"wrap": "name"}});
    let mut deaths = 0;
    for (path, body, other) in [
        ("/api/schedules", &schedule, &changed),
        (
            "/api/triggers/hooks",
            &json!({"scheme": "github", "name": "n", "workflow": WORKFLOW, "arguments": {"wrap": "name"}}),
            &json!({"scheme": "github", "name": "m", "workflow": WORKFLOW, "arguments": {"wrap": "name"}}),
        ),
        ("/api/queue-triggers", &trigger, &renamed),
    ] {
        let app = TestApp::start().await;
        let made = ask(&app, "POST", path, Some(body.clone())).await;
        if made.status == 503 {
            // Without a place for secrets there are no hooks.
            continue;
        }
        let made = made.json();
        let id = made["id"].as_str().or(made["hook"]["id"].as_str()).unwrap().to_owned();
        let one = format!("{path}/{id}");
        for nth in 1..40 {
            let count = || async { events_of(&app, &id).await };
            let (before, named) = (count().await, name_of(&app, &one).await);
            let wanted = if named == "n" { other } else { body };
            app.faults.plan(Plan::Script(vec![
                Rule::new(Fault::Crash).calls(&[Call::Commit]).only(nth),
            ]));
            let answer = ask(&app, "PUT", &one, Some(wanted.clone())).await;
            app.faults.plan(Plan::Calm);
            app.faults.heal();
            let is_done = name_of(&app, &one).await != named;
            assert!(!is_done || count().await > before, "{path}: call {nth}: {answer:?}");
            if answer.status == 200 {
                deaths += nth - 1;
                break;
            }
        }
    }
    assert!(deaths >= 4, "{deaths}");
}

async fn name_of(app: &TestApp, path: &str) -> String {
    get(app, path).await["name"].as_str().unwrap_or_default().to_owned()
}

/// Records that are in a chain, whether or not they are listed: what a crash keeps from being listed is there.
async fn events_of(app: &TestApp, id: &str) -> usize {
    let day = app.cx.clock.now().day();
    let mut found = 0;
    for verdict in app.cx.audit.verify_day(&scope(), &day).await.unwrap() {
        let records = app.cx.audit.chain(&scope(), &verdict.chain, 0, 1000).await.unwrap();
        let is = |record: &&LinkedRecord| record.sealed.body.contains(id) && record.sealed.body.contains("changed");
        found += records.iter().filter(is).count();
    }
    found
}

// ── live events ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn messages_that_were_set_aside_are_told_to_who_watches() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let app = Builder::default().clock(clock.clone()).start().await;
    let run = begin(&app, WORKFLOW, "").await;
    let id: RunId = run.parse().unwrap();
    let reference = RunRef {
        org: contoso(),
        run: id.clone(),
    };
    let taken = |app: &TestApp| {
        let (cx, id) = (app.cx.clone(), id.clone());
        async move {
            // Somebody else drives it, so that quarantine has nothing to do but to record.
            let stored = cx.runs.get(&scope(), &id).await.unwrap().unwrap();
            let now = cx.clock.now();
            let lease_until = now.plus(Duration::from_secs(3600));
            let lease = weft::scheduler::Event::Taken {
                owner: "another".into(),
                lease_until,
            };
            let taken = weft::scheduler::decide(&stored.new.plan, &stored.state, lease, now).unwrap();
            cx.runs
                .apply(&scope(), stored, &taken, weft::store::repo::runs::Additions::default())
                .await
                .unwrap();
        }
    };
    taken(&app).await;
    let page = |app: &TestApp, after: Option<String>, wait: Duration| {
        let (cx, id) = (app.cx.clone(), id.clone());
        async move {
            let wanted = Wanted {
                after,
                pointer: "query:after",
                ..Wanted::default()
            };
            watch::page(&cx, &scope(), &id, wanted, wait).await.unwrap()
        }
    };
    let set_aside = |told: &watch::Told| {
        let is = |event: &&weft::usecase::run_event::Event| matches!(event.what, Happening::MessageSetAside { .. });
        told.events.iter().filter(is).count()
    };
    let other = app.another().await;
    // A watcher that is there when it happens, on another instance, and one that comes later.
    let mut watcher = watch::open(&other.cx, &scope(), &id, Wanted::default()).await.unwrap();
    quarantine(&app.cx, &reference, Queue::Runs, clock.now()).await.unwrap();
    let mut heard = 0;
    let patience = tokio::time::Instant::now() + PATIENCE;
    while heard == 0 {
        assert!(tokio::time::Instant::now() < patience, "never heard of it");
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(200), watcher.next()).await {
            heard += set_aside(&told.unwrap());
        }
    }
    let first = page(&app, None, Duration::ZERO).await;
    assert_eq!(set_aside(&first), 1, "{first:?}");
    let nothing = page(&other, Some(first.cursor.clone()), Duration::ZERO).await;
    assert_eq!(nothing.events, []);
    clock.advance(Duration::from_secs(90));
    quarantine(&app.cx, &reference, Queue::Attempts, clock.now())
        .await
        .unwrap();
    let second = page(&other, Some(first.cursor), PATIENCE).await;
    assert_eq!((set_aside(&second), second.events.len()), (1, 1), "{second:?}");
    let cancelled = ask(&app, "POST", &format!("/api/runs/{run}/cancel"), Some(json!({}))).await;
    assert_eq!(cancelled.status, 200);
    let mut cursor = second.cursor;
    loop {
        // An attempt that was killed says no more.
        clock.advance(Duration::from_secs(3));
        let last = page(&app, Some(cursor), Duration::from_millis(200)).await;
        assert_eq!(set_aside(&last), 0, "nothing twice: {last:?}");
        if last.ended.is_some() {
            break;
        }
        cursor = last.cursor;
    }
    let whole = page(&other, None, Duration::ZERO).await;
    assert_eq!(set_aside(&whole), 2, "{whole:?}");
}

// ── approvals ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn all_keys_of_one_maker_are_one_voice() {
    let step = json!({"id": "ok", "type": "approval", "needed": 3, "withinSeconds": 3600, "question": null});
    let app = Builder::default()
        .graph(json!({"name": "asks", "nodes": [step], "edges": []}))
        .start()
        .await;
    let _host = Host::of(&app);
    let run = begin(&app, "asks", "").await;
    until(&app, &run, "asks", |run| run["status"] == "waiting").await;
    let keys = &app.cx.keys;
    let prepared = |by: &PlatformScope| {
        let new = NewKey {
            name: "of a test".parse().unwrap(),
            organizations: Vec::new(),
            scopes: vec![KeyScope::All],
            expires_at: None,
            development: false,
        };
        keys.prepare(by, new).unwrap()
    };
    let (first, second, other) = (prepared(&operator()), prepared(&operator()), prepared(&system("other")));
    // From before it was noted who makes a key.
    let [mut old, mut older] = [prepared(&operator()), prepared(&system("other"))];
    (old.record.made_by, older.record.made_by) = (None, None);
    for key in [&first, &second, &other, &old, &older] {
        keys.create(&operator(), key).await.unwrap();
    }
    // Whoever takes over a key by rotation has its voice, and no other.
    let successor = keys
        .prepare_successor(&system("other"), &first.record.id)
        .await
        .unwrap();
    let hour = Duration::from_secs(3600);
    keys.rotate(&system("other"), &first.record.id, &successor, hour)
        .await
        .unwrap();

    let path = format!("/api/runs/{run}/steps/ok");
    let post = async |key: &str, path: &str, body: Value| {
        let request = app.request("POST", path).key(key).organization("contoso");
        request.json(&body).send().await
    };
    let decide = async |key: &str, approved: bool| {
        let answer = post(key, &format!("{path}/decision"), json!({"approved": approved})).await;
        (
            answer.status,
            if answer.status < 300 {
                String::new()
            } else {
                answer.code()
            },
        )
    };
    let counted = (409, "approval_counted".to_owned());
    let made = post(other.secret.expose(), &format!("{path}/links"), json!({"for": "ada"})).await;
    assert!(matches!(made.status, 200 | 201), "{made:?}");
    assert_eq!(decide(first.secret.expose(), true).await.0, 202);
    assert_eq!(
        decide(first.secret.expose(), true).await,
        (409, "approval_decided".to_owned())
    );
    for same in [second.secret.expose(), successor.secret.expose(), DEVELOPMENT_KEY] {
        assert_eq!(decide(same, true).await, counted);
    }
    let word = Word {
        approved: true,
        comment: None,
    };
    let id: RunId = run.parse().unwrap();
    let own = approval::decide(&app.cx, &scope(), &Origin::default(), (&id, "ok"), word).await;
    assert_eq!(own.unwrap_err().code(), "approval_counted");
    assert_eq!(decide(old.secret.expose(), true).await.0, 202);
    assert_eq!(decide(older.secret.expose(), true).await, counted);
    // A link is its maker's, and that is a key.
    let link = made.json()["href"].as_str().unwrap().to_owned();
    let by_link = app.request("POST", &link).json(&json!({"approved": true})).send().await;
    assert_eq!(by_link.status, 202, "{by_link:?}");
    let ended = until(&app, &run, "ends", |run| run["finishedAt"].is_string()).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let records = events(&app, &run, "step.approved").await;
    let mut makers: Vec<_> = records
        .iter()
        .map(|one| one["detail"]["voice"].as_str().unwrap())
        .collect();
    makers.sort_unstable();
    assert_eq!(makers, ["operator", "system:other", "unknown"]);

    // Whoever refuses is heard, also beside another of the same maker.
    let run = begin(&app, "asks", "").await;
    until(&app, &run, "asks", |run| run["status"] == "waiting").await;
    for (key, approved) in [(first.secret.expose(), true), (second.secret.expose(), false)] {
        let path = format!("/api/runs/{run}/steps/ok/decision");
        assert_eq!(post(key, &path, json!({"approved": approved})).await.status, 202);
    }
    let ended = until(&app, &run, "ends", |run| run["finishedAt"].is_string()).await;
    assert_eq!(ended["error"]["type"], "approval_refused", "{ended:#}");
}

/// Storage dies for an instance at each write of a decision in turn, before or after it is done. Who got no answer asks another
/// instance once more, and whatever that says, the decision counts once.
#[tokio::test(start_paused = true)]
async fn a_decision_counts_wherever_its_instance_dies() {
    let step = json!({"id": "ok", "type": "approval", "needed": 1, "withinSeconds": 3600, "question": null});
    let word = json!({"approved": true});
    for fault in [Fault::Crash, Fault::CrashAfter] {
        for at in 1.. {
            let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-11-28T08:00:00Z").unwrap()));
            let graph = json!({"name": "asks", "nodes": [step], "edges": []});
            let app = Builder::default().clock(clock.clone()).graph(graph).start().await;
            let heir = app.another().await;
            let run = begin(&app, "asks", "").await;
            clock.advance(Duration::from_secs(1));
            assert!(app.deliver_all().await);
            let path = format!("/api/runs/{run}/steps/ok/decision");
            app.faults.plan(Plan::Script(vec![Rule::new(fault).writes().only(at)]));
            let first = ask(&app, "POST", &path, Some(word.clone())).await;
            let died = app.faults.crashed();
            if first.status != 202 {
                let again = ask(&heir, "POST", &path, Some(word.clone())).await;
                let is_known = again.status == 202 || again.code() == "approval_decided";
                assert!(is_known, "{fault:?} {at}: {again:?}");
            }
            for _ in 0..20 {
                clock.advance(Duration::from_secs(2));
                assert!(heir.deliver_all().await);
            }
            let ended = get(&heir, &format!("/api/runs/{run}")).await;
            assert_eq!(ended["status"], "succeeded", "{fault:?} {at}: {ended:#}");
            if !died {
                assert!(at > 4, "there are too few writes");
                break;
            }
        }
    }
}

#[tokio::test]
async fn all_links_of_one_person_are_one_voice() {
    let step = json!({"id": "ok", "type": "approval", "needed": 2, "withinSeconds": 3600, "question": null});
    let app = Builder::default()
        .graph(json!({"name": "asks", "nodes": [step], "edges": []}))
        .start()
        .await;
    let _host = Host::of(&app);
    let run = begin(&app, "asks", "").await;
    until(&app, &run, "asks", |run| run["status"] == "waiting").await;
    let link = async |name: &str| {
        let path = format!("/api/runs/{run}/steps/ok/links");
        let made = ask(&app, "POST", &path, Some(json!({"for": name}))).await;
        assert!(matches!(made.status, 200 | 201), "{}", made.text());
        made.json()["href"].as_str().unwrap().to_owned()
    };
    let (ada, bob) = (link("ada").await, link("bob").await);
    let decide = async |path: &str, approved: bool| {
        let request = app.request("POST", path).json(&json!({"approved": approved}));
        request.send().await
    };
    assert_eq!(decide(&ada, true).await.status, 202);
    until(&app, &run, "has heard of it", |_| true).await;
    let second = decide(&bob, true).await;
    assert_eq!(
        (second.status, second.code().as_str()),
        (409, "approval_counted"),
        "{second:?}"
    );
    // Who has made the links has no other voice either.
    let own = ask(
        &app,
        "POST",
        &format!("/api/runs/{run}/steps/ok/decision"),
        Some(json!({"approved": true})),
    )
    .await;
    assert_eq!((own.status, own.code().as_str()), (409, "approval_counted"), "{own:?}");
    let twice = decide(&ada, true).await;
    assert_eq!(
        (twice.status, twice.code().as_str()),
        (409, "approval_decided"),
        "{twice:?}"
    );
    let records = events(&app, &run, "step.approved").await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(
        records[0]["detail"]["linkMadeBy"].as_str().unwrap().starts_with("key:"),
        "{records:?}"
    );
    assert_eq!(get(&app, &format!("/api/runs/{run}")).await["status"], "waiting");
    let ben = app.request("POST", &format!("/api/runs/{run}/steps/ok/decision"));
    let ben = ben
        .person("ben")
        .organization("contoso")
        .json(&json!({"approved": true}));
    assert_eq!(ben.send().await.status, 202);
    let ended = until(&app, &run, "ends", |run| run["finishedAt"].is_string()).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");

    // Whoever refuses with a link is heard, also beside another of the same maker.
    let run = begin(&app, "asks", "").await;
    until(&app, &run, "asks", |run| run["status"] == "waiting").await;
    let path = format!("/api/runs/{run}/steps/ok/links");
    let mut links = Vec::new();
    for name in ["ada", "bob"] {
        let made = ask(&app, "POST", &path, Some(json!({"for": name}))).await.json();
        links.push(made["href"].as_str().unwrap().to_owned());
    }
    assert_eq!(decide(&links[0], true).await.status, 202);
    assert_eq!(decide(&links[1], false).await.status, 202);
    let ended = until(&app, &run, "ends", |run| run["finishedAt"].is_string()).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["type"]),
        (&json!("failed"), &json!("approval_refused"))
    );
}

// ── keys, and time ─────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_holder_of_a_key_that_has_not_begun_is_cancelled_too() {
    let app = TestApp::start().await;
    let holder = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
    let waits = begin(&app, WORKFLOW, "?concurrencyKey=k").await;
    let takes = begin(&app, WORKFLOW, "?concurrencyKey=k&onConflict=cancel_running").await;
    for cancelled in [&holder, &waits] {
        let run = get(&app, &format!("/api/runs/{cancelled}")).await;
        assert_eq!(run["status"], "cancelled", "{run:#}");
    }
    assert!(app.deliver_all().await);
    until(&app, &takes, "goes on", |run| run["status"] == "succeeded").await;
    assert_eq!(app.scripted.asked().len(), 1);
}

#[tokio::test]
async fn a_run_whose_header_is_older_than_its_records_is_set_aside_and_ended() {
    let app = TestApp::start().await;
    let run = begin(&app, WORKFLOW, "").await;
    let id: RunId = run.parse().unwrap();
    let older = Properties::new()
        .with("auditSequence", 0_i64)
        .with("auditHash", port::Value::Bytes(vec![0; 32]));
    let older = Operation::Merge(key::run_header_row(), older, Match::Any);
    let table = key::org_table(&contoso());
    app.ports
        .tables
        .commit(&table, &key::run(&id), vec![older])
        .await
        .unwrap();
    let done = deliver(&app.cx, From::Runs, &message(&app, &run), app.cx.clock.now(), None).await;
    assert!(
        matches!(done, Ok(Delivered::Done(weft::usecase::drive_run::Continued::SetAside))),
        "{done:?}"
    );
    assert_eq!(events(&app, &run, "run.set_aside").await.len(), 1);
    let ended = ask(&app, "POST", &format!("/api/runs/{run}/cancel"), Some(json!({}))).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    let ended = get(&app, &format!("/api/runs/{run}")).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["type"]),
        (&json!("cancelled"), &json!("run_unreadable")),
        "{ended:#}"
    );
    // The chain of its records goes on where it was.
    let stored = app.cx.runs.get(&scope(), &id).await.unwrap().unwrap();
    assert_eq!(stored.audit.sequence, 2);
}

/// How many messages there are in the queue of runs, hidden ones included.
async fn messages(app: &TestApp, clock: &ManualClock) -> usize {
    clock.advance(Duration::from_secs(86_400));
    let queue = Queue::Runs.name();
    let mut count = 0;
    loop {
        let received = app
            .ports
            .queues
            .receive(&queue, 32, Duration::from_secs(60))
            .await
            .unwrap();
        if received.is_empty() {
            return count;
        }
        count += received.len();
    }
}

#[tokio::test]
async fn failures_leave_no_more_messages_than_there_were() {
    // It is taken by a message, or waits for its turn, or for its key.
    for (query, holder, works) in [
        ("", None, 1),
        ("", Some(""), 0),
        ("?concurrencyKey=k", Some("?concurrencyKey=k"), 0),
    ] {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
        let app = Builder::default().clock(clock.clone()).concurrent_runs(1).start().await;
        let _holder = match holder {
            Some(holder) => {
                app.scripted.takes(WORKFLOW, Duration::from_secs(100_000));
                let host = Host::of(&app);
                let run = begin(&app, WORKFLOW, holder).await;
                until(&app, &run, "runs", |run| run["status"] == "running").await;
                drop(host);
                Some(run)
            }
            None => None,
        };
        let run = begin(&app, WORKFLOW, query).await;
        let before = messages(&app, &clock).await;
        assert!(before > 0);
        app.faults.plan(Plan::Script(vec![
            Rule::new(Fault::Before)
                .calls(&[Call::Commit])
                .range(works + 1, 1_000_000),
        ]));
        for _ in 0..12 {
            let done = deliver(&app.cx, From::Runs, &message(&app, &run), app.cx.clock.now(), None).await;
            assert!(done.is_err(), "{query} {holder:?}: {done:?}");
        }
        app.faults.plan(Plan::Calm);
        let after = messages(&app, &clock).await;
        // That the organization has a backlog may have been told meanwhile.
        assert!(after <= before + 1, "{before} were there, then {after}");
    }
}

#[tokio::test]
async fn rows_of_the_backlog_that_cannot_be_read_hold_up_nobody() {
    let app = TestApp::start().await;
    let runs = [begin(&app, WORKFLOW, "").await, begin(&app, WORKFLOW, "").await];
    let table = key::org_table(&contoso());
    let rows = Query::partition(key::index()).prefix(key::BACKLOG).unwrap();
    let rows = app.ports.tables.query(&table, rows).await.unwrap().entities;
    assert_eq!(rows.len(), 2);
    let broken = Properties::new()
        .with("v", 1_i64)
        .with("rank", "first")
        .with("run", "nobody");
    let mut operations = vec![Operation::Replace(rows[0].row.clone(), broken.clone(), Match::Any)];
    for name in ["backlog:00:000000000000000:nobody", "backlog:"] {
        operations.push(Operation::Insert(Key::new(name).unwrap(), broken.clone()));
    }
    app.ports
        .tables
        .commit(&table, &key::index(), operations)
        .await
        .unwrap();
    let _host = Host::of(&app);
    for run in &runs {
        until(&app, run, "succeeds", |run| run["status"] == "succeeded").await;
    }
}

#[tokio::test]
async fn a_row_of_the_list_that_cannot_be_read_is_made_again() {
    let app = TestApp::start().await;
    let runs = [begin(&app, WORKFLOW, "").await, begin(&app, WORKFLOW, "").await];
    let table = key::org_table(&contoso());
    let rows = || Query::partition(key::index()).prefix(key::INDEX_RUNS).unwrap();
    let listed = app.ports.tables.query(&table, rows()).await.unwrap().entities;
    let broken = Properties::new().with("v", 2_i64).with("status", "odd");
    let mut operations = vec![Operation::Replace(listed[0].row.clone(), broken.clone(), Match::Any)];
    let nobody = format!("{}000000000000000:nobody", key::INDEX_RUNS);
    operations.push(Operation::Insert(Key::new(nobody).unwrap(), broken));
    app.ports
        .tables
        .commit(&table, &key::index(), operations)
        .await
        .unwrap();
    for _ in 0..2 {
        let page = get(&app, "/api/runs").await;
        let ids: Vec<_> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| &run["runId"])
            .collect();
        assert!(
            ids.len() == 2 && runs.iter().all(|run| ids.contains(&&json!(run))),
            "{page:#}"
        );
    }
    let mended = app.ports.tables.query(&table, rows()).await.unwrap().entities;
    let mended = mended.iter().find(|row| row.row == listed[0].row).unwrap();
    assert_eq!(mended.properties, listed[0].properties);
}

#[tokio::test]
async fn a_key_of_another_request_to_go_on_is_refused() {
    let app = TestApp::start().await;
    app.scripted.push(WORKFLOW, Scene::raises("ValueError", "no"));
    let run = begin(&app, WORKFLOW, "").await;
    assert!(app.deliver_all().await);
    until(&app, &run, "fails", |run| run["status"] == "failed").await;
    for what in ["resume", "rerun"] {
        let send = async |query: &str| {
            let path = format!("/api/runs/{run}/{what}{query}");
            let request = app.request("POST", &path).key(DEVELOPMENT_KEY).organization("contoso");
            let request = request
                .header("prefer", "respond-async")
                .header("idempotency-key", "one");
            request.send().await
        };
        let first = send("").await;
        assert_eq!(first.status, 202, "{what}: {first:?}");
        let other = send("?revision=current").await;
        assert_eq!(
            (other.status, other.code().as_str()),
            (409, "idempotency_key_reused"),
            "{what}: {other:?}"
        );
        let again = send("?revision=pinned").await;
        assert_eq!(again.json()["runId"], first.json()["runId"], "{what}: {again:?}");
    }
}

#[tokio::test]
async fn a_run_that_waits_ends_when_its_time_is_over() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let step = json!({"id": "a", "type": "python", "use": "a"});
    let app = Builder::default()
        .clock(clock.clone())
        .concurrent_runs(1)
        .function("a", &[])
        .graph(json!({"name": "short", "deadlineSeconds": 400, "nodes": [step], "edges": []}))
        .start()
        .await;
    app.scripted.takes(WORKFLOW, Duration::from_secs(600));
    let path = format!("/api/workflows/{WORKFLOW}/execute");
    let holder = app.request("POST", &path).key(DEVELOPMENT_KEY).organization("contoso");
    assert_eq!(
        holder.header("prefer", "wait=0").json(&json!({})).send().await.status,
        202
    );
    let waits = begin(&app, "short", "").await;
    let parked = begin(&app, "short", "?concurrencyKey=k").await;
    let parked = [parked, begin(&app, "short", "?concurrencyKey=k").await];
    // Their own messages come, and find no place.
    clock.advance(Duration::from_secs(66));
    assert!(deliver_own(&app).await);
    assert_eq!(get(&app, &format!("/api/runs/{waits}")).await["status"], "pending");
    clock.advance(Duration::from_secs(400 - 66 + 3));
    assert!(deliver_own(&app).await);
    for run in [&waits, &parked[0], &parked[1]] {
        let run = get(&app, &format!("/api/runs/{run}")).await;
        assert_eq!(
            (&run["status"], &run["error"]["type"]),
            (&json!("timed_out"), &json!("time_limit")),
            "{run:#}"
        );
    }
    assert_eq!(app.scripted.asked().len(), 1, "nothing of them was begun");
}

/// Hands out what is about a run; nobody serves the organization.
async fn deliver_own(app: &TestApp) -> bool {
    let queue = Queue::Runs.name();
    loop {
        let messages = app
            .ports
            .queues
            .receive(&queue, 1, Duration::from_secs(30))
            .await
            .unwrap();
        let Some(message) = messages.into_iter().next() else {
            return true;
        };
        let about = weft::store::envelope::open(&app.cx.signing, &message.text).unwrap();
        let is_own = matches!(about, weft::store::envelope::Message::DriveRun { .. });
        if is_own
            && deliver(&app.cx, From::Runs, &message.text, app.cx.clock.now(), None)
                .await
                .is_err()
        {
            return false;
        }
        app.ports.queues.delete(&queue, &message.receipt).await.unwrap();
    }
}

// ── storage that is away ───────────────────────────────────────────────────────────────────────────────────────────────

/// One of its functions ends when it is told; the other asks for something then, and says what it was answered and when.
#[derive(Debug)]
struct Asks {
    begun: tokio::sync::Semaphore,
    away: CancellationToken,
}

#[async_trait]
impl NodeRunner for Asks {
    async fn run(&self, spec: AttemptSpec, _: CancellationToken) -> Result<AttemptReport, RunnerError> {
        self.begun.add_permits(1);
        self.away.cancelled().await;
        let mut outcome = Outcome::Succeeded { value: Value::Null };
        if spec.entry.function != "ends" {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let (reply, answered) = oneshot::channel();
            let asked = tokio::time::Instant::now();
            let (name, args) = match spec.entry.function.as_str() {
                "reads" => ("kv.get", json!({"key": "count"})),
                _ => ("kv.set", json!({"key": "count", "value": 1})),
            };
            let call = WorkerMessage::Call {
                name: name.to_owned(),
                args,
                reply,
            };
            assert!(spec.messages.send(call).await.is_ok());
            let answer: Result<Value, Refusal> = answered.await.unwrap();
            let took = asked.elapsed().as_millis();
            outcome = match answer {
                Ok(_) => Outcome::Succeeded {
                    value: json!({"answered": took}),
                },
                Err(refusal) => {
                    let error = StepError::new("Unavailable", format!("{} after {took}", refusal.message));
                    Outcome::Failed { error }
                }
            };
        }
        Ok(AttemptReport {
            outcome,
            variables: json!({}),
            timings: RunnerTimings::default(),
            output_bytes: 0,
            output_truncated: false,
            max_rss_kib: None,
            posture: Arc::new(vec!["scripted"]),
            network: None,
        })
    }

    async fn describe(&self, _: &BundleRef) -> Result<BundleDescription, RunnerError> {
        let function = |name: &str| json!({"name": name, "function": name, "line": 1, "parameters": []});
        Ok(description(["ends", "reads", "writes"].map(function).to_vec()))
    }

    fn warm(&self, _: &BundleRef, _: &str, _: &Rights) {}

    fn slots(&self) -> usize {
        8
    }

    async fn shutdown(&self) {}

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        Scripted::new().posture().await
    }

    fn isolation(&self) -> Option<Isolation> {
        Scripted::new().isolation()
    }

    fn status(&self) -> Value {
        json!({})
    }
}

async fn through_an_outage(asks: &str, calls: &[Call], lasts: Duration) -> Value {
    let runner = Arc::new(Asks {
        begun: tokio::sync::Semaphore::new(0),
        away: CancellationToken::new(),
    });
    let steps = json!([{"id": "one", "type": "python", "use": "ends"}, {"id": "two", "type": "python", "use": asks, "onFailure": "continue"}]);
    let app = Builder::default()
        .graph(json!({"name": "both", "nodes": steps, "edges": [], "output": {"$": "steps.two.output"}}))
        .runner(runner.clone())
        .start()
        .await;
    let _host = Host::of(&app);
    let run = begin(&app, "both", "").await;
    drop(runner.begun.acquire_many(2).await.unwrap());
    app.faults
        .plan(Plan::Script(vec![Rule::new(Fault::Before).calls(calls)]));
    runner.away.cancel();
    tokio::time::sleep(lasts).await;
    app.faults.plan(Plan::Calm);
    let run = until(&app, &run, "ends", |run| run["finishedAt"].is_string()).await;
    let path = format!("/api/runs/{}/steps/two/output", run["runId"].as_str().unwrap());
    get(&app, &path).await
}

/// While the end of one step can't be written, another is answered what can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_answered_while_a_transition_waits_for_storage() {
    let left = through_an_outage("reads", &[Call::Commit], Duration::from_secs(4)).await;
    let took = left["output"]["answered"].as_u64().unwrap();
    assert!(took < 2_000, "{left:#}");
}

/// What only reads waits for storage; what writes is told at once that it may be repeated, and is not to blame.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_asks_while_storage_is_away_is_not_to_blame() {
    let reads = [Call::Commit, Call::Get, Call::Query];
    let left = through_an_outage("reads", &reads, Duration::from_secs(2)).await;
    assert!(left["output"]["answered"].as_u64().unwrap() < 10_000, "{left:#}");
    let left = through_an_outage("writes", &reads, Duration::from_secs(2)).await;
    assert_eq!(
        (&left["status"], &left["error"]["type"]),
        (&json!("failed"), &json!("storage_unavailable")),
        "{left:#}"
    );
}

// ── attempts that outlast an invocation ────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_outlasts_its_invocation_goes_on_and_is_watched_over() {
    let app = TestApp::start().await;
    app.scripted
        .push(WORKFLOW, Scene::default().after(Duration::from_millis(1500)));
    let run = begin(&app, WORKFLOW, "").await;
    let patience = Some(Duration::from_millis(200));
    let done = deliver(&app.cx, From::Runs, &message(&app, &run), app.cx.clock.now(), patience).await;
    assert_eq!(done.unwrap(), Delivered::GoesOn);
    // Its message is gone by then, and another is under way: the host, and whoever comes after a death, hear of it.
    let again = deliver(&app.cx, From::Runs, &message(&app, &run), app.cx.clock.now(), patience).await;
    assert!(
        matches!(again, Ok(Delivered::Done(weft::usecase::drive_run::Continued::Here))),
        "{again:?}"
    );
    let run = until(&app, &run, "ends", |run| run["finishedAt"].is_string()).await;
    assert_eq!(run["status"], "succeeded", "{run:#}");
    assert_eq!(app.scripted.asked().len(), 1, "it was made once");
}
