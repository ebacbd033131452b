//! Workflows that an organization authors: save drafts, publish them as revisions, go back to earlier ones, archive.
//!
//! A draft may be unfinished; what is published is checked as a whole. A revision never changes, and each workflow has one that is
//! called. Whoever saves or publishes names the draft that they have seen, so nobody's work is lost.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::on_record::recorded;
use super::{Context, Error, Result, policy, resolve, workflow_assignment};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Origin, Principal, Resource};
use crate::definition::{Authored, Change, difference, is_graph, nodes_of, read_authored};
use crate::domain::{Graph, Payload, Timestamp, Trust};
use crate::error::Finding;
use crate::store;
use crate::store::port::Continuation;
pub use crate::store::repo::workflows::{
    About, By, Current, DraftHead, Head, KEPT_REVISIONS, MAX_WORKFLOWS, RevisionHead,
};
use crate::store::repo::workflows::{StoredRevision, StoredWorkflow};
use crate::tenancy::Scope;

/// How often a write that met another one is tried again.
const TRIES: usize = 5;
/// Saves of one person within this time are one record.
const RECORD_EVERY: Duration = Duration::from_secs(600);
/// How many graphs of a workflow are trusted at most.
const KEPT_TRUSTED: usize = 50;
/// Names that are routes.
const RESERVED: [&str; 1] = ["import"];
/// Most characters of what is said about a revision.
const MAX_MESSAGE: usize = 500;
/// Most of the functions that a workflow calls whose names are kept for lists.
const KEPT_FUNCTIONS: usize = 200;
/// Most characters of a description in lists.
const SHOWN_DESCRIPTION: usize = 500;
/// Most characters of a category or a tag in lists, and how many tags.
const SHOWN_WORD: usize = 60;

/// What must be there for a change to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Nothing,
    /// Whatever is there: the last one wins.
    Anything,
    /// What has this tag.
    Tag(String),
}

/// A draft.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What it is.
    pub head: DraftHead,
    /// Its graph.
    pub graph: Value,
    /// What is wrong with it now.
    pub findings: Vec<Finding>,
    /// What is noticed, and keeps it from nothing.
    pub noticed: Vec<Finding>,
}

/// A draft to save.
#[derive(Debug)]
pub struct Save {
    /// The workflow.
    pub name: String,
    /// Its graph, as it was sent.
    pub graph: Value,
    /// The draft that it takes the place of.
    pub expected: Expected,
    /// Whether a graph without nodes may take the place of one that has some.
    pub clear: bool,
}

/// The draft of a workflow, with what is wrong with it now.
///
/// # Errors
/// When the scope may not, there is none, the workspace can't be described, or storage fails.
pub async fn get_draft(cx: &Context, scope: &Scope, name: &str) -> Result<Draft> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    let stored = stored(cx, scope, name).await?;
    let stored = stored.ok_or_else(|| resolve::no_draft(name))?;
    let head = stored.head.draft.clone().ok_or_else(|| resolve::no_draft(name))?;
    let graph = cx.workflows.load(scope, &stored.draft).await?;
    let authored = cx.read.get(name, &head.digest, &graph);
    let findings = all_findings(cx, scope, &authored).await?;
    Ok(Draft {
        head,
        graph,
        findings,
        noticed: noticed(cx, scope, &authored).await?,
    })
}

