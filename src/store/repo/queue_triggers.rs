//! Queue triggers: each in its organization's table, with a queue of its own, and a row in the platform's one list of all of
//! them, by which instances know which queues to look at. Messages that could not start a run are set aside in the
//! organization's table.
//!
//! The row of the list is a hint: it is written before the trigger, and says nothing about what is done with a message. What
//! counts is the trigger's own row. One that leads to none is deleted together with the queue, once it is old enough that
//! nobody can be about to write what it leads to.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::{DisplayName, OrgId, QueueTriggerId, RunId, Secret, Timestamp, sha256_hex};
use crate::error::Finding;
use crate::hooks::ArgumentRule;
use crate::store::cursor;
use crate::store::error::Error;
use crate::store::key::{self, PlatformTable};
use crate::store::port::{
    Continuation, ETag, Entity, MAX_BATCH_OPERATIONS, Match, Message, MessageReceipt, Operation, Ports, Properties,
    Query, Result,
};
use crate::tenancy::{DueRef, PlatformScope, Scope};

/// Most queue triggers of an organization.
pub const MAX_QUEUE_TRIGGERS: i64 = 100;
/// Most messages of a trigger that are set aside at once.
pub const MAX_SET_ASIDE: i64 = 500;
/// Most findings that are kept of a message.
pub const KEPT_FINDINGS: usize = 10;

const SCHEMA: i64 = 1;
/// How often a write that met another one is tried again.
const TRIES: u32 = 30;
/// Most characters of a reason.
const MAX_REASON: usize = 300;
/// A row of the list that leads to no trigger is taken away when it is so old: nobody is about to write the trigger.
const ORPHANED: Duration = Duration::from_secs(10 * 60);

/// A queue trigger as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueTrigger {
    /// Its id, from which its queue's name follows.
    pub id: QueueTriggerId,
    /// What people call it.
    pub name: DisplayName,
    /// What a message runs.
    pub workflow: String,
    /// How a message becomes arguments.
    pub arguments: ArgumentRule,
    /// Whether messages are taken out of the queue.
    pub enabled: bool,
    /// The id of the principal who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// The id of the principal who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: Timestamp,
}

/// The same with its version.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTrigger {
    /// The trigger.
    pub trigger: QueueTrigger,
    etag: ETag,
}

impl StoredTrigger {
    /// Names its content: two triggers of the same content have the same tag.
    #[must_use]
    pub fn tag(&self) -> String {
        let text = json!(self.trigger).to_string();
        sha256_hex(text.as_bytes()).chars().take(32).collect()
    }
}

/// A row of the list of all triggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTrigger {
    /// Whose it is, and its id.
    pub what: DueRef,
    /// Its id.
    pub id: QueueTriggerId,
    /// Whether its queue is to be looked at.
    pub enabled: bool,
    put_at: Timestamp,
    etag: ETag,
}

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What it is called among those that were set aside: 32 hexadecimal digits.
    pub id: String,
    /// The id that its queue gave it, from which its run's follows.
    pub message: String,
    /// When it was set aside.
    pub at: Timestamp,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why: a code.
    pub code: String,
    /// Why: a sentence.
    pub reason: String,
    /// What is wrong with it, at most [`KEPT_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Its size in bytes.
    pub size: u64,
}

impl SetAside {
    /// What is known of a message that is to be set aside.
    #[must_use]
    pub fn new(message: &Message, at: Timestamp, code: &str, reason: &str, findings: &[Finding]) -> Self {
        Self {
            id: sha256_hex(message.receipt.id.as_bytes()).chars().take(32).collect(),
            message: message.receipt.id.clone(),
            at,
            deliveries: message.dequeue_count,
            code: code.to_owned(),
            reason: reason.chars().take(MAX_REASON).collect(),
            findings: findings.iter().take(KEPT_FINDINGS).cloned().collect(),
            size: u64::try_from(message.text.len()).unwrap_or(u64::MAX),
        }
    }
}

