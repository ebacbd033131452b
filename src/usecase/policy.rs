//! What steps are allowed to do: read and change policies, and bring what code declares below them.
//!
//! A declaration that a policy refuses is refused as a whole when somebody asks for a run. What a policy merely lowers (limits,
//! trust, modules) is lowered. An attempt is brought below the policies once more: one that was narrowed since counts, one that
//! was widened gives nothing that the plan lacks. The security profile that holds is one more ceiling below the policies.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::on_record::{keep, recorded};
use super::organization::existing;
use super::{Context, Error, Result, catalog, node_type, resolve};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Caller, Origin, Principal, Resource};
use crate::definition::{Longest, parse_policy};
use crate::domain::{
    Chosen, ChosenBy, Declared, Limits, Network, OrgId, Programs, Rights, SecurityProfile, Trust, settle, stricter,
};
pub use crate::domain::{Holder, LimitCeilings, Policy, Reason, Restricted, Subject};
use crate::error::{Finding, Kind};
use crate::scheduler::{BUILT_IN, Code, Plan, Starts};
use crate::store;
pub use crate::store::repo::identity::Written;
use crate::store::repo::policies::Both;
pub use crate::store::repo::policies::StoredPolicy;
use crate::tenancy::{self, PlatformScope, Scope, operator_in};

/// How long a run may last that is not hurried.
const UNHURRIED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The ceilings that hold for an organization's steps.
#[derive(Debug, Clone)]
pub struct Ceilings {
    installation: Option<Policy>,
    both: Both,
    organization: Holder,
    chosen: Chosen,
}

/// Profiles that are asked for beside those of the installation and the policies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// By the workflow.
    pub workflow: Option<SecurityProfile>,
    /// For the run.
    pub run: Option<SecurityProfile>,
}

impl Ceilings {
    pub(super) async fn of(cx: &Context, scope: &Scope, asked: Asked) -> Result<Self> {
        let both = cx.policies.both(scope).await?;
        let chosen = Chosen::strictest(
            cx.bounds.profile,
            [
                (ChosenBy::Platform, both.platform.profile),
                (ChosenBy::Organization, both.organization.profile),
                (ChosenBy::Workflow, asked.workflow),
                (ChosenBy::Run, asked.run),
            ],
        );
        Ok(Self {
            installation: cx.bounds.network.clone().map(|network| Policy {
                network,
                ..Policy::default()
            }),
            both,
            organization: Holder::Organization {
                id: scope.org().clone(),
                name: scope.org_name().to_owned(),
            },
            chosen,
        })
    }

    /// The security profile that holds.
    #[must_use]
    pub const fn chosen(&self) -> Chosen {
        self.chosen
    }

    /// Rights and limits below all ceilings, and why they are less.
    #[must_use]
    pub fn restrict(&self, rights: &Rights, limits: &Limits) -> Restricted {
        let profile = self.chosen.profile.figures().policy();
        let installation = self.installation.as_ref().map(|policy| (Holder::Installation, policy));
        let others = [
            (Holder::Platform, &*self.both.platform),
            (self.organization.clone(), &*self.both.organization),
            (Holder::Profile(self.chosen), &profile),
        ];
        let mut below = Restricted {
            rights: rights.clone(),
            limits: limits.clone(),
            reasons: Vec::new(),
        };
        let mut lowered = Vec::new();
        for (holder, ceiling) in installation.iter().chain(&others) {
            let next = ceiling.restrict(holder, &below.rights, &below.limits);
            lowered.extend(next.reasons.into_iter().filter(|reason| !reason.refused));
            (below.rights, below.limits) = (next.rights, next.limits);
            // What each would refuse by itself is said at once, and not when the one above has changed its mind.
            let refused = ceiling.restrict(holder, rights, limits).reasons.into_iter();
            below.reasons.extend(refused.filter(|reason| reason.refused));
        }
        below.reasons.append(&mut lowered);
        below
    }

    /// Whether anything may run at all.
    pub(super) fn runs(&self, what: &str) -> Result<()> {
        if self.chosen.profile > SecurityProfile::PlanOnly {
            return Ok(());
        }
        Err(Error::Request {
            kind: Kind::Denied,
            code: "plan_only",
            detail: format!("nothing runs under the security profile `plan_only`, so {what} was not started"),
            hint: Some(format!(
                "`POST /api/workflows/NAME/plan` shows what would happen; the profile was chosen by {}",
                self.chosen.by.place()
            )),
            findings: Vec::new(),
        })
    }

