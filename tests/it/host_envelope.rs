//! Invocations of the Functions host that are not HTTP: the recorded forms of its requests, what becomes of them, and that a
//! forged one has no effect.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use weft::domain::{OrgId, RunId, Timestamp};
use weft::host::FUNCTIONS;
use weft::host::envelope::Invocation;
use weft::store::envelope::{Message, SigningKey, seal};
use weft::store::fault::Call;
use weft::store::key::Queue;
use weft::tenancy::{RunRef, operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, Request, TestApp, WORKFLOW};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::seed::DEVELOPMENT_KEY;

/// A file of the corpus that holds a request.
struct Golden {
    name: String,
    request: Value,
    expect: Value,
}

fn corpus() -> Vec<Golden> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/host_invocations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    let goldens: Vec<_> = files
        .iter()
        .filter_map(|path| {
            let mut file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let request = file.get_mut("request")?.take();
            Some(Golden {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                request,
                expect: file["expect"].take(),
            })
        })
        .collect();
    assert!(goldens.len() >= 15, "the corpus was not found");
    goldens
}

fn headers(golden: &Golden) -> HeaderMap {
    let given = golden.request["headers"].as_object().cloned().unwrap_or_default();
    given
        .into_iter()
        // Framing is the connection's, and there is none here.
        .filter(|(name, _)| !matches!(name.to_lowercase().as_str(), "transfer-encoding" | "content-length"))
        .map(|(name, value)| {
            let value = value
                .as_str()
                .unwrap()
                .replace("{port}", "7071")
                .replace("{peer}", "127.0.0.1:4711");
            (
                HeaderName::try_from(name).unwrap(),
                HeaderValue::try_from(value).unwrap(),
            )
        })
        .collect()
}

fn body(golden: &Golden) -> Vec<u8> {
    match &golden.request["body"] {
        Value::Null => Vec::new(),
        body => serde_json::to_vec(body).unwrap(),
    }
}

fn request(app: &TestApp, golden: &Golden) -> Request {
    let mut path = golden.request["path"].as_str().unwrap().to_owned();
    if let Some(query) = golden.request["query"].as_str() {
        path += &format!("?{query}");
    }
    let request = app.request(golden.request["method"].as_str().unwrap(), &path);
    let request = headers(golden).iter().fold(request, |request, (name, value)| {
        request.header(name.as_str(), value.to_str().unwrap())
    });
    request.body(body(golden))
}

/// The host completes an invocation only by an object, and waits for ever on an empty body or on null.
fn completes(answer: &Answer, of: &str) {
    assert_ne!(answer.status, 204, "{of}: the host would wait for ever");
    assert!(!answer.body.is_empty(), "{of}: the host would wait for ever");
    if (200..300).contains(&answer.status) {
        let body = answer.json();
        assert!(
            answer.header("content-type").starts_with("application/json"),
            "{of}: {answer:?}"
        );
        assert!(body.is_object(), "{of}: {}", answer.text());
        assert!(body["Outputs"].is_object() && body["Logs"].is_array(), "{of}: {body}");
        assert_eq!(body.get("ReturnValue"), Some(&Value::Null), "{of}: {body}");
    }
}

#[test]
fn the_reader_understands_every_form() {
    let mut read = 0;
    for golden in corpus() {
        let Some(function) = golden.expect["function"].as_str() else {
            continue;
        };
        assert!(FUNCTIONS.contains(&function), "{}", golden.name);
        let invocation = Invocation::read(&headers(&golden), &body(&golden)).unwrap();
        assert_eq!(
            invocation.id,
            golden.expect["invocationId"].as_str().unwrap(),
            "{}",
            golden.name
        );
        if let Some(text) = golden.expect["messageText"].as_str() {
            assert_eq!(invocation.text("message").as_deref(), Some(text), "{}", golden.name);
        } else if let Some(base64) = golden.expect["messageBase64"].as_str() {
            assert_eq!(invocation.text("message").as_deref(), Some(base64), "{}", golden.name);
        } else {
            assert!(invocation.text("timer").is_some(), "{}", golden.name);
        }
        assert_eq!(invocation.text("nothing"), None, "{}", golden.name);
        read += 1;
    }
    assert!(read >= 12, "{read}");
}

#[test]
fn one_text_in_two_encodings_is_one_text() {
    let text = "{\"v\":1,\"p\":\"e30\",\"s\":\"x\"}";
    for (form, message) in [
        ("encoded twice", json!(serde_json::to_string(text).unwrap())),
        ("encoded once", json!(text)),
        ("an object", serde_json::from_str(text).unwrap()),
    ] {
        let body = json!({"Data": {"message": message}, "Metadata": {}}).to_string();
        let invocation = Invocation::read(&HeaderMap::new(), body.as_bytes()).unwrap();
        assert_eq!(invocation.text("message").as_deref(), Some(text), "{form}");
    }
}

