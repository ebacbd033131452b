//! `/api/schedules`: what starts workflows at certain times.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{PageOf, cursor_in, cursor_out, if_match, limit, workflows};
use crate::domain::{CatchUp, Dst, Overlap, RunId, ScheduleId, Shown, Timestamp};
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::schedule::{self, Change, Fire, MAX_PREVIEWED, Previewed, StoredSchedule};

/// Fire times in a preview when the caller doesn't say.
const DEFAULT_PREVIEWED: usize = 5;

/// A schedule.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: ScheduleId,
    /// A name to show.
    pub name: String,
    /// What is run.
    pub workflow: String,
    /// With which arguments.
    #[schema(value_type = Object)]
    pub arguments: Map<String, Value>,
    /// At which local times.
    pub cron: String,
    /// Where.
    pub time_zone: String,
    /// What becomes of local times that don't exist.
    pub dst: Dst,
    /// What happens while the run before has not ended.
    pub overlap: Overlap,
    /// Which missed fire times are made up for.
    pub catch_up: CatchUp,
    /// Most of them at once, with `all`.
    pub catch_up_at_most: u32,
    /// How old they may be.
    pub catch_up_within_seconds: u32,
    /// By how many seconds a fire time is put off at most.
    pub jitter_seconds: u32,
    /// Whether it fires.
    pub enabled: bool,
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
    /// The next fire time.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_fire_at: Option<Timestamp>,
    /// What a clock in the time zone shows then.
    pub next_fire_local: Option<String>,
    /// A fire time that waits for the end of the last run.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub waiting_fire_at: Option<Timestamp>,
    /// The last fire time for which a run was started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_fire_at: Option<Timestamp>,
    /// Its run.
    #[schema(value_type = Option<String>)]
    pub last_run: Option<RunId>,
    /// What came of the last fire time: `started`, or a word and why there is no run.
    pub last_outcome: Option<String>,
    /// How many failed in a row.
    pub failures: u32,
    /// Why Weft has switched it off.
    pub disabled_reason: Option<String>,
    /// The last fire times, newest first, at most 20.
    pub recent: Vec<FireView>,
}

/// What came of a fire time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FireView {
    /// The fire time; of several that were missed, the last.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `started`, or a word and why there is no run: `skipped: …`, `missed: …`, `failed: …`, `waiting: …`, `delayed: …`.
    pub outcome: String,
    /// The run.
    #[schema(value_type = Option<String>)]
    pub run: Option<RunId>,
    /// When that was decided.
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
}

/// A schedule to write. What is left out is as by default.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the use case reads the object, so that it finds everything that is wrong at once"
)]
pub struct ScheduleInput {
    /// A name to show, 1 to 255 characters.
    name: String,
    /// What is run.
    workflow: String,
    /// With which arguments, at most 30000 bytes; none by default.
    #[schema(value_type = Object)]
    arguments: Option<Value>,
    /// `minute hour day-of-month month day-of-week`, or a name as `@hourly`.
    cron: String,
    /// A name of the IANA database; `UTC` by default.
    time_zone: Option<String>,
    /// What becomes of local times that don't exist; `shift` by default.
    dst: Option<Dst>,
    /// What happens while the run before has not ended; `skip` by default.
    overlap: Option<Overlap>,
    /// Which missed fire times are made up for; `last` by default.
    catch_up: Option<CatchUp>,
    /// 1 to 100; 10 by default.
    catch_up_at_most: Option<u32>,
    /// 0 to 604800; 3600 by default.
    catch_up_within_seconds: Option<u32>,
    /// 0 to 900; 0 by default.
    jitter_seconds: Option<u32>,
    /// Whether it fires; true by default.
    enabled: Option<bool>,
}

impl From<StoredSchedule> for ScheduleView {
    fn from(stored: StoredSchedule) -> Self {
        let next_fire_local = stored.progress.next_fire_at.and_then(|at| schedule::local(&stored, at));
        let StoredSchedule {
            id,
            definition,
            progress,
            created_by,
            created_at,
            updated_by,
            updated_at,
            ..
        } = stored;
        Self {
            id,
            name: definition.name,
            workflow: definition.workflow,
            arguments: definition.arguments,
            cron: definition.cron,
            time_zone: definition.time_zone,
            dst: definition.dst,
            overlap: definition.overlap,
            catch_up: definition.catch_up,
            catch_up_at_most: definition.catch_up_at_most,
            catch_up_within_seconds: definition.catch_up_within_seconds,
            jitter_seconds: definition.jitter_seconds,
            enabled: definition.enabled,
            created_by,
            created_at,
            updated_by,
            updated_at,
            next_fire_at: progress.next_fire_at,
            next_fire_local,
            waiting_fire_at: progress.waiting,
            last_fire_at: progress.last_fire_at,
            last_run: progress.last_run,
            last_outcome: progress.last_outcome,
            failures: progress.failures,
            disabled_reason: progress.disabled_reason,
            recent: progress.recent.into_iter().map(FireView::from).collect(),
        }
    }
}

impl From<Fire> for FireView {
    fn from(fire: Fire) -> Self {
        Self {
            at: fire.at,
            outcome: fire.outcome,
            run: fire.run,
            decided_at: fire.decided_at,
        }
    }
}

