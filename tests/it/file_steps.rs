//! Steps of type `file` in the real jail: files that are made and read, in a workspace's graphs and in restricted ones that an
//! organization has authored, and what is no file.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};

async fn app(graphs: &[Value]) -> (TestApp, TempDir) {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("workflows");
    fs::create_dir_all(&folder).unwrap();
    for graph in graphs {
        let name = graph["name"].as_str().unwrap();
        fs::write(folder.join(format!("{name}.json")), graph.to_string()).unwrap();
    }
    let app = Builder::default().python().workspace(dir.path()).start().await;
    (app, dir)
}

async fn ann(app: &TestApp, method: &str, path: &str, tag: Option<&str>, body: Option<&Value>) -> Answer {
    let mut request = app.request(method, path).person("ann").organization("contoso");
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    match body {
        Some(body) => request.json(body),
        None => request,
    }
    .send()
    .await
}

async fn run(app: &TestApp, workflow: &str, arguments: Value) -> Value {
    let path = format!("/api/workflows/{workflow}/execute");
    let answer = ann(app, "POST", &path, None, Some(&arguments)).await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}

/// A file that is made, read again in another form, and handed on to a map.
fn there_and_back(name: &str) -> Value {
    json!({
        "name": name,
        "parameters": [{"name": "text", "type": "string", "required": true}],
        "nodes": [
            {"id": "made", "type": "file", "action": "write", "name": "rows.csv", "mediaType": "text/csv", "content": {"$": "inputs.text"}},
            {"id": "rows", "type": "file", "action": "read", "format": "csv"},
            {"id": "bytes", "type": "file", "action": "read", "format": "base64"},
            {"id": "copy", "type": "file", "action": "write", "format": "base64", "name": "copy.bin", "store": "inline"},
            {"id": "json", "type": "file", "action": "write", "format": "json", "name": {"$text": "n{{ steps.rows.output | length }}.json"},
                "content": {"rows": {"$": "steps.rows.output"}}},
            {"id": "again", "type": "file", "action": "read", "format": "json"},
        ],
        "edges": [
            {"from": "made", "to": "rows", "input": "file"},
            {"from": "made", "to": "bytes", "output": "file", "input": "file"},
            {"from": "bytes", "to": "copy", "output": "content", "input": "content"},
            {"from": "rows", "to": "json"},
            {"from": "json", "to": "again", "output": "file", "input": "file"},
        ],
        "output": {
            "made": {"$": "steps.made.output"}, "rows": {"$": "steps.rows.output"}, "copy": {"$": "steps.copy.output"},
            "again": {"$": "steps.again.output"}, "json": {"$": "steps.json.output"},
        },
    })
}

