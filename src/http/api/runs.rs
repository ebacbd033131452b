//! `/api/runs`: look at runs, and end them.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, future, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy::RightsView;
use super::quarantine::QuarantineView;
use super::{PageOf, cursor_in, cursor_out, limit, time, workflows};
use crate::domain::{RunId, Status, StepError, Timestamp, WorkflowRevision};
use crate::http::extract::{Admitted, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::admission::WaitingFor;
use crate::usecase::query_run::{
    AttemptRecord, Continuation, Details, ListedRun, LogLine, Output, Requester, RunQuery, StoredItem, StoredRun,
    StoredStep, Timings,
};
use crate::usecase::rerun::{Code, Rerun};
use crate::usecase::resume_run::{self, CodeOf};
use crate::usecase::{control_run, drive_run, query_run, rerun};

/// A run that has ended, or as far as it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunAnswer {
    /// The run.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// The workflow.
    pub workflow: String,
    /// The digest of the code that it is pinned to.
    pub revision: String,
    /// The revision of the workflow, where the organization has authored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_revision: Option<WorkflowRevision>,
    /// Whether it tries a draft.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Where it is.
    pub status: Status,
    /// What the workflow returned.
    #[schema(value_type = Object, nullable)]
    pub result: Value,
    /// Why it failed.
    pub error: Option<StepError>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its first step began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// From start to end.
    pub duration_ms: Option<u64>,
    /// Where the time went.
    pub timings: Timings,
    /// `ctx.variables` of its steps.
    #[schema(value_type = Object)]
    pub variables: Value,
    /// The arguments, defaults included.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// Who asked for it.
    pub requester: RequesterView,
    /// The run that it resumes, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub resumes: Option<RunId>,
    /// Its steps, with what each may do at most.
    pub steps: Vec<PlannedStep>,
    /// Messages about it that failed too often and were set aside, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantineView>,
    /// Why it is not done yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// Before which others it begins, 0 to 9.
    pub priority: u8,
    /// When it may begin, if not at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub run_at: Option<Timestamp>,
    /// Of runs with the same key only so many are under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// The run that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rerun_of: Option<RunId>,
    /// Where to go on.
    pub links: Links,
}

/// A step in its run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PlannedStep {
    /// Its id.
    pub id: String,
    /// What it does: `python`, `workflow`, `map`, `loop`, `choose`, `compute`, `delay` or `approval`.
    pub kind: &'static str,
    /// Where it is.
    pub status: Status,
    /// What its attempts may do at most: what the code declares, below the policies when the run began. A policy that was
    /// narrowed since takes away more. Only of steps that call code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<RightsView>,
}

/// Who asked for a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequesterView {
    /// `user`, `service`, `system`, `operator`.
    pub kind: String,
    /// The principal's id.
    pub id: String,
    /// A name to show.
    pub name: String,
    /// The user that a key's caller claimed to act for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_user: Option<String>,
}

impl From<&Requester> for RequesterView {
    fn from(requester: &Requester) -> Self {
        Self {
            kind: requester.kind.clone(),
            id: requester.id.clone(),
            name: requester.name.clone(),
            claimed_user: requester.claimed_user.clone(),
        }
    }
}

/// Paths of a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Links {
    /// The run itself.
    #[serde(rename = "self")]
    pub itself: String,
    /// Its steps.
    pub steps: String,
    /// Its log.
    pub logs: String,
    /// Its named outputs.
    pub artifacts: String,
    /// Ends it (POST).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// Starts a new one with its arguments (POST).
    pub rerun: String,
    /// Goes on where it has failed (POST).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

impl Links {
    pub(super) fn of(run: &RunId, status: Status) -> Self {
        let base = format!("/api/runs/{run}");
        Self {
            steps: format!("{base}/steps"),
            logs: format!("{base}/logs"),
            artifacts: format!("{base}/artifacts"),
            rerun: format!("{base}/rerun"),
            cancel: (!status.is_terminal()).then(|| format!("{base}/cancel")),
            resume: (status.is_terminal() && status != Status::Succeeded).then(|| format!("{base}/resume")),
            itself: base,
        }
    }
}

