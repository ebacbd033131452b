//! From a message of a queue to a run: once, however often it is delivered.
//!
//! The run's id follows from organization, trigger and message, and a run is written only where there is none; the message is
//! deleted after that. So whoever dies in between leaves a message that finds its run. What can't ever become a run is set
//! aside with its reason, and what can't right now comes again.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::launch::{self, Launch};
use super::super::on_record::keep;
use super::super::{Context, Error, Result};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::{Ask, ROUNDED_HINT, rounded};
use crate::error::{Coded as _, Finding, Kind};
use crate::hooks::ArgumentRule;
use crate::store::port::Message;
use crate::store::repo::queue_triggers::{Put, QueueTrigger, SetAside, message_run};
use crate::store::repo::runs::{Requester, StoredRun};
use crate::tenancy::Scope;

/// So many deliveries that failed for a reason that should have passed, and a message is set aside all the same.
pub const MAX_DELIVERIES: u32 = 10;
/// How long after its first failure a message comes again; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The most of that.
const LAST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long a message stays in its queue that can't be set aside, since there are too many.
const WITHOUT_ROOM: Duration = Duration::from_secs(3600);

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Took {
    /// It is out of the queue: there is a run, or it is set aside.
    Done,
    /// It comes again.
    Later,
    /// It comes again, and so would others that were tried now.
    Throttled,
}

/// The arguments that a message says.
pub(super) fn arguments(rule: &ArgumentRule, text: &str) -> Result<Map<String, Value>> {
    let value = value(text)?;
    match (rule, value) {
        (ArgumentRule::Wrap { name }, value) => Ok(Map::from_iter([(name.clone(), value)])),
        (ArgumentRule::Body, Value::Object(object)) => Ok(object),
        (ArgumentRule::Body, _) => Err(Error::invalid(
            "body_not_an_object",
            "the message must be a JSON object",
            "a queue trigger with `{\"wrap\": \"NAME\"}` takes every JSON value as one argument",
            Vec::new(),
        )),
    }
}

/// JSON, or JSON in base64: clients of the queue service differ in what they send.
fn value(text: &str) -> Result<Value> {
    let plain = text.trim_start_matches('\u{feff}');
    let error = match serde_json::from_str(plain) {
        Ok(value) => return whole(value, plain.as_bytes()),
        Err(error) => error,
    };
    if let Ok(decoded) = STANDARD.decode(plain.trim())
        && let Ok(value) = serde_json::from_slice(&decoded)
    {
        return whole(value, &decoded);
    }
    let place = format!("line {}, column {}", error.line(), error.column());
    Err(Error::invalid(
        "queue_message_unreadable",
        "the message is not JSON",
        "send JSON, as it is or in base64",
        vec![Finding::new("", "invalid", format!("the message is not JSON: {place}"))],
    ))
}

/// What was read of a text, where nothing of it was rounded.
fn whole(value: Value, text: &[u8]) -> Result<Value> {
    match rounded(text) {
        None => Ok(value),
        Some(found) => {
            let detail = found.to_string();
            let finding = Finding::new("", "invalid", detail.as_str());
            Err(Error::invalid(
                "queue_message_unreadable",
                detail,
                ROUNDED_HINT,
                vec![finding],
            ))
        }
    }
}

/// Starts the run of a message, or finds the one that it has started. `again` says that it may have.
pub(super) async fn start(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    trigger: &QueueTrigger,
    (message, text): (&str, &str),
    again: bool,
) -> Result<(StoredRun, bool)> {
    let run = message_run(scope, &trigger.id, message);
    // Before anything is checked: what was good when it came is not refused for what has changed since.
    if again && let Some(run) = cx.runs.get(scope, &run).await? {
        return Ok((run, true));
    }
    let arguments = arguments(&trigger.arguments, text)?;
    let launch = Launch {
        run,
        prepared: launch::prepare(cx, scope, origin, &trigger.workflow, &arguments, None).await?,
        requester: Requester {
            kind: "system".to_owned(),
            id: format!("queue:{}", trigger.id),
            name: trigger.name.to_string(),
            claimed_user: None,
        },
        origin,
        ask: Ask::default(),
        parent: None,
        resumes: None,
        cause: json!({"queueTrigger": trigger.id, "message": message}),
    };
    launch::enqueue(cx, scope, launch).await
}

