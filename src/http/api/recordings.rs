//! `/api/runs/{id}/recording`: what is kept of a run's attempts, so that they can be made again elsewhere.

use axum::Json;
use serde::Deserialize;

use super::runs::run_id;
use crate::domain::RecordedRun;
use crate::http::extract::{Admitted, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::recording;

/// Which attempts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Of {
    /// Those of this step alone.
    pub step: Option<String>,
}

/// A run with what was recorded of its attempts: arguments, context, what the code asked for and was answered, how it ended.
/// Takes the right to see every run of the organization. At most 32 MiB; attempts beyond that are named in `leftOut`.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/recording", tag = "runs",
    params(("id" = String, Path, description = "The run"), Of, super::OrganizationHeader),
    responses((status = 200, body = Object), (status = "default", body = Problem)))]
pub async fn get(
    admitted: Admitted,
    Path(id): Path<String>,
    Query(of): Query<Of>,
) -> Result<Json<RecordedRun>, ApiError> {
    let run = recording::of_run(&admitted.app.cx, &admitted.scope, &run_id(&id)?, of.step.as_deref()).await?;
    Ok(Json(run))
}
