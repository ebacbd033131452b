//! Does what is due: reads only rows whose time has come, and hands each to whatever it is about.
//!
//! A row that can't be handled now stays where it is, and the next tick meets it again; so nothing is lost by a failure, and
//! whoever handles a row must bear meeting it more than once, at the same moment too.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::{Context, Result, schedule};
use crate::domain::Timestamp;
use crate::store::repo::due::{DUE_BUCKETS, DueKind, DueRow};
use crate::tenancy::PlatformScope;

/// What is due so soon is done by this tick: a timer is a little early at times, and nothing is to wait a minute for that.
pub const EARLY: Duration = Duration::from_secs(1);
/// How long a tick begins with further rows; the next one goes on.
const BUDGET: Duration = Duration::from_secs(45);
/// Rows that are read at once.
const PAGE: usize = 100;
/// Rows of one bucket that are handled at the same time.
const AT_ONCE: usize = 4;

/// What came of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worked {
    /// Rows that were handled, and are gone.
    pub done: usize,
    /// Rows that stay for a later tick: somebody else is at them, or they failed.
    pub left: usize,
}

/// What came of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    /// It may be deleted.
    Done,
    /// It stays.
    Left,
}

/// Does everything that is due now.
///
/// # Errors
/// When the rows can't be read. A single row's failure is logged, and the row stays.
pub(super) async fn work(cx: &Arc<Context>, platform: &PlatformScope) -> Result<Worked> {
    let until = cx.clock.now().plus(EARLY);
    let end = Instant::now() + BUDGET;
    let buckets: Vec<BoxFuture<'_, _>> = (0..DUE_BUCKETS)
        .map(|bucket| work_bucket(cx, platform, bucket, until, end).boxed())
        .collect();
    let mut worked = Worked::default();
    for bucket in futures::future::join_all(buckets).await {
        let bucket = bucket?;
        worked.done += bucket.done;
        worked.left += bucket.left;
    }
    Ok(worked)
}

async fn work_bucket(
    cx: &Arc<Context>,
    platform: &PlatformScope,
    bucket: u8,
    until: Timestamp,
    end: Instant,
) -> Result<Worked> {
    let mut worked = Worked::default();
    let mut after = None;
    while Instant::now() < end {
        let page = cx.due.due_until(platform, bucket, until, PAGE, after).await?;
        let rows: Vec<BoxFuture<'_, Handled>> = page.rows.iter().map(|row| handle(cx, platform, row).boxed()).collect();
        let handled: Vec<Handled> = futures::stream::iter(rows).buffer_unordered(AT_ONCE).collect().await;
        let done = handled.iter().filter(|one| **one == Handled::Done).count();
        worked.done += done;
        worked.left += handled.len() - done + page.unreadable;
        if page.unreadable > 0 {
            tracing::warn!(bucket, rows = page.unreadable, "rows of what is due can't be read");
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(worked)
}

async fn handle(cx: &Arc<Context>, platform: &PlatformScope, row: &DueRow) -> Handled {
    let handled = match row.kind {
        Some(DueKind::Schedule) => schedule::fire(cx, row).await,
        // Of these there are none yet, or they are another version's: that one handles them.
        Some(DueKind::Run | DueKind::Deferred) | None => Ok(Handled::Left),
    };
    let finished = match handled {
        Ok(Handled::Left) => return Handled::Left,
        Ok(Handled::Done) => cx.due.done(platform, row).await.map_err(super::Error::from),
        Err(error) => Err(error),
    };
    match finished {
        Ok(_) => Handled::Done,
        Err(error) => {
            tracing::warn!(
                org.id = %row.what.org,
                kind = row.kind.map_or("unknown", DueKind::as_str),
                error = &error as &dyn std::error::Error,
                "something that is due could not be done, the next tick tries again"
            );
            Handled::Left
        }
    }
}
