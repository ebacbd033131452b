//! `config.get`: one value of the organization's configuration, as it was when the attempt began.

use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Broker, args};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    key: String,
}

pub(super) fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    match verb {
        "get" => {
            let Get { key } = args::read("config.get", args)?;
            Ok(broker.bound.config.get(&key).cloned().unwrap_or(Value::Null))
        }
        _ => Err(broker.not_available(&format!("config.{verb}"))),
    }
}
