//! The node library: drafts, versions and who may; runs of its code in the real jail, what that may not do, and that nothing else
//! than what was published is run.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use weft::authz::{Action, KeyScope, Resource};
use weft::clock::{Clock, Entropy, ManualClock};
use weft::definition::parse_document;
use weft::domain::{Limits, NodeState, NodeTypeName, Timestamp};
use weft::store::port::{Ports, Put};
use weft::store::repo::audit_log::AuditQuery;
use weft::store::repo::node_types::NodeTypes;
use weft::store::{self, key};
use weft::tenancy::{operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};
use weft::usecase::seed::DEVELOPMENT_KEY;

const SHOUT: &str = r#"
async def run(ctx, inputs, settings):
    ctx.log.info("shouting", end=settings["end"])
    words = [inputs["text"], *inputs.get("more", [])]
    return {"text": " ".join(words).upper() + settings["end"] * settings["times"]}
"#;

fn shout(version: &str) -> Value {
    json!({
        "version": version,
        "title": "Shout",
        "description": "Says it louder.",
        "category": "Text",
        "icon": "megaphone",
        "inputs": [{"name": "text", "type": "string", "required": true}, {"name": "more", "type": "string", "multiple": true}],
        "outputs": [{"name": "text", "type": "string"}],
        "settings": [
            {"name": "end", "kind": "text", "default": "!", "maxLength": 3},
            {"name": "times", "kind": "integer", "default": 1, "min": 1, "max": 3},
        ],
        "code": SHOUT,
    })
}

/// A request by the platform's administrator of the sample.
async fn eve(app: &TestApp, method: &str, path: &str, tag: Option<&str>, body: Option<Value>) -> Answer {
    let mut request = app.request(method, path).person("eve");
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
}

async fn ann(app: &TestApp, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app.request(method, path).person("ann").organization("contoso");
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
}

