//! What a seed means: how many processes, organizations and runs there are, what the workflows are like, what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::graphs::{self, Callable};
use super::memory::Defect;
use super::process::Host;
use super::random::Random;
use super::runner::Manners;
use super::site::{CrashAt, Weather};
use super::slip::Slip;
use super::triggers::{HookStory, ScheduleStory};
use crate::definition::read_graph;
use crate::domain::{ConcurrencyKey, Graph, OnConflict, OrgId, Priority, Timestamp};
use crate::runner::BundleDescription;

/// Midnight at the beginning of 21 November 2026, when simulations begin, or a little later.
const BASE: i64 = 1_795_219_200_000;

/// One request to start a run, and what is asked of it later.
#[derive(Debug, Clone)]
pub struct Request {
    /// In which organization.
    pub org: usize,
    /// By which of its people.
    pub person: usize,
    /// Of what.
    pub workflow: String,
    /// When, since the beginning.
    pub at: Duration,
    /// How long the caller waits; none to leave it to the queue.
    pub wait: Option<Duration>,
    /// The idempotency key.
    pub key: Option<String>,
    /// How long after its start somebody cancels it.
    pub cancel_after: Option<Duration>,
    /// The argument of every simulated workflow.
    pub n: i64,
    /// How soon among others.
    pub priority: Priority,
    /// How much later it may begin.
    pub begins_after: Option<Duration>,
    /// Beside which others it may not run.
    pub concurrency: Option<ConcurrencyKey>,
    /// What is asked for when it has ended.
    pub then: Option<Then>,
}

/// What somebody asks for when a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// To go on where it has failed; with the code that it was pinned to, or the present one.
    Resume(bool),
    /// To run it again; the same.
    Rerun(bool),
}

/// What the simulated installation is set to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time limit of a run.
    pub run_limit: Duration,
    /// How many runs of one organization may be under way at once.
    pub concurrent_runs: u32,
    /// How long a driver goes on before it lets another one go on.
    pub driver: Duration,
    /// How long an attempt waits for a worker before it is offered to others.
    pub hand_off: Duration,
    /// Most that a step may take.
    pub step_limit: Duration,
}