impl RunAnswer {
    pub(super) fn new(details: Details) -> Self {
        let Details {
            run,
            arguments,
            result,
            variables,
            quarantined,
            waiting_for,
        } = details;
        let ask = &run.new.ask;
        let state = &run.state;
        Self {
            run_id: run.new.run.clone(),
            workflow: run.new.workflow.clone(),
            revision: run.new.plan.bundle.clone(),
            test: run.new.plan.is_test(),
            workflow_revision: run.new.plan.revision.clone(),
            status: state.status,
            result,
            error: state.error.clone(),
            created_at: run.new.created_at,
            started_at: state.started_at,
            finished_at: state.finished_at,
            duration_ms: duration(state.started_at, state.finished_at),
            timings: drive_run::shown(&run.timings),
            variables: if variables.is_null() { json!({}) } else { variables },
            arguments,
            requester: RequesterView::from(&run.new.requester),
            resumes: run.new.resumes.clone(),
            steps: planned_steps(&run),
            quarantined: quarantined.into_iter().map(QuarantineView::from).collect(),
            waiting_for,
            priority: ask.priority.number(),
            run_at: ask.not_before,
            concurrency_key: ask.concurrency.as_ref().map(|asked| asked.key.clone()),
            rerun_of: ask.rerun_of.clone(),
            links: Links::of(&run.new.run, state.status),
        }
    }
}

fn planned_steps(run: &StoredRun) -> Vec<PlannedStep> {
    let steps = run.new.plan.steps.iter().zip(&run.state.steps);
    steps
        .map(|(planned, state)| PlannedStep {
            id: planned.id.clone(),
            kind: planned.work.kind(),
            status: state.status,
            rights: planned.work.code().map(|code| RightsView::from(&code.rights)),
        })
        .collect()
}

fn duration(started: Option<Timestamp>, finished: Option<Timestamp>) -> Option<u64> {
    let took = finished?.since(started?);
    u64::try_from(took.as_millis()).ok()
}

/// A run that goes on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The run.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// Where it is.
    pub status: Status,
    /// When it may begin, if not at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub run_at: Option<Timestamp>,
    /// Where to look.
    pub links: Links,
}

pub(super) fn accepted(run: &StoredRun) -> Response {
    let id = &run.new.run;
    let status = run.state.status;
    let body = Accepted {
        run_id: id.clone(),
        status,
        run_at: run.new.ask.not_before,
        links: Links::of(id, status),
    };
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/runs/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A run in a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunItem {
    /// The run.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// The workflow.
    pub workflow: String,
    /// The digest of the code.
    pub revision: String,
    /// The revision of the workflow, where the organization has authored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_revision: Option<WorkflowRevision>,
    /// Whether it tries a draft.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Where it is.
    pub status: Status,
    /// Who asked for it.
    pub requester: RequesterView,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its first step began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// From start to end.
    pub duration_ms: Option<u64>,
    /// The type of its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// When it may begin, if not at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub run_at: Option<Timestamp>,
    /// Why nobody goes on with it: what is stored of it can't be read, and it was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
}

impl From<ListedRun> for RunItem {
    fn from(run: ListedRun) -> Self {
        Self {
            run_id: run.run,
            workflow: run.workflow,
            revision: run.revision,
            test: run.workflow_revision.as_ref().is_some_and(WorkflowRevision::is_draft),
            workflow_revision: run.workflow_revision,
            status: run.status,
            requester: RequesterView::from(&run.requester),
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            duration_ms: duration(run.started_at, run.finished_at),
            error_type: run.error_type,
            run_at: run.not_before,
            set_aside: run.set_aside,
        }
    }
}

/// Which runs.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Of one workflow.
    workflow: Option<String>,
    /// In one status.
    status: Option<String>,
    /// Asked for by one principal, by its id.
    user: Option<String>,
    /// `true`: only those that try drafts; `false`: none of them.
    test: Option<String>,
    /// Asked for at or after this time.
    from: Option<String>,
    /// Asked for before this time.
    to: Option<String>,
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Runs of the organization, newest first.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs", tag = "runs", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<RunItem>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Query(query): Query<ListQuery>) -> Result<Json<PageOf<RunItem>>, ApiError> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let status = match some(query.status) {
        None => None,
        Some(text) => Some(Status::parse(&text).ok_or_else(|| {
            let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
            ApiError::bad_parameter("query:status", format!("`status` must be one of {}", known.join(", ")))
        })?),
    };
    let query = RunQuery {
        workflow: some(query.workflow),
        status,
        requester: some(query.user),
        test: match query.test.as_deref() {
            None | Some("") => None,
            text => Some(super::flag("test", text)?),
        },
        from: time("from", query.from.as_deref())?,
        to: time("to", query.to.as_deref())?,
        visible: None,
        limit: limit(query.limit.as_deref())?,
        cursor: cursor_in(query.cursor.as_deref())?.map(Continuation),
    };
    let (runs, next) = query_run::list(&admitted.app.cx, &admitted.scope, query).await?;
    let items = runs.into_iter().map(RunItem::from).collect();
    Ok(Json(PageOf {
        items,
        next_cursor: cursor_out(next.map(|next| next.0)),
    }))
}

