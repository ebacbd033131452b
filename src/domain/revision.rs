//! Which revision of a workflow that an organization has authored.

use serde::{Deserialize, Serialize};

/// A revision of an organization's workflow, as a run keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowRevision {
    /// Its number, from 1; none of a draft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// SHA-256 of the graph with the members of all objects in the order of their names, in 64 hexadecimal digits.
    pub digest: String,
}

impl WorkflowRevision {
    /// Whether it is a draft: a run of one is a test.
    #[must_use]
    pub const fn is_draft(&self) -> bool {
        self.number.is_none()
    }
}
