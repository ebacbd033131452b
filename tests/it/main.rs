//! Integration tests, one binary.

mod audit;
mod conformance;
mod fault;
mod sqlite;
