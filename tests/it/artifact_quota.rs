//! The quota of an organization's artifacts: what instances promise together, what counts and what doesn't, and who may change it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};
use weft::clock::{Clock, Entropy, ManualClock};
use weft::domain::{ArtifactId, AttemptId, OrgId, RunId, Timestamp, sha256_hex};
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key;
use weft::store::port::Ports;
use weft::store::repo::artifacts::{Artifact, Artifacts, Quotas, Written};
use weft::store::repo::usage::{Room, Taken, Usage};
use weft::tenancy::{Scope, operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};

const PLENTY: u64 = 1 << 40;

/// Room for so many bytes where there is plenty.
pub(crate) async fn room_for(usage: &Usage, scope: &Scope, size: u64) -> Room {
    match usage.take(scope, size, PLENTY).await.unwrap() {
        Taken::Room(room) => room,
        Taken::Full { used } => panic!("{used} bytes are used"),
    }
}

fn contoso() -> Scope {
    operator_in(&operator(), &"contoso".parse::<OrgId>().unwrap())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)))
}

fn instance(ports: &Ports, clock: &Arc<ManualClock>, name: &str) -> Arc<Usage> {
    Arc::new(Usage::new(ports.clone(), clock.clone(), name.to_owned()))
}

async fn used(usage: &Usage, scope: &Scope) -> u64 {
    usage.get(scope).await.unwrap().artifact_bytes
}

async fn write(usage: &Arc<Usage>, ports: &Ports, scope: &Scope, bytes: Vec<u8>) -> Written {
    let artifacts = Artifacts::new(ports.clone(), usage.clone(), Quotas::default());
    let now = Timestamp::from_millis(1_795_219_200_000);
    let run = RunId::generate(now, Entropy::System.bytes());
    let sha256 = sha256_hex(&bytes);
    let artifact = Artifact {
        id: ArtifactId::of(&run, "a", &sha256),
        name: "a".into(),
        size: bytes.len() as u64,
        sha256,
        media_type: None,
        step: "main".into(),
        attempt: AttemptId::generate(now, [7; 10]),
        created_at: now,
    };
    let room = room_for(usage, scope, artifact.size).await;
    artifacts
        .put(scope, &run, &artifact, (Bytes::from(bytes), room))
        .await
        .unwrap()
}

// ── over both stores ───────────────────────────────────────────────────────────────────────────────────────────────────

/// Many who take at once through two instances: together they get what there is, and no more.
async fn no_more_is_promised_than_there_is(ports: &Ports, scope: &Scope) {
    const QUOTA: u64 = 10_000;
    const SIZE: u64 = 700;
    let clock = clock();
    let (a, b) = (instance(ports, &clock, "a"), instance(ports, &clock, "b"));
    let takers = (0..60).map(|number| {
        let usage = if number % 2 == 0 { a.clone() } else { b.clone() };
        async move { usage.take(scope, SIZE, QUOTA).await.unwrap() }
    });
    let taken = join_all(takers).await;
    let rooms: Vec<_> = taken
        .into_iter()
        .filter_map(|taken| match taken {
            Taken::Room(room) => Some(room),
            Taken::Full { used } => {
                assert!(used <= QUOTA, "{used} of {QUOTA} are promised");
                None
            }
        })
        .collect();
    assert_eq!(
        rooms.len() as u64,
        QUOTA / SIZE,
        "all of it is given, and nothing twice"
    );
    assert!(matches!(a.take(scope, SIZE, QUOTA).await.unwrap(), Taken::Full { .. }));
    // Where there is a larger quota, there is room again.
    assert!(matches!(b.take(scope, SIZE, 2 * QUOTA).await.unwrap(), Taken::Room(_)));

    // What came to nothing is free, but for what the other instance has taken; that one gives it back when it stops.
    drop(rooms);
    let most = QUOTA - SIZE;
    assert!(matches!(a.take(scope, most, QUOTA).await.unwrap(), Taken::Full { .. }));
    b.leave().await;
    let Taken::Room(room) = a.take(scope, most, QUOTA).await.unwrap() else {
        panic!("there is room");
    };
    // One that is killed gives nothing back, and holds it for an hour.
    std::mem::forget(room);
    drop(a);
    let c = instance(ports, &clock, "c");
    assert!(matches!(c.take(scope, most, QUOTA).await.unwrap(), Taken::Full { .. }));
    clock.advance(Duration::from_secs(3_600));
    assert!(matches!(c.take(scope, most, QUOTA).await.unwrap(), Taken::Room(_)));
}

