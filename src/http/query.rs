//! Query parameters that a route doesn't know. Where a request changes something, one that is passed over in silence means that
//! something else is done than was asked for, so it is refused. What is known is what the description of the API says.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, Method};
use url::form_urlencoded;
use utoipa::openapi::path::{Operation, ParameterIn};

use super::openapi;
use super::problem::ApiError;
use crate::error::{Finding, Kind};

/// The function key may stand in every query, in whatever case, as the Functions host takes it.
const KEY: &str = "code";
/// Most unknown parameters that are told of.
const MOST_TOLD: usize = 20;

/// The query parameters of every request that changes something, by path and method; an extension of each request.
#[derive(Debug, Clone)]
pub(super) struct Known(Arc<HashMap<(String, Method), BTreeSet<String>>>);

impl Known {
    /// Those of the description of the API.
    pub(super) fn described() -> Self {
        let mut known = HashMap::new();
        for (path, item) in openapi::description().paths.paths {
            for (method, operation) in [
                (Method::POST, item.post),
                (Method::PUT, item.put),
                (Method::DELETE, item.delete),
            ] {
                if let Some(operation) = operation {
                    known.insert((path.clone(), method), named(&operation));
                }
            }
        }
        Self(Arc::new(known))
    }
}

fn named(operation: &Operation) -> BTreeSet<String> {
    let all = operation.parameters.iter().flatten();
    let of_query = all.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
    of_query.map(|parameter| parameter.name.clone()).collect()
}

fn known<'a>(extensions: &'a Extensions, method: &Method) -> Option<&'a BTreeSet<String>> {
    let path = extensions.get::<MatchedPath>()?;
    let Known(known) = extensions.get()?;
    known.get(&(path.as_str().to_owned(), method.clone()))
}

/// Refuses query parameters that a request which changes something doesn't take.
///
/// # Errors
/// A problem that names each of them, and those that there are.
pub(super) fn known_only(parts: &Parts) -> Result<(), ApiError> {
    let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) else {
        return Ok(());
    };
    let Some(known) = known(&parts.extensions, &parts.method) else {
        return Ok(());
    };
    let given = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    // `a&&b` and `a&` have an empty one, which says nothing.
    let given = given.filter(|name| !name.is_empty());
    let unknown: BTreeSet<_> = given
        .filter(|name| !known.contains(name.as_ref()) && !name.eq_ignore_ascii_case(KEY))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let findings = unknown.iter().take(MOST_TOLD).map(|name| {
        let message = format!("`{name:.80}` is no query parameter of this request");
        Finding::new(format!("query:{name:.80}"), "unknown_parameter", message)
    });
    let detail = "the query has parameters that this request doesn't take, and they would be passed over";
    Err(ApiError::new(Kind::Invalid, "parameter_invalid", detail)
        .findings(findings.collect())
        .hint(taken(known)))
}

/// What a request takes that has no body.
pub(super) fn hint_instead_of_a_body(request: &Request) -> String {
    let known = known(request.extensions(), request.method()).filter(|known| !known.is_empty());
    known.map_or_else(
        || "send no body, or `{}`".to_owned(),
        |known| format!("send no body, or `{{}}`; {}", taken(known)),
    )
}

fn taken(known: &BTreeSet<String>) -> String {
    let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "it takes none in its query".to_owned(),
        names => format!("its query takes {}", names.join(", ")),
    }
}
