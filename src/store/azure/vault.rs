//! Secrets in an Azure Key Vault. A secret's name there begins with its organization's id; what is told of it is in its
//! tags. Values are kept in memory for [`CACHED_FOR`] and overwritten when they go.
//!
//! The vault has one list of names for everybody, so the prefix is the wall: it is formed from the scope, in `key.rs`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, RequestContent, Transport};
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use azure_security_keyvault_secrets::models::{SecretProperties, SetSecretParameters};
use azure_security_keyvault_secrets::{ResourceExt as _, SecretClient, SecretClientOptions};
use futures::TryStreamExt as _;
use tokio::time::Instant;

use super::connection::Identity;
use super::error::{Failure, Target};
use super::pipeline;
use crate::audit::Owner;
use crate::domain::{OrgId, Secret, SecretName, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::Result;
use crate::store::repo::audit_log::Within;
use crate::store::secret::{NewSecret, Presented, SecretRecord, SecretStore, StoredSecret};
use crate::tenancy::Scope;

/// How long a value is kept in memory; as long a change may stay unseen by other instances.
pub const CACHED_FOR: Duration = Duration::from_secs(60);
/// Most values that are kept in memory.
const CACHED: usize = 1024;
/// An operation with its tries, the way to the token included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the writing of a name that is being deleted or brought back is tried.
const RECOVERY_TRIES: u32 = 8;
/// The pause between two such tries.
const RECOVERY_PAUSE: Duration = Duration::from_millis(500);
/// Most characters of a tag's value.
const TAG: usize = 256;

const NAME_TAG: &str = "weft-name";
const HOSTS_TAG: &str = "weft-hosts";
const PRESENTED_TAG: &str = "weft-presented";
const DESCRIPTION_TAG: &str = "weft-description";
const BY_TAG: &str = "weft-updated-by";

/// Where the vault is and who asks.
#[derive(Debug)]
pub struct VaultSettings {
    /// `https://NAME.vault.azure.net`.
    pub url: String,
    /// Who asks.
    pub identity: Identity,
}

/// A key vault.
pub struct Vault {
    client: SecretClient,
    cache: Mutex<HashMap<String, (Instant, StoredSecret)>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

/// Makes the store of a key vault. Sends nothing.
///
/// # Errors
/// When the address can't be one, or the environment offers no identity of the wanted kind.
pub fn open_vault(settings: &VaultSettings) -> Result<Vault> {
    let no_identity = |error| Failure::from_sdk(error).into_error(&Target::account("finding an identity"));
    let credential: Arc<dyn TokenCredential> = match &settings.identity {
        Identity::DeveloperTools => DeveloperToolsCredential::new(None).map_err(no_identity)?,
        Identity::Managed { client_id } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                client_options: ClientOptions {
                    retry: pipeline::identity_retry(),
                    ..ClientOptions::default()
                },
            };
            ManagedIdentityCredential::new(Some(options)).map_err(no_identity)?
        }
    };
    Vault::new(&settings.url, credential, &pipeline::transport(), true)
}

impl Vault {
    /// A vault with a credential and a transport of the caller's. `verify` is whether the vault's challenge must name the
    /// domain that the vault is in.
    ///
    /// # Errors
    /// When the address can't be one.
    pub fn new(url: &str, credential: Arc<dyn TokenCredential>, transport: &Transport, verify: bool) -> Result<Self> {
        let options = SecretClientOptions {
            client_options: pipeline::unsigned_options(transport),
            verify_challenge_resource: Some(verify),
            ..SecretClientOptions::default()
        };
        let client = SecretClient::new(url, credential, Some(options))
            .map_err(|error| Failure::from_sdk(error).into_error(&Target::account("opening the key vault")))?;
        Ok(Self {
            client,
            cache: Mutex::default(),
        })
    }

