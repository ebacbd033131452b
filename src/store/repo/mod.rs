//! One repository per aggregate, the only users of the ports. Every method that touches an organization's data takes its
//! `&Scope` first.

mod cache;
pub mod identity;
pub mod keys;
pub mod audit_log;
