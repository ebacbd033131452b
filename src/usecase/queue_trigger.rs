//! Queue triggers: make, change, delete, look at; let others send to their queues; and look after messages that were set
//! aside. What takes messages out of the queues is in `poll`, what becomes of one in `message`.

mod message;
mod poll;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use self::message::MAX_DELIVERIES;
pub(super) use self::poll::poll_all;
pub use self::poll::{BATCH, LIST_EVERY, LONGEST, Polling, listen};
use super::hook::{ArgumentRule, Reader, argument_rule, listed};
use super::launch::Version;
use super::on_record::{keep, recorded};
use super::{Context, Error, Result, launch, provide_data, resolve};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Origin, Resource};
use crate::domain::{DisplayName, QueueTriggerId, RunId, Secret, Timestamp};
use crate::error::{Coded as _, Finding, Kind};
use crate::store;
use crate::store::key;
use crate::store::port::{Continuation, MAX_MESSAGE_BYTES};
use crate::store::repo::queue_triggers::{MAX_QUEUE_TRIGGERS, StoredAside, message_run};
pub use crate::store::repo::queue_triggers::{QueueTrigger, SetAside, StoredTrigger};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;

/// How long an address for senders is good unless the caller says otherwise: an hour.
pub const ADDRESS_SECONDS: u64 = 3600;
/// The bounds of that: a minute to seven days.
pub const ADDRESSES: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;

/// How long a message that is put back can't be dropped, unless it is known before that it stays.
const HELD: Duration = Duration::from_secs(120);
/// How long putting back may take: less than that by more than a call of storage takes.
const PUT_BACK: Duration = Duration::from_secs(80);
/// How often a message is tried to be written that others write.
const TRIES: usize = 8;

/// Members of an answer that mean nothing in a request, so that what was read can be changed and sent back.
const READ_ONLY: [&str; 7] = [
    "id",
    "queue",
    "createdBy",
    "createdAt",
    "updatedBy",
    "updatedAt",
    "setAside",
];

/// A page of the organization's queue triggers, in the order in which they were made.
///
/// # Errors
/// When the scope may not, the cursor is none, or storage fails.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    limit: usize,
    cursor: Option<String>,
) -> Result<(Vec<StoredTrigger>, Option<String>)> {
    scope.authorize(Action::List, Resource::QueueTrigger)?;
    let with_cursor = cursor.is_some();
    let page = cx.queue_triggers.list(scope, limit, cursor.map(Continuation)).await;
    let (items, next) = page.map_err(|error| Error::of_page(error, with_cursor))?;
    Ok((items, next.map(|next| next.0)))
}

/// One of them, and how many of its messages are set aside.
///
/// # Errors
/// When the scope may not, there is none of this id in the organization, or storage fails.
pub async fn get(cx: &Context, scope: &Scope, id: &QueueTriggerId) -> Result<(StoredTrigger, u64)> {
    scope.authorize(Action::Read, Resource::QueueTrigger)?;
    let stored = existing(cx, scope, id).await?;
    Ok((stored, cx.queue_triggers.count_aside(scope, id).await?))
}

/// Makes a queue trigger with its queue.
///
/// # Errors
/// When the scope may not, something of it can't be, there are too many, or storage fails.
pub async fn create(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    members: &Map<String, Value>,
) -> Result<StoredTrigger> {
    may_change(scope, Action::Create)?;
    let settings = checked(cx, scope, members).await?;
    let (now, by) = (cx.clock.now(), scope.principal().id());
    let trigger = QueueTrigger {
        id: QueueTriggerId::generate(now, cx.entropy.bytes()),
        name: settings.name,
        workflow: settings.workflow,
        arguments: settings.arguments,
        enabled: settings.enabled,
        created_by: by.clone(),
        created_at: now,
        updated_by: by,
        updated_at: now,
    };
    let create = async {
        let created = cx.queue_triggers.create(scope, trigger.clone(), now).await?;
        created.ok_or_else(|| {
            Error::conflict(
                "queue_triggers_full",
                format!("the organization has {MAX_QUEUE_TRIGGERS} queue triggers already"),
                "delete one that is not needed",
            )
        })
    };
    let record = || audited(cx, scope, origin, AuditEvent::QueueTriggerCreated, &trigger.id).detail(&shown(&trigger));
    let stored = recorded(cx, scope, record, create).await?;
    cx.polling.list_changed();
    Ok(stored)
}

