//! How many bytes of artifacts an organization has, and who may store more of them.
//!
//! One row of an organization has the sum of what is stored. Whoever is about to store something takes room for it before the first
//! byte is sent, and an instance takes more than is asked for: a block, from which it gives to small artifacts without a call of
//! storage. What it has taken is a row of its own in the same partition, and both rows change in one transaction under their ETags,
//! so that instances together never promise more than there is.
//!
//! - What is stored moves from the instance's row into the sum when it takes the next block.
//! - What an instance has taken counts for an hour. So one that has died holds nothing for long.
//! - Bytes that were there already, and uploads that came to nothing, are given back. Where it isn't known whether something was
//!   stored, it counts.
//! - Nothing is taken off for what is deleted: the collector, which deletes it, sees every blob, and sets the sum to what is there
//!   and what came meanwhile. That mends whatever a crash has left, too. What an instance has stored and not added yet when a count
//!   begins is seen by that count, and dropped; so of what it stores in those minutes some may be missing until the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::{OrgId, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{ETag, Entity, Key, Match, Operation, Ports, Properties, Query, Result};
use crate::tenancy::Scope;

const SCHEMA: i64 = 1;
/// What an instance takes at once, where there is plenty: an instance may hold so much that it doesn't need.
const BLOCK: u64 = 16 << 20;
/// The part of a quota that is a block where there is less.
const PART: u64 = 64;
/// For how long what was taken counts.
const COUNTS: Duration = Duration::from_secs(3_600);
/// How long an instance gives of a block before it adds what it has stored to the sum, and takes anew.
const GIVES: Duration = Duration::from_secs(300);
/// How often a write that met another one is tried again.
const TRIES: u32 = 30;
/// Most rows of others that are cleared away at once.
const CLEARED: usize = 50;

/// What organizations have stored.
#[derive(Debug)]
pub struct Usage {
    ports: Ports,
    clock: Arc<dyn Clock>,
    instance: String,
    accounts: Mutex<HashMap<OrgId, Arc<Account>>>,
    stored: AtomicU64,
    refused: AtomicU64,
}

/// What this instance has taken for an organization.
#[derive(Debug, Default)]
struct Account {
    numbers: Mutex<Numbers>,
    /// One at a time goes to storage.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// Taken, and promised to nobody.
    free: u64,
    /// Promised to what is being stored.
    promised: u64,
    /// Stored, and not in the sum yet.
    stored: u64,
    /// The count that had begun when something was last taken.
    count: u64,
    /// Until when what is free may be given.
    until: Timestamp,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            free: 0,
            promised: 0,
            stored: 0,
            count: 0,
            until: Timestamp::from_millis(0),
        }
    }
}

/// Room for so many bytes. What is not used is given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    account: Arc<Account>,
    size: u64,
}

/// Whether there was room.
#[derive(Debug)]
pub enum Taken {
    /// There was.
    Room(Room),
    /// There was not.
    Full {
        /// How many bytes are stored, or promised to others.
        used: u64,
    },
}

/// What an organization has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Bytes of artifacts, those that are being written here among them. Other instances may have stored a block that isn't among
    /// them yet.
    pub artifact_bytes: u64,
    /// When they were last counted one by one.
    pub artifacts_counted_at: Option<Timestamp>,
    /// Bytes of large values, when they were last counted, and when that was.
    pub values: Option<(u64, Timestamp)>,
}

/// The row with the sum.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    /// What of them was added since the collector began to count.
    since: u64,
    /// How often it has begun.
    count: u64,
    counted_at: Option<Timestamp>,
    values: Option<(u64, Timestamp)>,
}

/// The row of an instance.
struct Hold {
    row: Key,
    bytes: u64,
    free: u64,
    until: Timestamp,
    etag: ETag,
}

struct Rows {
    sum: Sum,
    etag: Option<ETag>,
    holds: Vec<Hold>,
}

impl Numbers {
    /// What of it is in no sum: what was stored before a count began, that count has seen.
    const fn unadded(&self, sum: &Sum) -> u64 {
        if self.count == sum.count { self.stored } else { 0 }
    }
}

