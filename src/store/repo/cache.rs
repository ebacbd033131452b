//! A small cache for authentication: bounded, with expiry, invalidated by this instance's own writes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::Timestamp;

#[derive(Debug)]
struct State<K, V> {
    entries: HashMap<K, (Timestamp, V)>,
    /// Raised by every invalidation, so that a read that began before a write isn't kept after it.
    generation: u64,
}

/// Values by key, each for a limited time.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    keep: Duration,
    bound: usize,
    state: Mutex<State<K, V>>,
}

/// Taken before a read, handed in with what was read. The time counts from before the read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    at: Timestamp,
    generation: u64,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(keep: Duration, bound: usize) -> Self {
        Self {
            keep,
            bound,
            state: Mutex::new(State {
                entries: HashMap::new(),
                generation: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, at: Timestamp, now: Timestamp) -> bool {
        now >= at && now.since(at) < self.keep
    }

    /// What is there and still fresh, or the right to put what will be read.
    pub(super) fn get(&self, key: &K, now: Timestamp) -> Result<V, Ticket> {
        let state = self.state();
        match state.entries.get(key) {
            Some((at, value)) if self.fresh(*at, now) => Ok(value.clone()),
            _ => Err(Ticket {
                at: now,
                generation: state.generation,
            }),
        }
    }

    /// Keeps what was read. When it is full, what has expired goes; when that is nothing, everything does: entries live for
    /// seconds, so that is cheaper than to keep an order.
    pub(super) fn put(&self, ticket: Ticket, key: K, value: V) {
        let mut state = self.state();
        if state.generation != ticket.generation {
            return;
        }
        if state.entries.len() >= self.bound && !state.entries.contains_key(&key) {
            state.entries.retain(|_, (at, _)| self.fresh(*at, ticket.at));
            if state.entries.len() >= self.bound {
                state.entries.clear();
            }
        }
        state.entries.insert(key, (ticket.at, value));
    }

    /// Forgets everything: something that it may hold was written.
    pub(super) fn invalidate(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_stays_bounded_and_drops_reads_older_than_a_write() {
        let cache = Cache::new(Duration::from_secs(5), 3);
        let at = Timestamp::from_millis(10_000);
        let ticket = cache.get(&1, at).unwrap_err();
        cache.put(ticket, 1, "one");
        assert_eq!(cache.get(&1, at.plus(Duration::from_millis(4_999))).unwrap(), "one");
        assert!(cache.get(&1, at.plus(Duration::from_secs(5))).is_err());
        assert!(
            cache.get(&1, at.minus(Duration::from_millis(1))).is_err(),
            "a clock that went back keeps nothing alive"
        );

        let late = cache.get(&2, at).unwrap_err();
        cache.invalidate();
        cache.put(late, 2, "two");
        assert!(cache.get(&2, at).is_err());

        for key in 0..10 {
            let ticket = cache.get(&key, at).unwrap_err();
            cache.put(ticket, key, "x");
            assert!(cache.state().entries.len() <= 3);
        }
    }
}
