//! Workflows that people of an organization author through the API: drafts, revisions, what is called, and by whom.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft::clock::ManualClock;
use weft::domain::{Payload, Timestamp};
use weft::runner::scripted::Scene;
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key;
use weft::store::port::Ports;
use weft::store::repo::workflows::{
    About, By, CACHED_FOR, DraftHead, Head, KEPT_REVISIONS, RevisionHead, StoredRevision, StoredWorkflow, Workflows,
};
use weft::tenancy::{Scope, operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, Request, TestApp, WORKFLOW};
use weft::usecase::audit_log::AuditQuery;

/// A graph that gives its only input back, by a function of the workspace.
fn graph(name: &str, more: Value) -> Value {
    let mut graph = json!({
        "name": name,
        "description": "says something",
        "category": "Talk",
        "tags": ["loud"],
        "parameters": [{"name": "x", "type": "json"}],
        "nodes": [{"id": "say", "type": "python", "use": "a", "inputs": {"x": {"$": "inputs.x"}}}],
        "output": {"said": {"$": "steps.say.output"}, "by": 1},
    });
    graph.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    graph
}

fn builder() -> Builder {
    Builder::default().function("a", &["x"])
}

struct World {
    app: TestApp,
}

impl World {
    async fn new() -> Self {
        Self::of(builder()).await
    }

    async fn of(builder: Builder) -> Self {
        Self {
            app: builder.start().await,
        }
    }

    /// As the manager of contoso.
    fn to(&self, method: &str, path: &str) -> Request {
        self.app.request(method, path).person("ben").organization("contoso")
    }

