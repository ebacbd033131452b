//! Where the secrets of workflows are kept.

use std::path::PathBuf;

use serde::Serialize;

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;
use super::secret::Secret;
use super::storage::Storage;
use crate::domain::SecretName;

/// A key vault, or rows that a key opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secrets {
    /// The key vault; without one secrets are sealed and kept with the data.
    pub key_vault_url: Option<String>,
    /// The client id of the identity that reads the key vault.
    pub key_vault_client_id: Option<String>,
    /// The keys, in base64; the first one seals.
    pub key: Option<Secret>,
    /// A file with keys, one in a line.
    pub key_file: Option<PathBuf>,
    /// Whether the file is made when it is missing.
    pub make_key_file: bool,
    /// Secrets of the platform that every organization's workflows may declare.
    pub inherited: Vec<String>,
}

impl Secrets {
    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode, storage: &Storage) -> Self {
        let inherited = reader.list_or_default("secrets.inherited", &var::WEFT_SECRETS_SHARED);
        for name in &inherited {
            if name.parse::<SecretName>().is_err() {
                let variable = &var::WEFT_SECRETS_SHARED;
                let message = format!("`{}` has `{name}`, which can't name a secret", variable.name);
                let hint = "names are letters and digits with single `_` or `-` between them".to_owned();
                reader.refuse(variable, "not_a_secret_name", message, Some(hint));
            }
        }
        let key_vault_url = reader.text("secrets.keyVaultUrl", &var::WEFT_KEY_VAULT_URL);
        if let Some(url) = &key_vault_url
            && !url::Url::parse(url).is_ok_and(|url| url.scheme() == "https" && url.has_host())
        {
            let variable = &var::WEFT_KEY_VAULT_URL;
            let message = format!("`{}` is no https address", variable.name);
            let hint = "give it as `https://NAME.vault.azure.net`".to_owned();
            reader.refuse(variable, "not_an_address", message, Some(hint));
        }
        let key = reader.secret("secrets.key", &var::WEFT_SECRETS_KEY);
        let said = reader.path("secrets.keyFile", &var::WEFT_SECRETS_KEY_FILE);
        let nothing_said = key.is_none() && said.is_none() && key_vault_url.is_none();
        let make_key_file = mode.development && nothing_said;
        let own = storage.data_dir.join("secrets.key");
        // Commands beside a `weft dev` use the file that it has made.
        let is_own_used = make_key_file || nothing_said && own.exists();
        Self {
            key_file: said.or_else(|| is_own_used.then_some(own)),
            key_vault_client_id: reader.text("secrets.keyVaultClientId", &var::WEFT_KEY_VAULT_CLIENT_ID),
            key_vault_url,
            key,
            make_key_file,
            inherited,
        }
    }
}
