//! Requests in, responses out. No decisions: a handler asks its extractors for what it may use, calls one use case, and
//! converts the answer.
//!
//! Order of the layers, outermost first: headers for browsers, request id and access log, panic guard, readiness, the end of
//! the audit, then the route. Authentication is an extractor (`extract/`), so a handler that names a scope can't run without one.

pub mod api;
pub mod extract;
pub mod listener;
pub mod middleware;
pub mod openapi;
pub mod problem;
mod query;
mod ranges;
pub mod routes;

mod state;

use axum::Router;
use axum::routing::get;

pub use state::{App, Gate, Settings};

/// The HTTP API below `/api`, and the readiness probe of the Functions host at `/`. The router answers before the application
/// is ready; the gate lets requests wait for it.
pub fn router(gate: Gate) -> Router {
    let api = routes::table()
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.handler))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method);
    Router::new()
        .merge(api)
        .layer(axum::Extension(query::Known::described()))
        .layer(axum::middleware::from_fn(middleware::close_audit))
        .layer(axum::middleware::from_fn_with_state(
            gate.clone(),
            middleware::wait_until_ready,
        ))
        .route("/", get(async || axum::http::StatusCode::NO_CONTENT))
        .layer(axum::middleware::from_fn(middleware::query_is_text))
        .layer(axum::middleware::from_fn(middleware::guard))
        .layer(axum::middleware::from_fn(middleware::trace))
        .layer(axum::middleware::from_fn(middleware::secure))
        .with_state(gate)
}
