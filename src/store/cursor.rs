//! Where a page ended, as a text that can be handed out: the key where the next page begins, and a check over it and the
//! query's place. It says nothing about where to look, so a forged one can only move the start within the same place;
//! a garbled one, or one of another place, is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::store::error::Error;
use crate::store::port::{Continuation, Result};

const CHECK: usize = 8;

/// A continuation from `key` on, for a place such as table and partition.
pub(crate) fn write(place: &[&str], key: &str) -> Continuation {
    let mut bytes = check(place, key).to_vec();
    bytes.extend_from_slice(key.as_bytes());
    Continuation(URL_SAFE_NO_PAD.encode(bytes))
}

/// The key of a continuation.
pub(crate) fn read(place: &[&str], continuation: &Continuation) -> Result<String> {
    let malformed = || Error::Malformed {
        what: continuation.0.chars().take(60).collect(),
        expected: "continuation of this query",
    };
    let bytes = URL_SAFE_NO_PAD.decode(&continuation.0).map_err(|_| malformed())?;
    let (found, key) = bytes.split_at_checked(CHECK).ok_or_else(malformed)?;
    let key = std::str::from_utf8(key).map_err(|_| malformed())?;
    if found == check(place, key) {
        Ok(key.to_owned())
    } else {
        Err(malformed())
    }
}

fn check(place: &[&str], key: &str) -> [u8; CHECK] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in place.iter().chain([&key]) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref()[..CHECK]
        .try_into()
        .expect("a digest is longer than its check")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_in_its_place() {
        let continuation = write(&["t", "p"], "ü row");
        assert_eq!(read(&["t", "p"], &continuation).unwrap(), "ü row");
        assert!(read(&["t", "q"], &continuation).is_err());
        assert!(read(&["tp", ""], &continuation).is_err());
        for garbled in ["", "x", "!!!!", "AAAAAAAAAAAAAAAA", &continuation.0[1..]] {
            assert!(read(&["t", "p"], &Continuation(garbled.into())).is_err(), "{garbled}");
        }
    }
}
