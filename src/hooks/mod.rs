//! Webhooks: what a hook is, how its deliveries are signed, and what a delivery says. Pure.
//!
//! A delivery is a request from outside that starts a run. Nobody vouches for its sender but the signature of its body, so
//! nothing of it is believed, and nothing but its headers is read, before [`verify`] has answered. The [`Verified`] that it
//! answers has no other constructor, and `tenancy` makes a scope of nothing else.

mod delivery;
mod scheme;
mod verify;

use serde::{Deserialize, Serialize};

pub use delivery::{Request, Unreadable, arguments, challenge_of};
pub use scheme::{Encoding, Generic, SCHEMES, Scheme, Signing};
pub use verify::{MAX_SIGNATURES, Rejected, Verified, generate_secret, is_secret, verify};

use crate::domain::{DisplayName, HookId, Timestamp};

/// How long a delivery that came twice leads to one run, unless the hook says otherwise: 24 hours.
pub const WINDOW_SECONDS: u32 = 24 * 3600;
/// The bounds of that: a minute to a week.
pub const WINDOWS: std::ops::RangeInclusive<u32> = 60..=7 * 24 * 3600;
/// Deliveries of one source address in a minute, unless the hook says otherwise.
pub const PER_MINUTE: u32 = 120;
/// The bounds of that.
pub const RATES: std::ops::RangeInclusive<u32> = 1..=6000;
/// How many times that all sources together may deliver: signed deliveries only, so that nobody else uses it up.
pub const ALL_SOURCES: u32 = 10;
/// How long an old secret stays good beside a new one, unless the caller says otherwise: 24 hours.
pub const OVERLAP_SECONDS: u32 = 24 * 3600;
/// The most of that: a week. None ends the old one at once.
pub const MAX_OVERLAP_SECONDS: u32 = 7 * 24 * 3600;

/// A webhook as it is stored. Its secrets are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Its id, in its address.
    pub id: HookId,
    /// What people call it.
    pub name: DisplayName,
    /// What a delivery runs.
    pub workflow: String,
    /// How deliveries are signed.
    pub scheme: Scheme,
    /// How a delivery becomes arguments.
    pub arguments: ArgumentRule,
    /// Whether deliveries are taken.
    pub enabled: bool,
    /// How many one source address may send in a minute.
    pub per_minute: u32,
    /// When two deliveries are one.
    pub deduplicate: Deduplicate,
    /// The query parameter that a GET is answered with, for senders who try an address so; none and there is no GET.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub challenge: Option<String>,
    /// The id of the principal who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Its secrets, the newest first: one, or two while one takes the other's place.
    pub secrets: Vec<HookSecret>,
}

impl Hook {
    /// The secrets that are good at a time.
    pub fn good_secrets(&self, now: Timestamp) -> impl Iterator<Item = &HookSecret> {
        self.secrets
            .iter()
            .filter(move |secret| secret.until.is_none_or(|until| now < until))
    }
}

/// That there is a secret, and how long it is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookSecret {
    /// Tells it from the hook's others; random.
    pub version: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being good; none for the current one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

/// How a delivery becomes arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum ArgumentRule {
    /// The body, a JSON object or a form, is the arguments.
    Body,
    /// One argument of this name is `{headers, query, body}`.
    Wrap {
        /// The argument.
        name: String,
    },
}

/// When two deliveries are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deduplicate {
    /// By what.
    pub by: SameBy,
    /// For how long.
    pub window_seconds: u32,
}

/// By what a delivery that comes again is recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameBy {
    /// By the id that its scheme gives it; without one, by its time and its body.
    Delivery,
    /// By its body alone.
    Body,
}

impl SameBy {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Body => "body",
        }
    }
}
