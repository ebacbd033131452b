//! The vocabulary: values that cannot be wrong. No I/O, no async. Terms are those of `docs/glossary.md`.

mod id;
mod limits;
mod outcome;
mod time;

pub use id::{AttemptId, IdError, KeyId, OrgId, RecordId, RunId, UserId, sha256_hex};
pub use limits::Limits;
pub use outcome::{Outcome, StepError};
pub use time::Timestamp;
