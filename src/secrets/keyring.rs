//! The keys with which secrets are sealed for storage: one that seals, and earlier ones that still open.
//!
//! AES-256-GCM under a key that is derived for each version of each secret (HMAC-SHA-256), with a random nonce, so that no
//! nonce is used twice under one key. Owner, name and version are the associated data: a row that is copied to another
//! organization, another name or over a later version does not open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::domain::{Secret, sha256_hex};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = NONCE_LEN;

/// What every derived key and every associated datum starts with.
const CONTEXT: &str = "weft.secret/1";

/// What a sealed value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The organization's id, or `-` for the platform.
    pub owner: &'a str,
    /// The canonical name.
    pub name: &'a str,
    /// Counts from 1 with every writing.
    pub version: i64,
}

impl Place<'_> {
    fn bytes(&self) -> Vec<u8> {
        format!("{CONTEXT}\n{}\n{}\n{}", self.owner, self.name, self.version).into_bytes()
    }
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key opens it.
    pub key: String,
    /// Nonce (12 bytes), ciphertext, tag (16 bytes).
    pub bytes: Vec<u8>,
}

/// Why keys can't be read. Never says what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("there is no key")]
    Missing,
    /// One of them, counted from 1, is none.
    #[error("key {0} is not 32 bytes in base64")]
    Malformed(usize),
}

/// Keys by their ids. The first one seals.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Keyring").field("keys", &ids).finish()
    }
}

impl Keyring {
    /// Keys in base64, separated by commas or line ends, the one that seals first.
    ///
    /// # Errors
    /// When there is none, or one is none.
    pub fn parse(text: &Secret) -> Result<Self, KeyError> {
        let words = text
            .expose()
            .split([',', '\n', '\r', ' '])
            .filter(|word| !word.is_empty());
        let keys = words
            .enumerate()
            .map(|(at, word)| {
                let bytes = STANDARD.decode(word).map(Zeroizing::new).ok();
                let bytes: Option<[u8; KEY_BYTES]> = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
                bytes.map(Key::new).ok_or(KeyError::Malformed(at + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(KeyError::Missing);
        }
        Ok(Self { keys })
    }

    /// A key as [`Keyring::parse`] reads it.
    #[must_use]
    pub fn encode(bytes: &[u8; KEY_BYTES]) -> Secret {
        Secret::value(STANDARD.encode(bytes))
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.keys[0].id
    }

    /// Whether there is a key of this id.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Seals a value for its place.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, value: &Secret, nonce: [u8; NONCE_BYTES]) -> Sealed {
        let key = &self.keys[0];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut out = nonce.as_ref().to_vec();
        let mut bytes = value.expose().as_bytes().to_vec();
        key.cipher(place)
            .seal_in_place_append_tag(nonce, Aad::from(place.bytes()), &mut bytes)
            .expect("a value is far below the 64 GiB that one nonce may encrypt");
        out.append(&mut bytes);
        Sealed {
            key: key.id.clone(),
            bytes: out,
        }
    }

    /// The value; nothing when its key is not here or it was sealed for another place.
    #[must_use]
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Option<Secret> {
        let key = self.keys.iter().find(|key| key.id == sealed.key)?;
        let (nonce, rest) = sealed.bytes.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let open = key
            .cipher(place)
            .open_in_place(nonce, Aad::from(place.bytes()), &mut bytes)
            .ok()?;
        Some(Secret::value(std::str::from_utf8(open).ok()?))
    }
}

impl Key {
    fn new(bytes: [u8; KEY_BYTES]) -> Self {
        // A hash of 256 random bits tells nothing about them.
        let mut named = b"weft.secret-key-id\n".to_vec();
        named.extend_from_slice(&bytes);
        let id = sha256_hex(&Zeroizing::new(named))[..12].to_owned();
        Self {
            id,
            bytes: Zeroizing::new(bytes),
        }
    }

    fn cipher(&self, place: Place<'_>) -> LessSafeKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.bytes.as_slice());
        let derived = hmac::sign(&key, &place.bytes());
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("an HMAC-SHA-256 tag has the length of a key");
        LessSafeKey::new(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place {
        owner: "contoso",
        name: "api-key",
        version: 3,
    };

    fn ring(numbers: &[u8]) -> Keyring {
        let words: Vec<_> = numbers.iter().map(|n| STANDARD.encode([*n; KEY_BYTES])).collect();
        Keyring::parse(&Secret::value(words.join("\n"))).unwrap()
    }

    #[test]
    fn opens_in_its_place_only_and_with_every_key_that_is_known() {
        let sealed = ring(&[1]).seal(PLACE, &Secret::value("tell-nobody"), [9; NONCE_BYTES]);
        let open = |ring: &Keyring, place| ring.open(place, &sealed).map(|value| value.expose().to_owned());
        assert_eq!(open(&ring(&[1]), PLACE).as_deref(), Some("tell-nobody"));
        assert_eq!(open(&ring(&[2, 1]), PLACE).as_deref(), Some("tell-nobody"));
        assert_eq!(open(&ring(&[2]), PLACE), None);
        for other in [
            Place {
                owner: "fabrikam",
                ..PLACE
            },
            Place { name: "api", ..PLACE },
            Place { version: 4, ..PLACE },
        ] {
            assert_eq!(open(&ring(&[1]), other), None);
        }
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(ring(&[1]).open(PLACE, &changed).is_none());
        }
        assert_ne!(ring(&[2, 1]).current(), ring(&[1]).current());
    }

    #[test]
    fn keys_are_checked_and_never_shown() {
        let text = STANDARD.encode([7; KEY_BYTES]);
        let parse = |text: &str| Keyring::parse(&Secret::value(text)).map(|ring| ring.keys.len());
        assert_eq!(parse(&format!("{text}\n{text},{text}\n")), Ok(3));
        assert_eq!(parse(" \n"), Err(KeyError::Missing));
        assert_eq!(parse(&format!("{text},c2hvcnQ=")), Err(KeyError::Malformed(2)));
        assert!(!format!("{:?}", ring(&[7])).contains("BwcH"));
    }

    /// The bytes of version 1. A change here means that secrets which are already stored can't be opened.
    #[test]
    fn the_format_stands() {
        let sealed = ring(&[1]).seal(PLACE, &Secret::value("tell-nobody"), [9; NONCE_BYTES]);
        assert_eq!(
            (sealed.key.as_str(), sha256_hex(&sealed.bytes).as_str()),
            (
                "505d3faaa4b1",
                "917455dbf8f84ac380951fa737c1d003eaf672b3f7b9914df97cc03695b12b64"
            )
        );
    }
}
