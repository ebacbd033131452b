//! Queues: visibility by the given clock, receipts that change with every receive. Messages come in the order in which
//! they become visible, then in which they were sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Notify;

use super::connection::{Failure, Session};
use super::writer::Tx;
use super::{Database, missing};
use crate::clock::Clock;
use crate::domain::{Secret, Timestamp};
use crate::store::error::Error;
use crate::store::port::{MAX_MESSAGE_BYTES, MAX_VISIBILITY, Message, MessageReceipt, QueueName, QueueStore, Result};

/// Most messages in one receive.
const MAX_RECEIVE: usize = 32;
/// How often a waiting consumer looks for messages that another process sent.
const LOOK: Duration = Duration::from_secs(1);

/// The queue port.
#[derive(Debug)]
pub(super) struct Queues {
    database: Database,
    clock: Arc<dyn Clock>,
    sent: Mutex<HashMap<QueueName, Arc<Notify>>>,
}

impl Queues {
    pub(super) fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self {
            database,
            clock,
            sent: Mutex::default(),
        }
    }

    fn sent(&self, queue: &QueueName) -> Arc<Notify> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = sent.get(queue) {
            return Arc::clone(notify);
        }
        Arc::clone(sent.entry(queue.clone()).or_default())
    }

    /// How long until the first message of a queue is visible; nothing when it is empty or not there.
    async fn until_visible(&self, queue: &QueueName) -> Result<Option<Duration>> {
        let queue = queue.clone();
        let first = move |session: &Session| {
            let first: Option<i64> = session
                .connection
                .prepare_cached(
                    "SELECT message.visible FROM queue JOIN message ON message.queue = queue.id
                     WHERE queue.name = ?1 ORDER BY message.visible LIMIT 1",
                )?
                .query_row([queue.as_str()], |row| row.get(0))
                .optional()?;
            Ok(first)
        };
        let first = self.database.read("looking into a queue", first).await?;
        let now = self.clock.now();
        Ok(first.map(|first| Timestamp::from_millis(first).since(now)))
    }
}

fn queue_id(connection: &Connection, queue: &QueueName) -> std::result::Result<i64, Failure> {
    let id = connection
        .prepare_cached("SELECT id FROM queue WHERE name = ?1")?
        .query_row([queue.as_str()], |row| row.get(0))
        .optional()?;
    id.ok_or_else(|| missing(queue.as_str()).into())
}

fn check_delay(delay: Duration, least: Duration) -> Result<()> {
    if (least..=MAX_VISIBILITY).contains(&delay) {
        Ok(())
    } else {
        Err(Error::Malformed {
            what: format!("{} s", delay.as_secs_f64()),
            expected: "delay or visibility of a message",
        })
    }
}

/// The row and version that a receipt speaks of; nothing when it isn't one of this database.
fn receipt_numbers(tx: &Tx<'_>, receipt: &MessageReceipt) -> Option<(i64, i64)> {
    Some((tx.number(&receipt.id)?, tx.number(&receipt.pop_receipt)?))
}

