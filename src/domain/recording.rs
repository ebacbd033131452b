//! What is kept of an attempt so that it can be made again, offline: what it was given, what it asked for and was answered, and
//! how it ended. Masked before it is kept; see `docs/replay.md`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AttemptId, OrgId, Outcome, RunId, Status, StepError, Timestamp, sha256_hex};

/// The shape of recordings that this build writes.
pub const RECORDING_SCHEMA: u32 = 1;
/// Most bytes of an argument of a call that are kept as they are; of larger ones the digest is.
const ARGUMENT_BYTES: usize = 16 << 10;

/// What of a bundle was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedEntry {
    /// `workflow`, `data_provider` or `node`.
    pub kind: String,
    /// Its declared name.
    pub name: String,
    /// The module.
    pub module: String,
    /// The function in it.
    pub function: String,
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedAnswer {
    /// With a value.
    Value(Value),
    /// With a refusal.
    Refused {
        /// One of the protocol's codes.
        code: String,
        /// Why.
        message: String,
    },
    /// With a secret's value, which is kept nowhere.
    Secret,
    /// With more than is kept: so many bytes.
    Cut(u64),
    /// Not at all: the attempt ended first.
    Never,
}

/// A request to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedCall {
    /// As `config.get`.
    pub name: String,
    /// Its arguments, as [`reduced`] has them.
    pub args: Value,
    /// Its answer.
    pub answer: RecordedAnswer,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// [`RECORDING_SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// The step.
    pub step: String,
    /// The item of a map, or the iteration of a loop, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its number, from 1.
    pub number: u32,
    /// What was called.
    pub entry: RecordedEntry,
    /// The digest of the code.
    pub bundle: String,
    /// The digest of the packages.
    #[serde(default)]
    pub environment: Option<String>,
    /// Whether the code was trusted.
    pub trusted: bool,
    /// Secrets that it may have asked for.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// What random numbers began with.
    pub seed: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it had ended.
    pub ended_at: Timestamp,
    /// Its arguments; none where they were larger than what is kept.
    #[serde(default)]
    pub arguments: Option<Value>,
    /// What its context was made of.
    pub context: Value,
    /// What it asked for, in its order.
    pub calls: Vec<RecordedCall>,
    /// How many more calls it made, of which nothing is kept.
    #[serde(default)]
    pub calls_left_out: u64,
    /// How it ended; a value that was larger than what is kept is none.
    pub outcome: RecordedOutcome,
}

/// A run with what is kept of its attempts: what a server hands out, and what is in an exported file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRun {
    /// [`RECORDING_SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Its organization.
    pub organization: OrgId,
    /// Where it was when this was put together.
    pub status: Status,
    /// Its arguments.
    pub arguments: Value,
    /// Its result.
    pub result: Value,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<StepError>,
    /// The digest of its code.
    pub bundle: String,
    /// The digest of its packages.
    #[serde(default)]
    pub environment: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Attempts in the order in which they began.
    pub attempts: Vec<Recording>,
    /// Attempts whose recordings are there and did not fit.
    #[serde(default)]
    pub left_out: Vec<AttemptId>,
}

/// How an attempt ended, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedOutcome {
    /// As it was.
    Whole(Outcome),
    /// With a value of so many bytes.
    Cut {
        /// Always `succeeded`.
        outcome: String,
        /// How many.
        bytes: u64,
    },
}

/// Arguments of a call as they are kept and compared: of bulk only the digest.
#[must_use]
pub fn reduced(name: &str, mut args: Value) -> Value {
    let bulk = match name {
        "artifacts.append" => Some("data"),
        "http.request" => Some("body_base64"),
        _ => None,
    };
    if let Some(fields) = args.as_object_mut() {
        if name == "runs.wait" {
            // What is left of a while; it says nothing about the code.
            fields.remove("timeout_seconds");
        }
        if name == "artifacts.begin" {
            // It is said again at the end, and older recordings have it only there.
            fields.remove("sha256");
        }
        for (field, value) in fields {
            let is_bulk = bulk == Some(field.as_str()) && !value.is_null();
            let text = if is_bulk || value.is_object() || value.is_array() || value.is_string() {
                value.to_string()
            } else {
                continue;
            };
            if is_bulk || text.len() > ARGUMENT_BYTES {
                *value = json!({"sha256": sha256_hex(text.as_bytes()), "bytes": text.len()});
            }
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_bulk_the_digest_is_kept() {
        let small = json!({"key": "a", "value": [1], "ttl_seconds": null});
        assert_eq!(reduced("kv.set", small.clone()), small);
        let large = reduced("kv.set", json!({"key": "a", "value": "x".repeat(20_000)}));
        assert_eq!(large["value"]["bytes"], 20_002);
        assert_eq!(large["key"], "a");
        let sent = reduced(
            "http.request",
            json!({"url": "https://a.example", "body_base64": "eA=="}),
        );
        assert_eq!(sent["body_base64"]["bytes"], 6);
        assert_eq!(
            reduced("http.request", json!({"body_base64": null}))["body_base64"],
            Value::Null
        );
        let (one, two) = (json!({"data": "eA=="}), json!({"data": "eQ=="}));
        assert_ne!(reduced("artifacts.append", one), reduced("artifacts.append", two));
        let begun = json!({"name": "a", "size": 1});
        assert_eq!(
            reduced("artifacts.begin", json!({"name": "a", "size": 1, "sha256": "00"})),
            begun
        );
    }
}
