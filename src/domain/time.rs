//! Points in time, to the millisecond, always UTC.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since the Unix epoch. Written as RFC 3339 with three decimals (`2026-11-21T00:00:00.000Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59.999Z, the last point that RFC 3339 and thirteen digits can say.
const LAST: i64 = 253_402_300_799_999;

impl Timestamp {
    /// From milliseconds; what lies outside the years 1970 to 9999 is clamped.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self(0)
        } else if millis > LAST {
            Self(LAST)
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Later by a duration.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(LAST)))
    }

    /// Earlier by a duration.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(LAST)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The day as `20261121`.
    #[must_use]
    pub fn day(self) -> String {
        let at = self.calendar();
        format!("{:04}{:02}{:02}", at.year(), u8::from(at.month()), at.day())
    }

    /// Fifteen digits that sort from late to early.
    #[must_use]
    pub fn reversed(self) -> String {
        format!("{:015}", LAST - self.0)
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// When the text is not RFC 3339.
    pub fn parse(text: &str) -> Result<Self, time::error::Parse> {
        let at = OffsetDateTime::parse(text, &Rfc3339)?;
        Ok(Self::from_millis(
            i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(LAST),
        ))
    }

    fn calendar(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.calendar();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let at = Timestamp::from_millis(1_795_219_200_123);
        assert_eq!(at.to_string(), "2026-11-21T00:00:00.123Z");
        assert_eq!(Timestamp::parse(&at.to_string()).unwrap(), at);
        assert_eq!(at.day(), "20261121");
    }

    #[test]
    fn reversed_sorts_late_first() {
        let early = Timestamp::from_millis(1);
        let late = Timestamp::from_millis(1_795_219_200_000);
        assert!(late.reversed() < early.reversed());
        assert_eq!(late.reversed().len(), early.reversed().len());
    }
}
