//! Call a data provider: code of the workspace that returns the options of a form field.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::broker::{Asker, Bound, Broker};
use super::{Context, Error, Result, policy};
use crate::authz::{Action, Origin, Resource};
use crate::definition::validate;
use crate::domain::{AttemptId, Declared, Limits, Outcome, Parameter, Rights, SecurityProfile};
use crate::error::Kind;
use crate::runner::{AttemptSpec, Entry, WorkerMessage};
use crate::secrets::mask::Masker;
use crate::store::repo::runs::Requester;
use crate::tenancy::Scope;

/// Longest time that a form waits for its options.
const WALL_MS: u64 = 30_000;

/// The data providers, by name.
///
/// # Errors
/// When the scope may not, or the workspace can't be read.
pub async fn list(cx: &Context, scope: &Scope) -> Result<Vec<Declared>> {
    scope.authorize(Action::List, Resource::DataProvider)?;
    Ok(cx
        .catalogs
        .current()
        .await?
        .catalog
        .data_providers
        .values()
        .cloned()
        .collect())
}

/// What a data provider takes; nothing when there is none of this name.
///
/// # Errors
/// When the scope may not call it, or the workspace can't be read.
pub async fn inputs(cx: &Context, scope: &Scope, name: &str) -> Result<Vec<Parameter>> {
    scope.authorize(Action::Run, Resource::DataProvider)?;
    let current = cx.catalogs.current().await?;
    let provider = current.catalog.data_providers.get(name);
    Ok(provider.map(|provider| provider.parameters.clone()).unwrap_or_default())
}

/// The options that a data provider returns for these inputs.
///
/// # Errors
/// When the scope may not, there is none of this name, the inputs are wrong, a policy refuses what it
/// declares, or its code fails.
pub async fn provide(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    name: &str,
    inputs: Map<String, Value>,
) -> Result<Value> {
    scope.authorize(Action::Run, Resource::DataProvider)?;
    let requester = super::start_run::requester(scope);
    call(cx, scope, origin, (&requester, None), name, inputs).await
}

/// As [`provide`], for somebody who has the right to, and held to the security profile of the run that asks.
///
/// # Errors
/// When there is none of this name, the inputs are wrong, or its code fails.
pub(super) async fn call(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    (requester, profile): (&Requester, Option<SecurityProfile>),
    name: &str,
    inputs: Map<String, Value>,
) -> Result<Value> {
    let current = cx.catalogs.current().await?;
    let Some(provider) = current.catalog.data_providers.get(name) else {
        let shown: String = name.chars().take(80).collect();
        let known: Vec<_> = current
            .catalog
            .data_providers
            .keys()
            .take(20)
            .map(|known| format!("`{known}`"))
            .collect();
        return Err(Error::not_found(
            "data_provider_not_found",
            format!("there is no data provider `{shown}`"),
            format!(
                "the workspace declares {}",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            ),
        ));
    };
    let arguments = validate(&provider.parameters, &inputs).map_err(|findings| {
        Error::invalid(
            "arguments_invalid",
            format!("the inputs of `{name}` have {} finding(s)", findings.len()),
            "`GET /api/data-providers` shows the parameters of each",
            findings,
        )
    })?;
    let now = cx.clock.now();
    let config = cx.configs.merged(scope).await?;
    let limits = cx.bounds.attempt.min(&Limits {
        wall_ms: WALL_MS,
        ..cx.bounds.attempt.clone()
    });
    let declared = Rights::of_workspace(&provider.network);
    let allowed = policy::admit(cx, scope, origin, provider, profile, (&declared, &limits)).await?;
    let (rights, limits) = (allowed.rights, allowed.limits);
    let attempt = AttemptId::generate(now, cx.entropy.bytes());
    let (messages, mut received) = mpsc::channel(64);
    let spec = AttemptSpec {
        context: json!({
            "organization": {"id": scope.org(), "name": scope.org_name()},
            "caller": {"kind": requester.kind, "id": requester.id, "name": requester.name, "claimed_user": requester.claimed_user},
            "run": {"id": origin.request_id, "workflow": name, "attempt": 1, "attempt_id": attempt, "step": name,
                    "idempotency_key": origin.request_id, "started_at": now, "deadline": now.plus(limits.wall()), "test": false},
            "config": config.as_ref(),
        }),
        attempt: attempt.clone(),
        bundle: current.bundle.clone(),
        entry: Entry {
            kind: "data_provider".to_owned(),
            name: name.to_owned(),
            module: provider.module.clone(),
            function: provider.function.clone(),
        },
        source: None,
        arguments: Value::Object(arguments),
        limits,
        rights: rights.clone(),
        // Somebody looks at a form and waits.
        is_first: true,
        messages,
    };
    let bound = Bound {
        cx: cx.clone(),
        scope: scope.clone(),
        origin: origin.clone(),
        requester: requester.clone(),
        asker: Asker::DataProvider { name: name.to_owned() },
        attempt: attempt.clone(),
        rights,
        profile: None,
        plan: None,
        secrets: Vec::new(),
        config,
    };
    let broker = Broker::new(bound, Arc::new(Masker::default()));
    let serve = async {
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = calls.next(), if !calls.is_empty() => {}
                message = received.recv() => match message {
                    Some(WorkerMessage::Call { name, args, reply }) => calls.push(broker.serve(name, args, reply)),
                    Some(WorkerMessage::RefusedConnection(refused)) => broker.record_connection(&refused).await,
                    // A data provider has no log.
                    Some(_) => {}
                    None => break,
                },
            }
        }
    };
    let run = async {
        // A step that asks has a slot, and waits for this.
        let _slot = cx.admission.gate.slot(scope.org(), true).await?;
        cx.runner.run(spec, CancellationToken::new()).await
    };
    let (report, ()) = tokio::join!(run, serve);
    let report = report?;
    let resource = ("data_provider", name);
    super::isolation::record_refusal(cx, scope, origin, resource, (name, &attempt), &report).await;
    match broker.finish(report).await.outcome {
        Outcome::Succeeded { value } => Ok(value),
        Outcome::Failed { error } | Outcome::TimedOut { error } => Err(Error::Request {
            kind: Kind::CodeFailed,
            code: "data_provider_failed",
            detail: format!(
                "data provider `{name}` failed with {:.200}: {:.2000}",
                error.kind, error.message
            ),
            hint: Some("mend the provider's code, or choose a value by hand".to_owned()),
            findings: Vec::new(),
        }),
        Outcome::Cancelled => Err(Error::unavailable(
            "stopping",
            "the handler is stopping",
            "repeat the request",
        )),
    }
}
