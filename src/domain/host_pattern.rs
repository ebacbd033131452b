//! Hosts as declarations, policies and secrets name them: `api.example.com`, `*.example.com`, either with `:port`, or `*`.
//!
//! A pattern is a set of places (a host and a port), and what is declared and what is allowed meet as sets. An address is a
//! host too; what a name leads to is judged where the connection is made. Whatever is a pattern here is one to the broker of
//! connections, with the same meaning.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Ports that a pattern without one means.
pub const WEB_PORTS: [u16; 2] = [80, 443];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Hosts {
    /// One name.
    Exact(String),
    /// Every name below it, however deep, and not itself.
    Below(String),
}

/// A host pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Option<(Hosts, Option<u16>)>);

/// A text that is no host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no host: {reason}")]
pub struct HostError {
    /// What was given, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl HostPattern {
    /// Every host and port: `*`.
    pub const ANY: Self = Self(None);

    /// Whether it is `*`.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a connection to this name (lower case, no dot at the end) and port is meant.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        match &self.0 {
            None => true,
            Some((hosts, ports)) => {
                hosts.have(host) && ports.map_or_else(|| WEB_PORTS.contains(&port), |only| only == port)
            }
        }
    }
}

impl HostPattern {
    fn address(address: IpAddr, port: Option<u16>) -> Self {
        let text = match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        Self(Some((Hosts::Exact(text), port)))
    }
}

impl Hosts {
    fn have(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(name) => is_below(host, name),
        }
    }

    /// What both have.
    fn meet(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Exact(name), hosts) | (hosts, Self::Exact(name)) => {
                hosts.have(name).then(|| Self::Exact(name.clone()))
            }
            (Self::Below(a), Self::Below(b)) if a == b || is_below(a, b) => Some(Self::Below(a.clone())),
            (Self::Below(a), Self::Below(b)) => is_below(b, a).then(|| Self::Below(b.clone())),
        }
    }
}

fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let error = |reason| HostError {
            text: text.chars().take(80).collect(),
            reason,
        };
        if text == "*" {
            return Ok(Self::ANY);
        }
        if text.contains("//") {
            return Err(error("write it without the scheme, as `api.example.com`"));
        }
        if text.contains(['/', '?', '#']) {
            return Err(error("write it without the path, as `api.example.com`"));
        }
        if text.contains('@') {
            return Err(error("write it without user and password"));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(number)),
                _ => return Err(error("the port must be a number from 1 to 65535")),
            },
            _ => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return Ok(Self::address(address, port));
        }
        if !host.is_ascii() {
            return Err(error("write it in ASCII, as `xn--…`"));
        }
        let lower = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let (name, below) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        if name.contains('*') {
            return Err(error(
                "`*` stands alone, or once at the beginning, as in `*.example.com`",
            ));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        if name.len() > 253 || number || !name.split('.').all(is_label) {
            return Err(error("names are letters, digits, `-` and `_`, with `.` between them"));
        }
        if below && !name.contains('.') {
            return Err(error(
                "it means a whole top-level domain; name two labels after `*.`, as `*.example.com`",
            ));
        }
        let hosts = if below {
            Hosts::Below(name.to_owned())
        } else {
            Hosts::Exact(name.to_owned())
        };
        Ok(Self(Some((hosts, port))))
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((hosts, port)) = &self.0 else {
            return f.write_str("*");
        };
        match hosts {
            Hosts::Exact(name) => f.write_str(name)?,
            Hosts::Below(name) => write!(f, "*.{name}")?,
        }
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Everything that a list of patterns means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSet {
    /// Every host and port.
    Any,
    /// These, none of which has another in it.
    Places(BTreeSet<Place>),
}

/// Some hosts at one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    hosts: Hosts,
    port: u16,
}

impl HostSet {
    /// Of a list. What is no pattern means nothing.
    #[must_use]
    pub fn of<T: AsRef<str>>(list: &[T]) -> Self {
        let mut places = Vec::new();
        for pattern in list.iter().filter_map(|text| text.as_ref().parse::<HostPattern>().ok()) {
            let Some((hosts, port)) = pattern.0 else {
                return Self::Any;
            };
            match port {
                Some(port) => places.push(Place { hosts, port }),
                None => places.extend(WEB_PORTS.map(|port| Place {
                    hosts: hosts.clone(),
                    port,
                })),
            }
        }
        Self::smallest(places)
    }

