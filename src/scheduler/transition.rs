//! Legal moves as a table, and the sealed value that storage accepts.

use serde_json::Value;

use super::state::Slot;
use super::{Effect, Fact, RunState};
use crate::domain::{Status, StepError, Timestamp};

/// Every move of a run's status; a status may also stay. What is not here does not happen.
pub const LEGAL: &[(Status, Status)] = &[
    (Status::Pending, Status::Running),
    // The first step waits, and nothing has to be made for that.
    (Status::Pending, Status::Waiting),
    // A plan without steps has succeeded when it is taken.
    (Status::Pending, Status::Succeeded),
    (Status::Pending, Status::Cancelled),
    (Status::Pending, Status::TimedOut),
    (Status::Running, Status::Waiting),
    (Status::Running, Status::Succeeded),
    (Status::Running, Status::Failed),
    (Status::Running, Status::Cancelled),
    (Status::Running, Status::TimedOut),
    (Status::Waiting, Status::Running),
    // The last step was a pause, a decision or a child run.
    (Status::Waiting, Status::Succeeded),
    (Status::Waiting, Status::Failed),
    (Status::Waiting, Status::Cancelled),
    (Status::Waiting, Status::TimedOut),
];

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The run has ended.
    #[error("the run has ended as {}", .0.as_str())]
    Terminal(Status),
    /// Somebody else drives it, and their lease has not run out.
    #[error("another instance drives the run")]
    Leased,
    /// The sender's epoch is not the run's.
    #[error("epoch {sent} is not the run's epoch {current}")]
    Stale {
        /// The sender's.
        sent: u64,
        /// The run's.
        current: u64,
    },
    /// Nobody drives it: it must be taken first.
    #[error("no instance drives the run")]
    Unowned,
    /// What the event is about is not going on.
    #[error("the attempt is not running")]
    NotRunning,
    /// This person has decided before.
    #[error("this person has decided already")]
    Decided,
    /// Nothing is due.
    #[error("nothing is due")]
    NothingDue,
}

/// A step, an item or an iteration that ended with a transition.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Which.
    pub slot: Slot,
    /// As what.
    pub status: Status,
    /// Attempts begun; of a map or loop: items or iterations.
    pub attempts: u32,
    /// When it began; none when it ended without having begun.
    pub started_at: Option<Timestamp>,
    /// Its value, where the scheduler knows it: what people decided, a branch.
    pub value: Option<Value>,
    /// Why it failed or timed out.
    pub error: Option<StepError>,
    /// Of a map or loop: how far it came.
    pub counts: Option<Counts>,
}

/// How far a map or a loop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Items that there are; a loop doesn't know.
    pub total: Option<u32>,
    /// How many items, or iterations, have ended.
    pub ended: u32,
    /// How many of them have failed.
    pub failed: u32,
}

/// A move that was decided on: what to commit and what to do then. Made only by the scheduler, so storage can't be handed a
/// state that nobody decided on.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    at: Timestamp,
    state: RunState,
    ended: Vec<Ended>,
    facts: Vec<Fact>,
    effects: Vec<Effect>,
    evaluations: Vec<Slot>,
    concludes: bool,
}

impl Transition {
    pub(super) fn new(
        at: Timestamp,
        state: RunState,
        (ended, facts, effects): (Vec<Ended>, Vec<Fact>, Vec<Effect>),
        evaluations: Vec<Slot>,
        concludes: bool,
    ) -> Self {
        Self {
            at,
            state,
            ended,
            facts,
            effects,
            evaluations,
            concludes,
        }
    }

    /// When it was decided on.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// The state to commit.
    #[must_use]
    pub const fn state(&self) -> &RunState {
        &self.state
    }

    /// What ended, and had begun before.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// What to tell about it.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// What to do when it is committed.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Steps, and iterations that have ended, whose values must be looked at: each with [`super::Event::Evaluated`]. What is not
    /// looked at before the commit is asked for again with the next event.
    #[must_use]
    pub fn evaluations(&self) -> &[Slot] {
        &self.evaluations
    }

    /// Whether the run's result must be worked out, with [`super::Event::Concluded`].
    #[must_use]
    pub const fn concludes(&self) -> bool {
        self.concludes
    }

    /// Whether there is more to decide on at once, without anything having happened.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.concludes || !self.evaluations.is_empty()
    }

    /// This, to be committed together with what was decided on its state.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        for ended in next.ended {
            self.ended.retain(|earlier| earlier.slot != ended.slot);
            self.ended.push(ended);
        }
        self.facts.extend(next.facts);
        self.effects.extend(next.effects);
        let mut state = next.state;
        // One commit is one transition.
        state.sequence = self.state.sequence;
        Self {
            at: next.at,
            state,
            evaluations: next.evaluations,
            concludes: next.concludes,
            ..self
        }
    }
}
