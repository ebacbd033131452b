//! The proof of who we are, put on every try just before it is sent, so that a repeated try carries a fresh date.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::hmac::hmac_sha256;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Request};
use azure_core::time::{OffsetDateTime, to_rfc7231};
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};

use super::connection::{Identity, Proof, Settings};
use super::error::{Failure, Target};
use super::pipeline;
use crate::clock::{Clock as _, SystemClock};
use crate::store::port::Result;

/// The audience of tokens for storage, the same in every cloud.
const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";

const AUTHORIZATION: HeaderName = HeaderName::from_static("authorization");
const DATE: HeaderName = HeaderName::from_static("x-ms-date");

/// Which of the two schemes of signing a service understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Blobs and queues.
    SharedKey,
    /// Tables, which have a `SharedKey` of their own; the lite one is the smaller of the two.
    SharedKeyLite,
}

/// The way in, shared by the three clients.
#[derive(Clone)]
pub(super) enum Access {
    Key { account: String, key: Secret },
    Sas(Secret),
    Token(Arc<dyn TokenCredential>),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key { .. } => "Key",
            Self::Sas(_) => "Sas",
            Self::Token(_) => "Token",
        })
    }
}

impl Access {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let no_identity = |error| Failure::from_sdk(error).into_error(&Target::account("finding an identity"));
        Ok(match &settings.proof {
            Proof::Key { account, key } => Self::Key {
                account: account.clone(),
                key: key.clone(),
            },
            Proof::Sas(query) => Self::Sas(query.clone()),
            Proof::Identity(Identity::DeveloperTools) => {
                Self::Token(DeveloperToolsCredential::new(None).map_err(no_identity)?)
            }
            Proof::Identity(Identity::Managed { client_id }) => {
                // The identity endpoint is on this computer: the same bounds as for storage.
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options: ClientOptions {
                        retry: pipeline::identity_retry(),
                        ..ClientOptions::default()
                    },
                };
                Self::Token(ManagedIdentityCredential::new(Some(options)).map_err(no_identity)?)
            }
        })
    }

    /// The token credential, for the official clients, which put it on requests themselves.
    pub(super) fn token(&self) -> Option<Arc<dyn TokenCredential>> {
        match self {
            Self::Token(credential) => Some(Arc::clone(credential)),
            Self::Key { .. } | Self::Sas(_) => None,
        }
    }

    /// The policy that puts the token on requests, for the client that is ours.
    pub(super) fn bearer(&self) -> Option<Arc<dyn Policy>> {
        let credential = self.token()?;
        Some(Arc::new(BearerTokenAuthorizationPolicy::new(
            credential,
            [STORAGE_SCOPE],
        )))
    }

    /// The policy that signs a try, unless a token does.
    pub(super) fn signer(&self, scheme: Scheme) -> Option<Arc<dyn Policy>> {
        match self {
            Self::Key { account, key } => Some(Arc::new(SharedKey {
                scheme,
                account: account.clone(),
                key: key.clone(),
            })),
            Self::Sas(query) => Some(Arc::new(SharedAccessSignature { query: query.clone() })),
            Self::Token(_) => None,
        }
    }
}

/// Signs with the account's key.
#[derive(Debug)]
struct SharedKey {
    scheme: Scheme,
    account: String,
    key: Secret,
}

#[async_trait]
impl Policy for SharedKey {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let now = OffsetDateTime::from_unix_timestamp(SystemClock.now().millis() / 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        request.insert_header(DATE, to_rfc7231(&now));
        let (name, text) = match self.scheme {
            Scheme::SharedKey => ("SharedKey", shared_key_text(&self.account, request)),
            Scheme::SharedKeyLite => ("SharedKeyLite", shared_key_lite_text(&self.account, request)),
        };
        let signature = hmac_sha256(&text, &self.key)?;
        request.insert_header(AUTHORIZATION, format!("{name} {}:{signature}", self.account));
        next[0].send(ctx, request, &next[1..]).await
    }
}

/// Puts a shared access signature on the address, for the time of the try only: what keeps the request never sees it.
#[derive(Debug)]
struct SharedAccessSignature {
    query: Secret,
}

#[async_trait]
impl Policy for SharedAccessSignature {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let plain = request.url().clone();
        let query = match plain.query() {
            Some(query) if !query.is_empty() => format!("{query}&{}", self.query.secret()),
            _ => self.query.secret().to_owned(),
        };
        request.url_mut().set_query(Some(&query));
        let result = next[0].send(ctx, request, &next[1..]).await;
        *request.url_mut() = plain;
        result
    }
}

fn header<'r>(request: &'r Request, name: &'static str) -> &'r str {
    request
        .headers()
        .get_optional_str(&HeaderName::from_static(name))
        .unwrap_or_default()
}

/// The text that `SharedKey` signs for blobs and queues.
fn shared_key_text(account: &str, request: &Request) -> String {
    let length = match request.body().len() {
        None | Some(0) => String::new(),
        Some(length) => length.to_string(),
    };
    let own: BTreeMap<&str, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    let own: String = own
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();

    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.url().query_pairs() {
        parameters
            .entry(name.to_lowercase())
            .or_default()
            .push(value.into_owned());
    }
    let parameters: String = parameters
        .into_iter()
        .map(|(name, mut values)| {
            values.sort();
            format!("\n{name}:{}", values.join(","))
        })
        .collect();

    let standard = [
        header(request, "content-encoding"),
        header(request, "content-language"),
        length.as_str(),
        header(request, "content-md5"),
        header(request, "content-type"),
        "", // Date: `x-ms-date` stands for it.
        header(request, "if-modified-since"),
        header(request, "if-match"),
        header(request, "if-none-match"),
        header(request, "if-unmodified-since"),
        header(request, "range"),
    ]
    .join("\n");
    let path = request.url().path();
    format!(
        "{}\n{standard}\n{own}/{account}{path}{parameters}",
        request.method().as_ref()
    )
}

/// The text that `SharedKeyLite` signs for tables.
fn shared_key_lite_text(account: &str, request: &Request) -> String {
    let component = request.url().query_pairs().find(|(name, _)| name == "comp");
    let component = component.map(|(_, value)| format!("?comp={value}")).unwrap_or_default();
    format!(
        "{}\n/{account}{}{component}",
        header(request, "x-ms-date"),
        request.url().path()
    )
}
