//! Deletes blobs that nothing refers to any more, an organization at a time and some at each tick: what stays of runs that were deleted,
//! of values that were replaced, and of attempts that came to nothing. `store/repo/collector.rs` says why nothing is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::{Context, Result};
use crate::audit::Event as AuditEvent;
use crate::domain::{OrgId, Timestamp};
use crate::store;
use crate::store::key::{self, BlobKind};
use crate::store::port::{BlobInfo, ETag};
use crate::store::repo::collector::{Budget, Phase, Progress};
use crate::tenancy::Scope;

/// How long after the beginning of a pass the next one begins at the earliest, and how long after an organization was first looked at its
/// first one does: until then no instance of a version that doesn't know of passes should be left.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long an instance that is at an organization keeps others from it.
const LEASE: Duration = Duration::from_secs(120);
/// After which time a tick leaves an organization to the next one; well within the lease.
const TURN: Duration = Duration::from_secs(20);
/// Most calls of storage of one tick for one organization.
const CALLS: u32 = 300;
/// Most calls of storage of one tick.
const TICK_CALLS: u32 = 1_500;

/// What instances remember of organizations, and what was done here.
#[derive(Debug, Default)]
pub(super) struct Known {
    next: Mutex<HashMap<OrgId, Timestamp>>,
    resume: Mutex<Option<OrgId>>,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Known {
    /// Blobs that were deleted here since the process began, and their bytes.
    pub(super) fn freed(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.blobs), read(&self.bytes))
    }

    fn until(&self, org: &OrgId) -> Option<Timestamp> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.get(org).copied()
    }

    fn wait(&self, org: &OrgId, until: Timestamp) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.insert(org.clone(), until);
    }
}

/// What one tick does: some organizations, in the order of their ids, and the next tick those behind them.
#[derive(Debug)]
pub(super) struct Round {
    budget: Budget,
    from: Option<OrgId>,
    next: Option<OrgId>,
}

impl Round {
    /// Begins where the last one of this process ran out of calls.
    pub(super) fn begin(cx: &Context) -> Self {
        let mut resume = cx.collected.resume.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            budget: Budget::new(TICK_CALLS),
            from: resume.take(),
            next: None,
        }
    }

    /// Remembers where it ran out of calls.
    pub(super) fn end(self, cx: &Context) {
        *cx.collected.resume.lock().unwrap_or_else(PoisonError::into_inner) = self.next;
    }
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Freed {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
}

/// Does some of a pass over an organization, if one is under way or due.
///
/// # Errors
/// When storage fails; the next tick goes on where the last one ended.
pub(super) async fn apply(cx: &Context, scope: &Scope, grace: Duration, round: &mut Round) -> Result<Freed> {
    let (now, org) = (cx.clock.now(), scope.org());
    let had_its_turn = round.from.as_ref().is_some_and(|from| org < from);
    if had_its_turn || cx.collected.until(org).is_some_and(|until| now < until) {
        return Ok(Freed::default());
    }
    if round.budget.left() < CALLS {
        round.next.get_or_insert_with(|| org.clone());
        return Ok(Freed::default());
    }
    let mut share = round.budget.share(CALLS);
    let done = turn(cx, scope, grace, now, &mut share).await;
    round.budget.give_back(&share);
    match done {
        // Deleted with its table.
        Err(super::Error::Store(store::Error::NotFound { .. })) => Ok(Freed::default()),
        done => done,
    }
}

async fn turn(cx: &Context, scope: &Scope, grace: Duration, now: Timestamp, budget: &mut Budget) -> Result<Freed> {
    let Some((mut progress, etag)) = taken(cx, scope, now).await? else {
        return Ok(Freed::default());
    };
    let before = progress.counts;
    let begun = tokio::time::Instant::now();
    while budget.left() > 0 && progress.phase != Phase::Idle && begun.elapsed() < TURN {
        step(cx, scope, grace, &mut progress, budget).await?;
    }
    let freed = Freed {
        blobs: progress.counts.freed - before.freed,
        bytes: progress.counts.freed_bytes - before.freed_bytes,
    };
    cx.collected.blobs.fetch_add(freed.blobs, Ordering::Relaxed);
    cx.collected.bytes.fetch_add(freed.bytes, Ordering::Relaxed);
    progress.lease = Timestamp::from_millis(0);
    match cx.collector.save(scope, &progress, Some(etag)).await {
        Ok(_) => {}
        // It took longer than its lease, and somebody else has done the same.
        Err(error) if error.is_conflict() => return Ok(freed),
        Err(error) => return Err(error.into()),
    }
    if progress.phase == Phase::Idle {
        cx.collected.wait(scope.org(), progress.began_at.plus(EVERY));
    }
    Ok(freed)
}

