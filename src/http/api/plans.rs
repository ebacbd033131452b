//! `/api/workflows/{name}/plan`: what a run would do.

use axum::Json;
use serde::Serialize;
use serde_json::Value;

use super::start_options::PlanOptions;
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::plan;

/// What a run would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanAnswer {
    /// SHA-256 of `manifest`: given to `execute` as `plan`, it starts this very run or none.
    pub hash: String,
    /// Whether a run would be started.
    pub startable: bool,
    /// What keeps it from that.
    pub refused: Vec<Finding>,
    /// `workflow`, `revision`, `arguments`, `profile`, `steps` in the order in which they could run, and `effects` of all together:
    /// hosts, secrets, programs, workflows.
    #[schema(value_type = Object)]
    pub manifest: Value,
}

/// What a run with these arguments would do. Nothing is executed, and nothing is started.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/plan", tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name"), super::OrganizationHeader, PlanOptions),
    request_body(content = Object, description = "Arguments by name"),
    responses((status = 200, body = PlanAnswer), (status = "default", body = Problem)))]
pub async fn make(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(options): Query<PlanOptions>,
    body: JsonObject,
) -> Result<Json<PlanAnswer>, ApiError> {
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let planned = plan::make(&admitted.app.cx, scope, origin, &name, &body.object, options.read()?).await?;
    Ok(Json(PlanAnswer {
        hash: planned.hash,
        startable: planned.refused.is_empty(),
        refused: planned.refused,
        manifest: planned.manifest,
    }))
}