    fn cached(&self, name: &str) -> Option<StoredSecret> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, (read_at, _)| read_at.elapsed() < CACHED_FOR);
        cache.get(name).map(|(_, secret)| secret.clone())
    }

    fn remember(&self, name: &str, secret: &StoredSecret) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(name.to_owned(), (Instant::now(), secret.clone()));
    }

    fn forget(&self, name: &str) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    async fn find(&self, org: Option<&OrgId>, name: &SecretName) -> Result<Option<StoredSecret>> {
        let Some(full) = full_name(org, name) else {
            return Ok(None);
        };
        if let Some(secret) = self.cached(&full) {
            return Ok(Some(secret));
        }
        let reading = async { self.client.get_secret(&full, None).await?.into_model() };
        let found = match bounded(reading).await {
            Ok(found) => found,
            Err(failure) if failure.status() == Some(404) => return Ok(None),
            Err(failure) => return Err(failure.into_error(&target("reading a secret of the key vault", &full))),
        };
        let tags = found.tags.unwrap_or_default();
        let updated = found.attributes.as_ref().and_then(|attributes| attributes.updated);
        let Some(value) = found.value else {
            return Err(Error::corrupt("the key vault gave a secret without its value"));
        };
        let secret = StoredSecret {
            record: record(name.clone(), &tags, updated.map(|at| at.unix_timestamp())),
            value: Secret::value(value),
        };
        self.remember(&full, &secret);
        Ok(Some(secret))
    }
}

fn target<'a>(operation: &'static str, name: &'a str) -> Target<'a> {
    Target::item(operation, "key vault", name)
}

async fn bounded<T>(operation: impl Future<Output = azure_core::Result<T>>) -> std::result::Result<T, Failure> {
    match tokio::time::timeout(OPERATION_TIMEOUT, operation).await {
        Ok(answer) => answer.map_err(Failure::from_sdk),
        Err(_) => Err(Failure::Timeout(OPERATION_TIMEOUT)),
    }
}

/// None for an organization whose id is what stands before the platform's own.
fn full_name(org: Option<&OrgId>, name: &SecretName) -> Option<String> {
    let taken = org.is_some_and(|org| org.as_str() == key::PLATFORM_IN_VAULT);
    (!taken).then(|| key::vault_secret(org, Some(name)))
}

fn own(owner: &Owner) -> Option<&OrgId> {
    match owner {
        Owner::Platform => None,
        Owner::Organization(org) => Some(org),
    }
}

fn record(name: SecretName, tags: &HashMap<String, String>, updated_seconds: Option<i64>) -> SecretRecord {
    let tag = |name: &str| tags.get(name).map(String::as_str).unwrap_or_default();
    let hosts = (0..)
        .map(hosts_tag)
        .map_while(|name| tags.get(&name))
        .flat_map(|hosts| hosts.split(','))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    let tagged = tag(NAME_TAG).parse().ok();
    SecretRecord {
        hosts,
        presented: Presented::parse(tag(PRESENTED_TAG)).unwrap_or_default(),
        description: tag(DESCRIPTION_TAG).to_owned(),
        updated_at: Timestamp::from_millis(updated_seconds.unwrap_or_default() * 1000),
        updated_by: tag(BY_TAG).to_owned(),
        name: tagged.filter(|tagged| name.same(tagged)).unwrap_or(name),
    }
}

/// `weft-hosts`, `weft-hosts-2`, …
fn hosts_tag(number: usize) -> String {
    if number == 0 {
        HOSTS_TAG.to_owned()
    } else {
        format!("{HOSTS_TAG}-{}", number + 1)
    }
}

fn tags(record: &SecretRecord) -> HashMap<String, String> {
    let mut tags = HashMap::from([
        (NAME_TAG.to_owned(), record.name.to_string()),
        (PRESENTED_TAG.to_owned(), record.presented.to_string()),
        (DESCRIPTION_TAG.to_owned(), record.description.clone()),
        (BY_TAG.to_owned(), record.updated_by.chars().take(TAG).collect()),
    ]);
    let mut packed: Vec<String> = Vec::new();
    for host in &record.hosts {
        match packed.last_mut() {
            Some(last) if last.len() + 1 + host.len() <= TAG => {
                last.push(',');
                last.push_str(host);
            }
            _ => packed.push(host.clone()),
        }
    }
    let named = packed.into_iter().enumerate();
    tags.extend(named.map(|(number, hosts)| (hosts_tag(number), hosts)));
    tags
}

