//! From where a request comes: the peer, or what a header says behind a hop that hides the client.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};

/// What the operator says about the way in.
#[derive(Debug, Clone, Default)]
pub struct SourceSettings {
    /// Whether every request comes through the Functions host. It is recognized by its header otherwise.
    pub behind_host: bool,
    /// `WEFT_CLIENT_IP_HEADER`: the header in which whatever is in front puts the client's address, replacing any value that the
    /// client sent. Naming it is the operator's word that it does.
    pub client_ip_header: Option<HeaderName>,
}

/// The address to put on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddress {
    /// An IP address without port or brackets.
    pub text: String,
    /// Whether it is the peer's own or from the header that the operator named.
    pub verified: bool,
}

/// Reads the source address. Only what parses as an IP address is taken, so the text is short and harmless.
#[must_use]
pub fn source_address(headers: &HeaderMap, peer: IpAddr, settings: &SourceSettings) -> SourceAddress {
    let behind = settings.behind_host || headers.contains_key("x-azure-functions-invocationid");
    if !behind {
        return SourceAddress {
            text: shown(peer),
            verified: true,
        };
    }
    if let Some(name) = &settings.client_ip_header {
        // One value that is one address: of a list nobody knows which entry the client wrote itself.
        let mut values = headers.get_all(name).iter();
        if let (Some(value), None) = (values.next(), values.next())
            && let Some(address) = value.to_str().ok().and_then(parse_address)
        {
            return SourceAddress {
                text: shown(address),
                verified: true,
            };
        }
    }
    let forwarded = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let first = forwarded
        .and_then(|list| list.split(',').next())
        .and_then(parse_address);
    SourceAddress {
        text: shown(first.unwrap_or(peer)),
        verified: false,
    }
}

fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:443`, each with or without a zone.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if text.len() > 64 {
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let inner = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text,
    };
    inner.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)], named: Option<&'static str>) -> (String, bool) {
        let map: HeaderMap = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
            .collect();
        let settings = SourceSettings {
            behind_host: false,
            client_ip_header: named.map(HeaderName::from_static),
        };
        let found = source_address(&map, "127.0.0.1".parse().unwrap(), &settings);
        assert!(found.text.len() <= 64);
        (found.text, found.verified)
    }

    #[test]
    fn the_peer_unless_behind_the_host() {
        let host = ("x-azure-functions-invocationid", "1");
        assert_eq!(
            of(&[("x-forwarded-for", "203.0.113.9")], None),
            ("127.0.0.1".into(), true)
        );
        assert_eq!(
            of(&[("x-client", "203.0.113.9")], Some("x-client")),
            ("127.0.0.1".into(), true)
        );
        assert_eq!(of(&[host], None), ("127.0.0.1".into(), false));
        assert_eq!(
            of(&[host, ("x-forwarded-for", "203.0.113.9, 10.0.0.1")], None),
            ("203.0.113.9".into(), false)
        );
        assert_eq!(
            of(&[host, ("x-client", "203.0.113.9:4711")], Some("x-client")),
            ("203.0.113.9".into(), true)
        );
        let both = [
            host,
            ("x-client", "1.1.1.1, 2.2.2.2"),
            ("x-forwarded-for", "203.0.113.9"),
        ];
        assert_eq!(
            of(&both, Some("x-client")),
            ("203.0.113.9".into(), false),
            "a list is nobody's word"
        );
    }

    #[test]
    fn addresses_in_every_dress() {
        for (text, want) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:443", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("\"[2001:db8::1]:443\"", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("unknown", None),
            ("", None),
            ("[", None),
            ("1.2.3.4<script>", None),
        ] {
            assert_eq!(parse_address(text).map(shown).as_deref(), want, "{text}");
        }
    }
}
