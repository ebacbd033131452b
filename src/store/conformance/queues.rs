//! The contract of queues: messages are hidden while somebody has them, come back where nobody deletes them, and are told
//! apart by receipts. Has what time is to a backend: nothing else of the contract waits for it.

use std::time::Duration;

use super::{in_tasks, not_found, ok, precondition_failed, too_large};
use crate::clock::ManualClock;
use crate::store::port::{MAX_MESSAGE_BYTES, Message, Ports, QueueName};

/// How time passes for the backend under test.
#[derive(Debug, Clone, Copy)]
pub enum Pace<'a> {
    /// The backend's clock is moved.
    Manual(&'a ManualClock),
    /// The backend has a clock of its own: poll, within bounds.
    Real,
}

/// How often and how long a message is looked for where time can't be moved.
const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(15);

impl Pace<'_> {
    /// A visibility or delay that is worth waiting for.
    const fn short(self) -> Duration {
        match self {
            Self::Manual(_) => Duration::from_secs(30),
            Self::Real => Duration::from_secs(1),
        }
    }

    /// Receives the next message, which becomes visible after `after`.
    async fn receive(self, ports: &Ports, queue: &QueueName, after: Duration, visibility: Duration) -> Message {
        let mut waited = Duration::ZERO;
        if let Self::Manual(clock) = self {
            clock.advance(after);
        }
        loop {
            let mut messages = ok(ports.queues.receive(queue, 1, visibility).await);
            match (messages.pop(), self) {
                (Some(message), _) => return message,
                (None, Self::Manual(_)) => panic!("a message of `{queue}` is visible after {after:?}"),
                (None, Self::Real) => {
                    assert!(
                        waited < after + PATIENCE,
                        "a message of `{queue}` is visible within {waited:?}"
                    );
                    tokio::time::sleep(POLL).await;
                    waited += POLL;
                }
            }
        }
    }
}

async fn queue(ports: &Ports, check: &str, unique: &str) -> QueueName {
    let name = ok(QueueName::new(format!("conf-{check}-{unique}")));
    ok(ports.queues.create_queue(&name).await);
    name
}

const MINUTE: Duration = Duration::from_secs(60);

/// A missing queue is told; creating twice changes nothing.
pub async fn queues_exist_or_not(ports: &Ports, unique: &str) {
    let name = ok(QueueName::new(format!("conf-exist-{unique}")));
    let queues = &ports.queues;
    not_found(queues.send(&name, "x", Duration::ZERO).await);
    not_found(queues.receive(&name, 1, MINUTE).await);
    ok(queues.create_queue(&name).await);
    let receipt = ok(queues.send(&name, "x", Duration::ZERO).await);
    ok(queues.create_queue(&name).await);
    let messages = ok(queues.receive(&name, 32, MINUTE).await);
    assert_eq!(messages.len(), 1, "a queue created again stays as it is");
    assert_eq!(messages[0].receipt.id, receipt.id, "a message keeps its id");
    assert!(ok(queues.delete(&name, &messages[0].receipt).await));
    assert_eq!(ok(queues.receive(&name, 1, MINUTE).await), []);
    ok(queues.send_once(&name, "y").await);
    let messages = ok(queues.receive(&name, 32, MINUTE).await);
    assert_eq!((messages.len(), messages[0].text.as_str()), (1, "y"));
    ok(queues.delete_queue(&name).await);
    not_found(queues.receive(&name, 1, MINUTE).await);
    not_found(queues.send(&name, "z", Duration::ZERO).await);
    not_found(queues.send_once(&name, "z").await);
    ok(queues.delete_queue(&name).await);
}

/// Received is hidden; not deleted comes back, and is counted.
pub async fn messages_are_hidden_and_come_back(ports: &Ports, unique: &str, pace: Pace<'_>) {
    let queues = &ports.queues;
    let name = queue(ports, "hidden", unique).await;
    ok(queues.send(&name, "work", Duration::ZERO).await);
    let first = pace.receive(ports, &name, Duration::ZERO, pace.short()).await;
    assert_eq!((first.text.as_str(), first.dequeue_count), ("work", 1));
    let second = pace.receive(ports, &name, pace.short(), MINUTE).await;
    assert_eq!((second.text.as_str(), second.dequeue_count), ("work", 2));
    assert_eq!(second.receipt.id, first.receipt.id);
    assert_ne!(
        second.receipt.pop_receipt, first.receipt.pop_receipt,
        "each receive has a receipt of its own"
    );
    assert_eq!(
        ok(queues.receive(&name, 32, MINUTE).await),
        [],
        "a received message is hidden"
    );
    assert!(
        !ok(queues.delete(&name, &first.receipt).await),
        "an old receipt is no good"
    );
    assert!(ok(queues.delete(&name, &second.receipt).await));
    assert!(!ok(queues.delete(&name, &second.receipt).await), "deleted once");
    assert_eq!(ok(queues.receive(&name, 32, MINUTE).await), []);
}

