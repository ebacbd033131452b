//! One repository per aggregate, the only users of the ports. Every method that touches an organization's data takes its
//! `&Scope` first.

pub mod artifacts;
pub mod audit_log;
pub mod backlog;
pub mod bundles;
pub mod claims;
pub mod collector;
pub mod configs;
pub mod due;
pub mod history;
pub mod hooks;
pub mod identity;
pub mod installation;
pub mod keys;
pub mod kv;
pub mod node_types;
pub mod policies;
pub mod quarantines;
pub mod queue_triggers;
pub mod recordings;
pub mod remains;
pub mod results;
pub mod retention;
pub mod runs;
pub mod schedules;
pub mod secrets;
pub mod signals;
pub mod usage;
pub mod workflows;

mod cache;
mod damage;
