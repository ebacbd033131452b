//! Tables: rows in primary key order, filters evaluated here over a key range.

use async_trait::async_trait;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::connection::{Failure, Session};
use super::encoding::{decode, encode, matches};
use super::writer::{Tx, stamped};
use super::{Database, missing};
use crate::store::cursor;
use crate::store::error::Error;
use crate::store::port::{
    ETag, Entity, Key, Match, Operation, Page, Properties, Query, Result, TableName, TableStore, check_operations,
    check_query,
};

/// Rows looked at for one page: a filter that matches little gives short pages instead of long reads.
const SCANNED: usize = 10_000;
/// Bytes of properties in one page; the service bounds its pages as well.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The table port.
#[derive(Debug)]
pub(super) struct Tables(pub(super) Database);

fn table_id(connection: &Connection, table: &TableName) -> std::result::Result<i64, Failure> {
    let id = connection
        .prepare_cached("SELECT id FROM tables WHERE name = ?1")?
        .query_row([table.as_str()], |row| row.get(0))
        .optional()?;
    id.ok_or_else(|| missing(table.as_str()).into())
}

#[async_trait]
impl TableStore for Tables {
    async fn create_table(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        let create = move |tx: &Tx<'_>| {
            tx.connection
                .prepare_cached("INSERT INTO tables (id, name) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?
                .execute(params![tx.next(), table.as_str()])?;
            Ok(())
        };
        self.0.write("creating a table", create).await
    }

    async fn delete_table(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        let delete = move |tx: &Tx<'_>| {
            tx.connection
                .prepare_cached("DELETE FROM tables WHERE name = ?1")?
                .execute([table.as_str()])?;
            Ok(())
        };
        self.0.write("deleting a table", delete).await
    }

    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>> {
        let (table, partition, row) = (table.clone(), partition.clone(), row.clone());
        let get = move |session: &Session| {
            let found = session
                .connection
                .prepare_cached(
                    "SELECT entity.etag, entity.props FROM tables LEFT JOIN entity
                     ON entity.tbl = tables.id AND entity.partition = ?2 AND entity.row = ?3 WHERE tables.name = ?1",
                )?
                .query_row(params![table.as_str(), partition.as_str(), row.as_str()], |found| {
                    Ok((found.get::<_, Option<i64>>(0)?, found.get::<_, Option<Vec<u8>>>(1)?))
                })
                .optional()?;
            match found {
                None => Err(missing(table.as_str()).into()),
                Some((Some(etag), Some(column))) => {
                    let properties = decode(&column, &[])?;
                    Ok(Some(Entity {
                        partition,
                        row,
                        etag: ETag(stamped(&session.stamp, etag)),
                        properties,
                    }))
                }
                Some(_) => Ok(None),
            }
        };
        self.0.read("reading a row", get).await
    }

    async fn query(&self, table: &TableName, query: Query) -> Result<Page> {
        check_query(&query)?;
        let table = table.clone();
        let mut from = query.from.as_ref().map_or("", Key::as_str).to_owned();
        if let Some(continuation) = &query.continuation {
            let start = cursor::read(&[table.as_str(), query.partition.as_str()], continuation)?;
            from = from.max(start);
        }
        self.0
            .read("reading rows", move |session| page(session, &table, &query, &from))
            .await
    }

    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>> {
        check_operations(partition, &operations)?;
        let (table, partition) = (table.clone(), partition.clone());
        // Encoded here, so that the one writer thread needn't.
        let columns: Vec<_> = operations.iter().map(column).collect();
        let commit = move |tx: &Tx<'_>| {
            let table = table_id(tx.connection, &table)?;
            let rows = operations.iter().zip(&columns).enumerate();
            rows.map(|(index, (operation, column))| apply(tx, table, &partition, operation, column, index))
                .collect()
        };
        self.0.write("writing rows", commit).await
    }
}

fn column(operation: &Operation) -> Vec<u8> {
    match operation {
        Operation::Insert(_, properties) | Operation::Replace(_, properties, _) | Operation::Upsert(_, properties) => {
            encode(properties)
        }
        // A merge is encoded when it has been merged.
        Operation::Merge(..) | Operation::Delete(..) => Vec::new(),
    }
}

fn page(session: &Session, table: &TableName, query: &Query, from: &str) -> std::result::Result<Page, Failure> {
    let id = table_id(&session.connection, table)?;
    let mut statement: CachedStatement<'_>;
    let mut rows = if let Some(until) = &query.until {
        statement = session.connection.prepare_cached(
            "SELECT row, etag, props FROM entity WHERE tbl = ?1 AND partition = ?2 AND row >= ?3 AND row < ?4 ORDER BY row",
        )?;
        statement.query(params![id, query.partition.as_str(), from, until.as_str()])?
    } else {
        statement = session.connection.prepare_cached(
            "SELECT row, etag, props FROM entity WHERE tbl = ?1 AND partition = ?2 AND row >= ?3 ORDER BY row",
        )?;
        statement.query(params![id, query.partition.as_str(), from])?
    };
    let mut page = Page::default();
    let (mut scanned, mut bytes) = (0, 0);
    while let Some(found) = rows.next()? {
        let row = found.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let column = found.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let full = page.entities.len() == query.limit || bytes + column.len() > PAGE_BYTES && !page.entities.is_empty();
        if full || scanned == SCANNED {
            page.next = Some(cursor::write(&[table.as_str(), query.partition.as_str()], row));
            break;
        }
        scanned += 1;
        if query
            .filter
            .as_ref()
            .map_or(Ok(true), |filter| matches(column, filter))?
        {
            bytes += column.len();
            page.entities.push(Entity {
                partition: query.partition.clone(),
                row: Key::new(row).map_err(|_| Error::corrupt("a stored row key is not a possible one"))?,
                etag: ETag(stamped(&session.stamp, found.get(1)?)),
                properties: decode(column, &query.select)?,
            });
        }
    }
    Ok(page)
}

