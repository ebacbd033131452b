//! Whether a delivery was signed by somebody who has a secret of its hook, and which delivery it is.

use std::borrow::Cow;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::delivery::Request;
use super::scheme::{Encoding, IdIn, KeyText, Layout, Part, Scheme, Signing};
use super::{Hook, SameBy};
use crate::domain::{HookId, OrgId, Secret, Timestamp, equal_in_constant_time, sha256_hex};

/// Most signatures of one delivery that are tried.
pub const MAX_SIGNATURES: usize = 10;
/// Most bytes of a signature's header.
const MAX_HEADER: usize = 4096;
/// Most characters of a delivery's id.
const MAX_ID: usize = 256;
/// Bytes of a secret that somebody else has made up: fewer could be tried out.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=512;
/// How secrets of Standard Webhooks begin.
const WHSEC: &str = "whsec_";

/// Base 64 as senders write it, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A delivery that its hook's secret has signed, of an organization. Made by [`verify`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    org: OrgId,
    hook: HookId,
    name: String,
    identity: String,
    delivery: Option<String>,
}

impl Verified {
    /// Whose hook it is.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        &self.org
    }

    /// Which hook.
    #[must_use]
    pub const fn hook(&self) -> &HookId {
        &self.hook
    }

    /// The hook's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is the same of two deliveries that are one. Independent of the secret, and of how the signature was written.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The id that the sender gave it.
    #[must_use]
    pub fn delivery(&self) -> Option<&str> {
        self.delivery.as_deref()
    }
}

/// Why a delivery is not let in. Its hook's people learn it; the sender does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejected {
    /// There is no signature.
    Unsigned,
    /// What must be there beside it is missing, twice there, or has another form.
    Malformed,
    /// No secret gives this signature.
    Mismatch,
    /// It was signed too long ago, or too far ahead.
    Stale,
    /// It is signed well, and the hook is switched off.
    Disabled,
}

impl Rejected {
    /// As records write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
            Self::Stale => "stale",
            Self::Disabled => "disabled",
        }
    }
}

/// Whether `secrets`, those of the hook that are good now, have signed a delivery. What costs time is done whether or not the
/// hook is switched on.
///
/// # Errors
/// [`Rejected`].
pub fn verify(
    org: &OrgId,
    hook: &Hook,
    secrets: &[Secret],
    request: &Request,
    now: Timestamp,
) -> Result<Verified, Rejected> {
    let signing = hook.scheme.signing();
    let found = read(&signing, request)?;
    let mut good = false;
    for secret in secrets {
        let Some(key) = key(signing.key, secret) else { continue };
        let tag = tag(&key, &signing, &found, &request.body);
        for signature in &found.signatures {
            good |= equal_in_constant_time(signature, tag.as_ref());
        }
    }
    if !good {
        return Err(Rejected::Mismatch);
    }
    if let (Some(tolerance), Some(time)) = (signing.tolerance_seconds, &found.time) {
        let seconds: i64 = time.parse().map_err(|_| Rejected::Malformed)?;
        if (now.millis() / 1000 - seconds).unsigned_abs() > u64::from(tolerance) {
            return Err(Rejected::Stale);
        }
    }
    if !hook.enabled {
        return Err(Rejected::Disabled);
    }
    let delivery = match signing.id {
        // What the sender has said about it in a body that is now known to be the sender's.
        IdIn::Member(name) => member(&request.body, name),
        IdIn::Header(_) | IdIn::Nowhere => found.id.map(Cow::into_owned),
    };
    let body = || sha256_hex(&request.body);
    let identity = match (hook.deduplicate.by, &delivery, &found.time) {
        (SameBy::Delivery, Some(id), _) => format!("id:{id}"),
        (SameBy::Delivery, None, Some(time)) => format!("at:{time}:{}", body()),
        (SameBy::Body, ..) | (SameBy::Delivery, None, None) => format!("body:{}", body()),
    };
    Ok(Verified {
        org: org.clone(),
        hook: hook.id.clone(),
        name: hook.name.to_string(),
        identity,
        delivery,
    })
}

/// What the headers say.
struct Found<'a> {
    signatures: Vec<Vec<u8>>,
    time: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
}

