//! Queues: visibility by the given clock, receipts that change with every receive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Defect, Versions, lock, missing};
use crate::clock::Clock;
use crate::domain::{Secret, Timestamp};
use crate::store::error::Error;
use crate::store::port::{MAX_MESSAGE_BYTES, MAX_VISIBILITY, Message, MessageReceipt, QueueName, QueueStore, Result};

/// Most messages in one receive (service limit).
const MAX_RECEIVE: usize = 32;
/// Longest time that a waiting consumer does not look: the clock may be moved by hand.
const LOOK: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Held {
    visible: Timestamp,
    receipt: u64,
    dequeued: u32,
    text: String,
}

#[derive(Debug, Default)]
struct Queue {
    /// By the order in which they were sent.
    messages: BTreeMap<u64, Held>,
    sent: Arc<Notify>,
}

/// The queue port.
#[derive(Debug)]
pub struct Queues {
    versions: Arc<Versions>,
    clock: Arc<dyn Clock>,
    defect: Option<Defect>,
    queues: Mutex<BTreeMap<QueueName, Queue>>,
}

/// A message as it lies in a queue, for looking at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lying {
    /// The queue.
    pub queue: String,
    /// How often it was received.
    pub dequeued: u32,
    /// When it is visible.
    pub visible: Timestamp,
    /// Its text.
    pub text: String,
}

impl Queues {
    pub(super) fn new(versions: Arc<Versions>, clock: Arc<dyn Clock>, defect: Option<Defect>) -> Self {
        Self {
            versions,
            clock,
            defect,
            queues: Mutex::default(),
        }
    }

    /// Everything that lies in any queue, hidden or not.
    #[must_use]
    pub fn lying(&self) -> Vec<Lying> {
        let queues = lock(&self.queues);
        let all = queues.iter().flat_map(|(name, queue)| {
            queue.messages.values().map(|held| Lying {
                queue: name.to_string(),
                dequeued: held.dequeued,
                visible: held.visible,
                text: held.text.clone(),
            })
        });
        all.collect()
    }
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

fn receipt(id: u64, version: u64) -> MessageReceipt {
    MessageReceipt {
        id: id.to_string(),
        pop_receipt: version.to_string(),
    }
}

fn find<'a>(queue: &'a mut Queue, receipt: &MessageReceipt) -> Option<(u64, &'a mut Held)> {
    let (id, version): (u64, u64) = (receipt.id.parse().ok()?, receipt.pop_receipt.parse().ok()?);
    let held = queue.messages.get_mut(&id).filter(|held| held.receipt == version)?;
    Some((id, held))
}

#[async_trait]
impl QueueStore for Queues {
    async fn create_queue(&self, queue: &QueueName) -> Result<()> {
        lock(&self.queues).entry(queue.clone()).or_default();
        Ok(())
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        lock(&self.queues).remove(queue);
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
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(queue).ok_or_else(|| missing(queue.as_str()))?;
        let (id, version) = (self.versions.next(), self.versions.next());
        if self.defect == Some(Defect::LosesDelayed) && delay > Duration::ZERO {
            return Ok(receipt(id, version));
        }
        queue.messages.insert(
            id,
            Held {
                visible: self.clock.now().plus(delay),
                receipt: version,
                dequeued: 0,
                text: text.to_owned(),
            },
        );
        queue.sent.notify_waiters();
        Ok(receipt(id, version))
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
        let now = self.clock.now();
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(queue).ok_or_else(|| missing(queue.as_str()))?;
        let mut visible: Vec<_> = queue
            .messages
            .iter_mut()
            .filter(|(_, held)| held.visible <= now)
            .collect();
        visible.sort_by_key(|(id, held)| (held.visible, **id));
        let received = visible.into_iter().take(max).map(|(id, held)| {
            held.visible = now.plus(visibility);
            held.receipt = self.versions.next();
            held.dequeued += 1;
            Message {
                receipt: receipt(*id, held.receipt),
                dequeue_count: held.dequeued,
                text: held.text.clone(),
            }
        });
        Ok(received.collect())
    }

    async fn delete(&self, queue: &QueueName, receipt: &MessageReceipt) -> Result<bool> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(queue).ok_or_else(|| missing(queue.as_str()))?;
        let found = find(queue, receipt).map(|(id, _)| id);
        if let Some(id) = found
            && self.defect != Some(Defect::KeepsDeleted)
        {
            queue.messages.remove(&id);
        }
        Ok(found.is_some())
    }

    async fn extend(&self, queue: &QueueName, old: &MessageReceipt, visibility: Duration) -> Result<MessageReceipt> {
        check_delay(visibility, Duration::ZERO)?;
        let visible = self.clock.now().plus(visibility);
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(queue).ok_or_else(|| missing(queue.as_str()))?;
        let version = self.versions.next();
        let Some((id, held)) = find(queue, old) else {
            return Err(Error::PreconditionFailed {
                what: old.id.clone(),
                index: 0,
            });
        };
        (held.visible, held.receipt) = (visible, version);
        // It may have been given back at once.
        queue.sent.notify_waiters();
        Ok(receipt(id, version))
    }

    async fn sender_address(&self, _: &QueueName, _: Timestamp, _: Timestamp) -> Result<Option<Secret>> {
        Ok(None)
    }

    /// Resolves when a message of the queue is visible.
    async fn sent_here(&self, name: &QueueName) {
        loop {
            let (sent, wait) = {
                let queues = lock(&self.queues);
                let Some(queue) = queues.get(name) else { return };
                let first = queue.messages.values().map(|held| held.visible).min();
                let wait = first.map_or(LOOK, |first| first.since(self.clock.now()).min(LOOK));
                if first.is_some() && wait.is_zero() {
                    return;
                }
                (queue.sent.clone(), wait)
            };
            // Either way it is looked again; a message that is sent before this is polled is found a minute later at most.
            let _ = tokio::time::timeout(wait, sent.notified()).await;
        }
    }
}
