//! Queues, through the official client. Texts travel as base64, as the Functions host reads and writes them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::Secret as AccountKey;
use azure_core::http::Transport;
use azure_core::http::headers::HeaderName;
use azure_core::time::OffsetDateTime;
use azure_storage_queue::models::{
    KeyInfo, QueueClientCreateOptions, QueueClientDeleteMessageOptions, QueueClientDeleteOptions,
    QueueClientReceiveMessagesOptions, QueueClientSendMessageOptions, QueueClientUpdateMessageOptions, QueueMessage,
};
use azure_storage_queue::{QueueClient, QueueServiceClient, QueueServiceClientOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;

use super::connection::Settings;
use super::credential::{Access, Scheme};
use super::error::{Failure, Target};
use super::pipeline::{self, Repeat, bounded};
use super::sender::{self, Delegation, Grant};
use crate::domain::{Secret, Timestamp};
use crate::store::error::Error;
use crate::store::port::{MAX_MESSAGE_BYTES, Message, MessageReceipt, QueueName, QueueStore, Result};

const MAX_BATCH: usize = 32;
const LONGEST_DELAY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Without it a message is gone after 7 days.
const NEVER_EXPIRES: i32 = -1;

/// The queues of an account.
pub(super) struct Queues {
    service: QueueServiceClient,
    access: Access,
    sent: Mutex<HashMap<QueueName, Arc<Notify>>>,
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queues").field(&self.service.url().as_str()).finish()
    }
}

impl Queues {
    pub(super) fn new(settings: &Settings, access: &Access, transport: &Transport) -> Result<Self> {
        let client_options = pipeline::client_options(access, Scheme::SharedKey, transport);
        let options = QueueServiceClientOptions {
            client_options,
            ..QueueServiceClientOptions::default()
        };
        let service = QueueServiceClient::new(settings.queue.clone(), access.token(), Some(options))
            .map_err(|error| Failure::from_sdk(error).into_error(&Target::account("opening the queue service")))?;
        Ok(Self {
            service,
            access: access.clone(),
            sent: Mutex::default(),
        })
    }

    fn queue(&self, queue: &QueueName) -> Result<QueueClient> {
        self.service
            .queue_client(queue.as_str())
            .map_err(|error| Failure::from_sdk(error).into_error(&Target::container("opening a queue", queue.as_str())))
    }

    /// The account's name: what its address begins with.
    fn account(&self) -> &str {
        let host = self.service.url().host_str().unwrap_or_default();
        host.split('.').next().unwrap_or_default()
    }

