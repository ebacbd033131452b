//! Security profiles through the API: whoever chooses one, the strictest holds, nothing gets past it, and it says who has chosen it.

use serde_json::{Value, json};
use weft::store::repo::audit_log::AuditQuery;
use weft::tenancy::{operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};

async fn ask(app: &TestApp, person: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app.request(method, path).person(person).organization("contoso");
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
}

/// Workflows `plain`, `careful` (which asks for `restricted`), `shown` (which asks for `plan_only`), and a parent of `plain`.
async fn app() -> TestApp {
    let node = json!({"id": "only", "type": "python", "use": "work"});
    let graph = |name: &str, profile: Option<&str>| {
        let mut graph = json!({"name": name, "parameters": [{"name": "text", "type": "string"}], "nodes": [node]});
        if let Some(profile) = profile {
            graph["securityProfile"] = json!(profile);
        }
        graph
    };
    let parent = json!({
        "name": "parent",
        "nodes": [{"id": "child", "type": "workflow", "workflow": "hosts", "inputs": {}}],
    });
    let hosts = json!({"name": "hosts", "nodes": [{"id": "only", "type": "python", "use": "reaches", "inputs": {}}]});
    Builder::default()
        .function("work", &["text"])
        .declares(json!({"name": "reaches", "function": "reaches", "line": 1, "network": ["api.example.com"]}))
        .graph(graph("plain", None))
        .graph(graph("careful", Some("restricted")))
        .graph(graph("shown", Some("plan_only")))
        .graph(parent)
        .graph(json!({"name": "deploys", "nodes": [
            {"id": "list", "type": "shell", "command": "cd /tmp && ls | wc -l"},
            {"id": "apply", "type": "shell", "command": ["kubectl", "apply"]},
            {"id": "any", "type": "shell", "command": "$TOOL x"},
        ]}))
        .graph(hosts)
        .start()
        .await
}

async fn execute(app: &TestApp, workflow: &str, query: &str, body: Value) -> Answer {
    let path = format!("/api/workflows/{workflow}/execute{query}");
    ask(app, "ann", "POST", &path, Some(body)).await
}

async fn effective(app: &TestApp, workflow: &str) -> Value {
    let path = format!("/api/policy/effective?workflow={workflow}");
    ask(app, "ann", "GET", &path, None).await.json()
}

#[tokio::test]
async fn nothing_runs_under_plan_only_whoever_has_chosen_it() {
    let app = app().await;
    assert_eq!(execute(&app, "plain", "", json!({})).await.status, 200);
    let refused = |answer: Answer, by: &str| {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "plan_only"),
            "{}",
            answer.text()
        );
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains(by) && hint.contains("/plan"), "{hint}");
    };
    refused(execute(&app, "shown", "", json!({})).await, "the workflow's own");
    refused(
        execute(&app, "plain", "?securityProfile=plan_only", json!({})).await,
        "the request",
    );
    let set = ask(&app, "ann", "PUT", "/api/policy", Some(json!({"profile": "plan_only"}))).await;
    assert_eq!(set.status, 200, "{}", set.text());
    refused(
        execute(&app, "plain", "?securityProfile=elevated", json!({})).await,
        "the organization's policy",
    );
    let shown = effective(&app, "plain").await;
    assert_eq!(
        (
            &shown["startable"],
            &shown["profile"]["name"],
            &shown["profile"]["chosenBy"]
        ),
        (&json!(false), &json!("plan_only"), &json!("organization"))
    );
    // Nor does an organization lift it by itself.
    let lifted = ask(&app, "ann", "PUT", "/api/policy", Some(json!({}))).await;
    assert_eq!(
        (lifted.status, lifted.code().as_str()),
        (403, "policy_widened"),
        "{}",
        lifted.text()
    );
    assert_eq!(lifted.json()["errors"][0]["pointer"], "/profile");

    let scope = operator_in(&operator(), &"contoso".parse().unwrap());
    let records = app
        .cx
        .audit
        .list(
            &scope,
            AuditQuery {
                limit: 200,
                ..AuditQuery::default()
            },
        )
        .await
        .unwrap()
        .items;
    let refusals = records
        .iter()
        .filter(|entry| entry.plain.event == "policy.refused")
        .count();
    assert_eq!(refusals, 3, "each is on record");
    assert_eq!(
        records
            .iter()
            .filter(|entry| entry.plain.event == "run.started")
            .count(),
        1
    );
}