async fn goes_there_and_back(app: &TestApp, workflow: &str) {
    let text = "name,n\nä,1\nb,2\n";
    let ran = run(app, workflow, json!({"text": text})).await;
    let result = &ran["result"];
    let rows = json!([{"name": "ä", "n": "1"}, {"name": "b", "n": "2"}]);
    assert_eq!(result["rows"], rows, "{ran}");
    assert_eq!(result["again"], json!({"rows": rows}));
    assert_eq!(
        result["copy"],
        json!({"data": STANDARD.encode(text), "name": "copy.bin", "media_type": "application/octet-stream", "size": text.len()})
    );
    assert_eq!(
        (&result["made"]["media_type"], &result["json"]["name"]),
        (&json!("text/csv"), &json!("n2.json"))
    );
    // What is made is an artifact of the run, for people too.
    let path = format!("/api/runs/{}/artifacts", ran["runId"].as_str().unwrap());
    let listed = ann(app, "GET", &path, None, None).await.json();
    let items = listed["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["n2.json", "rows.csv"]);
    let path = format!("{path}/{}", result["made"]["artifact"].as_str().unwrap());
    assert_eq!(ann(app, "GET", &path, None, None).await.text(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_made_and_read_by_the_workspace_and_by_organizations() {
    let reads = json!({
        "name": "reads",
        "parameters": [{"name": "file", "type": "file", "required": true}, {"name": "file2", "type": "any", "default": null}],
        "nodes": [{"id": "n", "type": "file", "action": "read", "format": "json", "file": {"$": "inputs.file2 or inputs.file"}, "retry": {"attempts": 3}}],
    });
    let (app, _folder) = app(&[there_and_back("workspace"), reads]).await;
    goes_there_and_back(&app, "workspace").await;

    // Whoever authors through the API is restricted: without a folder, network and child processes it does the same.
    let draft = app
        .request("PUT", "/api/workflows/ours/draft")
        .person("ann")
        .organization("contoso");
    let draft = draft.header("if-none-match", "*").json(&there_and_back("ours"));
    let saved = draft.send().await;
    assert!(saved.status < 300, "{}", saved.text());
    let tag = saved.header("etag").to_owned();
    let published = ann(
        &app,
        "POST",
        "/api/workflows/ours/publish",
        Some(&tag),
        Some(&json!({})),
    )
    .await;
    assert!(published.status < 300, "{}", published.text());
    goes_there_and_back(&app, "ours").await;

    let of = |data: &[u8]| json!({"data": STANDARD.encode(data)});
    assert_eq!(
        run(&app, "reads", json!({"file": of(b"\xef\xbb\xbf[1]")})).await["result"],
        json!([1])
    );
    // What is wrong with a file is no better at another attempt.
    let ran = run(&app, "reads", json!({"file": of(b"{\n 'a'")})).await;
    assert_eq!(ran["error"]["type"], "FileInvalid", "{ran}");
    assert!(
        ran["error"]["message"].as_str().unwrap().contains("line 2, column 2"),
        "{ran}"
    );
    let path = format!("/api/runs/{}/steps", ran["runId"].as_str().unwrap());
    let steps = ann(&app, "GET", &path, None, None).await.json();
    assert_eq!(
        (
            &steps["items"][0]["kind"],
            &steps["items"][0]["attempts"].as_array().map(Vec::len)
        ),
        (&json!("file"), &Some(1)),
        "{steps}"
    );
    // No run reads what another has made.
    let other = run(&app, "workspace", json!({"text": "n\n"})).await;
    let ran = run(
        &app,
        "reads",
        json!({"file": of(b"1"), "file2": other["result"]["made"]}),
    )
    .await;
    assert_eq!(ran["error"]["type"], "NotFound", "{ran}");
}

/// What a resumed run takes over names artifacts of the run that it resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_run_reads_the_files_that_it_takes_over() {
    let waits = json!({
        "name": "waits",
        "nodes": [
            {"id": "made", "type": "file", "action": "write", "name": "a.txt", "content": "kept"},
            {"id": "pause", "type": "approval", "question": "go on?"},
            {"id": "read", "type": "file", "action": "read", "file": {"$": "steps.made.output"}},
        ],
        "edges": [{"from": "made", "to": "pause"}, {"from": "pause", "to": "read"}],
        "output": {"text": {"$": "steps.read.output"}, "file": {"$": "steps.made.output"}},
    });
    let (app, _folder) = app(&[waits]).await;
    let _host = tokio::spawn(weft::usecase::deliver::consume(app.cx.clone()));
    let post = async |path: &str| {
        let request = app.request("POST", path).person("ann").organization("contoso");
        let request = request.header("prefer", "respond-async").json(&json!({}));
        request.send().await
    };
    let begun = post("/api/workflows/waits/execute").await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let mut at = begun.json();
    for _ in 0..2 {
        let run = format!("/api/runs/{}", at["runId"].as_str().unwrap());
        waits_at(&app, &run).await;
        assert_eq!(
            ann(&app, "POST", &format!("{run}/cancel"), None, None).await.status,
            200
        );
        let resumed = post(&format!("{run}/resume")).await;
        assert!(matches!(resumed.status, 200 | 202), "{}", resumed.text());
        at = resumed.json();
    }
    let run = format!("/api/runs/{}", at["runId"].as_str().unwrap());
    waits_at(&app, &run).await;
    let decided = ann(
        &app,
        "POST",
        &format!("{run}/steps/pause/decision"),
        None,
        Some(&json!({"approved": true})),
    )
    .await;
    assert!(decided.status < 300, "{}", decided.text());
    let ended = loop {
        let now = ann(&app, "GET", &run, None, None).await.json();
        if now["finishedAt"].is_string() {
            break now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(ended["result"]["text"], "kept", "{ended}");
    let path = format!(
        "{run}/artifacts/{}",
        ended["result"]["file"]["artifact"].as_str().unwrap()
    );
    assert_eq!(ann(&app, "GET", &path, None, None).await.text(), "kept");
}

async fn waits_at(app: &TestApp, run: &str) {
    loop {
        let now = ann(app, "GET", run, None, None).await.json();
        assert!(now["finishedAt"].is_null(), "{now}");
        if now["status"] == "waiting" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
