//! Time and randomness as dependencies: nothing else in the package asks the system for either.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::Timestamp;

/// Where the present comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present, in milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;
}

/// The computer's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(AtomicI64::new(at.millis()))
    }

    /// Moves it forward.
    pub fn advance(&self, by: std::time::Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Where randomness comes from.
#[derive(Debug)]
pub enum Entropy {
    /// The operating system's generator, for everything outside tests.
    System,
    /// A repeatable sequence (splitmix64, Steele, Lea and Flood 2014), for tests and simulation only.
    Seeded(Mutex<u64>),
}

impl Entropy {
    /// A repeatable sequence.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Mutex::new(seed))
    }

    /// Fresh random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        match self {
            Self::System => {
                aws_lc_rs::rand::fill(&mut out).expect("the operating system's random generator is available");
            }
            Self::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for chunk in out.chunks_mut(8) {
                    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mut z = *state;
                    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
                }
            }
        }
        out
    }
}