/// One operation of a transaction; `column` holds its properties where they replace all.
fn apply(
    tx: &Tx<'_>,
    table: i64,
    partition: &Key,
    operation: &Operation,
    column: &[u8],
    index: usize,
) -> std::result::Result<ETag, Failure> {
    let row = operation.row();
    let changed = || Error::PreconditionFailed {
        what: row.to_string(),
        index,
    };
    let keys = (table, partition.as_str(), row.as_str());
    match operation {
        Operation::Insert(..) => {
            let etag = tx.next();
            let inserted = tx
                .connection
                .prepare_cached("INSERT INTO entity (tbl, partition, row, etag, props) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")?
                .execute(params![keys.0, keys.1, keys.2, etag, column])?;
            if inserted == 0 {
                return Err(Error::AlreadyExists {
                    what: row.to_string(),
                    index,
                }
                .into());
            }
            Ok(tx.etag(etag))
        }
        Operation::Upsert(..) => {
            let etag = tx.next();
            tx.connection
                .prepare_cached(
                    "INSERT INTO entity (tbl, partition, row, etag, props) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET etag = excluded.etag, props = excluded.props",
                )?
                .execute(params![keys.0, keys.1, keys.2, etag, column])?;
            Ok(tx.etag(etag))
        }
        Operation::Replace(_, _, condition) => {
            let expected = expected(tx, condition).ok_or_else(changed)?;
            update(tx, keys, expected, column)?.ok_or_else(|| changed().into())
        }
        Operation::Merge(_, properties, condition) => {
            let expected = expected(tx, condition).ok_or_else(changed)?;
            let merged = merge(tx, keys, properties)?.ok_or_else(changed)?;
            // What fits alone may not fit together with what is there. Without the other operations around it, as the
            // service counts it.
            let whole = [Operation::Replace(row.clone(), merged, Match::Any)];
            check_operations(partition, &whole)?;
            let [Operation::Replace(_, merged, _)] = &whole else {
                return Err(changed().into());
            };
            update(tx, keys, expected, &encode(merged))?.ok_or_else(|| changed().into())
        }
        Operation::Delete(_, condition) => {
            let expected = expected(tx, condition).ok_or_else(changed)?;
            let deleted = tx
                .connection
                .prepare_cached(
                    "DELETE FROM entity WHERE tbl = ?1 AND partition = ?2 AND row = ?3 AND (?4 IS NULL OR etag = ?4)",
                )?
                .execute(params![keys.0, keys.1, keys.2, expected])?;
            if deleted == 0 {
                Err(changed().into())
            } else {
                Ok(ETag(String::new()))
            }
        }
    }
}

/// The version that a condition asks for (`Some(None)` for any), or nothing when this database never gave such a one.
fn expected(tx: &Tx<'_>, condition: &Match) -> Option<Option<i64>> {
    match condition {
        Match::Any => Some(None),
        Match::Exactly(etag) => tx.number(&etag.0).map(Some),
    }
}

/// The new version, or nothing when there is no such row in such a version.
fn update(
    tx: &Tx<'_>,
    keys: (i64, &str, &str),
    expected: Option<i64>,
    column: &[u8],
) -> std::result::Result<Option<ETag>, Failure> {
    let etag = tx.next();
    let updated = tx
        .connection
        .prepare_cached(
            "UPDATE entity SET etag = ?4, props = ?5
             WHERE tbl = ?1 AND partition = ?2 AND row = ?3 AND (?6 IS NULL OR etag = ?6)",
        )?
        .execute(params![keys.0, keys.1, keys.2, etag, column, expected])?;
    Ok((updated > 0).then(|| tx.etag(etag)))
}

/// What a row holds with some properties set, or nothing when there is no such row.
fn merge(
    tx: &Tx<'_>,
    keys: (i64, &str, &str),
    properties: &Properties,
) -> std::result::Result<Option<Properties>, Failure> {
    let column: Option<Vec<u8>> = tx
        .connection
        .prepare_cached("SELECT props FROM entity WHERE tbl = ?1 AND partition = ?2 AND row = ?3")?
        .query_row(keys, |found| found.get(0))
        .optional()?;
    let Some(column) = column else { return Ok(None) };
    let mut merged = decode(&column, &[])?;
    for (name, value) in properties.iter() {
        merged.set(name, value.clone());
    }
    Ok(Some(merged))
}
