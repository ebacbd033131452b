//! Weft: a multi-tenant workflow engine that runs on Azure Functions.

pub mod audit;
pub mod authz;
pub mod clock;
pub mod domain;
pub mod error;
pub mod runner;
pub mod store;
pub mod tenancy;