#[async_trait]
impl SecretStore for Vault {
    fn kind(&self) -> &'static str {
        "key_vault"
    }

    async fn get(&self, within: Within<'_>, name: &SecretName) -> Result<Option<StoredSecret>> {
        self.find(own(&within.owner()), name).await
    }

    async fn get_inherited(&self, _: &Scope, name: &SecretName) -> Result<Option<StoredSecret>> {
        self.find(None, name).await
    }

    async fn put(&self, within: Within<'_>, new: NewSecret) -> Result<bool> {
        let owner = within.owner();
        let NewSecret { record, value } = new;
        let Some(full) = full_name(own(&owner), &record.name) else {
            return Err(Error::Malformed {
                what: owner.to_string(),
                expected: "owner of a secret in a key vault",
            });
        };
        let before = self.find(own(&owner), &record.name).await?;
        for attempt in 1.. {
            let parameters = SetSecretParameters {
                value: Some(value.expose().to_owned()),
                tags: Some(tags(&record)),
                ..SetSecretParameters::default()
            };
            let writing = async {
                let content: RequestContent<SetSecretParameters> = parameters.try_into()?;
                self.client.set_secret(&full, content, None).await.map(drop)
            };
            let failure = match bounded(writing).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
            let wanted = target("writing a secret of the key vault", &full);
            if failure.status() != Some(409) || attempt == RECOVERY_TRIES {
                return Err(failure.into_error(&wanted));
            }
            // A deleted secret keeps its name until it is purged; bringing it back frees the name for a new version.
            let recovery = async { self.client.recover_deleted_secret(&full, None).await.map(drop) };
            if let Err(failure) = bounded(recovery).await
                && !matches!(failure.status(), Some(404 | 409))
            {
                return Err(failure.into_error(&wanted));
            }
            tokio::time::sleep(RECOVERY_PAUSE).await;
        }
        self.forget(&full);
        Ok(before.is_none())
    }

    async fn delete(&self, within: Within<'_>, name: &SecretName) -> Result<bool> {
        let Some(full) = full_name(own(&within.owner()), name) else {
            return Ok(false);
        };
        let deleting = async { self.client.delete_secret(&full, None).await.map(drop) };
        let deleted = bounded(deleting).await;
        self.forget(&full);
        match deleted {
            Ok(()) => Ok(true),
            Err(failure) if failure.status() == Some(404) => Ok(false),
            Err(failure) => Err(failure.into_error(&target("deleting a secret of the key vault", &full))),
        }
    }

    async fn list(&self, within: Within<'_>) -> Result<Vec<SecretRecord>> {
        let owner = within.owner();
        let org = own(&owner);
        if org.is_some_and(|org| org.as_str() == key::PLATFORM_IN_VAULT) {
            return Ok(Vec::new());
        }
        let prefix = key::vault_secret(org, None);
        let reading = async {
            let all: Vec<SecretProperties> = self.client.list_secret_properties(None)?.try_collect().await?;
            Ok(all)
        };
        let all = bounded(reading)
            .await
            .map_err(|failure| failure.into_error(&target("listing the secrets of the key vault", &prefix)))?;
        let mut found: Vec<_> = all
            .into_iter()
            .filter_map(|properties| {
                let full = properties.resource_id().ok()?.name.to_ascii_lowercase();
                let name: SecretName = full.strip_prefix(&prefix)?.parse().ok()?;
                let updated = properties.attributes.as_ref().and_then(|attributes| attributes.updated);
                let seconds = updated.map(|at| at.unix_timestamp());
                Some(record(name, &properties.tags.unwrap_or_default(), seconds))
            })
            .collect();
        found.sort_by_key(|record| record.name.canonical());
        Ok(found)
    }

    async fn reseal(&self, _: Within<'_>) -> Result<usize> {
        // The vault seals, and changes its keys, itself.
        Ok(0)
    }
}