/// Replaces a queue trigger's settings; its id and its queue stay.
///
/// # Errors
/// When the scope may not, there is none of this id, `if_tag` names another version, something can't be, or storage fails.
pub async fn replace(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    id: &QueueTriggerId,
    members: &Map<String, Value>,
    if_tag: Option<&str>,
) -> Result<StoredTrigger> {
    may_change(scope, Action::Modify)?;
    let before = existing(cx, scope, id).await?;
    same(&before, if_tag)?;
    let settings = checked(cx, scope, members).await?;
    let now = cx.clock.now();
    let trigger = QueueTrigger {
        name: settings.name,
        workflow: settings.workflow,
        arguments: settings.arguments,
        enabled: settings.enabled,
        updated_by: scope.principal().id(),
        updated_at: now,
        ..before.trigger.clone()
    };
    let replace = async {
        let replaced = cx.queue_triggers.replace(scope, &before, trigger.clone(), now).await;
        replaced.map_err(unwritten)
    };
    let record = || {
        audited(cx, scope, origin, AuditEvent::QueueTriggerChanged, id)
            .changes(&json!({"queueTrigger": {"from": shown(&before.trigger), "to": shown(&trigger)}}))
    };
    let stored = recorded(cx, scope, record, replace).await?;
    cx.polling.list_changed();
    Ok(stored)
}

/// Deletes a queue trigger with its queue and all messages, also those that were set aside. Runs that it has started stay.
///
/// # Errors
/// When the scope may not, there is none of this id, `if_tag` names another version, or storage fails.
pub async fn delete(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    id: &QueueTriggerId,
    if_tag: Option<&str>,
) -> Result<()> {
    scope.authorize(Action::Delete, Resource::QueueTrigger)?;
    let before = existing(cx, scope, id).await?;
    same(&before, if_tag)?;
    let delete = async { cx.queue_triggers.delete(scope, &before).await.map_err(unwritten) };
    let record = || audited(cx, scope, origin, AuditEvent::QueueTriggerDeleted, id).detail(&shown(&before.trigger));
    recorded(cx, scope, record, delete).await?;
    cx.polling.list_changed();
    Ok(())
}

