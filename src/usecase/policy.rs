//! What steps are allowed to do: read and change policies, and bring what code declares below them.
//!
//! A declaration that a policy refuses is refused as a whole when somebody asks for a run. What a policy merely lowers (limits,
//! trust, modules) is lowered. An attempt is brought below the policies once more: one that was narrowed since counts, one that
//! was widened gives nothing that the plan lacks.

use serde_json::{Map, Value, json};

use super::organization::{existing, keep};
use super::{Context, Error, Result, catalog};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Caller, Origin, Principal, Resource};
use crate::definition::parse_policy;
use crate::domain::{Declared, Limits, Network, OrgId, Rights, settle};
pub use crate::domain::{Holder, LimitCeilings, Policy, Reason, Restricted, Subject};
use crate::error::{Finding, Kind};
use crate::scheduler::{Code, Plan};
use crate::store;
pub use crate::store::repo::identity::Written;
use crate::store::repo::policies::Both;
pub use crate::store::repo::policies::StoredPolicy;
use crate::tenancy::{self, PlatformScope, Scope, operator_in};

/// The ceilings that hold for an organization's steps.
#[derive(Debug, Clone)]
pub struct Ceilings {
    installation: Option<Policy>,
    both: Both,
    organization: Holder,
}

impl Ceilings {
    pub(super) async fn of(cx: &Context, scope: &Scope) -> Result<Self> {
        Ok(Self {
            installation: cx.bounds.network.clone().map(|network| Policy {
                network,
                ..Policy::default()
            }),
            both: cx.policies.both(scope).await?,
            organization: Holder::Organization {
                id: scope.org().clone(),
                name: scope.org_name().to_owned(),
            },
        })
    }

    /// Rights and limits below both ceilings, and why they are less.
    #[must_use]
    pub fn restrict(&self, rights: &Rights, limits: &Limits) -> Restricted {
        let Some(installation) = &self.installation else {
            return self.restrict_by_policies(rights, limits);
        };
        let first = installation.restrict(&Holder::Installation, rights, limits);
        let below = self.restrict_by_policies(&first.rights, &first.limits);
        Restricted {
            reasons: first.reasons.into_iter().chain(below.reasons).collect(),
            ..below
        }
    }

    fn restrict_by_policies(&self, rights: &Rights, limits: &Limits) -> Restricted {
        let (above, own) = (&self.both.platform, &self.both.organization);
        let platform = above.restrict(&Holder::Platform, rights, limits);
        let below = own.restrict(&self.organization, &platform.rights, &platform.limits);
        // What the organization would refuse too is said at once, and not when the platform has changed its mind.
        let refused = own.restrict(&self.organization, rights, limits).reasons.into_iter();
        let lowered = below.reasons.into_iter().filter(|reason| !reason.refused);
        let reasons = platform
            .reasons
            .into_iter()
            .chain(refused.filter(|reason| reason.refused));
        Restricted {
            rights: below.rights,
            limits: below.limits,
            reasons: reasons.chain(lowered).collect(),
        }
    }

    /// The same with what restricted code may import filled in: what a worker is given.
    #[must_use]
    pub fn settled(&self, rights: &Rights, limits: &Limits) -> Restricted {
        let mut restricted = self.restrict(rights, limits);
        let lists = [&self.both.platform, &self.both.organization].map(|policy| policy.restricted_modules.as_deref());
        restricted.rights = settle(&restricted.rights, &lists);
        restricted
    }

    /// What of a declaration is refused, with the line that declares it.
    #[must_use]
    pub fn refusals(&self, declared: &Declared) -> Vec<Finding> {
        refusals(declared, &self.restrict(&declared.rights(), &Limits::default()).reasons)
    }
}

/// What of a declaration a policy of the platform refuses, where no organization is asked about.
#[must_use]
pub fn refused_by_platform(policy: &Policy, declared: &Declared) -> Vec<Finding> {
    let restricted = policy.restrict(&Holder::Platform, &declared.rights(), &Limits::default());
    refusals(declared, &restricted.reasons)
}

