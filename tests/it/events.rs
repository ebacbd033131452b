//! Events of runs: everything is told once and in order, however often a watcher connects again and wherever; formats,
//! errors, and who may listen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft::authz::Origin;
use weft::clock::ManualClock;
use weft::domain::{
    Ask, DeclaredAs, Limits, LogLine, OrgId, Outcome, Payload, RetryPolicy, Rights, RunId, Status, StepError, Timestamp,
};
use weft::runner::scripted::Scene;
use weft::runner::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, Isolation, NodeRunner, RunnerError, RunnerTimings,
    WorkerMessage,
};
use weft::scheduler::{self, Action, Code, Output, Plan, Starts, StepPlan, Work};
use weft::store::fault::{Call, Fault, Plan as Faults, Rule};
use weft::store::key::{self, PlatformTable};
use weft::store::port::Query;
use weft::store::repo::runs::{NewRun, Requester};
use weft::store::repo::signals::{About, Signals};
use weft::tenancy::{RunRef, Scope, operator, operator_in};
use weft::testing::app::{Builder, description};
use weft::testing::{TestApp, WORKFLOW};
use weft::usecase::run_event::{Event, Happening};
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::watch::{self, Told, Wanted};
use weft::usecase::{control_run, drive_run, tick};

/// A runner whose attempts talk for a while; the first attempt of a step whose name begins with `flaky` fails.
#[derive(Debug)]
struct Talkers {
    lines: usize,
    pause: Duration,
}

#[async_trait]
impl NodeRunner for Talkers {
    async fn run(&self, spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError> {
        let number = spec.context["run"]["attempt"].as_u64().unwrap();
        let mut outcome = Outcome::Succeeded { value: json!(null) };
        if spec.entry.function.starts_with("flaky") && number == 1 {
            let error = StepError::new("Flaky", "once more");
            outcome = Outcome::Failed { error };
        }
        for index in 0..self.lines {
            let at = weft::clock::Clock::now(&weft::clock::SystemClock);
            let message = format!("{}/{number}/{index} {}", spec.entry.function, "x".repeat(index % 300));
            let said = if index % 20 == 7 {
                WorkerMessage::Checkpoint {
                    name: message,
                    data: json!({"index": index}),
                    at,
                }
            } else {
                let (stream, level) = ("stdout".into(), "info".into());
                WorkerMessage::Line(LogLine {
                    at,
                    stream,
                    level,
                    message,
                    fields: None,
                })
            };
            let is_heard = spec.messages.send(said).await.is_ok();
            tokio::select! {
                biased;
                () = cancel.cancelled() => { outcome = Outcome::Cancelled; break; }
                () = tokio::time::sleep(self.pause * u32::try_from(index % 3).unwrap()), if is_heard => {}
            }
        }
        Ok(AttemptReport {
            outcome,
            variables: json!({}),
            timings: RunnerTimings::default(),
            output_bytes: 0,
            output_truncated: false,
            max_rss_kib: None,
            posture: Arc::new(vec!["scripted"]),
            network: None,
        })
    }

    async fn describe(&self, _: &BundleRef) -> Result<BundleDescription, RunnerError> {
        Ok(description(Vec::new()))
    }

    fn warm(&self, _: &BundleRef, _: &str, _: &Rights) {}

    fn slots(&self) -> usize {
        8
    }

    async fn shutdown(&self) {}

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        weft::runner::scripted::Scripted::new().posture().await
    }

    fn isolation(&self) -> Option<Isolation> {
        weft::runner::scripted::Scripted::new().isolation()
    }

    fn status(&self) -> Value {
        json!({})
    }
}

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

fn scope() -> Scope {
    operator_in(&operator(), &contoso())
}

