//! Mistakes that use cases could make, made on purpose: what crosses the wire of a process is changed as if its code had them. A
//! test shows that the simulator notices each.

use super::site::Site;
use crate::domain::RunId;
use crate::store::envelope::{self, Message, SigningKey};
use crate::store::key::{self, Queue};
use crate::store::port::{
    ETag, Entity, Key, MessageReceipt, Operation, Page, Ports, Properties, Result, TableName, Value,
};
use crate::tenancy::RunRef;

/// A mistake that every process makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// Nobody sends the message that brings somebody to a run whose driver has died.
    SendsNoWakeUp,
    /// Nobody sends the message that continues a run which rests.
    SendsNoContinuation,
    /// A child run is started twice, under two ids.
    DoublesChildren,
    /// The run of a fire time is started twice, under two ids.
    DoublesFires,
    /// Decisions of people and ends of children are put into no inbox.
    LosesLetters,
    /// A concurrency key that is held looks free.
    ForgetsHolders,
    /// What two items of a map have left is read for each other.
    SwapsItems,
    /// The end of a run leaves no audit record.
    SkipsRecords,
    /// A step is called with nothing.
    ForgetsArguments,
}

/// With which messages of simulated processes are signed.
pub(super) const SIGNING: [u8; 32] = [7; 32];

impl Slip {
    /// Whether a message is not sent; what is answered instead.
    pub(super) fn of_message(self, text: &str) -> Option<MessageReceipt> {
        let unsent = match self {
            Self::SendsNoWakeUp => "wake_up",
            Self::SendsNoContinuation => "continued",
            _ => return None,
        };
        match envelope::open(&SigningKey::new(&SIGNING), text) {
            Ok(Message::DriveRun { reason, .. }) if reason == unsent => Some(MessageReceipt {
                id: "0".into(),
                pop_receipt: "0".into(),
            }),
            _ => None,
        }
    }

    /// What of a transaction is written, and what is answered where nothing is.
    pub(super) fn of_commit(self, operations: &mut Vec<Operation>) -> Option<Vec<ETag>> {
        let is = |operation: &Operation, prefix: &str| {
            matches!(operation, Operation::Insert(..)) && operation.row().as_str().starts_with(prefix)
        };
        match self {
            Self::LosesLetters
                if operations
                    .iter()
                    .all(|operation| is(operation, key::INBOX) || is(operation, "told:")) =>
            {
                Some(vec![ETag("lost".into()); operations.len()])
            }
            Self::SkipsRecords
                if operations
                    .iter()
                    .any(|operation| matches!(operation, Operation::Merge(..))) =>
            {
                operations.retain(|operation| !is(operation, "audit:"));
                None
            }
            _ => None,
        }
    }

    /// Writes a run that was just written once more.
    pub(super) async fn doubled(
        self,
        site: &Site,
        storage: &Ports,
        (table, partition): (&TableName, &Key),
        operations: &[Operation],
    ) {
        let Some(Operation::Insert(_, header)) = operations.first() else {
            return;
        };
        let text = |name: &str| header.text(name).ok().flatten().unwrap_or_default();
        let is_child = text("parent").contains("awaited");
        let doubles = match self {
            Self::DoublesChildren => is_child,
            Self::DoublesFires => text("parent").is_empty() && text("requester").contains("schedule:"),
            _ => false,
        };
        let org = table.as_str().strip_prefix("org").and_then(|org| org.parse().ok());
        let (true, Some(run), Some(org)) = (doubles, partition.as_str().strip_prefix("run:"), org) else {
            return;
        };
        let other = RunId::derived(site.world.now(), run);
        let renamed: Vec<Operation> = operations
            .iter()
            .map(|operation| match operation {
                Operation::Insert(row, properties) => {
                    Operation::Insert(row.clone(), renamed(properties, run, other.as_str()))
                }
                operation => operation.clone(),
            })
            .collect();
        let partition = key::run(&other);
        if storage.tables.commit(table, &partition, renamed.clone()).await.is_ok() {
            site.world.history.committed(&site.name, table, &partition, &renamed);
            let message = Message::DriveRun {
                run: RunRef { org, run: other },
                reason: "doubled".into(),
            };
            let text = envelope::seal(&SigningKey::new(&SIGNING), &message);
            let queue = Queue::Runs.name();
            // Should it not be sent, the run is stuck, which is noticed as well.
            drop(storage.queues.send(&queue, &text, std::time::Duration::ZERO).await);
        }
    }

    /// What is read instead of a row.
    pub(super) fn of_row(self, found: &mut Result<Option<Entity>>) {
        if let (Self::ForgetsHolders, Ok(Some(row))) = (self, found)
            && row.row.as_str().starts_with("concurrency:")
        {
            row.properties.set("runs", "[]");
        }
    }

    /// What is read instead of a page.
    pub(super) fn of_page(self, page: &mut Result<Page>) {
        if let (Self::SwapsItems, Ok(page)) = (self, page)
            && let [first, second, ..] = page.entities.as_mut_slice()
            && first.row.as_str().starts_with("item:")
        {
            std::mem::swap(&mut first.properties, &mut second.properties);
        }
    }
}

fn renamed(properties: &Properties, from: &str, to: &str) -> Properties {
    let mut renamed = properties.clone();
    for (name, value) in properties.iter() {
        if let Value::Text(text) = value {
            renamed.set(name, text.replace(from, to));
        }
    }
    renamed
}