pub(super) fn run_id(text: &str) -> Result<RunId, ApiError> {
    text.parse()
        .map_err(|error: crate::domain::IdError| ApiError::bad_parameter("path:id", error.to_string()))
}

/// One run.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}", tag = "runs",
    params(("id" = String, Path, description = "The run"), super::OrganizationHeader),
    responses((status = 200, body = RunAnswer), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted, Path(id): Path<String>) -> Result<Json<RunAnswer>, ApiError> {
    let details = query_run::get(&admitted.app.cx, &admitted.scope, &run_id(&id)?).await?;
    Ok(Json(RunAnswer::new(details)))
}

/// A step of a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Its id.
    pub id: String,
    /// What it does: `python`, `workflow`, `map`, `loop`, `choose`, `compute`, `delay` or `approval`.
    pub kind: &'static str,
    /// Where it is.
    pub status: Status,
    /// What its attempts may do at most; only of steps that call code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<RightsView>,
    /// Attempts begun; of a map or loop: items or iterations.
    pub attempts_begun: u32,
    /// The branch that it chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Items of a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_total: Option<u32>,
    /// Items of a map, or iterations of a loop, that have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_ended: Option<u32>,
    /// How many of them have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_failed: Option<u32>,
    /// Runs that it has started and waits or waited for, one for each try. Those of a map or loop are shown with its items.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub children: Vec<RunId>,
    /// When it goes on by itself: the end of a pause, the next attempt, its time limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub due_at: Option<Timestamp>,
    /// When its first attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// From start to end.
    pub duration_ms: Option<u64>,
    /// Attempts that have ended, the newest hundred.
    pub attempts: Vec<AttemptRecord>,
    /// Why what is stored of it can't be read, where it can't: attempts, times and counts may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl From<StoredStep> for StepView {
    fn from(step: StoredStep) -> Self {
        Self {
            duration_ms: duration(step.started_at, step.finished_at),
            rights: step.rights.as_ref().map(RightsView::from),
            kind: step.kind,
            branch: step.branch,
            items_total: step.counts.and_then(|counts| counts.total),
            items_ended: step.counts.map(|counts| counts.ended),
            items_failed: step.counts.map(|counts| counts.failed),
            children: step.children,
            due_at: step.due,
            id: step.id,
            status: step.status,
            attempts_begun: step.attempts_begun,
            started_at: step.started_at,
            finished_at: step.finished_at,
            attempts: step.attempts,
            unreadable: step.unreadable,
        }
    }
}

/// The steps of a run, with their attempts.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/steps", tag = "runs",
    params(("id" = String, Path, description = "The run"), super::OrganizationHeader),
    responses((status = 200, body = PageOf<StepView>), (status = "default", body = Problem)))]
pub async fn steps(admitted: Admitted, Path(id): Path<String>) -> Result<Json<PageOf<StepView>>, ApiError> {
    let steps = query_run::steps(&admitted.app.cx, &admitted.scope, &run_id(&id)?).await?;
    Ok(Json(PageOf {
        items: steps.into_iter().map(StepView::from).collect(),
        next_cursor: None,
    }))
}

/// An item of a map, or an iteration of a loop.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemView {
    /// Which, from 0.
    pub item: u32,
    /// Where it is.
    pub status: Status,
    /// When its first attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// From start to end.
    pub duration_ms: Option<u64>,
    /// Runs that it has started and waits or waited for, one for each try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub children: Vec<RunId>,
    /// Attempts that have ended, the newest hundred.
    pub attempts: Vec<AttemptRecord>,
    /// Why what is stored of it can't be read, where it can't: attempts and times may be missing, and `status` may be the step's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl From<StoredItem> for ItemView {
    fn from(item: StoredItem) -> Self {
        Self {
            item: item.item,
            status: item.status,
            duration_ms: duration(item.started_at, item.finished_at),
            started_at: item.started_at,
            finished_at: item.finished_at,
            children: item.children,
            attempts: item.attempts,
            unreadable: item.unreadable,
        }
    }
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ItemsQuery {
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// The items of a map, or the iterations of a loop, that have been tried, in their order. A step of another kind has none.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/steps/{step}/items", tag = "runs",
    params(("id" = String, Path, description = "The run"), ("step" = String, Path, description = "The step"), ItemsQuery,
        super::OrganizationHeader),
    responses((status = 200, body = PageOf<ItemView>), (status = "default", body = Problem)))]
