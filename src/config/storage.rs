//! Where data is kept, and how to get at it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;
use super::secret::Secret;

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Which of the two.
    pub backend: Backend,
    /// Local files: the embedded store, unpacked bundles.
    pub data_dir: PathBuf,
    /// What copies of published bundles take there at most, in MiB.
    pub bundle_cache_mib: u64,
    /// The storage account with its key; comes before an identity where both are given, as in the host.
    pub connection_string: Option<Secret>,
    /// The storage account, for access by identity.
    pub account_name: Option<String>,
    /// A user-assigned identity.
    pub client_id: Option<String>,
    /// Kind of credential.
    pub credential: Option<Credential>,
}

/// What keeps the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// One file on this machine.
    Sqlite,
    /// Tables, blobs and queues of a storage account.
    Azure,
}

/// How an account is opened without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// The app's own or a user-assigned identity.
    ManagedIdentity,
}

impl Storage {
    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode) -> Self {
        let storage = Self {
            backend: Backend::Sqlite,
            data_dir: reader
                .path("storage.dataDir", &var::WEFT_DATA)
                .unwrap_or_else(|| default_data_dir(reader, mode)),
            bundle_cache_mib: reader.number_or_default("storage.bundleCacheMib", &var::WEFT_BUNDLE_CACHE_MIB),
            connection_string: reader.secret("storage.connectionString", &var::AZURE_WEB_JOBS_STORAGE),
            account_name: reader.text("storage.accountName", &var::AZURE_WEB_JOBS_STORAGE_ACCOUNT_NAME),
            client_id: reader.text("storage.clientId", &var::AZURE_WEB_JOBS_STORAGE_CLIENT_ID),
            credential: reader.choice("storage.credential", &var::AZURE_WEB_JOBS_STORAGE_CREDENTIAL),
        };
        Self {
            backend: storage.choose_backend(reader, mode),
            ..storage
        }
    }

    fn choose_backend(&self, reader: &mut Reader<'_>, mode: &Mode) -> Backend {
        let account = if self.connection_string.is_some() {
            Some(&var::AZURE_WEB_JOBS_STORAGE)
        } else {
            self.account_name
                .as_ref()
                .map(|_| &var::AZURE_WEB_JOBS_STORAGE_ACCOUNT_NAME)
        };
        let declared = reader.choice::<Backend>("storage.backend", &var::WEFT_STORE);
        let backend = declared.unwrap_or(if account.is_some() {
            Backend::Azure
        } else {
            Backend::Sqlite
        });
        if let (None, Some(account)) = (declared, account) {
            reader.origins.insert("storage.backend", account.name.to_owned());
        }
        match backend {
            Backend::Azure if account.is_none() => {
                let message = "`WEFT_STORE` is `azure`, but no storage account is named".to_owned();
                let hint = "set `AzureWebJobsStorage__accountName`, or `AzureWebJobsStorage` to a connection string";
                reader.refuse(&var::WEFT_STORE, "account_missing", message, Some(hint.to_owned()));
            }
            Backend::Sqlite if mode.on_azure => {
                let message = "the embedded store is used on Azure, where it ends with the instance".to_owned();
                let hint = "set `WEFT_STORE` to `azure` and name a storage account".to_owned();
                reader.warn(var::WEFT_STORE.name, "sqlite_on_azure", message, Some(hint));
            }
            Backend::Azure | Backend::Sqlite => {}
        }
        if self.connection_string.is_some() && self.account_name.is_some() {
            let message = "both a connection string and an account name are given; the connection string is used";
            let hint = "remove `AzureWebJobsStorage` to use the identity".to_owned();
            reader.warn(
                var::AZURE_WEB_JOBS_STORAGE.name,
                "two_accounts",
                message.to_owned(),
                Some(hint),
            );
        }
        backend
    }
}

/// On Azure the app's folder is a read-only mount, and nothing in the data folder outlives the instance anyway.
fn default_data_dir(reader: &mut Reader<'_>, mode: &Mode) -> PathBuf {
    if !mode.on_azure {
        return mode.app_root.join(".weft");
    }
    Path::new(&reader.text_or_default("storage.dataDir", &var::TMPDIR)).join("weft")
}
