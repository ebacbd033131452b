//! Which hosts and ports an attempt may reach, by what was declared and granted. Pure: addresses are judged elsewhere.

use std::fmt;
use std::net::IpAddr;

use url::Host;

use crate::domain::Network;
use crate::error::Finding;

/// Ports of a pattern that names none.
const USUAL_PORTS: [u16; 2] = [80, 443];
/// The longest name that DNS has.
const NAME_BYTES: usize = 253;

/// A host as it was asked for: a name in its one spelling, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Lower case, ASCII, without the final dot.
    Name(String),
    /// A literal.
    Address(IpAddr),
}

impl Target {
    /// Reads a host in any spelling: capital letters, other scripts, a final dot, brackets.
    #[must_use]
    pub fn parse(host: &str) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bracketed.unwrap_or(host).parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        match Host::parse(host).ok()? {
            Host::Domain(name) => is_name(&name).then_some(Self::Name(name)),
            Host::Ipv4(address) => Some(Self::Address(address.into())),
            Host::Ipv6(address) => Some(Self::Address(IpAddr::V6(address).to_canonical())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
        })
}

/// One entry of an allow list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    host: Wanted,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Exactly(Target),
    /// Every name below this one.
    Below(String),
}

impl Pattern {
    /// Reads `api.example.com`, `*.example.com`, `api.example.com:8443`, `192.0.2.1`, `[2001:db8::1]:443`.
    ///
    /// # Errors
    /// What is wrong with it, with `pointer` as its place.
    pub fn parse(text: &str, pointer: &str) -> Result<Self, Finding> {
        let refuse = |what: &str, hint: &str| {
            Err(Finding::new(pointer, "invalid_host", format!("`{text}` {what}")).hint(hint.to_owned()))
        };
        let usual = "give a host as `api.example.com`, `*.example.com` or `api.example.com:8443`";
        if text.contains("://") || text.contains(['/', '@', '?', '#']) {
            return refuse("is a URL or a part of one, not a host", usual);
        }
        let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bare_v6 && !port.ends_with(']') => match port.parse::<u16>() {
                Ok(port) if port != 0 => (host, Some(port)),
                _ => return refuse("has a port that is no number from 1 to 65535", usual),
            },
            _ => (text, None),
        };
        let host = match host.strip_prefix("*.") {
            Some(below) => match Target::parse(below) {
                Some(Target::Name(name)) if name.contains('.') => Wanted::Below(name),
                Some(Target::Name(_)) => {
                    return refuse(
                        "stands for a whole top-level domain",
                        "name at least two labels after `*.`, as `*.example.com`",
                    );
                }
                _ => return refuse("is not a host", usual),
            },
            None => match Target::parse(host) {
                Some(target) => Wanted::Exactly(target),
                None => return refuse("is not a host", usual),
            },
        };
        Ok(Self { host, port })
    }

    fn covers_host(&self, target: &Target) -> bool {
        match (&self.host, target) {
            (Wanted::Exactly(wanted), target) => wanted == target,
            (Wanted::Below(above), Target::Name(name)) => name
                .strip_suffix(above.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            (Wanted::Below(_), Target::Address(_)) => false,
        }
    }

    fn covers_port(&self, port: u16) -> bool {
        match self.port {
            Some(wanted) => wanted == port,
            None => USUAL_PORTS.contains(&port),
        }
    }
}

/// What an attempt may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Closed,
    /// What these cover.
    Listed(Vec<Pattern>),
    /// Every host.
    Open,
}