/// Saves a draft, and begins the workflow where there is none of its name; whether it began one. An unfinished graph is saved with
/// what is wrong with it.
///
/// # Errors
/// When the scope may not, it is no graph at all, the name is taken by the workspace, the draft is not the one that was expected, it
/// would be emptied unasked, there are too many workflows, or storage fails.
pub async fn save_draft(cx: &Context, scope: &Scope, origin: &Origin, save: Save) -> Result<(bool, Draft)> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    let Save {
        name,
        graph,
        expected,
        clear,
    } = save;
    let graph = graph_of(&name, graph)?;
    let authored = read_authored(&name, &graph);
    let findings = all_findings(cx, scope, &authored).await?;
    let noticed = noticed(cx, scope, &authored).await?;
    let mut kept = None;
    let (now, by) = (cx.clock.now(), by(scope));
    for _ in 0..TRIES {
        let before = stored(cx, scope, &name).await?;
        let known = before.as_ref().and_then(|before| before.head.draft.as_ref());
        if let Err(outdated) = as_expected(&name, known, &expected) {
            // Whoever has lost the answer sends the same again.
            return match known.filter(|known| known.saved_by == by && known.digest == authored.digest) {
                Some(head) => Ok((
                    false,
                    Draft {
                        head: head.clone(),
                        graph,
                        findings,
                        noticed,
                    },
                )),
                None => Err(outdated),
            };
        }
        let nodes_before = match (&before, known) {
            (_, Some(draft)) => draft.nodes,
            (Some(before), None) => before.head.current.as_ref().map_or(0, |current| current.revision.nodes),
            (None, None) => 0,
        };
        if nodes_of(&graph) == 0 && nodes_before > 0 && !clear {
            return Err(Error::conflict(
                "draft_would_be_empty",
                format!("the graph has no nodes, and would take the place of one with {nodes_before}"),
                "an editor that has not loaded its graph must not save it; `?clear=true` empties the draft",
            ));
        }
        let kept = match &kept {
            Some(kept) => kept,
            None => kept.insert(cx.workflows.keep(scope, graph.clone()).await?),
        };
        // A person's saves, one after the other, are one record.
        let known_save = known.filter(|known| {
            known.saved_by == by && now.since(known.recorded_at) < RECORD_EVERY && now >= known.recorded_at
        });
        let head = DraftHead {
            save: before.as_ref().map_or(0, |before| before.head.saves) + 1,
            digest: authored.digest.clone(),
            nodes: nodes_of(&graph),
            saved_at: now,
            saved_by: by.clone(),
            findings: findings.len(),
            based_on: match (known, &before) {
                (Some(known), _) => known.based_on,
                (None, Some(before)) => before.head.current.as_ref().map(|current| current.revision.number),
                (None, None) => None,
            },
            recorded_at: known_save.map_or(now, |known| known.recorded_at),
        };
        let is_recorded = known_save.is_some();
        let is_new = before.is_none();
        let after = match before {
            None => {
                scope.authorize(Action::Create, Resource::Workflow)?;
                free_name(cx, &name).await?;
                let head = new_head(&name, &authored, head.clone(), by.clone(), now);
                StoredWorkflow::new(head, kept.clone())
            }
            Some(mut stored) => {
                stored.head.saves = head.save;
                stored.head.draft = Some(head.clone());
                stored.head.about = about(authored.graph());
                stored.head.updated_at = now;
                stored.draft = kept.clone();
                stored
            }
        };
        let write = async {
            if !is_new {
                return Ok(cx.workflows.save(scope, &after).await?);
            }
            let created = cx.workflows.create(scope, &after).await?;
            created.then_some(()).ok_or_else(|| {
                Error::conflict(
                    "workflow_limit_reached",
                    format!("the organization has {MAX_WORKFLOWS} workflows, drafts and archived ones among them"),
                    "discard drafts that were never published and nobody needs",
                )
            })
        };
        let written = if is_recorded {
            write.await
        } else {
            let detail = json!({"digest": head.digest, "nodes": head.nodes, "findings": head.findings, "new": is_new});
            let record = || audited(cx, scope, origin, AuditEvent::WorkflowChanged, &name).detail(&detail);
            recorded(cx, scope, record, write).await
        };
        match written {
            Ok(()) => {
                let draft = Draft {
                    head,
                    graph,
                    findings,
                    noticed,
                };
                return Ok((is_new, draft));
            }
            // Somebody else was first: whether they have changed the draft is seen by looking again.
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(busy())
}

/// Throws a draft away; a workflow that was never published goes with it.
///
/// # Errors
/// When the scope may not, there is none, it is not the one that was expected, or storage fails.
pub async fn discard_draft(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    name: &str,
    expected: &Expected,
) -> Result<()> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    for _ in 0..TRIES {
        let mut stored = stored(cx, scope, name).await?.ok_or_else(|| resolve::no_draft(name))?;
        let draft = stored.head.draft.take().ok_or_else(|| resolve::no_draft(name))?;
        as_expected(name, Some(&draft), expected)?;
        stored.draft = Payload::Inline(Value::Null);
        stored.head.updated_at = cx.clock.now();
        let is_gone = stored.head.current.is_none();
        let event = if is_gone {
            AuditEvent::WorkflowDeleted
        } else {
            AuditEvent::WorkflowDraftDiscarded
        };
        let record = || {
            let detail = json!({"digest": draft.digest, "savedBy": draft.saved_by.id});
            audited(cx, scope, origin, event, name).detail(&detail)
        };
        let write = async {
            let written = if is_gone {
                cx.workflows.delete(scope, &stored).await
            } else {
                cx.workflows.save(scope, &stored).await
            };
            Ok(written?)
        };
        match recorded(cx, scope, record, write).await {
            Err(error) if is_taken(&error) => {}
            other => return other,
        }
    }
    Err(busy())
}

