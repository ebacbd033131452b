//! Published code from the first upload to the last deletion, over the embedded store: two instances, rollbacks, what is refused,
//! what is damaged, and what fails half way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weft::authz::Origin;
use weft::clock::ManualClock;
use weft::domain::{BundleDigest, Timestamp};
use weft::error::Finding;
use weft::runner::BundleDescription;
use weft::runner::archive;
use weft::runner::bundle::Files;
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key::{self, PlatformTable};
use weft::store::port::{Match, Operation, Properties, Put};
use weft::tenancy::operator;
use weft::testing::app::{Builder, description};
use weft::testing::{Answer, TestApp};
use weft::usecase::bundle;
use weft::usecase::seed::DEVELOPMENT_KEY;

/// A workspace whose workflow `versioned` says which it is, and waits for a person first where `waits` is set.
fn files(version: &str, waits: bool) -> Files {
    let said = json!({"id": "said", "type": "python", "use": "echo", "inputs": {"version": version}});
    let (nodes, edges) = if waits {
        let asked = json!({"id": "asked", "type": "approval", "question": "On?"});
        (json!([asked, said]), json!([{"from": "asked", "to": "said"}]))
    } else {
        (json!([said]), json!([]))
    };
    let graph = json!({"name": "versioned", "nodes": nodes, "edges": edges});
    Files::new([
        ("workflows/versioned.json".to_owned(), Bytes::from(format!("{graph:#}"))),
        ("workflows/hello.py".to_owned(), Bytes::from(format!("# {version}\n"))),
    ])
}

fn archive_of(files: &Files) -> Vec<u8> {
    archive::pack(files).unwrap()
}

fn builder() -> Builder {
    Builder::default().function("echo", &["version"])
}

async fn send(app: &TestApp, method: &str, path: &str, tag: Option<&str>) -> Answer {
    let mut request = app.request(method, path).key(DEVELOPMENT_KEY).json(&json!({}));
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    request.send().await
}

async fn get(app: &TestApp, path: &str) -> Value {
    let request = app.request("GET", path).key(DEVELOPMENT_KEY).organization("contoso");
    let answer = request.send().await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn upload(app: &TestApp, archive: Vec<u8>) -> Answer {
    let request = app
        .request("POST", "/api/bundles?note=of%20a%20test")
        .key(DEVELOPMENT_KEY);
    request
        .header("content-type", "application/gzip")
        .body(archive)
        .send()
        .await
}

async fn publish(app: &TestApp, files: &Files) -> String {
    let answer = upload(app, archive_of(files)).await;
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    assert_eq!(answer.json()["digest"], files.digest().to_string());
    files.digest().to_string()
}

async fn activate(app: &TestApp, digest: &str) -> Answer {
    send(app, "POST", &format!("/api/bundles/{digest}/activate"), None).await
}

async fn published_and_active(app: &TestApp, files: &Files) -> String {
    let digest = publish(app, files).await;
    let answer = activate(app, &digest).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    digest
}

async fn start(app: &TestApp, prefer: &str) -> Answer {
    let request = app.request("POST", "/api/workflows/versioned/execute");
    let request = request
        .key(DEVELOPMENT_KEY)
        .organization("contoso")
        .header("prefer", prefer);
    request.json(&json!({})).send().await
}

/// Which version a run of now is of.
async fn version(app: &TestApp) -> String {
    let answer = start(app, "wait=30").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], "succeeded", "{body}");
    body["result"]["said"]["version"]
        .as_str()
        .or_else(|| body["result"]["version"].as_str())
        .unwrap_or_else(|| panic!("{body}"))
        .to_owned()
}

async fn code(app: &TestApp) -> Value {
    get(app, "/api/status").await["workspace"]["code"].clone()
}

async fn readiness(app: &TestApp) -> (u16, Value) {
    let answer = app.request("GET", "/api/ready").send().await;
    (answer.status, answer.json()["status"].clone())
}

