//! Measures how long events take to watchers, and what watching costs: 200 streams of one run, on the instance that drives it
//! and on another one over the same file. Run by `scripts/bench`; never a test.
//!
//! A status counts from the moment that it was decided on, so its commit is part of the time; a line from the moment that the
//! handler got it, so the wait for its being written is part of it.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft::clock::{Clock as _, SystemClock};
use weft::domain::Timestamp;
use weft::store::fault::Call;
use weft::testing::TestApp;
use weft::testing::app::Builder;
use weft::usecase::seed::DEVELOPMENT_KEY;

type Error = Box<dyn std::error::Error + Send + Sync>;

const WATCHERS: usize = 200;

/// Fails again and again, so that there are statuses, and talks meanwhile; then it is silent for a while.
const WORKFLOW: &str = r#"
import time
from weft import Context, Retry, workflow


@workflow(retry=Retry(attempts=20, delay_seconds=0.2, backoff="fixed"))
def busy(ctx: Context) -> None:
    for number in range(4):
        print(f"line {number}", flush=True)
        time.sleep(0.11)
    if ctx.run.attempt < 20:
        raise RuntimeError("again")


@workflow
def silent(ctx: Context) -> None:
    print("begun", flush=True)
    time.sleep(12)
"#;

#[derive(Debug, Default)]
struct Heard {
    statuses: Vec<f64>,
    lines: Vec<f64>,
}

fn main() -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<(), Error> {
    let home = tempfile::tempdir()?;
    let workspace = home.path().join("workspace");
    std::fs::create_dir_all(workspace.join("workflows"))?;
    std::fs::write(workspace.join("workflows/bench.py"), WORKFLOW)?;
    let one = instance(Builder::default().on_disk(), &workspace).await?;
    let two = instance(Builder::default().over(&one.app), &workspace).await?;
    for (what, target, watched) in [
        ("on the instance that drives it", Duration::from_millis(300), &one),
        ("on another instance", Duration::from_millis(1200), &two),
    ] {
        let (heard, reads) = watch(&one, watched, "busy").await?;
        let limit = target.as_millis();
        println!("{WATCHERS} watchers {what} (p95 ≤ {limit} ms)");
        print("  a status, decided to bytes", heard.statuses);
        print("  a line, received to bytes", heard.lines);
        println!(
            "{:<78} {reads:.1}/s",
            "  reads of storage by that instance, while something happens"
        );
        let (_, reads) = watch(&one, watched, "silent").await?;
        println!(
            "{:<78} {reads:.1}/s",
            "  the same while an attempt runs and says nothing"
        );
    }
    Ok(())
}

fn print(what: &str, mut samples: Vec<f64>) {
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let place = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
        samples.get(place).copied().unwrap_or_default()
    };
    let (p50, p95, worst) = (at(50), at(95), at(100));
    println!("{what:<78} p50 {p50:.0} ms, p95 {p95:.0} ms, worst {worst:.0} ms");
}

struct Instance {
    app: TestApp,
    base: String,
}

async fn instance(builder: Builder, workspace: &Path) -> Result<Instance, Error> {
    let app = builder.python().workspace(workspace).start().await;
    let listener = weft::boot::listen(0).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let patience = weft::http::listener::Patience::default();
    let served = weft::http::listener::serve(listener, app.router.clone(), patience, CancellationToken::new());
    tokio::spawn(served);
    Ok(Instance { app, base })
}

/// Starts a run on one instance and listens on another, until it has ended: what was heard when, and reads in a second.
async fn watch(driving: &Instance, watched: &Instance, workflow: &str) -> Result<(Heard, f64), Error> {
    let client = reqwest::Client::builder().build()?;
    let with_key = |request: reqwest::RequestBuilder| {
        request
            .header("x-functions-key", DEVELOPMENT_KEY)
            .header("x-organization-id", "contoso")
    };
    let execute = client.post(format!("{}/api/workflows/{workflow}/execute", driving.base));
    let begun = with_key(execute)
        .header("prefer", "wait=0")
        .json(&json!({}))
        .send()
        .await?;
    let begun: Value = begun.error_for_status()?.json().await?;
    let run = begun["runId"].as_str().ok_or("no run")?;
    let heard = Arc::new(Mutex::new(Heard::default()));
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let request = client.get(format!("{}/api/runs/{run}/events", watched.base));
        let answer = with_key(request).header("accept", "text/event-stream").send().await?;
        watchers.push(tokio::spawn(listen(answer.error_for_status()?, heard.clone())));
    }
    // What had happened before everybody was there is no measure of anything.
    *heard.lock().unwrap_or_else(PoisonError::into_inner) = Heard::default();
    let reads = || {
        let calls = watched.app.faults.calls();
        let reads = [Call::Get, Call::Query, Call::ReadBlob, Call::ListBlobs];
        reads.iter().filter_map(|call| calls.get(call)).sum::<u64>()
    };
    let (before, since) = (reads(), Instant::now());
    for watcher in watchers {
        watcher.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let rate = (reads() - before) as f64 / since.elapsed().as_secs_f64();
    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((heard, rate))
}

async fn listen(mut answer: reqwest::Response, heard: Arc<Mutex<Heard>>) -> Result<(), Error> {
    let mut rest = String::new();
    while let Some(bytes) = answer.chunk().await? {
        rest.push_str(&String::from_utf8_lossy(&bytes));
        let now = SystemClock.now();
        while let Some((block, more)) = rest.split_once("\n\n") {
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(event) = data.and_then(|data| serde_json::from_str::<Value>(data).ok())
                && let Some(at) = event["at"].as_str()
            {
                let lag = now.since(Timestamp::parse(at)?).as_secs_f64() * 1e3;
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                match event["type"].as_str() {
                    Some("log") => heard.lines.push(lag),
                    _ => heard.statuses.push(lag),
                }
            }
            rest = more.to_owned();
        }
    }
    Ok(())
}
