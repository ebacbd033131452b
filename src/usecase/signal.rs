//! Signals between instances: a run that is cancelled through one is ended by the one that drives it, and an attempt that
//! nobody wants any more by the one that makes it.
//!
//! What counts is what is committed; a signal only makes the driver look. One that is lost costs time: the driver finds out
//! when it next writes, which it does every half minute.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Context;
use crate::domain::{AttemptId, RunId};
use crate::store::port::Result;
use crate::store::repo::signals::About;
use crate::tenancy;

/// How often an instance that drives runs looks for signals.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so long nobody follows a signal any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Tells the instance that drives a run that the run has ended. Never fails: without the signal it takes longer.
pub(super) async fn stop(cx: &Context, owner: &str, run: &RunId) {
    if owner == cx.instance {
        return;
    }
    let platform = tenancy::system("signal");
    let about = About::Run(run.clone());
    if let Err(error) = cx.signals.stop(&platform, owner, &about, cx.clock.now()).await {
        tracing::warn!(run.id = %run, error = %error, "the driver of a run that has ended could not be told");
    }
}

/// Tells the instance that makes an attempt that nobody wants it any more. Never fails: without the signal it finds out when it
/// renews its claim.
pub(super) async fn kill(cx: &Context, instance: &str, run: &RunId, attempt: &AttemptId) {
    if instance == cx.instance {
        cx.live.kill(attempt);
        return;
    }
    let platform = tenancy::system("signal");
    let about = About::Attempt(attempt.clone());
    if let Err(error) = cx.signals.stop(&platform, instance, &about, cx.clock.now()).await {
        tracing::warn!(run.id = %run, error = %error, "who makes an attempt that is to end could not be told");
    }
}

/// Follows the signals that other instances send to this one, as long as there is a [`Context`]. Nothing is asked of storage
/// while nothing is driven here.
pub async fn listen(cx: Weak<Context>) {
    let Some(live) = cx.upgrade().map(|cx| cx.live.clone()) else {
        return;
    };
    loop {
        live.is_busy().await;
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(cx) = cx.upgrade() else { return };
        if live.under_way() == 0 {
            continue;
        }
        if let Err(error) = follow(&cx).await {
            tracing::debug!(error = %error, "signals can't be read, trying again");
        }
    }
}

async fn follow(cx: &Arc<Context>) -> Result<()> {
    let platform = tenancy::system("signal");
    for about in cx.signals.to_stop(&platform, &cx.instance).await? {
        match &about {
            About::Run(run) => cx.live.stop(run),
            About::Attempt(attempt) => cx.live.kill(attempt),
        }
        cx.signals.followed(&platform, &cx.instance, &about).await?;
    }
    Ok(())
}

/// Takes signals away that no instance has followed for an hour; how many.
///
/// # Errors
/// When storage fails; the next call goes on.
pub(super) async fn sweep(cx: &Context) -> Result<usize> {
    let until = cx.clock.now().minus(FORGOTTEN_AFTER);
    cx.signals.sweep(&tenancy::system("tick"), until).await
}
