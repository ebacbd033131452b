//! `/api/runs/{id}/artifacts`: what the steps of a run have left under a name.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use serde::Serialize;

use super::PageOf;
use super::runs::run_id;
use crate::domain::{ArtifactId, Timestamp};
use crate::http::extract::{Admitted, Path};
use crate::http::problem::{ApiError, Problem};
use crate::http::ranges::{self, Asked};
use crate::usecase::artifact::{self, Artifact};

/// Types that a browser may be told of; it is told to save them all the same. Anything else is only bytes.
const TOLD: [&str; 9] = [
    "application/json",
    "application/pdf",
    "application/zip",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/plain",
];

/// A named output of a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: ArtifactId,
    /// Its name. Several may have the same: the newest comes first.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// What its author says it is.
    pub media_type: Option<String>,
    /// The step that wrote it.
    pub step: String,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Where its bytes are.
    pub href: String,
}

/// The artifacts of a run, by name.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts", tag = "runs",
    params(("id" = String, Path, description = "The run"), super::OrganizationHeader),
    responses((status = 200, body = PageOf<ArtifactView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Path(id): Path<String>) -> Result<Json<PageOf<ArtifactView>>, ApiError> {
    let run = run_id(&id)?;
    let artifacts = artifact::list(&admitted.app.cx, &admitted.scope, &run).await?;
    let view = |artifact: Artifact| ArtifactView {
        href: format!("/api/runs/{run}/artifacts/{}", artifact.id),
        id: artifact.id,
        name: artifact.name,
        size: artifact.size,
        sha256: artifact.sha256,
        media_type: artifact.media_type,
        step: artifact.step,
        created_at: artifact.created_at,
    };
    Ok(Json(PageOf {
        items: artifacts.into_iter().map(view).collect(),
        next_cursor: None,
    }))
}

/// The bytes of an artifact, to be saved: never to be shown as a page of this origin. `Range` asks for a part of them.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts/{artifactId}", tag = "runs",
    params(("id" = String, Path, description = "The run"), ("artifactId" = String, Path, description = "The artifact"),
        ("Range" = Option<String>, Header, description = "One range of bytes, as `bytes=0-1023` or `bytes=-500`; others are passed over"),
        ("If-Range" = Option<String>, Header, description = "The `ETag` with which a `Range` counts; with another one all bytes are answered"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what the caller has"),
        super::OrganizationHeader),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A range of the bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The caller has them"), (status = "default", body = Problem)))]
pub async fn download(
    admitted: Admitted,
    Path((id, artifact)): Path<(String, String)>,
    method: Method,
    asked: HeaderMap,
) -> Result<Response, ApiError> {
    let artifact: ArtifactId = artifact
        .parse()
        .map_err(|error: crate::domain::IdError| ApiError::bad_parameter("path:artifactId", error.to_string()))?;
    let found = artifact::open(&admitted.app.cx, &admitted.scope, &run_id(&id)?, &artifact).await?;
    let about = found.artifact.clone();
    let size = about.size;
    let etag = format!("\"{}\"", about.sha256);
    let (status, range) = match ranges::asked(&method, &asked, &etag, size) {
        Asked::Nothing => (StatusCode::NOT_MODIFIED, 0..0),
        Asked::Whole => (StatusCode::OK, 0..size),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Beyond => return Err(ApiError::beyond(size)),
    };
    let body = match status {
        // Of a size that isn't said: axum would say 0, and the bytes that the caller has are more (RFC 9110, section 8.6).
        StatusCode::NOT_MODIFIED => Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()),
        _ => Body::from_stream(found.bytes(range.clone()).await?),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, etag);
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CONTENT_LENGTH, (range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        set(header::CONTENT_RANGE, format!("bytes {}-{last}/{size}", range.start));
    }
    // Of the whole, whatever part is answered: who puts parts together can check them (RFC 9530).
    if let Some(digest) = unhex(&about.sha256) {
        set(
            HeaderName::from_static("repr-digest"),
            format!("sha-256=:{}:", STANDARD.encode(digest)),
        );
    }
    set(header::CONTENT_DISPOSITION, disposition(&about.name));
    headers.insert(header::CONTENT_TYPE, told_type(about.media_type.as_deref()));
    Ok(response)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn told_type(declared: Option<&str>) -> HeaderValue {
    let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default();
    let known = TOLD.iter().find(|known| essence.trim().eq_ignore_ascii_case(known));
    HeaderValue::from_static(known.copied().unwrap_or("application/octet-stream"))
}

/// `attachment` with the name twice: in plain ASCII for old clients, and as RFC 8187 has it.
fn disposition(name: &str) -> String {
    use std::fmt::Write as _;
    let plain: String = name
        .chars()
        .map(|c| {
            let good = c.is_ascii_alphanumeric() || " ._-()+,=@".contains(c);
            if good { c } else { '_' }
        })
        .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_harmless_in_headers() {
        assert_eq!(
            disposition("a\"; x=y\r\nSet-Cookie: z.html"),
            "attachment; filename=\"a__ x=y__Set-Cookie_ z.html\"; filename*=UTF-8''a%22%3B%20x%3Dy%0D%0ASet-Cookie%3A%20z.html"
        );
        assert_eq!(
            disposition("ä.csv"),
            "attachment; filename=\"_.csv\"; filename*=UTF-8''%C3%A4.csv"
        );
        assert_eq!(told_type(Some("Text/CSV; charset=utf-8")), "text/csv");
        assert_eq!(told_type(Some("text/html")), "application/octet-stream");
        assert_eq!(told_type(None), "application/octet-stream");
    }
}
