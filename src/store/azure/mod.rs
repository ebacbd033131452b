//! The Azure backend: Tables, Blobs and Queues of one account, or the local emulator; and secrets in a key vault.
//!
//! This folder is the only code that knows Azure. Blobs and queues go through the official crates, tables through a
//! client of our own on the same pipeline (`docs/adr/0001-own-table-client.md`). What all three share:
//!
//! * `connection.rs`: where the account is and how to prove who we are ([`Settings`]);
//! * `credential.rs`: the signature, or the SAS, put on every try;
//! * `sender.rs`: addresses at which others may send to one queue;
//! * `pipeline.rs`: transport, timeouts and the one retry policy;
//! * `vault.rs`: secrets, beside all that;
//! * `error.rs`: an answer of the service → a storage [`Error`](super::Error), with nothing secret in its source.

mod blob;
mod connection;
mod credential;
mod error;
mod odata;
mod pipeline;
mod queue;
mod sender;
mod table;
mod vault;

use std::sync::Arc;

pub use connection::{Identity, Settings, SettingsError};
pub use vault::{CACHED_FOR, Vault, VaultSettings, open_vault};

use super::port::{Ports, Result};

/// Makes the three ports of an account. Sends nothing: a wrong key shows with the first operation.
///
/// # Errors
/// [`Error::Forbidden`](super::Error::Forbidden) when the environment offers no identity of the wanted kind.
pub fn open(settings: Settings) -> Result<Ports> {
    let access = credential::Access::new(&settings)?;
    let transport = pipeline::transport();
    Ok(Ports {
        tables: Arc::new(table::Tables::new(&settings, &access, &transport)),
        blobs: Arc::new(blob::Blobs::new(&settings, &access, &transport)?),
        queues: Arc::new(queue::Queues::new(&settings, &access, &transport)?),
    })
}
