//! Tables: rows in key order, transactions applied to a copy and put in whole or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{Defect, Versions, lock, missing};
use crate::store::cursor;
use crate::store::error::Error;
use crate::store::port::{
    Comparison, ETag, Entity, Filter, Key, Match, Operation, Page, Properties, Query, Result, TableName, TableStore,
    Value, check_operations, check_query,
};

#[derive(Debug, Clone)]
struct Row {
    version: u64,
    properties: Properties,
}

type Partition = BTreeMap<Key, Row>;

/// The table port.
#[derive(Debug)]
pub struct Tables {
    versions: Arc<Versions>,
    page: usize,
    defect: Option<Defect>,
    tables: Mutex<BTreeMap<TableName, BTreeMap<Key, Partition>>>,
}

fn etag(version: u64) -> ETag {
    ETag(format!("W/\"{version}\""))
}

impl Tables {
    pub(super) fn new(versions: Arc<Versions>, page: usize, defect: Option<Defect>) -> Self {
        Self {
            versions,
            page,
            defect,
            tables: Mutex::default(),
        }
    }

    /// Every partition of a table, in order, for looking at everything at the end. Nothing when the table is not there.
    #[must_use]
    pub fn partitions(&self, table: &TableName) -> Vec<Key> {
        let tables = lock(&self.tables);
        let partitions = tables.get(table).into_iter().flat_map(BTreeMap::iter);
        partitions
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Every row of a partition whose key begins so, in order, for looking at everything at the end.
    #[must_use]
    pub fn rows(&self, table: &TableName, partition: &Key, prefix: &str) -> Vec<(Key, Properties)> {
        let tables = lock(&self.tables);
        let rows = tables.get(table).and_then(|partitions| partitions.get(partition));
        let rows = rows.into_iter().flatten();
        rows.filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, row)| (key.clone(), row.properties.clone()))
            .collect()
    }

    fn apply(&self, rows: &mut Partition, partition: &Key, operation: &Operation, index: usize) -> Result<ETag> {
        let key = operation.row();
        let changed = || Error::PreconditionFailed {
            what: key.to_string(),
            index,
        };
        let found = rows.get(key);
        let meets = |condition: &Match| match (found, condition) {
            (None, _) => false,
            (Some(_), Match::Any) => true,
            (Some(_), Match::Exactly(_)) if self.defect == Some(Defect::IgnoresVersions) => true,
            (Some(row), Match::Exactly(expected)) => etag(row.version) == *expected,
        };
        let properties = match operation {
            Operation::Insert(_, properties) => {
                if found.is_some() && self.defect != Some(Defect::InsertsOver) {
                    return Err(Error::AlreadyExists {
                        what: key.to_string(),
                        index,
                    });
                }
                properties.clone()
            }
            Operation::Upsert(_, properties) => properties.clone(),
            Operation::Replace(_, properties, condition) => {
                if !meets(condition) {
                    return Err(changed());
                }
                properties.clone()
            }
            Operation::Merge(_, properties, condition) => {
                let mut merged = match found {
                    Some(row) if meets(condition) => row.properties.clone(),
                    _ => return Err(changed()),
                };
                for (name, value) in properties.iter() {
                    merged.set(name, value.clone());
                }
                // What fits alone may not fit together with what is there.
                check_operations(
                    partition,
                    &[Operation::Replace(key.clone(), merged.clone(), Match::Any)],
                )?;
                merged
            }
            Operation::Delete(_, condition) => {
                if !meets(condition) {
                    return Err(changed());
                }
                rows.remove(key);
                return Ok(ETag(String::new()));
            }
        };
        let version = self.versions.next();
        rows.insert(key.clone(), Row { version, properties });
        Ok(etag(version))
    }
}

#[async_trait]
impl TableStore for Tables {
    async fn create_table(&self, table: &TableName) -> Result<()> {
        lock(&self.tables).entry(table.clone()).or_default();
        Ok(())
    }

    async fn delete_table(&self, table: &TableName) -> Result<()> {
        lock(&self.tables).remove(table);
        Ok(())
    }

    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>> {
        let tables = lock(&self.tables);
        let partitions = tables.get(table).ok_or_else(|| missing(table.as_str()))?;
        let found = partitions.get(partition).and_then(|rows| rows.get(row));
        Ok(found.map(|found| Entity {
            partition: partition.clone(),
            row: row.clone(),
            etag: etag(found.version),
            properties: found.properties.clone(),
        }))
    }

