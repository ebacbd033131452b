//! What steps ask for, in real workers: each family of calls, what is foreign, and steps that speak for themselves on the
//! socket.

use std::fs;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use weft::store::fault::Call;
use weft::store::port::Put;
use weft::testing::TestApp;
use weft::testing::app::Builder;
use weft::usecase::deliver::{From, deliver};
use weft::usecase::seed::DEVELOPMENT_KEY;

const WORKFLOWS: &str = r#"
import os, time
from weft import Context, Retry, WeftError, workflow

def refused(call, *args, **named):
    try:
        return call(*args, **named)
    except WeftError as error:
        return type(error).__name__

@workflow()
def counts(ctx: Context, by: int = 1) -> dict:
    before = ctx.kv.get("count", 0)
    ctx.kv.set("count", before + by)
    return {"before": before, "keys": list(ctx.kv.list()), "swapped": ctx.kv.compare_and_set("count", 99, 0),
            "large": refused(ctx.kv.set, "large", "x" * 40_000), "null": refused(ctx.kv.set, "null", None),
            "smuggled": refused(ctx._link.call, "kv.get", {"key": "count", "organization": "fabrikam"})}

@workflow()
def large(ctx: Context) -> dict:
    data = bytes(range(251)) * 36_000
    written = ctx.artifacts.write("large.bin", data)
    saved = ctx.artifacts.save("copy.bin", id=written.id)
    with open("copy.bin", "rb") as file:
        same = file.read() == data
    again = ctx.artifacts.write("again.bin", "copy.bin", media_type="text/csv")
    link, digest = ctx._link, written.sha256
    begun = link.call("artifacts.begin", {"name": "forged", "size": len(data), "sha256": digest})["upload"]
    from binascii import b2a_base64
    for offset in range(0, len(data), 524_288):
        piece = b2a_base64(bytes(min(524_288, len(data) - offset)), newline=False).decode()
        link.call("artifacts.append", {"upload": begun, "offset": offset, "data": piece})
    return {"same": same, "size": saved.size, "digests": again.sha256 == digest, "id": written.id, "sha256": digest,
            "forged": refused(link.call, "artifacts.commit", {"upload": begun, "sha256": digest}),
            "no_digest": refused(link.call, "artifacts.begin", {"name": "x", "size": 1, "sha256": "0" * 63}),
            "whole": refused(link.call, "artifacts.begin", {"name": "x", "size": 33 << 20}),
            "over": refused(link.call, "artifacts.begin", {"name": "x", "size": (256 << 20) + 1, "sha256": digest})}

@workflow()
def writes(ctx: Context) -> dict:
    data = bytes(range(256)) * 6000
    written = ctx.artifacts.write("a \"name\" ä.bin", data, media_type="text/html")
    again = ctx.artifacts.write("a \"name\" ä.bin", data)
    with open("report.txt", "w") as file:
        file.write("report")
    ctx.artifacts.write("report.txt", "report.txt", media_type="text/plain")
    link = ctx._link
    begun = link.call("artifacts.begin", {"name": "x", "size": 3})
    return {"same": written.id == again.id, "back": ctx.artifacts.read(written.name) == data,
            "by_id": len(ctx.artifacts.read(id=written.id)), "id": written.id,
            "names": [artifact.name for artifact in ctx.artifacts.list()],
            "path": refused(ctx.artifacts.write, "../x", b""),
            "missing": refused(ctx.artifacts.read, "missing"),
            "foreign": refused(ctx.artifacts.read, id="art_" + "0" * 26),
            "gap": refused(link.call, "artifacts.append", {"upload": begun["upload"], "offset": 2, "data": "eA=="}),
            "no_upload": refused(link.call, "artifacts.append", {"upload": 77, "offset": 0, "data": "eA=="}),
            "huge": refused(link.call, "artifacts.begin", {"name": "x", "size": 1 << 40})}