async fn good(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn publish(app: &TestApp, name: &str, written: Value) -> Value {
    good(
        eve(
            app,
            "PUT",
            &format!("/api/node-types/{name}/draft"),
            None,
            Some(written),
        )
        .await,
    )
    .await;
    good(eve(app, "POST", &format!("/api/node-types/{name}/publish"), Some("*"), None).await).await
}

fn status(answer: &Answer) -> (u16, String) {
    (
        answer.status,
        if answer.status < 400 {
            String::new()
        } else {
            answer.code()
        },
    )
}

fn findings(answer: &Answer) -> Vec<(String, String)> {
    let body = answer.json();
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    errors
        .iter()
        .map(|finding| (text(&finding["pointer"]), text(&finding["code"])))
        .collect()
}

async fn events(app: &TestApp, organization: Option<&str>) -> Vec<String> {
    let query = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    let page = match organization {
        None => app.cx.audit.list(&operator(), query).await,
        Some(org) => {
            let scope = operator_in(&operator(), &org.parse().unwrap());
            app.cx.audit.list(&scope, query).await
        }
    };
    page.unwrap().items.into_iter().map(|entry| entry.plain.event).collect()
}

// ── storage and API ────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_node_type_from_its_first_draft_to_its_end() {
    let app = Builder::default()
        .graph(json!({
            "name": "greets",
            "nodes": [{"id": "loud", "type": "node", "use": "shout@1.0.0", "inputs": {"text": "hi"}}],
        }))
        .start()
        .await;
    let draft = "/api/node-types/shout/draft";
    assert_eq!(
        status(&eve(&app, "GET", draft, None, None).await),
        (404, "node_type_not_found".into())
    );

    let only_new = async |written: Value| {
        let request = app.request("PUT", draft).person("eve").header("if-none-match", "*");
        request.json(&written).send().await
    };
    let first = only_new(shout("1.0.0")).await;
    let tag = first.header("etag").to_owned();
    let first = good(first).await;
    assert_eq!(
        (&first["state"], &first["definition"]["title"]),
        (&json!("draft"), &json!("Shout"))
    );
    assert_eq!(
        status(&only_new(shout("1.0.0")).await),
        (412, "node_type_changed".into())
    );

    // Nobody can use or see what is a draft only.
    assert_eq!(ann(&app, "GET", "/api/node-types/shout", None).await.status, 404);
    let listed = good(ann(&app, "GET", "/api/node-types?origin=library", None).await).await;
    assert_eq!(listed["items"], json!([]));
    let all = good(eve(&app, "GET", "/api/platform/node-types", None, None).await).await;
    assert_eq!(
        (&all["items"][0]["name"], &all["items"][0]["draft"]),
        (&json!("shout"), &json!("1.0.0"))
    );
    let greets = ann(&app, "POST", "/api/workflows/greets/execute", Some(json!({}))).await;
    assert_eq!(status(&greets), (409, "node_types_unresolved".into()));
    assert_eq!(
        findings(&greets),
        [("/nodes/loud/use".to_owned(), "node_type_unknown".to_owned())]
    );

    // Another draft in its place; the tag of before is good for nothing any more.
    let mut louder = shout("1.0.0");
    louder["description"] = json!("Says it much louder.");
    let second = eve(&app, "PUT", draft, Some(&tag), Some(louder)).await;
    let new_tag = second.header("etag").to_owned();
    good(second).await;
    let late = eve(&app, "PUT", draft, Some(&tag), Some(shout("1.0.0"))).await;
    assert_eq!(status(&late), (412, "node_type_changed".into()));
    let publish = "/api/node-types/shout/publish";
    assert_eq!(
        status(&eve(&app, "POST", publish, None, None).await),
        (400, "parameter_invalid".into())
    );
    assert_eq!(
        status(&eve(&app, "POST", publish, Some(&tag), None).await),
        (412, "node_type_changed".into())
    );
    let published = good(eve(&app, "POST", publish, Some(&new_tag), None).await).await;
    assert_eq!(format!("\"{}\"", published["digest"].as_str().unwrap()), new_tag);

    // It never changes.
    let again = eve(&app, "PUT", draft, None, Some(shout("1.0.0"))).await;
    assert_eq!(status(&again), (409, "node_version_taken".into()));
    let version = good(ann(&app, "GET", "/api/node-types/shout/versions/1.0.0", None).await).await;
    assert_eq!(version["digest"], published["digest"]);
    assert_eq!(version["definition"]["code"], json!(SHOUT));
    assert_eq!(version["definition"]["description"], json!("Says it much louder."));
    assert_eq!(
        status(&ann(&app, "GET", "/api/node-types/shout/versions/9.9.9", None).await),
        (404, "node_version_not_found".into())
    );

    // A newer one; what came before a release is not the newest.
    for version in ["1.1.0", "2.0.0-rc1"] {
        good(eve(&app, "PUT", draft, None, Some(shout(version))).await).await;
        good(eve(&app, "POST", publish, Some("*"), None).await).await;
    }
    let found = good(ann(&app, "GET", "/api/node-types/shout", None).await).await;
    assert_eq!(found["use"], "shout@1.1.0");
    let versions: Vec<_> = found["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["version"].clone())
        .collect();
    assert_eq!(versions, ["1.0.0", "1.1.0", "2.0.0-rc1"]);

    // Found by words, category and origin, page by page.
    for (query, names) in [
        ("?origin=built_in&search=request", vec!["http"]),
        ("?search=LOUDER", vec!["shout"]),
        ("?search=says%20text", vec!["shout"]),
        ("?search=nothing", vec![]),
        ("?category=text", vec!["shout"]),
        ("?origin=workspace", vec!["hello"]),
    ] {
        let listed = good(ann(&app, "GET", &format!("/api/node-types{query}"), None).await).await;
        let listed: Vec<_> = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].clone())
            .collect();
        assert_eq!(listed, names, "{query}");
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = good(ann(&app, "GET", &format!("/api/node-types?limit=4{cursor}"), None).await).await;
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|one| format!("{} {}", one["origin"], one["name"])));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 17, "{names:?}");
    assert_eq!(names[0], "\"built_in\" \"approval\"");
    assert_eq!(names[15..], ["\"library\" \"shout\"", "\"workspace\" \"hello\""]);
    for bad in ["?origin=elsewhere", "?cursor=nonsense"] {
        assert_eq!(
            ann(&app, "GET", &format!("/api/node-types{bad}"), None).await.status,
            400,
            "{bad}"
        );
    }

    let users = good(ann(&app, "GET", "/api/node-types/shout/used-by", None).await).await;
    assert_eq!(
        users["items"],
        json!([{"workflow": "greets", "node": "loud", "version": "1.0.0"}])
    );

    // Deprecated it can be used as before.
    let deprecate = "/api/node-types/shout/versions/1.1.0/deprecate";
    assert_eq!(eve(&app, "POST", deprecate, None, Some(json!({}))).await.status, 400);
    let told = good(eve(&app, "POST", deprecate, None, Some(json!({"message": "use whisper"}))).await).await;
    assert_eq!(
        (&told["state"], &told["message"]),
        (&json!("deprecated"), &json!("use whisper"))
    );
    let found = good(ann(&app, "GET", "/api/node-types/shout", None).await).await;
    assert_eq!(found["deprecated"], true);
    let plan = ann(&app, "POST", "/api/workflows/greets/plan", Some(json!({}))).await;
    assert_eq!(plan.status, 200, "{}", plan.text());

    // A draft can go, and with it a type that is nothing else.
    for (name, left) in [("shout", 200), ("whisper", 404)] {
        let draft = format!("/api/node-types/{name}/draft");
        good(eve(&app, "PUT", &draft, None, Some(shout("3.0.0"))).await).await;
        assert_eq!(
            eve(&app, "DELETE", &draft, Some("\"sha256:0\""), None).await.status,
            412
        );
        assert_eq!(eve(&app, "DELETE", &draft, None, None).await.status, 204);
        assert_eq!(eve(&app, "DELETE", &draft, None, None).await.status, 404);
        let all = good(eve(&app, "GET", "/api/platform/node-types", None, None).await).await;
        let is_there = all["items"].as_array().unwrap().iter().any(|one| one["name"] == name);
        assert_eq!(is_there, left == 200, "{name}");
    }
    // No blob is left that nothing leads to.
    let blobs = app
        .ports
        .blobs
        .list(&key::library_container(), "", None)
        .await
        .unwrap()
        .blobs;
    assert_eq!(blobs.len(), 3, "{blobs:?}");

    let events = events(&app, None).await;
    for event in ["changed", "published", "deprecated", "deleted"] {
        assert!(events.contains(&format!("node_type.{event}")), "{event}: {events:?}");
    }
}