/// Everything that a simulation is made of.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// From which all chance follows.
    pub seed: u64,
    /// When it begins.
    pub base: Timestamp,
    /// Organizations.
    pub orgs: Vec<OrgId>,
    /// How wrong the clock of each process is, in milliseconds; so there are as many processes.
    pub skews_ms: Vec<i64>,
    /// Who hands messages out.
    pub host: Host,
    /// What happens to calls of storage.
    pub weather: Weather,
    /// How long things may go wrong.
    pub foul_for: Duration,
    /// How long it is, on average, until the next process is killed, stopped or frozen, or storage is away; none for never.
    pub strikes_every: Option<Duration>,
    /// What most calls take at most, one way.
    pub latency: Duration,
    /// Rows in a page of storage.
    pub page: usize,
    /// What the installation is set to.
    pub settings: Settings,
    /// What attempts are like.
    pub manners: Arc<Manners>,
    /// The workflows that are graphs, by name.
    pub graphs: Arc<BTreeMap<String, Graph>>,
    /// What is asked for.
    pub requests: Vec<Request>,
    /// Schedules.
    pub schedules: Vec<ScheduleStory>,
    /// Hooks.
    pub hooks: Vec<HookStory>,
    /// A death at one call.
    pub crash_at: Option<CrashAt>,
    /// A promise that storage breaks.
    pub defect: Option<Defect>,
    /// A mistake that every process makes.
    pub slip: Option<Slip>,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::of(seed, "scenario");
        let mut tight = Random::of(seed, "tight");
        let seconds = Duration::from_secs;
        let orgs = organizations(1 + random.below(3));
        let processes = 2 + random.below(4);
        let skews_ms = (0..processes)
            .map(|_| i64::try_from(random.below(4001)).unwrap_or_default() - 2000)
            .collect();
        // Of a hundred thousand calls.
        let (weather, strikes_every) = match random.below(10) {
            0 => (Weather::default(), None),
            1..=3 => (
                Weather {
                    before: 300,
                    after: 300,
                    late: 200,
                    throttle: 300,
                    slow: 500,
                    ..Weather::default()
                },
                None,
            ),
            4..=5 => (Weather::default(), Some(seconds(40))),
            6..=8 => (
                Weather {
                    die: 600,
                    die_after: 600,
                    before: 500,
                    after: 500,
                    late: 300,
                    throttle: 500,
                    slow: 1000,
                },
                Some(seconds(60)),
            ),
            _ => (
                Weather {
                    die: 2500,
                    die_after: 2500,
                    before: 3000,
                    after: 3000,
                    late: 1500,
                    throttle: 3000,
                    slow: 3000,
                },
                Some(seconds(30)),
            ),
        };
        let foul_for = random.between(seconds(120), seconds(900));
        let names: Vec<String> = (0..=random.below(3)).map(|number| format!("w{number}")).collect();
        let workflows: Vec<Value> = names.iter().map(|name| workflow(name, &mut random)).collect();
        let functions: Vec<String> = (0..3).map(|number| format!("f{number}")).collect();
        let nodes: Vec<Value> = functions.iter().map(|name| function(name, &mut random)).collect();
        let graphs = drawn(&mut random, &functions, &names);
        // Graphs are asked for more often than single functions.
        let wanted: Vec<String> = graphs.keys().chain(graphs.keys()).chain(&names).cloned().collect();
        let manners = Manners {
            seed,
            fails: *random.pick(&[0, 60, 150, 350]),
            hangs: *random.pick(&[0, 0, 10, 30]),
            starts_runs: *random.pick(&[0, 100, 300]),
            refuses: *random.pick(&[0, 50]),
            workflows: names,
            description: description(&workflows, &nodes),
            takes: None,
            slots: match 2 + random.below(7) {
                // Where there are few, most attempts are made elsewhere.
                _ if tight.per_mille(300) => 1 + usize::try_from(tight.below(3)).unwrap_or_default(),
                slots => usize::try_from(slots).unwrap_or(2),
            },
        };
        let requests = requests(&mut random, orgs.len(), &wanted, foul_for);
        let schedules = ScheduleStory::of(&mut random, orgs.len(), &wanted, foul_for);
        let hooks = HookStory::of(&mut random, orgs.len(), &wanted, foul_for);
        Self {
            seed,
            base: Timestamp::from_millis(BASE + i64::try_from(random.below(86_400_000)).unwrap_or_default()),
            requests,
            schedules,
            hooks,
            orgs,
            skews_ms,
            host: if random.per_mille(750) {
                Host::Functions
            } else {
                Host::Dev
            },
            weather,
            foul_for,
            strikes_every,
            latency: *random.pick(&[
                Duration::from_millis(2),
                Duration::from_millis(15),
                Duration::from_millis(80),
            ]),
            page: *random.pick(&[3, 10, 1000]),
            settings: Settings {
                run_limit: *random.pick(&[seconds(150), seconds(900), seconds(3600)]),
                concurrent_runs: *random.pick(&[1, 2, 4, 10, 10]),
                driver: *tight.pick(&[seconds(120), seconds(120), seconds(20)]),
                hand_off: *tight.pick(&[seconds(1), seconds(1), Duration::from_millis(200)]),
                step_limit: seconds(300),
            },
            manners: Arc::new(manners),
            graphs: Arc::new(graphs),
            crash_at: None,
            defect: None,
            slip: None,
        }
    }

    /// The graph files of the workspace, by path within it.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        let file = |(name, graph): (&String, &Graph)| (format!("workflows/{name}.json"), graphs::text(graph));
        self.graphs.iter().map(file).collect()
    }

    /// Whether nothing goes wrong at all, so that what is promised within a time must happen within it.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.weather == Weather::default() && self.strikes_every.is_none() && self.crash_at.is_none()
    }

    /// How long what may go on waits at most: where nothing goes wrong and there is room, for a message.
    pub(super) fn begins_within(&self) -> Duration {
        if self.is_calm() && self.settings.concurrent_runs >= 4 {
            // Hosts are late at times in any weather.
            Duration::from_secs(100) + super::process::HANDED_OUT_WITHIN
        } else {
            super::rest::HEARD_AT_LAST + self.foul_for
        }
    }

    /// A small one in which nothing goes wrong but what is asked for: a run that is waited for and fails once, a run that is
    /// left to the queue and rests between its attempts, and one that is cancelled.
    #[must_use]
    pub fn small(crash_at: Option<CrashAt>) -> Self {
        let declared = |name: &str, delay: f64| {
            json!({
                "name": name, "function": name, "line": 1, "timeout_seconds": 60.0,
                "retry": {"attempts": 3, "delay_seconds": delay, "backoff": "fixed"},
                "parameters": [graphs::number("n", 3)],
            })
        };
        let request = |workflow: &str, at: u64, wait: Option<u64>, cancel_after: Option<u64>| Request {
            org: 0,
            person: 0,
            workflow: workflow.to_owned(),
            at: Duration::from_millis(at),
            wait: wait.map(Duration::from_secs),
            key: Some(format!("key {at}")),
            cancel_after: cancel_after.map(Duration::from_millis),
            n: 3,
            priority: Priority::NORMAL,
            begins_after: None,
            concurrency: None,
            then: None,
        };
        Self {
            seed: 3,
            base: Timestamp::from_millis(BASE),
            orgs: organizations(1),
            skews_ms: vec![0, 0],
            host: Host::Functions,
            weather: Weather::default(),
            foul_for: Duration::from_secs(1),
            strikes_every: None,
            latency: Duration::from_millis(2),
            page: 1000,
            settings: Settings {
                run_limit: Duration::from_secs(1800),
                concurrent_runs: 10,
                driver: Duration::from_secs(120),
                hand_off: Duration::from_secs(1),
                step_limit: Duration::from_secs(300),
            },
            graphs: Arc::default(),
            schedules: Vec::new(),
            hooks: Vec::new(),
            manners: Arc::new(Manners {
                seed: 3,
                fails: 500,
                hangs: 0,
                starts_runs: 0,
                refuses: 0,
                workflows: Vec::new(),
                description: description(&[declared("short", 0.5), declared("rests", 12.0)], &[]),
                slots: 4,
                takes: None,
            }),
            requests: vec![
                request("short", 10, Some(60), None),
                request("rests", 20, None, None),
                request("rests", 3000, None, Some(900)),
            ],
            crash_at,
            defect: None,
            slip: None,
        }
    }

    /// A small one whose only attempt takes ten minutes: longer than the Functions host lets an invocation, or a driver go on.
    #[must_use]
    pub fn long(crash_at: Option<CrashAt>) -> Self {
        let small = Self::small(crash_at);
        let declared = json!({
            "name": "long", "function": "long", "line": 1, "timeout_seconds": 900.0,
            "retry": {"attempts": 4, "delay_seconds": 1.0, "backoff": "fixed"}, "parameters": [graphs::number("n", 3)],
        });
        let request = Request {
            workflow: "long".to_owned(),
            ..small.requests[1].clone()
        };
        Self {
            manners: Arc::new(Manners {
                fails: 0,
                takes: Some(Duration::from_secs(600)),
                description: description(&[declared], &[]),
                ..Manners::clone(&small.manners)
            }),
            settings: Settings {
                run_limit: Duration::from_secs(3600),
                step_limit: Duration::from_secs(900),
                ..small.settings.clone()
            },
            requests: vec![request],
            ..small
        }
    }

    /// A small one with a graph: items at once, a pause that is slept through, a choice, a child run, and a step that runs in any
    /// case.
    ///
    /// # Panics
    /// Never: the graphs are right.
    #[must_use]
    pub fn small_graph(crash_at: Option<CrashAt>) -> Self {
        let read = |graph: Value| {
            let read = read_graph(&graph.to_string());
            assert!(read.findings.is_empty(), "{:?}", read.findings);
            (read.graph.name.clone(), read.graph)
        };
        let tiny = json!({
            "name": "tiny", "parameters": [graphs::number("n", 3)],
            "nodes": [{"id": "only", "type": "compute", "value": {"n": {"$": "inputs.n"}}}],
        });
        let whole = json!({
            "name": "whole", "parameters": [graphs::number("n", 3)],
            "nodes": [
                {"id": "each", "type": "map", "use": "f0", "items": [7, 8],
                    "inputs": {"item": {"$": "item"}, "index": {"$": "index"}}},
                {"id": "rest", "type": "delay", "seconds": 7},
                {"id": "which", "type": "choose", "branches": [{"name": "one", "when": "inputs.n >= 2"}]},
                {"id": "child", "type": "workflow", "workflow": "tiny", "inputs": {"n": {"$": "inputs.n"}}},
                {"id": "tidy", "type": "python", "use": "f0", "phase": "finally", "inputs": {"n": {"$": "inputs.n"}}},
            ],
            "edges": [
                {"from": "each", "to": "rest"},
                {"from": "rest", "to": "which"},
                {"from": "which", "to": "child", "branch": "one"},
            ],
        });
        let function = json!({
            "name": "f0", "function": "f0", "line": 2, "timeout_seconds": 300.0,
            "parameters": [graphs::number("n", 3), {"name": "item", "type": "json"}, {"name": "index", "type": "json"}],
        });
        let small = Self::small(crash_at);
        let request = Request {
            workflow: "whole".to_owned(),
            ..small.requests[1].clone()
        };
        Self {
            manners: Arc::new(Manners {
                fails: 0,
                description: description(&[], &[function]),
                ..Manners::clone(&small.manners)
            }),
            graphs: Arc::new([read(tiny), read(whole)].into()),
            requests: vec![request],
            ..small
        }
    }
}