/// Why a host is not reached: a sentence, and the line that would allow it where a line would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for, as `api.example.com:443`.
    pub target: String,
    /// Why not.
    pub reason: String,
    /// What to write where.
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection to {} was refused: {}", self.target, self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Policy {
    /// Reads what was granted. Patterns that can't be read allow nothing, and come back as findings whose pointer is
    /// `network/` and their place in the list.
    #[must_use]
    pub fn read(network: &Network) -> (Self, Vec<Finding>) {
        match network {
            Network::None => (Self::Closed, Vec::new()),
            Network::Open => (Self::Open, Vec::new()),
            Network::Allowlist(hosts) => {
                let (mut patterns, mut findings) = (Vec::new(), Vec::new());
                for (place, host) in hosts.iter().enumerate() {
                    match Pattern::parse(host.trim(), &format!("network/{place}")) {
                        Ok(pattern) => patterns.push(pattern),
                        Err(finding) => findings.push(finding),
                    }
                }
                (Self::Listed(patterns), findings)
            }
        }
    }

    /// Whether a host may be looked up: whether it may be reached at some port.
    ///
    /// # Errors
    /// Why not.
    pub fn admits_host(&self, target: &Target) -> Result<(), Refusal> {
        let known = match self {
            Self::Open => true,
            Self::Closed => false,
            Self::Listed(patterns) => patterns.iter().any(|pattern| pattern.covers_host(target)),
        };
        if known { Ok(()) } else { Err(self.refuse(target, None)) }
    }

    /// Whether a host may be reached at a port.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, target: &Target, port: u16) -> Result<(), Refusal> {
        let good = match self {
            Self::Open => true,
            Self::Closed => false,
            Self::Listed(patterns) => patterns
                .iter()
                .any(|pattern| pattern.covers_host(target) && pattern.covers_port(port)),
        };
        if good {
            Ok(())
        } else {
            Err(self.refuse(target, Some(port)))
        }
    }

    fn refuse(&self, target: &Target, port: Option<u16>) -> Refusal {
        let line = match port {
            Some(port) if !USUAL_PORTS.contains(&port) => format!("{target}:{port}"),
            _ => target.to_string(),
        };
        let reason = match self {
            Self::Closed => "this step has no network",
            _ if port.is_some() && self.admits_host(target).is_ok() => "`network` lists this host for other ports only",
            _ => "it is not in `network`",
        };
        Refusal {
            target: port.map_or_else(|| target.to_string(), |port| format!("{target}:{port}")),
            reason: reason.to_owned(),
            hint: Some(format!("add it in `@workflow`: `network=[\"{line}\"]`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(hosts: &[&str]) -> Policy {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let (policy, findings) = Policy::read(&Network::declared(&hosts));
        assert_eq!(findings, [], "{hosts:?}");
        policy
    }

    fn admits(policy: &Policy, host: &str, port: u16) -> bool {
        policy.admits(&Target::parse(host).unwrap(), port).is_ok()
    }

    #[test]
    fn hosts_have_one_spelling() {
        let listed = policy(&[
            "API.Example.com.",
            "*.Bücher.example",
            "db.example:5432",
            "192.0.2.1",
            "[2001:db8::1]:8443",
        ]);
        for (host, port, good) in [
            ("api.example.com", 443, true),
            ("API.EXAMPLE.COM.", 80, true),
            ("api.example.com", 8443, false),
            ("xapi.example.com", 443, false),
            ("example.com", 443, false),
            ("a.xn--bcher-kva.example", 443, true),
            ("a.b.BÜCHER.example", 443, true),
            ("xn--bcher-kva.example", 443, false),
            ("axn--bcher-kva.example", 443, false),
            ("db.example", 5432, true),
            ("db.example", 443, false),
            ("192.0.2.1", 443, true),
            ("0xc0.0.2.1", 443, true),
            ("192.0.2.2", 443, false),
            ("2001:db8::1", 8443, true),
            ("[2001:DB8::1]", 8443, true),
        ] {
            assert_eq!(admits(&listed, host, port), good, "{host}:{port}");
        }
        assert!(admits(&policy(&["*"]), "anything.example", 25));
        assert!(!admits(&policy(&[]), "anything.example", 443));
    }

    #[test]
    fn bad_patterns_are_findings() {
        for bad in [
            "",
            "https://api.example.com",
            "api.example.com/path",
            "user@example.com",
            "*.com",
            "*",
            "a.*.com",
            "**.example.com",
            "*.192.0.2.1",
            "api example.com",
            "a..b",
            "a.example:0",
            "a.example:65536",
            "a.example:http",
            "::1:x",
        ] {
            let found = Pattern::parse(bad, "network/0").unwrap_err();
            assert_eq!(
                (found.code.as_str(), found.pointer.as_str()),
                ("invalid_host", "network/0"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_refusal_says_which_line_to_add() {
        let refusal =
            |policy: &Policy, host: &str, port| policy.admits(&Target::parse(host).unwrap(), port).unwrap_err();
        let listed = policy(&["api.example.com"]);
        assert_eq!(
            refusal(&listed, "www.example.com", 443).to_string(),
            "the connection to www.example.com:443 was refused: it is not in `network`; add it in `@workflow`: \
             `network=[\"www.example.com\"]`"
        );
        assert_eq!(
            refusal(&listed, "api.example.com", 8443).to_string(),
            "the connection to api.example.com:8443 was refused: `network` lists this host for other ports only; add it in \
             `@workflow`: `network=[\"api.example.com:8443\"]`"
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = Pattern::parse(&text, "x");
            let _ = Target::parse(&text);
        }

        /// A wildcard covers what ends in its name at the boundary of a label, and nothing else.
        #[test]
        fn wildcards_end_at_labels(prefix in "[a-z.]{0,12}") {
            let name = format!("{prefix}example.com");
            if let Some(target) = Target::parse(&name) {
                let covered = policy(&["*.example.com"]).admits(&target, 443).is_ok();
                prop_assert_eq!(covered, prefix.ends_with('.') && prefix.len() > 1, "{}", name);
            }
        }
    }
}
