//! `/api/workflows`: what the workspace declares, and starting a run of it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::runs::RunAnswer;
use super::start_options::StartOptions;
use super::workflow_drafts::DraftSummary;
use super::workflow_revisions::RevisionView;
use super::{PageOf, cursor_in, cursor_out, limit};
use crate::definition::json_schema;
use crate::domain::{Timestamp, Trust};
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::offer::{Offered, OriginOf, State, Wanted};
use crate::usecase::start_run::{StartRun, Started, start_run};
use crate::usecase::workflow::By;
use crate::usecase::{offer, query_run};

/// A workflow.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowView {
    /// Its name.
    pub name: String,
    /// `python`, a function; or `graph`.
    pub kind: &'static str,
    /// One sentence.
    pub description: String,
    /// For lists.
    pub category: String,
    /// For search.
    pub tags: Vec<String>,
    /// Where it is defined, as `workspace/workflows/hello.py:9`; of the organization's own, `organization`.
    pub source: String,
    /// Who has written it.
    pub origin: OriginOf,
    /// Where it is; the workspace's are always published.
    pub state: State,
    /// Of the organization's own, the revision that is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_revision: Option<RevisionView>,
    /// Its draft, for those who may write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<DraftSummary>,
    /// Since when it can't be called any more, and by whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<Archived>,
    /// Whether its own commands and requests are trusted; only of the organization's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
    /// What keeps it from being run: functions that are missing, a name that the workspace has taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The digest of the code.
    pub revision: String,
    /// Time limit of one attempt, in seconds; of a graph each function has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Attempts, delays, and which errors count; of a graph each node has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub retry: Option<Value>,
    /// Hosts that it declares to reach, or that the functions of a graph do.
    pub network: Vec<String>,
    /// What of its declaration a policy refuses; a run is not started while there is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Finding>,
    /// Its parameters as JSON Schema 2020-12; of the organization's own only where one workflow is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// The graph, as docs/graphs.md describes it; only where one workflow is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub graph: Option<Value>,
}

impl WorkflowView {
    fn new(offered: &Offered, revision: &str) -> Self {
        let declared = &offered.declared;
        let head = offered.head.as_deref();
        let current = head.and_then(|head| head.current.as_ref());
        let is_graph = declared.graph.is_some() || head.is_some();
        Self {
            name: declared.name.clone(),
            kind: if is_graph { "graph" } else { "python" },
            description: declared.description.clone(),
            category: declared.category.clone(),
            tags: declared.tags.clone(),
            source: match head {
                None => format!("{}:{}", declared.path, declared.line),
                Some(_) => "organization".to_owned(),
            },
            origin: offered.origin(),
            state: offered.state(),
            workflow_revision: current.map(|current| RevisionView::from(current.revision.clone())),
            draft: head.and_then(|head| head.draft.as_ref()).map(DraftSummary::from),
            archived: head
                .and_then(|head| head.archived.clone())
                .map(|(at, by)| Archived { at, by }),
            trusted: head.map(|head| head.trust() == Trust::Trusted),
            findings: offered.findings.clone(),
            revision: revision.to_owned(),
            timeout_seconds: (!is_graph).then_some(declared.timeout_seconds),
            retry: (!is_graph).then(|| json!(declared.retry)),
            network: offered.network.clone(),
            refused: offered.refused.clone(),
            parameters: (head.is_none() || declared.graph.is_some()).then(|| json_schema(&declared.parameters)),
            graph: None,
        }
    }
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// A text in the name, the description, the category or a tag.
    search: Option<String>,
    /// Of this category.
    category: Option<String>,
    /// With this tag.
    tag: Option<String>,
    /// `workspace` or `organization`.
    origin: Option<String>,
    /// `draft`, `published` or `archived`; all but archived ones without it.
    state: Option<String>,
}

/// When a workflow was archived.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Archived {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By whom.
    pub by: By,
}

/// Who has written a workflow, as a query says it.
fn origin_of(text: Option<&str>) -> Result<Option<OriginOf>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let bad = || ApiError::bad_parameter("query:origin", "`origin` is `workspace` or `organization`");
    OriginOf::parse(text).map(Some).ok_or_else(bad)
}

/// The workflows, by name.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows", tag = "workflows", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<WorkflowView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Query(query): Query<ListQuery>) -> Result<Json<PageOf<WorkflowView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let after = cursor_in(query.cursor.as_deref())?;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let state =
        match some(query.state) {
            None => None,
            Some(text) => Some(State::parse(&text).ok_or_else(|| {
                ApiError::bad_parameter("query:state", "`state` is `draft`, `published` or `archived`")
            })?),
        };
    let wanted = Wanted {
        search: some(query.search),
        category: some(query.category),
        tag: some(query.tag),
        origin: origin_of(query.origin.as_deref())?,
        state,
    };
    let page = (after.as_deref(), limit);
    let (current, items, more) = offer::list(&admitted.app.cx, &admitted.scope, &wanted, page).await?;
    let next = items.last().filter(|_| more).map(Offered::place);
    let items = items
        .iter()
        .map(|offered| WorkflowView::new(offered, &current.bundle.digest))
        .collect();
    Ok(Json(PageOf {
        items,
        next_cursor: cursor_out(next),
    }))
}

