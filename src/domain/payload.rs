//! A value in a row: inline while it is small, else a claim check.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest JSON text that stays in a row, in bytes. A property holds 32 Ki UTF-16 units, never more than the text has bytes.
pub const INLINE_BYTES: usize = 32 * 1024;

/// A reference that replaces a value over [`INLINE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCheck {
    /// SHA-256 of the JSON text, in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A JSON value as rows keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// In the row.
    Inline(Value),
    /// In a blob.
    Claim(ClaimCheck),
}

impl Payload {
    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Inline(Value::Null))
    }
}
