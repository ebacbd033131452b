//! What happens every minute: what is due is done, chains are sealed, and what nobody needs any more is taken away.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Context, Result, collect, due, queue_trigger, retention, signal};
use crate::tenancy::{self, PlatformScope};

/// How long after midnight the chains of the day before are still sealed.
const AFTER_MIDNIGHT: Duration = Duration::from_secs(15 * 60);

/// What a tick did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticked {
    /// Organizations that were looked at.
    pub organizations: usize,
    /// Chain heads that were sealed.
    pub sealed: usize,
    /// Runs that were deleted because they had been kept long enough.
    pub deleted_runs: usize,
    /// Blobs that were deleted because nothing referred to them any more.
    pub freed_blobs: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Signals to instances that are gone, which were taken away.
    pub signals: usize,
    /// Organizations whose chains could not be sealed this time.
    pub failed: usize,
    /// What was due and is done.
    pub due: usize,
    /// What was due and is left to a later tick.
    pub left: usize,
    /// Messages of queue triggers that were handled.
    pub messages: usize,
}

/// Does what is due, and seals the heads of the audit chains of every organization, and of the platform; neither keeps the other
/// from being done. Takes away old signals, some of the runs that are no longer kept, and some of the blobs that nothing refers to.
///
/// # Errors
/// When what is due can't be read, or the organizations can't be listed; a single organization's failure is counted, logged, and tried again at the next
/// tick.
pub async fn tick(cx: &Arc<Context>) -> Result<Ticked> {
    let platform = tenancy::system("tick");
    // First: it is waited for to the second.
    let worked = due::work(cx, &platform).await;
    // Where no instance is awake between two ticks, nobody else looks at the queues of triggers.
    let messages = queue_trigger::poll_all(cx).await;
    let mut ticked = seal(cx, &platform).await?;
    let worked = worked?;
    match messages {
        Ok(messages) => ticked.messages = messages,
        Err(error) => tracing::warn!(error = %error, "the queue triggers can't be read, the next tick tries again"),
    }
    (ticked.due, ticked.left) = (worked.done, worked.left);
    Ok(ticked)
}

async fn seal(cx: &Context, platform: &PlatformScope) -> Result<Ticked> {
    let now = cx.clock.now();
    // A chain that ended a moment before midnight is sealed by the first ticks of the next day.
    let days = [now.minus(AFTER_MIDNIGHT).day(), now.day()];
    let days = if days[0] == days[1] { &days[1..] } else { &days[..] };
    let mut ticked = Ticked::default();
    for day in days {
        ticked.sealed += cx.audit.seal_heads(platform, day).await?;
    }
    match signal::sweep(cx).await {
        Ok(signals) => ticked.signals = signals,
        Err(error) => tracing::warn!(error = %error, "old signals could not be taken away"),
    }
    let (mut cursor, mut round) = (None, collect::Round::begin(cx));
    loop {
        let page = cx.identities.list_organizations(platform, 200, cursor).await?;
        for organization in page.items {
            let scope = tenancy::operator_in(platform, &organization.id);
            ticked.organizations += 1;
            for day in days {
                match cx.audit.seal_heads(&scope, day).await {
                    Ok(sealed) => ticked.sealed += sealed,
                    Err(error) => {
                        ticked.failed += 1;
                        tracing::warn!(org.id = %organization.id, error = %error, "audit chains could not be sealed");
                    }
                }
            }
            if let Some(keep) = cx.keep_runs {
                match retention::apply(cx, &scope, keep).await {
                    Ok(deleted) => ticked.deleted_runs += deleted,
                    Err(error) => {
                        tracing::warn!(org.id = %organization.id, error = %error, "old runs could not be deleted, the next tick goes on");
                    }
                }
            }
            if let Some(grace) = cx.grace {
                match collect::apply(cx, &scope, grace, &mut round).await {
                    Ok(freed) => {
                        ticked.freed_blobs += freed.blobs;
                        ticked.freed_bytes += freed.bytes;
                    }
                    Err(error) => {
                        tracing::warn!(org.id = %organization.id, error = %error, "blobs that nothing refers to could not be deleted, the next tick goes on");
                    }
                }
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            round.end(cx);
            return Ok(ticked);
        }
    }
}