#[tokio::test]
async fn who_may_write_and_who_may_trust() {
    let app = TestApp::start().await;
    let draft = "/api/node-types/shout/draft";
    for person in ["ann", "ben", "cleo", "dora"] {
        let answer = app
            .request("PUT", draft)
            .person(person)
            .json(&shout("1.0.0"))
            .send()
            .await;
        assert_eq!(status(&answer), (403, "not_permitted".into()), "{person}");
        let list = app
            .request("GET", "/api/platform/node-types")
            .person(person)
            .send()
            .await;
        assert_eq!(list.status, 403, "{person}");
    }
    let scope = |action| KeyScope::One(Resource::NodeType, action);
    let write = [scope(Action::Create), scope(Action::Modify)];
    let of_one = app.key(&[&"contoso".parse().unwrap()], &write, None).await;
    let answer = app
        .request("PUT", draft)
        .key(&of_one)
        .json(&shout("1.0.0"))
        .send()
        .await;
    assert_eq!(
        status(&answer),
        (403, "not_permitted".into()),
        "a key of one organization is not the platform's"
    );
    let changes_only = app.key(&[], &[scope(Action::Modify)], None).await;
    let answer = app
        .request("PUT", draft)
        .key(&changes_only)
        .json(&shout("1.0.0"))
        .send()
        .await;
    assert_eq!(answer.status, 403, "it makes none");
    let key = app.key(&[], &write, None).await;
    let mut trusted = shout("1.0.0");
    trusted["trust"] = json!("trusted");
    let answer = app.request("PUT", draft).key(&key).json(&trusted).send().await;
    assert_eq!(status(&answer), (403, "node_type_trust".into()));
    assert_eq!(
        app.request("PUT", draft)
            .key(&key)
            .json(&shout("1.0.0"))
            .send()
            .await
            .status,
        200
    );
    // What a person trusts, a key can't publish.
    good(eve(&app, "PUT", draft, None, Some(trusted)).await).await;
    let publish = app
        .request("POST", "/api/node-types/shout/publish")
        .header("if-match", "*");
    assert_eq!(status(&publish.key(&key).send().await), (403, "node_type_trust".into()));
    good(eve(&app, "POST", "/api/node-types/shout/publish", Some("*"), None).await).await;
    assert!(events(&app, None).await.contains(&"node_type.trusted".to_owned()));
    // A page of another site can send neither without being asked first.
    for path in [
        "/api/node-types/shout/test",
        "/api/node-types/shout/versions/1.0.0/deprecate",
    ] {
        let plain = app.request("POST", path).person("eve").body("{}");
        let answer = plain
            .header("content-type", "application/x-www-form-urlencoded")
            .send()
            .await;
        assert_eq!(answer.status, 415, "{path}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_draft_is_said_at_once() {
    let app = TestApp::start().await;
    let mut written = shout("1.x");
    written["settings"][0]["kind"] = json!("txet");
    written["titel"] = json!("x");
    let answer = eve(&app, "PUT", "/api/node-types/shout/draft", None, Some(written)).await;
    assert_eq!(status(&answer), (400, "node_type_invalid".into()));
    let codes: Vec<_> = findings(&answer).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, ["unknown_member", "bad_version", "not_one_of"]);
    assert!(answer.text().contains("did you mean `title`?") && answer.text().contains("did you mean `text`?"));
    let answer = eve(&app, "PUT", "/api/node-types/Shout/draft", None, Some(shout("1.0.0"))).await;
    assert_eq!(status(&answer), (400, "parameter_invalid".into()));
    let written = json!({"version": "1.0.0", "function": "nowhere"});
    let answer = eve(&app, "PUT", "/api/node-types/calls/draft", None, Some(written)).await;
    assert_eq!(findings(&answer), [("/function".to_owned(), "unknown_use".to_owned())]);
}

/// Settings and inputs are checked where the library is; what is wrong has the place of its node.
#[tokio::test]
async fn a_graph_is_checked_against_what_it_uses() {
    let node = |used: &str, inputs: Value, settings: Value| json!({"id": "n", "type": "node", "use": used, "inputs": inputs, "settings": settings});
    let graph =
        |name: &str, node: Value| json!({"name": name, "parameters": [{"name": "t", "type": "json"}], "nodes": [node]});
    let cases = [
        (
            "good",
            node(
                "shout@1.0.0",
                json!({"text": {"$": "inputs.t"}}),
                json!({"times": {"$": "inputs.t"}}),
            ),
            vec![],
        ),
        (
            "newer",
            node("shout@1.2.0", json!({"text": "a"}), json!({})),
            vec![("/nodes/n/use", "node_version_unknown")],
        ),
        (
            "slip",
            node("shuot@1.0.0", json!({"text": "a"}), json!({})),
            vec![("/nodes/n/use", "node_type_unknown")],
        ),
        (
            "settings",
            node(
                "shout@1.0.0",
                json!({"text": "a"}),
                json!({"edn": "!", "end": "????", "times": 9}),
            ),
            vec![
                ("/nodes/n/settings/edn", "setting_unknown"),
                ("/nodes/n/settings/end", "setting_invalid"),
                ("/nodes/n/settings/times", "setting_invalid"),
            ],
        ),
        (
            "inputs",
            node("shout@1.0.0", json!({"txet": "a", "more": "b"}), json!({})),
            vec![
                ("/nodes/n/inputs/txet", "input_unknown"),
                ("/nodes/n/inputs", "input_missing"),
                ("/nodes/n/inputs/more", "input_invalid"),
            ],
        ),
        (
            "secret",
            node("asks@1.0.0", json!({}), json!({"token": "hunter2"})),
            vec![("/nodes/n/settings/token", "setting_invalid")],
        ),
        (
            "open-secret",
            node("asks@1.0.0", json!({}), json!({"token": {"$": "inputs.t"}})),
            vec![("/nodes/n/settings/token", "setting_invalid")],
        ),
        (
            "no-secret",
            node("shout@1.0.0", json!({"text": "a"}), json!({"end": {"$secret": "A"}})),
            vec![("/nodes/n/settings/end", "setting_invalid")],
        ),
        (
            "without",
            node("asks@1.0.0", json!({}), json!({})),
            vec![("/nodes/n/settings", "setting_missing")],
        ),
    ];
    let mut builder = Builder::default();
    for (name, node, _) in &cases {
        builder = builder.graph(graph(name, node.clone()));
    }
    let app = builder.start().await;
    publish(&app, "shout", shout("1.0.0")).await;
    let asks = json!({
        "version": "1.0.0",
        "settings": [{"name": "token", "kind": "secret", "required": true}],
        "code": "def run(ctx, inputs, settings):\n    return 1\n",
    });
    publish(&app, "asks", asks).await;
    for (name, _, expected) in cases {
        let answer = ann(
            &app,
            "POST",
            &format!("/api/workflows/{name}/plan"),
            Some(json!({"t": "a"})),
        )
        .await;
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(p, c)| (p.to_owned(), c.to_owned()))
            .collect();
        let wanted = if expected.is_empty() {
            (200, String::new())
        } else {
            (409, "node_types_unresolved".into())
        };
        assert_eq!(status(&answer), wanted, "{name}: {}", answer.text());
        assert_eq!(findings(&answer), expected, "{name}");
        // The workflow says it of itself.
        let shown = good(ann(&app, "GET", &format!("/api/workflows/{name}"), None).await).await;
        let said = shown["findings"].as_array().map_or(0, Vec::len);
        assert_eq!(said, expected.len(), "{name}: {shown}");
    }
    let slip = ann(&app, "POST", "/api/workflows/slip/plan", Some(json!({}))).await;
    assert!(slip.text().contains("did you mean `shout`?"), "{}", slip.text());
    let newer = ann(&app, "POST", "/api/workflows/newer/plan", Some(json!({}))).await;
    assert!(newer.text().contains("the newest is `shout@1.0.0`"), "{}", newer.text());
}

