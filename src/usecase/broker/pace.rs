//! How fast an attempt may write: a bucket of permits that fills by the second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Writes in a second, and at once.
pub(super) const WRITES_PER_SECOND: u32 = 100;
/// A write that would have to wait longer is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the next write is due if nobody has written for a while.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Waits for its turn; false when too many wait already.
    pub(super) async fn turn(&self) -> bool {
        let Some(wait) = self.take(Instant::now()) else {
            return false;
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        true
    }

    fn take(&self, now: Instant) -> Option<Duration> {
        let interval = Duration::from_secs(1) / WRITES_PER_SECOND;
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A second's worth may be written at once.
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let next = due.map_or(earliest, |due| due.max(earliest));
        let wait = next.saturating_duration_since(now);
        if wait > PATIENCE {
            return None;
        }
        *due = Some(next + interval);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_then_one_by_one() {
        let pace = Pace::default();
        let now = Instant::now();
        for _ in 0..=WRITES_PER_SECOND {
            assert_eq!(pace.take(now), Some(Duration::ZERO));
        }
        assert_eq!(pace.take(now), Some(Duration::from_millis(10)));
        for _ in 0..99 {
            assert!(pace.take(now).is_some());
        }
        assert_eq!(pace.take(now), None);
        assert!(pace.take(now + Duration::from_secs(1)).is_some());
    }
}
