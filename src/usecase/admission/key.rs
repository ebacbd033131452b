//! Concurrency keys: at most so many runs of an organization with the same key are under way at once.
//!
//! Who holds a key is one row. A holder that has ended is taken out by whoever looks, so a key is never held for ever; a run
//! that waits is given the key by the one that ends, or takes it itself when its own message comes. A row that can't be read is
//! made again from the runs that ask for the key: no key is lost with its row, and none is held twice.

use std::sync::Arc;

use super::super::unreadable;
use super::{Context, Result, call};
use crate::domain::{ConcurrencyKey, OnConflict, RunId};
use crate::store;
use crate::store::port::MAX_PAGE;
use crate::store::repo::backlog::{Carrier, Guard, Holders};
use crate::store::repo::runs::StoredRun;
use crate::store::turns::{self, Turn};
use crate::tenancy::Scope;

/// How often a change is tried against others.
const TRIES: u32 = 16;
/// Runs that are given a key in one transaction.
const AT_ONCE: usize = 30;

/// What came of asking for a key.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is held, and the run stands in the backlog.
    Granted,
    /// It waits.
    Parked,
    /// It is not to wait, and these hold it, the longest first.
    Taken(Vec<RunId>),
}

/// Whether a run holds the key that it asks for.
pub(super) async fn holds(cx: &Context, scope: &Scope, run: &StoredRun, key: &ConcurrencyKey) -> Result<bool> {
    Ok(holders(cx, scope, key).await?.runs.contains(&run.new.run))
}

/// Who holds a key. Where that can't be read it is found out, and written again before anybody goes by it.
async fn holders(cx: &Context, scope: &Scope, key: &ConcurrencyKey) -> Result<Holders> {
    for lost in 0..TRIES {
        let holders = cx.backlog.holders(scope, &key.key).await?;
        if !holders.is_lost {
            return Ok(holders);
        }
        let found = found(cx, scope, key).await?;
        tracing::warn!(org.id = %scope.org(), holders = found.len(), "who holds a concurrency key is written again");
        match cx.backlog.hold_anew(scope, &key.key, &holders, &found).await {
            Err(error) if error.is_conflict() => turns::pause(lost).await,
            written => written?,
        }
    }
    Err(super::moved())
}

/// Who holds a key, by the runs that ask for it: those that have begun, and those that stand in the backlog, where nobody stands
/// without their key.
async fn found(cx: &Context, scope: &Scope, key: &ConcurrencyKey) -> Result<Vec<RunId>> {
    let mut holders = Vec::new();
    for Carrier { run: id, is_aside } in cx.backlog.carriers(scope, &key.key).await? {
        let holds = match cx.runs.get(scope, &id).await {
            Ok(Some(run)) if !run.state.status.is_terminal() => {
                let is_in_line = cx.backlog.has(scope, &run).await?;
                // It leaves the backlog after it has begun.
                is_in_line || (!is_aside && has_begun(cx, scope, &id).await?)
            }
            Ok(_) => false,
            Err(store::Error::Unreadable { .. }) if is_aside => false,
            // It may have begun. Where it waits for the key it has a row that says so.
            Err(store::Error::Unreadable { .. }) => {
                let waiting = cx.backlog.first_parked(scope, &key.key, MAX_PAGE).await?;
                !waiting.iter().any(|waiting| waiting.run == id)
            }
            Err(error) => return Err(error.into()),
        };
        if holds {
            holders.push(id);
        }
    }
    Ok(holders)
}

async fn has_begun(cx: &Context, scope: &Scope, id: &RunId) -> Result<bool> {
    match cx.runs.get(scope, id).await {
        Ok(run) => Ok(run.is_some_and(|run| run.state.epoch > 0 && !run.state.status.is_terminal())),
        Err(store::Error::Unreadable { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Those who hold a key and have not ended.
pub(in crate::usecase) async fn living(cx: &Context, scope: &Scope, key: &ConcurrencyKey) -> Result<Vec<RunId>> {
    let holders = holders(cx, scope, key).await?;
    of_living(cx, scope, holders.runs).await
}

async fn of_living(cx: &Context, scope: &Scope, runs: Vec<RunId>) -> Result<Vec<RunId>> {
    let mut living = Vec::with_capacity(runs.len());
    for id in runs {
        let lives = match cx.runs.get(scope, &id).await {
            Ok(run) => run.is_some_and(|run| !run.state.status.is_terminal()),
            // Until it is known that nobody goes on with it.
            Err(store::Error::Unreadable { .. }) => !unreadable::is_set_aside(cx, scope, &id).await?,
            Err(error) => return Err(error.into()),
        };
        if lives {
            living.push(id);
        }
    }
    Ok(living)
}

/// Callers with one key come at the same moment: here one of them at a time changes who holds it.
async fn turn(cx: &Context, scope: &Scope, key: &ConcurrencyKey) -> Turn {
    let name = format!("{}/{}", scope.org(), key.key);
    cx.admission.keys.take(name).await
}

/// Asks for a run's key. Repeating it does no harm.
pub(super) async fn ask(
    cx: &Context,
    scope: &Scope,
    run: &StoredRun,
    key: &ConcurrencyKey,
    guard: Option<&Guard>,
) -> Result<Asked> {
    let limit = usize::try_from(key.limit).unwrap_or(usize::MAX);
    let _turn = turn(cx, scope, key).await;
    for lost in 0..TRIES {
        let mut holders = holders(cx, scope, key).await?;
        if !holders.runs.contains(&run.new.run) && holders.runs.len() >= limit {
            holders.runs = of_living(cx, scope, std::mem::take(&mut holders.runs)).await?;
        }
        let is_free = holders.runs.contains(&run.new.run) || holders.runs.len() < limit;
        let asked = if is_free {
            cx.backlog
                .grant(scope, run, key, &holders, guard)
                .await
                .map(|()| Asked::Granted)
        } else if key.on_conflict == OnConflict::Queue {
            cx.backlog.park(scope, run, key, &holders).await.map(|()| Asked::Parked)
        } else {
            return Ok(Asked::Taken(holders.runs));
        };
        match asked {
            Err(error) if error.is_conflict() => turns::pause(lost).await,
            asked => return Ok(asked?),
        }
    }
    Err(super::moved())
}

/// Gives back the key of a run that has ended, to those who have waited longest. Repeating it does no harm.
pub(super) async fn release(cx: &Arc<Context>, scope: &Scope, run: &StoredRun) -> Result<()> {
    let Some(key) = &run.new.ask.concurrency else {
        return Ok(());
    };
    let limit = usize::try_from(key.limit).unwrap_or(usize::MAX);
    let _turn = turn(cx, scope, key).await;
    for lost in 0..TRIES {
        let holders = holders(cx, scope, key).await?;
        let staying: Vec<RunId> = holders
            .runs
            .iter()
            .filter(|other| **other != run.new.run)
            .cloned()
            .collect();
        let free = limit.saturating_sub(staying.len()).min(AT_ONCE);
        let mut next = Vec::new();
        if free > 0 {
            let parked = cx.backlog.first_parked(scope, &key.key, free).await?;
            next.extend(parked.into_iter().filter(|waiting| !staying.contains(&waiting.run)));
        }
        if next.is_empty() && staying.len() == holders.runs.len() {
            return Ok(());
        }
        match cx.backlog.pass_on(scope, key, &holders, &staying, &next).await {
            Ok(()) => {
                for waiting in &next {
                    call(cx, scope, &waiting.run, waiting.rank).await?;
                }
                return Ok(());
            }
            Err(error) if error.is_conflict() => turns::pause(lost).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(super::moved())
}
