//! `/api/hooks`: deliveries, let in by their signature. `/api/triggers/hooks`: the hooks themselves.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::runs::Links;
use super::{PageOf, if_match};
use crate::domain::{HookId, RunId, Secret, Status, Timestamp};
use crate::error::Finding;
use crate::http::extract::{self, Admitted, JsonObject, Path};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::Error;
use crate::usecase::hook::{
    self, ArgumentRule, Deliveries, Delivery, Generic, Hook, HookInput, Rotation, Scheme, StoredHook, WithSecret,
};
use crate::usecase::hook_delivery::{self, Delivered};

/// A hook.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookView {
    /// Its id.
    pub id: String,
    /// Where deliveries go, below the address of this installation.
    pub path: String,
    /// What people call it.
    pub name: String,
    /// What a delivery runs.
    pub workflow: String,
    /// How deliveries are signed: `weft`, `github`, `stripe`, `slack`, `svix` or `generic`.
    pub scheme: String,
    /// Where the signature of a `generic` hook stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureView>,
    /// `"body"`, or `{"wrap": "NAME"}`: all of it as one argument of that name.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// Whether deliveries are taken.
    pub enabled: bool,
    /// How many one source address may send in a minute, to each instance.
    pub per_minute: u32,
    /// When two deliveries are one.
    pub deduplicate: DeduplicateView,
    /// The query parameter that a GET is answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The id of who made it.
    pub created_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// That there are secrets, the newest first; never what they are.
    pub secrets: Vec<SecretAge>,
    /// What was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<CountsView>,
}

/// Where a signature stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignatureView {
    /// The header.
    pub header: String,
    /// `hex` or `base64`.
    pub encoding: String,
    /// What stands before it.
    pub prefix: String,
    /// The header with the delivery's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_header: Option<String>,
    /// Always `hmac-sha256`.
    pub algorithm: String,
}

/// When two deliveries are one.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeduplicateView {
    /// `delivery` or `body`.
    pub by: String,
    /// For how long.
    pub window_seconds: u32,
}

/// How old a secret is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretAge {
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it stops being good; absent for the current one.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What was delivered, counted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountsView {
    /// Deliveries that led to a run of their own.
    pub accepted: u64,
    /// Deliveries that had come before.
    pub repeated: u64,
    /// Signed deliveries that led to no run.
    pub failed: u64,
    /// Deliveries that were not let in.
    pub refused: u64,
    /// When one last led to a run.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_accepted_at: Option<Timestamp>,
}

/// A hook that is new, or has a new secret.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookWithSecret {
    /// The hook.
    #[serde(flatten)]
    pub hook: HookView,
    /// Its new secret. It is never shown again.
    pub secret: String,
}

/// A hook to make or to change. On a change, what is left out is as on a new one; the scheme can't change.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(
    dead_code,
    reason = "for the description; the use case reads members one by one, to find every mistake"
)]
pub struct HookBody {
    /// What people call it.
    name: String,
    /// What a delivery runs.
    workflow: String,
    /// `weft`, `github`, `stripe`, `slack`, `svix` or `generic`.
    scheme: String,
    /// For `generic`: `{"header", "encoding", "prefix", "deliveryHeader", "algorithm"}`, all but the first optional.
    #[schema(value_type = Option<Object>)]
    signature: Option<Value>,
    /// `"body"` (the default) or `{"wrap": "NAME"}`.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
    /// The secret that the sender has given; one is made up when there is none. Only on a new hook.
    secret: Option<String>,
    /// Whether deliveries are taken; true by default.
    enabled: Option<bool>,
    /// How many one source address may send in a minute: 1 to 6000, 120 by default.
    per_minute: Option<u32>,
    /// `{"by": "delivery" or "body", "windowSeconds": 60 to 604800}`; 24 hours by default.
    #[schema(value_type = Option<Object>)]
    deduplicate: Option<Value>,
    /// The query parameter that a GET is answered with.
    challenge: Option<String>,
}

/// A new secret for a hook.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "for the description")]
pub struct RotationBody {
    /// The secret that the sender has given; one is made up when there is none.
    secret: Option<String>,
    /// How long the old one stays good: 0 to 604800, 86400 by default.
    overlap_seconds: Option<u64>,
}

/// A delivery that led to a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryAnswer {
    /// The run.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// Where it is.
    pub status: Status,
    /// Whether an earlier delivery has started it.
    pub repeated: bool,
    /// Where to look, for whoever may.
    pub links: Links,
}

/// A delivery in a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryItem {
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `accepted`, `repeated`, `answered`, `failed`, `refused` or `throttled`.
    pub outcome: String,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sender's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The run.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// How many like it the line stands for.
    pub count: u32,
}

impl From<Delivery> for DeliveryItem {
    fn from(delivery: Delivery) -> Self {
        Self {
            at: delivery.at,
            outcome: delivery.outcome,
            reason: delivery.reason,
            delivery: delivery.delivery,
            run_id: delivery.run,
            count: delivery.count,
        }
    }
}