fn read<'a>(signing: &Signing, request: &'a Request) -> Result<Found<'a>, Rejected> {
    let header = signing
        .header
        .iter()
        .find(|name| request.has(name))
        .ok_or(Rejected::Unsigned)?;
    let text = request.once(header).ok_or(Rejected::Malformed)?;
    if text.len() > MAX_HEADER {
        return Err(Rejected::Malformed);
    }
    let mut time = None;
    let texts: Vec<&str> = match &signing.layout {
        Layout::Prefixed(prefix) => text.trim().strip_prefix(&**prefix).into_iter().collect(),
        Layout::Pairs {
            time: time_name,
            signature,
        } => {
            let mut signatures = Vec::new();
            for pair in text.split(',') {
                match pair.trim().split_once('=') {
                    Some((name, value)) if name == *signature => signatures.push(value),
                    Some((name, value)) if name == *time_name && time.is_none() => time = Some(value),
                    Some((name, _)) if name == *time_name => return Err(Rejected::Malformed),
                    // Another version of the scheme.
                    _ => {}
                }
            }
            signatures
        }
        Layout::Versioned(version) => text
            .split_ascii_whitespace()
            .filter_map(|one| one.split_once(','))
            .filter(|(name, _)| name == version)
            .map(|(_, value)| value)
            .collect(),
    };
    let signatures: Vec<Vec<u8>> = texts
        .into_iter()
        .take(MAX_SIGNATURES)
        .filter_map(|text| decode(signing.encoding, text))
        .collect();
    if signatures.is_empty() {
        return Err(Rejected::Malformed);
    }
    if let Some(name) = signing.time.iter().find(|name| request.has(name)) {
        time = Some(request.once(name).ok_or(Rejected::Malformed)?);
    }
    if signing.tolerance_seconds.is_some() && !time.is_some_and(is_time) {
        return Err(Rejected::Malformed);
    }
    let id = match &signing.id {
        IdIn::Header(names) => match names.iter().find(|name| request.has(name)) {
            Some(name) => {
                let id = request.once(name).filter(|id| is_id(id)).ok_or(Rejected::Malformed)?;
                Some(Cow::Borrowed(id))
            }
            None if signing.signed.contains(&Part::Id) => return Err(Rejected::Malformed),
            None => None,
        },
        IdIn::Member(_) | IdIn::Nowhere => None,
    };
    Ok(Found {
        signatures,
        time: time.map(Cow::Borrowed),
        id,
    })
}

/// Seconds since 1970, up to the year 9999.
fn is_time(text: &str) -> bool {
    (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn member(body: &[u8], name: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let id = value.get(name)?.as_str()?;
    is_id(id).then(|| id.to_owned())
}

fn decode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Base64 => BASE64.decode(text).ok(),
        Encoding::Hex => {
            if !text.is_ascii() || !text.len().is_multiple_of(2) {
                return None;
            }
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            text.as_bytes()
                .chunks_exact(2)
                .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
                .collect()
        }
    }
}

fn key(text: KeyText, secret: &Secret) -> Option<hmac::Key> {
    match text {
        KeyText::Bytes => Some(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())),
        KeyText::Whsec => {
            let bytes = whsec(secret.expose())?;
            Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        }
    }
}

fn whsec(text: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let text = text.strip_prefix(WHSEC).unwrap_or(text);
    BASE64.decode(text).ok().map(zeroize::Zeroizing::new)
}

fn tag(key: &hmac::Key, signing: &Signing, found: &Found<'_>, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in signing.signed {
        match part {
            Part::Text(text) => context.update(text.as_bytes()),
            Part::Time => context.update(found.time.as_deref().unwrap_or_default().as_bytes()),
            Part::Id => context.update(found.id.as_deref().unwrap_or_default().as_bytes()),
            Part::Body => context.update(body),
        }
    }
    context.sign()
}

/// A new secret for a scheme, of 256 random bits, in the form that its senders take.
#[must_use]
pub fn generate_secret(scheme: &Scheme, random: [u8; 32]) -> Secret {
    match scheme.signing().key {
        KeyText::Whsec => Secret::value(format!("{WHSEC}{}", STANDARD.encode(random))),
        KeyText::Bytes => Secret::generate(random),
    }
}

/// Whether a text that a sender has made up can be a secret of a scheme.
#[must_use]
pub fn is_secret(scheme: &Scheme, secret: &Secret) -> bool {
    let text = secret.expose();
    let length = match scheme.signing().key {
        KeyText::Bytes => text.len(),
        KeyText::Whsec => whsec(text).map_or(0, |bytes| bytes.len()),
    };
    SECRET_BYTES.contains(&length) && text.len() <= 1024 && !text.chars().any(char::is_control)
}