pub async fn items(
    admitted: Admitted,
    Path((id, step)): Path<(String, String)>,
    Query(query): Query<ItemsQuery>,
) -> Result<Json<PageOf<ItemView>>, ApiError> {
    let (limit, cursor) = (limit(query.limit.as_deref())?, cursor_in(query.cursor.as_deref())?);
    let (cx, of) = (&admitted.app.cx, (&run_id(&id)?, step.as_str()));
    let (items, next) = query_run::items(cx, &admitted.scope, of, limit, cursor.map(Continuation)).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(ItemView::from).collect(),
        next_cursor: cursor_out(next.map(|next| next.0)),
    }))
}

/// What a step has left.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct OutputAnswer {
    /// Where the step is.
    pub status: Status,
    /// What came out: of a map the list of what came out of its items, null where nothing has; of a loop what came out of the
    /// last iteration.
    #[schema(value_type = Object, nullable)]
    pub output: Value,
    /// Why it failed: `type` and `message`.
    #[schema(value_type = Object, nullable)]
    pub error: Value,
}

/// Of what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// One item of a map, or iteration of a loop, from 0.
    item: Option<String>,
}

/// What came out of a step, or of one of its items.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/steps/{step}/output", tag = "runs",
    params(("id" = String, Path, description = "The run"), ("step" = String, Path, description = "The step"), OutputQuery,
        super::OrganizationHeader),
    responses((status = 200, body = OutputAnswer), (status = "default", body = Problem)))]
pub async fn output(
    admitted: Admitted,
    Path((id, step)): Path<(String, String)>,
    Query(query): Query<OutputQuery>,
) -> Result<Response, ApiError> {
    let item = match query.item.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| ApiError::bad_parameter("query:item", "`item` must be the number of an item, from 0"))?,
        ),
    };
    let (cx, of) = (&admitted.app.cx, (&run_id(&id)?, step.as_str()));
    let left = query_run::output(cx, &admitted.scope, of, item).await?;
    let (size, text) = match left.output {
        Output::Value(output) => {
            let answer = OutputAnswer {
                status: left.status,
                output,
                error: left.error,
            };
            return Ok(Json(answer).into_response());
        }
        Output::Text(size, text) => (size, text),
    };
    // The same, around a text that is not held.
    let before = Bytes::from(format!("{{\"status\":{},\"output\":", json!(left.status)));
    let after = Bytes::from(format!(",\"error\":{}}}", left.error));
    let length = before.len() as u64 + size + after.len() as u64;
    let ends = |bytes| stream::once(future::ready(Ok(bytes)));
    let body = Body::from_stream(ends(before).chain(text).chain(ends(after)));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, body).into_response())
}

/// A line of a run's log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogItem {
    /// The step.
    pub step: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The line.
    #[serde(flatten)]
    pub line: LogLine,
}

/// A part of a run's log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogAnswer {
    /// The lines.
    pub items: Vec<LogItem>,
    /// Give it as `after` for what follows, now or later.
    pub next_cursor: String,
    /// Whether nothing can follow.
    pub ended: bool,
}

/// From where on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// `nextCursor` of the part before.
    after: Option<String>,
}

/// The log of a run: stdout, stderr, `ctx.log` and checkpoints, attempt by attempt. At most 1 MiB in one answer.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/logs", tag = "runs",
    params(("id" = String, Path, description = "The run"), LogQuery, super::OrganizationHeader),
    responses((status = 200, body = LogAnswer), (status = "default", body = Problem)))]
