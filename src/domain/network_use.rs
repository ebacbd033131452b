//! How much network an attempt has used.

use serde::{Deserialize, Serialize};

/// Connections and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkUse {
    /// Connections that were tried.
    pub connections: u64,
    /// Bytes that the attempt sent.
    pub bytes_sent: u64,
    /// Bytes that it received.
    pub bytes_received: u64,
    /// Connections and names that were refused.
    pub refused: u64,
}