/// The schedule; the tag of what somebody wrote is in `ETag`, and stays the same when it fires.
fn answer(status: StatusCode, stored: StoredSchedule) -> Response {
    let tag = format!("\"{}\"", stored.definition.tag());
    let mut response = (status, Json(ScheduleView::from(stored))).into_response();
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
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

/// The schedules, in the order in which they were made.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/schedules", tag = "schedules", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<ScheduleView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Query(query): Query<ListQuery>) -> Result<Json<PageOf<ScheduleView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let cursor = cursor_in(query.cursor.as_deref())?;
    let (items, next) = schedule::list(&admitted.app.cx, &admitted.scope, limit, cursor).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(ScheduleView::from).collect(),
        next_cursor: cursor_out(next),
    }))
}

/// One schedule, with what came of its last fire times.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "The schedule"), super::OrganizationHeader),
    responses((status = 200, body = ScheduleView), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted, Path(id): Path<String>) -> Result<Response, ApiError> {
    let stored = schedule::get(&admitted.app.cx, &admitted.scope, &id).await?;
    Ok(answer(StatusCode::OK, stored))
}

/// Make a schedule. Everything that is wrong with it is said at once.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/schedules", tag = "schedules", params(super::OrganizationHeader),
    request_body = ScheduleInput,
    responses((status = 201, body = ScheduleView), (status = "default", body = Problem)))]
pub async fn create(admitted: Admitted, body: JsonObject) -> Result<Response, ApiError> {
    let stored = schedule::create(&admitted.app.cx, &admitted.scope, &admitted.origin, &body.object).await?;
    let place = format!("/api/schedules/{}", stored.id);
    let mut response = answer(StatusCode::CREATED, stored);
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Replace a schedule. What an answer has beside the members of a schedule may be sent back, and says nothing.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/schedules/{id}", tag = "schedules", request_body = ScheduleInput,
    params(("id" = String, Path, description = "The schedule"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the schedule that is replaced")),
    responses((status = 200, body = ScheduleView), (status = "default", body = Problem)))]
pub async fn put(
    admitted: Admitted,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let change = Change {
        written: body.object,
        if_tag: if_match(&headers)?,
    };
    let stored = schedule::update(&admitted.app.cx, &admitted.scope, &admitted.origin, &id, &change).await?;
    Ok(answer(StatusCode::OK, stored))
}

/// Delete a schedule. Its runs go on.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "The schedule"), super::OrganizationHeader,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the schedule that is deleted")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn delete(admitted: Admitted, Path(id): Path<String>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    let tag = if_match(&headers)?;
    schedule::delete(&admitted.app.cx, &admitted.scope, &admitted.origin, &id, tag.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a run of a schedule's workflow now, whatever its times and its policy for overlaps say. `Idempotency-Key` makes a
/// repeat lead to the same run.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/schedules/{id}/trigger", tag = "schedules",
    params(("id" = String, Path, description = "The schedule"), super::OrganizationHeader,
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 200 characters")),
    responses((status = 202, description = "The run is under way", body = super::runs::Accepted),
        (status = "default", body = Problem)))]
pub async fn trigger(
    admitted: Admitted,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: NoBody,
) -> Result<Response, ApiError> {
    let key = workflows::idempotency_key(&headers, body.empty)?;
    let (scope, origin) = (&admitted.scope, &admitted.origin);
    let (run, repeated) = schedule::trigger(&admitted.app.cx, scope, origin, &id, key.as_deref()).await?;
    let mut response = super::runs::accepted(&run);
    if repeated {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert("Idempotency-Replayed", replayed);
    }
    Ok(response)
}

/// Which fire times.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviewInput {
    /// `minute hour day-of-month month day-of-week`, or a name as `@hourly`.
    cron: String,
    /// A name of the IANA database; `UTC` by default.
    time_zone: Option<String>,
    /// `shift` or `skip`; `shift` by default.
    dst: Option<String>,
    /// How many, 1 to 50; 5 by default.
    count: Option<usize>,
}

/// The next fire times, or what is wrong.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Whether a schedule could have them.
    pub valid: bool,
    /// The next fire times.
    pub fire_times: Vec<FireTimeView>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

/// A fire time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FireTimeView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What a clock in the time zone shows then.
    pub local: String,
    /// How it came about where clocks are changed.
    pub shown: Shown,
}

impl From<Previewed> for FireTimeView {
    fn from(previewed: Previewed) -> Self {
        Self {
            at: previewed.at,
            local: previewed.local,
            shown: previewed.shown,
        }
    }
}

/// Show the next fire times of a cron expression in a time zone. Nothing is kept; findings are no failure.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/schedules/preview", tag = "schedules", params(super::OrganizationHeader),
    request_body = PreviewInput,
    responses((status = 200, body = Preview), (status = "default", body = Problem)))]
pub async fn preview(admitted: Admitted, body: JsonObject) -> Result<Json<Preview>, ApiError> {
    let input: PreviewInput = serde_json::from_value(Value::Object(body.object)).map_err(|error| {
        ApiError::bad_parameter("", format!("the body is not what to preview: {error}"))
            .hint("send `{\"cron\": \"0 6 * * mon-fri\", \"timeZone\": \"Europe/Berlin\", \"count\": 5}`")
    })?;
    let count = input.count.unwrap_or(DEFAULT_PREVIEWED).clamp(1, MAX_PREVIEWED);
    let zone = input.time_zone.as_deref().unwrap_or("UTC");
    let timing = (input.cron.as_str(), zone, input.dst.as_deref());
    let previewed = schedule::preview(&admitted.app.cx, &admitted.scope, timing, count)?;
    Ok(Json(match previewed {
        Ok(times) => Preview {
            valid: true,
            fire_times: times.into_iter().map(FireTimeView::from).collect(),
            findings: Vec::new(),
        },
        Err(findings) => Preview {
            valid: false,
            fire_times: Vec::new(),
            findings,
        },
    }))
}
