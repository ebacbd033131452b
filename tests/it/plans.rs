//! Plans through the API: nothing is started, the same run has the same hash, and a run that is held to a plan is that run or none,
//! and does no more.

use serde_json::{Value, json};
use weft::store::repo::audit_log::AuditQuery;
use weft::tenancy::{operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};

async fn ask(app: &TestApp, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app.request(method, path).person("ann").organization("contoso");
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
}

async fn app() -> TestApp {
    Builder::default()
        .declares(json!({"name": "reaches", "function": "reaches", "line": 1, "network": ["api.example.com"], "secrets": ["token"]}))
        .graph(json!({
            "name": "deploy",
            "parameters": [{"name": "to", "type": "string", "required": true}],
            "nodes": [
                {"id": "ask", "type": "python", "use": "reaches", "inputs": {}},
                {"id": "apply", "type": "shell", "command": "kubectl apply -f k8s/{{ inputs.to }}/ && echo {{ steps.ask.output.id }}"},
                {"id": "tell", "type": "workflow", "workflow": "deploy-note", "inputs": {}},
            ],
            "edges": [{"from": "ask", "to": "apply"}, {"from": "apply", "to": "tell"}],
        }))
        .graph(json!({"name": "deploy-note", "nodes": [{"id": "a", "type": "compute", "value": 1}]}))
        .graph(json!({"name": "plain", "parameters": [{"name": "n", "type": "integer"}], "nodes": [{"id": "a", "type": "compute", "value": {"$": "inputs.n"}}]}))
        .start()
        .await
}

async fn plan(app: &TestApp, workflow: &str, query: &str, body: Value) -> Value {
    let answer = ask(
        app,
        "POST",
        &format!("/api/workflows/{workflow}/plan{query}"),
        Some(body),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn records(app: &TestApp) -> Vec<String> {
    let scope = operator_in(&operator(), &"contoso".parse().unwrap());
    let query = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    let items = app.cx.audit.list(&scope, query).await.unwrap().items;
    items.into_iter().map(|entry| entry.plain.event).collect()
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_nothing_does() {
    let app = app().await;
    let planned = plan(&app, "deploy", "", json!({"to": "dev"})).await;
    assert_eq!((&planned["startable"], &planned["refused"]), (&json!(true), &json!([])));
    let manifest = &planned["manifest"];
    let effects = &manifest["effects"];
    assert_eq!(effects["network"], json!(["api.example.com"]));
    assert_eq!(effects["secrets"], json!(["token"]));
    assert_eq!(effects["programs"], json!(["echo", "kubectl"]));
    assert_eq!(effects["workflows"], json!(["deploy-note"]));
    let ids: Vec<_> = manifest["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["id"].clone())
        .collect();
    assert_eq!(ids, ["ask", "apply", "tell"]);
    let apply = &manifest["steps"][1];
    assert_eq!(apply["effects"]["programs"], json!(["echo", "kubectl"]));
    assert!(apply["open"].to_string().contains("steps.ask.output.id"), "{apply}");
    assert_eq!(manifest["profile"]["chosenBy"], "installation");
    // The hash is that of the manifest, and says nothing of who asks and when.
    assert_eq!(
        planned["hash"],
        weft::domain::sha256_hex(manifest.to_string().as_bytes())
    );
    assert_eq!(plan(&app, "deploy", "", json!({"to": "dev"})).await, planned);
    assert_ne!(
        plan(&app, "deploy", "", json!({"to": "prod"})).await["hash"],
        planned["hash"]
    );
    assert_ne!(
        plan(&app, "deploy", "?securityProfile=standard", json!({"to": "dev"})).await["hash"],
        planned["hash"]
    );

    let wrong = ask(&app, "POST", "/api/workflows/deploy/plan", Some(json!({}))).await;
    assert_eq!(wrong.code(), "arguments_invalid");
    assert_eq!(
        ask(&app, "POST", "/api/workflows/nobody/plan", Some(json!({})))
            .await
            .code(),
        "workflow_not_found"
    );
    assert!(app.scripted.asked().is_empty(), "nothing was executed");
    let records = records(&app).await;
    assert!(!records.iter().any(|event| event == "run.started"));
    assert_eq!(records.iter().filter(|event| *event == "plan.made").count(), 4);
}

#[tokio::test]
async fn what_would_be_refused_is_in_the_plan() {
    let app = app().await;
    let planned = plan(
        &app,
        "deploy",
        "?securityProfile=restricted",
        json!({"to": "x".repeat(6_000)}),
    )
    .await;
    assert_eq!(planned["startable"], false);
    let codes: Vec<_> = planned["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].clone())
        .collect();
    assert_eq!(codes, ["network_not_allowed", "program_not_allowed", "text_too_long"]);
    // Under plan_only a plan is all there is.
    ask(&app, "PUT", "/api/policy", Some(json!({"profile": "plan_only"}))).await;
    let planned = plan(&app, "plain", "", json!({"n": 1})).await;
    assert_eq!(planned["refused"][0]["code"], "plan_only");
    let execute = format!(
        "/api/workflows/plain/execute?plan={}",
        planned["hash"].as_str().unwrap()
    );
    assert_eq!(
        ask(&app, "POST", &execute, Some(json!({"n": 1}))).await.code(),
        "plan_only"
    );
}

#[tokio::test]
async fn a_run_that_is_held_to_a_plan_is_that_run_or_none() {
    let app = app().await;
    let hash = plan(&app, "plain", "", json!({"n": 1})).await["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let execute = async |body: Value| {
        ask(
            &app,
            "POST",
            &format!("/api/workflows/plain/execute?plan={hash}"),
            Some(body),
        )
        .await
    };
    assert_eq!(execute(json!({"n": 1})).await.json()["status"], "succeeded");
    let other = execute(json!({"n": 2})).await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (409, "plan_changed"),
        "{}",
        other.text()
    );
    let malformed = ask(
        &app,
        "POST",
        "/api/workflows/plain/execute?plan=1",
        Some(json!({"n": 1})),
    )
    .await;
    assert_eq!(malformed.code(), "parameter_invalid");
    // A policy that has become narrower makes it another run.
    let hash = plan(&app, "deploy", "", json!({"to": "dev"})).await["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    ask(&app, "PUT", "/api/policy", Some(json!({"limits": {"wallMs": 1_000}}))).await;
    let path = format!("/api/workflows/deploy/execute?plan={hash}");
    assert_eq!(
        ask(&app, "POST", &path, Some(json!({"to": "dev"}))).await.code(),
        "plan_changed"
    );
}
