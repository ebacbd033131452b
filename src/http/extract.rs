//! Authority and input as extractors: a handler that compiles holds a caller or a scope that was admitted, and a body that
//! was read within its limit.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::middleware::{HungUp, RequestId};
use super::problem::ApiError;
use super::query;
use super::state::App;
use crate::audit::LinkedRecord;
use crate::authn::{self, Admission, RequestFacts, requested_organization};
use crate::authz::{self, Origin};
use crate::domain::{ROUNDED_HINT, read_json, rounded};
use crate::error::{Finding, Kind};
use crate::tenancy::Scope;
use crate::usecase::{admit, hook_delivery};

fn app(parts: &Parts) -> Result<Arc<App>, ApiError> {
    parts
        .extensions
        .get::<Arc<App>>()
        .cloned()
        .ok_or_else(ApiError::starting)
}

/// What a request says about who sends it.
fn facts(app: &App, parts: &Parts) -> RequestFacts {
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let request_id = parts
        .extensions
        .get::<RequestId>()
        .map(|id| id.0.clone())
        .unwrap_or_default();
    let request = authn::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        // Without a known peer the request counts as one from far away.
        peer: peer.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        listener_loopback: app.settings.listener_loopback,
        request_id: &request_id,
    };
    app.authenticator.facts(&request)
}

/// Most members of a body that are told of where none is taken.
const MOST_TOLD: usize = 20;
/// Most bytes that are read of a body which is refused for its size.
const MOST_LET_GO: usize = 256 << 20;
/// And how long.
const PATIENCE_TO_LET_GO: Duration = Duration::from_secs(30);

/// The application, for handlers that need no caller.
#[derive(Debug)]
pub struct Application(pub Arc<App>);

impl<S: Sync> FromRequestParts<S> for Application {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        app(parts).map(Self)
    }
}

/// Somebody whose only credential is a link, which the use case opens: what else the request carries is not looked at.
#[derive(Debug)]
pub struct Linked {
    /// The application.
    pub app: Arc<App>,
    /// Where the request came from.
    pub origin: Origin,
}

impl<S: Sync> FromRequestParts<S> for Linked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let app = app(parts)?;
        let origin = facts(&app, parts).origin;
        query::known_only(parts)?;
        Ok(Self { app, origin })
    }
}

/// An authenticated caller, without an organization.
#[derive(Debug)]
pub struct Caller {
    /// The application.
    pub app: Arc<App>,
    /// Who.
    pub caller: authz::Caller,
}