#[tokio::test]
async fn restricted_has_no_network_and_says_which_profile_keeps_it_off() {
    let app = app().await;
    assert_eq!(execute(&app, "hosts", "", json!({})).await.status, 200);
    let answer = execute(&app, "hosts", "?securityProfile=restricted", json!({})).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "policy_refused"),
        "{}",
        answer.text()
    );
    let error = answer.json()["errors"][0].clone();
    assert_eq!(error["code"], "network_not_allowed");
    assert_eq!(
        error["message"],
        "security profile `restricted` allows its steps no network"
    );
    assert!(error["hint"].as_str().unwrap().contains("the request"), "{error}");
}

#[tokio::test]
async fn commands_start_what_the_profile_lists() {
    let app = app().await;
    let codes = async |profile: &str| {
        let answer = execute(&app, "deploys", &format!("?securityProfile={profile}"), json!({})).await;
        let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        let errors = errors
            .iter()
            .map(|error| format!("{} {}", error["pointer"], error["code"]).replace('"', ""));
        (answer.status, errors.collect::<Vec<_>>())
    };
    let (apply, any) = (
        "/nodes/apply/command program_not_allowed",
        "/nodes/any/command program_not_told",
    );
    assert_eq!(codes("restricted").await, (403, vec![apply.to_owned(), any.to_owned()]));
    assert_eq!(
        codes("standard").await,
        (403, vec![any.to_owned()]),
        "kubectl is listed"
    );
    assert_eq!(codes("elevated").await.0, 200);
    ask(&app, "ann", "PUT", "/api/policy", Some(json!({"trust": "restricted"}))).await;
    let (status, errors) = codes("elevated").await;
    assert_eq!(status, 403);
    assert_eq!(errors.len(), 3);
    assert!(
        errors.iter().all(|error| error.ends_with("shell_not_allowed")),
        "{errors:?}"
    );
}

/// What a run starts is held to what the run was held to.
#[tokio::test]
async fn a_child_run_keeps_the_profile_of_its_parent() {
    let app = app().await;
    let queue = tokio::spawn(weft::usecase::deliver::consume(app.cx.clone()));
    let free = execute(&app, "parent", "", json!({})).await.json();
    assert_eq!(free["status"], "succeeded", "{free:#}");
    let held = execute(&app, "parent", "?securityProfile=restricted", json!({}))
        .await
        .json();
    assert_eq!(held["status"], "failed", "{held:#}");
    assert_eq!(held["error"]["type"], "policy_refused", "{held:#}");
    queue.abort();
}

#[tokio::test]
async fn figures_hold_for_arguments_limits_and_time() {
    let app = app().await;
    let long = json!({"text": "ö".repeat(5_001)});
    let answer = execute(&app, "careful", "", long.clone()).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "arguments_invalid"),
        "{}",
        answer.text()
    );
    let error = answer.json()["errors"][0].clone();
    assert_eq!(
        (&error["pointer"], &error["code"]),
        (&json!("/text"), &json!("text_too_long"))
    );
    assert_eq!(
        execute(&app, "careful", "", json!({"text": "ö".repeat(5_000)}))
            .await
            .status,
        200
    );
    assert_eq!(
        execute(&app, "plain", "?securityProfile=standard", long).await.status,
        200
    );

    // Narrowed while the run waits, it holds for the attempt that begins then.
    ask(
        &app,
        "ann",
        "PUT",
        "/api/policy",
        Some(json!({"profile": "restricted"})),
    )
    .await;
    execute(&app, "plain", "", json!({})).await;
    let asked = app.scripted.asked();
    assert_eq!(asked.last().unwrap().rights.minimum, weft::domain::Tier::Confined);
    let shown = effective(&app, "plain").await;
    assert_eq!(shown["profile"]["runSeconds"], 3_600);
    let answer = ask(
        &app,
        "ann",
        "POST",
        "/api/workflows/plain/execute?securityProfile=paranoid",
        Some(json!({})),
    )
    .await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "parameter_invalid"));
    assert_eq!(answer.json()["errors"][0]["pointer"], "query:securityProfile");
}