pub async fn logs(
    admitted: Admitted,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Json<LogAnswer>, ApiError> {
    let after = match query.after.as_deref().filter(|text| !text.is_empty()) {
        None => (0, 0),
        Some(text) => text
            .split_once('.')
            .and_then(|(place, offset)| Some((place.parse().ok()?, offset.parse().ok()?)))
            .ok_or_else(|| ApiError::bad_parameter("query:after", "`after` is not one that a page has given"))?,
    };
    let page = query_run::logs(&admitted.app.cx, &admitted.scope, &run_id(&id)?, after).await?;
    let items = page
        .lines
        .into_iter()
        .map(|(step, attempt, line)| LogItem { step, attempt, line })
        .collect();
    Ok(Json(LogAnswer {
        items,
        next_cursor: format!("{}.{}", page.next.0, page.next.1),
        ended: page.ended,
    }))
}

/// End a run. It has ended as `cancelled` when this answers; its processes are killed.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/runs/{id}/cancel", tag = "runs",
    params(("id" = String, Path, description = "The run"), super::OrganizationHeader),
    responses((status = 200, body = RunAnswer), (status = "default", body = Problem)))]
pub async fn cancel(admitted: Admitted, Path(id): Path<String>, _: NoBody) -> Result<Json<RunAnswer>, ApiError> {
    let run = control_run::cancel(&admitted.app.cx, &admitted.scope, &admitted.origin, &run_id(&id)?).await?;
    // Its values may be what can't be read: it has ended all the same.
    let details = query_run::get(&admitted.app.cx, &admitted.scope, &run.new.run).await?;
    Ok(Json(RunAnswer::new(details)))
}

/// Of which code a run is repeated.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RerunQuery {
    /// `pinned` (by default): the code that the run ran; `current`: what the workspace offers now.
    revision: Option<String>,
}

/// Start a new run with the arguments, the priority and the concurrency key of this one. Answered as `execute` is. There is no
/// body: what is to be different is a new run by `execute`.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/runs/{id}/rerun", tag = "runs",
    params(("id" = String, Path, description = "The run"), RerunQuery, super::OrganizationHeader,
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=SECONDS`"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 200 characters")),
    responses((status = 200, description = "The new run has ended, whichever way", body = RunAnswer),
        (status = 202, description = "The new run goes on", body = Accepted), (status = "default", body = Problem)))]
pub async fn again(
    admitted: Admitted,
    Path(id): Path<String>,
    Query(query): Query<RerunQuery>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    let code = match query.revision.as_deref() {
        None | Some("" | "pinned") => Code::Pinned,
        Some("current") => Code::Current,
        Some(_) => {
            return Err(ApiError::bad_parameter(
                "query:revision",
                "`revision` must be `pinned` or `current`",
            ));
        }
    };
    let app = &admitted.app;
    let input = Rerun {
        run: run_id(&id)?,
        code,
        wait: workflows::preferred_wait(&headers, app.settings.wait, app.settings.max_wait)?,
        idempotency_key: workflows::idempotency_key(&headers, true)?,
        received_at: app.cx.clock.now(),
        origin: admitted.origin.clone(),
        gone: admitted.gone.clone(),
        unindexed: admitted.unindexed(),
    };
    let started = rerun::rerun(&app.cx, &admitted.scope, input).await?;
    workflows::answer(&admitted, started).await
}

/// Which code.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ResumeQuery {
    /// `pinned` (what the run had, the default) or `current` (what the workspace has now).
    revision: Option<String>,
}

/// Go on where a run has failed, timed out or was cancelled: a new run with its priority and concurrency key, in which what had
/// succeeded is not done again.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/runs/{id}/resume", tag = "runs",
    params(("id" = String, Path, description = "The run"), ResumeQuery, super::OrganizationHeader,
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 200 characters")),
    responses((status = 202, description = "The new run", body = Accepted), (status = "default", body = Problem)))]
pub async fn resume(
    admitted: Admitted,
    Path(id): Path<String>,
    Query(query): Query<ResumeQuery>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    let code = match query.revision.as_deref() {
        None | Some("" | "pinned") => CodeOf::Pinned,
        Some("current") => CodeOf::Current,
        Some(_) => {
            return Err(ApiError::bad_parameter(
                "query:revision",
                "`revision` is `pinned` or `current`",
            ));
        }
    };
    let key = workflows::idempotency_key(&headers, true)?;
    let (app, id) = (&admitted.app, run_id(&id)?);
    let (run, _) = resume_run::resume(&app.cx, &admitted.scope, &admitted.origin, &id, code, key.as_deref()).await?;
    Ok(accepted(&run))
}
