//! Handing attempts over: what stands in line here for too long, other instances are asked to make.
//!
//! An attempt that is handed over keeps its place in line. Whoever claims it first makes it, here or elsewhere
//! (`attempt_step.rs`), and its end comes by a letter. So nothing has to be taken back, and no worker idles while its attempt
//! waits for another instance.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Result;
use super::attempt::Turn as Line;
use super::attempt_step::{self, Asked, is_lost};
use super::driver::{Driver, KEEP_TRYING, Turn, Work};
use super::report::keep_trying;
use crate::domain::{AttemptId, Outcome, Timestamp};
use crate::scheduler::{Event, Slot};
use crate::store::repo::runs::StoredRun;

/// How often it is looked after the claims of other instances.
pub(super) const CLAIMS_EVERY: Duration = Duration::from_secs(5);
/// Most attempts that are handed over with one transition.
const AT_ONCE: usize = 16;
/// Most attempts that are found to be lost with one transition.
const LOST: usize = 4;

impl Driver {
    /// When the first of the attempts that stand in line has stood there for long enough; none when nothing does.
    pub(super) fn line_at(&self, work: &Work, yields: bool) -> Option<Instant> {
        let waited = self.cx.bounds.hand_off?;
        let waited = if yields { Duration::ZERO } else { waited };
        work.own.values().filter_map(|own| own.line.offered_at(waited)).min()
    }

    /// Hands over what has stood in line for so long.
    pub(super) async fn offer(
        &mut self,
        run: &StoredRun,
        turn: &mut Turn,
        work: &mut Work,
        yields: bool,
        now: Timestamp,
    ) -> Result<()> {
        let Some(waited) = self.cx.bounds.hand_off else {
            return Ok(());
        };
        let waited = if yields { Duration::ZERO } else { waited };
        let state = turn.state(run);
        let mut slots = Vec::new();
        for (attempt, own) in &mut work.own {
            let runs = state.unit(own.slot).and_then(|unit| unit.attempt.as_ref()) == Some(attempt);
            if slots.len() < AT_ONCE && runs && own.line.offer(waited) {
                own.offered = Some(self.cx.live.offer(attempt));
                slots.push(own.slot);
                work.to_ask.push((own.slot, attempt.clone()));
            }
        }
        if slots.is_empty() {
            return Ok(());
        }
        let epoch = run.state.epoch;
        self.decide(run, turn, Event::HandedOff { epoch, slots }, now).await
    }

    /// After the commit: messages to other instances. One that is lost costs time, since the attempt stands in line here.
    pub(super) async fn ask_others(&self, run: &StoredRun, work: &mut Work) {
        let reference = self.reference(run);
        let asked = work.to_ask.drain(..).map(|(slot, attempt)| Asked {
            slot,
            attempt,
            sent_on: 0,
        });
        let sent = asked.map(|asked| attempt_step::ask(&self.cx, &reference, asked, Duration::ZERO));
        for sent in futures::future::join_all(sent).await {
            if let Err(error) = sent {
                tracing::warn!(run.id = %run.new.run, error = %error, "no other instance could be asked to make an attempt, it waits here");
            }
        }
    }

    /// Looks after attempts that any instance may make: one whose instance is gone is lost, and one that nobody has stands in
    /// line here.
    pub(super) async fn look_after_claims(
        &mut self,
        run: &StoredRun,
        turn: &mut Turn,
        work: &mut Work,
        stop: &CancellationToken,
        now: Timestamp,
    ) -> Result<()> {
        let claims = keep_trying(KEEP_TRYING, || self.cx.runs.claims(&self.scope, &run.new.run)).await?;
        let handed: Vec<(Slot, AttemptId)> = turn
            .state(run)
            .handed()
            .map(|(slot, attempt)| (slot, attempt.clone()))
            .collect();
        let mut lost = 0;
        for (slot, attempt) in handed {
            match claims.iter().find(|claim| claim.attempt == attempt) {
                Some(claim) if is_lost(claim, now) && lost < LOST => {
                    let broken = self.cx.runs.break_claim(&self.scope, &run.new.run, claim.clone()).await;
                    match broken {
                        Ok(_) => {}
                        // It was renewed, or reported, at the same moment; or it is looked after again.
                        Err(error) => {
                            tracing::debug!(run.id = %run.new.run, error = %error, "a claim that had run out could not be broken");
                            continue;
                        }
                    }
                    lost += 1;
                    work.forget(&attempt);
                    let event = Event::AttemptFinished {
                        epoch: run.state.epoch,
                        slot,
                        attempt,
                        outcome: Box::new(Outcome::Cancelled),
                        sample: 0.0,
                    };
                    if self.fold(run, turn, event, now).await?.is_none() {
                        turn.additions.taken.push(claim.row());
                    }
                }
                None if !work.own.contains_key(&attempt) => {
                    let number = run.state.unit(slot).map_or(1, |unit| unit.attempts);
                    let id = (slot, attempt, number);
                    self.start_attempt(run, id, work, stop, Line::offered()).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