fn organizations(count: u64) -> Vec<OrgId> {
    (0..count)
        .map(|number| {
            let id = format!("simulated{number}");
            id.parse().expect("the ids of simulated organizations are right")
        })
        .collect()
}

fn workflow(name: &str, random: &mut Random) -> Value {
    let delay = *random.pick(&[0.0, 0.2, 2.0, 8.0, 40.0]);
    json!({
        "name": name,
        "function": name,
        "line": 1,
        "timeout_seconds": *random.pick(&[2.0, 20.0, 120.0, 300.0]),
        "on_crash": *random.pick(&["retry", "retry", "fail"]),
        "retry": {
            "attempts": 1 + random.below(4),
            "delay_seconds": delay,
            "backoff": *random.pick(&["fixed", "linear", "exponential"]),
            "max_delay_seconds": 90.0,
            "jitter": *random.pick(&[0.0, 0.5]),
        },
        "parameters": [
            {"name": "name", "type": "string", "required": false, "default": "World", "has_default": true},
            graphs::number("n", 3),
        ],
    })
}

/// A function that only graphs call.
fn function(name: &str, random: &mut Random) -> Value {
    json!({
        "name": name,
        "function": name,
        "line": 2,
        "timeout_seconds": *random.pick(&[20.0, 120.0, 300.0]),
        "on_crash": *random.pick(&["retry", "retry", "fail"]),
        "retry": {"attempts": 1 + random.below(2), "delay_seconds": 1.0, "backoff": "fixed"},
        "parameters": [graphs::number("n", 3), {"name": "item", "type": "json"}, {"name": "index", "type": "json"}],
    })
}

