//! What a run costs by how many there are and how long they are: time and storage calls, with a bar for each so that a cost that
//! grows is seen. The whole engine in one process over the embedded store on disk, with real workers. Run by `scripts/bench`;
//! never a test.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::store::fault::Call;
use weft::testing::TestApp;
use weft::testing::app::Builder;
use weft::usecase::deliver;
use weft::usecase::seed::DEVELOPMENT_KEY;

type Error = Box<dyn std::error::Error + Send + Sync>;

const STEPS: [usize; 4] = [1, 10, 100, 1_000];
const QUEUED: [usize; 3] = [100, 1_000, 10_000];
/// Callers that ask for runs at once.
const CALLERS: usize = 8;
const CODE: &str = r#"
from weft import workflow

@workflow
def one(name: str = "Ada") -> str:
    return f"Hello, {name}!"
"#;

/// How long the longest bar is, in characters.
const BAR: f64 = 40.0;

/// One line of a plot: what for, the figure that the bar shows, and what else is to be said.
struct Row {
    of: usize,
    figure: f64,
    more: String,
}

fn plot(title: &str, unit: &str, rows: &[Row]) {
    println!("\n{title}");
    let most = rows.iter().map(|row| row.figure).fold(f64::MIN_POSITIVE, f64::max);
    for row in rows {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most the bar's length"
        )]
        let length = (row.figure / most * BAR).round() as usize;
        let (bar, figure) = ("█".repeat(length), format!("{:.2} {unit}", row.figure));
        println!("{:>7}  {bar:<40}  {figure:<14} {}", row.of, row.more);
    }
}

type Calls = BTreeMap<Call, u64>;

/// Calls since `before`, each kind divided by how many runs or steps made them.
fn per(app: &TestApp, before: &Calls, count: usize) -> String {
    let after = app.faults.calls();
    let made =
        |call: &Call| after.get(call).copied().unwrap_or_default() - before.get(call).copied().unwrap_or_default();
    let each = |calls: &[Call]| calls.iter().map(made).sum::<u64>() as f64 / count as f64;
    format!(
        "{:.2} commits, {:.2} reads, {:.2} of blobs, {:.2} of queues",
        each(&[Call::Commit]),
        each(&[Call::Get, Call::Query]),
        each(&[
            Call::PutBlob,
            Call::GetBlob,
            Call::ReadBlob,
            Call::AppendBlob,
            Call::DeleteBlob,
            Call::ListBlobs
        ]),
        each(&[Call::Send, Call::Receive, Call::DeleteMessage, Call::Extend]),
    )
}

fn chain(steps: usize) -> Value {
    let id = |n: usize| format!("step-{n:04}");
    let nodes: Vec<_> = (0..steps)
        .map(|n| json!({"id": id(n), "type": "python", "use": "one", "inputs": {"name": "Ada"}}))
        .collect();
    let edges: Vec<_> = (1..steps).map(|n| json!({"from": id(n - 1), "to": id(n)})).collect();
    json!({"name": format!("chain-{steps}"), "nodes": nodes, "edges": edges})
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
    let workflows = home.path().join("workflows");
    std::fs::create_dir_all(&workflows)?;
    std::fs::write(workflows.join("one.py"), CODE)?;
    for steps in STEPS {
        std::fs::write(workflows.join(format!("chain-{steps}.json")), chain(steps).to_string())?;
    }
    let mut rows = Vec::new();
    for steps in STEPS {
        rows.push(steps_per_run(home.path(), steps).await?);
    }
    plot("time of a step, by how many steps its run has in a row", "ms", &rows);
    let mut rows = Vec::new();
    for count in QUEUED {
        rows.push(queued(home.path(), count).await?);
    }
    plot(
        "queued runs of one step, ended a second, by how many were queued",
        "/s",
        &rows,
    );
    Ok(())
}

async fn app(workspace: &Path) -> TestApp {
    Builder::default().python().workspace(workspace).on_disk().start().await
}

async fn execute(app: &TestApp, workflow: &str, prefer: &str) -> Result<Value, Error> {
    let request = app.request("POST", &format!("/api/workflows/{workflow}/execute"));
    let request = request
        .key(DEVELOPMENT_KEY)
        .organization("contoso")
        .header("prefer", prefer);
    let answer = request.json(&json!({})).send().await;
    if answer.status >= 300 {
        return Err(format!("{workflow}: {answer:?}").into());
    }
    Ok(answer.json())
}

async fn steps_per_run(workspace: &Path, steps: usize) -> Result<Row, Error> {
    let app = app(workspace).await;
    let consumer = tokio::spawn(deliver::consume(app.cx.clone()));
    let workflow = format!("chain-{steps}");
    // The first ones start Python and fill caches.
    for _ in 0..3 {
        execute(&app, "chain-1", "wait=60").await?;
    }
    let rounds = (100 / steps).max(1);
    let before = app.faults.calls();
    let begun = Instant::now();
    for _ in 0..rounds {
        let mut run = execute(&app, &workflow, "wait=200").await?;
        while !["succeeded", "failed"].contains(&run["status"].as_str().unwrap_or_default()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            run = show(&app, &run).await?;
        }
        if run["status"] != "succeeded" {
            return Err(format!("{workflow} ended as {run}").into());
        }
    }
    let took = begun.elapsed();
    let count = rounds * steps;
    let row = Row {
        of: steps,
        figure: took.as_secs_f64() * 1e3 / count as f64,
        more: format!("{} a step", per(&app, &before, count)),
    };
    consumer.abort();
    app.cx.runner.shutdown().await;
    Ok(row)
}

async fn show(app: &TestApp, run: &Value) -> Result<Value, Error> {
    let id = run["runId"].as_str().ok_or("a run has an id")?;
    let request = app.request("GET", &format!("/api/runs/{id}")).key(DEVELOPMENT_KEY);
    Ok(request.organization("contoso").send().await.json())
}

async fn queued(workspace: &Path, count: usize) -> Result<Row, Error> {
    let app = Arc::new(app(workspace).await);
    execute(&app, "one", "wait=60").await?;
    let before = app.faults.calls();
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let app = app.clone();
            tokio::spawn(async move {
                for _ in 0..count / CALLERS + usize::from(caller < count % CALLERS) {
                    execute(&app, "one", "respond-async").await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let accepted = begun.elapsed();
    let begun = Instant::now();
    let consumer = tokio::spawn(deliver::consume(app.cx.clone()));
    while has_open(&app).await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed();
    let row = Row {
        of: count,
        figure: count as f64 / took.as_secs_f64(),
        more: format!(
            "accepted {:.0}/s; {} a run",
            count as f64 / accepted.as_secs_f64(),
            per(&app, &before, count)
        ),
    };
    consumer.abort();
    app.cx.runner.shutdown().await;
    Ok(row)
}

/// Whether a run has not ended; the lists lag by nothing once the queue is empty.
async fn has_open(app: &TestApp) -> Result<bool, Error> {
    for status in ["pending", "running", "waiting"] {
        let request = app.request("GET", &format!("/api/runs?limit=1&status={status}"));
        let page = request.key(DEVELOPMENT_KEY).organization("contoso").send().await;
        if page.status != 200 {
            return Err(format!("{page:?}").into());
        }
        if page.json()["items"].as_array().is_some_and(|items| !items.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}
