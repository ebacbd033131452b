//! A queue message about a run, or a due row → a system scope. The first read under it is the proof: the organization is part
//! of the key, so a pair that doesn't belong together finds nothing.

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

/// Something of an organization that Weft looks at by itself: what is due, as the rows of `WeftDue` carry it, or a queue that
/// is polled, as those of `WeftQueueTriggers` do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRef {
    /// The organization.
    pub org: OrgId,
    /// What of it, by its id.
    pub id: String,
}

/// The scope in which Weft itself does what is due.
#[must_use]
pub fn rehydrate_due(due: &DueRef, part: &'static str) -> Scope {
    Scope::new(
        due.org.clone(),
        due.org.to_string(),
        Principal::System { part },
        None,
        Tier::Host,
    )
}
