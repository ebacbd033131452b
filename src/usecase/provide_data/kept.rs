//! Answers of data providers that may be given again, in this process: bounded, each for as long as its provider declares; and
//! one call at a time for the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::domain::{OrgId, Timestamp};
use crate::usecase::{Error, Result};

/// Most answers that are kept.
const MOST: usize = 1_000;
/// Most bytes of all answers, as JSON.
const MOST_BYTES: usize = 16 << 20;

/// What must be the same for an answer to be given again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Whose answer it is: no other organization ever gets it.
    pub(super) org: OrgId,
    /// The data provider.
    pub(super) provider: String,
    /// The digest of code, packages, inputs, configuration, rights, and of the caller where the code is told who that is.
    pub(super) rest: String,
}

/// The answers.
#[derive(Debug, Default)]
pub(in crate::usecase) struct Kept {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<Key, Answer>,
    bytes: usize,
    uses: u64,
    calls: HashMap<Key, Arc<Call>>,
}

#[derive(Debug)]
struct Answer {
    value: Arc<Value>,
    bytes: usize,
    until: Timestamp,
    used: u64,
}

/// Those who want the same answer at the same time.
#[derive(Debug, Default)]
struct Call {
    turn: tokio::sync::Mutex<()>,
    failure: Mutex<(u64, Option<Failure>)>,
}

/// An error that can be told to several.
#[derive(Debug)]
struct Failure(Error);

impl Failure {
    fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Request {
                kind,
                code,
                detail,
                hint,
                findings,
            } => Some(Self(Error::Request {
                kind: *kind,
                code,
                detail: detail.clone(),
                hint: hint.clone(),
                findings: findings.clone(),
            })),
            // Whoever waited tries for themselves.
            _ => None,
        }
    }
}

