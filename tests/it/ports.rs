//! Typed ports: the table of coercions as clients read it, and values that go along edges from step to step.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use weft::domain::{Fit, How, PortType, assignable, coerce};
use weft::runner::scripted::Scene;
use weft::testing::TestApp;
use weft::testing::app::Builder;
use weft::usecase::seed::DEVELOPMENT_KEY;

fn table_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ports/coercions.json")
}

/// Values that say where types end, each with what it is taken for.
fn examples() -> Vec<(PortType, Value)> {
    use PortType::{Any, Array, Binary, Boolean, File, Integer, Json, Number, Object, String, Url};
    let artifact = "art_7zzzzzzzzzzzzzzzzzzzzzzzzz";
    let mut all = vec![
        (Integer, json!(42)),
        (Integer, json!(u64::MAX)),
        (Number, json!(0.5)),
        (Number, json!(3.0)),
        (Number, json!(1e300)),
        (Number, json!(9_007_199_254_740_994_i64)),
        (Boolean, json!(true)),
        (Array, json!([1, "two"])),
        (Object, json!({"a": 1})),
        (Object, json!({"data": "w6Q=", "name": "a.txt"})),
        (Object, json!({"path": "/etc/passwd"})),
        (File, json!({"artifact": artifact, "name": "report.pdf"})),
        (Url, json!("https://example.com/a?b=c")),
        (Binary, json!("w6Q=")),
        (Binary, json!("/w==")),
        (Json, json!(null)),
        (Any, json!(null)),
        (Any, json!("42")),
        (Any, json!(3.0)),
        (Json, json!({"artifact": artifact})),
    ];
    for text in [
        "",
        "42",
        "007",
        "+1",
        " 1",
        "1.0",
        "1.50",
        "1e2",
        "1e999",
        "-0",
        "0.1",
        "0.1000000000000000055",
        "18446744073709551615",
        "18446744073709551616",
        "NaN",
        "true",
        "True",
        "yes",
        "ä",
        "https://example.com",
        "HTTP://example.com:8080",
        "example.com",
        "https://me:secret@example.com/",
        "javascript:alert(1)",
    ] {
        all.push((String, json!(text)));
    }
    all
}

/// The whole table, with what comes of each example.
fn table() -> Value {
    let fits: Vec<Value> = PortType::ALL
        .iter()
        .flat_map(|from| PortType::ALL.iter().map(move |to| (*from, *to)))
        .map(|(from, to)| match assignable(from, to) {
            Fit::Same => json!({"from": from, "to": to, "fit": "same"}),
            Fit::Coerce(how) => json!({"from": from, "to": to, "fit": "coerce", "how": how.as_str()}),
            Fit::No(reason) => json!({"from": from, "to": to, "fit": "no", "reason": reason}),
        })
        .collect();
    let examples: Vec<Value> = examples()
        .into_iter()
        .map(|(from, value)| {
            let mut gives = Map::new();
            for to in PortType::ALL {
                match coerce(&value, from, to) {
                    Ok(coerced) => drop(gives.insert(to.as_str().to_owned(), json!({"value": coerced}))),
                    // What never fits stands above.
                    Err(_) if matches!(assignable(from, to), Fit::No(_)) => {}
                    Err(reason) => drop(gives.insert(to.as_str().to_owned(), json!({"refused": reason}))),
                }
            }
            json!({"from": from, "value": value, "to": gives})
        })
        .collect();
    json!({
        "types": PortType::ALL.map(|kind| json!({"name": kind, "form": kind.form()})),
        "hows": How::ALL.map(|how| json!({"name": how.as_str(), "rule": how.rule()})),
        "fits": fits,
        "examples": examples,
    })
}

#[test]
fn the_table_is_the_one_that_clients_have() {
    let text = fs::read_to_string(table_file()).unwrap();
    let known: Value = serde_json::from_str(&text).unwrap();
    let now = table();
    for part in ["types", "hows", "fits", "examples"] {
        let (known, now) = (known[part].as_array().unwrap(), now[part].as_array().unwrap());
        for (known, now) in known.iter().zip(now) {
            assert_eq!(
                known, now,
                "run `cargo test --test it bless_ports -- --ignored`, and read what has changed"
            );
        }
        assert_eq!(known.len(), now.len(), "{part}");
    }
    assert_eq!(now["fits"].as_array().unwrap().len(), 121);
    assert_eq!(text, written());
}

