//! Where the storage account is and how we prove who we are: a connection string, or an account name and an identity.
//! Nothing is read from the environment here, and no message or `Debug` text contains a value of a connection string.

use std::collections::BTreeMap;
use std::fmt;

use azure_core::credentials::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};

/// The emulator's account and key. Both are published constants of the emulator, the same everywhere, and no secret.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const PUBLIC_CLOUD: &str = "core.windows.net";

/// What is wrong with settings. Names the part, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A part that is needed is not there.
    #[error("the storage connection has no `{part}`")]
    Missing {
        /// Its name, or names of which one is needed.
        part: &'static str,
    },
    /// A part can't be used.
    #[error("`{part}` of the storage connection {problem}")]
    Invalid {
        /// Its name.
        part: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A part that has no known name, by its position, since what stands there may be a secret.
    #[error("part {position} of the storage connection string {problem}")]
    Unknown {
        /// Which one, counted from 1.
        position: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Which identity asks for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The managed identity of the computer or Function App; of several, the one with this client id.
    Managed {
        /// The user-assigned identity's client id; the system-assigned identity when missing.
        client_id: Option<String>,
    },
    /// Whoever is logged in with the Azure CLI or the Azure Developer CLI.
    DeveloperTools,
}

/// A storage account and the way into it.
#[derive(Clone)]
pub struct Settings {
    pub(super) blob: Url,
    pub(super) queue: Url,
    pub(super) table: Url,
    pub(super) proof: Proof,
}

/// How requests prove who sent them.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Key { account: String, key: Secret },
    Sas(Secret),
    Identity(Identity),
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = match &self.proof {
            Proof::Key { .. } => "account key",
            Proof::Sas(_) => "shared access signature",
            Proof::Identity(Identity::Managed { .. }) => "managed identity",
            Proof::Identity(Identity::DeveloperTools) => "developer tools",
        };
        f.debug_struct("Settings")
            .field("blob", &self.blob.as_str())
            .field("queue", &self.queue.as_str())
            .field("table", &self.table.as_str())
            .field("proof", &proof)
            .finish()
    }
}