fn codes(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    errors
        .iter()
        .map(|error| error["code"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn publish_activate_run_and_roll_back() {
    let app = builder().start().await;
    let [a, b] = ["a", "b"].map(|version| files(version, false));
    assert_eq!(code(&app).await["source"], "folder");
    let none = start(&app, "wait=30").await;
    assert_eq!(none.code(), "workflow_not_found");
    // Nothing changes while nothing is active.
    let first = publish(&app, &a).await;
    assert_eq!(
        upload(&app, archive_of(&a)).await.status,
        200,
        "the same files are the same bundle"
    );
    assert_eq!(start(&app, "wait=30").await.code(), "workflow_not_found");

    assert_eq!(activate(&app, &first).await.json()["digest"], first);
    assert_eq!(version(&app).await, "a");
    assert_eq!(code(&app).await["source"], "bundle");
    assert_eq!(get(&app, "/api/workflows").await["items"][1]["revision"], first);

    let second = published_and_active(&app, &b).await;
    assert_eq!(version(&app).await, "b");
    let diff = get(&app, &format!("/api/bundles/{second}/diff?against={first}")).await;
    let changed: Vec<_> = diff["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| &file["path"])
        .collect();
    assert_eq!(changed, ["workflows/hello.py", "workflows/versioned.json"]);
    assert_eq!(
        get(&app, &format!("/api/bundles/{second}/diff")).await["changed"],
        json!([])
    );
    let folder = get(&app, &format!("/api/bundles/{second}/diff?against=folder")).await;
    assert_eq!(folder["added"].as_array().unwrap().len(), 2, "{folder}");

    // Back to a, back to the folder, and no further.
    let back = send(&app, "POST", "/api/bundles/rollback", None).await;
    assert_eq!(back.json()["digest"], first);
    assert_eq!(version(&app).await, "a");
    assert_eq!(
        send(&app, "POST", "/api/bundles/rollback", None).await.json()["digest"],
        Value::Null
    );
    assert_eq!(start(&app, "wait=30").await.code(), "workflow_not_found");
    assert_eq!(
        send(&app, "POST", "/api/bundles/rollback", None).await.code(),
        "nothing_to_roll_back"
    );
    let active = get(&app, "/api/bundles/active").await;
    let acts: Vec<_> = active["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["act"].clone())
        .collect();
    assert_eq!(acts, ["rolled_back", "rolled_back", "activated", "activated"]);

    // An activation after that begins anew: what it brings back is what was before it.
    activate(&app, &second).await;
    assert_eq!(
        send(&app, "POST", "/api/bundles/rollback", None).await.json()["digest"],
        Value::Null
    );
    activate(&app, &second).await;
    assert_eq!(activate(&app, "folder").await.json()["digest"], Value::Null);
    assert_eq!(code(&app).await["source"], "folder");
    assert_eq!(
        send(&app, "POST", "/api/bundles/rollback", None).await.json()["digest"],
        second
    );

    let listed = get(&app, "/api/bundles").await;
    let item = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["digest"] == second)
        .unwrap();
    assert_eq!(
        (&item["active"], &item["trusted"], &item["note"]),
        (&json!(true), &json!(true), &json!("of a test"))
    );
    let one = get(&app, &format!("/api/bundles/{second}")).await;
    assert_eq!(one["contents"].as_array().unwrap().len(), 2);
    let audited = bundle_events(&app).await;
    assert_eq!(
        audited.iter().filter(|event| *event == "bundle.published").count(),
        2,
        "{audited:?}"
    );
    assert!(audited.contains(&"bundle.activated".to_owned()) && audited.contains(&"bundle.rolled_back".to_owned()));
}

async fn bundle_events(app: &TestApp) -> Vec<String> {
    let query = weft::usecase::audit_log::AuditQuery {
        limit: 200,
        ..Default::default()
    };
    let page = app.cx.audit.list(&operator(), query).await.unwrap();
    let events = page.items.into_iter().map(|entry| entry.plain.event.clone());
    events.filter(|event| event.starts_with("bundle.")).collect()
}

#[tokio::test]
async fn another_instance_takes_what_is_active_and_goes_on_with_what_its_runs_are_pinned_to() {
    let app = builder().start().await;
    let other = builder().beside(&app).start().await;
    published_and_active(&app, &files("a", true)).await;
    other.cx.catalogs.refresh().await.unwrap();
    let begun = start(&other, "respond-async").await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let run = begun.json()["runId"].as_str().unwrap().to_owned();
    assert!(app.deliver_all().await);

    let second = published_and_active(&app, &files("b", false)).await;
    assert_eq!(other.cx.catalogs.followed().sequence, 1, "it has not looked yet");
    other.cx.catalogs.refresh().await.unwrap();
    assert_eq!(code(&other).await["activation"], 2);
    assert_eq!(version(&other).await, "b");
    // One that has never seen the first, as after a restart.
    let third = builder().beside(&app).start().await;
    assert_eq!(version(&third).await, "b");
    let path = format!("/api/runs/{run}/steps/asked/decision");
    let decided = third
        .request("POST", &path)
        .key(DEVELOPMENT_KEY)
        .organization("contoso");
    let decided = decided.json(&json!({"approved": true})).send().await;
    assert!(matches!(decided.status, 200 | 202), "{}", decided.text());
    assert!(third.deliver_all().await);
    let ended = get(&third, &format!("/api/runs/{run}")).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(ended["result"].to_string().contains("\"a\""), "{ended}");
    assert_ne!(ended["revision"], second);

    send(&third, "POST", "/api/bundles/rollback", None).await;
    for instance in [&app, &other] {
        instance.cx.catalogs.refresh().await.unwrap();
        assert_eq!(code(instance).await["activation"], 3);
    }
}

fn parts_of(digest: &str) -> BundleDigest {
    digest.parse().unwrap()
}

/// Replaces the archive of a bundle in storage.
async fn tamper(app: &TestApp, digest: &str, bytes: Vec<u8>) {
    let digest = parts_of(digest);
    let stored = app.cx.bundles.get(&operator(), &digest).await.unwrap().unwrap();
    let path = key::bundle_blob(&digest, &stored.archive);
    let put = app
        .ports
        .blobs
        .put(&key::bundles_container(), &path, bytes.into(), Put::Overwrite)
        .await;
    put.unwrap();
}

#[tokio::test]
async fn a_damaged_archive_is_never_run_and_the_old_code_stays() {
    let app = builder().start().await;
    let other = builder().beside(&app).start().await;
    published_and_active(&app, &files("a", false)).await;
    other.cx.catalogs.refresh().await.unwrap();
    let second = published_and_active(&app, &files("b", false)).await;
    // The right form, and other code.
    tamper(&app, &second, archive_of(&files("evil", false))).await;
    assert!(other.cx.catalogs.refresh().await.is_err());
    assert_eq!(version(&other).await, "a");
    let told = code(&other).await;
    assert_eq!(
        (&told["activation"], &told["trouble"]["code"]),
        (&json!(1), &json!("bundle_damaged")),
        "{told}"
    );
    assert_eq!(told["trouble"]["activation"], 2);
    assert_eq!(readiness(&other).await, (200, json!("degraded")));

    // One that never had anything offers nothing, and not the deployed folder.
    let third = builder().beside(&app).start().await;
    for _ in 0..2 {
        let answer = start(&third, "wait=30").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "bundle_damaged"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(readiness(&third).await.0, 503);

    // Publishing the same again mends it.
    assert_eq!(upload(&app, archive_of(&files("b", false))).await.status, 200);
    other.cx.catalogs.refresh().await.unwrap();
    third.cx.catalogs.refresh().await.unwrap();
    for instance in [&other, &third] {
        assert_eq!(version(instance).await, "b");
        assert_eq!(code(instance).await["trouble"], Value::Null);
        assert_eq!(readiness(instance).await, (200, json!("ok")));
    }
}

#[tokio::test]
async fn rows_that_this_installation_has_not_signed_count_for_nothing() {
    let app = builder().start().await;
    published_and_active(&app, &files("a", false)).await;
    let second = publish(&app, &files("b", false)).await;
    let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
    // Somebody who can write rows, and has no key, points to the other.
    let row = app
        .ports
        .tables
        .get(&table, &partition, &key::active_row())
        .await
        .unwrap()
        .unwrap();
    let before = row.properties.clone();
    let forged = before.clone().with("sequence", 2i64).with("digest", second.clone());
    let put = |properties: Properties| vec![Operation::Upsert(key::active_row(), properties)];
    app.ports.tables.commit(&table, &partition, put(forged)).await.unwrap();
    assert!(app.cx.catalogs.refresh().await.is_err());
    assert_eq!(version(&app).await, "a");
    assert_eq!(code(&app).await["trouble"]["code"], "bundle_untrusted");
    let third = builder().beside(&app).start().await;
    assert_eq!(start(&third, "wait=30").await.code(), "bundle_untrusted");
    // To activate anew is the way out.
    assert_eq!(activate(&app, &second).await.status, 200);
    assert_eq!(version(&app).await, "b");
    // An old row that was signed once is no way back.
    app.ports.tables.commit(&table, &partition, put(before)).await.unwrap();
    assert!(app.cx.catalogs.refresh().await.is_err());
    assert_eq!(version(&app).await, "b");
    // A bundle's row that was changed can't be activated.
    let third_files = files("c", false);
    let third = publish(&app, &third_files).await;
    let changed = Properties::new().with("files", 7i64);
    let row = key::bundle_row(&parts_of(&third));
    let merge = vec![Operation::Merge(row, changed, Match::Any)];
    app.ports.tables.commit(&table, &partition, merge).await.unwrap();
    let refused = activate(&app, &third).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "bundle_untrusted"));
    assert_eq!(version(&app).await, "b");
    publish(&app, &third_files).await;
    assert_eq!(activate(&app, &third).await.status, 200);
}

#[tokio::test]
async fn what_discovery_finds_keeps_a_bundle_from_being_activated() {
    let app = builder().start().await;
    published_and_active(&app, &files("a", false)).await;
    let mut found = description(vec![]);
    found.findings = vec![
        Finding::new(
            "workspace/workflows/x.py:1:1",
            "import_forbidden",
            "it imports `engine`",
        ),
        Finding::new("workspace/workflows/y.py:9:1", "syntax_error", "it is no Python"),
    ];
    app.scripted.describes(found);
    let second = publish(&app, &files("b", false)).await;
    let refused = activate(&app, &second).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "bundle_invalid"),
        "{}",
        refused.text()
    );
    assert_eq!(
        codes(&refused)[..2],
        ["import_forbidden", "syntax_error"],
        "{}",
        refused.text()
    );
    assert_eq!(
        get(&app, "/api/bundles/active").await["history"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(version(&app).await, "a");
}

#[tokio::test]
async fn hostile_uploads_are_refused_with_everything_at_once() {
    let app = builder().start().await;
    let strange = [("a.py", "1"), ("A.py", "2"), ("k.pem", "-----BEGIN PRIVATE KEY-----\n")];
    let strange = Files::new(strange.map(|(path, text)| (path.to_owned(), Bytes::from(text))));
    let refused = upload(&app, archive_of(&strange)).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "bundle_invalid"));
    let mut found = codes(&refused);
    found.sort();
    assert_eq!(found, ["case_collision", "private_key"]);
    assert_eq!(
        codes(&upload(&app, b"not an archive".to_vec()).await),
        ["not_an_archive"]
    );
    let large = upload(&app, vec![7; usize::try_from(bundle::MAX_ARCHIVE_BYTES).unwrap() + 1]).await;
    assert_eq!((large.status, large.code().as_str()), (413, "body_too_large"));
    // More than any other route takes is fine here.
    let random: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let big = Files::new([("data.bin".to_owned(), Bytes::from(random))]);
    assert_eq!(upload(&app, archive_of(&big)).await.status, 201);

    for kind in [
        "",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let request = app
            .request("POST", "/api/bundles")
            .key(DEVELOPMENT_KEY)
            .header("content-type", kind);
        let answer = request.body(archive_of(&files("a", false))).send().await;
        assert_eq!(answer.status, 415, "{kind}");
        if kind != "application/json" {
            let request = app.request("POST", "/api/bundles/rollback").key(DEVELOPMENT_KEY);
            assert_eq!(request.header("content-type", kind).send().await.status, 415, "{kind}");
        }
    }
    let note = app
        .request("POST", &format!("/api/bundles?note={}", "n".repeat(300)))
        .key(DEVELOPMENT_KEY);
    let note = note
        .header("content-type", "application/gzip")
        .body(archive_of(&files("a", false)));
    assert_eq!(note.send().await.code(), "parameter_invalid");
    for path in ["/api/bundles/sha256:1/activate", "/api/bundles/..%2Factive/activate"] {
        assert_eq!(
            send(&app, "POST", path, None).await.code(),
            "parameter_invalid",
            "{path}"
        );
    }
    let absent = format!("/api/bundles/sha256:{}", "0".repeat(64));
    for (method, path) in [
        ("POST", format!("{absent}/activate")),
        ("DELETE", absent.clone()),
        ("GET", absent),
    ] {
        assert_eq!(
            send(&app, method, &path, None).await.code(),
            "bundle_not_found",
            "{method} {path}"
        );
    }
    assert_eq!(
        get(&app, "/api/bundles/active").await,
        json!({"digest": null, "history": []})
    );
}

#[tokio::test]
async fn a_key_needs_the_scope_and_must_be_for_every_organization() {
    let app = builder().start().await;
    let archive = archive_of(&files("a", false));
    let contoso = "contoso".parse().unwrap();
    for (organizations, scopes, may) in [
        (vec![], vec!["bundle:create"], true),
        (
            vec![],
            vec!["bundle:modify", "bundle:read", "platform:*", "workflow:*"],
            false,
        ),
        (vec![&contoso], vec!["*"], false),
        (vec![], vec!["*"], true),
    ] {
        let scopes_given: Vec<_> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        let key = app.key(&organizations, &scopes_given, None).await;
        let request = app.request("POST", "/api/bundles").key(&key);
        let answer = request
            .header("content-type", "application/gzip")
            .body(archive.clone())
            .send()
            .await;
        assert_eq!(matches!(answer.status, 200 | 201), may, "{scopes:?}: {}", answer.text());
        if !may {
            let hint = answer.json()["hint"].as_str().unwrap().to_owned();
            assert!(answer.status == 403 && hint.contains("`bundle:create`"), "{hint}");
        }
    }
}

#[tokio::test]
async fn of_two_activations_at_once_the_history_has_what_happened() {
    let app = builder().start().await;
    let other = builder().beside(&app).start().await;
    let [a, b] = [
        publish(&app, &files("a", false)).await,
        publish(&app, &files("b", false)).await,
    ];
    let tag = format!("\"{}\"", 0);
    let (pa, pb) = (
        format!("/api/bundles/{a}/activate"),
        format!("/api/bundles/{b}/activate"),
    );
    let (one, two) = tokio::join!(
        send(&app, "POST", &pa, Some(&tag)),
        send(&other, "POST", &pb, Some(&tag))
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{} {}", one.text(), two.text());
    let refused = if one.status == 412 { one } else { two };
    assert_eq!(refused.code(), "activation_changed");
    let active = get(&app, "/api/bundles/active").await;
    assert_eq!(active["history"].as_array().unwrap().len(), 1);
    for instance in [&app, &other] {
        instance.cx.catalogs.refresh().await.unwrap();
        assert_eq!(code(instance).await["activation"], 1);
    }
    let [one, two] = [version(&app).await, version(&other).await];
    assert_eq!(one, two);
    let stale = send(&app, "POST", "/api/bundles/rollback", Some("\"7\"")).await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "activation_changed"));
    assert_eq!(
        send(&app, "POST", "/api/bundles/rollback", Some("\"1\"")).await.status,
        200
    );
}