    /// Whether an attempt may be made by what holds now: a profile or a trust may have become stricter since the run began.
    ///
    /// # Errors
    /// `plan_only`, or `policy_refused` with all that is wrong with a command.
    pub(super) fn attempts(&self, step: &str, code: &Code, trust: Trust) -> Result<()> {
        self.runs("the attempt")?;
        let findings = self.command(step, code, trust);
        if findings.is_empty() {
            return Ok(());
        }
        let refused: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
        Err(Error::Request {
            kind: Kind::Denied,
            code: "policy_refused",
            detail: format!(
                "what holds has become stricter since the run began: {}",
                refused.join("; ")
            ),
            hint: findings.first().and_then(|finding| finding.hint.clone()),
            findings,
        })
    }

    /// What is refused of a step that is a command.
    fn command(&self, step: &str, code: &Code, trust: Trust) -> Vec<Finding> {
        let mut findings = self.programs(step, code);
        if code.starts != Starts::Nothing && trust == Trust::Restricted {
            let message = format!("step `{step}` is a command, and restricted code starts no processes");
            findings.push(
                Finding::new(format!("/nodes/{step}"), "shell_not_allowed", message)
                    .hint("a platform administrator raises `trust` of the policy to `trusted`"),
            );
        }
        findings
    }

    /// Programs of a command that the profile doesn't list.
    fn programs(&self, step: &str, code: &Code) -> Vec<Finding> {
        let (allowed, profile) = (self.chosen.profile.figures().programs, self.chosen.profile);
        let place = format!("/nodes/{step}/command");
        let hint = || {
            format!(
                "docs/profiles.md says which programs it lists; the profile was chosen by {}",
                self.chosen.by.place()
            )
        };
        match &code.starts {
            Starts::Nothing => Vec::new(),
            Starts::Unknown if allowed == Programs::Any => Vec::new(),
            Starts::Unknown => {
                let message = format!(
                    "step `{step}`: which programs the command starts can't be told, and the security profile `{profile}` lists those \
                     that may be started"
                );
                vec![Finding::new(place, "program_not_told", message).hint(hint())]
            }
            Starts::Programs(programs) => programs
                .iter()
                .filter(|program| !allowed.allow(program))
                .map(|program| {
                    let message = format!(
                        "step `{step}` starts `{program:.60}`, which the security profile `{profile}` doesn't list"
                    );
                    Finding::new(place.as_str(), "program_not_allowed", message).hint(hint())
                })
                .collect(),
        }
    }