/// Up to four graphs; one may start those behind it, so that there is no circle.
fn drawn(random: &mut Random, functions: &[String], names: &[String]) -> BTreeMap<String, Graph> {
    let mut graphs = BTreeMap::new();
    let mut workflows = names.to_vec();
    let count = 1 + random.below(4);
    for number in (0..count).rev() {
        let name = format!("g{number}");
        // What others start is small, or one request would lead to hundreds of runs.
        let size = if number == 0 { *random.pick(&[4, 9, 9, 14]) } else { 4 };
        let callable = Callable {
            functions,
            workflows: &workflows,
        };
        graphs.insert(name.clone(), graphs::graph(&name, random, callable, size));
        workflows.push(name);
    }
    graphs
}

fn description(workflows: &[Value], nodes: &[Value]) -> BundleDescription {
    BundleDescription {
        modules: vec![json!({
            "module": "workflows.sim",
            "path": "workspace/workflows/sim.py",
            "workflows": workflows,
            "data_providers": [],
            "nodes": nodes,
        })],
        files: 1,
        ..BundleDescription::default()
    }
}

fn requests(random: &mut Random, orgs: usize, workflows: &[String], foul_for: Duration) -> Vec<Request> {
    let seconds = Duration::from_secs;
    let mut requests = Vec::new();
    for number in 0..=random.below(8) {
        let at = random.between(Duration::ZERO, foul_for * 2 / 3);
        let request = Request {
            org: usize::try_from(random.below(orgs as u64)).unwrap_or_default(),
            person: usize::try_from(random.below(2)).unwrap_or_default(),
            workflow: random.pick(workflows).clone(),
            at,
            wait: random.per_mille(500).then(|| random.between(seconds(1), seconds(220))),
            key: random.per_mille(400).then(|| format!("key {number}")),
            cancel_after: random
                .per_mille(200)
                .then(|| random.between(Duration::ZERO, seconds(90))),
            n: i64::try_from(random.below(10)).unwrap_or_default(),
            priority: *random.pick(&[Priority::NORMAL, Priority::NORMAL, Priority::LOW, Priority::HIGH]),
            begins_after: random
                .per_mille(120)
                .then(|| random.between(Duration::ZERO, seconds(240))),
            concurrency: random.per_mille(250).then(|| concurrency(random)),
            then: random.per_mille(300).then(|| {
                let pinned = random.per_mille(500);
                if random.per_mille(600) {
                    Then::Resume(pinned)
                } else {
                    Then::Rerun(pinned)
                }
            }),
        };
        // The same request again, at the same time or a little later, as callers do that lost their patience.
        if request.key.is_some() {
            for _ in 0..=random.below(2) {
                requests.push(Request {
                    at: at
                        + random.between(
                            Duration::ZERO,
                            *random.clone().pick(&[Duration::from_millis(5), seconds(30)]),
                        ),
                    wait: random.per_mille(500).then(|| seconds(30)),
                    cancel_after: None,
                    then: None,
                    ..request.clone()
                });
            }
        }
        requests.push(request);
    }
    requests
}

/// One of two keys; who asks for one says how many may have it, and all say the same.
fn concurrency(random: &mut Random) -> ConcurrencyKey {
    let (key, limit) = *random.pick(&[("one", 1), ("one", 1), ("two", 2)]);
    ConcurrencyKey {
        key: key.to_owned(),
        limit,
        on_conflict: *random.pick(&[
            OnConflict::Queue,
            OnConflict::Queue,
            OnConflict::Skip,
            OnConflict::CancelRunning,
        ]),
    }
}
