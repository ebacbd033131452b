//! What is used and never shown: the clear text of a function key, the value of a secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sha256_hex;

/// How keys that Weft makes begin, so that secret scanners find them.
const PREFIX: &str = "weft_";

/// A key in clear (shown once when it is made, and read from a request), or a secret's value. `Debug` and `Display` tell nothing; the text is
/// overwritten when it goes away (as far as that goes: the request's own buffers keep a copy until they are reused).
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A new key of 256 random bits.
    #[must_use]
    pub fn generate(random: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// What a caller presents, of any form.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A value that somebody keeps secret, of any form.
    pub fn value(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever must show it once, compare it or hand it on.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it: SHA-256 in hexadecimal. Enough for 256 random bits, which nobody can enumerate.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256_hex(self.0.as_bytes())
    }

    /// Whether it has the form of [`Secret::generate`], and so can be as strong.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.0
            .strip_prefix(PREFIX)
            .is_some_and(|rest| URL_SAFE_NO_PAD.decode(rest).is_ok_and(|bytes| bytes.len() == 32))
    }

    /// Whether both are the same, in a time that depends on their lengths only.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        equal_in_constant_time(self.0.as_bytes(), other.0.as_bytes())
    }
}

/// Whether two texts are equal, in a time that depends on their lengths only.
#[must_use]
pub fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Keeps the compiler from dropping the write to memory that nobody reads again.
        std::hint::black_box(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_tells_nothing() {
        let secret = Secret::generate([7; 32]);
        assert!(secret.is_generated());
        assert_eq!(secret.expose().len(), 48);
        assert!(!Secret::presented("weft_short").is_generated());
        assert_eq!(format!("{secret} {secret:?}"), "… Secret(…)");
        assert!(secret.same(&secret.clone()));
        assert!(!secret.same(&Secret::presented("x")));
        assert_eq!(secret.hash().len(), 64);
    }
}
