//! Integration tests, one binary.

mod azure;
mod conformance;
