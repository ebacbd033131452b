//! Start a run: check the arguments, pin the code, write it, and drive it here or leave it to the queue.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::admission::Waits;
use super::driver::{After, Driver};
use super::launch::Version;
use super::values::Known;
use super::{Context, Error, LEASE, Result, admission, drive_run, launch, plan, policy, secret, sub_run};
use crate::audit::{Event as AuditEvent, LinkedRecord};
use crate::authz::{Action, Origin, Principal, Resource};
use crate::definition::{DEEPEST, is_too_deep, validate};
use crate::domain::{Ask, Begins, Declared, OnConflict, ParameterType, RunId, SecretName, Timestamp};
use crate::error::{Finding, Kind};
use crate::scheduler::{self, Event};
use crate::store;
use crate::store::repo::runs::{NewRun, Requester, StoredRun, idempotent_run};
use crate::tenancy::Scope;

/// How long the first answer to an idempotency key is repeated.
pub const IDEMPOTENCY: Duration = Duration::from_secs(24 * 3600);

/// What is asked for.
#[derive(Debug)]
pub struct StartRun {
    /// The workflow.
    pub workflow: String,
    /// Whether its draft is tried, and not what is called under its name.
    pub draft: bool,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// How long to wait for the end; none to leave it to the queue.
    pub wait: Option<Duration>,
    /// The caller's key that makes a repeat return the first answer.
    pub idempotency_key: Option<String>,
    /// When the request arrived.
    pub received_at: Timestamp,
    /// From where.
    pub origin: Origin,
    /// When it may begin, and before which others.
    pub ask: Ask,
    /// How its beginning was said.
    pub begins: Begins,
    /// Fires when whoever asks has hung up. The run goes on.
    pub gone: CancellationToken,
    /// Audit records of the request that are not listed yet; they are listed together with the run.
    pub unindexed: Vec<LinkedRecord>,
}

/// What came of it.
#[derive(Debug)]
pub struct Started {
    /// The run; ended when somebody waited long enough.
    pub run: StoredRun,
    /// Whether it is the answer to an earlier request with the same idempotency key.
    pub repeated: bool,
}

/// Starts a run.
///
/// # Errors
/// When the scope may not, the workflow is unknown, the arguments are wrong, a policy refuses what it declares, or storage
/// fails; then nothing was started.
pub async fn start_run(cx: &Arc<Context>, scope: &Scope, input: StartRun) -> Result<Started> {
    scope.authorize(Action::Run, Resource::Workflow)?;
    let version = if input.draft {
        // Whoever may write it may try it.
        scope.authorize(Action::Modify, Resource::Workflow)?;
        Version::Draft
    } else {
        Version::Called
    };
    let asked = launch::digest_of_start(&input.arguments, &input.ask, input.begins);
    let id = match id_or_answer(cx, scope, &input, &asked).await? {
        Ok(id) => id,
        Err(started) => return Ok(started),
    };
    let planned = match &input.ask.plan {
        Some(hash) => {
            let asked = (hash.as_str(), input.ask.profile);
            Some(plan::same(cx, scope, (&input.workflow, version), &input.arguments, asked).await?)
        }
        None => None,
    };
    let mut prepared = launch::prepare_version(
        cx,
        scope,
        &input.origin,
        (&input.workflow, version),
        &input.arguments,
        input.ask.profile,
    )
    .await?;
    // The workspace, or what is called, may have changed between the two looks at it.
    let seen = (&prepared.plan.bundle, &prepared.plan.revision);
    if planned.is_some_and(|(bundle, revision)| (&bundle, &revision) != seen) {
        return Err(plan::changed(&input.workflow, "another"));
    }
    prepared.arguments_digest = asked;
    begin(cx, scope, input, id, prepared).await
}

/// The id of a new run, or what was answered to the same idempotency key.
pub(super) async fn id_or_answer(
    cx: &Context,
    scope: &Scope,
    input: &StartRun,
    arguments_digest: &str,
) -> Result<std::result::Result<RunId, Started>> {
    let now = cx.clock.now();
    let Some(key) = &input.idempotency_key else {
        return Ok(Ok(RunId::generate(now, cx.entropy.bytes())));
    };
    let workflow = if input.draft {
        format!("{} (draft)", input.workflow)
    } else {
        input.workflow.clone()
    };
    match first_answer(cx, scope, &workflow, key, arguments_digest, now).await? {
        FirstAnswer::None(id) => Ok(Ok(id)),
        FirstAnswer::Found(run) => Ok(Err(Started {
            run: wait_for(cx, scope, waiting(cx, &run, input.wait), *run, &input.gone).await?,
            repeated: true,
        })),
    }
}

