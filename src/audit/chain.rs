//! Records in a chain: each carries the hash of the one before, so that none can be changed, taken out, moved or put in
//! without a trace.
//!
//! The hash is SHA-256 over length-prefixed fields: the format's name, the previous hash, the chain's name, the sequence
//! number, the body's text, and each encrypted part. The chain's name holds the owner, so a chain can't be passed off as
//! another organization's. What a chain alone can't show is its own end: whoever cuts the tail, or rewrites everything from
//! some record on, is found by comparing with a head that is kept elsewhere (a run's header, the chain of seals, an export).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::Owner;
use super::seal::{SealedPart, SealedRecord, hex};
use crate::domain::{OrgId, RunId};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The first field of what is hashed.
const FORMAT: &[u8] = b"weft.audit/1";

/// A chain's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// The records of one run.
    Run {
        /// Its organization.
        org: OrgId,
        /// The run.
        run: RunId,
    },
    /// What one writer recorded in one day outside runs.
    Day {
        /// Whose records.
        owner: Owner,
        /// The day, as `20261121`, by the writer's clock when it wrote.
        day: String,
        /// The writer: at most 40 letters and digits.
        writer: String,
    },
    /// The heads of an owner's other chains.
    Seal {
        /// Whose chains.
        owner: Owner,
    },
}

impl fmt::Display for Chain {
    /// `run:<org>:<run>`, `day:<owner>:<day>:<writer>`, `seal:<owner>`; the platform is `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { org, run } => write!(f, "run:{org}:{run}"),
            Self::Day { owner, day, writer } => write!(f, "day:{owner}:{day}:{writer}"),
            Self::Seal { owner } => write!(f, "seal:{owner}"),
        }
    }
}

