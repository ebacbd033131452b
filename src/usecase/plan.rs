//! What a run would do, without doing it: its steps in order with everything that is known, what they may reach and use, and what
//! keeps it from being started.
//!
//! The manifest follows from the code, the arguments, the policies and the profile alone, so its hash names them together: a run
//! that is started with the hash is the run that was planned, or it is not started.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::launch::{self, Checked, Version};
use super::policy::Ceilings;
use super::{Context, Error, Result, policy, resolve};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Origin, Resource};
use crate::definition::{dry_run, sorted};
use crate::domain::{Network, SecurityProfile, WorkflowRevision, sha256_hex, stricter};
use crate::error::{Finding, Kind};
use crate::scheduler::{Action as StepAction, Code, Plan, Starts, StepPlan};
use crate::tenancy::Scope;

/// What a run would do.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its effects: an object, the same for the same run.
    pub manifest: Value,
    /// SHA-256 of it, in 64 hexadecimal digits.
    pub hash: String,
    /// What keeps it from being started.
    pub refused: Vec<Finding>,
    of: (String, Option<WorkflowRevision>),
}

/// Plans a run. Nothing is started; that somebody has looked is on record.
///
/// # Errors
/// When the scope may not, the workflow is unknown, the arguments are wrong, or storage fails. What a policy or a profile refuses
/// is in the answer.
pub async fn make(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    workflow: &str,
    given: &Map<String, Value>,
    (profile, draft): (Option<SecurityProfile>, bool),
) -> Result<Planned> {
    scope.authorize(Action::Run, Resource::Workflow)?;
    let version = if draft {
        scope.authorize(Action::Modify, Resource::Workflow)?;
        Version::Draft
    } else {
        Version::Called
    };
    let planned = of(cx, scope, (workflow, version), given, profile).await?;
    let record = cx
        .audit
        .by(scope, AuditEvent::PlanMade)
        .came_from(origin)
        .resource("workflow", workflow)
        .detail(&json!({"plan": planned.hash, "refused": planned.refused.len()}));
    super::on_record::keep(cx, scope, record).await?;
    Ok(planned)
}

/// Whether a run with these arguments is the one that was planned; the bundle of which it is, and the revision.
///
/// # Errors
/// `plan_changed` when it is not, or as [`make`].
pub(super) async fn same(
    cx: &Context,
    scope: &Scope,
    workflow: (&str, Version),
    given: &Map<String, Value>,
    (hash, profile): (&str, Option<SecurityProfile>),
) -> Result<(String, Option<WorkflowRevision>)> {
    let planned = of(cx, scope, workflow, given, profile).await?;
    if planned.hash == hash {
        return Ok(planned.of);
    }
    Err(changed(workflow.0, &planned.hash))
}

/// That a run is not the one that was planned.
pub(super) fn changed(workflow: &str, now: &str) -> Error {
    Error::Request {
        kind: Kind::Conflict,
        code: "plan_changed",
        detail: format!("the run would not be the one that was planned: its plan is `{now}` now"),
        hint: Some(format!(
            "the code, the arguments, a policy or the profile has changed since; look at `POST /api/workflows/{workflow}/plan` again"
        )),
        findings: Vec::new(),
    }
}

async fn of(
    cx: &Context,
    scope: &Scope,
    workflow: (&str, Version),
    given: &Map<String, Value>,
    profile: Option<SecurityProfile>,
) -> Result<Planned> {
    let Checked {
        found,
        arguments,
        mut plan,
        asked,
    } = launch::check(cx, scope, workflow, given, profile).await?;
    let (current, declared, workflow) = (&found.current, found.declared(), workflow.0);
    let ceilings = Ceilings::of(cx, scope, asked).await?;
    let mut refused = policy::below(&ceilings, current, &mut plan);
    refused.extend(ceilings.too_long(&arguments));
    if let Err(Error::Request { code, detail, hint, .. }) = ceilings.runs(&format!("workflow `{workflow}`")) {
        let finding = Finding::new("", code, detail);
        refused.insert(0, hint.into_iter().fold(finding, Finding::hint));
    }
    plan.profile = stricter(asked.workflow, asked.run);
    let (dry, result) = dry_run(declared, &arguments);
    let chosen = ceilings.chosen();
    let steps: Vec<Value> = dry
        .iter()
        .map(|step| {
            let mut shown = json!(step);
            let planned = plan.steps.iter().find(|planned| planned.id == step.id);
            if let Some(code) = planned.and_then(|planned| planned.work.code()) {
                shown["effects"] = effects(code);
            }
            shown
        })
        .collect();
    let figures = chosen.profile.figures();
    let mut manifest = json!({
        "workflow": declared.name,
        "revision": plan.bundle,
        "environment": plan.environment,
        "arguments": arguments,
        "profile": {"name": chosen.profile, "chosenBy": chosen.by},
        "steps": steps,
        "result": result,
        "effects": together(&plan),
        "runSeconds": figures.run_seconds.min(cx.bounds.run.as_secs()),
    });
    if let Some(one) = found.of_organization() {
        manifest["workflowRevision"] = json!(one.revision);
        // What is called under these names may be another tomorrow.
        let below = resolve::called_below(cx, scope, current, &one.authored).await?;
        let revisions: Map<_, _> = below
            .iter()
            .map(|(name, called)| (name.clone(), json!(called.digest)))
            .collect();
        manifest["workflowRevisions"] = Value::Object(revisions);
    }
    let manifest = sorted(manifest);
    let hash = sha256_hex(manifest.to_string().as_bytes());
    Ok(Planned {
        manifest,
        hash,
        refused,
        of: (plan.bundle, plan.revision),
    })
}

/// What the code of a step may do and use.
fn effects(code: &Code) -> Value {
    json!({
        "function": code.name,
        "module": code.module,
        "digest": code.digest,
        "trust": code.rights.trust,
        "network": hosts(code),
        "isolation": code.rights.minimum,
        "secrets": code.secrets,
        "programs": match &code.starts {
            Starts::Nothing => json!([]),
            Starts::Programs(programs) => json!(programs),
            Starts::Unknown => Value::Null,
        },
        "limits": code.limits,
    })
}

fn hosts(code: &Code) -> Value {
    match &code.rights.network {
        Network::None => json!([]),
        Network::Allowlist(hosts) => json!(hosts),
        Network::Open => json!(["*"]),
    }
}

/// All that the steps may reach together.
fn together(plan: &Plan) -> Value {
    let codes = || plan.steps.iter().filter_map(|step| step.work.code());
    let network: BTreeSet<String> = codes()
        .flat_map(|code| match &code.rights.network {
            Network::None => Vec::new(),
            Network::Allowlist(hosts) => hosts.clone(),
            Network::Open => vec!["*".to_owned()],
        })
        .collect();
    let secrets: BTreeSet<&String> = codes().flat_map(|code| &code.secrets).collect();
    let programs: BTreeSet<&String> = codes()
        .flat_map(|code| match &code.starts {
            Starts::Programs(programs) => programs.as_slice(),
            Starts::Nothing | Starts::Unknown => &[],
        })
        .collect();
    json!({
        "network": network,
        "secrets": secrets,
        "programs": programs,
        "allProgramsKnown": !codes().any(|code| code.starts == Starts::Unknown),
        "workflows": plan.steps.iter().filter_map(child).collect::<BTreeSet<_>>(),
    })
}

fn child(step: &StepPlan) -> Option<&str> {
    match step.work.action() {
        Some(StepAction::Child { workflow }) => Some(workflow),
        _ => None,
    }
}
