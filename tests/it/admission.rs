//! Who may begin, and when: limits, priorities, keys, runs that begin later, and what a death in between leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft::clock::{Clock as _, ManualClock};
use weft::domain::Timestamp;
use weft::runner::scripted::Scene;
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key::Queue;
use weft::store::port::QueueName;
use weft::testing::{Answer, Builder, TestApp};
use weft::usecase::{deliver, seed};

const ORG: &str = "contoso";

/// Asks for a run that nobody waits for.
async fn ask(app: &TestApp, query: &str) -> Answer {
    ask_in(app, ORG, query, "respond-async").await
}

async fn ask_in(app: &TestApp, organization: &str, query: &str, prefer: &str) -> Answer {
    app.request("POST", &format!("/api/workflows/hello/execute{query}"))
        .key(seed::DEVELOPMENT_KEY)
        .organization(organization)
        .header("prefer", prefer)
        .json(&json!({"name": query}))
        .send()
        .await
}

async fn accepted(app: &TestApp, query: &str) -> String {
    let answer = ask(app, query).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["runId"].as_str().unwrap().to_owned()
}

async fn run(app: &TestApp, id: &str) -> Value {
    let answer = app
        .request("GET", &format!("/api/runs/{id}"))
        .key(seed::DEVELOPMENT_KEY)
        .organization(ORG)
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn cancel(app: &TestApp, id: &str) {
    let answer = app
        .request("POST", &format!("/api/runs/{id}/cancel"))
        .key(seed::DEVELOPMENT_KEY)
        .organization(ORG)
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until something holds, for as long as a busy machine may take.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ends(app: &TestApp, id: &str) -> Value {
    until(&format!("{id} ends"), async || {
        run(app, id).await["finishedAt"].is_string()
    })
    .await;
    run(app, id).await
}

/// The part of the Functions host, for as long as what is answered lives.
struct Host(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Host {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn host(apps: &[&TestApp]) -> Host {
    Host(
        apps.iter()
            .map(|app| tokio::spawn(deliver::consume(app.cx.clone())))
            .collect(),
    )
}

/// In which order the runner was asked, by the name that was given.
fn order(app: &TestApp) -> Vec<String> {
    let asked = app.scripted.asked();
    asked
        .iter()
        .map(|one| one.arguments["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_is_more_urgent_goes_first_and_a_caller_who_waits_before_others() {
    let app = Builder::default().concurrent_runs(1).start().await;
    let mut ids = Vec::new();
    for query in [
        "?priority=low",
        "",
        "?priority=high",
        "?priority=9",
        "?priority=0",
        "?priority=normal",
    ] {
        ids.push(accepted(&app, query).await);
    }
    let why = run(&app, &ids[0]).await["waitingFor"].clone();
    assert_eq!(
        (&why["reason"], &why["position"]),
        (&json!("queue"), &json!(4)),
        "{why}"
    );
    let waiting = ask_in(&app, ORG, "?priority=5", "wait=60");
    let host = host(&[&app]);
    assert_eq!(waiting.await.status, 200);
    for id in &ids {
        assert_eq!(ends(&app, id).await["status"], "succeeded");
    }
    drop(host);
    let order = order(&app);
    let expected = [
        "?priority=9",
        "?priority=high",
        "",
        "?priority=normal",
        "?priority=low",
        "?priority=0",
    ];
    let queued: Vec<&str> = order
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "?priority=5")
        .collect();
    assert_eq!(queued, expected);
}

/// A backlog begins one run every 60 ms while somebody else is called for here, and is nice.
#[tokio::test]
async fn a_backlog_holds_back_beside_a_call_of_another_organization() {
    const MANY: usize = 60;
    const CALL: Duration = Duration::from_secs(1);
    let app = Builder::default().concurrent_runs(8).start().await;
    let mut ids = Vec::new();
    for _ in 0..MANY {
        ids.push(accepted(&app, "?priority=low").await);
    }
    app.scripted.push("hello", Scene::returns(json!("called")).after(CALL));
    let mut called = Box::pin(ask_in(&app, "fabrikam", "", "wait=60"));
    tokio::select! {
        answer = &mut called => panic!("{answer:?}"),
        () = until("the call is under way", async || app.scripted.playing() == 1) => {}
    }
    let since = tokio::time::Instant::now();
    let host = host(&[&app]);
    // Of both timers of this runtime this one fires first, however busy the machine is.
    tokio::time::sleep(CALL / 2).await;
    let beside = app.scripted.asked();
    let took = since.elapsed();
    let answer = called.await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["result"], "called", "{answer:?}");
    let begun = beside.len() - 1;
    assert!(begun > 0, "it stood still");
    let most = usize::try_from(took.as_millis() / 60).unwrap() + 1;
    assert!(begun <= most && begun < MANY, "{begun} runs in {took:?}");
    assert!(beside[1..].iter().all(|one| one.is_nice) && !beside[0].is_nice);
    for id in &ids {
        assert_eq!(ends(&app, id).await["status"], "succeeded");
    }
    drop(host);
}

/// Two instances over one store never have more under way than the organization may, whoever begins them.
#[tokio::test]
async fn the_limit_of_an_organization_holds_over_all_instances() {
    let first = Builder::default().concurrent_runs(3).start().await;
    let second = first.another().await;
    for app in [&first, &second] {
        app.scripted.takes("hello", Duration::from_millis(15));
    }
    let host = host(&[&first, &second]);
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        ids.insert(accepted(&first, "").await);
        ids.insert(accepted(&second, "").await);
    }
    let waiting: Vec<_> = (0..6).map(|_| ask_in(&second, ORG, "", "wait=60")).collect();
    let most = async {
        let mut most = 0;
        loop {
            let now = first.scripted.playing() + second.scripted.playing();
            most = most.max(now);
            assert!(now <= 3, "{now} at once");
            let left = futures::future::join_all(ids.iter().map(|id| run(&first, id))).await;
            if left.iter().all(|run| run["finishedAt"].is_string()) {
                return most;
            }
        }
    };
    let (most, answers) = tokio::join!(most, futures::future::join_all(waiting));
    assert!(most > 0);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(first.scripted.asked().len() + second.scripted.asked().len(), 46);
    drop(host);
}

/// Whoever asks while the limit is reached is told so, waits as long as they want to, and gets 202 then.
#[tokio::test]
async fn a_caller_over_the_limit_waits_and_then_goes_without() {
    let app = Builder::default().concurrent_runs(1).start().await;
    app.scripted.takes("hello", Duration::from_secs(600));
    let host = host(&[&app]);
    let holder = ask_in(&app, ORG, "", "wait=0").await;
    assert_eq!(holder.status, 202);
    let second = ask_in(&app, ORG, "", "wait=1").await;
    assert_eq!(second.status, 202);
    let id = second.json()["runId"].as_str().unwrap().to_owned();
    let shown = run(&app, &id).await;
    assert_eq!(shown["status"], "pending");
    assert_eq!(shown["waitingFor"]["reason"], "organization_limit", "{shown}");
    assert_eq!(shown["waitingFor"]["position"], 0);
    // Another organization is not concerned.
    cancel(&app, holder.json()["runId"].as_str().unwrap()).await;
    until("the second begins", async || {
        run(&app, &id).await["status"] == "running"
    })
    .await;
    cancel(&app, &id).await;
    drop(host);
}

/// Somebody who asks for a run of this name and waits for it, until the task is aborted.
fn caller(app: &TestApp, name: &str) -> tokio::task::JoinHandle<Answer> {
    let request = app
        .request("POST", "/api/workflows/hello/execute")
        .key(seed::DEVELOPMENT_KEY)
        .organization(ORG)
        .header("prefer", "wait=60")
        .json(&json!({"name": name}));
    tokio::spawn(request.send())
}

/// Calls that were given up go on, but nobody who waits stands behind them.
#[tokio::test]
async fn calls_that_were_given_up_go_on_behind_one_that_waits() {
    let app = Builder::default().concurrent_runs(1).start().await;
    app.scripted
        .push("hello", Scene::returns(json!(null)).after(Duration::from_secs(600)));
    let holder = ask_in(&app, ORG, "?priority=9", "wait=0").await;
    assert_eq!(holder.status, 202, "{holder:?}");
    let host = host(&[&app]);
    let newest = async |count: usize| {
        until(&format!("{count} runs are there"), async || {
            runs(&app).await.len() == count
        })
        .await;
        runs(&app).await[0].clone()
    };
    let (mut given_up, mut callers) = (Vec::new(), Vec::new());
    for number in 0..3 {
        callers.push(caller(&app, &format!("given up {number}")));
        given_up.push(newest(2 + number).await);
    }
    let queued = accepted(&app, "").await;
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    let waits = caller(&app, "waits");
    let waited_for = newest(6).await;
    let position = async |id: &str| run(&app, id).await["waitingFor"]["position"].clone();
    until("it stands before them", async || position(&waited_for).await == 0).await;
    // Where they would stand if nobody had ever waited: by their age.
    for (place, id) in given_up.iter().chain([&queued]).enumerate() {
        assert_eq!(position(id).await, 1 + place, "{id}");
    }
    cancel(&app, holder.json()["runId"].as_str().unwrap()).await;
    let answer = waits.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    for id in given_up.iter().chain([&queued]) {
        assert_eq!(ends(&app, id).await["status"], "succeeded");
    }
    let expected = ["?priority=9", "waits", "given up 0", "given up 1", "given up 2", ""];
    assert_eq!(order(&app), expected);
    // And can be cancelled from there.
    app.scripted.takes("hello", Duration::from_secs(600));
    let holder = ask_in(&app, ORG, "", "wait=0").await;
    let older = accepted(&app, "").await;
    let given_up = caller(&app, "given up");
    let id = newest(9).await;
    assert_eq!(position(&id).await, 0, "somebody waits for it");
    given_up.abort();
    until("it has stepped back", async || position(&id).await == 1).await;
    cancel(&app, &id).await;
    assert_eq!(run(&app, &id).await["status"], "cancelled");
    let last = accepted(&app, "").await;
    assert_eq!(position(&last).await, 1, "nothing of it is left");
    for id in [&last, &older, holder.json()["runId"].as_str().unwrap()] {
        cancel(&app, id).await;
    }
    drop(host);
}

/// An idempotency key belongs to all that was asked for, not to the arguments alone.
#[tokio::test]
async fn a_key_that_comes_again_with_another_beginning_is_refused() {
    let app = TestApp::start().await;
    let ask = async |key: &str, query: &str| {
        let path = format!("/api/workflows/hello/execute{query}");
        let request = app.request("POST", &path).key(seed::DEVELOPMENT_KEY).organization(ORG);
        let request = request.header("prefer", "respond-async").header("idempotency-key", key);
        request.json(&json!({"name": "Ada"})).send().await
    };
    let plan = format!("?plan={}", "0".repeat(64));
    for (number, (first, same, other)) in [
        ("", "?delay=0", "?delay=60"),
        ("?delay=60", "?delay=6e1", "?delay=61"),
        ("?delay=60", "?delay=60.0&priority=normal", ""),
        (
            "?runAt=2031-01-01T00:00:00Z",
            "?runAt=2031-01-01T00:00:00.000Z",
            "?runAt=2031-01-01T00:00:01Z",
        ),
        // Past is past, and still what was asked for.
        (
            "?runAt=2021-01-01T00:00:00Z",
            "?runAt=2021-01-01T00:00:00Z",
            "?runAt=2021-01-01T00:00:01Z",
        ),
        ("?priority=high", "?priority=8", "?priority=9"),
        ("", "?priority=5", "?priority=low"),
        (
            "?concurrencyKey=a",
            "?concurrencyKey=a&concurrencyLimit=1&onConflict=queue",
            "?concurrencyKey=b",
        ),
        (
            "?concurrencyKey=a",
            "?concurrencyKey=a",
            "?concurrencyKey=a&concurrencyLimit=2",
        ),
        (
            "?concurrencyKey=a",
            "?concurrencyKey=a",
            "?concurrencyKey=a&onConflict=cancel_running",
        ),
        ("", "", "?securityProfile=restricted"),
        ("", "", plan.as_str()),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("key-{number}");
        let begun = ask(&key, first).await;
        assert_eq!(begun.status, 202, "{first}: {}", begun.text());
        for equal in [first, same] {
            let again = ask(&key, equal).await;
            assert_eq!(
                again.json()["runId"],
                begun.json()["runId"],
                "{first} {equal}: {}",
                again.text()
            );
        }
        let refused = ask(&key, other).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "idempotency_key_reused"),
            "{first} {other}"
        );
    }
}

#[tokio::test]
async fn what_waits_can_be_cancelled_and_frees_its_place_at_once() {
    let app = Builder::default().start().await;
    let (first, second) = (accepted(&app, "").await, accepted(&app, "").await);
    assert_eq!(run(&app, &second).await["waitingFor"]["position"], 1);
    cancel(&app, &first).await;
    assert_eq!(run(&app, &second).await["waitingFor"]["position"], 0);
    let _host = host(&[&app]);
    assert_eq!(ends(&app, &second).await["status"], "succeeded");
    assert_eq!(run(&app, &first).await["status"], "cancelled");
    assert_eq!(app.scripted.asked().len(), 1);
}

#[tokio::test]
async fn runs_with_the_same_key_go_one_after_the_other() {
    let app = Builder::default().start().await;
    app.scripted.takes("hello", Duration::from_millis(10));
    let _host = host(&[&app]);
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(accepted(&app, "?concurrencyKey=customer-42").await);
    }
    ids.push(accepted(&app, "?concurrencyKey=customer-43").await);
    let mut spans = Vec::new();
    for id in &ids {
        let run = ends(&app, id).await;
        assert_eq!(run["status"], "succeeded");
        spans.push((
            run["startedAt"].as_str().unwrap().to_owned(),
            run["finishedAt"].as_str().unwrap().to_owned(),
        ));
    }
    spans.pop();
    spans.sort();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{spans:?}");
}

