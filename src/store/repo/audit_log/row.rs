//! Audit records, heads and subjects' keys as rows, and back. `docs/audit.md` lists the properties.

use crate::audit::{Chain, Head, LinkedRecord, SealedPart, SealedRecord, SubjectKey};
use crate::domain::Timestamp;
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Entity, Operation, Properties, Result, Value};

/// The schema epoch of every row here.
const EPOCH: i64 = 1;

fn start() -> Properties {
    Properties::new().with("v", EPOCH)
}

fn check_epoch(properties: &Properties) -> Result<()> {
    match properties.require_int("v")? {
        EPOCH => Ok(()),
        other => Err(Error::corrupt(format!("audit row of version {other}"))),
    }
}

fn number(properties: &Properties, name: &str) -> Result<u64> {
    u64::try_from(properties.require_int(name)?).map_err(|_| Error::corrupt(format!("property `{name}` is negative")))
}

fn hash(properties: &Properties, name: &str) -> Result<[u8; 32]> {
    properties
        .bytes(name)?
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::corrupt(format!("property `{name}` is no SHA-256")))
}

fn sequence_value(sequence: u64) -> Value {
    Value::Int(i64::try_from(sequence).unwrap_or(i64::MAX))
}

/// A record of a chain as the properties of its row.
#[must_use]
pub fn to_properties(record: &LinkedRecord) -> Properties {
    let mut properties = start()
        .with("seq", sequence_value(record.sequence))
        .with("prev", Value::Bytes(record.previous.to_vec()))
        .with("hash", Value::Bytes(record.hash.to_vec()))
        .with("body", record.sealed.body.as_str());
    for (part, subject, bytes) in [
        (&record.sealed.actor, "actor", "actorSealed"),
        (&record.sealed.about, "about", "aboutSealed"),
    ] {
        if let Some(part) = part {
            properties.set(subject, part.subject.as_str());
            properties.set(bytes, Value::Bytes(part.bytes.clone()));
        }
    }
    properties
}

/// The record of a chain from the properties of its row. That it is what was written is not checked here.
///
/// # Errors
/// [`Error::Corrupt`] when a property is missing, has another type, or the row is of another version.
pub fn from_properties(chain: &Chain, properties: &Properties) -> Result<LinkedRecord> {
    check_epoch(properties)?;
    let part = |subject: &str, bytes: &str| -> Result<Option<SealedPart>> {
        match (properties.text(subject)?, properties.bytes(bytes)?) {
            (None, None) => Ok(None),
            (Some(subject), Some(bytes)) => Ok(Some(SealedPart {
                subject: subject.to_owned(),
                bytes: bytes.to_vec(),
            })),
            _ => Err(Error::corrupt(format!("one of `{subject}` and `{bytes}` is missing"))),
        }
    };
    Ok(LinkedRecord {
        chain: chain.clone(),
        sequence: number(properties, "seq")?,
        previous: hash(properties, "prev")?,
        hash: hash(properties, "hash")?,
        sealed: SealedRecord {
            body: properties.require_text("body")?.to_owned(),
            actor: part("actor", "actorSealed")?,
            about: part("about", "aboutSealed")?,
        },
    })
}

/// The row of a record in its chain's partition.
pub(super) fn chain_operation(record: &LinkedRecord) -> Operation {
    Operation::Insert(key::audit_row(record.sequence), to_properties(record))
}

/// The row of a record in the listing: the chain's row, and what is filtered by. Derived, so it is put over what is there.
pub(super) fn index_operation(record: &LinkedRecord) -> Result<Operation> {
    let plain = record
        .sealed
        .plain()
        .map_err(|_| Error::corrupt("the body of an audit record"))?;
    let mut properties = to_properties(record)
        .with("chain", record.chain.to_string())
        .with("at", plain.at)
        .with("level", plain.level.as_str())
        .with("event", plain.event)
        .with("outcome", plain.outcome.as_str())
        .with("principal", plain.principal.id);
    if let Some(resource) = plain.resource {
        properties.set("kind", resource.kind);
        properties.set("resource", resource.id);
    }
    Ok(Operation::Upsert(key::index_audit_row(plain.at, &plain.id), properties))
}

/// The record of a row in the listing.
pub(super) fn from_index(entity: &Entity) -> Result<LinkedRecord> {
    let chain = entity.properties.require_text("chain")?;
    let chain = chain
        .parse()
        .map_err(|_| Error::corrupt("the chain of an audit record"))?;
    from_properties(&chain, &entity.properties)
}

/// A chain's head as the properties of its row.
pub(super) fn head_properties(head: &Head) -> Properties {
    start().with("head", head.to_string())
}

pub(super) fn head(properties: &Properties) -> Result<Head> {
    check_epoch(properties)?;
    properties
        .require_text("head")?
        .parse()
        .map_err(|_| Error::corrupt("the head of an audit chain"))
}

/// The row that tells of a writer's chain; `sealed` is how far the chain of seals has it.
pub(super) fn writer_properties(at: Timestamp) -> Properties {
    start().with("at", at).with("sealed", sequence_value(0))
}

pub(super) fn sealed_to(sequence: u64) -> Properties {
    Properties::new().with("sealed", sequence_value(sequence))
}

pub(super) fn sealed(properties: &Properties) -> Result<u64> {
    check_epoch(properties)?;
    number(properties, "sealed")
}

/// A subject's key; the same properties by the subject's row and by the reference's.
pub(super) fn subject_properties(key: &SubjectKey, at: Timestamp) -> Properties {
    start()
        .with("at", at)
        .with("ref", key.reference())
        .with("key", Value::Bytes(key.secret().to_vec()))
}

/// What stays of a key that was destroyed.
pub(super) fn erased_properties(at: Timestamp) -> Properties {
    start().with("erased", at)
}

/// A key, or nothing when it was destroyed.
pub(super) fn subject_key(properties: &Properties) -> Result<Option<SubjectKey>> {
    check_epoch(properties)?;
    if properties.time("erased")?.is_some() {
        return Ok(None);
    }
    let secret = properties.bytes("key")?.unwrap_or_default();
    SubjectKey::stored(properties.require_text("ref")?, secret)
        .map(Some)
        .ok_or_else(|| Error::corrupt("the key of an audit subject"))
}
