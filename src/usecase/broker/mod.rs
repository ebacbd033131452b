//! What a worker may ask for, answered: one broker for each attempt.
//!
//! A broker is bound when it is made, to one organization, run, step and attempt, with their rights and a snapshot of the
//! configuration. No message of a worker says whose data is meant: there is no field for it, and one that is sent all the
//! same is refused. Each family of calls is a file. What a call over its rights, or about something foreign, gets is a
//! refusal, and the audit log a record; a flood of them is recorded up to a bound.

mod args;
mod artifacts;
mod config;
mod data;
mod http;
mod kv;
mod mask;
mod pace;
mod record;
mod refused;
mod runs;
mod secrets;
mod variables;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::{Context, Error};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::{AttemptId, Outcome, RecordedCall, Rights, RunId, SecurityProfile};
use crate::runner::{AttemptReport, Refusal, RefusedConnection};
use crate::store::repo::configs::Merged;
use crate::store::repo::runs::{Parent, Requester};
use crate::tenancy::Scope;

pub(super) use mask::Masker;
use refused::{is_away, refusal, refusal_of};

/// What a call is answered with.
pub(super) type Answer = Result<Value, Refusal>;

/// How many refused calls of an attempt are recorded one by one; a flood would fill the audit log.
const RECORDED_REFUSALS: u32 = 10;
/// How long a call that only reads waits for storage that is away; then it is refused as one that may be repeated, as a call that
/// writes is at once: whether that was done is not known.
const WAITS_FOR_STORAGE: Duration = Duration::from_secs(20);
/// Calls that only read.
const READS: &[&str] = &["artifacts.list", "artifacts.read", "kv.get", "kv.list", "runs.get"];
/// How many calls an attempt may make.
const CALLS: u32 = 10_000;

/// Whose code asks.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    /// A step of a run.
    Step {
        /// The run.
        run: RunId,
        /// Its workflow.
        workflow: String,
        /// The step's id in the run's plan.
        step: String,
        /// The step that started the run, if one did.
        parent: Option<Parent>,
    },
    /// A data provider, for a form or for a step. It is part of no run, and may ask for less.
    DataProvider {
        /// Its name.
        name: String,
    },
}

/// What a broker is bound to.
#[derive(Debug)]
pub(super) struct Bound {
    /// Everything that operations need.
    pub(super) cx: Arc<Context>,
    /// The organization.
    pub(super) scope: Scope,
    /// Where the request came from that the attempt is part of.
    pub(super) origin: Origin,
    /// Who started the run.
    pub(super) requester: Requester,
    /// Whose code asks.
    pub(super) asker: Asker,
    /// The attempt.
    pub(super) attempt: AttemptId,
    /// What it may do.
    pub(super) rights: Rights,
    /// The security profile that its run was asked to keep, and whatever it starts.
    pub(super) profile: Option<SecurityProfile>,
    /// The plan that its run is held to.
    pub(super) plan: Option<String>,
    /// Secrets that it may ask for, by name.
    pub(super) secrets: Vec<String>,
    /// The organization's configuration when the attempt began.
    pub(super) config: Merged,
}

/// Answers the calls of one attempt, and masks what leaves it.
#[derive(Debug)]
pub(super) struct Broker {
    bound: Bound,
    masker: Arc<dyn Masker>,
    calls: AtomicU32,
    refused: AtomicU32,
    recorder: Option<record::Recorder>,
    writes: pace::Pace,
    uploads: artifacts::Uploads,
    secrets: secrets::Held,
    answers: http::Answers,
    /// Held from the first wait for a run on, until one has ended.
    waiting: Mutex<Option<OwnedSemaphorePermit>>,
    /// Whether a call was refused because storage was away.
    was_away: AtomicBool,
    started: AtomicU32,
    unkeyed: AtomicU32,
}

impl Broker {
    /// A broker of one attempt. Everything that the attempt says goes through the masker.
    pub(super) fn new(bound: Bound, masker: Arc<dyn Masker>) -> Self {
        Self {
            bound,
            masker,
            calls: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            recorder: None,
            writes: pace::Pace::default(),
            uploads: artifacts::Uploads::default(),
            secrets: secrets::Held::default(),
            answers: http::Answers::default(),
            waiting: Mutex::default(),
            was_away: AtomicBool::new(false),
            started: AtomicU32::new(0),
            unkeyed: AtomicU32::new(0),
        }
    }

    /// The same, which takes notes of what is asked and answered.
    pub(super) fn recording(mut self) -> Self {
        self.recorder = Some(record::Recorder::default());
        self
    }

    /// The notes, and how many calls are not among them. They are not masked yet.
    pub(super) fn recorded(&self) -> Option<(Vec<RecordedCall>, u64)> {
        self.recorder.as_ref().map(record::Recorder::take)
    }

    /// What lines, outcomes and answers of the attempt pass before anybody else sees them.
    pub(super) fn masker(&self) -> &dyn Masker {
        &*self.masker
    }

    /// Answers one call.
    pub(super) async fn call(&self, name: &str, args: Value) -> Answer {
        let answer = self.answered_in_time(name, args).await;
        if let Err(refusal) = &answer
            && matches!(refusal.code.as_str(), "denied" | "not_available")
        {
            self.record(name, &refusal.code).await;
        }
        match answer {
            // An answer goes back to the code that is masked, and what it has kept must come back as it was.
            Ok(value) => Ok(value),
            Err(refusal) => Err(Refusal {
                message: self.masker.text(refusal.message),
                ..refusal
            }),
        }
    }