#[async_trait]
impl QueueStore for Queues {
    async fn create_queue(&self, queue: &QueueName) -> Result<()> {
        let queue = queue.clone();
        let create = move |tx: &Tx<'_>| {
            tx.connection
                .prepare_cached("INSERT INTO queue (id, name) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?
                .execute(params![tx.next(), queue.as_str()])?;
            Ok(())
        };
        self.database.write("creating a queue", create).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        let name = queue.clone();
        let delete = move |tx: &Tx<'_>| {
            tx.connection
                .prepare_cached("DELETE FROM queue WHERE name = ?1")?
                .execute([name.as_str()])?;
            Ok(())
        };
        self.database.write("deleting a queue", delete).await?;
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
        Ok(())
    }

    async fn send(&self, queue: &QueueName, text: &str, delay: Duration) -> Result<MessageReceipt> {
        check_delay(delay, Duration::ZERO)?;
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge {
                what: "a message".into(),
                size: text.len(),
                limit: MAX_MESSAGE_BYTES,
                unit: "bytes",
            });
        }
        let (name, text, visible) = (queue.clone(), text.to_owned(), self.clock.now().plus(delay));
        let send = move |tx: &Tx<'_>| {
            let queue = queue_id(tx.connection, &name)?;
            let (id, receipt) = (tx.next(), tx.next());
            tx.connection
                .prepare_cached(
                    "INSERT INTO message (id, queue, visible, receipt, dequeued, text) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                )?
                .execute(params![id, queue, visible.millis(), receipt, text])?;
            Ok(MessageReceipt {
                id: tx.stamped(id),
                pop_receipt: tx.stamped(receipt),
            })
        };
        let receipt = self.database.write("sending a message", send).await?;
        // A delayed one too: whoever waits may have to wake earlier than planned.
        self.sent(queue).notify_one();
        Ok(receipt)
    }

    async fn send_once(&self, queue: &QueueName, text: &str) -> Result<MessageReceipt> {
        self.send(queue, text, Duration::ZERO).await
    }

    async fn receive(&self, queue: &QueueName, max: usize, visibility: Duration) -> Result<Vec<Message>> {
        check_delay(visibility, Duration::from_secs(1))?;
        if !(1..=MAX_RECEIVE).contains(&max) {
            return Err(Error::Malformed {
                what: max.to_string(),
                expected: "number of messages (1 to 32)",
            });
        }
        let (queue, now) = (queue.clone(), self.clock.now());
        let hidden = now.plus(visibility).millis();
        let receive = move |tx: &Tx<'_>| {
            let queue = queue_id(tx.connection, &queue)?;
            let mut select = tx.connection.prepare_cached(
                "SELECT id, dequeued, text FROM message WHERE queue = ?1 AND visible <= ?2 ORDER BY visible, id LIMIT ?3",
            )?;
            let found = select
                .query_map(params![queue, now.millis(), max], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, String>(2)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut hide = tx
                .connection
                .prepare_cached("UPDATE message SET visible = ?2, receipt = ?3, dequeued = ?4 WHERE id = ?1")?;
            let mut messages = Vec::with_capacity(found.len());
            for (id, dequeued, text) in found {
                let (receipt, dequeue_count) = (tx.next(), dequeued.saturating_add(1));
                hide.execute(params![id, hidden, receipt, dequeue_count])?;
                let receipt = MessageReceipt {
                    id: tx.stamped(id),
                    pop_receipt: tx.stamped(receipt),
                };
                messages.push(Message {
                    receipt,
                    dequeue_count,
                    text,
                });
            }
            Ok(messages)
        };
        self.database.write("receiving messages", receive).await
    }

    async fn delete(&self, queue: &QueueName, receipt: &MessageReceipt) -> Result<bool> {
        let (queue, receipt) = (queue.clone(), receipt.clone());
        let delete = move |tx: &Tx<'_>| {
            let queue = queue_id(tx.connection, &queue)?;
            let Some((id, version)) = receipt_numbers(tx, &receipt) else {
                return Ok(false);
            };
            let deleted = tx
                .connection
                .prepare_cached("DELETE FROM message WHERE id = ?1 AND receipt = ?2 AND queue = ?3")?
                .execute(params![id, version, queue])?;
            Ok(deleted > 0)
        };
        self.database.write("deleting a message", delete).await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        receipt: &MessageReceipt,
        visibility: Duration,
    ) -> Result<MessageReceipt> {
        check_delay(visibility, Duration::ZERO)?;
        let (name, receipt) = (queue.clone(), receipt.clone());
        let visible = self.clock.now().plus(visibility).millis();
        let extend = move |tx: &Tx<'_>| {
            let changed = || Error::PreconditionFailed {
                what: receipt.id.clone(),
                index: 0,
            };
            let queue = queue_id(tx.connection, &name)?;
            let (id, version) = receipt_numbers(tx, &receipt).ok_or_else(changed)?;
            let next = tx.next();
            let updated = tx
                .connection
                .prepare_cached(
                    "UPDATE message SET visible = ?4, receipt = ?5 WHERE id = ?1 AND receipt = ?2 AND queue = ?3",
                )?
                .execute(params![id, version, queue, visible, next])?;
            if updated == 0 {
                return Err(changed().into());
            }
            Ok(MessageReceipt {
                id: tx.stamped(id),
                pop_receipt: tx.stamped(next),
            })
        };
        let receipt = self.database.write("extending a message", extend).await?;
        // It may have been given back at once.
        self.sent(queue).notify_one();
        Ok(receipt)
    }

    /// Nobody but this program reaches the file.
    async fn sender_address(&self, _: &QueueName, _: Timestamp, _: Timestamp) -> Result<Option<Secret>> {
        Ok(None)
    }

    /// Resolves when a message of the queue is visible. A message sent through these ports wakes it at once, a delayed
    /// or hidden one when its time has come by the given clock; once per second it looks for what other processes sent.
    /// An unreadable database counts as a message, so that the consumer meets the error, at most once per second.
    async fn sent_here(&self, queue: &QueueName) {
        let sent = self.sent(queue);
        loop {
            let (wait, failed) = match self.until_visible(queue).await {
                Ok(Some(Duration::ZERO)) => return,
                Ok(wait) => (wait.map_or(LOOK, |wait| wait.min(LOOK)), false),
                Err(_) => (LOOK, true),
            };
            let waited = tokio::time::timeout(wait, sent.notified()).await;
            if failed && waited.is_err() {
                return;
            }
        }
    }
}
