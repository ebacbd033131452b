//! What steps keep, pairs and artifacts, against every store: bounds, expiry, writers at the same time, foreign scopes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weft::clock::{Clock, Entropy, ManualClock};
use weft::domain::{ArtifactId, AttemptId, OrgId, RunId, Timestamp, sha256_hex};
use weft::store::key;
use weft::store::port::{Match, Operation, Ports, Properties};
use weft::store::repo::artifacts::{self, Artifact, Artifacts, Quotas};
use weft::store::repo::kv::{Expected, Kv, MAX_PAIRS, Pair, Written, is_key};
use weft::store::repo::usage::Usage;
use weft::store::sqlite;
use weft::tenancy::{Scope, operator, operator_in};

const NOW: i64 = 1_795_219_200_000;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(NOW)))
}

/// Two organizations with tables and containers.
async fn two(ports: &Ports) -> [Scope; 2] {
    let scopes = [(); 2].map(|()| {
        let org = OrgId::generate(Entropy::System.bytes());
        operator_in(&operator(), &org)
    });
    for scope in &scopes {
        ports.tables.create_table(&key::org_table(scope.org())).await.unwrap();
        ports
            .blobs
            .create_container(&key::org_container(scope.org()))
            .await
            .unwrap();
    }
    scopes
}

fn pair(value: Value) -> Pair {
    Pair {
        value,
        expires_at: None,
    }
}

