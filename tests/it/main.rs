//! The integration tests, as one program.

mod azure;
mod conformance;