    /// A key with which the identity that we have signs for itself, for as long.
    async fn delegated(&self, now: Timestamp, until: Timestamp) -> Result<(AccountKey, Delegation)> {
        let target = Target::account("asking for a delegation key");
        let at = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.millis() / 1000).ok();
        // Begun a little earlier: clocks differ.
        let from = now.minus(Duration::from_secs(300));
        let info = KeyInfo {
            start: at(from),
            expiry: at(until),
            ..KeyInfo::default()
        };
        let key = bounded(0, async {
            let info = info.try_into().map_err(Failure::from_sdk)?;
            let answer = self.service.get_user_delegation_key(info, None).await;
            answer
                .map_err(Failure::from_sdk)?
                .into_model()
                .map_err(Failure::from_sdk)
        })
        .await
        .map_err(|failure| failure.into_error(&target))?;
        let told = |at: Option<OffsetDateTime>, asked: Timestamp| {
            at.map_or(asked, |at| Timestamp::from_millis(at.unix_timestamp() * 1000))
        };
        let delegation = Delegation {
            from: told(key.signed_start, from),
            until: told(key.signed_expiry, until),
            object: key.signed_oid.unwrap_or_default(),
            tenant: key.signed_tid.unwrap_or_default(),
            service: key.signed_service.unwrap_or_default(),
            version: key.signed_version.unwrap_or_default(),
        };
        let value = key
            .value
            .ok_or_else(|| Error::corrupt("a delegation key without a value"))?;
        Ok((AccountKey::new(STANDARD.encode(value)), delegation))
    }

    /// Puts a message into a queue, which may be repeated or not.
    async fn put(&self, queue: &QueueName, text: &str, delay: Duration, repeat: Repeat) -> Result<MessageReceipt> {
        let (size, limit) = (text.len(), MAX_MESSAGE_BYTES);
        if size > limit {
            return Err(Error::TooLarge {
                what: format!("a message to `{queue}`"),
                size,
                limit,
                unit: "bytes",
            });
        }
        let message = QueueMessage {
            message_text: Some(STANDARD.encode(text)),
        };
        let options = QueueClientSendMessageOptions {
            message_time_to_live: Some(NEVER_EXPIRES),
            visibility_timeout: Some(seconds(delay)),
            method_options: repeat.options(),
            ..QueueClientSendMessageOptions::default()
        };
        let client = self.queue(queue)?;
        let sent = bounded(0, async {
            let message = message.try_into().map_err(Failure::from_sdk)?;
            let answer = client
                .send_message(message, Some(options))
                .await
                .map_err(Failure::from_sdk)?;
            answer
                .into_model()
                .and_then(|list| list.into_message())
                .map_err(Failure::from_sdk)
        })
        .await
        .map_err(|failure| failure.into_error(&Target::container("sending a message", queue.as_str())))?;
        if delay.is_zero() {
            self.bell(queue).notify_one();
        }
        Ok(MessageReceipt {
            id: sent.message_id.unwrap_or_default(),
            pop_receipt: sent.pop_receipt.unwrap_or_default(),
        })
    }

    fn bell(&self, queue: &QueueName) -> Arc<Notify> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sent.entry(queue.clone()).or_default())
    }
}

