//! `/api/workflows/{name}/publish`, `…/revisions`, `…/rollback`, `…/archive`, `…/trust`: what of an organization's workflow is called.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::workflow_drafts::{self, DraftView};
use super::workflows::tagged;
use super::{PageOf, cursor_in, cursor_out, expected, expected_or_any, limit};
use crate::definition::Change;
use crate::domain::{Timestamp, Trust};
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::workflow::{self, By, Head, RevisionHead};

/// A revision, without its graph.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionView {
    /// Its number, from 1.
    pub number: u32,
    /// SHA-256 of its graph.
    pub digest: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// When it was published.
    #[schema(value_type = String, format = DateTime)]
    pub published_at: Timestamp,
    /// By whom.
    pub published_by: By,
    /// What they said about it.
    pub message: String,
    /// Its graph; only where one revision is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub graph: Option<Value>,
}

impl From<RevisionHead> for RevisionView {
    fn from(head: RevisionHead) -> Self {
        Self {
            number: head.number,
            digest: head.digest,
            nodes: head.nodes,
            published_at: head.published_at,
            published_by: head.published_by,
            message: head.message,
            graph: None,
        }
    }
}

/// What of a workflow is called.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CalledView {
    /// The workflow.
    pub workflow: String,
    /// The revision that is called; none of one that was never published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_revision: Option<RevisionView>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Whether it can't be called any more.
    pub archived: bool,
    /// How far its own commands and requests are trusted.
    #[schema(value_type = String)]
    pub trust: Trust,
    /// Where it was published just now, what was noticed and kept it from nothing: time limits above those that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<Finding>,
}

fn answer(head: Head, noticed: Vec<Finding>) -> Response {
    let (tag, trust) = (head.tag(), head.trust());
    let view = CalledView {
        workflow: head.name,
        since: head.current.as_ref().map(|current| current.since),
        workflow_revision: head.current.map(|current| RevisionView::from(current.revision)),
        archived: head.archived.is_some(),
        trust,
        noticed,
    };
    tagged(StatusCode::OK, Some(&tag), view)
}

/// What is said about a revision.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublishInput {
    /// What is new, at most 500 characters.
    #[serde(default)]
    message: String,
}

/// A number of a revision.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollbackInput {
    /// The revision that is to be called.
    revision: u32,
}

/// How far something is trusted.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustInput {
    /// `restricted` or `trusted`.
    #[schema(value_type = String)]
    trust: Trust,
}

fn read<T: serde::de::DeserializeOwned>(object: Map<String, Value>, example: &str) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(object)).map_err(|error| {
        ApiError::bad_parameter("", format!("the body is not what is asked for: {error}"))
            .hint(format!("send `{example}`"))
    })
}

/// Make a draft the revision that is called. Everything that is wrong with it is said at once. `If-Match` names the draft that was
/// looked at.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/publish", tag = "workflows", request_body = PublishInput,
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("If-Match" = String, Header, description = "The `ETag` of the draft that was read")),
    responses((status = 200, body = CalledView), (status = "default", body = Problem)))]
pub async fn publish(
    admitted: Admitted,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let expected = expected(&headers)?;
    let input: PublishInput = read(body.object, "{\"message\": \"what is new\"}")?;
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let (head, noticed) =
        workflow::publish(&admitted.app.cx, scope, origin, &name, (&expected, &input.message)).await?;
    Ok(answer(head, noticed))
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

/// The revisions of a workflow, the newest first.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/revisions", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader, ListQuery),
    responses((status = 200, body = PageOf<RevisionView>), (status = "default", body = Problem)))]
pub async fn list(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PageOf<RevisionView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let cursor = cursor_in(query.cursor.as_deref())?;
    let (items, next) = workflow::list_revisions(&admitted.app.cx, &admitted.scope, &name, limit, cursor).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(RevisionView::from).collect(),
        next_cursor: cursor_out(next),
    }))
}

/// One revision, with its graph.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/revisions/{number}", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), ("number" = u32, Path, description = "The revision"),
        super::OrganizationHeader),
    responses((status = 200, body = RevisionView), (status = "default", body = Problem)))]
