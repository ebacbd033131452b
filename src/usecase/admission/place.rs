//! What a run that is driven holds, and what happens to it when the run lets go.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Context;
use super::callers::{Awaited, Driven};
use super::desk::{Drive, Seat};
use crate::audit::LinkedRecord;
use crate::domain::Timestamp;
use crate::store;
use crate::store::port::MessageReceipt;
use crate::store::repo::backlog::{Guard, Waiting};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::Scope;

/// A run's place on this instance. What it has of the organization's limit is free again when it is dropped.
#[derive(Debug, Default)]
pub(in crate::usecase) struct Place {
    /// Its place in the organization's limit, unless it needs none.
    pub(super) _seat: Option<Seat>,
    /// Its place among those that are driven here out of the backlog.
    pub(super) _drive: Option<Drive>,
    /// Its row in the backlog, which goes when the run is next listed.
    pub(super) row: Option<Waiting>,
    /// Where somebody waits for it here.
    pub(super) driven: Option<Driven>,
    /// That its message is not done with until its driver is.
    pub(super) _message: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Of a run that has one elsewhere, or needs none.
    pub(in crate::usecase) fn none() -> Self {
        Self::default()
    }

    /// Who waits for it here, for what its attempts wait for.
    pub(in crate::usecase) fn call(&self) -> Option<Arc<Awaited>> {
        self.driven.as_ref().map(Driven::call)
    }

    /// Whether a message that is delivered again after a failure leads to the run, not its row in the backlog.
    pub(in crate::usecase) const fn is_by_message(&self) -> bool {
        self._drive.is_none()
    }

    /// The message that was sent before the run was written, if it is still to come at `after` or later.
    pub(in crate::usecase) fn guard(&mut self, after: Timestamp) -> Option<MessageReceipt> {
        let Guard { receipt, at } = self.row.as_mut()?.guard.take()?;
        (at > after).then_some(receipt)
    }

    /// Lists the run; at the first time it leaves the backlog too.
    pub(in crate::usecase) async fn list(
        &mut self,
        cx: &Context,
        scope: &Scope,
        run: &StoredRun,
        audit: &[LinkedRecord],
    ) -> store::port::Result<()> {
        if let Some(row) = self.row.take() {
            match cx.backlog.leave(scope, run, audit, &row).await {
                Ok(()) => return Ok(()),
                // It was not there, or stands elsewhere since nobody waits for it any more; or somebody has taken it out: a
                // cancellation, which lists the run as well.
                Err(error) if error.is_conflict() => cx.backlog.withdraw(scope, run).await?,
                Err(error) => {
                    self.row = Some(row);
                    return Err(error);
                }
            }
        }
        cx.runs.index(scope, run, audit).await
    }
}