/// Takes what there is to do; nothing when there is nothing, or somebody else is at it.
async fn taken(cx: &Context, scope: &Scope, now: Timestamp) -> Result<Option<(Progress, ETag)>> {
    let Some((mut progress, etag)) = cx.collector.progress(scope).await? else {
        let first = Progress {
            began_at: now,
            ..Progress::default()
        };
        match cx.collector.save(scope, &first, None).await {
            Ok(_) => cx.collected.wait(scope.org(), now.plus(EVERY)),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
        return Ok(None);
    };
    let next = progress.began_at.plus(EVERY);
    if progress.phase == Phase::Idle && now < next {
        cx.collected.wait(scope.org(), next);
        return Ok(None);
    }
    if now < progress.lease {
        return Ok(None);
    }
    if progress.phase == Phase::Idle {
        progress = Progress {
            pass: progress.pass + 1,
            phase: Phase::Results,
            began_at: now,
            last: (progress.pass > 0).then_some(progress.counts),
            ..Progress::default()
        };
    }
    progress.lease = now.plus(LEASE);
    match cx.collector.save(scope, &progress, Some(etag)).await {
        Ok(etag) => Ok(Some((progress, etag))),
        Err(error) if error.is_conflict() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Goes on with a pass.
async fn step(
    cx: &Context,
    scope: &Scope,
    grace: Duration,
    progress: &mut Progress,
    budget: &mut Budget,
) -> Result<()> {
    let (pass, after) = (progress.pass, progress.after.clone());
    let (done, next) = match progress.phase {
        Phase::Idle => return Ok(()),
        Phase::Results | Phase::Workflows => {
            let (partition, next) = match progress.phase {
                Phase::Results => (key::results(), Phase::Workflows),
                _ => (key::workflows(), Phase::Runs),
            };
            let marked = cx.collector.mark_partition(scope, partition, pass, after, budget);
            progress.after = marked.await?;
            (progress.after.is_none(), next)
        }
        Phase::Runs => {
            let (after, runs) = cx.collector.mark_runs(scope, pass, after, budget).await?;
            progress.after = after;
            progress.counts.runs += runs;
            if progress.after.is_none() {
                // Before the first blob is looked at.
                cx.usage.begin_count(scope).await?;
            }
            (progress.after.is_none(), Phase::Artifacts)
        }
        Phase::Artifacts => {
            let done = sweep(cx, scope, BlobKind::Artifact, grace, progress, budget).await?;
            if done {
                let bytes = progress.counts.kept_artifact_bytes;
                cx.usage.artifacts_counted(scope, bytes).await?;
            }
            (done, Phase::Values)
        }
        Phase::Values => {
            let done = sweep(cx, scope, BlobKind::Value, grace, progress, budget).await?;
            if done {
                let bytes = progress.counts.kept_bytes - progress.counts.kept_artifact_bytes;
                cx.usage.values_counted(scope, bytes).await?;
            }
            (done, Phase::Idle)
        }
    };
    if done {
        (progress.phase, progress.after, progress.list) = (next, None, None);
    }
    Ok(())
}

/// Deletes what has no mark on a page of the list of blobs; whether that was the last page. `progress.after` is the last digest that is
/// done with.
async fn sweep(
    cx: &Context,
    scope: &Scope,
    kind: BlobKind,
    grace: Duration,
    progress: &mut Progress,
    budget: &mut Budget,
) -> Result<bool> {
    let page = cx
        .collector
        .blobs(scope, kind, progress.list.as_deref(), budget)
        .await?;
    let digest = |blob: &BlobInfo| kind.digest(blob.path.as_str()).to_owned();
    let is_last = page.next.is_none();
    if !is_last && page.blobs.is_empty() {
        progress.list = page.next.map(|next| next.0);
        return Ok(false);
    }
    // Behind the last blob of all, marks are looked at to their end.
    let last = page.blobs.last().filter(|_| !is_last).map(digest);
    let after = progress.after.clone();
    let marks = cx
        .collector
        .marked(scope, kind, (after.as_deref(), last.as_deref()), progress.pass, budget)
        .await?;
    let goes = |blob: &BlobInfo| {
        // Of a name that is no digest nothing is known.
        let is_unmarked = key::mark_row(kind, &digest(blob)).is_some_and(|mark| !marks.contains(&mark));
        is_unmarked && blob.modified < progress.began_at.minus(grace)
    };
    // An earlier tick may have been here and not have come to the end. This one goes as far as its budget.
    let left = page
        .blobs
        .iter()
        .filter(|blob| after.as_deref().is_none_or(|after| digest(blob).as_str() > after));
    let (mut stay, mut gone, mut is_whole) = (Vec::new(), Vec::new(), true);
    for blob in left {
        if !goes(blob) {
            stay.push(blob);
        } else if gone.len() < budget.left() as usize {
            gone.push(blob);
        } else {
            is_whole = false;
            break;
        }
    }
    let until = stay.iter().chain(&gone).map(|blob| digest(blob)).max();
    if !gone.is_empty() {
        record(cx, scope, kind, progress, &gone).await?;
    }
    for blob in gone {
        if cx.collector.delete(scope, blob, budget).await? {
            progress.counts.freed += 1;
            progress.counts.freed_bytes += blob.size;
        } else {
            stay.push(blob);
        }
    }
    progress.counts.kept += stay.len() as u64;
    let kept = stay.iter().map(|blob| blob.size).sum::<u64>();
    progress.counts.kept_bytes += kept;
    if kind == BlobKind::Artifact {
        progress.counts.kept_artifact_bytes += kept;
    }
    progress.after = until.or(after);
    if is_whole {
        progress.list = page.next.map(|next| next.0);
    }
    Ok(is_whole && is_last)
}

/// Before anything is deleted. Some of it may be relied upon at that moment, and stay.
async fn record(cx: &Context, scope: &Scope, kind: BlobKind, progress: &Progress, gone: &[&BlobInfo]) -> Result<()> {
    let bytes: u64 = gone.iter().map(|blob| blob.size).sum();
    let record = cx
        .audit
        .by(scope, AuditEvent::BlobsCollected)
        .resource("blob", kind.prefix())
        .detail(&json!({"pass": progress.pass, "count": gone.len(), "bytes": bytes}));
    let linked = cx.audit.append(scope, record).await?;
    cx.audit.index(scope, &[linked]).await?;
    Ok(())
}
