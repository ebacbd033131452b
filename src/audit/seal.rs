//! The part of a record that points at a person is encrypted with that person's key, so that forgetting the person is
//! destroying the key: no record is touched and every chain still verifies, because hashes cover the ciphertext.
//!
//! A person (a [`Subject`]) has one random 256-bit key for each owner, and the key a random name (its reference). Records
//! carry the reference, never the subject or a hash of it: a hash of an address or a user name is found by trying.
//! AES-256-GCM under a key that is derived for each record (HMAC-SHA-256 of the record's id), so that no nonce is ever
//! used twice under one key, however many records a subject has; record id and part are the associated data.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Owner, Personal, Plain, Record};
use crate::domain::{KeyId, RecordId, Timestamp, UserId, sha256_hex};

/// Bytes of a subject's key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = NONCE_LEN;
/// Bytes of what a reference is made of; it is written as twice as many hexadecimal digits.
pub const REFERENCE_BYTES: usize = 16;

/// What every derived key and every associated datum starts with.
const CONTEXT: &str = "weft.audit/1";

/// Whose key encrypts a personal part, from the most certain to the least:
/// a user; for a key's caller the user that is claimed; else the key; and for everybody without a name, one subject a day.
///
/// Callers without a name (refused ones above all) share a subject because their number is theirs to choose: a subject for
/// each address would let anybody create rows. Their addresses can be forgotten by the day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

impl Subject {
    /// A user: `user:<id>`.
    #[must_use]
    pub fn user(id: &UserId) -> Self {
        Self(format!("user:{id}"))
    }

    /// Whom a key's caller claims to act for: `claimed:<text>`. Case and surrounding space don't matter.
    #[must_use]
    pub fn claimed(text: &str) -> Self {
        Self(format!("claimed:{}", text.trim().to_lowercase()))
    }

    /// A key's caller who claims nobody: `key:<id>`.
    #[must_use]
    pub fn key(id: &KeyId) -> Self {
        Self(format!("key:{id}"))
    }

    /// Everybody without a name on one day: `unnamed:<day>`.
    #[must_use]
    pub fn unnamed(at: Timestamp) -> Self {
        Self(format!("unnamed:{}", at.day()))
    }

    /// The text. It points at a person: it is hashed before it names anything, and never logged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A subject's key and its reference.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectKey {
    reference: String,
    secret: [u8; KEY_BYTES],
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKey")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl SubjectKey {
    /// A new key from random bytes.
    #[must_use]
    pub fn new(reference: [u8; REFERENCE_BYTES], secret: [u8; KEY_BYTES]) -> Self {
        Self {
            reference: hex(&reference),
            secret,
        }
    }

    /// A key as it was stored; nothing when it has another form.
    #[must_use]
    pub fn stored(reference: &str, secret: &[u8]) -> Option<Self> {
        let good = reference.len() == 2 * REFERENCE_BYTES && reference.bytes().all(|b| b.is_ascii_hexdigit());
        let secret = secret.try_into().ok()?;
        good.then(|| Self {
            reference: reference.to_owned(),
            secret,
        })
    }

    /// The key's random name.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The key itself, for storing it.
    #[must_use]
    pub const fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    fn cipher(&self, record: &RecordId, part: Part) -> LessSafeKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let derived = hmac::sign(&key, &context(record, part));
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("an HMAC-SHA-256 tag has the length of a key");
        LessSafeKey::new(key)
    }
}

/// Which of a record's encrypted parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// About the person who acted: a [`Personal`].
    Actor,
    /// About another person: JSON.
    About,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::About => "about",
        }
    }
}

/// An encrypted part, and the reference of the key that opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPart {
    /// The key's reference.
    pub subject: String,
    /// Nonce (12 bytes), ciphertext, tag (16 bytes).
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

/// What is stored of a record, whatever chain it goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRecord {
    /// The [`Plain`] part as the JSON text that hashes cover, byte by byte.
    pub body: String,
    /// The personal part of the one who acted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<SealedPart>,
    /// The part about another person.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub about: Option<SealedPart>,
}

/// A personal part after an attempt to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened<T> {
    /// There is none.
    Absent,
    /// Readable.
    Readable(T),
    /// Its key was destroyed.
    Erased,
    /// Its key is missing without having been destroyed, or doesn't fit: storage was damaged or tampered with.
    Unreadable,
}

impl<T> Opened<T> {
    /// The value, where it is readable.
    #[must_use]
    pub const fn readable(&self) -> Option<&T> {
        match self {
            Self::Readable(value) => Some(value),
            _ => None,
        }
    }
}

impl SealedRecord {
    /// Parses the readable part. Costs some microseconds.
    ///
    /// # Errors
    /// When the body is none that this version can read.
    pub fn plain(&self) -> Result<Plain, serde_json::Error> {
        serde_json::from_str(&self.body)
    }

    /// Decrypts the personal part of the one who acted; nothing when the key doesn't fit.
    #[must_use]
    pub fn open_actor(&self, id: &RecordId, key: &SubjectKey) -> Option<Personal> {
        serde_json::from_slice(&open(self.actor.as_ref()?, id, Part::Actor, key)?).ok()
    }

    /// Decrypts the part about another person; nothing when the key doesn't fit.
    #[must_use]
    pub fn open_about(&self, id: &RecordId, key: &SubjectKey) -> Option<Value> {
        serde_json::from_slice(&open(self.about.as_ref()?, id, Part::About, key)?).ok()
    }
}