#[tokio::test]
async fn nothing_that_is_needed_is_deleted() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000)));
    let app = builder().clock(clock.clone()).start().await;
    let mut digests = Vec::new();
    for version_of in ["a", "b", "c", "d"] {
        clock.advance(Duration::from_secs(1));
        digests.push(publish(&app, &files(version_of, false)).await);
    }
    let [a, b, c, d] = <[String; 4]>::try_from(digests).unwrap();
    activate(&app, &a).await;
    version(&app).await;
    clock.advance(Duration::from_secs(1));
    activate(&app, &b).await;
    clock.advance(Duration::from_secs(1));
    activate(&app, &c).await;
    let delete = |digest: String| {
        let app = &app;
        async move { send(app, "DELETE", &format!("/api/bundles/{digest}"), None).await }
    };
    for (digest, reason) in [(&a, "pinned"), (&b, "just now"), (&c, "active")] {
        let refused = delete(digest.clone()).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "bundle_in_use"));
        assert!(
            refused.json()["detail"].as_str().unwrap().contains(reason),
            "{}",
            refused.text()
        );
    }
    clock.advance(Duration::from_secs(300));
    let prune = |keep: u32, dry: bool| {
        let app = &app;
        async move {
            let request = app.request("POST", "/api/bundles/prune").key(DEVELOPMENT_KEY);
            request.json(&json!({"keep": keep, "dryRun": dry})).send().await.json()
        }
    };
    assert_eq!(prune(10, false).await, json!({"deleted": [], "kept": []}));
    let would = prune(0, true).await;
    assert_eq!(would["deleted"], json!([b, d]), "{would}");
    assert_eq!(would["kept"].as_array().unwrap().len(), 2);
    assert_eq!(get(&app, "/api/bundles").await["items"].as_array().unwrap().len(), 4);
    assert_eq!(prune(0, false).await["deleted"], json!([b, d]));
    assert_eq!(get(&app, "/api/bundles").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(activate(&app, &b).await.code(), "bundle_not_found");
    let blobs = app
        .ports
        .blobs
        .list(&key::bundles_container(), "bundle/", None)
        .await
        .unwrap();
    assert_eq!(blobs.blobs.len(), 2);
    // To a: b is gone.
    let back = send(&app, "POST", "/api/bundles/rollback", None).await;
    assert_eq!(back.code(), "bundle_not_found", "{}", back.text());
    let unknown = app.request("POST", "/api/bundles/prune").key(DEVELOPMENT_KEY);
    assert_eq!(unknown.json(&json!({"all": true})).send().await.status, 400);
}

