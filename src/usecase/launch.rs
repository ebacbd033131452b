//! From a workflow's name to a run in the queue: what every way of starting one has in common.
//!
//! [`prepare`] checks and plans, and writes nothing. [`enqueue`] writes the run unless it is there, and leaves it to the queue:
//! whatever causes a run more than once (a schedule's time, a hook's delivery, a step's call) derives its id from the cause.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::resolve::{self, Found};
use super::{Context, Error, Result, admission, drive_run, node_type, policy, provide_data, start_run};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::definition::Offers;
use crate::domain::{Ask, Begins, Payload, Priority, RunId, SecurityProfile, Timestamp, sha256_hex};
use crate::scheduler::{self, Carried, Plan};
use crate::store;
use crate::store::repo::backlog::Guard;
use crate::store::repo::runs::{NewRun, Parent, Requester, StoredRun};
use crate::tenancy::{RunRef, Scope};

/// A workflow that may be run with these arguments.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its name.
    pub(super) workflow: String,
    /// What is executed, below the policies.
    pub(super) plan: Plan,
    /// The arguments, defaults included.
    pub(super) arguments: Payload,
    /// What tells the request from others with the same idempotency key: the digest of the arguments as given, and of what else
    /// it asks for.
    pub(super) arguments_digest: String,
    /// Since when this is what is called, where the organization has authored it.
    pub(super) since: Option<Timestamp>,
}

/// Which version of a workflow is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// What is called under its name.
    Called,
    /// The draft that the organization has of it.
    Draft,
}

/// A workflow with arguments that it takes, planned, before any policy.
#[derive(Debug)]
pub(super) struct Checked {
    /// The workflow.
    pub(super) found: Found,
    /// The arguments, defaults included.
    pub(super) arguments: Map<String, Value>,
    /// What is executed.
    pub(super) plan: Plan,
    /// The profiles that are asked for.
    pub(super) asked: policy::Asked,
}

/// Finds a workflow, checks its arguments, and plans it. `profile` is what is asked for beside those of the installation, the
/// policies and the workflow.
///
/// # Errors
/// When the workflow is unknown or can't be run, or the arguments are wrong.
pub(super) async fn check(
    cx: &Context,
    scope: &Scope,
    (workflow, version): (&str, Version),
    given: &Map<String, Value>,
    profile: Option<SecurityProfile>,
) -> Result<Checked> {
    let found = match version {
        Version::Called => resolve::resolve(cx, scope, workflow).await?,
        Version::Draft => resolve::draft(cx, scope, workflow).await?,
    };
    resolve::fits(cx, &found)?;
    let arguments = start_run::checked(found.declared(), given)?;
    start_run::secrets_are_there(cx, scope, found.declared(), &arguments).await?;
    let plan = plan_of(cx, scope, &found).await?;
    let asked = policy::Asked {
        workflow: found.declared().security_profile,
        run: profile,
    };
    Ok(Checked {
        found,
        arguments,
        plan,
        asked,
    })
}

/// Finds a workflow, checks its arguments and plans it below the policies and the security profile that holds; `profile` is what
/// is asked for beside those of the installation, the policies and the workflow.
///
/// # Errors
/// When the workflow is unknown, the arguments are wrong, a policy refuses what it declares, or storage fails.
pub(super) async fn prepare(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    workflow: &str,
    given: &Map<String, Value>,
    profile: Option<SecurityProfile>,
) -> Result<Prepared> {
    prepare_version(cx, scope, origin, (workflow, Version::Called), given, profile).await
}

