//! Nothing is changed without a record: of every use case that changes something, storage is lost at each of its writes, one after
//! the other, and what stands then is a record without its change, both, or neither.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};
use weft::authz::{KeyScope, Role};
use weft::domain::{Identity, KeyId, OrgId, QueueTriggerId, RunId, Secret, UserId};
use weft::runner::archive;
use weft::runner::bundle::Files;
use weft::store::envelope::{Message, seal};
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key::{self, Queue};
use weft::store::port::{Match, Operation, Properties};
use weft::store::repo::queue_triggers::SetAside;
use weft::store::repo::runs::Additions;
use weft::tenancy::{RunRef, Scope, operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp, WORKFLOW};
use weft::usecase::deliver::{From, deliver};
use weft::usecase::organization::NewOrganization;
use weft::usecase::person::NewUser;
use weft::usecase::quarantine::quarantine;
use weft::usecase::secret::WriteSecret;
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::{api_key, config, organization, person, policy, secret};

/// What changes something: the function that calls `on_record::recorded`, the event, and what it may write before, as the
/// beginnings of `partition/row`: preparations that are no change by themselves.
pub const CHANGES: &[(&str, &str, &[&str])] = &[
    ("api_key::create", "key.created", &[]),
    ("api_key::revoke", "key.revoked", &[]),
    ("api_key::rotate", "key.rotated", &[]),
    ("approval::say", "step.approved", &["weft-runs/"]),
    ("bundle::publish", "bundle.published", &[]),
    ("bundle::remove", "bundle.deleted", &[]),
    ("bundle::switch", "bundle.activated", &[]),
    ("config::delete", "config.deleted", &[]),
    ("config::set", "config.changed", &[]),
    ("hook::create", "hook.created", &["secret/"]),
    ("hook::delete", "hook.deleted", &[]),
    ("hook::replace", "hook.changed", &[]),
    ("hook::rotate", "hook.rotated", &["secret/"]),
    ("node_type::delete_draft", "node_type.deleted", &[]),
    ("node_type::deprecate", "node_type.deprecated", &[]),
    ("node_type::publish", "node_type.published", &[]),
    ("node_type::put_draft", "node_type.changed", &[]),
    ("organization::create", "organization.created", &[]),
    ("organization::set_active", "organization.changed", &[]),
    ("person::add_identity", "user.changed", &[]),
    ("person::create", "user.created", &[]),
    ("person::remove_identity", "user.changed", &[]),
    ("person::remove_member", "member.removed", &[]),
    ("person::set_active", "user.changed", &[]),
    ("person::set_member", "member.added", &[]),
    ("policy::put_organization", "policy.changed", &[]),
    ("policy::put_platform", "policy.changed", &[]),
    ("quarantine::quarantine", "message.quarantined", WAITING),
    ("quarantine::requeue", "message.requeued", WAITING),
    ("queue_trigger::create", "queue_trigger.created", &[]),
    ("queue_trigger::delete", "queue_trigger.deleted", &[]),
    ("queue_trigger::drop_set_aside", "queue_message.dropped", &[]),
    ("queue_trigger::put_back", "queue_message.put_back", WAITING),
    ("queue_trigger::replace", "queue_trigger.changed", &[]),
    ("schedule::create", "schedule.changed", &["due"]),
    ("schedule::delete", "schedule.changed", &[]),
    ("schedule::update", "schedule.changed", &["due"]),
    ("secret::remove", "secret.deleted", &[]),
    ("secret::write", "secret.changed", &[]),
    ("unreadable::set_aside", "run.set_aside", WAITING),
    ("workflow::discard_draft", "workflow.deleted", &[]),
    ("workflow::publish", "workflow.published", &[]),
    ("workflow::replaced", "workflow.archived", &[]),
    ("workflow::save_draft", "workflow.changed", &[]),
    ("workflow_assignment::delete", "workflow.unassigned", &[]),
    ("workflow_assignment::put", "workflow.assigned", &[]),
];