/// Writes a run with these steps, none of which waits for another, and leaves it pending.
async fn written(app: &TestApp, steps: &[&str]) -> RunRef {
    let cx = &app.cx;
    let current = cx.catalogs.current().await.unwrap();
    let step = |id: &&str| {
        let code = Code {
            starts: Starts::Nothing,
            declared_as: DeclaredAs::default(),
            name: WORKFLOW.into(),
            module: "workflows.hello".into(),
            function: (*id).to_owned(),
            limits: Limits::default(),
            rights: Rights::default(),
            secrets: Vec::new(),
            digest: None,
        };
        StepPlan {
            retry: RetryPolicy {
                attempts: 3,
                delay_seconds: 0.05,
                ..RetryPolicy::default()
            },
            ..StepPlan::new(*id, Work::Once(Action::Code(Box::new(code))))
        }
    };
    let now = cx.clock.now();
    let new = NewRun {
        run: RunId::generate(now, cx.entropy.bytes()),
        workflow: WORKFLOW.into(),
        plan: Arc::new(Plan {
            deadline_ms: None,
            profile: None,
            workflow: WORKFLOW.into(),
            bundle: current.bundle.digest.clone(),
            revision: None,
            environment: None,
            steps: steps.iter().map(step).collect(),
            output: Output::Step(0),
            active: 8,
        }),
        arguments: Payload::Inline(json!({})),
        requester: Requester {
            kind: "operator".into(),
            id: "operator".into(),
            name: "operator".into(),
            claimed_user: None,
        },
        created_at: now,
        request_id: "req_test".into(),
        arguments_digest: String::new(),
        idempotent: false,
        parent: None,
        resumes: None,
        ask: Ask::default(),
    };
    let run = new.run.clone();
    let begun = scheduler::begin(&run, &new.plan, &[], now.plus(Duration::from_secs(60)), now);
    cx.runs.create(&scope(), new, &begun, Vec::new()).await.unwrap();
    RunRef { org: contoso(), run }
}

/// Drives it in a task.
fn driven(app: &TestApp, run: &RunRef) -> tokio::task::JoinHandle<drive_run::Continued> {
    let (cx, run) = (app.cx.clone(), run.clone());
    tokio::spawn(async move { drive_run::continue_run(&cx, &run, cx.clock.now()).await.unwrap() })
}

fn after(cursor: Option<&str>) -> Wanted {
    Wanted {
        after: cursor.map(str::to_owned),
        pointer: "query:after",
        ..Wanted::default()
    }
}

/// Everything that is told of a run, in pages.
async fn everything(app: &TestApp, run: &RunId) -> Vec<Event> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    let mut wait = Duration::ZERO;
    loop {
        let told = watch::page(&app.cx, &scope(), run, after(cursor.as_deref()), wait)
            .await
            .unwrap();
        // A moment must pass until nothing more is expected of an attempt that was killed.
        wait = if told.events.is_empty() {
            Duration::from_secs(10)
        } else {
            Duration::ZERO
        };
        all.extend(told.events);
        if told.ended.is_some() {
            return all;
        }
        cursor = Some(told.cursor);
    }
}

/// What was told, in the streams that have an order of their own: the history, and each attempt's log.
fn streams(events: &[Event]) -> BTreeMap<String, Vec<String>> {
    let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let stream = match &event.what {
            Happening::Log { step, attempt, .. } | Happening::Checkpoint { step, attempt, .. } => {
                format!("{step}/{attempt}")
            }
            _ => String::new(),
        };
        let told = json!({"at": event.at, "what": event.what});
        streams.entry(stream).or_default().push(told.to_string());
    }
    streams
}

