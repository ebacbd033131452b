//! Every route × every kind of caller, from the table of routes: who is turned away, with which code, and that it leaves a
//! record. A route that is new is covered from the moment that it is in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};
use weft::authz::{Action, Extent, KeyScope, Origin, Resource, Role, permitted};
use weft::codes;
use weft::domain::{ArtifactId, AttemptId, OrgId, Secret, Timestamp, UserId, sha256_hex};
use weft::http::openapi;
use weft::http::routes::{self, Access};
use weft::runner::archive;
use weft::runner::bundle::Files;
use weft::store::port::{Message, MessageReceipt};
use weft::store::repo::artifacts;
use weft::tenancy::{operator, operator_in};
use weft::testing::{Answer, DATA_PROVIDER, Request, TestApp, WORKFLOW};
use weft::usecase::audit_log::{AuditQuery, Entry};
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::workflow::Expected;
use weft::usecase::{api_key, bundle, queue_trigger, schedule, workflow, workflow_assignment};

/// Routes that ask for no caller. This list may only get shorter: what is added here is seen by everybody.
const OPEN: [&str; 4] = ["/api/docs", "/api/health", "/api/openapi.json", "/api/ready"];

/// What each route of an organization is, in the words of the policy.
const VERBS: &[(&str, &str, Action, Resource)] = &[
    ("GET", "/api/workflows", Action::List, Resource::Workflow),
    ("GET", "/api/workflows/{name}", Action::Read, Resource::Workflow),
    ("POST", "/api/workflows/{name}/execute", Action::Run, Resource::Workflow),
    ("POST", "/api/workflows/{name}/plan", Action::Run, Resource::Workflow),
    ("GET", "/api/workflows/{name}/draft", Action::Modify, Resource::Workflow),
    ("PUT", "/api/workflows/{name}/draft", Action::Modify, Resource::Workflow),
    (
        "DELETE",
        "/api/workflows/{name}/draft",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "POST",
        "/api/workflows/{name}/validate",
        Action::Read,
        Resource::Workflow,
    ),
    (
        "POST",
        "/api/workflows/{name}/publish",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "GET",
        "/api/workflows/{name}/revisions",
        Action::Read,
        Resource::Workflow,
    ),
    (
        "GET",
        "/api/workflows/{name}/revisions/{number}",
        Action::Read,
        Resource::Workflow,
    ),
    (
        "GET",
        "/api/workflows/{name}/revisions/{number}/diff",
        Action::Read,
        Resource::Workflow,
    ),
    (
        "POST",
        "/api/workflows/{name}/revisions/{number}/restore",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "POST",
        "/api/workflows/{name}/rollback",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "POST",
        "/api/workflows/{name}/archive",
        Action::Delete,
        Resource::Workflow,
    ),
    (
        "POST",
        "/api/workflows/{name}/unarchive",
        Action::Delete,
        Resource::Workflow,
    ),
    ("GET", "/api/workflows/{name}/export", Action::Read, Resource::Workflow),
    ("POST", "/api/workflows/import", Action::Modify, Resource::Workflow),
    (
        "GET",
        "/api/workflows/{name}/assignments",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "GET",
        "/api/workflows/{name}/assignments/{user}",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "PUT",
        "/api/workflows/{name}/assignments/{user}",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "DELETE",
        "/api/workflows/{name}/assignments/{user}",
        Action::Modify,
        Resource::Workflow,
    ),
    (
        "PUT",
        "/api/workflows/{name}/trust",
        Action::Administer,
        Resource::Workflow,
    ),
    ("GET", "/api/runs", Action::List, Resource::Run),
    ("GET", "/api/runs/{id}", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/steps", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/steps/{step}/items", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/steps/{step}/output", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/logs", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/recording", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/events", Action::Read, Resource::Run),
    ("GET", "/api/runs/{id}/artifacts", Action::Read, Resource::Run),
    (
        "GET",
        "/api/runs/{id}/artifacts/{artifactId}",
        Action::Read,
        Resource::Run,
    ),
    ("POST", "/api/runs/{id}/cancel", Action::Modify, Resource::Run),
    ("POST", "/api/runs/{id}/requeue", Action::Modify, Resource::Run),
    ("GET", "/api/quarantine", Action::List, Resource::Run),
    ("POST", "/api/runs/{id}/rerun", Action::Run, Resource::Workflow),
    ("POST", "/api/runs/{id}/resume", Action::Modify, Resource::Run),
    ("GET", "/api/runs/{id}/approvals", Action::Read, Resource::Run),
    (
        "POST",
        "/api/runs/{id}/steps/{step}/decision",
        Action::Modify,
        Resource::Run,
    ),
    (
        "POST",
        "/api/runs/{id}/steps/{step}/links",
        Action::Modify,
        Resource::Run,
    ),
    ("GET", "/api/audit", Action::List, Resource::Audit),
    ("GET", "/api/schedules", Action::List, Resource::Schedule),
    ("POST", "/api/schedules", Action::Create, Resource::Schedule),
    ("POST", "/api/schedules/preview", Action::Read, Resource::Schedule),
    ("GET", "/api/schedules/{id}", Action::Read, Resource::Schedule),
    ("PUT", "/api/schedules/{id}", Action::Modify, Resource::Schedule),
    ("POST", "/api/schedules/{id}/trigger", Action::Run, Resource::Schedule),
    ("DELETE", "/api/schedules/{id}", Action::Delete, Resource::Schedule),
    ("GET", "/api/secrets", Action::List, Resource::Secret),
    ("PUT", "/api/secrets/{name}", Action::Modify, Resource::Secret),
    ("DELETE", "/api/secrets/{name}", Action::Delete, Resource::Secret),
    ("GET", "/api/data-providers", Action::List, Resource::DataProvider),
    ("GET", "/api/data-providers/{name}", Action::Run, Resource::DataProvider),
    ("GET", "/api/policy", Action::Read, Resource::Policy),
    ("PUT", "/api/policy", Action::Modify, Resource::Policy),
    ("GET", "/api/policy/effective", Action::Read, Resource::Policy),
    ("GET", "/api/usage", Action::Read, Resource::Organization),
    ("GET", "/api/triggers/hooks", Action::List, Resource::Hook),
    ("POST", "/api/triggers/hooks", Action::Create, Resource::Hook),
    ("GET", "/api/triggers/hooks/{id}", Action::Read, Resource::Hook),
    ("PUT", "/api/triggers/hooks/{id}", Action::Modify, Resource::Hook),
    (
        "POST",
        "/api/triggers/hooks/{id}/rotate",
        Action::Modify,
        Resource::Hook,
    ),
    (
        "GET",
        "/api/triggers/hooks/{id}/deliveries",
        Action::Read,
        Resource::Hook,
    ),
    ("DELETE", "/api/triggers/hooks/{id}", Action::Delete, Resource::Hook),
    ("GET", "/api/queue-triggers", Action::List, Resource::QueueTrigger),
    ("POST", "/api/queue-triggers", Action::Create, Resource::QueueTrigger),
    ("GET", "/api/queue-triggers/{id}", Action::Read, Resource::QueueTrigger),
    (
        "PUT",
        "/api/queue-triggers/{id}",
        Action::Modify,
        Resource::QueueTrigger,
    ),
    (
        "POST",
        "/api/queue-triggers/{id}/access",
        Action::Modify,
        Resource::QueueTrigger,
    ),
    (
        "POST",
        "/api/queue-triggers/{id}/messages",
        Action::Run,
        Resource::QueueTrigger,
    ),
    (
        "GET",
        "/api/queue-triggers/{id}/set-aside",
        Action::Read,
        Resource::QueueTrigger,
    ),
    (
        "GET",
        "/api/queue-triggers/{id}/set-aside/{message}",
        Action::Read,
        Resource::QueueTrigger,
    ),
    (
        "POST",
        "/api/queue-triggers/{id}/set-aside/{message}/put-back",
        Action::Modify,
        Resource::QueueTrigger,
    ),
    (
        "DELETE",
        "/api/queue-triggers/{id}/set-aside/{message}",
        Action::Modify,
        Resource::QueueTrigger,
    ),
    (
        "DELETE",
        "/api/queue-triggers/{id}",
        Action::Delete,
        Resource::QueueTrigger,
    ),
    ("GET", "/api/node-types", Action::List, Resource::NodeType),
    ("GET", "/api/node-types/{name}", Action::Read, Resource::NodeType),
    (
        "GET",
        "/api/node-types/{name}/versions/{version}",
        Action::Read,
        Resource::NodeType,
    ),
    (
        "GET",
        "/api/node-types/{name}/used-by",
        Action::List,
        Resource::Workflow,
    ),
];