fn written() -> String {
    let table = table();
    let mut text = "{\n".to_owned();
    for (place, (part, rows)) in table.as_object().unwrap().iter().enumerate() {
        let rows: Vec<String> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| format!("    {row}"))
            .collect();
        let comma = if place == 0 { "" } else { ",\n" };
        text.push_str(&format!("{comma}  {}: [\n{}\n  ]", json!(part), rows.join(",\n")));
    }
    text.push_str("\n}\n");
    text
}

/// `cargo test --test it bless_ports -- --ignored`, and then read what has changed.
#[test]
#[ignore = "writes what the test above compares with"]
fn bless_ports() {
    fs::create_dir_all(table_file().parent().unwrap()).unwrap();
    fs::write(table_file(), written()).unwrap();
}

// ── runs ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn parameter(name: &str, kind: &str, required: bool) -> Value {
    json!({"name": name, "type": kind, "required": required})
}

/// Functions with ports of their own. Each gives what it was given, unless it is told to give something else.
fn builder(graphs: impl IntoIterator<Item = Value>) -> Builder {
    let outputs = json!([
        {"name": "rows", "type": "array"}, {"name": "count", "type": "integer"}, {"name": "share", "type": "number"},
        {"name": "title", "type": "string"}, {"name": "raw", "type": "binary"}, {"name": "complete", "type": "boolean"},
        {"name": "pause", "type": "number"}
    ]);
    let reads = json!({"name": "read", "function": "read", "line": 1, "parameters": [parameter("x", "json", false)], "outputs": outputs});
    let typed = json!({"name": "typed", "function": "typed", "line": 1, "parameters": [
        parameter("text", "string", false), parameter("number", "number", false), parameter("whole", "integer", false),
        parameter("flag", "boolean", false), parameter("list", "array", false), parameter("bytes", "binary", false),
        parameter("file", "file", false), parameter("at", "url", false), parameter("rest", "any", false),
    ]});
    let needs =
        json!({"name": "needs", "function": "needs", "line": 1, "parameters": [parameter("whole", "integer", true)]});
    let gathers = json!({"name": "gather", "function": "gather", "line": 1,
        "parameters": [parameter("parts", "array", true)],
        "inputs": [{"name": "parts", "type": "any", "multiple": true}]});
    let builder = [reads, typed, needs, gathers]
        .into_iter()
        .fold(Builder::default(), Builder::declares);
    graphs.into_iter().fold(builder, Builder::graph)
}

fn step(id: &str, function: &str) -> Value {
    json!({"id": id, "type": "python", "use": function})
}

fn edge(from: &str, output: &str, to: &str, input: &str) -> Value {
    json!({"from": from, "to": to, "output": output, "input": input})
}

