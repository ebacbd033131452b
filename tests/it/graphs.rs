//! Graphs from end to end, with a scripted runner over the embedded store: each kind of node, failures and who handles them,
//! children, pauses, and another instance that goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weft::clock::Clock;
use weft::domain::Timestamp;
use weft::runner::scripted::Scene;
use weft::scheduler::Decision;
use weft::store::repo::runs::Letter;
use weft::tenancy::{operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};
use weft::usecase::Context;
use weft::usecase::deliver::consume;
use weft::usecase::seed::DEVELOPMENT_KEY;

const PATIENCE: Duration = Duration::from_secs(60);
const PARAMETERS: &[&str] = &["x", "n", "error"];

/// An application with functions `a` to `f`, whose queue is drained.
struct World {
    app: TestApp,
    queue: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        for one in &self.queue {
            one.abort();
        }
    }
}

fn builder(graphs: impl IntoIterator<Item = Value>) -> Builder {
    let functions = ["a", "b", "c", "d", "e", "f"];
    let builder = functions
        .iter()
        .fold(Builder::default(), |builder, name| builder.function(name, PARAMETERS));
    graphs.into_iter().fold(builder, Builder::graph)
}

impl World {
    async fn of(graphs: impl IntoIterator<Item = Value>) -> Self {
        Self::start(builder(graphs)).await
    }

    async fn start(builder: Builder) -> Self {
        let mut world = Self::idle(builder).await;
        world.drain(world.app.cx.clone());
        world
    }

    /// Without anybody who drains the queue.
    async fn idle(builder: Builder) -> Self {
        let app = builder.start().await;
        Self { app, queue: Vec::new() }
    }

    fn drain(&mut self, cx: Arc<Context>) {
        self.queue.push(tokio::spawn(consume(cx)));
    }

