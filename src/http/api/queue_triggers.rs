//! `/api/queue-triggers`: what starts a workflow for each message of a queue of its own.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{PageOf, cursor_in, cursor_out, if_match, limit};
use crate::domain::{QueueTriggerId, RunId, Timestamp};
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::hook::ArgumentRule;
use crate::usecase::queue_trigger::{self, SetAside, StoredTrigger};

/// A queue trigger.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueTriggerView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: QueueTriggerId,
    /// What people call it.
    pub name: String,
    /// What a message runs.
    pub workflow: String,
    /// `"body"`, or `{"wrap": "NAME"}`: the message as one argument of that name.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// Whether messages are taken out of the queue.
    pub enabled: bool,
    /// The name of its queue in the storage account.
    pub queue: String,
    /// The id of who made it.
    pub created_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The id of who changed it last.
    pub updated_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// How many messages are set aside; not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<u64>,
}

impl QueueTriggerView {
    fn new(stored: StoredTrigger, set_aside: Option<u64>) -> Self {
        let queue = queue_trigger::queue_of(&stored.trigger);
        let trigger = stored.trigger;
        Self {
            id: trigger.id,
            name: trigger.name.to_string(),
            workflow: trigger.workflow,
            arguments: match trigger.arguments {
                ArgumentRule::Body => json!("body"),
                ArgumentRule::Wrap { name } => json!({"wrap": name}),
            },
            enabled: trigger.enabled,
            queue,
            created_by: trigger.created_by,
            created_at: trigger.created_at,
            updated_by: trigger.updated_by,
            updated_at: trigger.updated_at,
            set_aside,
        }
    }
}

/// A queue trigger to make or to change. On a change, what is left out is as on a new one.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(
    dead_code,
    reason = "for the description; the use case reads members one by one, to find every mistake"
)]
pub struct QueueTriggerBody {
    /// What people call it.
    name: String,
    /// What a message runs.
    workflow: String,
    /// `"body"` (the default) or `{"wrap": "NAME"}`.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
    /// Whether messages are taken out of the queue; true by default.
    enabled: Option<bool>,
}

/// For how long an address is good.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessBody {
    /// 60 to 604800 seconds; 3600 by default.
    valid_seconds: Option<u64>,
}

/// An address at which messages can be sent.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessAnswer {
    /// The address of the queue's messages, with the right to add to them. Whoever knows it may send; it is not shown again.
    pub url: String,
    /// Until when it is good. It can't be taken back before, but by deleting the trigger.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// How to send: `POST`.
    pub method: &'static str,
}

/// A message that was sent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageSent {
    /// The id that the queue has given it.
    pub message_id: String,
    /// The run that it leads to; there is none before the message is taken out of the queue.
    #[schema(value_type = String)]
    pub run_id: RunId,
}

/// A message that was set aside.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetAsideView {
    /// What it is called here.
    pub id: String,
    /// The id that its queue gave it.
    pub message_id: String,
    /// When it was set aside.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why: a code, as of a problem.
    pub code: String,
    /// Why: a sentence.
    pub reason: String,
    /// What is wrong with it, at most 10.
    pub errors: Vec<Finding>,
    /// Its size in bytes.
    pub size: u64,
    /// Its text; not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl SetAsideView {
    fn new(fact: SetAside, text: Option<String>) -> Self {
        Self {
            id: fact.id,
            message_id: fact.message,
            at: fact.at,
            deliveries: fact.deliveries,
            code: fact.code,
            reason: fact.reason,
            errors: fact.findings,
            size: fact.size,
            text,
        }
    }
}

/// A trigger's answer, with its tag.
fn answer(status: StatusCode, stored: StoredTrigger, set_aside: Option<u64>) -> Response {
    let tag = format!("\"{}\"", stored.tag());
    let mut response = unkept((status, Json(QueueTriggerView::new(stored, set_aside))).into_response());
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn unkept(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// The queue triggers, in the order in which they were made.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/queue-triggers", tag = "queue triggers", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<QueueTriggerView>), (status = "default", body = Problem)))]
pub async fn list(
    admitted: Admitted,
    Query(query): Query<ListQuery>,
) -> Result<Json<PageOf<QueueTriggerView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let cursor = cursor_in(query.cursor.as_deref())?;
    let (items, next) = queue_trigger::list(&admitted.app.cx, &admitted.scope, limit, cursor).await?;
    Ok(Json(PageOf {
        items: items
            .into_iter()
            .map(|stored| QueueTriggerView::new(stored, None))
            .collect(),
        next_cursor: cursor_out(next),
    }))
}

/// Make a queue trigger with its queue. Everything that is wrong with it is said at once.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/queue-triggers", tag = "queue triggers", params(super::OrganizationHeader),
    request_body(content = QueueTriggerBody),
    responses((status = 201, body = QueueTriggerView), (status = "default", body = Problem)))]
pub async fn create(admitted: Admitted, body: JsonObject) -> Result<Response, ApiError> {
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let stored = queue_trigger::create(cx, scope, &admitted.origin, &body.object).await?;
    let place = format!("/api/queue-triggers/{}", stored.trigger.id);
    let mut response = answer(StatusCode::CREATED, stored, None);
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// One queue trigger, with how many of its messages are set aside.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/queue-triggers/{id}", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"), super::OrganizationHeader),
    responses((status = 200, body = QueueTriggerView), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted, Path(id): Path<QueueTriggerId>) -> Result<Response, ApiError> {
    let (stored, set_aside) = queue_trigger::get(&admitted.app.cx, &admitted.scope, &id).await?;
    Ok(answer(StatusCode::OK, stored, Some(set_aside)))
}

/// Replace a queue trigger's settings; `enabled` pauses it. Its queue stays, with the messages in it.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/queue-triggers/{id}", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the queue trigger that is replaced")),
    request_body(content = QueueTriggerBody),
    responses((status = 200, body = QueueTriggerView), (status = "default", body = Problem)))]
