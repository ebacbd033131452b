//! Measures the figures that `README.md` and `docs/operations.md` speak of, and prints them beside `python3 -c pass` of the
//! same minute, so that a ratio holds on any machine. Run by `scripts/bench`; never a test.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(
    clippy::disallowed_methods,
    reason = "it starts programs, and no environment of a worker depends on it"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft::clock::{Clock, Entropy, SystemClock};
use weft::definition::Catalog;
use weft::domain::{AttemptId, Limits, Outcome, Rights};
use weft::runner::environments::{self, Environments, Hidden, Index};
use weft::runner::pool::{Pool, Settings};
use weft::runner::{AttemptSpec, BundleRef, Entry, NodeRunner, bundle, python};
use weft::scheduler::Plan;

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Report(Vec<(String, String)>);

impl Report {
    fn add(&mut self, what: &str, figure: String) {
        println!("{what:<78} {figure}");
        self.0.push((what.to_owned(), figure));
    }
}

fn quantiles(mut samples: Vec<f64>) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((samples.len() as f64 - 1.0) * part).round() as usize;
        samples.get(index).copied().unwrap_or_default()
    };
    (at(0.5), at(0.99))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// How long a plain `python3 -I -S -c pass` takes on the quiet machine with two processors that the figures in brackets are for,
/// in milliseconds. Times of a slower one are to be divided, and rates multiplied, by what it is slower.
const REFERENCE: f64 = 5.7;

fn main() -> Result<(), Error> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let weft = root.join("target/release/weft");
    if !weft.exists() {
        return Err("build first: cargo build --release".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&root, &weft))
}

async fn run(root: &Path, weft: &Path) -> Result<(), Error> {
    let mut report = Report(Vec::new());
    let home = tempfile::tempdir()?;
    let python = python::find(None)?;
    println!(
        "{} processors, load {}",
        std::thread::available_parallelism()?,
        load().trim()
    );

    let start = |arguments: &[&str]| -> Result<f64, Error> {
        let mut samples = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            Command::new(&python.path).args(arguments).env_clear().status()?;
            samples.push(millis(begun));
        }
        Ok(quantiles(samples).0)
    };
    let isolated = start(&["-I", "-S", "-c", "pass"])?;
    report.add("python3 -c pass, p50", format!("{:.1} ms", start(&["-c", "pass"])?));
    report.add("python3 -I -S -c pass, p50", format!("{isolated:.1} ms"));
    report.add(
        "the same where the figures in brackets are for, and how much slower this is",
        format!("{REFERENCE} ms, {:.2} times", isolated / REFERENCE),
    );

    graphs(&mut report)?;
    steps(&mut report, root, home.path(), python.clone(), isolated).await?;
    packages(&mut report, root, home.path(), python).await?;
    handler(&mut report, weft, home.path()).await?;
    api(&mut report, weft, home.path()).await?;
    command_line(&mut report, weft, home.path())?;
    println!(
        "{}",
        serde_json::to_string(&report.0.into_iter().collect::<std::collections::BTreeMap<_, _>>())?
    );
    Ok(())
}

