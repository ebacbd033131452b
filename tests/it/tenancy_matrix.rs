//! Every use case × the scope of a foreign organization: it finds nothing, and not one row, blob or message changes except
//! audit records of whoever tried.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use weft::authz::{Caller, KeyScope, Origin, Principal, Role, Tier};
use weft::domain::{
    ArtifactId, Ask, AttemptId, Begins, KeyId, LogLine, OrgId, RunId, Secret, Timestamp, UserId, sha256_hex,
};
use weft::error::{Coded as _, Kind};
use weft::runner::WorkerMessage;
use weft::runner::scripted::Scene;
use weft::store::envelope::{Message, seal};
use weft::store::key;
use weft::store::repo::artifacts;
use weft::store::repo::runs::{RunQuery, StoredRun};
use weft::tenancy::{self, Membership, Organization, RunRef, Scope, operator, operator_in, rehydrate};
use weft::testing::app::Builder;
use weft::testing::{DATA_PROVIDER, TestApp, WORKFLOW};
use weft::usecase::approval::Word;
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::deliver::{Delivered, From, deliver};
use weft::usecase::drive_run::Continued;
use weft::usecase::policy::{Change, Policy};
use weft::usecase::rerun::{Code, Rerun};
use weft::usecase::resume_run::CodeOf;
use weft::usecase::start_run::{StartRun, start_run};
use weft::usecase::watch::Wanted;
use weft::usecase::workflow::Expected;
use weft::usecase::workflow_file::Format;
use weft::usecase::{
    Error, admit, approval, artifact, audit_log, control_run, drive_run, hook, node_type, offer, policy, provide_data,
    quarantine, query_run, queue_trigger, recording, rerun, resume_run, schedule, secret, watch, workflow,
    workflow_assignment, workflow_file,
};

/// The use cases that take a scope, or the reference of which one is made. A new one is added here, and to the matrix.
const COVERED: &[&str] = &[
    "admit::crossing",
    "admit::denied_in",
    "admit::key_bypass",
    "admit::list",
    "approval::decide",
    "approval::decide_as",
    "approval::link",
    "approval::list",
    "artifact::list",
    "artifact::open",
    "audit_log::list",
    "control_run::cancel",
    "drive_run::continue_run",
    "hook::create",
    "hook::delete",
    "hook::get",
    "hook::list",
    "hook::replace",
    "hook::rotate",
    "node_type::get",
    "node_type::list",
    "node_type::used_by",
    "node_type::version",
    "offer::get",
    "offer::list",
    "plan::make",
    "policy::effective",
    "policy::organization",
    "policy::put_organization",
    "provide_data::inputs",
    "provide_data::list",
    "provide_data::options",
    "quarantine::list",
    "quarantine::quarantine",
    "quarantine::requeue",
    "query_run::details",
    "query_run::get",
    "query_run::items",
    "query_run::list",
    "query_run::output",
    "query_run::logs",
    "query_run::steps",
    "queue_trigger::create",
    "queue_trigger::delete",
    "queue_trigger::drop_set_aside",
    "queue_trigger::get",
    "queue_trigger::get_set_aside",
    "queue_trigger::list",
    "queue_trigger::list_set_aside",
    "queue_trigger::open",
    "queue_trigger::put_back",
    "queue_trigger::replace",
    "queue_trigger::send",
    "recording::of_run",
    "resume_run::resume",
    "schedule::create",
    "schedule::delete",
    "schedule::get",
    "schedule::list",
    "schedule::preview",
    "schedule::trigger",
    "schedule::update",
    "secret::delete",
    "secret::list",
    "secret::put",
    "rerun::rerun",
    "start_run::start_run",
    "usage::get",
    "watch::open",
    "watch::page",
    "workflow::archive",
    "workflow::diff",
    "workflow::discard_draft",
    "workflow::get_draft",
    "workflow::get_revision",
    "workflow::list_revisions",
    "workflow::publish",
    "workflow::restore",
    "workflow::rollback",
    "workflow::save_draft",
    "workflow::trust",
    "workflow::validate",
    "workflow_assignment::delete",
    "workflow_assignment::get",
    "workflow_assignment::list",
    "workflow_assignment::put",
    "workflow_file::export",
    "workflow_file::import",
];

#[test]
fn the_matrix_has_every_use_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/usecase");
    let function = Regex::new(r"(?s)\npub (?:async )?fn (\w+)\((.*?)\) ->").unwrap();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The broker's files are below the use cases; what they may is bound when a broker is made.
        if path.is_dir() {
            continue;
        }
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        for declared in function.captures_iter(&source) {
            if declared[2].contains(": &Scope") || declared[2].contains(": &RunRef") {
                found.insert(format!("{module}::{}", &declared[1]));
            }
        }
    }
    assert_eq!(found, COVERED.iter().map(ToString::to_string).collect());
}