impl Call {
    fn failures(&self) -> MutexGuard<'_, (u64, Option<Failure>)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Part of a call; the last to leave clears it away.
struct Part<'a> {
    kept: &'a Kept,
    key: &'a Key,
    call: Arc<Call>,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let mut state = self.kept.state();
        // The map's, and this one.
        if Arc::strong_count(&self.call) <= 2 {
            state.calls.remove(self.key);
        }
    }
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is kept, or what `call` says, kept for `ttl` unless that is nothing. Of several who want the same at the
    /// same time one calls, and the others wait for what comes of it. Failures are told to those who wait, and not kept.
    ///
    /// # Errors
    /// Those of the call.
    pub(super) async fn get(
        &self,
        key: &Key,
        ttl: Duration,
        now: impl Fn() -> Timestamp,
        call: impl Future<Output = Result<Value>>,
    ) -> Result<Arc<Value>> {
        if ttl.is_zero() {
            return call.await.map(Arc::new);
        }
        if let Some(value) = self.find(key, now()) {
            return Ok(value);
        }
        let part = Part {
            kept: self,
            key,
            call: self.state().calls.entry(key.clone()).or_default().clone(),
        };
        let seen = part.call.failures().0;
        let turn = part.call.turn.lock().await;
        if let Some(value) = self.find(key, now()) {
            return Ok(value);
        }
        {
            let failures = part.call.failures();
            if let (true, Some(failure)) = (failures.0 > seen, &failures.1)
                && let Some(Failure(again)) = Failure::of(&failure.0)
            {
                return Err(again);
            }
        }
        let called = call.await;
        let outcome = match called {
            Ok(value) => {
                let value = Arc::new(value);
                self.keep(key.clone(), value.clone(), now(), ttl);
                Ok(value)
            }
            Err(error) => {
                let mut failures = part.call.failures();
                *failures = (failures.0 + 1, Failure::of(&error));
                Err(error)
            }
        };
        drop(turn);
        outcome
    }

    fn find(&self, key: &Key, now: Timestamp) -> Option<Arc<Value>> {
        let mut state = self.state();
        state.uses += 1;
        let used = state.uses;
        let answer = state.answers.get_mut(key).filter(|answer| now < answer.until)?;
        answer.used = used;
        Some(answer.value.clone())
    }

    fn keep(&self, key: Key, value: Arc<Value>, now: Timestamp, ttl: Duration) {
        let bytes = value.to_string().len();
        if bytes > MOST_BYTES / 8 {
            return;
        }
        let mut state = self.state();
        let State {
            answers, bytes: all, ..
        } = &mut *state;
        answers.retain(|_, answer| now < answer.until);
        if let Some(before) = answers.remove(&key) {
            drop(before);
        }
        *all = answers.values().map(|answer| answer.bytes).sum();
        while answers.len() >= MOST || *all + bytes > MOST_BYTES {
            let oldest = answers.iter().min_by_key(|(_, answer)| answer.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            *all -= answers.remove(&oldest).map_or(0, |answer| answer.bytes);
        }
        *all += bytes;
        state.uses += 1;
        let used = state.uses;
        state.answers.insert(
            key,
            Answer {
                value,
                bytes,
                until: now.plus(ttl),
                used,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::error::Coded as _;

    fn key(org: &str, rest: &str) -> Key {
        Key {
            org: org.parse().unwrap(),
            provider: "cities".to_owned(),
            rest: rest.to_owned(),
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(seconds))
    }

    const TTL: Duration = Duration::from_secs(60);

    async fn ask(kept: &Kept, key: &Key, seconds: u64, calls: &AtomicUsize) -> Value {
        let call = async { Ok(json!(calls.fetch_add(1, Ordering::SeqCst))) };
        kept.get(key, TTL, || at(seconds), call).await.unwrap().as_ref().clone()
    }

    #[tokio::test]
    async fn an_answer_is_given_again_to_the_same_organization_until_its_time_is_up() {
        let (kept, calls) = (Kept::default(), AtomicUsize::new(0));
        assert_eq!(ask(&kept, &key("contoso", "a"), 0, &calls).await, json!(0));
        assert_eq!(ask(&kept, &key("contoso", "a"), 59, &calls).await, json!(0));
        assert_eq!(ask(&kept, &key("fabrikam", "a"), 59, &calls).await, json!(1));
        assert_eq!(ask(&kept, &key("contoso", "b"), 59, &calls).await, json!(2));
        assert_eq!(ask(&kept, &key("contoso", "a"), 60, &calls).await, json!(3));
        let of = key("contoso", "a");
        let none = kept.get(&of, Duration::ZERO, || at(60), async { Ok(json!("new")) });
        assert_eq!(*none.await.unwrap(), json!("new"));
        assert_eq!(ask(&kept, &key("contoso", "a"), 61, &calls).await, json!(3));
        assert!(kept.state().calls.is_empty());
    }

    #[tokio::test]
    async fn many_at_once_wait_for_one_call() {
        let (kept, calls) = (Arc::new(Kept::default()), Arc::new(AtomicUsize::new(0)));
        let (go, gate) = tokio::sync::watch::channel(false);
        let asks = (0..20).map(|_| {
            let (kept, calls, mut gate) = (kept.clone(), calls.clone(), gate.clone());
            async move {
                let call = async {
                    gate.wait_for(|open| *open).await.unwrap();
                    Ok(json!(calls.fetch_add(1, Ordering::SeqCst)))
                };
                kept.get(&key("contoso", "a"), TTL, || at(0), call).await.unwrap()
            }
        });
        let all = futures::future::join_all(asks);
        let opens = async {
            tokio::task::yield_now().await;
            go.send(true).unwrap();
        };
        let (answers, ()) = tokio::join!(all, opens);
        assert!(answers.iter().all(|answer| **answer == json!(0)));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(kept.state().calls.is_empty());
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_wait_and_not_kept() {
        let (kept, calls) = (Kept::default(), AtomicUsize::new(0));
        let of = key("contoso", "a");
        let fail = || async {
            calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Err(Error::conflict("data_provider_failed", "no", "mend it"))
        };
        let asks = (0..5).map(|_| kept.get(&of, TTL, || at(0), fail()));
        let answers = futures::future::join_all(asks).await;
        assert!(answers.iter().all(|answer| {
            answer
                .as_ref()
                .is_err_and(|error| error.code() == "data_provider_failed")
        }));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(ask(&kept, &of, 0, &calls).await, json!(1));
    }

    #[tokio::test]
    async fn one_who_goes_away_leaves_the_call_to_the_next() {
        let (kept, calls) = (Kept::default(), AtomicUsize::new(0));
        let of = key("contoso", "a");
        {
            let first = kept.get(&of, TTL, || at(0), std::future::pending());
            assert!(futures::poll!(std::pin::pin!(first)).is_pending());
        }
        assert_eq!(ask(&kept, &of, 0, &calls).await, json!(0));
    }

    #[tokio::test]
    async fn what_was_not_used_for_longest_goes_first() {
        let (kept, calls) = (Kept::default(), AtomicUsize::new(0));
        for number in 0..MOST {
            ask(&kept, &key("contoso", &number.to_string()), 0, &calls).await;
        }
        assert_eq!(ask(&kept, &key("contoso", "0"), 1, &calls).await, json!(0));
        ask(&kept, &key("contoso", "one more"), 1, &calls).await;
        assert_eq!(kept.state().answers.len(), MOST);
        assert_eq!(ask(&kept, &key("contoso", "0"), 1, &calls).await, json!(0));
        assert_eq!(ask(&kept, &key("contoso", "1"), 1, &calls).await, json!(MOST + 1));
        let large = json!("x".repeat(1 << 20));
        for number in 0..40 {
            let of = key("fabrikam", &number.to_string());
            kept.get(&of, TTL, || at(1), async { Ok(large.clone()) }).await.unwrap();
        }
        let state = kept.state();
        assert!(state.bytes <= MOST_BYTES);
        assert_eq!(
            state.bytes,
            state.answers.values().map(|answer| answer.bytes).sum::<usize>()
        );
    }
}
