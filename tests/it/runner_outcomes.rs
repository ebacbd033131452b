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
use weft::domain::{AttemptId, Limits, Outcome, Rights, StepError, Timestamp};
use weft::runner::pool::{Pool, Settings};
use weft::runner::{
    AttemptReport, AttemptSpec, BundleRef, Entry, LogLine, NodeRunner, Refusal, RunnerError, WorkerMessage, python,
};

const WORKFLOWS: &str = r#"
import os, signal, subprocess, sys, threading, time
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

@workflow()
def nothing():
    return None

@workflow()
def raises():
    raise ValueError("no good")

@workflow()
def refused(ctx: Context):
    ctx.config.get("forbidden")

@workflow()
def prints_100_mb():
    line = "x" * 1023 + "\n"
    for _ in range(100 * 1024):
        sys.stdout.write(line)
    return "done"

@workflow()
def prints_bytes():
    os.write(1, b"\xff\xc3\xa4\nno end")

@workflow()
def returns_no_json():
    return {"at": {1, 2}}

@workflow()
def returns_50_mb():
    return "x" * (50 << 20)

@workflow()
def forever(ctx: Context):
    print("started", os.getpid())
    while True:
        time.sleep(60)

@workflow()
def exits():
    os._exit(3)

@workflow()
def leaves():
    sys.exit(4)

@workflow()
def kills_itself(number: int):
    os.kill(os.getpid(), number)
    time.sleep(60)

@workflow()
def burns():
    while True:
        pass

@workflow()
def leaves_daemons(mark: str):
    subprocess.Popen(["/bin/sleep", mark])
    subprocess.Popen(["/bin/sleep", mark], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execv("/bin/sleep", ["sleep", mark])
        os._exit(0)
    os.wait()
    return "left"

@workflow()
def daemon_then_forever(mark: str):
    subprocess.Popen(["/bin/sleep", mark], start_new_session=True)
    print("started", os.getpid())
    while True:
        time.sleep(60)

@workflow()
def leaves_a_flood():
    subprocess.Popen(["/bin/sh", "-c", "while :; do echo flood; done"], start_new_session=True)
    time.sleep(0.05)
    print("last words")
    return "left"

@workflow()
def allocates():
    return len(bytearray(4 << 30))

@workflow()
def floods(ctx: Context, count: int):
    for number in range(count):
        ctx.log(f"line {number}")
    return "done"

@workflow()
def prints_while_it_asks(ctx: Context):
    def chatter():
        for _ in range(20_000):
            print("x" * 40)
    thread = threading.Thread(target=chatter)
    thread.start()
    answers = [ctx.config.get(f"key{number}") for number in range(50)]
    thread.join()
    return len(answers)

@workflow()
def writes_garbage(hexadecimal: str):
    os.write(3, bytes.fromhex(hexadecimal))
    time.sleep(60)

@workflow()
def closes_its_socket():
    os.close(3)
    time.sleep(60)

@workflow()
def surroundings():
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read().decode()
    except PermissionError:
        given = ""
    return {"environ": dict(os.environ), "given": given, "cwd": os.getcwd(), "home": os.environ["HOME"],
            "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")), "files": os.listdir(".")}

@workflow()
def writes_files():
    os.mkdir("deep")
    open("deep/file", "w").write("x")
    return os.getcwd()
"#;

const EXITS: &str = "import os\nfrom weft import workflow\nos._exit(5)\n@workflow()\ndef x(): ...\n";

/// A bundle in a folder of its own, with a pool that runs it.
pub(crate) struct Stage {
    pub(crate) pool: Arc<Pool>,
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

/// Everything that can be switched off.
const KERNEL_LAYERS: [&str; 8] = [
    "user_namespace",
    "mount_namespace",
    "pid_namespace",
    "network_namespace",
    "ipc_namespace",
    "own_uid",
    "landlock",
    "seccomp",
];

impl Stage {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::of(WORKFLOWS, change)
    }

