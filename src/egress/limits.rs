//! How much network one attempt may use.

use serde::Serialize;

/// Bounds of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressLimits {
    /// Connections at the same time.
    pub open: u32,
    /// Connections in all.
    pub connections: u32,
    /// Bytes sent and received, in all.
    pub bytes: u64,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            open: 64,
            connections: 1_000,
            bytes: 1 << 30,
        }
    }
}
