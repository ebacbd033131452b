//! Call a data provider: code of the workspace that returns the options of a form field, or the engine itself.

mod built_in;
mod kept;
mod option;
mod strict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::Purpose;
use super::broker::{Asker, Bound, Broker};
use super::{Context, Error, Result, policy};
use crate::authz::{Action, Origin, Resource};
use crate::definition::{BUILT_IN_PROVIDERS, SEARCH, built_in_providers, validate};
use crate::domain::{AttemptId, Declared, Limits, Outcome, Parameter, Rights, SecurityProfile, sha256_hex};
use crate::error::Kind;
use crate::runner::{AttemptSpec, BundleRef, Entry, RunnerError, WorkerMessage};
use crate::secrets::mask::Masker;
use crate::store::port::Continuation;
use crate::store::repo::configs::Merged;
use crate::store::repo::runs::Requester;
use crate::store::{self, cursor};
use crate::tenancy::Scope;

pub(super) use self::kept::Kept;
pub use self::option::DataOption;
pub(super) use self::strict::options_hold;

/// Longest time that a form waits for its options.
const WALL_MS: u64 = 30_000;
/// Longest time that it waits for a worker before that.
const IN_LINE: Duration = Duration::from_secs(10);
/// Longest time that an answer is kept, in seconds.
const LONGEST_KEPT: u64 = 24 * 3600;

/// What a form asks for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The data provider.
    pub provider: String,
    /// Its inputs.
    pub inputs: Map<String, Value>,
    /// What somebody has typed into the field.
    pub search: Option<String>,
}

/// A page of options.
#[derive(Debug)]
pub struct Options {
    /// Some of them.
    pub items: Vec<DataOption>,
    /// Where the next page begins, for the same provider, inputs and search; none at the end.
    pub next: Option<String>,
    /// How many there are, of those that are searched for.
    pub total: usize,
}

/// The data providers, by name: the workspace's, and then the engine's.
///
/// # Errors
/// When the scope may not, or the workspace can't be read.
pub async fn list(cx: &Context, scope: &Scope) -> Result<Vec<Declared>> {
    scope.authorize(Action::List, Resource::DataProvider)?;
    let current = cx.catalogs.current().await?;
    let workspace = current.catalog.data_providers.values().cloned();
    Ok(workspace.chain(built_in_providers()).collect())
}

/// Whether a name is one of the engine's own.
fn built_in(name: &str) -> Option<Declared> {
    let is_built_in = name.starts_with(BUILT_IN_PROVIDERS);
    is_built_in
        .then(built_in_providers)?
        .into_iter()
        .find(|one| one.name == name)
}

/// What a data provider takes; nothing when there is none of this name.
///
/// # Errors
/// When the scope may not call it, or the workspace can't be read.
pub async fn inputs(cx: &Context, scope: &Scope, name: &str) -> Result<Vec<Parameter>> {
    scope.authorize(Action::Run, Resource::DataProvider)?;
    if let Some(provider) = built_in(name) {
        return Ok(provider.parameters);
    }
    let current = cx.catalogs.current().await?;
    let provider = current.catalog.data_providers.get(name);
    Ok(provider.map(|provider| provider.parameters.clone()).unwrap_or_default())
}

/// A page of the options of a field, from the end of another on.
///
/// # Errors
/// When the scope may not, the cursor is none of a page of the same, there is none of this name, the inputs are wrong, a policy
/// refuses what it declares, its code fails, or what that returns are no options.
pub async fn options(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    asked: Asked,
    (after, limit): (Option<String>, usize),
) -> Result<Options> {
    scope.authorize(Action::Run, Resource::DataProvider)?;
    let conditions = conditions(&asked);
    let place = [scope.org().as_str(), "data_provider", &asked.provider, &conditions].map(str::to_owned);
    let place = place.each_ref().map(String::as_str);
    let after = match after {
        Some(after) => place_of(&place, &Continuation(after)).map_err(|error| Error::of_page(error, true))?,
        None => 0,
    };
    let all = all(cx, scope, origin, asked).await?;
    let total = all.len();
    let items: Vec<_> = all.into_iter().skip(after).take(limit).collect();
    let end = after.saturating_add(items.len());
    Ok(Options {
        items,
        next: (end < total).then(|| cursor::write(&place, &end.to_string()).0),
        total,
    })
}

/// What a cursor is good for, in whatever order it is said.
fn conditions(asked: &Asked) -> String {
    let inputs: BTreeMap<_, _> = asked.inputs.iter().collect();
    json!([inputs, asked.search.as_deref().unwrap_or_default()]).to_string()
}

/// How many options were before a cursor.
fn place_of(place: &[&str], after: &Continuation) -> store::port::Result<usize> {
    let number = cursor::read(place, after)?;
    number.parse().map_err(|_| store::Error::Malformed {
        what: number,
        expected: "number of options",
    })
}

