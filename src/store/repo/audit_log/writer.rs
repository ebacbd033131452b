//! One writer's chains: records of one owner go through one lane, in groups, each group in one transaction.
//!
//! Whoever comes while a transaction is in flight waits and goes with the next; a lone record waits for nobody. The lane's
//! worker is a task of its own, so a caller that gives up takes nothing with it. The head row's ETag fences the chain: a
//! transaction that got lost and arrives late finds another version and fails. After an unknown outcome the head is read
//! again before anything else is written, and records that turn out to stand are answered, not written twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Inner, contended, row, table};
use crate::audit::chain::link_all;
use crate::audit::{Chain, Event, Head, LinkedRecord, Owner, Record, SealedRecord, seal};
use crate::authz::{Principal, Tier};
use crate::domain::RecordId;
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{ETag, Match, Operation, Query, Result, check_operations};

/// Most records in one transaction. At their largest they take 1.8 MiB of the 3 that a transaction may have.
pub const MAX_GROUP: usize = 35;
/// Most records of one owner that wait; beyond it callers are told to come back.
const MAX_WAITING: usize = 2_000;
/// Most owners whose chains are remembered.
const MAX_LANES: usize = 1_024;
/// Most records that are remembered because their caller was told of an unknown outcome.
const MAX_SETTLED: usize = 256;
/// How often a transaction that met another writer is built anew.
const ATTEMPTS: usize = 5;

/// The lanes of all owners.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<Owner, Arc<Lane>>>);

#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<Waiting>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Pending>,
    working: bool,
}

#[derive(Debug)]
struct Pending {
    id: RecordId,
    record: SealedRecord,
    done: oneshot::Sender<Result<LinkedRecord>>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    settled: VecDeque<(RecordId, LinkedRecord)>,
}

#[derive(Debug)]
struct Open {
    day: String,
    head: Head,
    /// The head row's version; none while there is no row.
    etag: Option<ETag>,
    /// Whether head and version are what is stored.
    certain: bool,
    /// Whether a transaction without an answer may still arrive. Whatever else is committed to the chain fences it.
    lost: bool,
    /// What the first record has to name.
    previous: Option<(Chain, Head)>,
}

/// Sets a lane free when its worker ends, however it ends.
struct Worker {
    lane: Arc<Lane>,
    ended: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.ended {
            let mut queue = lock(&self.lane.queue);
            queue.working = false;
            // Their callers are told that the outcome is unknown.
            queue.records.clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    fn of(&self, owner: &Owner) -> Arc<Lane> {
        let mut lanes = lock(&self.0);
        if let Some(lane) = lanes.get(owner) {
            return Arc::clone(lane);
        }
        if lanes.len() >= MAX_LANES {
            // Nobody else holds a lane that is at rest, and none can be taken while the map is locked.
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(owner.clone()).or_default())
    }
}

impl Inner {
    /// Appends a record to this writer's chain of the day. Durable when it returns.
    pub(super) async fn append(self: &Arc<Self>, owner: &Owner, record: SealedRecord) -> Result<LinkedRecord> {
        let plain = record
            .plain()
            .map_err(|_| Error::corrupt("the body of an audit record"))?;
        if plain.owner != *owner {
            return Err(Error::Malformed {
                what: plain.id.to_string(),
                expected: "record of this owner",
            });
        }
        // Checked alone, so that one that can't be stored spoils nobody else's transaction.
        let chain = self.chain(owner, &plain.at.day());
        let (_, alone) = crate::audit::link(&chain, &Head::EMPTY, record.clone());
        check_operations(
            &key::audit_chain(&plain.at.day(), &self.writer),
            &[row::chain_operation(&alone)],
        )?;

        let (done, result) = oneshot::channel();
        let lane = self.lanes.of(owner);
        let start = {
            let mut queue = lock(&lane.queue);
            if queue.records.len() >= MAX_WAITING {
                return Err(Error::Throttled {
                    source: "too many audit records are waiting".into(),
                });
            }
            queue.records.push_back(Pending {
                id: plain.id,
                record,
                done,
            });
            !std::mem::replace(&mut queue.working, true)
        };
        if start {
            tokio::spawn(Arc::clone(self).work(owner.clone(), Worker { lane, ended: false }));
        }
        result.await.unwrap_or_else(|_| {
            Err(Error::Unavailable {
                what: "writing an audit record".into(),
                source: "the writer was stopped".into(),
            })
        })
    }

