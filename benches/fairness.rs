//! How much a flood of one organization slows another, and how fast a flood is worked off. Run by `scripts/bench`; never a test.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(
    clippy::disallowed_methods,
    reason = "it starts programs, and no environment of a worker depends on it"
)]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs of the flood.
const FLOOD: usize = 2_000;
/// How long the quiet organization is measured at least, without a flood.
const QUIET: Duration = Duration::from_secs(4);
/// How long it is measured beside one at most.
const AT_MOST: Duration = Duration::from_secs(20);
/// How long the second caller waits between an answer and the next call.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Api {
    client: reqwest::Client,
    base: String,
}

impl Api {
    fn execute(&self, organization: &str, prefer: &str) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/api/workflows/hello/execute", self.base))
            .header("x-functions-key", "weft-dev-key")
            .header("x-organization-id", organization)
            .header("prefer", prefer)
            .json(&json!({"name": "Ada"}))
    }

    async fn get(&self, organization: &str, path: &str) -> Result<Value, Error> {
        let request = self.client.get(format!("{}{path}", self.base));
        let request = request
            .header("x-functions-key", "weft-dev-key")
            .header("x-organization-id", organization);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Whether an organization has runs that have not ended.
    async fn has_open(&self, organization: &str) -> Result<bool, Error> {
        for status in ["pending", "running", "waiting"] {
            let page = self
                .get(organization, &format!("/api/runs?limit=1&status={status}"))
                .await?;
            if page["items"].as_array().is_some_and(|items| !items.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn flood(&self, organization: &'static str, count: usize) -> Result<String, Error> {
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let api = self.clone();
            tasks.push(tokio::spawn(async move {
                let mut last = String::new();
                for _ in 0..count / 8 {
                    let answer = api.execute(organization, "respond-async").send().await?;
                    let answer: Value = answer.error_for_status()?.json().await?;
                    answer["runId"].as_str().unwrap_or_default().clone_into(&mut last);
                }
                Ok::<_, Error>(last)
            }));
        }
        let mut last = String::new();
        for task in tasks {
            last = task.await??;
        }
        Ok(last)
    }
}

/// Latencies in milliseconds, and runs a second.
struct Measured {
    p50: f64,
    p99: f64,
    rate: f64,
    count: usize,
    /// Where the time went, as the runs themselves say, on average.
    parts: String,
}

/// One run after the other, each awaited, a pause after each, as long as `goes_on` says.
async fn one_by_one(
    api: &Api,
    organization: &str,
    pause: Duration,
    mut goes_on: impl FnMut(Duration) -> bool,
) -> Result<Measured, Error> {
    const PARTS: [&str; 5] = ["queueMs", "bootMs", "importMs", "userMs", "storeMs"];
    let mut samples = Vec::new();
    let mut sums = [0.0; PARTS.len()];
    let begun = Instant::now();
    while goes_on(begun.elapsed()) {
        let asked = Instant::now();
        let answer = api.execute(organization, "wait=60").send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        if answer["status"] != "succeeded" {
            return Err(format!("hello ended as {answer}").into());
        }
        samples.push(asked.elapsed().as_secs_f64() * 1e3);
        for (sum, part) in sums.iter_mut().zip(PARTS) {
            *sum += answer["timings"][part].as_f64().unwrap_or_default();
        }
        tokio::time::sleep(pause).await;
    }
    let took = begun.elapsed().as_secs_f64();
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        samples
            .get((samples.len() * percent / 100).min(samples.len() - 1))
            .copied()
    };
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let count = samples.len() as f64;
    let rate = count / took;
    let parts = PARTS.iter().zip(sums);
    let parts: Vec<_> = parts.map(|(part, sum)| format!("{part} {:.1}", sum / count)).collect();
    Ok(Measured {
        parts: parts.join(", "),
        p50: at(50).unwrap_or_default(),
        p99: at(99).unwrap_or_default(),
        rate,
        count: samples.len(),
    })
}

fn main() -> Result<(), Error> {
    let weft = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/release/weft");
    if !weft.exists() {
        return Err("build first: cargo build --release".into());
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(run(&weft))
}

async fn run(weft: &std::path::Path) -> Result<(), Error> {
    let home = tempfile::tempdir()?;
    let mut child = tokio::process::Command::new(weft);
    child
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/tmp")
        .env("WEFT_LOG", "warn")
        .args(["dev", "--port", "0", "--data"])
        .arg(home.path())
        .kill_on_drop(true)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = child.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let base = loop {
        let line = lines.next_line().await?.ok_or("weft dev ended")?;
        if let Some(base) = line.strip_prefix("ready ") {
            break base.to_owned();
        }
    };
    let api = Api {
        client: reqwest::Client::builder().build()?,
        base,
    };
    one_by_one(&api, "fabrikam", Duration::ZERO, |elapsed| {
        elapsed < Duration::from_secs(1)
    })
    .await?;
    for pause in [Duration::ZERO, PAUSE] {
        compare(&api, pause).await?;
    }
    Ok(())
}

/// A loop of programs that start and end at the lowest priority, until it is dropped: what a processor's neighbours take from a
/// caller on this machine, whatever an engine does.
fn neighbour() -> Result<tokio::process::Child, Error> {
    let mut child = tokio::process::Command::new("nice");
    child
        .args(["-n", "19", "sh", "-c", "while :; do python3 -I -S -c pass; done"])
        .kill_on_drop(true);
    Ok(child.spawn()?)
}

/// A caller alone, beside another program, and beside a flood.
async fn compare(api: &Api, pause: Duration) -> Result<(), Error> {
    let alone = one_by_one(api, "fabrikam", pause, |elapsed| elapsed < QUIET).await?;
    println!(
        "one organization, a run {} ms after the other, alone: p50 {:.1} ms, p99 {:.1} ms, {:.0} runs/s ({})",
        pause.as_millis(),
        alone.p50,
        alone.p99,
        alone.rate,
        alone.parts
    );
    let mut other = neighbour()?;
    let disturbed = one_by_one(api, "fabrikam", pause, |elapsed| elapsed < QUIET).await?;
    other.kill().await?;
    println!(
        "the same beside a loop of `python3 -I -S -c pass` at the lowest priority: p50 {:.1} ms, latency {:.2} times, \
         throughput {:.2} times of alone",
        disturbed.p50,
        disturbed.p50 / alone.p50,
        disturbed.rate / alone.rate
    );

    let begun = Instant::now();
    // Measured while the flood is worked off, and not while it is accepted: accepting is the callers' work as well.
    api.flood("contoso", FLOOD).await?;
    let accepted = begun.elapsed();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watch = tokio::spawn({
        let (api, over) = (api.clone(), over.clone());
        async move {
            while api.has_open("contoso").await? {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, Error>(())
        }
    });
    let beside = one_by_one(api, "fabrikam", pause, |elapsed| {
        elapsed < AT_MOST && !over.load(std::sync::atomic::Ordering::Relaxed)
    })
    .await?;
    let left = !over.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "the same beside {FLOOD} queued runs of another: p50 {:.1} ms, p99 {:.1} ms, {:.0} runs/s ({} runs; {})",
        beside.p50, beside.p99, beside.rate, beside.count, beside.parts
    );
    println!(
        "latency {:.2} times, throughput {:.2} times of alone (≤ 1.1, ≥ 0.9)",
        beside.p50 / alone.p50,
        beside.rate / alone.rate
    );
    watch.await??;
    let took = begun.elapsed();
    println!(
        "the flood itself: accepted in {:.1} s, ended after {:.1} s, {}",
        accepted.as_secs_f64(),
        took.as_secs_f64(),
        if left {
            format!("the last part of it alone, from second {} on", AT_MOST.as_secs())
        } else {
            "all of it beside the other".to_owned()
        }
    );
    Ok(())
}