/// Extending gives a new receipt and ends the old one.
pub async fn receipts_go_stale(ports: &Ports, unique: &str, pace: Pace<'_>) {
    let queues = &ports.queues;
    let name = queue(ports, "stale", unique).await;
    ok(queues.send(&name, "work", Duration::ZERO).await);
    let received = pace.receive(ports, &name, Duration::ZERO, MINUTE).await;
    let extended = ok(queues.extend(&name, &received.receipt, MINUTE * 2).await);
    assert_eq!(extended.id, received.receipt.id);
    assert_ne!(extended.pop_receipt, received.receipt.pop_receipt);
    assert!(
        !ok(queues.delete(&name, &received.receipt).await),
        "the old receipt is no good"
    );
    precondition_failed(queues.extend(&name, &received.receipt, MINUTE).await, 0);
    assert_eq!(ok(queues.receive(&name, 1, MINUTE).await), [], "it is still hidden");

    // Given back: visible at once, with the text as it was.
    let given_back = ok(queues.extend(&name, &extended, Duration::ZERO).await);
    let again = pace.receive(ports, &name, Duration::ZERO, MINUTE).await;
    assert_eq!((again.text.as_str(), again.dequeue_count), ("work", 2));
    assert!(
        !ok(queues.delete(&name, &given_back).await),
        "received by somebody else"
    );
    precondition_failed(queues.extend(&name, &given_back, MINUTE).await, 0);
    assert!(ok(queues.delete(&name, &again.receipt).await));
    precondition_failed(queues.extend(&name, &again.receipt, MINUTE).await, 0);
}

/// A delayed message is hidden until its time, and can be deleted before.
pub async fn messages_are_delayed(ports: &Ports, unique: &str, pace: Pace<'_>) {
    let queues = &ports.queues;
    let name = queue(ports, "delay", unique).await;
    let never = ok(queues.send(&name, "never", pace.short()).await);
    ok(queues.send(&name, "later", pace.short() * 2).await);
    ok(queues.send(&name, "far", MINUTE * 60 * 24 * 7).await);
    assert_eq!(
        ok(queues.receive(&name, 32, MINUTE).await),
        [],
        "delayed messages are hidden"
    );
    assert!(
        ok(queues.delete(&name, &never).await),
        "deleted before it was delivered"
    );
    assert!(!ok(queues.delete(&name, &never).await));
    let later = pace.receive(ports, &name, pace.short() * 2, MINUTE).await;
    assert_eq!((later.text.as_str(), later.dequeue_count), ("later", 1));
    assert_eq!(ok(queues.receive(&name, 32, MINUTE).await), []);
    assert!(ok(queues.delete(&name, &later.receipt).await));
}

/// Text of any kind up to the limit.
pub async fn messages_carry_any_text(ports: &Ports, unique: &str) {
    let queues = &ports.queues;
    let name = queue(ports, "text", unique).await;
    let long = "x".repeat(MAX_MESSAGE_BYTES);
    let wide = "€".repeat(MAX_MESSAGE_BYTES / 3);
    for text in ["{\"id\":\"ü€😀\"}", "<a>&amp;'\"</a>\u{1}\r\n ", "eA==", &long, &wide] {
        ok(queues.send(&name, text, Duration::ZERO).await);
        let messages = ok(queues.receive(&name, 1, MINUTE).await);
        assert_eq!(messages.len(), 1);
        assert!(messages[0].text == text, "the text comes back as it was");
        assert!(ok(queues.delete(&name, &messages[0].receipt).await));
    }
    too_large(queues.send(&name, &format!("{long}x"), Duration::ZERO).await);
    too_large(queues.send(&name, &format!("{wide}€"), Duration::ZERO).await);
    assert_eq!(ok(queues.receive(&name, 1, MINUTE).await), []);
}

/// Consumers side by side get each message once while it is hidden.
pub async fn every_message_comes_once(ports: &Ports, unique: &str) {
    const MESSAGES: usize = 60;
    let name = queue(ports, "once", unique).await;
    for number in 0..MESSAGES {
        ok(ports.queues.send(&name, &number.to_string(), Duration::ZERO).await);
    }
    let received = in_tasks(4, |_| {
        let (ports, name) = (ports.clone(), name.clone());
        async move {
            let mut texts = Vec::new();
            loop {
                let messages = ok(ports.queues.receive(&name, 7, MINUTE * 5).await);
                if messages.is_empty() {
                    return texts;
                }
                for message in messages {
                    assert!(ok(ports.queues.delete(&name, &message.receipt).await));
                    texts.push(message.text.parse::<usize>().unwrap_or(usize::MAX));
                }
            }
        }
    })
    .await;
    let mut received: Vec<_> = received.into_iter().flatten().collect();
    received.sort_unstable();
    assert_eq!(received, (0..MESSAGES).collect::<Vec<_>>(), "each message once");
}