/// However many ask for a key at once, who is told that nothing was started has started nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_callers_who_come_with_one_key_at_once_are_accepted() {
    let app = Builder::default().start().await;
    let calls = (0..64).map(|_| ask(&app, "?concurrencyKey=k"));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    assert_eq!(runs(&app).await.len(), 64);
}

#[tokio::test]
async fn a_run_says_who_holds_its_key_and_what_to_do_about_it_is_the_callers_choice() {
    let app = Builder::default().start().await;
    app.scripted.takes("hello", Duration::from_secs(600));
    let _host = host(&[&app]);
    let holder = accepted(&app, "?concurrencyKey=k").await;
    until("the holder begins", async || {
        run(&app, &holder).await["status"] == "running"
    })
    .await;
    let waits = accepted(&app, "?concurrencyKey=k").await;
    let why = run(&app, &waits).await["waitingFor"].clone();
    assert_eq!(why["reason"], "concurrency_key");
    assert!(why["detail"].as_str().unwrap().contains(&holder), "{why}");
    let skipped = ask(&app, "?concurrencyKey=k&onConflict=skip").await;
    assert_eq!(
        (skipped.status, skipped.code().as_str()),
        (409, "concurrency_key_taken")
    );
    let takes = accepted(&app, "?concurrencyKey=k&onConflict=cancel_running").await;
    assert_eq!(ends(&app, &holder).await["status"], "cancelled");
    // Who has waited longer is first, and is cancelled in turn.
    until("it begins", async || run(&app, &takes).await["status"] == "running").await;
    assert_eq!(ends(&app, &waits).await["status"], "cancelled");
    cancel(&app, &takes).await;
    let after = accepted(&app, "?concurrencyKey=k&onConflict=skip").await;
    until("the key is free again", async || {
        run(&app, &after).await["status"] == "running"
    })
    .await;
    cancel(&app, &after).await;
}

