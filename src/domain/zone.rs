//! Time zones of the IANA database, as this build of Weft has it, and what a clock on the wall there says.
//!
//! The database is part of the program, not of the computer that it runs on: every instance of a version computes alike.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use super::{Timestamp, edit_distance};

/// How many names are suggested for one that isn't known.
const SUGGESTED: usize = 3;

/// What becomes of a local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    /// It comes once.
    Once(Timestamp),
    /// It doesn't come: clocks are put forward past it. The first instant after that.
    Never(Timestamp),
    /// It comes twice: clocks are put back before it.
    Twice(Timestamp, Timestamp),
}

/// A time zone.
#[derive(Clone)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone of a name such as `Europe/Berlin` or `UTC`; case doesn't matter.
    ///
    /// # Errors
    /// The nearest names that there are, best first; none when nothing is near.
    pub fn find(name: &str) -> Result<Self, Vec<String>> {
        let database = TimeZoneDatabase::bundled();
        let known = (!name.is_empty() && name.len() <= 64)
            .then(|| database.get(name).ok())
            .flatten();
        if let Some(rules) = known
            && let Some(name) = rules.iana_name()
        {
            return Ok(Self {
                name: name.to_owned(),
                rules: rules.clone(),
            });
        }
        let asked: String = name.to_lowercase().replace(' ', "_").chars().take(64).collect();
        let mut near: Vec<(usize, String)> = database
            .available()
            .map(|known| {
                let known = known.as_str().to_owned();
                let lower = known.to_lowercase();
                // `Berlin` means `Europe/Berlin`.
                let city = lower.rsplit('/').next().unwrap_or_default();
                let distance = edit_distance(&asked, &lower).min(edit_distance(&asked, city) + 1);
                (distance, known)
            })
            .filter(|(distance, _)| *distance <= asked.len() / 3 + 1)
            .collect();
        near.sort();
        let best = near.first().map_or(0, |(distance, _)| *distance);
        near.retain(|(distance, _)| *distance <= best + 1);
        Err(near.into_iter().take(SUGGESTED).map(|(_, name)| name).collect())
    }

    /// The names of all zones, sorted.
    #[must_use]
    pub fn names() -> Vec<String> {
        let database = TimeZoneDatabase::bundled();
        let mut names: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Its name, as the database spells it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A time as a clock there shows it: `2026-03-29T03:00:00+02:00`.
    #[must_use]
    pub fn show(&self, at: Timestamp) -> String {
        let (local, offset) = self.at(at);
        let seconds = offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
        format!("{}{sign}{hours:02}:{minutes:02}", local.strftime("%Y-%m-%dT%H:%M:%S"))
    }

    /// The date there.
    pub(super) fn date(&self, at: Timestamp) -> Date {
        self.at(at).0.date()
    }

    fn at(&self, at: Timestamp) -> (DateTime, Offset) {
        let at = jiff::Timestamp::from_millisecond(at.millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let offset = self.rules.to_offset(at);
        (offset.to_datetime(at), offset)
    }

    /// When a local time comes; nothing beyond the years that there are.
    pub(super) fn local(&self, local: DateTime) -> Option<Local> {
        let instant = |offset: Offset| offset.to_timestamp(local).ok();
        let found = match self.rules.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => Local::Once(timestamp(instant(offset)?)),
            AmbiguousOffset::Fold { before, after } => {
                Local::Twice(timestamp(instant(before)?), timestamp(instant(after)?))
            }
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the later offset it lies before the change, by less than the change.
                let before = instant(after)?;
                let change = self.rules.following(before).find(|change| change.offset() == after)?;
                Local::Never(timestamp(change.timestamp()))
            }
        };
        Some(found)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

fn timestamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_known_or_the_nearest_are_named() {
        assert_eq!(Zone::find("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::find("UTC").unwrap().name(), "UTC");
        assert_eq!(Zone::find("Europe/Berln").unwrap_err()[0], "Europe/Berlin");
        assert_eq!(Zone::find("Berlin").unwrap_err()[0], "Europe/Berlin");
        assert_eq!(Zone::find("Berln").unwrap_err()[0], "Europe/Berlin");
        assert_eq!(Zone::find("America/New York").unwrap_err()[0], "America/New_York");
        for unknown in ["", "+02:00", "Nowhere/At-All", "../etc/passwd", &"x".repeat(500)] {
            assert!(Zone::find(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_time_is_shown_with_its_offset() {
        let at = Timestamp::parse("2026-07-01T12:00:00Z").unwrap();
        for (zone, shown) in [
            ("UTC", "2026-07-01T12:00:00+00:00"),
            ("America/St_Johns", "2026-07-01T09:30:00-02:30"),
            ("Asia/Kathmandu", "2026-07-01T17:45:00+05:45"),
        ] {
            assert_eq!(Zone::find(zone).unwrap().show(at), shown);
        }
    }
}