impl HookView {
    fn new(hook: &Hook, deliveries: Option<Deliveries>) -> Self {
        Self {
            id: hook.id.to_string(),
            path: format!("/api/hooks/{}", hook.id),
            name: hook.name.to_string(),
            workflow: hook.workflow.clone(),
            scheme: hook.scheme.as_str().to_owned(),
            signature: match &hook.scheme {
                Scheme::Generic(generic) => Some(SignatureView::from(generic)),
                _ => None,
            },
            arguments: match &hook.arguments {
                ArgumentRule::Body => json!("body"),
                ArgumentRule::Wrap { name } => json!({"wrap": name}),
            },
            enabled: hook.enabled,
            per_minute: hook.per_minute,
            deduplicate: DeduplicateView {
                by: hook.deduplicate.by.as_str().to_owned(),
                window_seconds: hook.deduplicate.window_seconds,
            },
            challenge: hook.challenge.clone(),
            created_by: hook.created_by.clone(),
            created_at: hook.created_at,
            updated_at: hook.updated_at,
            secrets: hook
                .secrets
                .iter()
                .map(|secret| SecretAge {
                    created_at: secret.created_at,
                    until: secret.until,
                })
                .collect(),
            deliveries: deliveries.map(|counted| CountsView {
                accepted: counted.accepted,
                repeated: counted.repeated,
                failed: counted.failed,
                refused: counted.refused,
                last_accepted_at: counted.last_accepted_at,
            }),
        }
    }
}

impl From<&Generic> for SignatureView {
    fn from(generic: &Generic) -> Self {
        Self {
            header: generic.header.clone(),
            encoding: generic.encoding.as_str().to_owned(),
            prefix: generic.prefix.clone(),
            delivery_header: generic.delivery_header.clone(),
            algorithm: "hmac-sha256".to_owned(),
        }
    }
}

/// A hook's answer, with its tag.
fn answer(status: StatusCode, stored: &StoredHook, deliveries: Option<Deliveries>) -> Response {
    tagged(
        (status, Json(HookView::new(&stored.hook, deliveries))).into_response(),
        stored,
    )
}

fn with_secret(status: StatusCode, made: &WithSecret) -> Response {
    let body = HookWithSecret {
        hook: HookView::new(&made.stored.hook, None),
        secret: made.secret.expose().to_owned(),
    };
    tagged((status, Json(body)).into_response(), &made.stored)
}

fn tagged(mut response: Response, stored: &StoredHook) -> Response {
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", stored.tag())) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a sender hears who tries an address: text that no browser takes for a page.
fn said(text: String) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The members of a body, with the secret taken out. The words of a refusal never repeat it.
fn input(mut members: Map<String, Value>) -> Result<HookInput, Error> {
    let secret = given_secret(&mut members)?;
    Ok(HookInput { members, secret })
}

fn given_secret(members: &mut Map<String, Value>) -> Result<Option<Secret>, Error> {
    match members.remove("secret") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Secret::value(text))),
        Some(_) => Err(wrong("/secret", "`secret` is a text")),
    }
}

fn wrong(pointer: &str, message: &str) -> Error {
    let finding = Finding::new(pointer, "wrong_type", message);
    Error::invalid(
        "hook_invalid",
        "the hook has 1 finding(s)",
        "docs/hooks.md describes every member",
        vec![finding],
    )
}

/// Deliver to a hook: starts a run of its workflow, once however often it is delivered. The signature that the hook's scheme
/// asks for is the credential; nothing else is looked at. A sender that only tries the address (Slack's `url_verification`,
/// GitHub's `ping`) is answered 200 and starts nothing.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/hooks/{id}", tag = "hooks", security(("hookSignature" = [])),
    params(("id" = String, Path, description = "The hook")),
    request_body(content = Object, description = "Whatever the sender sends: JSON, a form, text"),
    responses((status = 202, description = "There is a run", body = DeliveryAnswer),
        (status = 200, description = "The address was tried", content_type = "text/plain", body = String),
        (status = "default", body = Problem)))]
pub async fn deliver(delivery: extract::Delivery) -> Result<Response, ApiError> {
    let extract::Delivery {
        app,
        door,
        origin,
        request,
    } = delivery;
    match hook_delivery::deliver(&app.cx, &door, &origin, &request).await? {
        Delivered::Answered(text) => Ok(said(text)),
        Delivered::Run { run, repeated } => {
            let (run_id, status) = (run.new.run.clone(), run.state.status);
            let body = DeliveryAnswer {
                links: Links::of(&run_id, status),
                run_id,
                status,
                repeated,
            };
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
    }
}

/// A sender that tries the address by GET is answered with its own challenge, where the hook names the parameter. Starts
/// nothing, and asks for no signature.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/hooks/{id}", tag = "hooks", security(("hookSignature" = [])),
    params(("id" = String, Path, description = "The hook")),
    responses((status = 200, description = "The challenge", content_type = "text/plain", body = String),
        (status = "default", body = Problem)))]
