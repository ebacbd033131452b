//! Integration tests, one binary.

mod azure;
mod conformance;
mod fault;
mod sqlite;