#[tokio::test]
async fn what_fails_half_way_has_not_happened() {
    let app = builder().start().await;
    let a = files("a", false);
    published_and_active(&app, &a).await;
    let b = files("b", false);
    let digest = b.digest().to_string();
    // Every call that publishing makes fails once, before and after it is done.
    for fault in [Fault::Before, Fault::After] {
        for (call, name) in [
            (Call::PutBlob, "weft-bundles"),
            (Call::Commit, "WeftBundles"),
            (Call::Get, "WeftBundles"),
        ] {
            app.faults
                .plan(Plan::Script(vec![Rule::new(fault).calls(&[call]).prefix(name)]));
            let answer = upload(&app, archive_of(&b)).await;
            app.faults.plan(Plan::Calm);
            assert_eq!(answer.status, 503, "{call:?}: {}", answer.text());
            assert_eq!(version(&app).await, "a");
        }
    }
    publish(&app, &b).await;
    for (call, name) in [
        (Call::GetBlob, "weft-bundles"),
        (Call::Get, "WeftBundles"),
        (Call::Commit, "WeftBundles"),
    ] {
        app.faults
            .plan(Plan::Script(vec![Rule::new(Fault::Before).calls(&[call]).prefix(name)]));
        let answer = activate(&app, &digest).await;
        app.faults.plan(Plan::Calm);
        assert_eq!(answer.status, 503, "{call:?}: {}", answer.text());
        app.cx.catalogs.refresh().await.unwrap();
        assert_eq!(version(&app).await, "a");
        assert_eq!(readiness(&app).await, (200, json!("ok")));
    }
    // An answer that was lost: it has happened, and repeating it changes nothing.
    app.faults.plan(Plan::Script(vec![
        Rule::new(Fault::After).calls(&[Call::Commit]).prefix("WeftBundles"),
    ]));
    assert_eq!(activate(&app, &digest).await.status, 503);
    app.faults.plan(Plan::Calm);
    app.cx.catalogs.refresh().await.unwrap();
    assert_eq!(version(&app).await, "b");
    assert_eq!(activate(&app, &digest).await.status, 200);
    assert_eq!(
        get(&app, "/api/bundles/active").await["history"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn a_disk_that_takes_nothing_keeps_the_old_code() {
    let app = builder().start().await;
    published_and_active(&app, &files("a", false)).await;
    let second = publish(&app, &files("b", false)).await;
    let fetched = app.database.parent().unwrap().join("data/fetched");
    let aside = fetched.with_file_name("aside");
    std::fs::rename(&fetched, &aside).unwrap();
    std::fs::write(&fetched, "in the way").unwrap();
    let refused = activate(&app, &second).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "bundle_unavailable"),
        "{}",
        refused.text()
    );
    let home = app.database.parent().unwrap().to_str().unwrap();
    assert!(!refused.text().contains(home), "{}", refused.text());
    std::fs::remove_file(&fetched).unwrap();
    std::fs::rename(&aside, &fetched).unwrap();
    assert_eq!(version(&app).await, "a");
    // Somebody clears the folder under it: it is fetched again.
    std::fs::remove_dir_all(&fetched).unwrap();
    app.cx.catalogs.refresh().await.unwrap();
    assert_eq!(version(&app).await, "a");
    assert_eq!(activate(&app, &second).await.status, 200);
    assert_eq!(version(&app).await, "b");
}

#[tokio::test]
async fn the_operator_publishes_beside_a_running_instance() {
    let app = builder().on_disk().start().await;
    let beside = builder().over(&app).start().await;
    let a = files("a", false);
    let made = bundle::publish(
        &beside.cx,
        &operator(),
        &Origin::default(),
        archive_of(&a).into(),
        Some("by hand"),
    )
    .await;
    let digest = made.unwrap().0.digest;
    bundle::activate(&beside.cx, &operator(), &Origin::default(), Some(&digest), None, false)
        .await
        .unwrap();
    app.cx.catalogs.refresh().await.unwrap();
    assert_eq!(version(&app).await, "a");
    assert_eq!(get(&app, "/api/bundles").await["items"][0]["publishedBy"], "operator");
}

#[tokio::test]
async fn copies_of_the_workspace_are_bounded_and_none_is_taken_from_a_run() {
    // Long after the copies are made, which have the time of the file system.
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(4_100_000_000_000)));
    let app = builder().clock(clock).start().await;
    let home = app.database.parent().unwrap().to_owned();
    let edit = |version: &str, waits: bool| {
        for (name, bytes) in files(version, waits).iter() {
            std::fs::write(home.join("workspace").join(name), bytes).unwrap();
        }
    };
    edit("first", true);
    let begun = start(&app, "respond-async").await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let run = begun.json()["runId"].as_str().unwrap().to_owned();
    assert!(app.deliver_all().await);
    for number in 0..bundle::COPIES {
        assert_eq!(bundle::tidy(&app.cx).await.unwrap(), 0, "there are few");
        edit(&number.to_string(), false);
        assert_eq!(version(&app).await, number.to_string());
    }
    edit("last", false);
    assert_eq!(version(&app).await, "last");
    assert_eq!(
        bundle::tidy(&app.cx).await.unwrap(),
        1,
        "of those beyond the newest, one is pinned"
    );
    assert_eq!(bundle::tidy(&app.cx).await.unwrap(), 0);
    assert_eq!(version(&app).await, "last");
    let path = format!("/api/runs/{run}/steps/asked/decision");
    let decided = app.request("POST", &path).key(DEVELOPMENT_KEY).organization("contoso");
    let decided = decided.json(&json!({"approved": true})).send().await;
    assert!(matches!(decided.status, 200 | 202), "{}", decided.text());
    assert!(app.deliver_all().await);
    let ended = get(&app, &format!("/api/runs/{run}")).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(ended["result"].to_string().contains("first"), "{ended}");
    // Nobody needs it any more.
    assert_eq!(bundle::tidy(&app.cx).await.unwrap(), 1);
    // What was removed is copied again when the workspace is like that again.
    edit("0", false);
    assert_eq!(version(&app).await, "0");
}

