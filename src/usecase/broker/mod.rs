//! What a worker may ask for, answered: one broker for each attempt.
//!
//! A broker is bound when it is made, to one organization, run, step and attempt, with their rights and a snapshot of the
//! configuration. No message of a worker says whose data is meant: there is no field for it, and one that is sent all the
//! same is refused. Each family of calls is a file. What a call over its rights, or about something foreign, gets is a
//! refusal, and the audit log a record; a flood of them is recorded up to a bound.

mod args;
mod artifacts;
mod config;
mod http;
mod kv;
mod mask;
mod pace;
mod refused;
mod secrets;
mod variables;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Context, Error};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::{AttemptId, Rights, RunId};
use crate::runner::Refusal;
use crate::store::repo::configs::Merged;
use crate::store::repo::runs::Requester;
use crate::tenancy::Scope;

pub(super) use mask::Masker;
use refused::{refusal, refusal_of};

/// What a call is answered with.
pub(super) type Answer = Result<Value, Refusal>;

/// How many refused calls of an attempt are recorded one by one; a flood would fill the audit log.
const RECORDED_REFUSALS: u32 = 10;
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
    writes: pace::Pace,
    uploads: artifacts::Uploads,
    secrets: secrets::Held,
    answers: http::Answers,
}

impl Broker {
    /// A broker of one attempt. Everything that the attempt says goes through the masker.
    pub(super) fn new(bound: Bound, masker: Arc<dyn Masker>) -> Self {
        Self {
            bound,
            masker,
            calls: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            writes: pace::Pace::default(),
            uploads: artifacts::Uploads::default(),
            secrets: secrets::Held::default(),
            answers: http::Answers::default(),
        }
    }

    /// What lines, outcomes and answers of the attempt pass before anybody else sees them.
    pub(super) fn masker(&self) -> &dyn Masker {
        &*self.masker
    }

    /// Answers one call.
    pub(super) async fn call(&self, name: &str, args: Value) -> Answer {
        let answer = self.answered(name, args).await;
        if let Err(refusal) = &answer
            && matches!(refusal.code.as_str(), "denied" | "not_found" | "not_available")
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

    /// As [`Broker::call`], sending the answer on.
    pub(super) fn serve<'a>(&'a self, name: String, args: Value, reply: oneshot::Sender<Answer>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let answer = self.call(&name, args).await;
            // A worker that is gone needs no answer.
            drop(reply.send(answer));
        })
    }

    async fn answered(&self, name: &str, args: Value) -> Answer {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS {
            return Err(refusal(
                "denied",
                format!("an attempt may make {CALLS} calls, and this one has; ask for more at once, and less often"),
            ));
        }
        match name.split_once('.') {
            Some(("artifacts", verb)) => artifacts::call(self, verb, args).await,
            Some(("config", verb)) => config::call(self, verb, args),
            Some(("http", verb)) => http::call(self, verb, args).await,
            Some(("secrets", verb)) => secrets::call(self, verb, args).await,
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

    /// Writes that the attempt wanted what it may not have.
    async fn record(&self, call: &str, code: &str) {
        if self.refused.fetch_add(1, Ordering::Relaxed) >= RECORDED_REFUSALS {
            return;
        }
        let Bound {
            cx,
            scope,
            origin,
            attempt,
            asker,
            ..
        } = &self.bound;
        let shown: String = call.chars().take(60).collect();
        let (kind, id) = match asker {
            Asker::Step { run, .. } => ("run", run.as_str()),
            Asker::DataProvider { name } => ("data_provider", name.as_str()),
        };
        let record = cx
            .audit
            .by(scope, AuditEvent::StepOverreached)
            .came_from(origin)
            .resource(kind, id)
            .detail(&json!({"call": shown, "code": code, "attempt": attempt}));
        let recorded = async {
            let linked = cx.audit.append(scope, record).await?;
            cx.audit.index(scope, &[linked]).await
        };
        if let Err(error) = recorded.await {
            tracing::error!(error = %error, "a refused broker call could not be recorded");
        }
    }
}