async fn pairs(ports: &Ports) {
    let clock = clock();
    let kv = Kv::new(ports.clone(), clock.clone() as Arc<dyn Clock>);
    let [ours, theirs] = two(ports).await;
    let set = async |scope: &Scope, name: &str, expected: Expected<'_>, value: Value| {
        kv.set(scope, "import", name, expected, &pair(value)).await.unwrap()
    };
    let get = async |scope: &Scope, workflow: &str, name: &str| {
        kv.get(scope, workflow, name).await.unwrap().map(|pair| pair.value)
    };

    // As many writers as an instance has, and more: each of them writes.
    let many = (0..150).map(|n| {
        let (kv, scope) = (kv.clone(), ours.clone());
        tokio::spawn(async move {
            let value = pair(json!(n));
            kv.set(&scope, "crowd", &format!("{n}"), Expected::Nothing, &value)
                .await
        })
    });
    for written in futures::future::join_all(many).await {
        assert_eq!(written.unwrap().unwrap(), Written::Done);
    }
    assert_eq!(kv.list(&ours, "crowd", "", None, 200).await.unwrap().0.len(), 150);

    // A pair is of one workflow of one organization.
    let odd = "a/b\\c#d?e%f~g'h ä\u{1f600}";
    for name in ["a", odd] {
        assert_eq!(
            set(&ours, name, Expected::Anything, json!({"n": 1})).await,
            Written::Done
        );
        assert_eq!(get(&ours, "import", name).await, Some(json!({"n": 1})));
        assert_eq!(get(&theirs, "import", name).await, None);
        assert_eq!(get(&ours, "export", name).await, None);
        assert!(!kv.delete(&theirs, "import", name).await.unwrap());
    }

    // Conditions.
    assert_eq!(set(&ours, "a", Expected::Nothing, json!(2)).await, Written::Unexpected);
    assert_eq!(
        set(&ours, "a", Expected::Value(&json!(1)), json!(2)).await,
        Written::Unexpected
    );
    assert_eq!(
        set(&ours, "a", Expected::Value(&json!({"n": 1})), json!(2)).await,
        Written::Done
    );
    assert_eq!(
        set(&ours, "new", Expected::Value(&json!(1)), json!(2)).await,
        Written::Unexpected
    );

    // Of many who count at the same time, none is lost.
    let counting = (0..4).map(|_| {
        let (kv, ours) = (kv.clone(), ours.clone());
        tokio::spawn(async move {
            for _ in 0..5 {
                loop {
                    let now = kv.get(&ours, "import", "count").await.unwrap().map(|pair| pair.value);
                    let next = json!(now.as_ref().and_then(Value::as_u64).unwrap_or(0) + 1);
                    let expected = now.as_ref().map_or(Expected::Nothing, Expected::Value);
                    if kv.set(&ours, "import", "count", expected, &pair(next)).await.unwrap() == Written::Done {
                        break;
                    }
                }
            }
        })
    });
    for counter in counting.collect::<Vec<_>>() {
        counter.await.unwrap();
    }
    assert_eq!(get(&ours, "import", "count").await, Some(json!(20)));

    // Expiry: gone at its time, and its place may be taken.
    let expiring = Pair {
        value: json!("soon"),
        expires_at: Some(clock.now().plus(Duration::from_secs(60))),
    };
    assert_eq!(
        kv.set(&ours, "import", "x/1", Expected::Nothing, &expiring)
            .await
            .unwrap(),
        Written::Done
    );
    assert_eq!(kv.get(&ours, "import", "x/1").await.unwrap(), Some(expiring));
    clock.advance(Duration::from_secs(60));
    assert_eq!(get(&ours, "import", "x/1").await, None);
    assert_eq!(kv.list(&ours, "import", "x/", None, 10).await.unwrap(), (vec![], false));
    assert_eq!(
        set(&ours, "x/1", Expected::Nothing, json!("again")).await,
        Written::Done
    );

    // Listing by prefix, page by page.
    for name in ["x/2", "x/3", "xy"] {
        set(&ours, name, Expected::Anything, json!(0)).await;
    }
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let list =
        async |prefix: &str, after: Option<&str>, limit| kv.list(&ours, "import", prefix, after, limit).await.unwrap();
    assert_eq!(list("x/", None, 2).await, (names(&["x/1", "x/2"]), true));
    assert_eq!(list("x/", Some("x/2"), 2).await, (names(&["x/3"]), false));
    assert_eq!(list("", None, 100).await.0.len(), 7);
    assert_eq!(
        list("", None, 100).await.0.iter().filter(|name| *name == odd).count(),
        1
    );

    // The bound on their number holds, and expired ones make room.
    let (table, partition) = (key::org_table(ours.org()), key::pairs("import").unwrap());
    let most = Properties::new()
        .with("v", 1i64)
        .with("pairs", i64::try_from(MAX_PAIRS).unwrap());
    let full = vec![Operation::Replace(key::pair_count_row(), most, Match::Any)];
    ports.tables.commit(&table, &partition, full).await.unwrap();
    assert_eq!(
        set(&ours, "one more", Expected::Anything, json!(0)).await,
        Written::Full
    );
    assert_eq!(set(&ours, "xy", Expected::Anything, json!(1)).await, Written::Done);
    assert!(kv.delete(&ours, "import", "xy").await.unwrap());
    assert!(!kv.delete(&ours, "import", "xy").await.unwrap());
    let expiring = Pair {
        value: json!(0),
        expires_at: Some(clock.now().plus(Duration::from_secs(1))),
    };
    assert_eq!(
        kv.set(&ours, "import", "one more", Expected::Nothing, &expiring)
            .await
            .unwrap(),
        Written::Done
    );
    assert_eq!(set(&ours, "another", Expected::Anything, json!(0)).await, Written::Full);
    clock.advance(Duration::from_secs(1));
    assert_eq!(set(&ours, "another", Expected::Anything, json!(0)).await, Written::Done);
    assert!(!is_key("") && !is_key(&"x".repeat(257)) && is_key(&"/".repeat(256)));
}