/// What people of an organization author uses the library too, and isn't published with what isn't there.
#[tokio::test]
async fn an_organization_s_graph_uses_it() {
    let app = TestApp::start().await;
    let graph = json!({
        "name": "ours",
        "nodes": [{"id": "n", "type": "node", "use": "shout@1.0.0", "inputs": {"text": "a"}}],
    });
    let draft = app
        .request("PUT", "/api/workflows/ours/draft")
        .person("ann")
        .organization("contoso");
    let saved = draft.header("if-none-match", "*").json(&graph).send().await;
    assert!(matches!(saved.status, 200 | 201), "{}", saved.text());
    let tag = saved.header("etag").to_owned();
    let publish_it = async || {
        let request = app
            .request("POST", "/api/workflows/ours/publish")
            .person("ann")
            .organization("contoso");
        request.header("if-match", &tag).json(&json!({})).send().await
    };
    let early = publish_it().await;
    assert_eq!(status(&early), (400, "workflow_invalid".into()));
    assert_eq!(
        findings(&early),
        [("/nodes/n/use".to_owned(), "node_type_unknown".to_owned())]
    );
    publish(&app, "shout", shout("1.0.0")).await;
    let published = publish_it().await;
    assert!(matches!(published.status, 200 | 201), "{}", published.text());
    let users = good(ann(&app, "GET", "/api/node-types/shout/used-by", None).await).await;
    assert_eq!(
        users["items"],
        json!([{"workflow": "ours", "node": "n", "version": "1.0.0"}])
    );
    // Nobody else's business.
    let other = app
        .request("GET", "/api/node-types/shout/used-by")
        .person("dora")
        .organization("fabrikam");
    assert_eq!(good(other.send().await).await["items"], json!([]));
    let shown = good(ann(&app, "GET", "/api/workflows/ours", None).await).await;
    assert!(shown["findings"].as_array().is_none_or(Vec::is_empty), "{shown}");
}

/// What names no exact version keeps its file out, and the finding names the newest.
#[tokio::test]
async fn versions_are_exact() {
    let app = TestApp::start().await;
    publish(&app, "shout", shout("1.0.0")).await;
    let second = Builder::default()
        .beside(&app)
        .graph(json!({"name": "late", "nodes": [
            {"id": "a", "type": "node", "use": "shout@latest"},
            {"id": "b", "type": "node", "use": "shout@1.x"},
            {"id": "c", "type": "node", "use": "other"},
        ]}))
        .start()
        .await;
    let catalog = second.cx.catalogs.current().await.unwrap().catalog;
    let found: Vec<_> = catalog
        .findings
        .iter()
        .map(|one| (one.code.as_str(), one.hint.as_deref().unwrap()))
        .collect();
    let exact = "write an exact version; the newest is `shout@1.0.0`";
    assert_eq!(found[0], ("node_version_not_exact", exact));
    assert_eq!(found[1], ("node_version_not_exact", exact));
    assert!(found[2].1.contains("as `shout@1.2.0`"), "{found:?}");
    assert!(!catalog.workflows.contains_key("late"));
}