/// Writes a run that is planned, and drives it here or lets it wait.
///
/// # Errors
/// As [`start_run`].
pub(super) async fn begin(
    cx: &Arc<Context>,
    scope: &Scope,
    mut input: StartRun,
    id: RunId,
    prepared: launch::Prepared,
) -> Result<Started> {
    let now = cx.clock.now();
    let ask = Ask {
        waited_for: input.wait.is_some(),
        ..std::mem::take(&mut input.ask)
    };
    refuse_taken_key(cx, scope, &ask).await?;
    // Nobody waits for what begins later.
    let wait = input.wait.filter(|_| ask.not_before.is_none_or(|at| at <= now));
    let arguments_digest = prepared.arguments_digest;
    let begins_now = wait.is_some() && ask.is_plain();
    let new = NewRun {
        run: id.clone(),
        workflow: prepared.workflow,
        plan: Arc::new(prepared.plan),
        arguments: prepared.arguments,
        requester: requester(scope),
        created_at: now,
        request_id: input.origin.request_id.clone(),
        arguments_digest: arguments_digest.clone(),
        idempotent: input.idempotency_key.is_some(),
        parent: None,
        resumes: None,
        ask,
    };
    let record = cx
        .audit
        .by(scope, AuditEvent::RunStarted)
        .came_from(&input.origin)
        .resource("run", id.as_str())
        .detail(&started(&new));
    let sealed = cx.audit.seal(scope, record).await?;

    let longest = policy::longest(cx, scope, &new.plan).await?;
    let begins_at = new.ask.not_before.map_or(now, |at| at.max(now));
    let begun = scheduler::begin(&id, &new.plan, &[], begins_at.plus(longest), now);
    // Before anybody can begin it.
    let waits = wait.map(|_| cx.admission.callers.wait(&id));
    // If this instance dies before it ends the run, the message brings another one to it.
    let (guard, place) = tokio::join!(launch::guard(cx, scope, &id, begun.state().deadline), async {
        match waits.as_ref().filter(|_| begins_now) {
            Some(waits) => admission::place_at_once(cx, scope, waits).await,
            None => Ok(None),
        }
    });
    let (guard, place) = (guard?, place?);
    let transition = if place.is_some() {
        let taken = Event::Taken {
            owner: cx.instance.clone(),
            lease_until: now.plus(LEASE),
        };
        let taken = scheduler::decide(&new.plan, begun.state(), taken, now)
            .map_err(|rejected| Error::conflict("conflict", rejected.to_string(), "repeat the request"))?;
        begun.then(taken)
    } else {
        begun
    };
    let (run, records) = match cx.runs.create(scope, new, &transition, vec![sealed]).await {
        Ok(committed) => committed,
        Err(store::Error::AlreadyExists { .. }) if input.idempotency_key.is_some() => {
            // The same key at the same time: the other request was first.
            drive_run::drop_wake_up(cx, guard.receipt);
            let run = cx
                .runs
                .get(scope, &id)
                .await?
                .ok_or_else(|| store::Error::corrupt("a run is there and is not"))?;
            same_request(&run, &arguments_digest)?;
            drop((place, waits));
            return Ok(Started {
                run: wait_for(cx, scope, waiting(cx, &run, input.wait), run, &input.gone).await?,
                repeated: true,
            });
        }
        Err(error) => return Err(error.into()),
    };
    let mut unindexed = std::mem::take(&mut input.unindexed);
    unindexed.extend(records);
    let (Some(patience), Some(place)) = (wait, place) else {
        // Already on its way, a little later, should this fail: the run is then merely slower.
        admission::submit(cx, scope, &run, &unindexed, guard).await?;
        return Ok(Started {
            run: wait_for(cx, scope, wait.zip(waits), run, &input.gone).await?,
            repeated: false,
        });
    };
    let receipt = guard.receipt;

    // Driven in a task of its own: a caller that goes away, or whose patience ends, does not end the run.
    let (done, ended) = oneshot::channel();
    let driver = Driver {
        cx: cx.clone(),
        scope: scope.clone(),
        origin: input.origin.clone(),
        wake_up: Some(receipt),
        unindexed,
        is_listed: true,
        known: Known::default(),
        place,
    };
    let after = After::of(&transition);
    let queued = cx.clock.now().since(input.received_at);
    let span = tracing::info_span!("run", run.id = %id, org.id = %scope.org());
    tokio::spawn(
        async move {
            let outcome = Box::pin(driver.drive(run, after, queued)).await;
            if let Err(lost) = done.send(outcome)
                && let Err(error) = lost
            {
                tracing::warn!(error = %error, "the driver of a run gave up; its wake-up continues it");
            }
        }
        .instrument(span),
    );
    let until = tokio::time::Instant::now() + patience;
    let end = async {
        match tokio::time::timeout_at(until, ended).await {
            // Its driver has let go of it; who waits, waits for the run.
            Ok(Ok(outcome)) => {
                let rest = until - tokio::time::Instant::now();
                sub_run::wait(cx, scope, outcome?, rest).await.map(Some)
            }
            Ok(Err(_)) => Err(Error::unavailable(
                "stopping",
                "the handler is stopping",
                "ask for the run again",
            )),
            Err(_) => Ok(None),
        }
    };
    let heard = tokio::select! {
        biased;
        heard = end => heard?,
        () = input.gone.cancelled() => None,
    };
    let run = match heard {
        Some(run) => run,
        None => cx
            .runs
            .get(scope, &id)
            .await?
            .ok_or_else(|| store::Error::corrupt("a run that was written is gone"))?,
    };
    if let Some(waits) = waits {
        admission::leave(cx, scope, waits, &run).await;
    }
    Ok(Started { run, repeated: false })
}

