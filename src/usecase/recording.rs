//! What is kept of a run's attempts, for replaying them elsewhere; and keeping it.

use serde_json::Value;

use super::query_run::visible;
use super::{Context, Result};
use crate::authz::{Action, Extent, Resource};
use crate::domain::{Outcome, RECORDING_SCHEMA, RecordedOutcome, RecordedRun, Recording, RunId};
use crate::tenancy::{Denied, Scope};

/// Most bytes of recordings in one answer.
const ANSWER_BYTES: u64 = 32 << 20;
/// Most bytes of arguments, and of a value, that are kept of an attempt.
const VALUE_BYTES: usize = 512 << 10;

/// Of which attempts recordings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Of all.
    All,
    /// Of those that didn't succeed.
    Failed,
    /// Of none.
    Off,
}

impl Record {
    /// Whether one that ended like this is kept.
    pub(super) const fn wants(self, outcome: &Outcome) -> bool {
        match self {
            Self::All => true,
            Self::Failed => !matches!(outcome, Outcome::Succeeded { .. }),
            Self::Off => false,
        }
    }
}

/// Arguments as they are kept.
pub(super) fn bounded(value: Value) -> Option<Value> {
    (value.to_string().len() <= VALUE_BYTES).then_some(value)
}

/// An end as it is kept.
pub(super) fn outcome(outcome: &Outcome) -> RecordedOutcome {
    if let Outcome::Succeeded { value } = outcome {
        let bytes = value.to_string().len();
        if bytes > VALUE_BYTES {
            return RecordedOutcome::Cut {
                outcome: "succeeded".to_owned(),
                bytes: bytes as u64,
            };
        }
    }
    RecordedOutcome::Whole(outcome.clone())
}

/// Keeps a recording. An attempt is not harmed by one that can't be kept.
pub(super) async fn keep(cx: &Context, scope: &Scope, recording: Option<Recording>) {
    let Some(recording) = recording else { return };
    if let Err(error) = cx.recordings.keep(scope, &recording).await {
        tracing::warn!(run.id = %recording.run, error = %error, "an attempt can't be replayed: its recording could not be kept");
    }
}

/// A run with what is kept of its attempts, or of those of one step. In it is what the code was answered, which a caller who sees
/// only own runs need not be allowed to see: it takes the right to see every run.
///
/// # Errors
/// When the scope may not, there is no such run that it may know of, or storage fails.
pub async fn of_run(cx: &Context, scope: &Scope, id: &RunId, step: Option<&str>) -> Result<RecordedRun> {
    let run = visible(cx, scope, id, Action::Read).await?;
    if scope.authorize(Action::Read, Resource::Run)? != Extent::All {
        return Err(Denied {
            action: Action::Read,
            resource: Resource::Run,
            hint: "a recording holds what the code was answered; ask somebody who may see every run".to_owned(),
        }
        .into());
    }
    let [arguments, result, _] = super::query_run::values(cx, scope, &run).await?;
    let (mut attempts, left_out) = cx.recordings.of_run(scope, id, ANSWER_BYTES).await?;
    if let Some(step) = step {
        if run.new.plan.position(step).is_none() {
            return Err(super::Error::not_found(
                "step_not_found",
                format!("run `{id}` has no step `{step:.80}`"),
                "`GET /api/runs/{id}/steps` lists those that there are",
            ));
        }
        attempts.retain(|attempt| attempt.step == step);
    }
    Ok(RecordedRun {
        schema: RECORDING_SCHEMA,
        run: run.new.run.clone(),
        workflow: run.new.workflow.clone(),
        organization: scope.org().clone(),
        status: run.state.status,
        arguments,
        result,
        error: run.state.error.clone(),
        bundle: run.new.plan.bundle.clone(),
        environment: run.new.plan.environment.clone(),
        created_at: run.new.created_at,
        attempts,
        left_out,
    })
}

/// Whether storage had nothing of a run: it was not recorded, or is no longer kept.
#[must_use]
pub fn is_missing(run: &RecordedRun) -> bool {
    run.attempts.is_empty() && run.left_out.is_empty()
}
