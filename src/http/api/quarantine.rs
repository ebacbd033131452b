//! `/api/quarantine`: messages about runs that were set aside, and putting one back.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{PageOf, cursor_in, cursor_out, limit};
use crate::domain::{RunId, Timestamp};
use crate::http::extract::{Admitted, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::quarantine::{self, Listed, Quarantined};
use crate::usecase::query_run::Continuation;

/// That a message about a run was set aside.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineView {
    /// The queue.
    pub queue: String,
    /// When, by the minute.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How often it was delivered before.
    pub deliveries: u32,
    /// How its last delivery failed, as far as the instance that set it aside has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When somebody put it back.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeued_at: Option<Timestamp>,
    /// The id of who did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeued_by: Option<String>,
}

impl From<Quarantined> for QuarantineView {
    fn from(fact: Quarantined) -> Self {
        Self {
            queue: fact.queue,
            at: fact.at,
            deliveries: fact.deliveries,
            failure: fact.failure,
            requeued_at: fact.requeued_at,
            requeued_by: fact.requeued_by,
        }
    }
}

/// The same in the list of the organization.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineItem {
    /// The run.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// Its workflow.
    pub workflow: String,
    /// What is known.
    #[serde(flatten)]
    pub fact: QuarantineView,
}

impl From<Listed> for QuarantineItem {
    fn from(listed: Listed) -> Self {
        Self {
            run_id: listed.run,
            workflow: listed.workflow,
            fact: QuarantineView::from(listed.fact),
        }
    }
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

/// Messages about runs that failed too often, newest first.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/quarantine", tag = "runs", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<QuarantineItem>), (status = "default", body = Problem)))]
pub async fn list(
    admitted: Admitted,
    Query(query): Query<ListQuery>,
) -> Result<Json<PageOf<QuarantineItem>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let cursor = cursor_in(query.cursor.as_deref())?.map(Continuation);
    let (items, next) = quarantine::list(&admitted.app.cx, &admitted.scope, limit, cursor).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(QuarantineItem::from).collect(),
        next_cursor: cursor_out(next.map(|next| next.0)),
    }))
}

/// Put the message about a run back that was set aside. 409 when there is none, or the run has ended.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/runs/{id}/requeue", tag = "runs",
    params(("id" = String, Path, description = "The run"), super::OrganizationHeader),
    responses((status = 202, body = super::runs::Accepted), (status = "default", body = Problem)))]
pub async fn requeue(admitted: Admitted, Path(id): Path<RunId>, _: NoBody) -> Result<Response, ApiError> {
    let run = quarantine::requeue(&admitted.app.cx, &admitted.scope, &admitted.origin, &id).await?;
    Ok(super::runs::accepted(&run))
}