/// What becomes of runs that want to begin, in the background as well.
const WAITING: &[&str] = &["index/backlog", "weft-runs/"];

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

fn scope() -> Scope {
    operator_in(&operator(), &contoso())
}

/// Every row that is no audit record, and how many records of an event there are in chains.
fn stored(app: &TestApp, event: &str) -> (BTreeMap<String, String>, usize) {
    let is_about_keys = event.starts_with("key.");
    let database = Connection::open_with_flags(&app.database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT tables.name, partition, row, hex(props) FROM entity JOIN tables ON tables.id = tbl UNION ALL
               SELECT 'message', queue.name, CAST(message.id AS TEXT), text FROM message JOIN queue ON queue.id = queue";
    let mut statement = database.prepare(sql).unwrap();
    let mut found = statement.query([]).unwrap();
    let event: String = event.bytes().map(|byte| format!("{byte:02X}")).collect();
    let (mut rows, mut records) = (BTreeMap::new(), 0);
    while let Some(row) = found.next().unwrap() {
        let text = |column: usize| row.get::<_, String>(column).unwrap();
        let (table, partition, row, value) = (text(0), text(1), text(2), text(3));
        if partition.starts_with("audit") && row.starts_with("audit:") {
            records += usize::from(value.contains(&event));
        }
        let is_audit = partition.starts_with("audit") || partition == "subject" || row.starts_with("audit:");
        // That a key was used is noted in the background.
        let is_other = table == "WeftKeys" && !is_about_keys;
        if !is_audit && !is_other {
            rows.insert(format!("{table} {partition}/{row}"), value);
        }
    }
    (rows, records)
}

async fn send(app: &TestApp, method: &str, path: &str, tag: Option<&str>, body: Option<&Value>) -> Answer {
    let mut request = app.request(method, path).key(DEVELOPMENT_KEY).organization("contoso");
    request = match tag {
        Some("*new") => request.header("if-none-match", "*"),
        Some(tag) => request.header("if-match", tag),
        None => request,
    };
    match body {
        Some(body) => request.json(body).header("prefer", "respond-async").send().await,
        None => request.send().await,
    }
}

async fn good(app: &TestApp, method: &str, path: &str, tag: Option<&str>, body: Value) -> Answer {
    let answer = send(app, method, path, tag, Some(&body)).await;
    assert!(answer.status < 300, "{method} {path}: {answer:?}");
    answer
}

/// A request that changes something.
fn request(method: &str, path: &str, tag: &str, body: Value) -> Value {
    json!({"method": method, "path": path, "tag": tag, "body": body})
}

fn new_key(name: &str) -> api_key::NewKey {
    api_key::NewKey {
        name: name.parse().unwrap(),
        organizations: Vec::new(),
        scopes: vec![KeyScope::All],
        expires_at: None,
        development: false,
    }
}

fn entry(name: &str) -> config::NewEntry {
    config::NewEntry {
        name: name.to_owned(),
        value: json!(1),
        description: None,
    }
}

fn new_secret(name: &str) -> Result<WriteSecret, weft::usecase::Error> {
    Ok(WriteSecret {
        name: name.to_owned(),
        value: Secret::presented("a value that is long enough"),
        hosts: None,
        presented: None,
        description: None,
    })
}

fn new_user() -> NewUser {
    NewUser {
        id: None,
        name: "Somebody".parse().unwrap(),
        email: None,
        administrator: true,
    }
}

fn identity(n: u64) -> Identity {
    Identity::new("swa:aad", &format!("somebody-{n}")).unwrap()
}

fn graph(name: &str) -> Value {
    json!({"name": name, "nodes": [{"id": "say", "type": "python", "use": "hello"}]})
}

fn node_type() -> Value {
    json!({"version": "1.0.0", "title": "Hello", "description": "Says it.", "category": "Text", "function": "hello"})
}

fn files(version: &str) -> Files {
    let text = format!("# {version}\n");
    Files::new([("workflows/hello.py".to_owned(), text.into_bytes().into())])
}

/// A run that is under way elsewhere.
async fn pending(app: &TestApp) -> RunId {
    let begun = good(
        app,
        "POST",
        &format!("/api/workflows/{WORKFLOW}/execute"),
        None,
        json!({}),
    )
    .await;
    let run: RunId = begun.json()["runId"].as_str().unwrap().parse().unwrap();
    let (cx, now) = (&app.cx, app.cx.clock.now());
    // Somebody else drives it, so that nothing of it changes here.
    let stored = cx.runs.get(&scope(), &run).await.unwrap().unwrap();
    let lease = weft::scheduler::Event::Taken {
        owner: "another".into(),
        lease_until: now.plus(Duration::from_secs(600)),
    };
    let taken = weft::scheduler::decide(&stored.new.plan, &stored.state, lease, now).unwrap();
    cx.runs
        .apply(&scope(), stored, &taken, Additions::default())
        .await
        .unwrap();
    run
}

fn reference(run: &RunId) -> RunRef {
    RunRef {
        org: contoso(),
        run: run.clone(),
    }
}

/// Makes what is to be changed, and says how.
async fn prepare(app: &TestApp, name: &str, n: u64) -> Value {
    let (cx, platform) = (&app.cx, operator());
    let unique = format!("of-test-{n}");
    let hook = json!({"name": unique, "workflow": WORKFLOW, "scheme": "weft"});
    let trigger = json!({"name": unique, "workflow": WORKFLOW});
    let schedule = json!({"name": unique, "workflow": WORKFLOW, "cron": "0 4 1 1 *"});
    let made = async |path: &str, body: &Value| {
        let answer = good(app, "POST", path, None, body.clone()).await;
        format!("{path}/{}", answer.json()["id"].as_str().unwrap())
    };
    let renamed = |body: &Value| {
        let mut body = body.clone();
        body["name"] = json!("another");
        body
    };
    match name {
        "api_key::revoke" | "api_key::rotate" => {
            let made = api_key::create(cx, &platform, new_key(&unique)).await.unwrap();
            json!(made.record.id)
        }
        "approval::say" => {
            let begun = good(app, "POST", "/api/workflows/asks/execute", None, json!({})).await;
            assert!(app.deliver_all().await);
            let run = begun.json()["runId"].as_str().unwrap().to_owned();
            let path = format!("/api/runs/{run}/steps/ok/decision");
            request("POST", &path, "", json!({"approved": true}))
        }
        "bundle::publish" => json!(unique),
        "bundle::remove" | "bundle::switch" => {
            let files = files(&unique);
            let upload = app.request("POST", "/api/bundles").key(DEVELOPMENT_KEY);
            let upload = upload.header("content-type", "application/gzip");
            let answer = upload.body(archive::pack(&files).unwrap()).send().await;
            assert!(answer.status < 300, "{answer:?}");
            let path = format!("/api/bundles/{}", files.digest());
            match name {
                "bundle::remove" => request_of("DELETE", &path),
                _ => request("POST", &format!("{path}/activate"), "", json!({})),
            }
        }
        "config::delete" => {
            config::set(cx, &platform, Some(&contoso()), entry(&unique))
                .await
                .unwrap();
            json!(unique)
        }
        "hook::create" => request("POST", "/api/triggers/hooks", "", hook),
        "hook::delete" => request_of("DELETE", &made("/api/triggers/hooks", &hook).await),
        "hook::replace" => request("PUT", &made("/api/triggers/hooks", &hook).await, "", renamed(&hook)),
        "hook::rotate" => {
            let path = made("/api/triggers/hooks", &hook).await;
            request("POST", &format!("{path}/rotate"), "", json!({}))
        }
        _ if name.starts_with("node_type::") => {
            let path = format!("/api/node-types/{unique}");
            let draft = format!("{path}/draft");
            if name == "node_type::put_draft" {
                return request("PUT", &draft, "*new", node_type());
            }
            good(app, "PUT", &draft, None, node_type()).await;
            let publish = format!("{path}/publish");
            match name {
                "node_type::delete_draft" => request_of("DELETE", &draft),
                "node_type::publish" => request("POST", &publish, "*", json!({})),
                _ => {
                    good(app, "POST", &publish, Some("*"), json!({})).await;
                    request(
                        "POST",
                        &format!("{path}/versions/1.0.0/deprecate"),
                        "",
                        json!({"message": "old"}),
                    )
                }
            }
        }
        "organization::set_active" => {
            let new = NewOrganization {
                id: None,
                name: unique.parse().unwrap(),
                slug: None,
            };
            json!(organization::create(cx, &platform, new).await.unwrap().1.id)
        }
        "person::create" => Value::Null,
        _ if name.starts_with("person::") => {
            let made = person::create(cx, &platform, new_user(), &[]).await.unwrap();
            let id = made.user.id;
            match name {
                "person::remove_identity" => {
                    person::add_identity(cx, &platform, &id, &identity(n)).await.unwrap();
                }
                "person::remove_member" => {
                    person::set_member(cx, &platform, &id, &contoso(), Role::Viewer)
                        .await
                        .unwrap();
                }
                _ => {}
            }
            json!(id)
        }
        "policy::put_organization" | "policy::put_platform" => json!({"limits": {"wallMs": 5_000 + n}}),
        "quarantine::quarantine" => json!(pending(app).await),
        "quarantine::requeue" => {
            let run = pending(app).await;
            quarantine(cx, &reference(&run), Queue::Runs, cx.clock.now())
                .await
                .unwrap();
            request("POST", &format!("/api/runs/{run}/requeue"), "", json!({}))
        }
        "queue_trigger::create" => request("POST", "/api/queue-triggers", "", trigger),
        "queue_trigger::delete" => request_of("DELETE", &made("/api/queue-triggers", &trigger).await),
        "queue_trigger::replace" => request(
            "PUT",
            &made("/api/queue-triggers", &trigger).await,
            "",
            renamed(&trigger),
        ),
        "queue_trigger::drop_set_aside" | "queue_trigger::put_back" => {
            let path = made("/api/queue-triggers", &trigger).await;
            let id: QueueTriggerId = path.rsplit('/').next().unwrap().parse().unwrap();
            let sent = app
                .ports
                .queues
                .send(&key::trigger_queue(&id), "{}", Duration::ZERO)
                .await
                .unwrap();
            let message = weft::store::port::Message {
                receipt: sent,
                text: "{}".to_owned(),
                dequeue_count: 1,
            };
            let fact = SetAside::new(&message, cx.clock.now(), "of_a_test", "for a test", &[]);
            cx.queue_triggers.set_aside(&scope(), &id, &fact, "{}").await.unwrap();
            let path = format!("{path}/set-aside/{}", fact.id);
            match name {
                "queue_trigger::put_back" => request("POST", &format!("{path}/put-back"), "", json!({})),
                _ => request_of("DELETE", &path),
            }
        }
        "schedule::create" => request("POST", "/api/schedules", "", schedule),
        "schedule::delete" => request_of("DELETE", &made("/api/schedules", &schedule).await),
        "schedule::update" => request("PUT", &made("/api/schedules", &schedule).await, "", renamed(&schedule)),
        "secret::remove" => {
            let origin = weft::authz::Origin::default();
            let name = format!("OF_TEST_{n}");
            secret::put(cx, &scope(), &origin, new_secret(&name)).await.unwrap();
            json!(name)
        }
        "unreadable::set_aside" => {
            let run = pending(app).await;
            let change = Operation::Merge(
                key::run_header_row(),
                Properties::new().with("checkpoint", "no"),
                Match::Any,
            );
            let table = key::org_table(&contoso());
            app.ports
                .tables
                .commit(&table, &key::run(&run), vec![change])
                .await
                .unwrap();
            json!(run)
        }
        "workflow::save_draft" => {
            let path = format!("/api/workflows/{unique}/draft");
            request("PUT", &path, "*new", graph(&unique))
        }
        "workflow::discard_draft" | "workflow::publish" | "workflow::replaced" => {
            let path = format!("/api/workflows/{unique}");
            let saved = good(app, "PUT", &format!("{path}/draft"), Some("*new"), graph(&unique)).await;
            let tag = saved.header("etag").to_owned();
            let publish = format!("{path}/publish");
            match name {
                "workflow::discard_draft" => json!({"method": "DELETE", "path": format!("{path}/draft"), "tag": tag}),
                "workflow::publish" => request("POST", &publish, &tag, json!({})),
                _ => {
                    let published = good(app, "POST", &publish, Some(&tag), json!({})).await;
                    request("POST", &format!("{path}/archive"), published.header("etag"), json!({}))
                }
            }
        }
        "workflow_assignment::put" | "workflow_assignment::delete" => {
            let made = person::create(cx, &platform, new_user(), &[]).await.unwrap();
            let id = made.user.id;
            person::set_member(cx, &platform, &id, &contoso(), Role::Viewer)
                .await
                .unwrap();
            let path = format!("/api/workflows/{WORKFLOW}/assignments/{id}");
            if name == "workflow_assignment::put" {
                return request("PUT", &path, "", json!({}));
            }
            good(app, "PUT", &path, None, json!({})).await;
            request_of("DELETE", &path)
        }
        _ => json!(unique),
    }
}

fn request_of(method: &str, path: &str) -> Value {
    json!({"method": method, "path": path})
}

/// Changes it.
async fn change(app: &TestApp, name: &str, n: u64, of: &Value) -> Result<(), String> {
    let (cx, platform) = (&app.cx, operator());
    let origin = weft::authz::Origin::default();
    let text = of.as_str().unwrap_or_default();
    let said = |error: weft::usecase::Error| format!("{error}: {:?}", std::error::Error::source(&error));
    let user = || text.parse::<UserId>().unwrap();
    let changed = || policy::Change {
        written: of.as_object().cloned().unwrap_or_else(Map::new),
        if_tag: None,
    };
    if let Some(method) = of["method"].as_str() {
        let tag = of["tag"].as_str().filter(|tag| !tag.is_empty());
        let answer = send(app, method, of["path"].as_str().unwrap(), tag, of.get("body")).await;
        return if answer.status < 300 {
            Ok(())
        } else {
            Err(answer.text())
        };
    }
    match name {
        "api_key::create" => api_key::create(cx, &platform, new_key(text)).await.map(drop),
        "api_key::revoke" => api_key::revoke(cx, &platform, &text.parse::<KeyId>().unwrap())
            .await
            .map(drop),
        "api_key::rotate" => {
            let id = text.parse().unwrap();
            api_key::rotate(cx, &platform, &id, Duration::ZERO).await.map(drop)
        }
        "bundle::publish" => {
            let packed = archive::pack(&files(text)).unwrap();
            weft::usecase::bundle::publish(cx, &platform, &origin, packed.into(), None)
                .await
                .map(drop)
        }
        "config::set" => config::set(cx, &platform, Some(&contoso()), entry(text))
            .await
            .map(drop),
        "config::delete" => config::delete(cx, &platform, Some(&contoso()), text).await.map(drop),
        "organization::create" => {
            let new = NewOrganization {
                id: None,
                name: text.parse().unwrap(),
                slug: None,
            };
            organization::create(cx, &platform, new).await.map(drop)
        }
        "organization::set_active" => organization::set_active(cx, &platform, &text.parse().unwrap(), false)
            .await
            .map(drop),
        "person::create" => person::create(cx, &platform, new_user(), &[identity(n)])
            .await
            .map(drop),
        "person::add_identity" => person::add_identity(cx, &platform, &user(), &identity(n))
            .await
            .map(drop),
        "person::remove_identity" => person::remove_identity(cx, &platform, &user(), &identity(n))
            .await
            .map(drop),
        "person::set_active" => person::set_active(cx, &platform, &user(), false).await.map(drop),
        "person::set_member" => person::set_member(cx, &platform, &user(), &contoso(), Role::Viewer)
            .await
            .map(drop),
        "person::remove_member" => person::remove_member(cx, &platform, &user(), &contoso())
            .await
            .map(drop),
        "policy::put_organization" => policy::put_organization(cx, &scope(), &origin, &changed())
            .await
            .map(drop),
        "policy::put_platform" => policy::put_platform(cx, &platform, &origin, &changed()).await.map(drop),
        "quarantine::quarantine" => {
            let run = reference(&text.parse().unwrap());
            quarantine(cx, &run, Queue::Runs, cx.clock.now()).await.map(drop)
        }
        "secret::write" => {
            let new = new_secret(&format!("OF_TEST_{n}"));
            secret::put(cx, &scope(), &origin, new).await.map(drop)
        }
        "secret::remove" => secret::delete(cx, &scope(), &origin, text).await.map(drop),
        "unreadable::set_aside" => {
            let message = Message::DriveRun {
                run: reference(&text.parse().unwrap()),
                reason: "test".to_owned(),
            };
            let message = seal(&cx.signing, &message);
            deliver(cx, From::Runs, &message, cx.clock.now(), None).await.map(drop)
        }
        _ => panic!("`{name}` is changed by nobody here"),
    }
    .map_err(said)
}

fn writes() -> Vec<Call> {
    Call::ALL.into_iter().filter(|call| call.writes()).collect()
}

async fn loses_no_record(name: &str, event: &str, prepares: &[&str]) {
    let ask = json!({"id": "ok", "type": "approval", "needed": 1, "withinSeconds": 3600, "question": null});
    let asks = json!({"name": "asks", "nodes": [ask], "edges": []});
    let begin = async || Builder::default().on_disk().graph(asks.clone()).start().await;
    let mut app = begin().await;
    let mut n = 0;
    for fault in [Fault::Crash, Fault::CrashAfter] {
        for write in 1.. {
            n += 1;
            // The runs that it starts are let begin in the background, whoever is tried then; and later, where others were begun a
            // moment ago.
            if matches!(name, "queue_trigger::put_back" | "approval::say") {
                app = begin().await;
            }
            assert!(n < 60, "{name} comes to no end");
            let of = prepare(&app, name, n).await;
            let (before, recorded) = stored(&app, event);
            app.faults
                .plan(Plan::Script(vec![Rule::new(fault).calls(&writes()).only(write)]));
            let done = change(&app, name, n, &of).await;
            let crashed = app.faults.crashed();
            app.faults.plan(Plan::Calm);
            app.faults.heal();
            let (after, records) = stored(&app, event);
            let mut changed: Vec<_> = after
                .iter()
                .filter(|(at, row)| before.get(*at) != Some(row))
                .map(|(at, _)| at)
                .collect();
            changed.extend(before.keys().filter(|at| !after.contains_key(*at)));
            changed.retain(|at| {
                let place = at.split_once(' ').unwrap().1;
                !prepares.iter().any(|prepared| place.starts_with(prepared))
            });
            assert!(
                changed.is_empty() || records > recorded,
                "{name}, {fault:?} at write {write}: {changed:?} without `{event}`: {done:?}"
            );
            if !crashed {
                done.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(
                    !changed.is_empty() && records > recorded,
                    "{name}: {changed:?}, {records} after {recorded}"
                );
                // It was lost at a write of the record, and at one of the change.
                assert!(write > 2, "{name} writes {} times", write - 1);
                break;
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_changed_without_a_record() {
    let mut lost = Vec::new();
    for (name, event, prepares) in CHANGES {
        let tried = tokio::spawn(loses_no_record(name, event, prepares)).await;
        lost.extend(tried.err().map(|_| *name));
    }
    assert!(lost.is_empty(), "{lost:?}; what is wrong with each stands above");
}
