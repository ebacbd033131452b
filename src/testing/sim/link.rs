//! The wire between one process and storage: requests and answers take time, some requests arrive long after they were given
//! up, and everything that arrives is traced.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::site::Site;
use crate::domain::{Secret, Timestamp};
use crate::store::error::Error;
use crate::store::fault::Call;
use crate::store::port::{
    BlobPage, BlobPath, BlobStore, ContainerName, Continuation, ETag, Entity, Key, Match, Message, MessageReceipt,
    Operation, Page, Ports, Put, Query, QueueName, QueueStore, Result, TableName, TableStore, Upload, Value,
};

/// A wire.
#[derive(Debug)]
pub struct Link {
    site: Arc<Site>,
    storage: Ports,
}

impl Link {
    /// Ports of this process, over the storage that all share.
    #[must_use]
    pub fn ports(site: Arc<Site>, storage: Ports) -> Ports {
        let link = Arc::new(Self { site, storage });
        Ports {
            tables: link.clone() as Arc<dyn TableStore>,
            blobs: link.clone() as Arc<dyn BlobStore>,
            queues: link,
        }
    }

    async fn call<T>(
        &self,
        call: Call,
        what: impl FnOnce() -> String + Send,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.site.travel().await;
        let result = work.await;
        told(&self.site, call, &what(), &result);
        self.site.travel().await;
        self.site.thawed().await;
        result
    }

    /// Answers that a call failed; it is done all the same, later.
    async fn give_up<T>(&self, call: Call, after: Duration) -> Result<T> {
        self.site
            .say(&format!("{call:?} is given up, and arrives {after:?} later"));
        self.site.travel().await;
        Err(Error::Unavailable {
            what: format!("the answer to {call:?} was lost"),
            source: "injected".into(),
        })
    }
}

fn told<T>(site: &Site, call: Call, what: &str, result: &Result<T>) {
    match result {
        Ok(_) => site.say(&format!("{call:?} {what}")),
        Err(error) => site.say(&format!("{call:?} {what}: {error}")),
    }
}

async fn committed(
    site: &Site,
    storage: &Ports,
    table: &TableName,
    partition: &Key,
    mut operations: Vec<Operation>,
) -> Result<Vec<ETag>> {
    if let Some(instead) = site.world.slip.and_then(|slip| slip.of_commit(&mut operations)) {
        return Ok(instead);
    }
    let mut what = format!("{table} {partition}");
    for operation in &operations {
        let sign = match operation {
            Operation::Insert(..) => '+',
            Operation::Replace(..) => '=',
            Operation::Merge(..) => '~',
            Operation::Upsert(..) => '^',
            Operation::Delete(..) => '-',
        };
        let _ = write!(what, " {sign}{}", operation.row());
    }
    let result = storage.tables.commit(table, partition, operations.clone()).await;
    told(site, Call::Commit, &what, &result);
    if result.is_ok() {
        digest(site, &operations);
        site.world.history.committed(&site.name, table, partition, &operations);
        if let Some(slip) = site.world.slip {
            slip.doubled(site, storage, (table, partition), &operations).await;
        }
    }
    result
}

/// Contents count for the digest of the trace, though nobody reads them there.
fn digest(site: &Site, operations: &[Operation]) {
    for operation in operations {
        let (Operation::Insert(_, properties)
        | Operation::Replace(_, properties, _)
        | Operation::Merge(_, properties, _)
        | Operation::Upsert(_, properties)) = operation
        else {
            continue;
        };
        for (name, value) in properties.iter() {
            site.world.trace.also(name.as_bytes());
            match value {
                Value::Text(text) => site.world.trace.also(text.as_bytes()),
                Value::Bytes(bytes) => site.world.trace.also(bytes),
                Value::Int(number) => site.world.trace.also(&number.to_le_bytes()),
                Value::Double(number) => site.world.trace.also(&number.to_le_bytes()),
                Value::Bool(truth) => site.world.trace.also(&[u8::from(*truth)]),
                Value::Time(at) => site.world.trace.also(&at.millis().to_le_bytes()),
            }
        }
    }
}

#[async_trait]
impl TableStore for Link {
    async fn create_table(&self, table: &TableName) -> Result<()> {
        let work = self.storage.tables.create_table(table);
        self.call(Call::CreateTable, || table.to_string(), work).await
    }

    async fn delete_table(&self, table: &TableName) -> Result<()> {
        let work = self.storage.tables.delete_table(table);
        self.call(Call::DeleteTable, || table.to_string(), work).await
    }

    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>> {
        let work = self.storage.tables.get(table, partition, row);
        let mut found = self
            .call(Call::Get, || format!("{table} {partition} {row}"), work)
            .await;
        if let Some(slip) = self.site.world.slip {
            slip.of_row(&mut found);
        }
        found
    }

    async fn query(&self, table: &TableName, query: Query) -> Result<Page> {
        let what = format!("{table} {}", query.partition);
        let work = self.storage.tables.query(table, query);
        let mut page = self.call(Call::Query, || what, work).await;
        if let Some(slip) = self.site.world.slip {
            slip.of_page(&mut page);
        }
        page
    }

    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>> {
        if let Some(after) = self.site.comes_late(Call::Commit) {
            let (site, storage) = (self.site.clone(), self.storage.clone());
            let (table, partition) = (table.clone(), partition.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                // Nobody hears the answer; the trace has it.
                drop(committed(&site, &storage, &table, &partition, operations).await);
            });
            return self.give_up(Call::Commit, after).await;
        }
        self.site.travel().await;
        let result = committed(&self.site, &self.storage, table, partition, operations).await;
        self.site.travel().await;
        self.site.thawed().await;
        result
    }
}