/// What a route answers to who may, where what it asks for can't be done to the run that there is.
const CONFLICTS: &[(&str, &str)] = &[
    ("/cancel", "run_ended"),
    ("/requeue", "run_ended"),
    ("/resume", "run_succeeded"),
    ("/decision", "approval_over"),
    ("/links", "approval_over"),
    ("/access", "queue_access_unavailable"),
    // One that is archived, and one that is not.
    ("/archive", "workflow_state"),
    ("/unarchive", "workflow_state"),
];

fn conflict(template: &str) -> Option<&'static str> {
    let found = CONFLICTS.iter().find(|(end, _)| template.ends_with(end));
    found.map(|(_, code)| *code)
}
/// What a key needs beside that: whoever has a schedule or a queue trigger start runs must be one who may start them.
const ALSO: [(&str, &str, KeyScope); 7] = [
    ("POST", "/api/schedules", RUN_WORKFLOW),
    ("PUT", "/api/schedules/{id}", RUN_WORKFLOW),
    ("POST", "/api/schedules/{id}/trigger", RUN_WORKFLOW),
    ("POST", "/api/queue-triggers", RUN_WORKFLOW),
    ("PUT", "/api/queue-triggers/{id}", RUN_WORKFLOW),
    ("POST", "/api/queue-triggers/{id}/access", RUN_WORKFLOW),
    (
        "POST",
        "/api/queue-triggers/{id}/set-aside/{message}/put-back",
        RUN_WORKFLOW,
    ),
];
const RUN_WORKFLOW: KeyScope = KeyScope::One(Resource::Workflow, Action::Run);

fn org(id: &str) -> OrgId {
    id.parse().unwrap()
}

/// An artifact of a run of contoso.
async fn kept(app: &TestApp, run: &str) -> ArtifactId {
    let (scope, run) = (operator_in(&operator(), &org("contoso")), run.parse().unwrap());
    let sha256 = sha256_hex(b"kept");
    let artifact = artifacts::Artifact {
        id: ArtifactId::of(&run, "kept", &sha256),
        name: "kept".into(),
        size: 4,
        sha256,
        media_type: None,
        step: "main".into(),
        attempt: AttemptId::generate(app.cx.clock.now(), [7; 10]),
        created_at: app.cx.clock.now(),
    };
    let bytes = Bytes::from_static(b"kept");
    let room = super::artifact_quota::room_for(&app.cx.usage, &scope, 4).await;
    app.cx
        .artifacts
        .put(&scope, &run, &artifact, (bytes, room))
        .await
        .unwrap();
    artifact.id
}

/// A hook of contoso.
async fn hooked(app: &TestApp) -> String {
    let request = app.request("POST", "/api/triggers/hooks");
    let request = request.key(DEVELOPMENT_KEY).organization("contoso");
    let answer = request.json(&a_hook()).send().await.json();
    answer["id"].as_str().unwrap().to_owned()
}

fn a_hook() -> Value {
    json!({"name": "coverage", "workflow": WORKFLOW, "scheme": "weft"})
}

/// A schedule that everybody may write.
fn written_schedule() -> Value {
    json!({"name": "Coverage", "workflow": WORKFLOW, "cron": "@yearly"})
}

/// A schedule of contoso.
async fn scheduled(app: &TestApp) -> String {
    let written = written_schedule();
    let scope = operator_in(&operator(), &org("contoso"));
    let made = schedule::create(&app.cx, &scope, &Origin::default(), written.as_object().unwrap()).await;
    made.unwrap().id.to_string()
}

