//! Weft: a multi-tenant workflow engine that runs on Azure Functions.
//!
//! One library, one program of five lines. A request or a queue message becomes a [`tenancy::Scope`]; a use case takes the
//! scope; the [`scheduler`] decides, purely; [`store`] commits what was decided; [`runner`] makes attempts in Python
//! processes. `docs/ARCHITECTURE.md` has the picture, what always holds, and two walk-throughs in file names.
//!
//! # Layers
//!
//! A module imports from rows below its own.
//!
//! | row | modules | what they do |
//! |---|---|---|
//! | 5 | [`cli`], [`boot`] | commands; the one place that puts everything together |
//! | 4 | [`http`], [`host`] | bytes to calls and back |
//! | 3 | [`usecase`], [`authn`] | one function for each verb; who is calling |
//! | 2 | [`store`], [`runner`], [`egress`] | the impure adapters |
//! | 1 | [`scheduler`], [`definition`], [`tenancy`], [`authz`], [`audit`], [`secrets`], [`hooks`] | policy and decisions: no async, no I/O |
//! | 0 | [`domain`], [`error`], [`clock`], [`codes`], [`config`], [`telemetry`], [`integrity`] | values, time, settings, log lines, whether the engine is as released |
//!
//! Within a row: [`tenancy`] and [`audit`] use [`authz`], [`tenancy`] makes a scope of what [`hooks`] has verified, [`host`] uses the gate and the errors of [`http`], [`store`] keeps
//! the log lines of [`runner`], [`runner`] opens the network of [`egress`], [`clock`] and [`config`] use [`domain`]. [`http`] and [`host`] reach storage and the runner
//! through [`usecase`] only.
//!
//! # What is nowhere else
//!
//! - making a `Scope`: [`tenancy`]; making a `Transition`: [`scheduler`];
//! - names in storage: [`store::key`];
//! - a kind of error becoming a status: [`http::problem`];
//! - the system's clock and randomness: [`clock`]; the environment: [`config`];
//! - choosing a backend: [`boot`].

pub mod audit;
pub mod authn;
pub mod authz;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod codes;
pub mod config;
pub mod definition;
pub mod domain;
pub mod egress;
pub mod error;
pub mod hooks;
pub mod host;
pub mod http;
pub mod integrity;
pub mod runner;
pub mod scheduler;
pub mod secrets;
pub mod store;
pub mod telemetry;
pub mod tenancy;
#[cfg(feature = "testing")]
pub mod testing;
pub mod usecase;