@workflow(retry=Retry(attempts=2, delay_seconds=0.01))
def starts(ctx: Context, fail: bool = False) -> dict:
    one = ctx.runs.start("child", {"name": "one"}, key="k")
    two = ctx.runs.start("child", {"name": f"attempt {ctx.run.attempt}"})
    if fail and ctx.run.attempt == 1:
        raise ConnectionError("again")
    info = ctx.runs.wait(one)
    return {"ids": [one, two], "status": info.status, "value": info.value(), "got": ctx.runs.get(two).workflow,
            "other": refused(ctx.runs.start, "child", {"name": "two"}, key="k"),
            "unknown": refused(ctx.runs.start, "nosuch"), "itself": refused(ctx.runs.wait, ctx.run.id),
            "arguments": refused(ctx.runs.start, "child", {"nosuch": 1})}

@workflow()
def waits(ctx: Context, seconds: float) -> str:
    try:
        ctx.runs.wait(ctx.runs.start("child", {"name": "never"}), timeout=seconds)
    except (TimeoutError, WeftError) as error:
        return type(error).__name__
    return "ended"

@workflow()
def waits_long(ctx: Context) -> dict:
    one = ctx.runs.start("child", {"name": "one"})
    told = {"sdk": ctx.runs.wait(one, timeout=1_000_000).status}
    for seconds in (86_400, 86_401, -1, 1e300):
        try:
            told[str(seconds)] = ctx._link.call("runs.wait", {"id": one, "timeout_seconds": seconds})["status"]
        except WeftError as error:
            told[str(seconds)] = f"{type(error).__name__}: {error}"
    return told

@workflow()
def child(ctx: Context, name: str) -> dict:
    return {"name": name, "caller": ctx.caller.id}

@workflow()
def nests(ctx: Context, depth: int) -> str:
    try:
        ctx.runs.start("nests", {"depth": depth + 1})
    except WeftError as error:
        return f"{depth}: {type(error).__name__}"
    return f"{depth}"

@workflow()
def looks(ctx: Context, id: str) -> str:
    return str(refused(ctx.runs.get, id)) + " " + str(refused(ctx.runs.wait, id))

@workflow()
def asks(ctx: Context) -> dict:
    return {"list": ctx.data.get("names", {"count": 2}), "unknown": refused(ctx.data.get, "nosuch"),
            "bad": refused(ctx.data.get, "broken"), "deeper": refused(ctx.data.get, "deeper")}

@workflow()
def calls_often(ctx: Context) -> str:
    for number in range(20_000):
        try:
            ctx._link.call("config.get", {"key": "x"})
        except WeftError as error:
            return f"{number}: {error}"
    return "never"

@workflow()
def speaks(frames: str, then: float = 20.0) -> None:
    data = memoryview(bytes.fromhex(frames))
    while data:
        data = data[os.write(3, data):]
    time.sleep(then)
    os._exit(0)

class time_limit(Exception):
    pass

@workflow()
def raises(name: str) -> None:
    raise type(name, (Exception,), {"__module__": "builtins"})("made up")
"#;

const PROVIDERS: &str = r#"
from weft import Context, data_provider

@data_provider()
def names(ctx: Context, count: int) -> list:
    return [ctx.organization.id] * count

@data_provider()
def broken() -> list:
    raise ValueError("no good")

@data_provider()
def deeper(ctx: Context) -> list:
    return ctx.data.get("names", {"count": 1})
"#;

/// What `weft.testing` is held to as well, by `engine/tests/sdk/test_contract.py`.
const CONTRACT: &str = include_str!("../../engine/tests/supports/contract/workflows/contract.py");
const CONTRACT_DATA: &str = include_str!("../../engine/tests/supports/contract/data_providers/contract_data.py");
const CONTRACT_ANSWERS: &str = include_str!("../golden/broker_contract.json");

