//! What a delivery says: its headers, its query, its body, and the arguments that they become.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::ArgumentRule;
use super::scheme::Scheme;
use crate::domain::rounded;
use crate::error::Finding;

/// Most headers that are handed to a workflow.
const MAX_HEADERS: usize = 64;
/// Most bytes of one of them.
const MAX_VALUE: usize = 2048;

/// A request to a hook as it came in.
#[derive(Clone)]
pub struct Request {
    /// Headers whose values are text, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The query, undecoded.
    pub query: String,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("headers", &self.headers.len())
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Whether there is such a header.
    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// The header, if it is there once.
    pub(super) fn once(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    fn media_type(&self) -> String {
        let text = self.once("content-type").unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// Why a delivery can't become arguments: the sender is genuine, and sends something else than the hook expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is neither JSON, nor a form, nor text, or it is not UTF-8.
    MediaType,
    /// It says that it is JSON, and is none.
    NotJson(Finding),
    /// A whole number in it would be rounded.
    Rounded(Finding),
    /// It is to be the arguments, and is no object.
    NotAnObject,
}

/// The arguments that a delivery becomes.
///
/// # Errors
/// [`Unreadable`].
pub fn arguments(rule: &ArgumentRule, scheme: &Scheme, request: &Request) -> Result<Map<String, Value>, Unreadable> {
    let body = body(request)?;
    match rule {
        ArgumentRule::Body => match body {
            Value::Object(object) => Ok(object),
            Value::Null => Ok(Map::new()),
            _ => Err(Unreadable::NotAnObject),
        },
        ArgumentRule::Wrap { name } => {
            let event = json!({"headers": headers(scheme, request), "query": query(&request.query), "body": body});
            Ok(Map::from_iter([(name.clone(), event)]))
        }
    }
}

/// The body as JSON, a form as an object, anything else that is text as text; null when there is none.
fn body(request: &Request) -> Result<Value, Unreadable> {
    if request.body.is_empty() {
        return Ok(Value::Null);
    }
    let media_type = request.media_type();
    if media_type == "application/x-www-form-urlencoded" {
        let is_text = percent_encoding::percent_decode(&request.body).decode_utf8().is_ok();
        return is_text
            .then(|| Value::Object(fields(&request.body)))
            .ok_or(Unreadable::MediaType);
    }
    let text = std::str::from_utf8(&request.body).map_err(|_| Unreadable::MediaType)?;
    let is_json = media_type.is_empty() || media_type == "application/json" || media_type.ends_with("+json");
    if !is_json {
        return Ok(Value::from(text));
    }
    let value = serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Unreadable::NotJson(Finding::new("", "invalid", format!("the body is not JSON: {place}")))
    })?;
    match rounded(text.as_bytes()) {
        None => Ok(value),
        Some(found) => Err(Unreadable::Rounded(Finding::new("", "invalid", found.to_string()))),
    }
}

/// Fields by name; one that is there more than once is a list.
fn fields(text: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text) {
        let value = Value::from(value.into_owned());
        match fields.get_mut(&*name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
            None => drop(fields.insert(name.into_owned(), value)),
        }
    }
    fields
}

/// The query without what may be a function key.
fn query(text: &str) -> Map<String, Value> {
    let mut fields = fields(text.as_bytes());
    fields.retain(|name, _| !name.eq_ignore_ascii_case("code"));
    fields
}

/// What a workflow gets to see of the headers: nothing that is a credential or a signature, and nothing that the way here has
/// added.
fn headers(scheme: &Scheme, request: &Request) -> BTreeMap<String, Value> {
    const NEVER: [&str; 18] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "forwarded",
        "via",
        "max-forwards",
        "disguised-host",
        "was-default-hostname",
        "x-organization-id",
        "x-user-id",
    ];
    const NEVER_BEGINNING: [&str; 9] = [
        "x-functions-",
        "x-ms-",
        "x-azure-",
        "x-arr-",
        "x-forwarded-",
        "x-original-",
        "x-appservice-",
        "x-site-",
        "x-real-",
    ];
    // Whatever the scheme, such a header is a secret or proves that somebody has one.
    const NEVER_WITH: [&str; 8] = [
        "signature",
        "token",
        "secret",
        "password",
        "credential",
        "authorization",
        "api-key",
        "apikey",
    ];
    let signature = scheme.signing().header;
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    for (name, value) in &request.headers {
        let hidden = NEVER.contains(&name.as_str())
            || NEVER_BEGINNING.iter().any(|start| name.starts_with(start))
            || NEVER_WITH.iter().any(|word| name.contains(word))
            || signature.iter().any(|header| *header == name.as_str());
        if hidden || value.len() > MAX_VALUE || seen.len() >= MAX_HEADERS {
            continue;
        }
        match seen.get_mut(name) {
            Some(Value::Array(values)) => values.push(Value::from(value.as_str())),
            Some(first) => *first = json!([first.take(), value]),
            None => drop(seen.insert(name.clone(), Value::from(value.as_str()))),
        }
    }
    seen
}

/// What a sender wants to hear before it delivers anything: Slack's challenge; GitHub's ping wants any answer. None for an
/// event.
#[must_use]
pub fn challenge_of(scheme: &Scheme, request: &Request) -> Option<String> {
    match scheme {
        Scheme::Slack => {
            let body: Value = serde_json::from_slice(&request.body).ok()?;
            if body["type"] != "url_verification" {
                return None;
            }
            let text = body["challenge"].as_str()?;
            (text.len() <= 512).then(|| text.to_owned())
        }
        Scheme::Github if request.once("x-github-event") == Some("ping") => Some("pong".to_owned()),
        _ => None,
    }
}
