//! What one instance remembers about the doors that hooks are: how fast who knocks, what was said about refusals, secrets
//! that were read, and deliveries that are being written down. All bounded, none of it shared between instances.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::in_all;
use crate::domain::{HookId, Secret, Timestamp};
use crate::hooks::Hook;
use crate::store::repo::hooks::Delivery;

/// Ids that nobody has asked for lately and one address may try in a minute.
const LOOKS_OF_ONE: u32 = 60;
/// The same of all addresses together.
const LOOKS_OF_ALL: u32 = 3000;
/// Most addresses, secrets and reasons that are remembered.
const REMEMBERED: usize = 20_000;
/// How often a refusal is put on record, for each reason of a hook.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Most deliveries of a hook that wait to be written down.
const WAITING: usize = 200;

/// Fills with time, and is emptied by what comes.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    fn take(&mut self, now: Timestamp, per_minute: u32) -> bool {
        let most = f64::from(per_minute);
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * most / 60.0).min(most);
        self.at = self.at.max(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

type Buckets<K> = HashMap<K, Bucket>;

fn take<K: std::hash::Hash + Eq>(buckets: &mut Buckets<K>, key: K, now: Timestamp, per_minute: u32) -> bool {
    if buckets.len() >= REMEMBERED {
        // A minute later a bucket is full again, which is as if it had never been.
        buckets.retain(|_, bucket| now.since(bucket.at) < Duration::from_secs(60));
        if buckets.len() >= REMEMBERED {
            buckets.clear();
        }
    }
    let full = Bucket {
        tokens: f64::from(per_minute),
        at: now,
    };
    buckets.entry(key).or_insert(full).take(now, per_minute)
}

/// About what a record is written once in a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Told {
    /// Deliveries to no hook.
    Unknown,
    /// Refusals of a hook, by reason.
    Hook(HookId, &'static str),
}

#[derive(Debug, Default)]
struct Memory {
    looks: Buckets<String>,
    all_looks: Buckets<()>,
    sources: Buckets<(HookId, String)>,
    hooks: Buckets<HookId>,
    told: HashMap<Told, (Timestamp, u32)>,
    secrets: HashMap<(HookId, String), Secret>,
    waiting: HashMap<HookId, Vec<Delivery>>,
}

/// What one instance remembers.
#[derive(Debug, Default)]
pub struct Doors(Mutex<Memory>);

impl Doors {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an address may have storage asked for one more id.
    pub(super) fn may_look(&self, address: &str, now: Timestamp) -> bool {
        let memory = &mut *self.memory();
        take(&mut memory.looks, address.to_owned(), now, LOOKS_OF_ONE)
            && take(&mut memory.all_looks, (), now, LOOKS_OF_ALL)
    }

    /// Whether an address may have one more delivery of a hook verified.
    pub(super) fn may_knock(&self, hook: &Hook, address: &str, now: Timestamp) -> bool {
        let key = (hook.id.clone(), address.to_owned());
        take(&mut self.memory().sources, key, now, hook.per_minute)
    }

    /// Whether a hook takes one more delivery that is verified.
    pub(super) fn may_enter(&self, hook: &Hook, now: Timestamp) -> bool {
        take(&mut self.memory().hooks, hook.id.clone(), now, in_all(hook))
    }

    /// Whether a refusal is put on record now, and for how many it then stands.
    pub(super) fn tell(&self, about: Told, now: Timestamp) -> Option<u32> {
        let told = &mut self.memory().told;
        if told.len() >= REMEMBERED {
            told.clear();
        }
        match told.get_mut(&about) {
            Some((at, untold)) if now.since(*at) < TOLD_EVERY => {
                *untold = untold.saturating_add(1);
                None
            }
            Some((at, untold)) => {
                *at = now;
                Some(std::mem::take(untold).saturating_add(1))
            }
            None => {
                told.insert(about, (now, 0));
                Some(1)
            }
        }
    }

    /// A secret that was read before. A version's secret never changes; whether the version is good, its hook says.
    pub(super) fn secret(&self, hook: &HookId, version: &str) -> Option<Secret> {
        let key = (hook.clone(), version.to_owned());
        self.memory().secrets.get(&key).cloned()
    }

    pub(super) fn remember(&self, hook: &HookId, version: &str, secret: Secret) {
        let secrets = &mut self.memory().secrets;
        if secrets.len() >= REMEMBERED {
            secrets.clear();
        }
        secrets.insert((hook.clone(), version.to_owned()), secret);
    }

    /// Adds a delivery to be written down; the right to write, unless somebody is at it.
    pub(super) fn add(&self, hook: &HookId, delivery: Delivery) -> Option<Writing<'_>> {
        let waiting = &mut self.memory().waiting;
        let at_it = waiting.contains_key(hook);
        let lines = waiting.entry(hook.clone()).or_default();
        if lines.len() < WAITING {
            lines.push(delivery);
        }
        (!at_it).then(|| Writing {
            doors: self,
            hook: hook.clone(),
            done: false,
        })
    }
}

