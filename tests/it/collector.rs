//! Blobs that nothing refers to any more go, and no other ever does, whatever is written at the same time and whoever dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weft::audit::Event;
use weft::clock::{Clock, ManualClock};
use weft::domain::{ArtifactId, AttemptId, OrgId, RunId, Timestamp, sha256_hex};
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key;
use weft::store::port::Put;
use weft::store::repo::artifacts::Artifact;
use weft::store::repo::collector::Phase;
use weft::store::repo::runs::RunQuery;
use weft::tenancy::{Scope, operator, operator_in};
use weft::testing::TestApp;
use weft::testing::app::Builder;
use weft::testing::sim::memory::{Defect, Memory};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::tick::{self, Ticked};

const DAY: Duration = Duration::from_secs(86_400);

fn contoso() -> Scope {
    let org: OrgId = "contoso".parse().unwrap();
    operator_in(&operator(), &org)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)))
}

/// An argument that is kept as a blob.
fn large(letter: &str) -> Value {
    json!({"name": letter.repeat(50_000)})
}

async fn run(app: &TestApp, arguments: Value) -> RunId {
    let answer = app.run("contoso", arguments).await;
    answer["runId"].as_str().unwrap().parse().unwrap()
}

async fn artifact(app: &TestApp, run: &RunId, bytes: &'static [u8]) {
    let sha256 = sha256_hex(bytes);
    let artifact = Artifact {
        id: ArtifactId::of(run, "kept", &sha256),
        name: "kept".into(),
        size: bytes.len() as u64,
        sha256,
        media_type: None,
        step: "main".into(),
        attempt: AttemptId::generate(app.cx.clock.now(), [7; 10]),
        created_at: app.cx.clock.now(),
    };
    let (scope, bytes) = (contoso(), Bytes::from_static(bytes));
    let room = super::artifact_quota::room_for(&app.cx.usage, &scope, bytes.len() as u64).await;
    app.cx
        .artifacts
        .put(&scope, run, &artifact, (bytes, room))
        .await
        .unwrap();
}

/// The blobs of values and artifacts.
async fn blobs(app: &TestApp) -> BTreeSet<String> {
    let container = key::org_container(contoso().org());
    let mut found = BTreeSet::new();
    for prefix in ["value/", "artifact/"] {
        let page = app.ports.blobs.list(&container, prefix, None).await.unwrap();
        assert!(page.next.is_none());
        found.extend(page.blobs.iter().map(|blob| blob.path.to_string()));
    }
    found
}

async fn tick(app: &TestApp) -> Ticked {
    tick::tick(&app.cx).await.unwrap()
}

/// Ticks until a pass has come to its end; what the ticks did together.
async fn pass(app: &TestApp) -> (u64, u64) {
    let (mut blobs, mut bytes) = (0, 0);
    for _ in 0..100 {
        let ticked = tick(app).await;
        blobs += ticked.freed_blobs;
        bytes += ticked.freed_bytes;
        let (progress, _) = app.cx.collector.progress(&contoso()).await.unwrap().unwrap();
        if progress.phase == Phase::Idle {
            return (blobs, bytes);
        }
    }
    panic!("a pass comes to its end")
}

/// What runs refer to and can't be read.
async fn lost(app: &TestApp) -> Vec<String> {
    let (cx, scope) = (&app.cx, contoso());
    let query = RunQuery {
        limit: 500,
        ..RunQuery::default()
    };
    let mut lost = Vec::new();
    for listed in cx.runs.list(&scope, &query).await.unwrap().0 {
        // Some are being deleted.
        let Some(run) = cx.runs.get(&scope, &listed.run).await.unwrap() else {
            continue;
        };
        for value in [&run.new.arguments, &run.result, &run.variables] {
            if let Err(error) = cx.runs.resolve(&scope, value).await {
                lost.push(format!("{}: {error}", listed.run));
            }
        }
        for artifact in cx.artifacts.list(&scope, &listed.run).await.unwrap() {
            if let Err(error) = cx.artifacts.read(&scope, &artifact, 0, artifact.size).await {
                lost.push(format!("{}: {error}", listed.run));
            }
        }
    }
    lost
}