    fn smallest(places: Vec<Place>) -> Self {
        let covered = |one: &Place| {
            let wider = |other: &Place| {
                other != one && other.port == one.port && other.hosts.meet(&one.hosts).as_ref() == Some(&one.hosts)
            };
            places.iter().any(wider)
        };
        Self::Places(places.iter().filter(|one| !covered(one)).cloned().collect())
    }

    /// What both mean.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, set) | (set, Self::Any) => set.clone(),
            (Self::Places(ours), Self::Places(theirs)) => {
                let both = |a: &Place, b: &Place| {
                    let hosts = a.hosts.meet(&b.hosts).filter(|_| a.port == b.port)?;
                    Some(Place { hosts, port: a.port })
                };
                let met = ours.iter().flat_map(|a| theirs.iter().filter_map(move |b| both(a, b)));
                Self::smallest(met.collect())
            }
        }
    }

    /// Whether everything that the other means is meant.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.meet(other) == *other
    }

    /// Whether nothing is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Places(places) if places.is_empty())
    }

    /// As patterns, the fewest that mean the same, sorted.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        let Self::Places(places) = self else {
            return vec![HostPattern::ANY.to_string()];
        };
        let both = |hosts: &Hosts| {
            let at = |port| {
                places.contains(&Place {
                    hosts: hosts.clone(),
                    port,
                })
            };
            WEB_PORTS.into_iter().all(at)
        };
        let mut patterns = BTreeSet::new();
        for Place { hosts, port } in places {
            let port = (!(WEB_PORTS.contains(port) && both(hosts))).then_some(*port);
            patterns.insert(HostPattern(Some((hosts.clone(), port))).to_string());
        }
        patterns.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_pattern_and_what_is_none() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/hosts/cases.json")).unwrap();
        let of = |kind: &str| -> Vec<String> { serde_json::from_value(cases[kind].clone()).unwrap() };
        for good in of("good") {
            let read = good.parse::<HostPattern>().unwrap().to_string();
            assert_eq!(read, good.trim_end_matches('.').to_lowercase());
            assert_eq!(read.parse::<HostPattern>().unwrap().to_string(), read);
        }
        for bad in of("bad") {
            assert!(bad.parse::<HostPattern>().is_err(), "`{bad}`");
        }
        assert_eq!(
            "2001:DB8::1".parse::<HostPattern>().unwrap().to_string(),
            "[2001:db8::1]"
        );
    }

    #[test]
    fn sets_meet() {
        let meet = |a: &[&str], b: &[&str]| {
            let (a, b) = (HostSet::of(a), HostSet::of(b));
            assert_eq!(a.meet(&b), b.meet(&a));
            assert!(a.covers(&a.meet(&b)) && b.covers(&a.meet(&b)));
            a.meet(&b).patterns()
        };
        assert_eq!(meet(&["a.example"], &["*"]), ["a.example"]);
        assert_eq!(meet(&["*.example.com"], &["api.example.com"]), ["api.example.com"]);
        assert_eq!(meet(&["*.example.com"], &["example.com"]), [""; 0]);
        assert_eq!(
            meet(&["*.example.com"], &["*.eu.example.com", "*.a.org"]),
            ["*.eu.example.com"]
        );
        assert_eq!(
            meet(&["*.example.com"], &["notexample.com", "x.notexample.com"]),
            [""; 0]
        );
        assert_eq!(meet(&["a.example"], &["a.example:443"]), ["a.example:443"]);
        assert_eq!(meet(&["a.example"], &["a.example:443", "a.example:80"]), ["a.example"]);
        assert_eq!(meet(&["a.example"], &["a.example:8443"]), [""; 0]);
        assert!(HostSet::of(&["*.example.com"]).covers(&HostSet::of(&["a.b.example.com", "c.example.com"])));
        assert!(!HostSet::of(&["a.b.example.com"]).covers(&HostSet::of(&["*.b.example.com"])));
        assert!(HostSet::of(&["*"]).covers(&HostSet::of(&["a.example:1"])));
    }

    #[test]
    fn a_connection_is_meant_or_not() {
        let matches = |pattern: &str, host, port| pattern.parse::<HostPattern>().unwrap().matches(host, port);
        assert!(matches("a.example", "a.example", 443) && matches("a.example", "a.example", 80));
        assert!(!matches("a.example", "a.example", 8080) && matches("a.example:8080", "a.example", 8080));
        assert!(matches("*.a.example", "c.b.a.example", 443) && !matches("*.a.example", "a.example", 443));
        assert!(!matches("*.a.example", ".a.example", 443) && matches("*", "any.where", 22));
    }
}