/// An address at which messages can be sent.
#[derive(Debug)]
pub struct SenderAddress {
    /// The address; whoever knows it may send.
    pub url: Secret,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Gives out an address of the storage account at which whoever knows it may send messages to the trigger's queue for so many
/// seconds, and do nothing else.
///
/// # Errors
/// When the scope may not, there is no such trigger, the time is out of bounds, this storage has no addresses, or it fails.
pub async fn open(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    id: &QueueTriggerId,
    seconds: Option<u64>,
) -> Result<SenderAddress> {
    may_change(scope, Action::Modify)?;
    existing(cx, scope, id).await?;
    let seconds = seconds.unwrap_or(ADDRESS_SECONDS);
    if !ADDRESSES.contains(&seconds) {
        let (least, most) = (ADDRESSES.start(), ADDRESSES.end());
        let message = format!("an address is good for {least} to {most} seconds");
        return Err(invalid(vec![Finding::new("/validSeconds", "out_of_range", message)]));
    }
    let now = cx.clock.now();
    let expires_at = now.plus(Duration::from_secs(seconds));
    let Some(url) = cx.queue_triggers.sender_address(scope, id, now, expires_at).await? else {
        return Err(Error::conflict(
            "queue_access_unavailable",
            "the storage of this installation can't give out addresses of queues",
            format!("send through the API: `POST /api/queue-triggers/{id}/messages`"),
        ));
    };
    // Before it is told: nobody has an address of which there is no record.
    let record = audited(cx, scope, origin, AuditEvent::QueueTriggerOpened, id);
    keep(cx, scope, record.detail(&json!({"expiresAt": expires_at}))).await?;
    Ok(SenderAddress { url, expires_at })
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The id that the queue has given it.
    pub message: String,
    /// The run that it leads to, once it is taken out of the queue.
    pub run: RunId,
}

/// Sends a message to a trigger's queue, on any storage. What would be set aside is refused at once.
///
/// # Errors
/// When the scope may not, there is no such trigger, the message is too large, its workflow is gone or doesn't take it, or
/// storage fails.
pub async fn send(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    id: &QueueTriggerId,
    message: &Map<String, Value>,
) -> Result<Sent> {
    scope.authorize(Action::Run, Resource::QueueTrigger)?;
    let stored = existing(cx, scope, id).await?;
    let text = Value::Object(message.clone()).to_string();
    if text.len() > MAX_MESSAGE_BYTES {
        return Err(Error::Request {
            kind: Kind::TooLarge,
            code: "queue_message_too_large",
            detail: format!("the message has {} bytes, and may have {MAX_MESSAGE_BYTES}", text.len()),
            hint: Some("keep what is large elsewhere, and send where it is".to_owned()),
            findings: Vec::new(),
        });
    }
    let arguments = message::arguments(&stored.trigger.arguments, &text)?;
    let called = (stored.trigger.workflow.as_str(), Version::Called);
    let checked = launch::check(cx, scope, called, &arguments, None).await?;
    provide_data::options_hold(cx, scope, origin, checked.found.declared(), &checked.arguments).await?;
    // Who sends is on record before; how the queue calls it is only known then.
    let record = |detail: Value| audited(cx, scope, origin, AuditEvent::QueueMessageSent, id).detail(&detail);
    keep(cx, scope, record(json!({"begun": true, "bytes": text.len()}))).await?;
    let message = match cx.queue_triggers.send(scope, id, &text).await {
        // Taken away by somebody else than us.
        Err(store::Error::NotFound { .. }) => {
            cx.queue_triggers.mend(scope, id).await?;
            cx.queue_triggers.send(scope, id, &text).await?
        }
        sent => sent?,
    };
    cx.polling.wake(id);
    keep(cx, scope, record(json!({"message": message, "bytes": text.len()}))).await?;
    Ok(Sent {
        run: message_run(scope, id, &message),
        message,
    })
}

/// A page of a trigger's messages that were set aside, the newest first.
///
/// # Errors
/// When the scope may not, there is no such trigger, the cursor is none, or storage fails.
pub async fn list_set_aside(
    cx: &Context,
    scope: &Scope,
    id: &QueueTriggerId,
    limit: usize,
    cursor: Option<String>,
) -> Result<(Vec<SetAside>, Option<String>)> {
    scope.authorize(Action::Read, Resource::QueueTrigger)?;
    existing(cx, scope, id).await?;
    let with_cursor = cursor.is_some();
    let cursor = cursor.map(Continuation);
    let page = cx.queue_triggers.list_aside(scope, id, limit, cursor).await;
    let (items, next) = page.map_err(|error| Error::of_page(error, with_cursor))?;
    Ok((items, next.map(|next| next.0)))
}

/// One of them, with its text.
///
/// # Errors
/// When the scope may not, there is no such trigger or message, or storage fails.
pub async fn get_set_aside(
    cx: &Context,
    scope: &Scope,
    id: &QueueTriggerId,
    message: &str,
) -> Result<(SetAside, String)> {
    scope.authorize(Action::Read, Resource::QueueTrigger)?;
    existing(cx, scope, id).await?;
    let aside = aside(cx, scope, id, message).await?;
    Ok((aside.fact, aside.text))
}

/// Puts a message back that was set aside: it starts its run now, or is refused with what is wrong with it and stays where it
/// is. The run is the one that it would have started, so putting it back twice starts one. Nobody drops it meanwhile.
///
/// # Errors
/// When the scope may not, there is no such trigger or message, it still can't start a run, or storage fails.
pub async fn put_back(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    id: &QueueTriggerId,
    message: &str,
) -> Result<StoredRun> {
    may_change(scope, Action::Modify)?;
    let stored = existing(cx, scope, id).await?;
    let SetAside { message: known, .. } = aside(cx, scope, id, message).await?.fact;
    let detail = json!({"message": known, "run": message_run(scope, id, &known)});
    let record = || audited(cx, scope, origin, AuditEvent::QueueMessagePutBack, id).detail(&detail);
    let put_back = async {
        let (held, was_held) = hold(cx, scope, id, message).await?;
        let as_it_says = (held.fact.message.as_str(), held.text.as_str());
        let start = Box::pin(message::start(cx, scope, origin, &stored.trigger, as_it_says, true));
        let started = match tokio::time::timeout(PUT_BACK, start).await {
            Ok(started) => started,
            Err(_) => Err(Error::unavailable(
                "storage_unavailable",
                "the run could not be started in time",
                "put the message back again",
            )),
        };
        match started {
            Ok((run, _)) => {
                cx.queue_triggers.done_aside(scope, id, &held.fact.id).await?;
                Ok(run)
            }
            Err(error) => {
                // It is known that there is no run, unless somebody else is at it.
                let is_known = !matches!(error.kind(), Kind::Unavailable | Kind::Throttled | Kind::Internal);
                if is_known && !was_held {
                    let at_once = cx.clock.now();
                    cx.queue_triggers.hold_aside(scope, id, &held, at_once).await?;
                }
                Err(error)
            }
        }
    };
    recorded(cx, scope, record, put_back).await
}

/// Keeps a message from being dropped while it is put back; and whether somebody else does so.
async fn hold(cx: &Context, scope: &Scope, id: &QueueTriggerId, message: &str) -> Result<(StoredAside, bool)> {
    for _ in 0..TRIES {
        let now = cx.clock.now();
        let read = aside(cx, scope, id, message).await?;
        let was_held = read.held_until.is_some_and(|until| until > now);
        if let Some(held) = cx.queue_triggers.hold_aside(scope, id, &read, now.plus(HELD)).await? {
            return Ok((held, was_held));
        }
    }
    Err(busy())
}

/// Drops a message that was set aside, for good. One that is being put back, or was, can't be dropped.
///
/// # Errors
/// When the scope may not, there is no such trigger or message, somebody puts it back, or storage fails.
pub async fn drop_set_aside(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    id: &QueueTriggerId,
    message: &str,
) -> Result<()> {
    scope.authorize(Action::Modify, Resource::QueueTrigger)?;
    existing(cx, scope, id).await?;
    let fact = droppable(cx, scope, id, message).await?.fact;
    let detail = json!({"message": fact.message, "code": fact.code, "bytes": fact.size});
    let record = || audited(cx, scope, origin, AuditEvent::QueueMessageDropped, id).detail(&detail);
    let drop = async {
        for _ in 0..TRIES {
            let read = droppable(cx, scope, id, message).await?;
            if cx.queue_triggers.drop_aside(scope, id, &read).await? {
                return Ok(());
            }
        }
        Err(busy())
    };
    recorded(cx, scope, record, drop).await
}

/// A message that nobody puts back, and nobody has.
async fn droppable(cx: &Context, scope: &Scope, id: &QueueTriggerId, message: &str) -> Result<StoredAside> {
    let read = aside(cx, scope, id, message).await?;
    let Some(until) = read.held_until else { return Ok(read) };
    let put_back = |what: String| {
        let hint = format!("`GET /api/queue-triggers/{id}/set-aside` shows whether it is still there in two minutes");
        Err(Error::conflict("queue_message_put_back", what, hint))
    };
    if until > cx.clock.now() {
        return put_back("somebody is putting the message back".to_owned());
    }
    // Whoever has put it back may have died before it was taken away.
    let run = message_run(scope, id, &read.fact.message);
    match cx.runs.get(scope, &run).await {
        Ok(None) => Ok(read),
        Ok(Some(_)) | Err(store::Error::Unreadable { .. }) => {
            cx.queue_triggers.done_aside(scope, id, &read.fact.id).await?;
            put_back(format!("the message was put back, and has started run `{run}`"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The name of a trigger's queue, for whoever gives others a right to it in the storage account.
#[must_use]
pub fn queue_of(trigger: &QueueTrigger) -> String {
    key::trigger_queue(&trigger.id).to_string()
}

// ── what they have in common ───────────────────────────────────────────────────────────────────────────────────────────

/// Whoever makes a queue trigger has runs started, so whoever may not start one may not do that either.
fn may_change(scope: &Scope, action: Action) -> Result<()> {
    scope.authorize(action, Resource::QueueTrigger)?;
    scope.authorize(Action::Run, Resource::Workflow)?;
    Ok(())
}

async fn existing(cx: &Context, scope: &Scope, id: &QueueTriggerId) -> Result<StoredTrigger> {
    cx.queue_triggers.get(scope, id).await?.ok_or_else(|| {
        Error::not_found(
            "queue_trigger_not_found",
            format!("there is no queue trigger `{id}` in this organization"),
            "`GET /api/queue-triggers` lists those that there are",
        )
    })
}

async fn aside(cx: &Context, scope: &Scope, id: &QueueTriggerId, message: &str) -> Result<StoredAside> {
    let found = cx.queue_triggers.get_aside(scope, id, message).await?;
    found.ok_or_else(|| {
        Error::not_found(
            "queue_message_not_found",
            format!("no message `{message:.60}` of this queue trigger is set aside"),
            format!("`GET /api/queue-triggers/{id}/set-aside` lists those that are"),
        )
    })
}

fn busy() -> Error {
    Error::unavailable(
        "conflict",
        "the message was changed by others at every try",
        "repeat the request",
    )
}

fn same(stored: &StoredTrigger, if_tag: Option<&str>) -> Result<()> {
    if if_tag.is_none_or(|tag| tag == stored.tag()) {
        return Ok(());
    }
    Err(changed())
}

fn changed() -> Error {
    Error::Request {
        kind: Kind::PreconditionFailed,
        code: "queue_trigger_changed",
        detail: "the queue trigger is no longer the one that was to be changed".to_owned(),
        hint: Some("read it again, apply the change to it, and send its `ETag` as `If-Match`".to_owned()),
        findings: Vec::new(),
    }
}

fn unwritten(error: store::Error) -> Error {
    match error {
        store::Error::PreconditionFailed { .. } => changed(),
        other => other.into(),
    }
}

fn audited(cx: &Context, scope: &Scope, origin: &Origin, event: AuditEvent, id: &QueueTriggerId) -> Record {
    let record = cx.audit.by(scope, event).came_from(origin);
    record.resource("queue_trigger", id.as_str())
}

/// What records say of a queue trigger.
fn shown(trigger: &QueueTrigger) -> Value {
    json!({
        "name": trigger.name.as_str(), "workflow": trigger.workflow, "enabled": trigger.enabled,
        "arguments": trigger.arguments,
    })
}

/// What of a queue trigger can be set.
struct Settings {
    name: DisplayName,
    workflow: String,
    arguments: ArgumentRule,
    enabled: bool,
}

fn invalid(findings: Vec<Finding>) -> Error {
    let detail = format!("the queue trigger has {} finding(s)", findings.len());
    let hint = "docs/queue-triggers.md describes every member";
    Error::invalid("queue_trigger_invalid", detail, hint, findings)
}

/// The settings that members say, or everything that is wrong with them.
async fn checked(cx: &Context, scope: &Scope, members: &Map<String, Value>) -> Result<Settings> {
    const KNOWN: [&str; 4] = ["name", "workflow", "arguments", "enabled"];
    let mut findings = Vec::new();
    let mut reader = Reader {
        members,
        findings: &mut findings,
    };
    for name in members.keys().map(String::as_str) {
        if !KNOWN.contains(&name) && !READ_ONLY.contains(&name) {
            let message = format!("a queue trigger has no such member; it has {}", listed(&KNOWN));
            reader.find(&format!("/{name}"), "unknown", message);
        }
    }
    let name = reader
        .required("name")
        .and_then(|text| match text.parse::<DisplayName>() {
            Ok(name) => Some(name),
            Err(error) => {
                reader.find("/name", "invalid", error.to_string());
                None
            }
        });
    let arguments = argument_rule(&mut reader);
    let workflow = reader.required("workflow");
    if let Some(workflow) = &workflow {
        match resolve::resolve(cx, scope, workflow).await {
            Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Conflict) => return Err(error),
            Err(error) => {
                let finding = Finding::new("/workflow", "unknown", error.to_string());
                let hint = "`GET /api/workflows` lists those that there are";
                reader.findings.push(finding.hint(hint));
            }
            Ok(found) => {
                let declared = found.declared();
                if let Some(ArgumentRule::Wrap { name }) = &arguments
                    && !declared.parameters.iter().any(|parameter| parameter.name == *name)
                {
                    let message = format!("`{workflow}` has no parameter `{name:.60}`");
                    reader.find("/arguments/wrap", "unknown", message);
                }
            }
        }
    }
    let enabled = reader.flag("enabled", true);
    match (name, workflow, arguments) {
        (Some(name), Some(workflow), Some(arguments)) if findings.is_empty() => Ok(Settings {
            name,
            workflow,
            arguments,
            enabled,
        }),
        _ => Err(invalid(findings)),
    }
}