    /// Takes note of how the attempt ended, and masks it. One that disturbed its connection wanted more than it may.
    pub(super) async fn finish(&self, mut report: AttemptReport) -> AttemptReport {
        if let Outcome::Failed { error } = &report.outcome
            && error.kind == "protocol_violation"
        {
            self.record("(frame)", "protocol_violation").await;
        }
        // It ended because of us, and says so only in words.
        if let Outcome::Failed { error } = &mut report.outcome
            && error.kind == "Unavailable"
            && self.was_away.load(Ordering::Relaxed)
        {
            let said = std::mem::take(&mut error.message);
            error.kind = "storage_unavailable".to_owned();
            error.message = format!("the step asked for something while storage was away, and ended for that: {said}");
            error.retriable = Some(true);
        }
        self.masker.report(report)
    }

    /// As [`Broker::call`], sending the answer on.
    pub(super) fn serve<'a>(&'a self, name: String, args: Value, reply: oneshot::Sender<Answer>) -> BoxFuture<'a, ()> {
        // Here, and not when it is answered: the order is that of the questions.
        let noted = self
            .recorder
            .as_ref()
            .and_then(|recorder| Some((recorder, recorder.asked(&name, &args)?)));
        Box::pin(async move {
            let answer = self.call(&name, args).await;
            if let Some((recorder, place)) = noted {
                recorder.answered(place, &answer);
            }
            // A worker that is gone needs no answer.
            drop(reply.send(answer));
        })
    }

    /// The answer, waiting for storage a while where asking twice is as good as once.
    async fn answered_in_time(&self, name: &str, args: Value) -> Answer {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS {
            return Err(refusal(
                "denied",
                format!("an attempt may make {CALLS} calls, and this one has; ask for more at once, and less often"),
            ));
        }
        let until = Instant::now() + WAITS_FOR_STORAGE;
        let mut pause = Duration::from_millis(100);
        let mut again = READS.contains(&name).then(|| args.clone());
        let mut args = args;
        loop {
            let answer = self.answered(name, args).await;
            if !answer.as_ref().is_err_and(is_away) {
                return answer;
            }
            let next = again.take_if(|_| Instant::now() + pause < until);
            let Some(next) = next else {
                self.was_away.store(true, Ordering::Relaxed);
                return answer;
            };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
            again = Some(next.clone());
            args = next;
        }
    }

    async fn answered(&self, name: &str, args: Value) -> Answer {
        match name.split_once('.') {
            Some(("artifacts", verb)) => artifacts::call(self, verb, args).await,
            Some(("config", verb)) => config::call(self, verb, args),
            Some(("http", verb)) => http::call(self, verb, args).await,
            Some(("secrets", verb)) => secrets::call(self, verb, args).await,
            Some(("data", verb)) => data::call(self, verb, args).await,
            Some(("runs", verb)) => runs::call(self, verb, args).await,
            Some(("kv", verb)) => kv::call(self, verb, args).await,
            Some(("variables", verb)) => variables::call(self, verb, args),
            _ => Err(self.not_available(name)),
        }
    }

    /// Waits until the attempt may write again.
    async fn pace_writes(&self) -> Result<(), Refusal> {
        if self.writes.turn().await {
            return Ok(());
        }
        let most = pace::WRITES_PER_SECOND;
        Err(refusal(
            "unavailable",
            format!(
                "an attempt may write {most} times a second, and too many of its writes wait already; write less often"
            ),
        ))
    }

    /// The refusal of a call that there is not, or not for this kind of code.
    fn not_available(&self, name: &str) -> Refusal {
        let shown: String = name.chars().take(60).collect();
        let message = match &self.bound.asker {
            Asker::Step { .. } => format!("`{shown}` is not available in this version of Weft"),
            Asker::DataProvider { name } => format!("`{shown}` is not available in a data provider, as `{name}` is"),
        };
        refusal("not_available", message)
    }

    /// Writes that the attempt wanted what it may not have. What merely isn't there is no such thing, unless it was named by
    /// an id, which nobody guesses by accident.
    async fn record(&self, call: &str, code: &str) {
        let shown: String = call.chars().take(60).collect();
        self.write(json!({"call": shown, "refusal": code})).await;
    }

    /// Writes that the attempt wanted a connection that it may not have.
    pub(super) async fn record_connection(&self, refused: &RefusedConnection) {
        self.write(json!({"connection": refused.target, "reason": refused.reason}))
            .await;
    }

    async fn write(&self, mut detail: Value) {
        if self.refused.fetch_add(1, Ordering::Relaxed) >= RECORDED_REFUSALS {
            return;
        }
        let event = match &self.bound.plan {
            Some(plan) => {
                detail["plan"] = json!(plan);
                AuditEvent::PlanExceeded
            }
            None => AuditEvent::StepOverreached,
        };
        self.append(event, detail).await;
    }

    /// Writes that something was refused to the attempt that it may otherwise do.
    async fn record_as(&self, event: AuditEvent, detail: Value) {
        if self.refused.fetch_add(1, Ordering::Relaxed) < RECORDED_REFUSALS {
            self.append(event, detail).await;
        }
    }

    async fn append(&self, event: AuditEvent, mut detail: Value) {
        let Bound {
            cx,
            scope,
            origin,
            attempt,
            asker,
            rights,
            ..
        } = &self.bound;
        detail["attempt"] = json!(attempt);
        detail["trust"] = json!(rights.trust.as_str());
        let (kind, id) = match asker {
            Asker::Step { run, .. } => ("run", run.as_str()),
            Asker::DataProvider { name } => ("data_provider", name.as_str()),
        };
        let record = cx
            .audit
            .by(scope, event)
            .came_from(origin)
            .resource(kind, id)
            .detail(&detail);
        let recorded = async {
            let linked = cx.audit.append(scope, record).await?;
            cx.audit.index(scope, &[linked]).await
        };
        if let Err(error) = recorded.await {
            tracing::error!(error = %error, "a refusal could not be recorded");
        }
    }
}
