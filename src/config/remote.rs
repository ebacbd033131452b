//! The installation that commands talk to which work on published code from elsewhere.

use serde::Serialize;

use super::env_var as var;
use super::read::Reader;
use super::secret::Secret;

/// Another installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// Its address, without `/api`; none for the data that the settings name.
    pub server: Option<String>,
    /// The function key that is sent there.
    pub key: Option<Secret>,
}

impl Remote {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let variable = &var::WEFT_SERVER;
        let server = reader.text("remote.server", variable);
        if let Some(server) = &server
            && !may_be_told_a_key(server)
        {
            let message = format!("`{}` is not the address of an installation", variable.name);
            let hint = "give `https://HOST`; `http://` is for this machine only, since a key is sent".to_owned();
            reader.refuse(variable, "not_an_address", message, Some(hint));
        }
        Self {
            server: server.map(|server| server.trim_end_matches('/').to_owned()),
            key: reader.secret("remote.key", &var::WEFT_KEY),
        }
    }
}

/// Whether a key may be sent to this address: over TLS, or to this machine.
#[must_use]
pub fn may_be_told_a_key(server: &str) -> bool {
    let Ok(url) = url::Url::parse(server) else {
        return false;
    };
    let is_local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    is_plain && (url.scheme() == "https" && url.has_host() || url.scheme() == "http" && is_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_sent_in_the_clear() {
        for good in [
            "https://weft.example",
            "http://localhost:7071/",
            "http://127.0.0.1:1",
            "http://[::1]:7071",
        ] {
            assert!(may_be_told_a_key(good), "{good}");
        }
        for bad in [
            "http://weft.example",
            "weft.example",
            "https://",
            "ftp://localhost",
            "https://user:pw@weft.example",
            "https://weft.example?code=key",
            "http://localhost.evil.example",
        ] {
            assert!(!may_be_told_a_key(bad), "{bad}");
        }
    }
}
