//! What an attempt said.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;

/// A line of output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When it was received (or said, for `ctx.log`).
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `stdout`, `stderr`, `log`, `checkpoint` or `network`.
    pub stream: String,
    /// `debug`, `info`, `warning` or `error`.
    pub level: String,
    /// The text, without the line's end; bytes that are not UTF-8 are replaced.
    pub message: String,
    /// What `ctx.log` was given beside the message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<Object>)]
    pub fields: Option<Value>,
}
