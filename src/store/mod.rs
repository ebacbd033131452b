//! Table, blob and queue storage: ports below, repositories above.
//!
//! `port.rs` is the contract, `sqlite/` and `azure/` implement it, `fault.rs` wraps either, `conformance.rs` says the
//! contract as functions. `key.rs` forms every name. The repositories in `repo/` are the only users of the ports, and take
//! a `&Scope` (one organization) or a `&PlatformScope` first.

pub mod azure;
pub mod claim_check;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub(crate) mod cursor;
pub mod envelope;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
pub mod key;
pub mod port;
pub mod repo;
pub mod secret;
pub mod sqlite;
pub mod token;
pub mod turns;

pub use error::Error;
