//! Refusals in the protocol's codes, and what an operation's error becomes for a workflow's author.

use crate::error::{Coded as _, Kind};
use crate::runner::Refusal;
use crate::usecase::Error;

/// A refusal with one of the protocol's codes.
pub(super) fn refusal(code: &str, message: impl Into<String>) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message: message.into(),
    }
}

/// What is said when storage is away.
const AWAY: &str = "the engine could not reach its storage; try again later";

/// Whether a refusal says that storage is away.
pub(super) fn is_away(refusal: &Refusal) -> bool {
    refusal.code == "unavailable" && refusal.message == AWAY
}

/// An error of an operation. What is a defect, or the operator's business, is said in the log and not to the step.
pub(super) fn refusal_of(error: &Error) -> Refusal {
    let code = match error.kind() {
        Kind::Invalid | Kind::Conflict | Kind::PreconditionFailed => "invalid",
        Kind::Denied | Kind::Unauthenticated => "denied",
        Kind::NotFound => "not_found",
        Kind::TooLarge => "too_large",
        Kind::CodeFailed => "failed",
        Kind::Throttled | Kind::Unavailable | Kind::Internal => "unavailable",
    };
    if matches!(error, Error::Store(_)) || error.kind() == Kind::Internal {
        tracing::warn!(error = error as &dyn std::error::Error, "a broker call failed");
        return refusal(code, AWAY);
    }
    let mut message = error.to_string();
    for finding in error.findings().iter().take(10) {
        message.push_str("; ");
        message.push_str(&finding.message);
    }
    if let Some(hint) = error.hint() {
        message.push_str("; ");
        message.push_str(&hint);
    }
    refusal(code, message)
}