/// A text that is no chain's name or no head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ChainError {
    /// What was given, shortened.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl FromStr for Chain {
    type Err = ChainError;

    fn from_str(text: &str) -> Result<Self, ChainError> {
        let parts: Vec<&str> = text.split(':').collect();
        let word = |part: &str| part.len() <= 40 && !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        let chain = match parts.as_slice() {
            ["run", org, run] => org
                .parse()
                .ok()
                .zip(run.parse().ok())
                .map(|(org, run)| Self::Run { org, run }),
            ["day", owner, day, writer] if word(day) && word(writer) => owner.parse().ok().map(|owner| Self::Day {
                owner,
                day: (*day).to_owned(),
                writer: (*writer).to_owned(),
            }),
            ["seal", owner] => owner.parse().ok().map(|owner| Self::Seal { owner }),
            _ => None,
        };
        chain.ok_or_else(|| ChainError {
            text: text.chars().take(60).collect(),
            expected: "the name of an audit chain",
        })
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Where a chain ends. As text, for one property of a row: `<sequence>:<64 hexadecimal digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The last record's number, which is how many there are: numbers start at 1.
    pub sequence: u64,
    /// The last record's hash; zeros before the first.
    pub hash: Hash,
}

impl Head {
    /// Of a chain without records.
    pub const EMPTY: Self = Self {
        sequence: 0,
        hash: [0; 32],
    };
}

impl Default for Head {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, hex(&self.hash))
    }
}

impl FromStr for Head {
    type Err = ChainError;

    fn from_str(text: &str) -> Result<Self, ChainError> {
        text.split_once(':')
            .and_then(|(sequence, hash)| {
                Some(Self {
                    sequence: sequence.parse().ok()?,
                    hash: unhex(hash)?,
                })
            })
            .ok_or_else(|| ChainError {
                text: text.chars().take(60).collect(),
                expected: "the head of an audit chain",
            })
    }
}

as_text!(Chain);
as_text!(Head);

/// Reads 64 hexadecimal digits.
fn unhex(text: &str) -> Option<Hash> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(out)
}

/// A record in its place. As JSON it is one line of an export, with all that verifying needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedRecord {
    /// The chain.
    pub chain: Chain,
    /// The record's number in it, from 1.
    pub sequence: u64,
    /// The hash of the record before it; zeros for the first.
    #[serde(with = "hex_hash")]
    pub previous: Hash,
    /// Its own hash.
    #[serde(with = "hex_hash")]
    pub hash: Hash,
    /// The record.
    #[serde(flatten)]
    pub sealed: SealedRecord,
}

mod hex_hash {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Hash, hex, unhex};

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}

impl LinkedRecord {
    /// The head of a chain that ends here.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    /// Whether the hash is that of what is here.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.hash == hash(&self.chain, self.sequence, &self.previous, &self.sealed)
    }
}

/// Puts a record at the end of a chain.
#[must_use]
pub fn link(chain: &Chain, head: &Head, sealed: SealedRecord) -> (Head, LinkedRecord) {
    let sequence = head.sequence + 1;
    let hash = hash(chain, sequence, &head.hash, &sealed);
    let linked = LinkedRecord {
        chain: chain.clone(),
        sequence,
        previous: head.hash,
        hash,
        sealed,
    };
    (linked.head(), linked)
}

/// Puts several records at the end of a chain, in their order.
#[must_use]
pub fn link_all(chain: &Chain, head: &Head, sealed: Vec<SealedRecord>) -> (Head, Vec<LinkedRecord>) {
    let mut head = *head;
    let linked = sealed
        .into_iter()
        .map(|sealed| {
            let (next, linked) = link(chain, &head, sealed);
            head = next;
            linked
        })
        .collect();
    (head, linked)
}

fn hash(chain: &Chain, sequence: u64, previous: &Hash, sealed: &SealedRecord) -> Hash {
    let mut context = Context::new(&SHA256);
    let mut field = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    field(FORMAT);
    field(previous);
    field(chain.to_string().as_bytes());
    field(&sequence.to_be_bytes());
    field(sealed.body.as_bytes());
    for part in [&sealed.actor, &sealed.about] {
        // A part that is absent has an empty reference, which no part that is there has.
        let (subject, bytes): (&str, &[u8]) = part
            .as_ref()
            .map_or(("", &[]), |SealedPart { subject, bytes }| (subject, bytes));
        field(subject.as_bytes());
        field(bytes);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// What was done to a chain, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Break {
    /// A record was changed. Where everything from a record on was rewritten, this is said of the last one.
    Edited,
    /// A record is missing.
    Removed,
    /// Records stand in another order.
    Reordered,
    /// A record was put in.
    Inserted,
    /// The end is missing.
    Truncated,
}

/// Where a chain is broken, first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit chain is broken at record {sequence}: {kind:?}")]
pub struct Broken {
    /// At which number: the record that is edited or missing, the place where another stands.
    pub sequence: u64,
    /// What was done.
    pub kind: Break,
}

/// What is kept of a record while the rest of its chain is read: about 90 bytes.
#[derive(Debug, Clone, Copy)]
struct Seen {
    sequence: u64,
    previous: Hash,
    hash: Hash,
    sound: bool,
}

/// Verifies a chain that comes piece by piece, in the order in which it is stored.
#[derive(Debug, Clone)]
pub struct Verifier {
    chain: Chain,
    seen: Vec<Seen>,
}

impl Verifier {
    /// Of one chain.
    #[must_use]
    pub const fn new(chain: Chain) -> Self {
        Self {
            chain,
            seen: Vec::new(),
        }
    }

    /// The next record.
    pub fn push(&mut self, record: &LinkedRecord) {
        let sound = record.chain == self.chain && record.sound();
        self.seen.push(Seen {
            sequence: record.sequence,
            previous: record.previous,
            hash: record.hash,
            sound,
        });
    }

    /// A record that is there and can't be read.
    pub fn push_unreadable(&mut self) {
        let sequence = self.seen.len() as u64 + 1;
        self.seen.push(Seen {
            sequence,
            previous: [0; 32],
            hash: [0; 32],
            sound: false,
        });
    }

    /// The head that the chain has at a number, if it gets that far; the empty head at 0.
    #[must_use]
    pub fn head_at(&self, sequence: u64) -> Option<Head> {
        match usize::try_from(sequence) {
            Ok(0) => Some(Head::EMPTY),
            Ok(n) => self.seen.get(n - 1).map(|seen| Head {
                sequence: seen.sequence,
                hash: seen.hash,
            }),
            Err(_) => None,
        }
    }

    /// Whether all of it stands as it was written. `expected` is a head from elsewhere; without one, a missing end or a
    /// chain that was rewritten to its end goes unseen.
    ///
    /// # Errors
    /// The first [`Broken`] place.
    pub fn finish(&self, expected: Option<&Head>) -> Result<Head, Broken> {
        let mut count: HashMap<u64, u32> = HashMap::new();
        for seen in &self.seen {
            *count.entry(seen.sequence).or_default() += 1;
        }
        let total = self.seen.len() as u64;
        let mut head = Head::EMPTY;
        for (seen, place) in self.seen.iter().zip(1_u64..) {
            let broken = |kind| Err(Broken { sequence: place, kind });
            let twice = count.get(&seen.sequence).is_some_and(|n| *n > 1);
            if seen.sequence != place {
                return broken(match (twice, count.contains_key(&place)) {
                    (true, _) => Break::Inserted,
                    (false, false) if seen.sound => Break::Removed,
                    (false, false) => Break::Edited,
                    // More than there could be after a mere exchange.
                    (false, true) if seen.sequence > total => Break::Inserted,
                    (false, true) => Break::Reordered,
                });
            }
            if !seen.sound {
                return broken(if twice { Break::Inserted } else { Break::Edited });
            }
            if seen.previous != head.hash {
                // Both fit their own hash, so the one before was replaced whole; the first has nothing before it.
                return Err(Broken {
                    sequence: (place - 1).max(1),
                    kind: Break::Edited,
                });
            }
            head = Head {
                sequence: place,
                hash: seen.hash,
            };
        }
        match expected {
            Some(expected) if expected.sequence > head.sequence => Err(Broken {
                sequence: head.sequence + 1,
                kind: Break::Truncated,
            }),
            Some(expected) if expected.sequence < head.sequence => Err(Broken {
                sequence: expected.sequence + 1,
                kind: Break::Inserted,
            }),
            Some(expected) if *expected != head => Err(Broken {
                sequence: head.sequence,
                kind: Break::Edited,
            }),
            _ => Ok(head),
        }
    }
}

/// Verifies a whole chain, in the order in which it is stored, against a head that is kept elsewhere.
///
/// # Errors
/// The first [`Broken`] place.
pub fn verify(chain: &Chain, records: &[LinkedRecord], expected: &Head) -> Result<(), Broken> {
    let mut verifier = Verifier::new(chain.clone());
    for record in records {
        verifier.push(record);
    }
    verifier.finish(Some(expected)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain() -> Chain {
        "day:contoso:20261121:writer".parse().unwrap()
    }

    fn sealed(n: usize) -> SealedRecord {
        let part = |bytes: Vec<u8>| SealedPart {
            subject: "00112233445566778899aabbccddeeff".into(),
            bytes,
        };
        SealedRecord {
            body: format!("{{\"n\":{n}}}"),
            actor: (!n.is_multiple_of(3)).then(|| part(vec![1, 2, 3])),
            about: n.is_multiple_of(2).then(|| part(vec![4])),
        }
    }

    fn built(n: usize) -> (Head, Vec<LinkedRecord>) {
        link_all(&chain(), &Head::EMPTY, (0..n).map(sealed).collect())
    }

    fn found(records: &[LinkedRecord], head: &Head) -> Broken {
        verify(&chain(), records, head).expect_err("it is broken")
    }

    /// The bytes of version 1. A change here means that chains which are already stored no longer verify.
    #[test]
    fn the_format_stands() {
        let (head, records) = built(3);
        assert_eq!(
            head.to_string(),
            "3:d2c3f3d37e9d31089197f15ce0974bdc845a96acf75ac9c30bb01322d2491446"
        );
        assert_eq!(head.to_string().parse(), Ok(head));
        let line = serde_json::to_string(&records[2]).unwrap();
        assert_eq!(serde_json::from_str::<LinkedRecord>(&line).unwrap(), records[2]);
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        let run = "run:contoso:run_01jd5y3e8v0000000000000000";
        for name in [
            run,
            "day:-:20261121:w",
            "day:platform:20261121:w",
            "seal:-",
            "seal:contoso",
        ] {
            assert_eq!(name.parse::<Chain>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "run:contoso",
            "day:contoso:20261121:a'b",
            "seal:",
            "seal:Contoso",
            "day:x:y:z:w",
        ] {
            assert!(name.parse::<Chain>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_chain_is_no_other_owners() {
        let (head, records) = built(3);
        let other: Chain = "day:fabrikam:20261121:writer".parse().unwrap();
        assert!(verify(&other, &records, &head).is_err());
        let moved: Vec<_> = records
            .into_iter()
            .map(|r| LinkedRecord {
                chain: other.clone(),
                ..r
            })
            .collect();
        assert_eq!(
            verify(&other, &moved, &head),
            Err(Broken {
                sequence: 1,
                kind: Break::Edited
            })
        );
    }

    #[test]
    fn fields_can_not_be_shifted_into_each_other() {
        let plain = |body: &str, subject: &str, bytes: &[u8]| SealedRecord {
            body: body.into(),
            actor: Some(SealedPart {
                subject: subject.into(),
                bytes: bytes.to_vec(),
            }),
            about: None,
        };
        let hash = |sealed| link(&chain(), &Head::EMPTY, sealed).0.hash;
        assert_ne!(hash(plain("ab", "c", b"d")), hash(plain("a", "bc", b"d")));
        assert_ne!(hash(plain("a", "bc", b"d")), hash(plain("a", "b", b"cd")));
        let about = SealedRecord {
            body: "a".into(),
            actor: None,
            about: plain("", "b", b"c").actor,
        };
        assert_ne!(hash(plain("a", "b", b"c")), hash(about));
    }

    proptest! {
        #[test]
        fn what_is_untouched_verifies(n in 0_usize..40) {
            let (head, records) = built(n);
            prop_assert_eq!(head.sequence, n as u64);
            prop_assert_eq!(verify(&chain(), &records, &head), Ok(()));
        }

        #[test]
        fn an_edit_is_located((n, at) in (1_usize..40).prop_flat_map(|n| (Just(n), 0..n)), field in 0..7) {
            let (head, mut records) = built(n);
            let record = &mut records[at];
            let part = SealedPart { subject: "ff".into(), bytes: vec![9] };
            match field {
                0 => record.sealed.body.push(' '),
                1 => record.sealed.actor = record.sealed.actor.is_none().then_some(part),
                2 => record.sealed.about = record.sealed.about.is_none().then_some(part),
                3 => record.hash[5] ^= 1,
                4 => record.previous[5] ^= 1,
                5 => record.chain = "seal:contoso".parse().unwrap(),
                _ => record.sequence += 1_000,
            }
            prop_assert_eq!(found(&records, &head), Broken { sequence: at as u64 + 1, kind: Break::Edited });
        }

        #[test]
        fn an_edit_with_a_new_hash_is_located((n, at) in (1_usize..40).prop_flat_map(|n| (Just(n), 0..n))) {
            let (head, mut records) = built(n);
            let before = if at == 0 { Head::EMPTY } else { records[at - 1].head() };
            records[at] = link(&chain(), &before, sealed(777)).1;
            prop_assert_eq!(found(&records, &head), Broken { sequence: at as u64 + 1, kind: Break::Edited });
        }

        #[test]
        fn a_rewritten_end_is_found((n, at) in (1_usize..40).prop_flat_map(|n| (Just(n), 0..n))) {
            let (head, records) = built(n);
            let before = if at == 0 { Head::EMPTY } else { records[at - 1].head() };
            let tail = (at..n).map(|i| sealed(i + 500)).collect();
            let forged: Vec<_> = records[..at].iter().cloned().chain(link_all(&chain(), &before, tail).1).collect();
            prop_assert_eq!(found(&forged, &head), Broken { sequence: n as u64, kind: Break::Edited });
        }

        #[test]
        fn a_removal_is_located((n, at) in (2_usize..40).prop_flat_map(|n| (Just(n), 0..n - 1)), many in 1_usize..5) {
            let (head, mut records) = built(n);
            records.drain(at..(at + many).min(n - 1));
            prop_assert_eq!(found(&records, &head), Broken { sequence: at as u64 + 1, kind: Break::Removed });
        }

        #[test]
        fn a_missing_end_is_located((n, left) in (1_usize..40).prop_flat_map(|n| (Just(n), 0..n))) {
            let (head, records) = built(n);
            prop_assert_eq!(found(&records[..left], &head), Broken { sequence: left as u64 + 1, kind: Break::Truncated });
        }

        #[test]
        fn an_exchange_is_located((n, a, b) in (2_usize..40).prop_flat_map(|n| (Just(n), 0..n, 0..n))) {
            prop_assume!(a != b);
            let (head, mut records) = built(n);
            records.swap(a, b);
            prop_assert_eq!(found(&records, &head), Broken { sequence: a.min(b) as u64 + 1, kind: Break::Reordered });
        }

        #[test]
        fn a_copy_that_is_put_in_is_found(
            (n, from, at) in (1_usize..40).prop_flat_map(|n| (Just(n), 0..n, 0..=n)),
        ) {
            let (head, mut records) = built(n);
            let copy = records[from].clone();
            records.insert(at, copy);
            // A copy beside its original: which of the two is the copy can't be told.
            let place = if at == from { at + 1 } else { at };
            prop_assert_eq!(found(&records, &head), Broken { sequence: place as u64 + 1, kind: Break::Inserted });
        }

        #[test]
        fn a_forgery_that_is_put_in_is_found(
            (n, at) in (1_usize..40).prop_flat_map(|n| (Just(n), 0..=n)), far in any::<bool>(),
        ) {
            let (head, mut records) = built(n);
            let mut before = if at == 0 { Head::EMPTY } else { records[at - 1].head() };
            if far {
                before.sequence += 1_000;
            }
            records.insert(at, link(&chain(), &before, sealed(777)).1);
            let broken = found(&records, &head);
            prop_assert!((at as u64 + 1..=at as u64 + 2).contains(&broken.sequence), "{:?}", broken);
            if !(far && at == n) {
                prop_assert_eq!(broken.kind, Break::Inserted);
            }
        }
    }
}
