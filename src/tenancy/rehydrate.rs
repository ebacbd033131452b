//! A queue message about a run → a system scope. The first read under it is the proof: the organization is part of the
//! key, so a pair that doesn't belong together finds nothing.

use serde::{Deserialize, Serialize};

use crate::authz::{Principal, Tier};
use crate::domain::{OrgId, RunId};

use super::Scope;

/// A run and its organization, as queue messages carry them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// The organization.
    pub org: OrgId,
    /// The run.
    pub run: RunId,
}

/// The scope in which Weft itself continues a run.
#[must_use]
pub fn rehydrate(run: &RunRef, part: &'static str) -> Scope {
    Scope::new(
        run.org.clone(),
        run.org.to_string(),
        Principal::System { part },
        None,
        Tier::Host,
    )
}
