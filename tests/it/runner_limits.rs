//! Every limit of an attempt, fired by real processes; what stays below them; and that nothing is left of a tree soon after.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft::domain::{Limits, Outcome};
use weft::runner::jail::setup::Uids;
use weft::runner::{NodeRunner as _, WorkerMessage};

use super::runner_outcomes::{Stage, until};

const WORKFLOWS: &str = r#"
import ctypes, mmap, os, signal, socket, subprocess, sys, threading, time
from weft import Context, workflow

def wait_for_children(pids):
    return [os.waitpid(pid, 0)[1] for pid in pids]

@workflow()
def touches(mib: int, seconds: float = 30.0):
    held = []
    for _ in range(mib):
        held.append(b"x" * (1 << 20))
    time.sleep(seconds)
    return len(held)

@workflow()
def reserves(gib_parts: int):
    held = [mmap.mmap(-1, 256 << 20) for _ in range(gib_parts * 4)]
    time.sleep(0.3)
    return len(held)

@workflow()
def spreads(mib: int, children: int, seconds: float = 30.0):
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            held = b"x" * (mib << 20)
            time.sleep(seconds)
            os._exit(len(held) & 1)
        pids.append(pid)
    return wait_for_children(pids)

@workflow()
def shares(mib: int, children: int):
    held = b"x" * (mib << 20)
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.5)
            os._exit(held[-1] & 1)
        pids.append(pid)
    return wait_for_children(pids)

@workflow()
def hides_in_shared_memory(mib: int):
    held = mmap.mmap(-1, mib << 20)
    for at in range(0, mib << 20, 4096):
        held[at] = 1
    time.sleep(30)

@workflow()
def starts(count: int):
    for _ in range(count):
        subprocess.Popen(["/bin/sleep", "30"], start_new_session=True)
    time.sleep(30)

@workflow()
def threads(count: int):
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    time.sleep(30)

@workflow()
def burns_in_children(children: int, waited: bool):
    if waited:
        while True:
            pid = os.fork()
            if pid == 0:
                end = time.process_time() + 0.2
                while time.process_time() < end:
                    pass
                os._exit(0)
            os.waitpid(pid, 0)
    for _ in range(children):
        if os.fork() == 0:
            while True:
                pass
    time.sleep(30)

@workflow()
def ignores_its_cpu_limit():
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass

@workflow()
def opens():
    held = []
    while True:
        held.append(open("/dev/null"))

@workflow()
def writes_one(mib: int):
    with open("large", "wb") as file:
        for _ in range(mib):
            file.write(b"x" * (1 << 20))

@workflow()
def writes_many(mib: int):
    for number in range(mib):
        with open(f"file-{number}", "wb") as file:
            file.write(b"x" * (1 << 20))
    time.sleep(30)

@workflow()
def writes_nameless(mib: int):
    held = []
    for number in range(mib):
        file = open(f"file-{number}", "wb", buffering=0)
        file.write(b"x" * (1 << 20))
        os.unlink(file.name)
        held.append(file)
    time.sleep(30)

@workflow()
def makes(count: int):
    for number in range(count):
        os.makedirs(f"deep/{number % 10}/{number}")
    time.sleep(30)

def deaf():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

@workflow()
def storms():
    # Every process goes on making others, in sessions of their own; each gives up by itself after a while.
    deaf()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        if os.fork() == 0:
            os.setsid()
        time.sleep(0.01)
    os._exit(0)

@workflow()
def hops(count: int):
    # As many processes as `count` at any time, none of which lives long: each leaves a successor in a session of its own.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(count):
        if os.fork() == 0:
            deaf()
            end = time.monotonic() + 20
            while time.monotonic() < end:
                time.sleep(0.05)
                if os.fork() != 0:
                    os._exit(0)
                os.setsid()
            os._exit(0)
    print("started", os.getpid())
    time.sleep(20)

@workflow()
def leaves(count: int):
    # Daemons that their parents have left, deaf to what asks them to end.
    for _ in range(count):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                deaf()
                time.sleep(60)
            os._exit(0)
        os.wait()
    print("started", os.getpid())
    time.sleep(60)
"#;

