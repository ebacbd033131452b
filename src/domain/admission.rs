//! When a run may begin, and before which others.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RunId, SecurityProfile, Timestamp};

/// How soon a run is to begin among those of its organization: 0 to 9, 9 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// `low`.
    pub const LOW: Self = Self(2);
    /// `normal`.
    pub const NORMAL: Self = Self(5);
    /// `high`.
    pub const HIGH: Self = Self(8);

    /// From `low`, `normal`, `high` or a digit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "low" => Some(Self::LOW),
            "normal" => Some(Self::NORMAL),
            "high" => Some(Self::HIGH),
            _ => match text.as_bytes() {
                [digit @ b'0'..=b'9'] => Some(Self(digit - b'0')),
                _ => None,
            },
        }
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// What happens to a run whose concurrency key is held by as many as may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It waits until one of them has ended.
    #[default]
    Queue,
    /// It isn't started.
    Skip,
    /// The one that has held it longest is cancelled.
    CancelRunning,
}

impl OnConflict {
    /// From the text in a request.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "queue" => Some(Self::Queue),
            "skip" => Some(Self::Skip),
            "cancel_running" => Some(Self::CancelRunning),
            _ => None,
        }
    }
}

/// Only so many runs of the organization with the same key are under way at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyKey {
    /// The caller's text, 1 to 200 characters.
    pub key: String,
    /// How many, 1 to [`ConcurrencyKey::MOST`].
    pub limit: u32,
    /// What happens when there are as many.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

impl ConcurrencyKey {
    /// The largest limit: whoever wants the key looks at all who hold it.
    pub const MOST: u32 = 100;
    /// The longest key, in characters.
    pub const LONGEST: usize = 200;
}

/// What was asked for about a run's beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// How soon among others.
    #[serde(default)]
    pub priority: Priority,
    /// Whether somebody waits for its end: it goes before others of its priority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waited_for: bool,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Not beside others with the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyKey>,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// The security profile that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<SecurityProfile>,
    /// The hash of the plan that the run is held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// How a caller has said when a run may begin. Two requests that say the same are equal, whatever times follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begins {
    /// As soon as it may.
    #[default]
    AtOnce,
    /// At this time; at once where that is past.
    At(Timestamp),
    /// So long after the request; not zero.
    After(Duration),
}

impl Ask {
    /// The rank in the backlog, 1 to 20, 1 first. What has begun before, or was started by a step, has rank 0.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        self.rank_unless_waited_for() - if self.waited_for { 1 } else { 0 }
    }

    /// The rank of the same where nobody waits for it, 2 to 20.
    #[must_use]
    pub const fn rank_unless_waited_for(&self) -> u8 {
        2 + (9 - self.priority.0) * 2
    }

    /// Whether it may begin as soon as there is a place for it.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.not_before.is_none() && self.concurrency.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_have_names_and_numbers() {
        assert_eq!(Priority::parse("high"), Some(Priority::HIGH));
        assert_eq!(Priority::parse("0").map(Priority::number), Some(0));
        assert_eq!(Priority::parse("9").map(Priority::number), Some(9));
        for wrong in ["", "10", "-1", "urgent", "High"] {
            assert_eq!(Priority::parse(wrong), None);
        }
    }

    #[test]
    fn a_higher_priority_and_then_a_waiting_caller_goes_first() {
        let rank = |text: &str, waited_for| {
            let priority = Priority::parse(text).unwrap();
            Ask {
                priority,
                waited_for,
                ..Ask::default()
            }
            .rank()
        };
        let ranks = [
            rank("9", true),
            rank("9", false),
            rank("high", true),
            rank("normal", false),
            rank("0", true),
            rank("0", false),
        ];
        assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
        assert_eq!((ranks[0], ranks[5]), (1, 20));
    }
}