/// Seals a record for its owner. `actor` and `about` are the keys of [`Record::actor_subject`] and
/// [`Record::about_subject`]; a part whose key isn't given is left out, never stored readable.
#[must_use]
pub fn seal(
    owner: &Owner,
    mut record: Record,
    actor: Option<(&SubjectKey, [u8; NONCE_BYTES])>,
    about: Option<(&SubjectKey, [u8; NONCE_BYTES])>,
) -> SealedRecord {
    record.plain.owner = owner.clone();
    let id = record.plain.id.clone();
    let actor = match actor {
        Some((key, nonce)) if !record.personal.is_empty() => {
            Some(close(&id, Part::Actor, key, nonce, text(&record.personal).into_bytes()))
        }
        _ => None,
    };
    let about = match (about, &record.about) {
        (Some((key, nonce)), Some((_, data))) => Some(close(&id, Part::About, key, nonce, text(data).into_bytes())),
        _ => None,
    };
    SealedRecord {
        body: text(&record.plain),
        actor,
        about,
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records have text for names and no value that JSON can't say")
}

fn context(record: &RecordId, part: Part) -> Vec<u8> {
    format!("{CONTEXT}\n{record}\n{}", part.as_str()).into_bytes()
}

fn close(id: &RecordId, part: Part, key: &SubjectKey, nonce: [u8; NONCE_BYTES], mut bytes: Vec<u8>) -> SealedPart {
    let cipher = key.cipher(id, part);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let mut out = nonce.as_ref().to_vec();
    cipher
        .seal_in_place_append_tag(nonce, Aad::from(context(id, part)), &mut bytes)
        .expect("a personal part is far below the 64 GiB that one nonce may encrypt");
    out.append(&mut bytes);
    SealedPart {
        subject: key.reference.clone(),
        bytes: out,
    }
}

fn open(part: &SealedPart, id: &RecordId, which: Part, key: &SubjectKey) -> Option<Vec<u8>> {
    let (nonce, sealed) = part.bytes.split_at_checked(NONCE_BYTES)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = sealed.to_vec();
    let open = key
        .cipher(id, which)
        .open_in_place(nonce, Aad::from(context(id, which)), &mut bytes)
        .ok()?
        .len();
    bytes.truncate(open);
    Some(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name under which a subject's row is found: its SHA-256. For logs and answers that must not show the subject.
#[must_use]
pub fn digest(subject: &Subject) -> String {
    sha256_hex(subject.as_str().as_bytes())
}

pub(super) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD
            .decode(String::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::Event;
    use crate::authz::Origin;

    fn record(id: u8) -> Record {
        let at = Timestamp::from_millis(5);
        let origin = Origin {
            address: "203.0.113.9".into(),
            agent: "curl".into(),
            ..Origin::default()
        };
        Record::anonymous(RecordId::generate(at, [id; 10]), at, Event::AccessDenied, &origin).about(
            &UserId::generate(at, [3; 10]),
            &json!({"email": "ada@example.org", "password": "x"}),
        )
    }

    fn key(n: u8) -> SubjectKey {
        SubjectKey::new([n; REFERENCE_BYTES], [n; KEY_BYTES])
    }

    #[test]
    fn opens_with_its_key_only_and_under_its_id_only() {
        let record = record(1);
        let (id, personal) = (record.id().clone(), record.personal().clone());
        let sealed = seal(
            &Owner::Platform,
            record,
            Some((&key(1), [9; 12])),
            Some((&key(2), [9; 12])),
        );
        assert!(!format!("{sealed:?}").contains("203.0.113.9"));
        assert_eq!(sealed.open_actor(&id, &key(1)), Some(personal));
        assert_eq!(sealed.open_actor(&id, &key(2)), None);
        assert_eq!(
            sealed.open_about(&id, &key(2)),
            Some(json!({"email": "ada@example.org", "password": "[redacted]"}))
        );
        let other = RecordId::generate(Timestamp::from_millis(5), [2; 10]);
        assert_eq!(sealed.open_actor(&other, &key(1)), None);
        let swapped = SealedRecord {
            actor: sealed.about.clone(),
            ..sealed.clone()
        };
        assert_eq!(swapped.open_actor(&id, &key(2)), None);
        for at in 0..sealed.actor.as_ref().unwrap().bytes.len() {
            let mut changed = sealed.clone();
            changed.actor.as_mut().unwrap().bytes[at] ^= 1;
            assert_eq!(changed.open_actor(&id, &key(1)), None);
        }
    }

    #[test]
    fn a_part_without_a_key_is_left_out() {
        let sealed = seal(&Owner::Platform, record(1), None, None);
        assert_eq!((sealed.actor.as_ref(), sealed.about.as_ref()), (None, None));
        assert!(!sealed.body.contains("203.0"));
    }

    /// The bytes of version 1. A change here means that records which are already stored can't be opened.
    #[test]
    fn the_format_stands() {
        let sealed = seal(&"contoso".parse().unwrap(), record(1), Some((&key(1), [9; 12])), None);
        assert_eq!(
            sealed.body,
            "{\"id\":\"aud_0000000005040g2081040g2081\",\"owner\":\"contoso\",\"at\":\"1970-01-01T00:00:00.005Z\",\
             \"level\":\"warning\",\"event\":\"access.denied\",\"outcome\":\"denied\",\
             \"principal\":{\"kind\":\"anonymous\",\"id\":\"anonymous\"}}"
        );
        assert_eq!(
            digest_of(&sealed.actor.unwrap().bytes),
            "253244b37c37a00ed66b07775fd6fc950e2683b775eefff3cea255334f774f99"
        );
    }

    fn digest_of(bytes: &[u8]) -> String {
        sha256_hex(bytes)
    }
}