/// One workflow, with its parameters as JSON Schema.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/workflows/{name}", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader, GetQuery),
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
pub async fn get(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(query): Query<GetQuery>,
) -> Result<Response, ApiError> {
    let origin = origin_of(query.origin.as_deref())?;
    let (current, offered) = offer::get(&admitted.app.cx, &admitted.scope, &name, origin).await?;
    let graph = offered.declared.graph.as_ref().map(|graph| json!(**graph));
    let tag = offered.head.as_ref().map(|head| head.tag());
    let view = WorkflowView {
        graph,
        ..WorkflowView::new(&offered, &current.bundle.digest)
    };
    Ok(tagged(StatusCode::OK, tag.as_deref(), view))
}

/// Which of two of one name.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GetQuery {
    /// `workspace` or `organization`; without it, the one that is called.
    origin: Option<String>,
}

/// An answer with its tag.
pub(super) fn tagged(status: StatusCode, tag: Option<&str>, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    if let Some(Ok(tag)) = tag.map(|tag| HeaderValue::from_str(&format!("\"{tag}\""))) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Start a run. The body is a JSON object of arguments. By default the answer waits for the end (60 s, `Prefer: wait=N`, at
/// most 220 s) and is 202 when that was not enough; `Prefer: respond-async` answers 202 at once. `Idempotency-Key` makes a
/// repeat within 24 h return the first run. A run over a limit waits for its turn; `waitingFor` of the run says why.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/workflows/{name}/execute", tag = "workflows",
    params(("name" = String, Path, description = "The workflow"), super::OrganizationHeader,
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=SECONDS`"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 200 characters"), StartOptions),
    request_body(content = Object, description = "Arguments by name"),
    responses((status = 200, description = "The run has ended, whichever way", body = RunAnswer),
        (status = 202, description = "The run goes on", body = super::runs::Accepted), (status = "default", body = Problem)))]
pub async fn execute(
    admitted: Admitted,
    Path(name): Path<String>,
    Query(options): Query<StartOptions>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let app = &admitted.app;
    let wait = preferred_wait(&headers, app.settings.wait, app.settings.max_wait)?;
    let received_at = app.cx.clock.now();
    let draft = options.draft()?;
    let (ask, begins) = options.read(&headers, received_at)?;
    let input = StartRun {
        ask,
        begins,
        gone: admitted.gone.clone(),
        workflow: name,
        draft,
        arguments: body.object,
        wait,
        idempotency_key: idempotency_key(&headers, body.empty)?,
        received_at,
        origin: admitted.origin.clone(),
        unindexed: admitted.unindexed(),
    };
    let started = start_run(&app.cx, &admitted.scope, input).await?;
    answer(&admitted, started).await
}

/// The answer to whoever has started a run.
pub(super) async fn answer(admitted: &Admitted, started: Started) -> Result<Response, ApiError> {
    let app = &admitted.app;
    if !started.repeated {
        admitted.indexed();
    }
    if !started.run.state.status.is_terminal() {
        return Ok(super::runs::accepted(&started.run));
    }
    let details = query_run::details(&app.cx, &admitted.scope, started.run).await?;
    let mut response = (StatusCode::OK, Json(RunAnswer::new(details))).into_response();
    if started.repeated {
        response
            .headers_mut()
            .insert("Idempotency-Replayed", HeaderValue::from_static("true"));
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `Prefer` (RFC 7240): none to leave the run to the queue, else how long to wait.
pub(super) fn preferred_wait(
    headers: &HeaderMap,
    default: Duration,
    most: Duration,
) -> Result<Option<Duration>, ApiError> {
    let mut wait = Some(default);
    for value in headers.get_all("prefer") {
        let value = value.to_str().unwrap_or_default();
        for preference in value.split(',') {
            // What follows a semicolon are the preference's parameters, none of which is known here.
            let preference = preference.split(';').next().unwrap_or_default().trim();
            let (name, setting) = preference.split_once('=').unwrap_or((preference, ""));
            if name.trim().eq_ignore_ascii_case("respond-async") {
                wait = None;
            } else if name.trim().eq_ignore_ascii_case("wait") && wait.is_some() {
                let seconds: u64 = setting.trim().trim_matches('"').parse().map_err(|_| {
                    ApiError::bad_parameter("header:Prefer", "`Prefer: wait=N` takes a whole number of seconds")
                })?;
                wait = Some(Duration::from_secs(seconds).min(most));
            }
        }
    }
    Ok(wait)
}

/// The caller's key; for a request without a body, the host's invocation id: the host sends such a request again with the same
/// id when the connection breaks, and the run must not start twice.
pub(super) fn idempotency_key(headers: &HeaderMap, empty_body: bool) -> Result<Option<String>, ApiError> {
    if let Some(value) = headers.get("idempotency-key") {
        let text = value.to_str().unwrap_or_default();
        if text.is_empty() || text.len() > 200 {
            return Err(ApiError::bad_parameter(
                "header:Idempotency-Key",
                "`Idempotency-Key` must have 1 to 200 characters",
            ));
        }
        return Ok(Some(format!("caller:{text}")));
    }
    let invocation = headers.get("x-azure-functions-invocationid").filter(|_| empty_body);
    Ok(invocation
        .and_then(|value| value.to_str().ok())
        .map(|id| format!("invocation:{id}")))
}
