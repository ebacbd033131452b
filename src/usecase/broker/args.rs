//! Arguments of calls: a JSON object into a struct, with nothing left over.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal;
use crate::runner::Refusal;

/// The arguments of a call. `T` refuses unknown fields, so an id that is not asked for is refused, not ignored.
pub(super) fn read<T: DeserializeOwned>(call: &str, args: Value) -> Result<T, Refusal> {
    serde_json::from_value(args).map_err(|error| {
        let mut said = error.to_string();
        if said.len() > 300 {
            said = said.chars().take(300).collect();
        }
        refusal("invalid", format!("the arguments of `{call}`: {said}"))
    })
}
