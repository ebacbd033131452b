//! Taking turns: changes of one row that many of this process want at once go one after the other.
//!
//! Each of them reads the row and writes it under its ETag, so at once all but one would lose and begin again, and with enough of
//! them some would lose every time. Other processes may still write between; [`pause`] gives way to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

/// Names that nobody waits for are forgotten when there are more than so many.
const REMEMBERED: usize = 256;
/// The pause after the first loss, and the longest.
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(64);

/// One at a time for each name.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

/// A turn, over when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for a turn at what has this name; who asked first has it first. Whoever has one takes no other.
    pub async fn take(&self, name: String) -> Turn {
        let line = {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() > REMEMBERED {
                lines.retain(|_, line| Arc::strong_count(line) > 1);
            }
            lines.entry(name).or_default().clone()
        };
        Turn {
            _held: line.lock_owned().await,
        }
    }
}

/// Waits a little after a change has lost against another for the nth time, the first being 0.
pub async fn pause(lost: u32) {
    tokio::time::sleep(FIRST.saturating_mul(1 << lost.min(16)).min(LONGEST)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn one_has_a_turn_and_who_asked_first_is_next() {
        let turns = Turns::default();
        let first = turns.take("a".into()).await;
        let mut second = Box::pin(turns.take("a".into()));
        let mut third = Box::pin(turns.take("a".into()));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert!(turns.take("b".into()).now_or_never().is_some(), "of another name");
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.as_mut().now_or_never();
        assert!(second.is_some() && third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn names_that_nobody_waits_for_are_forgotten() {
        let turns = Turns::default();
        let held = turns.take("held".into()).await;
        for n in 0..10 * REMEMBERED {
            drop(turns.take(format!("{n}")).await);
        }
        assert!(turns.0.lock().unwrap().len() <= REMEMBERED + 1);
        assert!(turns.take("held".into()).now_or_never().is_none());
        drop(held);
    }
}