    /// Texts among arguments that are longer than the profile lets them be.
    pub(super) fn too_long(&self, arguments: &Map<String, Value>) -> Vec<Finding> {
        let most = self.chosen.profile.figures().input_chars;
        let mut findings = Vec::new();
        for (name, value) in arguments {
            long_texts(
                value,
                &format!("/{}", name.replace('~', "~0").replace('/', "~1")),
                most,
                &mut findings,
            );
        }
        findings
            .into_iter()
            .map(|(pointer, chars)| {
                let message = format!(
                    "the text has {chars} characters, and the security profile `{}` allows {most}",
                    self.chosen.profile
                );
                Finding::new(pointer, "text_too_long", message)
                    .hint("give what is long as an artifact, or run it under a less strict profile")
            })
            .collect()
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

/// The texts in a value that are longer than so many characters, with their pointers and lengths; at most fifty.
fn long_texts(value: &Value, pointer: &str, most: usize, found: &mut Vec<(String, usize)>) {
    if found.len() >= 50 {
        return;
    }
    match value {
        // As many bytes are at least as many characters.
        Value::String(text) if text.len() > most => {
            let chars = text.chars().count();
            if chars > most {
                found.push((pointer.to_owned(), chars));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                long_texts(item, &format!("{pointer}/{index}"), most, found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                long_texts(member, &format!("{pointer}/{name}"), most, found);
            }
        }
        _ => {}
    }
}

/// What of a declaration a policy of the platform refuses, where no organization is asked about.
#[must_use]
pub fn refused_by_platform(policy: &Policy, declared: &Declared) -> Vec<Finding> {
    let restricted = policy.restrict(&Holder::Platform, &declared.rights(), &Limits::default());
    refusals(declared, &restricted.reasons)
}

fn refusals(declared: &Declared, reasons: &[Reason]) -> Vec<Finding> {
    refusals_at(&format!("{}:{}:1", declared.path, declared.line.max(1)), reasons)
}

fn refusals_at(place: &str, reasons: &[Reason]) -> Vec<Finding> {
    let refused = reasons.iter().filter(|reason| reason.refused);
    refused
        .map(|reason| Finding::new(place, reason.code, reason.message.as_str()).hint(reason.remedy.as_str()))
        .collect()
}

/// What a worker is given of a declaration, below the policies and the profile that holds; or the refusal with everything that they
/// don't allow. The refusal is on record. `profile` is what is asked for beside those of the installation and the policies.
pub(super) async fn admit(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    declared: &Declared,
    profile: Option<SecurityProfile>,
    (rights, limits): (&Rights, &Limits),
) -> Result<Restricted> {
    let kind = declared.declared_as.as_str();
    let asked = Asked {
        run: profile,
        ..Asked::default()
    };
    let ceilings = Ceilings::of(cx, scope, asked).await?;
    if let Err(error) = ceilings.runs(&format!("{} `{}`", kind.replace('_', " "), declared.name)) {
        return Err(refused_by_profile(cx, scope, origin, (kind, &declared.name), error).await?);
    }
    let findings = refusals(declared, &ceilings.restrict(rights, limits).reasons);
    if findings.is_empty() {
        return Ok(ceilings.settled(rights, limits));
    }
    Err(refused(cx, scope, origin, (kind, &declared.name), findings).await?)
}

/// A refusal by a profile, when it is on record.
async fn refused_by_profile(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (kind, name): (&'static str, &str),
    error: Error,
) -> Result<Error> {
    let record = cx
        .audit
        .by(scope, AuditEvent::PolicyRefused)
        .came_from(origin)
        .resource(kind, name)
        .detail(&json!({"refused": [error.to_string()]}));
    keep(cx, scope, record).await?;
    Ok(error)
}

/// The refusal of something that code declares, when it is on record.
pub(super) async fn refused(
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

/// The steps of a plan brought below the policies and the profile that holds, or the refusal with everything that they don't
/// allow of any step, or of the arguments. The plan keeps the profiles that were asked for.
pub(super) async fn admit_plan(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    current: &catalog::Current,
    (mut plan, asked): (Plan, Asked),
    arguments: &Map<String, Value>,
) -> Result<Plan> {
    let ceilings = Ceilings::of(cx, scope, asked).await?;
    if let Err(error) = ceilings.runs(&format!("workflow `{}`", plan.workflow)) {
        return Err(refused_by_profile(cx, scope, origin, ("workflow", &plan.workflow), error).await?);
    }
    let long = ceilings.too_long(arguments);
    if !long.is_empty() {
        return Err(Error::invalid(
            "arguments_invalid",
            format!("the arguments of `{}` have {} finding(s)", plan.workflow, long.len()),
            "`GET /api/policy/effective` shows the profile that holds",
            long,
        ));
    }
    plan.profile = stricter(asked.workflow, asked.run);
    let findings = below(&ceilings, current, &mut plan);
    if findings.is_empty() {
        return Ok(plan);
    }
    Err(refused(cx, scope, origin, ("workflow", &plan.workflow), findings).await?)
}

/// Brings the steps of a plan below ceilings; what is refused of them.
pub(super) fn below(ceilings: &Ceilings, current: &catalog::Current, plan: &mut Plan) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for step in &mut plan.steps {
        let id = step.id.clone();
        let Some(code) = step.work.code_mut() else { continue };
        let below = ceilings.restrict(&code.rights, &code.limits);
        let new = if code.module == BUILT_IN && code.rights.trust == Trust::Restricted {
            not_trusted(&id, code, &plan.workflow)
        } else if code.module == BUILT_IN || code.digest.is_some() {
            let mut own = refusals_at(&format!("/nodes/{id}"), &below.reasons);
            own.extend(ceilings.command(&id, code, below.rights.trust));
            own
        } else {
            match current.catalog.function(&code.name) {
                Some(declared) => refusals(declared, &below.reasons),
                None => Vec::new(),
            }
        };
        let new = new.into_iter().filter(|finding| !findings.contains(finding));
        findings.extend(new.collect::<Vec<_>>());
        (code.rights, code.limits) = (below.rights, below.limits);
    }
    findings
}

/// What is refused of a command or a request that somebody of the organization has written, whom nobody has trusted with it.
pub(super) fn not_trusted(step: &str, code: &Code, workflow: &str) -> Vec<Finding> {
    let what = if code.starts != Starts::Nothing {
        "is a command"
    } else if code.rights.network != Network::None {
        "makes a request"
    } else {
        return Vec::new();
    };
    let message = format!("step `{step}` {what}, and nobody has trusted this revision of `{workflow}` with that");
    let finding = Finding::new(format!("/nodes/{step}"), "not_trusted", message);
    vec![finding.hint(format!(
        "have a platform administrator look at it: `PUT /api/workflows/{workflow}/trust`; or call a function of the workspace"
    ))]
}

/// How long a run of this plan may last at most from its beginning, under the profile that holds.
///
/// # Errors
/// When nothing may run under it, or storage fails.
pub(super) async fn longest(cx: &Context, scope: &Scope, plan: &Plan) -> Result<Duration> {
    let asked = Asked {
        run: plan.profile,
        ..Asked::default()
    };
    let ceilings = Ceilings::of(cx, scope, asked).await?;
    ceilings.runs(&format!("workflow `{}`", plan.workflow))?;
    if !cx.hurries {
        return Ok(UNHURRIED);
    }
    let longest = Duration::from_secs(ceilings.chosen().profile.figures().run_seconds);
    Ok(longest.min(cx.bounds.run))
}

/// How many bytes of artifacts an organization may have, and who says so: the least of what the installation, the platform's policy
/// and its own say.
///
/// # Errors
/// When storage fails.
pub(super) async fn artifact_bytes(cx: &Context, scope: &Scope) -> Result<(u64, &'static str)> {
    let both = cx.policies.both(scope).await?;
    let mut least = (cx.artifacts.quotas().organization, "installation");
    for (policy, by) in [(&both.platform, "platform"), (&both.organization, "organization")] {
        if let Some(bytes) = policy.artifact_bytes.filter(|bytes| *bytes < least.0) {
            least = (bytes, by);
        }
    }
    Ok(least)
}

/// How long attempts and runs of an organization may last at most, where a workflow asks for a profile.
///
/// # Errors
/// When storage fails.
pub(super) async fn longest_times(cx: &Context, scope: &Scope, workflow: Option<SecurityProfile>) -> Result<Longest> {
    let asked = Asked {
        workflow,
        ..Asked::default()
    };
    let ceilings = Ceilings::of(cx, scope, asked).await?;
    let limits = ceilings.restrict(&Rights::of_workspace(&[]), &cx.bounds.attempt).limits;
    Ok(Longest::of(&limits, cx.bounds.run, ceilings.chosen().profile))
}

/// How many runs of an organization may be under way at once: what the installation says, and the profile that holds for all of
/// them.
///
/// # Errors
/// When storage fails.
pub(super) async fn concurrent_runs(cx: &Context, scope: &Scope) -> Result<u32> {
    let ceilings = Ceilings::of(cx, scope, Asked::default()).await?;
    Ok(ceilings
        .chosen()
        .profile
        .figures()
        .concurrent_runs
        .min(cx.bounds.concurrent_runs))
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
                detail: "this caller may narrow the policy, and not give more trust, modules, open network or bytes of artifacts"
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
    let record = || {
        record(cx.audit.by(scope, AuditEvent::PolicyChanged), &before.policy, &policy)
            .came_from(origin)
            .resource("policy", scope.org().as_str())
    };
    let put = async {
        let put = cx.policies.put(scope, &before, &policy).await;
        put.map_err(changed_meanwhile)
    };
    recorded(cx, scope, record, put).await?;
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
    let record = || {
        let record = cx.audit.by(platform, AuditEvent::PolicyChanged).came_from(origin);
        self::record(record, &before.policy, &policy).resource("policy", "platform")
    };
    let put = async {
        let put = cx.policies.put_platform(platform, &before, &policy).await;
        put.map_err(changed_meanwhile)
    };
    recorded(cx, platform, record, put).await?;
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
    /// The security profile that holds.
    pub chosen: Chosen,
}

impl Effective {
    /// Whether a run of it would be started.
    #[must_use]
    pub fn startable(&self) -> bool {
        self.chosen.profile > SecurityProfile::PlanOnly && !self.allowed.reasons.iter().any(|reason| reason.refused)
    }
}

/// What steps of a workflow would be allowed now, and why; without one, what the organization's workspace code is allowed that
/// declares nothing.
///
/// # Errors
/// When the scope may not, there is no such workflow, or the workspace or storage can't be used.
pub async fn effective(cx: &Context, scope: &Scope, workflow: Option<&str>) -> Result<Effective> {
    scope.authorize(Action::Read, Resource::Policy)?;
    let mut asked = Asked::default();
    let declared = match workflow {
        None => (Rights::of_workspace(&[]), cx.bounds.attempt.clone()),
        Some(name) => {
            let found = resolve::resolve(cx, scope, name).await?;
            let (current, declared) = (&found.current, found.declared());
            asked.workflow = declared.security_profile;
            match &declared.graph {
                None => declares(declared, &cx.bounds.attempt),
                Some(graph) => {
                    let (versions, _) = node_type::look(cx, scope, current, (graph, &BTreeMap::new())).await?;
                    let functions = current.catalog.functions_of(graph).into_values();
                    all_of(
                        functions
                            .chain(versions.values())
                            .map(|function| declares(function, &cx.bounds.attempt)),
                    )
                    .unwrap_or_else(|| (Rights::default(), cx.bounds.attempt.clone()))
                }
            }
        }
    };
    let ceilings = Ceilings::of(cx, scope, asked).await?;
    Ok(Effective {
        chosen: ceilings.chosen(),
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