/// What the record of a start says beside who and when.
fn started(new: &NewRun) -> Value {
    let mut detail = json!({"workflow": new.workflow});
    if let Some(revision) = &new.plan.revision {
        detail["workflowRevision"] = json!(revision);
    }
    if let Some(original) = &new.ask.rerun_of {
        detail["rerunOf"] = json!(original);
    }
    if let Some(at) = new.ask.not_before {
        detail["notBefore"] = json!(at);
    }
    detail
}

/// Whoever doesn't want to wait for a concurrency key is told at once who holds it.
///
/// # Errors
/// When it is held, or storage fails.
pub(super) async fn refuse_taken_key(cx: &Context, scope: &Scope, ask: &Ask) -> Result<()> {
    let Some(key) = ask
        .concurrency
        .as_ref()
        .filter(|key| key.on_conflict == OnConflict::Skip)
    else {
        return Ok(());
    };
    let holders = admission::living(cx, scope, key).await?;
    match holders.first() {
        Some(first) if holders.len() >= usize::try_from(key.limit).unwrap_or(usize::MAX) => Err(Error::conflict(
            "concurrency_key_taken",
            format!(
                "the concurrency key `{}` is held by run `{first}`, so nothing was started",
                key.key
            ),
            "repeat it when that run has ended, or start with `onConflict=queue` or `onConflict=cancel_running`",
        )),
        _ => Ok(()),
    }
}

/// The arguments of a workflow with defaults filled in.
pub(super) fn checked(workflow: &Declared, arguments: &Map<String, Value>) -> Result<Map<String, Value>> {
    let too_deep = arguments.iter().filter(|(_, value)| is_too_deep(value));
    let too_deep: Vec<_> = too_deep
        .map(|(name, _)| {
            let message = format!("`{name}` is nested more than {DEEPEST} deep");
            Finding::new(format!("/{name}"), "too_deep", message).hint("flatten it, or give it as a text")
        })
        .collect();
    if !too_deep.is_empty() {
        return Err(Error::invalid(
            "arguments_invalid",
            format!(
                "the arguments of `{}` have {} finding(s)",
                workflow.name,
                too_deep.len()
            ),
            "values are nested at most 100 deep",
            too_deep,
        ));
    }
    let arguments =
        validate(&workflow.parameters, arguments).map_err(|findings| wrong_arguments(workflow, findings))?;
    let of_another_run: Vec<_> = workflow
        .parameters
        .iter()
        .filter(|parameter| parameter.kind == ParameterType::File)
        .filter(|parameter| arguments.get(&parameter.name).is_some_and(|file| file.get("artifact").is_some()))
        .map(|parameter| {
            let message = format!(
                "`{}` is an artifact, and the run that begins has none yet: artifacts belong to the run that wrote them",
                parameter.name
            );
            Finding::new(format!("/{}", parameter.name), "not_a_file", message)
                .hint("give the file as `{\"data\": \"<base64>\"}`, or an address of it")
        })
        .collect();
    if of_another_run.is_empty() {
        Ok(arguments)
    } else {
        Err(wrong_arguments(workflow, of_another_run))
    }
}