/// Workflows that contoso has authored, and whether they are archived.
const AUTHORED: [(&str, bool); 3] = [("authored", false), ("archived", true), ("thrown", false)];

fn a_graph() -> Value {
    json!({"nodes": [{"id": "one", "type": "compute", "value": 1}]})
}

fn a_file() -> Value {
    json!({"name": "authored", "nodes": a_graph()["nodes"]})
}

/// A person to whom the workflows of contoso are assigned; another one for what takes one away.
fn person_of(method: &str) -> String {
    let name = if method == "DELETE" { "ben" } else { "cleo" };
    UserId::derived(Timestamp::from_millis(0), &format!("sample:{name}")).to_string()
}

/// Workflows of contoso, each with a revision and a draft.
async fn authored(app: &TestApp) {
    let (scope, origin) = (operator_in(&operator(), &org("contoso")), Origin::default());
    for (name, is_archived) in AUTHORED {
        let save = || workflow::Save {
            name: name.into(),
            graph: a_graph(),
            expected: Expected::Anything,
            clear: false,
        };
        workflow::save_draft(&app.cx, &scope, &origin, save()).await.unwrap();
        workflow::publish(&app.cx, &scope, &origin, name, (&Expected::Anything, ""))
            .await
            .unwrap();
        workflow::save_draft(&app.cx, &scope, &origin, save()).await.unwrap();
        for method in ["GET", "DELETE"] {
            let user = person_of(method).parse().unwrap();
            workflow_assignment::put(&app.cx, &scope, &origin, (name, &user))
                .await
                .unwrap();
        }
        if is_archived {
            workflow::archive(&app.cx, &scope, &origin, (name, true), &Expected::Anything)
                .await
                .unwrap();
        }
    }
}

/// The workflow that a route is about.
fn workflow_of(method: &str, path: &str) -> &'static str {
    let last = path.rsplit('/').next().unwrap_or_default();
    match (method, last) {
        ("DELETE", "draft") => "thrown",
        (_, "archive") => "archived",
        (_, "{name}" | "execute" | "plan" | "workflows") => WORKFLOW,
        _ => "authored",
    }
}

fn a_queue_trigger() -> Value {
    json!({"name": "coverage", "workflow": WORKFLOW})
}

/// A queue trigger of contoso, and two messages of it that were set aside.
async fn queued(app: &TestApp) -> (String, [String; 2]) {
    let scope = operator_in(&operator(), &org("contoso"));
    let members = a_queue_trigger();
    let made = queue_trigger::create(&app.cx, &scope, &Origin::default(), members.as_object().unwrap()).await;
    let id = made.unwrap().trigger.id;
    let mut aside = Vec::new();
    for message in ["one", "two"] {
        let message = Message {
            receipt: MessageReceipt {
                id: message.into(),
                pop_receipt: String::new(),
            },
            dequeue_count: 1,
            text: "{}".into(),
        };
        let fact = queue_trigger::SetAside::new(&message, app.cx.clock.now(), "coverage", "coverage", &[]);
        let put = app.cx.queue_triggers.set_aside(&scope, &id, &fact, &message.text).await;
        put.unwrap();
        aside.push(fact.id);
    }
    (id.to_string(), aside.try_into().unwrap())
}