/// A file of a thousand nodes, each with inputs that look at the one before: read, checked against the workspace, planned.
fn graphs(report: &mut Report) -> Result<(), Error> {
    let nodes: Vec<Value> = (0..1000)
        .map(|n: u32| {
            let before = n.saturating_sub(1);
            let value = match n {
                0 => json!({"$": "inputs.first"}),
                _ => json!({"$": format!("steps.step-{before:04}.output.value + 1")}),
            };
            json!({"id": format!("step-{n:04}"), "type": "python", "use": "add", "inputs": {"value": value, "note": "a literal"}})
        })
        .collect();
    let edges: Vec<Value> = (1..1000)
        .map(|n: u32| json!({"from": format!("step-{:04}", n - 1), "to": format!("step-{n:04}")}))
        .collect();
    let parameters = json!([{"name": "first", "type": "integer", "required": true}]);
    let text = json!({"name": "chain", "parameters": parameters, "nodes": nodes, "edges": edges}).to_string();
    let parameters =
        json!([{"name": "value", "type": "integer", "required": true}, {"name": "note", "type": "string"}]);
    let module = json!({"module": "workflows.m", "path": "workspace/workflows/m.py",
        "workflows": [{"name": "add", "function": "add", "line": 1, "parameters": parameters}]});
    let declared = Catalog::from_description("sha256:0", &[module], Vec::new(), 1, 0.0);
    let (mut checked, mut planned) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let files = vec![("workspace/workflows/chain.json".to_owned(), text.clone())];
        let catalog = declared.clone();
        let begun = Instant::now();
        let catalog = catalog.with_graphs(files, Vec::new());
        checked.push(millis(begun));
        let chain = catalog.workflows.get("chain").and_then(|chain| chain.graph.as_ref());
        let graph = chain.ok_or_else(|| format!("{:?}", catalog.findings))?;
        let begun = Instant::now();
        let plan = Plan::of_graph("sha256:0", graph, &catalog.functions_of(graph), &Limits::default())?;
        planned.push(millis(begun));
        assert_eq!(plan.steps.len(), 1000);
    }
    report.add(
        "a graph of 1000 nodes read and checked, p50",
        format!("{:.1} ms", quantiles(checked).0),
    );
    report.add("… planned, p50", format!("{:.1} ms", quantiles(planned).0));
    Ok(())
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default()
}

fn attempt(bundle: &BundleRef) -> (AttemptSpec, mpsc::Receiver<weft::runner::WorkerMessage>) {
    let (messages, received) = mpsc::channel(64);
    let id = AttemptId::generate(SystemClock.now(), Entropy::System.bytes());
    let spec = AttemptSpec {
        context: json!({
            "organization": {"id": "contoso", "name": "Contoso Ltd"},
            "caller": {"kind": "service", "id": "key:bench", "name": "bench"},
            "run": {"id": "run_bench", "workflow": "hello", "attempt": 1, "attempt_id": id, "step": "main", "idempotency_key": "x",
                    "started_at": SystemClock.now(), "deadline": SystemClock.now().plus(Duration::from_secs(60)), "test": false},
            "config": {"greeting": "Hello"},
        }),
        attempt: id,
        bundle: bundle.clone(),
        source: None,
        entry: Entry {
            kind: "workflow".into(),
            name: "hello".into(),
            module: "workflows.hello".into(),
            function: "hello".into(),
        },
        arguments: json!({"name": "Ada"}),
        limits: Limits::default(),
        rights: Rights::of_workspace(&[]),
        is_first: true,
        is_nice: false,
        messages,
    };
    (spec, received)
}

async fn step(pool: &Pool, bundle: &BundleRef) -> Result<f64, Error> {
    let (spec, mut received) = attempt(bundle);
    let begun = Instant::now();
    let (report, ()) = tokio::join!(pool.run(spec, CancellationToken::new()), async {
        while received.recv().await.is_some() {}
    });
    match report?.outcome {
        Outcome::Succeeded { .. } => Ok(millis(begun)),
        other => Err(format!("hello ended as {other:?}").into()),
    }
}