/// Each instance keeps seats of the organization for a while, also when it is gone.
const MANY: u32 = 1000;

/// Where this machine keeps its copy of a bundle: `fetched` of published ones, `bundles` of the folder.
fn copy_of(app: &TestApp, kind: &str, digest: &str) -> std::path::PathBuf {
    let home = app.database.parent().unwrap();
    home.join("data").join(kind).join(parts_of(digest).hex())
}

/// What somebody does to a copy, in words.
type Change = (&'static str, fn(&std::path::Path));

/// Ways to change a copy on the disk.
fn changes() -> [Change; 4] {
    let evil = |copy: &std::path::Path| {
        let graph = copy.join("workflows/versioned.json");
        let text = std::fs::read_to_string(&graph).unwrap();
        std::fs::write(&graph, text.replace("\"a\"", "\"evil\"")).unwrap();
    };
    [
        ("a file says something else", evil),
        // A graph that a copy does not have, under a name that a workspace leaves out.
        ("there is a file more", |copy| {
            std::fs::create_dir(copy.join("tests")).unwrap();
            std::fs::write(copy.join("tests/json.py"), "evil = True\n").unwrap();
        }),
        ("there is a link more", |copy| {
            std::os::unix::fs::symlink("/etc", copy.join("workflows/etc")).unwrap();
        }),
        ("a file is gone", |copy| {
            std::fs::remove_file(copy.join("workflows/hello.py")).unwrap();
        }),
    ]
}

#[tokio::test]
async fn a_copy_that_was_changed_while_nothing_ran_is_fetched_again() {
    let app = builder().concurrent_runs(MANY).start().await;
    let digest = published_and_active(&app, &files("a", false)).await;
    assert_eq!(version(&app).await, "a");
    for (what, change) in changes() {
        let copy = copy_of(&app, "fetched", &digest);
        change(&copy);
        let again = app.another().await;
        assert_eq!(version(&again).await, "a", "{what}");
        assert_eq!(
            Files::of_workspace(&copy).unwrap().digest().to_string(),
            digest,
            "{what}"
        );
        assert!(
            !copy.join("tests").exists() && !copy.join("workflows/etc").exists(),
            "{what}"
        );
        // Whoever is at work in what was changed is not left without.
        let beside = std::fs::read_dir(copy.parent().unwrap()).unwrap();
        let aside = beside.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        assert_eq!(aside.filter(|name| name.starts_with("changed-")).count(), 1, "{what}");
    }
    // With nothing to take its place it is not used either, and is still there for whoever is at work in it.
    let copy = copy_of(&app, "fetched", &digest);
    changes()[0].1(&copy);
    let again = app.another().await;
    again.faults.plan(Plan::Script(vec![
        Rule::new(Fault::Before).calls(&[Call::GetBlob]).prefix("weft-bundles"),
    ]));
    assert_eq!(start(&again, "wait=30").await.status, 503);
    assert!(copy.join("workflows/hello.py").exists());
}

#[tokio::test]
async fn a_copy_of_the_folder_that_was_changed_is_made_anew() {
    let app = builder().concurrent_runs(MANY).start().await;
    let workspace = app.database.parent().unwrap().join("workspace");
    let edit = |version: &str| {
        for (name, bytes) in files(version, false).iter() {
            std::fs::write(workspace.join(name), bytes).unwrap();
        }
    };
    edit("a");
    assert_eq!(version(&app).await, "a");
    let digest = code_of(&app).await;
    for (what, change) in changes() {
        let copy = copy_of(&app, "bundles", &digest);
        change(&copy);
        // A run that goes on is the first to need it, or one that begins.
        let again = app.another().await;
        again
            .cx
            .catalogs
            .pinned(&digest)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            Files::of_workspace(&copy).unwrap().digest().to_string(),
            digest,
            "{what}"
        );
        change(&copy);
        assert_eq!(version(&app.another().await).await, "a", "{what}");
    }
    // The folder has become another, so that nobody has it any more.
    changes()[0].1(&copy_of(&app, "bundles", &digest));
    edit("b");
    let again = app.another().await;
    assert_eq!(version(&again).await, "b");
    let lost = again.cx.catalogs.pinned(&digest).await.unwrap_err();
    assert_eq!(weft::error::Coded::code(&lost), "bundle_unavailable");
    // Publishing the same files brings it back.
    publish(&again, &Files::of_workspace(&workspace).unwrap()).await;
    edit("a");
    let files = Files::of_workspace(&workspace).unwrap();
    edit("b");
    assert!(again.cx.catalogs.pinned(&digest).await.is_err());
    publish(&again, &files).await;
    again.cx.catalogs.pinned(&digest).await.unwrap();
}