/// What both stores must do alike.
async fn library(ports: &Ports) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let types = NodeTypes::new(ports.clone(), clock.clone());
    let platform = operator();
    let random = Entropy::System.bytes::<8>().map(|byte| format!("{byte:02x}")).concat();
    let name: NodeTypeName = format!("t{random}").parse().unwrap();
    let document = |version: &str, code: &str| {
        let Value::Object(written) = json!({"version": version, "code": code}) else {
            panic!("an object")
        };
        parse_document(&name, &written, &Limits::default()).unwrap()
    };
    let [first, second] = ["a = 1", "a = 2"].map(|code| document("1.0.0", code));
    types.put_draft(&platform, (None, None), &first).await.unwrap();
    // Two who begin: one is told.
    let late = types.put_draft(&platform, (None, None), &second).await;
    assert!(matches!(late, Err(store::Error::AlreadyExists { .. })), "{late:?}");
    let read = async || {
        let head = types.head(&platform, &name).await.unwrap().unwrap();
        (head, types.draft(&platform, &name).await.unwrap().unwrap())
    };
    let (head, draft) = read().await;
    types
        .put_draft(&platform, (Some(&head), Some(&draft)), &second)
        .await
        .unwrap();
    // Whoever has read what was before publishes nothing.
    let late = types.publish(&platform, (&head, &draft), &first).await;
    assert!(matches!(late, Err(store::Error::PreconditionFailed { .. })), "{late:?}");
    let gone = types.document(&platform, &first.digest()).await;
    assert!(
        matches!(gone, Err(store::Error::Corrupt { .. })),
        "what nothing leads to is deleted: {gone:?}"
    );
    let (head, draft) = read().await;
    types.publish(&platform, (&head, &draft), &second).await.unwrap();
    assert_eq!(types.draft(&platform, &name).await.unwrap(), None);
    for version in ["1.10.0", "1.2.0"] {
        let head = types.head(&platform, &name).await.unwrap();
        let next = document(version, "a = 3");
        types.put_draft(&platform, (head.as_ref(), None), &next).await.unwrap();
        let (head, draft) = read().await;
        types.publish(&platform, (&head, &draft), &next).await.unwrap();
    }
    let versions = types.versions(&platform, &name).await.unwrap();
    let versions: Vec<_> = versions.iter().map(|version| version.version.to_string()).collect();
    assert_eq!(versions, ["1.0.0", "1.2.0", "1.10.0"]);
    let head = types.head(&platform, &name).await.unwrap().unwrap();
    assert_eq!(
        (head.head.newest.as_ref().unwrap().to_string(), head.head.versions),
        ("1.10.0".to_owned(), 3)
    );
    // Another instance, which has nothing in memory.
    let other = NodeTypes::new(ports.clone(), clock);
    let published = other.published(&platform, &second.named()).await.unwrap().unwrap();
    assert_eq!(
        (&published.document, published.digest.as_str()),
        (&second, second.digest().as_str())
    );
    let named = document("1.0.1", "a").named();
    assert_eq!(other.published(&platform, &named).await.unwrap(), None);
    assert_eq!(other.deprecate(&platform, &head, &named, "x").await.unwrap(), None);
    let deprecated = other
        .deprecate(&platform, &head, &second.named(), "x")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (deprecated.state, deprecated.message.as_deref()),
        (NodeState::Deprecated, Some("x"))
    );
    let path = key::node_type_blob(second.digest().trim_start_matches("sha256:"));
    let evil = document("1.0.0", "evil()").to_bytes();
    ports
        .blobs
        .put(&key::library_container(), &path, evil.into(), Put::Overwrite)
        .await
        .unwrap();
    let third = NodeTypes::new(ports.clone(), Arc::new(ManualClock::new(Timestamp::from_millis(0))));
    let tampered = third.published(&platform, &second.named()).await;
    assert!(matches!(tampered, Err(store::Error::Corrupt { .. })), "{tampered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_in_the_embedded_store() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
    let ports = store::sqlite::open(None, clock).unwrap();
    weft::boot::prepare(&ports).await.unwrap();
    library(&ports).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_in_azure() {
    if let Some((_, ports)) = crate::azure::azurite() {
        weft::boot::prepare(&ports).await.unwrap();
        library(&ports).await;
    }
}

// ── in the jail ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A workspace with these graphs, and a function.
fn workspace(graphs: &[Value]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("workflows");
    fs::create_dir_all(&folder).unwrap();
    for graph in graphs {
        let name = graph["name"].as_str().unwrap();
        fs::write(folder.join(format!("{name}.json")), graph.to_string()).unwrap();
    }
    let code =
        "from weft import node\n\n\n@node\ndef join(text: str, sep: str = \"-\") -> str:\n    return sep.join(text)\n";
    fs::write(folder.join("tools.py"), code).unwrap();
    dir
}

async fn jailed(folder: &Path) -> TestApp {
    Builder::default().python().workspace(folder).start().await
}

async fn run(app: &TestApp, workflow: &str, arguments: Value) -> Value {
    let path = format!("/api/workflows/{workflow}/execute");
    let answer = app.request("POST", &path).key(DEVELOPMENT_KEY).organization("contoso");
    let answer = answer.json(&arguments).send().await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}

fn uses(name: &str, used: &str, inputs: Value, settings: Value) -> Value {
    json!({
        "name": name,
        "parameters": [{"name": "value", "type": "json", "required": false, "default": null}],
        "nodes": [{"id": "n", "type": "node", "use": used, "inputs": inputs, "settings": settings}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_runs_in_the_jail_and_on_every_instance() {
    let folder = workspace(&[
        uses(
            "greets",
            "shout@1.0.0",
            json!({"text": {"$": "inputs.value"}, "more": ["b"]}),
            json!({"times": 2}),
        ),
        uses("joins", "joined@1.0.0", json!({"text": "abc"}), json!({"sep": "+"})),
        uses("wrong", "wrong@1.0.0", json!({}), json!({})),
    ]);
    let app = jailed(folder.path()).await;
    publish(&app, "shout", shout("1.0.0")).await;
    let joined = json!({
        "version": "1.0.0",
        "function": "join",
        "inputs": [{"name": "text", "type": "string", "required": true}],
        "outputs": [{"name": "result", "whole": true}],
        "settings": [{"name": "sep", "default": "-"}],
    });
    publish(&app, "joined", joined).await;
    let wrong = json!({
        "version": "1.0.0",
        "outputs": [{"name": "n", "type": "integer"}],
        "code": "def run(ctx, inputs, settings):\n    return {\"n\": \"seven\"}\n",
    });
    publish(&app, "wrong", wrong).await;

    let ran = run(&app, "greets", json!({"value": "a"})).await;
    assert_eq!(ran["result"], json!({"text": "A B!!"}), "{ran}");
    let logs = ann(
        &app,
        "GET",
        &format!("/api/runs/{}/logs", ran["runId"].as_str().unwrap()),
        None,
    )
    .await;
    assert!(logs.text().contains("shouting"), "{}", logs.text());
    // Its code is in no workspace that could make the attempt again: it is not recorded, as a function's is.
    let recorded = async |ran: &Value| {
        let path = format!("/api/runs/{}/recording", ran["runId"].as_str().unwrap());
        good(
            app.request("GET", &path)
                .person("ben")
                .organization("contoso")
                .send()
                .await,
        )
        .await["attempts"]
            .clone()
    };
    assert_eq!(recorded(&ran).await, json!([]));
    let joined = run(&app, "joins", json!({})).await;
    assert_eq!(joined["result"], "a+b+c");
    assert_eq!(recorded(&joined).await.as_array().map(Vec::len), Some(1), "{joined}");
    // Values that only a run knows are held to the ports; and so is what comes out.
    let ran = run(&app, "greets", json!({"value": 7})).await;
    assert_eq!(ran["error"]["type"], "InvalidInput", "{ran}");
    assert!(ran["error"]["message"].as_str().unwrap().contains("`text`"), "{ran}");
    let ran = run(&app, "wrong", json!({})).await;
    assert_eq!(ran["error"]["type"], "InvalidOutput", "{ran}");
    assert!(
        ran["error"]["message"].as_str().unwrap().contains("output `n`"),
        "{ran}"
    );

    // A run is pinned to the bytes: the other instance has read nothing of it yet.
    let other = Builder::default()
        .python()
        .workspace(folder.path())
        .beside(&app)
        .start()
        .await;
    assert_eq!(
        run(&other, "greets", json!({"value": "x"})).await["result"],
        json!({"text": "X B!!"})
    );
}

// ── maps, loops and data edges ─────────────────────────────────────────────────────────────────────────────────────────

fn called(name: &str, nodes: Value, edges: Value) -> Value {
    json!({
        "name": name,
        "parameters": [{"name": "value", "type": "json", "required": false, "default": null}],
        "nodes": nodes,
        "edges": edges,
    })
}

/// Maps and loops are checked, counted and held to what is published as nodes of type `node` are.
#[tokio::test]
async fn maps_and_loops_are_checked_against_what_they_use() {
    let list = json!(["a"]);
    let good_map = json!({"id": "m", "type": "map", "use": "shout@1.0.0", "items": list, "settings": {"end": {"$": "index ~ ''"}}});
    let bad = [
        (
            "set",
            json!({"id": "m", "type": "map", "use": "shout@1.0.0", "items": list, "settings": {"times": 9, "edn": "?"}}),
            vec![
                ("/nodes/m/settings/edn", "setting_unknown"),
                ("/nodes/m/settings/times", "setting_invalid"),
            ],
        ),
        (
            "given",
            json!({"id": "m", "type": "map", "use": "shout@1.0.0", "items": list, "inputs": {"more": ["b"], "txet": 1}}),
            vec![
                ("/nodes/m/inputs/txet", "input_unknown"),
                ("/nodes/m/inputs", "input_missing"),
            ],
        ),
        (
            "unknown",
            json!({"id": "l", "type": "loop", "use": "shout@9.0.0", "until": "true", "most": 2}),
            vec![("/nodes/l/use", "node_version_unknown")],
        ),
        (
            "needy",
            json!({"id": "l", "type": "loop", "use": "shout@1.0.0", "until": "true", "most": 2}),
            vec![("/nodes/l/inputs", "input_missing")],
        ),
    ];
    let mut app = Builder::default().graph(called("maps", json!([good_map]), json!([])));
    for (name, node, _) in &bad {
        app = app.graph(called(name, json!([node]), json!([])));
    }
    let app = app.start().await;
    publish(&app, "shout", shout("1.0.0")).await;
    for (name, _, expected) in bad {
        let answer = ann(&app, "POST", &format!("/api/workflows/{name}/execute"), Some(json!({}))).await;
        assert_eq!(status(&answer), (409, "node_types_unresolved".into()), "{name}");
        let expected: Vec<_> = expected
            .iter()
            .map(|(at, code)| ((*at).to_owned(), (*code).to_owned()))
            .collect();
        assert_eq!(findings(&answer), expected, "{name}");
    }
    let plan = ann(&app, "POST", "/api/workflows/maps/plan", Some(json!({}))).await;
    assert_eq!(plan.status, 200, "{}", plan.text());
    let users = good(ann(&app, "GET", "/api/node-types/shout/used-by", None).await).await;
    let used: Vec<_> = users["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| &user["workflow"])
        .collect();
    assert_eq!(used, ["given", "maps", "needy", "set", "unknown"]);
}

#[tokio::test]
async fn an_organization_s_edges_are_checked_against_the_library() {
    let app = TestApp::start().await;
    publish(&app, "shout", shout("1.0.0")).await;
    let graph = called(
        "ours",
        json!([
            {"id": "list", "type": "compute", "value": [1]},
            {"id": "map", "type": "map", "use": "shout@1.0.0", "items": ["a"]},
            {"id": "n", "type": "node", "use": "shout@1.0.0", "inputs": {"more": ["b"]}},
            {"id": "wait", "type": "delay"},
        ]),
        json!([
            {"from": "map", "to": "n", "output": "results", "input": "text"},
            {"from": "list", "to": "n", "output": "value", "input": "more"},
            {"from": "list", "to": "n", "input": "txet"},
            {"from": "n", "to": "wait", "output": "txet", "input": "seconds"},
        ]),
    );
    let validated = ann(&app, "POST", "/api/workflows/ours/validate", Some(graph)).await;
    let body = validated.json();
    let found: Vec<_> = body["findings"]
        .as_array()
        .unwrap_or_else(|| panic!("{body}"))
        .iter()
        .map(|one| (one["pointer"].as_str().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("/edges/0/input", "port_type"),
            ("/edges/1/input", "port_set_and_fed"),
            ("/edges/2/input", "port_unknown"),
            ("/edges/3/output", "port_unknown"),
        ],
        "{body}"
    );
}

const COUNTS: &str = r#"
def run(ctx, inputs, settings):
    return {"n": inputs["n"] + 1, "kind": type(inputs["n"]).__name__, "all": inputs.get("all", [])}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_called_by_maps_and_loops_and_fed_by_edges() {
    let value = json!({"$": "inputs.value"});
    let folder = workspace(&[
        called(
            "items",
            json!([
                {"id": "m", "type": "map", "use": "shout@1.0.0", "items": value, "settings": {"end": {"$": "index ~ ''"}}, "onItemFailure": "continue"},
            ]),
            json!([]),
        ),
        called(
            "given",
            json!([{"id": "m", "type": "map", "use": "joined@1.0.0", "items": value, "settings": {"sep": {"$": "item.sep"}}}]),
            json!([]),
        ),
        called(
            "rounds",
            json!([{
                "id": "l", "type": "loop", "use": "counts@1.0.0", "inputs": {"n": {"$": "output.n if iteration else inputs.value"}},
                "until": "output.n >= 5", "most": 9,
            }]),
            json!([]),
        ),
        called(
            "edges",
            json!([
                {"id": "seven", "type": "template", "template": "7"},
                {"id": "half", "type": "compute", "value": 2.0},
                {"id": "count", "type": "node", "use": "counts@1.0.0"},
                {"id": "again", "type": "map", "use": "counts@1.0.0", "items": [0], "inputs": {"n": {"$": "item"}}},
            ]),
            json!([
                {"from": "seven", "to": "count", "output": "text", "input": "n"},
                {"from": "half", "to": "count", "output": "value", "input": "all"},
                {"from": "seven", "to": "count", "output": "text", "input": "all"},
                {"from": "count", "to": "again", "output": "n", "input": "all"},
            ]),
        ),
    ]);
    let app = jailed(folder.path()).await;
    publish(&app, "shout", shout("1.0.0")).await;
    let counts = json!({
        "version": "1.0.0",
        "inputs": [{"name": "n", "type": "integer", "required": true}, {"name": "all", "type": "number", "multiple": true}],
        "outputs": [{"name": "n", "type": "integer"}, {"name": "kind", "type": "string"}, {"name": "all", "type": "array"}],
        "code": COUNTS,
    });
    publish(&app, "counts", counts).await;
    let joined = json!({
        "version": "1.0.0",
        "function": "join",
        "inputs": [{"name": "text", "type": "string", "required": true}],
        "outputs": [{"name": "result", "whole": true}],
        "settings": [{"name": "sep", "default": "-"}],
    });
    publish(&app, "joined", joined).await;

    // An item that is an object has the inputs; what doesn't fit to the ports fails its item alone.
    let ran = run(
        &app,
        "items",
        json!({"value": [{"text": "a", "more": ["b"]}, {"text": 7}, {"txet": "c"}]}),
    )
    .await;
    assert_eq!(ran["result"], json!([{"text": "A B0"}, null, null]), "{ran}");
    let steps = ann(
        &app,
        "GET",
        &format!("/api/runs/{}/steps/m/items", ran["runId"].as_str().unwrap()),
        None,
    )
    .await;
    assert!(steps.text().contains("InvalidInput"), "{}", steps.text());
    let ran = run(
        &app,
        "given",
        json!({"value": [{"text": "abc", "sep": "+"}, {"text": "de", "sep": "/"}]}),
    )
    .await;
    assert_eq!(ran["result"], json!(["a+b+c", "d/e"]), "{ran}");
    let ran = run(&app, "rounds", json!({"value": 2})).await;
    assert_eq!(ran["result"]["n"], 5, "{ran}");
    // What edges carry is converted by the table, for each edge of an input that takes several.
    let ran = run(&app, "edges", json!({})).await;
    assert_eq!(ran["result"], json!([{"n": 1, "kind": "int", "all": [8]}]), "{ran}");
    let path = format!("/api/runs/{}/steps/count/output", ran["runId"].as_str().unwrap());
    let output = good(ann(&app, "GET", &path, None).await).await;
    assert_eq!(
        output["output"],
        json!({"n": 8, "kind": "int", "all": [2.0, 7]}),
        "{output}"
    );
}

/// What restricted code tries, and what each gave: an error's name, or what it got.
const HOSTILE: &str = r#"
import random


def tried(what):
    try:
        return repr(what())[:80]
    except BaseException as error:
        return "refused: " + type(error).__name__


def imports(name):
    return lambda: __import__(name)


def run(ctx, inputs, settings):
    os = random._os
    found = {name: tried(imports(name)) for name in ("os", "subprocess", "socket", "ctypes", "weft_runtime", "workflows")}
    found["reads"] = tried(lambda: open(inputs["engine"]).read())
    found["lists"] = tried(lambda: os.listdir(inputs["workspace"]))
    found["writes"] = tried(lambda: open("/tmp/weft-hostile", "w"))
    found["forks"] = tried(os.fork)
    found["spawns"] = tried(lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 600"], {}))
    found["environment"] = sorted(os.environ)

    def connects():
        import sys

        socket = sys.modules.get("_socket") or __builtins__["__import__"]("_socket")
        socket.socket(2, 1).connect(("127.0.0.1", 80))

    found["connects"] = tried(connects)
    found["secret"] = tried(lambda: ctx.secrets.get("token"))
    return found
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_code_gets_nowhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = root.join("engine/weft_runtime/worker.py");
    let folder = workspace(&[uses(
        "attacks",
        "hostile@1.0.0",
        json!({"engine": engine, "workspace": root.join("workspace")}),
        json!({}),
    )]);
    let app = jailed(folder.path()).await;
    // What can be seen is said when it is written, with its line.
    for (code, finding) in [
        (
            "import subprocess\n\ndef run(ctx, inputs, settings):\n    pass\n",
            "import_forbidden",
        ),
        (
            "import weft_runtime\n\ndef run(ctx, inputs, settings):\n    pass\n",
            "import_forbidden",
        ),
        ("def run(ctx, inputs, settings)\n    pass\n", "syntax_error"),
        ("def run(ctx):\n    pass\n", "run_signature"),
        ("import random\nrandom._os._exit(3)\n", "import_failed"),
        ("while True:\n    x = [0] * (1 << 40)\n", "import_failed"),
    ] {
        let written = json!({"version": "1.0.0", "code": code});
        let answer = eve(&app, "PUT", "/api/node-types/bad/draft", None, Some(written)).await;
        assert_eq!(status(&answer), (400, "node_type_invalid".into()), "{code}");
        let [(place, code)] = findings(&answer).try_into().unwrap();
        assert_eq!(code, finding);
        assert!(
            place.starts_with("library/bad@1.0.0.py:1:") || place == "/code" || code == "import_failed",
            "{place}"
        );
    }
    let port = |name: &str| json!({"name": name, "type": "string"});
    let written = json!({"version": "1.0.0", "inputs": [port("engine"), port("workspace")], "code": HOSTILE});
    publish(&app, "hostile", written).await;
    let ran = run(&app, "attacks", json!({})).await;
    assert_eq!(ran["status"], "succeeded", "{ran}");
    let found = &ran["result"];
    let tried: Vec<_> = found
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "environment")
        .collect();
    assert_eq!(tried.len(), 13, "{found}");
    for (name, outcome) in tried {
        assert!(outcome.as_str().unwrap().starts_with("refused: "), "{name}: {found}");
    }
    assert!(!found["environment"].to_string().contains("WEFT"), "{found}");
    assert!(!Path::new("/tmp/weft-hostile").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_shows_what_the_code_does() {
    let folder = workspace(&[]);
    let app = jailed(folder.path()).await;
    let draft = "/api/node-types/shout/draft";
    let test = "/api/node-types/shout/test";
    good(eve(&app, "PUT", draft, None, Some(shout("1.0.0"))).await).await;
    let body = json!({"inputs": {"text": "a"}, "settings": {"end": "?"}});
    let tried = good(eve(&app, "POST", test, None, Some(body)).await).await;
    assert_eq!(
        (&tried["outcome"], &tried["output"]),
        (&json!("succeeded"), &json!({"text": "A?"}))
    );
    assert_eq!(tried["logs"][0]["message"], "shouting");
    let bad = eve(
        &app,
        "POST",
        test,
        None,
        Some(json!({"inputs": {"txet": "a"}, "settings": {"times": 7}})),
    )
    .await;
    let places: Vec<_> = findings(&bad).into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["/inputs/txet", "/inputs/text", "/settings/times"]);

    // As restricted, whatever it asks for; a failure has its line, what is organization's is not there, and time is short.
    for (code, kind, told) in [
        (
            "def run(ctx, inputs, settings):\n    return 1 / 0\n",
            "ZeroDivisionError",
            "line 2, in run",
        ),
        (
            "def run(ctx, inputs, settings):\n    import os\n",
            "ImportError",
            "`os` refused",
        ),
        (
            "def run(ctx, inputs, settings):\n    return ctx.kv.get(\"a\")\n",
            "NotAvailable",
            "no organization",
        ),
    ] {
        let written = json!({"version": "1.0.0", "trust": "trusted", "code": code});
        good(eve(&app, "PUT", draft, None, Some(written)).await).await;
        let tried = good(eve(&app, "POST", test, None, Some(json!({}))).await).await;
        assert_eq!(
            (&tried["outcome"], &tried["error"]["type"]),
            (&json!("failed"), &json!(kind)),
            "{tried}"
        );
        assert!(tried["error"].to_string().contains(told), "{tried}");
    }
    let slow = json!({"version": "1.0.0", "timeoutSeconds": 0.2, "code": "def run(ctx, inputs, settings):\n    while True:\n        pass\n"});
    good(eve(&app, "PUT", draft, None, Some(slow)).await).await;
    let tried = good(eve(&app, "POST", test, None, Some(json!({}))).await).await;
    assert_eq!(tried["outcome"], "timed_out", "{tried}");
    assert!(events(&app, None).await.contains(&"node_type.tested".to_owned()));
    // A warning keeps nothing from being written.
    let warns = json!({"version": "1.0.0", "code": "def run(ctx, inputs, settings):\n    return inputs[\"x\"]\n"});
    let draft = good(eve(&app, "PUT", draft, None, Some(warns)).await).await;
    assert_eq!(draft["noticed"][0]["code"], "unknown_inputs", "{draft}");
    assert_eq!(draft["noticed"][0]["pointer"], "library/shout@1.0.0.py:2:12", "{draft}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_tampered_with_is_not_run() {
    let folder = workspace(&[uses("greets", "shout@1.0.0", json!({"text": "a"}), json!({}))]);
    let app = jailed(folder.path()).await;
    let published = publish(&app, "shout", shout("1.0.0")).await;
    let digest = published["digest"]
        .as_str()
        .unwrap()
        .trim_start_matches("sha256:")
        .to_owned();
    let (container, path) = (key::library_container(), key::node_type_blob(&digest));
    let good_bytes = app.ports.blobs.get(&container, &path, 1 << 20).await.unwrap().unwrap();
    let text = String::from_utf8(good_bytes.to_vec()).unwrap();
    let evil = text.replace(".upper()", ".lower()");
    assert_ne!(evil, text);
    app.ports
        .blobs
        .put(&container, &path, evil.into(), Put::Overwrite)
        .await
        .unwrap();

    // Whoever has read it before goes on with what was published; whoever reads it now notices.
    assert_eq!(run(&app, "greets", json!({})).await["result"], json!({"text": "A!"}));
    let other = Builder::default()
        .python()
        .workspace(folder.path())
        .beside(&app)
        .start()
        .await;
    let answer = ann(&other, "POST", "/api/workflows/greets/execute", Some(json!({}))).await;
    assert_eq!(status(&answer), (409, "node_type_tampered".into()));
    let answer = ann(&other, "GET", "/api/node-types/shout/versions/1.0.0", None).await;
    assert_eq!(status(&answer), (409, "node_type_tampered".into()));
    assert!(
        events(&other, Some("contoso"))
            .await
            .contains(&"node_type.tampered".to_owned())
    );

    // A run that is under way finds out as well: its plan names the digest.
    let queued = app
        .request("POST", "/api/workflows/greets/execute")
        .header("prefer", "respond-async");
    let queued = queued
        .key(DEVELOPMENT_KEY)
        .organization("contoso")
        .json(&json!({}))
        .send()
        .await;
    let id = queued.json()["runId"].as_str().unwrap().to_owned();
    assert!(other.deliver_all().await);
    let run = ann(&app, "GET", &format!("/api/runs/{id}"), None).await.json();
    assert_eq!(
        (&run["status"], &run["error"]["type"]),
        (&json!("failed"), &json!("node_type_tampered")),
        "{run}"
    );
}