    async fn put(&self, name: &str, seen: Option<&str>, graph: &Value) -> Answer {
        let request = self.to("PUT", &format!("/api/workflows/{name}/draft")).json(graph);
        match seen {
            None => request.header("If-None-Match", "*").send().await,
            Some(tag) => request.header("If-Match", tag).send().await,
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.to("GET", path).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.to("POST", path).json(&body).send().await
    }

    /// Saves a draft where there is none, and publishes it.
    async fn publish(&self, graph: &Value) -> Value {
        let name = graph["name"].as_str().unwrap();
        let saved = self.put(name, None, graph).await;
        assert!(saved.status < 300, "{saved:?}");
        let published = self
            .to("POST", &format!("/api/workflows/{name}/publish"))
            .header("If-Match", saved.header("etag"))
            .json(&json!({"message": "as agreed"}))
            .send()
            .await;
        assert_eq!(published.status, 200, "{published:?}");
        published.json()
    }

    async fn execute(&self, name: &str, arguments: Value) -> Answer {
        self.post(&format!("/api/workflows/{name}/execute"), arguments).await
    }

    async fn events(&self) -> Vec<String> {
        let query = AuditQuery {
            limit: 200,
            ..AuditQuery::default()
        };
        let page = self.app.cx.audit.list(&contoso(), query).await.unwrap();
        let events = page.items.into_iter().map(|entry| entry.plain.event.to_string());
        let mut events: Vec<_> = events.filter(|event| event.starts_with("workflow.")).collect();
        events.reverse();
        events
    }
}

fn contoso() -> Scope {
    operator_in(&operator(), &"contoso".parse().unwrap())
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_draft_is_saved_published_and_called() {
    let world = World::new().await;
    let saved = world.put("talk", None, &graph("talk", json!({}))).await;
    assert_eq!(saved.status, 201, "{saved:?}");
    assert_eq!(saved.json()["findings"], json!([]));
    // Nobody calls a draft by its name, and who may not write doesn't see it.
    refused(&world.execute("talk", json!({"x": 1})).await, 404, "workflow_not_found");
    let listed = world.get("/api/workflows?origin=organization").await;
    assert_eq!(listed["items"][0]["state"], "draft");
    assert_eq!(listed["items"][0]["draft"]["savedBy"]["name"], "Ben Baker");
    let cleo = world.app.request("GET", "/api/workflows?origin=organization");
    let cleo = cleo.person("cleo").organization("contoso").send().await;
    assert_eq!(cleo.json()["items"], json!([]));

    let draft = world.to("GET", "/api/workflows/talk/draft").send().await;
    assert_eq!(draft.header("etag"), saved.header("etag"));
    assert_eq!(draft.json()["graph"], graph("talk", json!({})));
    let published = world
        .to("POST", "/api/workflows/talk/publish")
        .json(&json!({"message": "first"}));
    refused(&published.send().await, 428, "precondition_required");
    let published = world
        .to("POST", "/api/workflows/talk/publish")
        .header("If-Match", draft.header("etag"))
        .json(&json!({"message": "first"}))
        .send()
        .await;
    assert_eq!(published.status, 200, "{published:?}");
    let body = published.json();
    assert_eq!(
        (&body["workflowRevision"]["number"], &body["archived"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(body["trust"], "restricted");
    // It is a revision now, and no draft any more.
    refused(
        &world.to("GET", "/api/workflows/talk/draft").send().await,
        404,
        "draft_not_found",
    );

    let ran = world.execute("talk", json!({"x": "hello"})).await;
    assert_eq!(ran.status, 200, "{ran:?}");
    let ran = ran.json();
    assert_eq!(ran["result"], json!({"said": {"x": "hello"}, "by": 1}));
    assert_eq!(
        ran["workflowRevision"],
        json!({"number": 1, "digest": body["workflowRevision"]["digest"]})
    );
    assert!(ran.get("test").is_none());
    refused(&world.execute("talk", json!({"y": 1})).await, 400, "arguments_invalid");

    let shown = world.to("GET", "/api/workflows/talk").send().await;
    assert_eq!(shown.header("etag"), published.header("etag"));
    let shown = shown.json();
    assert_eq!(
        (&shown["origin"], &shown["state"]),
        (&json!("organization"), &json!("published"))
    );
    assert_eq!(shown["parameters"]["properties"]["x"], json!({}));
    assert_eq!(shown["graph"]["nodes"][0]["use"], "a");
    assert_eq!(world.events().await, ["workflow.changed", "workflow.published"]);
}

#[tokio::test]
async fn nobody_s_draft_is_overwritten_unseen() {
    let world = World::new().await;
    let first = world.put("talk", None, &graph("talk", json!({}))).await;
    let other = graph("talk", json!({"active": 9}));
    refused(&world.put("talk", None, &other).await, 412, "draft_changed");
    // The same once more is the same request, whose answer was lost.
    let same = world.put("talk", None, &graph("talk", json!({}))).await;
    assert_eq!(
        (same.status, same.header("etag")),
        (200, first.header("etag")),
        "{same:?}"
    );
    let neither = world
        .to("PUT", "/api/workflows/talk/draft")
        .json(&graph("talk", json!({})));
    refused(&neither.send().await, 428, "precondition_required");
    let both = world.to("PUT", "/api/workflows/talk/draft").header("If-Match", "\"x\"");
    let both = both.header("If-None-Match", "*").json(&graph("talk", json!({})));
    refused(&both.send().await, 400, "parameter_invalid");

    // Somebody else saves.
    let anns = world
        .app
        .request("PUT", "/api/workflows/talk/draft")
        .person("ann")
        .organization("contoso");
    let anns = anns
        .header("If-Match", first.header("etag"))
        .json(&graph("talk", json!({"active": 2})));
    let anns = anns.send().await;
    assert_eq!(anns.status, 200, "{anns:?}");
    let late = world
        .put("talk", Some(first.header("etag")), &graph("talk", json!({"active": 3})))
        .await;
    refused(&late, 412, "draft_changed");
    let current = &late.json()["current"];
    assert_eq!(current["etag"], anns.header("etag"));
    assert_eq!(current["savedBy"]["name"], "Ann Archer");
    assert!(late.json()["detail"].as_str().unwrap().contains("Ann Archer"));
    assert_eq!(world.get("/api/workflows/talk/draft").await["graph"]["active"], 2);

    // An editor that has not loaded its graph saves nothing over it.
    let empty = graph("talk", json!({"nodes": [], "output": null}));
    refused(
        &world.put("talk", Some(anns.header("etag")), &empty).await,
        409,
        "draft_would_be_empty",
    );
    let cleared = world.to("PUT", "/api/workflows/talk/draft?clear=true").json(&empty);
    let cleared = cleared.header("If-Match", anns.header("etag")).send().await;
    assert_eq!(cleared.status, 200, "{cleared:?}");
    assert_eq!(cleared.json()["findings"][0]["code"], "empty_graph");

    // Two persons' saves are two records; a person's, one after the other, are one.
    let again = world
        .put("talk", Some(cleared.header("etag")), &graph("talk", json!({})))
        .await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(world.events().await, ["workflow.changed"; 3]);

    let discarded = world
        .to("DELETE", "/api/workflows/talk/draft")
        .header("If-Match", cleared.header("etag"));
    refused(&discarded.send().await, 412, "draft_changed");
    let discarded = world
        .to("DELETE", "/api/workflows/talk/draft")
        .header("If-Match", again.header("etag"));
    assert_eq!(discarded.send().await.status, 204);
    // It was never published, so nothing is left.
    assert_eq!(
        world.get("/api/workflows?origin=organization").await["items"],
        json!([])
    );
    let gone = world
        .put("talk", Some(again.header("etag")), &graph("talk", json!({})))
        .await;
    refused(&gone, 412, "draft_changed");
    assert_eq!(world.events().await.last().unwrap(), "workflow.deleted");
}

#[tokio::test]
async fn a_draft_may_be_unfinished_and_a_revision_not() {
    let world = World::new().await;
    for none in [json!({}), json!({"nodes": 7})] {
        refused(&world.put("talk", None, &none).await, 400, "not_a_graph");
    }
    refused(
        &world.put("Talk!", None, &graph("talk", json!({}))).await,
        400,
        "parameter_invalid",
    );
    let taken = world.put(WORKFLOW, None, &graph(WORKFLOW, json!({}))).await;
    refused(&taken, 409, "workflow_name_taken");
    assert!(
        taken.json()["detail"].as_str().unwrap().contains(".py:"),
        "{}",
        taken.text()
    );

    let unfinished = graph(
        "other",
        json!({"nodes": [
            {"id": "say", "type": "python", "use": "nobody"},
            {"id": "next", "type": "workflow", "workflow": "nothing"},
            {"id": "odd", "type": "teleport"},
        ]}),
    );
    let saved = world.put("talk", None, &unfinished).await;
    assert_eq!(saved.status, 201, "{saved:?}");
    let said = saved.json();
    let mut codes: Vec<_> = said["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    codes.sort_unstable();
    for code in ["name_differs", "unknown_node_type", "unknown_use", "unknown_workflow"] {
        assert!(codes.contains(&code), "{code}: {said}");
    }
    let published = world
        .to("POST", "/api/workflows/talk/publish")
        .header("If-Match", saved.header("etag"))
        .send()
        .await;
    refused(&published, 400, "workflow_invalid");
    assert_eq!(published.json()["errors"], said["findings"]);
    let validated = world.post("/api/workflows/talk/validate", unfinished).await;
    assert_eq!(validated.json(), json!({"valid": false, "findings": said["findings"]}));
    let validated = world
        .post("/api/workflows/talk/validate", graph("talk", json!({})))
        .await;
    assert_eq!(validated.json(), json!({"valid": true, "findings": []}));
    // What calls itself is a circle.
    let itself = graph(
        "talk",
        json!({"nodes": [{"id": "again", "type": "workflow", "workflow": "talk"}], "output": null}),
    );
    let validated = world.post("/api/workflows/talk/validate", itself).await;
    assert_eq!(validated.json()["findings"][0]["code"], "workflow_cycle");
}

#[tokio::test]
async fn revisions_stay_and_one_is_called() {
    let world = World::new().await;
    let first = world.publish(&graph("talk", json!({}))).await;
    let edges = json!({"nodes": [
        {"id": "say", "type": "python", "use": "a", "inputs": {"x": {"$": "inputs.x"}}, "retry": {"attempts": 2}},
        {"id": "more", "type": "compute", "value": 2},
    ], "edges": [{"from": "say", "to": "more"}], "output": {"by": 2}});
    world.publish(&graph("talk", edges)).await;
    assert_eq!(
        world.execute("talk", json!({"x": 1})).await.json()["result"],
        json!({"by": 2})
    );

    let revisions = world.get("/api/workflows/talk/revisions?limit=1").await;
    assert_eq!(revisions["items"][0]["number"], 2);
    assert_eq!(revisions["items"][0]["message"], "as agreed");
    let cursor = revisions["nextCursor"].as_str().unwrap();
    let rest = world
        .get(&format!("/api/workflows/talk/revisions?cursor={cursor}"))
        .await;
    assert_eq!(rest["items"][0]["digest"], first["workflowRevision"]["digest"]);
    assert_eq!(
        world.get("/api/workflows/talk/revisions/1").await["graph"],
        graph("talk", json!({}))
    );
    refused(
        &world.to("GET", "/api/workflows/talk/revisions/3").send().await,
        404,
        "revision_not_found",
    );

    let diff = world.get("/api/workflows/talk/revisions/2/diff").await;
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(2)));
    let said: Vec<_> = diff["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            format!(
                "{} {}",
                change["kind"].as_str().unwrap(),
                change["pointer"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "changed /output/by",
            "removed /output/said",
            "added /nodes/say/retry",
            "added /nodes/more",
            "added /edges/say -> more",
        ]
    );
    let nothing = world.get("/api/workflows/talk/revisions/2/diff?against=2").await;
    assert_eq!(nothing["changes"], json!([]));

    // Back to the first, and a draft of the second.
    let shown = world.to("GET", "/api/workflows/talk").send().await;
    let back = |tag: &str| {
        let request = world.to("POST", "/api/workflows/talk/rollback").header("If-Match", tag);
        request.json(&json!({"revision": 1}))
    };
    refused(&back("\"w1-0\"").send().await, 412, "workflow_changed");
    let rolled = back(shown.header("etag")).send().await;
    assert_eq!(rolled.json()["workflowRevision"]["number"], 1, "{rolled:?}");
    let ran = world.execute("talk", json!({"x": 1})).await.json();
    assert_eq!(
        (&ran["result"]["by"], &ran["workflowRevision"]["number"]),
        (&json!(1), &json!(1))
    );
    let restored = world
        .to("POST", "/api/workflows/talk/revisions/2/restore")
        .header("If-None-Match", "*")
        .send()
        .await;
    assert_eq!(restored.json()["graph"]["output"], json!({"by": 2}), "{restored:?}");
    assert_eq!(restored.json()["basedOn"], 1);
    // Numbers are never used again.
    let published = world
        .to("POST", "/api/workflows/talk/publish")
        .header("If-Match", restored.header("etag"))
        .send()
        .await;
    assert_eq!(published.json()["workflowRevision"]["number"], 3);

    let archived = world.post("/api/workflows/talk/archive", json!({})).await;
    assert_eq!(archived.json()["archived"], true, "{archived:?}");
    refused(&world.execute("talk", json!({"x": 1})).await, 409, "workflow_archived");
    refused(
        &world.post("/api/workflows/talk/archive", json!({})).await,
        409,
        "workflow_state",
    );
    refused(
        &world.post("/api/workflows/talk/rollback", json!({"revision": 1})).await,
        409,
        "workflow_archived",
    );
    assert_eq!(
        world.get("/api/workflows?origin=organization").await["items"],
        json!([])
    );
    let listed = world.get("/api/workflows?state=archived").await;
    assert_eq!(listed["items"][0]["archived"]["by"]["name"], "Ben Baker");
    // What would start it says so.
    let hook = json!({"name": "Talks", "workflow": "talk", "scheme": "weft"});
    let hook = world.post("/api/triggers/hooks", hook).await;
    refused(&hook, 400, "hook_invalid");
    assert!(hook.text().contains("was archived"), "{}", hook.text());
    assert_eq!(world.post("/api/workflows/talk/unarchive", json!({})).await.status, 200);
    assert_eq!(world.execute("talk", json!({"x": 1})).await.status, 200);
    assert_eq!(
        world.events().await,
        [
            "workflow.changed",
            "workflow.published",
            "workflow.changed",
            "workflow.published",
            "workflow.rolled_back",
            "workflow.changed",
            "workflow.published",
            "workflow.archived",
            "workflow.unarchived",
        ]
    );
}

#[tokio::test]
async fn others_call_it_and_it_calls_others() {
    let world = World::new().await;
    world.publish(&graph("inner", json!({}))).await;
    let outer = json!({"nodes": [{"id": "call", "type": "workflow", "workflow": "inner", "inputs": {"x": {"$": "inputs.x"}}}],
        "output": {"$": "steps.call.output"}});
    world.publish(&graph("outer", outer)).await;
    let drained = tokio::spawn(weft::usecase::deliver::consume(world.app.cx.clone()));
    let ran = world.execute("outer", json!({"x": 5})).await;
    drained.abort();
    assert_eq!(ran.json()["result"], json!({"said": {"x": 5}, "by": 1}), "{ran:?}");
    // A circle through another one is seen when it would be closed.
    let closed = graph(
        "inner",
        json!({"nodes": [{"id": "call", "type": "workflow", "workflow": "outer"}], "output": null}),
    );
    let saved = world.put("inner", None, &closed).await;
    assert_eq!(saved.json()["findings"][0]["code"], "workflow_cycle", "{saved:?}");

    for (path, body) in [
        (
            "/api/triggers/hooks",
            json!({"name": "Talks", "workflow": "inner", "scheme": "weft"}),
        ),
        ("/api/queue-triggers", json!({"name": "Talks", "workflow": "inner"})),
        (
            "/api/schedules",
            json!({"name": "Talks", "workflow": "inner", "cron": "@daily", "arguments": {"x": 1}}),
        ),
    ] {
        assert_eq!(world.post(path, body).await.status, 201, "{path}");
    }
    let plan = world.post("/api/workflows/outer/plan", json!({"x": 1})).await.json();
    assert_eq!(plan["manifest"]["workflowRevision"]["number"], 1);
    let hash = plan["hash"].as_str().unwrap();
    // Another revision of what it calls is another plan.
    let discarded = world.to("DELETE", "/api/workflows/inner/draft").send().await;
    assert_eq!(discarded.status, 204);
    world.publish(&graph("inner", json!({"active": 3}))).await;
    let planned = world
        .post(&format!("/api/workflows/outer/execute?plan={hash}"), json!({"x": 1}))
        .await;
    refused(&planned, 409, "plan_changed");
}

/// A run that is held to a plan starts what was called when it was asked for, or nothing.
#[tokio::test]
async fn a_child_of_a_planned_run_is_the_one_that_was_planned() {
    let world = World::new().await;
    let inner = |value: i64| {
        let nodes = json!([{"id": "one", "type": "compute", "value": value}]);
        graph("inner", json!({"nodes": nodes, "output": null}))
    };
    world.publish(&inner(1)).await;
    let outer = json!({"nodes": [
        {"id": "ask", "type": "approval", "question": "Now?"},
        {"id": "call", "type": "workflow", "workflow": "inner", "inputs": {}},
    ], "edges": [{"from": "ask", "to": "call"}], "output": null});
    world.publish(&graph("outer", outer)).await;
    let drained = tokio::spawn(weft::usecase::deliver::consume(world.app.cx.clone()));
    for (changes, status) in [(false, "succeeded"), (true, "failed")] {
        let plan = world.post("/api/workflows/outer/plan", json!({"x": 1})).await.json();
        let path = format!("/api/workflows/outer/execute?plan={}", plan["hash"].as_str().unwrap());
        let request = world.to("POST", &path).header("Prefer", "respond-async");
        let started = request.json(&json!({"x": 1})).send().await.json();
        let id = started["runId"].as_str().unwrap();
        let asks = format!("/api/runs/{id}/approvals");
        while world.get(&asks).await["items"].as_array().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if changes {
            world.publish(&inner(2)).await;
        }
        let decided = world
            .post(&format!("/api/runs/{id}/steps/ask/decision"), json!({"approved": true}))
            .await;
        assert!(decided.status < 300, "{decided:?}");
        let ran = ended(&world, id).await;
        assert_eq!(ran["status"], status, "{ran}");
        assert_eq!(ran.to_string().contains("plan_changed"), changes, "{ran}");
    }
    drained.abort();
}

#[tokio::test]
async fn what_the_workspace_no_longer_declares_is_said() {
    let world = World::new().await;
    world.publish(&graph("talk", json!({}))).await;
    world.publish(&graph("shout", json!({}))).await;
    // The workspace has changed: the function is gone, and a name is taken.
    let later = World::of(Builder::default().function("shout", &["x"]).beside(&world.app)).await;
    let listed = later.get("/api/workflows?origin=organization").await;
    let findings = |name: &str| {
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap()["findings"].clone()
    };
    assert_eq!(findings("talk")[0]["code"], "unknown_use");
    assert!(findings("talk")[0]["message"].as_str().unwrap().contains("`a`"));
    assert_eq!(findings("shout")[1]["code"], "name_taken");
    let broken = later.execute("talk", json!({"x": 1})).await;
    refused(&broken, 409, "workflow_broken");
    assert_eq!(broken.json()["errors"][0]["code"], "unknown_use");
    let status = later
        .app
        .request("GET", "/api/status")
        .person("eve")
        .send()
        .await
        .json();
    let shadowed = status["workspace"]["shadowed"].as_array().unwrap();
    assert_eq!(shadowed.len(), 1, "{status}");
    assert!(
        shadowed[0]["message"].as_str().unwrap().contains("`contoso`"),
        "{status}"
    );
    // The workspace's is called.
    let ran = later.execute("shout", json!({"x": 1})).await.json();
    assert!(
        ran.get("workflowRevision").is_none() && ran["status"] == "succeeded",
        "{ran}"
    );
    assert_eq!(later.get("/api/workflows/shout").await["origin"], "workspace");
    let theirs = later.get("/api/workflows/shout?origin=organization").await;
    assert_eq!(
        (&theirs["origin"], &theirs["kind"]),
        (&json!("organization"), &json!("graph"))
    );
}

#[tokio::test]
async fn commands_and_requests_are_trusted_by_an_administrator() {
    let world = World::new().await;
    let command = json!({"nodes": [{"id": "list", "type": "shell", "command": ["ls"]}], "output": null});
    world.publish(&graph("talk", command.clone())).await;
    let ran = world.execute("talk", json!({})).await;
    refused(&ran, 403, "policy_refused");
    assert_eq!(ran.json()["errors"][0]["code"], "not_trusted");
    let trust = |person: &'static str, to: &str| {
        let request = world
            .app
            .request("PUT", "/api/workflows/talk/trust")
            .person(person)
            .organization("contoso");
        request.json(&json!({"trust": to}))
    };
    refused(&trust("ben", "trusted").send().await, 403, "not_permitted");
    refused(&trust("ann", "trusted").send().await, 403, "trust_not_given");
    let trusted = trust("eve", "trusted").send().await;
    assert_eq!(trusted.json()["trust"], "trusted", "{trusted:?}");
    let plan = world.post("/api/workflows/talk/plan", json!({})).await.json();
    assert_eq!(plan["refused"], json!([]), "{plan}");
    // Another revision was looked at by nobody.
    world
        .publish(&graph(
            "talk",
            json!({"nodes": [{"id": "list", "type": "shell", "command": ["rm"]}], "output": null}),
        ))
        .await;
    refused(&world.execute("talk", json!({})).await, 403, "policy_refused");
    let back = world.post("/api/workflows/talk/rollback", json!({"revision": 1})).await;
    assert_eq!(back.json()["trust"], "trusted", "{back:?}");
    // Who is no longer trusted repeats nothing of before.
    let ran = world.execute("talk", json!({})).await.json();
    assert!(ran["runId"].is_string(), "{ran}");
    let path = format!("/api/runs/{}/rerun", ran["runId"].as_str().unwrap());
    let again = || world.post(&path, json!({}));
    assert!(again().await.status < 300);
    assert_eq!(trust("ann", "restricted").send().await.status, 200);
    refused(&again().await, 403, "policy_refused");
}

/// Whatever fails, whoever repeats the request gets the answer to the first, and nothing is there twice.
#[tokio::test]
async fn a_save_and_a_publication_can_be_repeated() {
    for fault in [Fault::Before, Fault::After] {
        let world = World::new().await;
        // Everything that is only looked up for the first request.
        world.get("/api/workflows").await;
        let mut failed = 0;
        for number in 1..40 {
            let name = format!("talk-{number}");
            let graph = graph(&name, json!({}));
            world
                .app
                .faults
                .plan(Plan::Script(vec![Rule::new(fault).prefix("orgcontoso").only(number)]));
            let saved = world.put(&name, None, &graph).await;
            let went_wrong = saved.status == 503;
            let saved = if went_wrong {
                world.put(&name, None, &graph).await
            } else {
                saved
            };
            assert!(saved.status < 300, "{fault:?} {number}: {saved:?}");
            let publish = || {
                let request = world.to("POST", &format!("/api/workflows/{name}/publish"));
                request.header("If-Match", saved.header("etag")).send()
            };
            let first = publish().await;
            world.app.faults.plan(Plan::Calm);
            let again = publish().await;
            assert_eq!(again.status, 200, "{fault:?} {number}: {again:?}");
            failed += u32::from(went_wrong || first.status == 503);
            let revisions = world.get(&format!("/api/workflows/{name}/revisions")).await;
            assert_eq!(
                revisions["items"].as_array().unwrap().len(),
                1,
                "{fault:?} {number}: {revisions}"
            );
            assert_eq!(
                world.execute(&name, json!({"x": 1})).await.status,
                200,
                "{fault:?} {number}"
            );
        }
        assert!(failed >= 5, "{fault:?}: nothing went wrong ({failed})");
    }
}

#[tokio::test]
async fn another_instance_follows_within_its_bound() {
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-06-01T12:00:00Z").unwrap()));
    let world = World::of(builder().clock(clock.clone())).await;
    let other = World::of(builder().clock(clock.clone()).beside(&world.app)).await;
    world.publish(&graph("talk", json!({}))).await;
    let number = |answer: Answer| answer.json()["workflowRevision"]["number"].clone();
    assert_eq!(number(other.execute("talk", json!({"x": 1})).await), 1);
    world.publish(&graph("talk", json!({"active": 2}))).await;
    assert_eq!(
        number(world.execute("talk", json!({"x": 1})).await),
        2,
        "whoever publishes knows it at once"
    );
    clock.advance(CACHED_FOR - Duration::from_millis(1));
    assert_eq!(number(other.execute("talk", json!({"x": 1})).await), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(number(other.execute("talk", json!({"x": 1})).await), 2);
}

#[tokio::test]
async fn lists_are_searched_and_come_in_pages() {
    let world = World::new().await;
    for (name, more) in [
        ("alpha", json!({})),
        ("beta", json!({"category": "Money", "tags": ["loud", "slow"]})),
        ("gamma", json!({"description": "Counts BETA things", "tags": []})),
    ] {
        world.publish(&graph(name, more)).await;
    }
    world.put("delta", None, &graph("delta", json!({}))).await;
    let names = async |query: &str| -> Vec<String> {
        let list = world.get(&format!("/api/workflows?{query}")).await;
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    // The workspace's functions among them, by name.
    assert_eq!(names("").await, ["a", "alpha", "beta", "delta", "gamma", WORKFLOW]);
    assert_eq!(names("origin=workspace").await, ["a", WORKFLOW]);
    assert_eq!(names("search=beta").await, ["beta", "gamma"]);
    assert_eq!(names("category=Money").await, ["beta"]);
    assert_eq!(names("tag=slow").await, ["beta"]);
    assert_eq!(names("state=draft").await, ["delta"]);
    assert_eq!(
        names("origin=organization&state=published").await,
        ["alpha", "beta", "gamma"]
    );
    assert_eq!(names("search=nothing").await, [""; 0]);
    refused(
        &world.to("GET", "/api/workflows?state=old").send().await,
        400,
        "parameter_invalid",
    );
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/api/workflows?limit=2&cursor={cursor}")).await;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "alpha", "beta", "delta", "gamma", WORKFLOW]);
}

#[tokio::test]
async fn a_workflow_goes_out_and_comes_in_as_a_file() {
    let world = World::new().await;
    world.publish(&graph("talk", json!({}))).await;
    let file = world.to("GET", "/api/workflows/talk/export").send().await;
    assert_eq!(file.header("content-type"), "application/json");
    assert_eq!(file.header("content-disposition"), "attachment; filename=\"talk.json\"");
    assert_eq!(file.json(), graph("talk", json!({})));
    let yaml = world
        .to("GET", "/api/workflows/talk/export?format=yaml&revision=1")
        .send()
        .await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    let yaml = yaml.text();
    assert!(yaml.contains("type: python"), "{yaml}");
    let import = |kind: &str, text: &str| {
        world
            .to("POST", "/api/workflows/import")
            .header("content-type", kind)
            .body(text.to_owned())
    };
    // What is there is not overwritten unseen.
    let there = import("application/yaml", &yaml).send().await;
    refused(&there, 412, "workflow_changed");
    let tag = there.json()["current"]["etag"].as_str().unwrap().to_owned();
    let again = import("application/yaml", &yaml).header("If-Match", &tag).send().await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.json()["findings"], json!([]));
    refused(
        &import("application/yaml", &yaml.replace("says something", "says more"))
            .header("If-Match", &tag)
            .send()
            .await,
        412,
        "draft_changed",
    );
    // The file says the same as the graph.
    let graphs = [
        world.get("/api/workflows/talk/draft").await,
        world.get("/api/workflows/talk").await,
    ];
    let plain = |graph: &Value| world.post("/api/workflows/talk/validate", graph["graph"].clone());
    for graph in &graphs {
        assert_eq!(plain(graph).await.json()["valid"], true);
    }
    let new = import("text/yaml", &yaml.replace("name: talk", "name: chat"))
        .send()
        .await;
    assert_eq!(new.status, 201, "{new:?}");
    assert_eq!(new.header("location"), "/api/workflows/chat/draft");
    // A mistake is said with its place.
    let broken = import(
        "application/json",
        "{\n \"name\": \"chat\",\n \"nodes\": [{\"id\": \"x\", \"type\": \"no\"}]}",
    )
    .send()
    .await;
    refused(&broken, 400, "workflow_invalid");
    assert!(
        broken.json()["errors"][0]["pointer"]
            .as_str()
            .unwrap()
            .starts_with("import.json:3:"),
        "{broken:?}"
    );
    refused(&import("text/plain", "x").send().await, 415, "media_type_unsupported");
    refused(
        &world
            .to("GET", &format!("/api/workflows/{WORKFLOW}/export"))
            .send()
            .await,
        409,
        "workflow_not_exported",
    );
    refused(
        &world.put("import", None, &graph("import", json!({}))).await,
        409,
        "workflow_name_taken",
    );
}

#[tokio::test]
async fn a_draft_is_tried_by_those_who_write_it() {
    let world = World::new().await;
    world.publish(&graph("talk", json!({}))).await;
    world
        .put("talk", None, &graph("talk", json!({"output": {"by": "draft"}})))
        .await;
    let run = |person: &'static str, query: &str| {
        let request = world
            .app
            .request("POST", &format!("/api/workflows/talk/execute{query}"));
        request
            .person(person)
            .organization("contoso")
            .json(&json!({"x": 1}))
            .send()
    };
    refused(&run("cleo", "?draft=true").await, 403, "not_permitted");
    let tried = run("ben", "?draft=true").await.json();
    assert_eq!(
        (&tried["result"], &tried["test"]),
        (&json!({"by": "draft"}), &json!(true)),
        "{tried}"
    );
    assert!(tried["workflowRevision"].get("number").is_none() && tried["workflowRevision"]["digest"].is_string());
    assert_eq!(run("ben", "").await.json()["result"]["by"], 1);
    for (filter, count) in [("true", 1), ("false", 1)] {
        let runs = world.get(&format!("/api/runs?workflow=talk&test={filter}")).await;
        assert_eq!(runs["items"].as_array().unwrap().len(), count, "{runs}");
        assert_eq!(runs["items"][0].get("test").is_some(), filter == "true");
    }
    let plan = world.post("/api/workflows/talk/plan?draft=true", json!({"x": 1})).await;
    assert_eq!(plan.status, 200, "{plan:?}");
    world
        .put("other", None, &graph("other", json!({"nodes": [], "output": null})))
        .await;
    let unfinished = world.post("/api/workflows/other/execute?draft=true", json!({})).await;
    refused(&unfinished, 400, "workflow_invalid");
    refused(
        &world.post("/api/workflows/none/execute?draft=true", json!({})).await,
        404,
        "draft_not_found",
    );
}

#[tokio::test]
async fn a_run_keeps_its_revision_and_is_resumed_with_it_or_with_the_next() {
    let world = World::new().await;
    let two = |by: i64| {
        json!({"nodes": [
        {"id": "first", "type": "compute", "value": by},
        {"id": "say", "type": "python", "use": "a", "inputs": {"x": 1}, "retry": {"attempts": 1}},
    ], "edges": [{"from": "first", "to": "say"}], "output": {"first": {"$": "steps.first.output"}, "by": by}})
    };
    world.publish(&graph("talk", two(1))).await;
    world.app.scripted.push("a", Scene::raises("ValueError", "no"));
    let failed = world.execute("talk", json!({})).await.json();
    assert_eq!(failed["status"], "failed", "{failed}");
    world.publish(&graph("talk", two(2))).await;
    let id = failed["runId"].as_str().unwrap();
    let drained = tokio::spawn(weft::usecase::deliver::consume(world.app.cx.clone()));
    for (code, number) in [("pinned", 1), ("current", 2)] {
        let resumed = world
            .post(&format!("/api/runs/{id}/resume?revision={code}"), json!({}))
            .await;
        assert_eq!(resumed.status, 202, "{resumed:?}");
        let run = resumed.json()["runId"].as_str().unwrap().to_owned();
        let run = ended(&world, &run).await;
        // What was done before is not done again, whatever is called now.
        assert_eq!(run["result"], json!({"first": 1, "by": number}), "{run}");
        assert_eq!(run["workflowRevision"]["number"], number);
    }
    drained.abort();
    let kept = world.get(&format!("/api/runs/{id}")).await;
    assert_eq!(kept["workflowRevision"]["number"], 1);
}

/// A run when it has ended.
async fn ended(world: &World, id: &str) -> Value {
    for _ in 0..6000 {
        let run = world.get(&format!("/api/runs/{id}")).await;
        if run["finishedAt"].is_string() {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("run {id} does not end");
}

#[tokio::test]
async fn what_it_costs_is_known() {
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-06-01T12:00:00Z").unwrap()));
    let world = World::of(builder().clock(clock.clone())).await;
    let large = |active: u32| graph("talk", json!({"active": active, "tags": vec!["long ".repeat(200); 40]}));
    let saved = world.put("talk", None, &large(1)).await;
    let calls = || {
        let counted = [Call::Get, Call::Query, Call::Commit, Call::PutBlob, Call::GetBlob];
        counted.map(|call| world.app.faults.count(call))
    };
    let cost = |before: [u64; 5]| -> Vec<u64> {
        calls()
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect()
    };
    let before = calls();
    let again = world.put("talk", Some(saved.header("etag")), &large(2)).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(cost(before), [1, 0, 1, 1, 0], "a save that is no new record");
    let before = calls();
    let published = world
        .to("POST", "/api/workflows/talk/publish")
        .header("If-Match", again.header("etag"))
        .send()
        .await;
    assert_eq!(published.status, 200, "{published:?}");
    let publishing = cost(before);
    assert_eq!(
        (publishing[1], publishing[3], publishing[4]),
        (0, 0, 1),
        "{publishing:?}"
    );
    assert!(
        publishing[0] <= 3 && publishing[2] <= 3,
        "its transaction, and two for its record: {publishing:?}"
    );
    // What the workspace's costs, and once in ten seconds one row more, with its blob.
    for name in ["a", "talk"] {
        world.execute(name, json!({"x": 1})).await;
    }
    let gets = async |name: &str| {
        let before = calls();
        assert_eq!(world.execute(name, json!({"x": 1})).await.status, 200);
        let cost = cost(before);
        (cost[0], cost[4])
    };
    let usual = gets("a").await;
    assert_eq!(gets("talk").await, usual);
    clock.advance(CACHED_FOR);
    // What is kept for a shorter time is read by this one.
    let usual = gets("a").await;
    clock.advance(CACHED_FOR);
    assert_eq!(gets("talk").await, (usual.0 + 1, usual.1 + 1));
}

#[tokio::test]
async fn whoever_only_sees_what_was_given_sees_what_is_assigned() {
    let world = World::new().await;
    world.publish(&graph("talk", json!({}))).await;
    world.publish(&graph("chat", json!({}))).await;
    let cleo = |method: &str, path: &str| world.app.request(method, path).person("cleo").organization("contoso");
    let seen = async || -> Vec<String> {
        let list = cleo("GET", "/api/workflows").send().await.json();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    // The workspace's are everybody's.
    assert_eq!(seen().await, ["a", WORKFLOW]);
    let run = |name: &str| {
        cleo("POST", &format!("/api/workflows/{name}/execute"))
            .json(&json!({"x": 1}))
            .send()
    };
    refused(&run("talk").await, 404, "workflow_not_found");
    let ran = world.execute("talk", json!({"x": "by ben"})).await.json()["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let ran = format!("/api/runs/{ran}");
    refused(&cleo("GET", &ran).send().await, 404, "run_not_found");

    let user = weft::domain::UserId::derived(Timestamp::from_millis(0), "sample:cleo");
    let place = format!("/api/workflows/talk/assignments/{user}");
    refused(&world.to("GET", &place).send().await, 404, "assignment_not_found");
    refused(&cleo("PUT", &place).send().await, 403, "not_permitted");
    assert_eq!(world.to("PUT", &place).send().await.status, 201);
    assert_eq!(world.to("PUT", &place).send().await.status, 200);
    let listed = world.get("/api/workflows/talk/assignments").await;
    assert_eq!(
        (&listed["items"][0]["user"], &listed["items"][0]["assignedBy"]["name"]),
        (&json!(user), &json!("Ben Baker"))
    );
    let stranger = weft::domain::UserId::derived(Timestamp::from_millis(0), "sample:dora");
    let stranger = world
        .to("PUT", &format!("/api/workflows/talk/assignments/{stranger}"))
        .send()
        .await;
    refused(&stranger, 404, "member_not_found");

    // A schedule has arguments, so it isn't there where its workflow isn't.
    let mut ids = Vec::new();
    for name in ["chat", "talk"] {
        let schedule = json!({"name": name, "workflow": name, "arguments": {"x": "of dora"}, "cron": "0 6 * * *"});
        let made = world.post("/api/schedules", schedule).await;
        assert_eq!(made.status, 201, "{made:?}");
        ids.push(made.json()["id"].as_str().unwrap().to_owned());
    }
    let shown = cleo("GET", "/api/schedules").send().await.json();
    let shown: Vec<_> = shown["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(shown, ["talk"]);
    let hidden = cleo("GET", &format!("/api/schedules/{}", ids[0])).send().await;
    refused(&hidden, 404, "schedule_not_found");
    assert_eq!(
        cleo("GET", &format!("/api/schedules/{}", ids[1])).send().await.status,
        200
    );

    assert_eq!(seen().await, ["a", WORKFLOW, "talk"]);
    refused(
        &cleo("GET", "/api/workflows/chat").send().await,
        404,
        "workflow_not_found",
    );
    refused(
        &cleo("GET", "/api/workflows/chat/revisions").send().await,
        404,
        "workflow_not_found",
    );
    assert_eq!(
        cleo("GET", "/api/workflows/talk").send().await.json()["graph"]["name"],
        "talk"
    );
    assert_eq!(run("talk").await.status, 200);
    refused(&run("chat").await, 404, "workflow_not_found");
    // Its runs, whoever started them; to be looked at, and not to be ended.
    assert_eq!(
        cleo("GET", &ran).send().await.json()["arguments"],
        json!({"x": "by ben"})
    );
    refused(
        &cleo("POST", &format!("{ran}/cancel")).send().await,
        404,
        "run_not_found",
    );
    world.execute("chat", json!({"x": 1})).await;
    world.put("talk", None, &graph("talk", json!({}))).await;
    let test = world
        .post("/api/workflows/talk/execute?draft=true", json!({"x": 1}))
        .await
        .json();
    refused(
        &cleo("GET", &format!("/api/runs/{}", test["runId"].as_str().unwrap()))
            .send()
            .await,
        404,
        "run_not_found",
    );
    let runs = async || {
        cleo("GET", "/api/runs").send().await.json()["items"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(runs().await, 2);
    // More than storage is asked for at once.
    for number in 0..9 {
        let name = format!("more-{number}");
        world.publish(&graph(&name, json!({}))).await;
        let place = format!("/api/workflows/{name}/assignments/{user}");
        assert_eq!(world.to("PUT", &place).send().await.status, 201);
    }
    assert_eq!(runs().await, 2);
    assert_eq!(world.to("DELETE", &place).send().await.status, 204);
    refused(&world.to("DELETE", &place).send().await, 404, "assignment_not_found");
    assert!(!seen().await.contains(&"talk".to_owned()));
    // What they have started themselves stays theirs.
    assert_eq!(runs().await, 1);
    let events = world.events().await;
    assert!(events.contains(&"workflow.assigned".to_owned()) && events.contains(&"workflow.unassigned".to_owned()));
}

// ── rows, over both backends ───────────────────────────────────────────────────────────────────────────────────────────

/// Writes, publishes, reads and counts, where an organization's table is.
async fn keeps_what_was_written(ports: &Ports, scope: &Scope) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let repo = Workflows::new(ports.clone(), clock.clone());
    let by = By {
        id: "usr_x".into(),
        name: "Ann".into(),
    };
    let at = Timestamp::from_millis(1_000_000);
    let large = json!({"nodes": ["large ".repeat(10_000)]});
    let draft = DraftHead {
        save: 1,
        digest: "d".repeat(64),
        nodes: 1,
        saved_at: at,
        saved_by: by.clone(),
        findings: 0,
        based_on: None,
        recorded_at: at,
    };
    let head = Head {
        name: "talk".into(),
        current: None,
        last: 0,
        draft: Some(draft),
        about: About::default(),
        saves: 1,
        changes: 0,
        archived: None,
        trusted: Vec::new(),
        created_by: by.clone(),
        created_at: at,
        updated_at: at,
    };
    let kept = repo.keep(scope, large.clone()).await.unwrap();
    assert!(matches!(kept, Payload::Claim(_)));
    let new = StoredWorkflow::new(head.clone(), kept);
    assert!(repo.create(scope, &new).await.unwrap());
    assert!(repo.create(scope, &new).await.is_err(), "there is one of its name");
    // A name that another begins with is another.
    let mut longer = StoredWorkflow::new(head, Payload::Inline(json!({"nodes": []})));
    longer.head.name = "talk-more".into();
    assert!(repo.create(scope, &longer).await.unwrap());
    let mut stored = repo.get(scope, "talk").await.unwrap().unwrap();
    let stale = stored.clone();
    assert_eq!(repo.load(scope, &stored.draft).await.unwrap(), large);
    let revision = |number| StoredRevision {
        head: RevisionHead {
            number,
            digest: "d".repeat(64),
            nodes: 1,
            published_at: at,
            published_by: by.clone(),
            message: String::new(),
            draft: String::new(),
        },
        graph: Payload::Inline(json!({"number": number})),
    };
    for number in 1..=KEPT_REVISIONS + 3 {
        stored.head.last = number;
        stored.graph = revision(number).graph;
        repo.publish(scope, &stored, &revision(number)).await.unwrap();
        stored = repo.get(scope, "talk").await.unwrap().unwrap();
    }
    assert!(
        repo.publish(scope, &stale, &revision(999))
            .await
            .unwrap_err()
            .is_conflict()
    );
    assert!(
        repo.revision(scope, "talk", 999).await.unwrap().is_none(),
        "both or none"
    );
    let (mut numbers, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = repo.revisions(scope, "talk", 90, after).await.unwrap();
        numbers.extend(page.into_iter().map(|head| head.number));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<u32> = (4..=KEPT_REVISIONS + 3).rev().collect();
    assert_eq!(numbers, expected, "the newest first, and the oldest are gone");
    let called = repo.called(scope, "talk").await.unwrap().unwrap();
    assert_eq!(called.graph, json!({"number": KEPT_REVISIONS + 3}));
    let names: Vec<_> = repo
        .list(scope)
        .await
        .unwrap()
        .into_iter()
        .map(|head| head.name)
        .collect();
    assert_eq!(names, ["talk", "talk-more"]);
    let longer = repo.get(scope, "talk-more").await.unwrap().unwrap();
    repo.delete(scope, &longer).await.unwrap();
    assert!(repo.get(scope, "talk-more").await.unwrap().is_none());
    assert!(repo.called(scope, "nothing").await.unwrap().is_none());
}

#[tokio::test]
async fn the_embedded_store_keeps_what_was_written() {
    let app = TestApp::start().await;
    keeps_what_was_written(&app.ports, &contoso()).await;
}

#[tokio::test]
async fn azure_tables_and_blobs_keep_what_was_written() {
    let Some((_, ports)) = super::azure::azurite() else {
        return;
    };
    let random: [u8; 6] = weft::clock::Entropy::System.bytes();
    let org = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let org = format!("w{org}").parse().unwrap();
    ports.tables.create_table(&key::org_table(&org)).await.unwrap();
    ports.blobs.create_container(&key::org_container(&org)).await.unwrap();
    keeps_what_was_written(&ports, &operator_in(&operator(), &org)).await;
    ports.tables.delete_table(&key::org_table(&org)).await.unwrap();
    ports.blobs.delete_container(&key::org_container(&org)).await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_read_is_said_in_our_words_and_nothing_is_rounded() {
    let world = World::new().await;
    world.put("talk", None, &graph("talk", json!({}))).await;
    for number in ["abc", "-1", "1.0", "99999999999999999999"] {
        let answer = world
            .to("GET", &format!("/api/workflows/talk/revisions/{number}"))
            .send()
            .await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "parameter_invalid"),
            "{number}"
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(
            detail,
            format!("`{number}` in the path is not a whole number, or too large")
        );
    }
    let execute = format!("/api/workflows/{WORKFLOW}/execute");
    for body in [
        r#"{"name": "a", "more": 18446744073709551616}"#,
        r#"{"name": [1, {"deep": -9223372036854775809}]}"#,
    ] {
        let request = world.to("POST", &execute).header("content-type", "application/json");
        let answer = request.body(body.as_bytes().to_vec()).send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "parameter_invalid"),
            "{}",
            answer.text()
        );
        assert!(
            answer.text().contains("beyond 64 bits") && answer.text().contains("line 1"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn members_that_stand_twice_are_refused_where_arguments_and_definitions_come_in() {
    let world = World::new().await;
    world.put("talk", None, &graph("talk", json!({}))).await;
    let twice = r#"{"name": "a", "more": [{"b/c": 1, "b/c": 1}], "name": "b"}"#;
    for (method, path) in [
        ("POST", format!("/api/workflows/{WORKFLOW}/execute")),
        ("POST", format!("/api/workflows/{WORKFLOW}/plan")),
        ("POST", "/api/workflows/talk/validate".to_owned()),
        ("PUT", "/api/workflows/talk/draft".to_owned()),
        ("PUT", "/api/node-types/shout/draft".to_owned()),
        ("PUT", "/api/policy".to_owned()),
    ] {
        let request = world.to(method, &path).header("content-type", "application/json");
        let answer = request.body(twice.as_bytes().to_vec()).send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "parameter_invalid"),
            "{path}: {}",
            answer.text()
        );
        let errors = answer.json()["errors"].clone();
        let pointers: Vec<_> = errors.as_array().unwrap().iter().map(|one| &one["pointer"]).collect();
        assert_eq!(pointers, ["/more/0/b~1c", "/name"], "{path}");
        assert_eq!(errors[0]["code"], "duplicate_key");
    }
    let file = "{\n  \"name\": \"talk\",\n  \"nodes\": [\n    {\"id\": \"a\", \"type\": \"compute\", \"value\": 1, \"value\": 2}\n  ]\n}";
    let request = world
        .to("POST", "/api/workflows/import")
        .header("content-type", "application/json");
    let answer = request.body(file.as_bytes().to_vec()).send().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "workflow_invalid"),
        "{}",
        answer.text()
    );
    let errors = answer.json()["errors"].clone();
    assert_eq!(errors[0]["code"], "duplicate_key");
    assert_eq!(errors[0]["pointer"], "import.json:4:57");
}

#[tokio::test]
async fn time_limits_above_those_that_count_are_told_and_keep_nothing_out() {
    let world = World::new().await;
    let graph = json!({"name": "slow", "deadlineSeconds": 1_000_000, "nodes": [
        {"id": "one", "type": "shell", "command": "true", "timeoutSeconds": 301},
        {"id": "two", "type": "shell", "command": "true", "timeoutSeconds": 300},
    ]});
    let told = |answer: &Value| {
        let noticed = answer["noticed"].as_array().cloned().unwrap_or_default();
        let codes: Vec<_> = noticed.iter().map(|one| one["code"].clone()).collect();
        assert!(codes.iter().all(|code| code == "timeout_above_ceiling"), "{codes:?}");
        noticed
            .iter()
            .map(|one| one["pointer"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let expected = ["/deadlineSeconds", "/nodes/one/timeoutSeconds"];
    let validated = world.post("/api/workflows/slow/validate", graph.clone()).await.json();
    assert_eq!(
        (&validated["valid"], told(&validated)),
        (&json!(true), expected.map(str::to_owned).into())
    );
    let message = validated["noticed"][1]["message"].as_str().unwrap();
    assert!(
        message.contains("301") && message.contains("at most 300 s"),
        "{message}"
    );
    assert_eq!(told(&world.publish(&graph).await), expected);
    let other = world.put("slow", None, &graph).await;
    assert!(other.status < 300, "{}", other.text());
    assert_eq!(told(&other.json()), expected);
    assert_eq!(told(&world.get("/api/workflows/slow/draft").await), expected);

    // What an organization's policy allows counts where that is less.
    let policy = json!({"limits": {"wallMs": 20_000}});
    let put = world
        .app
        .request("PUT", "/api/policy")
        .person("ann")
        .organization("contoso");
    let put = put.json(&policy).send().await;
    assert_eq!(put.status, 200, "{}", put.text());
    let less = world.get("/api/workflows/slow/draft").await;
    assert_eq!(
        told(&less),
        [
            "/deadlineSeconds",
            "/nodes/one/timeoutSeconds",
            "/nodes/two/timeoutSeconds"
        ]
    );
    assert!(
        less["noticed"][2]["message"].as_str().unwrap().contains("at most 20 s"),
        "{less}"
    );
}

#[tokio::test]
async fn child_runs_are_hidden_from_those_who_do_not_see_their_workflow() {
    let world = World::new().await;
    world.publish(&graph("talk", json!({}))).await;
    let input = json!({"x": {"$": "inputs.x"}});
    let nodes = json!([
        {"id": "once", "type": "workflow", "workflow": "talk", "inputs": input},
        {"id": "many", "type": "map", "items": [1, 2], "workflow": "talk", "inputs": {"x": 1}},
        {"id": "own", "type": "workflow", "workflow": "a", "inputs": {"x": 1}},
    ]);
    let outer = json!({"name": "outer", "parameters": [{"name": "x", "type": "json"}], "nodes": nodes, "edges": []});
    world.publish(&outer).await;
    let user = weft::domain::UserId::derived(Timestamp::from_millis(0), "sample:cleo");
    let assign = async |name: &str| {
        let assigned = world
            .to("PUT", &format!("/api/workflows/{name}/assignments/{user}"))
            .send()
            .await;
        assert_eq!(assigned.status, 201, "{assigned:?}");
    };
    assign("outer").await;
    let begun = world
        .to("POST", "/api/workflows/outer/execute")
        .header("prefer", "respond-async");
    let begun = begun.json(&json!({"x": 1})).send().await.json();
    let run = format!("/api/runs/{}", begun["runId"].as_str().unwrap());
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while !world.get(&run).await["finishedAt"].is_string() {
        assert!(world.app.deliver_all().await && tokio::time::Instant::now() < patience);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        world.get(&run).await["status"],
        "succeeded",
        "{}",
        world.get(&run).await
    );
    // How many children are told of: by steps, by items, and by what happened.
    let told = async |who: &str| {
        let get = async |path: &str| {
            let answer = world
                .app
                .request("GET", path)
                .person(who)
                .organization("contoso")
                .send()
                .await;
            assert_eq!(answer.status, 200, "{who} {path}: {answer:?}");
            answer.json()["items"].as_array().unwrap().clone()
        };
        let count = |items: &[Value]| -> usize {
            let children = items.iter().filter_map(|item| item["children"].as_array());
            children.map(Vec::len).sum()
        };
        let events = get(&format!("{run}/events")).await;
        let events = events
            .iter()
            .filter(|event| event["type"] == "step.child_started")
            .count();
        let items = get(&format!("{run}/steps/many/items")).await;
        (count(&get(&format!("{run}/steps")).await), count(&items), events)
    };
    assert_eq!(told("ben").await, (2, 2, 4));
    assert_eq!(told("cleo").await, (0, 0, 0));
    assign("talk").await;
    assert_eq!(told("cleo").await, (1, 2, 3));
    assign("a").await;
    assert_eq!(told("cleo").await, (2, 2, 4));
}
