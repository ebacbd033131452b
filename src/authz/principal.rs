//! Whoever authenticated, and by which door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Action, Resource};
use crate::domain::{HookId, KeyId, OrgId, UserId};

/// By which door a principal came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A function key, verified by the handler itself.
    FunctionKey,
    /// The platform's client principal.
    ClientPrincipal,
    /// A Weft account.
    Session,
    /// A delivery to a webhook, by its signature.
    Hook,
    /// A queue or timer invocation; never a caller from outside.
    Host,
    /// The command line, on a machine that holds the storage credential anyway.
    Terminal,
}

/// Whoever authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person.
    User {
        /// Their id.
        id: UserId,
        /// A name to show.
        name: String,
        /// Whether they are a platform administrator.
        administrator: bool,
    },
    /// A system with a function key.
    Service {
        /// The key's id.
        key: KeyId,
        /// The key's name.
        name: String,
        /// What the key may do.
        scopes: Vec<KeyScope>,
        /// The id of who made the key; none of keys that don't say so.
        made_by: Option<String>,
        /// `X-User-Id`, taken as claimed.
        claimed_user: Option<String>,
    },
    /// Whoever holds the secret of a webhook and has signed a delivery with it.
    Hook {
        /// The hook's id.
        id: HookId,
        /// The hook's name.
        name: String,
    },
    /// Weft itself: the driver, the timer.
    System {
        /// Which part, as `drive_run`.
        part: &'static str,
    },
    /// Whoever runs the command line.
    Operator,
}

impl Principal {
    /// `user`, `service`, `system` or `operator`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Service { .. } => "service",
            Self::System { .. } | Self::Hook { .. } => "system",
            Self::Operator => "operator",
        }
    }

    /// A stable id: the user's, `key:<id>`, `hook:<id>`, `system:<part>` or `operator`.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::User { id, .. } => id.to_string(),
            Self::Service { key, .. } => format!("key:{key}"),
            Self::Hook { id, .. } => format!("hook:{id}"),
            Self::System { part } => format!("system:{part}"),
            Self::Operator => "operator".to_owned(),
        }
    }

    /// A name to show.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User { name, .. } | Self::Service { name, .. } | Self::Hook { name, .. } => name,
            Self::System { part } => part,
            Self::Operator => "operator",
        }
    }
}

/// What a key may do: `*`, `workflow:*` or `workflow:run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyScope {
    /// Everything.
    All,
    /// Every verb on one kind of thing.
    Every(Resource),
    /// One verb on one kind of thing.
    One(Resource, Action),
}

impl KeyScope {
    /// Whether it covers a verb on a kind of thing.
    #[must_use]
    pub fn covers(self, action: Action, resource: Resource) -> bool {
        match self {
            Self::All => true,
            Self::Every(on) => on == resource,
            Self::One(on, verb) => on == resource && verb == action,
        }
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; scopes are `*`, `workflow:*`, `workflow:run`, `run:read` and so on")]
pub struct ScopeError(pub String);

impl FromStr for KeyScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text == "*" {
            return Ok(Self::All);
        }
        let error = || ScopeError(text.chars().take(60).collect());
        let (resource, action) = text.split_once(':').ok_or_else(error)?;
        let resource = *Resource::ALL
            .iter()
            .find(|r| r.as_str() == resource)
            .ok_or_else(error)?;
        if action == "*" {
            return Ok(Self::Every(resource));
        }
        let action = *Action::ALL.iter().find(|a| a.as_str() == action).ok_or_else(error)?;
        Ok(Self::One(resource, action))
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Every(resource) => write!(f, "{}:*", resource.as_str()),
            Self::One(resource, action) => write!(f, "{}:{}", resource.as_str(), action.as_str()),
        }
    }
}

impl Serialize for KeyScope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyScope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An authenticated request: the principal, and what audit records say about where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// By which door.
    pub tier: Tier,
    /// For a key: the organizations that it is for; empty means every one. Empty for everybody else.
    pub key_organizations: Vec<OrgId>,
    /// The client principal that came along with a key: `issuer subject`, unverified.
    pub also_principal: Option<String>,
    /// From where, and how the request is named.
    pub origin: Origin,
}

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The source address as text; empty for the command line.
    pub address: String,
    /// Whether the address is the peer's or comes from a header that the operator named; `X-Forwarded-For` is not verified.
    pub address_verified: bool,
    /// `User-Agent`, at most 200 characters.
    pub agent: String,
    /// The request's id.
    pub request_id: String,
    /// Method and path, without the query.
    pub endpoint: String,
}