/// The digest of what is offered.
async fn code_of(app: &TestApp) -> String {
    let listed = get(app, "/api/workflows").await;
    listed["items"][0]["revision"].as_str().unwrap().to_owned()
}

/// Puts a row of published code as it is given; without one, takes it away.
async fn put_row(app: &TestApp, row: weft::store::port::Key, properties: Option<Properties>) {
    let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
    let operation = match properties {
        Some(properties) => Operation::Upsert(row, properties),
        None => Operation::Delete(row, Match::Any),
    };
    app.ports
        .tables
        .commit(&table, &partition, vec![operation])
        .await
        .unwrap();
}

async fn row(app: &TestApp, row: weft::store::port::Key) -> Properties {
    let (table, partition) = (PlatformTable::Bundles.name(), key::bundles());
    let entity = app.ports.tables.get(&table, &partition, &row).await.unwrap();
    entity.unwrap().properties
}

/// What is wrong is said with the command that mends it.
fn names(answer: &Answer, code: &str, command: &str) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, code),
        "{}",
        answer.text()
    );
    let hint = answer.json()["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains(command), "{hint}");
}

#[tokio::test]
async fn an_archive_that_was_damaged_is_not_said_to_be_active_and_is_mended_by_publishing() {
    let app = builder().concurrent_runs(MANY).start().await;
    let (a, b) = (files("a", false), files("b", false));
    let first = published_and_active(&app, &a).await;
    let second = publish(&app, &b).await;
    // This instance has unpacked copies of both, which others have not.
    get(&app, &format!("/api/bundles/{second}")).await;
    for digest in [&first, &second] {
        tamper(&app, digest, b"other".to_vec()).await;
        names(&activate(&app, digest).await, "bundle_damaged", "`weft publish`");
        names(
            &activate(&app, digest).await,
            "bundle_damaged",
            "`weft bundles activate",
        );
    }
    assert_eq!(get(&app, "/api/bundles/active").await["digest"], first);
    assert_eq!(version(&app).await, "a", "what runs goes on");
    std::fs::remove_dir_all(copy_of(&app, "fetched", &first)).unwrap();
    let again = app.another().await;
    names(&start(&again, "wait=30").await, "bundle_damaged", "`weft publish`");
    // One way is to let another run, the other to publish the same again.
    assert_eq!(activate(&again, "folder").await.status, 200);
    publish(&again, &a).await;
    assert_eq!(activate(&again, &first).await.status, 200);
    assert_eq!(activate(&again, &first).await.status, 200);
    assert_eq!(version(&again).await, "a");
    // Where it is active already, activating heals the instance that could not have it.
    let third = app.another().await;
    tamper(&app, &first, b"another".to_vec()).await;
    std::fs::remove_dir_all(copy_of(&app, "fetched", &first)).unwrap();
    assert!(third.cx.catalogs.refresh().await.is_err());
    publish(&third, &a).await;
    assert_eq!(activate(&third, &first).await.status, 200);
    assert_eq!(code(&third).await["trouble"], Value::Null);
    assert_eq!(get(&third, "/api/bundles/active").await["history"][0]["activation"], 3);
}

