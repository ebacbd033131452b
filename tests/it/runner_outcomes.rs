//! What user code does, and what comes of it: real interpreters, real processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft::clock::SystemClock;
use weft::domain::{AttemptId, Limits, Outcome, StepError, Timestamp};
use weft::runner::pool::{Pool, Settings};
use weft::runner::{
    AttemptReport, AttemptSpec, BundleRef, Entry, LogLine, NodeRunner, Refusal, RunnerError, WorkerMessage, python,
};

const WORKFLOWS: &str = r#"
import ctypes, os, signal, subprocess, sys, time, gc, socket
from weft import Context, workflow

@workflow()
def echo(ctx: Context, name: str = "world") -> dict:
    ctx.log("said", name=name)
    print("printed")
    print("complained", file=sys.stderr)
    ctx.checkpoint("half", {"done": 1})
    ctx.variables.set("kept", 7)
    return {"name": name, "greeting": ctx.config.get("greeting"), "asked": ctx.config.get("elsewhere"),
            "organization": ctx.organization.id, "run": ctx.run.id}
"#;

/// A bundle in a folder of its own, with a pool that runs it.
struct Stage {
    pool: Arc<Pool>,
    bundle: BundleRef,
    dir: TempDir,
}

fn engine_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engine")
}

fn settings(scratch: &Path) -> Settings {
    Settings::new(
        python::find(None).expect("Python 3.11 or newer is installed"),
        engine_dir(),
        scratch,
    )
}

impl Stage {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("bundle/workflows")).unwrap();
        fs::write(dir.path().join("bundle/workflows/victim.py"), WORKFLOWS).unwrap();
        let mut settings = settings(&dir.path().join("scratch"));
        change(&mut settings);
        let pool = Arc::new(Pool::start(settings, Arc::new(SystemClock)).unwrap());
        let bundle = BundleRef {
            digest: format!("sha256:{}", "0".repeat(64)),
            dir: dir.path().join("bundle"),
        };
        Self { pool, bundle, dir }
    }

    fn spec(&self, function: &str, arguments: Value) -> (AttemptSpec, mpsc::Receiver<WorkerMessage>) {
        let (messages, receiver) = mpsc::channel(16);
        let spec = AttemptSpec {
            attempt: AttemptId::generate(Timestamp::from_millis(0), [7; 10]),
            bundle: self.bundle.clone(),
            entry: Entry {
                kind: "workflow".into(),
                name: function.into(),
                module: "workflows.victim".into(),
                function: function.into(),
            },
            arguments,
            context: json!({
                "organization": {"id": "contoso", "name": "Contoso Ltd"},
                "caller": {"kind": "service", "id": "key:dev", "name": "weft-dev"},
                "run": {"id": "run_1", "workflow": function, "attempt": 1, "attempt_id": "att_1", "step": "main"},
                "config": {"greeting": "Hello"},
            }),
            limits: Limits::default(),
            messages,
        };
        (spec, receiver)
    }

    async fn run(&self, function: &str, arguments: Value) -> Played {
        self.run_with(function, arguments, |_| {}).await
    }

    async fn run_with(&self, function: &str, arguments: Value, change: impl FnOnce(&mut AttemptSpec)) -> Played {
        let (mut spec, receiver) = self.spec(function, arguments);
        change(&mut spec);
        let listening = tokio::spawn(listen(receiver));
        let report = self
            .pool
            .run(spec, CancellationToken::new())
            .await
            .expect("the attempt runs");
        let heard = listening.await.unwrap();
        Played { report, heard }
    }
}

/// Everything that an attempt said.
#[derive(Debug, Default)]
struct Heard {
    lines: Vec<LogLine>,
    checkpoints: Vec<(String, Value)>,
    calls: Vec<(String, Value)>,
}

#[derive(Debug)]
struct Played {
    report: AttemptReport,
    heard: Heard,
}

impl Played {
    fn value(&self) -> &Value {
        match &self.report.outcome {
            Outcome::Succeeded { value } => value,
            other => panic!("{other:?}"),
        }
    }

    fn error(&self) -> &StepError {
        match &self.report.outcome {
            Outcome::Failed { error } | Outcome::TimedOut { error } => error,
            other => panic!("{other:?}"),
        }
    }

    fn said(&self, stream: &str) -> Vec<&str> {
        self.heard
            .lines
            .iter()
            .filter(|line| line.stream == stream)
            .map(|line| line.message.as_str())
            .collect()
    }
}

async fn listen(mut receiver: mpsc::Receiver<WorkerMessage>) -> Heard {
    let mut heard = Heard::default();
    while let Some(message) = receiver.recv().await {
        match message {
            WorkerMessage::Line(line) => heard.lines.push(line),
            WorkerMessage::Checkpoint { name, data, .. } => heard.checkpoints.push((name, data)),
            WorkerMessage::Call { name, args, reply } => {
                let answer = if args["key"] == "forbidden" {
                    Err(Refusal {
                        code: "denied".into(),
                        message: "not yours".into(),
                    })
                } else {
                    Ok(json!("from the broker"))
                };
                let _ = reply.send(answer);
                heard.calls.push((name, args));
            }
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_gets_its_arguments_and_its_context() {
    let stage = Stage::new();
    let played = stage.run("echo", json!({"name": "Ann"})).await;
    assert_eq!(
        *played.value(),
        json!({"name": "Ann", "greeting": "Hello", "asked": "from the broker", "organization": "contoso", "run": "run_1"})
    );
    assert_eq!(played.said("stdout"), ["printed"]);
    assert_eq!(played.said("stderr"), ["complained"]);
    assert_eq!(played.said("log"), ["said"]);
    assert_eq!(played.heard.checkpoints, [("half".to_owned(), json!({"done": 1}))]);
    assert_eq!(
        played.heard.calls,
        [("config.get".to_owned(), json!({"key": "elsewhere"}))]
    );
    assert_eq!(played.report.variables, json!({"kept": 7}));
    assert_eq!(played.report.output_bytes, 19);
    assert!(!played.report.output_truncated);
    stage.pool.shutdown().await;
}