pub async fn replace(
    admitted: Admitted,
    Path(id): Path<QueueTriggerId>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let tag = if_match(&headers)?;
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let stored = queue_trigger::replace(cx, scope, &admitted.origin, &id, &body.object, tag.as_deref()).await?;
    Ok(answer(StatusCode::OK, stored, None))
}

/// Delete a queue trigger with its queue and all messages, also those that were set aside. Runs that it has started stay.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/queue-triggers/{id}", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the queue trigger that is deleted")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn delete(
    admitted: Admitted,
    Path(id): Path<QueueTriggerId>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let tag = if_match(&headers)?;
    queue_trigger::delete(&admitted.app.cx, &admitted.scope, &admitted.origin, &id, tag.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give out an address of the storage account at which whoever knows it may send messages, and do nothing else. Not with the
/// embedded store, nor where Weft itself has only a shared access signature: 409.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/queue-triggers/{id}/access", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"), super::OrganizationHeader),
    request_body(content = AccessBody),
    responses((status = 200, body = AccessAnswer), (status = "default", body = Problem)))]
pub async fn access(
    admitted: Admitted,
    Path(id): Path<QueueTriggerId>,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let asked: AccessBody = serde_json::from_value(Value::Object(body.object)).map_err(|error| {
        ApiError::bad_parameter("", format!("the body says no time: {error}"))
            .hint("send `{\"validSeconds\": 3600}`, or nothing")
    })?;
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let given = queue_trigger::open(cx, scope, &admitted.origin, &id, asked.valid_seconds).await?;
    let answer = AccessAnswer {
        url: given.url.expose().to_owned(),
        expires_at: given.expires_at,
        method: "POST",
    };
    Ok(unkept(Json(answer).into_response()))
}

/// Send a message through the API, on any storage: the body is the message. What would be set aside is refused.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/queue-triggers/{id}/messages", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"), super::OrganizationHeader),
    request_body(content = Object, description = "The message, at most 48 KiB"),
    responses((status = 202, description = "It is in the queue", body = MessageSent),
        (status = "default", body = Problem)))]
pub async fn send(admitted: Admitted, Path(id): Path<QueueTriggerId>, body: JsonObject) -> Result<Response, ApiError> {
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let sent = queue_trigger::send(cx, scope, &admitted.origin, &id, &body.object).await?;
    let answer = MessageSent {
        message_id: sent.message,
        run_id: sent.run,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Messages that could not start a run and were set aside, newest first.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/queue-triggers/{id}/set-aside", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"), ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<SetAsideView>), (status = "default", body = Problem)))]
pub async fn list_set_aside(
    admitted: Admitted,
    Path(id): Path<QueueTriggerId>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PageOf<SetAsideView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let cursor = cursor_in(query.cursor.as_deref())?;
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let (items, next) = queue_trigger::list_set_aside(cx, scope, &id, limit, cursor).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(|fact| SetAsideView::new(fact, None)).collect(),
        next_cursor: cursor_out(next),
    }))
}

/// A message that was set aside, with its text.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/queue-triggers/{id}/set-aside/{message}", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"),
        ("message" = String, Path, description = "The message, by its `id` in the list"), super::OrganizationHeader),
    responses((status = 200, body = SetAsideView), (status = "default", body = Problem)))]
pub async fn get_set_aside(
    admitted: Admitted,
    Path((id, message)): Path<(QueueTriggerId, String)>,
) -> Result<Response, ApiError> {
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let (fact, text) = queue_trigger::get_set_aside(cx, scope, &id, &message).await?;
    Ok(unkept(Json(SetAsideView::new(fact, Some(text))).into_response()))
}

/// Put a message back that was set aside: its run is started, or what is wrong with it is said and it stays.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/queue-triggers/{id}/set-aside/{message}/put-back", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"),
        ("message" = String, Path, description = "The message, by its `id` in the list"), super::OrganizationHeader),
    responses((status = 202, description = "The run is under way", body = super::runs::Accepted),
        (status = "default", body = Problem)))]
pub async fn put_back(
    admitted: Admitted,
    Path((id, message)): Path<(QueueTriggerId, String)>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    let run = queue_trigger::put_back(cx, scope, &admitted.origin, &id, &message).await?;
    Ok(super::runs::accepted(&run))
}

/// Drop a message that was set aside, for good.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/queue-triggers/{id}/set-aside/{message}", tag = "queue triggers",
    params(("id" = String, Path, description = "The queue trigger"),
        ("message" = String, Path, description = "The message, by its `id` in the list"), super::OrganizationHeader),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn drop_set_aside(
    admitted: Admitted,
    Path((id, message)): Path<(QueueTriggerId, String)>,
) -> Result<StatusCode, ApiError> {
    let (cx, scope) = (&admitted.app.cx, &admitted.scope);
    queue_trigger::drop_set_aside(cx, scope, &admitted.origin, &id, &message).await?;
    Ok(StatusCode::NO_CONTENT)
}