    async fn send(&self, method: &str, path: &str, prefer: Option<&str>, body: Option<&Value>) -> Answer {
        let mut request = self
            .app
            .request(method, path)
            .key(DEVELOPMENT_KEY)
            .organization("contoso");
        if let Some(prefer) = prefer {
            request = request.header("Prefer", prefer);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, None, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Runs a graph to its end.
    async fn run(&self, name: &str, arguments: Value) -> Value {
        let path = format!("/api/workflows/{name}/execute");
        let answer = self.send("POST", &path, None, Some(&arguments)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn begin(&self, name: &str, prefer: &str) -> String {
        let path = format!("/api/workflows/{name}/execute");
        let answer = self.send("POST", &path, Some(prefer), Some(&json!({}))).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["runId"].as_str().unwrap().to_owned()
    }

    /// The run when it is as wanted.
    async fn until(&self, run: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let now = self.get(&format!("/api/runs/{run}")).await;
            if is(&now) {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {now:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn ended(&self, run: &str) -> Value {
        let open = ["pending", "running", "waiting"];
        self.until(run, "ended", |run| !open.contains(&run["status"].as_str().unwrap()))
            .await
    }

    async fn asked(&self, what: &str, is: impl Fn(&[String]) -> bool) {
        let begun = Instant::now();
        while !is(&self.names()) {
            assert!(begun.elapsed() < PATIENCE, "never {what}: {:?}", self.names());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The functions that were called, in order.
    fn names(&self) -> Vec<String> {
        self.app.scripted.asked().into_iter().map(|asked| asked.name).collect()
    }

    async fn steps(&self, run: &Value) -> Value {
        self.get(&format!("/api/runs/{}/steps", run["runId"].as_str().unwrap()))
            .await["items"]
            .clone()
    }
}

/// A graph of nodes and edges, each edge written as `from to`, `from to branch=x` or `from to on=failure`.
fn graph(name: &str, nodes: Value, edges: &[&str]) -> Value {
    let edges: Vec<Value> = edges
        .iter()
        .map(|edge| {
            let mut words = edge.split(' ');
            let mut edge = json!({"from": words.next().unwrap(), "to": words.next().unwrap()});
            for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
                edge[name] = json!(value);
            }
            edge
        })
        .collect();
    json!({"name": name, "nodes": nodes, "edges": edges})
}

fn with(mut graph: Value, more: Value) -> Value {
    graph.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    graph
}

fn python(id: &str, more: Value) -> Value {
    with(json!({"id": id, "type": "python", "use": id}), more)
}

/// Id and status of each step.
fn statuses(run: &Value) -> Vec<(String, String)> {
    let steps = run["steps"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    steps.map(|step| (text(&step["id"]), text(&step["status"]))).collect()
}

fn status<'a>(run: &'a Value, id: &str) -> &'a str {
    let steps = run["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["id"] == id).unwrap();
    step["status"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_chosen_and_meet_again() {
    let graph = with(
        graph(
            "choice",
            json!([
                python("a", json!({"inputs": {"n": {"$": "inputs.n"}}})),
                {"id": "size", "type": "choose", "branches": [
                    {"name": "large", "when": "steps.a.output.n > 100"}, {"name": "zero", "when": "steps.a.output.n == 0"}
                ], "otherwise": "small"},
                python("b", json!({"inputs": {"x": "large"}})),
                python("c", json!({"inputs": {"x": "small"}})),
                python("d", json!({"join": "any", "inputs": {"x": [{"$": "steps.b.output"}, {"$": "steps.c.output"}]}})),
                python("e", json!({"when": "steps.size.output.branch == 'large'"})),
                {"id": "sum", "type": "compute", "join": "any", "value": {
                    "seen": {"$": "steps.d.output"}, "e": {"$": "steps.e.status"}, "run": {"$": "run.workflow"}
                }}
            ]),
            &[
                "a size",
                "size b branch=large",
                "size c branch=small",
                "b d",
                "c d",
                "d sum",
                "size e",
                "e sum",
            ],
        ),
        json!({"parameters": [{"name": "n", "type": "integer", "required": true}],
               "output": {"sum": {"$": "steps.sum.output"}, "branch": {"$": "steps.size.output.branch"}}}),
    );
    let world = World::of([graph]).await;
    let large = world.run("choice", json!({"n": 101})).await;
    assert_eq!(large["status"], "succeeded", "{large:#}");
    let seen = json!([{"x": "large"}, null]);
    assert_eq!(
        large["result"],
        json!({"branch": "large", "sum": {"seen": {"x": seen}, "e": "succeeded", "run": "choice"}})
    );
    assert_eq!(status(&large, "c"), "skipped");
    let small = world.run("choice", json!({"n": 1})).await;
    let seen = json!([null, {"x": "small"}]);
    assert_eq!(
        small["result"],
        json!({"branch": "small", "sum": {"seen": {"x": seen}, "e": "skipped", "run": "choice"}})
    );
    // A branch that nothing follows: what meets again doesn't run, and the result says what came of it.
    let zero = world.run("choice", json!({"n": 0})).await;
    assert_eq!(zero["result"]["branch"], "zero", "{zero:#}");
    assert_eq!(
        [status(&zero, "b"), status(&zero, "c"), status(&zero, "d")],
        ["skipped"; 3]
    );
    let steps = world.steps(&large).await;
    let size = steps
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["id"] == "size")
        .unwrap();
    assert_eq!((&size["kind"], &size["branch"]), (&json!("choose"), &json!("large")));
    assert!(size.get("rights").is_none(), "{size:#}");

    let shown = world.get("/api/workflows/choice").await;
    assert_eq!(shown["kind"], "graph");
    assert_eq!(shown["graph"]["nodes"][1]["branches"][0]["name"], "large");
    assert_eq!(shown["parameters"]["required"], json!(["n"]));
    let listed = world.get("/api/workflows").await;
    let kinds: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["name"], &one["kind"]))
        .collect();
    assert!(
        kinds.contains(&(&json!("choice"), &json!("graph"))) && kinds.contains(&(&json!("hello"), &json!("python")))
    );
    let answer = world
        .send(
            "POST",
            "/api/workflows/choice/execute",
            None,
            Some(&json!({"n": "x", "m": 1})),
        )
        .await;
    assert_eq!(
        (answer.status, answer.json()["errors"].as_array().unwrap().len()),
        (400, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_handled_where_somebody_does() {
    let fails = |name: &str, more: Value| {
        let first = python("a", more);
        let nodes = json!([
            first,
            python("b", json!({"inputs": {"error": {"$": "steps.a.error.message"}}})),
            python("c", json!({})),
            python("e", json!({"phase": "on_failure", "inputs": {"error": {"$": "error"}}})),
            python(
                "f",
                json!({"phase": "finally", "inputs": {"x": {"$": "steps.a.status"}, "error": {"$": "error is none"}}})
            ),
        ]);
        graph(
            name,
            nodes,
            &[if name == "handled" { "a b on=failure" } else { "a b" }, "a c"],
        )
    };
    let world = World::of([
        fails("handled", json!({})),
        fails("unhandled", json!({"retry": {"attempts": 2, "delay_seconds": 0}})),
        fails("ignored", json!({"onFailure": "continue"})),
    ])
    .await;
    let broken = || Scene::raises("ValueError", "it broke");

    world.app.scripted.push("a", broken());
    let handled = world.run("handled", json!({})).await;
    assert_eq!(handled["status"], "succeeded", "{handled:#}");
    let expected = [
        ("a", "failed"),
        ("b", "succeeded"),
        ("c", "skipped"),
        ("e", "skipped"),
        ("f", "succeeded"),
    ];
    let expected = expected.map(|(id, status)| (id.to_owned(), status.to_owned()));
    assert_eq!(statuses(&handled), expected);
    let asked = world.app.scripted.asked();
    assert_eq!(asked[1].arguments, json!({"error": "it broke"}));
    assert_eq!(asked[2].arguments, json!({"x": "failed", "error": true}));

    world.app.scripted.push("a", broken());
    world.app.scripted.push("a", broken());
    let unhandled = world.run("unhandled", json!({})).await;
    assert_eq!(unhandled["status"], "failed");
    assert_eq!(
        (&unhandled["error"]["type"], &unhandled["error"]["step"]),
        (&json!("ValueError"), &json!("a"))
    );
    let expected = [
        ("a", "failed"),
        ("b", "skipped"),
        ("c", "skipped"),
        ("e", "succeeded"),
        ("f", "succeeded"),
    ];
    assert_eq!(
        statuses(&unhandled),
        expected.map(|(id, status)| (id.to_owned(), status.to_owned()))
    );
    let asked = world.app.scripted.asked();
    let [.., handler, last] = asked.as_slice() else {
        panic!()
    };
    assert_eq!(
        handler.arguments["error"],
        json!({"type": "ValueError", "message": "it broke", "step": "a"})
    );
    assert_eq!(last.arguments, json!({"x": "failed", "error": false}));
    let steps = world.steps(&unhandled).await;
    assert_eq!(steps[0]["attempts"].as_array().unwrap().len(), 2);

    world.app.scripted.push("a", broken());
    let ignored = world.run("ignored", json!({})).await;
    assert_eq!(ignored["status"], "succeeded", "{ignored:#}");
    assert_eq!([status(&ignored, "b"), status(&ignored, "c")], ["succeeded"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_resumes_a_run_again_is_led_to_the_same_one() {
    let world = World::of([graph("fails", json!([python("a", json!({}))]), &[])]).await;
    world.app.scripted.push("a", Scene::raises("ValueError", "it broke"));
    let failed = world.run("fails", json!({})).await;
    assert_eq!(failed["status"], "failed", "{failed:#}");
    let path = format!("/api/runs/{}/resume", failed["runId"].as_str().unwrap());
    let resume = || world.send("POST", &path, Some("respond-async"), None);
    let answers = futures::future::join_all((0..6).map(|_| resume())).await;
    let mut runs: Vec<_> = answers.iter().map(|answer| answer.json()["runId"].clone()).collect();
    runs.sort_by_key(ToString::to_string);
    runs.dedup();
    assert_eq!(runs.len(), 1, "{answers:?}");
    world.ended(runs[0].as_str().unwrap()).await;
    assert_eq!(
        world.names().len(),
        2,
        "the failed step is made once more, and only once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_are_nested_too_deep_start_nothing() {
    let parameters = json!({"parameters": [{"name": "v", "type": "json"}]});
    let world = World::of([with(
        graph("takes", json!([python("a", json!({"inputs": {"n": 0}}))]), &[]),
        parameters,
    )])
    .await;
    let nested = |deep: usize| (0..deep).fold(json!(1), |inner, _| json!([inner]));
    for (deep, status) in [(100, 200), (101, 400), (120, 400)] {
        let arguments = json!({"v": nested(deep)});
        let answer = world
            .send("POST", "/api/workflows/takes/execute", None, Some(&arguments))
            .await;
        assert_eq!(answer.status, status, "{deep}: {answer:?}");
    }
    assert_eq!(world.names().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_whose_handler_is_skipped_is_not_handled() {
    let size = json!({"id": "size", "type": "choose", "branches": [{"name": "large", "when": "inputs.n > 100"}],
                      "otherwise": "small"});
    let parameters = json!({"parameters": [{"name": "n", "type": "integer", "default": 1}]});
    let by_edges = graph(
        "by_edges",
        json!([python("a", json!({})), size, python("b", json!({}))]),
        &["a b on=failure", "size b branch=large"],
    );
    let by_itself = graph(
        "by_itself",
        json!([python("a", json!({})), python("b", json!({"when": "inputs.n > 100"}))]),
        &["a b on=failure"],
    );
    let world = World::of([with(by_edges, parameters.clone()), with(by_itself, parameters)]).await;
    // What is known to be skipped when the failure comes counts as nobody; what is skipped then has its own message.
    for (workflow, said) in [("by_edges", "ValueError"), ("by_itself", "not_handled")] {
        for (n, expected, handler) in [(1, "failed", "skipped"), (101, "succeeded", "succeeded")] {
            world.app.scripted.push("a", Scene::raises("ValueError", "it broke"));
            let run = world.run(workflow, json!({"n": n})).await;
            assert_eq!(
                (run["status"].as_str().unwrap(), status(&run, "b")),
                (expected, handler),
                "{workflow} {n}: {run:#}"
            );
            if n == 1 {
                let error = (&run["error"]["type"], &run["error"]["step"]);
                assert_eq!(error, (&json!(said), &json!("a")));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_keep_the_order_and_bear_what_they_are_told_to_bear() {
    let map = |name: &str, failure: Value| {
        let each = json!({"id": "each", "type": "map", "use": "a", "items": {"$": "inputs.list"}, "atOnce": 3,
            "inputs": {"x": {"$": "item"}, "n": {"$": "index"}}, "onItemFailure": failure});
        with(
            graph(
                name,
                json!([each, {"id": "many", "type": "compute", "value": {"$": "steps.each.output | length"}}]),
                &["each many"],
            ),
            json!({"parameters": [{"name": "list", "type": "array", "default": ["p", "q", "r", "s", "t"]}],
                   "output": {"all": {"$": "steps.each.output"}, "many": {"$": "steps.many.output"}}}),
        )
    };
    let world = World::of([
        map("strict", json!("fail")),
        map("lenient", json!("continue")),
        map("one", json!({"at_most": 1})),
    ])
    .await;
    // Later items end first.
    for takes in [90, 60, 30, 5, 1] {
        let scene = Scene::default().after(Duration::from_millis(takes));
        world.app.scripted.push("a", scene);
    }
    let run = world.run("strict", json!({})).await;
    let all: Vec<_> = ["p", "q", "r", "s", "t"]
        .iter()
        .enumerate()
        .map(|(n, x)| json!({"x": x, "n": n}))
        .collect();
    assert_eq!(run["result"], json!({"all": all, "many": 5}), "{run:#}");
    let step = world.steps(&run).await[0].clone();
    assert_eq!(
        json!([
            step["kind"],
            step["itemsTotal"],
            step["itemsEnded"],
            step["itemsFailed"],
            step["attemptsBegun"]
        ]),
        json!(["map", 5, 5, 0, 5])
    );

    // Items page by page, and what one has left.
    let base = format!("/api/runs/{}/steps/each", run["runId"].as_str().unwrap());
    let (mut found, mut path) = (Vec::new(), format!("{base}/items?limit=2"));
    loop {
        let page = world.get(&path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        found.extend(items.iter().map(|item| (item["item"].clone(), item["status"].clone())));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("{base}/items?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(
        found,
        (0..5).map(|n| (json!(n), json!("succeeded"))).collect::<Vec<_>>()
    );
    let output = world.get(&format!("{base}/output?item=3")).await;
    assert_eq!(
        output,
        json!({"status": "succeeded", "output": {"x": "s", "n": 3}, "error": null})
    );
    assert_eq!(world.get(&format!("{base}/output")).await["output"], json!(all));
    for wrong in [
        format!("{base}/output?item=5"),
        base.replace("each", "nobody") + "/items",
    ] {
        assert_eq!(
            world.send("GET", &wrong, None, None).await.code(),
            "step_not_found",
            "{wrong}"
        );
    }
    assert_eq!(
        world
            .send("GET", &format!("{base}/items?cursor=x"), None, None)
            .await
            .status,
        400
    );

    // One fails: the map, nothing, or nothing up to one.
    let script = |failing: &[usize]| {
        for n in 0..5 {
            let scene = if failing.contains(&n) {
                Scene::raises("ValueError", format!("no {n}"))
            } else {
                Scene::default()
            };
            world
                .app
                .scripted
                .push("a", scene.after(Duration::from_millis(if n == 1 { 20 } else { 60 })));
        }
    };
    script(&[1]);
    let lenient = world.run("lenient", json!({})).await;
    assert_eq!(lenient["status"], "succeeded", "{lenient:#}");
    assert_eq!(
        (&lenient["result"]["all"][1], &lenient["result"]["all"][4]),
        (&Value::Null, &all[4])
    );
    assert_eq!(world.steps(&lenient).await[0]["itemsFailed"], 1);
    script(&[1]);
    assert_eq!(world.run("one", json!({})).await["status"], "succeeded");
    script(&[1, 3]);
    let two = world.run("one", json!({})).await;
    // Which item plays which scene is in the order in which they really begin; the second that fails is named.
    let message = two["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("item ") && message.ends_with(": no 3"), "{two:#}");
    // Whether the last item had begun by then is left to the clock; what it would have played is none of the next run's.
    world.app.scripted.clear("a");
    let before = world.names().len();
    for _ in 0..5 {
        world.app.scripted.push("a", Scene::raises("ValueError", "no"));
    }
    let strict = world.run("strict", json!({"list": ["only"]})).await;
    assert_eq!(
        (&strict["status"], &strict["error"]["step"], &strict["error"]["message"]),
        (&json!("failed"), &json!("each"), &json!("item 0: no"))
    );
    assert_eq!(world.names().len(), before + 1);
    // None at all, and what is no list.
    assert_eq!(
        world.run("strict", json!({"list": []})).await["result"],
        json!({"all": [], "many": 0})
    );
    let many: Vec<_> = (0..10_001).collect();
    assert_eq!(
        world.run("strict", json!({"list": many})).await["error"]["type"],
        "too_many_items"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_go_round_until_they_are_done() {
    let again = json!({"id": "again", "type": "loop", "use": "a", "until": "output.x == 'done'", "most": 3,
        "inputs": {"n": {"$": "iteration"}, "x": {"$": "output"}}});
    let world = World::of([graph("poll", json!([again]), &[])]).await;
    let says = |x: &str| Scene::returns(json!({"x": x}));
    for x in ["not yet", "done"] {
        world.app.scripted.push("a", says(x));
    }
    let run = world.run("poll", json!({})).await;
    assert_eq!(
        (&run["status"], &run["result"]),
        (&json!("succeeded"), &json!({"x": "done"})),
        "{run:#}"
    );
    let asked: Vec<_> = world
        .app
        .scripted
        .asked()
        .into_iter()
        .map(|asked| asked.arguments)
        .collect();
    assert_eq!(
        asked,
        [json!({"n": 0, "x": null}), json!({"n": 1, "x": {"x": "not yet"}})]
    );
    let step = world.steps(&run).await[0].clone();
    assert_eq!((&step["itemsEnded"], step.get("itemsTotal")), (&json!(2), None));
    for _ in 0..3 {
        world.app.scripted.push("a", says("not yet"));
    }
    let run = world.run("poll", json!({})).await;
    assert_eq!(run["error"]["type"], "loop_limit", "{run:#}");
    assert_eq!(world.names().len(), 5);
}

fn child(id: &str, workflow: &str, more: Value) -> Value {
    with(json!({"id": id, "type": "workflow", "workflow": workflow}), more)
}

#[tokio::test(flavor = "multi_thread")]
async fn children_are_runs_of_their_own() {
    let inner = with(
        graph(
            "inner",
            json!([python("a", json!({"inputs": {"x": {"$": "inputs.x"}}}))]),
            &[],
        ),
        json!({"parameters": [{"name": "x", "type": "json", "required": true}]}),
    );
    let outer = with(
        graph(
            "outer",
            json!([
                child("sub", "inner", json!({"inputs": {"x": 7}})),
                child("python", "hello", json!({"inputs": {"name": "Ada"}}))
            ]),
            &["sub python"],
        ),
        json!({"output": [{"$": "steps.sub.output"}, {"$": "steps.python.output"}]}),
    );
    let each =
        json!({"id": "each", "type": "map", "workflow": "inner", "items": [1, 2, 3], "inputs": {"x": {"$": "item"}}});
    let world = World::of([inner, outer, graph("many", json!([each]), &[])]).await;
    let run = world.run("outer", json!({})).await;
    assert_eq!(run["result"], json!([{"x": 7}, {"name": "Ada"}]), "{run:#}");
    let steps = world.steps(&run).await;
    let started = steps[0]["children"][0].as_str().unwrap().to_owned();
    let below = world.get(&format!("/api/runs/{started}")).await;
    assert_eq!(
        (&below["workflow"], &below["status"], &below["arguments"]),
        (&json!("inner"), &json!("succeeded"), &json!({"x": 7}))
    );

    let run = world.run("many", json!({})).await;
    assert_eq!(run["result"], json!([{"x": 1}, {"x": 2}, {"x": 3}]), "{run:#}");
    let items = world
        .get(&format!(
            "/api/runs/{}/steps/each/items",
            run["runId"].as_str().unwrap()
        ))
        .await;
    let item = items["items"][2]["children"][0].as_str().unwrap();
    assert_eq!(world.get(&format!("/api/runs/{item}")).await["result"], json!({"x": 3}));

    world.app.scripted.push("a", Scene::raises("ValueError", "below"));
    let run = world.run("outer", json!({})).await;
    assert_eq!(
        (&run["status"], &run["error"]["type"]),
        (&json!("failed"), &json!("ValueError")),
        "{run:#}"
    );
    assert!(run["error"]["message"].as_str().unwrap().contains("below"));
    assert_eq!(status(&run, "python"), "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_a_run_cancels_what_it_waits_for() {
    let inner = graph("inner", json!([python("a", json!({}))]), &[]);
    let outer = graph("outer", json!([child("sub", "inner", json!({}))]), &[]);
    let world = World::of([inner, outer]).await;
    world
        .app
        .scripted
        .push("a", Scene::default().after(Duration::from_secs(600)));
    let run = world.begin("outer", "respond-async").await;
    world.asked("begun", |names| names == ["a"]).await;
    let steps = world.get(&format!("/api/runs/{run}/steps")).await;
    let below = steps["items"][0]["children"][0].as_str().unwrap().to_owned();
    let begun = Instant::now();
    assert_eq!(
        world
            .send("POST", &format!("/api/runs/{run}/cancel"), None, None)
            .await
            .status,
        200
    );
    assert_eq!(world.ended(&below).await["status"], "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(world.ended(&run).await["status"], "cancelled");
}

/// A clock that goes on, and can be moved forward. One that stands still between two moves keeps a message for ever that is put
/// off by a moment, or by what was left before the move.
#[derive(Debug)]
struct MovedClock {
    begun: Instant,
    ahead: AtomicU64,
}

impl MovedClock {
    fn advance(&self, by: Duration) {
        self.ahead
            .fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        let moved = self.begun.elapsed() + Duration::from_millis(self.ahead.load(Ordering::SeqCst));
        Timestamp::from_millis(1_795_219_200_000).plus(moved)
    }
}

fn clock() -> Arc<MovedClock> {
    Arc::new(MovedClock {
        begun: Instant::now(),
        ahead: AtomicU64::new(0),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_is_slept_through_by_nobody() {
    let pause = json!({"id": "pause", "type": "delay", "seconds": {"$": "40 + 20"}});
    let sleepy = graph(
        "sleepy",
        json!([pause, python("a", json!({"inputs": {"x": 1}}))]),
        &["pause a"],
    );
    let late = with(sleepy.clone(), json!({"name": "late", "deadlineSeconds": 30}));
    let late = with(
        late,
        json!({"nodes": [pause, python("a", json!({"inputs": {"x": 1}})), python("f", json!({"phase": "finally"}))]}),
    );
    let clock = clock();
    let world = World::start(builder([sleepy, late]).clock(clock.clone())).await;
    let (run, late) = (
        world.begin("sleepy", "respond-async").await,
        world.begin("late", "respond-async").await,
    );
    for id in [&run, &late] {
        let now = world.until(id, "waits", |run| run["status"] == "waiting").await;
        assert!(
            now["waitingFor"]["detail"]
                .as_str()
                .unwrap()
                .contains("`pause` pauses until"),
            "{now:#}"
        );
    }
    clock.advance(Duration::from_secs(31));
    let late = world.ended(&late).await;
    assert_eq!(
        (&late["status"], &late["error"]["type"]),
        (&json!("timed_out"), &json!("time_limit"))
    );
    assert_eq!([status(&late, "a"), status(&late, "f")], ["skipped", "succeeded"]);
    assert_eq!(world.get(&format!("/api/runs/{run}")).await["status"], "waiting");
    clock.advance(Duration::from_secs(30));
    let run = world.ended(&run).await;
    assert_eq!(
        (&run["status"], &run["result"]),
        (&json!("succeeded"), &json!({"x": 1})),
        "{run:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_goes_on_in_the_midst_of_a_map() {
    let each = json!({"id": "each", "type": "map", "use": "a", "items": [0, 1, 2, 3, 4, 5], "atOnce": 2, "inputs": {"n": {"$": "item"}}});
    let clock = clock();
    let mut world = World::idle(builder([graph("many", json!([each]), &[])]).clock(clock.clone())).await;
    // Two end; the next two never do.
    for takes in [0, 0, 100_000, 100_000] {
        world
            .app
            .scripted
            .push("a", Scene::default().after(Duration::from_secs(takes)));
    }
    let run = world.begin("many", "wait=1").await;
    let steps = world.get(&format!("/api/runs/{run}/steps")).await;
    assert_eq!(
        json!([steps["items"][0]["itemsEnded"], steps["items"][0]["attemptsBegun"]]),
        json!([2, 4])
    );
    // The first instance lets its lease run out; the other one is there by then, since the first renews when it wakes next.
    let other = world.app.another_instance().await;
    world.drain(other);
    // A driver that was not asleep yet when the clock went on has renewed, and sleeps the next time.
    let run = loop {
        clock.advance(Duration::from_secs(70));
        if let Ok(run) = tokio::time::timeout(Duration::from_secs(5), world.ended(&run)).await {
            break run;
        }
    };
    let all: Vec<_> = (0..6).map(|n| json!({"n": n})).collect();
    assert_eq!(
        (&run["status"], &run["result"]),
        (&json!("succeeded"), &json!(all)),
        "{run:#}"
    );
    let mut made = [0; 6];
    for asked in world.app.scripted.asked() {
        made[usize::try_from(asked.arguments["n"].as_u64().unwrap()).unwrap()] += 1;
    }
    // Those two that were under way, whichever of the first four they were.
    assert_eq!(made[4..], [1, 1], "{made:?}");
    made.sort_unstable();
    assert_eq!(made, [1, 1, 1, 1, 2, 2]);
    // Records are listed after the end that they tell of.
    let begun = Instant::now();
    let taken = loop {
        let taken = world.get("/api/audit?event=run.taken_over").await;
        if taken["items"] != json!([]) || begun.elapsed() > PATIENCE {
            break taken;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(taken["items"].as_array().unwrap().len(), 1, "{taken:#}");
    assert_eq!(taken["items"][0]["resource"]["id"], run["runId"], "{taken:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_a_thousand_steps() {
    let ids: Vec<_> = (0..1000).map(|n| format!("s{n}")).collect();
    let nodes: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| match n {
            0 => json!({"id": id, "type": "python", "use": "a", "inputs": {"n": 0}}),
            n => json!({"id": id, "type": "python", "use": "a", "inputs": {"n": {"$": format!("steps.s{}.output.n + 1", n - 1)}}}),
        })
        .collect();
    let edges: Vec<_> = ids.windows(2).map(|pair| format!("{} {}", pair[0], pair[1])).collect();
    let edges: Vec<_> = edges.iter().map(String::as_str).collect();
    let world = World::of([graph("chain", json!(nodes), &edges)]).await;
    let run = world.begin("chain", "respond-async").await;
    let run = world.ended(&run).await;
    assert_eq!(
        (&run["status"], &run["result"]),
        (&json!("succeeded"), &json!({"n": 999})),
        "{:?}",
        run["error"]
    );
    assert_eq!(world.names().len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_asked() {
    let ask = json!({"id": "ok", "type": "approval", "needed": 1, "withinSeconds": 3600, "question": {"amount": {"$": "6 * 7"}}});
    let world = World::of([graph(
        "asks",
        json!([
            ask,
            python("a", json!({"inputs": {"x": {"$": "steps.ok.output.approved"}}}))
        ]),
        &["ok a"],
    )])
    .await;
    let run = world.begin("asks", "respond-async").await;
    let now = world.until(&run, "asks", |run| run["status"] == "waiting").await;
    assert!(
        now["waitingFor"]["detail"]
            .as_str()
            .unwrap()
            .contains("for people to decide"),
        "{now:#}"
    );
    let asked = world.get(&format!("/api/runs/{run}/approvals")).await;
    assert_eq!(asked["items"][0]["question"], json!({"amount": 42}), "{asked:#}");
    let path = format!("/api/runs/{run}/steps/ok/decision");
    assert_eq!(
        world
            .send("POST", &path, None, Some(&json!({"approved": true})))
            .await
            .status,
        202
    );
    assert_eq!(world.ended(&run).await["result"], json!({"x": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_waits_for_a_driver_is_recorded_once() {
    let ask = json!({"id": "ok", "type": "approval", "needed": 2, "withinSeconds": 3600, "question": null});
    let world = World::of([graph("asks", json!([ask]), &[])]).await;
    let waiting = async |world: &World| {
        let run = world.begin("asks", "respond-async").await;
        world.until(&run, "asks", |run| run["status"] == "waiting").await;
        run
    };
    let decide = async |world: &World, run: &str| {
        let path = format!("/api/runs/{run}/steps/ok/decision");
        world.send("POST", &path, None, Some(&json!({"approved": true}))).await
    };
    // Who it is that decides here.
    let first = waiting(&world).await;
    assert_eq!(decide(&world, &first).await.status, 202);
    let path = format!("/api/audit?resource={first}");
    let records = world.get(&path).await;
    let recorded = |records: &Value| {
        let items = records["items"].as_array().unwrap();
        items.iter().filter(|item| item["event"] == "step.approved").count()
    };
    assert_eq!(recorded(&records), 1, "{records:#}");
    let begun = Instant::now();
    let by = loop {
        let asked = world.get(&format!("/api/runs/{first}/approvals")).await;
        if let Some(by) = asked["items"][0]["decisions"][0]["by"].as_str() {
            break by.to_owned();
        }
        assert!(begun.elapsed() < PATIENCE, "{asked:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // The same person's word is in the inbox already, and nobody drives the run.
    let second = waiting(&world).await;
    let letter = Letter::Decided {
        place: 0,
        decision: Decision {
            by: by.clone(),
            link_made_by: None,
            key_made_by: None,
            approved: true,
            comment: None,
            at: world.app.cx.clock.now(),
        },
    };
    let scope = operator_in(&operator(), &"contoso".parse().unwrap());
    let (id, causes) = (second.parse().unwrap(), [format!("decision:ok:{by}")]);
    assert!(
        world
            .app
            .cx
            .runs
            .tell_once(&scope, &id, &causes, &letter)
            .await
            .unwrap()
    );
    let answer = decide(&world, &second).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (409, "approval_decided"),
        "{answer:?}"
    );
    let records = world.get(&format!("/api/audit?resource={second}")).await;
    assert_eq!(recorded(&records), 0, "{records:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_is_kept_below_the_policies_with_all_that_it_calls() {
    let wants = |name: &str, host: &str| json!({"name": name, "function": name, "line": if name == "net1" { 7 } else { 9 }, "parameters": [], "network": [host]});
    let use_both = graph(
        "wide",
        json!([{"id": "one", "type": "python", "use": "net1"}, {"id": "two", "type": "python", "use": "net2"}]),
        &[],
    );
    let world = World::start(
        builder([use_both])
            .declares(wants("net1", "one.example.com"))
            .declares(wants("net2", "two.example.com")),
    )
    .await;
    let shown = world.get("/api/workflows/wide").await;
    assert_eq!(shown["network"], json!(["one.example.com", "two.example.com"]));
    let refused = shown["refused"].as_array().map_or(0, Vec::len);
    let answer = world
        .send("POST", "/api/workflows/wide/execute", None, Some(&json!({})))
        .await;
    if refused == 0 {
        assert_eq!(answer.json()["status"], "succeeded");
        let policy = json!({"network": {"mode": "none"}});
        assert_eq!(world.send("PUT", "/api/policy", None, Some(&policy)).await.status, 200);
    }
    let begun = Instant::now();
    loop {
        let answer = world
            .send("POST", "/api/workflows/wide/execute", None, Some(&json!({})))
            .await;
        if answer.status == 403 {
            assert_eq!(answer.code(), "policy_refused");
            assert_eq!(
                answer.json()["errors"].as_array().unwrap().len(),
                2,
                "{:#}",
                answer.json()
            );
            return;
        }
        // The policy is read anew within its time.
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_findings_offers_nothing_and_says_where() {
    let broken = graph(
        "broken",
        json!([
            python("a", json!({"inputs": {"y": 1}})),
            child("sub", "nobody", json!({}))
        ]),
        &[],
    );
    let behind = graph("behind", json!([child("sub", "broken", json!({}))]), &[]);
    let world = World::of([broken, behind, graph("good", json!([python("a", json!({}))]), &[])]).await;
    let current = world.app.cx.catalogs.current().await.unwrap();
    let names: Vec<_> = current.catalog.workflows.keys().map(String::as_str).collect();
    assert!(
        names.contains(&"good") && !names.contains(&"broken") && !names.contains(&"behind"),
        "{names:?}"
    );
    let found: Vec<_> = current
        .catalog
        .findings
        .iter()
        .map(|one| (one.pointer.as_str(), one.code.as_str()))
        .collect();
    let code = |path: &str, code: &str| found.iter().any(|(at, found)| at.starts_with(path) && *found == code);
    assert!(code("workspace/workflows/graph0.json:9:", "input_unknown"), "{found:?}");
    assert!(
        code("workspace/workflows/graph0.json:15:", "unknown_workflow"),
        "{found:?}"
    );
    assert!(
        code("workspace/workflows/graph1.json:", "unknown_workflow"),
        "{found:?}"
    );
}
