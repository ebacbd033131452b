//! Invocations from the Functions host that are not HTTP: `POST /<function name>` with an envelope.
//!
//! There is no secret between the host and the handler, so whoever reaches the port can forge an invocation. It gains nothing:
//! queue messages are signed, a run is decided again from what is stored, and a tick only does what is due. The prefix `api`
//! of all HTTP functions keeps the paths apart, since the host forwards nothing outside it.

mod attempt_step;
mod attempt_step_poison;
mod drive_run;
mod drive_run_poison;
pub mod envelope;
mod tick;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;

use crate::error::Coded as _;
use crate::http::{Gate, problem::ApiError};
use crate::usecase::Context;
use crate::usecase::deliver::{Delivered, From, deliver};
use envelope::{Answer, Invocation};

/// The functions that are invoked by envelope. Each has a folder of this name with its `function.json`, and a file of this
/// name here; a test compares the three.
pub const FUNCTIONS: [&str; 5] = ["attempt_step", "attempt_step_poison", "drive_run", "drive_run_poison", "tick"];

/// How long an invocation waits for its work, below the host's `functionTimeout` of five minutes, at which the host would kill
/// the whole process. What is not done then goes on in the background, guarded by its lease.
const PATIENCE: Duration = Duration::from_secs(240);

/// Largest envelope: a queue message of 64 KiB, encoded twice, with its metadata.
const MAX_ENVELOPE_BYTES: usize = 1 << 20;

/// The routes of all functions.
pub fn router(gate: Gate) -> Router {
    Router::new()
        .route("/attempt_step", post(attempt_step::invoke))
        .route("/attempt_step_poison", post(attempt_step_poison::invoke))
        .route("/drive_run", post(drive_run::invoke))
        .route("/drive_run_poison", post(drive_run_poison::invoke))
        .route("/tick", post(tick::invoke))
        .layer(axum::middleware::from_fn(only_the_host))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_ENVELOPE_BYTES))
        .with_state(gate)
}

/// The host forwards no such request, so one that bears the marks of having been proxied comes from elsewhere.
async fn only_the_host(request: Request, next: Next) -> Response {
    let proxied = ["x-forwarded-for", "x-forwarded-host", "x-ms-invocation-id", "origin"];
    if proxied.iter().any(|name| request.headers().contains_key(*name)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

/// Delivers the message of a queue invocation. Any failure is an answer that makes the host deliver again.
async fn deliver_message(gate: &Gate, headers: &HeaderMap, body: &Bytes, from: From, binding: &str) -> Response {
    let cx = match context(gate).await {
        Ok(cx) => cx,
        Err(response) => return response,
    };
    let invocation = match Invocation::read(headers, body) {
        Ok(invocation) => invocation,
        Err(error) => return Answer::dropped(&format!("the invocation could not be read: {error}")).into_response(),
    };
    let Some(text) = invocation.text(binding) else {
        return Answer::dropped(&format!("the invocation has no `{binding}`")).into_response();
    };
    let delivered_at = cx.clock.now();
    match deliver(&cx, from, &text, delivered_at, Some(PATIENCE)).await {
        Ok(Delivered::Done(continued)) => Answer::done(&format!("{continued:?}")).into_response(),
        Ok(Delivered::GoesOn) => Answer::done("the run goes on in the background").into_response(),
        Ok(Delivered::Refused(rejected)) => Answer::dropped(&rejected.to_string()).into_response(),
        Err(error) => {
            tracing::warn!(error = %error, error.code = error.code(), invocation.id = invocation.id, "a message failed");
            failed(&ApiError::from(error), &invocation.id)
        }
    }
}

async fn context(gate: &Gate) -> Result<Arc<Context>, Response> {
    match gate.wait().await {
        Ok(app) => Ok(app.cx.clone()),
        Err(error) => Err(failed(&error, "")),
    }
}

/// Anything but 2xx makes the host deliver the message again, or wait for the next tick.
fn failed(error: &ApiError, invocation: &str) -> Response {
    error.respond(invocation)
}

/// What handlers of functions are given.
type GateState = State<Gate>;