pub(super) fn wrong_arguments(workflow: &Declared, findings: Vec<Finding>) -> Error {
    Error::invalid(
        "arguments_invalid",
        format!(
            "the arguments of `{}` have {} finding(s)",
            workflow.name,
            findings.len()
        ),
        format!("`GET /api/workflows/{}` shows the parameters", workflow.name),
        findings,
    )
}

/// Whether the secrets are there that arguments name. That these may be named has been checked.
///
/// # Errors
/// When one is not there, or the store fails.
pub(super) async fn secrets_are_there(
    cx: &Context,
    scope: &Scope,
    workflow: &Declared,
    arguments: &Map<String, Value>,
) -> Result<()> {
    // A simulation keeps none, and none of its steps asks for one.
    if !cx.pauses {
        return Ok(());
    }
    let mut findings = Vec::new();
    let secrets = workflow
        .parameters
        .iter()
        .filter(|one| one.kind == ParameterType::Secret);
    for parameter in secrets {
        let named = arguments.get(&parameter.name).and_then(Value::as_str);
        let Some(name) = named.and_then(|name| name.parse::<SecretName>().ok()) else {
            continue;
        };
        if secret::find(cx, scope, &name).await?.is_none() {
            let message = format!(
                "`{}` names the secret `{name}`, which the organization doesn't have",
                parameter.name
            );
            findings.push(
                Finding::new(format!("/{}", parameter.name), "no_such_secret", message)
                    .hint(format!("an administrator of it writes one: `PUT /api/secrets/{name}`")),
            );
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(wrong_arguments(workflow, findings))
    }
}

pub(super) fn requester(scope: &Scope) -> Requester {
    let principal = scope.principal();
    let claimed_user = match principal {
        Principal::Service { claimed_user, .. } => claimed_user.clone(),
        _ => None,
    };
    Requester {
        kind: principal.kind().to_owned(),
        id: principal.id(),
        name: principal.name().to_owned(),
        claimed_user,
    }
}

enum FirstAnswer {
    None(RunId),
    Found(Box<StoredRun>),
}

async fn first_answer(
    cx: &Context,
    scope: &Scope,
    workflow: &str,
    idempotency_key: &str,
    arguments_digest: &str,
    now: Timestamp,
) -> Result<FirstAnswer> {
    let caller = scope.principal().id();
    for generation in 0.. {
        let id = idempotent_run(scope.org(), workflow, &caller, idempotency_key, generation);
        match cx.runs.get(scope, &id).await? {
            None => return Ok(FirstAnswer::None(id)),
            Some(run) if now.since(run.new.created_at) < IDEMPOTENCY => {
                same_request(&run, arguments_digest)?;
                return Ok(FirstAnswer::Found(Box::new(run)));
            }
            Some(_) => {}
        }
    }
    unreachable!("the loop ends at the first free generation")
}

pub(super) fn same_request(run: &StoredRun, arguments_digest: &str) -> Result<()> {
    if run.new.arguments_digest == arguments_digest {
        return Ok(());
    }
    Err(Error::Request {
        kind: Kind::Conflict,
        code: "idempotency_key_reused",
        detail: "the idempotency key was used for another request".to_owned(),
        hint: Some("use a new key for another request".to_owned()),
        findings: Vec::new(),
    })
}

/// A caller who waits for a run so long, from now on.
fn waiting(cx: &Context, run: &StoredRun, wait: Option<Duration>) -> Option<(Duration, Waits)> {
    wait.map(|wait| (wait, cx.admission.callers.wait(&run.new.run)))
}

/// Waits until a run that somebody else drives has ended, at most as long as the caller wants to and is there.
async fn wait_for(
    cx: &Context,
    scope: &Scope,
    waiting: Option<(Duration, Waits)>,
    run: StoredRun,
    gone: &CancellationToken,
) -> Result<StoredRun> {
    let Some((wait, waits)) = waiting else {
        return Ok(run);
    };
    let run = tokio::select! {
        biased;
        newer = sub_run::wait(cx, scope, run.clone(), wait) => newer?,
        () = gone.cancelled() => run,
    };
    admission::leave(cx, scope, waits, &run).await;
    Ok(run)
}
