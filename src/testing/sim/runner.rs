//! A runner without processes: what an attempt does follows from the seed and the attempt's place, and is written into the
//! history. The value that it returns names the attempt, so that a committed result can be traced to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::history::{Begun, End};
use super::random::Random;
use super::site::Site;
use super::slip::Slip;
use crate::clock::Clock as _;
use crate::domain::{Outcome, Rights, RunId, StepError, Tier};
use crate::runner::jail::posture::{Isolation, Posture};
use crate::runner::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, LogLine, NodeRunner, Refusal, RunnerError, RunnerTimings,
    WorkerMessage,
};
use crate::scheduler::MAIN_STEP;

/// What attempts of a scenario are like.
#[derive(Debug, Clone)]
pub struct Manners {
    /// From which everything follows.
    pub seed: u64,
    /// Of a thousand attempts, how many fail.
    pub fails: u64,
    /// Of a thousand attempts, how many hang until they are killed.
    pub hangs: u64,
    /// Of a thousand attempts, how many start runs.
    pub starts_runs: u64,
    /// Of a thousand times that a worker is asked for, how often there is none.
    pub refuses: u64,
    /// Workflows that an attempt may start.
    pub workflows: Vec<String>,
    /// What the workspace declares.
    pub description: BundleDescription,
    /// Workers at once.
    pub slots: usize,
    /// How long every attempt takes, where that is not chance.
    pub takes: Option<Duration>,
}

/// What one attempt does.
#[derive(Debug)]
struct Behaviour {
    takes: Duration,
    ends: Ends,
    lines: u64,
    starts: Vec<Start>,
    pad: usize,
    variables: bool,
    /// What conditions look at.
    n: u64,
    /// How long a list for maps it leaves.
    items: u64,
    /// Whether a loop ends with it.
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Returns,
    Raises(Option<bool>),
    Hangs,
}

#[derive(Debug)]
struct Start {
    workflow: String,
    key: Option<String>,
    waits: Option<f64>,
}

impl Behaviour {
    /// Attempts of the same number of the same step behave alike, whoever makes them.
    fn of(manners: &Manners, (run, step, item): (&str, &str, Option<u64>), number: u64) -> Self {
        let of = item.map_or_else(|| step.to_owned(), |item| format!("{step}[{item}]"));
        let mut random = Random::of(manners.seed, &format!("{run}:{of}:{number}"));
        let seconds = Duration::from_secs;
        let alone = step == MAIN_STEP;
        let takes = match random.below(20) {
            0..=5 => random.between(Duration::ZERO, Duration::from_millis(100)),
            6..=10 => random.between(Duration::from_millis(100), seconds(5)),
            // Of a graph there are many.
            11..=16 if !alone => random.between(Duration::from_millis(10), seconds(3)),
            11..=17 => random.between(seconds(5), seconds(60)),
            _ => random.between(seconds(60), seconds(200)),
        };
        let chance = random.below(1000);
        let ends = if chance < manners.hangs {
            Ends::Hangs
        } else if chance < manners.hangs + manners.fails {
            Ends::Raises(*random.pick(&[None, None, Some(true), Some(false)]))
        } else {
            Ends::Returns
        };
        let mut starts = Vec::new();
        let starts_runs = if alone {
            manners.starts_runs
        } else {
            manners.starts_runs / 10
        };
        if !manners.workflows.is_empty() && random.per_mille(starts_runs) {
            for ordinal in 0..=random.below(2) {
                starts.push(Start {
                    workflow: random.pick(&manners.workflows).clone(),
                    key: random.per_mille(500).then(|| format!("child {ordinal}")),
                    waits: random
                        .per_mille(600)
                        .then(|| if random.per_mille(500) { 5.0 } else { 120.0 }),
                });
            }
        }
        Self {
            takes: manners.takes.unwrap_or(takes),
            ends,
            lines: if random.per_mille(300) { random.below(5) } else { 0 },
            starts,
            // Over what a row holds, now and then.
            pad: if random.per_mille(50) { 40_000 } else { 0 },
            variables: random.per_mille(100),
            n: random.below(10),
            items: *random.pick(&[0, 1, 2, 3, 3, 5, 8]),
            done: random.per_mille(400),
        }
    }
}

/// The runner of one process.
#[derive(Debug)]
pub struct SimRunner {
    site: Arc<Site>,
    manners: Arc<Manners>,
    slots: Arc<Semaphore>,
}

impl SimRunner {
    /// For a process.
    #[must_use]
    pub fn new(site: Arc<Site>, manners: Arc<Manners>) -> Self {
        let slots = Arc::new(Semaphore::new(manners.slots));
        Self { site, manners, slots }
    }

    async fn work(&self, behaviour: &Behaviour, messages: &mpsc::Sender<WorkerMessage>) -> Result<(), StepError> {
        for number in 0..behaviour.lines {
            let line = LogLine {
                at: self.site.clock.now(),
                stream: "log".into(),
                level: "info".into(),
                message: format!("line {number}"),
                fields: None,
            };
            // An attempt whose listener is gone is about to be killed.
            drop(messages.send(WorkerMessage::Line(line)).await);
        }
        tokio::time::sleep(behaviour.takes / 2).await;
        for start in &behaviour.starts {
            let mut args = json!({"workflow": start.workflow, "inputs": {"name": "child", "n": 4}});
            if let Some(key) = &start.key {
                args["key"] = json!(key);
            }
            let started = call(messages, "runs.start", args).await.map_err(refused)?;
            if let Some(timeout) = start.waits {
                let args = json!({"id": started["id"], "timeout_seconds": timeout});
                call(messages, "runs.wait", args).await.map_err(refused)?;
            }
        }
        tokio::time::sleep(behaviour.takes.saturating_sub(behaviour.takes / 2)).await;
        match behaviour.ends {
            Ends::Returns => Ok(()),
            Ends::Raises(retriable) => Err(StepError {
                retriable,
                ..StepError::new("ValueError", "as the seed has it")
            }),
            Ends::Hangs => std::future::pending().await,
        }
    }
}

