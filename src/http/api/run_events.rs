//! `/api/runs/{id}/events`: what happens to a run as it happens, as server-sent events or by long polling.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::runs::run_id;
use crate::domain::Status;
use crate::http::extract::{Admitted, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::run_event::Event;
use crate::usecase::watch::{self, Wanted, Watcher};

/// After so long a stream ends, and the client goes on with another: Azure's front end cuts an answer at 230 s.
const LONGEST: Duration = Duration::from_secs(200);
/// How often a stream says something when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again when the connection breaks.
const RETRY: Duration = Duration::from_secs(1);
/// The same when the stream was ended on purpose.
const RETRY_AT_ONCE: Duration = Duration::from_millis(100);
/// Longest wait of one long poll, in seconds.
const MAX_WAIT: u64 = 60;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Some events of a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventsAnswer {
    /// The events.
    pub items: Vec<Event>,
    /// Give it as `after` for what follows, now or later.
    pub next_cursor: String,
    /// Whether nothing can follow.
    pub ended: bool,
    /// The run's last status, when nothing can follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// From where on, and what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// The `id` of the last event that was heard, or `nextCursor`. `Last-Event-ID` goes before it.
    after: Option<String>,
    /// Seconds to wait for an event when there is none, 0 to 60; 0 by default. Not for `text/event-stream`.
    wait: Option<String>,
    /// `false` leaves out what attempts say.
    logs: Option<String>,
    /// Only what is about this step, or about the run as a whole.
    step: Option<String>,
}

/// What happens to a run, as it happens: changes of its status and of its steps', lines of its log, checkpoints. With
/// `Accept: text/event-stream` as server-sent events until the run has ended, at most 200 seconds at a time; else those that
/// are there, or the first that come within `wait` seconds. Each event's `id` is a cursor that every instance understands.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/events", tag = "runs",
    params(("id" = String, Path, description = "The run"), EventsQuery, super::OrganizationHeader,
        ("Last-Event-ID" = Option<String>, Header, description = "As `after`; sent by browsers when they connect again")),
    responses((status = 200, description = "Some events, or a stream of them", content((EventsAnswer = "application/json"), (String = "text/event-stream"))), (status = 204, description = "A stream that the client has heard to its end"),
        (status = "default", body = Problem)))]
pub async fn events(
    admitted: Admitted,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = run_id(&id)?;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let logs = match some(query.logs).as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => {
            return Err(ApiError::bad_parameter(
                "query:logs",
                "`logs` must be `true` or `false`",
            ));
        }
    };
    let wait = match some(query.wait).map(|text| text.parse::<u64>()) {
        None => 0,
        Some(Ok(seconds)) => seconds.min(MAX_WAIT),
        Some(Err(_)) => {
            let message = format!("`wait` must be a number of seconds from 0 to {MAX_WAIT}");
            return Err(ApiError::bad_parameter("query:wait", message));
        }
    };
    let last = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let (after, pointer) = match last {
        // What is no text is no cursor, and is told so.
        Some(value) => (
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            "header:Last-Event-ID",
        ),
        None => (some(query.after), "query:after"),
    };
    let wanted = Wanted {
        after,
        pointer,
        without_logs: !logs,
        step: some(query.step),
    };
    if is_stream(&headers) {
        let watcher = watch::open(&admitted.app.cx, &admitted.scope, &id, wanted).await?;
        if watcher.was_over() {
            // The only answer that keeps a browser from connecting again.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let mut response = Sse::new(stream_of(watcher, admitted.origin.request_id.clone())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        return Ok(response);
    }
    let wait = Duration::from_secs(wait);
    let told = watch::page(&admitted.app.cx, &admitted.scope, &id, wanted, wait).await?;
    let answer = EventsAnswer {
        items: told.events,
        next_cursor: told.cursor,
        ended: told.ended.is_some(),
        status: told.ended,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            let essence = kind.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("text/event-stream")
        })
}

/// A stream in the making.
struct Telling {
    watcher: Watcher,
    request_id: String,
    until: Instant,
    /// The last id that the client was told.
    known: String,
    has_begun: bool,
    has_ended: bool,
}

fn stream_of(watcher: Watcher, request_id: String) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let telling = Telling {
        known: watcher.cursor(),
        watcher,
        request_id,
        until: Instant::now() + LONGEST,
        has_begun: false,
        has_ended: false,
    };
    stream::unfold(telling, |mut telling| async {
        let events = telling.next().await?;
        Some((stream::iter(events.into_iter().map(Ok)), telling))
    })
    .flatten()
}

impl Telling {
    async fn next(&mut self) -> Option<Vec<sse::Event>> {
        if self.has_ended {
            return None;
        }
        if !self.has_begun {
            self.has_begun = true;
            return Some(vec![sse::Event::default().retry(RETRY)]);
        }
        let beat = Instant::now() + HEARTBEAT;
        let told = match tokio::time::timeout_at(beat.min(self.until), self.watcher.next()).await {
            Ok(told) => told,
            Err(_) if Instant::now() >= self.until => return Some(self.over_for_now()),
            Err(_) => return Some(vec![self.heartbeat()]),
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                self.has_ended = true;
                let problem = ApiError::from(error).problem(&self.request_id);
                return Some(vec![
                    sse::Event::default().event("problem").data(json!(problem).to_string()),
                ]);
            }
        };
        let mut events: Vec<_> = told
            .events
            .iter()
            .map(|event| {
                let told = sse::Event::default().id(&event.id).json_data(event);
                // Its members are texts, numbers and JSON: there is none that can't be written.
                told.unwrap_or_else(|error| sse::Event::default().comment(error.to_string()))
            })
            .collect();
        if let Some(event) = told.events.last() {
            self.known.clone_from(&event.id);
        }
        if let Some(status) = told.ended {
            self.has_ended = true;
            let end = sse::Event::default().event("end").id(told.cursor);
            events.push(end.data(json!({"status": status}).to_string()));
        } else if self.watcher.is_leaving() || Instant::now() >= self.until {
            events.extend(self.over_for_now());
        }
        Some(events)
    }

    /// A comment; and where the client is, if it has been told nothing of late because nothing was for it.
    fn heartbeat(&mut self) -> sse::Event {
        let cursor = self.watcher.cursor();
        let event = sse::Event::default().comment("");
        if cursor == self.known {
            return event;
        }
        self.known.clone_from(&cursor);
        event.id(cursor)
    }

    /// The end of this answer, not of the run: the client goes on with another.
    fn over_for_now(&mut self) -> Vec<sse::Event> {
        self.has_ended = true;
        vec![self.heartbeat().retry(RETRY_AT_ONCE)]
    }
}