/// Everything that is wrong with a graph; nothing is saved.
///
/// # Errors
/// When the scope may not, it is no graph at all, the workspace can't be described, or storage fails.
pub async fn validate(cx: &Context, scope: &Scope, name: &str, graph: Value) -> Result<(Vec<Finding>, Vec<Finding>)> {
    scope.authorize(Action::Read, Resource::Workflow)?;
    let graph = graph_of(name, graph)?;
    let current = cx.catalogs.current().await?;
    let authored = read_authored(name, &graph);
    let findings = resolve::findings(cx, scope, &current, &authored).await?;
    Ok((findings, noticed(cx, scope, &authored).await?))
}

/// Makes a draft the revision that is called.
///
/// # Errors
/// When the scope may not, there is no draft, it is not the one that was expected, something is wrong with it, the workspace has
/// taken its name, the workflow is archived, or storage fails.
pub async fn publish(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    name: &str,
    (expected, message): (&Expected, &str),
) -> Result<(Head, Vec<Finding>)> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    if message.chars().count() > MAX_MESSAGE {
        let finding = Finding::new(
            "/message",
            "too_long",
            format!("`message` has at most {MAX_MESSAGE} characters"),
        );
        return Err(resolve::invalid(name, vec![finding]));
    }
    for _ in 0..TRIES {
        let mut stored = stored(cx, scope, name).await?.ok_or_else(|| resolve::no_draft(name))?;
        let Some(draft) = stored.head.draft.take() else {
            // Whoever has lost the answer sends the same again.
            let published = stored.head.current.as_ref().map(|current| &current.revision.draft);
            return match expected {
                Expected::Tag(tag) if published == Some(tag) => Ok((stored.head, Vec::new())),
                _ => Err(resolve::no_draft(name)),
            };
        };
        as_expected(name, Some(&draft), expected)?;
        callable(&stored.head)?;
        free_name(cx, name).await?;
        let graph = cx.workflows.load(scope, &stored.draft).await?;
        let authored = cx.read.get(name, &draft.digest, &graph);
        let current = cx.catalogs.current().await?;
        let findings = resolve::findings(cx, scope, &current, &authored).await?;
        if !findings.is_empty() {
            return Err(resolve::invalid(name, findings));
        }
        let noticed = noticed(cx, scope, &authored).await?;
        let now = cx.clock.now();
        let revision = StoredRevision {
            head: RevisionHead {
                number: stored.head.last + 1,
                digest: draft.digest.clone(),
                nodes: draft.nodes,
                published_at: now,
                published_by: by(scope),
                message: message.to_owned(),
                draft: draft.tag(),
            },
            graph: std::mem::replace(&mut stored.draft, Payload::Inline(Value::Null)),
        };
        stored.head.last = revision.head.number;
        call(&mut stored, &revision, &authored, now);
        let record = || {
            let detail = json!({"revision": revision.head.number, "digest": revision.head.digest, "message": message});
            audited(cx, scope, origin, AuditEvent::WorkflowPublished, name).detail(&detail)
        };
        let publish = async { Ok(cx.workflows.publish(scope, &stored, &revision).await?) };
        match recorded(cx, scope, record, publish).await {
            Ok(()) => return Ok((stored.head, noticed)),
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(busy())
}

/// Makes a revision the one that is called.
fn call(stored: &mut StoredWorkflow, revision: &StoredRevision, authored: &Authored, now: Timestamp) {
    stored.head.current = Some(Current {
        revision: revision.head.clone(),
        since: now,
        functions: authored
            .functions()
            .into_iter()
            .take(KEPT_FUNCTIONS)
            .map(str::to_owned)
            .collect(),
        about: about(authored.graph()),
    });
    stored.head.changes += 1;
    stored.head.updated_at = now;
    stored.graph = revision.graph.clone();
}

/// A page of a workflow's revisions, the newest first.
///
/// # Errors
/// When the scope may not, there is no such workflow, the cursor is none, or storage fails.
pub async fn list_revisions(
    cx: &Context,
    scope: &Scope,
    name: &str,
    limit: usize,
    cursor: Option<String>,
) -> Result<(Vec<RevisionHead>, Option<String>)> {
    scope.authorize(Action::Read, Resource::Workflow)?;
    existing(cx, scope, name).await?;
    let with_cursor = cursor.is_some();
    let page = cx
        .workflows
        .revisions(scope, name, limit, cursor.map(Continuation))
        .await;
    let (items, next) = page.map_err(|error| Error::of_page(error, with_cursor))?;
    Ok((items, next.map(|next| next.0)))
}

/// A revision, and its graph.
///
/// # Errors
/// When the scope may not, there is no such workflow or revision, or storage fails.
pub async fn get_revision(cx: &Context, scope: &Scope, name: &str, number: u32) -> Result<(RevisionHead, Value)> {
    scope.authorize(Action::Read, Resource::Workflow)?;
    existing(cx, scope, name).await?;
    let revision = revision(cx, scope, name, number).await?;
    let graph = cx.workflows.load(scope, &revision.graph).await?;
    Ok((revision.head, graph))
}

/// What differs between two revisions: what makes `number` of `against`, the one before it by default.
///
/// # Errors
/// When the scope may not, there is no such workflow or revision, or storage fails.
pub async fn diff(
    cx: &Context,
    scope: &Scope,
    name: &str,
    (number, against): (u32, Option<u32>),
) -> Result<(u32, Vec<Change>)> {
    let (_, to) = get_revision(cx, scope, name, number).await?;
    let against = against.unwrap_or_else(|| number.saturating_sub(1));
    // Before the first there is nothing.
    let from = match against {
        0 => json!({}),
        against => get_revision(cx, scope, name, against).await?.1,
    };
    Ok((against, difference(&from, &to)))
}

/// Makes a draft of a revision.
///
/// # Errors
/// As [`save_draft`], and when there is no such revision.
pub async fn restore(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (name, number): (&str, u32),
    expected: Expected,
) -> Result<(bool, Draft)> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    existing(cx, scope, name).await?;
    let graph = cx
        .workflows
        .load(scope, &revision(cx, scope, name, number).await?.graph)
        .await?;
    let save = Save {
        name: name.to_owned(),
        graph,
        expected,
        clear: false,
    };
    save_draft(cx, scope, origin, save).await
}

