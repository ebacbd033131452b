//! The host's request and response shapes.
//!
//! The host writes strings, numbers, booleans and arrays as a string that holds their JSON text, objects as they are, and
//! bytes as base64; newer hosts may be tidier, so both forms are read. It copies properties of a JSON message over its own
//! metadata, so metadata decides nothing here. It never completes an invocation that is answered with an empty body or with
//! null, so an [`Answer`] is always an object.

use axum::Json;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A request of the host.
#[derive(Debug)]
pub struct Invocation {
    /// The host's id of the invocation; another one at each delivery.
    pub id: String,
    data: Map<String, Value>,
}

/// A body that is no envelope.
#[derive(Debug, thiserror::Error)]
#[error("the body is no envelope of the host")]
pub struct NotAnEnvelope;

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Data")]
    data: Map<String, Value>,
}

impl Invocation {
    /// Reads a request.
    ///
    /// # Errors
    /// When the body is no envelope.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, NotAnEnvelope> {
        let Body { data } = serde_json::from_slice(body).map_err(|_| NotAnEnvelope)?;
        let id = headers.get("x-azure-functions-invocationid").and_then(|id| id.to_str().ok());
        Ok(Self { id: id.unwrap_or_default().chars().take(64).collect(), data })
    }

    /// The text of a binding: of a string that holds JSON text of a string, the inner one; of an object, its JSON text.
    #[must_use]
    pub fn text(&self, binding: &str) -> Option<String> {
        match self.data.get(binding)? {
            Value::String(text) if text.starts_with('"') => {
                Some(serde_json::from_str::<String>(text).unwrap_or_else(|_| text.clone()))
            }
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }
}

/// An answer that completes an invocation.
#[derive(Debug, Serialize)]
pub struct Answer {
    #[serde(rename = "Outputs")]
    outputs: Map<String, Value>,
    #[serde(rename = "Logs")]
    logs: Vec<String>,
    #[serde(rename = "ReturnValue")]
    return_value: Option<Value>,
}

impl Answer {
    /// Done.
    #[must_use]
    pub fn done(log: &str) -> Self {
        Self { outputs: Map::new(), logs: vec![log.to_owned()], return_value: None }
    }

    /// Done with, since delivering it again would change nothing.
    #[must_use]
    pub fn dropped(reason: &str) -> Self {
        tracing::warn!("an invocation was dropped: {reason}");
        Self::done(&format!("dropped: {reason}"))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
