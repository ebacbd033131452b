//! The listener: port, body size, waiting.

use std::time::Duration;

use serde::Serialize;

use super::env_var as var;
use super::read::Reader;

/// Settings of the listener. The address is always the loopback: whoever else may call comes through the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// 0 takes a free one.
    pub port: u16,
    /// Largest request body.
    pub max_body_bytes: u64,
    /// How long a call waits for its run at most, unless it asks for less.
    pub sync_wait_seconds: u64,
    /// The header, in lower case, that carries the caller's address and that callers can't set.
    pub client_ip_header: Option<String>,
}

impl Http {
    /// How long a call waits for its run at most.
    #[must_use]
    pub const fn sync_wait(&self) -> Duration {
        Duration::from_secs(self.sync_wait_seconds)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let port = reader.first_number_or_default("http.port", &[&var::FUNCTIONS_CUSTOMHANDLER_PORT, &var::WEFT_PORT]);
        Self {
            port: u16::try_from(port).unwrap_or_default(),
            max_body_bytes: reader.number_or_default("http.maxBodyBytes", &var::WEFT_MAX_BODY_BYTES),
            sync_wait_seconds: reader.number_or_default("http.syncWaitSeconds", &var::WEFT_SYNC_WAIT_SECONDS),
            client_ip_header: header_name(reader),
        }
    }
}

fn header_name(reader: &mut Reader<'_>) -> Option<String> {
    let variable = &var::WEFT_CLIENT_IP_HEADER;
    let name = reader.text("http.clientIpHeader", variable)?.to_ascii_lowercase();
    if name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    {
        return Some(name);
    }
    let message = format!("`{}` is `{name}`, which is not the name of a header", variable.name);
    reader.refuse(
        variable,
        "not_a_header_name",
        message,
        Some("give a name as `x-azure-clientip`".to_owned()),
    );
    None
}
