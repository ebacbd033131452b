//! What of an attempt's rights is built into the process that it gets.

pub mod bpf;
pub mod posture;
pub mod seccomp;
pub mod setup;
mod syscalls;

use serde::Serialize;

use crate::domain::{ModuleRules, Network, Rights, Trust};

/// The walls of a worker. Workers of equal ones are interchangeable; which hosts may be reached is the broker's to say, so
/// only whether any may is a wall.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Jail {
    /// How far the code is trusted.
    pub trust: Trust,
    /// Whether connections are asked of the handler; otherwise there are none.
    pub network: bool,
    /// What may be imported.
    pub modules: ModuleRules,
}

impl From<&Rights> for Jail {
    fn from(rights: &Rights) -> Self {
        Self {
            trust: rights.trust,
            // Restricted code has no network, whatever was granted.
            network: rights.trust == Trust::Trusted && rights.network != Network::None,
            modules: rights.modules.clone(),
        }
    }
}