pub async fn get(
    admitted: Admitted,
    Path((name, number)): Path<(String, u32)>,
) -> Result<Json<RevisionView>, ApiError> {
    let (head, graph) = workflow::get_revision(&admitted.app.cx, &admitted.scope, &name, number).await?;
    Ok(Json(RevisionView {
        graph: Some(graph),
        ..RevisionView::from(head)
    }))
}

/// Against what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The other revision; the one before by default, and 0 for nothing.
    against: Option<u32>,
}

/// What makes one revision of another.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The earlier revision; 0 for nothing.
    pub from: u32,
    /// The later one.
    pub to: u32,
    /// Every difference, in an order that is always the same.
    pub changes: Vec<Change>,
}

/// What differs between two revisions: nodes, edges and members that were added, removed or changed.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/revisions/{number}/diff", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), ("number" = u32, Path, description = "The revision"),
        super::OrganizationHeader, DiffQuery),
    responses((status = 200, body = Diff), (status = "default", body = Problem)))]
pub async fn diff(
    admitted: Admitted,
    Path((name, number)): Path<(String, u32)>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<Diff>, ApiError> {
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let (from, changes) = workflow::diff(cx, scope, &name, (number, query.against)).await?;
    Ok(Json(Diff {
        from,
        to: number,
        changes,
    }))
}

/// Make a draft of a revision. `If-Match` names the draft that it takes the place of, `If-None-Match: *` says that there is none.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/revisions/{number}/restore", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), ("number" = u32, Path, description = "The revision"),
        super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the draft that was read"),
        ("If-None-Match" = Option<String>, Header, description = "`*` where there is no draft")),
    responses((status = 200, body = DraftView), (status = "default", body = Problem)))]
pub async fn restore(
    admitted: Admitted,
    Path((name, number)): Path<(String, u32)>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    let expected = expected(&headers)?;
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let (_, draft) = workflow::restore(&admitted.app.cx, scope, origin, (&name, number), expected).await?;
    Ok(workflow_drafts::answer(StatusCode::OK, name, draft, true))
}

/// Make an earlier revision the one that is called.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/rollback", tag = "workflows", request_body = RollbackInput,
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the workflow that was read")),
    responses((status = 200, body = CalledView), (status = "default", body = Problem)))]
pub async fn rollback(
    admitted: Admitted,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let expected = expected_or_any(&headers)?;
    let input: RollbackInput = read(body.object, "{\"revision\": 3}")?;
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let head = workflow::rollback(&admitted.app.cx, scope, origin, (&name, input.revision), &expected).await?;
    Ok(answer(head, Vec::new()))
}

/// Make a workflow that can't be called any more. Its revisions and its runs stay.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/archive", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the workflow that was read")),
    responses((status = 200, body = CalledView), (status = "default", body = Problem)))]
pub async fn archive(
    admitted: Admitted,
    Path(name): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    archived(&admitted, (&name, true), &headers).await
}

/// Make an archived workflow one that can be called again.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/unarchive", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the workflow that was read")),
    responses((status = 200, body = CalledView), (status = "default", body = Problem)))]
pub async fn unarchive(
    admitted: Admitted,
    Path(name): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    archived(&admitted, (&name, false), &headers).await
}

async fn archived(admitted: &Admitted, how: (&str, bool), headers: &HeaderMap) -> Result<Response, ApiError> {
    let expected = expected_or_any(headers)?;
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let head = workflow::archive(&admitted.app.cx, scope, origin, how, &expected).await?;
    Ok(answer(head, Vec::new()))
}

/// Say how far the commands and requests of the revision that is called are trusted. `trusted` is a platform administrator's to say.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/workflows/{name}/trust", tag = "workflows", request_body = TrustInput,
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the workflow that was read")),
    responses((status = 200, body = CalledView), (status = "default", body = Problem)))]
pub async fn trust(
    admitted: Admitted,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let expected = expected_or_any(&headers)?;
    let input: TrustInput = read(body.object, "{\"trust\": \"trusted\"}")?;
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let head = workflow::trust(&admitted.app.cx, scope, origin, (&name, input.trust), &expected).await?;
    Ok(answer(head, Vec::new()))
}
