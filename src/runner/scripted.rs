//! A runner without processes, for tests of everything above it: it plays what it was told, by the entry's name.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::jail::posture::{Isolation, Posture};
use super::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, NodeRunner, RunnerError, RunnerTimings, WorkerMessage,
};
use crate::domain::{Limits, Outcome, Rights, StepError, Tier};

/// What one attempt does.
#[derive(Debug, Default)]
pub struct Scene {
    /// Said first, in this order.
    pub messages: Vec<WorkerMessage>,
    /// Waited then; a cancelled attempt waits no longer.
    pub takes: Duration,
    /// How it ends; without one: with the arguments as its value.
    pub end: Option<Result<Outcome, RunnerError>>,
    /// Whether it had no worker, and so nothing that kept it apart.
    pub is_without_worker: bool,
}

impl Scene {
    /// Ends with an outcome, at once.
    #[must_use]
    pub fn ends(outcome: Outcome) -> Self {
        Self {
            end: Some(Ok(outcome)),
            ..Self::default()
        }
    }

    /// Ends with an outcome before it had a worker.
    #[must_use]
    pub fn without_worker(outcome: Outcome) -> Self {
        Self {
            is_without_worker: true,
            ..Self::ends(outcome)
        }
    }

    /// Returns a value, at once.
    #[must_use]
    pub fn returns(value: Value) -> Self {
        Self::ends(Outcome::Succeeded { value })
    }

    /// Raises, at once.
    pub fn raises(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self::ends(Outcome::Failed {
            error: StepError::new(kind, message),
        })
    }

    /// Never runs: the runner itself refuses.
    #[must_use]
    pub fn refused(error: RunnerError) -> Self {
        Self {
            end: Some(Err(error)),
            ..Self::default()
        }
    }

    /// Ends after a while, or as cancelled.
    #[must_use]
    pub fn after(mut self, takes: Duration) -> Self {
        self.takes = takes;
        self
    }

    /// Says something before its end.
    #[must_use]
    pub fn says(mut self, message: WorkerMessage) -> Self {
        self.messages.push(message);
        self
    }
}

/// What the runner was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The entry's name.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
    /// Its context.
    pub context: Value,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub rights: Rights,
    /// Whether it was to leave the processors to others.
    pub is_nice: bool,
}

/// Plays scenes. Each entry has a queue of them; the one before its end is the last, an entry without any echoes its
/// arguments.
#[derive(Debug, Default)]
pub struct Scripted {
    scenes: Mutex<HashMap<String, VecDeque<Scene>>>,
    /// How long an entry takes that has no scene left.
    takes: Mutex<HashMap<String, Duration>>,
    playing: Arc<AtomicUsize>,
    description: Mutex<BundleDescription>,
    asked: Mutex<Vec<Asked>>,
    isolation: Mutex<Option<Isolation>>,
}

impl Scripted {
    /// A runner without a script.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a scene for the next attempt of an entry that has none left.
    #[must_use]
    pub fn on(self, name: &str, scene: Scene) -> Self {
        self.push(name, scene);
        self
    }

    /// As [`Scripted::on`], later.
    pub fn push(&self, name: &str, scene: Scene) {
        lock(&self.scenes).entry(name.to_owned()).or_default().push_back(scene);
    }

    /// Drops the scenes that an entry has left.
    pub fn clear(&self, name: &str) {
        lock(&self.scenes).remove(name);
    }

    /// How long an attempt of an entry takes that has no scene left.
    pub fn takes(&self, name: &str, time: Duration) {
        lock(&self.takes).insert(name.to_owned(), time);
    }

    /// How many attempts are being made.
    #[must_use]
    pub fn playing(&self) -> usize {
        self.playing.load(Ordering::SeqCst)
    }

    /// What every bundle declares.
    pub fn describes(&self, description: BundleDescription) {
        *lock(&self.description) = description;
    }

    /// What keeps attempts apart, as it says.
    pub fn isolates(&self, isolation: Isolation) {
        *lock(&self.isolation) = Some(isolation);
    }

    /// Every attempt so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

/// Counts as being made until it is dropped.
struct Playing(Arc<AtomicUsize>);

impl Playing {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn plain() -> Isolation {
    Isolation {
        posture: Posture::unsaid(vec!["own_process"]),
        minimum: Tier::Process,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl NodeRunner for Scripted {
    async fn run(&self, spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError> {
        lock(&self.asked).push(Asked {
            name: spec.entry.name.clone(),
            arguments: spec.arguments.clone(),
            context: spec.context.clone(),
            limits: spec.limits.clone(),
            rights: spec.rights.clone(),
            is_nice: spec.is_nice,
        });
        let scene = lock(&self.scenes)
            .get_mut(&spec.entry.name)
            .and_then(VecDeque::pop_front)
            .unwrap_or_else(|| Scene {
                takes: lock(&self.takes).get(&spec.entry.name).copied().unwrap_or_default(),
                ..Scene::default()
            });
        let _playing = Playing::begin(&self.playing);
        for message in scene.messages {
            if spec.messages.send(message).await.is_err() {
                break;
            }
        }
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Outcome::Cancelled,
            () = tokio::time::sleep(scene.takes) => match scene.end {
                Some(end) => end?,
                // Options are a list.
                None if spec.entry.kind == "data_provider" => Outcome::Succeeded {
                    value: spec.arguments.as_object().into_iter().flat_map(|all| all.values().cloned()).collect(),
                },
                None => Outcome::Succeeded { value: spec.arguments },
            },
        };
        Ok(AttemptReport {
            outcome,
            variables: json!({}),
            timings: RunnerTimings::default(),
            output_bytes: 0,
            output_truncated: false,
            max_rss_kib: None,
            posture: Arc::new(if scene.is_without_worker {
                Vec::new()
            } else {
                vec!["scripted"]
            }),
            network: None,
        })
    }

    async fn describe(&self, _bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        Ok(lock(&self.description).clone())
    }

    fn warm(&self, _bundle: &BundleRef, _module: &str, _rights: &Rights) {}

    fn slots(&self) -> usize {
        4
    }

    async fn shutdown(&self) {}

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        Ok(lock(&self.isolation).clone().unwrap_or_else(plain))
    }

    fn isolation(&self) -> Option<Isolation> {
        Some(lock(&self.isolation).clone().unwrap_or_else(plain))
    }

    fn status(&self) -> Value {
        json!({"scripted": true, "attempts": lock(&self.asked).len()})
    }
}
