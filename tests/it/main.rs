//! The integration tests, as one program.

mod azure;
mod conformance;
//! Everything that needs a process, a store or a socket, in one binary.

mod runner_outcomes;