/// A sequence of numbers that is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Hears a run to its end, going away again and again, and coming back to one or another instance.
async fn restless(instances: Vec<Arc<TestApp>>, run: RunId, seed: u64) -> (Vec<Event>, Status) {
    let mut dice = Dice(seed);
    let mut heard: Vec<Event> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let app = &instances[usize::try_from(dice.below(instances.len() as u64)).unwrap()];
        if dice.below(4) == 0 {
            let wait = Duration::from_millis(dice.below(3) * 100);
            let told = watch::page(&app.cx, &scope(), &run, after(cursor.as_deref()), wait)
                .await
                .unwrap();
            heard.extend(told.events);
            if let Some(status) = told.ended {
                return (heard, status);
            }
            cursor = Some(told.cursor);
            continue;
        }
        let mut watcher = watch::open(&app.cx, &scope(), &run, after(cursor.as_deref()))
            .await
            .unwrap();
        for _ in 0..dice.below(6) {
            // A wait that is given up, as a stream does for its heartbeat, must lose nothing.
            let patience = Duration::from_millis(dice.below(200));
            let Ok(told) = tokio::time::timeout(patience, watcher.next()).await else {
                continue;
            };
            let Told { events, ended, .. } = told.unwrap();
            // The connection breaks in the middle of what was sent.
            let keep = match dice.below(3) {
                0 => usize::try_from(dice.below(events.len() as u64 + 1)).unwrap(),
                _ => events.len(),
            };
            let is_whole = keep == events.len();
            heard.extend(events.into_iter().take(keep));
            cursor = heard.last().map(|event| event.id.clone());
            if !is_whole {
                break;
            }
            if let Some(status) = ended {
                return (heard, status);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_and_goes_hears_everything_once() {
    let talkers = || {
        Arc::new(Talkers {
            lines: 60,
            pause: Duration::from_millis(8),
        })
    };
    let one = Arc::new(Builder::default().runner(talkers()).start().await);
    let two = Arc::new(Builder::default().beside(&one).runner(talkers()).start().await);
    let run = written(&one, &["first", "flaky-second", "third"]).await;
    let watchers: Vec<_> = (0..12)
        .map(|seed| {
            let instances = match seed % 3 {
                0 => vec![one.clone()],
                1 => vec![two.clone()],
                _ => vec![one.clone(), two.clone()],
            };
            tokio::spawn(restless(instances, run.run.clone(), seed))
        })
        .collect();
    assert_eq!(
        driven(&one, &run).await.unwrap(),
        drive_run::Continued::Driven(Status::Succeeded)
    );
    let all = everything(&one, &run.run).await;
    let expected = streams(&all);
    assert_eq!(expected.len(), 5, "{:?}", expected.keys());
    for (stream, told) in &expected {
        assert!(stream.is_empty() || told.len() == 60, "{stream}: {}", told.len());
    }
    for watcher in watchers {
        let (heard, status) = watcher.await.unwrap();
        assert_eq!(status, Status::Succeeded);
        assert_eq!(streams(&heard), expected);
    }
    // From every single event on, on an instance that has just begun, the rest follows and nothing else.
    let three = Builder::default().beside(&one).start().await;
    for (index, event) in all.iter().enumerate().step_by(7) {
        let mut rest = Vec::new();
        let mut cursor = event.id.clone();
        loop {
            let told = watch::page(&three.cx, &scope(), &run.run, after(Some(&cursor)), Duration::ZERO)
                .await
                .unwrap();
            rest.extend(told.events);
            cursor = told.cursor;
            if told.ended.is_some() {
                break;
            }
        }
        let mut whole = all[..=index].to_vec();
        whole.extend(rest);
        assert_eq!(streams(&whole), expected, "from {}", event.id);
    }
}

#[tokio::test]
async fn a_log_stands_between_the_begin_and_the_end_of_its_attempt() {
    let app = Builder::default()
        .runner(Arc::new(Talkers {
            lines: 30,
            pause: Duration::from_millis(1),
        }))
        .start()
        .await;
    let run = written(&app, &["flaky"]).await;
    driven(&app, &run).await.unwrap();
    let told: Vec<_> = everything(&app, &run.run)
        .await
        .into_iter()
        .map(|event| match event.what {
            Happening::RunStatus { status } => format!("run {}", status.as_str()),
            Happening::StepStatus { status, attempt, .. } => format!("step {} {attempt}", status.as_str()),
            Happening::RetryPlanned { attempt, .. } => format!("retry {attempt}"),
            Happening::Log { attempt, .. } | Happening::Checkpoint { attempt, .. } => format!("says {attempt}"),
            other => format!("{other:?}"),
        })
        .collect();
    let mut short = told.clone();
    short.dedup();
    let expected = [
        "run pending",
        "step running 1",
        "run running",
        "says 1",
        "retry 1",
        "run waiting",
        "step running 2",
        "run running",
        "says 2",
        "step succeeded 2",
        "run succeeded",
    ];
    assert_eq!(short, expected);
}

#[tokio::test]
async fn a_log_is_whole_through_a_lost_answer_and_an_outage() {
    let app = Builder::default()
        .runner(Arc::new(Talkers {
            lines: 60,
            pause: Duration::from_millis(20),
        }))
        .start()
        .await;
    // The answer to the first piece is lost, more is said meanwhile, and storage is away when the attempt has ended.
    let appends = || Rule::new(Fault::Before).calls(&[Call::AppendBlob]);
    app.faults.plan(Faults::Script(vec![
        Rule::new(Fault::After).calls(&[Call::AppendBlob]).only(1),
        appends().range(3, 6),
    ]));
    let run = written(&app, &["one"]).await;
    driven(&app, &run).await.unwrap();
    assert_eq!(app.faults.injected(), 5);
    let said: Vec<_> = everything(&app, &run.run)
        .await
        .into_iter()
        .filter_map(|event| match event.what {
            Happening::Log { message, .. } | Happening::Checkpoint { name: message, .. } => {
                Some(message.split(' ').next().unwrap().to_owned())
            }
            _ => None,
        })
        .collect();
    let expected: Vec<_> = (0..60).map(|index| format!("one/1/{index}")).collect();
    assert_eq!(said, expected);
}

#[tokio::test]
async fn many_watchers_cost_no_more_reads_than_one() {
    let app = TestApp::start().await;
    let two = Builder::default().beside(&app).start().await;
    app.scripted
        .push(WORKFLOW, Scene::returns(json!(1)).after(Duration::from_secs(3)));
    let run = written(&app, &["main"]).await;
    let driver = driven(&app, &run);
    let mut watchers = Vec::new();
    for _ in 0..50 {
        let mut watcher = watch::open(&two.cx, &scope(), &run.run, after(None)).await.unwrap();
        watchers.push(tokio::spawn(async move {
            let mut events = Vec::new();
            loop {
                let told = watcher.next().await.unwrap();
                events.extend(told.events);
                if told.ended.is_some() {
                    return events;
                }
            }
        }));
    }
    let reads = || {
        let calls = app.faults.calls();
        let reads = [Call::Get, Call::Query, Call::ReadBlob, Call::ListBlobs];
        reads.iter().filter_map(|call| calls.get(call)).sum::<u64>()
    };
    let (before, begun) = (reads(), tokio::time::Instant::now());
    driver.await.unwrap();
    let seconds = begun.elapsed().as_secs() + 1;
    // A look every second, of two requests while an attempt runs; the driver's two a second for signals and few others beside.
    assert!(
        reads() - before <= seconds * 4 + 8,
        "{} reads in {seconds} s",
        reads() - before
    );
    let expected = streams(&everything(&app, &run.run).await);
    for watcher in watchers {
        assert_eq!(streams(&watcher.await.unwrap()), expected);
    }
    assert_eq!(
        app.cx.runs.get(&scope(), &run.run).await.unwrap().unwrap().state.status,
        Status::Succeeded
    );
}

#[tokio::test]
async fn watching_a_run_where_it_is_driven_costs_no_reads() {
    let app = Builder::default()
        .runner(Arc::new(Talkers {
            lines: 300,
            pause: Duration::from_millis(5),
        }))
        .start()
        .await;
    let run = written(&app, &["main"]).await;
    let mut watchers = Vec::new();
    for _ in 0..50 {
        let mut watcher = watch::open(&app.cx, &scope(), &run.run, after(None)).await.unwrap();
        // What there is already, so that all sit at one feed before anything happens.
        let mut heard = watcher.next().await.unwrap().events;
        watchers.push(tokio::spawn(async move {
            loop {
                let told = watcher.next().await.unwrap();
                heard.extend(told.events);
                if told.ended.is_some() {
                    return heard;
                }
            }
        }));
    }
    let reads = |kinds: &[Call]| {
        let calls = app.faults.calls();
        kinds.iter().filter_map(|call| calls.get(call)).sum::<u64>()
    };
    let (logs, all) = (&[Call::ReadBlob, Call::ListBlobs], &[Call::Get, Call::Query]);
    let (before, begun) = ((reads(logs), reads(all)), tokio::time::Instant::now());
    driven(&app, &run).await.unwrap();
    let mut heard = Vec::new();
    for watcher in watchers {
        heard.push(watcher.await.unwrap());
    }
    // The feed looks every five seconds, whatever it is handed. The rest is the driver's: two a second for signals, few others.
    let seconds = begun.elapsed().as_secs() + 1;
    let (logs, all) = (reads(logs) - before.0, reads(all) - before.1);
    assert!(logs <= seconds / 5, "{logs} reads of logs in {seconds} s");
    assert!(all <= 10 + seconds * 3, "{all} reads of rows in {seconds} s");
    let expected = streams(&everything(&app, &run.run).await);
    assert!(expected.values().map(Vec::len).sum::<usize>() > 300, "{expected:?}");
    for events in heard {
        assert_eq!(streams(&events), expected);
    }
}

#[tokio::test]
async fn the_last_words_of_a_cancelled_attempt_come_before_the_end() {
    let app = Builder::default()
        .runner(Arc::new(Talkers {
            lines: 10_000,
            pause: Duration::from_millis(2),
        }))
        .start()
        .await;
    let run = written(&app, &["main"]).await;
    let driver = driven(&app, &run);
    let mut watcher = watch::open(&app.cx, &scope(), &run.run, after(None)).await.unwrap();
    let mut events = Vec::new();
    while !events
        .iter()
        .any(|event: &Event| matches!(event.what, Happening::Log { .. }))
    {
        events.extend(watcher.next().await.unwrap().events);
    }
    control_run::cancel(&app.cx, &scope(), &Origin::default(), &run.run)
        .await
        .unwrap();
    loop {
        let told = watcher.next().await.unwrap();
        events.extend(told.events);
        if let Some(status) = told.ended {
            assert_eq!(status, Status::Cancelled);
            break;
        }
    }
    driver.await.unwrap();
    let log = weft::usecase::query_run::logs(&app.cx, &scope(), &run.run, (0, 0))
        .await
        .unwrap();
    assert_eq!(streams(&events)["main/1"].len(), log.lines.len());
    assert_eq!(streams(&everything(&app, &run.run).await), streams(&events));
}

#[tokio::test]
async fn what_the_api_says() {
    let app = TestApp::start().await;
    let line = |message: &str| {
        WorkerMessage::Line(LogLine {
            at: app.cx.clock.now(),
            stream: "stdout".into(),
            level: "info".into(),
            message: message.into(),
            fields: None,
        })
    };
    app.scripted
        .push(WORKFLOW, Scene::returns(json!(1)).says(line("one")).says(line("two")));
    let id = app.run("contoso", json!({})).await["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let get = |query: &str| {
        app.request("GET", &format!("/api/runs/{id}/events{query}"))
            .key(DEVELOPMENT_KEY)
            .organization("contoso")
    };
    let page = get("").send().await;
    assert_eq!((page.status, page.header("cache-control")), (200, "no-store"));
    let page = page.json();
    assert_eq!((&page["ended"], &page["status"]), (&json!(true), &json!("succeeded")));
    let items = page["items"].as_array().unwrap();
    let kinds: Vec<_> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
    let expected = "run.status step.status run.status log log step.status run.status";
    assert_eq!(kinds.join(" "), expected);
    assert_eq!(items[3]["message"], "one");
    assert_eq!((&items[3]["step"], &items[3]["attempt"]), (&json!("main"), &json!(1)));
    assert!(
        items
            .iter()
            .all(|item| item["at"].is_string() && item["id"].is_string())
    );

    // From the middle on; without logs; of one step.
    let middle = items[3]["id"].as_str().unwrap();
    let rest = get(&format!("?after={middle}")).send().await.json();
    assert_eq!(rest["items"].as_array().unwrap()[..], items[4..]);
    let silent = get("?logs=false").send().await.json();
    assert_eq!(silent["items"].as_array().unwrap().len(), 5);
    let other = get("?step=nosuch").send().await.json();
    assert_eq!(other["items"].as_array().unwrap().len(), 3);
    // Nothing follows, whoever waits.
    let over = get(&format!("?wait=60&after={}", page["nextCursor"].as_str().unwrap()))
        .send()
        .await
        .json();
    assert_eq!((&over["items"], &over["ended"]), (&json!([]), &json!(true)));

    // The same as a stream.
    let stream = get("").header("accept", "text/event-stream").send().await;
    assert_eq!(
        (stream.status, stream.header("content-type")),
        (200, "text/event-stream")
    );
    assert_eq!(
        (stream.header("cache-control"), stream.header("x-accel-buffering")),
        ("no-store", "no")
    );
    let text = stream.text();
    let blocks: Vec<_> = text.split("\n\n").filter(|block| !block.is_empty()).collect();
    assert_eq!(blocks[0], "retry: 1000");
    assert_eq!(blocks.len(), items.len() + 2, "{text}");
    for (block, item) in blocks[1..].iter().zip(items) {
        let (id, data) = block.split_once("\ndata: ").unwrap();
        let id = id.strip_prefix("id: ").unwrap();
        assert_eq!(id, item["id"]);
        assert_eq!(&serde_json::from_str::<Value>(data).unwrap(), item);
    }
    let end = blocks.last().unwrap();
    assert!(
        end.contains("event: end") && end.contains(r#"data: {"status":"succeeded"}"#),
        "{end}"
    );
    let last = end.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();

    // A browser that comes back after the end is told to stay away; one that has missed it is not.
    let again = get("")
        .header("accept", "text/event-stream")
        .header("last-event-id", last)
        .send()
        .await;
    assert_eq!((again.status, again.body.len()), (204, 0));
    let missed = items.last().unwrap()["id"].as_str().unwrap();
    let again = get("")
        .header("accept", "text/html, text/event-stream;q=0.9")
        .header("last-event-id", missed)
        .send()
        .await;
    assert_eq!(again.text().matches("event: end").count(), 1, "{}", again.text());
    assert!(!again.text().contains("run.status"), "{}", again.text());
    // What a browser remembers goes before what stands in its address.
    let both = get(&format!("?after={middle}"))
        .header("accept", "text/event-stream")
        .header("last-event-id", missed)
        .send()
        .await;
    assert!(!both.text().contains("run.status"), "{}", both.text());
}

#[tokio::test]
async fn what_is_no_cursor_is_refused() {
    let app = TestApp::start().await;
    let run = app.run("contoso", json!({})).await["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = app.run("contoso", json!({})).await["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let get = |run: &str, query: &str| {
        app.request("GET", &format!("/api/runs/{run}/events{query}"))
            .key(DEVELOPMENT_KEY)
            .organization("contoso")
    };
    let cursor = get(&run, "").send().await.json()["nextCursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let (text, tag) = cursor.split_once('~').unwrap();
    let forged = format!("{text}-9.0.4096~{tag}");
    for (request, pointer) in [
        (get(&run, "?after=17"), "query:after"),
        (get(&run, &format!("?after={forged}")), "query:after"),
        (get(&other, &format!("?after={cursor}")), "query:after"),
        (get(&run, "").header("last-event-id", "garbage"), "header:Last-Event-ID"),
        (
            get(&run, "")
                .header("last-event-id", "%00~~--1.2")
                .header("accept", "text/event-stream"),
            "header:Last-Event-ID",
        ),
        (get(&run, "?wait=soon"), "query:wait"),
        (get(&run, "?logs=maybe"), "query:logs"),
    ] {
        let answer = request.send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "parameter_invalid"),
            "{answer:?}"
        );
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
        assert!(
            pointer.ends_with("wait") || pointer.ends_with("logs") || answer.json()["hint"].is_string(),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn only_whoever_may_read_a_run_hears_of_it() {
    let app = TestApp::start().await;
    let id = app.run("contoso", json!({})).await["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/runs/{id}/events");
    for accept in ["application/json", "text/event-stream"] {
        let get = || app.request("GET", &path).header("accept", accept);
        let foreign = get().key(DEVELOPMENT_KEY).organization("fabrikam").send().await;
        assert_eq!((foreign.status, foreign.code().as_str()), (404, "run_not_found"));
        let nobody = get().organization("contoso").send().await;
        assert_eq!(nobody.status, 403);
        // Whoever sees only own runs, and asked for this one not at all, learns as little as a stranger.
        let theirs = get().person("cleo").organization("contoso").send().await;
        assert_eq!((theirs.status, theirs.code().as_str()), (404, "run_not_found"));
    }
    let fabrikam = app.run("fabrikam", json!({})).await["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/runs/{fabrikam}/events");
    let viewer = app.request("GET", &path).person("dora").organization("fabrikam");
    assert_eq!(viewer.send().await.status, 404);
    let own = app
        .request("POST", &format!("/api/workflows/{WORKFLOW}/execute"))
        .person("cleo")
        .organization("contoso")
        .json(&json!({}));
    let own = own.send().await.json()["runId"].as_str().unwrap().to_owned();
    let path = format!("/api/runs/{own}/events");
    let heard = app
        .request("GET", &path)
        .person("cleo")
        .organization("contoso")
        .send()
        .await;
    assert_eq!((heard.status, &heard.json()["ended"]), (200, &json!(true)));
}

#[tokio::test]
async fn a_run_that_is_cancelled_elsewhere_is_ended_where_it_is_driven() {
    let one = TestApp::start().await;
    let two = Builder::default().beside(&one).start().await;
    let scene = Scene::returns(json!(1)).after(Duration::from_secs(600));
    one.scripted.push(WORKFLOW, scene);
    let run = written(&one, &["main"]).await;
    let driver = driven(&one, &run);
    let mut watcher = watch::open(&two.cx, &scope(), &run.run, after(None)).await.unwrap();
    let mut is_running = false;
    while !is_running {
        let told = watcher.next().await.unwrap();
        is_running = told
            .events
            .iter()
            .any(|event| matches!(event.what, Happening::StepStatus { .. }));
    }
    control_run::cancel(&two.cx, &scope(), &Origin::default(), &run.run)
        .await
        .unwrap();
    // The driver would find out by itself half a minute later.
    let ended = tokio::time::timeout(Duration::from_secs(10), driver).await;
    let ended = ended.expect("the driver has been told").unwrap();
    assert_eq!(ended, drive_run::Continued::Driven(Status::Cancelled));
    // The signal has been taken away; what lists it goes with a tick, an hour later.
    let signals = PlatformTable::Signals.name();
    let rows = |partition| one.ports.tables.query(&signals, Query::partition(partition));
    let mut left = rows(key::signals(&one.cx.instance)).await.unwrap().entities.len();
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = rows(key::signals(&one.cx.instance)).await.unwrap().entities.len();
    }
    assert_eq!(rows(key::sent_signals()).await.unwrap().entities.len(), 1);
}

#[tokio::test]
async fn a_signal_to_an_instance_that_is_gone_is_taken_away_after_an_hour() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_219_200_000)));
    let app = Builder::default().clock(clock.clone()).start().await;
    let platform = weft::tenancy::system("test");
    let signals = Signals::new(app.ports.clone());
    let about = About::Run(RunId::generate(app.cx.clock.now(), [1; 10]));
    for _ in 0..2 {
        signals
            .stop(&platform, "GONE", &about, app.cx.clock.now())
            .await
            .unwrap();
    }
    assert_eq!(signals.to_stop(&platform, "GONE").await.unwrap(), [about]);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(tick::tick(&app.cx).await.unwrap().signals, 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(tick::tick(&app.cx).await.unwrap().signals, 1);
    assert_eq!(tick::tick(&app.cx).await.unwrap().signals, 0);
    assert!(signals.to_stop(&platform, "GONE").await.unwrap().is_empty());
}