/// Users that no other stage has: the kernel counts the processes of a user, so a test that makes many would take them from
/// one beside it.
fn stage() -> Stage {
    const COUNT: u32 = 16;
    static STAGES: AtomicU32 = AtomicU32::new(0);
    let before = STAGES.fetch_add(1, Ordering::Relaxed);
    Stage::of(WORKFLOWS, |settings| {
        settings.ahead = 0;
        settings.isolation.off.clear();
        settings.isolation.uids = Some(Uids {
            first: 60_800 + before * COUNT,
            count: COUNT,
        });
    })
}

/// Everything below the zygote. Where that has a process table of its own, the process that was started only waits for it.
fn below_zygote(stage: &Stage) -> usize {
    let Some(zygote) = stage.pool.status()["zygote"]["pid"].as_u64() else {
        return 0;
    };
    let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        let parent = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1)?.parse::<u64>().ok());
        if let (Some(pid), Some(parent)) = (pid, parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let is_zygote =
        |pid: &u64| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "weft-zygote\n");
    let inner = children
        .get(&zygote)
        .and_then(|below| below.iter().copied().find(is_zygote));
    let (mut found, mut waiting) = (0, vec![inner.unwrap_or(zygote)]);
    while let Some(pid) = waiting.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found += below.len();
        waiting.extend(below);
    }
    found
}

/// A second, on a machine that has nothing else to do; the tests share theirs.
const SOON: Duration = Duration::from_secs(5);

/// Whether this process may read the memory map and the descriptors of one that is not dumpable.
fn may_trace() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

