//! Weft: a multi-tenant workflow engine that runs on Azure Functions.

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
pub mod error;
pub mod host;
pub mod http;
pub mod runner;
pub mod scheduler;
pub mod store;
pub mod telemetry;
pub mod tenancy;
#[cfg(feature = "testing")]
pub mod testing;
pub mod usecase;