    async fn work(self: Arc<Self>, owner: Owner, mut worker: Worker) {
        let lane = Arc::clone(&worker.lane);
        let mut state = lane.state.lock().await;
        loop {
            let group: Vec<Pending> = {
                let mut queue = lock(&lane.queue);
                if queue.records.is_empty() {
                    queue.working = false;
                    worker.ended = true;
                    return;
                }
                let count = queue.records.len().min(MAX_GROUP);
                queue.records.drain(..count).collect()
            };
            self.commit_group(&owner, &mut state, group).await;
        }
    }

    async fn commit_group(&self, owner: &Owner, state: &mut State, mut group: Vec<Pending>) {
        for _ in 0..ATTEMPTS {
            if let Err(error) = self.prepare(owner, state).await {
                return refuse(group, error);
            }
            group = answer_settled(state, group);
            if group.is_empty() {
                return;
            }
            let Some(open) = &mut state.open else { return };
            let chain = self.chain(owner, &open.day);
            // The same record twice in a group is one record with two callers.
            let mut records: Vec<SealedRecord> = self.opening(owner, open).into_iter().collect();
            let extra = records.len();
            let mut places: HashMap<&RecordId, usize> = HashMap::new();
            for pending in &group {
                places.entry(&pending.id).or_insert_with(|| {
                    records.push(pending.record.clone());
                    records.len() - 1
                });
            }
            debug_assert!(records.len() <= MAX_GROUP + extra);
            let places: Vec<usize> = group.iter().map(|pending| places[&pending.id]).collect();
            let (head, linked) = link_all(&chain, &open.head, records);
            let mut operations: Vec<Operation> = linked.iter().map(row::chain_operation).collect();
            operations.push(head_operation(&head, open.etag.as_ref()));
            let partition = key::audit_chain(&open.day, &self.writer);
            match self.ports.tables.commit(&table(owner), &partition, operations).await {
                Ok(etags) => {
                    open.head = head;
                    open.etag = etags.last().cloned();
                    open.certain = open.etag.is_some();
                    open.lost = false;
                    open.previous = None;
                    for (pending, place) in group.into_iter().zip(places) {
                        let _ = pending.done.send(Ok(linked[place].clone()));
                    }
                    return;
                }
                Err(error) => {
                    open.certain = false;
                    if error.is_conflict() {
                        continue;
                    }
                    let unknown = matches!(error, Error::Unavailable { .. });
                    open.lost |= unknown;
                    // It may have been written: look once before the callers are told.
                    if unknown && self.read_again(owner, state).await.is_ok() {
                        group = answer_settled(state, group);
                    }
                    return refuse(group, error);
                }
            }
        }
        refuse(group, contended("an audit chain"));
    }

