//! The integration tests: everything that needs a process, a store or a socket, in one program.

mod azure;
mod conformance;
mod protocol;
mod runner_outcomes;
