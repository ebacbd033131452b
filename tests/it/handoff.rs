//! Attempts that other instances make, with scripted runners over one embedded store; and runs that are driven in many pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weft::clock::ManualClock;
use weft::domain::{AttemptId, Outcome, RunId, StepError, Timestamp};
use weft::runner::scripted::Scene;
use weft::scheduler::Slot;
use weft::store::key::Queue;
use weft::store::port::{ETag, Key, Operation, Result, TableName, TableStore};
use weft::store::repo::runs::{Letter, Reported, Timings};
use weft::store::sqlite;
use weft::tenancy::{self, Scope};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};
use weft::usecase::deliver::{Delivered, From, consume, deliver};
use weft::usecase::drive_run::Continued;
use weft::usecase::seed::DEVELOPMENT_KEY;

use crate::tapped::{Tap, tapped};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(100_000);

/// Messages of an application are handed out, until this is dropped.
struct Draining(JoinHandle<()>);

impl Draining {
    fn of(app: &TestApp) -> Self {
        Self(tokio::spawn(consume(app.cx.clone())))
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A map over so many items, all at once, where a worker is waited for only a moment.
fn map(items: u32, more: Value) -> Builder {
    let items: Vec<_> = (0..items).collect();
    let mut each =
        json!({"id": "each", "type": "map", "use": "a", "items": items, "atOnce": 64, "inputs": {"n": {"$": "item"}}});
    each.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Builder::default()
        .function("a", &["n"])
        .graph(json!({"name": "many", "nodes": [each], "edges": []}))
        .hand_off(Duration::from_millis(20))
}

async fn send(app: &TestApp, method: &str, path: &str, prefer: Option<&str>, body: &Value) -> Answer {
    let mut request = app.request(method, path).key(DEVELOPMENT_KEY).organization("contoso");
    if let Some(prefer) = prefer {
        request = request.header("Prefer", prefer);
    }
    request.json(body).send().await
}

async fn begin(app: &TestApp, workflow: &str, prefer: &str) -> String {
    let path = format!("/api/workflows/{workflow}/execute");
    let answer = send(app, "POST", &path, Some(prefer), &json!({})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["runId"].as_str().unwrap().to_owned()
}

async fn get(app: &TestApp, path: &str) -> Value {
    let request = app.request("GET", path).key(DEVELOPMENT_KEY).organization("contoso");
    let answer = request.send().await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn ended(app: &TestApp, run: &str) -> Value {
    let open = ["pending", "running", "waiting"];
    let begun = Instant::now();
    loop {
        let now = get(app, &format!("/api/runs/{run}")).await;
        if !open.contains(&now["status"].as_str().unwrap()) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "never ended: {now:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)))
}

/// The items that a script was asked for, in order.
fn made(app: &TestApp) -> Vec<u64> {
    let item = |asked: &weft::runner::scripted::Asked| asked.arguments["n"].as_u64().unwrap();
    app.scripted.asked().iter().map(item).collect()
}

fn values(items: u64) -> Value {
    (0..items).map(|n| json!({"n": n})).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_make_the_items_of_one_map() {
    let app = map(24, json!({})).start().await;
    let other = app.another().await;
    for one in [&app, &other] {
        one.scripted.takes("a", Duration::from_millis(300));
    }
    // Whoever drives the run may take all messages about it first and send them on, and has made everything by the time that they
    // come back. So one drives, and only the other takes messages.
    let _draining = Draining::of(&other);
    let run = begin(&app, "many", "wait=0").await;
    let ended = ended(&app, &run).await;
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("succeeded"), &values(24)),
        "{ended:#}"
    );
    let (here, there) = (made(&app), made(&other));
    assert!(!here.is_empty() && !there.is_empty(), "{here:?} {there:?}");
    let mut all = [here, there].concat();
    all.sort_unstable();
    assert_eq!(all, (0..24).collect::<Vec<_>>(), "each once");
    // What is told of an attempt doesn't depend on where it was made.
    let items = get(&app, &format!("/api/runs/{run}/steps/each/items?limit=200")).await;
    for item in items["items"].as_array().unwrap() {
        let attempts = item["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{item:#}");
        assert_eq!(
            (&attempts[0]["outcome"], &attempts[0]["posture"]),
            (&json!("succeeded"), &json!(["scripted"]))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_claims_is_made_where_it_stands_in_line() {
    let app = map(9, json!({})).start().await;
    app.scripted.takes("a", Duration::from_millis(100));
    let answer = send(&app, "POST", "/api/workflows/many/execute", None, &json!({})).await;
    assert_eq!(
        (answer.status, &answer.json()["result"]),
        (200, &values(9)),
        "{answer:?}"
    );
    let mut all = made(&app);
    all.sort_unstable();
    assert_eq!(all, (0..9).collect::<Vec<_>>());
    let queue = Queue::Attempts.name();
    let asked = app.ports.queues.receive(&queue, 32, PATIENCE).await.unwrap();
    assert!(!asked.is_empty(), "others were asked");
    // Whoever is asked now finds nothing to do.
    let other = app.another().await;
    for message in asked {
        let now = Timestamp::from_millis(0);
        let done = deliver(&other.cx, From::Attempts, &message.text, now, None).await;
        assert_eq!(done.unwrap(), Delivered::Done(Continued::Over));
    }
    assert_eq!(made(&other), Vec::<u64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_had_claimed_that_died_is_made_again() {
    let clock = clock();
    let app = map(6, json!({})).clock(clock.clone()).start().await;
    let other = app.another().await;
    other.scripted.takes("a", FOR_EVER);
    app.scripted.takes("a", Duration::from_millis(300));
    // It has threads of its own, so that it can die with all that it is about to do.
    let machine = tokio::runtime::Runtime::new().unwrap();
    machine.spawn(consume(other.cx.clone()));
    let run = begin(&app, "many", "wait=0").await;
    until("claimed elsewhere", || !made(&other).is_empty()).await;
    until("made here", || other.scripted.playing() + made(&app).len() >= 6).await;
    machine.shutdown_background();
    until("dead", || other.scripted.playing() == 0).await;
    let lost = made(&other);
    clock.advance(Duration::from_secs(70));
    let ended = ended(&app, &run).await;
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("succeeded"), &values(6)),
        "{ended:#}"
    );
    let items = get(&app, &format!("/api/runs/{run}/steps/each/items")).await;
    for item in items["items"].as_array().unwrap() {
        let outcomes: Vec<_> = item["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["outcome"])
            .collect();
        if lost.contains(&item["item"].as_u64().unwrap()) {
            assert_eq!(outcomes, ["failed", "succeeded"], "{item:#}");
            assert_eq!(item["attempts"][0]["error"]["type"], "crashed");
        } else {
            assert_eq!(outcomes, ["succeeded"], "{item:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_ends_what_another_instance_makes() {
    let app = map(12, json!({})).start().await;
    let other = app.another().await;
    for one in [&app, &other] {
        one.scripted.takes("a", FOR_EVER);
    }
    let _draining = [Draining::of(&app), Draining::of(&other)];
    let listening = tokio::spawn(weft::usecase::signal::listen(Arc::downgrade(&other.cx)));
    let run = begin(&app, "many", "respond-async").await;
    until("both", || app.scripted.playing() > 0 && other.scripted.playing() > 0).await;
    let answer = send(&app, "POST", &format!("/api/runs/{run}/cancel"), None, &json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let begun = Instant::now();
    until("ended", || app.scripted.playing() + other.scripted.playing() == 0).await;
    // By its claim's renewal it would take a quarter of a minute.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(get(&app, &format!("/api/runs/{run}")).await["status"], "cancelled");
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_step_ends_what_another_instance_makes_of_it() {
    let clock = clock();
    let app = map(12, json!({"timeoutSeconds": 20, "onFailure": "continue"}))
        .clock(clock.clone())
        .start()
        .await;
    let other = app.another().await;
    for one in [&app, &other] {
        one.scripted.takes("a", FOR_EVER);
    }
    // By this clock a message that is sent on would never come.
    let _draining = Draining::of(&other);
    let listening = tokio::spawn(weft::usecase::signal::listen(Arc::downgrade(&other.cx)));
    let run = begin(&app, "many", "wait=0").await;
    until("both", || app.scripted.playing() > 0 && other.scripted.playing() > 0).await;
    clock.advance(Duration::from_secs(20));
    let begun = Instant::now();
    until("ended", || app.scripted.playing() + other.scripted.playing() == 0).await;
    // By its claim's renewal it would take a quarter of a minute.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ended(&app, &run).await["steps"][0]["status"], "timed_out");
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_stops_gives_its_attempts_back() {
    let app = map(6, json!({})).start().await;
    let other = app.another().await;
    other.scripted.takes("a", FOR_EVER);
    app.scripted.takes("a", Duration::from_millis(300));
    let draining = Draining::of(&other);
    let run = begin(&app, "many", "wait=0").await;
    until("claimed elsewhere", || other.scripted.playing() > 0).await;
    drop(draining);
    other.cx.leave().await;
    assert_eq!(other.scripted.playing(), 0);
    let ended = ended(&app, &run).await;
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("succeeded"), &values(6)),
        "{ended:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain_is_driven_in_many_pieces() {
    let ids: Vec<_> = (0..60).map(|n| format!("s{n}")).collect();
    let node = |(n, id): (usize, &String)| match n {
        0 => json!({"id": id, "type": "python", "use": "a", "inputs": {"n": 0}}),
        n => {
            json!({"id": id, "type": "python", "use": "a", "inputs": {"n": {"$": format!("steps.s{}.output.n + 1", n - 1)}}})
        }
    };
    let nodes: Vec<_> = ids.iter().enumerate().map(node).collect();
    let edges: Vec<_> = ids
        .windows(2)
        .map(|pair| json!({"from": pair[0], "to": pair[1]}))
        .collect();
    let app = Builder::default()
        .function("a", &["n"])
        .graph(json!({"name": "chain", "nodes": nodes, "edges": edges}))
        .driver(Duration::from_millis(50))
        .start()
        .await;
    app.scripted.takes("a", Duration::from_millis(5));
    let _draining = Draining::of(&app);
    // Who waits is answered when the run has ended, whoever drives it then.
    let answer = send(&app, "POST", "/api/workflows/chain/execute", None, &json!({})).await;
    let answer = (answer.status, answer.json());
    assert_eq!(
        (answer.0, &answer.1["result"]),
        (200, &json!({"n": 59})),
        "{:#}",
        get(
            &app,
            &format!("/api/runs/{}/events?logs=false", answer.1["runId"].as_str().unwrap())
        )
        .await
    );
    assert_eq!(made(&app), (0..60).collect::<Vec<_>>(), "each once, in order");
    let events = get(
        &app,
        &format!("/api/runs/{}/events?logs=false", answer.1["runId"].as_str().unwrap()),
    )
    .await;
    let taken = |event: &&Value| event["type"] == "run.taken_over";
    assert!(
        events["items"].as_array().unwrap().iter().filter(taken).count() >= 3,
        "{events:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_line_outlasts_its_driver() {
    let app = map(12, json!({})).driver(Duration::from_millis(150)).start().await;
    app.scripted.takes("a", Duration::from_millis(100));
    let _draining = Draining::of(&app);
    let run = begin(&app, "many", "respond-async").await;
    let ended = ended(&app, &run).await;
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("succeeded"), &values(12)),
        "{ended:#}"
    );
    let mut all = made(&app);
    all.sort_unstable();
    assert_eq!(all, (0..12).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_nobody_asked_to_end_is_made_again() {
    let app = map(1, json!({"retry": {"attempts": 1}})).start().await;
    app.scripted.push("a", Scene::ends(Outcome::Cancelled));
    let answer = send(&app, "POST", "/api/workflows/many/execute", None, &json!({})).await;
    assert_eq!(
        (answer.status, &answer.json()["result"]),
        (200, &values(1)),
        "{answer:?}"
    );
    assert_eq!(made(&app), [0, 0]);
}

/// A run with at least so many attempts that other instances were asked to make, their messages, and where its rows are.
async fn handed_over(app: &TestApp, least: usize) -> (Scope, RunId, Vec<(Slot, AttemptId)>, Vec<String>) {
    app.scripted.takes("a", FOR_EVER);
    let run: RunId = begin(app, "many", "wait=0").await.parse().unwrap();
    let scope = tenancy::operator_in(&tenancy::system("test"), &"contoso".parse().unwrap());
    let begun = Instant::now();
    // What is handed over may be so in two transitions.
    let mut messages = Vec::new();
    loop {
        let stored = app.cx.runs.get(&scope, &run).await.unwrap().unwrap();
        let handed: Vec<_> = stored
            .state
            .handed()
            .map(|(slot, attempt)| (slot, attempt.clone()))
            .collect();
        if handed.len() >= least {
            let queue = Queue::Attempts.name();
            let received = app.ports.queues.receive(&queue, 32, PATIENCE).await.unwrap();
            messages.extend(received.into_iter().map(|one| one.text));
            if messages.len() >= handed.len() {
                return (scope, run, handed, messages);
            }
        }
        assert!(begun.elapsed() < PATIENCE, "nothing was handed over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ends(slot: Slot, attempt: &AttemptId, now: Timestamp, outcome: Outcome) -> Letter {
    let record = json!({
        "step": "each", "item": slot.1, "id": attempt, "number": 1, "startedAt": now, "finishedAt": now,
        "outcome": "succeeded", "outputBytes": 0, "outputTruncated": false, "posture": [],
    });
    Letter::AttemptEnded {
        reported: Box::new(Reported {
            slot,
            record: serde_json::from_value(record).unwrap(),
            outcome,
            output: None,
            variables: None,
            timings: Timings::default(),
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_a_claim_can_not_report() {
    let app = map(6, json!({})).start().await;
    let (scope, run, handed, _) = handed_over(&app, 2).await;
    let (slot, attempt) = &handed[0];
    let (runs, now) = (&app.cx.runs, app.cx.clock.now());
    let until = now.plus(PATIENCE);
    let claim = runs
        .claim(&scope, &run, attempt, "SLOW", until, false)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        runs.claim(&scope, &run, attempt, "OTHER", until, true).await.unwrap(),
        None
    );
    assert_eq!(
        runs.claim(&scope, &run, attempt, "SLOW", until, false).await.unwrap(),
        None
    );
    let again = runs.claim(&scope, &run, attempt, "SLOW", until, true).await.unwrap();
    assert_eq!(again.as_ref(), Some(&claim), "its own is found after a failure");
    let letter = ends(*slot, attempt, now, Outcome::Succeeded { value: Value::Null });
    runs.break_claim(&scope, &run, claim.clone()).await.unwrap();
    assert!(
        !runs.report(&scope, &run, &claim, &letter).await.unwrap(),
        "it was taken"
    );
    assert_eq!(runs.inbox(&scope, &run).await.unwrap(), []);
    let (_, attempt) = &handed[1];
    let claim = runs
        .claim(&scope, &run, attempt, "QUICK", until, false)
        .await
        .unwrap()
        .unwrap();
    runs.renew_claim(&scope, &run, claim.clone(), until).await.unwrap();
    for _ in 0..2 {
        // A renewal whose answer was lost doesn't keep it from being said, and it is said once.
        assert!(runs.report(&scope, &run, &claim, &letter).await.unwrap());
    }
}

/// Storage that counts how often a claim was taken away before its run was changed.
#[derive(Debug, Default)]
struct Watched {
    /// From when on it is counted.
    looks: AtomicBool,
    before: AtomicUsize,
}

#[async_trait]
impl Tap for Watched {
    async fn commit(
        &self,
        store: &dyn TableStore,
        table: &TableName,
        partition: &Key,
        operations: Vec<Operation>,
    ) -> Result<Vec<ETag>> {
        let is_claim =
            |one: &Operation| matches!(one, Operation::Delete(row, _) if row.as_str().starts_with("attempt:"));
        let moves = operations.iter().any(|one| matches!(one, Operation::Merge(..)));
        if moves {
            self.looks.store(false, Ordering::SeqCst);
        } else if self.looks.load(Ordering::SeqCst) && operations.iter().any(is_claim) {
            self.before.fetch_add(1, Ordering::SeqCst);
        }
        store.commit(table, partition, operations).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_stays_until_it_is_committed_that_nobody_wants_its_attempt() {
    let storage = sqlite::open(None, clock()).unwrap();
    let watched = Arc::new(Watched::default());
    let app = map(12, json!({})).storage(tapped(&storage, &watched)).start().await;
    let (scope, run, handed, _) = handed_over(&app, 2).await;
    let (runs, now) = (&app.cx.runs, app.cx.clock.now());
    let failed = || Outcome::Failed {
        error: StepError::new("Broken", "no"),
    };
    // The first that is read ends the map, and with it the others, whose ends are in the inbox as well.
    let mut claims = Vec::new();
    for (slot, attempt) in &handed {
        let until = now.plus(PATIENCE);
        let claim = runs.claim(&scope, &run, attempt, "OTHER", until, false).await;
        claims.push((slot, attempt, claim.unwrap().unwrap()));
    }
    watched.looks.store(true, Ordering::SeqCst);
    for (slot, attempt, claim) in &claims {
        let letter = ends(**slot, attempt, now, failed());
        assert!(runs.report(&scope, &run, claim, &letter).await.unwrap());
    }
    assert_eq!(ended(&app, run.as_str()).await["status"], "failed");
    assert_eq!(watched.before.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_failed_too_often_is_a_fact_only_when_its_attempt_is_lost() {
    let clock = clock();
    let app = map(6, json!({})).clock(clock.clone()).start().await;
    let (scope, run, handed, messages) = handed_over(&app, 1).await;
    // Somebody has every one of them, and some seconds left.
    let until = app.cx.clock.now().plus(Duration::from_secs(20));
    for (_, attempt) in &handed {
        let claim = app
            .cx
            .runs
            .claim(&scope, &run, attempt, "GONE", until, false)
            .await
            .unwrap();
        assert!(claim.is_some());
    }
    let over = Delivered::Done(Continued::Over);
    let other = app.another().await;
    for (from, text) in messages
        .iter()
        .flat_map(|text| [(From::Attempts, text), (From::AttemptsPoison, text)])
    {
        let done = deliver(&other.cx, from, text, app.cx.clock.now(), None).await;
        assert_eq!(done.unwrap(), over, "{from:?}");
    }
    assert_eq!(get(&app, "/api/quarantine").await["items"], json!([]));
    clock.advance(Duration::from_secs(26));
    let done = deliver(&other.cx, From::AttemptsPoison, &messages[0], app.cx.clock.now(), None)
        .await
        .unwrap();
    if done != over {
        let listed = get(&app, "/api/quarantine").await;
        assert_eq!(listed["items"][0]["runId"], json!(run), "{listed:#}");
    }
    // The driver finds them lost as well, and has them made again.
    until_async(|| async {
        let stored = app.cx.runs.get(&scope, &run).await.unwrap().unwrap();
        !stored
            .state
            .handed()
            .any(|one| handed.iter().any(|(slot, attempt)| (*slot, attempt) == one))
    })
    .await;
}

async fn until_async<F: Future<Output = bool>>(is: impl Fn() -> F) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "never");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
