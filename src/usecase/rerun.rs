//! Run something again: a new run with the arguments of an earlier one, of the code that it ran or of today's.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::launch::{self, Prepared};
use super::start_run::{self, StartRun, Started};
use super::{Context, Result, query_run, resolve};
use crate::audit::LinkedRecord;
use crate::authz::{Action, Extent, Origin, Resource};
use crate::domain::{Ask, Begins, RunId, Timestamp};
use crate::tenancy::Scope;

/// Of which code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// What the earlier run was pinned to.
    Pinned,
    /// What is offered now.
    Current,
}

/// What is asked for.
#[derive(Debug)]
pub struct Rerun {
    /// The earlier run.
    pub run: RunId,
    /// Of which code.
    pub code: Code,
    /// How long to wait for the end; none to leave it to the queue.
    pub wait: Option<Duration>,
    /// The caller's key that makes a repeat return the first answer.
    pub idempotency_key: Option<String>,
    /// When the request arrived.
    pub received_at: Timestamp,
    /// From where.
    pub origin: Origin,
    /// Fires when whoever asks has hung up. The run goes on.
    pub gone: CancellationToken,
    /// Audit records of the request that are not listed yet.
    pub unindexed: Vec<LinkedRecord>,
}

/// Starts a new run with the arguments, the priority and the concurrency key of an earlier one, in the caller's name.
///
/// # Errors
/// When the scope may not run workflows or has no such run to see or of its own, its code is not here, the arguments don't fit today's code, a
/// policy refuses what it declares, or storage fails.
pub async fn rerun(cx: &Arc<Context>, scope: &Scope, input: Rerun) -> Result<Started> {
    scope.authorize(Action::Run, Resource::Workflow)?;
    // Whoever may not look at runs may still repeat what they have started themselves.
    let extent = scope.authorize(Action::Read, Resource::Run).unwrap_or(Extent::Own);
    let original = query_run::within(cx, scope, &input.run, extent).await?;
    let asked = launch::digest_of_code(&original.new.arguments_digest, &format!("rerun {:?}", input.code));
    let mut prepared = match input.code {
        Code::Pinned => {
            // Said now rather than by an attempt that fails.
            cx.catalogs.pinned(&original.new.plan.bundle).await?;
            resolve::still_trusted(cx, scope, &input.origin, &original.new.plan).await?;
            cx.runs.rely(scope, &original.new.arguments).await?;
            Prepared {
                workflow: original.new.workflow.clone(),
                plan: original.new.plan.as_ref().clone(),
                arguments: original.new.arguments.clone(),
                arguments_digest: original.new.arguments_digest.clone(),
                since: None,
            }
        }
        Code::Current => {
            let arguments = match cx.runs.resolve(scope, &original.new.arguments).await? {
                Value::Object(arguments) => arguments,
                _ => Map::new(),
            };
            launch::prepare(
                cx,
                scope,
                &input.origin,
                &original.new.workflow,
                &arguments,
                original.new.plan.profile,
            )
            .await?
        }
    };
    prepared.arguments_digest.clone_from(&asked);
    let start = StartRun {
        workflow: format!("{} again", original.new.run),
        draft: false,
        arguments: Map::new(),
        wait: input.wait,
        idempotency_key: input.idempotency_key,
        received_at: input.received_at,
        origin: input.origin,
        begins: Begins::AtOnce,
        gone: input.gone,
        ask: Ask {
            priority: original.new.ask.priority,
            concurrency: original.new.ask.concurrency.clone(),
            rerun_of: Some(original.new.run),
            // Of the same code with the same arguments it is the same plan.
            plan: original.new.ask.plan.filter(|_| input.code == Code::Pinned),
            ..Ask::default()
        },
        unindexed: input.unindexed,
    };
    let id = match start_run::id_or_answer(cx, scope, &start, &asked).await? {
        Ok(id) => id,
        Err(started) => return Ok(started),
    };
    start_run::begin(cx, scope, start, id, prepared).await
}
