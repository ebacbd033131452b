//! A store of tables with somebody on the line: a test that sees some calls, and says when they get through, or that they don't.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use weft::store::port::{ETag, Entity, Key, Operation, Page, Ports, Query, Result, TableName, TableStore};

/// Who is on the line. What isn't said otherwise gets through at once.
#[async_trait]
pub trait Tap: Debug + Send + Sync + 'static {
    /// A row is asked for.
    async fn get(
        &self,
        store: &dyn TableStore,
        table: &TableName,
        partition: &Key,
        row: &Key,
    ) -> Result<Option<Entity>> {
        store.get(table, partition, row).await
    }

    /// A transaction is to be carried out.
    async fn commit(
        &self,
        store: &dyn TableStore,
        table: &TableName,
        partition: &Key,
        operations: Vec<Operation>,
    ) -> Result<Vec<ETag>> {
        store.commit(table, partition, operations).await
    }
}

#[derive(Debug)]
struct Tapped<T> {
    store: Arc<dyn TableStore>,
    tap: Arc<T>,
}

/// The same ports, with somebody on the line to their tables.
pub fn tapped<T: Tap>(ports: &Ports, tap: &Arc<T>) -> Ports {
    Ports {
        tables: Arc::new(Tapped {
            store: Arc::clone(&ports.tables),
            tap: Arc::clone(tap),
        }),
        ..ports.clone()
    }
}

#[async_trait]
impl<T: Tap> TableStore for Tapped<T> {
    async fn create_table(&self, table: &TableName) -> Result<()> {
        self.store.create_table(table).await
    }

    async fn delete_table(&self, table: &TableName) -> Result<()> {
        self.store.delete_table(table).await
    }

    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>> {
        self.tap.get(self.store.as_ref(), table, partition, row).await
    }

    async fn query(&self, table: &TableName, query: Query) -> Result<Page> {
        self.store.query(table, query).await
    }

    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>> {
        self.tap.commit(self.store.as_ref(), table, partition, operations).await
    }
}
