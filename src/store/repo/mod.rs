//! One repository per aggregate, the only users of the ports. Every method that touches an organization's data takes its
//! `&Scope` first.

pub mod artifacts;
pub mod audit_log;
pub mod configs;
pub mod identity;
pub mod installation;
pub mod keys;
pub mod kv;
pub mod policies;
pub mod results;
pub mod runs;
pub mod secrets;

mod cache;
