//! The vocabulary: values that cannot be wrong. No I/O, no async. Terms are those of `docs/glossary.md`.

mod api_key;
mod id;
mod limits;
mod outcome;
mod text;
mod time;

pub use api_key::{Secret, equal_in_constant_time};
pub use id::{AttemptId, IdError, KeyId, OrgId, RecordId, RunId, UserId, sha256_hex};
pub use limits::Limits;
pub use outcome::{Outcome, StepError};
pub use text::{DisplayName, Email, Identity, Slug, TextError};
pub use time::Timestamp;