#[tokio::test]
async fn a_pointer_that_is_behind_its_history_is_seen_and_mended_by_activating() {
    let app = builder().start().await;
    let first = published_and_active(&app, &files("a", false)).await;
    let old = row(&app, key::active_row()).await;
    let second = published_and_active(&app, &files("b", false)).await;
    let unreadable = old.clone().with("sequence", "one");
    let mut sequence = 2;
    for (what, pointer) in [
        ("an old row", Some(old.clone())),
        ("none", None),
        ("one that nobody can read", Some(unreadable)),
    ] {
        put_row(&app, key::active_row(), pointer).await;
        let again = app.another().await;
        names(
            &start(&again, "wait=30").await,
            "bundle_untrusted",
            "`weft bundles activate",
        );
        assert_eq!(readiness(&again).await.0, 503, "{what}");
        assert!(again.cx.catalogs.refresh().await.is_err(), "{what}");
        assert_eq!(code_of(&app).await, second, "{what}: who knows better goes on");
        assert!(app.cx.catalogs.refresh().await.is_err(), "{what}");
        // Nobody can tell what is needed.
        let request = again.request("POST", "/api/bundles/prune").key(DEVELOPMENT_KEY);
        let pruned = request.json(&json!({"keep": 0})).send().await;
        names(&pruned, "bundle_untrusted", "`weft bundles activate");
        let deleted = send(&again, "DELETE", &format!("/api/bundles/{first}"), None).await;
        names(&deleted, "bundle_untrusted", "`weft bundles activate");

        let mended = activate(&again, &second).await;
        assert_eq!(mended.status, 200, "{what}: {}", mended.text());
        sequence += 1;
        assert_eq!(mended.json()["history"][0]["activation"], sequence, "{what}");
        for instance in [&again, &app] {
            instance.cx.catalogs.refresh().await.unwrap();
            assert_eq!(code_of(instance).await, second, "{what}");
            assert_eq!(code(instance).await["trouble"], Value::Null);
        }
        assert_eq!(code_of(&app.another().await).await, second, "{what}");
    }
    // Rolling back mends it as well: the history says from where.
    put_row(&app, key::active_row(), Some(old)).await;
    let again = app.another().await;
    let back = send(&again, "POST", "/api/bundles/rollback", None).await;
    assert_eq!(back.json()["digest"], first, "{}", back.text());
    assert_eq!(code_of(&again).await, first);
}