impl Caller {
    async fn of(parts: &Parts) -> Result<(Self, RequestFacts), ApiError> {
        let app = app(parts)?;
        let facts = facts(&app, parts);
        match app.authenticator.authenticate(&facts).await {
            Ok(caller) => Ok((Self { app, caller }, facts)),
            Err(refusal) => {
                record_refusal(&app, None, &facts.origin, &refusal).await;
                Err(refusal.into())
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let (caller, _) = Self::of(parts).await?;
        admit::key_bypass_of_platform(&caller.app.cx, &caller.caller).await?;
        if let Some(slot) = parts.extensions.get::<AdmittedSlot>() {
            slot.remember(None, caller.caller.clone());
        }
        query::known_only(parts)?;
        Ok(caller)
    }
}

/// An authenticated caller in an organization.
#[derive(Debug)]
pub struct Admitted {
    /// The application.
    pub app: Arc<App>,
    /// The proof.
    pub scope: Scope,
    /// Where the request came from.
    pub origin: Origin,
    /// Fires when the caller has hung up; the request is handled to its end all the same.
    pub gone: CancellationToken,
    slot: AdmittedSlot,
}

impl Admitted {
    /// The request's audit records that are not listed yet, to list them together with something else.
    #[must_use]
    pub fn unindexed(&self) -> Vec<LinkedRecord> {
        let unindexed = self.slot.0.unindexed.lock();
        unindexed.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They have been listed. Until this is said, they are listed when the request has been answered.
    pub fn indexed(&self) {
        drop(self.slot.take_unindexed());
    }
}

/// Who was admitted to a request, and what is still to be done about it when it has been answered.
#[derive(Debug, Clone, Default)]
pub struct AdmittedSlot(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    who: OnceLock<(Option<Scope>, authz::Caller)>,
    unindexed: Mutex<Vec<LinkedRecord>>,
}

impl AdmittedSlot {
    /// Who was admitted, and to which organization on a route that has one.
    #[must_use]
    pub fn who(&self) -> Option<&(Option<Scope>, authz::Caller)> {
        self.0.who.get()
    }

    fn remember(&self, scope: Option<Scope>, caller: authz::Caller) {
        if self.0.who.set((scope, caller)).is_err() {
            tracing::error!("a request was admitted twice");
        }
    }

    /// Takes the records that are not listed yet.
    #[must_use]
    pub fn take_unindexed(&self) -> Vec<LinkedRecord> {
        std::mem::take(&mut self.0.unindexed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Sync> FromRequestParts<S> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let (Caller { app, caller }, facts) = Caller::of(parts).await?;
        let requested = requested_organization(&facts).map_err(ApiError::from)?;
        let admission = match app.authenticator.organization(&caller, &requested).await {
            Ok(admission) => admission,
            Err(refusal) => {
                record_refusal(&app, Some(&caller), &caller.origin, &refusal).await;
                return Err(refusal.into());
            }
        };
        let record = match &admission {
            Admission::Key(scope) => Some(admit::key_bypass(&app.cx, scope, &caller).await?),
            Admission::Crossing(scope) => Some(admit::crossing(&app.cx, scope, &caller).await?),
            Admission::Member(_) => None,
        };
        let scope = admission.into_scope();
        let origin = caller.origin.clone();
        let slot = parts.extensions.get::<AdmittedSlot>().cloned().unwrap_or_default();
        slot.0
            .unindexed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(record);
        slot.remember(Some(scope.clone()), caller);
        query::known_only(parts)?;
        let gone = parts.extensions.get::<HungUp>().map(|hung_up| hung_up.0.clone());
        Ok(Self {
            app,
            scope,
            origin,
            gone: gone.unwrap_or_default(),
            slot,
        })
    }
}

/// A delivery to a hook that there is, its body unread. Whose it is, its signature says: what else the request carries of
/// credentials is not looked at.
#[derive(Debug)]
pub struct Delivery {
    /// The application.
    pub app: Arc<App>,
    /// The hook.
    pub door: hook_delivery::Door,
    /// Where the request came from.
    pub origin: Origin,
    /// The request.
    pub request: hook_delivery::Request,
}

impl<S: Sync> FromRequest<S> for Delivery {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let app = app(&parts)?;
        let facts = facts(&app, &parts);
        let id = axum::extract::Path::<String>::from_request_parts(&mut parts, &()).await;
        // What can't be decoded is no hook's id.
        let id = id.map(|axum::extract::Path(id)| id).unwrap_or_default();
        let door = hook_delivery::knock(&app.cx, &id, &facts.origin).await?;
        let limit = app.settings.max_body_bytes;
        let body = announced(body, limit)?;
        let headers = parts.headers.iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
        let request = hook_delivery::Request {
            headers: headers.collect(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: read(body, limit).await?,
        };
        Ok(Self {
            app,
            door,
            origin: facts.origin,
            request,
        })
    }
}

/// Writes the record of a refusal. The caller is refused whether or not it could be written.
async fn record_refusal(app: &App, caller: Option<&authz::Caller>, origin: &Origin, refusal: &authn::Refusal) {
    if refusal.kind == Kind::Unavailable {
        return;
    }
    let attempted = admit::Refused {
        code: refusal.code,
        credential: refusal.audit.credential.as_str(),
        reason: &refusal.audit.reason,
        key: refusal.audit.key.as_ref().map(|(_, name)| name.as_str()),
        claimed_user: refusal.audit.claimed_user.as_deref(),
        organization: refusal.audit.organization.as_ref(),
    };
    if let Err(error) = admit::denied(&app.cx, caller, origin, &attempted).await {
        tracing::error!(error = %error, error.code = refusal.code, "a refused request could not be recorded");
    }
}

/// A JSON object; an empty body is the empty object.
#[derive(Debug)]
pub struct JsonObject {
    /// The object.
    pub object: Map<String, Value>,
    /// Whether the request had no body at all.
    pub empty: bool,
}

impl<S: Sync> FromRequest<S> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let limit = app(&parts)?.settings.max_body_bytes;
        let bytes = read(body, limit).await?;
        if bytes.is_empty() {
            return Ok(Self {
                object: Map::new(),
                empty: true,
            });
        }
        let kind = parts
            .headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or_default());
        if !kind.is_none_or(is_json) {
            return Err(
                ApiError::new(Kind::Invalid, "media_type_unsupported", "the body must be JSON")
                    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                    .hint("send `Content-Type: application/json`"),
            );
        }
        match read_json(&bytes) {
            Ok((Value::Object(_), repeated)) if !repeated.is_empty() => Err(stand_twice(repeated)),
            Ok((Value::Object(_), _)) if rounded(&bytes).is_some() => Err(would_round(&bytes)),
            Ok((Value::Object(object), _)) => Ok(Self { object, empty: false }),
            Ok(_) => Err(
                ApiError::new(Kind::Invalid, "body_not_an_object", "the body must be a JSON object")
                    .hint("send the arguments by name, as `{\"name\": \"Ada\"}`"),
            ),
            Err(error) => Err(ApiError::new(
                Kind::Invalid,
                "body_not_json",
                format!("the body is not JSON: line {}, column {}", error.line(), error.column()),
            )
            .hint(reason(&error))),
        }
    }
}

/// A request that says nothing in its body: none, or the empty object. Whatever else it says would be passed over in silence.
#[derive(Debug)]
pub struct NoBody {
    /// Whether the request had no body at all.
    pub empty: bool,
}

impl<S: Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let instead = query::hint_instead_of_a_body(&request);
        let JsonObject { object, empty } = JsonObject::from_request(request, state).await?;
        if object.is_empty() {
            return Ok(Self { empty });
        }
        let findings = object.keys().map(|name| {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            Finding::new(pointer, "unknown_member", format!("`{name:.80}` says nothing here"))
        });
        let findings = findings.take(MOST_TOLD).collect();
        let detail = "this request takes no body, and what stands in it would be passed over";
        Err(ApiError::new(Kind::Invalid, "parameter_invalid", detail)
            .findings(findings)
            .hint(instead))
    }
}