/// A message that was set aside, as it was read.
#[derive(Debug, Clone)]
pub struct StoredAside {
    /// What is known of it.
    pub fact: SetAside,
    /// What it says.
    pub text: String,
    /// Until when nobody drops it, since somebody puts it back; none when nobody ever has.
    pub held_until: Option<Timestamp>,
    etag: ETag,
}

/// What came of setting a message aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is set aside.
    New,
    /// It was before.
    There,
    /// There are as many as there may be.
    Full,
}

/// Queue triggers of organizations.
#[derive(Debug, Clone)]
pub struct QueueTriggers {
    ports: Ports,
}

impl QueueTriggers {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    // ── triggers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Writes a new one with its queue; nothing when the organization has as many as it may.
    ///
    /// # Errors
    /// Those of the stores. What is left behind then is taken away by whoever polls, after ten minutes.
    pub async fn create(&self, scope: &Scope, trigger: QueueTrigger, now: Timestamp) -> Result<Option<StoredTrigger>> {
        self.list_it(scope, &trigger, now).await?;
        self.ports.queues.create_queue(&key::trigger_queue(&trigger.id)).await?;
        let operation = Operation::Insert(key::queue_trigger_row(&trigger.id), write(&trigger));
        match self.counted(scope, operation, 1).await? {
            Some(etag) => Ok(Some(StoredTrigger { trigger, etag })),
            None => {
                self.unlist(&trigger.id, Match::Any).await?;
                Ok(None)
            }
        }
    }

