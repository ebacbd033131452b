//! `/api/environments`: the packages that the workspace's code may import.

use axum::Json;

use crate::http::extract::Caller;
use crate::http::problem::{ApiError, Problem};
use crate::usecase::environment::{self, Report};

/// The current environment: whether it is ready, what is in it, and the end of the resolver's output. For platform
/// administrators and keys that may.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/environments/current", tag = "health",
    responses((status = 200, body = Report), (status = "default", body = Problem)))]
pub async fn current(caller: Caller) -> Result<Json<Report>, ApiError> {
    let Caller { app, caller } = caller;
    Ok(Json(environment::current(&app.cx, &caller).await?))
}