/// What the sum is off by, whatever the reason, is mended by the next pass.
#[tokio::test]
async fn each_pass_counts_what_there_is() {
    let clock = clock();
    let app = Builder::default().clock(clock.clone()).start().await;
    let used = async || app.cx.usage.get(&contoso()).await.unwrap();
    let old = run(&app, large("a")).await;
    artifact(&app, &old, b"only the old one's").await;
    artifact(&app, &old, b"only the old one's").await;
    let mut usage = used().await;
    assert_eq!(
        (usage.artifact_bytes, usage.artifacts_counted_at, usage.values),
        (18, None, None)
    );
    tick(&app).await;
    clock.advance(60 * DAY);
    // Somebody has written this, and died before it was counted.
    let stray = key::artifact_blob(&"0".repeat(64));
    let container = key::org_container(contoso().org());
    let bytes = Bytes::from_static(b"stray");
    app.ports
        .blobs
        .put(&container, &stray, bytes, Put::Create)
        .await
        .unwrap();
    let began = clock.now();
    pass(&app).await;
    usage = used().await;
    assert_eq!((usage.artifact_bytes, usage.artifacts_counted_at), (23, Some(began)));
    let value = large("a").to_string().len() as u64;
    assert_eq!(usage.values, Some((value, began)));
    clock.advance(3 * DAY);
    assert_eq!(pass(&app).await, (1, 5));
    assert_eq!(used().await.artifact_bytes, 18);
    clock.advance(31 * DAY);
    assert_eq!(tick(&app).await.deleted_runs, 1);
    pass(&app).await;
    usage = used().await;
    assert_eq!((usage.artifact_bytes, usage.values.unwrap().0), (0, 0));
}

