//! The network of jailed workers: they have none of their own, and what they may reach is connected for them.
//!
//! A worker's `connect()` comes here instead of going to the kernel's network (`notify`). Names become placeholder addresses
//! (`dns`), so that a connection is judged by the name that was meant. The broker decides by name and port ([`policy`]),
//! resolves the name itself, judges every address ([`address`]), connects to one that it has judged, and puts a connected
//! socket in the place of the worker's (`relay`). No library has to know about it. Where the kernel can't do that, workers are
//! given an ordinary HTTP proxy with the same rules (`proxy`).

pub mod address;
mod answer_head;
#[cfg(target_os = "linux")]
mod dns;
pub mod gate;
pub mod grant;
#[cfg(target_os = "linux")]
mod kernel;
pub mod limits;
mod names;
#[cfg(target_os = "linux")]
mod notify;
pub mod policy;
mod proxy;
mod relay;
mod resolver;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use self::address::Opened;
pub use self::gate::Gate;
pub use self::grant::{Grant, Notice};
pub use self::limits::EgressLimits;
pub use self::policy::{Policy, Refusal, Target};
pub use self::resolver::Resolver;
use crate::domain::Network;

/// What is the same for all attempts of an installation.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// How much one attempt may use.
    pub limits: EgressLimits,
    /// Which private networks may be reached.
    pub opened: Opened,
    /// How names are resolved.
    pub resolver: Resolver,
}

impl Egress {
    /// What one attempt may reach, and the notices of what it did. Patterns that can't be read are the first notices.
    #[must_use]
    pub fn grant(&self, network: &Network) -> (Arc<Grant>, mpsc::UnboundedReceiver<Notice>) {
        Grant::new(self, network)
    }
}
