//! To whom workflows are assigned: people who only see what they were given see these, and their runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::on_record::recorded;
use super::{Context, Error, Result, catalog, resolve, workflow};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Extent, Origin, Principal, Resource};
use crate::domain::UserId;
use crate::store::port::Continuation;
pub use crate::store::repo::workflows::Assignment;
use crate::tenancy::Scope;

/// A page of those to whom a workflow is assigned.
///
/// # Errors
/// When the scope may not, there is no such workflow, the cursor is none, or storage fails.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    name: &str,
    limit: usize,
    cursor: Option<String>,
) -> Result<(Vec<Assignment>, Option<String>)> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    existing(cx, scope, name).await?;
    let with_cursor = cursor.is_some();
    let page = cx
        .workflows
        .assignments(scope, name, limit, cursor.map(Continuation))
        .await;
    let (items, next) = page.map_err(|error| Error::of_page(error, with_cursor))?;
    Ok((items, next.map(|next| next.0)))
}

/// Whether a workflow is assigned to somebody, and by whom.
///
/// # Errors
/// When the scope may not, it isn't, or storage fails.
pub async fn get(cx: &Context, scope: &Scope, name: &str, user: &UserId) -> Result<Assignment> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    existing(cx, scope, name).await?;
    let found = cx.workflows.assignment(scope, name, user).await?;
    found.ok_or_else(|| not_assigned(name, user))
}

/// Assigns a workflow to a member of the organization; whether it was not.
///
/// # Errors
/// When the scope may not, there is no such workflow or member, or storage fails.
pub async fn put(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (name, user): (&str, &UserId),
) -> Result<(bool, Assignment)> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    existing(cx, scope, name).await?;
    if cx.identities.membership(user, scope.org()).await?.is_none() {
        return Err(Error::not_found(
            "member_not_found",
            format!("`{user}` is no member of the organization"),
            "a workflow is assigned to its members",
        ));
    }
    if let Some(there) = cx.workflows.assignment(scope, name, user).await? {
        return Ok((false, there));
    }
    let assignment = Assignment {
        workflow: name.to_owned(),
        user: user.clone(),
        assigned_by: workflow::by(scope),
        assigned_at: cx.clock.now(),
    };
    let assign = async { Ok(cx.workflows.assign(scope, &assignment).await?) };
    let record = || audited(cx, scope, origin, AuditEvent::WorkflowAssigned, (name, user));
    if !recorded(cx, scope, record, assign).await? {
        let there = cx.workflows.assignment(scope, name, user).await?;
        return Ok((false, there.unwrap_or(assignment)));
    }
    Ok((true, assignment))
}

/// Takes a workflow away from somebody. Runs that they have started stay theirs.
///
/// # Errors
/// When the scope may not, there is no such workflow, it isn't assigned to them, or storage fails.
pub async fn delete(cx: &Context, scope: &Scope, origin: &Origin, (name, user): (&str, &UserId)) -> Result<()> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    let is_assigned = resolve::is_name(name) && cx.workflows.assignment(scope, name, user).await?.is_some();
    if !is_assigned {
        return Err(not_assigned(name, user));
    }
    let unassign = async {
        let unassigned = cx.workflows.unassign(scope, name, user).await?;
        unassigned.then_some(()).ok_or_else(|| not_assigned(name, user))
    };
    let record = || audited(cx, scope, origin, AuditEvent::WorkflowUnassigned, (name, user));
    recorded(cx, scope, record, unassign).await
}

/// The workflows that the scope was given, where it sees no others of the organization's own; none where it sees all.
///
/// # Errors
/// When storage fails.
pub(super) async fn given(cx: &Context, scope: &Scope) -> Result<Option<Arc<BTreeSet<String>>>> {
    if !matches!(scope.authorize(Action::Read, Resource::Workflow), Ok(Extent::Own)) {
        return Ok(None);
    }
    assigned(cx, scope).await.map(Some)
}

/// The workflows that are assigned to a person.
///
/// # Errors
/// When storage fails.
pub(super) async fn assigned(cx: &Context, scope: &Scope) -> Result<Arc<BTreeSet<String>>> {
    match scope.principal() {
        Principal::User { id, .. } => Ok(cx.workflows.assigned_to(scope, id).await?),
        _ => Ok(Arc::default()),
    }
}

/// That there is such a workflow, of the workspace or of the organization, whatever its state.
async fn existing(cx: &Context, scope: &Scope, name: &str) -> Result<()> {
    let current = cx.catalogs.current().await?;
    match catalog::find(&current, name) {
        Ok(_) => Ok(()),
        Err(missing) if !resolve::is_name(name) => Err(missing),
        Err(missing) => cx.workflows.get(scope, name).await?.map(drop).ok_or(missing),
    }
}

fn not_assigned(name: &str, user: &UserId) -> Error {
    Error::not_found(
        "assignment_not_found",
        format!("workflow `{name:.80}` is not assigned to `{user}`"),
        "`GET /api/workflows/{name}/assignments` lists to whom it is",
    )
}

fn audited(cx: &Context, scope: &Scope, origin: &Origin, event: AuditEvent, (name, user): (&str, &UserId)) -> Record {
    let record = cx.audit.by(scope, event).came_from(origin);
    record.resource("workflow", name).detail(&json!({"user": user}))
}
