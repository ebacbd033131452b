//! Signed tokens that people carry: what was not made by this installation, or was made for something else, is refused.
//!
//! The text is `<payload, base64url>.<HMAC-SHA-256 of kind, line feed and payload, base64url>`. A token hides nothing: whoever
//! holds it can read it. It has no use but the one that its kind names.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::envelope::SigningKey;

/// Longest token that is looked at.
const LONGEST: usize = 4 * 1024;

fn signed(kind: &str, payload: &[u8]) -> Vec<u8> {
    [kind.as_bytes(), b"\n", payload].concat()
}

/// A token of a kind.
#[must_use]
pub fn seal<T: Serialize>(key: &SigningKey, kind: &str, payload: &T) -> String {
    let payload = serde_json::to_vec(payload).expect("what a token says is plain data");
    let signature = hmac::sign(key.hmac(), &signed(kind, &payload));
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(&payload),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

/// What a token of a kind says; nothing when it is none of ours.
#[must_use]
pub fn open<T: DeserializeOwned>(key: &SigningKey, kind: &str, text: &str) -> Option<T> {
    if text.len() > LONGEST {
        return None;
    }
    let (payload, signature) = text.split_once('.')?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    hmac::verify(key.hmac(), &signed(kind, &payload), &signature).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_of_the_same_kind_are_opened() {
        let key = SigningKey::new(&[7; 32]);
        let text = seal(&key, "approval", &("contoso", 7));
        let read = |key: &SigningKey, kind: &str, text: &str| open::<(String, u32)>(key, kind, text);
        assert_eq!(read(&key, "approval", &text), Some(("contoso".into(), 7)));
        assert_eq!(read(&key, "other", &text), None);
        assert_eq!(read(&SigningKey::new(&[8; 32]), "approval", &text), None);
        let forged = text.replacen(text.chars().next().unwrap_or('a'), "A", 1);
        assert_eq!(read(&key, "approval", &format!("{forged}x")), None);
        assert_eq!(read(&key, "approval", "nonsense"), None);
    }
}