async fn named_outputs(ports: &Ports) {
    let clock = clock();
    let usage = Arc::new(Usage::new(ports.clone(), clock.clone(), "here".to_owned()));
    let artifacts = Artifacts::new(ports.clone(), usage.clone(), Quotas::default());
    let [ours, theirs] = two(ports).await;
    let run = RunId::generate(clock.now(), Entropy::System.bytes());
    let other = RunId::generate(clock.now(), Entropy::System.bytes());
    let make = |name: &str, bytes: &[u8], at: i64| {
        let sha256 = sha256_hex(bytes);
        Artifact {
            id: ArtifactId::of(&run, name, &sha256),
            name: name.to_owned(),
            size: bytes.len() as u64,
            sha256,
            media_type: None,
            step: "main".to_owned(),
            attempt: AttemptId::generate(clock.now(), [7; 10]),
            created_at: Timestamp::from_millis(NOW + at),
        }
    };
    let crowd = RunId::generate(clock.now(), Entropy::System.bytes());
    let many = (0..150).map(|n| {
        let artifact = make(&format!("{n}"), b"of many", 0);
        let (artifacts, usage, scope, run) = (artifacts.clone(), usage.clone(), ours.clone(), crowd.clone());
        tokio::spawn(async move {
            let room = super::artifact_quota::room_for(&usage, &scope, artifact.size).await;
            let bytes = Bytes::from_static(b"of many");
            artifacts.put(&scope, &run, &artifact, (bytes, room)).await
        })
    });
    for written in futures::future::join_all(many).await {
        assert_eq!(written.unwrap().unwrap(), artifacts::Written::Done);
    }
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let first = make("out.bin", b"first", 1);
    let second = make("out.bin", &large, 2);
    let empty = make("empty", b"", 3);
    for (artifact, bytes) in [
        (&first, &b"first"[..]),
        (&second, &large),
        (&empty, b""),
        (&first, b"first"),
    ] {
        let taken = super::artifact_quota::room_for(&usage, &ours, bytes.len() as u64).await;
        let written = artifacts
            .put(&ours, &run, artifact, (Bytes::copy_from_slice(bytes), taken))
            .await
            .unwrap();
        assert_eq!(written, artifacts::Written::Done);
    }
    assert_eq!(
        artifacts.list(&ours, &run).await.unwrap(),
        [empty.clone(), second.clone(), first.clone()]
    );
    assert_eq!(
        artifacts.get(&ours, &run, &second.id).await.unwrap(),
        Some(second.clone())
    );
    assert_eq!(artifacts.read(&ours, &second, 0, u64::MAX >> 1).await.unwrap(), large);
    assert_eq!(
        artifacts.read(&ours, &second, 2_999_990, 100).await.unwrap(),
        large[2_999_990..]
    );
    assert!(artifacts.read(&ours, &empty, 0, 10).await.unwrap().is_empty());
    // Neither another run nor another organization has them, bytes included.
    assert_eq!(artifacts.get(&ours, &other, &second.id).await.unwrap(), None);
    assert_eq!(artifacts.get(&theirs, &run, &second.id).await.unwrap(), None);
    assert_eq!(artifacts.list(&theirs, &run).await.unwrap(), []);
    assert!(artifacts.read(&theirs, &second, 0, 10).await.is_err());
    // What is not what was written is not read.
    let forged = Artifact {
        sha256: first.sha256.clone(),
        ..second
    };
    assert!(artifacts.read(&ours, &forged, 0, u64::MAX >> 1).await.is_err());
    // The sum of a run is bounded, and a repeat takes nothing of it.
    assert!(
        artifacts
            .has_room(&ours, &run, Quotas::default().run - 3_000_005)
            .await
            .unwrap()
    );
    assert!(
        !artifacts
            .has_room(&ours, &run, Quotas::default().run - 3_000_004)
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_and_artifacts_in_the_embedded_store() {
    let ports = sqlite::open(None, clock() as Arc<dyn Clock>).unwrap();
    pairs(&ports).await;
    named_outputs(&ports).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_and_artifacts_in_azure() {
    if let Some((_, ports)) = crate::azure::azurite() {
        pairs(&ports).await;
        named_outputs(&ports).await;
    }
}