/// Handles one delivery of a message.
pub(super) async fn take(cx: &Arc<Context>, scope: &Scope, trigger: &QueueTrigger, message: &Message) -> Result<Took> {
    let origin = Origin {
        endpoint: "queue_trigger".to_owned(),
        ..Origin::default()
    };
    let (triggers, id, receipt) = (&cx.queue_triggers, &trigger.id, &message.receipt);
    let again = message.dequeue_count > 1;
    let error = match start(cx, scope, &origin, trigger, (&receipt.id, &message.text), again).await {
        Ok(_) => {
            triggers.done(scope, id, receipt).await?;
            return Ok(Took::Done);
        }
        Err(error) => error,
    };
    let kind = error.kind();
    let may_pass = matches!(kind, Kind::Unavailable | Kind::Throttled | Kind::Internal);
    // That there is too much to do is no message's fault, however long it takes.
    if may_pass && (kind == Kind::Throttled || message.dequeue_count < MAX_DELIVERIES) {
        tracing::warn!(
            queue_trigger.id = %id,
            deliveries = message.dequeue_count,
            error = &error as &dyn std::error::Error,
            "a message could not start its run, and is delivered again"
        );
        triggers.later(scope, id, receipt, pause(message.dequeue_count)).await?;
        return Ok(if kind == Kind::Throttled {
            Took::Throttled
        } else {
            Took::Later
        });
    }
    let now = cx.clock.now();
    let fact = SetAside::new(message, now, error.code(), &error.to_string(), error.findings());
    if triggers.set_aside(scope, id, &fact, &message.text).await? == Put::Full {
        tracing::warn!(queue_trigger.id = %id, "as many messages are set aside as may be; a bad one stays in the queue");
        triggers.later(scope, id, receipt, WITHOUT_ROOM).await?;
        return Ok(Took::Later);
    }
    // Also when it was there: whoever wrote it may have died before this.
    let record = cx
        .audit
        .by(scope, AuditEvent::QueueMessageSetAside)
        .came_from(&origin)
        .resource("queue_trigger", id.as_str())
        .detail(&json!({"message": fact.message, "code": fact.code, "deliveries": fact.deliveries}));
    keep(cx, scope, record).await?;
    triggers.done(scope, id, receipt).await?;
    Ok(Took::Done)
}

fn pause(deliveries: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << deliveries.saturating_sub(1).min(10));
    doubled.min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_in_any_dress() {
        let whole = Map::from_iter([("a".to_owned(), json!(1))]);
        for text in ["{\"a\":1}", "\u{feff}{\"a\": 1}", "eyJhIjoxfQ==", "eyJhIjoxfQ==\n"] {
            assert_eq!(arguments(&ArgumentRule::Body, text).unwrap(), whole, "{text}");
        }
        for (text, code) in [
            ("", "queue_message_unreadable"),
            ("hello", "queue_message_unreadable"),
            ("{\"a\":", "queue_message_unreadable"),
            ("aGVsbG8=", "queue_message_unreadable"),
            ("[1]", "body_not_an_object"),
            ("{\"a\": 18446744073709551616}", "queue_message_unreadable"),
            ("eyJhIjoxODQ0Njc0NDA3MzcwOTU1MTYxNn0=", "queue_message_unreadable"),
        ] {
            assert_eq!(arguments(&ArgumentRule::Body, text).unwrap_err().code(), code, "{text}");
        }
        let wrap = ArgumentRule::Wrap { name: "event".into() };
        assert_eq!(arguments(&wrap, "[1]").unwrap()["event"], json!([1]));
    }

    #[test]
    fn pauses_grow_and_end() {
        let seconds: Vec<_> = [1, 2, 3, 9, 40].map(|n| pause(n).as_secs()).into();
        assert_eq!(seconds, [5, 10, 20, 900, 900]);
    }
}
