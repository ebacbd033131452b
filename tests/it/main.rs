//! The integration tests: everything that needs a process, a store or a socket, in one program.

mod architecture;
mod audit;
mod authn_repositories;
mod authn_table;
mod authz_matrix;
mod azure;
mod broker;
mod conformance;
mod egress;
mod emitted_files;
mod endpoint_coverage;
mod fault;
mod host_envelope;
mod kept;
mod key_vault;
mod policies;
mod protocol;
mod runner_isolation;
mod runner_limits;
mod runner_outcomes;
mod seccomp;
mod secrets;
mod sqlite;
mod tenancy_matrix;
