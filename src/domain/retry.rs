//! When a failed attempt is made again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StepError;

/// How the delay grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always the same.
    Fixed,
    /// Once, twice, three times.
    Linear,
    /// Doubling.
    #[default]
    Exponential,
}

/// Attempts, delays, and which errors count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; 1 to 100.
    pub attempts: u32,
    /// Delay before the second attempt, in seconds.
    pub delay_seconds: f64,
    /// How it grows.
    pub backoff: Backoff,
    /// Longest delay, in seconds.
    pub max_delay_seconds: f64,
    /// Part of the delay that is random, 0 to 1.
    pub jitter: f64,
    /// Error types that are tried again; all when empty.
    pub retry_on: Vec<String>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 1,
            delay_seconds: 2.0,
            backoff: Backoff::Exponential,
            max_delay_seconds: 60.0,
            jitter: 0.0,
            retry_on: Vec::new(),
        }
    }
}

impl RetryPolicy {
    /// How long to wait before the next attempt, or nothing when there is none. `made` attempts have been made; `sample`
    /// is a random number from 0 to 1. What user code said about its error (`retriable`) goes before `retry_on`.
    #[must_use]
    pub fn next_delay(&self, made: u32, error: &StepError, sample: f64) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let wanted = error.retriable.unwrap_or_else(|| {
            self.retry_on.is_empty()
                || self
                    .retry_on
                    .iter()
                    .any(|name| *name == error.kind || error.kind.ends_with(&format!(".{name}")))
        });
        if !wanted {
            return None;
        }
        let base = self.delay_seconds.max(0.0);
        let delay = match self.backoff {
            Backoff::Fixed => base,
            Backoff::Linear => base * f64::from(made),
            Backoff::Exponential => base * 2f64.powi(i32::try_from(made.saturating_sub(1)).unwrap_or(30).min(30)),
        };
        let delay = delay.min(self.max_delay_seconds.max(0.0));
        let part = self.jitter.clamp(0.0, 1.0);
        let seconds = delay * (1.0 - part) + delay * part * sample.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        let policy = RetryPolicy {
            attempts: 4,
            delay_seconds: 1.0,
            max_delay_seconds: 3.0,
            ..RetryPolicy::default()
        };
        let error = StepError::new("ValueError", "x");
        let delays: Vec<_> = (1..=4)
            .map(|made| policy.next_delay(made, &error, 0.5).map(|d| d.as_millis()))
            .collect();
        assert_eq!(delays, [Some(1000), Some(2000), Some(3000), None]);
    }

    #[test]
    fn classes_and_the_word_of_user_code() {
        let policy = RetryPolicy {
            attempts: 3,
            retry_on: vec!["Timeout".into()],
            ..RetryPolicy::default()
        };
        let other = StepError::new("ValueError", "x");
        assert_eq!(policy.next_delay(1, &other, 0.0), None);
        assert!(
            policy
                .next_delay(1, &StepError::new("requests.Timeout", "x"), 0.0)
                .is_some()
        );
        let insists = StepError {
            retriable: Some(true),
            ..other
        };
        assert!(policy.next_delay(1, &insists, 0.0).is_some());
        let never = StepError {
            retriable: Some(false),
            ..StepError::new("Timeout", "x")
        };
        assert_eq!(policy.next_delay(1, &never, 0.0), None);
    }
}