struct World {
    app: TestApp,
    _workspace: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(&[
            ("workflows/steps.py", WORKFLOWS),
            ("data_providers/names.py", PROVIDERS),
        ])
        .await
    }

    async fn with(files: &[(&str, &str)]) -> Self {
        let workspace = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = workspace.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let app = Builder::default().python().workspace(workspace.path()).start().await;
        Self {
            app,
            _workspace: workspace,
        }
    }

    async fn get(&self, organization: &str, path: &str) -> weft::testing::Answer {
        let request = self.app.request("GET", path).key(DEVELOPMENT_KEY);
        request.organization(organization).send().await
    }

    async fn run(&self, organization: &str, workflow: &str, arguments: Value) -> Value {
        let path = format!("/api/workflows/{workflow}/execute");
        let request = self
            .app
            .request("POST", &path)
            .key(DEVELOPMENT_KEY)
            .organization(organization);
        let answer = request.json(&arguments).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn result(&self, workflow: &str, arguments: Value) -> Value {
        self.result_in("contoso", workflow, arguments).await
    }

    async fn result_in(&self, organization: &str, workflow: &str, arguments: Value) -> Value {
        let run = self.run(organization, workflow, arguments).await;
        assert_eq!(run["status"], "succeeded", "{run}");
        run["result"].clone()
    }

    /// Delivers messages until there are none, as the host would.
    async fn deliver_all(&self) -> usize {
        let (cx, queue) = (&self.app.cx, weft::store::key::Queue::Runs.name());
        let mut delivered = 0;
        loop {
            let messages = self
                .app
                .ports
                .queues
                .receive(&queue, 32, Duration::from_secs(60))
                .await
                .unwrap();
            if messages.is_empty() {
                return delivered;
            }
            for message in messages {
                deliver(cx, From::Runs, &message.text, cx.clock.now(), None)
                    .await
                    .unwrap();
                self.app.ports.queues.delete(&queue, &message.receipt).await.unwrap();
                delivered += 1;
            }
        }
    }

    /// How many runs of `child` the first organization has.
    async fn children(&self) -> usize {
        let children = self.get("contoso", "/api/runs?workflow=child").await.json();
        children["items"].as_array().unwrap().len()
    }

    async fn overreached(&self) -> Vec<Value> {
        let answer = self.get("contoso", "/api/audit?event=step.overreached&limit=200").await;
        answer.json()["items"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_keep_and_find_what_is_theirs() {
    let world = World::new().await;
    for before in [0, 1] {
        let result = world.result("counts", json!({})).await;
        assert_eq!(
            result,
            json!({"before": before, "keys": ["count"], "swapped": false, "large": "TooLarge", "null": "InvalidInput",
                   "smuggled": "InvalidInput"})
        );
    }
    let theirs = world.run("fabrikam", "counts", json!({})).await;
    assert_eq!(theirs["result"]["before"], 0);

    let run = world.run("contoso", "writes", json!({})).await;
    let result = &run["result"];
    assert_eq!(result["same"], true, "{run}");
    assert_eq!(result["back"], true);
    assert_eq!(result["by_id"], 1_536_000);
    assert_eq!(result["names"], json!(["a \"name\" ä.bin", "report.txt"]));
    for (refused, with) in [
        ("path", "InvalidInput"),
        ("missing", "NotFound"),
        ("foreign", "NotFound"),
        ("gap", "InvalidInput"),
        ("no_upload", "InvalidInput"),
        ("huge", "TooLarge"),
    ] {
        assert_eq!(result[refused], with, "{refused}: {result}");
    }
    let id = run["runId"].as_str().unwrap();
    let listed = world.get("contoso", &format!("/api/runs/{id}/artifacts")).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let href = listed["items"][0]["href"].as_str().unwrap();
    let download = world.get("contoso", href).await;
    assert_eq!(download.status, 200);
    assert_eq!(download.body.len(), 1_536_000);
    assert_eq!(download.header("content-type"), "application/octet-stream");
    assert_eq!(download.header("x-content-type-options"), "nosniff");
    assert!(
        download.header("content-disposition").starts_with("attachment; "),
        "{download:?}"
    );
    for (organization, path) in [
        ("fabrikam", href.to_owned()),
        ("fabrikam", format!("/api/runs/{id}/artifacts")),
        ("contoso", format!("/api/runs/{id}/artifacts/art_{}", "0".repeat(26))),
    ] {
        assert_eq!(
            world.get(organization, &path).await.status,
            404,
            "{organization} {path}"
        );
    }
    let records = world.overreached().await;
    assert_eq!(records.len(), 1, "the id of no artifact: {records:?}");
}

/// What is larger than a part goes to storage in parts, and comes back whole, in ranges, or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_artifacts_go_in_parts_and_come_in_ranges() {
    let world = World::new().await;
    world.app.faults.reset();
    let run = world.run("contoso", "large", json!({})).await;
    let result = &run["result"];
    let size = 251 * 36_000;
    let sha256 = result["sha256"].as_str().unwrap();
    assert_eq!(
        (&result["same"], &result["size"], &result["digests"]),
        (&json!(true), &json!(size), &json!(true)),
        "{run}"
    );
    for (refused, with) in [
        ("forged", "InvalidInput"),
        ("no_digest", "InvalidInput"),
        ("whole", "TooLarge"),
        ("over", "TooLarge"),
    ] {
        assert_eq!(result[refused], with, "{refused}: {result}");
    }
    // Two of three parts each; of the forged one two, since it is refused before the last.
    assert_eq!(world.app.faults.count(Call::LayAside), 8);
    assert_eq!(world.app.faults.count(Call::Assemble), 2);
    assert_eq!(
        world.app.faults.count(Call::TouchBlob),
        1,
        "the same bytes are relied upon"
    );

    let id = run["runId"].as_str().unwrap();
    let listed = world.get("contoso", &format!("/api/runs/{id}/artifacts")).await.json();
    let kept: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (&item["name"], &item["size"], &item["mediaType"]))
        .collect();
    assert_eq!(
        kept,
        [
            (&json!("again.bin"), &json!(size), &json!("text/csv")),
            (&json!("large.bin"), &json!(size), &Value::Null)
        ],
        "{listed}"
    );
    let path = format!("/api/runs/{id}/artifacts/{}", result["id"].as_str().unwrap());
    let ask = |headers: &[(&str, &str)]| {
        let request = world
            .app
            .request("GET", &path)
            .key(DEVELOPMENT_KEY)
            .organization("contoso");
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value))
    };
    let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let etag = format!("\"{sha256}\"");
    let whole = ask(&[]).send().await;
    assert_eq!(
        (whole.status, whole.header("content-length")),
        (200, &*size.to_string())
    );
    assert_eq!((whole.header("etag"), whole.header("accept-ranges")), (&*etag, "bytes"));
    assert!(whole.header("repr-digest").starts_with("sha-256=:"), "{whole:?}");
    assert!(whole.body == content);
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=2000000-5999999", 2_000_000..6_000_000),
        ("bytes=9035000-", 9_035_000..size),
        ("bytes=-1000", size - 1000..size),
        ("bytes=0-", 0..size),
    ] {
        let part = ask(&[("range", range), ("if-range", &etag)]).send().await;
        assert_eq!(part.status, 206, "{range}");
        let told = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(part.header("content-range"), told);
        assert_eq!(part.header("content-length"), expected.len().to_string());
        assert_eq!(part.header("etag"), etag);
        assert!(part.body == content[expected], "{range}");
    }
    assert_eq!(
        ask(&[("range", "bytes=0-0"), ("if-range", "\"other\"")])
            .send()
            .await
            .body
            .len(),
        size
    );
    let beyond = ask(&[("range", "bytes=9036000-")]).send().await;
    assert_eq!(
        (beyond.status, beyond.json()["code"].as_str()),
        (416, Some("range_not_satisfiable"))
    );
    assert_eq!(beyond.header("content-range"), format!("bytes */{size}"));
    let known = ask(&[("if-none-match", &etag)]).send().await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, &*etag));
    assert!(!known.headers.contains_key("content-length"), "{known:?}");
    // Ranges are for GET alone (RFC 9110, 14.2), and nothing says another length than a 200 would have (8.6).
    let look = |headers: &[(&str, &str)]| {
        let request = world.app.request("HEAD", &path);
        let request = request.key(DEVELOPMENT_KEY).organization("contoso");
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value))
    };
    for range in ["bytes=0-0", "bytes=9036000-"] {
        let looked = look(&[("range", range)]).send().await;
        assert_eq!((looked.status, looked.body.len()), (200, 0), "{range}");
        assert_eq!(looked.header("content-length"), size.to_string());
        assert!(!looked.headers.contains_key("content-range"), "{looked:?}");
    }
    let known = look(&[("if-none-match", &etag)]).send().await;
    assert_eq!((known.status, known.header("etag")), (304, &*etag));
    assert!(!known.headers.contains_key("content-length"), "{known:?}");

    // Bytes that are not those that were written are never all given: the connection breaks off before the last of them.
    let container = weft::store::key::org_container(&"contoso".parse().unwrap());
    let blob = weft::store::key::artifact_blob(sha256);
    let mut forged = content.clone();
    forged[100] ^= 1;
    let blobs = &world.app.ports.blobs;
    blobs
        .put(&container, &blob, forged.into(), Put::Overwrite)
        .await
        .unwrap();
    let (status, came) = ask(&[]).broken_off().await;
    assert_eq!(status, 200);
    assert!(came.is_some_and(|came| came < size), "{came:?}");
    blobs
        .put(&container, &blob, content[..3_000_000].to_vec().into(), Put::Overwrite)
        .await
        .unwrap();
    for headers in [&[][..], &[("range", "bytes=100-5000000")]] {
        let (_, came) = ask(headers).broken_off().await;
        assert!(came.is_some_and(|came| came < 3_000_000), "{headers:?} {came:?}");
    }
    assert_eq!(ask(&[("range", "bytes=8000000-")]).send().await.status, 500);
}