#[tokio::test]
async fn what_deleted_runs_have_left_goes_and_what_others_share_stays() {
    let clock = clock();
    let app = Builder::default().clock(clock.clone()).start().await;
    let old = run(&app, large("a")).await;
    run(&app, large("b")).await;
    artifact(&app, &old, b"only the old one's").await;
    artifact(&app, &old, b"shared").await;
    let container = key::org_container(contoso().org());
    let stray = key::value_blob(&"0".repeat(64));
    let put = app
        .ports
        .blobs
        .put(&container, &stray, Bytes::from_static(b"stray"), Put::Create);
    put.await.unwrap();
    assert_eq!(tick(&app).await.freed_blobs, 0);
    clock.advance(60 * DAY);
    let younger = run(&app, large("b")).await;
    artifact(&app, &younger, b"shared").await;
    // Nothing but the stray one has lost its rows.
    assert_eq!(pass(&app).await, (1, 5));
    let before = blobs(&app).await;
    assert!(!before.contains(stray.as_str()));
    assert_eq!(before.len(), 4, "{before:?}");

    clock.advance(31 * DAY);
    assert_eq!(tick(&app).await.deleted_runs, 2);
    pass(&app).await;
    let after = blobs(&app).await;
    let a = sha256_hex(large("a").to_string().as_bytes());
    let b = sha256_hex(large("b").to_string().as_bytes());
    let expected = [format!("value/{b}"), format!("artifact/{}", sha256_hex(b"shared"))];
    assert_eq!(after, BTreeSet::from(expected), "without value/{a}");
    assert_eq!(lost(&app).await, [""; 0]);

    let query = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    let page = app.cx.audit.list(&contoso(), query).await.unwrap();
    let records = page.items.into_iter();
    let records = records.filter(|entry| entry.plain.event == Event::BlobsCollected.as_str());
    let told: Vec<_> = records.filter_map(|entry| entry.plain.detail).collect();
    let count: u64 = told.iter().map(|detail| detail["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 3, "{told:?}");
    let status = app
        .request("GET", "/api/status")
        .key(DEVELOPMENT_KEY)
        .send()
        .await
        .json();
    assert_eq!(status["collectedBlobs"]["count"], 3, "{status}");
    assert_eq!(status["collectedBlobs"]["graceHours"], 24);
}

#[tokio::test]
async fn everything_that_refers_to_a_value_keeps_it() {
    let clock = clock();
    let app = Builder::default().clock(clock.clone()).start().await;
    let (cx, scope) = (&app.cx, contoso());
    tick(&app).await;
    let id = run(&app, large("a")).await;
    let keep = async |text: &str| cx.runs.keep(&scope, json!(text.repeat(40_000))).await.unwrap();
    // A result for later runs.
    let kept = keep("result").await;
    cx.results
        .put(&scope, &"1".repeat(64), &kept, &id, 300 * DAY)
        .await
        .unwrap();
    // Letters, of which one is a blob with references in it, and one is a row with a reference in it.
    for (cause, message) in [("short", "m".to_owned()), ("long", "m".repeat(50_000))] {
        let mut letter = reported(&app);
        letter["reported"]["output"] = json!(keep(cause).await);
        letter["reported"]["variables"] = json!(keep(&format!("{cause} variables")).await);
        letter["reported"]["outcome"]["error"]["message"] = json!(message);
        let letter = serde_json::from_value(letter).unwrap();
        cx.runs.tell(&scope, &id, cause, &letter).await.unwrap();
    }
    let expected = blobs(&app).await;
    // The run's, the result's, the long letter's, and those in the letters.
    assert_eq!(expected.len(), 1 + 1 + 1 + 4);
    clock.advance(10 * DAY);
    assert_eq!(pass(&app).await, (0, 0));
    clock.advance(10 * DAY);
    assert_eq!(pass(&app).await, (0, 0));
    assert_eq!(blobs(&app).await, expected);
}

/// A letter about an attempt, as it is kept.
fn reported(app: &TestApp) -> Value {
    let now = app.cx.clock.now();
    json!({"kind": "attempt_ended", "reported": {
        "slot": [0, null],
        "record": {
            "step": "main", "id": AttemptId::generate(now, [7; 10]), "number": 1, "startedAt": now, "finishedAt": now,
            "outcome": "failed", "outputBytes": 0, "outputTruncated": false, "posture": [],
        },
        "outcome": {"outcome": "failed", "error": {"type": "e", "message": "m"}},
        "timings": {},
    }})
}

#[tokio::test]
async fn a_tick_does_no_more_than_its_share_and_the_next_goes_on() {
    const STRAY: usize = 700;
    let clock = clock();
    let app = Builder::default().clock(clock.clone()).start().await;
    tick(&app).await;
    let container = key::org_container(contoso().org());
    for number in 0..STRAY {
        let path = key::artifact_blob(&sha256_hex(&number.to_le_bytes()));
        let put = app
            .ports
            .blobs
            .put(&container, &path, Bytes::from_static(b"12"), Put::Create);
        put.await.unwrap();
    }
    let young = key::artifact_blob(&"f".repeat(64));
    clock.advance(2 * DAY);
    let put = app
        .ports
        .blobs
        .put(&container, &young, Bytes::from_static(b"12"), Put::Create);
    put.await.unwrap();
    let mut freed = Vec::new();
    for _ in 0..4 {
        app.faults.reset();
        freed.push(tick(&app).await.freed_blobs);
        assert!(app.faults.total() < 400, "{:?}", app.faults.calls());
    }
    assert_eq!(freed.iter().sum::<u64>(), STRAY as u64, "{freed:?}");
    assert!(freed[..2].iter().all(|freed| (200..300).contains(freed)), "{freed:?}");
    assert_eq!(blobs(&app).await, BTreeSet::from([young.to_string()]), "too young");
    let (progress, _) = app.cx.collector.progress(&contoso()).await.unwrap().unwrap();
    assert_eq!(
        (
            progress.phase,
            progress.counts.freed,
            progress.counts.freed_bytes,
            progress.counts.kept
        ),
        (Phase::Idle, STRAY as u64, 2 * STRAY as u64, 1)
    );
    // Nothing is due for a day, and finding that costs nothing.
    app.faults.reset();
    tick(&app).await;
    assert_eq!(app.faults.count(Call::ListBlobs), 0);
    clock.advance(2 * DAY);
    assert_eq!(tick(&app).await.freed_blobs, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_is_interrupted_anywhere_is_gone_on_with() {
    let mut number = 1;
    loop {
        let clock = clock();
        let app = Builder::default().clock(clock.clone()).start().await;
        let old = run(&app, large("a")).await;
        artifact(&app, &old, b"old").await;
        tick(&app).await;
        clock.advance(91 * DAY);
        let young = run(&app, large("b")).await;
        artifact(&app, &young, b"young").await;
        tick(&app).await;
        clock.advance(2 * DAY);
        // Dead in the middle of a tick: what it holds is free when its lease is over.
        let dying = app.another().await;
        dying
            .faults
            .plan(Plan::Script(vec![Rule::new(Fault::Die).range(number, number)]));
        let ticked = tokio::time::timeout(Duration::from_secs(2), tick::tick(&dying.cx));
        let is_over = ticked.await.is_ok();
        clock.advance(Duration::from_secs(121));
        pass(&app).await;
        assert_eq!(blobs(&app).await.len(), 2, "killed at call {number}");
        assert_eq!(lost(&app).await, [""; 0], "killed at call {number}");
        if is_over {
            break;
        }
        number += 2;
    }
    assert!(number > 20, "a tick makes more calls than {number}");
}

/// What may happen at the same time, each on an instance of its own whose calls of storage take their time. What is lost.
async fn race(seed: u64, defect: Option<Defect>) -> Vec<String> {
    let clock = clock();
    let memory = Memory::with(clock.clone() as Arc<dyn Clock>, 3, defect);
    let app = Builder::default()
        .clock(clock.clone())
        .storage(memory.ports())
        .start()
        .await;
    tick(&app).await;
    let old = run(&app, large("a")).await;
    artifact(&app, &old, b"shared").await;
    clock.advance(60 * DAY);
    let younger = run(&app, large("b")).await;
    clock.advance(31 * DAY);
    let kept = app.cx.runs.get(&contoso(), &old).await.unwrap().unwrap().result;
    let (scope, digest) = (contoso(), "1".repeat(64));
    app.cx.results.put(&scope, &digest, &kept, &old, DAY).await.unwrap();

    let mut instances = Vec::new();
    for number in 0..6_u64 {
        let instance = app.another().await;
        let mut state = seed.wrapping_mul(31).wrapping_add(number);
        let dies = number == 0 && seed.is_multiple_of(3);
        instance.faults.plan(Plan::Custom(Box::new(move |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let chance = state >> 33;
            if dies && chance.is_multiple_of(40) {
                return Some(Fault::Die);
            }
            Some(Fault::Delay(Duration::from_millis(chance % 50)))
        })));
        instances.push(instance);
    }
    let ticks = async |instance: &TestApp| {
        for _ in 0..3 {
            drop(tick::tick(&instance.cx).await);
        }
    };
    let again = async |instance: &TestApp| {
        let path = format!("/api/runs/{old}/rerun");
        let request = instance
            .request("POST", &path)
            .key(DEVELOPMENT_KEY)
            .organization("contoso");
        // It may be deleted at that moment.
        drop(request.json(&json!({"revision": "pinned"})).send().await);
    };
    let (first, second) = (&instances[0], &instances[1]);
    let later = |by: u64| tokio::time::sleep(Duration::from_millis((seed * 97 + 1) * by * 13 % 9_000));
    let patient = Duration::from_secs(60);
    let (_, (), (), (), (), ()) = tokio::join!(
        tokio::time::timeout(patient, ticks(first)),
        async {
            tokio::time::timeout(patient, ticks(second)).await.unwrap();
        },
        async {
            later(1).await;
            run(&instances[2], large("a")).await;
        },
        async {
            later(3).await;
            again(&instances[3]).await;
        },
        async {
            later(5).await;
            artifact(&instances[4], &younger, b"shared").await;
        },
        async {
            // As a step does whose result is taken from an earlier run.
            later(2).await;
            let cx = &instances[5].cx;
            let Some(kept) = cx.results.get(&contoso(), &"1".repeat(64)).await.unwrap() else {
                return;
            };
            if cx.runs.rely(&contoso(), &kept.output).await.is_ok() {
                let value = cx.runs.resolve(&contoso(), &kept.output).await.unwrap();
                run(&instances[5], value).await;
            }
        },
    );
    let found = lost(&app).await;
    if found.is_empty() && defect.is_none() {
        // All that is left over goes in the end, and nothing else.
        clock.advance(2 * DAY);
        pass(&app).await;
        assert_eq!(lost(&app).await, [""; 0], "seed {seed}, in the end");
        let left = blobs(&app).await.len();
        assert_eq!(left, 3, "seed {seed}: both values and the artifact");
    }
    found
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_that_is_written_while_blobs_are_deleted() {
    for seed in 0..60 {
        assert_eq!(Box::pin(race(seed, None)).await, [""; 0], "seed {seed}");
    }
}

/// The races are real: without the touch that keeps what is relied upon, some of them are lost.
#[tokio::test(start_paused = true)]
async fn without_a_touch_something_is_lost() {
    for seed in 0..300 {
        if !Box::pin(race(seed, Some(Defect::IgnoresTouches))).await.is_empty() {
            return;
        }
    }
    panic!("none of 300 races loses anything")
}
