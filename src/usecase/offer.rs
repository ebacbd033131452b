//! Workflows as an organization may use them: the workspace's and its own, with what keeps each from being run.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::catalog::{Current, find};
use super::policy::{Asked, Ceilings};
use super::{Context, Error, Result, node_type, resolve, workflow_assignment};
use crate::authz::{Action, Resource};
use crate::domain::Declared;
use crate::error::Finding;
use crate::store::repo::workflows::Head;
use crate::tenancy::Scope;

/// A workflow as an organization may use it.
#[derive(Debug, Clone)]
pub struct Offered {
    /// What it declares. In a list, of the organization's own, without parameters and graph.
    pub declared: Declared,
    /// Hosts that it declares to reach, or that the functions of a graph do.
    pub network: Vec<String>,
    /// What of that a policy refuses: a run is not started while there is any.
    pub refused: Vec<Finding>,
    /// What keeps it from being run otherwise: functions that the workspace doesn't declare, node types that the library doesn't
    /// have, a name that the workspace has taken.
    pub findings: Vec<Finding>,
    /// Of one that the organization has authored, how it is; the draft is for whoever may write it.
    pub head: Option<Box<Head>>,
}

/// Who has written a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginOf {
    /// Developers, in the workspace.
    Workspace,
    /// People of the organization, through the API.
    Organization,
}

impl OriginOf {
    /// From the text in a request.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "workspace" => Some(Self::Workspace),
            "organization" => Some(Self::Organization),
            _ => None,
        }
    }
}

/// Where a workflow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was never published.
    Draft,
    /// It can be called.
    Published,
    /// It can't be called any more.
    Archived,
}

impl State {
    /// From the text in a request.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "draft" => Some(Self::Draft),
            "published" => Some(Self::Published),
            "archived" => Some(Self::Archived),
            _ => None,
        }
    }
}

impl Offered {
    /// Who has written it.
    #[must_use]
    pub const fn origin(&self) -> OriginOf {
        match self.head {
            None => OriginOf::Workspace,
            Some(_) => OriginOf::Organization,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.head {
            Some(head) if head.archived.is_some() => State::Archived,
            Some(head) if head.current.is_none() => State::Draft,
            _ => State::Published,
        }
    }

    /// Its place in a list: by name, and the workspace's first.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{} {}", self.declared.name, u8::from(self.head.is_some()))
    }
}

/// Which workflows to list.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// With this text in name, description, category or a tag, in either case.
    pub search: Option<String>,
    /// Of this category.
    pub category: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// Written by whom.
    pub origin: Option<OriginOf>,
    /// In this state; none for all but archived ones.
    pub state: Option<State>,
}

impl Wanted {
    fn fits(&self, declared: &Declared) -> bool {
        let holds = |text: &str, part: &str| text.to_lowercase().contains(part);
        let found = self.search.as_ref().map(|part| part.to_lowercase()).is_none_or(|part| {
            [&declared.name, &declared.description, &declared.category]
                .into_iter()
                .chain(&declared.tags)
                .any(|text| holds(text, &part))
        });
        let category = self.category.as_ref().is_none_or(|wanted| *wanted == declared.category);
        found && category && self.tag.as_ref().is_none_or(|wanted| declared.tags.contains(wanted))
    }
}

/// A page of workflows, by name: the workspace's, and the organization's own.
///
/// # Errors
/// When the scope may not, or the workspace or storage can't be read.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    wanted: &Wanted,
    (after, limit): (Option<&str>, usize),
) -> Result<(Current, Vec<Offered>, bool)> {
    scope.authorize(Action::List, Resource::Workflow)?;
    let writes = scope.authorize(Action::Modify, Resource::Workflow).is_ok();
    let current = cx.catalogs.current().await?;
    let mut all: Vec<(Declared, Option<Head>)> = Vec::new();
    if wanted.origin != Some(OriginOf::Organization) && wanted.state.is_none_or(|state| state == State::Published) {
        all.extend(
            current
                .catalog
                .workflows
                .values()
                .map(|declared| (declared.clone(), None)),
        );
    }
    if wanted.origin != Some(OriginOf::Workspace) {
        let given = workflow_assignment::given(cx, scope).await?;
        let heads = cx.workflows.list(scope).await?.into_iter();
        let heads = heads.filter(|head| given.as_ref().is_none_or(|given| given.contains(&head.name)));
        all.extend(heads.map(|head| (shown(&head), Some(head))));
    }
    let mut items: Vec<Offered> = all
        .into_iter()
        .filter(|(declared, _)| wanted.fits(declared))
        .filter_map(|(declared, head)| seen(Offered::new(declared, head), writes))
        .filter(|offered| match wanted.state {
            None => offered.state() != State::Archived,
            Some(state) => offered.state() == state,
        })
        .filter(|offered| after.is_none_or(|after| offered.place().as_str() > after))
        .collect();
    items.sort_by_cached_key(Offered::place);
    let more = items.len() > limit;
    items.truncate(limit);
    for offered in &mut items {
        judge(cx, scope, &current, offered).await?;
    }
    Ok((current, items, more))
}

