//! Queue messages: versioned, tagged and signed, so that what was not sent by Weft is refused whoever delivers it.
//!
//! The text is `{"v":1,"p":"<payload, base64url>","s":"<HMAC-SHA-256 of the payload, base64url>"}`. The host copies top-level
//! properties of a JSON message over its own metadata, ignoring case; `v`, `p` and `s` meet none of them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::domain::AttemptId;
use crate::tenancy::RunRef;

/// The key with which messages of this installation are signed.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    /// From at least 32 bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub(super) const fn hmac(&self) -> &hmac::Key {
        &self.0
    }

    /// What only this installation can put behind a text for this purpose.
    #[must_use]
    pub fn sign(&self, purpose: &str, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, format!("{purpose}\n{text}").as_bytes()))
    }

    /// Whether [`SigningKey::sign`] has given this signature for the same. Takes as long for a wrong one as for a right one.
    #[must_use]
    pub fn has_signed(&self, purpose: &str, text: &str, signature: &str) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        hmac::verify(&self.0, format!("{purpose}\n{text}").as_bytes(), &signature).is_ok()
    }

    /// Twelve characters that only this installation can put behind a text for this purpose.
    #[must_use]
    pub fn tag(&self, purpose: &str, text: &str) -> String {
        let signature = hmac::sign(&self.0, format!("{purpose}\n{text}").as_bytes());
        URL_SAFE_NO_PAD.encode(&signature.as_ref()[..9])
    }
}

/// What a queue message asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// Look at a run and go on with it.
    DriveRun {
        /// The run.
        #[serde(flatten)]
        run: RunRef,
        /// `wake_up`, `deferred`, `continued`, `inbox`: for the log only.
        /// `look_…`: it was not written when the message before was delivered.
        reason: String,
    },
    /// Runs of an organization stand in its backlog.
    Admit {
        /// One of them, when this was sent.
        #[serde(flatten)]
        run: RunRef,
        /// Which of the organization's messages of this kind it is: at most so many are in the queue.
        place: u8,
    },
    /// Any instance may make this attempt.
    Attempt {
        /// Of this run.
        #[serde(flatten)]
        run: RunRef,
        /// The step's place in the plan.
        step: usize,
        /// The item or iteration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// The attempt.
        attempt: AttemptId,
        /// How often it was sent on by an instance that had no worker for it.
        sent_on: u32,
    },
}

/// Why a text is no message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not the form.
    #[error("the message is not in Weft's form")]
    Malformed,
    /// A version that this build doesn't know.
    #[error("the message has a version that this build does not know")]
    Version,
    /// The signature is not ours.
    #[error("the message's signature does not fit")]
    Signature,
}

#[derive(Serialize, Deserialize)]
struct Outer {
    v: u32,
    p: String,
    s: String,
}

/// The text to send.
#[must_use]
pub fn seal(key: &SigningKey, message: &Message) -> String {
    let payload = serde_json::to_vec(message).expect("a message is plain data");
    let signature = hmac::sign(&key.0, &payload);
    let outer = Outer {
        v: 1,
        p: URL_SAFE_NO_PAD.encode(&payload),
        s: URL_SAFE_NO_PAD.encode(signature),
    };
    serde_json::to_string(&outer).expect("an envelope is plain data")
}

/// What a delivered text says.
///
/// # Errors
/// [`Rejected`].
pub fn open(key: &SigningKey, text: &str) -> Result<Message, Rejected> {
    let outer: Outer = serde_json::from_str(text).map_err(|_| Rejected::Malformed)?;
    if outer.v != 1 {
        return Err(Rejected::Version);
    }
    let payload = URL_SAFE_NO_PAD.decode(&outer.p).map_err(|_| Rejected::Malformed)?;
    let signature = URL_SAFE_NO_PAD.decode(&outer.s).map_err(|_| Rejected::Malformed)?;
    hmac::verify(&key.0, &payload, &signature).map_err(|_| Rejected::Signature)?;
    serde_json::from_slice(&payload).map_err(|_| Rejected::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RunId, Timestamp};

    #[test]
    fn only_our_own_are_opened() {
        let key = SigningKey::new(&[7; 32]);
        let run = RunRef {
            org: "contoso".parse().unwrap(),
            run: RunId::generate(Timestamp::from_millis(1), [3; 10]),
        };
        let message = Message::DriveRun {
            run,
            reason: "started".into(),
        };
        let text = seal(&key, &message);
        assert_eq!(open(&key, &text), Ok(message));
        assert_eq!(open(&SigningKey::new(&[8; 32]), &text), Err(Rejected::Signature));
        assert_eq!(open(&key, &text.replace("\"v\":1", "\"v\":9")), Err(Rejected::Version));
        assert_eq!(open(&key, "hello"), Err(Rejected::Malformed));
        assert_eq!(open(&key, r#"{"v":1,"p":"e30","s":""}"#), Err(Rejected::Signature));
    }
}
