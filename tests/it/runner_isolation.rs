//! What the pool makes of an engine's report about isolation, and of an engine that falls silent. The engine is a stand-in of a
//! few lines, so that it can report anything.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft::clock::SystemClock;
use weft::domain::{AttemptId, Limits, Outcome, Rights, StepError, Tier, Timestamp};
use weft::runner::pool::{Pool, Settings};
use weft::runner::scripted::Scene;
use weft::runner::{AttemptReport, AttemptSpec, BundleRef, Entry, Isolation, NodeRunner as _, RunnerError, python};
use weft::store::fault::{Fault, Plan, Rule};
use weft::testing::{TestApp, WORKFLOW};
use weft::usecase::seed::DEVELOPMENT_KEY;

/// Answers as `POSTURE` and `MODE` say. Its workers return what they were forked with.
const ENGINE: &str = r#"
import json, os, signal, socket, struct

MODE, POSTURE, MARK = json.loads(r'''@SETTINGS@''')

def frame(sock, message):
    data = json.dumps(message).encode()
    sock.sendall(struct.pack(">I", len(data)) + data)

def worker(sock, message, count):
    frame(sock, {"t": "ready"})
    length = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))[0]
    sock.recv(length, socket.MSG_WAITALL)
    value = {"descriptors": count, "paths": message["paths"], "proxy": message.get("proxy"), "pid": os.getpid()}
    frame(sock, {"t": "succeeded", "value": value})
    os._exit(0)

def main():
    control = socket.socket(fileno=os.dup(0))
    is_second = os.path.exists(MARK)
    open(MARK, "w").close()
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not data:
            os._exit(0)
        message = json.loads(data)
        if message["op"] == "hello":
            assert len(message["jail"]["filters"]) >= 6 and message["jail"]["uids"] is None
            answer = {"op": "ready", "version": 1, "pid": os.getpid(), "python": "3", "sdk": "0"}
            control.send(json.dumps(answer | ({"posture": POSTURE} if POSTURE else {})).encode())
        elif message["op"] == "fork" and not (MODE == "silent" and not is_second):
            id = message["id"]
            pid = os.fork()
            if pid == 0:
                control.close()
                worker(socket.socket(fileno=fds[0]), message, len(fds))
            pidfd = os.pidfd_open(pid)
            # A number that means nothing to the handler.
            socket.send_fds(control, [json.dumps({"op": "forked", "id": id, "pid": 1}).encode()], [pidfd])
            os.close(pidfd)
            for fd in fds:
                os.close(fd)
            fds = []
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            code, killed = (status, None) if status >= 0 else (None, -status)
            control.send(json.dumps({"op": "exited", "id": id, "code": code, "signal": killed}).encode())
        if MODE == "silent" and not is_second:
            continue
        for fd in fds:
            os.close(fd)
"#;

struct Stage {
    pool: Pool,
    bundle: BundleRef,
    dir: TempDir,
}

impl Stage {
    fn new(mode: &str, posture: &Value, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::new().unwrap();
        let mark = dir.path().join("started").display().to_string();
        let engine = dir.path().join("engine/weft_runtime");
        fs::create_dir_all(&engine).unwrap();
        fs::create_dir_all(dir.path().join("bundle")).unwrap();
        let said = json!([mode, posture, mark]).to_string();
        fs::write(engine.join("__main__.py"), ENGINE.replace("@SETTINGS@", &said)).unwrap();
        let mut settings = Settings::new(
            python::find(None).expect("Python 3.11 or newer is installed"),
            dir.path().join("engine"),
            dir.path().join("scratch"),
        );
        settings.ahead = 0;
        change(&mut settings);
        let bundle = BundleRef {
            digest: format!("sha256:{}", "0".repeat(64)),
            dir: dir.path().join("bundle"),
            environment: None,
        };
        Self {
            pool: Pool::start(settings, Arc::new(SystemClock)).unwrap(),
            bundle,
            dir,
        }
    }

    async fn run(&self, rights: Rights) -> Result<AttemptReport, RunnerError> {
        let (messages, _kept) = mpsc::channel(16);
        let spec = AttemptSpec {
            attempt: AttemptId::generate(Timestamp::from_millis(0), [7; 10]),
            bundle: self.bundle.clone(),
            entry: Entry {
                kind: "workflow".into(),
                name: "x".into(),
                module: "workflows.x".into(),
                function: "x".into(),
            },
            source: None,
            arguments: json!({}),
            context: json!({}),
            limits: Limits::default(),
            rights,
            is_first: true,
            is_nice: false,
            messages,
        };
        self.pool.run(spec, CancellationToken::new()).await
    }

    fn forks(&self) -> u64 {
        self.pool.status()["forks"].as_u64().unwrap()
    }
}

fn value(report: &AttemptReport) -> &Value {
    match &report.outcome {
        Outcome::Succeeded { value } => value,
        other => panic!("{other:?}"),
    }
}

