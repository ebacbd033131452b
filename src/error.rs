//! How every layer says what went wrong: a kind that decides the next move, a stable code, words, and findings.
//!
//! Layers own their errors; those that reach a caller implement [`Coded`], and `http/problem.rs` is the one place that
//! turns them into a response.

use serde::{Deserialize, Serialize};

/// What the caller can do about an error. One kind maps to one HTTP status (`http/problem.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request is wrong and will stay wrong.
    Invalid,
    /// A credential is present and bad.
    Unauthenticated,
    /// The caller is known, or has brought nothing, and may not.
    Denied,
    /// It does not exist, or the caller may not know that it exists.
    NotFound,
    /// It exists already, or its state forbids the change.
    Conflict,
    /// Somebody else changed it first.
    PreconditionFailed,
    /// Over a stated limit.
    TooLarge,
    /// Too many, too fast: wait and repeat.
    Throttled,
    /// Storage or a worker can't be reached right now: repeat.
    Unavailable,
    /// Code of the workspace failed; the same request may fail again.
    CodeFailed,
    /// A defect of ours.
    Internal,
}

impl Kind {
    /// Whether the same request may succeed later without a change.
    #[must_use]
    pub const fn retriable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable)
    }
}

/// One thing that is wrong, with the place where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Where: a JSON pointer into the body (`/email`), `header:NAME`, `query:NAME`, or `file:line:column`.
    pub pointer: String,
    /// A stable code, as `required` or `not_an_integer`.
    pub code: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl Finding {
    /// A finding without a hint.
    pub fn new(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An error that has a public code.
pub trait Coded: std::error::Error {
    /// What the caller can do about it.
    fn kind(&self) -> Kind;
    /// The public code; `docs/errors/<code>.md` explains it.
    fn code(&self) -> &'static str;
    /// What to try next.
    fn hint(&self) -> Option<String> {
        None
    }
    /// Every single thing that was found wrong.
    fn findings(&self) -> &[Finding] {
        &[]
    }
}
