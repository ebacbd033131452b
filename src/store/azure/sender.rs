//! Addresses at which others may send messages to one queue, and do nothing else: a shared access signature of the service,
//! made here with the account's key or with a key that the service has given to our identity. Nothing is stored, so nothing
//! can be taken back before its time but with the key, or with the queue.

use azure_core::credentials::Secret as AccountKey;
use azure_core::hmac::hmac_sha256;
use url::Url;

use super::error::{Failure, Target};
use crate::domain::{Secret, Timestamp};
use crate::store::error::Error;
use crate::store::port::{QueueName, Result};

/// The version of the service by whose rules a signature with the account's key is read; every emulator knows it.
const BY_KEY: &str = "2021-12-02";
/// The same for one with a delegated key: the first in which queues take those is older, the text that is signed is of this one.
const DELEGATED: &str = "2026-04-06";
/// To send; not to read, to delete or to look.
const ADD: &str = "a";

/// A key that the service has given to an identity, and to whom.
#[derive(Debug)]
pub(super) struct Delegation {
    pub(super) object: String,
    pub(super) tenant: String,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) service: String,
    pub(super) version: String,
}

/// With what is signed.
pub(super) struct Grant<'a> {
    account: &'a str,
    key: AccountKey,
    delegation: Option<Delegation>,
}

impl<'a> Grant<'a> {
    /// The account's own key.
    pub(super) const fn by_key(account: &'a str, key: AccountKey) -> Self {
        Self {
            account,
            key,
            delegation: None,
        }
    }

    /// A key of our identity.
    pub(super) const fn delegated(account: &'a str, key: AccountKey, delegation: Delegation) -> Self {
        Self {
            account,
            key,
            delegation: Some(delegation),
        }
    }
}

/// The address of a queue's messages, with the right to add to them until a time.
pub(super) fn address(service: &Url, queue: &QueueName, until: Timestamp, grant: &Grant<'_>) -> Result<Secret> {
    // Plain HTTP is taken by an emulator on this computer only, and refused for everything else in `connection.rs`.
    let protocol = if service.scheme() == "https" {
        "https"
    } else {
        "https,http"
    };
    let version = if grant.delegation.is_some() { DELEGATED } else { BY_KEY };
    let until = seconds(until);
    let mut signed = vec![
        ADD.to_owned(),
        // From now on.
        String::new(),
        until.clone(),
        format!("/queue/{}/{queue}", grant.account),
    ];
    let mut parameters = vec![("sv", version.to_owned()), ("se", until), ("sp", ADD.to_owned())];
    match &grant.delegation {
        // No stored policy.
        None => signed.push(String::new()),
        Some(delegation) => {
            let of_key = [
                ("skoid", delegation.object.clone()),
                ("sktid", delegation.tenant.clone()),
                ("skt", seconds(delegation.from)),
                ("ske", seconds(delegation.until)),
                ("sks", delegation.service.clone()),
                ("skv", delegation.version.clone()),
            ];
            signed.extend(of_key.iter().map(|(_, value)| value.clone()));
            // For nobody in particular: neither a tenant nor a person of it.
            signed.extend([String::new(), String::new()]);
            parameters.extend(of_key);
        }
    }
    // From any address.
    signed.extend([String::new(), protocol.to_owned(), version.to_owned()]);
    let signature = hmac_sha256(&signed.join("\n"), &grant.key)
        .map_err(|error| Failure::from_sdk(error).into_error(&Target::account("signing an address")))?;
    parameters.extend([("spr", protocol.to_owned()), ("sig", signature)]);

    let mut address = service.clone();
    address
        .path_segments_mut()
        .map_err(|()| Error::corrupt("the queue service has no address"))?
        .pop_if_empty()
        .extend([queue.as_str(), "messages"]);
    address.query_pairs_mut().extend_pairs(parameters);
    Ok(Secret::value(address.to_string()))
}

/// As the service writes times: to the second.
fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    format!("{whole}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(grant: &Grant<'_>) -> String {
        let service = "https://acme.queue.core.windows.net".parse().unwrap();
        let queue = QueueName::new("weft-trigger-abc").unwrap();
        let until = Timestamp::parse("2026-11-28T21:00:00Z").unwrap();
        let address = address(&service, &queue, until, grant).unwrap();
        let start = "https://acme.queue.core.windows.net/weft-trigger-abc/messages?sv=";
        assert!(address.expose().starts_with(start), "{}", address.expose());
        address.expose().split("sig=").nth(1).unwrap().to_owned()
    }

    /// As Microsoft's own client for Python signs the same.
    #[test]
    fn signatures_are_those_of_the_service() {
        let key = || AccountKey::new("c2VjcmV0LWtleQ==");
        assert_eq!(
            signature(&Grant::by_key("acme", key())),
            "dETEPGl0BRNyM2xJDSVxCVHtYrGPoZwpJ4%2B%2F8K4Vw6o%3D"
        );
        let delegation = Delegation {
            object: "11111111-1111-1111-1111-111111111111".into(),
            tenant: "22222222-2222-2222-2222-222222222222".into(),
            from: Timestamp::parse("2026-11-28T19:55:00Z").unwrap(),
            until: Timestamp::parse("2026-11-28T21:00:00Z").unwrap(),
            service: "q".into(),
            version: "2026-04-06".into(),
        };
        assert_eq!(
            signature(&Grant::delegated("acme", key(), delegation)),
            "02yxiw2FAMrq0z%2FCloASMHpUJr4L1aVQSg9gF5KX1fs%3D"
        );
    }
}