/// The fakes of unit tests answer as the broker does: both are held to one list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_and_the_fakes_of_unit_tests_keep_one_contract() {
    let world = World::with(&[
        ("workflows/contract.py", CONTRACT),
        ("data_providers/contract_data.py", CONTRACT_DATA),
    ])
    .await;
    let answers: serde_json::Map<String, Value> = serde_json::from_str(CONTRACT_ANSWERS).unwrap();
    assert!(answers.len() >= 5);
    let steps = async {
        for (family, expected) in &answers {
            let said = world.result(&format!("contract-{family}"), json!({})).await;
            let expected = expected.as_object().unwrap();
            for (what, answer) in expected {
                assert_eq!(said[what], *answer, "{family}: {what}");
            }
            assert_eq!(said.as_object().unwrap().len(), expected.len(), "{family}");
        }
    };
    tokio::select! {
        () = host(&world) => unreachable!(),
        () = steps => {}
    }
}

/// Delivers whatever comes, for ever.
async fn host(world: &World) {
    loop {
        world.deliver_all().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_start_runs_and_wait_for_them() {
    let world = World::new().await;
    let steps = async {
        for fail in [false, true] {
            let run = world.run("contoso", "starts", json!({"fail": fail})).await;
            let result = &run["result"];
            assert_eq!(result["status"], "succeeded", "{run}");
            assert_eq!(result["value"]["name"], "one");
            assert_eq!(result["value"]["caller"], run["requester"]["id"]);
            assert_eq!(result["got"], "child");
            for (refused, with) in [
                ("other", "InvalidInput"),
                ("unknown", "NotFound"),
                ("itself", "InvalidInput"),
                ("arguments", "InvalidInput"),
            ] {
                assert_eq!(result[refused], with, "{refused}: {result}");
            }
        }
        assert_eq!(world.children().await, 4, "a repeated attempt starts no run");

        world.run("contoso", "nests", json!({"depth": 0})).await;
        let deepest = async {
            loop {
                let nested = world
                    .get("contoso", "/api/runs?workflow=nests&status=succeeded")
                    .await
                    .json();
                if nested["items"].as_array().unwrap().len() == 9 {
                    return nested["items"][0]["runId"].as_str().unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let deepest = tokio::time::timeout(Duration::from_secs(30), deepest)
            .await
            .expect("nine deep and no deeper");
        let run = world.get("contoso", &format!("/api/runs/{deepest}")).await.json();
        assert_eq!(run["result"], "8: Denied");

        // One call waits a day at most; the SDK makes as many as are needed.
        let refused = "InvalidInput: `timeout_seconds` must be from 0 to 86400";
        assert_eq!(
            world.result("waits_long", json!({})).await,
            json!({"sdk": "succeeded", "86400": "succeeded", "86401": refused, "-1": refused, "1e+300": refused})
        );

        // A foreign run, and one that isn't there, look alike.
        let foreign = world.run("fabrikam", "child", json!({"name": "x"})).await;
        for id in [foreign["runId"].as_str().unwrap(), &format!("run_{}", "0".repeat(26))] {
            assert_eq!(world.result("looks", json!({"id": id})).await, "NotFound NotFound");
        }
        let calls: Vec<_> = world
            .overreached()
            .await
            .iter()
            .map(|record| record["detail"]["call"].clone())
            .collect();
        assert_eq!(calls.iter().filter(|call| *call == "runs.get").count(), 2, "{calls:?}");
        assert_eq!(calls.iter().filter(|call| *call == "runs.wait").count(), 2, "{calls:?}");
    };
    tokio::select! {
        () = host(&world) => unreachable!(),
        () = steps => {}
    }
}

/// Nobody delivers messages until one was refused, so what is waited for never begins: as it would be if those who wait held
/// every slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slot_is_never_held_by_waiting() {
    let world = World::new().await;
    let slots = world.app.cx.runner.slots();
    let waits = |organization| world.result_in(organization, "waits", json!({"seconds": 120}));
    // One organization alone never holds every slot, and two share them: the other one comes when the rest are held.
    let last = async {
        while world.children().await + 1 < slots {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        waits("fabrikam").await
    };
    let mut waiting: FuturesUnordered<_> = (1..slots).map(|_| waits("contoso").boxed_local()).collect();
    waiting.push(last.boxed_local());
    let first = waiting.next().await.unwrap();
    assert_eq!(first, "Unavailable");
    let (delivered, patient) = tokio::join!(world.deliver_all(), waiting.collect::<Vec<_>>());
    assert!(delivered > 0);
    assert_eq!(patient, vec![json!("ended"); slots - 1]);
    // Who has waited gives the place back.
    assert_eq!(world.result("waits", json!({"seconds": 0.1})).await, "TimeoutError");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_ask_data_providers() {
    let world = World::new().await;
    let result = world.result("asks", json!({})).await;
    assert_eq!(
        result,
        json!({"list": ["contoso", "contoso"], "unknown": "NotFound", "bad": "WeftError", "deeper": "WeftError"})
    );
    for (name, said) in [("broken", "ValueError: no good"), ("deeper", "NotAvailable")] {
        let answer = world.get("contoso", &format!("/api/data-providers/{name}")).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        let problem = answer.json();
        assert_eq!(problem["code"], "data_provider_failed");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    let result = world.result("calls_often", json!({})).await;
    assert!(
        result
            .as_str()
            .unwrap()
            .starts_with("10000: an attempt may make 10000 calls"),
        "{result}"
    );
}

fn framed(bodies: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    for body in bodies {
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(*body);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that a step may write to its socket by itself and must not: the attempt ends, the engine lives, and there is a
/// record of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_disturb_their_connection_are_ended() {
    let world = World::new().await;
    let call = |id: u64| format!(r#"{{"t":"call","id":{id},"name":"runs.wait","args":{{"id":"x"}}}}"#).into_bytes();
    let slow =
        |id: u64| format!(r#"{{"t":"call","id":{id},"name":"data.get","args":{{"provider":"broken"}}}}"#).into_bytes();
    let many: Vec<Vec<u8>> = (1..=60).map(slow).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let deep = format!(r#"{{"t":"succeeded","value":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let last: &[u8] = br#"{"t":"succeeded","value":"forged"}"#;
    let table: Vec<(&str, String)> = vec![
        ("replayed id", framed(&[&call(1), &call(1)])),
        ("gap in ids", framed(&[&call(1), &call(3)])),
        ("id 0", framed(&[&call(0)])),
        ("over 32 in flight", framed(&many)),
        ("oversized", "7fffffff".to_owned() + "00"),
        ("empty", "00000000".to_owned()),
        ("ready twice", framed(&[br#"{"t":"ready","import_ms":1,"boot_ms":1}"#])),
        (
            "of a description",
            framed(&[br#"{"t":"described_all","files":1,"ms":1}"#]),
        ),
        ("of the handler", framed(&[br#"{"t":"reply","id":1,"value":1}"#])),
        ("unknown", framed(&[br#"{"t":"launch"}"#])),
        ("no object", framed(&[b"[]"])),
        ("no JSON", framed(&[b"hello"])),
        ("not UTF-8", framed(&[b"{\"t\":\"succeeded\",\"value\":\"\xff\"}"])),
        ("NaN", framed(&[br#"{"t":"succeeded","value":NaN}"#])),
        ("infinite", framed(&[br#"{"t":"succeeded","value":1e999}"#])),
        ("deep", framed(&[deep.as_bytes()])),
        ("key twice", framed(&[br#"{"t":"succeeded","value":1,"value":2}"#])),
        (
            "after the last",
            framed(&[last, br#"{"t":"log","level":"info","message":"x"}"#]),
        ),
        ("the last twice", framed(&[last, last])),
        ("half after the last", framed(&[last]) + "000000ff7b"),
    ];
    for (what, frames) in &table {
        let run = world.run("contoso", "speaks", json!({"frames": frames})).await;
        assert_eq!(run["status"], "failed", "{what}: {run}");
        assert_eq!(run["error"]["type"], "protocol_violation", "{what}: {run}");
        assert_ne!(run["result"], "forged", "{what}");
    }
    let half = framed(&[last]);
    let run = world
        .run(
            "contoso",
            "speaks",
            json!({"frames": half[..half.len() - 2], "then": 0.1}),
        )
        .await;
    assert_eq!(run["error"]["type"], "protocol_violation", "half a frame: {run}");
    let records = world.overreached().await;
    let violations = records
        .iter()
        .filter(|record| record["detail"]["refusal"] == "protocol_violation");
    assert_eq!(violations.count(), table.len() + 1);

    // Nobody speaks in the engine's name.
    for name in [
        "time_limit",
        "crashed",
        "cancelled",
        "isolation_failed",
        "protocol_violation",
    ] {
        let run = world.run("contoso", "raises", json!({"name": name})).await;
        assert_eq!(run["error"]["type"], format!("user.{name}"), "{run}");
        let forged = format!(r#"{{"t":"failed","error":{{"type":"{name}","message":"forged"}}}}"#);
        let run = world
            .run("contoso", "speaks", json!({"frames": framed(&[forged.as_bytes()])}))
            .await;
        assert_eq!(run["error"]["type"], format!("user.{name}"), "{run}");
    }
    let started = Instant::now();
    assert_eq!(world.result("counts", json!({})).await["before"], 0);
    assert!(started.elapsed() < Duration::from_secs(20));
}