impl Settings {
    /// Where it is, for people: the address of its tables, which holds no secret.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}{}", self.table.origin().ascii_serialization(), self.table.path())
    }

    /// Whether that is an address of this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match self.table.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// From a connection string, as the portal and `az storage account show-connection-string` give it.
    ///
    /// Understood are `UseDevelopmentStorage=true`; `AccountName` with `AccountKey`, or `SharedAccessSignature`;
    /// `BlobEndpoint`, `QueueEndpoint`, `TableEndpoint`; `DefaultEndpointsProtocol` and `EndpointSuffix`.
    ///
    /// # Errors
    /// The first part that is missing or can't be used.
    pub fn from_connection_string(text: &str) -> Result<Self, SettingsError> {
        let parts = split(text)?;
        let get = |part: Part| parts.get(&part).copied();

        if let Some(truth) = get(Part::UseDevelopmentStorage) {
            if !truth.eq_ignore_ascii_case("true") {
                return Err(invalid(Part::UseDevelopmentStorage, "can only be `true`"));
            }
            if parts.len() > 1 {
                return Err(invalid(
                    Part::UseDevelopmentStorage,
                    "can't be combined with other parts",
                ));
            }
            let at = |port: u16| {
                endpoint(
                    Part::UseDevelopmentStorage,
                    &format!("http://127.0.0.1:{port}/{EMULATOR_ACCOUNT}"),
                )
            };
            let proof = Proof::Key {
                account: EMULATOR_ACCOUNT.into(),
                key: Secret::new(EMULATOR_KEY),
            };
            return Ok(Self {
                blob: at(10_000)?,
                queue: at(10_001)?,
                table: at(10_002)?,
                proof,
            });
        }

        let account = get(Part::AccountName)
            .map(|name| account_name(Part::AccountName.name(), name))
            .transpose()?;
        let proof = match (get(Part::AccountKey), get(Part::SharedAccessSignature)) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    Part::SharedAccessSignature,
                    "can't be combined with `AccountKey`",
                ));
            }
            (Some(key), None) => {
                if STANDARD.decode(key).map_or(true, |key| key.is_empty()) {
                    return Err(invalid(Part::AccountKey, "is not base64"));
                }
                let account = account.clone().ok_or(SettingsError::Missing { part: "AccountName" })?;
                Proof::Key {
                    account,
                    key: Secret::new(key.to_owned()),
                }
            }
            (None, Some(sas)) => Proof::Sas(shared_access_signature(sas)?),
            (None, None) => {
                return Err(SettingsError::Missing {
                    part: "AccountKey or SharedAccessSignature",
                });
            }
        };

        let protocol = get(Part::DefaultEndpointsProtocol).unwrap_or("https");
        if !matches!(protocol, "http" | "https") {
            return Err(invalid(Part::DefaultEndpointsProtocol, "is neither `https` nor `http`"));
        }
        let suffix = get(Part::EndpointSuffix).unwrap_or(PUBLIC_CLOUD);
        let service = |part: Part, service: &str| match (get(part), &account) {
            (Some(url), _) => endpoint(part, url),
            (None, Some(account)) => {
                let url = endpoint(Part::EndpointSuffix, &format!("https://{account}.{service}.{suffix}"))?;
                if protocol == "http" {
                    return Err(invalid(
                        Part::DefaultEndpointsProtocol,
                        "must be `https` outside this computer",
                    ));
                }
                Ok(url)
            }
            (None, None) => Err(SettingsError::Missing { part: part.name() }),
        };
        Ok(Self {
            blob: service(Part::BlobEndpoint, "blob")?,
            queue: service(Part::QueueEndpoint, "queue")?,
            table: service(Part::TableEndpoint, "table")?,
            proof,
        })
    }

    /// An account of the public cloud, opened with an identity.
    ///
    /// # Errors
    /// When the name is no possible account name.
    pub fn from_account(account: &str, identity: Identity) -> Result<Self, SettingsError> {
        let account = account_name("account", account)?;
        let url = |service| {
            endpoint(
                Part::AccountName,
                &format!("https://{account}.{service}.{PUBLIC_CLOUD}"),
            )
        };
        Ok(Self {
            blob: url("blob")?,
            queue: url("queue")?,
            table: url("table")?,
            proof: Proof::Identity(identity),
        })
    }

    /// The same at other addresses: another cloud, a private endpoint.
    ///
    /// # Errors
    /// When one is not `https`, or carries a query or a login.
    pub fn with_endpoints(self, blob: &str, queue: &str, table: &str) -> Result<Self, SettingsError> {
        let settings = Self {
            blob: endpoint(Part::BlobEndpoint, blob)?,
            queue: endpoint(Part::QueueEndpoint, queue)?,
            table: endpoint(Part::TableEndpoint, table)?,
            proof: self.proof,
        };
        if matches!(settings.proof, Proof::Identity(_)) {
            // A token works everywhere until it expires, so it never travels in clear, not even to this computer.
            for (part, url) in [
                (Part::BlobEndpoint, &settings.blob),
                (Part::QueueEndpoint, &settings.queue),
                (Part::TableEndpoint, &settings.table),
            ] {
                if url.scheme() != "https" {
                    return Err(invalid(part, "must be `https` for an identity"));
                }
            }
        }
        Ok(settings)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    AccountKey,
    AccountName,
    BlobEndpoint,
    DefaultEndpointsProtocol,
    EndpointSuffix,
    QueueEndpoint,
    SharedAccessSignature,
    TableEndpoint,
    UseDevelopmentStorage,
}

impl Part {
    const ALL: [Self; 9] = [
        Self::AccountKey,
        Self::AccountName,
        Self::BlobEndpoint,
        Self::DefaultEndpointsProtocol,
        Self::EndpointSuffix,
        Self::QueueEndpoint,
        Self::SharedAccessSignature,
        Self::TableEndpoint,
        Self::UseDevelopmentStorage,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::AccountKey => "AccountKey",
            Self::AccountName => "AccountName",
            Self::BlobEndpoint => "BlobEndpoint",
            Self::DefaultEndpointsProtocol => "DefaultEndpointsProtocol",
            Self::EndpointSuffix => "EndpointSuffix",
            Self::QueueEndpoint => "QueueEndpoint",
            Self::SharedAccessSignature => "SharedAccessSignature",
            Self::TableEndpoint => "TableEndpoint",
            Self::UseDevelopmentStorage => "UseDevelopmentStorage",
        }
    }
}