// ── what holds by now ──────────────────────────────────────────────────────────────────────────────────────────────────

/// Leaves a run to the queue, lets something happen, and drives it then.
async fn later(app: &TestApp, workflow: &str, query: &str, meanwhile: Value) -> Value {
    let pending = app
        .request("POST", &format!("/api/workflows/{workflow}/execute{query}"))
        .person("ann")
        .organization("contoso")
        .header("prefer", "respond-async")
        .json(&json!({}))
        .send()
        .await;
    assert_eq!(pending.status, 202, "{}", pending.text());
    let run = pending.json()["runId"].as_str().unwrap().to_owned();
    let set = ask(app, "ann", "PUT", "/api/policy", Some(meanwhile)).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let reference = weft::tenancy::RunRef {
        org: "contoso".parse().unwrap(),
        run: run.parse().unwrap(),
    };
    weft::usecase::drive_run::continue_run(&app.cx, &reference, app.cx.clock.now())
        .await
        .unwrap();
    ask(app, "ann", "GET", &format!("/api/runs/{run}"), None).await.json()
}

async fn events(app: &TestApp, event: &str) -> usize {
    let scope = operator_in(&operator(), &"contoso".parse().unwrap());
    let query = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    let records = app.cx.audit.list(&scope, query).await.unwrap().items;
    records.iter().filter(|entry| entry.plain.event == event).count()
}

#[tokio::test]
async fn a_profile_that_became_stricter_holds_for_commands_of_runs_that_have_begun() {
    for (profile, kind) in [("restricted", "policy_refused"), ("plan_only", "plan_only")] {
        let app = app().await;
        let run = later(&app, "deploys", "", json!({"profile": profile})).await;
        assert_eq!(
            (&run["status"], &run["error"]["type"]),
            (&json!("failed"), &json!(kind)),
            "{run:#}"
        );
        let started = app.scripted.asked();
        let wanted = if profile == "restricted" { 1 } else { 0 };
        assert!(started.len() <= wanted, "only `list` may be started: {started:#?}");
        assert!(events(&app, "step.refused").await >= 1, "{profile}");
    }
    let app = app().await;
    let run = later(&app, "deploys", "", json!({"trust": "restricted"})).await;
    assert_eq!(run["error"]["type"], "policy_refused", "{run:#}");
    assert!(app.scripted.asked().is_empty());
}

// ── in the real jail ───────────────────────────────────────────────────────────────────────────────────────────────────

const STEPS: &str = r#"
from weft import Context, WeftError, node, workflow

def refused(call, *args):
    try:
        return call(*args)
    except WeftError as error:
        return type(error).__name__
    except OSError as error:
        return "OSError"

def keeps(mib: int) -> int:
    with open("large", "wb") as file:
        for _ in range(mib):
            file.write(bytes(1 << 20))
    return mib

@workflow()
def fills(mib: int) -> object:
    return refused(keeps, mib)

@workflow()
def connects() -> object:
    import socket

    return refused(socket.create_connection, ("192.0.2.1", 80), 2)

@workflow()
def provides(ctx: Context) -> object:
    return refused(ctx.data.get, "reaching")

@workflow(network=["nowhere.invalid"])
def requests(ctx: Context) -> object:
    return refused(ctx.http.get, "https://nowhere.invalid/")

@workflow()
def starts(ctx: Context) -> object:
    return refused(ctx.runs.start, "connects")

@workflow()
def asks_for_a_secret(ctx: Context) -> object:
    return refused(ctx.secrets.get, "anything")

@workflow(network=["nowhere.invalid"], security_profile="restricted")
def never() -> None:
    pass
"#;

const PROVIDER: &str = r#"
from weft import data_provider

@data_provider()
def reaching() -> list:
    return ["there"]
"#;

