//! Which workflow is called under a name: the workspace's, else what the organization has published.
//!
//! What an organization has published is a graph; the code that it calls is the workspace's, which changes without it. So it is
//! looked at again, against each bundle once, before anything of it is started.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::catalog::Current;
use super::{Context, Error, Result, catalog, node_type, policy, workflow_assignment};
use crate::authz::Origin;
use crate::definition::{Authored, calls_of, read_authored};
use crate::domain::{Declared, Timestamp, Trust, WorkflowRevision};
use crate::error::{Finding, Kind};
use crate::scheduler::{BUILT_IN, Plan};
use crate::store::repo::workflows::Called;
use crate::tenancy::Scope;

/// How many graphs are kept read.
const KEPT: usize = 128;
/// Most workflows of the organization that are looked at for one that calls them, directly and below.
const MOST_CALLED: usize = 200;

/// A version of an organization's workflow.
#[derive(Debug, Clone)]
pub struct OfOrganization {
    /// What it says.
    pub authored: Arc<Authored>,
    /// Which revision it is.
    pub revision: WorkflowRevision,
    /// Since when it is called; of a draft, when it was saved.
    pub since: Timestamp,
    /// How far its own commands and requests are trusted.
    pub trust: Trust,
}

/// A workflow that can be called.
#[derive(Debug, Clone)]
pub struct Found {
    /// The bundle whose code it is, or calls.
    pub current: Current,
    of: Of,
}

#[derive(Debug, Clone)]
enum Of {
    Workspace(String),
    Organization(OfOrganization),
}

impl Found {
    /// What it declares.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        match &self.of {
            // It was there when this was made, and a catalog doesn't change.
            Of::Workspace(name) => &self.current.catalog.workflows[name],
            Of::Organization(one) => &one.authored.declared,
        }
    }

    /// What it is of the organization; none where the workspace declares it.
    #[must_use]
    pub const fn of_organization(&self) -> Option<&OfOrganization> {
        match &self.of {
            Of::Workspace(_) => None,
            Of::Organization(one) => Some(one),
        }
    }
}

/// The workflow of a name.
///
/// # Errors
/// When there is none, it is archived, the workspace can't be described, or storage fails.
pub(super) async fn resolve(cx: &Context, scope: &Scope, name: &str) -> Result<Found> {
    let current = cx.catalogs.current().await?;
    let missing = match catalog::find(&current, name) {
        Ok(_) => {
            return Ok(Found {
                current,
                of: Of::Workspace(name.to_owned()),
            });
        }
        Err(missing) => missing,
    };
    let found = of_organization(cx, scope, name).await?.ok_or(missing)?;
    Ok(Found {
        current,
        of: Of::Organization(found),
    })
}

/// The draft of a name, as something that can be tried.
///
/// # Errors
/// When the organization has no such draft, the name is the workspace's, or storage fails.
pub(super) async fn draft(cx: &Context, scope: &Scope, name: &str) -> Result<Found> {
    let current = cx.catalogs.current().await?;
    let stored = match is_name(name) {
        true => cx.workflows.get(scope, name).await?,
        false => None,
    };
    let Some((head, stored)) = stored.and_then(|stored| Some((stored.head.draft.clone()?, stored))) else {
        return Err(no_draft(name));
    };
    let graph = cx.workflows.load(scope, &stored.draft).await?;
    Ok(Found {
        current,
        of: Of::Organization(OfOrganization {
            trust: stored.head.trust_of(&head.digest),
            authored: cx.read.get(name, &head.digest, &graph),
            revision: WorkflowRevision {
                number: None,
                digest: head.digest,
            },
            since: head.saved_at,
        }),
    })
}

/// What an organization has published under a name; none where there is nothing.
async fn of_organization(cx: &Context, scope: &Scope, name: &str) -> Result<Option<OfOrganization>> {
    if !is_name(name) {
        return Ok(None);
    }
    let Some(called) = cx.workflows.called(scope, name).await? else {
        return Ok(None);
    };
    let Called { head, graph } = called.as_ref();
    let Some(current) = &head.current else {
        return Ok(None);
    };
    if let Some(given) = workflow_assignment::given(cx, scope).await?
        && !given.contains(name)
    {
        return Ok(None);
    }
    if let Some((at, by)) = &head.archived {
        return Err(Error::conflict(
            "workflow_archived",
            format!("workflow `{name}` was archived at {at} by {}", by.name),
            format!("`POST /api/workflows/{name}/unarchive` makes it callable again"),
        ));
    }
    Ok(Some(OfOrganization {
        authored: cx.read.get(name, &current.revision.digest, graph),
        revision: WorkflowRevision {
            number: Some(current.revision.number),
            digest: current.revision.digest.clone(),
        },
        since: current.since,
        trust: head.trust(),
    }))
}

/// Refuses to run a plan of before once more whose own commands and requests were trusted then, and are not any more.
///
/// # Errors
/// `policy_refused` with every such step, or when storage fails.
pub(super) async fn still_trusted(cx: &Context, scope: &Scope, origin: &Origin, plan: &Plan) -> Result<()> {
    let Some(revision) = &plan.revision else { return Ok(()) };
    let own = plan.steps.iter().filter_map(|step| Some((step, step.work.code()?)));
    let own = own.filter(|(_, code)| code.module == BUILT_IN && code.rights.trust == Trust::Trusted);
    let findings: Vec<_> = own
        .flat_map(|(step, code)| policy::not_trusted(&step.id, code, &plan.workflow))
        .collect();
    if findings.is_empty() {
        return Ok(());
    }
    let called = cx.workflows.called(scope, &plan.workflow).await?;
    if called.is_some_and(|called| called.head.trust_of(&revision.digest) == Trust::Trusted) {
        return Ok(());
    }
    Err(policy::refused(cx, scope, origin, ("workflow", &plan.workflow), findings).await?)
}