async fn run(app: &TestApp, name: &str, arguments: Value) -> Value {
    let path = format!("/api/workflows/{name}/execute");
    let request = app.request("POST", &path).key(DEVELOPMENT_KEY).organization("contoso");
    let answer = request.json(&arguments).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

const READ: fn() -> Scene = || {
    Scene::returns(
        json!({"rows": [{"n": 1}, {"n": 2}], "count": 2, "share": 4.0, "title": "3", "raw": "w6Q=", "complete": true, "pause": 0.01}),
    )
};

#[tokio::test(flavor = "multi_thread")]
async fn values_go_along_edges_and_take_the_form_that_is_asked_for() {
    let graph = json!({
        "name": "along",
        "nodes": [
            step("read", "read"),
            step("typed", "typed"),
            {"id": "all", "type": "compute"},
            {"id": "each", "type": "map", "use": "typed", "inputs": {"rest": {"$": "item.n"}}},
            {"id": "wait", "type": "delay"},
            step("gather", "gather"),
            {"id": "child", "type": "workflow", "workflow": "below"},
        ],
        "edges": [
            edge("read", "title", "typed", "number"),
            edge("read", "share", "typed", "whole"),
            edge("read", "count", "typed", "text"),
            edge("read", "raw", "typed", "file"),
            edge("read", "rows", "typed", "list"),
            edge("read", "complete", "typed", "flag"),
            {"from": "read", "to": "all", "input": "value"},
            edge("read", "rows", "each", "items"),
            edge("read", "title", "each", "text"),
            edge("read", "pause", "wait", "seconds"),
            edge("each", "results", "gather", "parts"),
            edge("read", "title", "gather", "parts"),
            {"from": "all", "to": "gather"},
            edge("read", "title", "child", "n"),
        ],
        "output": {
            "typed": {"$": "steps.typed.output"}, "all": {"$": "steps.all.output.count"}, "gather": {"$": "steps.gather.output"},
            "child": {"$": "steps.child.output"},
        },
    });
    let below = json!({
        "name": "below",
        "parameters": [parameter("n", "integer", true)],
        "nodes": [{"id": "one", "type": "compute", "value": {"$": "inputs.n + 1"}}],
    });
    let app = builder([graph, below]).start().await;
    app.scripted.push("read", READ());
    let consumer = tokio::spawn(weft::usecase::deliver::consume(app.cx.clone()));
    let ended = run(&app, "along", json!({})).await;
    consumer.abort();
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let item = |n: i64| json!({"rest": n, "text": "3"});
    assert_eq!(
        ended["result"],
        json!({
            "typed": {
                "number": 3, "whole": 4, "text": "2", "file": {"data": "w6Q="}, "list": [{"n": 1}, {"n": 2}], "flag": true,
            },
            "all": 2,
            "gather": {"parts": [[item(1), item(2)], "3"]},
            "child": 4,
        })
    );
}

/// How a graph ends whose step `typed` takes an output of `read` that returns something.
async fn fails(returns: Value, output: &str, input: &str) -> Value {
    let graph = json!({
        "name": "one",
        "nodes": [step("read", "read"), step("typed", "typed")],
        "edges": [edge("read", output, "typed", input)],
    });
    let app = builder([graph]).start().await;
    app.scripted.push("read", Scene::returns(returns));
    let ended = run(&app, "one", json!({})).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert_eq!(app.scripted.asked().len(), 1, "nobody was called with it");
    ended["error"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_exact_form_fails_the_step_and_says_why() {
    for (returns, output, input, says) in [
        (
            json!({"title": "3.5"}),
            "title",
            "whole",
            "`3.5` is not written as a whole number",
        ),
        (json!({"title": "007"}), "title", "whole", "`007` is not written"),
        (json!({"share": 0.5}), "share", "whole", "nothing is rounded"),
        (json!({"title": "maybe"}), "title", "flag", "neither `true` nor `false`"),
        (json!({"title": "example.com"}), "title", "at", "no absolute"),
        (json!({"raw": "/w=="}), "raw", "text", "no UTF-8"),
        // What a function gives isn't what it declares.
        (
            json!({"count": "2"}),
            "count",
            "text",
            "a whole number is needed, and this is a text",
        ),
        (json!({"rows": {"a": 1}}), "rows", "list", "a list is needed"),
        // A member that isn't there is never taken for nothing.
        (json!({"titel": "a"}), "title", "text", "no `title`; there is `titel`"),
        (json!(7), "title", "text", "no `title`; the step gave number"),
    ] {
        let error = fails(returns.clone(), output, input).await;
        assert_eq!(error["type"], "arguments_invalid", "{error:#}");
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{returns}: {error:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_skipped_step_does_not_give_is_not_given() {
    let graph = |name: &str, function: &str, input: &str| {
        json!({
            "name": name,
            "nodes": [
                {"id": "read", "type": "python", "use": "read", "when": "false"},
                step("last", function),
            ],
            "edges": [edge("read", "count", "last", input)],
            "output": {"$": "steps.last.output"},
        })
    };
    let app = builder([graph("may", "typed", "whole"), graph("must", "needs", "whole")])
        .start()
        .await;
    let may = run(&app, "may", json!({})).await;
    assert_eq!(
        (&may["status"], &may["result"]),
        (&json!("succeeded"), &json!({"whole": null})),
        "{may:#}"
    );
    let must = run(&app, "must", json!({})).await;
    assert_eq!(must["status"], "failed", "{must:#}");
    assert_eq!(must["error"]["type"], "arguments_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_of_the_new_types_are_looked_at_before_anything_begins() {
    let graph = json!({
        "name": "takes",
        "parameters": [
            {"name": "at", "type": "url"}, {"name": "bytes", "type": "binary", "max_length": 4}, {"name": "file", "type": "file"},
            {"name": "key", "type": "secret", "enum": ["API_KEY", "MISSING"]}, {"name": "rest", "type": "any"},
        ],
        "nodes": [{"id": "one", "type": "compute", "value": {"$": "inputs"}}],
    });
    let app = builder([graph]).start().await;
    let written = app
        .request("PUT", "/api/secrets/API_KEY")
        .key(DEVELOPMENT_KEY)
        .organization("contoso");
    let written = written.json(&json!({"value": "not for anybody"})).send().await;
    assert_eq!(written.status, 201, "{written:?}");
    let good = json!({"at": "https://example.com/", "bytes": "w6Q=", "file": {"data": "w6Q=", "name": "a.txt"}, "key": "API_KEY", "rest": [1]});
    let ended = run(&app, "takes", good.clone()).await;
    // The name, and never what it stands for.
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("succeeded"), &good),
        "{ended:#}"
    );
    for (argument, code) in [
        (json!({"at": "/relative"}), "not_a_url"),
        (json!({"bytes": "w6Q"}), "not_base64"),
        (json!({"bytes": "w6TDpMOk"}), "too_long"),
        (json!({"file": {"path": "/etc/passwd"}}), "not_a_file"),
        (
            json!({"file": {"artifact": "art_7zzzzzzzzzzzzzzzzzzzzzzzzz"}}),
            "not_a_file",
        ),
        (json!({"key": "OTHER"}), "not_one_of"),
        (json!({"key": "MISSING"}), "no_such_secret"),
    ] {
        for path in ["/api/workflows/takes/execute", "/api/workflows/takes/plan"] {
            let request = app.request("POST", path).key(DEVELOPMENT_KEY).organization("contoso");
            let answer = request.json(&argument).send().await;
            assert_eq!(answer.status, 400, "{argument}: {answer:?}");
            let problem = answer.json();
            assert_eq!(problem["code"], "arguments_invalid", "{problem:#}");
            assert_eq!(problem["errors"][0]["code"], code, "{argument}: {problem:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_may_use_the_secrets_that_an_input_names_and_no_others() {
    let graph = json!({
        "name": "uses",
        "parameters": [{"name": "key", "type": "secret", "enum": ["API_KEY", "OTHER_KEY"], "required": true}],
        "nodes": [
            {"id": "run", "type": "shell", "command": "true", "environment": {"A": {"$secret": {"$": "inputs.key"}}, "B": "b", "C": {"$secret": "THIRD"}}},
            {"id": "get", "type": "http", "url": "https://api.example.com/", "headers": {"X-Key": {"$secret": {"$": "inputs.key"}}, "X-Plain": "p"}},
            {"id": "post", "type": "http", "url": "https://api.example.com/", "headers": {"Authorization": {"$secret": "THIRD", "as": "basic"}}},
        ],
        "edges": [{"from": "run", "to": "get"}, {"from": "get", "to": "post"}],
    });
    let app = builder([graph]).start().await;
    let written = app
        .request("PUT", "/api/secrets/OTHER_KEY")
        .key(DEVELOPMENT_KEY)
        .organization("contoso");
    assert_eq!(
        written.json(&json!({"value": "not for anybody"})).send().await.status,
        201
    );
    let ended = run(&app, "uses", json!({"key": "OTHER_KEY"})).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let asked: Vec<Value> = app.scripted.asked().into_iter().map(|one| one.arguments).collect();
    assert_eq!(asked[0]["secret_environment"], json!({"A": "OTHER_KEY", "C": "THIRD"}));
    assert_eq!(asked[0]["environment"], json!({"B": "b"}));
    assert_eq!(asked[1]["headers"], json!({"X-Plain": "p"}));
    assert_eq!(
        asked[1]["secret_header"],
        json!({"secret": "OTHER_KEY", "as": "header:X-Key"})
    );
    assert_eq!(asked[2]["secret_header"], json!({"secret": "THIRD", "as": "basic"}));
    assert!(!json!(asked).to_string().contains("not for anybody"));
    let plan = app
        .request("POST", "/api/workflows/uses/plan")
        .key(DEVELOPMENT_KEY)
        .organization("contoso");
    let plan = plan.json(&json!({"key": "OTHER_KEY"})).send().await.json();
    // All that may be named, whatever is.
    assert_eq!(
        plan["manifest"]["effects"]["secrets"],
        json!(["API_KEY", "OTHER_KEY", "THIRD"]),
        "{plan:#}"
    );
}