/// All options that are asked for, for somebody who has the right to.
async fn all(cx: &Arc<Context>, scope: &Scope, origin: &Origin, asked: Asked) -> Result<Vec<DataOption>> {
    let Asked {
        provider: name,
        mut inputs,
        search,
    } = asked;
    let part = search.as_deref().map(|search| search.trim().to_lowercase());
    let part = part.filter(|part| !part.is_empty());
    let (mut options, searches) = match built_in(&name) {
        Some(provider) => {
            let inputs = checked(&provider, &inputs)?;
            (built_in::options(cx, scope, &name, &inputs).await?, false)
        }
        None => {
            let current = cx.catalogs.current().await?;
            let declared = current.catalog.data_providers.get(&name);
            let searches = declared.is_some_and(|one| one.parameters.iter().any(|input| input.name == SEARCH));
            if let (true, Some(search)) = (searches, search) {
                inputs.insert(SEARCH.to_owned(), Value::from(search));
            }
            let requester = super::start_run::requester(scope);
            let answer = call(cx, scope, origin, (&requester, None), Purpose::Form, (&name, inputs)).await?;
            (option::read(&name, &answer)?, searches)
        }
    };
    if let (false, Some(part)) = (searches, part) {
        options.retain(|option| option.says(&part));
    }
    Ok(options)
}

/// The inputs with defaults.
fn checked(provider: &Declared, inputs: &Map<String, Value>) -> Result<Map<String, Value>> {
    validate(&provider.parameters, inputs).map_err(|findings| {
        Error::invalid(
            "arguments_invalid",
            format!("the inputs of `{}` have {} finding(s)", provider.name, findings.len()),
            "`GET /api/data-providers` shows the parameters of each",
            findings,
        )
    })
}

/// What a data provider of the workspace returns for these inputs, for somebody who has the right to; held to the security profile
/// of the run that asks.
///
/// # Errors
/// When there is none of this name, the inputs are wrong, or its code fails.
pub(super) async fn call(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    (requester, profile): (&Requester, Option<SecurityProfile>),
    purpose: Purpose,
    (name, inputs): (&str, Map<String, Value>),
) -> Result<Arc<Value>> {
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
    let arguments = checked(provider, &inputs)?;
    let config = cx.configs.merged(scope).await?;
    let limits = cx.bounds.attempt.min(&Limits {
        wall_ms: WALL_MS,
        ..cx.bounds.attempt.clone()
    });
    let declared = Rights::of_workspace(&provider.network);
    let allowed = policy::admit(cx, scope, origin, provider, profile, (&declared, &limits)).await?;
    let (rights, limits) = (allowed.rights, allowed.limits);
    let caller = provider.uses_caller.then(|| {
        json!({"kind": requester.kind, "id": requester.id, "name": requester.name, "claimed_user": requester.claimed_user})
    });
    let environment = current.bundle.environment.as_ref().map(|one| &one.digest);
    let rest = json!([
        current.bundle.digest,
        environment,
        arguments,
        config.as_ref(),
        rights,
        caller
    ]);
    let key = kept::Key {
        org: scope.org().clone(),
        provider: name.to_owned(),
        rest: sha256_hex(rest.to_string().as_bytes()),
    };
    let asked = Called {
        provider,
        bundle: &current.bundle,
        arguments,
        caller,
        config,
        rights,
        limits,
        purpose,
    };
    let ttl = Duration::from_secs(provider.cache_ttl_seconds.min(LONGEST_KEPT));
    let run = Box::pin(run(cx, scope, origin, requester, asked));
    cx.provided.get(&key, ttl, || cx.clock.now(), run).await
}

/// A call that is checked and admitted.
struct Called<'a> {
    provider: &'a Declared,
    bundle: &'a BundleRef,
    arguments: Map<String, Value>,
    /// Who asks, where the code is told.
    caller: Option<Value>,
    config: Merged,
    rights: Rights,
    limits: Limits,
    purpose: Purpose,
}

/// Has a worker run the code of a data provider.
async fn run(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    requester: &Requester,
    called: Called<'_>,
) -> Result<Value> {
    let Called {
        provider,
        bundle,
        arguments,
        caller,
        config,
        rights,
        limits,
        purpose,
    } = called;
    let name = provider.name.as_str();
    let now = cx.clock.now();
    let attempt = AttemptId::generate(now, cx.entropy.bytes());
    let (messages, mut received) = mpsc::channel(64);
    let spec = AttemptSpec {
        context: json!({
            "organization": {"id": scope.org(), "name": scope.org_name()},
            "caller": caller,
            "run": {"id": origin.request_id, "workflow": name, "attempt": 1, "attempt_id": attempt, "step": name,
                    "idempotency_key": origin.request_id, "started_at": now, "deadline": now.plus(limits.wall()), "test": false},
            "config": config.as_ref(),
        }),
        attempt: attempt.clone(),
        bundle: bundle.clone(),
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
        is_nice: false,
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
        let slot = cx.admission.gate.slot(scope.org(), purpose, None);
        // Also an end for steps that want the same, have slots themselves, and wait for this.
        let _slot = tokio::time::timeout(IN_LINE, slot)
            .await
            .map_err(|_| RunnerError::Busy {
                slots: cx.runner.slots(),
            })??;
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