impl Account {
    fn numbers<T>(&self, work: impl FnOnce(&mut Numbers) -> T) -> T {
        work(&mut self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives of what is free; not where so much of it is free that some should go back first.
    fn give(self: &Arc<Self>, size: u64, now: Timestamp) -> Option<Room> {
        self.numbers(|numbers| {
            let left = numbers.free.checked_sub(size)?;
            if now >= numbers.until || left > 4 * BLOCK {
                return None;
            }
            numbers.free = left;
            numbers.promised += size;
            Some(Room {
                account: self.clone(),
                size,
            })
        })
    }
}

impl Room {
    /// For how many bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// They are stored now.
    fn stored(mut self) {
        let size = std::mem::take(&mut self.size);
        self.account.numbers(|numbers| {
            numbers.promised = numbers.promised.saturating_sub(size);
            numbers.stored += size;
        });
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let size = self.size;
        if size > 0 {
            self.account.numbers(|numbers| {
                numbers.promised = numbers.promised.saturating_sub(size);
                numbers.free += size;
            });
        }
    }
}

impl Usage {
    /// Over these ports, for one instance among others.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>, instance: String) -> Self {
        Self {
            ports,
            clock,
            instance,
            accounts: Mutex::default(),
            stored: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes room for an artifact where an organization may have so many bytes.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn take(&self, scope: &Scope, size: u64, quota: u64) -> Result<Taken> {
        let account = self.account(scope);
        if size == 0 {
            return Ok(Taken::Room(Room { account, size }));
        }
        loop {
            if let Some(room) = account.give(size, self.clock.now()) {
                return Ok(Taken::Room(room));
            }
            let _turn = account.turn.lock().await;
            // Whoever had the turn before may have taken enough for both.
            if let Some(room) = account.give(size, self.clock.now()) {
                return Ok(Taken::Room(room));
            }
            if let Some(used) = self.refill(scope, &account, size, quota).await? {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Ok(Taken::Full { used });
            }
        }
    }

    /// Says what became of bytes for which there was room: whether a blob of them is new, or the failure, after which it may be.
    pub(super) fn settle<T>(&self, scope: &Scope, room: Room, written: &Result<T>, is_new: impl FnOnce(&T) -> bool) {
        debug_assert!(
            Arc::ptr_eq(&room.account, &self.account(scope)),
            "it is the organization's"
        );
        let counts = match written {
            Ok(written) => is_new(written),
            Err(error) => matches!(error, Error::Unavailable { .. }),
        };
        if counts {
            self.stored.fetch_add(room.size, Ordering::Relaxed);
            room.stored();
        }
    }

    /// Bytes that were stored here since the process began, and how often there was no room.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.stored.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }

    /// What an organization has stored.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope) -> Result<Used> {
        let rows = self.read(scope).await?;
        let own = key::usage_hold_row(&self.instance);
        let now = self.clock.now();
        let others = rows.holds.iter().filter(|hold| hold.row != own && hold.until > now);
        let others: u64 = others.map(|hold| hold.bytes.saturating_sub(hold.free)).sum();
        let here = self.account(scope).numbers(|numbers| *numbers);
        let here = here.promised + here.unadded(&rows.sum);
        Ok(Used {
            artifact_bytes: rows.sum.bytes + others + here,
            artifacts_counted_at: rows.sum.counted_at,
            values: rows.sum.values,
        })
    }

    /// Begins to count: what is stored from now on is added to what will have been counted.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn begin_count(&self, scope: &Scope) -> Result<()> {
        self.change(scope, |sum| {
            sum.since = 0;
            sum.count += 1;
        })
        .await
    }

    /// Ends it: so many bytes of artifacts were found.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn artifacts_counted(&self, scope: &Scope, bytes: u64) -> Result<()> {
        let now = self.clock.now();
        self.change(scope, |sum| {
            sum.bytes = bytes.saturating_add(sum.since);
            sum.counted_at = Some(now);
        })
        .await
    }