/// Everything that is stored: rows by table, partition and row, blobs by container and path, messages by queue.
type Dump = BTreeMap<(String, String, String), Vec<u8>>;

fn dump(app: &TestApp) -> Dump {
    let database = Connection::open_with_flags(&app.database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut all = Dump::new();
    for (kind, sql) in [
        (
            "row",
            "SELECT tables.name, partition, row, CAST(etag AS TEXT) || ':' || hex(props) FROM entity JOIN tables ON tables.id = tbl",
        ),
        (
            "blob",
            "SELECT container.name, path, CAST(start AS TEXT), hex(bytes) FROM blob
             JOIN container ON container.id = container JOIN chunk ON chunk.blob = blob.id",
        ),
        (
            "message",
            "SELECT queue.name, CAST(message.id AS TEXT), CAST(visible AS TEXT), text FROM message JOIN queue ON queue.id = queue",
        ),
        ("table", "SELECT name, '', '', '' FROM tables"),
        ("container", "SELECT name, '', '', '' FROM container"),
    ] {
        let mut statement = database.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let text = |column: usize| row.get::<_, String>(column).unwrap();
            all.insert((format!("{kind} {}", text(0)), text(1), text(2)), text(3).into_bytes());
        }
    }
    all
}

/// Places that differ and are no audit records.
fn changed(before: &Dump, after: &Dump) -> Vec<(String, String, String)> {
    let places: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    places
        .into_iter()
        .filter(|place| before.get(*place) != after.get(*place))
        .filter(|(_, partition, row)| {
            let audit = partition.starts_with("audit") || partition == key::subjects().as_str();
            !(audit || (partition == key::index().as_str() && row.starts_with(key::INDEX_AUDIT)))
        })
        .cloned()
        .collect()
}

fn org(id: &str) -> OrgId {
    id.parse().unwrap()
}

/// Everybody who may all in an organization that is not the run's.
fn strangers(run: &RunId) -> Vec<(&'static str, Scope)> {
    let fabrikam = org("fabrikam");
    let organization = Organization {
        id: fabrikam.clone(),
        name: "Fabrikam Inc".into(),
        active: true,
    };
    let membership = Membership {
        org: fabrikam.clone(),
        role: Role::OrgAdmin,
    };
    let at = Timestamp::from_millis(0);
    let user = |administrator| Principal::User {
        // Whoever asked for the run, to whom "own" would apply.
        id: UserId::derived(at, "sample:ann"),
        name: "Ann Archer".into(),
        administrator,
    };
    let key = Principal::Service {
        key: KeyId::derived(at, "foreign"),
        name: "foreign".into(),
        scopes: vec![KeyScope::All],
        made_by: None,
        claimed_user: None,
    };
    let found = Some(&organization);
    let reference = RunRef {
        org: fabrikam.clone(),
        run: run.clone(),
    };
    vec![
        (
            "an administrator of the organization",
            tenancy::resolve(&fabrikam, found, Some(&membership), user(false), Tier::ClientPrincipal).unwrap(),
        ),
        (
            "a platform administrator who crossed into it",
            tenancy::cross(&fabrikam, found, user(true), Tier::ClientPrincipal).unwrap(),
        ),
        (
            "a key that may all",
            tenancy::resolve_key(&fabrikam, found, std::slice::from_ref(&fabrikam), key).unwrap(),
        ),
        (
            "the driver, by a message about a foreign run",
            rehydrate(&reference, "drive_run"),
        ),
        ("the operator", operator_in(&operator(), &fabrikam)),
        (
            "the operator, in one that does not exist",
            operator_in(&operator(), &org("nosuch")),
        ),
    ]
}

