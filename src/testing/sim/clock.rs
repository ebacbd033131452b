//! Virtual time: tokio's paused clock, as each process reads it from a clock of its own that is a little wrong.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::Timestamp;

/// A clock that is ahead of virtual time, or behind it, by a fixed amount.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    began: Instant,
    base: Timestamp,
    skew_ms: i64,
}

impl VirtualClock {
    /// A clock that shows `base` now, on the runtime that is being simulated on.
    #[must_use]
    pub fn new(base: Timestamp) -> Self {
        Self {
            began: Instant::now(),
            base,
            skew_ms: 0,
        }
    }

    /// The same time, read wrongly by so many milliseconds.
    #[must_use]
    pub fn skewed(&self, skew_ms: i64) -> Self {
        Self {
            skew_ms,
            ..self.clone()
        }
    }

    /// How long the simulation has gone on.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.base.millis() + elapsed + self.skew_ms)
    }
}