/// Whether it can be the name of a workflow: nothing else is looked for.
pub(super) fn is_name(name: &str) -> bool {
    crate::definition::is_workflow_name(name)
}

pub(super) fn no_draft(name: &str) -> Error {
    Error::not_found(
        "draft_not_found",
        format!("workflow `{name:.80}` has no draft in this organization"),
        "`PUT /api/workflows/{name}/draft` with `If-None-Match: *` begins one",
    )
}

/// Refuses what doesn't fit to the code that it calls.
///
/// # Errors
/// `workflow_invalid` of a draft, `workflow_broken` of what was published, with everything that is wrong.
pub(super) fn fits(cx: &Context, found: &Found) -> Result<()> {
    let Some(one) = found.of_organization() else {
        return Ok(());
    };
    let mut findings = cx.read.against(&one.revision.digest, &one.authored, &found.current);
    let name = &one.authored.declared.name;
    if one.revision.is_draft() {
        findings.splice(0..0, one.authored.findings().iter().cloned());
        if !findings.is_empty() {
            return Err(invalid(name, findings));
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    let said: Vec<_> = findings.iter().take(3).map(|found| found.message.as_str()).collect();
    Err(Error::Request {
        kind: Kind::Conflict,
        code: "workflow_broken",
        detail: format!(
            "workflow `{name}` doesn't fit to the workspace any more: {}",
            said.join("; ")
        ),
        hint: Some("publish a revision that does, or have the workspace declare what is missing".to_owned()),
        findings,
    })
}

/// A graph that can't be published or run.
pub(super) fn invalid(name: &str, findings: Vec<Finding>) -> Error {
    Error::invalid(
        "workflow_invalid",
        format!("workflow `{name:.80}` has {} finding(s)", findings.len()),
        "docs/graphs.md describes every member; `POST /api/workflows/NAME/validate` looks without saving",
        findings,
    )
}

/// All that is wrong with a graph, against the workspace and the organization's published workflows.
///
/// # Errors
/// When storage fails.
pub(super) async fn findings(
    cx: &Context,
    scope: &Scope,
    current: &Current,
    authored: &Authored,
) -> Result<Vec<Finding>> {
    let others = called_below(cx, scope, current, authored).await?;
    let mut findings = authored.findings().to_vec();
    findings.extend(authored.against(&current.catalog, &others));
    let (_, of_library) = node_type::look(cx, scope, current, (authored.graph(), &others)).await?;
    for finding in of_library {
        // What is wrong with one end of an edge is seen without the library too.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    Ok(findings)
}

/// The organization's workflows that a graph calls, and those that these call. The workspace's graphs call none of them.
///
/// # Errors
/// When storage fails.
pub(super) async fn called_below(
    cx: &Context,
    scope: &Scope,
    current: &Current,
    authored: &Authored,
) -> Result<BTreeMap<String, Arc<Authored>>> {
    let mut found = BTreeMap::new();
    let names = |graph: &Authored| -> Vec<String> { calls_of(graph.graph()).into_iter().map(str::to_owned).collect() };
    let mut next: VecDeque<String> = names(authored).into();
    while let Some(name) = next.pop_front() {
        if found.len() >= MOST_CALLED
            || found.contains_key(&name)
            || name == authored.declared.name
            || current.catalog.workflows.contains_key(&name)
        {
            continue;
        }
        match of_organization(cx, scope, &name).await {
            Ok(Some(one)) => {
                next.extend(names(&one.authored));
                found.insert(name, one.authored);
            }
            // Archived is as good as not there.
            Ok(None) => {}
            Err(error) if crate::error::Coded::kind(&error) == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Graphs that were read, by the digests of what they say: the last ones that were asked for.
#[derive(Debug, Default)]
pub struct Read(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    name: String,
    digest: String,
    authored: Arc<Authored>,
    /// What of it doesn't fit to a bundle.
    verdict: Option<(String, Vec<Finding>)>,
}

impl Read {
    pub(super) fn get(&self, name: &str, digest: &str, graph: &Value) -> Arc<Authored> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = entries
            .iter()
            .position(|entry| entry.digest == digest && entry.name == name)
            && let Some(entry) = entries.remove(place)
        {
            let authored = entry.authored.clone();
            entries.push_front(entry);
            return authored;
        }
        let authored = Arc::new(read_authored(name, graph));
        entries.push_front(Entry {
            name: name.to_owned(),
            digest: digest.to_owned(),
            authored: authored.clone(),
            verdict: None,
        });
        entries.truncate(KEPT);
        authored
    }

    fn against(&self, digest: &str, authored: &Arc<Authored>, current: &Current) -> Vec<Finding> {
        let bundle = &current.bundle.digest;
        let is_it = |entry: &Entry| entry.digest == digest && Arc::ptr_eq(&entry.authored, authored);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = known
            .iter()
            .find(|entry| is_it(entry))
            .and_then(|entry| entry.verdict.clone());
        drop(known);
        if let Some((seen, findings)) = verdict
            && seen == *bundle
        {
            return findings;
        }
        let findings = authored.against_functions(&current.catalog);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.iter_mut().find(|entry| is_it(entry)) {
            entry.verdict = Some((bundle.clone(), findings.clone()));
        }
        findings
    }
}
