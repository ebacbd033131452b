//! One file per kind of event.

mod attempt_finished;
mod begin;
mod cancel;
mod decided;
mod evaluated;
mod lease;

pub(super) use attempt_finished::{attempt_finished, child_finished};
pub(super) use begin::begin;
pub(super) use cancel::cancel;
pub(super) use decided::decided;
pub(super) use evaluated::{concluded, evaluated};
pub(super) use lease::{give_way, hand_off, release, renew, resume, take, wake};

use super::{Rejected, RunState};

/// Only whoever drives the run now is heard about it.
fn owned(state: &RunState, epoch: u64) -> Result<(), Rejected> {
    if epoch != state.epoch {
        return Err(Rejected::Stale {
            sent: epoch,
            current: state.epoch,
        });
    }
    // Released, or never taken: the epoch alone would let its last owner, or anybody, begin attempts without a lease.
    if state.owner.is_none() {
        return Err(Rejected::Unowned);
    }
    Ok(())
}