/// Parts that connection strings carry and that we have no use for.
const IGNORED: [&str; 5] = [
    "FileEndpoint",
    "BlobSecondaryEndpoint",
    "QueueSecondaryEndpoint",
    "TableSecondaryEndpoint",
    "FileSecondaryEndpoint",
];

fn invalid(part: Part, problem: &'static str) -> SettingsError {
    SettingsError::Invalid {
        part: part.name().into(),
        problem,
    }
}

fn split(text: &str) -> Result<BTreeMap<Part, &str>, SettingsError> {
    let mut parts = BTreeMap::new();
    for (index, piece) in text.split(';').enumerate() {
        let (piece, position) = (piece.trim(), index + 1);
        if piece.is_empty() {
            continue;
        }
        let unknown = |problem| SettingsError::Unknown { position, problem };
        let (name, value) = piece.split_once('=').ok_or_else(|| unknown("is not `Name=value`"))?;
        if IGNORED.iter().any(|ignored| ignored.eq_ignore_ascii_case(name)) {
            continue;
        }
        let part = Part::ALL
            .into_iter()
            .find(|part| part.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| unknown("has an unknown name"))?;
        if value.is_empty() {
            return Err(invalid(part, "is empty"));
        }
        if parts.insert(part, value).is_some() {
            return Err(invalid(part, "is there twice"));
        }
    }
    Ok(parts)
}

fn account_name(part: &str, text: &str) -> Result<String, SettingsError> {
    if (3..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        let problem = "is not 3 to 24 small letters and digits";
        Err(SettingsError::Invalid {
            part: part.into(),
            problem,
        })
    }
}

fn shared_access_signature(text: &str) -> Result<Secret, SettingsError> {
    let text = text.strip_prefix('?').unwrap_or(text);
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'?' | b'"' | b'<' | b'>' | b'\''));
    if !plain {
        return Err(invalid(Part::SharedAccessSignature, "is not a query"));
    }
    if !text
        .split('&')
        .any(|pair| pair.strip_prefix("sig=").is_some_and(|signature| !signature.is_empty()))
    {
        return Err(invalid(Part::SharedAccessSignature, "has no `sig`"));
    }
    Ok(Secret::new(text.to_owned()))
}