#[async_trait]
impl BlobStore for Link {
    async fn create_container(&self, container: &ContainerName) -> Result<()> {
        let work = self.storage.blobs.create_container(container);
        self.call(Call::CreateContainer, || container.to_string(), work).await
    }

    async fn delete_container(&self, container: &ContainerName) -> Result<()> {
        let work = self.storage.blobs.delete_container(container);
        self.call(Call::DeleteContainer, || container.to_string(), work).await
    }

    async fn put(&self, container: &ContainerName, path: &BlobPath, bytes: Bytes, put: Put) -> Result<()> {
        let work = self.storage.blobs.put(container, path, bytes, put);
        self.call(Call::PutBlob, || format!("{container} {path}"), work).await
    }

    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>> {
        let work = self.storage.blobs.get(container, path, limit);
        self.call(Call::GetBlob, || format!("{container} {path}"), work).await
    }

    async fn read(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>> {
        let work = self.storage.blobs.read(container, path, offset, length);
        self.call(Call::ReadBlob, || format!("{container} {path} {offset}"), work)
            .await
    }

    async fn append(&self, container: &ContainerName, path: &BlobPath, at: u64, bytes: Bytes) -> Result<()> {
        let work = self.storage.blobs.append(container, path, at, bytes);
        self.call(Call::AppendBlob, || format!("{container} {path} {at}"), work)
            .await
    }

    async fn lay_aside(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        upload: Upload,
        at: u64,
        bytes: Bytes,
    ) -> Result<()> {
        let work = self.storage.blobs.lay_aside(container, path, upload, at, bytes);
        self.call(Call::LayAside, || format!("{container} {path} {at}"), work)
            .await
    }

    async fn assemble(&self, container: &ContainerName, path: &BlobPath, upload: Upload, size: u64) -> Result<()> {
        let work = self.storage.blobs.assemble(container, path, upload, size);
        self.call(Call::Assemble, || format!("{container} {path}"), work).await
    }

    async fn throw_away(&self, container: &ContainerName, path: &BlobPath, upload: Upload) -> Result<()> {
        let work = self.storage.blobs.throw_away(container, path, upload);
        self.call(Call::ThrowAway, || format!("{container} {path}"), work).await
    }

    async fn touch(&self, container: &ContainerName, path: &BlobPath) -> Result<bool> {
        let work = self.storage.blobs.touch(container, path);
        self.call(Call::TouchBlob, || format!("{container} {path}"), work).await
    }

    async fn delete(&self, container: &ContainerName, path: &BlobPath, condition: Match) -> Result<bool> {
        let work = self.storage.blobs.delete(container, path, condition);
        self.call(Call::DeleteBlob, || format!("{container} {path}"), work)
            .await
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage> {
        let work = self.storage.blobs.list(container, prefix, after);
        self.call(Call::ListBlobs, || format!("{container} {prefix}"), work)
            .await
    }
}

#[async_trait]
impl QueueStore for Link {
    async fn create_queue(&self, queue: &QueueName) -> Result<()> {
        let work = self.storage.queues.create_queue(queue);
        self.call(Call::CreateQueue, || queue.to_string(), work).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        let work = self.storage.queues.delete_queue(queue);
        self.call(Call::DeleteQueue, || queue.to_string(), work).await
    }

    async fn send(&self, queue: &QueueName, text: &str, delay: Duration) -> Result<MessageReceipt> {
        let what = || format!("{queue} in {delay:?}");
        if let Some(instead) = self.site.world.slip.and_then(|slip| slip.of_message(text)) {
            return Ok(instead);
        }
        if let Some(after) = self.site.comes_late(Call::Send) {
            let (site, storage) = (self.site.clone(), self.storage.clone());
            let (queue, text) = (queue.clone(), text.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let result = storage.queues.send(&queue, &text, delay).await;
                told(&site, Call::Send, &format!("{queue} in {delay:?}"), &result);
            });
            return self.give_up(Call::Send, after).await;
        }
        let work = self.storage.queues.send(queue, text, delay);
        self.call(Call::Send, what, work).await
    }

    /// The same: nothing is sent again here.
    async fn send_once(&self, queue: &QueueName, text: &str) -> Result<MessageReceipt> {
        self.send(queue, text, Duration::ZERO).await
    }

    async fn receive(&self, queue: &QueueName, max: usize, visibility: Duration) -> Result<Vec<Message>> {
        let work = self.storage.queues.receive(queue, max, visibility);
        self.call(Call::Receive, || format!("{queue} {visibility:?}"), work)
            .await
    }

    async fn delete(&self, queue: &QueueName, receipt: &MessageReceipt) -> Result<bool> {
        let work = self.storage.queues.delete(queue, receipt);
        self.call(Call::DeleteMessage, || format!("{queue} {}", receipt.id), work)
            .await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        receipt: &MessageReceipt,
        visibility: Duration,
    ) -> Result<MessageReceipt> {
        let work = self.storage.queues.extend(queue, receipt, visibility);
        self.call(
            Call::Extend,
            || format!("{queue} {} for {visibility:?}", receipt.id),
            work,
        )
        .await
    }

    async fn sender_address(&self, queue: &QueueName, now: Timestamp, until: Timestamp) -> Result<Option<Secret>> {
        self.storage.queues.sender_address(queue, now, until).await
    }

    async fn sent_here(&self, queue: &QueueName) {
        self.storage.queues.sent_here(queue).await;
    }
}