/// As [`prepare`], of a version.
///
/// # Errors
/// As [`prepare`].
pub(super) async fn prepare_version(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    workflow: (&str, Version),
    given: &Map<String, Value>,
    profile: Option<SecurityProfile>,
) -> Result<Prepared> {
    let Checked {
        found,
        arguments,
        plan,
        asked,
    } = check(cx, scope, workflow, given, profile).await?;
    Box::pin(provide_data::options_hold(
        cx,
        scope,
        origin,
        found.declared(),
        &arguments,
    ))
    .await?;
    let plan = policy::admit_plan(cx, scope, origin, &found.current, (plan, asked), &arguments).await?;
    Ok(Prepared {
        since: found.of_organization().map(|one| one.since),
        workflow: found.declared().name.clone(),
        plan,
        arguments: cx.runs.keep(scope, Value::Object(arguments)).await?,
        arguments_digest: digest(given),
    })
}

/// What is executed of a workflow, before any policy.
async fn plan_of(cx: &Context, scope: &Scope, found: &Found) -> Result<Plan> {
    let (current, declared) = (&found.current, found.declared());
    let environment = current.bundle.environment.as_ref().map(|one| one.digest.clone());
    let (bundle, limits) = (&current.bundle.digest, &cx.bounds.attempt);
    let plan = match declared.graph.as_deref() {
        None => Plan::of_python(bundle, declared, limits),
        Some(graph) => {
            let carries = graph.edges.iter().any(|edge| edge.input.is_some());
            let others = match found.of_organization() {
                Some(one) if carries => resolve::called_below(cx, scope, current, &one.authored).await?,
                _ => BTreeMap::new(),
            };
            let versions = node_type::resolve(cx, scope, current, (graph, &others)).await?;
            // The workspace's own convert what they carry already, but for what the library takes and gives.
            let is_open = found.of_organization().is_some() || !versions.is_empty();
            let offers = Offers {
                catalog: &current.catalog,
                others: &others,
                versions: &versions,
            };
            let connected = (carries && is_open).then(|| offers.connected(graph));
            let graph = connected.as_ref().unwrap_or(graph);
            let mut functions = current.catalog.functions_of(graph);
            functions.extend(versions.iter().map(|(named, version)| (named.as_str(), version)));
            Plan::of_graph(bundle, graph, &functions, limits).map_err(|missing| {
                Error::conflict(
                    "workflow_broken",
                    format!("workflow `{}` can't be run: {missing}", declared.name),
                    "publish a revision that calls what the workspace declares",
                )
            })?
        }
    };
    let plan = plan.in_environment(environment);
    let plan = match found.of_organization() {
        Some(one) => plan.of_revision(one.revision.clone(), one.trust),
        None => plan,
    };
    let plan = if cx.pauses { plan } else { plan.without_pauses() };
    Ok(if cx.hurries { plan } else { plan.without_deadline() })
}

/// The digest of arguments as they were given.
pub(super) fn digest(given: &Map<String, Value>) -> String {
    sha256_hex(Value::Object(given.clone()).to_string().as_bytes())
}

/// The digest of a request to run a workflow: of its arguments as they were given, and of what else was asked for, where
/// anything was.
pub(super) fn digest_of_start(given: &Map<String, Value>, ask: &Ask, begins: Begins) -> String {
    let mut also = Map::new();
    match begins {
        Begins::AtOnce => {}
        Begins::At(at) => drop(also.insert("runAt".to_owned(), json!(at))),
        Begins::After(delay) => drop(also.insert("delay".to_owned(), json!(delay.as_secs_f64()))),
    }
    if ask.priority != Priority::default() {
        also.insert("priority".to_owned(), json!(ask.priority));
    }
    let rest = [
        ("concurrency", ask.concurrency.as_ref().map(|key| json!(key))),
        ("securityProfile", ask.profile.map(|profile| json!(profile))),
        ("plan", ask.plan.as_ref().map(|plan| json!(plan))),
    ];
    also.extend(
        rest.into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    let arguments = digest(given);
    if also.is_empty() {
        return arguments;
    }
    sha256_hex(format!("{arguments}\n{}", Value::Object(also)).as_bytes())
}

/// The digest of a request to go on with a run, or to run it again, with this code; `arguments` is that of the run's arguments.
pub(super) fn digest_of_code(arguments: &str, code: &str) -> String {
    sha256_hex(format!("{arguments}\n{code}").as_bytes())
}

/// A run to be put into the queue.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// Its id, derived from what causes it.
    pub(super) run: RunId,
    /// What is run.
    pub(super) prepared: Prepared,
    /// For whom.
    pub(super) requester: Requester,
    /// Where the request came from.
    pub(super) origin: &'a Origin,
    /// What is asked for it.
    pub(super) ask: Ask,
    /// The step that starts it, if one does.
    pub(super) parent: Option<Parent>,
    /// What the audit record says beside the workflow: an object.
    pub(super) cause: Value,
    /// The run that it resumes, and what of that is not done again.
    pub(super) resumes: Option<(RunId, Vec<Carried>)>,
}