/// A node type of the library with a version, and a draft of the next.
async fn in_library(app: &TestApp) {
    for version in ["1.0.0", "1.1.0"] {
        let draft = app.request("PUT", &format!("/api/node-types/{NODE_TYPE}/draft"));
        let written = json!({"version": version, "code": "def run(ctx, inputs, settings):\n    return 1\n"});
        let answer = draft.key(DEVELOPMENT_KEY).json(&written).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        if version == "1.0.0" {
            let publish = app.request("POST", &format!("/api/node-types/{NODE_TYPE}/publish"));
            let answer = publish.key(DEVELOPMENT_KEY).header("if-match", "*").send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

const NODE_TYPE: &str = "coverage";

/// The archive of a bundle, and of no other.
fn an_archive(text: &str) -> Vec<u8> {
    let file = ("workflows/coverage.py".to_owned(), Bytes::from(text.to_owned()));
    archive::pack(&Files::new([file])).unwrap()
}

/// A bundle that is not active.
async fn published(app: &TestApp) -> String {
    let archive = an_archive("# published\n").into();
    let made = bundle::publish(&app.cx, &operator(), &Origin::default(), archive, None).await;
    made.unwrap().0.digest.to_string()
}

/// A route with its parameters filled in.
#[derive(Clone)]
struct Target {
    method: &'static str,
    template: &'static str,
    path: String,
    access: Access,
}

struct World {
    app: TestApp,
    targets: Vec<Target>,
    /// A run of contoso that somebody else asked for.
    run: String,
    requests: AtomicUsize,
}

impl World {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let run = app.run("contoso", json!({"name": "Ada"})).await["runId"]
            .as_str()
            .unwrap()
            .to_owned();
        let artifact = kept(&app, &run).await;
        let hook = hooked(&app).await;
        let schedule = scheduled(&app).await;
        let (queue_trigger, aside) = queued(&app).await;
        in_library(&app).await;
        authored(&app).await;
        let bundle = published(&app).await;
        let targets = routes::table()
            .into_iter()
            .map(|route| {
                let name = if route.path.contains("data-providers") {
                    DATA_PROVIDER
                } else if route.path.contains("node-types") {
                    NODE_TYPE
                } else {
                    workflow_of(route.method, route.path)
                };
                Target {
                    method: route.method,
                    template: route.path,
                    path: route
                        .path
                        .replace("{name}", name)
                        .replace("{step}", "main")
                        .replace("{version}", "1.0.0")
                        .replace("{number}", "1")
                        .replace("{digest}", &bundle)
                        .replace("{user}", &person_of(route.method))
                        .replace(
                            "{id}",
                            if route.path.contains("/schedules/") {
                                &schedule
                            } else if route.path.contains("hooks") {
                                &hook
                            } else if route.path.contains("/queue-triggers/") {
                                &queue_trigger
                            } else {
                                &run
                            },
                        )
                        // One is put back, the other is looked at and dropped.
                        .replace("{message}", &aside[usize::from(!route.path.ends_with("/put-back"))])
                        .replace("{artifactId}", artifact.as_str()),
                    access: route.access,
                }
            })
            .collect();
        Self {
            app,
            targets,
            run,
            requests: AtomicUsize::new(0),
        }
    }

    fn of(&self, access: Access) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(move |target| target.access == access)
    }

    /// A request with an id of its own, by which its records are found.
    fn to(&self, target: &Target) -> Request {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let request = self
            .app
            .request(target.method, &target.path)
            .header("x-request-id", &format!("coverage-{number:06}"));
        // What is replaced needs something in its place.
        match target.method {
            "PUT" | "POST"
                if target.template.starts_with("/api/triggers/hooks") && !target.template.ends_with("/rotate") =>
            {
                request.json(&a_hook())
            }
            "PUT" | "POST" if matches!(target.template, "/api/queue-triggers" | "/api/queue-triggers/{id}") => {
                request.json(&a_queue_trigger())
            }
            "PUT" if target.template.ends_with("/draft") => request.header("if-match", "*").json(&a_graph()),
            "POST" if target.template.ends_with("/import") => request.header("if-match", "*").json(&a_file()),
            "POST" if target.template.ends_with("/validate") => request.json(&a_graph()),
            "POST" if target.template.ends_with("/publish") || target.template.ends_with("/restore") => {
                request.header("if-match", "*")
            }
            "POST" if target.template.ends_with("{name}/rollback") => request.json(&json!({"revision": 1})),
            "PUT" if target.template.ends_with("/trust") => request.json(&json!({"trust": "restricted"})),
            "POST" if target.template.ends_with("/links") => request.json(&json!({"for": "ann"})),
            "POST" if target.template.ends_with("/decision") || target.template.contains("/approvals/") => {
                request.json(&json!({"approved": true}))
            }
            "PUT" if target.path.contains("/secrets/") => request.json(&json!({"value": "coverage-value"})),
            "POST" if target.path.contains("/schedules/preview") => request.json(&json!({"cron": "@daily"})),
            "PUT" | "POST" if target.path.starts_with("/api/schedules") && !target.path.contains("/trigger") => {
                request.json(&written_schedule())
            }
            "POST" if target.template == "/api/bundles" => {
                let archive = an_archive(&format!("# {number}\n"));
                request.header("content-type", "application/gzip").body(archive)
            }
            "PUT" => request.json(&json!({})),
            "POST" if target.template.starts_with("/api/bundles") => request.json(&json!({})),
            _ => request,
        }
    }

    /// All records of the platform and of the sample's organizations, by request.
    async fn records(&self) -> BTreeMap<String, Vec<Entry>> {
        let platform = operator();
        let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let mut owners = vec![None];
        owners.extend(["contoso", "fabrikam", "northwind"].map(|id| Some(operator_in(&platform, &org(id)))));
        for scope in owners {
            let mut cursor = None;
            loop {
                let query = AuditQuery {
                    limit: 200,
                    cursor,
                    ..AuditQuery::default()
                };
                let page = match &scope {
                    None => self.app.cx.audit.list(&platform, query).await,
                    Some(scope) => self.app.cx.audit.list(scope, query).await,
                };
                let page = page.unwrap();
                for entry in page.items {
                    let id = entry.plain.request_id.clone().unwrap_or_default();
                    found.entry(id).or_default().push(entry);
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        found
    }
}

/// The body is a problem of RFC 9457 with our members, and agrees with the response that it is in.
fn is_problem(answer: &Answer, of: &str) {
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{of}: {answer:?}"
    );
    assert_eq!(answer.header("cache-control"), "no-store", "{of}");
    let body = answer.json();
    let text = |member: &str| {
        let text = body[member].as_str();
        text.unwrap_or_else(|| panic!("{of}: no `{member}` in {body}"))
            .to_owned()
    };
    let code = text("code");
    assert!(
        codes::ALL.iter().any(|known| known.code == code),
        "{of}: `{code}` is not in codes::ALL"
    );
    assert_eq!(text("type"), format!("/docs/errors/{code}"), "{of}");
    assert_eq!(body["status"], answer.status, "{of}");
    assert!(!text("title").is_empty() && !text("detail").is_empty(), "{of}");
    assert_eq!(
        body["retriable"],
        answer.status == 503 || answer.status == 429,
        "{of}: {body}"
    );
    assert_eq!(
        !answer.header("retry-after").is_empty(),
        body["retriable"] == true,
        "{of}"
    );
    assert_eq!(text("requestId"), answer.header("x-request-id"), "{of}");
    assert_eq!(
        !answer.header("www-authenticate").is_empty(),
        answer.status == 401,
        "{of}"
    );
    let known = [
        "type",
        "title",
        "status",
        "detail",
        "code",
        "hint",
        "retriable",
        "requestId",
        "errors",
        "current",
    ];
    for member in body.as_object().unwrap().keys() {
        assert!(known.contains(&member.as_str()), "{of}: `{member}`");
    }
    for finding in body["errors"].as_array().into_iter().flatten() {
        for member in ["pointer", "code", "message"] {
            assert!(finding[member].is_string(), "{of}: {finding}");
        }
    }
}

/// A key is nowhere in an answer, in no header and in no body.
fn keeps_secret(answer: &Answer, secrets: &[&str], of: &str) {
    let mut said = answer.text();
    for (name, value) in &answer.headers {
        said.push_str(&format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    for secret in secrets {
        assert!(!said.contains(secret), "{of} repeats a key");
    }
}

/// A kind of caller, what is done to the request, and the answer that is due.
struct Case {
    name: &'static str,
    request: Box<dyn Fn(Request) -> Request>,
    expected: (u16, &'static str),
}

fn case(name: &'static str, expected: (u16, &'static str), request: impl Fn(Request) -> Request + 'static) -> Case {
    Case {
        name,
        request: Box::new(request),
        expected,
    }
}

/// Nobody who is not let in comes further, on any route that asks who is calling.
fn bad_callers(expired: &str, revoked: &str) -> Vec<Case> {
    let (expired, revoked) = (expired.to_owned(), revoked.to_owned());
    let unknown = Secret::generate([7; 32]).expose().to_owned();
    let also = unknown.clone();
    vec![
        case("nobody", (403, "credentials_missing"), |r| r),
        case("a bearer token, which is not read", (403, "credentials_missing"), |r| {
            r.header("authorization", "Bearer e30.e30.e30")
        }),
        case("an unknown key", (401, "key_invalid"), move |r| r.key(&unknown)),
        case("an empty key", (401, "key_invalid"), |r| r.key("")),
        case("an unknown key and a good principal", (401, "key_invalid"), move |r| {
            r.key(&also).person("ann")
        }),
        case("two keys", (401, "credential_ambiguous"), |r| {
            r.key(DEVELOPMENT_KEY).also("x-functions-key", "another")
        }),
        case("a key that is too long", (401, "credential_too_large"), |r| {
            r.key(&"k".repeat(300))
        }),
        case("an expired key", (401, "key_expired"), move |r| r.key(&expired)),
        case("a revoked key", (401, "key_revoked"), move |r| r.key(&revoked)),
        case("the development key from afar", (401, "key_invalid"), |r| {
            r.key(DEVELOPMENT_KEY).from_afar()
        }),
        case(
            "a principal that nobody vouches for",
            (401, "principal_not_trusted"),
            |r| r.person("ann").from_afar(),
        ),
        case("a principal that is none", (401, "principal_malformed"), |r| {
            r.header("x-ms-client-principal", "e30=")
        }),
        case("two principals", (401, "credential_ambiguous"), |r| {
            r.person("ann").also("x-ms-client-principal", "e30=")
        }),
        case("a person without an account", (403, "user_unknown"), |r| {
            r.person("mallory")
        }),
        case(
            "a claimed user that no record could show",
            (400, "user_header_malformed"),
            |r| r.key(DEVELOPMENT_KEY).header("x-user-id", ""),
        ),
    ]
}

/// Whoever is let in, but not in that organization.
fn bad_organizations(fabrikam: &str) -> Vec<Case> {
    let (one, two) = (fabrikam.to_owned(), fabrikam.to_owned());
    vec![
        case("no organization", (400, "organization_header_missing"), |r| {
            r.key(DEVELOPMENT_KEY)
        }),
        case(
            "no organization, by a person",
            (400, "organization_header_missing"),
            |r| r.person("ann"),
        ),
        case("no organization's id", (400, "organization_header_malformed"), |r| {
            r.key(DEVELOPMENT_KEY).organization("Contoso'; --")
        }),
        case("an empty id", (400, "organization_header_malformed"), |r| {
            r.key(DEVELOPMENT_KEY).organization("")
        }),
        case("two organizations", (400, "organization_header_duplicated"), |r| {
            r.key(DEVELOPMENT_KEY)
                .organization("contoso")
                .also("x-organization-id", "fabrikam")
        }),
        case("an unknown one", (404, "organization_not_found"), |r| {
            r.key(DEVELOPMENT_KEY).organization("nosuch")
        }),
        case("an unknown one, by a person", (404, "organization_not_found"), |r| {
            r.person("ann").organization("nosuch")
        }),
        case(
            "an unknown one, by an administrator",
            (404, "organization_not_found"),
            |r| r.person("eve").organization("nosuch"),
        ),
        case("one that is switched off", (403, "organization_inactive"), |r| {
            r.key(DEVELOPMENT_KEY).organization("northwind")
        }),
        case(
            "one that is switched off, by a member",
            (403, "organization_inactive"),
            |r| r.person("ann").organization("northwind"),
        ),
        case(
            "one that is switched off, by a stranger",
            (404, "organization_not_found"),
            |r| r.person("ben").organization("northwind"),
        ),
        case("a foreign one, by a person", (404, "organization_not_found"), |r| {
            r.person("dora").organization("contoso")
        }),
        case("a foreign one, by a key", (403, "key_not_for_organization"), move |r| {
            r.key(&one).organization("contoso")
        }),
        case(
            "an unknown one, by a key of another",
            (403, "key_not_for_organization"),
            move |r| r.key(&two).organization("nosuch"),
        ),
    ]
}

#[tokio::test]
async fn nobody_comes_in_who_may_not() {
    let world = World::new().await;
    let app = &world.app;
    let expired = app.key(&[], &[KeyScope::All], Some(app.cx.clock.now())).await;
    let revoked = app.key(&[], &[KeyScope::All], None).await;
    let record = app.cx.keys.find(&Secret::presented(&revoked)).await.unwrap().unwrap();
    api_key::revoke(&app.cx, &operator(), &record.id).await.unwrap();
    let fabrikam = app.key(&[&org("fabrikam")], &[KeyScope::All], None).await;
    let secrets = [expired.as_str(), &revoked, &fabrikam, DEVELOPMENT_KEY, &"k".repeat(300)];

    let mut denied = Vec::new();
    let callers = bad_callers(&expired, &revoked);
    let organizations = bad_organizations(&fabrikam);
    // What opens a hook is no caller's: `hooks.rs` has those.
    let asks = |target: &&Target| !matches!(target.access, Access::Open | Access::Link | Access::Hook);
    for target in world.targets.iter().filter(asks) {
        let cases = match target.access {
            Access::Organization => callers.iter().chain(&organizations[..]),
            _ => callers.iter().chain(&organizations[..0]),
        };
        for case in cases {
            let of = format!("{} {}, {}", target.method, target.template, case.name);
            // Whoever is turned away for who they are names an organization that exists.
            let request = if callers.iter().any(|caller| caller.name == case.name) {
                world.to(target).organization("contoso")
            } else {
                world.to(target)
            };
            let answer = (case.request)(request).send().await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                case.expected,
                "{of}: {}",
                answer.text()
            );
            is_problem(&answer, &of);
            keeps_secret(&answer, &secrets, &of);
            if answer.status != 400 {
                denied.push((of, answer.header("x-request-id").to_owned(), answer.code()));
            }
        }
    }
    assert!(denied.len() > 200, "too few cases: {}", denied.len());
    let records = world.records().await;
    for (of, request, code) in denied {
        let found: Vec<_> = records.get(&request).into_iter().flatten().collect();
        assert_eq!(found.len(), 1, "{of}: one record of the denial");
        let plain = &found[0].plain;
        assert_eq!(plain.event, "access.denied", "{of}");
        assert_eq!(plain.outcome.as_str(), "denied", "{of}");
        assert_eq!(plain.detail.as_ref().unwrap()["problem"], code.as_str(), "{of}");
        let text = format!("{found:?}");
        assert!(
            secrets.iter().all(|secret| !text.contains(secret)),
            "{of}: the record holds a key"
        );
    }
}

/// At the door of a hook no caller counts for anything, neither good nor bad: all are told the same.
#[tokio::test]
async fn no_caller_opens_a_hook() {
    let world = World::new().await;
    let hooks: BTreeSet<_> = world
        .of(Access::Hook)
        .map(|target| (target.method, target.template))
        .collect();
    assert_eq!(hooks, [("GET", "/api/hooks/{id}"), ("POST", "/api/hooks/{id}")].into());
    let good = world.app.key(&[], &[KeyScope::All], None).await;
    let secret = good.clone();
    let mut cases = bad_callers(&good, &good);
    cases.push(case("a key that may all", (0, ""), move |r| {
        r.key(&good).organization("contoso")
    }));
    cases.push(case("an administrator", (0, ""), |r| {
        r.person("eve").organization("contoso")
    }));
    for target in world.of(Access::Hook) {
        for case in &cases {
            let of = format!("{} {}, {}", target.method, target.template, case.name);
            let answer = (case.request)(world.to(target)).send().await;
            let expected = match target.method {
                "GET" => (404, "hook_not_found"),
                _ => (401, "hook_signature_invalid"),
            };
            assert_eq!(
                (answer.status, answer.code().as_str()),
                expected,
                "{of}: {}",
                answer.text()
            );
            is_problem(&answer, &of);
            keeps_secret(&answer, &[&secret, DEVELOPMENT_KEY], &of);
        }
    }
}

#[tokio::test]
async fn open_routes_are_these_and_no_others() {
    let world = World::new().await;
    let open: BTreeSet<_> = world.of(Access::Open).map(|target| target.template).collect();
    assert_eq!(
        open,
        OPEN.into(),
        "a route that is open to everybody must be meant to be"
    );
    for target in world.of(Access::Open) {
        let answer = world.to(target).from_afar().send().await;
        assert_eq!(answer.status, 200, "{}", target.template);
        let said = answer.text();
        for telling in ["Contoso Ltd", "northwind", "sqlite", "weft.db", &world.run] {
            assert!(
                !said.contains(telling),
                "{} tells everybody of `{telling}`",
                target.template
            );
        }
    }
    for (method, path, expected) in [
        ("GET", "/api/nothing", (404, "route_not_found")),
        ("GET", "/api", (404, "route_not_found")),
        ("GET", "/", (204, "")),
        ("DELETE", "/api/runs", (405, "method_not_allowed")),
        ("GET", "/api/workflows/hello/execute", (405, "method_not_allowed")),
        ("GET", "/api//runs", (404, "route_not_found")),
        ("GET", "/api/../drive_run", (404, "route_not_found")),
    ] {
        let answer = world.app.request(method, path).send().await;
        assert_eq!((answer.status, answer.code().as_str()), expected, "{method} {path}");
        if answer.status >= 400 {
            is_problem(&answer, path);
        }
        assert_eq!(
            answer.status == 405,
            !answer.header("allow").is_empty(),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn every_role_may_what_the_policy_says_and_a_refusal_is_on_record() {
    let world = World::new().await;
    // The sample has no viewer in contoso, where the run is.
    let people = [
        (Role::Viewer, "dora", "fabrikam"),
        (Role::User, "cleo", "contoso"),
        (Role::Manager, "ben", "contoso"),
        (Role::OrgAdmin, "ann", "contoso"),
        (Role::Administrator, "eve", "contoso"),
    ];
    let listed: BTreeSet<_> = VERBS.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let there: BTreeSet<_> = world
        .of(Access::Organization)
        .map(|target| (target.method, target.template))
        .collect();
    assert_eq!(there, listed, "each route of an organization has its verb in this test");

    let (mut denied, mut crossed) = (Vec::new(), Vec::new());
    for target in world.of(Access::Organization) {
        let verb = VERBS
            .iter()
            .find(|verb| (verb.0, verb.1) == (target.method, target.template));
        let (.., action, resource) = *verb.unwrap();
        for (role, person, organization) in people {
            let of = format!("{} {} as {}", target.method, target.template, role.as_str());
            let answer = world.to(target).person(person).organization(organization).send().await;
            let id = answer.header("x-request-id").to_owned();
            match permitted(role, action, resource) {
                Extent::None => {
                    assert_eq!((answer.status, answer.code().as_str()), (403, "not_permitted"), "{of}");
                    is_problem(&answer, &of);
                    denied.push((of, id.clone()));
                }
                // They see their own runs only, and this is somebody else's.
                _ if target.template.ends_with("/rerun")
                    && permitted(role, Action::Read, Resource::Run) == Extent::Own =>
                {
                    assert_eq!((answer.status, answer.code().as_str()), (404, "run_not_found"), "{of}");
                }
                Extent::Own if target.template.contains("{id}") => {
                    assert_eq!((answer.status, answer.code().as_str()), (404, "run_not_found"), "{of}");
                }
                _ if conflict(target.template).is_some() => {
                    assert_eq!(
                        (answer.status, Some(answer.code().as_str())),
                        (409, conflict(target.template)),
                        "{of}"
                    );
                }
                // Somebody before has deleted it.
                _ if answer.status == 404 => {
                    let gone = [
                        "secret_not_found",
                        "schedule_not_found",
                        "hook_not_found",
                        "queue_trigger_not_found",
                        "queue_message_not_found",
                        "draft_not_found",
                        "workflow_not_found",
                        "assignment_not_found",
                    ];
                    assert!(gone.contains(&answer.code().as_str()), "{of}: {}", answer.text());
                }
                _ => assert!(
                    matches!(answer.status, 200 | 201 | 202 | 204),
                    "{of}: {}",
                    answer.text()
                ),
            }
            if role == Role::Administrator {
                crossed.push((format!("{} {}", target.method, target.template), id));
            }
        }
    }
    let status = world
        .of(Access::Caller)
        .find(|target| target.template == "/api/status")
        .unwrap();
    for (role, person, _) in people {
        let answer = world.to(status).person(person).send().await;
        let may = permitted(role, Action::Read, Resource::Platform) == Extent::All;
        assert_eq!(answer.status, if may { 200 } else { 403 }, "{}", role.as_str());
        if !may {
            denied.push((
                format!("/api/status as {}", role.as_str()),
                answer.header("x-request-id").to_owned(),
            ));
        }
    }
    assert!(denied.len() >= 8, "{denied:?}");
    let records = world.records().await;
    let events = |id: &str| -> Vec<&str> {
        let found = records.get(id).into_iter().flatten();
        found.map(|entry| entry.plain.event.as_str()).collect()
    };
    for (of, id) in denied {
        assert_eq!(events(&id), ["access.denied"], "{of}");
    }
    for (of, id) in crossed {
        assert!(events(&id).contains(&"access.crossed"), "{of}: {:?}", events(&id));
    }
}

/// A key needs the one scope of a route's verb and no other, and each of its calls is on record before it is answered.
#[tokio::test]
async fn a_key_needs_exactly_the_scope_of_the_verb() {
    let world = World::new().await;
    let (mut bypassed, mut denied) = (Vec::new(), Vec::new());
    for target in world.of(Access::Organization) {
        let verb = VERBS
            .iter()
            .find(|verb| (verb.0, verb.1) == (target.method, target.template));
        let (.., action, resource) = *verb.unwrap();
        let of = format!("{} {}", target.method, target.template);
        let also = ALSO
            .iter()
            .find(|also| (also.0, also.1) == (target.method, target.template));
        let enough: Vec<_> = std::iter::once(KeyScope::One(resource, action))
            .chain(also.map(|also| also.2))
            .collect();
        let others: Vec<_> = Action::ALL
            .iter()
            .flat_map(|verb| Resource::ALL.iter().map(|on| KeyScope::One(*on, *verb)))
            .filter(|scope| !enough.contains(scope))
            .collect();
        for (scopes, may) in [(&enough[..], true), (&others, false)] {
            let key = world.app.key(&[&org("contoso")], scopes, None).await;
            // In the query too, where it must not come back from.
            let mut asked = target.clone();
            asked.path += &format!("?code={key}");
            let answer = world
                .to(&asked)
                .organization("contoso")
                .header("x-user-id", "somebody")
                .send()
                .await;
            let id = answer.header("x-request-id").to_owned();
            keeps_secret(&answer, &[&key], &of);
            if may && target.template.ends_with("/rerun") {
                // It may repeat what it has started itself, and this is somebody else's.
                assert_eq!((answer.status, answer.code().as_str()), (404, "run_not_found"), "{of}");
            } else if may {
                assert!(
                    matches!(answer.status, 200 | 201 | 202 | 204 | 409),
                    "{of}: {}",
                    answer.text()
                );
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (403, "not_permitted"), "{of}");
                let hint = answer.json()["hint"].as_str().unwrap().to_owned();
                assert!(hint.contains(&enough[0].to_string()), "{of}: {hint}");
                denied.push((of.clone(), id.clone()));
            }
            bypassed.push((of.clone(), id));
        }
    }
    for (path, scope) in [("/api/status", "platform:read"), ("/api/me", "run:read")] {
        let target = world.targets.iter().find(|target| target.template == path).unwrap();
        let key = world.app.key(&[], &[scope.parse().unwrap()], None).await;
        let answer = world.to(target).key(&key).header("x-user-id", "somebody").send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        keeps_secret(&answer, &[&key], path);
        bypassed.push((path.to_owned(), answer.header("x-request-id").to_owned()));
    }
    let records = world.records().await;
    for (of, id) in bypassed {
        let found: Vec<_> = records.get(&id).into_iter().flatten().collect();
        let bypass: Vec<_> = found.iter().filter(|entry| entry.plain.event == "key.bypass").collect();
        assert_eq!(bypass.len(), 1, "{of}: {found:?}");
        let Entry { plain, personal, .. } = bypass[0];
        assert_eq!(plain.level.as_str(), "warning", "{of}");
        assert_eq!(plain.key.as_deref(), Some("test"), "{of}");
        let personal = personal.readable().unwrap();
        assert_eq!(personal.claimed_user.as_deref(), Some("somebody"), "{of}");
        assert!(personal.address.is_some(), "{of}");
    }
    for (of, id) in denied {
        let found = records.get(&id).into_iter().flatten();
        assert!(
            found.into_iter().any(|entry| entry.plain.event == "access.denied"),
            "{of}"
        );
    }
}

/// A run, a workflow or a form that is not there looks the same whoever else may have one like it.
#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new().await;
    let cases = [
        // The run is contoso's.
        ("fabrikam", format!("/api/runs/{}", world.run), (404, "run_not_found")),
        (
            "contoso",
            "/api/runs/run_00000000000000000000000000".to_owned(),
            (404, "run_not_found"),
        ),
        ("contoso", "/api/runs/nonsense".to_owned(), (400, "parameter_invalid")),
        (
            "contoso",
            "/api/runs/..%2F..%2Fsecrets".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/workflows/nosuch".to_owned(),
            (404, "workflow_not_found"),
        ),
        ("contoso", "/api/workflows/%00".to_owned(), (404, "workflow_not_found")),
        (
            "contoso",
            "/api/data-providers/nosuch".to_owned(),
            (404, "data_provider_not_found"),
        ),
        ("contoso", "/api/runs?limit=many".to_owned(), (400, "parameter_invalid")),
        ("contoso", "/api/runs?limit=0".to_owned(), (400, "parameter_invalid")),
        (
            "contoso",
            "/api/runs?cursor=bm9uc2Vuc2U".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/audit?cursor=bm9uc2Vuc2U".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/workflows?cursor=%21".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/runs?status=sleeping".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/runs?cursor=nonsense".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/audit?cursor=nonsense".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/audit?level=loud".to_owned(),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            format!("/api/runs/{}/logs?after=x", world.run),
            (400, "parameter_invalid"),
        ),
        (
            "contoso",
            "/api/workflows?limit=%FF".to_owned(),
            (400, "parameter_invalid"),
        ),
    ];
    for (organization, path, expected) in cases {
        let request = world
            .app
            .request("GET", &path)
            .key(DEVELOPMENT_KEY)
            .organization(organization);
        let answer = request.send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            expected,
            "{path}: {}",
            answer.text()
        );
        is_problem(&answer, &path);
    }
    let foreign = world.app.request("GET", &format!("/api/runs/{}", world.run));
    let foreign = foreign.key(DEVELOPMENT_KEY).organization("fabrikam").send().await;
    let absent = world.app.request("GET", "/api/runs/run_00000000000000000000000000");
    let absent = absent.key(DEVELOPMENT_KEY).organization("fabrikam").send().await;
    let alike = |answer: &Answer, id: &str| {
        let mut body = answer.json();
        body["requestId"] = Value::Null;
        body.to_string().replace(id, "ID")
    };
    assert_eq!(
        alike(&foreign, &world.run),
        alike(&absent, "run_00000000000000000000000000")
    );
}

#[tokio::test]
async fn every_route_says_that_storage_is_away() {
    let world = World::new().await;
    world.app.faults.down(true);
    for target in &world.targets {
        let answer = world
            .to(target)
            .key(DEVELOPMENT_KEY)
            .organization("contoso")
            .send()
            .await;
        if target.access == Access::Open && target.template != "/api/ready" {
            assert_eq!(answer.status, 200, "{}", target.template);
        } else if target.access == Access::Link {
            // What is no link needs no storage to be told from one.
            assert_eq!(answer.code(), "approval_link_invalid", "{}", target.template);
        } else {
            assert_eq!(answer.status, 503, "{}: {}", target.template, answer.text());
            is_problem(&answer, target.template);
        }
    }
}

/// What would be passed over in silence is refused where something changes: query parameters that there aren't, and a body where
/// none is taken.
#[tokio::test]
async fn what_nobody_reads_is_refused_where_something_changes() {
    let world = World::new().await;
    let description = serde_json::to_value(openapi::description()).unwrap();
    let pointers = |answer: &Answer| -> BTreeSet<String> {
        let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        let pointers = errors.iter().filter_map(|one| one["pointer"].as_str());
        pointers.map(str::to_owned).collect()
    };
    let changes = world.targets.iter().filter(|target| target.method != "GET");
    // Other systems deliver to hooks, and say what they like.
    for target in changes.filter(|target| target.access != Access::Hook) {
        let of = format!("{} {}", target.method, target.template);
        let operation = &description["paths"][target.template][target.method.to_lowercase()];
        let asked = Target {
            path: format!("{}?nosuch=1&&nosuch=2&Nosuch", target.path),
            ..target.clone()
        };
        let request = world.to(&asked).key(DEVELOPMENT_KEY).organization("contoso");
        let answer = request.send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "parameter_invalid"),
            "{of}"
        );
        assert_eq!(
            pointers(&answer),
            ["query:Nosuch", "query:nosuch"].map(str::to_owned).into(),
            "{of}"
        );
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = format!("`{}`", parameter["name"].as_str().unwrap());
            assert_eq!(hint.contains(&name), parameter["in"] == "query", "{of}: {hint}");
        }
        let body = &operation["requestBody"];
        if target.method != "DELETE" && (body.is_null() || body["description"] == "An empty object") {
            let request = world.to(target).key(DEVELOPMENT_KEY).organization("contoso");
            let answer = request.json(&json!({"nosuch": 1, "a/b": {}})).send().await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (400, "parameter_invalid"),
                "{of}"
            );
            assert_eq!(
                pointers(&answer),
                ["/a~1b", "/nosuch"].map(str::to_owned).into(),
                "{of}: {}",
                answer.text()
            );
        }
    }
    // The function key may stand in every query, and what is empty says nothing.
    let path = format!("/api/workflows/{WORKFLOW}/execute?&code={DEVELOPMENT_KEY}&priority=high&");
    let request = world.app.request("POST", &path).organization("contoso");
    let answer = request.header("prefer", "respond-async").send().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[test]
fn every_route_is_described_and_the_reverse() {
    let description = serde_json::to_value(openapi::description()).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut described = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone()));
            let open = OPEN.contains(&path.as_str());
            // An empty list says: nothing is asked for here.
            let asks = operation.get("security").is_none_or(|security| {
                security
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|way| !way.as_object().unwrap().is_empty())
            });
            assert_eq!(asks, !open, "{method} {path}: {:?}", operation.get("security"));
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                open || responses.contains_key("default"),
                "{method} {path} does not say how errors look"
            );
            let parameters: Vec<_> = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named = |place: &str, name: &str| {
                parameters
                    .iter()
                    .any(|p| p["in"] == place && p["name"].as_str().unwrap().eq_ignore_ascii_case(name))
            };
            let route = routes::table().into_iter().find(|route| route.path == path);
            let organization = route.is_some_and(|route| route.access == Access::Organization);
            assert_eq!(named("header", "X-Organization-Id"), organization, "{method} {path}");
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                assert!(named("path", part.trim_end_matches('}')), "{method} {path}: {part}");
            }
        }
    }
    let routed: BTreeSet<_> = routes::table()
        .into_iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    assert_eq!(described, routed);
}
