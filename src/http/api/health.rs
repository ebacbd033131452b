//! `/api/health`, `/api/ready`, `/api/status`: whether the process lives, whether it can work, and how it is.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::extract::Caller;
use crate::http::problem::{ApiError, Problem};
use crate::http::state::Gate;
use crate::usecase::{bundle, status};

/// That the process lives. No detail: it is open to everybody.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct HealthAnswer {
    /// `ok`.
    pub status: String,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/api/health", tag = "health", security(), responses((status = 200, body = HealthAnswer)))]
pub async fn health() -> Json<HealthAnswer> {
    Json(HealthAnswer {
        status: "ok".to_owned(),
    })
}

/// Whether requests can be served: storage can be read and written, and the workspace is loaded.
#[utoipa::path(get, path = "/api/ready", tag = "health", security(),
    responses((status = 200, body = HealthAnswer), (status = 503, body = Problem)))]
pub async fn ready(State(gate): State<Gate>) -> Response {
    let app = match gate.wait().await {
        Ok(app) => app,
        Err(error) => return error.into_response(),
    };
    match status::ready(&app.cx).await {
        Ok(state) => Json(HealthAnswer {
            status: state.to_owned(),
        })
        .into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// How the process is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusAnswer {
    /// The version of Weft.
    pub version: String,
    /// This process, among others on the same storage.
    pub instance: String,
    /// Mode, storage and settings; secrets are masked.
    #[schema(value_type = Object)]
    pub about: Value,
    /// The engine's files: `state` (`intact`, `modified`, `unknown`), the release, and which differ.
    #[schema(value_type = Object)]
    pub engine: Value,
    /// Workers: interpreter, counts, and which layers of isolation are in force.
    #[schema(value_type = Object)]
    pub workers: Value,
    /// The workspace: digest, workflows, findings, and `shadowed`: workflows of organizations whose name it has taken.
    #[schema(value_type = Object)]
    pub workspace: Value,
    /// Runs that are driven in this process.
    pub live_runs: usize,
    /// Runs that were set aside here since the process began because they can't be read.
    pub set_aside_runs: u64,
    /// Results that steps have taken from earlier runs, since the process began.
    pub cached_results: CachedResults,
    /// Large values and artifacts that nothing referred to any more and that were deleted here, since the process began.
    pub collected_blobs: CollectedBlobs,
    /// Artifacts that steps have stored here, since the process began.
    pub artifacts: StoredArtifacts,
    /// Streams and long polls that are told of runs here.
    pub watchers: usize,
}

/// What was stored as artifacts.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredArtifacts {
    /// Bytes that were new.
    pub stored_bytes: u64,
    /// How often one was refused because the organization's quota was used up.
    pub refused: u64,
}

/// How often a step's result was there.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CachedResults {
    /// It was taken.
    pub hits: u64,
    /// There was none.
    pub misses: u64,
}

/// What was deleted because nothing referred to it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectedBlobs {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// For how many hours such blobs are kept; none for ever.
    pub grace_hours: Option<u64>,
}

/// How the process is, in detail: workers, isolation, workspace. For platform administrators and keys that may.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/status", tag = "health",
    responses((status = 200, body = StatusAnswer), (status = "default", body = Problem)))]
pub async fn status(caller: Caller) -> Result<Json<StatusAnswer>, ApiError> {
    let Caller { app, caller } = caller;
    let found = status::status(&app.cx, &caller).await?;
    Ok(Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: app.cx.instance.clone(),
        about: app.settings.about.clone(),
        engine: app.settings.engine.get().cloned().unwrap_or_else(
            || json!({"state": "unknown", "reason": "its files are being compared with those of the release"}),
        ),
        workers: found.workers,
        workspace: json!({
            "revision": found.revision,
            "code": bundle::told(&found.followed),
            "workflows": found.workflows,
            "dataProviders": found.data_providers,
            "findings": found.findings,
            "shadowed": found.shadowed,
            "error": found.workspace_error,
        }),
        live_runs: found.live_runs,
        set_aside_runs: found.set_aside_runs,
        cached_results: CachedResults {
            hits: found.cached_results.0,
            misses: found.cached_results.1,
        },
        collected_blobs: CollectedBlobs {
            count: found.collected.0,
            bytes: found.collected.1,
            grace_hours: found.grace.map(|grace| grace.as_secs() / 3_600),
        },
        artifacts: StoredArtifacts {
            stored_bytes: found.artifacts.0,
            refused: found.artifacts.1,
        },
        watchers: found.watchers,
    }))
}
