//! The key that proves that a queue message is ours.

use serde::Serialize;

use super::env_var as var;
use super::read::Reader;
use super::secret::Secret;

/// Keys that the operator has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signing {
    /// Signs queue messages. Without it, one is made and kept with the data.
    pub key: Option<Secret>,
}

impl Signing {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let variable = &var::WEFT_SIGNING_KEY;
        let key = reader.secret("signing.key", variable);
        if let Some(key) = &key
            && key.expose().len() < 32
        {
            let message = format!("`{}` is shorter than 32 characters", variable.name);
            let hint = "make one with `openssl rand -base64 32`".to_owned();
            reader.refuse(variable, "too_short", message, Some(hint));
        }
        Self { key }
    }
}
