//! What is recorded about who did what, and how records are kept from being read and from being changed. Pure.
//!
//! A [`Record`] is made from a caller and redacted on the way in (`redact.rs`). What points at a person is encrypted with
//! that person's key (`seal.rs`), and the sealed records form hash chains (`chain.rs`). Where records and keys are kept is
//! `store/repo/audit_log.rs`; `docs/audit.md` describes rows, bytes and promises. The format is that of version 1 and is
//! never changed: a chain that is written must verify for as long as it is kept.

pub mod chain;
pub mod record;
pub mod redact;
pub mod seal;

pub use chain::{Break, Broken, Chain, Head, LinkedRecord, Verifier, link, verify};
pub use record::{Actor, Event, Level, Outcome, Owner, Personal, Plain, Record, Target};
pub use seal::{Opened, Part, SealedPart, SealedRecord, Subject, SubjectKey};
