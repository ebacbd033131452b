//! Errors → `application/problem+json` (RFC 9457): the one place where a kind of error becomes a status.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::authn::Refusal;
use crate::error::{Coded, Finding, Kind};
use crate::usecase;

/// The body of an error.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where the code is explained, a path below the documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, in one sentence.
    pub detail: String,
    /// A stable code.
    pub code: String,
    /// What to try next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same request may succeed later.
    pub retriable: bool,
    /// The request, for whoever looks into the log.
    pub request_id: String,
    /// Everything that is wrong with the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Finding>,
    /// Where somebody else was first: what is there now (`etag`, and who has written it when).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub current: Option<serde_json::Value>,
}

/// An error on its way to the caller. The request id is filled in by the outermost layer.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    hint: Option<String>,
    retriable: bool,
    findings: Vec<Finding>,
    current: Option<serde_json::Value>,
    /// The size of what a range was asked of.
    size: Option<u64>,
    www_authenticate: bool,
}

/// Left in the response for the layers outside: the error's code, and what makes its body.
#[derive(Debug, Clone)]
pub struct Marked(pub ApiError);

/// The status of a kind of error.
#[must_use]
pub const fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::CodeFailed => StatusCode::BAD_GATEWAY,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Seconds after which a retriable request is worth repeating.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

impl ApiError {
    /// An error of this layer.
    pub fn new(kind: Kind, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status: status(kind),
            code,
            detail: detail.into(),
            hint: None,
            retriable: kind.retriable(),
            findings: Vec::new(),
            current: None,
            size: None,
            www_authenticate: kind == Kind::Unauthenticated,
        }))
    }

    /// With a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// With everything that is wrong.
    #[must_use]
    pub fn findings(mut self, findings: Vec<Finding>) -> Self {
        self.0.findings = findings;
        self
    }

    /// With another status than its kind's.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// A range of something of this size that lies behind its end.
    #[must_use]
    pub fn beyond(size: u64) -> Self {
        let mut error = Self::new(
            Kind::Invalid,
            "range_not_satisfiable",
            format!("there are {size} bytes, and the range lies behind them"),
        )
        .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
        .hint("ask for a range within them, or for all");
        error.0.size = Some(size);
        error
    }

    /// The handler is not ready yet.
    #[must_use]
    pub fn starting() -> Self {
        Self::new(Kind::Unavailable, "starting", "the handler is starting")
            .hint("repeat the request after `Retry-After`")
    }

    /// A header or query parameter that can't be read.
    pub fn bad_parameter(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(Kind::Invalid, "parameter_invalid", message.clone())
            .findings(vec![Finding::new(pointer, "invalid", message)])
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The body, for a request of this id.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            kind: format!("/docs/errors/{}", self.0.code),
            title: self.0.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.0.status.as_u16(),
            detail: self.0.detail.clone(),
            code: self.0.code.to_owned(),
            hint: self.0.hint.clone(),
            retriable: self.0.retriable,
            request_id: request_id.to_owned(),
            errors: self.0.findings.clone(),
            current: self.0.current.clone(),
        }
    }

    /// The response, for a request of this id.
    #[must_use]
    pub fn respond(&self, request_id: &str) -> Response {
        let body = serde_json::to_vec(&self.problem(request_id)).expect("a problem is plain data");
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(size) = self.0.size
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        if self.0.retriable {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if self.0.www_authenticate {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("WeftKey realm=\"weft\""),
            );
        }
        (self.0.status, headers, body).into_response()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(Marked(self));
        response
    }
}

/// What the log says of an error that is ours: the whole chain. The answer says only its outermost layer.
fn log(error: &(dyn std::error::Error + 'static), code: &str) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::error!(error.code = code, error = text, "a request failed");
}

impl From<usecase::Error> for ApiError {
    fn from(error: usecase::Error) -> Self {
        let kind = error.kind();
        if matches!(kind, Kind::Internal | Kind::Unavailable) {
            log(&error, error.code());
        }
        let detail = match kind {
            Kind::Internal => "something went wrong inside Weft".to_owned(),
            _ => said(&error),
        };
        let hint = match kind {
            Kind::Internal => Some("report the request id; the log has the cause".to_owned()),
            _ => error.hint(),
        };
        let mut api = Self::new(kind, error.code(), detail).findings(error.findings().to_vec());
        api.0.hint = hint;
        if let usecase::Error::Outdated { current, .. } = error {
            api.0.current = Some(*current);
        }
        api
    }
}

/// The layer that says something to the caller: a store or runner error below the use case's own says more than "storage
/// failed", and none of them holds a value.
fn said(error: &usecase::Error) -> String {
    match error {
        usecase::Error::Store(error) => error.to_string(),
        usecase::Error::Runner(error) => error.to_string(),
        other => other.to_string(),
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let mut api = Self::new(refusal.kind, refusal.code, refusal.detail)
            .hint(refusal.hint)
            .findings(refusal.findings);
        api.0.www_authenticate = refusal.www_authenticate;
        api
    }
}

/// The answer to a path that is no route.
pub async fn no_such_route() -> ApiError {
    ApiError::new(Kind::NotFound, "route_not_found", "there is no such route")
        .hint("`GET /api/openapi.json` lists the routes; `/api/docs` shows them")
}

/// The answer to a method that the route doesn't have. axum adds `Allow`.
pub async fn no_such_method() -> ApiError {
    ApiError::new(
        Kind::Invalid,
        "method_not_allowed",
        "the route does not have this method",
    )
    .with_status(StatusCode::METHOD_NOT_ALLOWED)
    .hint("`GET /api/openapi.json` lists the methods of each route")
}

/// Headers of an error's response that the outermost layer must keep when it writes the body.
pub const KEPT: [HeaderName; 1] = [header::ALLOW];