/// Makes an earlier revision the one that is called. A draft stays as it is.
///
/// # Errors
/// When the scope may not, there is no such workflow or revision, it was changed meanwhile, the revision doesn't fit to the workspace
/// any more, the workflow is archived, or storage fails.
pub async fn rollback(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (name, number): (&str, u32),
    expected: &Expected,
) -> Result<Head> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    for _ in 0..TRIES {
        let mut stored = existing(cx, scope, name).await?;
        unchanged(&stored.head, expected)?;
        callable(&stored.head)?;
        let target = revision(cx, scope, name, number).await?;
        let graph = cx.workflows.load(scope, &target.graph).await?;
        let authored = cx.read.get(name, &target.head.digest, &graph);
        let current = cx.catalogs.current().await?;
        let findings = resolve::findings(cx, scope, &current, &authored).await?;
        if !findings.is_empty() {
            return Err(resolve::invalid(name, findings));
        }
        let from = stored.head.current.as_ref().map(|current| current.revision.number);
        call(&mut stored, &target, &authored, cx.clock.now());
        let record = || {
            audited(cx, scope, origin, AuditEvent::WorkflowRolledBack, name)
                .changes(&json!({"revision": {"from": from, "to": number}}))
        };
        if replaced(cx, scope, record, &stored).await? {
            return Ok(stored.head);
        }
    }
    Err(busy())
}