    /// Makes sure that the open chain is that of the day and that its head is the stored one.
    async fn prepare(&self, owner: &Owner, state: &mut State) -> Result<()> {
        let today = self.clock.now().day();
        for _ in 0..ATTEMPTS {
            let (over, certain) = match &state.open {
                None => return self.open_day(owner, state, today).await,
                Some(open) => (open.day < today, open.certain),
            };
            if !certain {
                self.read_again(owner, state).await?;
            }
            match &state.open {
                Some(_) if !over => return Ok(()),
                Some(open) if open.lost => {}
                _ => return self.open_day(owner, state, today).await,
            }
            // Nothing will be written to this chain any more that a lost transaction would collide with, so the head gets a
            // new version: what arrives from now on fails.
            let Some(open) = &mut state.open else { continue };
            open.certain = false;
            let operation = head_operation(&open.head, open.etag.as_ref());
            let partition = key::audit_chain(&open.day, &self.writer);
            match self
                .ports
                .tables
                .commit(&table(owner), &partition, vec![operation])
                .await
            {
                Ok(_) => return self.open_day(owner, state, today).await,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended("an audit chain"))
    }

    async fn open_day(&self, owner: &Owner, state: &mut State, day: String) -> Result<()> {
        let table = table(owner);
        let registered = Operation::Insert(
            key::audit_writer_row(&day, &self.writer),
            row::writer_properties(self.clock.now()),
        );
        match self
            .ports
            .tables
            .commit(&table, &key::audit_seal(), vec![registered])
            .await
        {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        let (head, etag) = self.stored_head(owner, &self.chain(owner, &day)).await?;
        let previous = state
            .open
            .take()
            .map(|open| match open.previous {
                // A day without a record: what it would have named is named now.
                Some(previous) if open.head == Head::EMPTY => previous,
                _ => (self.chain(owner, &open.day), open.head),
            })
            .filter(|(_, last)| head == Head::EMPTY && *last != Head::EMPTY);
        state.open = Some(Open {
            day,
            head,
            etag,
            certain: true,
            lost: false,
            previous,
        });
        Ok(())
    }

    /// Reads the head of the open chain, and the records that have come to it since it was last known.
    async fn read_again(&self, owner: &Owner, state: &mut State) -> Result<()> {
        let Some(open) = &mut state.open else { return Ok(()) };
        let chain = self.chain(owner, &open.day);
        let (head, etag) = self.stored_head(owner, &chain).await?;
        if head.sequence > open.head.sequence {
            let mut query = Query::partition(key::audit_chain(&open.day, &self.writer));
            query.from = Some(key::audit_row(open.head.sequence + 1));
            query.until = Some(key::audit_row(head.sequence + 1));
            loop {
                let page = self.ports.tables.query(&table(owner), query.clone()).await?;
                for entity in &page.entities {
                    let record = row::from_properties(&chain, &entity.properties)?;
                    if let Ok(plain) = record.sealed.plain() {
                        state.settled.push_back((plain.id, record));
                    }
                }
                match page.next {
                    Some(next) => query.continuation = Some(next),
                    None => break,
                }
            }
            let over = state.settled.len().saturating_sub(MAX_SETTLED);
            state.settled.drain(..over);
            // Whatever else was lost was made for the version before.
            open.lost = false;
            open.previous = None;
        } else if head != open.head {
            tracing::error!(%chain, known = open.head.sequence, stored = head.sequence, "audit chain lost records");
        }
        open.head = head;
        open.etag = etag;
        open.certain = true;
        Ok(())
    }

    /// The record that says which chain went before, for a chain's first transaction.
    fn opening(&self, owner: &Owner, open: &Open) -> Option<SealedRecord> {
        let (chain, head) = open.previous.as_ref()?;
        let principal = Principal::System { part: "audit" };
        let record = Record::by(
            self.record_id(),
            self.clock.now(),
            Event::ChainOpened,
            &principal,
            Tier::Host,
        )
        .detail(&serde_json::json!({ "previous": { "chain": chain, "head": head } }));
        Some(seal::seal(owner, record, None, None))
    }

    fn chain(&self, owner: &Owner, day: &str) -> Chain {
        Chain::Day {
            owner: owner.clone(),
            day: day.to_owned(),
            writer: self.writer.clone(),
        }
    }
}

pub(super) fn head_operation(head: &Head, etag: Option<&ETag>) -> Operation {
    let (row, properties) = (key::audit_head_row(), row::head_properties(head));
    match etag {
        Some(etag) => Operation::Replace(row, properties, Match::Exactly(etag.clone())),
        None => Operation::Insert(row, properties),
    }
}

fn answer_settled(state: &State, group: Vec<Pending>) -> Vec<Pending> {
    if state.settled.is_empty() {
        return group;
    }
    let mut open = Vec::new();
    for pending in group {
        match state.settled.iter().find(|(id, _)| *id == pending.id) {
            Some((_, linked)) => {
                let _ = pending.done.send(Ok(linked.clone()));
            }
            None => open.push(pending),
        }
    }
    open
}

/// Tells every caller of a group the same error.
fn refuse(group: Vec<Pending>, error: Error) {
    let shared = Arc::new(error);
    for pending in group {
        let _ = pending.done.send(Err(again(&shared)));
    }
}

/// The same error once more, with the first as its source.
fn again(error: &Arc<Error>) -> Error {
    let source = || Box::new(Arc::clone(error));
    match &**error {
        Error::NotFound { what } => Error::NotFound { what: what.clone() },
        Error::AlreadyExists { what, index } => Error::AlreadyExists {
            what: what.clone(),
            index: *index,
        },
        Error::PreconditionFailed { what, index } => Error::PreconditionFailed {
            what: what.clone(),
            index: *index,
        },
        Error::TooLarge {
            what,
            size,
            limit,
            unit,
        } => Error::TooLarge {
            what: what.clone(),
            size: *size,
            limit: *limit,
            unit,
        },
        Error::Malformed { what, expected } => Error::Malformed {
            what: what.clone(),
            expected,
        },
        Error::Throttled { .. } => Error::Throttled { source: source() },
        Error::Unavailable { what, .. } => Error::Unavailable {
            what: what.clone(),
            source: source(),
        },
        Error::Forbidden { what, .. } => Error::Forbidden {
            what: what.clone(),
            source: source(),
        },
        Error::Corrupt { what } => Error::Corrupt { what: what.clone() },
        Error::Unreadable { run, what } => Error::Unreadable {
            run: run.clone(),
            what: what.clone(),
        },
    }
}