/// A run of contoso with values that are too large for a row, and a log.
async fn contoso_run(app: &TestApp) -> StoredRun {
    let line = LogLine {
        at: app.cx.clock.now(),
        stream: "stdout".into(),
        level: "info".into(),
        message: "contoso's own words".into(),
        fields: None,
    };
    app.scripted.push(
        WORKFLOW,
        Scene::returns(json!("contoso ".repeat(5_000))).says(WorkerMessage::Line(line)),
    );
    let answer = app.run("contoso", json!({"name": "contoso ".repeat(5_000)})).await;
    assert_eq!(answer["status"], "succeeded", "{answer}");
    let run: RunId = answer["runId"].as_str().unwrap().parse().unwrap();
    let scope = operator_in(&operator(), &org("contoso"));
    let page = query_run::logs(&app.cx, &scope, &run, (0, 0)).await.unwrap();
    assert_eq!(page.lines.len(), 1, "the run has a log");
    let sha256 = sha256_hex(b"contoso's own");
    let kept = artifacts::Artifact {
        id: ArtifactId::of(&run, "out.txt", &sha256),
        name: "out.txt".into(),
        size: 13,
        sha256,
        media_type: None,
        step: "main".into(),
        attempt: AttemptId::generate(app.cx.clock.now(), [7; 10]),
        created_at: app.cx.clock.now(),
    };
    app.cx
        .artifacts
        .put(
            &scope,
            &run,
            &kept,
            (
                bytes::Bytes::from_static(b"contoso's own"),
                super::artifact_quota::room_for(&app.cx.usage, &scope, 13).await,
            ),
        )
        .await
        .unwrap();
    assert_eq!(
        artifact::open(&app.cx, &scope, &run, &kept.id).await.unwrap().artifact,
        kept
    );
    app.cx.runs.get(&scope, &run).await.unwrap().unwrap()
}

fn not_found<T: std::fmt::Debug>(of: &str, result: Result<T, Error>) {
    match result {
        Err(error) => assert!(
            matches!(error.kind(), Kind::NotFound | Kind::Denied) || error.code() == "storage_not_prepared",
            "{of}: {} {error}",
            error.code()
        ),
        Ok(found) => panic!("{of}: {found:?}"),
    }
}