#[tokio::test]
async fn every_request_of_the_corpus_is_answered_and_has_no_effect() {
    let app = TestApp::start().await;
    for golden in corpus() {
        app.faults.reset();
        let answer = request(&app, &golden).send().await;
        let of = &golden.name;
        match golden.expect["answer"].as_str() {
            Some("success") => {
                assert_eq!(answer.status, 200, "{of}: {}", answer.text());
                completes(&answer, of);
            }
            Some("completed") => {
                completes(&answer, of);
                assert_eq!(
                    answer.status, 200,
                    "{of}: a message of somebody else's comes again for nothing"
                );
                // No message here is signed, so none is looked at any further.
                assert_eq!(app.faults.total(), 0, "{of}: {:?}", app.faults.calls());
            }
            Some(other) => panic!("{of}: `{other}`"),
            None => {
                let allowed = golden.expect["status"].as_array().cloned().unwrap_or_default();
                if !allowed.is_empty() {
                    assert!(allowed.contains(&json!(answer.status)), "{of}: {}", answer.status);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_envelope_is_dropped_once() {
    let app = TestApp::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for function in FUNCTIONS.into_iter().filter(|name| *name != "tick") {
        for body in [
            "",
            "null",
            "[]",
            "\"text\"",
            "{",
            "{}",
            "{\"Data\":null}",
            "{\"Data\":[]}",
            "{\"Data\":{}}",
            "{\"Data\":{\"message\":null}}",
            "{\"Data\":{\"message\":\"\\\"broken\"}}",
            "{\"Data\":{\"message\":7}}",
            "{\"Data\":{\"message\":\"{\\\"v\\\":1}\"}}",
            "{\"Data\":{\"message\":\"{\\\"v\\\":9,\\\"p\\\":\\\"\\\",\\\"s\\\":\\\"\\\"}\"}}",
            "\u{0}\u{1}",
            &deep,
        ] {
            app.faults.reset();
            let answer = app
                .request("POST", &format!("/{function}"))
                .body(body.to_owned())
                .send()
                .await;
            let of = format!("{function}: {}", body.chars().take(60).collect::<String>());
            // Delivered again it would be the same, so it is not.
            assert_eq!(answer.status, 200, "{of}");
            completes(&answer, &of);
            assert_eq!(app.faults.total(), 0, "{of}");
        }
        let huge = app
            .request("POST", &format!("/{function}"))
            .body("x".repeat(2 << 20))
            .send()
            .await;
        assert_eq!(huge.status, 413, "{function}");
        for method in ["GET", "PUT", "DELETE"] {
            assert_eq!(
                app.request(method, &format!("/{function}")).send().await.status,
                405,
                "{method} {function}"
            );
        }
    }
}

#[tokio::test]
async fn what_was_proxied_is_no_invocation() {
    let app = TestApp::start().await;
    let run = waiting_run(&app).await;
    let body = invocation(&seal(&app.cx.signing, &about(&run)));
    for function in FUNCTIONS {
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "app.azurewebsites.net"),
            ("x-ms-invocation-id", "8a1b0c3e-4d5f-4a6b-9c7d-0e1f2a3b4c5d"),
            ("origin", "https://evil.example"),
        ] {
            app.faults.reset();
            let request = app.request("POST", &format!("/{function}")).header(name, value);
            let answer = request.body(body.clone()).send().await;
            assert_eq!(answer.status, 404, "{function} with {name}");
            assert_eq!(app.faults.total(), 0, "{function} with {name}");
        }
    }
}

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

/// A run that was left to the queue.
async fn waiting_run(app: &TestApp) -> RunId {
    let request = app.request("POST", &format!("/api/workflows/{WORKFLOW}/execute"));
    let answer = request
        .key(DEVELOPMENT_KEY)
        .organization("contoso")
        .header("prefer", "respond-async")
        .json(&json!({"name": "Ada"}))
        .send()
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["runId"].as_str().unwrap().parse().unwrap()
}

fn about(run: &RunId) -> Message {
    Message::DriveRun {
        run: RunRef {
            org: contoso(),
            run: run.clone(),
        },
        reason: "started".into(),
    }
}

/// As the host writes it: the message's JSON text as a JSON string, in a string.
fn invocation(text: &str) -> String {
    json!({"Data": {"message": serde_json::to_string(text).unwrap()}, "Metadata": {"DequeueCount": "1"}}).to_string()
}

async fn status(app: &TestApp, run: &RunId) -> String {
    let scope = operator_in(&operator(), &contoso());
    let stored = app.cx.runs.get(&scope, run).await.unwrap().unwrap();
    stored.state.status.as_str().to_owned()
}

#[tokio::test]
async fn a_message_of_this_installation_drives_its_run() {
    let app = TestApp::start().await;
    let run = waiting_run(&app).await;
    // What the queue holds is what the host delivers.
    let queued = app
        .ports
        .queues
        .receive(&Queue::Runs.name(), 32, Duration::from_secs(1))
        .await
        .unwrap();
    assert!(queued.len() <= 1, "one message for each run: {queued:?}");
    let text = queued
        .first()
        .map_or_else(|| seal(&app.cx.signing, &about(&run)), |message| message.text.clone());
    assert_eq!(status(&app, &run).await, "pending");
    let deliver = || app.request("POST", "/drive_run").body(invocation(&text)).send();
    let answer = deliver().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    completes(&answer, "the first delivery");
    assert_eq!(status(&app, &run).await, "succeeded");
    assert_eq!(app.scripted.asked().len(), 1);
    // Delivered again it finds nothing to do.
    let again = deliver().await;
    assert_eq!(again.status, 200);
    completes(&again, "the second delivery");
    assert_eq!(app.scripted.asked().len(), 1, "a step ran twice");
}

/// The same with the repository's own workspace and a real worker behind it.
#[tokio::test]
async fn a_message_reaches_a_real_worker() {
    let app = Builder::default().python().start().await;
    let run = waiting_run(&app).await;
    let body = invocation(&seal(&app.cx.signing, &about(&run)));
    let answer = app.request("POST", "/drive_run").body(body).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    completes(&answer, "a real worker");
    let request = app.request("GET", &format!("/api/runs/{run}"));
    let told = request.key(DEVELOPMENT_KEY).organization("contoso").send().await.json();
    assert_eq!(told["status"], "succeeded", "{told}");
    assert!(told["result"].to_string().contains("Ada"), "{told}");
    app.cx.runner.shutdown().await;
}

#[tokio::test]
async fn a_forged_message_is_dropped() {
    let app = TestApp::start().await;
    let run = waiting_run(&app).await;
    let good = seal(&app.cx.signing, &about(&run));
    let other: RunId = RunId::derived(Timestamp::from_millis(1_795_219_200_000), "another");
    let outer: Value = serde_json::from_str(&good).unwrap();
    let elsewhere: Value = serde_json::from_str(&seal(&app.cx.signing, &about(&other))).unwrap();
    let with = |name: &str, value: Value| {
        let mut changed = outer.clone();
        changed[name] = value;
        changed.to_string()
    };
    for (forgery, text) in [
        (
            "another installation's key",
            seal(&SigningKey::new(&[9; 32]), &about(&run)),
        ),
        ("another payload", with("p", elsewhere["p"].clone())),
        ("another signature", with("s", elsewhere["s"].clone())),
        ("no signature", with("s", json!(""))),
        ("another version", with("v", json!(2))),
        ("the bare payload", serde_json::to_string(&about(&run)).unwrap()),
        ("cut short", good[..good.len() - 2].to_owned()),
    ] {
        for function in ["drive_run", "attempt_step", "drive_run_poison", "attempt_step_poison"] {
            app.faults.reset();
            let answer = app
                .request("POST", &format!("/{function}"))
                .body(invocation(&text))
                .send()
                .await;
            assert_eq!(answer.status, 200, "{function}: {forgery}");
            completes(&answer, forgery);
            assert_eq!(app.faults.total(), 0, "{function}: {forgery}");
        }
    }
    assert_eq!(status(&app, &run).await, "pending");
    assert!(app.scripted.asked().is_empty());
}

#[tokio::test]
async fn a_message_that_failed_too_often_is_on_record_and_its_run_goes_on() {
    let app = TestApp::start().await;
    let run = waiting_run(&app).await;
    let body = invocation(&seal(&app.cx.signing, &about(&run)));
    let answer = app.request("POST", "/drive_run_poison").body(body).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    completes(&answer, "quarantine");
    assert_eq!(status(&app, &run).await, "succeeded");
    let scope = operator_in(&operator(), &contoso());
    let query = AuditQuery {
        resource_id: Some(run.to_string()),
        ..AuditQuery::default()
    };
    let records = app.cx.audit.list(&scope, query).await.unwrap();
    let events: Vec<_> = records.items.iter().map(|entry| entry.plain.event.as_str()).collect();
    assert!(events.contains(&"message.quarantined"), "{events:?}");
}

#[tokio::test]
async fn while_storage_is_away_the_host_delivers_again() {
    let app = TestApp::start().await;
    let run = waiting_run(&app).await;
    let body = invocation(&seal(&app.cx.signing, &about(&run)));
    app.faults.down(true);
    for function in FUNCTIONS {
        let answer = app
            .request("POST", &format!("/{function}"))
            .body(body.clone())
            .send()
            .await;
        assert_eq!(answer.status, 503, "{function}: {}", answer.text());
        completes(&answer, function);
    }
    assert!(app.faults.count(Call::Get) > 0);
    app.faults.down(false);
    let answer = app.request("POST", "/drive_run").body(body).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(status(&app, &run).await, "succeeded");
}

/// What the answers of the corpus say of the host holds of what this handler answers.
#[test]
fn the_answer_is_one_that_the_host_takes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/host_invocations/51-handler-answers.json"
    );
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut answer = serde_json::to_value(weft::host::envelope::Answer::done("a line")).unwrap();
    assert_eq!(answer["Logs"], json!(["a line"]));
    answer["Logs"] = json!([]);
    assert_eq!(answer, golden["ok"]);
}