/// Makes a workflow that can't be called any more, or one that can be again. Its revisions and its runs stay.
///
/// # Errors
/// When the scope may not, there is no such workflow, it was changed meanwhile, it is so already, or storage fails.
pub async fn archive(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (name, archived): (&str, bool),
    expected: &Expected,
) -> Result<Head> {
    scope.authorize(Action::Delete, Resource::Workflow)?;
    for _ in 0..TRIES {
        let mut stored = existing(cx, scope, name).await?;
        unchanged(&stored.head, expected)?;
        if stored.head.archived.is_some() == archived {
            let state = if archived { "archived already" } else { "not archived" };
            return Err(Error::conflict(
                "workflow_state",
                format!("workflow `{name}` is {state}"),
                "`GET /api/workflows/{name}` shows how it is",
            ));
        }
        if !archived {
            free_name(cx, name).await?;
        }
        let now = cx.clock.now();
        stored.head.archived = archived.then(|| (now, by(scope)));
        stored.head.changes += 1;
        stored.head.updated_at = now;
        let event = if archived {
            AuditEvent::WorkflowArchived
        } else {
            AuditEvent::WorkflowUnarchived
        };
        if replaced(cx, scope, || audited(cx, scope, origin, event, name), &stored).await? {
            return Ok(stored.head);
        }
    }
    Err(busy())
}

/// Says how far the commands and requests of the revision that is called are trusted. A platform administrator has looked at it;
/// another revision is another thing.
///
/// # Errors
/// When the scope may not, there is no such workflow, it was changed meanwhile, or storage fails.
pub async fn trust(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (name, trust): (&str, Trust),
    expected: &Expected,
) -> Result<Head> {
    scope.authorize(Action::Administer, Resource::Workflow)?;
    let is_administrator = match scope.principal() {
        Principal::User { administrator, .. } => *administrator,
        Principal::Operator | Principal::System { .. } => true,
        Principal::Service { .. } | Principal::Hook { .. } => false,
    };
    if !is_administrator && trust == Trust::Trusted {
        return Err(Error::Request {
            kind: crate::error::Kind::Denied,
            code: "trust_not_given",
            detail: "only a platform administrator trusts what an organization has written".to_owned(),
            hint: Some("ask one to look at the workflow and to send this request".to_owned()),
            findings: Vec::new(),
        });
    }
    for _ in 0..TRIES {
        let mut stored = existing(cx, scope, name).await?;
        unchanged(&stored.head, expected)?;
        let Some(current) = &stored.head.current else {
            return Err(not_found(name));
        };
        let (number, digest) = (current.revision.number, current.revision.digest.clone());
        stored.head.trusted.retain(|known| *known != digest);
        if trust == Trust::Trusted {
            stored.head.trusted.insert(0, digest.clone());
            stored.head.trusted.truncate(KEPT_TRUSTED);
        }
        stored.head.changes += 1;
        stored.head.updated_at = cx.clock.now();
        let record = || {
            let detail = json!({"trust": trust, "revision": number, "digest": digest});
            audited(cx, scope, origin, AuditEvent::WorkflowTrusted, name).detail(&detail)
        };
        if replaced(cx, scope, record, &stored).await? {
            return Ok(stored.head);
        }
    }
    Err(busy())
}

// ── what several of them need ──────────────────────────────────────────────────────────────────────────────────────────

async fn stored(cx: &Context, scope: &Scope, name: &str) -> Result<Option<StoredWorkflow>> {
    if !resolve::is_name(name) {
        return Ok(None);
    }
    Ok(cx.workflows.get(scope, name).await?)
}

async fn existing(cx: &Context, scope: &Scope, name: &str) -> Result<StoredWorkflow> {
    let given = workflow_assignment::given(cx, scope).await?;
    let stored = stored(cx, scope, name).await?;
    let stored = stored.filter(|_| given.is_none_or(|given| given.contains(name)));
    stored.ok_or_else(|| not_found(name))
}

