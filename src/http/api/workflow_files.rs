//! `/api/workflows/{name}/export` and `/api/workflows/import`: workflows as files.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::expected;
use super::workflow_drafts::{self, DraftView};
use crate::http::extract::{Admitted, Path, Query, TextBody};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::workflow::Expected;
use crate::usecase::workflow_file::{self, Format};

/// What to export.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `json` or `yaml`; `json` by default.
    format: Option<String>,
    /// The number of a revision; the one that is called by default.
    revision: Option<u32>,
}

/// A workflow as a file: a graph as JSON, or YAML steps.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}/export", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader, ExportQuery),
    responses((status = 200, description = "The file", content((String = "application/json"), (String = "application/yaml"))),
        (status = "default", body = Problem)))]
pub async fn export(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let (format, media_type) = match query.format.as_deref() {
        None | Some("" | "json") => (Format::Json, "application/json"),
        Some("yaml") => (Format::Yaml, "application/yaml"),
        Some(_) => return Err(ApiError::bad_parameter("query:format", "`format` is `json` or `yaml`")),
    };
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let text = workflow_file::export(cx, scope, &name, (format, query.revision)).await?;
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The name was found, so it has nothing in it that a header can't say.
    let disposition = format!("attachment; filename=\"{name}.{}\"", format.extension());
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Make a draft of a file, under the name that stands in it. `Content-Type` says in which form it is: `application/json` or
/// `application/yaml`. A workflow that is there already is changed only where `If-Match` names it.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/import", tag = "workflows",
    params(super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the draft that it takes the place of, or of the workflow where it has none")),
    request_body(content((String = "application/json"), (String = "application/yaml")), description = "The file"),
    responses((status = 200, body = DraftView), (status = 201, description = "The workflow is new", body = DraftView),
        (status = "default", body = Problem)))]
pub async fn import(admitted: Admitted, headers: HeaderMap, body: TextBody) -> Result<Response, ApiError> {
    let asks = headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH);
    let expected = if asks { expected(&headers)? } else { Expected::Nothing };
    let format = if body.is_yaml { Format::Yaml } else { Format::Json };
    let (cx, scope, origin) = (&admitted.app.cx, &admitted.scope, &admitted.origin);
    let (is_new, name, draft) = workflow_file::import(cx, scope, origin, (format, &body.text), expected).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let place = format!("/api/workflows/{name}/draft");
    let mut response = workflow_drafts::answer(status, name, draft, false);
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}