/// Fires a limit: the error's kind, what its message must name, and that all is gone soon after the outcome.
async fn fires(
    stage: &Stage,
    function: &str,
    arguments: Value,
    change: impl FnOnce(&mut Limits),
    kinds: &[&str],
    words: &[&str],
) {
    let played = stage
        .run_with(function, arguments, |spec| {
            spec.limits.wall_ms = 20_000;
            change(&mut spec.limits);
        })
        .await;
    let decided = Instant::now();
    let error = played.error();
    assert!(kinds.contains(&error.kind.as_str()), "{function}: {error:?}");
    for word in words {
        assert!(
            error.message.contains(word),
            "{function}: `{word}` in {}",
            error.message
        );
    }
    until("processes are left", || below_zygote(stage) == 0).await;
    assert!(
        decided.elapsed() < SOON,
        "{function}: the tree was gone after {:?}",
        decided.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_that_of_the_whole_tree() {
    let stage = stage();
    let limit = |limits: &mut Limits| limits.memory_bytes = 192 << 20;
    let words = ["192 MiB", "memory_mib", "WEFT_STEP_MEMORY_MIB"];
    for (function, arguments) in [
        ("touches", json!({"mib": 400})),
        ("spreads", json!({"mib": 80, "children": 4})),
        ("hides_in_shared_memory", json!({"mib": 400})),
    ] {
        fires(&stage, function, arguments, limit, &["memory_limit"], &words).await;
    }
    // Address space that is not used is free, and what processes share counts once.
    for (function, arguments) in [
        ("reserves", json!({"gib_parts": 1})),
        ("touches", json!({"mib": 100, "seconds": 0.3})),
        ("shares", json!({"mib": 100, "children": 6})),
    ] {
        if function == "shares" && !may_trace() {
            continue;
        }
        let played = stage
            .run_with(function, arguments, |spec| limit(&mut spec.limits))
            .await;
        assert!(
            matches!(played.report.outcome, Outcome::Succeeded { .. }),
            "{function}: {:?}",
            played.report.outcome
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_and_threads_are_counted() {
    let stage = stage();
    fires(
        &stage,
        "starts",
        json!({"count": 40}),
        |limits| limits.processes = 20,
        &["process_limit", "BlockingIOError"],
        &["20 processes", "`processes`", "WEFT_STEP_PROCESSES"],
    )
    .await;
    fires(
        &stage,
        "threads",
        json!({"count": 100}),
        |limits| limits.threads = 50,
        &["thread_limit", "RuntimeError"],
        &["50 threads", "`threads`", "WEFT_STEP_THREADS"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_that_of_the_whole_tree() {
    let stage = stage();
    for (function, arguments) in [
        ("burns_in_children", json!({"children": 4, "waited": false})),
        ("burns_in_children", json!({"children": 1, "waited": true})),
        ("ignores_its_cpu_limit", json!({})),
    ] {
        fires(
            &stage,
            function,
            arguments,
            |limits| limits.cpu_seconds = 1,
            &["cpu_limit"],
            &["1 s of processor time", "`cpu_seconds`", "WEFT_STEP_CPU_SECONDS"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_descriptors_are_limited() {
    let stage = stage();
    fires(
        &stage,
        "opens",
        json!({}),
        |limits| limits.open_files = 100,
        &["OSError"],
        &["100 open files", "`open_files`", "WEFT_STEP_OPEN_FILES"],
    )
    .await;
    for (function, arguments) in [
        ("writes_one", json!({"mib": 20})),
        ("writes_many", json!({"mib": 20})),
        ("writes_nameless", json!({"mib": 20})),
    ] {
        if function == "writes_nameless" && !may_trace() {
            continue;
        }
        fires(
            &stage,
            function,
            arguments,
            |limits| limits.disk_bytes = 8 << 20,
            &["disk_limit", "OSError"],
            &["8 MiB on disk", "`disk_mib`", "WEFT_STEP_DISK_BYTES"],
        )
        .await;
    }
    fires(
        &stage,
        "makes",
        json!({"count": 2000}),
        |limits| limits.disk_files = 500,
        &["disk_limit", "OSError"],
        &["500 files", "`disk_files`", "WEFT_STEP_DISK_FILES"],
    )
    .await;
}

/// Starts it, lets it get going, ends it, and says how long the tree outlived that.
async fn outlived(stage: &Stage, function: &str, arguments: Value, grown: usize) -> (Duration, usize) {
    let (mut spec, mut receiver) = stage.spec(function, arguments);
    spec.limits.processes = 600;
    spec.limits.threads = 4_000;
    spec.limits.memory_bytes = 8 << 30;
    let (pool, cancel) = (stage.pool.clone(), CancellationToken::new());
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { pool.run(spec, cancel).await }
    });
    let Some(WorkerMessage::Line(_)) = receiver.recv().await else {
        panic!("no line")
    };
    until("it does not grow", || below_zygote(stage) >= grown).await;
    let size = below_zygote(stage);
    let begun = Instant::now();
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap().outcome, Outcome::Cancelled);
    until("processes are left", || below_zygote(stage) == 0).await;
    (begun.elapsed(), size)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_gone_within_a_second() {
    let stage = stage();
    for (function, arguments, grown) in [
        ("leaves", json!({"count": 100}), 101),
        ("hops", json!({"count": 200}), 60),
    ] {
        let (time, size) = outlived(&stage, function, arguments, grown).await;
        assert!(time < SOON, "`{function}`: {size} processes were gone after {time:?}");
    }
    // At its limit a storm ends without anybody's asking.
    fires(
        &stage,
        "storms",
        json!({}),
        |_| {},
        &["process_limit", "thread_limit", "BlockingIOError"],
        &["32 processes", "WEFT_STEP_PROCESSES"],
    )
    .await;
}

/// `cargo test --release --test it what_metering_and_killing_cost -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a measurement"]
#[expect(clippy::print_stdout, reason = "it is what it is for")]
async fn what_metering_and_killing_cost() {
    let stage = Stage::of(WORKFLOWS, |settings| {
        settings.ahead = 0;
        settings.slots = 16;
    });
    for (function, arguments, grown) in [
        ("leaves", json!({"count": 100}), 101),
        ("hops", json!({"count": 200}), 60),
    ] {
        let (time, size) = outlived(&stage, function, arguments, grown).await;
        println!("`{function}`: {size} processes were gone {time:?} after the attempt was cancelled");
    }
    for (what, function, arguments) in [
        ("one process", "touches", json!({"mib": 1, "seconds": 3.0})),
        (
            "eight processes",
            "spreads",
            json!({"mib": 1, "children": 7, "seconds": 3.0}),
        ),
        ("60 threads", "threads", json!({"count": 60})),
    ] {
        let before = stage.pool.status()["meter"].clone();
        let attempts = (0..16).map(|_| {
            stage.run_with(function, arguments.clone(), |spec| {
                spec.limits.wall_ms = 4_000;
                spec.limits.memory_bytes = 4 << 30;
            })
        });
        futures::future::join_all(attempts).await;
        let after = stage.pool.status()["meter"].clone();
        let number = |value: &Value, name: &str| value[name].as_f64().unwrap();
        let looks = number(&after, "looks") - number(&before, "looks");
        let micros = number(&after, "looks") * number(&after, "microsPerLook")
            - number(&before, "looks") * number(&before, "microsPerLook");
        println!("{what}: {looks} looks at 16 workers, {:.1} µs for each", micros / looks);
    }
}
