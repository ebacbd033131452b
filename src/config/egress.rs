//! How much network steps may use, and which private networks they may reach.

use serde::Serialize;

use super::env_var as var;
use super::read::Reader;
use crate::domain::HostPattern;

/// The network of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Connections of an attempt at the same time.
    pub open: u64,
    /// Connections of an attempt in all.
    pub connections: u64,
    /// Bytes that an attempt may send and receive.
    pub bytes: u64,
    /// Private networks with ports; what is wrong with them is found at the start.
    pub private: Vec<String>,
    /// Whether steps may use the network at all.
    pub outbound: bool,
    /// The only hosts that steps may declare; empty for those that policies allow.
    pub domains: Vec<String>,
}

impl Egress {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            open: reader.number_or_default("egress.open", &var::WEFT_EGRESS_OPEN),
            connections: reader.number_or_default("egress.connections", &var::WEFT_EGRESS_CONNECTIONS),
            bytes: reader.number_or_default("egress.bytes", &var::WEFT_EGRESS_BYTES),
            private: reader.list_or_default("egress.private", &var::WEFT_EGRESS_PRIVATE),
            outbound: reader.switch("egress.outbound", &var::WEFT_ALLOW_OUTBOUND_REQUESTS),
            domains: domains(reader),
        }
    }
}

fn domains(reader: &mut Reader<'_>) -> Vec<String> {
    let variable = &var::WEFT_ALLOWED_DOMAINS;
    let domains = reader.list_or_default("egress.domains", variable);
    for domain in &domains {
        if let Err(error) = domain.parse::<HostPattern>() {
            let message = format!("`{}` names no host: {error}", variable.name);
            let hint = "write hosts as `api.example.com`, `*.example.com` or `api.example.com:8443`".to_owned();
            reader.refuse(variable, "not_a_host", message, Some(hint));
        }
    }
    domains
}