const COMMANDS: &str = r#"
name: commands
steps:
  - id: says
    type: shell
    command: echo "it is {{ 1 + 1 }}" | tr a-z A-Z
outputs:
  said: "{{ steps.says.stdout }}"
"#;

const ABOVE: &str =
    r#"{"name": "above", "nodes": [{"id": "below", "type": "workflow", "workflow": "provides", "inputs": {}}]}"#;

async fn jailed() -> (TestApp, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("workflows/steps.py", STEPS),
        ("workflows/commands.yaml", COMMANDS),
        ("workflows/above.json", ABOVE),
        ("data_providers/reaching.py", PROVIDER),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let app = Builder::default().python().workspace(folder.path()).start().await;
    (app, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jail_and_the_broker_hold_what_a_profile_says() {
    let (app, _folder) = jailed().await;
    let result = async |workflow: &str, profile: &str, body: Value| {
        let answer = execute(&app, workflow, &format!("?securityProfile={profile}"), body).await;
        let run = answer.json();
        assert_eq!(run["status"], "succeeded", "{workflow} {profile}: {run:#}");
        run["result"].clone()
    };
    // Its folder: 64 MiB by the installation, 50 MiB by `restricted`.
    assert_eq!(result("fills", "elevated", json!({"mib": 55})).await, json!(55));
    assert_eq!(result("fills", "restricted", json!({"mib": 40})).await, json!(40));
    assert_eq!(
        result("fills", "restricted", json!({"mib": 55})).await,
        json!("OSError")
    );
    assert_eq!(result("connects", "restricted", json!({})).await, json!("OSError"));
    assert_eq!(result("provides", "elevated", json!({})).await, json!(["there"]));
    assert_eq!(result("provides", "standard", json!({})).await, json!(["there"]));
    assert_eq!(result("provides", "restricted", json!({})).await, json!(["there"]));
    assert_eq!(
        result("commands", "restricted", json!({})).await,
        json!({"said": "IT IS 2\n"})
    );
    let never = execute(&app, "never", "", json!({})).await;
    assert_eq!(
        (never.status, never.code().as_str()),
        (403, "policy_refused"),
        "{}",
        never.text()
    );
}

/// The plan of the run would still let it: what was taken away since counts for requests that the engine makes, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_makes_no_request_that_was_forbidden_meanwhile() {
    for meanwhile in [
        json!({"profile": "restricted"}),
        json!({"network": {"mode": "none"}}),
        json!({"network": {"domains": ["other.example"]}}),
        json!({"trust": "restricted"}),
    ] {
        let (app, _folder) = jailed().await;
        let run = later(&app, "requests", "", meanwhile.clone()).await;
        assert_eq!(run["result"], "Denied", "{meanwhile}: {run:#}");
        assert!(events(&app, "step.overreached").await >= 1, "{meanwhile}");
    }
}

// ── held to a plan ─────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_held_to_a_plan_does_no_more_in_the_real_broker() {
    let (app, _folder) = jailed().await;
    let held = async |workflow: &str| {
        let plan = ask(
            &app,
            "ann",
            "POST",
            &format!("/api/workflows/{workflow}/plan"),
            Some(json!({})),
        )
        .await
        .json();
        let query = format!("?plan={}", plan["hash"].as_str().unwrap());
        let run = execute(&app, workflow, &query, json!({})).await.json();
        assert_eq!(run["status"], "succeeded", "{workflow}: {run:#}");
        run["result"].clone()
    };
    let queue = tokio::spawn(weft::usecase::deliver::consume(app.cx.clone()));
    // What a provider does is in no plan.
    assert_eq!(held("provides").await, json!("Denied"));
    assert_eq!(held("starts").await, json!("Denied"));
    assert_eq!(held("asks_for_a_secret").await, json!("Denied"));
    assert_eq!(events(&app, "plan.exceeded").await, 3);
    // Nor has it what it starts do it.
    let free = execute(&app, "above", "", json!({})).await.json();
    assert_eq!(free["result"], json!(["there"]), "{free:#}");
    assert_eq!(held("above").await, json!("Denied"));
    assert_eq!(events(&app, "plan.exceeded").await, 4);
    queue.abort();
}