/// One workflow: what is called under its name, or the one of the organization where that is asked for.
///
/// # Errors
/// When the scope may not, or there is none of this name.
pub async fn get(cx: &Context, scope: &Scope, name: &str, origin: Option<OriginOf>) -> Result<(Current, Offered)> {
    scope.authorize(Action::Read, Resource::Workflow)?;
    let writes = scope.authorize(Action::Modify, Resource::Workflow).is_ok();
    let current = cx.catalogs.current().await?;
    let of_workspace = find(&current, name);
    let mut offered = match (of_workspace, origin) {
        (Ok(declared), None | Some(OriginOf::Workspace)) => Offered::new(declared.clone(), None),
        (missing, Some(OriginOf::Workspace)) => return Err(missing.err().unwrap_or_else(|| absent(name))),
        (of_workspace, _) => {
            let missing = of_workspace.err().unwrap_or_else(|| absent(name));
            let stored = match resolve::is_name(name) {
                true => cx.workflows.get(scope, name).await?,
                false => None,
            };
            let given = workflow_assignment::given(cx, scope).await?;
            let stored = stored.filter(|_| given.is_none_or(|given| given.contains(name)));
            let Some(stored) = stored else { return Err(missing) };
            let declared = match &stored.head.current {
                None => shown(&stored.head),
                Some(one) => {
                    let graph = cx.workflows.load(scope, &stored.graph).await?;
                    cx.read.get(name, &one.revision.digest, &graph).declared.clone()
                }
            };
            seen(Offered::new(declared, Some(stored.head)), writes).ok_or(missing)?
        }
    };
    judge(cx, scope, &current, &mut offered).await?;
    Ok((current, offered))
}

fn absent(name: &str) -> Error {
    Error::not_found(
        "workflow_not_found",
        format!("the organization has no workflow `{name:.80}`"),
        "`GET /api/workflows` lists those that there are",
    )
}

/// What lists show of an organization's workflow.
fn shown(head: &Head) -> Declared {
    let about = head.shown();
    Declared {
        name: head.name.clone(),
        description: about.description.clone(),
        category: about.category.clone(),
        tags: about.tags.clone(),
        ..Declared::default()
    }
}

/// What somebody gets to see of a workflow: drafts are for those who write.
fn seen(mut offered: Offered, writes: bool) -> Option<Offered> {
    if let Some(head) = &mut offered.head
        && !writes
    {
        head.current.as_ref()?;
        head.draft = None;
    }
    Some(offered)
}

impl Offered {
    fn new(declared: Declared, head: Option<Head>) -> Self {
        Self {
            declared,
            network: Vec::new(),
            refused: Vec::new(),
            findings: Vec::new(),
            head: head.map(Box::new),
        }
    }
}

/// Looks at what it calls: hosts, and what keeps it from being run.
async fn judge(cx: &Context, scope: &Scope, current: &Current, offered: &mut Offered) -> Result<()> {
    let ceilings = ceilings_of(cx, scope, &offered.declared).await?;
    let catalog = &current.catalog;
    let names = offered
        .head
        .as_ref()
        .and_then(|head| head.current.as_ref())
        .map(|one| &one.functions);
    let (versions, mut findings) = match (&offered.declared.graph, names) {
        (Some(graph), _) => node_type::look(cx, scope, current, (graph, &BTreeMap::new())).await?,
        (None, Some(names)) => (node_type::declared(cx, scope, current, names).await?, Vec::new()),
        (None, None) => Default::default(),
    };
    let mut called: Vec<&Declared> = match (&offered.declared.graph, &offered.head, names) {
        (None, None, _) => vec![&offered.declared],
        (_, _, Some(names)) => {
            let functions = names.iter().filter(|name| !name.contains('@'));
            for name in functions.filter(|name| catalog.function(name).is_none()) {
                let message = format!("it calls `{name}`, which the workspace doesn't declare");
                let hint = "have the workspace declare it, or publish a revision that doesn't call it";
                findings.push(Finding::new("", "unknown_use", message).hint(hint));
            }
            names.iter().filter_map(|name| catalog.function(name)).collect()
        }
        (Some(graph), _, None) => catalog.functions_of(graph).into_values().collect(),
        (None, Some(_), None) => Vec::new(),
    };
    called.extend(versions.values());
    if let (Some(_), Some(declared)) = (&offered.head, catalog.workflows.get(&offered.declared.name)) {
        let message = format!(
            "the name is the workspace's by now, whose workflow is called: {}:{}",
            declared.path, declared.line
        );
        let hint = "give one of both another name: import its export under another, and archive this one";
        findings.push(Finding::new("/name", "name_taken", message).hint(hint));
    }
    let network: BTreeSet<&String> = called.iter().flat_map(|function| &function.network).collect();
    let network = network.into_iter().cloned().collect();
    let refused = called.iter().flat_map(|function| ceilings.refusals(function)).collect();
    (offered.network, offered.refused, offered.findings) = (network, refused, findings);
    Ok(())
}

async fn ceilings_of(cx: &Context, scope: &Scope, declared: &Declared) -> Result<Ceilings> {
    let asked = Asked {
        workflow: declared.security_profile,
        ..Asked::default()
    };
    Ceilings::of(cx, scope, asked).await
}