    /// With these workflows in `workflows.victim`.
    pub(crate) fn of(source: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("bundle/workflows")).unwrap();
        fs::write(dir.path().join("bundle/workflows/victim.py"), source).unwrap();
        fs::write(
            dir.path().join("bundle/workflows/broken.py"),
            "from weft import workflow\nprint('on the way')\n1 / 0\n@workflow()\ndef x(): ...\n",
        )
        .unwrap();
        fs::write(dir.path().join("bundle/workflows/exits.py"), EXITS).unwrap();
        let mut settings = settings(&dir.path().join("scratch"));
        // What the runner does by itself, seen from outside: with a process table of its own, a step's number of itself says
        // nothing here. What the kernel does has tests of its own.
        settings.isolation.off = KERNEL_LAYERS.map(str::to_owned).to_vec();
        change(&mut settings);
        let pool = Arc::new(Pool::start(settings, Arc::new(SystemClock)).unwrap());
        let bundle = BundleRef {
            digest: format!("sha256:{}", "0".repeat(64)),
            dir: dir.path().join("bundle"),
            environment: None,
        };
        Self { pool, bundle, dir }
    }

    pub(crate) fn spec(&self, function: &str, arguments: Value) -> (AttemptSpec, mpsc::Receiver<WorkerMessage>) {
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
            source: None,
            arguments,
            context: json!({
                "organization": {"id": "contoso", "name": "Contoso Ltd"},
                "caller": {"kind": "service", "id": "key:dev", "name": "weft-dev"},
                "run": {"id": "run_1", "workflow": function, "attempt": 1, "attempt_id": "att_1", "step": "main"},
                "config": {"greeting": "Hello"},
            }),
            limits: Limits::default(),
            rights: Rights::of_workspace(&[]),
            is_first: true,
            is_nice: false,
            messages,
        };
        (spec, receiver)
    }

    pub(crate) async fn run(&self, function: &str, arguments: Value) -> Played {
        self.run_with(function, arguments, |_| {}).await
    }

    pub(crate) async fn run_with(
        &self,
        function: &str,
        arguments: Value,
        change: impl FnOnce(&mut AttemptSpec),
    ) -> Played {
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
pub(crate) struct Heard {
    lines: Vec<LogLine>,
    checkpoints: Vec<(String, Value)>,
    calls: Vec<(String, Value)>,
}

#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) report: AttemptReport,
    heard: Heard,
}

