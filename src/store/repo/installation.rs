//! What belongs to the installation itself: the key with which its queue messages are signed, and a row that shows whether
//! storage takes writes.

use super::super::envelope::SigningKey;
use super::super::error::Error;
use super::super::key::{self, PlatformTable};
use super::super::port::{Operation, Ports, Properties, Result};
use crate::clock::Entropy;
use crate::domain::Timestamp;
use crate::tenancy::PlatformScope;

/// The installation's signing key, made by whoever asks first. Instances that ask at the same moment get the same one.
///
/// # Errors
/// Those of the table store.
pub async fn signing_key(ports: &Ports, entropy: &Entropy) -> Result<SigningKey> {
    let (table, partition, row) = (
        PlatformTable::Config.name(),
        key::installation(),
        key::signing_key_row(),
    );
    loop {
        if let Some(entity) = ports.tables.get(&table, &partition, &row).await? {
            let secret = entity.properties.bytes("secret")?.filter(|secret| secret.len() >= 32);
            return secret
                .map(SigningKey::new)
                .ok_or_else(|| Error::corrupt("the signing key can't be read"));
        }
        let secret: [u8; 32] = entropy.bytes();
        let properties = Properties::new()
            .with("v", 1i64)
            .with("secret", super::super::port::Value::Bytes(secret.to_vec()));
        match ports
            .tables
            .commit(&table, &partition, vec![Operation::Insert(row.clone(), properties)])
            .await
        {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a row that every instance overwrites: a full disk and a locked file answer reads as ever.
///
/// # Errors
/// Those of the table store.
pub async fn write_probe(_: &PlatformScope, ports: &Ports, now: Timestamp) -> Result<()> {
    let properties = Properties::new().with("v", 1i64).with("at", now);
    let probe = Operation::Upsert(key::write_probe_row(), properties);
    let table = PlatformTable::Config.name();
    ports.tables.commit(&table, &key::installation(), vec![probe]).await?;
    Ok(())
}
