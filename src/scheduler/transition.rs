//! Legal moves as a table, and the sealed value that storage accepts.

use crate::domain::{Status, Timestamp};

use super::{Effect, Fact, RunState};

/// Every move of a run's status; a status may also stay. What is not here does not happen.
pub const LEGAL: &[(Status, Status)] = &[
    (Status::Pending, Status::Running),
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
    /// The attempt is not the one that is running.
    #[error("the attempt is not running")]
    NotRunning,
    /// Nothing is due.
    #[error("nothing is due")]
    NothingDue,
}

/// A move that was decided on: what to commit and what to do then. Made only by the scheduler, so storage can't be handed a
/// state that nobody decided on.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    at: Option<Timestamp>,
    state: RunState,
    steps: Vec<usize>,
    facts: Vec<Fact>,
    effects: Vec<Effect>,
}

impl Transition {
    pub(super) fn new(before: Option<&RunState>, mut state: RunState, facts: Vec<Fact>, effects: Vec<Effect>) -> Self {
        let steps = match before {
            None => Vec::new(),
            Some(before) => {
                debug_assert!(
                    before.status == state.status || LEGAL.contains(&(before.status, state.status)),
                    "{:?} → {:?} is not a legal move",
                    before.status,
                    state.status
                );
                (0..state.steps.len())
                    .filter(|place| before.steps.get(*place) != state.steps.get(*place))
                    .collect()
            }
        };
        state.sequence += 1;
        Self {
            at: None,
            state,
            steps,
            facts,
            effects,
        }
    }

    pub(super) const fn stamped(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// When it was decided on; a run's first transition happens when the run is made.
    #[must_use]
    pub const fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// The state to commit.
    #[must_use]
    pub const fn state(&self) -> &RunState {
        &self.state
    }

    /// The places of the steps that changed; a step that never began has no row.
    #[must_use]
    pub fn changed_steps(&self) -> &[usize] {
        &self.steps
    }

    /// What to tell about it.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// What to do once it is committed.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// The same as one commit with a transition that follows it at once, so that a run that starts here is written once.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self.steps.sort_unstable();
        self.steps.dedup();
        self.facts.extend(next.facts);
        self.effects.extend(next.effects);
        Self {
            at: next.at,
            state: next.state,
            ..self
        }
    }
}
