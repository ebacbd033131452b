//! Integration tests, one binary.

mod authn_repositories;
mod authn_table;
mod conformance;