/// A file, as the text that it is.
#[derive(Debug)]
pub struct TextBody {
    /// The text.
    pub text: String,
    /// Whether it is YAML, and not JSON.
    pub is_yaml: bool,
}

impl<S: Sync> FromRequest<S> for TextBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        const YAML: [&str; 4] = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];
        let (parts, body) = request.into_parts();
        let limit = app(&parts)?.settings.max_body_bytes;
        let body = announced(body, limit)?;
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.map_or("", |value| value.to_str().unwrap_or_default());
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_yaml = YAML.contains(&essence.as_str());
        if !is_yaml && !is_json(kind) {
            return Err(
                ApiError::new(Kind::Invalid, "media_type_unsupported", "the body must be JSON or YAML")
                    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                    .hint("send `Content-Type: application/json` or `application/yaml`"),
            );
        }
        let bytes = read(body, limit).await?;
        let text = String::from_utf8(bytes.into()).map_err(|_| {
            ApiError::new(Kind::Invalid, "body_not_text", "the body is no text in UTF-8").hint("save the file as UTF-8")
        })?;
        if !is_yaml && rounded(text.as_bytes()).is_some() {
            return Err(would_round(text.as_bytes()));
        }
        Ok(Self { text, is_yaml })
    }
}

/// A whole number that 64 bits don't hold. Nothing is rounded without a word.
fn would_round(text: &[u8]) -> ApiError {
    let said = rounded(text).map_or_else(|| "a number would be rounded".to_owned(), |found| found.to_string());
    ApiError::bad_parameter("", said).hint(ROUNDED_HINT)
}

