//! What is kept of attempts for a replay: who may see it, what of it is masked, and that it goes with its run.

use std::fs;

use serde_json::{Value, json};
use weft::store::key;
use weft::testing::app::Builder;
use weft::usecase::seed::DEVELOPMENT_KEY;

const STEPS: &str = r#"
from weft import Context, workflow

@workflow(secrets=["API_KEY"])
def uses(ctx: Context, text: str) -> dict:
    key = ctx.secrets.get("API_KEY")
    ctx.kv.set("said", f"before {key} after")
    ctx.kv.set("long", "x" * 20_000)
    return {"text": text, "key": key, "kept": ctx.kv.get("said"), "more": len(ctx.kv.get("long"))}
"#;
const VALUE: &str = "value-of-a-secret-4711";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_for_those_who_may_see_every_run_and_holds_no_secret() {
    let workspace = tempfile::tempdir().unwrap();
    fs::create_dir_all(workspace.path().join("workflows")).unwrap();
    fs::write(workspace.path().join("workflows/steps.py"), STEPS).unwrap();
    let app = Builder::default().python().workspace(workspace.path()).start().await;
    let by_key = |method: &str, path: &str| app.request(method, path).key(DEVELOPMENT_KEY).organization("contoso");
    let put = by_key("PUT", "/api/secrets/API_KEY")
        .json(&json!({"value": VALUE}))
        .send()
        .await;
    assert!(put.status < 300, "{put:?}");
    let arguments = json!({"text": format!("given {VALUE}")});
    let run = app
        .request("POST", "/api/workflows/uses/execute")
        .person("cleo")
        .organization("contoso")
        .json(&arguments)
        .send()
        .await
        .json();
    assert_eq!(run["status"], "succeeded", "{run}");
    let path = format!("/api/runs/{}/recording", run["runId"].as_str().unwrap());

    // Whose run it is may see the run, and not what its code was answered.
    let own = app
        .request("GET", &path)
        .person("cleo")
        .organization("contoso")
        .send()
        .await;
    assert_eq!((own.status, own.code().as_str()), (403, "not_permitted"), "{own:?}");
    let manager = app
        .request("GET", &path)
        .person("ben")
        .organization("contoso")
        .send()
        .await;
    assert_eq!(manager.status, 200, "{manager:?}");
    let recorded = manager.json();
    // What a caller has written into the arguments of a run is the caller's, there as in `GET /api/runs/{id}`.
    assert!(!recorded["attempts"].to_string().contains(VALUE), "{recorded}");
    assert!(!recorded["result"].to_string().contains(VALUE), "{recorded}");
    let attempt = &recorded["attempts"][0];
    let names: Vec<_> = attempt["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| &call["name"])
        .collect();
    assert_eq!(names, ["secrets.get", "kv.set", "kv.set", "kv.get", "kv.get"]);
    assert_eq!(attempt["calls"][0]["answer"], "secret");
    assert_eq!(attempt["calls"][1]["args"]["value"], "before *** after");
    assert_eq!(
        attempt["calls"][2]["args"]["value"]["bytes"], 20_002,
        "of what is long the digest"
    );
    assert_eq!(attempt["calls"][3]["answer"]["value"], "before *** after");
    assert_eq!(attempt["arguments"]["text"], "given ***", "learned after it was given");
    assert_eq!(attempt["outcome"]["value"]["key"], "***");
    assert_eq!(attempt["bundle"], run["revision"]);
    assert_eq!(attempt["seed"], attempt["context"]["run"]["seed"]);
    assert_eq!(recorded["leftOut"], json!([]));

    let of_step = by_key("GET", &format!("{path}?step=main")).send().await.json();
    assert_eq!(of_step["attempts"].as_array().unwrap().len(), 1);
    let none = by_key("GET", &format!("{path}?step=nosuch")).send().await;
    assert_eq!((none.status, none.code().as_str()), (404, "step_not_found"));
    let foreign = app
        .request("GET", &path)
        .key(DEVELOPMENT_KEY)
        .organization("fabrikam")
        .send()
        .await;
    assert_eq!((foreign.status, foreign.code().as_str()), (404, "run_not_found"));

    // Beside the log, where whoever deletes a run finds it.
    let id = run["runId"].as_str().unwrap().parse().unwrap();
    let container = key::org_container(&"contoso".parse().unwrap());
    let blobs = app
        .ports
        .blobs
        .list(&container, &key::log_blobs(&id), None)
        .await
        .unwrap();
    let found: Vec<_> = blobs
        .blobs
        .iter()
        .filter_map(|blob| key::attempt_of_recording(&blob.path))
        .collect();
    assert_eq!(found.len(), 1);
    let bytes = app
        .ports
        .blobs
        .get(&container, &key::recording_blob(&id, &found[0]), 1 << 20)
        .await
        .unwrap();
    let stored: Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
    assert_eq!(stored["attempt"], attempt["attempt"]);
    assert!(!stored.to_string().contains(VALUE));
}
