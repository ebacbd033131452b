//! The integration tests: everything that needs a process, a store or a socket, in one program.

mod audit;
mod authn_repositories;
mod authn_table;
mod azure;
mod conformance;
mod fault;
mod protocol;
mod runner_outcomes;
mod sqlite;