/// Puts a run into the queue, or finds that it was; whether it was there.
///
/// # Errors
/// When storage fails; the run may be under way all the same, and a repeat finds it.
pub(super) async fn enqueue(cx: &Arc<Context>, scope: &Scope, launch: Launch<'_>) -> Result<(StoredRun, bool)> {
    let Launch {
        run: id,
        prepared,
        requester,
        origin,
        ask,
        parent,
        cause,
        resumes,
    } = launch;
    let (resumes, carried) = resumes.map_or_else(Default::default, |(run, carried)| (Some(run), carried));
    let now = cx.clock.now();
    let new = NewRun {
        run: id.clone(),
        workflow: prepared.workflow,
        plan: Arc::new(prepared.plan),
        arguments: prepared.arguments,
        requester,
        created_at: now,
        request_id: origin.request_id.clone(),
        arguments_digest: prepared.arguments_digest,
        idempotent: true,
        parent,
        resumes,
        ask,
    };
    let mut detail = json!({"workflow": new.workflow});
    if let Some(revision) = &new.plan.revision {
        detail["workflowRevision"] = json!(revision);
    }
    if let (Some(detail), Value::Object(cause)) = (detail.as_object_mut(), cause) {
        detail.extend(cause);
    }
    let record = cx
        .audit
        .by(
            scope,
            if new.resumes.is_some() {
                AuditEvent::RunResumed
            } else {
                AuditEvent::RunStarted
            },
        )
        .came_from(origin)
        .resource("run", id.as_str())
        .detail(&detail);
    let sealed = cx.audit.seal(scope, record).await?;
    let longest = policy::longest(cx, scope, &new.plan).await?;
    let begun = scheduler::begin(&id, &new.plan, &carried, now.plus(longest), now);
    // Before the run is written, as always: nothing is first written before a message is under way to it.
    let guard = guard(cx, scope, &id, begun.state().deadline).await?;
    let (run, records) = match cx.runs.create(scope, new, &begun, vec![sealed]).await {
        Ok(committed) => committed,
        // The cause came twice: the other was first.
        Err(store::Error::AlreadyExists { .. }) => {
            let run = cx.runs.get(scope, &id).await?;
            let run = run.ok_or_else(|| store::Error::corrupt("a run is there and is not"))?;
            return Ok((run, true));
        }
        Err(error) => return Err(error.into()),
    };
    admission::submit(cx, scope, &run, &records, guard).await?;
    Ok((run, false))
}

/// Sends the message that brings somebody to a run which is about to be written, should this instance die; or at its deadline, so
/// that it ends then also where nobody has come to it.
pub(super) async fn guard(cx: &Context, scope: &Scope, id: &RunId, deadline: Timestamp) -> Result<Guard> {
    let run = RunRef {
        org: scope.org().clone(),
        run: id.clone(),
    };
    let after = admission::until(cx, deadline, cx.admission.guard_after(scope));
    let at = cx.clock.now().plus(after);
    let receipt = drive_run::send(cx, &run, "wake_up", after).await?;
    Ok(Guard { receipt, at })
}