fn refused(refusal: Refusal) -> StepError {
    StepError {
        retriable: Some(true),
        ..StepError::new(format!("Refused.{}", refusal.code), refusal.message)
    }
}

async fn call(messages: &mpsc::Sender<WorkerMessage>, name: &str, args: Value) -> Result<Value, Refusal> {
    let gone = || Refusal {
        code: "unavailable".into(),
        message: "nobody answers".into(),
    };
    let (reply, answer) = oneshot::channel();
    let call = WorkerMessage::Call {
        name: name.to_owned(),
        args,
        reply,
    };
    messages.send(call).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// An attempt that is dropped before its end was killed.
struct Guard<'a> {
    site: &'a Site,
    attempt: &'a str,
}

impl Guard<'_> {
    fn ended(&self, end: End) {
        self.site.world.history.ended(self.attempt, end);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.ended(End::Killed);
    }
}

#[async_trait]
impl NodeRunner for SimRunner {
    async fn run(&self, spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError> {
        let site = &*self.site;
        let attempt = spec.attempt.to_string();
        let of = &spec.context["run"];
        let text = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
        let (run, step) = (text("id"), text("step"));
        let (number, item) = (of["attempt"].as_u64().unwrap_or_default(), of["item"].as_u64());
        let refuses = {
            let mut random = site.random();
            site.world.is_foul() && random.per_mille(self.manners.refuses)
        };
        if refuses {
            site.say(&format!("has no worker for {attempt}"));
            site.world.met("fault: no worker");
            return Err(RunnerError::NoWorker {
                reason: "as the seed has it".into(),
            });
        }
        let _slot = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(report(Outcome::Cancelled, false)),
            slot = self.slots.acquire() => slot.map_err(|_| RunnerError::Stopping)?,
        };
        if cancel.is_cancelled() {
            return Ok(report(Outcome::Cancelled, false));
        }
        let got = match site.world.slip {
            Some(Slip::ForgetsArguments) => Value::Null,
            _ => spec.arguments,
        };
        let behaviour = Behaviour::of(&self.manners, (&run, &step, item), number);
        let Ok(run) = run.parse::<RunId>() else {
            return Err(RunnerError::Stopping);
        };
        site.say(&format!(
            "begins {attempt}, number {number} of {run} {step} {item:?}: {behaviour:?}"
        ));
        site.world.history.begun(
            &attempt,
            Begun {
                run,
                step,
                item: item.and_then(|item| u32::try_from(item).ok()),
                site: site.name.clone(),
                at: site.world.clock.elapsed(),
                end: None,
            },
        );
        let guard = Guard {
            site,
            attempt: &attempt,
        };
        let ended = tokio::select! {
            biased;
            () = site.dead.cancelled() => {
                guard.ended(End::Vanished);
                std::future::pending().await
            }
            () = cancel.cancelled() => None,
            () = tokio::time::sleep(spec.limits.wall()) => {
                let error = StepError::new("time_limit", "the attempt took too long");
                Some(Outcome::TimedOut { error })
            }
            ended = self.work(&behaviour, &spec.messages) => Some(match ended {
                Ok(()) => Outcome::Succeeded {
                    value: json!({
                        "attempt": attempt,
                        "n": behaviour.n,
                        "list": (0..behaviour.items).map(|place| 10 * behaviour.n + place).collect::<Vec<_>>(),
                        "done": behaviour.done,
                        "got": got,
                        "pad": "x".repeat(behaviour.pad),
                    }),
                },
                Err(error) => Outcome::Failed { error },
            }),
        };
        site.thawed().await;
        let outcome = match ended {
            None => {
                guard.ended(End::Killed);
                Outcome::Cancelled
            }
            Some(Outcome::Succeeded { value }) => {
                guard.ended(End::Returned(value.clone()));
                Outcome::Succeeded { value }
            }
            Some(outcome) => {
                guard.ended(End::Failed);
                outcome
            }
        };
        site.say(&format!("ends {attempt} as {}", name(&outcome)));
        Ok(report(outcome, behaviour.variables))
    }

    async fn describe(&self, _bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        Ok(self.manners.description.clone())
    }

    fn warm(&self, _bundle: &BundleRef, _module: &str, _rights: &Rights) {}

    fn slots(&self) -> usize {
        self.manners.slots
    }

    async fn shutdown(&self) {}

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        Ok(plain())
    }

    fn isolation(&self) -> Option<Isolation> {
        Some(plain())
    }

    fn status(&self) -> Value {
        json!({"simulated": true})
    }
}

fn plain() -> Isolation {
    Isolation {
        posture: Posture::unsaid(vec!["own_process"]),
        minimum: Tier::Process,
    }
}

const fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded { .. } => "succeeded",
        Outcome::Failed { .. } => "failed",
        Outcome::TimedOut { .. } => "timed out",
        Outcome::Cancelled => "cancelled",
    }
}

fn report(outcome: Outcome, variables: bool) -> AttemptReport {
    AttemptReport {
        outcome,
        variables: if variables { json!({"seen": true}) } else { json!({}) },
        timings: RunnerTimings::default(),
        output_bytes: 0,
        output_truncated: false,
        max_rss_kib: None,
        posture: Arc::new(vec!["simulated"]),
        network: None,
    }
}