fn confined(and: &[&str]) -> Value {
    let mut layers = vec!["own_process", "landlock", "seccomp"];
    layers.extend(and);
    json!({"tier": "confined", "layers": layers, "missing": {"pid_namespace": "EPERM: unshare", "network_notify": "EBUSY"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_minimum_no_worker_is_forked() {
    let stage = Stage::new("", &confined(&[]), |settings| {
        settings.isolation.minimum = Tier::Confined
    });
    let enough = stage.run(Rights::of_workspace(&[])).await.unwrap();
    assert_eq!(*enough.posture, ["own_process", "landlock", "seccomp", "memory_meter"]);
    assert_eq!(stage.forks(), 1);

    let rights = Rights {
        minimum: Tier::Namespaces,
        ..Rights::of_workspace(&[])
    };
    stage.pool.warm(&stage.bundle, "workflows.x", &rights);
    let report = stage.run(rights).await.unwrap();
    let Outcome::Failed { error } = &report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(
        (error.kind.as_str(), error.retriable),
        ("isolation_insufficient", Some(false))
    );
    assert!(
        error.message.contains("`pid_namespace` is missing (EPERM: unshare)"),
        "{}",
        error.message
    );
    assert!(report.posture.is_empty(), "it had no worker");
    assert_eq!(stage.forks(), 1, "nothing was forked for it, nor ahead of it");

    let stage = Stage::new("", &confined(&[]), |settings| {
        settings.isolation.minimum = Tier::Namespaces
    });
    let description = stage.pool.describe(&stage.bundle).await.unwrap();
    assert_eq!(description.findings[0].code, "isolation_insufficient");
    let isolation = stage.pool.isolation().unwrap();
    assert!(!isolation.is_enough());
    assert_eq!(stage.pool.status()["isolation"]["tier"], "confined");
    assert_eq!(stage.forks(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_reports_nothing_is_a_plain_process() {
    let stage = Stage::new("", &Value::Null, |_| {});
    let report = stage.run(Rights::of_workspace(&["*".to_owned()])).await.unwrap();
    assert_eq!(value(&report)["descriptors"], 3);
    assert_eq!(stage.pool.posture().await.unwrap().posture.tier, Tier::Process);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_network_is_what_the_platform_has() {
    let connected = || Rights::of_workspace(&["api.example.com".to_owned()]);
    let stage = Stage::new("", &confined(&["network_notify"]), |_| {});
    let report = stage.run(connected()).await.unwrap();
    // The stand-in has no filter to hand over, and without one nothing is started.
    assert!(
        matches!(&report.outcome, Outcome::Failed { error } if error.kind == "network_unavailable"),
        "{:?}",
        report.outcome
    );
    assert!(report.posture.contains(&"network_notify"));
    let report = stage.run(Rights::of_workspace(&[])).await.unwrap();
    assert_eq!(value(&report)["descriptors"], 3);
    assert!(!report.posture.contains(&"network_notify"));

    // Without notifications a proxy of its own, where Landlock can keep the worker to its port.
    let mut with_ports = confined(&[]);
    with_ports["landlock_abi"] = json!(4);
    let stage = Stage::new("", &with_ports, |_| {});
    let report = stage.run(connected()).await.unwrap();
    let said = value(&report);
    assert_eq!(said["descriptors"], 3);
    let proxy = said["proxy"].as_str().unwrap();
    assert!(
        proxy.starts_with("http://weft:") && proxy.contains("@127.0.0.1:"),
        "{proxy}"
    );

    let stage = Stage::new("", &confined(&[]), |_| {});
    match stage.run(connected()).await.unwrap().outcome {
        Outcome::Failed { error } => assert!(error.message.contains("`network_notify` is missing (EBUSY)")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_is_recorded_and_a_lookalike_is_not() {
    let refused = || StepError {
        retriable: Some(false),
        ..StepError::new("isolation_insufficient", "the step was not run")
    };
    let app = TestApp::start().await;
    app.scripted
        .push(WORKFLOW, Scene::ends(Outcome::Failed { error: refused() }));
    app.scripted
        .push(WORKFLOW, Scene::without_worker(Outcome::Failed { error: refused() }));
    let mut recorded = Vec::new();
    for _ in 0..2 {
        let run = app.run("contoso", json!({})).await;
        assert_eq!(run["error"]["type"], "isolation_insufficient", "{run}");
        let answer = app
            .request("GET", "/api/audit")
            .key(DEVELOPMENT_KEY)
            .organization("contoso")
            .send()
            .await;
        let events = answer.json()["items"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer:?}"))
            .clone();
        recorded.push(events.iter().filter(|event| event["event"] == "step.refused").count());
    }
    assert_eq!(recorded, [0, 1]);

    let status = app.request("GET", "/api/ready").send().await;
    assert_eq!(status.json()["status"], "ok");
    let posture = serde_json::from_value(confined(&[])).unwrap();
    app.scripted.isolates(Isolation {
        posture,
        minimum: Tier::Namespaces,
    });
    let status = app.request("GET", "/api/ready").send().await;
    assert_eq!(status.json()["status"], "degraded");
}

/// As with a full disk: reads are answered as ever.
#[tokio::test(start_paused = true)]
async fn an_instance_whose_storage_takes_no_writes_is_not_ready() {
    let app = TestApp::start().await;
    let ask = async || app.request("GET", "/api/ready").send().await.status;
    assert_eq!(ask().await, 200);
    app.faults.plan(Plan::Script(vec![Rule::new(Fault::Before).writes()]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ask().await, 503);
    app.faults.plan(Plan::Script(Vec::new()));
    assert_eq!(ask().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_zygote_is_replaced() {
    let stage = Stage::new("silent", &confined(&[]), |_| {});
    let started = Instant::now();
    // It answers `hello`, and nothing more; the next one works.
    let report = stage.run(Rights::of_workspace(&[])).await.unwrap();
    assert!(value(&report)["pid"].is_number());
    let took = started.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(28)).contains(&took),
        "{took:?}"
    );
    assert!(stage.dir.path().join("started").exists());
}
