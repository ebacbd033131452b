//! A runner that makes no attempts: it plays outcomes that somebody has written down, by step. What a bundle declares is still
//! found out by the runner behind it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::jail::posture::Isolation;
use super::{AttemptReport, AttemptSpec, BundleDescription, BundleRef, NodeRunner, RunnerError, RunnerTimings};
use crate::domain::{Outcome, Rights, StepError};

/// Plays outcomes in their order; the last of a step is played again and again. A step without any fails as `no_outcome`.
pub struct Played {
    behind: Arc<dyn NodeRunner>,
    outcomes: Mutex<BTreeMap<String, VecDeque<Outcome>>>,
}

impl fmt::Debug for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Played").finish_non_exhaustive()
    }
}

impl Played {
    /// Outcomes by step, in front of a runner that describes bundles.
    #[must_use]
    pub fn new(behind: Arc<dyn NodeRunner>, outcomes: BTreeMap<String, Vec<Outcome>>) -> Self {
        let outcomes = outcomes.into_iter().map(|(step, list)| (step, list.into()));
        Self {
            behind,
            outcomes: Mutex::new(outcomes.collect()),
        }
    }

    fn next(&self, step: &str) -> Outcome {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = outcomes.get_mut(step) else {
            let message = format!("no outcome is written down for step `{step}`");
            return Outcome::Failed {
                error: StepError::new("no_outcome", message),
            };
        };
        let next = if list.len() > 1 {
            list.pop_front()
        } else {
            list.front().cloned()
        };
        next.unwrap_or(Outcome::Succeeded { value: Value::Null })
    }
}

#[async_trait]
impl NodeRunner for Played {
    async fn run(&self, spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError> {
        let step = spec
            .context
            .pointer("/run/step")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let outcome = if cancel.is_cancelled() {
            Outcome::Cancelled
        } else {
            self.next(step)
        };
        Ok(AttemptReport {
            outcome,
            variables: json!({}),
            timings: RunnerTimings::default(),
            output_bytes: 0,
            output_truncated: false,
            max_rss_kib: None,
            posture: Arc::default(),
            network: None,
        })
    }

    async fn describe(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        self.behind.describe(bundle).await
    }

    fn warm(&self, _bundle: &BundleRef, _module: &str, _rights: &Rights) {}

    fn slots(&self) -> usize {
        self.behind.slots()
    }

    async fn shutdown(&self) {
        self.behind.shutdown().await;
    }

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        self.behind.posture().await
    }

    fn isolation(&self) -> Option<Isolation> {
        self.behind.isolation()
    }

    fn status(&self) -> Value {
        json!({"played": true})
    }
}
