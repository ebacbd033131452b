//! Runs that want a driver, who holds which concurrency key, and what instances have taken of an organization's limit.
//!
//! A row of the backlog is a hint: the run's header says whether it may begin, and its version decides who takes it. So a row
//! too many is found to be none and removed; a row too few is put back by the run's own message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::damage::{known, noted};
use super::runs::{Runs, StoredRun};
use crate::audit::LinkedRecord;
use crate::domain::{ConcurrencyKey, RunId, Status, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{
    ETag, Entity, Filter, Key, Match, MessageReceipt, Operation, Ports, Properties, Query, Result,
};
use crate::tenancy::Scope;

const SCHEMA: i64 = 1;
/// The rank of what has begun before, and of what a step has started: those who wait for it hold a place already.
pub const FIRST: u8 = 0;
/// The last rank that a run can ask for.
const LAST: u8 = 20;

/// The message that brings somebody to a run, should whoever looks after it die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// For deleting it.
    pub receipt: MessageReceipt,
    /// When it is delivered.
    pub at: Timestamp,
}

/// A run in the backlog.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The run.
    pub run: RunId,
    /// Its rank, 0 first.
    pub rank: u8,
    /// Whether it needs no place of the organization's limit.
    pub exempt: bool,
    /// Its message, where it is known.
    pub guard: Option<Guard>,
    row: Key,
    etag: Option<ETag>,
}

/// Who holds a concurrency key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Holders {
    /// The runs, the one that has held it longest first.
    pub runs: Vec<RunId>,
    /// Whether the row that says so can't be read: who holds the key is not known.
    pub is_lost: bool,
    changes: i64,
    etag: Option<ETag>,
}

/// A run that has not ended, as far as the list of runs knows, and asks for a concurrency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// The run.
    pub run: RunId,
    /// Whether it was set aside, and nobody has gone on with it since: it has given the key back.
    pub is_aside: bool,
}

/// What instances have taken of the organization's limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seats {
    /// By instance.
    pub taken: BTreeMap<String, Taken>,
    etag: Option<ETag>,
}

/// What one instance has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// How many runs it may have at once.
    pub seats: u32,
    /// Until when, unless it renews.
    pub until: Timestamp,
}

impl Seats {
    /// How many others have at a time.
    #[must_use]
    pub fn of_others(&self, instance: &str, now: Timestamp) -> u32 {
        let others = self
            .taken
            .iter()
            .filter(|(other, taken)| *other != instance && taken.until > now);
        others.map(|(_, taken)| taken.seats).sum()
    }
}

/// The backlogs of organizations.
#[derive(Debug, Clone)]
pub struct Backlog {
    ports: Ports,
}

impl Backlog {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Lists a new run and puts it into the backlog, in one transaction. Repeating it does no harm.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn enter(
        &self,
        scope: &Scope,
        run: &StoredRun,
        audit: &[LinkedRecord],
        guard: Option<&Guard>,
    ) -> Result<()> {
        let mut operations = Runs::list_operations(run, audit)?;
        operations.push(entry(run, guard));
        match self.commit(scope, operations).await {
            // Somebody has listed it before.
            Err(error) if error.is_conflict() => self.put(scope, run, guard).await,
            result => result,
        }
    }

