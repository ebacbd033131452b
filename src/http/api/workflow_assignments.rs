//! `/api/workflows/{name}/assignments`: to whom a workflow is assigned.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use super::{PageOf, cursor_in, cursor_out, limit};
use crate::domain::{IdError, Timestamp, UserId};
use crate::http::extract::{Admitted, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::workflow::By;
use crate::usecase::workflow_assignment::{self, Assignment};

/// That a workflow is assigned to somebody.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentView {
    /// The workflow.
    pub workflow: String,
    /// The user's id.
    #[schema(value_type = String)]
    pub user: UserId,
    /// When it was assigned.
    #[schema(value_type = String, format = DateTime)]
    pub assigned_at: Timestamp,
    /// By whom.
    pub assigned_by: By,
}

impl From<Assignment> for AssignmentView {
    fn from(assignment: Assignment) -> Self {
        Self {
            workflow: assignment.workflow,
            user: assignment.user,
            assigned_at: assignment.assigned_at,
            assigned_by: assignment.assigned_by,
        }
    }
}

fn user_id(text: &str) -> Result<UserId, ApiError> {
    text.parse()
        .map_err(|error: IdError| ApiError::bad_parameter("path:user", error.to_string()))
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// To whom a workflow is assigned.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/assignments", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader, ListQuery),
    responses((status = 200, body = PageOf<AssignmentView>), (status = "default", body = Problem)))]
pub async fn list(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PageOf<AssignmentView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let cursor = cursor_in(query.cursor.as_deref())?;
    let (items, next) = workflow_assignment::list(&admitted.app.cx, &admitted.scope, &name, limit, cursor).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(AssignmentView::from).collect(),
        next_cursor: cursor_out(next),
    }))
}

/// Whether a workflow is assigned to somebody.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/assignments/{user}", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), ("user" = String, Path, description = "The user's id"),
        super::OrganizationHeader),
    responses((status = 200, body = AssignmentView), (status = "default", body = Problem)))]
pub async fn get(
    admitted: Admitted,
    Path((name, user)): Path<(String, String)>,
) -> Result<Json<AssignmentView>, ApiError> {
    let found = workflow_assignment::get(&admitted.app.cx, &admitted.scope, &name, &user_id(&user)?).await?;
    Ok(Json(found.into()))
}

/// Assign a workflow to a member of the organization. A person with the role `viewer` or `user` sees it from then on, and its runs.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/workflows/{name}/assignments/{user}", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), ("user" = String, Path, description = "The user's id"),
        super::OrganizationHeader),
    responses((status = 200, body = AssignmentView), (status = 201, description = "It was not assigned", body = AssignmentView),
        (status = "default", body = Problem)))]
pub async fn put(
    admitted: Admitted,
    Path((name, user)): Path<(String, String)>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let whom = (name.as_str(), &user_id(&user)?);
    let (is_new, assignment) = workflow_assignment::put(&admitted.app.cx, scope, origin, whom).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(AssignmentView::from(assignment))).into_response())
}

/// Take a workflow away from somebody.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/workflows/{name}/assignments/{user}", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), ("user" = String, Path, description = "The user's id"),
        super::OrganizationHeader),
    responses((status = 204, description = "It is not assigned any more"), (status = "default", body = Problem)))]
pub async fn delete(admitted: Admitted, Path((name, user)): Path<(String, String)>) -> Result<StatusCode, ApiError> {
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    workflow_assignment::delete(&admitted.app.cx, scope, origin, (&name, &user_id(&user)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