#[tokio::test]
async fn a_run_that_begins_later_waits_for_its_time() {
    let app = Builder::default().start().await;
    let _host = host(&[&app]);
    let begun = tokio::time::Instant::now();
    let answer = ask_in(&app, ORG, "?delay=0.5", "").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["runId"].as_str().unwrap().to_owned();
    let shown = run(&app, &id).await;
    assert_eq!(
        (&shown["status"], &shown["waitingFor"]["reason"]),
        (&json!("pending"), &json!("scheduled"))
    );
    assert_eq!(shown["waitingFor"]["until"], answer.json()["runAt"]);
    let far = accepted(&app, "?runAt=2031-01-01T00:00:00Z").await;
    let ended = ends(&app, &id).await;
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(ended["startedAt"].as_str() >= ended["runAt"].as_str(), "{ended}");
    cancel(&app, &far).await;
    assert_eq!(app.scripted.asked().len(), 1);
    for (query, prefer) in [
        ("?delay=5&runAt=2031-01-01T00:00:00Z", ""),
        ("?delay=-1", ""),
        ("?runAt=soon", ""),
        ("?priority=11", ""),
        ("?concurrencyKey=%ff", ""),
        ("?concurrencyLimit=2", ""),
        ("?delay=60", "wait=5"),
    ] {
        let refused = ask_in(&app, ORG, query, prefer).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "parameter_invalid"),
            "{query}"
        );
    }
}