fn refusals(declared: &Declared, reasons: &[Reason]) -> Vec<Finding> {
    let place = format!("{}:{}:1", declared.path, declared.line.max(1));
    let refused = reasons.iter().filter(|reason| reason.refused);
    refused
        .map(|reason| Finding::new(place.as_str(), reason.code, reason.message.as_str()).hint(reason.remedy.as_str()))
        .collect()
}

/// A declaration brought below the policies, or the refusal with everything that they don't allow. The refusal is on record.
pub(super) async fn admit(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    declared: &Declared,
    (rights, limits): (&Rights, &Limits),
) -> Result<Restricted> {
    let restricted = Ceilings::of(cx, scope).await?.restrict(rights, limits);
    let findings = refusals(declared, &restricted.reasons);
    if findings.is_empty() {
        return Ok(restricted);
    }
    let kind = declared.declared_as.as_str();
    Err(refused(cx, scope, origin, (kind, &declared.name), findings).await?)
}

/// The refusal of something that code declares, when it is on record.
async fn refused(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (kind, name): (&'static str, &str),
    findings: Vec<Finding>,
) -> Result<Error> {
    let refused: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    let record = cx
        .audit
        .by(scope, AuditEvent::PolicyRefused)
        .came_from(origin)
        .resource(kind, name)
        .detail(&json!({"refused": refused}));
    keep(cx, scope, record).await?;
    Ok(Error::Request {
        kind: Kind::Denied,
        code: "policy_refused",
        detail: format!(
            "{} `{name}` declares what a policy refuses: {}",
            kind.replace('_', " "),
            refused.join("; ")
        ),
        hint: Some(
            "take it out of the declaration, or have the policy changed; `errors` says by whom, and \
             `GET /api/policy/effective?workflow=NAME` shows what is allowed"
                .to_owned(),
        ),
        findings,
    })
}

/// The steps of a plan brought below the policies, or the refusal with everything that they don't allow of any step.
pub(super) async fn admit_plan(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    current: &catalog::Current,
    mut plan: Plan,
) -> Result<Plan> {
    let ceilings = Ceilings::of(cx, scope).await?;
    let mut findings: Vec<Finding> = Vec::new();
    for code in plan.steps.iter_mut().filter_map(|step| step.work.code_mut()) {
        let below = ceilings.restrict(&code.rights, &code.limits);
        if below.reasons.iter().any(|reason| reason.refused)
            && let Some(declared) = current.catalog.function(&code.name)
        {
            let new = refusals(declared, &below.reasons).into_iter();
            findings.extend(new.filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
        }
        (code.rights, code.limits) = (below.rights, below.limits);
    }
    if findings.is_empty() {
        return Ok(plan);
    }
    Err(refused(cx, scope, origin, ("workflow", &plan.workflow), findings).await?)
}

// ── reading and changing ───────────────────────────────────────────────────────────────────────────────────────────────

/// A policy to write.
#[derive(Debug, Clone)]
pub struct Change {
    /// The policy as it was written; what is missing is as in a policy that nobody has written.
    pub written: Map<String, Value>,
    /// The tag of the policy that it is to replace; none to replace any.
    pub if_tag: Option<String>,
}

/// An organization's own policy.
///
/// # Errors
/// When the scope may not, or storage fails.
pub async fn organization(cx: &Context, scope: &Scope) -> Result<StoredPolicy> {
    scope.authorize(Action::Read, Resource::Policy)?;
    Ok(cx.policies.organization(scope).await?)
}

/// The platform's policy, for a caller who may look at the platform.
///
/// # Errors
/// When the caller may not, or storage fails.
pub async fn platform_for(cx: &Context, caller: &Caller) -> Result<StoredPolicy> {
    platform(cx, &tenancy::platform(caller, Action::Read)?).await
}

/// The platform's policy.
///
/// # Errors
/// When storage fails.
pub async fn platform(cx: &Context, platform: &PlatformScope) -> Result<StoredPolicy> {
    Ok(cx.policies.platform(platform).await?)
}

/// Writes an organization's policy. Whoever administers the organization narrows it freely; what is more than before in trust,
/// modules or the open network takes a platform administrator.
///
/// # Errors
/// When the scope may not, the policy is none, it isn't the one that was to be replaced, or storage fails.
pub async fn put_organization(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    change: &Change,
) -> Result<(Written, StoredPolicy)> {
    scope.authorize(Action::Modify, Resource::Policy)?;
    let policy = parsed(&change.written, Policy::default())?;
    let before = cx.policies.organization(scope).await?;
    same(&before, change.if_tag.as_deref())?;
    if !may_widen(scope.principal()) {
        let wider = policy.widens(&before.policy);
        if !wider.is_empty() {
            let finding = |(pointer, message)| Finding::new(pointer, "widened", message);
            return Err(Error::Request {
                kind: Kind::Denied,
                code: "policy_widened",
                detail: "this caller may narrow the policy, and not give more trust, modules or open network"
                    .to_owned(),
                hint: Some(
                    "ask a platform administrator, or whoever runs the installation: `weft policy set`".to_owned(),
                ),
                findings: wider.into_iter().map(finding).collect(),
            });
        }
    }
    if policy == before.policy {
        return Ok((Written::Unchanged, before));
    }
    cx.policies
        .put(scope, &before, &policy)
        .await
        .map_err(changed_meanwhile)?;
    let record = record(cx.audit.by(scope, AuditEvent::PolicyChanged), &before.policy, &policy)
        .came_from(origin)
        .resource("policy", scope.org().as_str());
    keep(cx, scope, record).await?;
    Ok((written(&before), cx.policies.organization(scope).await?))
}

/// Writes the platform's policy, for a caller who may change the platform.
///
/// # Errors
/// When the caller may not, the policy is none, it isn't the one that was to be replaced, or storage fails.
pub async fn put_platform_for(cx: &Context, caller: &Caller, change: &Change) -> Result<(Written, StoredPolicy)> {
    put_platform(cx, &tenancy::platform(caller, Action::Modify)?, &caller.origin, change).await
}

/// Writes the platform's policy.
///
/// # Errors
/// When the policy is none, it isn't the one that was to be replaced, or storage fails.
pub async fn put_platform(
    cx: &Context,
    platform: &PlatformScope,
    origin: &Origin,
    change: &Change,
) -> Result<(Written, StoredPolicy)> {
    let policy = parsed(&change.written, Policy::of_platform())?;
    let before = cx.policies.platform(platform).await?;
    same(&before, change.if_tag.as_deref())?;
    if policy == before.policy {
        return Ok((Written::Unchanged, before));
    }
    cx.policies
        .put_platform(platform, &before, &policy)
        .await
        .map_err(changed_meanwhile)?;
    let record = record(
        cx.audit.by(platform, AuditEvent::PolicyChanged),
        &before.policy,
        &policy,
    )
    .came_from(origin)
    .resource("policy", "platform");
    keep(cx, platform, record).await?;
    Ok((written(&before), cx.policies.platform(platform).await?))
}

/// The operator's scope in an organization that is there.
///
/// # Errors
/// When there is no such organization, or storage fails.
pub async fn operator_scope(cx: &Context, platform: &PlatformScope, org: &OrgId) -> Result<Scope> {
    existing(cx, platform, org).await?;
    Ok(operator_in(platform, org))
}

/// What a workflow gets.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The workflow; none for workspace code that declares nothing.
    pub workflow: Option<String>,
    /// What the code declares.
    pub declared: (Rights, Limits),
    /// What a step may do, and use, and why it is less.
    pub allowed: Restricted,
}

impl Effective {
    /// Whether a run of it would be started.
    #[must_use]
    pub fn startable(&self) -> bool {
        !self.allowed.reasons.iter().any(|reason| reason.refused)
    }
}

/// What steps of a workflow would be allowed now, and why; without one, what the organization's workspace code is allowed that
/// declares nothing.
///
/// # Errors
/// When the scope may not, there is no such workflow, or the workspace or storage can't be used.
pub async fn effective(cx: &Context, scope: &Scope, workflow: Option<&str>) -> Result<Effective> {
    scope.authorize(Action::Read, Resource::Policy)?;
    let declared = match workflow {
        None => (Rights::of_workspace(&[]), cx.bounds.attempt.clone()),
        Some(name) => {
            let current = cx.catalogs.current().await?;
            let declared = catalog::find(&current, name)?;
            match &declared.graph {
                None => declares(declared, &cx.bounds.attempt),
                Some(graph) => {
                    let functions = current.catalog.functions_of(graph).into_values();
                    all_of(functions.map(|function| declares(function, &cx.bounds.attempt)))
                        .unwrap_or_else(|| (Rights::default(), cx.bounds.attempt.clone()))
                }
            }
        }
    };
    let ceilings = Ceilings::of(cx, scope).await?;
    Ok(Effective {
        workflow: workflow.map(str::to_owned),
        allowed: ceilings.settled(&declared.0, &declared.1),
        declared,
    })
}

fn declares(declared: &Declared, limits: &Limits) -> (Rights, Limits) {
    let code = Code::of(declared, limits);
    (code.rights, code.limits)
}

/// What all functions of a graph declare together: the hosts of each, and for the rest the most that one declares.
fn all_of(mut declared: impl Iterator<Item = (Rights, Limits)>) -> Option<(Rights, Limits)> {
    let first = declared.next()?;
    Some(declared.fold(first, |(rights, limits), (more, wider)| {
        let network = match (rights.network, more.network) {
            (Network::Open, _) | (_, Network::Open) => Network::Open,
            (Network::None, other) | (other, Network::None) => other,
            (Network::Allowlist(mut hosts), Network::Allowlist(others)) => {
                hosts.extend(others);
                hosts.sort();
                hosts.dedup();
                Network::Allowlist(hosts)
            }
        };
        let rights = Rights {
            trust: rights.trust.max(more.trust),
            network,
            ..rights
        };
        (rights, limits.max(&wider))
    }))
}

const fn may_widen(principal: &Principal) -> bool {
    matches!(
        principal,
        Principal::User {
            administrator: true,
            ..
        } | Principal::Operator
            | Principal::System { .. }
    )
}

fn parsed(written: &Map<String, Value>, base: Policy) -> Result<Policy> {
    parse_policy(written, base).map_err(|findings| {
        Error::invalid(
            "policy_invalid",
            format!("the policy has {} finding(s)", findings.len()),
            "docs/policies.md describes every member; `GET` shows the policy that holds",
            findings,
        )
    })
}

fn same(before: &StoredPolicy, if_tag: Option<&str>) -> Result<()> {
    match if_tag {
        Some(tag) if tag != before.tag() => Err(changed()),
        _ => Ok(()),
    }
}

fn changed_meanwhile(error: store::Error) -> Error {
    match error {
        store::Error::PreconditionFailed { .. } | store::Error::AlreadyExists { .. } => changed(),
        error => error.into(),
    }
}

fn changed() -> Error {
    Error::Request {
        kind: Kind::PreconditionFailed,
        code: "policy_changed",
        detail: "the policy is no longer the one that was to be replaced".to_owned(),
        hint: Some("read it again, apply the change to it, and send its `ETag` as `If-Match`".to_owned()),
        findings: Vec::new(),
    }
}

const fn written(before: &StoredPolicy) -> Written {
    match before.updated_at {
        None => Written::Created,
        Some(_) => Written::Changed,
    }
}

/// Only the members that differ.
fn record(record: Record, from: &Policy, to: &Policy) -> Record {
    let (from, to) = (json!(from), json!(to));
    let mut changes = Map::new();
    for (name, to) in to.as_object().into_iter().flatten() {
        if from[name] != *to {
            changes.insert(name.clone(), json!({"from": from[name], "to": to}));
        }
    }
    record.changes(&Value::Object(changes))
}