    /// Puts a run that is listed into the backlog.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn put(&self, scope: &Scope, run: &StoredRun, guard: Option<&Guard>) -> Result<()> {
        self.commit(scope, vec![entry(run, guard)]).await
    }

    /// Whether a run is in the backlog, in a place where it belongs now.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn has(&self, scope: &Scope, run: &StoredRun) -> Result<bool> {
        for row in places(run) {
            if self.get(scope, &row).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts a run that somebody has waited for, and nobody does any more, where it would stand in the backlog if nobody ever had;
    /// whether it was still there. Where it waits for its concurrency key it stays: those with one key go in the order in which
    /// they were asked for.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn step_back(&self, scope: &Scope, run: &StoredRun) -> Result<bool> {
        let ask = &run.new.ask;
        if !ask.waited_for {
            return Ok(false);
        }
        let (asked, id, rank) = (run.new.created_at, &run.new.run, ask.rank_unless_waited_for());
        let Some(mut row) = self.get(scope, &key::backlog_row(ask.rank(), asked, id)).await? else {
            return Ok(false);
        };
        row.properties.set("rank", i64::from(rank));
        let operations = vec![
            Operation::Delete(row.row, Match::Exactly(row.etag)),
            Operation::Upsert(key::backlog_row(rank, asked, id), row.properties),
        ];
        match self.commit(scope, operations).await {
            Ok(()) => Ok(true),
            // Somebody has just taken it, or ended it.
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The first runs of the backlog, at most `limit` (1 to 1,000), and whether there are more.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn first(&self, scope: &Scope, limit: usize) -> Result<(Vec<Waiting>, bool)> {
        match self.first_of(scope, key::BACKLOG, limit).await {
            // A message about an organization that has been deleted since.
            Err(Error::NotFound { .. }) => Ok((Vec::new(), false)),
            read => read,
        }
    }

    /// The first runs among rows with a prefix, at most `limit`, and whether there are more. Rows that name no run don't count, or
    /// they would stand before the others for ever.
    async fn first_of(&self, scope: &Scope, prefix: &str, limit: usize) -> Result<(Vec<Waiting>, bool)> {
        let (mut waiting, mut next) = (Vec::new(), None);
        loop {
            let query = Query::partition(key::index()).prefix(prefix)?;
            let query = query.limit(limit - waiting.len()).after(next);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            waiting.extend(page.entities.iter().filter_map(of_row));
            next = page.next;
            if next.is_none() || waiting.len() >= limit {
                return Ok((waiting, next.is_some()));
            }
        }
    }

    /// How many runs stand before one, at most `limit` (1 to 1,000).
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn before(&self, scope: &Scope, run: &StoredRun, limit: usize) -> Result<usize> {
        let mut query = Query::partition(key::index()).prefix(key::BACKLOG)?.limit(limit);
        query.until = Some(self.place_of(scope, run).await?);
        query.select = vec!["v".to_owned()];
        Ok(self
            .ports
            .tables
            .query(&key::org_table(scope.org()), query)
            .await?
            .entities
            .len())
    }

    /// Where a run stands in the backlog, or would.
    async fn place_of(&self, scope: &Scope, run: &StoredRun) -> Result<Key> {
        let mut places = places(run);
        while places.len() > 1 {
            if let Some(last) = places.pop()
                && self.get(scope, &last).await?.is_some()
            {
                return Ok(last);
            }
        }
        Ok(row_of(run))
    }

    /// Lists a run as it is now and takes it out of the backlog, in one transaction.
    ///
    /// # Errors
    /// Those of the table store; [`Error::PreconditionFailed`] when it isn't there.
    pub async fn leave(&self, scope: &Scope, run: &StoredRun, audit: &[LinkedRecord], waiting: &Waiting) -> Result<()> {
        let mut operations = Runs::relist_operations(run, audit)?;
        operations.push(Operation::Delete(waiting.row.clone(), Match::Any));
        self.commit(scope, operations).await
    }

    /// Takes a row out as it was read; whether it was there.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn remove(&self, scope: &Scope, waiting: &Waiting) -> Result<bool> {
        let as_read = waiting.etag.clone().map_or(Match::Any, Match::Exactly);
        self.delete(scope, &waiting.row, as_read).await
    }

    /// Takes a run out of wherever it waits: the backlog, the line for its concurrency key.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn withdraw(&self, scope: &Scope, run: &StoredRun) -> Result<()> {
        let (asked, id) = (run.new.created_at, &run.new.run);
        let mut rows = vec![row_of(run)];
        if !is_exempt(run) {
            // Where it stood when it was new, too: taken, and not taken out yet.
            rows.extend(ranks(run).map(|rank| key::backlog_row(rank, asked, id)));
            rows.dedup();
        }
        let concurrency = run.new.ask.concurrency.iter();
        rows.extend(concurrency.map(|one| key::parked_row(&one.key, run.new.ask.rank(), asked, id)));
        for row in rows {
            self.delete(scope, &row, Match::Any).await?;
        }
        Ok(())
    }

    /// As [`Backlog::withdraw`], of a run of which not everything is known: out of every place where it could stand; with every
    /// rank where its own is not known.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn withdraw_everywhere(&self, scope: &Scope, run: &StoredRun, has_rank: bool) -> Result<()> {
        let (asked, id) = (run.new.created_at, &run.new.run);
        let all = if has_rank {
            [FIRST].into_iter().chain(ranks(run)).collect()
        } else {
            (FIRST..=LAST).collect::<Vec<_>>()
        };
        for rank in all {
            self.delete(scope, &key::backlog_row(rank, asked, id), Match::Any)
                .await?;
        }
        if let Some(concurrency) = &run.new.ask.concurrency {
            let row = key::parked_row(&concurrency.key, run.new.ask.rank(), asked, id);
            self.delete(scope, &row, Match::Any).await?;
        }
        Ok(())
    }

    /// Who holds a concurrency key.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn holders(&self, scope: &Scope, key: &str) -> Result<Holders> {
        let Some(row) = self.get(scope, &key::concurrency_row(key)).await? else {
            return Ok(Holders::default());
        };
        let mut why = Vec::new();
        let runs = row.properties.require_text("runs").and_then(|text| {
            serde_json::from_str(text).map_err(|_| Error::corrupt("the holders of a key can't be read"))
        });
        let runs: Option<Vec<RunId>> = known(runs, &mut why);
        // A number that changes with every write: it may begin anew.
        let changes = known(row.properties.require_int("changes"), &mut why);
        noted(&row, &why);
        Ok(Holders {
            is_lost: runs.is_none(),
            runs: runs.unwrap_or_default(),
            changes: changes.unwrap_or_default(),
            etag: Some(row.etag),
        })
    }

    /// Runs that ask for a concurrency key and have not ended, as far as the list of runs knows, those first that were asked for
    /// first. Reads all of the list, on the service's side, a page after the other.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn carriers(&self, scope: &Scope, key: &str) -> Result<Vec<Carrier>> {
        let open = Status::ALL.iter().filter(|status| !status.is_terminal());
        let open = open.map(|status| Filter::equal("status", status.as_str()));
        let asks = Filter::equal("concurrency", key::concurrency(key));
        let filter = open.reduce(Filter::or).map_or(asks.clone(), |open| asks.and(open));
        let (mut carriers, mut next) = (Vec::new(), None);
        loop {
            let query = Query::partition(key::index()).prefix(key::INDEX_RUNS)?.after(next);
            let query = query.filter(filter.clone());
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            carriers.extend(page.entities.iter().filter_map(|row| {
                Some(Carrier {
                    run: row.row.as_str().rsplit(':').next()?.parse().ok()?,
                    is_aside: row.properties.get("setAside").is_some(),
                })
            }));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        carriers.reverse();
        Ok(carriers)
    }

    /// Says anew who holds a concurrency key, where that could not be read.
    ///
    /// # Errors
    /// As [`Backlog::grant`].
    pub async fn hold_anew(&self, scope: &Scope, key: &str, lost: &Holders, runs: &[RunId]) -> Result<()> {
        self.commit(scope, vec![held(key, lost, runs)?]).await
    }

    /// Gives a run the key that it asks for: it stands in the backlog then.
    ///
    /// # Errors
    /// Those of the table store; a conflict ([`Error::is_conflict`]) when the holders have changed since they were read.
    pub async fn grant(
        &self,
        scope: &Scope,
        run: &StoredRun,
        concurrency: &ConcurrencyKey,
        holders: &Holders,
        guard: Option<&Guard>,
    ) -> Result<()> {
        let mut runs = holders.runs.clone();
        if !runs.contains(&run.new.run) {
            runs.push(run.new.run.clone());
        }
        let operations = vec![hold(&concurrency.key, holders, &runs)?, entry(run, guard)];
        self.commit(scope, operations).await
    }

    /// Lets a run wait for the key that it asks for.
    ///
    /// # Errors
    /// As [`Backlog::grant`].
    pub async fn park(
        &self,
        scope: &Scope,
        run: &StoredRun,
        concurrency: &ConcurrencyKey,
        holders: &Holders,
    ) -> Result<()> {
        let row = key::parked_row(&concurrency.key, run.new.ask.rank(), run.new.created_at, &run.new.run);
        // The holders' row changes too, so that who gives the key back meanwhile meets this run.
        let operations = vec![
            hold(&concurrency.key, holders, &holders.runs)?,
            Operation::Upsert(row, parked(run)),
        ];
        self.commit(scope, operations).await
    }

    /// The first runs that wait for a key, at most `limit` (1 to 1,000).
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn first_parked(&self, scope: &Scope, key: &str, limit: usize) -> Result<Vec<Waiting>> {
        Ok(self.first_of(scope, &key::parked(key), limit).await?.0)
    }

    /// Sets who holds a key, and puts those who have waited for it and hold it now into the backlog.
    ///
    /// # Errors
    /// As [`Backlog::grant`].
    pub async fn pass_on(
        &self,
        scope: &Scope,
        concurrency: &ConcurrencyKey,
        holders: &Holders,
        staying: &[RunId],
        next: &[Waiting],
    ) -> Result<()> {
        let mut runs = staying.to_vec();
        runs.extend(next.iter().map(|waiting| waiting.run.clone()));
        let mut operations = vec![held(&concurrency.key, holders, &runs)?];
        for waiting in next {
            let Some(tail) = waiting.row.as_str().strip_prefix(&key::parked(&concurrency.key)) else {
                return Err(Error::corrupt("a run waits for another key"));
            };
            operations.push(Operation::Delete(waiting.row.clone(), Match::Any));
            let properties = properties(&waiting.run, waiting.rank, waiting.exempt);
            operations.push(Operation::Upsert(
                Key::new(format!("{}{tail}", key::BACKLOG))?,
                properties,
            ));
        }
        self.commit(scope, operations).await
    }

    /// What instances have taken of the organization's limit; nothing where that can't be read, until they renew it.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn seats(&self, scope: &Scope) -> Result<Seats> {
        let table = key::org_table(scope.org());
        let Some(row) = self.ports.tables.get(&table, &key::seats(), &key::only_row()).await? else {
            return Ok(Seats::default());
        };
        let mut why = Vec::new();
        let taken = row
            .properties
            .require_text("taken")
            .and_then(|text| serde_json::from_str(text).map_err(|_| Error::corrupt("the seats can't be read")));
        // Whoever has taken some says so again before they run out.
        let taken = known(taken, &mut why).unwrap_or_default();
        noted(&row, &why);
        Ok(Seats {
            taken,
            etag: Some(row.etag),
        })
    }

    /// Writes what one instance has taken, or with nothing that it has given all back, and forgets what has run out.
    ///
    /// # Errors
    /// Those of the table store; a conflict ([`Error::is_conflict`]) when another instance was first.
    pub async fn set_seats(
        &self,
        scope: &Scope,
        mut seats: Seats,
        instance: &str,
        taken: Option<Taken>,
        now: Timestamp,
    ) -> Result<()> {
        seats
            .taken
            .retain(|other, taken| other != instance && taken.until > now);
        seats.taken.extend(taken.map(|taken| (instance.to_owned(), taken)));
        let properties = Properties::new()
            .with("v", SCHEMA)
            .with("taken", json!(seats.taken).to_string());
        let operation = match seats.etag {
            None => Operation::Insert(key::only_row(), properties),
            Some(etag) => Operation::Replace(key::only_row(), properties, Match::Exactly(etag)),
        };
        let table = key::org_table(scope.org());
        self.ports.tables.commit(&table, &key::seats(), vec![operation]).await?;
        Ok(())
    }

    async fn get(&self, scope: &Scope, row: &Key) -> Result<Option<Entity>> {
        self.ports
            .tables
            .get(&key::org_table(scope.org()), &key::index(), row)
            .await
    }

    async fn delete(&self, scope: &Scope, row: &Key, as_read: Match) -> Result<bool> {
        match self.commit(scope, vec![Operation::Delete(row.clone(), as_read)]).await {
            Ok(()) => Ok(true),
            Err(Error::PreconditionFailed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn commit(&self, scope: &Scope, operations: Vec<Operation>) -> Result<()> {
        self.ports
            .tables
            .commit(&key::org_table(scope.org()), &key::index(), operations)
            .await?;
        Ok(())
    }
}

/// Whether a run needs no place of its own: whoever waits for it has one.
#[must_use]
pub const fn is_exempt(run: &StoredRun) -> bool {
    run.new.parent.is_some()
}

/// A run's rank, as it is now.
#[must_use]
pub const fn rank(run: &StoredRun) -> u8 {
    if run.state.epoch > 0 || is_exempt(run) {
        FIRST
    } else {
        run.new.ask.rank()
    }
}

/// The place of a run that is about to leave the backlog, whether or not it is there.
#[must_use]
pub fn waiting(run: &StoredRun) -> Waiting {
    Waiting {
        run: run.new.run.clone(),
        rank: rank(run),
        exempt: is_exempt(run),
        guard: None,
        row: row_of(run),
        etag: None,
    }
}

fn row_of(run: &StoredRun) -> Key {
    key::backlog_row(rank(run), run.new.created_at, &run.new.run)
}

/// Where a run may stand in the backlog as it is now: in its place, and where [`Backlog::step_back`] puts it.
fn places(run: &StoredRun) -> Vec<Key> {
    if rank(run) == FIRST {
        return vec![row_of(run)];
    }
    let (asked, id) = (run.new.created_at, &run.new.run);
    ranks(run).map(|rank| key::backlog_row(rank, asked, id)).collect()
}

/// The ranks that a run may have before it begins: its own, and that of one that nobody waits for.
fn ranks(run: &StoredRun) -> impl Iterator<Item = u8> + use<> {
    let ask = &run.new.ask;
    let behind = ask.waited_for.then(|| ask.rank_unless_waited_for());
    [ask.rank()].into_iter().chain(behind)
}

fn properties(run: &RunId, rank: u8, exempt: bool) -> Properties {
    Properties::new()
        .with("v", SCHEMA)
        .with("run", run.as_str())
        .with("rank", i64::from(rank))
        .with("exempt", exempt)
}

fn parked(run: &StoredRun) -> Properties {
    properties(&run.new.run, run.new.ask.rank(), is_exempt(run))
}

fn entry(run: &StoredRun, guard: Option<&Guard>) -> Operation {
    let mut row = properties(&run.new.run, rank(run), is_exempt(run));
    if let Some(guard) = guard {
        row.set("guardId", guard.receipt.id.clone());
        row.set("guardReceipt", guard.receipt.pop_receipt.clone());
        row.set("guardAt", guard.at);
    }
    Operation::Upsert(row_of(run), row)
}

/// As [`hold`]; a key that nobody holds has no row.
fn held(key: &str, holders: &Holders, runs: &[RunId]) -> Result<Operation> {
    match &holders.etag {
        Some(etag) if runs.is_empty() => Ok(Operation::Delete(
            key::concurrency_row(key),
            Match::Exactly(etag.clone()),
        )),
        _ => hold(key, holders, runs),
    }
}

fn hold(key: &str, holders: &Holders, runs: &[RunId]) -> Result<Operation> {
    let row = key::concurrency_row(key);
    let text = serde_json::to_string(runs).map_err(|error| Error::corrupt(error.to_string()))?;
    let properties = Properties::new()
        .with("v", SCHEMA)
        .with("key", key)
        .with("runs", text)
        .with("changes", holders.changes + 1);
    Ok(match &holders.etag {
        None => Operation::Insert(row, properties),
        Some(etag) => Operation::Replace(row, properties, Match::Exactly(etag.clone())),
    })
}

/// What a row says. Of one that can't be read its name says enough to go on: which run, and where it stands. One whose name says
/// nothing either is passed over, or nobody behind it would ever begin.
fn of_row(row: &Entity) -> Option<Waiting> {
    let error = match read(row) {
        Ok(waiting) => return Some(waiting),
        Err(error) => error,
    };
    tracing::warn!(row = %row.row, error = %error, "a row of the backlog can't be read");
    let mut parts = row.row.as_str().rsplit(':');
    let run = parts.next()?.parse().ok()?;
    let rank = parts.nth(1)?.parse().ok()?;
    Some(Waiting {
        run,
        rank,
        exempt: rank == FIRST,
        guard: None,
        row: row.row.clone(),
        etag: Some(row.etag.clone()),
    })
}

fn read(row: &Entity) -> Result<Waiting> {
    let properties = &row.properties;
    let guard = match (
        properties.text("guardId")?,
        properties.text("guardReceipt")?,
        properties.time("guardAt")?,
    ) {
        (Some(id), Some(receipt), Some(at)) => Some(Guard {
            receipt: MessageReceipt {
                id: id.to_owned(),
                pop_receipt: receipt.to_owned(),
            },
            at,
        }),
        _ => None,
    };
    Ok(Waiting {
        run: properties
            .require_text("run")?
            .parse()
            .map_err(|_| Error::corrupt("a row of the backlog names no run"))?,
        rank: u8::try_from(properties.require_int("rank")?).map_err(|_| Error::corrupt("a rank is none"))?,
        exempt: properties.flag("exempt")?,
        guard,
        row: row.row.clone(),
        etag: Some(row.etag.clone()),
    })
}
