//! `/api/usage`: what an organization has stored, of what it may.

use axum::Json;
use serde::Serialize;

use crate::domain::Timestamp;
use crate::http::extract::Admitted;
use crate::http::problem::{ApiError, Problem};
use crate::usecase::usage::{self, Usage};

/// What an organization has stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageAnswer {
    /// Artifacts of runs.
    pub artifacts: ArtifactUsage,
    /// Values that are too large for a row.
    pub values: ValueUsage,
}

/// What an organization has stored as artifacts; the same bytes count once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactUsage {
    /// Bytes that are stored or being written. What other instances have stored last may be missing, up to 16 MiB for each.
    pub bytes: u64,
    /// Bytes that there may be.
    pub limit: u64,
    /// Who says so: `installation`, `platform` or `organization`.
    pub limited_by: &'static str,
    /// When they were last counted one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub counted_at: Option<Timestamp>,
}

/// What an organization has stored as large values. There is no limit.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueUsage {
    /// Bytes when they were last counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When that was; never before the organization's first day is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub counted_at: Option<Timestamp>,
}

impl From<Usage> for UsageAnswer {
    fn from(usage: Usage) -> Self {
        let used = usage.used;
        Self {
            artifacts: ArtifactUsage {
                bytes: used.artifact_bytes,
                limit: usage.artifact_limit,
                limited_by: usage.limited_by,
                counted_at: used.artifacts_counted_at,
            },
            values: ValueUsage {
                bytes: used.values.map(|(bytes, _)| bytes),
                counted_at: used.values.map(|(_, at)| at),
            },
        }
    }
}

/// What the organization has stored, of what it may.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/usage", tag = "usage", params(super::OrganizationHeader),
    responses((status = 200, body = UsageAnswer), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted) -> Result<Json<UsageAnswer>, ApiError> {
    Ok(Json(usage::get(&admitted.app.cx, &admitted.scope).await?.into()))
}
