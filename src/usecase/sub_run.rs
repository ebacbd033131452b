//! Runs that a step starts, looks at and waits for.
//!
//! A run that a step starts is its caller's as much as the step's own run is; what it may do, its own definition says. Its
//! id follows from the step and a key, so an attempt that is made again finds the run that the first has started.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::launch::{self, Launch};
use super::{Context, Error, Result};
use crate::authz::Origin;
use crate::domain::{Ask, RunId, SecurityProfile};
use crate::store::repo::runs::{Parent, Requester, StoredRun, sub_run};
use crate::tenancy::Scope;

/// How deep runs may start runs: a run that a person starts is at depth 0.
pub(super) const MAX_DEPTH: u32 = 8;

/// What a step asks for.
#[derive(Debug)]
pub(super) struct SubRun {
    /// The step that asks, with the depth of the new run.
    pub(super) parent: Parent,
    /// Whom the step's own run is for.
    pub(super) requester: Requester,
    /// Where the request came from that all this is part of.
    pub(super) origin: Origin,
    /// The workflow.
    pub(super) workflow: String,
    /// Its arguments.
    pub(super) arguments: Map<String, Value>,
    /// What tells this run from others of the step.
    pub(super) key: Key,
    /// The security profile that the step's own run was asked to keep.
    pub(super) profile: Option<SecurityProfile>,
}

/// What tells the runs of a step apart.
#[derive(Debug)]
pub(super) enum Key {
    /// The step says it.
    Given(String),
    /// The how-manieth without a key it is.
    Ordinal(u32),
}

/// Starts a run for a step, or finds that an earlier attempt has; whether it was there.
///
/// # Errors
/// When the workflow is unknown, the arguments are wrong, the key was used for something else, or storage fails.
pub(super) async fn start(cx: &Arc<Context>, scope: &Scope, input: SubRun) -> Result<(StoredRun, bool)> {
    let arguments_digest = launch::digest(&input.arguments);
    let cause = match &input.key {
        Key::Given(key) => format!("key:{key}"),
        Key::Ordinal(number) => format!("ordinal:{number}"),
    };
    let id = sub_run(scope.org(), &input.parent, &cause);
    if let Some(run) = cx.runs.get(scope, &id).await? {
        return found(run, &input.workflow, &input.key, &arguments_digest);
    }
    let launch = Launch {
        run: id,
        prepared: launch::prepare(
            cx,
            scope,
            &input.origin,
            &input.workflow,
            &input.arguments,
            input.profile,
        )
        .await?,
        requester: input.requester,
        origin: &input.origin,
        cause: json!({"parent": input.parent}),
        ask: Ask::default(),
        parent: Some(input.parent),
        resumes: None,
    };
    match launch::enqueue(cx, scope, launch).await? {
        // An attempt that was given up too early, and this one: the other was first.
        (run, true) => found(run, &input.workflow, &input.key, &arguments_digest),
        started => Ok(started),
    }
}

/// The run that an earlier attempt has started in this place.
fn found(run: StoredRun, workflow: &str, key: &Key, arguments_digest: &str) -> Result<(StoredRun, bool)> {
    let same = run.new.workflow == workflow
        && (matches!(key, Key::Ordinal(_)) || run.new.arguments_digest == arguments_digest);
    if same {
        return Ok((run, true));
    }
    let (detail, hint) = match key {
        Key::Given(key) => (
            format!(
                "the key `{key:.80}` was used in this step for another run (`{}`)",
                run.new.run
            ),
            "use one key for each run that the step starts",
        ),
        Key::Ordinal(_) => (
            format!(
                "an earlier attempt of this step started `{}` where this one starts `{workflow}`",
                run.new.workflow
            ),
            "give `runs.start` a key, so that the order doesn't matter",
        ),
    };
    Err(Error::conflict("idempotency_key_reused", detail, hint))
}

/// A run that a step may look at: one that its run has started, or that is of the same caller.
///
/// # Errors
/// When there is none of the organization that it may know of, or storage fails.
pub(super) async fn get(
    cx: &Context,
    scope: &Scope,
    own: &RunId,
    requester: &Requester,
    id: &RunId,
) -> Result<StoredRun> {
    let run = cx.runs.get(scope, id).await?;
    let visible = |run: &StoredRun| {
        let started_here = run.new.parent.as_ref().is_some_and(|parent| parent.run == *own);
        let same_caller = run.new.requester.kind == requester.kind && run.new.requester.id == requester.id;
        started_here || same_caller
    };
    run.filter(visible).ok_or_else(|| {
        Error::not_found(
            "run_not_found",
            format!("there is no run `{id}` that this one may look at"),
            "a step sees the runs that it has started, and those of its own caller",
        )
    })
}

/// Whether a run waits for the end of `own`, directly or above: waiting for it would never end.
///
/// # Errors
/// When storage fails.
pub(super) async fn is_above(
    cx: &Context,
    scope: &Scope,
    own: &RunId,
    parent: Option<&Parent>,
    id: &RunId,
) -> Result<bool> {
    if own == id {
        return Ok(true);
    }
    let mut above = parent.cloned();
    for _ in 0..=MAX_DEPTH {
        let Some(parent) = above else { return Ok(false) };
        if parent.run == *id {
            return Ok(true);
        }
        above = cx.runs.get(scope, &parent.run).await?.and_then(|run| run.new.parent);
    }
    Ok(false)
}

/// Waits until a run has ended, the time is up, or this instance is about to end; the run as it is then.
///
/// # Errors
/// When storage fails.
pub(super) async fn wait(cx: &Context, scope: &Scope, mut run: StoredRun, timeout: Duration) -> Result<StoredRun> {
    let until = Instant::now() + timeout;
    let end = cx.live.end_of(&run.new.run);
    let mut pause = Duration::from_millis(10);
    while !run.state.status.is_terminal() && Instant::now() < until {
        let rest = until - Instant::now();
        // Driven here, its end is heard at once; elsewhere it is found by looking.
        tokio::select! {
            biased;
            // Whoever waits is answered before the process is gone: the run goes on elsewhere.
            () = cx.live.left() => break,
            () = end.heard() => pause = Duration::from_millis(10),
            () = tokio::time::sleep(pause.min(rest)) => pause = (pause * 2).min(Duration::from_secs(1)),
        }
        if let Some(newer) = cx.runs.get(scope, &run.new.run).await? {
            run = newer;
        }
    }
    Ok(run)
}
