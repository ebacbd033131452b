//! Integration tests, one binary.

mod conformance;
mod fault;
mod sqlite;
