//! The port behind which secrets are kept, and the values that cross it. Two keep them: rows that are sealed
//! (`store/repo/secrets.rs`), and a key vault (`store/azure/vault.rs`).

use std::fmt;

use async_trait::async_trait;

use super::port::Result;
use super::repo::audit_log::Within;
use crate::domain::{Secret, SecretName, Timestamp};
use crate::tenancy::Scope;

/// Most bytes of a value; a key vault takes 25 KiB.
pub const MAX_VALUE_BYTES: usize = 25_000;
/// Most bytes of all hosts of a secret together.
pub const MAX_HOSTS_BYTES: usize = 2_000;
/// Most bytes of a description; a key vault's tag takes 256 characters.
pub const MAX_DESCRIPTION_BYTES: usize = 250;

/// How a secret is put on a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Presented {
    /// `Authorization: Bearer <value>`.
    #[default]
    Bearer,
    /// `Authorization: Basic <base64 of the value>`; the value is `user:password`.
    Basic,
    /// In a header of its own, as `X-Api-Key: <value>`.
    Header(String),
}

impl Presented {
    /// From `bearer`, `basic` or `header:<name>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bearer" => Some(Self::Bearer),
            "basic" => Some(Self::Basic),
            _ => {
                let name = text.strip_prefix("header:")?;
                let good = (1..=64).contains(&name.len())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                let taken = [
                    "host",
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "te",
                    "upgrade",
                ];
                (good && !taken.contains(&name.to_ascii_lowercase().as_str())).then(|| Self::Header(name.to_owned()))
            }
        }
    }
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Basic => f.write_str("basic"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// What is told of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRecord {
    /// Its name as it was written.
    pub name: SecretName,
    /// Where it may be sent by Weft itself; none means nowhere.
    pub hosts: Vec<String>,
    /// How it is put on a request.
    pub presented: Presented,
    /// What it is for.
    pub description: String,
    /// When it was written.
    pub updated_at: Timestamp,
    /// The id of the principal who wrote it; empty when somebody else did, past Weft.
    pub updated_by: String,
}

/// A secret to write.
#[derive(Debug)]
pub struct NewSecret {
    /// What is told of it.
    pub record: SecretRecord,
    /// Its value.
    pub value: Secret,
}

/// A secret with its value.
#[derive(Debug, Clone)]
pub struct StoredSecret {
    /// What is told of it.
    pub record: SecretRecord,
    /// Its value.
    pub value: Secret,
}

/// Keeps secrets.
#[async_trait]
pub trait SecretStore: Send + Sync + fmt::Debug {
    /// `sealed` or `key_vault`.
    fn kind(&self) -> &'static str;

    /// One of the owner's own; none when there is none of this name.
    async fn get(&self, within: Within<'_>, name: &SecretName) -> Result<Option<StoredSecret>>;

    /// One of the platform's, for an organization. Which ones it may have is the caller's to decide.
    async fn get_inherited(&self, scope: &Scope, name: &SecretName) -> Result<Option<StoredSecret>>;

    /// Writes one, over what is there; whether it is new.
    async fn put(&self, within: Within<'_>, new: NewSecret) -> Result<bool>;

    /// Deletes one; whether there was one.
    async fn delete(&self, within: Within<'_>, name: &SecretName) -> Result<bool>;

    /// All of the owner's, by name.
    async fn list(&self, within: Within<'_>) -> Result<Vec<SecretRecord>>;

    /// Seals anew what isn't sealed by the current key; how many there were.
    async fn reseal(&self, within: Within<'_>) -> Result<usize>;
}