/// Waits until the instance has given contoso's places back, which it does by itself a while after the last run.
async fn seats_given_back(app: &TestApp) {
    let table = key::org_table(&org("contoso"));
    for _ in 0..6000 {
        let row = app.ports.tables.get(&table, &key::seats(), &key::only_row()).await;
        if row.unwrap().unwrap().properties.require_text("taken").unwrap() == "{}" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the places are not given back");
}

#[tokio::test]
async fn a_foreign_scope_finds_nothing_and_changes_nothing() {
    let app = Builder::default().on_disk().start().await;
    let stored = contoso_run(&app).await;
    let contoso = operator_in(&operator(), &"contoso".parse().unwrap());
    secret::put(&app.cx, &contoso, &Origin::default(), Ok(secret_of("contoso-value")))
        .await
        .unwrap();
    hook::create(&app.cx, &contoso, &Origin::default(), hook_of(WORKFLOW))
        .await
        .unwrap();
    let members = queue_trigger_of(WORKFLOW);
    queue_trigger::create(&app.cx, &contoso, &Origin::default(), &members)
        .await
        .unwrap();
    let run = stored.new.run.clone();
    let scope = operator_in(&operator(), &org("contoso"));
    schedule::create(&app.cx, &scope, &Origin::default(), &schedule_of(WORKFLOW))
        .await
        .unwrap();
    let origin = Origin::default();
    for _ in 0..2 {
        workflow::save_draft(&app.cx, &scope, &origin, save_of(Expected::Anything))
            .await
            .unwrap();
        workflow::publish(&app.cx, &scope, &origin, AUTHORED, (&Expected::Anything, ""))
            .await
            .unwrap();
    }
    workflow::save_draft(&app.cx, &scope, &origin, save_of(Expected::Nothing))
        .await
        .unwrap();
    workflow_assignment::put(&app.cx, &scope, &origin, (AUTHORED, &ben()))
        .await
        .unwrap();
    let change = Change {
        written: Map::from_iter([("trust".to_owned(), Value::from("restricted"))]),
        if_tag: None,
    };
    policy::put_organization(&app.cx, &scope, &Origin::default(), &change)
        .await
        .unwrap();
    seats_given_back(&app).await;
    for (who, scope) in strangers(&run) {
        let reference = RunRef {
            org: scope.org().clone(),
            run: run.clone(),
        };
        let before = dump(&app);
        for name in COVERED {
            let of = format!("{name} by {who}");
            let earlier = dump(&app);
            Box::pin(try_it(&app, name, &of, &scope, &reference, &stored)).await;
            assert_eq!(
                changed(&earlier, &dump(&app)),
                [],
                "{of} changed what is no audit record"
            );
            // That the records of those who come in are there shows that the comparison sees what is written.
            if name.starts_with("admit::") && scope.org().as_str() != "nosuch" {
                assert_ne!(earlier, dump(&app), "{of} left no record");
            }
        }
        // A message about the pair is signed by us and still finds nothing: the organization is part of the key.
        let text = seal(
            &app.cx.signing,
            &Message::DriveRun {
                run: reference,
                reason: "foreign".into(),
            },
        );
        for from in [From::Runs, From::Attempts, From::RunsPoison, From::AttemptsPoison] {
            let delivered = deliver(&app.cx, from, &text, app.cx.clock.now(), None).await.unwrap();
            assert_eq!(delivered, Delivered::Done(Continued::Unknown), "{from:?}");
        }
        let after = dump(&app);
        assert_eq!(changed(&before, &after), [], "{who} changed what is no audit record");
        // Of the organization itself not even those.
        let theirs = |dump: &Dump| -> Dump {
            dump.iter()
                .filter(|((name, ..), _)| name.ends_with("orgcontoso") || name.ends_with("org-contoso"))
                .map(|(place, value)| (place.clone(), value.clone()))
                .collect()
        };
        assert_eq!(theirs(&before), theirs(&after), "{who} changed contoso");
        assert!(!theirs(&after).is_empty());
    }
}

async fn try_it(app: &TestApp, name: &str, of: &str, scope: &Scope, reference: &RunRef, stored: &StoredRun) {
    let (cx, run) = (&app.cx, &reference.run);
    let there = scope.org().as_str() != "nosuch";
    let origin = Origin {
        request_id: "foreign-0001".into(),
        ..Origin::default()
    };
    let caller = Caller {
        principal: scope.principal().clone(),
        tier: scope.tier(),
        key_organizations: Vec::new(),
        also_principal: None,
        origin: origin.clone(),
    };
    match name {
        "approval::decide" => {
            let word = Word {
                approved: true,
                comment: None,
            };
            not_found(of, approval::decide(cx, scope, &origin, (run, "main"), word).await);
        }
        "approval::decide_as" => {
            let word = Word {
                approved: true,
                comment: None,
            };
            not_found(
                of,
                approval::decide_as(cx, scope, &origin, (run, "main"), "ann", word).await,
            );
        }
        "approval::link" => not_found(of, approval::link(cx, scope, &origin, (run, "main"), "ann", None).await),
        "approval::list" => not_found(of, approval::list(cx, scope, run).await),
        "resume_run::resume" => {
            not_found(
                of,
                resume_run::resume(cx, scope, &origin, run, CodeOf::Pinned, None).await,
            );
        }
        "artifact::list" => not_found(of, artifact::list(cx, scope, run).await),
        "recording::of_run" => not_found(of, recording::of_run(cx, scope, run, None).await),
        "artifact::open" => {
            let id = ArtifactId::of(run, "out.txt", &sha256_hex(b"contoso's own"));
            not_found(of, artifact::open(cx, scope, run, &id).await);
        }
        "audit_log::list" => match audit_log::list(cx, scope, AuditQuery::default()).await {
            Ok(page) => {
                for entry in page.items {
                    assert_eq!(entry.plain.owner.to_string(), scope.org().as_str(), "{of}");
                    assert!(!format!("{entry:?}").contains(run.as_str()), "{of}: {entry:?}");
                }
            }
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        // The code is everybody's; what of it is refused is the stranger's own.
        "offer::get" => match offer::get(cx, scope, WORKFLOW, None).await {
            Ok((_, offered)) => assert!(offered.refused.is_empty(), "{of}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "offer::list" => match offer::list(cx, scope, &offer::Wanted::default(), (None, 10)).await {
            Ok((_, offered, _)) => assert_eq!(offered.len(), 1, "{of}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "control_run::cancel" => not_found(of, control_run::cancel(cx, scope, &origin, run).await),
        "drive_run::continue_run" => {
            let continued = drive_run::continue_run(cx, reference, cx.clock.now()).await.unwrap();
            assert_eq!(continued, Continued::Unknown, "{of}");
        }
        "hook::create" => {
            let error = hook::create(cx, scope, &origin, hook_of("nosuch")).await.unwrap_err();
            assert!(!there || error.code() == "hook_invalid", "{of}: {error}");
        }
        "hook::list" => match hook::list(cx, scope).await {
            Ok(hooks) => assert!(hooks.is_empty(), "{of}: {hooks:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "hook::delete" | "hook::get" | "hook::replace" | "hook::rotate" => {
            let contoso = operator_in(&operator(), &org("contoso"));
            let id = cx.hooks.list(&contoso).await.unwrap().remove(0).hook.id;
            match name {
                "hook::delete" => not_found(of, hook::delete(cx, scope, &origin, &id).await),
                "hook::get" => not_found(of, hook::get(cx, scope, &id).await),
                "hook::replace" => {
                    not_found(
                        of,
                        hook::replace(cx, scope, &origin, &id, hook_of(WORKFLOW), None).await,
                    );
                }
                _ => not_found(
                    of,
                    hook::rotate(cx, scope, &origin, &id, hook::Rotation::default()).await,
                ),
            }
        }
        "queue_trigger::create" => {
            let members = queue_trigger_of("nosuch");
            let error = queue_trigger::create(cx, scope, &origin, &members).await.unwrap_err();
            assert!(!there || error.code() == "queue_trigger_invalid", "{of}: {error}");
        }
        "queue_trigger::list" => match queue_trigger::list(cx, scope, 10, None).await {
            Ok((triggers, _)) => assert!(triggers.is_empty(), "{of}: {triggers:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        _ if name.starts_with("queue_trigger::") => {
            let contoso = operator_in(&operator(), &org("contoso"));
            let (triggers, _) = cx.queue_triggers.list(&contoso, 10, None).await.unwrap();
            let id = &triggers[0].trigger.id;
            let members = queue_trigger_of(WORKFLOW);
            match name {
                "queue_trigger::delete" => {
                    not_found(of, queue_trigger::delete(cx, scope, &origin, id, None).await);
                }
                "queue_trigger::drop_set_aside" => {
                    not_found(of, queue_trigger::drop_set_aside(cx, scope, &origin, id, "0").await);
                }
                "queue_trigger::get" => not_found(of, queue_trigger::get(cx, scope, id).await),
                "queue_trigger::get_set_aside" => {
                    not_found(of, queue_trigger::get_set_aside(cx, scope, id, "0").await);
                }
                "queue_trigger::list_set_aside" => {
                    not_found(of, queue_trigger::list_set_aside(cx, scope, id, 10, None).await);
                }
                "queue_trigger::open" => not_found(of, queue_trigger::open(cx, scope, &origin, id, None).await),
                "queue_trigger::put_back" => {
                    not_found(of, queue_trigger::put_back(cx, scope, &origin, id, "0").await);
                }
                "queue_trigger::replace" => {
                    not_found(of, queue_trigger::replace(cx, scope, &origin, id, &members, None).await);
                }
                _ => not_found(of, queue_trigger::send(cx, scope, &origin, id, &Map::new()).await),
            }
        }
        // The library is everybody's, and this installation has nothing in it.
        "node_type::get" => not_found(of, node_type::get(cx, scope, "shout").await),
        "node_type::list" => match node_type::list(cx, scope, &node_type::Wanted::default(), None, 50).await {
            Ok((listed, _)) => {
                let mut listed = listed.iter().filter(|one| one.origin() != node_type::Origin::BuiltIn);
                assert!(listed.all(|one| one.name() == WORKFLOW), "{of}");
            }
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "node_type::used_by" => not_found(of, node_type::used_by(cx, scope, "shout").await),
        "node_type::version" => not_found(of, node_type::version(cx, scope, "shout", "1.0.0").await),
        // Everything about it is the stranger's own.
        "plan::make" => match weft::usecase::plan::make(cx, scope, &origin, WORKFLOW, &Map::new(), (None, false)).await
        {
            Ok(planned) => assert!(!planned.manifest.to_string().contains("contoso"), "{of}: {planned:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "policy::effective" => match policy::effective(cx, scope, Some(WORKFLOW)).await {
            Ok(effective) => assert!(effective.startable(), "{of}: {effective:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "policy::organization" => match policy::organization(cx, scope).await {
            Ok(stored) => assert_eq!(stored.policy, Policy::default(), "{of}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "usage::get" => match weft::usecase::usage::get(cx, scope).await {
            Ok(usage) => assert_eq!(usage.used.artifact_bytes, 0, "{of}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "policy::put_organization" => {
            let change = Change {
                written: Map::new(),
                if_tag: Some(contoso_policy(app).await),
            };
            match policy::put_organization(cx, scope, &origin, &change).await {
                Err(error) => assert!(!there || error.code() == "policy_changed", "{of}: {error}"),
                Ok(written) => panic!("{of}: {written:?}"),
            }
        }
        "quarantine::list" => match quarantine::list(cx, scope, 50, None).await {
            Ok((facts, _)) => assert!(facts.is_empty(), "{of}: {facts:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "quarantine::requeue" => not_found(of, quarantine::requeue(cx, scope, &origin, run).await),
        "quarantine::quarantine" => {
            let continued = quarantine::quarantine(cx, reference, key::Queue::Runs, cx.clock.now())
                .await
                .unwrap();
            assert_eq!(continued, Continued::Unknown, "{of}");
        }
        "provide_data::inputs" => assert_eq!(provide_data::inputs(cx, scope, DATA_PROVIDER).await.unwrap().len(), 1),
        "provide_data::list" => assert_eq!(
            provide_data::list(cx, scope).await.unwrap().len(),
            1 + weft::definition::built_in_providers().len()
        ),
        "provide_data::options" => {
            let of_provider = |provider: &str| provide_data::Asked {
                provider: provider.to_owned(),
                ..provide_data::Asked::default()
            };
            for one in weft::definition::built_in_providers() {
                let answer = provide_data::options(cx, scope, &origin, of_provider(&one.name), (None, 200)).await;
                let said = answer.map_or_else(|_| String::new(), |options| format!("{:?}", options.items));
                assert!(
                    !said.contains("contoso") && !said.contains("sample:"),
                    "{of} {}: {said}",
                    one.name
                );
            }
            let asked = app.scripted.asked().len();
            let answer = provide_data::options(cx, scope, &origin, of_provider(DATA_PROVIDER), (None, 200)).await;
            if there {
                answer.unwrap();
            }
            for asked in &app.scripted.asked()[asked..] {
                // What foreign code is told is of its own organization.
                assert_eq!(asked.context["organization"]["id"], scope.org().as_str(), "{of}");
                let said = asked.context.to_string();
                assert!(
                    !said.contains("Engineering") && !said.contains("contoso"),
                    "{of}: {said}"
                );
            }
        }
        "query_run::details" => {
            // Who holds the row of a foreign run still gets none of the values that it refers to.
            not_found_or_missing(of, query_run::details(cx, scope, stored.clone()).await);
        }
        "query_run::get" => not_found(of, query_run::get(cx, scope, run).await),
        "query_run::list" => {
            for requester in [None, Some(stored.new.requester.id.clone())] {
                let query = RunQuery {
                    requester,
                    limit: 200,
                    ..RunQuery::default()
                };
                match query_run::list(cx, scope, query).await {
                    Ok((runs, _)) => assert!(runs.is_empty(), "{of}: {runs:?}"),
                    Err(error) => assert!(!there, "{of}: {error}"),
                }
            }
        }
        "query_run::logs" => not_found(of, query_run::logs(cx, scope, run, (0, 0)).await),
        "query_run::steps" => not_found(of, query_run::steps(cx, scope, run).await),
        "rerun::rerun" => {
            for code in [Code::Pinned, Code::Current] {
                let input = Rerun {
                    run: run.clone(),
                    code,
                    wait: None,
                    idempotency_key: None,
                    received_at: cx.clock.now(),
                    origin: origin.clone(),
                    gone: CancellationToken::new(),
                    unindexed: Vec::new(),
                };
                not_found(of, rerun::rerun(cx, scope, input).await);
            }
        }
        "watch::open" => not_found(of, watch::open(cx, scope, run, Wanted::default()).await),
        "watch::page" => {
            not_found(of, watch::page(cx, scope, run, Wanted::default(), Duration::ZERO).await);
        }
        "schedule::create" => {
            let error = schedule::create(cx, scope, &origin, &schedule_of("nosuch"))
                .await
                .unwrap_err();
            assert!(!there || error.code() == "schedule_invalid", "{of}: {error}");
        }
        "schedule::delete" => {
            let id = contoso_schedule(app).await;
            not_found(of, schedule::delete(cx, scope, &origin, &id, None).await);
        }
        "schedule::get" => not_found(of, schedule::get(cx, scope, &contoso_schedule(app).await).await),
        "schedule::list" => match schedule::list(cx, scope, 10, None).await {
            Ok((schedules, _)) => assert!(schedules.is_empty(), "{of}: {schedules:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        // It is about nobody's data.
        "schedule::preview" => {
            let previewed = schedule::preview(cx, scope, ("@daily", "UTC", None), 3).unwrap();
            assert_eq!(previewed.unwrap().len(), 3, "{of}");
        }
        "schedule::trigger" => {
            let id = contoso_schedule(app).await;
            not_found(of, schedule::trigger(cx, scope, &origin, &id, None).await);
        }
        "schedule::update" => {
            let change = schedule::Change {
                written: schedule_of(WORKFLOW),
                if_tag: None,
            };
            let id = contoso_schedule(app).await;
            not_found(of, schedule::update(cx, scope, &origin, &id, &change).await);
        }
        "query_run::items" => not_found(of, query_run::items(cx, scope, (run, "main"), 10, None).await),
        "query_run::output" => not_found(of, query_run::output(cx, scope, (run, "main"), None).await),
        "secret::delete" => not_found(of, secret::delete(cx, scope, &origin, SECRET).await),
        "secret::list" => match secret::list(cx, scope).await {
            Ok(secrets) => assert!(secrets.is_empty(), "{of}: {secrets:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "secret::put" => {
            let error = secret::put(cx, scope, &origin, Ok(secret_of("abc"))).await.unwrap_err();
            assert!(!there || error.code() == "secret_invalid", "{of}: {error}");
        }
        "start_run::start_run" => {
            let mut input = start(cx.clock.now(), None);
            input.workflow = "nosuch".into();
            not_found(of, start_run(cx, scope, input).await);
        }
        "admit::crossing" | "admit::denied_in" | "admit::key_bypass" | "admit::list" => {
            let written = match name {
                "admit::list" => match admit::key_bypass(cx, scope, &caller).await {
                    Ok(record) => admit::list(cx, scope, &[record]).await,
                    Err(error) => Err(error),
                },
                "admit::crossing" => admit::crossing(cx, scope, &caller).await.map(drop),
                "admit::denied_in" => admit::denied_in(cx, scope, &caller, "not_permitted").await,
                _ => admit::key_bypass(cx, scope, &caller).await.map(drop),
            };
            // Where it can't be written the call is refused.
            assert_eq!(written.is_ok(), there, "{of}: {written:?}");
        }
        "workflow::archive" => {
            not_found(
                of,
                workflow::archive(cx, scope, &origin, (AUTHORED, true), &Expected::Anything).await,
            );
        }
        "workflow::diff" => not_found(of, workflow::diff(cx, scope, AUTHORED, (1, None)).await),
        "workflow::discard_draft" => {
            not_found(
                of,
                workflow::discard_draft(cx, scope, &origin, AUTHORED, &Expected::Anything).await,
            );
        }
        "workflow::get_draft" => not_found(of, workflow::get_draft(cx, scope, AUTHORED).await),
        "workflow::get_revision" => not_found(of, workflow::get_revision(cx, scope, AUTHORED, 1).await),
        "workflow::list_revisions" => not_found(of, workflow::list_revisions(cx, scope, AUTHORED, 10, None).await),
        "workflow::publish" => {
            not_found(
                of,
                workflow::publish(cx, scope, &origin, AUTHORED, (&Expected::Anything, "")).await,
            );
        }
        "workflow::restore" => {
            not_found(
                of,
                workflow::restore(cx, scope, &origin, (AUTHORED, 1), Expected::Nothing).await,
            );
        }
        "workflow::rollback" => {
            not_found(
                of,
                workflow::rollback(cx, scope, &origin, (AUTHORED, 1), &Expected::Anything).await,
            );
        }
        "workflow::save_draft" => {
            let contoso = operator_in(&operator(), &org("contoso"));
            let tag = workflow::get_draft(cx, &contoso, AUTHORED).await.unwrap().head.tag();
            let error = workflow::save_draft(cx, scope, &origin, save_of(Expected::Tag(tag)))
                .await
                .unwrap_err();
            assert!(!there || error.code() == "draft_changed", "{of}: {error}");
            assert!(!error.to_string().contains("operator"), "{of}: {error}");
        }
        "workflow::trust" => {
            let how = (AUTHORED, weft::domain::Trust::Restricted);
            not_found(of, workflow::trust(cx, scope, &origin, how, &Expected::Anything).await);
        }
        // The graph is the stranger's own.
        "workflow::validate" => match workflow::validate(cx, scope, AUTHORED, save_of(Expected::Nothing).graph).await {
            Ok((findings, _)) => assert!(findings.is_empty(), "{of}: {findings:?}"),
            Err(error) => assert!(!there, "{of}: {error}"),
        },
        "workflow_assignment::delete" => {
            not_found(
                of,
                workflow_assignment::delete(cx, scope, &origin, (AUTHORED, &ben())).await,
            );
        }
        "workflow_assignment::get" => not_found(of, workflow_assignment::get(cx, scope, AUTHORED, &ben()).await),
        "workflow_assignment::list" => {
            not_found(of, workflow_assignment::list(cx, scope, AUTHORED, 10, None).await);
        }
        "workflow_assignment::put" => {
            not_found(
                of,
                workflow_assignment::put(cx, scope, &origin, (AUTHORED, &ben())).await,
            );
            // No member of theirs: of everybody's workflow neither.
            not_found(
                of,
                workflow_assignment::put(cx, scope, &origin, (WORKFLOW, &ben())).await,
            );
        }
        "workflow_file::export" => {
            not_found(
                of,
                workflow_file::export(cx, scope, AUTHORED, (Format::Json, None)).await,
            );
        }
        "workflow_file::import" => {
            let contoso = operator_in(&operator(), &org("contoso"));
            let tag = workflow::get_draft(cx, &contoso, AUTHORED).await.unwrap().head.tag();
            let file = json!({"name": AUTHORED, "nodes": [{"id": "one", "type": "compute", "value": 1}]}).to_string();
            let error = workflow_file::import(cx, scope, &origin, (Format::Json, &file), Expected::Tag(tag)).await;
            let error = error.unwrap_err();
            assert!(!there || error.code() == "draft_changed", "{of}: {error}");
        }
        other => panic!("`{other}` is not tried"),
    }
}

/// The tag of contoso's policy, which is none of the others'.
async fn contoso_policy(app: &TestApp) -> String {
    let scope = operator_in(&operator(), &org("contoso"));
    policy::organization(&app.cx, &scope).await.unwrap().tag()
}

fn schedule_of(workflow: &str) -> Map<String, Value> {
    let written = json!({"name": "Contoso's own", "workflow": workflow, "cron": "@yearly"});
    written.as_object().unwrap().clone()
}

/// The schedule that contoso has.
async fn contoso_schedule(app: &TestApp) -> String {
    let scope = operator_in(&operator(), &org("contoso"));
    let (schedules, _) = schedule::list(&app.cx, &scope, 10, None).await.unwrap();
    schedules[0].id.to_string()
}

fn not_found_or_missing<T: std::fmt::Debug>(of: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Store(_)) => {}
        other => panic!("{of}: {other:?}"),
    }
}

/// A workflow that contoso has authored, with a revision and a draft.
const AUTHORED: &str = "contosos-own";

/// Somebody of contoso alone, to whom it is assigned.
fn ben() -> UserId {
    UserId::derived(Timestamp::from_millis(0), "sample:ben")
}

fn save_of(expected: Expected) -> workflow::Save {
    workflow::Save {
        name: AUTHORED.into(),
        graph: json!({"nodes": [{"id": "one", "type": "compute", "value": 1}]}),
        expected,
        clear: false,
    }
}

/// A secret that contoso has.
const SECRET: &str = "CONTOSO_KEY";

fn hook_of(workflow: &str) -> hook::HookInput {
    let members = json!({"name": "Contoso's", "workflow": workflow, "scheme": "weft"});
    hook::HookInput {
        members: members.as_object().unwrap().clone(),
        secret: None,
    }
}

fn queue_trigger_of(workflow: &str) -> Map<String, Value> {
    let members = json!({"name": "Contoso's", "workflow": workflow});
    members.as_object().unwrap().clone()
}

fn secret_of(value: &str) -> secret::WriteSecret {
    secret::WriteSecret {
        name: SECRET.into(),
        value: Secret::value(value),
        hosts: None,
        presented: None,
        description: None,
    }
}

fn start(received_at: Timestamp, idempotency_key: Option<&str>) -> StartRun {
    StartRun {
        draft: false,
        workflow: WORKFLOW.into(),
        arguments: Map::from_iter([("name".to_owned(), Value::from("Ada"))]),
        wait: Some(Duration::from_secs(30)),
        idempotency_key: idempotency_key.map(str::to_owned),
        received_at,
        origin: Origin::default(),
        unindexed: Vec::new(),
        ask: Ask::default(),
        begins: Begins::AtOnce,
        gone: CancellationToken::new(),
    }
}

/// The same idempotency key of two organizations is two keys, and the second run is in its own organization only.
#[tokio::test]
async fn an_idempotency_key_does_not_reach_across() {
    let app = Builder::default().on_disk().start().await;
    let cx: &Arc<_> = &app.cx;
    let (contoso, fabrikam) = (org("contoso"), org("fabrikam"));
    let scopes = [&contoso, &fabrikam].map(|org| operator_in(&operator(), org));
    let first = start_run(cx, &scopes[0], start(cx.clock.now(), Some("caller:one")))
        .await
        .unwrap();
    let before = dump(&app);
    let second = start_run(cx, &scopes[1], start(cx.clock.now(), Some("caller:one")))
        .await
        .unwrap();
    assert!(!second.repeated);
    assert_ne!(first.run.new.run, second.run.new.run);
    let touched = changed(&before, &dump(&app));
    assert!(!touched.is_empty());
    for (name, partition, row) in touched {
        assert!(
            name.ends_with("orgfabrikam") || name.ends_with("org-fabrikam") || name == "message weft-runs",
            "{name} {partition} {row}"
        );
    }
    let again = start_run(cx, &scopes[0], start(cx.clock.now(), Some("caller:one")))
        .await
        .unwrap();
    assert!(again.repeated);
    assert_eq!(again.run.new.run, first.run.new.run);
}

/// The same values of two organizations are two blobs: that somebody else has a value can't be found out.
#[tokio::test]
async fn values_are_kept_apart() {
    let app = Builder::default().on_disk().start().await;
    let large = json!({"name": "the same ".repeat(5_000)});
    for id in ["contoso", "fabrikam"] {
        app.run(id, large.clone()).await;
    }
    let all = dump(&app);
    let blobs = |container: &str| {
        all.keys()
            .filter(|(name, ..)| *name == format!("blob {container}"))
            .count()
    };
    assert!(blobs("org-contoso") > 0);
    assert_eq!(blobs("org-contoso"), blobs("org-fabrikam"));
}
