//! Typed ids: what one kind of id names can't be asked for with another.
//!
//! Generated ids are a prefix and 26 characters of Crockford's base 32 in lower case: 48 bits of milliseconds, then 80
//! random bits, so that they sort by time and can't be guessed. All are key-safe by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A text that is not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    /// What was given, shortened.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

/// SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(at: Timestamp, random: [u8; 10]) -> String {
    let mut value: u128 = (u128::from(at.millis().unsigned_abs()) & 0xffff_ffff_ffff) << 80;
    for (index, byte) in random.iter().enumerate() {
        value |= u128::from(*byte) << (8 * (9 - index));
    }
    spell(value)
}

/// 128 bits in 26 characters.
fn spell(value: u128) -> String {
    (0..26)
        .rev()
        .map(|place| char::from(ALPHABET[((value >> (5 * place)) & 31) as usize]))
        .collect()
}

/// The first 48 bits: they fill ten characters.
fn decode_time(text: &str) -> Timestamp {
    let digit = |byte: u8| ALPHABET.iter().position(|known| *known == byte).unwrap_or_default() as u64;
    let millis = text.bytes().take(10).fold(0, |value, byte| value << 5 | digit(byte));
    Timestamp::from_millis(i64::try_from(millis).unwrap_or_default())
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

macro_rules! generated_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// A new id, made from the time and 80 random bits.
            #[must_use]
            pub fn generate(at: Timestamp, random: [u8; 10]) -> Self {
                Self(format!("{}{}", $prefix, encode(at, random)))
            }

            /// The id that a cause always leads to: the same cause at the same time gives the same id.
            #[must_use]
            pub fn derived(at: Timestamp, cause: &str) -> Self {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, cause.as_bytes());
                let mut random = [0; 10];
                random.copy_from_slice(&digest.as_ref()[..10]);
                Self::generate(at, random)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The time that it was made from.
            #[must_use]
            pub fn at(&self) -> Timestamp {
                decode_time(&self.0[$prefix.len()..])
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let good = text
                    .strip_prefix($prefix)
                    .is_some_and(|rest| rest.len() == 26 && rest.bytes().all(|byte| ALPHABET.contains(&byte)));
                if good { Ok(Self(text.to_owned())) } else { Err(IdError { text: shortened(text), expected: $expected }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

generated_id!(
    /// One execution of a revision.
    RunId, "run_", "a run id (`run_` and 26 characters)"
);
generated_id!(
    /// One try of a step.
    AttemptId, "att_", "an attempt id (`att_` and 26 characters)"
);
generated_id!(
    /// A named output of a run.
    ArtifactId, "art_", "an artifact id (`art_` and 26 characters)"
);

impl ArtifactId {
    /// The id of what has this content under this name in a run: a repeated attempt writes the same one again.
    #[must_use]
    pub fn of(run: &RunId, name: &str, sha256: &str) -> Self {
        Self::derived(run.at(), &format!("{run}\n{sha256}\n{name}"))
    }
}

generated_id!(
    /// A person.
    UserId, "usr_", "a user id (`usr_` and 26 characters)"
);
generated_id!(
    /// A function key's record; never the key itself.
    KeyId, "key_", "a key id (`key_` and 26 characters)"
);
generated_id!(
    /// What starts a workflow at certain times.
    ScheduleId, "sch_", "a schedule id (`sch_` and 26 characters)"
);
generated_id!(
    /// What starts a workflow for each message of a queue of its own.
    QueueTriggerId, "qtr_", "a queue trigger id (`qtr_` and 26 characters)"
);
generated_id!(
    /// An audit record.
    RecordId, "aud_", "an audit record id (`aud_` and 26 characters)"
);

/// A webhook: `hook_` and 26 characters for 128 random bits. It is in a web address that strangers are given, so neither the
/// time nor the organization is in it, and it can't be guessed; what lets a delivery in is its signature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HookId(String);

impl HookId {
    /// A new id.
    #[must_use]
    pub fn generate(random: [u8; 16]) -> Self {
        Self(format!("hook_{}", spell(u128::from_be_bytes(random))))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HookId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = text
            .strip_prefix("hook_")
            .is_some_and(|rest| rest.len() == 26 && rest.bytes().all(|byte| ALPHABET.contains(&byte)));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError {
                text: shortened(text),
                expected: "a hook id (`hook_` and 26 characters)",
            })
        }
    }
}

impl TryFrom<String> for HookId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<HookId> for String {
    fn from(id: HookId) -> Self {
        id.0
    }
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An organization: 3 to 40 of a–z and 0–9. Part of table and container names, which allow no more than that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(String);

impl OrgId {
    /// A random id of 20 characters (100 bits); ids are never reused.
    #[must_use]
    pub fn generate(random: [u8; 20]) -> Self {
        Self(
            random
                .iter()
                .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
                .collect(),
        )
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OrgId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = (3..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError {
                text: shortened(text),
                expected: "an organization id (3 to 40 of a–z and 0–9)",
            })
        }
    }
}

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for OrgId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for OrgId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_sort_by_time_and_parse_back() {
        let early = RunId::generate(Timestamp::from_millis(1_000), [255; 10]);
        let late = RunId::generate(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.as_str().parse::<RunId>().unwrap(), early);
        assert!(early.as_str().parse::<KeyId>().is_err());
    }

    #[test]
    fn hooks_have_128_bits_and_no_time() {
        let one = HookId::generate([255; 16]);
        assert_ne!(one, HookId::generate([254; 16]));
        assert_eq!(one.as_str(), "hook_7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(one.as_str().parse::<HookId>().unwrap(), one);
        for bad in [
            "hook_",
            "hook_7zz",
            "run_7zzzzzzzzzzzzzzzzzzzzzzzzz",
            "hook_7zzzzzzzzzzzzzzzzzzzzzzzz'",
        ] {
            assert!(bad.parse::<HookId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn organization_ids_are_narrow() {
        for good in ["abc", "contoso", "a0b1c2", &"a".repeat(40)] {
            assert!(good.parse::<OrgId>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "Contoso", "a-b", "a b", "a'b", "ä23", &"a".repeat(41)] {
            assert!(bad.parse::<OrgId>().is_err(), "{bad}");
        }
        assert!(OrgId::generate([77; 20]).as_str().parse::<OrgId>().is_ok());
    }
}
