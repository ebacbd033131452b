//! `/api/openapi.json` and `/api/docs`: the description of the API, and a page that shows it.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};

use crate::http::openapi;

/// The description of this API as OpenAPI 3.1.
#[utoipa::path(get, path = "/api/openapi.json", tag = "docs", security(), responses((status = 200, body = Object)))]
pub async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::description())
}

/// A page that shows the description. It is whole in itself and loads nothing from elsewhere.
#[utoipa::path(get, path = "/api/docs", tag = "docs", security(), responses((status = 200, content_type = "text/html")))]
pub async fn page() -> Response {
    let mut response = Html(include_str!("docs.html")).into_response();
    let policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'sha256-SCRIPT'; frame-ancestors 'none'";
    let policy = policy.replace("SCRIPT", &openapi::script_hash(include_str!("docs.html")));
    if let Ok(value) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, value);
    }
    response
}
