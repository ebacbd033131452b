//! How an attempt ended.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An error of user code, or the limit or crash that ended it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepError {
    /// The exception's class (`ValueError`), or one of `time_limit`, `cpu_limit`, `memory_limit`, `process_limit`,
    /// `thread_limit`, `disk_limit`, `crashed`, `protocol_violation`, `isolation_failed`, `isolation_insufficient`,
    /// `network_unavailable`, `ResultNotJson`, `ResultTooLarge`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence; for a limit its name, its value and where to raise it.
    pub message: String,
    /// The step in which it happened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<String>,
    /// Python's traceback, user frames only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceback: Option<String>,
    /// Whether user code said that a repeat may help; the retry policy decides when it said nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retriable: Option<bool>,
    /// What the exception carried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Value>,
}

impl StepError {
    /// An error with a type and a message only.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            message: message.into(),
            step: None,
            traceback: None,
            retriable: None,
            data: None,
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// With a value.
    Succeeded {
        /// JSON.
        value: Value,
    },
    /// With an error.
    Failed {
        /// What went wrong.
        error: StepError,
    },
    /// Killed at its time limit.
    TimedOut {
        /// Which limit, its value, and where to raise it.
        error: StepError,
    },
    /// Killed on request.
    Cancelled,
}
