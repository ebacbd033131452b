//! What an attempt may do beside using its limits: how far its code is trusted, what it may reach, what it may import, and
//! how much isolation there must be for it to run at all.

use serde::{Deserialize, Serialize};

/// How far an attempt's code is trusted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Listed modules only, no network, no child processes, no writable folder.
    #[default]
    Restricted,
    /// Everything that is installed, network by grant, a folder of its own, child processes within the limits.
    Trusted,
}

impl Trust {
    /// As written in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Trusted => "trusted",
        }
    }
}

/// What an attempt may reach. Loopback, link-local, private and metadata addresses never are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// Hosts by name: `api.example.com`, or `*.example.com` for every name below it. A port may follow, as
    /// `api.example.com:8443`; without one, 80 and 443.
    Allowlist(Vec<String>),
    /// Every public address.
    Open,
}

impl Network {
    /// What `@workflow(network=…)` declares: an empty list is none, `*` is open.
    #[must_use]
    pub fn declared(hosts: &[String]) -> Self {
        if hosts.is_empty() {
            Self::None
        } else if hosts.iter().any(|host| host == "*") {
            Self::Open
        } else {
            Self::Allowlist(hosts.to_vec())
        }
    }

    /// The mode's name: `none`, `allowlist` or `open`.
    #[must_use]
    pub const fn mode(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowlist(_) => "allowlist",
            Self::Open => "open",
        }
    }
}

/// Which modules an attempt may import, by top-level or dotted name; a name covers everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleRules {
    /// The only ones beside the bundle's own and `weft`; none is everything that is installed.
    pub allow: Option<Vec<String>>,
    /// Never these, even where they are allowed.
    pub deny: Vec<String>,
}

/// How much isolation the platform gives, from the least to the most. What is in force is found out by effect, at start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A process of its own with an empty environment and rlimits; no kernel layer keeps it from files or network.
    #[default]
    Process,
    /// The kernel keeps it from files, network and other processes (Landlock and seccomp).
    Confined,
    /// As `confined`, in process, mount and network namespaces of its own, with a disk quota.
    Namespaces,
}

impl Tier {
    /// As written in settings and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Confined => "confined",
            Self::Namespaces => "namespaces",
        }
    }
}

/// Everything that an attempt is allowed; already the smallest of what its code, its organization and the platform say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// How far its code is trusted.
    pub trust: Trust,
    /// What it may reach.
    pub network: Network,
    /// What it may import.
    pub modules: ModuleRules,
    /// Below this it is refused.
    pub minimum: Tier,
}

impl Rights {
    /// Code of the workspace: trusted, with the network that it declares.
    #[must_use]
    pub fn of_workspace(hosts: &[String]) -> Self {
        Self {
            trust: Trust::Trusted,
            network: Network::declared(hosts),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_of_hosts() {
        assert_eq!(Network::declared(&[]), Network::None);
        assert_eq!(Network::declared(&["*".into(), "a.example".into()]), Network::Open);
        assert_eq!(
            Network::declared(&["a.example".into()]),
            Network::Allowlist(vec!["a.example".into()])
        );
        assert!(Tier::Process < Tier::Confined && Tier::Confined < Tier::Namespaces);
    }
}
