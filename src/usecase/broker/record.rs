//! What an attempt has asked for and was answered, in its order, within bounds: for replaying it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::Answer;
use crate::domain::{RecordedAnswer, RecordedCall, reduced};

/// Most bytes of all calls of an attempt together.
const BYTES: usize = 1 << 20;
/// Most bytes of one answer.
const ANSWER_BYTES: usize = 256 << 10;
/// Most calls.
const CALLS: usize = 2_000;

/// Takes notes.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    calls: Vec<RecordedCall>,
    bytes: usize,
    left_out: u64,
}

impl Recorder {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call; its place, if its answer is wanted as well.
    pub(super) fn asked(&self, name: &str, args: &Value) -> Option<usize> {
        let mut kept = self.kept();
        if kept.calls.len() >= CALLS || kept.bytes >= BYTES {
            kept.left_out += 1;
            return None;
        }
        let name: String = name.chars().take(60).collect();
        let args = reduced(&name, args.clone());
        kept.bytes += name.len() + args.to_string().len();
        kept.calls.push(RecordedCall {
            name,
            args,
            answer: RecordedAnswer::Never,
        });
        Some(kept.calls.len() - 1)
    }

    /// Notes the answer.
    pub(super) fn answered(&self, place: usize, answer: &Answer) {
        let mut kept = self.kept();
        let left = BYTES.saturating_sub(kept.bytes).min(ANSWER_BYTES);
        let is_secret = kept.calls.get(place).is_some_and(|call| call.name == "secrets.get");
        let (answer, size) = match answer {
            Ok(_) if is_secret => (RecordedAnswer::Secret, 0),
            Ok(value) => match value.to_string().len() {
                size if size > left => (RecordedAnswer::Cut(size as u64), 0),
                size => (RecordedAnswer::Value(value.clone()), size),
            },
            Err(refusal) => {
                let (code, message) = (refusal.code.clone(), refusal.message.clone());
                let size = message.len();
                (RecordedAnswer::Refused { code, message }, size)
            }
        };
        kept.bytes += size;
        if let Some(call) = kept.calls.get_mut(place) {
            call.answer = answer;
        }
    }

    /// All of it, and how many calls are not among it.
    pub(super) fn take(&self) -> (Vec<RecordedCall>, u64) {
        let mut kept = self.kept();
        (std::mem::take(&mut kept.calls), kept.left_out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runner::Refusal;

    #[test]
    fn a_secret_is_kept_nowhere_and_bounds_hold() {
        let recorder = Recorder::default();
        let place = recorder.asked("secrets.get", &json!({"name": "API_KEY"})).unwrap();
        recorder.answered(place, &Ok(json!("the value")));
        let refused = recorder.asked("kv.get", &json!({"key": ""})).unwrap();
        let code = "invalid".to_owned();
        let message = "no key".to_owned();
        recorder.answered(refused, &Err(Refusal { code, message }));
        let large = recorder.asked("kv.get", &json!({"key": "a"})).unwrap();
        recorder.answered(large, &Ok(json!("x".repeat(ANSWER_BYTES))));
        for _ in 0..CALLS {
            recorder.asked("config.get", &json!({"key": "x"}));
        }
        let (calls, left_out) = recorder.take();
        assert_eq!((calls.len(), left_out), (CALLS, 3));
        assert!(!format!("{calls:?}").contains("the value"));
        assert_eq!(calls[0].answer, RecordedAnswer::Secret);
        assert!(matches!(&calls[1].answer, RecordedAnswer::Refused { code, .. } if code == "invalid"));
        assert_eq!(calls[2].answer, RecordedAnswer::Cut(ANSWER_BYTES as u64 + 2));
        assert_eq!(calls[3].answer, RecordedAnswer::Never);
    }
}
