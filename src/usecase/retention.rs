//! Deletes runs that have ended longer ago than they are kept, some at each tick, and records which.

use std::time::Duration;

use serde_json::json;

use super::{Context, Result};
use crate::audit::Event as AuditEvent;
use crate::domain::Timestamp;
use crate::store;
use crate::store::repo::retention::{Old, Place};
use crate::tenancy::Scope;

/// Runs that are deleted with one audit record.
const BATCH: usize = 20;
/// How long a run that was to be resumed is kept for the one that resumes it, which may not be there yet.
const COMING: Duration = Duration::from_secs(60 * 60);
/// Pages of the list that one tick looks at for one organization, among the newest of those whose time may be over, and again as
/// many where an earlier one has ended.
const PAGES: usize = 10;

/// Deletes an organization's runs that ended more than `keep` ago; how many. A run that is interrupted half-way is gone on with
/// by the next tick, which records it again.
///
/// Runs that stay though they are old, because they have not ended or because others resume them, may be many. So what stands
/// behind more than [`PAGES`] is looked at by one tick after the other, to the end of the list and then from there again.
///
/// # Errors
/// When storage fails.
pub(super) async fn apply(cx: &Context, scope: &Scope, keep: Duration) -> Result<usize> {
    let before = cx.clock.now().minus(keep);
    let (mut deleted, ended) = look(cx, scope, before, None).await?;
    if let Some(ended) = ended {
        let earlier = cx.retention.place(scope).await?;
        let from = earlier.filter(|earlier| *earlier > ended).unwrap_or(ended);
        let (more, ended) = look(cx, scope, before, Some(&from)).await?;
        deleted += more;
        cx.retention.set_place(scope, ended.as_ref()).await?;
    }
    Ok(deleted)
}

/// Deletes what may go on [`PAGES`] of the list; how many, and where it ended, unless that is the end of the list.
async fn look(cx: &Context, scope: &Scope, before: Timestamp, from: Option<&Place>) -> Result<(usize, Option<Place>)> {
    let (mut deleted, mut after, mut ended) = (0, None, from.cloned());
    for _ in 0..PAGES {
        let (listed, next) = cx.retention.listed_before(scope, before, from, BATCH, after).await?;
        if let Some(last) = listed.last() {
            ended = Some(last.place());
        }
        let mut batch = Vec::new();
        for old in listed {
            batch.extend(expired(cx, scope, old, before).await?);
        }
        if !batch.is_empty() {
            record(cx, scope, &batch, before).await?;
            for old in &batch {
                deleted += usize::from(cx.retention.delete(scope, old).await?);
            }
        }
        after = next;
        if after.is_none() {
            return Ok((deleted, None));
        }
    }
    Ok((deleted, ended))
}

/// A run that may go: it has ended before that time, and no other takes over values of it; or an earlier tick has deleted a part
/// of it.
async fn expired(cx: &Context, scope: &Scope, old: Old, before: Timestamp) -> Result<Option<Old>> {
    let run = match cx.runs.get(scope, &old.run).await {
        // It may not have ended; somebody has to look at it first.
        Err(store::Error::Unreadable { .. }) => return Ok(None),
        run => run?,
    };
    Ok(match run {
        None => Some(old),
        Some(run) if run.state.finished_at.is_some_and(|at| at < before) => {
            let old = old.with(&run);
            (!is_needed(cx, scope, &old).await?).then_some(old)
        }
        Some(_) => None,
    })
}

/// Whether a run that resumes this one is there, or may come: it finds there what it takes over.
async fn is_needed(cx: &Context, scope: &Scope, old: &Old) -> Result<bool> {
    for (by, at) in cx.retention.kept_for(scope, &old.run).await? {
        let is_there = match cx.runs.get(scope, &by).await {
            Err(store::Error::Unreadable { .. }) => true,
            run => run?.is_some(),
        };
        if is_there || at.is_none_or(|at| at.plus(COMING) > cx.clock.now()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Before anything is deleted. The heads of the runs' audit chains are in it, for those who hold a copy of the chains.
async fn record(cx: &Context, scope: &Scope, batch: &[Old], before: Timestamp) -> Result<()> {
    let runs: Vec<_> = batch
        .iter()
        .map(|old| {
            let head = old.chain.as_ref();
            let hash = head.map(|head| head.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            json!({"run": old.run, "records": head.map(|head| head.sequence), "hash": hash})
        })
        .collect();
    let record = cx
        .audit
        .by(scope, AuditEvent::RunDeleted)
        .resource("run", "*")
        .detail(&json!({"endedBefore": before, "count": runs.len(), "runs": runs}));
    let linked = cx.audit.append(scope, record).await?;
    cx.audit.index(scope, &[linked]).await?;
    Ok(())
}