async fn revision(cx: &Context, scope: &Scope, name: &str, number: u32) -> Result<StoredRevision> {
    let found = cx.workflows.revision(scope, name, number).await?;
    found.ok_or_else(|| {
        Error::not_found(
            "revision_not_found",
            format!("workflow `{name}` has no revision {number}"),
            "`GET /api/workflows/{name}/revisions` lists those that are kept",
        )
    })
}

fn not_found(name: &str) -> Error {
    Error::not_found(
        "workflow_not_found",
        format!("the organization has authored no workflow `{name:.80}`"),
        "`GET /api/workflows?origin=organization` lists those that there are; the workspace's are changed in its files",
    )
}

/// The graph with its name, or what it is instead of one.
fn graph_of(name: &str, graph: Value) -> Result<Value> {
    if !resolve::is_name(name) {
        let message = format!("`{name:.80}` can't be the name of a workflow");
        let hint = "begin with a lower-case letter and write up to 63 lower-case letters, digits, `_` and `-`";
        let finding = Finding::new("path:name", "bad_name", message.clone()).hint(hint);
        return Err(Error::invalid("parameter_invalid", message, hint, vec![finding]));
    }
    match graph {
        Value::Object(mut members) if members.get("nodes").is_some_and(Value::is_array) => {
            if !members.contains_key("name") {
                let mut named = Map::from_iter([("name".to_owned(), Value::from(name))]);
                named.append(&mut members);
                members = named;
            }
            Ok(Value::Object(members))
        }
        graph => {
            debug_assert!(!is_graph(&graph), "what is a graph is taken above");
            let finding = Finding::new("/nodes", "missing_member", "a graph has `nodes`, a list");
            Err(Error::invalid(
                "not_a_graph",
                "the body is no graph, not even an unfinished one",
                "send `{\"nodes\": […], \"edges\": […]}`; docs/graphs.md describes every member",
                vec![finding],
            ))
        }
    }
}

/// What is wrong with a graph, as far as it can be said now: while the workspace can't be described, by itself.
async fn all_findings(cx: &Context, scope: &Scope, authored: &Authored) -> Result<Vec<Finding>> {
    match cx.catalogs.at_once().await {
        Ok(current) => resolve::findings(cx, scope, &current, authored).await,
        Err(_) => Ok(authored.findings().to_vec()),
    }
}

/// Time limits in a graph that are above those that count for the organization.
async fn noticed(cx: &Context, scope: &Scope, authored: &Authored) -> Result<Vec<Finding>> {
    let longest = policy::longest_times(cx, scope, authored.graph().security_profile).await?;
    Ok(longest.noticed_of_graph(authored.graph()))
}

/// Names of the workspace are the workspace's.
async fn free_name(cx: &Context, name: &str) -> Result<()> {
    if RESERVED.contains(&name) {
        return Err(Error::conflict(
            "workflow_name_taken",
            format!("the workflow name `{name}` is taken: a route of the API is called so"),
            "choose another name",
        ));
    }
    let current = cx.catalogs.current().await?;
    match current.catalog.workflows.get(name) {
        None => Ok(()),
        Some(declared) => Err(Error::conflict(
            "workflow_name_taken",
            format!(
                "the workflow name `{name}` is taken: it is declared in {}:{}",
                declared.path, declared.line
            ),
            "choose another name",
        )),
    }
}

fn callable(head: &Head) -> Result<()> {
    match &head.archived {
        None => Ok(()),
        Some(_) => Err(Error::conflict(
            "workflow_archived",
            format!("workflow `{}` is archived", head.name),
            format!("`POST /api/workflows/{}/unarchive` first", head.name),
        )),
    }
}

