//! The integration tests: everything that needs a process, a store or a socket, in one program.

mod azure;
mod authn_repositories;
mod authn_table;
mod conformance;
mod protocol;
mod runner_outcomes;
//! Integration tests, one binary.

mod azure;
mod audit;
mod conformance;
mod fault;
mod sqlite;
