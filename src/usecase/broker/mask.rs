//! The one place that everything passes which leaves an attempt: its lines and its outcome.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::domain::{LogLine, Outcome, Secret, StepError};
use crate::runner::AttemptReport;
use crate::secrets::mask;

/// Takes out what must not be seen. One for each attempt; it may learn while the attempt goes on.
pub(in crate::usecase) trait Masker: Send + Sync + fmt::Debug {
    /// A text.
    fn text(&self, text: String) -> String;

    /// Texts anywhere in a JSON value.
    fn value(&self, value: Value) -> Value;

    /// Bytes.
    fn bytes(&self, bytes: Vec<u8>) -> Vec<u8>;

    /// Takes this value out too, from now on.
    fn learn(&self, value: &Secret);

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

impl Masker for mask::Masker {
    fn text(&self, mut text: String) -> String {
        self.text_in(&mut text);
        text
    }

    fn value(&self, mut value: Value) -> Value {
        self.json(&mut value);
        value
    }

    fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        match Self::bytes(self, &bytes) {
            Cow::Borrowed(_) => bytes,
            Cow::Owned(masked) => masked,
        }
    }

    fn learn(&self, value: &Secret) {
        self.add(value);
    }
}