/// Whether the draft is the one that somebody has seen.
fn as_expected(name: &str, known: Option<&DraftHead>, expected: &Expected) -> Result<()> {
    let fits = match (known, expected) {
        (_, Expected::Anything) | (None, Expected::Nothing) => true,
        (Some(known), Expected::Tag(tag)) => known.tag() == *tag,
        (Some(_), Expected::Nothing) => false,
        (None, Expected::Tag(_)) => {
            return Err(Error::Outdated {
                code: "draft_changed",
                detail: format!("workflow `{name}` has no draft any more: it was published or discarded"),
                hint: "look at what is called now; `If-None-Match: *` begins another draft".to_owned(),
                current: Box::new(json!({"etag": null})),
            });
        }
    };
    match known {
        Some(known) if !fits => Err(Error::Outdated {
            code: "draft_changed",
            detail: format!("{} has saved another draft at {}", known.saved_by.name, known.saved_at),
            hint: "read it, bring both together, and send its `ETag` as `If-Match`; nothing of yours was saved"
                .to_owned(),
            current: Box::new(json!({
                "etag": format!("\"{}\"", known.tag()),
                "savedAt": known.saved_at,
                "savedBy": known.saved_by,
                "digest": known.digest,
            })),
        }),
        _ => Ok(()),
    }
}

/// Whether what is called is what somebody has seen.
fn unchanged(head: &Head, expected: &Expected) -> Result<()> {
    match expected {
        Expected::Tag(tag) if *tag != head.tag() => Err(Error::Outdated {
            code: "workflow_changed",
            detail: format!("workflow `{}` was changed at {}", head.name, head.updated_at),
            hint: "read it again, and send its `ETag` as `If-Match`".to_owned(),
            current: Box::new(json!({
                "etag": format!("\"{}\"", head.tag()),
                "revision": head.current.as_ref().map(|current| &current.revision),
                "archived": head.archived.is_some(),
            })),
        }),
        _ => Ok(()),
    }
}

fn new_head(name: &str, authored: &Authored, draft: DraftHead, by: By, now: Timestamp) -> Head {
    Head {
        name: name.to_owned(),
        current: None,
        last: 0,
        about: about(authored.graph()),
        saves: draft.save,
        draft: Some(draft),
        changes: 0,
        archived: None,
        trusted: Vec::new(),
        created_by: by,
        created_at: now,
        updated_at: now,
    }
}

fn about(graph: &Graph) -> About {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    About {
        description: cut(&graph.description, SHOWN_DESCRIPTION),
        category: cut(&graph.category, SHOWN_WORD),
        tags: graph.tags.iter().map(|tag| cut(tag, SHOWN_WORD)).collect(),
    }
}

pub(super) fn by(scope: &Scope) -> By {
    By {
        id: scope.principal().id(),
        name: scope.principal().name().to_owned(),
    }
}

/// Writes a workflow over the one that was read; false when somebody else was first.
async fn replaced(
    cx: &Context,
    scope: &Scope,
    record: impl Fn() -> Record + Send,
    stored: &StoredWorkflow,
) -> Result<bool> {
    let replace = async { Ok(cx.workflows.replace(scope, stored).await?) };
    match recorded(cx, scope, record, replace).await {
        Ok(()) => Ok(true),
        Err(error) if is_taken(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else has written what was to be written.
const fn is_taken(error: &Error) -> bool {
    matches!(
        error,
        Error::Store(store::Error::PreconditionFailed { .. } | store::Error::AlreadyExists { .. })
    )
}

fn audited(cx: &Context, scope: &Scope, origin: &Origin, event: AuditEvent, name: &str) -> Record {
    let record = cx.audit.by(scope, event).came_from(origin);
    record.resource("workflow", name)
}

fn busy() -> Error {
    Error::unavailable(
        "conflict",
        "the workflow changed at every try to write it",
        "repeat the request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded as _;

    #[test]
    fn a_graph_without_a_name_is_given_the_workflow_s() {
        let named = graph_of("a", json!({"nodes": []})).unwrap();
        assert_eq!(named.to_string(), r#"{"name":"a","nodes":[]}"#);
        for none in [json!({}), json!([]), json!({"nodes": {}}), json!(7)] {
            assert_eq!(graph_of("a", none).unwrap_err().code(), "not_a_graph");
        }
        assert_eq!(
            graph_of("A b", json!({"nodes": []})).unwrap_err().code(),
            "parameter_invalid"
        );
    }
}
