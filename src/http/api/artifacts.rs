//! `/api/runs/{id}/artifacts`: what the steps of a run have left under a name.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use super::PageOf;
use super::runs::run_id;
use crate::domain::{ArtifactId, Timestamp};
use crate::http::extract::{Admitted, Path};
use crate::http::problem::{ApiError, Problem};
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

/// The bytes of an artifact, to be saved: never to be shown as a page of this origin.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts/{artifactId}", tag = "runs",
    params(("id" = String, Path, description = "The run"), ("artifactId" = String, Path, description = "The artifact"),
        super::OrganizationHeader),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = Problem)))]
pub async fn download(admitted: Admitted, Path((id, artifact)): Path<(String, String)>) -> Result<Response, ApiError> {
    let artifact: ArtifactId = artifact
        .parse()
        .map_err(|error: crate::domain::IdError| ApiError::bad_parameter("path:artifactId", error.to_string()))?;
    let content = artifact::open(&admitted.app.cx, &admitted.scope, &run_id(&id)?, &artifact).await?;
    let about = content.artifact;
    let mut response = Response::new(Body::from_stream(content.bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, about.size.into());
    headers.insert(header::CONTENT_TYPE, told_type(about.media_type.as_deref()));
    if let Ok(value) = HeaderValue::from_str(&disposition(&about.name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", about.sha256)) {
        headers.insert(header::ETAG, value);
    }
    Ok(response)
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