    async fn query(&self, table: &TableName, query: Query) -> Result<Page> {
        check_query(&query)?;
        let place = [table.as_str(), query.partition.as_str()];
        let start = match &query.continuation {
            Some(continuation) => Some(cursor::read(&place, continuation)?),
            None => None,
        };
        let from = query.from.as_ref().map_or("", Key::as_str);
        let from = start.as_deref().map_or(from, |start| from.max(start));
        let tables = lock(&self.tables);
        let partitions = tables.get(table).ok_or_else(|| missing(table.as_str()))?;
        let mut page = Page::default();
        let limit = query.limit.min(self.page);
        for (key, row) in partitions.get(&query.partition).into_iter().flatten() {
            if key.as_str() < from {
                continue;
            }
            if query.until.as_ref().is_some_and(|until| key >= until) {
                break;
            }
            if page.entities.len() == limit {
                page.next = Some(cursor::write(&place, key.as_str()));
                break;
            }
            if query
                .filter
                .as_ref()
                .is_none_or(|filter| matches(&row.properties, filter))
            {
                page.entities.push(Entity {
                    partition: query.partition.clone(),
                    row: key.clone(),
                    etag: etag(row.version),
                    properties: selected(&row.properties, &query.select),
                });
            }
        }
        Ok(page)
    }

    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>> {
        check_operations(partition, &operations)?;
        let mut tables = lock(&self.tables);
        let partitions = tables.get_mut(table).ok_or_else(|| missing(table.as_str()))?;
        let rows = partitions.entry(partition.clone()).or_default();
        let torn = self.defect == Some(Defect::TearsTransactions)
            && operations.len() > 1
            && matches!(
                operations[0],
                Operation::Replace(..) | Operation::Merge(_, _, Match::Exactly(_))
            );
        // Put back when one of them fails; cheaper than a copy of the partition.
        let before: Vec<_> = operations
            .iter()
            .map(|operation| (operation.row().clone(), rows.get(operation.row()).cloned()))
            .collect();
        let mut etags = Vec::with_capacity(operations.len());
        for (index, operation) in operations.iter().enumerate() {
            if torn && matches!(operation, Operation::Insert(..)) {
                etags.push(ETag(String::new()));
                continue;
            }
            match self.apply(rows, partition, operation, index) {
                Ok(etag) => etags.push(etag),
                Err(error) => {
                    for (key, row) in before {
                        match row {
                            Some(row) => rows.insert(key, row),
                            None => rows.remove(&key),
                        };
                    }
                    return Err(error);
                }
            }
        }
        Ok(etags)
    }
}

fn selected(properties: &Properties, select: &[String]) -> Properties {
    if select.is_empty() {
        return properties.clone();
    }
    properties
        .iter()
        .filter(|(name, _)| select.iter().any(|wanted| wanted == name))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
}

/// Whether a row satisfies a condition. A property that is missing or has another type satisfies no comparison.
fn matches(properties: &Properties, filter: &Filter) -> bool {
    match filter {
        Filter::And(left, right) => matches(properties, left) && matches(properties, right),
        Filter::Or(left, right) => matches(properties, left) || matches(properties, right),
        Filter::Is(name, comparison, wanted) => {
            let order = match (properties.get(name), wanted) {
                (Some(Value::Text(a)), Value::Text(b)) => Some(a.cmp(b)),
                (Some(Value::Int(a)), Value::Int(b)) => Some(a.cmp(b)),
                (Some(Value::Double(a)), Value::Double(b)) => a.partial_cmp(b),
                (Some(Value::Bool(a)), Value::Bool(b)) => Some(a.cmp(b)),
                (Some(Value::Time(a)), Value::Time(b)) => Some(a.cmp(b)),
                (Some(Value::Bytes(a)), Value::Bytes(b)) => Some(a.cmp(b)),
                _ => None,
            };
            order.is_some_and(|order| match comparison {
                Comparison::Equal => order.is_eq(),
                Comparison::NotEqual => order.is_ne(),
                Comparison::Less => order.is_lt(),
                Comparison::LessOrEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                Comparison::GreaterOrEqual => order.is_ge(),
            })
        }
    }
}