/// An address without a trailing slash, query or login: `https`, or `http` on this computer.
fn endpoint(part: Part, text: &str) -> Result<Url, SettingsError> {
    let mut url = Url::parse(text).map_err(|_| invalid(part, "is not an address"))?;
    if url.cannot_be_a_base() || url.host().is_none() {
        return Err(invalid(part, "is not an address"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(part, "must be a plain address, without a query or a login"));
    }
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => return Err(invalid(part, "must be `https` outside this computer")),
        _ => return Err(invalid(part, "is neither `https` nor `http`")),
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0LWtleQ==";

    fn parse(text: &str) -> Result<Settings, SettingsError> {
        Settings::from_connection_string(text)
    }

    #[test]
    fn understood() {
        let cases = [
            ("UseDevelopmentStorage=true", "http://127.0.0.1:10002/devstoreaccount1"),
            ("usedevelopmentstorage=TRUE;", "http://127.0.0.1:10002/devstoreaccount1"),
            (
                "AccountName=weft;AccountKey=KEY",
                "https://weft.table.core.windows.net/",
            ),
            (
                "DefaultEndpointsProtocol=https;AccountName=weft;AccountKey=KEY;EndpointSuffix=core.chinacloudapi.cn",
                "https://weft.table.core.chinacloudapi.cn/",
            ),
            (
                "AccountName=weft;SharedAccessSignature=?sv=1&sig=a%2Bb",
                "https://weft.table.core.windows.net/",
            ),
            (
                "BlobEndpoint=https://b.example/x/;QueueEndpoint=https://q.example;TableEndpoint=https://t.example/y/;\
                 FileEndpoint=https://f.example;SharedAccessSignature=sv=1&sig=abc",
                "https://t.example/y",
            ),
            (
                "DefaultEndpointsProtocol=http;AccountName=weft;AccountKey=KEY;BlobEndpoint=http://localhost:1/weft;\
                 QueueEndpoint=http://[::1]:2/weft;TableEndpoint=http://127.0.0.9:3/weft;",
                "http://127.0.0.9:3/weft",
            ),
        ];
        for (text, table) in cases {
            let settings = parse(&text.replace("KEY", KEY)).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(settings.table.as_str(), table, "{text}");
        }
    }

    #[test]
    fn refused_by_part() {
        let cases = [
            (
                "",
                "the storage connection has no `AccountKey or SharedAccessSignature`",
            ),
            (
                "AccountName=weft",
                "the storage connection has no `AccountKey or SharedAccessSignature`",
            ),
            ("AccountKey=KEY", "the storage connection has no `AccountName`"),
            (
                "SharedAccessSignature=sig=abc",
                "the storage connection has no `BlobEndpoint`",
            ),
            (
                "AccountName=weft;AccountKey=",
                "`AccountKey` of the storage connection is empty",
            ),
            (
                "AccountName=weft;AccountKey=no!",
                "`AccountKey` of the storage connection is not base64",
            ),
            (
                "AccountName=weft;AccountName=weft",
                "`AccountName` of the storage connection is there twice",
            ),
            (
                "AccountName=Weft.x;AccountKey=KEY",
                "`AccountName` of the storage connection is not 3 to 24 small letters and digits",
            ),
            (
                "AccountName=weft;AccountKey=KEY;SharedAccessSignature=sig=a",
                "`SharedAccessSignature` of the storage connection can't be combined with `AccountKey`",
            ),
            (
                "AccountName=weft;SharedAccessSignature=sv=1",
                "`SharedAccessSignature` of the storage connection has no `sig`",
            ),
            (
                "AccountName=weft;SharedAccessSignature=sig=a b",
                "`SharedAccessSignature` of the storage connection is not a query",
            ),
            (
                "c2VjcmV0LWtleQ==",
                "part 1 of the storage connection string has an unknown name",
            ),
            (
                "AccountName=weft;secret",
                "part 2 of the storage connection string is not `Name=value`",
            ),
            (
                "UseDevelopmentStorage=false",
                "`UseDevelopmentStorage` of the storage connection can only be `true`",
            ),
            (
                "UseDevelopmentStorage=true;AccountName=weft",
                "`UseDevelopmentStorage` of the storage connection can't be combined with other parts",
            ),
            (
                "DefaultEndpointsProtocol=http;AccountName=weft;AccountKey=KEY",
                "`DefaultEndpointsProtocol` of the storage connection must be `https` outside this computer",
            ),
            (
                "DefaultEndpointsProtocol=ftp;AccountName=weft;AccountKey=KEY",
                "`DefaultEndpointsProtocol` of the storage connection is neither `https` nor `http`",
            ),
            (
                "AccountName=weft;AccountKey=KEY;TableEndpoint=http://10.0.0.1/weft",
                "`TableEndpoint` of the storage connection must be `https` outside this computer",
            ),
            (
                "AccountName=weft;AccountKey=KEY;BlobEndpoint=https://b.example/?sig=abc",
                "`BlobEndpoint` of the storage connection must be a plain address, without a query or a login",
            ),
            (
                "AccountName=weft;AccountKey=KEY;QueueEndpoint=nowhere",
                "`QueueEndpoint` of the storage connection is not an address",
            ),
        ];
        for (text, message) in cases {
            let error = parse(&text.replace("KEY", KEY)).expect_err(text);
            assert_eq!(error.to_string(), message, "{text}");
        }
    }

    #[test]
    fn no_secret_in_debug() {
        let key = parse(&format!("AccountName=weft;AccountKey={KEY}")).unwrap();
        let sas = parse("AccountName=weft;SharedAccessSignature=sv=1&sig=SECRETSIG").unwrap();
        let text = format!("{key:?} {sas:?} {:?} {:?}", key.proof, sas.proof);
        assert!(!text.contains(KEY) && !text.contains("SECRETSIG"), "{text}");
    }

    #[test]
    fn tokens_travel_over_tls_only() {
        let settings = Settings::from_account("weft", Identity::DeveloperTools).unwrap();
        let error = settings
            .with_endpoints("https://b.example", "http://localhost", "https://t.example")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`QueueEndpoint` of the storage connection must be `https` for an identity"
        );
    }
}
