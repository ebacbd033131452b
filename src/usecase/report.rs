//! What an attempt has left, as its run keeps it: values beside the run, errors cut to what rows hold.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::attempt::Done;
use super::{Context, Result};
use crate::domain::{Outcome, Payload, StepError, Timestamp};
use crate::store;
use crate::store::repo::runs::{AttemptRecord, Reported, StoredRun, Timings};
use crate::tenancy::Scope;

/// Keeps what an attempt has left; tries for so long while storage is away.
///
/// # Errors
/// When storage fails.
pub(super) async fn keep(
    cx: &Context,
    scope: &Scope,
    run: &StoredRun,
    done: Done,
    now: Timestamp,
    patience: Duration,
) -> Result<Reported> {
    let Done {
        slot,
        attempt,
        number,
        started_at,
        report,
    } = done;
    let mut output: Option<Payload> = None;
    let (outcome, name, error) = match report.outcome {
        Outcome::Succeeded { value } => {
            let kept = keep_trying(patience, || cx.runs.keep(scope, value.clone())).await?;
            output = Some(kept);
            let value = serde_json::Value::Null;
            (Outcome::Succeeded { value }, "succeeded", None)
        }
        Outcome::Failed { error } => {
            let error = bounded(error);
            (Outcome::Failed { error: error.clone() }, "failed", Some(error))
        }
        Outcome::TimedOut { error } => {
            let error = bounded(error);
            (Outcome::TimedOut { error: error.clone() }, "timed_out", Some(error))
        }
        Outcome::Cancelled => {
            let message = "the instance that made the attempt stopped, and the attempt with it";
            (Outcome::Cancelled, "failed", Some(StepError::new("crashed", message)))
        }
    };
    let set = report
        .variables
        .as_object()
        .is_some_and(|variables| !variables.is_empty());
    let variables = if set {
        Some(keep_trying(patience, || cx.runs.keep(scope, report.variables.clone())).await?)
    } else {
        None
    };
    Ok(Reported {
        slot,
        record: AttemptRecord {
            step: run.new.plan.steps[slot.0].id.clone(),
            item: slot.1,
            id: attempt,
            number,
            cached: None,
            started_at,
            finished_at: now,
            outcome: name.to_owned(),
            error: error.map(|error| StepError {
                traceback: None,
                data: None,
                ..error
            }),
            max_rss_kib: report.max_rss_kib,
            output_bytes: report.output_bytes,
            output_truncated: report.output_truncated,
            posture: report.posture.iter().map(ToString::to_string).collect(),
            network: report.network,
        },
        outcome,
        output,
        variables,
        timings: Timings {
            boot_ms: report.timings.boot_ms,
            import_ms: report.timings.import_ms,
            user_ms: report.timings.user_ms,
            ..Timings::default()
        },
    })
}

/// Does something with storage, again and again while storage is away, for at most so long.
///
/// # Errors
/// The last one.
pub(super) async fn keep_trying<T, F, R>(patience: Duration, mut work: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = store::port::Result<T>>,
{
    let begun = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        match work().await {
            Ok(value) => return Ok(value),
            Err(store::Error::Unavailable { .. } | store::Error::Throttled { .. }) if begun.elapsed() < patience => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What user code put into its error, cut to what a row holds.
fn bounded(mut error: StepError) -> StepError {
    const MESSAGE: usize = 4 * 1024;
    const TRACEBACK: usize = 12 * 1024;
    const DATA: usize = 4 * 1024;
    let cut = |text: &mut String, limit: usize| {
        if text.len() > limit {
            let mut end = limit;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(" … (cut)");
        }
    };
    cut(&mut error.kind, 200);
    cut(&mut error.message, MESSAGE);
    if let Some(traceback) = &mut error.traceback {
        cut(traceback, TRACEBACK);
    }
    if error.data.as_ref().is_some_and(|data| data.to_string().len() > DATA) {
        error.data = Some(json!({"cut": format!("more than {DATA} bytes")}));
    }
    error
}