/// A message that isn't done with until its run is takes a place that messages of others need.
#[tokio::test(start_paused = true)]
async fn few_runs_are_driven_by_their_own_message_and_the_others_by_one_of_their_organization() {
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-11-28T08:00:00Z").unwrap()));
    let app = Builder::default()
        .concurrent_runs(20)
        .clock(clock.clone())
        .start()
        .await;
    app.scripted.takes("hello", Duration::from_secs(600));
    for _ in 0..20 {
        accepted(&app, "?delay=1").await;
    }
    clock.advance(Duration::from_secs(1));
    let queue = Queue::Runs.name();
    let mut driven = Vec::new();
    // What is put into the backlog is told of a moment later.
    for _ in 0..3 {
        while let Some(message) = receive(&app, &queue).await {
            let (cx, now) = (app.cx.clone(), clock.now());
            driven.push(tokio::spawn(async move {
                deliver::deliver(&cx, deliver::From::Runs, &message, now, None).await
            }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        driven.len() > 20,
        "one of each run, and those of all that are in the backlog"
    );
    let under_way = driven.iter().filter(|one| !one.is_finished()).count();
    assert_eq!(under_way, 7, "six, and who serves the backlog");
    driven.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn receive(app: &TestApp, queue: &QueueName) -> Option<String> {
    let hidden = Duration::from_secs(600);
    let message = app.ports.queues.receive(queue, 1, hidden).await.unwrap().pop()?;
    app.ports.queues.delete(queue, &message.receipt).await.unwrap();
    Some(message.text)
}

#[tokio::test]
async fn a_resumed_run_keeps_its_priority_and_waits_for_its_key() {
    let app = Builder::default().start().await;
    app.scripted.push("hello", Scene::raises("ValueError", "not today"));
    let _host = host(&[&app]);
    let failed = accepted(&app, "?priority=7&concurrencyKey=deploy").await;
    assert_eq!(ends(&app, &failed).await["status"], "failed");
    app.scripted
        .push("hello", Scene::returns(json!(1)).after(Duration::from_secs(600)));
    let holder = accepted(&app, "?concurrencyKey=deploy").await;
    until("the holder begins", async || {
        run(&app, &holder).await["status"] == "running"
    })
    .await;
    let path = format!("/api/runs/{failed}/resume");
    let answer = app
        .request("POST", &path)
        .key(seed::DEVELOPMENT_KEY)
        .organization(ORG)
        .send()
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let resumed = answer.json()["runId"].as_str().unwrap().to_owned();
    let shown = run(&app, &resumed).await;
    assert_eq!(
        (
            &shown["waitingFor"]["reason"],
            &shown["priority"],
            &shown["concurrencyKey"]
        ),
        (&json!("concurrency_key"), &json!(7), &json!("deploy")),
        "{shown:#}"
    );
    cancel(&app, &holder).await;
    assert_eq!(ends(&app, &resumed).await["status"], "succeeded");
}

#[tokio::test]
async fn a_rerun_has_the_arguments_of_the_first() {
    let app = TestApp::start().await;
    let first = app.run(ORG, json!({"name": "Grace"})).await;
    for (query, status) in [("", 200), ("?revision=current", 200), ("?revision=old", 400)] {
        let path = format!("/api/runs/{}/rerun{query}", first["runId"].as_str().unwrap());
        let answer = app
            .request("POST", &path)
            .key(seed::DEVELOPMENT_KEY)
            .organization(ORG)
            .send()
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 200 {
            let again = answer.json();
            assert_eq!(
                (&again["rerunOf"], &again["arguments"]),
                (&first["runId"], &first["arguments"])
            );
            assert_ne!(again["runId"], first["runId"]);
        }
    }
    let foreign = app
        .request("POST", &format!("/api/runs/{}/rerun", first["runId"].as_str().unwrap()))
        .key(seed::DEVELOPMENT_KEY)
        .organization("fabrikam")
        .send()
        .await;
    assert_eq!((foreign.status, foreign.code().as_str()), (404, "run_not_found"));
}

/// Storage dies for an instance at each of its calls in turn, before or after the call is done; another one comes, and every
/// run that was written ends, once.
#[tokio::test(start_paused = true)]
async fn a_death_between_any_two_calls_leaves_a_run_that_begins() {
    for query in ["", "?concurrencyKey=k", "?delay=1"] {
        for fault in [Fault::Crash, Fault::CrashAfter] {
            for at in 1.. {
                let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-11-28T08:00:00Z").unwrap()));
                let app = Builder::default().clock(clock.clone()).start().await;
                let heir = app.another().await;
                app.faults.plan(Plan::Script(vec![Rule::new(fault).writes().only(at)]));
                let answer = ask(&app, query).await;
                clock.advance(Duration::from_secs(1));
                app.deliver_all().await;
                let died = app.faults.crashed();
                // Whether or not it was told of, a run that was written goes on.
                for _ in 0..60 {
                    clock.advance(Duration::from_secs(20));
                    assert!(heir.deliver_all().await);
                }
                let left = runs(&heir).await;
                assert!(
                    left.len() <= 1 && (answer.status != 202 || left.len() == 1),
                    "{query} {fault:?} {at}"
                );
                for id in &left {
                    let run = run(&heir, id).await;
                    assert_eq!(run["status"], "succeeded", "{query} {fault:?} {at}: {run}");
                }
                if !died {
                    assert!(at > 8, "{query}: there are too few calls");
                    break;
                }
            }
        }
    }
}

async fn runs(app: &TestApp) -> Vec<String> {
    let answer = app
        .request("GET", "/api/runs?limit=100")
        .key(seed::DEVELOPMENT_KEY)
        .organization(ORG)
        .send()
        .await;
    let items = answer.json()["items"].as_array().unwrap().clone();
    items
        .iter()
        .map(|item| item["runId"].as_str().unwrap().to_owned())
        .collect()
}

/// What a run of a flood costs of storage, from the request to its end.
#[tokio::test]
async fn a_queued_run_costs_eight_writes() {
    let app = TestApp::start().await;
    let count: u64 = 200;
    let begun = tokio::time::Instant::now();
    let before = app.faults.calls();
    let mut last = String::new();
    for _ in 0..count {
        last = accepted(&app, "").await;
    }
    assert!(app.deliver_all().await);
    assert_eq!(run(&app, &last).await["status"], "succeeded");
    let after = app.faults.calls();
    let made = |call: Call| after[&call] - before.get(&call).copied().unwrap_or_default();
    // Written, listed, taken, ended, listed, its records listed; once more where it takes longer than 20 ms; and the record of
    // the caller's key.
    assert!(made(Call::Commit) <= count * 8 + 20, "{after:?}");
    // Read to be taken, and its records to be listed; once more of each where it is looked at later.
    assert!(made(Call::Get) + made(Call::Query) <= count * 4, "{after:?}");
    // Its own message; one in 50 ms that says that there is work, and those for other instances.
    let shared = u64::try_from(begun.elapsed().as_millis()).unwrap() / 50 + 45;
    assert!(made(Call::Send) <= count + shared, "{after:?}");
    assert!(made(Call::Receive) <= shared, "{after:?}");
    assert!(made(Call::DeleteMessage) <= count + shared, "{after:?}");
}