#[tokio::test]
async fn rows_that_nobody_can_read_are_written_anew() {
    let app = builder().concurrent_runs(MANY).start().await;
    let a = files("a", false);
    let first = published_and_active(&app, &a).await;
    let second = publish(&app, &files("b", false)).await;
    let broken = Properties::new().with("files", "many");
    put_row(&app, key::bundle_row(&parts_of(&first)), Some(broken.clone())).await;
    // Somebody has taken the numbers that come next, and the largest that there is.
    let history = key::activation_row(1);
    put_row(&app, key::activation_row(2), Some(broken.clone())).await;
    put_row(&app, key::activation_row(u64::MAX), Some(broken)).await;
    let listed = get(&app, "/api/bundles").await;
    let trusted = |digest: &str| {
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|item| item["digest"] == digest).unwrap()["trusted"] == true
    };
    assert!(!trusted(&first) && trusted(&second), "{listed}");
    names(&activate(&app, &first).await, "bundle_untrusted", "`weft publish`");
    publish(&app, &a).await;
    assert_eq!(activate(&app, &first).await.status, 200);
    let next = activate(&app, &second).await;
    assert_eq!(next.status, 200, "{}", next.text());
    assert_eq!(next.json()["history"][0]["activation"], 2);
    assert_eq!(version(&app.another().await).await, "b");
    assert_eq!(row(&app, history).await.require_text("act").unwrap(), "activated");
}

#[tokio::test]
async fn a_bundle_without_workflows_becomes_active_only_when_that_is_said() {
    let app = builder().start().await;
    published_and_active(&app, &files("a", false)).await;
    // The folder above the workspace, say.
    let wrong = Files::new([("workspace/README.md".to_owned(), Bytes::from_static(b"# Here\n"))]);
    let digest = publish(&app, &wrong).await;
    app.scripted.describes(BundleDescription::default());
    let refused = activate(&app, &digest).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "bundle_invalid"));
    assert_eq!(codes(&refused), ["no_workflow"]);
    assert!(refused.text().contains("--allow-empty"), "{}", refused.text());
    assert_eq!(version(&app).await, "a");
    let path = format!("/api/bundles/{digest}/activate?allowEmpty");
    for (said, status) in [("=yes", 400), ("=false", 422), ("=true", 200)] {
        assert_eq!(
            send(&app, "POST", &format!("{path}{said}"), None).await.status,
            status,
            "{said}"
        );
    }
    assert_eq!(start(&app, "wait=30").await.code(), "workflow_not_found");
    // To roll back to it takes no word.
    app.scripted.describes(description(vec![
        json!({"name": "echo", "function": "echo", "line": 1, "parameters": [{"name": "version", "type": "json"}]}),
    ]));
    published_and_active(&app, &files("b", false)).await;
    app.scripted.describes(BundleDescription::default());
    assert_eq!(
        send(&app, "POST", "/api/bundles/rollback", None).await.json()["digest"],
        digest
    );
}

#[tokio::test]
async fn what_keeps_the_folder_from_being_used_is_told_without_its_place() {
    let app = builder().start().await;
    let home = app.database.parent().unwrap().to_owned();
    // A folder that is in the way of the copies stands for a disk that is full.
    std::fs::create_dir_all(home.join("data")).unwrap();
    std::fs::write(home.join("data/bundles"), "in the way").unwrap();
    let refused = start(&app, "wait=30").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "workspace_unavailable")
    );
    assert!(!refused.text().contains(home.to_str().unwrap()), "{}", refused.text());
    std::fs::remove_file(home.join("data/bundles")).unwrap();
    std::fs::remove_dir_all(home.join("workspace")).unwrap();
    let refused = start(&app, "wait=30").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "workspace_unavailable")
    );
    assert!(!refused.text().contains(home.to_str().unwrap()), "{}", refused.text());
}
