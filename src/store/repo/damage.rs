//! Rows that can't be read in part: what can, and why the rest can't.

use crate::store::error::Error;
use crate::store::port::{Entity, Result};

/// What can be read; nothing, and why, where it is damaged.
///
/// # Errors
/// Any but [`Error::Corrupt`].
pub(super) fn readable<T>(read: Result<T>, why: &mut Vec<String>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Error::Corrupt { what }) => {
            why.push(what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// As [`readable`], of what fails for no other reason.
pub(super) fn known<T>(read: Result<T>, why: &mut Vec<String>) -> Option<T> {
    readable(read, why).ok().flatten()
}

/// Says in the log that a row can't be read, if it can't, and answers why, in one sentence. The partition of a run is named after it.
pub(super) fn noted(row: &Entity, why: &[String]) -> Option<String> {
    if why.is_empty() {
        return None;
    }
    let why = why.join("; ");
    tracing::warn!(partition = %row.partition, row = %row.row, "a row can't be read: {why}");
    Some(why)
}
