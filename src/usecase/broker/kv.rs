//! `kv.*`: small values that a workflow keeps from run to run, in a namespace of its own within its organization.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asker, Broker, args, refusal, refusal_of};
use crate::runner::Refusal;
use crate::store::repo::kv::{Expected, MAX_KEY_CHARS, MAX_LISTED, MAX_PAIRS, MAX_VALUE_BYTES, Pair, Written, is_key};

/// Longest time to live.
const MAX_TTL_SECONDS: f64 = 10.0 * 366.0 * 86_400.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    key: String,
    value: Value,
    ttl_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareAndSet {
    key: String,
    #[serde(default)]
    expected: Value,
    value: Value,
    ttl_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    let Asker::Step { workflow, .. } = &broker.bound.asker else {
        return Err(broker.not_available(&format!("kv.{verb}")));
    };
    let (kv, scope) = (&broker.bound.cx.kv, &broker.bound.scope);
    let failed = |error| refusal_of(&super::Error::Store(error));
    match verb {
        "get" => {
            let Named { key } = args::read("kv.get", args)?;
            check(&key)?;
            let pair = kv.get(scope, workflow, &key).await.map_err(failed)?;
            Ok(pair.map_or(Value::Null, |pair| pair.value))
        }
        "set" => {
            let Set {
                key,
                value,
                ttl_seconds,
            } = args::read("kv.set", args)?;
            write(broker, workflow, &key, Expected::Anything, value, ttl_seconds).await?;
            Ok(Value::Null)
        }
        "compare_and_set" => {
            let CompareAndSet {
                key,
                expected,
                value,
                ttl_seconds,
            } = args::read("kv.compare_and_set", args)?;
            let expected = match &expected {
                Value::Null => Expected::Nothing,
                value => Expected::Value(value),
            };
            Ok(Value::Bool(
                write(broker, workflow, &key, expected, value, ttl_seconds).await?,
            ))
        }
        "delete" => {
            let Named { key } = args::read("kv.delete", args)?;
            check(&key)?;
            broker.pace_writes().await?;
            Ok(Value::Bool(kv.delete(scope, workflow, &key).await.map_err(failed)?))
        }
        "list" => {
            let List { prefix, after, limit } = args::read("kv.list", args)?;
            if !prefix.is_empty() {
                check(&prefix)?;
            }
            after.as_deref().map_or(Ok(()), check)?;
            let limit = limit.unwrap_or(MAX_LISTED).clamp(1, MAX_LISTED);
            let (keys, more) = kv
                .list(scope, workflow, &prefix, after.as_deref(), limit)
                .await
                .map_err(failed)?;
            Ok(json!({"keys": keys, "more": more}))
        }
        _ => Err(broker.not_available(&format!("kv.{verb}"))),
    }
}

fn check(key: &str) -> Result<(), Refusal> {
    if is_key(key) {
        return Ok(());
    }
    Err(refusal(
        "invalid",
        format!("a key has 1 to {MAX_KEY_CHARS} characters, of which those outside ASCII count eightfold within 512"),
    ))
}

/// Writes a value; whether the condition held.
async fn write(
    broker: &Broker,
    workflow: &str,
    key: &str,
    expected: Expected<'_>,
    value: Value,
    ttl_seconds: Option<f64>,
) -> Result<bool, Refusal> {
    check(key)?;
    if value.is_null() {
        let message = "null is what a missing key reads as; delete the key instead";
        return Err(refusal("invalid", message));
    }
    let size = value.to_string().len();
    if size > MAX_VALUE_BYTES {
        return Err(refusal(
            "too_large",
            format!(
                "the value of `{key:.60}` is {size} bytes of JSON; the limit is {MAX_VALUE_BYTES}: write it as an artifact \
                 (`ctx.artifacts.write`) and keep its name"
            ),
        ));
    }
    let now = broker.bound.cx.clock.now();
    let expires_at = match ttl_seconds {
        None => None,
        Some(seconds) if seconds > 0.0 && seconds <= MAX_TTL_SECONDS => {
            Some(now.plus(Duration::from_secs_f64(seconds)))
        }
        Some(_) => {
            let message = "`ttl_seconds` must be above 0, and at most ten years";
            return Err(refusal("invalid", message));
        }
    };
    broker.pace_writes().await?;
    let pair = Pair { value, expires_at };
    let (kv, scope) = (&broker.bound.cx.kv, &broker.bound.scope);
    match kv.set(scope, workflow, key, expected, &pair).await {
        Ok(Written::Done) => Ok(true),
        Ok(Written::Unexpected) => Ok(false),
        Ok(Written::Full) => Err(refusal(
            "too_large",
            format!(
                "workflow `{workflow}` keeps {MAX_PAIRS} keys, which is the limit; delete some, or let them expire"
            ),
        )),
        Ok(Written::Contended) => Err(refusal(
            "unavailable",
            "others kept writing at the same time; try again, or use fewer writers",
        )),
        Err(error) => Err(refusal_of(&super::Error::Store(error))),
    }
}