#[async_trait]
impl QueueStore for Queues {
    async fn create_queue(&self, queue: &QueueName) -> Result<()> {
        let client = self.queue(queue)?;
        let options = QueueClientCreateOptions {
            method_options: Repeat::Harmless.options(),
            ..Default::default()
        };
        match bounded(0, async {
            client.create(Some(options)).await.map_err(Failure::from_sdk)
        })
        .await
        {
            Ok(_) => Ok(()),
            Err(failure) if failure.code() == "QueueAlreadyExists" => Ok(()),
            Err(failure) => Err(failure.into_error(&Target::container("creating a queue", queue.as_str()))),
        }
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        let client = self.queue(queue)?;
        let options = QueueClientDeleteOptions {
            method_options: Repeat::Harmless.options(),
            ..Default::default()
        };
        let outcome = bounded(0, async {
            client.delete(Some(options)).await.map_err(Failure::from_sdk)
        });
        match outcome.await {
            Ok(_) => {}
            Err(failure) if failure.status() == Some(404) => {}
            Err(failure) => return Err(failure.into_error(&Target::container("deleting a queue", queue.as_str()))),
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
        Ok(())
    }

    async fn send(&self, queue: &QueueName, text: &str, delay: Duration) -> Result<MessageReceipt> {
        // A message may be delivered more than once in any case, and whoever receives one bears that. So one that may have arrived
        // is sent again, as a reset connection would else fail a request whose run is as good as accepted. The first one, whose
        // receipt nobody knows then, finds that there is nothing to do.
        self.put(queue, text, delay, Repeat::Harmless).await
    }

    async fn send_once(&self, queue: &QueueName, text: &str) -> Result<MessageReceipt> {
        self.put(queue, text, Duration::ZERO, Repeat::Never).await
    }

    async fn receive(&self, queue: &QueueName, max: usize, visibility: Duration) -> Result<Vec<Message>> {
        let options = QueueClientReceiveMessagesOptions {
            number_of_messages: i32::try_from(max.clamp(1, MAX_BATCH)).ok(),
            visibility_timeout: Some(seconds(visibility).max(1)),
            // A get in form only: every try counts as a delivery of what it hides.
            method_options: Repeat::Never.options(),
            ..QueueClientReceiveMessagesOptions::default()
        };
        let client = self.queue(queue)?;
        let received = bounded(0, async {
            let answer = client
                .receive_messages(Some(options))
                .await
                .map_err(Failure::from_sdk)?;
            answer.into_model().map_err(Failure::from_sdk)
        })
        .await
        .map_err(|failure| failure.into_error(&Target::container("receiving messages", queue.as_str())))?;
        let messages = received.items.unwrap_or_default().into_iter().map(|message| {
            let text = message.message_text.unwrap_or_default();
            Message {
                receipt: MessageReceipt {
                    id: message.message_id.unwrap_or_default(),
                    pop_receipt: message.pop_receipt.unwrap_or_default(),
                },
                dequeue_count: u32::try_from(message.dequeue_count.unwrap_or(1)).unwrap_or(u32::MAX),
                // What somebody else wrote as plain text is passed on, for the reader to put aside.
                text: STANDARD
                    .decode(&text)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .unwrap_or(text),
            }
        });
        Ok(messages.collect())
    }

    async fn delete(&self, queue: &QueueName, receipt: &MessageReceipt) -> Result<bool> {
        if !is_receipt(receipt) {
            return Ok(false);
        }
        let client = self.queue(queue)?;
        let options = QueueClientDeleteMessageOptions {
            method_options: Repeat::Never.options(),
            ..Default::default()
        };
        let outcome = bounded(0, async {
            client
                .delete_message(&receipt.id, &receipt.pop_receipt, Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await;
        match outcome {
            Ok(_) => Ok(true),
            Err(failure) if is_stale(&failure) => Ok(false),
            Err(failure) => Err(failure.into_error(&Target::item("deleting a message", queue.as_str(), &receipt.id))),
        }
    }

    async fn extend(
        &self,
        queue: &QueueName,
        receipt: &MessageReceipt,
        visibility: Duration,
    ) -> Result<MessageReceipt> {
        let stale = || Error::PreconditionFailed {
            what: receipt.id.chars().take(60).collect(),
            index: 0,
        };
        if !is_receipt(receipt) {
            return Err(stale());
        }
        let client = self.queue(queue)?;
        let options = QueueClientUpdateMessageOptions {
            method_options: Repeat::Never.options(),
            ..Default::default()
        };
        let outcome = bounded(0, async {
            client
                .update_message(&receipt.id, &receipt.pop_receipt, seconds(visibility), Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await;
        match outcome {
            Ok(answer) => {
                let pop_receipt = answer
                    .headers()
                    .get_optional_str(&HeaderName::from_static("x-ms-popreceipt"));
                Ok(MessageReceipt {
                    id: receipt.id.clone(),
                    pop_receipt: pop_receipt.unwrap_or(&receipt.pop_receipt).to_owned(),
                })
            }
            Err(failure) if is_stale(&failure) => Err(stale()),
            Err(failure) => Err(failure.into_error(&Target::item("extending a message", queue.as_str(), &receipt.id))),
        }
    }

    async fn sender_address(&self, queue: &QueueName, now: Timestamp, until: Timestamp) -> Result<Option<Secret>> {
        let grant = match &self.access {
            Access::Key { account, key } => Grant::by_key(account, key.clone()),
            Access::Token(_) => {
                let (key, delegation) = self.delegated(now, until).await?;
                Grant::delegated(self.account(), key, delegation)
            }
            // Whoever has a signature only can't make another.
            Access::Sas(_) => return Ok(None),
        };
        sender::address(self.service.url(), queue, until, &grant).map(Some)
    }

    async fn sent_here(&self, queue: &QueueName) {
        self.bell(queue).notified().await;
    }
}

/// Whole seconds, rounded up, as many as the service takes.
fn seconds(duration: Duration) -> i32 {
    let duration = duration.min(LONGEST_DELAY);
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

/// The id becomes part of an address.
fn is_receipt(receipt: &MessageReceipt) -> bool {
    let id = receipt.id.as_bytes();
    !id.is_empty() && id.len() <= 64 && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Whether a receipt is no longer good: the message is gone, or somebody else has it, or it never was a receipt.
fn is_stale(failure: &Failure) -> bool {
    failure.is_missing_item()
        || matches!(
            failure.code(),
            "MessageNotFound" | "PopReceiptMismatch" | "InvalidQueryParameterValue" | "InvalidInput"
        )
}