/// Members of one object with the same name. Readers of JSON differ in which of them they keep, so none is taken.
fn stand_twice(pointers: Vec<String>) -> ApiError {
    let findings = pointers.into_iter().map(|pointer| {
        let message = format!("`{:.80}` stands here more than once", pointer);
        Finding::new(pointer, "duplicate_key", message).hint("take all but one of them out")
    });
    ApiError::new(
        Kind::Invalid,
        "parameter_invalid",
        "members of the body stand there more than once, and only one of each would count",
    )
    .findings(findings.collect())
}

/// serde's words for what is wrong, without its own line and column.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// JSON, or what `curl -d` sends when it isn't told otherwise. A web page can send the latter to another site unasked, but not
/// with `X-Organization-Id` and not by PUT, and every route with a body needs one or the other.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads a body that is no larger than the limit.
async fn read(body: Body, limit: usize) -> Result<bytes::Bytes, ApiError> {
    let mut body = announced(body, limit)?;
    match Limited::new(&mut body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let_go(body);
            Err(too_large(limit))
        }
        Err(_) => Err(ApiError::new(
            Kind::Invalid,
            "body_unreadable",
            "the body ended before it was whole",
        )),
    }
}

/// A body, unless it is announced as too large: then it is refused before it is sent.
fn announced(body: Body, limit: usize) -> Result<Body, ApiError> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        let_go(body);
        return Err(too_large(limit));
    }
    Ok(body)
}

/// Reads on what nobody wants, up to a bound: a connection that is closed while its caller sends is cut, and then many callers
/// never see the answer that was sent before.
fn let_go(body: Body) {
    tokio::spawn(async move {
        let mut rest = Limited::new(body, MOST_LET_GO);
        let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
        drop(tokio::time::timeout(PATIENCE_TO_LET_GO, reading).await);
    });
}

/// Reads a body that is no larger than a bound of its own; `why` is said when it is.
///
/// # Errors
/// When it is larger, or ends too early.
pub async fn read_up_to(body: Body, limit: usize, why: &str) -> Result<bytes::Bytes, ApiError> {
    read(body, limit).await.map_err(|error| {
        if error.code() == "body_too_large" {
            error.hint(why)
        } else {
            error
        }
    })
}

fn too_large(limit: usize) -> ApiError {
    let detail = format!("the body is over the limit of {limit} bytes");
    ApiError::new(Kind::TooLarge, "body_too_large", detail).hint("send less, or raise `WEFT_MAX_BODY_BYTES`")
}

/// The path parameters of a route, each decoded once.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: serde::de::DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::bad_parameter("path", wrong_path(&rejection))),
        }
    }
}

/// What is wrong with the parameters of a path, in our words: what a type says of a value, and not how it was read.
fn wrong_path(rejection: &PathRejection) -> String {
    const UNREADABLE: &str = "a part of the path can't be read";
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return UNREADABLE.to_owned();
    };
    let number = |value: &str, expected: &str| {
        let value: String = value.chars().take(80).collect();
        if expected.starts_with(['u', 'i']) {
            format!("`{value}` in the path is not a whole number, or too large")
        } else {
            format!("`{value}` in the path is not what stands there")
        }
    };
    match failed.kind() {
        ErrorKind::ParseErrorAtKey {
            value, expected_type, ..
        }
        | ErrorKind::ParseErrorAtIndex {
            value, expected_type, ..
        }
        | ErrorKind::ParseError { value, expected_type } => number(value, expected_type),
        ErrorKind::DeserializeError { message, .. } | ErrorKind::Message(message) => message.clone(),
        ErrorKind::InvalidUtf8InPathParam { .. } => "a part of the path is no UTF-8".to_owned(),
        _ => UNREADABLE.to_owned(),
    }
}

/// The query parameters of a route, as far as it knows them. Where it changes something, others were refused before
/// (`query.rs`); where it only reads, they are passed over.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: serde::de::DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            // The words of the rejection may repeat the query, in which a key may stand.
            Err(_) => Err(ApiError::bad_parameter(
                "query",
                "a query parameter has a value that can't be read",
            )),
        }
    }
}
