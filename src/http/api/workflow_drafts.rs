//! `/api/workflows/{name}/draft`: what people of an organization write, before it is published.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expected;
use super::workflows::tagged;
use crate::domain::Timestamp;
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::workflow::{self, By, Draft, DraftHead, Save};

/// A draft, without its graph.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DraftSummary {
    /// For `If-Match`, with its quotes.
    pub etag: String,
    /// SHA-256 of its graph.
    pub digest: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// When it was saved.
    #[schema(value_type = String, format = DateTime)]
    pub saved_at: Timestamp,
    /// By whom.
    pub saved_by: By,
    /// How many findings it had then.
    pub findings: usize,
    /// The revision that was called when it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub based_on: Option<u32>,
}

impl From<&DraftHead> for DraftSummary {
    fn from(head: &DraftHead) -> Self {
        Self {
            etag: format!("\"{}\"", head.tag()),
            digest: head.digest.clone(),
            nodes: head.nodes,
            saved_at: head.saved_at,
            saved_by: head.saved_by.clone(),
            findings: head.findings,
            based_on: head.based_on,
        }
    }
}

/// A draft.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DraftView {
    /// The workflow.
    pub workflow: String,
    /// SHA-256 of its graph.
    pub digest: String,
    /// When it was saved.
    #[schema(value_type = String, format = DateTime)]
    pub saved_at: Timestamp,
    /// By whom.
    pub saved_by: By,
    /// The revision that was called when it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub based_on: Option<u32>,
    /// Everything that keeps it from being published.
    pub findings: Vec<Finding>,
    /// What was noticed, and keeps it from nothing: time limits above those that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<Finding>,
    /// Its graph, as it was sent; not in the answer to saving it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub graph: Option<Value>,
}

/// A draft with its tag.
pub(super) fn answer(status: StatusCode, workflow: String, draft: Draft, with_graph: bool) -> Response {
    let Draft {
        head,
        graph,
        findings,
        noticed,
    } = draft;
    let tag = head.tag();
    let view = DraftView {
        workflow,
        digest: head.digest,
        saved_at: head.saved_at,
        saved_by: head.saved_by,
        based_on: head.based_on,
        findings,
        noticed,
        graph: with_graph.then_some(graph),
    };
    tagged(status, Some(&tag), view)
}

/// The draft of a workflow.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/draft", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader),
    responses((status = 200, body = DraftView), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted, Path(name): Path<String>) -> Result<Response, ApiError> {
    let draft = workflow::get_draft(&admitted.app.cx, &admitted.scope, &name).await?;
    Ok(answer(StatusCode::OK, name, draft, true))
}

/// How a draft is saved.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SaveQuery {
    /// `true` lets a graph without nodes take the place of one that has some.
    clear: Option<String>,
}

/// Save a draft: the body is the graph, as docs/graphs.md describes it, finished or not. `If-Match` names the draft that it takes the
/// place of, `If-None-Match: *` says that there is none. The answer has everything that keeps it from being published.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/workflows/{name}/draft", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader, SaveQuery,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the draft that was read"),
        ("If-None-Match" = Option<String>, Header, description = "`*` where there is no draft")),
    request_body(content = Object, description = "The graph"),
    responses((status = 200, body = DraftView), (status = 201, description = "The workflow is new", body = DraftView),
        (status = "default", body = Problem)))]
pub async fn put(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(query): Query<SaveQuery>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let save = Save {
        name: name.clone(),
        graph: Value::Object(body.object),
        expected: expected(&headers)?,
        clear: super::flag("clear", query.clear.as_deref())?,
    };
    let (is_new, draft) = workflow::save_draft(&admitted.app.cx, &admitted.scope, &admitted.origin, save).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer(status, name, draft, false))
}

/// Throw a draft away. A workflow that was never published goes with it.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/workflows/{name}/draft", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the draft that was read")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn discard(admitted: Admitted, Path(name): Path<String>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    workflow::discard_draft(
        &admitted.app.cx,
        scope,
        origin,
        &name,
        &super::expected_or_any(&headers)?,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is wrong with a graph.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// Whether it could be published.
    pub valid: bool,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// What was noticed, and keeps it from nothing: time limits above those that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<Finding>,
}

/// Look what is wrong with a graph. Nothing is saved.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/validate", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader),
    request_body(content = Object, description = "The graph"),
    responses((status = 200, body = Validation), (status = "default", body = Problem)))]
pub async fn validate(
    admitted: Admitted,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<Json<Validation>, ApiError> {
    let graph = Value::Object(body.object);
    let (findings, noticed) = workflow::validate(&admitted.app.cx, &admitted.scope, &name, graph).await?;
    Ok(Json(Validation {
        valid: findings.is_empty(),
        findings,
        noticed,
    }))
}
