//! Results of earlier runs, for steps that allow it: `cacheSeconds`.
//!
//! A result is found by a digest of everything that made it: organization, code, packages, function, arguments, rights and
//! limits. A change of any of them is another digest, so nothing has to be thrown away. What goes wrong with it costs an attempt,
//! never a run.

use std::time::Duration;

use serde_json::{Value, json};

use super::Context;
use crate::domain::{AttemptId, Payload, Timestamp, has_artifact, sha256_hex};
use crate::scheduler::Slot;
use crate::store::repo::results::Kept;
use crate::store::repo::runs::{AttemptRecord, StoredRun};
use crate::tenancy::Scope;

/// The digest of an attempt, where its step allows that its result is taken.
pub(super) fn digest(scope: &Scope, run: &StoredRun, slot: Slot, arguments: &Value) -> Option<String> {
    let step = &run.new.plan.steps[slot.0];
    step.cache_seconds?;
    let code = step.work.code()?;
    let made_of = json!({
        "organization": scope.org(),
        "bundle": run.new.plan.bundle,
        "environment": run.new.plan.environment,
        "module": code.module,
        "function": code.function,
        "version": code.digest,
        "arguments": arguments,
        "rights": code.rights,
        "limits": code.limits,
    });
    Some(sha256_hex(made_of.to_string().as_bytes()))
}

/// The result of a digest, where there is one.
pub(super) async fn look(cx: &Context, scope: &Scope, digest: &str) -> Option<Kept> {
    let found = match cx.results.get(scope, digest).await {
        // The run will refer to it for longer than this row does.
        Ok(Some(kept)) => cx.runs.rely(scope, &kept.output).await.map(|()| Some(kept)),
        found => found,
    };
    match found {
        Ok(kept) => kept,
        Err(error) => {
            tracing::warn!(error = %error, "kept results can't be read, the step is done");
            None
        }
    }
}

/// Keeps what an attempt gave, if it gave something.
pub(super) async fn keep(
    cx: &Context,
    scope: &Scope,
    run: &StoredRun,
    slot: Slot,
    digest: &str,
    output: Option<&Payload>,
) {
    let (Some(output), Some(seconds)) = (output, run.new.plan.steps[slot.0].cache_seconds) else {
        return;
    };
    match cx.runs.resolve(scope, output).await {
        // An artifact is its run's, and goes with it.
        Ok(value) if has_artifact(&value) => return,
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(run.id = %run.new.run, error = %error, "a result can't be read, and isn't kept for later runs");
            return;
        }
    }
    let good_for = Duration::from_secs(seconds).min(cx.bounds.cache.1);
    if let Err(error) = cx.results.put(scope, digest, output, &run.new.run, good_for).await {
        tracing::warn!(run.id = %run.new.run, error = %error, "a result could not be kept for later runs");
    }
}

/// The record of an attempt that was not made.
pub(super) fn record(
    run: &StoredRun,
    slot: Slot,
    attempt: &AttemptId,
    number: u32,
    kept: &Kept,
    now: Timestamp,
) -> AttemptRecord {
    AttemptRecord {
        step: run.new.plan.steps[slot.0].id.clone(),
        item: slot.1,
        id: attempt.clone(),
        number,
        cached: Some(kept.run.clone()),
        started_at: now,
        finished_at: now,
        outcome: "succeeded".to_owned(),
        error: None,
        max_rss_kib: None,
        output_bytes: 0,
        output_truncated: false,
        posture: Vec::new(),
        network: None,
    }
}