/// What is stored counts once, whoever stores it, and whatever instance is asked.
async fn the_same_bytes_count_once(ports: &Ports, scope: &Scope) {
    let clock = clock();
    let (a, b) = (instance(ports, &clock, "d"), instance(ports, &clock, "e"));
    for (usage, byte, size, expected) in [
        (&a, 1, 1_000, 1_000),
        (&a, 1, 1_000, 1_000),
        (&b, 1, 1_000, 0),
        (&b, 2, 500, 500),
    ] {
        assert_eq!(write(usage, ports, scope, vec![byte; size]).await, Written::Done);
        assert_eq!(used(usage, scope).await, expected, "{size} times {byte}");
    }
    for usage in [&a, &b] {
        usage.leave().await;
    }
    assert_eq!((used(&a, scope).await, used(&b, scope).await), (1_500, 1_500));
    assert_eq!((a.counts(), b.counts()), ((1_000, 0), (500, 0)));

    // Counted anew, with what comes meanwhile.
    a.begin_count(scope).await.unwrap();
    write(&b, ports, scope, vec![3; 70]).await;
    b.leave().await;
    a.artifacts_counted(scope, 1_400).await.unwrap();
    a.values_counted(scope, 9).await.unwrap();
    let counted = b.get(scope).await.unwrap();
    assert_eq!(
        (counted.artifact_bytes, counted.artifacts_counted_at),
        (1_470, Some(clock.now()))
    );
    assert_eq!(counted.values, Some((9, clock.now())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_in_the_embedded_store() {
    let app = TestApp::start().await;
    no_more_is_promised_than_there_is(&app.ports, &contoso()).await;
    let fabrikam = operator_in(&operator(), &"fabrikam".parse::<OrgId>().unwrap());
    the_same_bytes_count_once(&app.ports, &fabrikam).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_in_azure() {
    let Some((_, ports)) = super::azure::azurite() else {
        return;
    };
    for which in ["p", "q"] {
        let random: [u8; 6] = Entropy::System.bytes();
        let org = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let org: OrgId = format!("{which}{org}").parse().unwrap();
        ports.tables.create_table(&key::org_table(&org)).await.unwrap();
        ports.blobs.create_container(&key::org_container(&org)).await.unwrap();
        let scope = operator_in(&operator(), &org);
        match which {
            "p" => no_more_is_promised_than_there_is(&ports, &scope).await,
            _ => the_same_bytes_count_once(&ports, &scope).await,
        }
        ports.tables.delete_table(&key::org_table(&org)).await.unwrap();
        ports.blobs.delete_container(&key::org_container(&org)).await.unwrap();
    }
}

// ── with faults ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn small_artifacts_cost_a_call_for_a_block() {
    let app = TestApp::start().await;
    let (usage, scope) = (instance(&app.ports, &clock(), "a"), contoso());
    app.faults.reset();
    let mut rooms = Vec::new();
    for _ in 0..1_000 {
        rooms.push(room_for(&usage, &scope, 10_000).await);
    }
    assert_eq!((app.faults.count(Call::Query), app.faults.count(Call::Commit)), (1, 1));
    assert_eq!(used(&usage, &scope).await, 10_000_000);
    // What is much more than is needed goes back.
    rooms.push(room_for(&usage, &scope, 200 << 20).await);
    drop(rooms);
    drop(room_for(&usage, &scope, 1).await);
    let other = instance(&app.ports, &clock(), "b");
    assert!(matches!(
        other.take(&scope, 100, 100 << 20).await.unwrap(),
        Taken::Room(_)
    ));
}

/// Where it isn't known whether something was stored, it counts; the collector finds out.
#[tokio::test]
async fn what_may_be_stored_counts() {
    let app = TestApp::start().await;
    let (usage, scope) = (app.cx.usage.clone(), contoso());
    let artifact = |name: &str, bytes: &[u8]| {
        let run: RunId = RunId::generate(app.cx.clock.now(), Entropy::System.bytes());
        let sha256 = sha256_hex(bytes);
        let artifact = Artifact {
            id: ArtifactId::of(&run, name, &sha256),
            name: name.into(),
            size: bytes.len() as u64,
            sha256,
            media_type: None,
            step: "main".into(),
            attempt: AttemptId::generate(app.cx.clock.now(), [7; 10]),
            created_at: app.cx.clock.now(),
        };
        (run, artifact)
    };
    app.faults.plan(Plan::Script(vec![
        Rule::new(Fault::After).calls(&[Call::PutBlob]).only(1),
    ]));
    let (run, one) = artifact("one", b"12345");
    let room = room_for(&usage, &scope, 5).await;
    let put = app
        .cx
        .artifacts
        .put(&scope, &run, &one, (Bytes::from_static(b"12345"), room));
    assert!(put.await.is_err());
    assert_eq!(used(&usage, &scope).await, 5, "it is there");
    app.faults.plan(Plan::Calm);
}

// ── through the API ────────────────────────────────────────────────────────────────────────────────────────────────────

async fn ask(app: &TestApp, person: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app.request(method, path).person(person).organization("contoso");
    match body {
        Some(body) => request.json(&body).send().await,
        None => request.send().await,
    }
}

#[tokio::test]
async fn an_organization_narrows_its_quota_and_the_platform_gives_more() {
    let app = TestApp::start().await;
    let shown = ask(&app, "ann", "GET", "/api/usage", None).await;
    assert_eq!(
        (shown.status, shown.json()["artifacts"].clone()),
        (
            200,
            json!({"bytes": 0, "limit": 100_u64 << 30, "limitedBy": "installation"})
        )
    );
    let narrow = ask(&app, "ann", "PUT", "/api/policy", Some(json!({"artifactBytes": 5_000}))).await;
    assert_eq!(narrow.status, 200, "{}", narrow.text());
    let artifacts = ask(&app, "ben", "GET", "/api/usage", None).await.json()["artifacts"].clone();
    assert_eq!(
        artifacts,
        json!({"bytes": 0, "limit": 5_000, "limitedBy": "organization"})
    );
    for wider in [json!({"artifactBytes": 5_001}), json!({})] {
        let refused = ask(&app, "ann", "PUT", "/api/policy", Some(wider.clone())).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "policy_widened"),
            "{wider}"
        );
        assert_eq!(refused.json()["errors"][0]["pointer"], "/artifactBytes");
    }
    let less = ask(&app, "ann", "PUT", "/api/policy", Some(json!({"artifactBytes": 0}))).await;
    assert_eq!(less.status, 200, "{}", less.text());
    let platform = weft::usecase::policy::Change {
        written: json!({"artifactBytes": 7_000}).as_object().unwrap().clone(),
        if_tag: None,
    };
    let origin = weft::authz::Origin::default();
    weft::usecase::policy::put_organization(&app.cx, &contoso(), &origin, &platform)
        .await
        .unwrap();
    let artifacts = ask(&app, "ben", "GET", "/api/usage", None).await.json()["artifacts"].clone();
    assert_eq!(artifacts["limit"], 7_000);
}

/// What a step writes beyond the quota is refused before anything is sent, by an error of its own, and is on record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_refused_what_is_beyond_the_quota_and_keeps_what_it_has() {
    const CODE: &str = r#"
from weft import Context, QuotaExceeded, TooLarge, workflow

@workflow()
def fills(ctx: Context) -> dict:
    ctx.artifacts.write("first", b"1" * 1000)
    said = []
    for size in (5_000_000, 600):
        try:
            ctx.artifacts.write("second", b"2" * size)
        except QuotaExceeded as error:
            assert isinstance(error, TooLarge)
            said.append(str(error))
    ctx.artifacts.write("third", b"3" * 500)
    return {"said": said, "first": ctx.artifacts.read("first").decode() == "1" * 1000,
            "names": sorted(one.name for one in ctx.artifacts.list())}
"#;
    let workspace = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(workspace.path().join("workflows")).unwrap();
    std::fs::write(workspace.path().join("workflows/fills.py"), CODE).unwrap();
    let app = Builder::default().python().workspace(workspace.path()).start().await;
    let narrow = ask(&app, "ann", "PUT", "/api/policy", Some(json!({"artifactBytes": 1_500}))).await;
    assert_eq!(narrow.status, 200, "{}", narrow.text());
    app.faults.reset();
    let run = ask(&app, "ann", "POST", "/api/workflows/fills/execute", Some(json!({})))
        .await
        .json();
    assert_eq!(run["status"], "succeeded", "{run}");
    let result = &run["result"];
    assert_eq!(
        (&result["first"], &result["names"]),
        (&json!(true), &json!(["first", "third"]))
    );
    for (number, size) in [(0, "5000000"), (1, "600")] {
        let said = result["said"][number].as_str().unwrap();
        assert!(said.contains(size) && said.contains("1000 of at most 1500"), "{said}");
    }
    assert_eq!(app.faults.count(Call::LayAside), 0, "nothing was sent");
    let usage = ask(&app, "ann", "GET", "/api/usage", None).await.json();
    assert_eq!(usage["artifacts"]["bytes"], 1_500, "{usage}");
    let records = ask(&app, "ann", "GET", "/api/audit?event=quota.exceeded", None)
        .await
        .json();
    assert_eq!(records["items"].as_array().unwrap().len(), 2, "{records}");
    assert_eq!(app.cx.usage.counts(), (1_500, 2));
}
