//! Tables: whether there is one, and that each partition of each is apart from the others. Has the table in which the other
//! checks of rows write and read.

use super::{not_found, ok};
use crate::store::error::Error;
use crate::store::port::{ETag, Entity, Key, Match, Operation, Page, Ports, Properties, Query, TableName, Value};

/// A key that is one.
pub(super) fn key(text: &str) -> Key {
    ok(Key::new(text))
}

/// A row's only property.
pub(super) fn one(value: impl Into<Value>) -> Properties {
    Properties::new().with("value", value)
}

/// A table of a check's own.
pub(super) struct Table<'a> {
    ports: &'a Ports,
    pub(super) name: TableName,
}

impl<'a> Table<'a> {
    pub(super) async fn new(ports: &'a Ports, check: &str, unique: &str) -> Self {
        let name = ok(TableName::new(format!("Conf{check}{unique}")));
        ok(ports.tables.create_table(&name).await);
        Self { ports, name }
    }

    pub(super) async fn commit(&self, partition: &str, operations: Vec<Operation>) -> Result<Vec<ETag>, Error> {
        self.ports.tables.commit(&self.name, &key(partition), operations).await
    }

    pub(super) async fn insert(&self, partition: &str, row: &str, properties: Properties) -> ETag {
        let etags = ok(self
            .commit(partition, vec![Operation::Insert(key(row), properties)])
            .await);
        assert_eq!(etags.len(), 1, "one ETag for each operation");
        etags.into_iter().next().unwrap_or_else(|| panic!("an ETag"))
    }

    pub(super) async fn get(&self, partition: &str, row: &str) -> Option<Entity> {
        ok(self.ports.tables.get(&self.name, &key(partition), &key(row)).await)
    }

    pub(super) async fn query(&self, query: Query) -> Result<Page, Error> {
        self.ports.tables.query(&self.name, query).await
    }

    /// All rows of a query, over all of its pages.
    pub(super) async fn all(&self, query: Query) -> Vec<Entity> {
        let mut found = Vec::new();
        let mut query = query;
        for _ in 0..10_000 {
            let page = ok(self.query(query.clone()).await);
            assert!(page.entities.len() <= query.limit, "no more rows than asked for");
            found.extend(page.entities);
            match page.next {
                None => return found,
                next => query = query.after(next),
            }
        }
        panic!("a query ends");
    }

    pub(super) async fn rows(&self, query: Query) -> Vec<String> {
        self.all(query)
            .await
            .into_iter()
            .map(|entity| entity.row.to_string())
            .collect()
    }

    pub(super) async fn drop(self) {
        ok(self.ports.tables.delete_table(&self.name).await);
    }
}

/// Creating twice and deleting twice is fine; a missing table is told.
pub async fn tables_exist_or_not(ports: &Ports, unique: &str) {
    let table = ok(TableName::new(format!("ConfExist{unique}")));
    let (partition, row) = (key("p"), key("r"));
    let insert = || vec![Operation::Insert(row.clone(), one(1))];
    not_found(ports.tables.get(&table, &partition, &row).await);
    not_found(ports.tables.query(&table, Query::partition(partition.clone())).await);
    not_found(ports.tables.commit(&table, &partition, insert()).await);
    not_found(
        ports
            .tables
            .commit(&table, &partition, vec![Operation::Upsert(row.clone(), one(1))])
            .await,
    );
    ok(ports.tables.delete_table(&table).await);
    ok(ports.tables.create_table(&table).await);
    assert_eq!(
        ok(ports.tables.get(&table, &partition, &row).await),
        None,
        "a missing row is nothing"
    );
    assert_eq!(
        ok(ports.tables.query(&table, Query::partition(partition.clone())).await),
        Page::default()
    );
    ok(ports.tables.commit(&table, &partition, insert()).await);
    ok(ports.tables.create_table(&table).await);
    assert!(
        ok(ports.tables.get(&table, &partition, &row).await).is_some(),
        "a table created again stays as it is"
    );
    ok(ports.tables.delete_table(&table).await);
    not_found(ports.tables.get(&table, &partition, &row).await);
    ok(ports.tables.delete_table(&table).await);
}

/// The same row key in many partitions and tables is many rows.
pub async fn partitions_are_apart(ports: &Ports, unique: &str) {
    let table = Table::new(ports, "Apart", unique).await;
    let other = Table::new(ports, "Apart2", unique).await;
    let partitions = ["a", "A", "aa", "a ", "b", ""];
    for partition in partitions {
        table.insert(partition, "r", one(partition)).await;
    }
    other.insert("a", "r", one("other")).await;
    for partition in partitions {
        assert_eq!(
            table.get(partition, "r").await.map(|row| row.properties),
            Some(one(partition))
        );
        assert_eq!(
            table.all(Query::partition(key(partition))).await.len(),
            1,
            "`{partition}` holds one row"
        );
    }
    ok(table.commit("a", vec![Operation::Delete(key("r"), Match::Any)]).await);
    for partition in &partitions[1..] {
        assert!(table.get(partition, "r").await.is_some(), "`{partition}` is as it was");
    }
    table.drop().await;
    assert_eq!(other.get("a", "r").await.map(|row| row.properties), Some(one("other")));
    other.drop().await;
}
