//! `variables.set`: accepted and not kept, because a worker keeps its variables itself and sends them with its last frame.

use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Asker, Broker, args};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "value", default)]
    _value: Value,
}

pub(super) fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    match (verb, &broker.bound.asker) {
        ("set", Asker::Step { .. }) => args::read("variables.set", args).map(|_: Set| Value::Null),
        _ => Err(broker.not_available(&format!("variables.{verb}"))),
    }
}