    /// So many bytes of large values were found.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn values_counted(&self, scope: &Scope, bytes: u64) -> Result<()> {
        let now = self.clock.now();
        self.change(scope, |sum| sum.values = Some((bytes, now))).await
    }

    /// Gives back what is free here and adds what was stored to the sums, for an instance that stops. What fails is of no
    /// consequence but for an hour.
    pub async fn leave(&self) {
        let accounts: Vec<_> = {
            let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            accounts
                .iter()
                .map(|(org, account)| (org.clone(), account.clone()))
                .collect()
        };
        for (org, account) in accounts {
            if account.numbers(|numbers| numbers.free + numbers.stored) == 0 {
                continue;
            }
            let _turn = account.turn.lock().await;
            if let Err(error) = self.refilled(&org, &account, 0, 0).await {
                tracing::warn!(org.id = %org, error = %error, "room for artifacts could not be given back");
            }
        }
    }

    fn account(&self, scope: &Scope) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.entry(scope.org().clone()).or_default().clone()
    }

    /// Takes a block, or what is needed; how much is used where there is not as much.
    async fn refill(&self, scope: &Scope, account: &Account, size: u64, quota: u64) -> Result<Option<u64>> {
        self.refilled(scope.org(), account, size, quota).await
    }

    async fn refilled(&self, org: &OrgId, account: &Account, size: u64, quota: u64) -> Result<Option<u64>> {
        let (table, partition) = (key::org_table(org), key::usage());
        let own = key::usage_hold_row(&self.instance);
        for _ in 0..TRIES {
            let rows = self.read_of(org).await?;
            let now = self.clock.now();
            let before = account.numbers(|numbers| *numbers);
            let added = before.unadded(&rows.sum);
            let sum = Sum {
                bytes: rows.sum.bytes.saturating_add(added),
                since: rows.sum.since.saturating_add(added),
                ..rows.sum
            };
            let (own_hold, others): (Vec<_>, Vec<_>) = rows.holds.into_iter().partition(|hold| hold.row == own);
            let (live, dead): (Vec<_>, Vec<_>) = others.into_iter().partition(|hold| hold.until > now);
            let others: u64 = live.iter().map(|hold| hold.bytes).fold(0, u64::saturating_add);
            let used = sum.bytes.saturating_add(others).saturating_add(before.promised);
            let room = quota.saturating_sub(used);
            if room < size {
                return Ok(Some(used));
            }
            let free = BLOCK.min(quota / PART).max(size).min(room);
            let hold = Properties::new()
                .with("v", SCHEMA)
                .with("bytes", signed(before.promised.saturating_add(free)))
                .with("free", signed(free))
                .with("until", now.plus(COUNTS));
            let mut operations = vec![sum_operation(&sum, rows.etag)];
            operations.push(match own_hold.into_iter().next() {
                None => Operation::Insert(own.clone(), hold),
                Some(known) => Operation::Replace(own.clone(), hold, Match::Exactly(known.etag)),
            });
            let dead = dead.into_iter().take(CLEARED);
            operations.extend(dead.map(|hold| Operation::Delete(hold.row, Match::Exactly(hold.etag))));
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => {
                    account.numbers(|numbers| {
                        numbers.stored = numbers.stored.saturating_sub(before.stored);
                        // Something of what was free may have been given meanwhile, or have come back.
                        numbers.free = numbers.free.saturating_add(free).saturating_sub(before.free);
                        (numbers.until, numbers.count) = (now.plus(GIVES), sum.count);
                    });
                    return Ok(None);
                }
                Err(error) if error.is_conflict() => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Throttled {
            source: "others kept taking room for artifacts of the same organization".into(),
        })
    }

    async fn change(&self, scope: &Scope, change: impl Fn(&mut Sum)) -> Result<()> {
        let (table, partition) = (key::org_table(scope.org()), key::usage());
        for _ in 0..TRIES {
            let row = self.ports.tables.get(&table, &partition, &key::usage_row()).await?;
            let (mut sum, etag) = match row {
                None => (Sum::default(), None),
                Some(row) => (read_sum(&row)?, Some(row.etag)),
            };
            change(&mut sum);
            match self
                .ports
                .tables
                .commit(&table, &partition, vec![sum_operation(&sum, etag)])
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Throttled {
            source: "others kept taking room for artifacts of the same organization".into(),
        })
    }

    async fn read(&self, scope: &Scope) -> Result<Rows> {
        self.read_of(scope.org()).await
    }

    async fn read_of(&self, org: &OrgId) -> Result<Rows> {
        let mut rows = Rows {
            sum: Sum::default(),
            etag: None,
            holds: Vec::new(),
        };
        let mut continuation = None;
        loop {
            let query = Query::partition(key::usage()).after(continuation);
            let page = self.ports.tables.query(&key::org_table(org), query).await?;
            for row in page.entities {
                if row.row == key::usage_row() {
                    rows.sum = read_sum(&row)?;
                    rows.etag = Some(row.etag);
                } else {
                    rows.holds.push(Hold {
                        bytes: unsigned(row.properties.require_int("bytes")?),
                        free: unsigned(row.properties.require_int("free")?),
                        until: row.properties.require_time("until")?,
                        row: row.row,
                        etag: row.etag,
                    });
                }
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(rows);
            }
        }
    }
}

fn sum_operation(sum: &Sum, before: Option<ETag>) -> Operation {
    let properties = Properties::new()
        .with("v", SCHEMA)
        .with("bytes", signed(sum.bytes))
        .with("since", signed(sum.since))
        .with("count", signed(sum.count))
        .with_some("countedAt", sum.counted_at)
        .with_some("valueBytes", sum.values.map(|(bytes, _)| signed(bytes)))
        .with_some("valuesCountedAt", sum.values.map(|(_, at)| at));
    match before {
        None => Operation::Insert(key::usage_row(), properties),
        Some(etag) => Operation::Replace(key::usage_row(), properties, Match::Exactly(etag)),
    }
}

fn read_sum(row: &Entity) -> Result<Sum> {
    let properties = &row.properties;
    Ok(Sum {
        bytes: unsigned(properties.require_int("bytes")?),
        since: unsigned(properties.require_int("since")?),
        count: unsigned(properties.require_int("count")?),
        counted_at: properties.time("countedAt")?,
        values: properties
            .int("valueBytes")?
            .map(unsigned)
            .zip(properties.time("valuesCountedAt")?),
    })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
