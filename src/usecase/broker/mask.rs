//! The one place that everything passes which leaves an attempt: its lines, its outcome, what the broker tells it.

use std::fmt;

use serde_json::Value;

use crate::domain::{LogLine, Outcome, StepError};
use crate::runner::AttemptReport;

/// Takes out what must not be seen. One for each attempt; it may learn while the attempt goes on.
pub(in crate::usecase) trait Masker: Send + Sync + fmt::Debug {
    /// A text.
    fn text(&self, text: String) -> String;

    /// Texts anywhere in a JSON value.
    fn value(&self, value: Value) -> Value;

    /// What a call is answered with.
    fn answer(&self, _call: &str, value: Value) -> Value {
        self.value(value)
    }

    /// A line of the log.
    fn line(&self, line: LogLine) -> LogLine {
        LogLine {
            message: self.text(line.message),
            fields: line.fields.map(|fields| self.value(fields)),
            ..line
        }
    }

    /// How the attempt ended, with its variables.
    fn report(&self, report: AttemptReport) -> AttemptReport {
        let error = |error: StepError| StepError {
            kind: self.text(error.kind),
            message: self.text(error.message),
            traceback: error.traceback.map(|traceback| self.text(traceback)),
            data: error.data.map(|data| self.value(data)),
            ..error
        };
        AttemptReport {
            outcome: match report.outcome {
                Outcome::Succeeded { value } => Outcome::Succeeded {
                    value: self.value(value),
                },
                Outcome::Failed { error: failed } => Outcome::Failed { error: error(failed) },
                Outcome::TimedOut { error: late } => Outcome::TimedOut { error: error(late) },
                Outcome::Cancelled => Outcome::Cancelled,
            },
            variables: self.value(report.variables),
            ..report
        }
    }
}

/// For an attempt that was given nothing to hide.
#[derive(Debug, Clone, Copy)]
pub(in crate::usecase) struct Unmasked;

impl Masker for Unmasked {
    fn text(&self, text: String) -> String {
        text
    }

    fn value(&self, value: Value) -> Value {
        value
    }
}