pub async fn challenge(delivery: extract::Delivery) -> Result<Response, ApiError> {
    let extract::Delivery {
        app,
        door,
        origin,
        request,
    } = delivery;
    let text = hook_delivery::challenge(&app.cx, &door, &origin, &request.query).await?;
    Ok(said(text))
}

/// The hooks of the organization, by name.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/triggers/hooks", tag = "hooks", params(super::OrganizationHeader),
    responses((status = 200, body = PageOf<HookView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted) -> Result<Json<PageOf<HookView>>, ApiError> {
    let hooks = hook::list(&admitted.app.cx, &admitted.scope).await?;
    Ok(Json(PageOf {
        items: hooks.iter().map(|stored| HookView::new(&stored.hook, None)).collect(),
        next_cursor: None,
    }))
}

/// Make a hook. The answer has its secret, this once.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/triggers/hooks", tag = "hooks", params(super::OrganizationHeader),
    request_body(content = HookBody),
    responses((status = 201, body = HookWithSecret), (status = "default", body = Problem)))]
pub async fn create(admitted: Admitted, body: JsonObject) -> Result<Response, ApiError> {
    let input = input(body.object)?;
    let made = hook::create(&admitted.app.cx, &admitted.scope, &admitted.origin, input).await?;
    let mut response = with_secret(StatusCode::CREATED, &made);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/triggers/hooks/{}", made.stored.hook.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// One hook, with what was delivered to it. `ETag` names its content.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/triggers/hooks/{id}", tag = "hooks",
    params(("id" = String, Path, description = "The hook"), super::OrganizationHeader),
    responses((status = 200, body = HookView), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted, Path(id): Path<HookId>) -> Result<Response, ApiError> {
    let (stored, deliveries) = hook::get(&admitted.app.cx, &admitted.scope, &id).await?;
    Ok(answer(StatusCode::OK, &stored, Some(deliveries)))
}

/// Replace a hook's settings. Its address, its scheme and its secrets stay.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/triggers/hooks/{id}", tag = "hooks",
    params(("id" = String, Path, description = "The hook"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the hook that is replaced")),
    request_body(content = HookBody),
    responses((status = 200, body = HookView), (status = "default", body = Problem)))]
pub async fn replace(
    admitted: Admitted,
    Path(id): Path<HookId>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let tag = if_match(&headers)?;
    let input = input(body.object)?;
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let stored = hook::replace(cx, scope, &admitted.origin, &id, input, tag.as_deref()).await?;
    Ok(answer(StatusCode::OK, &stored, None))
}

/// Delete a hook. Runs that it has started stay.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/triggers/hooks/{id}", tag = "hooks",
    params(("id" = String, Path, description = "The hook"), super::OrganizationHeader),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn delete(admitted: Admitted, Path(id): Path<HookId>) -> Result<StatusCode, ApiError> {
    hook::delete(&admitted.app.cx, &admitted.scope, &admitted.origin, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a hook a new secret. The one before stays good for a while; the answer has the new one, this once.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/triggers/hooks/{id}/rotate", tag = "hooks",
    params(("id" = String, Path, description = "The hook"), super::OrganizationHeader),
    request_body(content = RotationBody),
    responses((status = 200, body = HookWithSecret), (status = "default", body = Problem)))]
pub async fn rotate(admitted: Admitted, Path(id): Path<HookId>, body: JsonObject) -> Result<Response, ApiError> {
    let mut members = body.object;
    let secret = given_secret(&mut members)?;
    let overlap_seconds = match members.remove("overlapSeconds") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_u64()
                .ok_or_else(|| wrong("/overlapSeconds", "`overlapSeconds` is a whole number"))?,
        ),
    };
    if let Some(name) = members.keys().next() {
        return Err(wrong(
            &format!("/{name}"),
            "a rotation has `secret` and `overlapSeconds`, and nothing else",
        )
        .into());
    }
    let rotation = Rotation {
        secret,
        overlap_seconds,
    };
    let made = hook::rotate(&admitted.app.cx, &admitted.scope, &admitted.origin, &id, rotation).await?;
    Ok(with_secret(StatusCode::OK, &made))
}

/// The latest deliveries to a hook, newest first, at most 50.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/triggers/hooks/{id}/deliveries", tag = "hooks",
    params(("id" = String, Path, description = "The hook"), super::OrganizationHeader),
    responses((status = 200, body = PageOf<DeliveryItem>), (status = "default", body = Problem)))]
pub async fn deliveries(admitted: Admitted, Path(id): Path<HookId>) -> Result<Json<PageOf<DeliveryItem>>, ApiError> {
    let (_, deliveries) = hook::get(&admitted.app.cx, &admitted.scope, &id).await?;
    Ok(Json(PageOf {
        items: deliveries.latest.into_iter().map(DeliveryItem::from).collect(),
        next_cursor: None,
    }))
}
