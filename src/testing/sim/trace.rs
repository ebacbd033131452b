//! What happened, in order, with virtual times: always as one digest, which must be the same for the same seed, and as lines
//! where somebody wants to read them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

use super::clock::VirtualClock;

/// More than this is a loop that does not end.
const MOST: u64 = 3_000_000;

struct Inner {
    digest: Context,
    count: u64,
    lines: Option<Vec<String>>,
}

/// The trace of one simulation.
pub struct Trace {
    clock: VirtualClock,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    /// An empty one. `keep` the lines, or only their digest.
    #[must_use]
    pub fn new(clock: VirtualClock, keep: bool) -> Self {
        Self {
            clock,
            inner: Mutex::new(Inner {
                digest: Context::new(&SHA256),
                count: 0,
                lines: keep.then(Vec::new),
            }),
        }
    }

    /// Adds a line: who did or met what.
    ///
    /// # Panics
    /// When there are so many that the simulation can't be getting anywhere.
    pub fn say(&self, who: &str, what: &str) {
        let at = self.clock.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.count += 1;
        assert!(inner.count < MOST, "the simulation does not come to an end");
        inner.digest.update(&at.as_millis().to_le_bytes());
        inner.digest.update(who.as_bytes());
        inner.digest.update(what.as_bytes());
        inner.digest.update(b"\n");
        if let Some(lines) = &mut inner.lines {
            lines.push(format!("{:>11.3} {who:<7} {what}", at.as_secs_f64()));
        }
    }

    /// Adds bytes to the digest only: contents that would not be read.
    pub fn also(&self, bytes: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.digest.update(bytes);
    }

    /// The digest, how many lines there were, and the lines where they were kept.
    #[must_use]
    pub fn end(&self) -> (String, u64, Vec<String>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = inner.digest.clone().finish();
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        (hex, inner.count, inner.lines.take().unwrap_or_default())
    }
}
