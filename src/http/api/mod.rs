//! One file per resource; wire types sit beside their handlers.

pub mod approvals;
pub mod artifacts;
pub mod audit;
pub mod bundles;
pub mod data_providers;
pub mod docs;
pub mod environments;
pub mod health;
pub mod hooks;
pub mod me;
pub mod node_types;
pub mod plans;
pub mod policy;
pub mod quarantine;
pub mod queue_triggers;
pub mod recordings;
pub mod run_events;
pub mod runs;
pub mod schedules;
pub mod secrets;
pub mod start_options;
pub mod usage;
pub mod workflow_assignments;
pub mod workflow_drafts;
pub mod workflow_files;
pub mod workflow_revisions;
pub mod workflows;

use serde::Serialize;

use super::problem::ApiError;

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageOf<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give it as `cursor` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Items in a page when the caller doesn't say.
const DEFAULT_LIMIT: usize = 50;
/// Items in a page at most.
const MAX_LIMIT: usize = 200;

/// `limit` as a number from 1 to 200; what is above is brought down.
fn limit(text: Option<&str>) -> Result<usize, ApiError> {
    match text {
        None | Some("") => Ok(DEFAULT_LIMIT),
        Some(text) => match text.parse::<usize>() {
            Ok(number) if number >= 1 => Ok(number.min(MAX_LIMIT)),
            _ => Err(ApiError::bad_parameter(
                "query:limit",
                format!("`limit` must be a number from 1 to {MAX_LIMIT}"),
            )),
        },
    }
}

/// `true` or `false` in a query; false where it isn't there.
fn flag(name: &str, text: Option<&str>) -> Result<bool, ApiError> {
    match text {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::bad_parameter(
            format!("query:{name}"),
            format!("`{name}` is `true` or `false`"),
        )),
    }
}

fn time(name: &str, text: Option<&str>) -> Result<Option<crate::domain::Timestamp>, ApiError> {
    text.filter(|text| !text.is_empty())
        .map(|text| {
            crate::domain::Timestamp::parse(text).map_err(|_| {
                ApiError::bad_parameter(
                    format!("query:{name}"),
                    format!("`{name}` must be a time like `2026-11-21T08:00:00Z`"),
                )
            })
        })
        .transpose()
}

/// An opaque cursor as the caller sees it: base64url, so that it survives every client.
fn cursor_out(inner: Option<String>) -> Option<String> {
    use base64::Engine as _;
    inner.map(|text| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text))
}

fn cursor_in(text: Option<&str>) -> Result<Option<String>, ApiError> {
    use base64::Engine as _;
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let bad = || {
        ApiError::bad_parameter("query:cursor", "`cursor` is not one that a page has given")
            .hint("begin without a cursor, and give each `nextCursor` to the same query")
    };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| bad())?;
    String::from_utf8(bytes).map(Some).map_err(|_| bad())
}

/// The header that says in which organization a request acts.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "read by the extractor; here for the description only")]
pub struct OrganizationHeader {
    /// The organization's id: 3 to 40 of a–z and 0–9.
    #[param(rename = "X-Organization-Id", example = "contoso")]
    organization: String,
}

/// `If-Match` with one strong tag. `*` and no header replace any.
fn if_match(headers: &axum::http::HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(axum::http::header::IF_MATCH).iter();
    let bad = || {
        ApiError::bad_parameter(
            "header:If-Match",
            "`If-Match` takes one `ETag` of an answer, as it was given",
        )
    };
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad())?.trim();
    if values.next().is_some() {
        return Err(bad());
    }
    if text == "*" {
        return Ok(None);
    }
    let tag = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or_else(bad)?;
    Ok(Some(tag.to_owned()))
}

/// What a change takes the place of: `If-Match` with a tag or `*`, or `If-None-Match: *`. One of them is needed where nobody's work
/// may be lost.
fn expected(headers: &axum::http::HeaderMap) -> Result<crate::usecase::workflow::Expected, ApiError> {
    use axum::http::{StatusCode, header};

    use crate::error::Kind;
    use crate::usecase::workflow::Expected;
    let is_new = match headers.get(header::IF_NONE_MATCH).map(|value| value.to_str()) {
        None => false,
        Some(Ok("*")) => true,
        Some(_) => {
            return Err(ApiError::bad_parameter(
                "header:If-None-Match",
                "`If-None-Match` takes `*`: there is nothing yet",
            ));
        }
    };
    match (headers.contains_key(header::IF_MATCH), is_new) {
        (false, true) => Ok(Expected::Nothing),
        (true, false) => Ok(if_match(headers)?.map_or(Expected::Anything, Expected::Tag)),
        (true, true) => Err(ApiError::bad_parameter(
            "header:If-None-Match",
            "`If-Match` and `If-None-Match` say opposite things; send one",
        )),
        (false, false) => Err(ApiError::new(
            Kind::Invalid,
            "precondition_required",
            "the request doesn't say which version it has seen",
        )
        .with_status(StatusCode::PRECONDITION_REQUIRED)
        .hint("send the `ETag` of what was read as `If-Match`, or `If-None-Match: *` where there is nothing yet")),
    }
}

/// As [`expected`], where the last one may win.
fn expected_or_any(headers: &axum::http::HeaderMap) -> Result<crate::usecase::workflow::Expected, ApiError> {
    use crate::usecase::workflow::Expected;
    Ok(if_match(headers)?.map_or(Expected::Anything, Expected::Tag))
}