/// The right to write a hook's deliveries down, until there are none left.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    doors: &'a Doors,
    hook: HookId,
    done: bool,
}

impl Writing<'_> {
    /// What is to be written; none when that was all.
    pub(super) fn next(&mut self) -> Option<Vec<Delivery>> {
        let mut memory = self.doors.memory();
        let lines = std::mem::take(memory.waiting.get_mut(&self.hook)?);
        if lines.is_empty() {
            // In the same breath: whoever adds from now on writes.
            memory.waiting.remove(&self.hook);
            self.done = true;
            return None;
        }
        Some(lines)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.doors.memory().waiting.remove(&self.hook);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn a_bucket_gives_what_a_minute_has_and_fills_with_time() {
        let mut buckets = Buckets::default();
        let given = |buckets: &mut Buckets<u8>, key, now| (0..20).filter(|_| take(buckets, key, now, 6)).count();
        assert_eq!(given(&mut buckets, 1, at(0)), 6);
        assert_eq!(given(&mut buckets, 2, at(0)), 6, "each has its own");
        assert_eq!(given(&mut buckets, 1, at(10)), 1);
        assert_eq!(given(&mut buckets, 1, at(600)), 6, "no more than a minute's worth");
        assert_eq!(
            given(&mut buckets, 1, at(300)),
            0,
            "a clock that goes back gives nothing"
        );
    }

    #[test]
    fn refusals_are_counted_and_told_once_a_minute() {
        let doors = Doors::default();
        let about = || Told::Hook(HookId::generate([1; 16]), "mismatch");
        assert_eq!(doors.tell(about(), at(0)), Some(1));
        for second in 1..60 {
            assert_eq!(doors.tell(about(), at(second)), None);
        }
        assert_eq!(doors.tell(about(), at(60)), Some(60));
        assert_eq!(doors.tell(Told::Unknown, at(60)), Some(1));
    }

    #[test]
    fn addresses_without_end_stay_bounded() {
        let doors = Doors::default();
        for address in 0..REMEMBERED * 2 {
            doors.may_look(&address.to_string(), at(0));
            assert!(doors.memory().looks.len() <= REMEMBERED);
        }
    }

    #[test]
    fn one_writes_what_many_have_to_add() {
        let doors = Doors::default();
        let hook = HookId::generate([1; 16]);
        let line = || Delivery {
            at: at(0),
            outcome: "accepted".into(),
            reason: None,
            delivery: None,
            run: None,
            count: 1,
        };
        let mut writing = doors.add(&hook, line()).unwrap();
        assert_eq!(writing.next().unwrap().len(), 1);
        assert!(doors.add(&hook, line()).is_none());
        assert!(doors.add(&hook, line()).is_none());
        assert_eq!(writing.next().unwrap().len(), 2);
        assert!(writing.next().is_none());
        drop(writing);
        assert!(doors.add(&hook, line()).is_some());
    }
}