    /// One of the organization, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope, id: &QueueTriggerId) -> Result<Option<StoredTrigger>> {
        let (table, row) = (key::org_table(scope.org()), key::queue_trigger_row(id));
        let row = self.ports.tables.get(&table, &key::queue_triggers(), &row).await?;
        row.map(|row| read(&row)).transpose()
    }

    /// A page of at most `limit`, in the order in which they were made.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a continuation that is none.
    pub async fn list(
        &self,
        scope: &Scope,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<(Vec<StoredTrigger>, Option<Continuation>)> {
        let query = Query::partition(key::queue_triggers())
            .prefix(key::QUEUE_TRIGGERS)?
            .limit(limit)
            .after(after);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        Ok((page.entities.iter().map(read).collect::<Result<_>>()?, page.next))
    }

    /// Writes one in place of what was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first, or it is gone.
    pub async fn replace(
        &self,
        scope: &Scope,
        before: &StoredTrigger,
        trigger: QueueTrigger,
        now: Timestamp,
    ) -> Result<StoredTrigger> {
        let row = key::queue_trigger_row(&trigger.id);
        let operations = vec![Operation::Replace(
            row,
            write(&trigger),
            Match::Exactly(before.etag.clone()),
        )];
        // Before, where it is switched on: whoever dies between the two leaves a queue that is looked at for nothing.
        if trigger.enabled {
            self.list_it(scope, &trigger, now).await?;
        }
        let table = key::org_table(scope.org());
        let etags = self
            .ports
            .tables
            .commit(&table, &key::queue_triggers(), operations)
            .await?;
        if !trigger.enabled {
            self.list_it(scope, &trigger, now).await?;
        }
        let etag = etags.into_iter().next();
        Ok(StoredTrigger {
            trigger,
            etag: etag.ok_or_else(|| Error::corrupt("a commit answered no ETag"))?,
        })
    }

    /// Deletes one as it was read, with its queue, the messages in it, and those that were set aside. The trigger goes first:
    /// from then on nobody begins with a message but who has some at hand.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first, or it is gone. Should storage fail later, whoever polls
    /// takes the rest away.
    pub async fn delete(&self, scope: &Scope, stored: &StoredTrigger) -> Result<()> {
        let id = &stored.trigger.id;
        let operation = Operation::Delete(key::queue_trigger_row(id), Match::Exactly(stored.etag.clone()));
        self.counted(scope, operation, -1).await?;
        self.clear(scope, id).await?;
        self.unlist(id, Match::Any).await
    }

    /// Does it together with the change of the number: the new version, or nothing when there is no room.
    async fn counted(&self, scope: &Scope, operation: Operation, by: i64) -> Result<Option<ETag>> {
        let table = key::org_table(scope.org());
        let (partition, count_row) = (key::queue_triggers(), key::queue_trigger_count_row());
        for _ in 0..TRIES {
            let count = self.ports.tables.get(&table, &partition, &count_row).await?;
            let Some(counting) = counting(count, &count_row, by, MAX_QUEUE_TRIGGERS)? else {
                return Ok(None);
            };
            let operations = vec![operation.clone(), counting];
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(etags) => return Ok(Some(etags.into_iter().next().unwrap_or_else(|| ETag(String::new())))),
                // Another one came or went at the same time.
                Err(Error::AlreadyExists { index: 1, .. } | Error::PreconditionFailed { index: 1, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended(count_row.as_str()))
    }

    // ── the list of all ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Every trigger of every organization, also those that are switched off: one query for a thousand.
    ///
    /// # Errors
    /// Those of the table store. Rows that can't be read are left out, and counted.
    pub async fn all(&self, _: &PlatformScope) -> Result<(Vec<ListedTrigger>, usize)> {
        let (mut listed, mut unreadable, mut after) = (Vec::new(), 0, None);
        loop {
            let query = Query::partition(key::all_queue_triggers()).after(after);
            let page = self
                .ports
                .tables
                .query(&PlatformTable::QueueTriggers.name(), query)
                .await?;
            for row in &page.entities {
                match read_listed(row) {
                    Ok(row) => listed.push(row),
                    Err(_) => unreadable += 1,
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok((listed, unreadable));
            }
        }
    }

    /// Takes a row of the list away that leads to no trigger, with all that is left of it. Whether it was done: not, while the
    /// trigger may be about to be written.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn forget(&self, scope: &Scope, listed: &ListedTrigger, now: Timestamp) -> Result<bool> {
        if now.since(listed.put_at) < ORPHANED {
            return Ok(false);
        }
        match self.clear(scope, &listed.id).await {
            // The organization was deleted with its table.
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.unlist(&listed.id, Match::Exactly(listed.etag.clone())).await?;
        Ok(true)
    }

    /// Makes the queue of a trigger again, should it be gone.
    ///
    /// # Errors
    /// Those of the queue store.
    pub async fn mend(&self, _: &Scope, id: &QueueTriggerId) -> Result<()> {
        self.ports.queues.create_queue(&key::trigger_queue(id)).await
    }

    async fn list_it(&self, scope: &Scope, trigger: &QueueTrigger, now: Timestamp) -> Result<()> {
        let properties = Properties::new()
            .with("v", SCHEMA)
            .with("organization", scope.org().as_str())
            .with("enabled", trigger.enabled)
            .with("putAt", now);
        let operations = vec![Operation::Upsert(key::queue_trigger_row(&trigger.id), properties)];
        let table = PlatformTable::QueueTriggers.name();
        self.ports
            .tables
            .commit(&table, &key::all_queue_triggers(), operations)
            .await?;
        Ok(())
    }

    /// First the queue: while the row is there, somebody comes back to it.
    async fn unlist(&self, id: &QueueTriggerId, matching: Match) -> Result<()> {
        self.ports.queues.delete_queue(&key::trigger_queue(id)).await?;
        let operations = vec![Operation::Delete(key::queue_trigger_row(id), matching)];
        let table = PlatformTable::QueueTriggers.name();
        let deleted = self
            .ports
            .tables
            .commit(&table, &key::all_queue_triggers(), operations)
            .await;
        match deleted {
            Ok(_) | Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    // ── its queue ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Sends a message to a trigger of the organization; its id.
    ///
    /// # Errors
    /// Those of the queue store; [`Error::TooLarge`].
    pub async fn send(&self, _: &Scope, id: &QueueTriggerId, text: &str) -> Result<String> {
        let queue = key::trigger_queue(id);
        // Two messages would be two runs: each run's id is that of its message.
        Ok(self.ports.queues.send_once(&queue, text).await?.id)
    }

    /// Receives at most `max` (1 to 32) messages of a trigger of the organization, and hides them from others meanwhile.
    ///
    /// # Errors
    /// Those of the queue store; [`Error::NotFound`] when the queue is gone.
    pub async fn receive(&self, _: &Scope, id: &QueueTriggerId, max: usize, hidden: Duration) -> Result<Vec<Message>> {
        self.ports.queues.receive(&key::trigger_queue(id), max, hidden).await
    }

    /// Takes a message out of the queue for good; whether it was still ours.
    ///
    /// # Errors
    /// Those of the queue store.
    pub async fn done(&self, _: &Scope, id: &QueueTriggerId, receipt: &MessageReceipt) -> Result<bool> {
        match self.ports.queues.delete(&key::trigger_queue(id), receipt).await {
            // The trigger was deleted meanwhile.
            Err(Error::NotFound { .. }) => Ok(false),
            other => other,
        }
    }

    /// Lets a message be delivered again after a while; nothing happens when it is no longer ours.
    ///
    /// # Errors
    /// Those of the queue store.
    pub async fn later(&self, _: &Scope, id: &QueueTriggerId, receipt: &MessageReceipt, after: Duration) -> Result<()> {
        match self.ports.queues.extend(&key::trigger_queue(id), receipt, after).await {
            Ok(_) | Err(Error::NotFound { .. } | Error::PreconditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// An address at which others may send to the queue of a trigger of the organization; nothing where there is none.
    ///
    /// # Errors
    /// Those of the queue store.
    pub async fn sender_address(
        &self,
        _: &Scope,
        id: &QueueTriggerId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Secret>> {
        let queue = key::trigger_queue(id);
        self.ports.queues.sender_address(&queue, now, until).await
    }

    // ── messages that were set aside ──────────────────────────────────────────────────────────────────────────────────

    /// Sets a message aside, with its text.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn set_aside(&self, scope: &Scope, id: &QueueTriggerId, fact: &SetAside, text: &str) -> Result<Put> {
        let properties = Properties::new()
            .with("v", SCHEMA)
            .with("message", fact.message.as_str())
            .with("at", fact.at)
            .with("deliveries", i64::from(fact.deliveries))
            .with("code", fact.code.as_str())
            .with("reason", fact.reason.as_str())
            .with("findings", json!(fact.findings).to_string())
            .with("size", i64::try_from(fact.size).unwrap_or(i64::MAX));
        let mut properties = properties;
        // Bytes, since a text may have no more than half as many.
        properties.set("text", crate::store::port::Value::Bytes(text.as_bytes().to_vec()));
        let operation = Operation::Insert(key::set_aside_row(&fact.id), properties);
        match self.counted_aside(scope, id, operation, 1).await {
            Ok(true) => Ok(Put::New),
            Ok(false) => Ok(Put::Full),
            Err(Error::AlreadyExists { index: 0, .. }) => Ok(Put::There),
            Err(error) => Err(error),
        }
    }

    /// A page of at most `limit` messages, the newest first, without their texts; and how many there are in all.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a continuation that is none.
    pub async fn list_aside(
        &self,
        scope: &Scope,
        id: &QueueTriggerId,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<(Vec<SetAside>, Option<Continuation>)> {
        let (table, partition) = (key::org_table(scope.org()), key::set_aside(id));
        let place = [table.as_str(), partition.as_str()];
        let after = after.map(|after| cursor::read(&place, &after)).transpose()?;
        // All of them, since they stand in no order: they are few, and their texts stay where they are.
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let mut query = Query::partition(partition.clone()).prefix(key::SET_ASIDE)?.after(next);
            let members = ["v", "message", "at", "deliveries", "code", "reason", "findings", "size"];
            query.select = members.map(str::to_owned).into();
            let page = self.ports.tables.query(&table, query).await?;
            for row in &page.entities {
                all.push(read_aside(row)?);
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let order = |one: &SetAside| format!("{}:{}", one.at.reversed(), one.id);
        all.sort_by_cached_key(order);
        let mut rest = all
            .into_iter()
            .filter(|one| after.as_ref().is_none_or(|after| order(one) > *after));
        let items: Vec<_> = rest.by_ref().take(limit.max(1)).collect();
        let more = rest.next().is_some();
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| cursor::write(&place, &order(last)));
        Ok((items, next))
    }

    /// How many messages of a trigger are set aside.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn count_aside(&self, scope: &Scope, id: &QueueTriggerId) -> Result<u64> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::set_aside(id), &key::set_aside_count_row())
            .await?;
        let count = row.map_or(Ok(0), |row| row.properties.require_int("count"))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// One of them with its text, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get_aside(&self, scope: &Scope, id: &QueueTriggerId, message: &str) -> Result<Option<StoredAside>> {
        let table = key::org_table(scope.org());
        let row = key::set_aside_row(message);
        let Some(row) = self.ports.tables.get(&table, &key::set_aside(id), &row).await? else {
            return Ok(None);
        };
        let bytes = row.properties.bytes("text")?.unwrap_or_default();
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| Error::corrupt("a message is no text"))?;
        Ok(Some(StoredAside {
            fact: read_aside(&row)?,
            text,
            held_until: row.properties.time("heldUntil")?,
            etag: row.etag,
        }))
    }

    /// Keeps one of them from being dropped until then, as it was read; nothing when it was changed since, or is gone.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn hold_aside(
        &self,
        scope: &Scope,
        id: &QueueTriggerId,
        aside: &StoredAside,
        until: Timestamp,
    ) -> Result<Option<StoredAside>> {
        let (table, row) = (key::org_table(scope.org()), key::set_aside_row(&aside.fact.id));
        let held = Properties::new().with("heldUntil", until);
        let merge = vec![Operation::Merge(row, held, Match::Exactly(aside.etag.clone()))];
        match self.ports.tables.commit(&table, &key::set_aside(id), merge).await {
            Ok(etags) => Ok(etags.into_iter().next().map(|etag| StoredAside {
                held_until: Some(until),
                etag,
                ..aside.clone()
            })),
            Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes one of them away, whatever has become of it; whether it was there.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn done_aside(&self, scope: &Scope, id: &QueueTriggerId, message: &str) -> Result<bool> {
        self.remove_aside(scope, id, message, Match::Any).await
    }

    /// Takes one of them away as it was read; false when it was changed since, or is gone.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn drop_aside(&self, scope: &Scope, id: &QueueTriggerId, aside: &StoredAside) -> Result<bool> {
        let as_read = Match::Exactly(aside.etag.clone());
        self.remove_aside(scope, id, &aside.fact.id, as_read).await
    }

    async fn remove_aside(&self, scope: &Scope, id: &QueueTriggerId, message: &str, which: Match) -> Result<bool> {
        let operation = Operation::Delete(key::set_aside_row(message), which);
        match self.counted_aside(scope, id, operation, -1).await {
            Ok(_) => Ok(true),
            Err(Error::PreconditionFailed { index: 0, .. } | Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn counted_aside(&self, scope: &Scope, id: &QueueTriggerId, operation: Operation, by: i64) -> Result<bool> {
        let table = key::org_table(scope.org());
        let (partition, count_row) = (key::set_aside(id), key::set_aside_count_row());
        for _ in 0..TRIES {
            let count = self.ports.tables.get(&table, &partition, &count_row).await?;
            let Some(counting) = counting(count, &count_row, by, MAX_SET_ASIDE)? else {
                return Ok(false);
            };
            let operations = vec![operation.clone(), counting];
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => return Ok(true),
                Err(Error::AlreadyExists { index: 1, .. } | Error::PreconditionFailed { index: 1, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended(count_row.as_str()))
    }

    /// Takes every message of a trigger away that was set aside, and their number.
    async fn clear(&self, scope: &Scope, id: &QueueTriggerId) -> Result<()> {
        let (table, partition) = (key::org_table(scope.org()), key::set_aside(id));
        loop {
            let mut query = Query::partition(partition.clone()).limit(MAX_BATCH_OPERATIONS);
            query.select = vec!["v".to_owned()];
            let page = self.ports.tables.query(&table, query).await?;
            let operations: Vec<_> = page
                .entities
                .into_iter()
                .map(|row| Operation::Delete(row.row, Match::Any))
                .collect();
            if operations.is_empty() {
                return Ok(());
            }
            match self.ports.tables.commit(&table, &partition, operations).await {
                // Somebody dropped one meanwhile.
                Ok(_) | Err(Error::PreconditionFailed { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The change of a number by one more or one less; nothing when there are as many as there may be.
fn counting(row: Option<Entity>, at: &crate::store::port::Key, by: i64, most: i64) -> Result<Option<Operation>> {
    let known = row.as_ref().map_or(Ok(0), |row| row.properties.require_int("count"))?;
    if by > 0 && known >= most {
        return Ok(None);
    }
    let properties = Properties::new().with("v", SCHEMA).with("count", (known + by).max(0));
    Ok(Some(match row {
        None => Operation::Insert(at.clone(), properties),
        Some(row) => Operation::Replace(at.clone(), properties, Match::Exactly(row.etag)),
    }))
}

fn contended(what: &str) -> Error {
    Error::PreconditionFailed {
        what: what.to_owned(),
        index: 1,
    }
}

fn write(trigger: &QueueTrigger) -> Properties {
    Properties::new()
        .with("v", SCHEMA)
        .with("trigger", json!(trigger).to_string())
        .with("name", trigger.name.as_str())
        .with("workflow", trigger.workflow.as_str())
        .with("enabled", trigger.enabled)
        .with("updatedAt", trigger.updated_at)
}

fn read(row: &Entity) -> Result<StoredTrigger> {
    if row.properties.require_int("v")? != SCHEMA {
        return Err(Error::corrupt("a queue trigger is of a version that can't be read"));
    }
    let trigger: QueueTrigger = serde_json::from_str(row.properties.require_text("trigger")?)
        .map_err(|error| Error::corrupt(format!("a queue trigger can't be read: {error}")))?;
    if key::queue_trigger_row(&trigger.id) != row.row {
        return Err(Error::corrupt("a queue trigger stands in the row of another"));
    }
    Ok(StoredTrigger {
        trigger,
        etag: row.etag.clone(),
    })
}

fn read_listed(row: &Entity) -> Result<ListedTrigger> {
    let properties = &row.properties;
    let unreadable = || Error::corrupt("a row of the list of queue triggers can't be read");
    if properties.require_int("v")? != SCHEMA {
        return Err(unreadable());
    }
    let id: QueueTriggerId = row.row.as_str().parse().map_err(|_| unreadable())?;
    let org: OrgId = properties
        .require_text("organization")?
        .parse()
        .map_err(|_| unreadable())?;
    Ok(ListedTrigger {
        what: DueRef {
            org,
            id: id.to_string(),
        },
        id,
        enabled: properties.flag("enabled")?,
        put_at: properties.require_time("putAt")?,
        etag: row.etag.clone(),
    })
}

fn read_aside(row: &Entity) -> Result<SetAside> {
    let properties = &row.properties;
    let unreadable = || Error::corrupt("a message that was set aside can't be read");
    if properties.require_int("v")? != SCHEMA {
        return Err(unreadable());
    }
    let id = row.row.as_str().strip_prefix(key::SET_ASIDE).ok_or_else(unreadable)?;
    Ok(SetAside {
        id: id.to_owned(),
        message: properties.require_text("message")?.to_owned(),
        at: properties.require_time("at")?,
        deliveries: u32::try_from(properties.require_int("deliveries")?).unwrap_or(u32::MAX),
        code: properties.require_text("code")?.to_owned(),
        reason: properties.require_text("reason")?.to_owned(),
        findings: serde_json::from_str(properties.require_text("findings")?).map_err(|_| unreadable())?,
        size: u64::try_from(properties.require_int("size")?).unwrap_or_default(),
    })
}

/// The id of the run that a message leads to: the same however often it is delivered, and on every instance.
#[must_use]
pub fn message_run(scope: &Scope, trigger: &QueueTriggerId, message: &str) -> RunId {
    let cause = format!("queue\n{}\n{trigger}\n{message}", scope.org());
    RunId::derived(Timestamp::from_millis(0), &sha256_hex(cause.as_bytes()))
}