/// The step runner alone: fresh processes, no storage.
async fn steps(
    report: &mut Report,
    root: &Path,
    home: &Path,
    python: python::Python,
    isolated: f64,
) -> Result<(), Error> {
    let bundle = bundle::snapshot(&root.join("workspace"), &home.join("bundles"))?;
    let mut settings = Settings::new(python, root.join("engine"), home.join("scratch"));
    settings.limits = Limits::default();
    let pool = Arc::new(Pool::start(settings, Arc::new(SystemClock))?);
    let begun = Instant::now();
    step(&pool, &bundle).await?;
    report.add(
        "step, first of all: zygote, fork, import",
        format!("{:.1} ms", millis(begun)),
    );
    let mut samples = Vec::new();
    for _ in 0..300 {
        samples.push(step(&pool, &bundle).await?);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let (p50, p99) = quantiles(samples);
    report.add(
        "step, request to report, one at a time, 15 ms apart (≤ 1.5 / 6 ms)",
        format!(
            "p50 {p50:.2} ms, p99 {p99:.2} ms, {:.2} of python3 -I -S",
            p50 / isolated
        ),
    );
    let mut samples = Vec::new();
    for _ in 0..500 {
        samples.push(step(&pool, &bundle).await?);
    }
    let (p50, p99) = quantiles(samples);
    report.add("step, back to back", format!("p50 {p50:.2} ms, p99 {p99:.2} ms"));
    let begun = Instant::now();
    for _ in 0..40 {
        step(&pool, &bundle).await?;
    }
    report.add(
        "40 steps in a row, each a fresh process, without storage",
        format!("{:.0} ms", millis(begun)),
    );
    let begun = Instant::now();
    let (workers, each) = (8, 200);
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let (pool, bundle) = (pool.clone(), bundle.clone());
            tokio::spawn(async move {
                for _ in 0..each {
                    step(&pool, &bundle).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    report.add(
        "steps, eight at a time (≥ 500/s)",
        format!("{:.0}/s", rate(workers * each, begun)),
    );
    pool.shutdown().await;
    Ok(())
}

/// Says what it costs to have pandas: the name stands for the workflow of `attempt`.
const PANDAS: &str = r#"
from weft import workflow
import pandas

@workflow
def hello(name: str) -> dict[str, object]:
    frame = pandas.DataFrame({"a": range(1000), "b": range(1000)})
    total = int(frame.groupby("a").b.sum().sum())
    private = 0
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            if line.startswith("Private_"):
                private += int(line.split()[1])
    return {"total": total, "private_kib": private}
"#;

/// A heavy package: installed, imported by each worker, and imported once by the zygote.
async fn packages(report: &mut Report, root: &Path, home: &Path, python: python::Python) -> Result<(), Error> {
    let workspace = home.join("with-packages");
    std::fs::create_dir_all(workspace.join("workflows"))?;
    std::fs::write(workspace.join("workflows/hello.py"), PANDAS)?;
    std::fs::write(workspace.join("requirements.txt"), "pandas>=2,<4\n")?;
    let names = ["PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "HTTPS_PROXY", "NO_PROXY"];
    let settings = environments::Settings {
        root: home.join("envs"),
        python: python.path.display().to_string(),
        index: Index {
            variables: names
                .into_iter()
                .filter_map(|name| Some((name, Hidden(std::env::var(name).ok()?))))
                .collect(),
            search_path: std::env::var_os("PATH"),
        },
        keep: Duration::from_secs(86_400),
    };
    let environments = Environments::new(settings, Arc::new(SystemClock));
    let mut bundle = bundle::snapshot(&workspace, &home.join("bundles"))?;
    let wanted = environments.wanted(&bundle.dir)?.ok_or("no requirements")?;
    let begun = Instant::now();
    match environments.ready(&wanted, Duration::from_secs(300)).await {
        Ok(environment) => bundle.environment = Some(environment),
        Err(error) => {
            println!("figures of packages are left out, pandas can't be installed here: {error}");
            return Ok(());
        }
    }
    report.add(
        "pandas, installing it",
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
    );
    let begun = Instant::now();
    let again = environments.wanted(&bundle.dir)?.ok_or("no requirements")?;
    environments.ready(&again, Duration::ZERO).await?;
    report.add("pandas, finding it installed", format!("{:.1} ms", millis(begun)));
    for (how, preload, figures) in [
        ("imported by each worker", &["json", "datetime"][..], ""),
        ("preloaded", &["json", "datetime", "pandas"][..], " (≤ 15 MB)"),
    ] {
        let mut settings = Settings::new(python.clone(), root.join("engine"), home.join("scratch"));
        settings.preload = preload.iter().map(|name| (*name).to_owned()).collect();
        let pool = Pool::start(settings, Arc::new(SystemClock))?;
        let begun = Instant::now();
        let mut samples = Vec::new();
        let mut imports = Vec::new();
        let mut private = 0.0_f64;
        for round in 0..30 {
            let (mut spec, mut received) = attempt(&bundle);
            spec.limits.memory_bytes = 1 << 30;
            let asked = Instant::now();
            let (done, ()) = tokio::join!(pool.run(spec, CancellationToken::new()), async {
                while received.recv().await.is_some() {}
            });
            let done = done?;
            let Outcome::Succeeded { value } = done.outcome else {
                return Err(format!("pandas {how}: {:?}", done.outcome).into());
            };
            if round == 0 {
                report.add(
                    &format!("pandas {how}, first step of all"),
                    format!("{:.0} ms", millis(begun)),
                );
            } else {
                samples.push(millis(asked));
                imports.push(done.timings.import_ms);
                private = private.max(value["private_kib"].as_f64().unwrap_or_default() * 1024.0 / 1e6);
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        let (p50, p99) = quantiles(samples);
        report.add(
            &format!("pandas {how}, step"),
            format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
        );
        report.add(
            &format!("pandas {how}, importing the module"),
            format!("p50 {:.2} ms", quantiles(imports).0),
        );
        report.add(
            &format!("pandas {how}, private memory of a worker, most{figures}"),
            format!("{private:.1} MB"),
        );
        pool.shutdown().await;
    }
    Ok(())
}

fn clean(weft: &Path) -> Command {
    let mut command = Command::new(weft);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/tmp");
    command
}

struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The handler under the host's contract: from start to the first answer, and how large it is when nothing happens.
async fn handler(report: &mut Report, weft: &Path, home: &Path) -> Result<(), Error> {
    let client = reqwest::Client::builder().build()?;
    let mut samples = Vec::new();
    let mut resident = 0;
    for round in 0..10 {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let begun = Instant::now();
        let child = clean(weft)
            .arg("serve")
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
            .env("WEFT_STORE", "sqlite")
            .env("WEFT_DATA", home.join("serve"))
            .env("FUNCTIONS_APP_ROOT_PATH", env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let child = Stopped(child);
        while client.get(format!("http://127.0.0.1:{port}/")).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        samples.push(millis(begun));
        if round == 9 {
            client.get(format!("http://127.0.0.1:{port}/api/ready")).send().await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id()))?;
            let line = status.lines().find(|line| line.starts_with("VmRSS"));
            resident = line
                .and_then(|line| line.split_whitespace().nth(1))
                .and_then(|n| n.parse().ok())
                .unwrap_or(0u64);
        }
    }
    let (p50, p99) = quantiles(samples);
    report.add(
        "handler, start to first answer (≤ 50 ms)",
        format!("p50 {p50:.1} ms, worst {p99:.1} ms"),
    );
    report.add(
        "handler, resident memory when idle (≤ 30 MiB)",
        format!("{:.1} MiB", f64::from(u32::try_from(resident)?) / 1024.0),
    );
    Ok(())
}

/// The whole way over HTTP, durable, embedded store.
async fn api(report: &mut Report, weft: &Path, home: &Path) -> Result<(), Error> {
    let mut child = tokio::process::Command::from(clean(weft));
    child
        .args(["dev", "--port", "0", "--data"])
        .arg(home.join("dev"))
        .env("WEFT_LOG", "warn")
        .kill_on_drop(true);
    child
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = child.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let base = loop {
        let line = lines.next_line().await?.ok_or("weft dev ended")?;
        if let Some(base) = line.strip_prefix("ready ") {
            break base.to_owned();
        }
    };
    let client = reqwest::Client::builder().build()?;
    let execute = |prefer: &'static str| {
        client
            .post(format!("{base}/api/workflows/hello/execute"))
            .header("x-functions-key", "weft-dev-key")
            .header("x-organization-id", "contoso")
            .header("prefer", prefer)
            .json(&json!({"name": "Ada"}))
    };
    for _ in 0..50 {
        execute("wait=60").send().await?.error_for_status()?;
    }
    for (what, pause) in [("one at a time, 15 ms apart (≤ 4 / 15 ms)", 15), ("back to back", 0)] {
        let mut samples = Vec::new();
        for _ in 0..300 {
            let begun = Instant::now();
            let answer: Value = execute("wait=60").send().await?.error_for_status()?.json().await?;
            samples.push(millis(begun));
            if answer["status"] != "succeeded" {
                return Err(format!("hello ended as {answer}").into());
            }
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        let (p50, p99) = quantiles(samples);
        report.add(
            &format!("POST execute of one step, durable, {what}"),
            format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
        );
    }
    let begun = Instant::now();
    let (callers, each) = (8, 150);
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let request = execute("wait=60");
            tokio::spawn(async move {
                for _ in 0..each {
                    let request = request.try_clone().ok_or("a request with a plain body can be cloned")?;
                    request.send().await?.error_for_status()?.bytes().await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    report.add(
        "POST execute, eight callers (≥ 350/s)",
        format!("{:.0}/s", rate(callers * each, begun)),
    );

    let begun = Instant::now();
    let count = 1000;
    let mut last = String::new();
    for _ in 0..count {
        let answer: Value = execute("respond-async")
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        last = answer["runId"].as_str().unwrap_or_default().to_owned();
    }
    report.add(
        "1000 runs accepted into the queue",
        format!("{:.0}/s", rate(count, begun)),
    );
    let open = |status: &str| {
        client
            .get(format!("{base}/api/runs?limit=1&status={status}"))
            .header("x-functions-key", "weft-dev-key")
            .header("x-organization-id", "contoso")
    };
    let mut left = true;
    while left {
        left = false;
        for status in ["pending", "running", "waiting"] {
            let page: Value = open(status).send().await?.error_for_status()?.json().await?;
            left |= page["items"].as_array().is_some_and(|items| !items.is_empty());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report.add(
        "1000 queued one-step runs, accepted and ended (≥ 400/s)",
        format!("{:.0}/s ({last})", rate(count, begun)),
    );
    Ok(())
}

fn command_line(report: &mut Report, weft: &Path, home: &Path) -> Result<(), Error> {
    let mut run = |what: &str, arguments: &[&str], workspace: &Path| -> Result<(), Error> {
        let begun = Instant::now();
        let output = clean(weft)
            .args(arguments)
            .env("WEFT_DATA", home.join("cli"))
            .env("WEFT_STORE", "sqlite")
            .env("WEFT_ENVIRONMENT", "development")
            .env("WEFT_WORKSPACE", workspace)
            .env("FUNCTIONS_APP_ROOT_PATH", env!("CARGO_MANIFEST_DIR"))
            .output()?;
        if !output.status.success() {
            return Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let took = millis(begun);
        let inner = serde_json::from_slice::<Value>(&output.stdout)
            .ok()
            .and_then(|value| value["ms"].as_f64());
        let inner = inner
            .map(|ms| format!(", {ms:.0} ms of it the check itself"))
            .unwrap_or_default();
        report.add(what, format!("{took:.0} ms{inner}"));
        Ok(())
    };
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("workspace");
    run("weft seed on nothing (< 5 s)", &["seed"], &sample)?;
    run("weft seed again", &["seed"], &sample)?;
    run(
        "weft check of the sample workspace (< 50 ms)",
        &["check", "--json"],
        &sample,
    )?;
    let large = home.join("large/workflows");
    std::fs::create_dir_all(&large)?;
    for number in 0..1000 {
        let code = format!(
            "import json\nfrom weft import workflow\n\n\n@workflow(name=\"w{number}\")\ndef run(n: int = {number}) -> str:\n    return json.dumps(n)\n"
        );
        std::fs::write(large.join(format!("w{number}.py")), code)?;
    }
    run(
        "weft check of 1000 files (< 1 s)",
        &["check", "--json"],
        &home.join("large"),
    )?;
    Ok(())
}
