//! What happens around every request: its id and log line, the guard against panics, headers for browsers, and the wait for
//! the application.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::extract::AdmittedSlot;
use super::problem::{ApiError, KEPT, Marked};
use super::state::{App, Gate};
use crate::audit::redact;
use crate::clock::Entropy;
use crate::error::Kind;
use crate::usecase::admit;

/// Fires when the caller has hung up before the answer, in the request's extensions. hyper drops what it waits for as soon as it
/// reads the end of the connection; it reads on once the body was read as a whole, and not while another request stands behind
/// this one in what was read already. Behind the Functions host it is the host that hangs up, when its own caller does.
#[derive(Debug, Clone)]
pub struct HungUp(pub CancellationToken);

/// The request's id, in its extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request id that a caller gave is taken when it is short and harmless in a log.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id)
            if (8..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') =>
        {
            id.to_owned()
        }
        _ => format!(
            "req_{}",
            Entropy::System
                .bytes::<12>()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        ),
    }
}

/// Gives the request its id, writes one line about it, and turns errors into problems. Neither the query nor a
/// segment that may be a secret is ever logged.
pub async fn trace(mut request: Request, next: Next) -> Response {
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let probe = request.uri().path() == "/";
    // A link's path decides in somebody's name, and whoever reads logs is not that somebody.
    let path = redact::endpoint(request.uri().path());
    let method = request.method().clone();
    let begun = Instant::now();
    let span = tracing::info_span!("request", request.id = %id);
    let hung_up = CancellationToken::new();
    request.extensions_mut().insert(HungUp(hung_up.clone()));
    // In a task of its own: a caller that hangs up must not leave a change without its audit record in the list.
    let handled = tokio::spawn(next.run(request).instrument(span));
    let is_here = hung_up.drop_guard();
    let handled = handled.await;
    is_here.disarm();
    let mut response = handled.unwrap_or_else(|error| {
        tracing::error!(request.id = %id, error = %error, "a request's task ended early");
        ApiError::new(Kind::Internal, "internal", "something went wrong inside Weft").into_response()
    });
    let code = response.extensions().get::<Marked>().map(|marked| marked.0.code());
    if let Some(Marked(error)) = response.extensions_mut().remove::<Marked>() {
        let kept: Vec<_> = KEPT
            .iter()
            .filter_map(|name| response.headers().get(name).map(|v| (name.clone(), v.clone())))
            .collect();
        response = error.respond(&id);
        response.headers_mut().extend(kept);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let duration_ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    if probe {
        tracing::trace!(http.status = status, duration_ms, "probe");
    } else {
        tracing::info!(request.id = %id, http.method = %method, http.path = path, http.status = status, duration_ms, error.code = code, "request");
    }
    response
}

/// A panic becomes a 500: a connection that is dropped instead would make the Functions host send a request without a body
/// up to nine times more.
pub async fn guard(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::new(Kind::Internal, "internal", "something went wrong inside Weft")
            .hint("report the request id; the log has the cause")
            .into_response(),
    }
}

/// The headers that keep a browser from guessing, on every answer, problems included.
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
    }
    response
}

/// Refuses a query that is no text once it is decoded: read loosely, two different ones would say the same.
pub async fn query_is_text(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if percent_encoding::percent_decode_str(query).decode_utf8().is_err() {
        return ApiError::new(
            Kind::Invalid,
            "parameter_invalid",
            "the query is not UTF-8 once it is decoded",
        )
        .hint("encode text as UTF-8 before its bytes become `%XX`")
        .into_response();
    }
    next.run(request).await
}

/// After an admitted request: records that it was refused a verb, and lists its audit records that no run has listed. What it
/// was answered stands whether or not that could be written.
pub async fn close_audit(mut request: Request, next: Next) -> Response {
    let slot = AdmittedSlot::default();
    let app = request.extensions().get::<Arc<App>>().cloned();
    request.extensions_mut().insert(slot.clone());
    let response = next.run(request).await;
    let (Some(app), Some((scope, caller))) = (app, slot.who()) else {
        return response;
    };
    let refused = response.extensions().get::<Marked>().map(|Marked(error)| error);
    if let Some(error) = refused.filter(|error| error.status() == StatusCode::FORBIDDEN) {
        let written = match scope {
            Some(scope) => admit::denied_in(&app.cx, scope, caller, error.code()).await,
            None => admit::denied_on_platform(&app.cx, caller, error.code()).await,
        };
        if let Err(failure) = written {
            tracing::error!(error = %failure, error.code = error.code(), "a denial could not be recorded");
        }
    }
    let Some(scope) = scope else { return response };
    let unindexed = slot.take_unindexed();
    if !unindexed.is_empty()
        && let Err(error) = admit::list(&app.cx, scope, &unindexed).await
    {
        tracing::warn!(error = %error, "audit records could not be listed");
    }
    response
}

/// Lets a request wait until the application is there. `/api/health` is answered always: it says that the process lives.
pub async fn wait_until_ready(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if route == Some("/api/health") || route == Some("/api/ready") {
        return next.run(request).await;
    }
    match gate.wait().await {
        Ok(app) => {
            request.extensions_mut().insert(app);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}