impl Played {
    pub(crate) fn value(&self) -> &Value {
        match &self.report.outcome {
            Outcome::Succeeded { value } => value,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn error(&self) -> &StepError {
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
            WorkerMessage::RefusedConnection(refusal) => panic!("no connection was tried: {refusal}"),
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

/// Waits for something that has no event, and gives up after 20 s.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.parse::<u32>().is_ok())
        })
}

fn with_argument(mark: &str) -> usize {
    processes()
        .filter(|path| {
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            command
                .split(|byte| *byte == 0)
                .any(|argument| argument == mark.as_bytes())
        })
        .count()
}

fn is_running(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A number of seconds that nobody else sleeps.
fn mark(number: u32) -> String {
    format!("{}.{number}", 90_000_000 + std::process::id())
}

/// Starts an attempt and waits for its first line.
async fn started(
    stage: &Stage,
    function: &str,
    arguments: Value,
    cancel: &CancellationToken,
) -> (
    tokio::task::JoinHandle<Result<AttemptReport, RunnerError>>,
    u64,
    mpsc::Receiver<WorkerMessage>,
) {
    let (spec, mut receiver) = stage.spec(function, arguments);
    let (pool, cancel) = (Arc::clone(&stage.pool), cancel.clone());
    let running = tokio::spawn(async move { pool.run(spec, cancel).await });
    let Some(WorkerMessage::Line(line)) = receiver.recv().await else {
        panic!("no line")
    };
    let pid = line.message.strip_prefix("started ").unwrap().parse().unwrap();
    (running, pid, receiver)
}

fn failure(report: &AttemptReport) -> (&str, &str) {
    match &report.outcome {
        Outcome::Failed { error } | Outcome::TimedOut { error } => (&error.kind, &error.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_raises_is_told_with_its_place() {
    let stage = Stage::new();
    let played = stage.run("raises", json!({})).await;
    let error = played.error();
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("ValueError", "no good"));
    let traceback = error.traceback.as_deref().unwrap();
    assert!(
        traceback.contains("workspace/workflows/victim.py") && traceback.contains("no good"),
        "{traceback}"
    );
    assert!(
        !traceback.contains("weft_runtime") && !traceback.contains(stage.dir.path().to_str().unwrap()),
        "{traceback}"
    );

    let played = stage.run("refused", json!({})).await;
    assert!(played.error().message.contains("not yours"));
    assert_eq!(played.error().retriable, Some(false));

    assert_eq!(stage.run("leaves", json!({})).await.error().kind, "SystemExit");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_bounded_and_does_not_stop_the_step() {
    let stage = Stage::new();
    let played = stage.run("prints_100_mb", json!({})).await;
    assert_eq!(*played.value(), json!("done"));
    assert_eq!(played.report.output_bytes, 100 << 20);
    assert!(played.report.output_truncated);
    assert_eq!(played.said("stdout").len(), 1024);

    let played = stage.run("prints_bytes", json!({})).await;
    assert_eq!(played.said("stdout"), ["\u{fffd}ä", "no end"]);

    let played = stage
        .run_with("floods", json!({"count": 50_000}), |spec| spec.limits.log_lines = 100)
        .await;
    assert_eq!((played.value(), played.said("log").len()), (&json!("done"), 100));
    assert!(played.report.output_truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn printing_and_asking_do_not_block_each_other() {
    let stage = Stage::new();
    let played = stage.run("prints_while_it_asks", json!({})).await;
    assert_eq!(*played.value(), json!(50));
    assert_eq!(played.said("stdout").len(), 10_000);
    assert_eq!(played.heard.calls.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_small_json() {
    let stage = Stage::new();
    let played = stage.run("returns_no_json", json!({})).await;
    assert_eq!(played.error().kind, "ResultNotJson");
    assert!(
        played.error().message.contains("result.at"),
        "{}",
        played.error().message
    );
    let played = stage.run("returns_50_mb", json!({})).await;
    assert_eq!(played.error().kind, "ResultTooLarge");
    assert_eq!(*stage.run("nothing", json!({})).await.value(), Value::Null);
    let large = json!({"name": "x".repeat(2 << 20)});
    assert_eq!(stage.run("echo", large).await.error().kind, "ArgumentsTooLarge");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_named() {
    let stage = Stage::new();
    let played = stage
        .run_with("forever", json!({}), |spec| spec.limits.wall_ms = 300)
        .await;
    assert!(matches!(played.report.outcome, Outcome::TimedOut { .. }));
    let error = played.error();
    assert_eq!(error.kind, "time_limit");
    assert!(
        error.message.contains("300 ms") && error.message.contains("timeout_seconds"),
        "{}",
        error.message
    );
    // What it had said before is not lost.
    assert_eq!(played.said("stdout").len(), 1);

    let played = stage
        .run_with("burns", json!({}), |spec| spec.limits.cpu_seconds = 1)
        .await;
    assert_eq!(played.error().kind, "cpu_limit");

    let played = stage
        .run_with("allocates", json!({}), |spec| spec.limits.memory_bytes = 64 << 20)
        .await;
    assert_eq!(played.error().kind, "MemoryError");
    assert!(played.error().message.contains("64 MiB"), "{}", played.error().message);
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_told_from_errors() {
    let stage = Stage::new();
    for (function, arguments, words) in [
        ("exits", json!({}), "code 3"),
        ("kills_itself", json!({"number": 9}), "SIGKILL"),
        ("kills_itself", json!({"number": 11}), "SIGSEGV"),
    ] {
        let played = stage.run(function, arguments).await;
        assert_eq!(played.error().kind, "crashed");
        assert!(played.error().message.contains(words), "{}", played.error().message);
        assert!(played.report.max_rss_kib.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_the_attempt_alone() {
    let stage = Stage::new();
    for garbage in [
        "00000000",
        "ffffffff",
        "00000004deadbeef",
        "0000000d7b2274223a227265616479227d",
        "0000000f7b2274223a2263616c6c222c226964223a397d",
        "0000000a7b2274223a2278227d20",
    ] {
        let played = stage.run("writes_garbage", json!({"hexadecimal": garbage})).await;
        assert_eq!(
            played.error().kind,
            "protocol_violation",
            "{garbage}: {:?}",
            played.error()
        );
    }
    assert_eq!(
        stage.run("closes_its_socket", json!({})).await.error().kind,
        "protocol_violation"
    );
    assert_eq!(*stage.run("nothing", json!({})).await.value(), Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_its_attempt() {
    let stage = Stage::new();
    let mark = mark(1);
    let played = stage.run("leaves_daemons", json!({"mark": mark})).await;
    assert_eq!(*played.value(), json!("left"));
    until("a daemon is left", || with_argument(&mark) == 0).await;

    let cwd = stage
        .run("writes_files", json!({}))
        .await
        .value()
        .as_str()
        .unwrap()
        .to_owned();
    until("the scratch folder is left", || !Path::new(&cwd).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_cannot_be_imported_says_why() {
    let stage = Stage::new();
    for _ in 0..3 {
        let played = stage
            .run_with("x", json!({}), |spec| spec.entry.module = "workflows.broken".into())
            .await;
        assert_eq!(played.error().kind, "ZeroDivisionError");
        assert!(
            played
                .error()
                .traceback
                .as_deref()
                .unwrap()
                .contains("workspace/workflows/broken.py")
        );
        assert_eq!(played.said("stdout"), ["on the way"]);
    }
    let played = stage
        .run_with("x", json!({}), |spec| spec.entry.module = "workflows.absent".into())
        .await;
    assert_eq!(played.error().kind, "ModuleNotFoundError");
    let played = stage
        .run_with("x", json!({}), |spec| spec.entry.module = "workflows.exits".into())
        .await;
    assert!(played.error().message.contains("code 5"), "{}", played.error().message);
    // Nothing is forked ahead for what can't be imported.
    assert_eq!(stage.pool.status()["idle"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_and_dropping_kill() {
    let stage = Stage::new();
    let cancel = CancellationToken::new();
    let mark = mark(2);
    let (running, pid, _receiver) = started(&stage, "daemon_then_forever", json!({"mark": mark}), &cancel).await;
    assert!(is_running(pid));
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap().outcome, Outcome::Cancelled);
    assert!(!is_running(pid));
    assert_eq!(with_argument(&mark), 0);

    let (running, pid, _receiver) = started(&stage, "forever", json!({}), &CancellationToken::new()).await;
    running.abort();
    until("a dropped attempt goes on", || !is_running(pid)).await;

    let (spec, _receiver) = stage.spec("nothing", json!({}));
    assert_eq!(stage.pool.run(spec, cancel).await.unwrap().outcome, Outcome::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_zygote_is_replaced() {
    let stage = Stage::new();
    let (running, pid, _receiver) = started(&stage, "forever", json!({}), &CancellationToken::new()).await;
    // Until its death is known here, an idle worker that is about to die could be given the next attempt.
    let kill_zygote = async || {
        let zygote = || stage.pool.status()["zygote"]["pid"].as_i64();
        let killed = zygote().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(killed).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until("the zygote is not missed", || zygote() != Some(killed)).await;
    };
    kill_zygote().await;
    let report = running.await.unwrap().unwrap();
    assert_eq!(failure(&report).0, "crashed");
    until("a worker outlives its zygote", || !is_running(pid)).await;
    assert_eq!(*stage.run("nothing", json!({})).await.value(), Value::Null);
    kill_zygote().await;
    assert_eq!(*stage.run("nothing", json!({})).await.value(), Value::Null);
    assert_eq!(stage.pool.status()["zygote"]["failures"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_the_reason_is_told() {
    let stage = Stage::with(|settings| settings.engine_dir = PathBuf::from("/nonexistent"));
    let (spec, _receiver) = stage.spec("nothing", json!({}));
    let error = stage.pool.run(spec, CancellationToken::new()).await.unwrap_err();
    assert!(
        matches!(&error, RunnerError::NoPython { reason } if reason.contains("weft_runtime")),
        "{error}"
    );

    let stage = Stage::with(|settings| settings.python.path = PathBuf::from("/nonexistent/python3"));
    let error = stage.pool.describe(&stage.bundle).await.unwrap_err();
    assert!(
        matches!(&error, RunnerError::NoPython { reason } if reason.contains("No such file")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_take_turns() {
    let stage = Stage::new();
    let all = (0..50).map(|number| stage.run("echo", json!({"name": format!("n{number}")})));
    for (number, played) in futures::future::join_all(all).await.into_iter().enumerate() {
        assert_eq!(played.value()["name"], format!("n{number}"));
    }
    let status = stage.pool.status();
    assert_eq!((&status["busy"], &status["waiting"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_stopped_pool_too() {
    let stage = Stage::with(|settings| {
        settings.slots = 1;
        settings.queue = 0;
    });
    let (running, _, _receiver) = started(&stage, "forever", json!({}), &CancellationToken::new()).await;
    let (spec, _second) = stage.spec("nothing", json!({}));
    let refused = stage.pool.run(spec, CancellationToken::new()).await;
    assert!(matches!(refused, Err(RunnerError::Busy { slots: 1 })));
    let zygote = stage.pool.status()["zygote"]["pid"].as_u64().unwrap();
    stage.pool.shutdown().await;
    assert!(!is_running(zygote));
    assert_eq!(failure(&running.await.unwrap().unwrap()).0, "crashed");
    let (spec, _third) = stage.spec("nothing", json!({}));
    assert!(matches!(
        stage.pool.run(spec, CancellationToken::new()).await,
        Err(RunnerError::Stopping)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_given_nothing_of_the_handler() {
    let stage = Stage::new();
    #[expect(clippy::disallowed_methods, reason = "shows that there is something to leak")]
    let ours = std::env::vars().collect::<std::collections::BTreeMap<_, _>>();
    assert!(ours.contains_key("CARGO_MANIFEST_DIR"));
    let played = stage.run("surroundings", json!({})).await;
    let value = played.value();
    assert_eq!(value["given"], "");
    for name in value["environ"].as_object().unwrap().keys() {
        assert!(["PATH", "HOME", "TMPDIR", "LANG"].contains(&name.as_str()), "{name}");
    }
    assert_eq!(value["environ"]["PATH"], "/usr/bin:/bin");
    assert_eq!(value["cwd"], value["home"]);
    assert_eq!(value["files"], json!([]));
    // Its socket, and the folder that it lists.
    assert_eq!(value["fds"], json!([0, 1, 2, 3, 4]));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_are_few_and_fresh() {
    let stage = Stage::with(|settings| settings.idle = 2);
    stage
        .pool
        .warm(&stage.bundle, "workflows.victim", &Rights::of_workspace(&[]));
    until("nothing is forked ahead", || stage.pool.status()["idle"] == 2).await;
    let pid = |played: &Played| played.said("stdout")[0].to_owned();
    let one = stage
        .run_with("forever", json!({}), |spec| spec.limits.wall_ms = 300)
        .await;
    let two = stage
        .run_with("forever", json!({}), |spec| spec.limits.wall_ms = 300)
        .await;
    assert_ne!(pid(&one), pid(&two));

    // Another bundle takes their place.
    let other = BundleRef {
        digest: format!("sha256:{}", "1".repeat(64)),
        dir: stage.bundle.dir.clone(),
        environment: None,
    };
    stage.pool.warm(&other, "workflows.victim", &Rights::of_workspace(&[]));
    until("the older ones stay", || {
        let status = stage.pool.status();
        status["idle"] == 2 && status["starting"] == 0
    })
    .await;
    let kills = stage.pool.status()["kills"].as_u64().unwrap();
    assert!(kills >= 4, "two at their limit, two evicted: {kills}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_described() {
    let stage = Stage::new();
    fs::remove_file(stage.bundle.dir.join("workflows/exits.py")).unwrap();
    let description = stage.pool.describe(&stage.bundle).await.unwrap();
    assert_eq!(description.files as usize, description.modules.len());
    let victim = description
        .modules
        .iter()
        .find(|module| module["module"] == "workflows.victim")
        .unwrap();
    assert!(
        victim["workflows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|workflow| workflow["name"] == "echo")
    );
    let finding = &description.findings[0];
    assert_eq!(
        (finding.code.as_str(), finding.pointer.as_str()),
        ("import_failed", "workspace/workflows/broken.py:3:1")
    );

    fs::write(stage.bundle.dir.join("workflows/exits.py"), EXITS).unwrap();
    let forges = r#"
import os
from weft import workflow
body = b'{"t":"described_all","files":3,"ms":1}'
os.write(3, len(body).to_bytes(4, "big") + body)
os._exit(0)
@workflow()
def forges(): pass
"#;
    fs::write(stage.bundle.dir.join("workflows/forges.py"), forges).unwrap();
    let whole = stage.pool.describe(&stage.bundle).await.unwrap();
    assert_eq!(whole.files as usize, whole.modules.len());
    assert_eq!(whole.modules.len(), description.modules.len() + 2, "no file is lost");
    let victims = |modules: &[Value]| {
        modules
            .iter()
            .find(|module| module["module"] == "workflows.victim")
            .cloned()
    };
    assert_eq!(victims(&whole.modules), victims(&description.modules));
    for (file, why) in [("exits", "code 5"), ("forges", "were described")] {
        let pointer = format!("workspace/workflows/{file}.py:1:1");
        let finding = whole
            .findings
            .iter()
            .find(|finding| finding.pointer == pointer)
            .unwrap();
        assert!(finding.message.contains(why), "{finding:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_not_blamed_for_the_death_of_a_worker_that_describes_it_once() {
    for victim in ["os.getpid()", "os.getppid()"] {
        let stage = Stage::new();
        fs::remove_file(stage.bundle.dir.join("workflows/exits.py")).unwrap();
        let mark = stage.dir.path().join("mark");
        let dies_once = format!(
            "import os, time\nfrom weft import workflow\nif not os.path.exists({mark:?}):\n    open({mark:?}, 'w').close()\n    \
             os.kill({victim}, 9)\n    time.sleep(10)\n@workflow\ndef lives(): ...\n"
        );
        fs::write(stage.bundle.dir.join("workflows/dies_once.py"), dies_once).unwrap();
        let description = stage.pool.describe(&stage.bundle).await.unwrap();
        assert!(mark.exists(), "nothing has died");
        let places: Vec<_> = description
            .findings
            .iter()
            .map(|finding| finding.pointer.as_str())
            .collect();
        assert_eq!(places, ["workspace/workflows/broken.py:3:1"], "{victim}");
        let module = description
            .modules
            .iter()
            .find(|module| module["module"] == "workflows.dies_once");
        assert_eq!(module.unwrap()["workflows"][0]["name"], "lives", "{victim}");
    }
}

/// Not a test: the handler that the next one kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as a process of its own"]
async fn a_handler_to_be_killed() {
    let stage = Stage::new();
    #[expect(clippy::disallowed_methods, reason = "from the test that starts this process")]
    let mark = std::env::var("WEFT_TEST_MARK").unwrap();
    let cancel = CancellationToken::new();
    let (running, pid, _receiver) = started(&stage, "daemon_then_forever", json!({"mark": mark}), &cancel).await;
    let zygote = &stage.pool.status()["zygote"]["pid"];
    let root = stage.dir.path().display();
    fs::write(
        std::env::temp_dir().join(format!("weft-{mark}")),
        format!("{zygote} {pid} {root}"),
    )
    .unwrap();
    let _ = running.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_handler_leaves_nothing() {
    let mark = mark(3);
    #[expect(clippy::disallowed_methods, reason = "a handler that can be killed")]
    let mut handler = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "runner_outcomes::a_handler_to_be_killed"])
        .env("WEFT_TEST_MARK", &mark)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let note = std::env::temp_dir().join(format!("weft-{mark}"));
    let text = || fs::read_to_string(&note).unwrap_or_default();
    until("the handler does not start", || text().split(' ').count() == 3).await;
    let text = text();
    let words: Vec<&str> = text.split(' ').collect();
    let (zygote, worker) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    assert!(is_running(zygote) && is_running(worker) && with_argument(&mark) == 1);
    handler.kill().unwrap();
    handler.wait().unwrap();
    until("something outlives the handler", || {
        !is_running(zygote) && !is_running(worker) && with_argument(&mark) == 0
    })
    .await;
    fs::remove_file(note).unwrap();
    fs::remove_dir_all(words[2]).unwrap();
}
