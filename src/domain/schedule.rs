//! When a schedule fires: a cron expression in a time zone, what happens where clocks are changed, and what is made up for.
//!
//! An expression whose hour begins with `*` follows the clock on the wall: it fires at every such minute that comes, in both
//! passes where clocks are put back, and nothing is made up where they are put forward. Every other one names times of the day,
//! and each is one fire time a day: at its first pass where it comes twice, and where it doesn't come, as [`Dst`] says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Serialize};

use super::zone::Local;
use super::{Cron, Timestamp, Zone};

/// How far ahead the next fire time is looked for, in days: 29 February on a certain weekday comes every 40 years at worst.
const HORIZON_DAYS: u32 = 45 * 366;
/// How late a fire time counts as on time.
const ON_TIME: Duration = Duration::from_secs(5 * 60);

/// What a time of the day does on the day on which clocks are put forward past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dst {
    /// It fires at the first instant after the gap.
    #[default]
    Shift,
    /// It doesn't fire that day.
    Skip,
}

/// What happens at a fire time while the run of the one before has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// No run is started.
    #[default]
    Skip,
    /// One fire time waits for the end of the run; further ones are skipped.
    Queue,
    /// A run is started beside it.
    Allow,
    /// The run is cancelled, and a run is started.
    CancelPrevious,
}

/// Which missed fire times are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// None.
    None,
    /// The last one.
    #[default]
    Last,
    /// The last ones, oldest first.
    All,
}

macro_rules! closed_text {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// From the text of `as_str`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

closed_text!(Dst { Shift = "shift", Skip = "skip" });
closed_text!(Overlap { Skip = "skip", Queue = "queue", Allow = "allow", CancelPrevious = "cancel_previous" });
closed_text!(CatchUp { None = "none", Last = "last", All = "all" });

/// What is made up for, within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUpPolicy {
    /// Which.
    pub which: CatchUp,
    /// Most of them at once, with [`CatchUp::All`].
    pub at_most: usize,
    /// How old they may be.
    pub within: Duration,
    /// By how much each is put off at most, which doesn't make it late.
    pub put_off: Duration,
}

/// Fire times for which there is no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
}

impl CatchUpPolicy {
    /// What is done about fire times that have come, given in order: for which runs are started, oldest first, and which are
    /// missed. The newest one counts as on time for five minutes, whatever is made up for.
    pub fn choose(&self, come: impl Iterator<Item = Timestamp>, now: Timestamp) -> (Vec<Timestamp>, Option<Missed>) {
        let keep = match self.which {
            CatchUp::None | CatchUp::Last => 1,
            CatchUp::All => self.at_most.max(1),
        };
        let mut kept = VecDeque::with_capacity(keep);
        let mut missed: Option<Missed> = None;
        let mut miss = |at| match &mut missed {
            Some(missed) => {
                missed.count += 1;
                missed.last = at;
            }
            None => {
                missed = Some(Missed {
                    count: 1,
                    first: at,
                    last: at,
                });
            }
        };
        for at in come {
            kept.push_back(at);
            if kept.len() > keep
                && let Some(old) = kept.pop_front()
            {
                miss(old);
            }
        }
        let oldest = self.oldest(now);
        while let Some(at) = kept.front().copied()
            && at < oldest
        {
            kept.pop_front();
            miss(at);
        }
        (kept.into(), missed)
    }

    /// Before this, nothing is made up for.
    #[must_use]
    pub fn oldest(&self, now: Timestamp) -> Timestamp {
        let within = match self.which {
            CatchUp::None => ON_TIME,
            CatchUp::Last | CatchUp::All => self.within.max(ON_TIME),
        };
        now.minus(within).minus(self.put_off)
    }
}

/// How a fire time came about, where clocks are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// As any other.
    Regular,
    /// Its local time doesn't exist that day; the first instant after the gap.
    Shifted,
    /// Its local time comes twice; this is the first pass.
    FirstPass,
    /// The second pass.
    SecondPass,
}

/// One fire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FireTime {
    /// When.
    pub at: Timestamp,
    /// How it came about.
    pub shown: Shown,
}

/// A cron expression in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Which local times.
    pub cron: Cron,
    /// Where.
    pub zone: Zone,
    /// What happens to those that don't exist.
    pub dst: Dst,
}

impl Timing {
    /// The fire times after `start`, in order, each once. It ends where there is none for 45 years.
    pub fn after(&self, start: Timestamp) -> impl Iterator<Item = FireTime> + '_ {
        let first = self.zone.date(start);
        // A whole day may be left out where a country changes sides of the date line; it shifts into the next.
        let first = first.yesterday().unwrap_or(first);
        Fires {
            timing: self,
            start,
            next_date: Some(first),
            found: BTreeMap::new(),
            fruitless: 0,
        }
    }

    /// The first fire time after `start`.
    #[must_use]
    pub fn next(&self, start: Timestamp) -> Option<FireTime> {
        self.after(start).next()
    }

    fn on(&self, date: Date, found: &mut BTreeMap<Timestamp, Shown>) {
        let number = |value: i8| u8::try_from(value).unwrap_or_default();
        let weekday = number(date.weekday().to_sunday_zero_offset());
        let counts = self.cron.on_date(
            number(date.month()),
            number(date.day()),
            number(date.days_in_month()),
            weekday,
        );
        if !counts {
            return;
        }
        for (hour, minute) in self.cron.times() {
            let time = date.at(hour.cast_signed(), minute.cast_signed(), 0, 0);
            self.at(time, found);
        }
    }

    fn at(&self, time: DateTime, found: &mut BTreeMap<Timestamp, Shown>) {
        match self.zone.local(time) {
            // Beyond the years that there are.
            None => {}
            Some(Local::Once(at)) => {
                found.insert(at, Shown::Regular);
            }
            // Several shift to the same instant, and it may be one of its own: that is one fire time.
            Some(Local::Never(at)) if self.dst == Dst::Shift && !self.cron.every_hour() => {
                found.entry(at).or_insert(Shown::Shifted);
            }
            Some(Local::Never(_)) => {}
            Some(Local::Twice(first, second)) => {
                found.insert(first, Shown::FirstPass);
                if self.cron.every_hour() {
                    found.insert(second, Shown::SecondPass);
                }
            }
        }
    }
}

struct Fires<'a> {
    timing: &'a Timing,
    start: Timestamp,
    next_date: Option<Date>,
    found: BTreeMap<Timestamp, Shown>,
    /// Dates in a row without a fire time.
    fruitless: u32,
}

impl Iterator for Fires<'_> {
    type Item = FireTime;

    fn next(&mut self) -> Option<FireTime> {
        loop {
            if let Some((&at, &shown)) = self.found.first_key_value() {
                // What a later date has is later, once the date after this one is known as well.
                let known = self.next_date.is_none_or(|next| {
                    let date = self.timing.zone.date(at);
                    date.tomorrow().is_ok_and(|tomorrow| tomorrow < next)
                });
                if known {
                    self.found.pop_first();
                    return Some(FireTime { at, shown });
                }
            }
            let date = self.next_date.filter(|_| self.fruitless < HORIZON_DAYS)?;
            self.timing.on(date, &mut self.found);
            while let Some((&at, _)) = self.found.first_key_value()
                && at <= self.start
            {
                self.found.pop_first();
            }
            self.fruitless = if self.found.is_empty() { self.fruitless + 1 } else { 0 };
            self.next_date = date.tomorrow().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(cron: &str, zone: &str, dst: Dst) -> Timing {
        Timing {
            cron: Cron::parse(cron).unwrap(),
            zone: Zone::find(zone).unwrap(),
            dst,
        }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    /// What a clock there shows at the next fire times after a point in UTC.
    fn next(cron: &str, zone: &str, dst: Dst, after: &str, count: usize) -> Vec<String> {
        let timing = timing(cron, zone, dst);
        let shown = timing.after(at(after)).take(count);
        shown.map(|fire| timing.zone.show(fire.at)).collect()
    }

    /// One row: expression, zone, rule, after (UTC), what clocks show at the next fire times.
    type Row = (&'static str, &'static str, Dst, &'static str, &'static [&'static str]);

    #[test]
    fn fire_times_where_clocks_are_changed() {
        use Dst::{Shift, Skip};
        const ROWS: &[Row] = &[
            // Berlin, forward on 29 March 2026 from 02:00 to 03:00.
            (
                "30 2 * * *",
                "Europe/Berlin",
                Shift,
                "2026-03-28T02:00:00Z",
                &["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                Skip,
                "2026-03-28T02:00:00Z",
                &["2026-03-30T02:30:00+02:00"],
            ),
            // All of the gap shift to one instant; it is a fire time of its own as well, and counts once.
            (
                "0,30 2,3 * * *",
                "Europe/Berlin",
                Shift,
                "2026-03-28T12:00:00Z",
                &[
                    "2026-03-29T03:00:00+02:00",
                    "2026-03-29T03:30:00+02:00",
                    "2026-03-30T02:00:00+02:00",
                ],
            ),
            (
                "*/20 * * * *",
                "Europe/Berlin",
                Shift,
                "2026-03-29T00:30:00Z",
                &[
                    "2026-03-29T01:40:00+01:00",
                    "2026-03-29T03:00:00+02:00",
                    "2026-03-29T03:20:00+02:00",
                ],
            ),
            // An hour that begins with `*` makes nothing up: 01:30 and 03:30 are an hour apart.
            (
                "30 * * * *",
                "Europe/Berlin",
                Shift,
                "2026-03-29T00:00:00Z",
                &["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"],
            ),
            // Berlin, back on 25 October 2026 from 03:00 to 02:00.
            (
                "30 2 * * *",
                "Europe/Berlin",
                Shift,
                "2026-10-24T12:00:00Z",
                &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
            ),
            (
                "*/30 2 * * *",
                "Europe/Berlin",
                Shift,
                "2026-10-24T12:00:00Z",
                &[
                    "2026-10-25T02:00:00+02:00",
                    "2026-10-25T02:30:00+02:00",
                    "2026-10-26T02:00:00+01:00",
                ],
            ),
            (
                "*/30 * * * *",
                "Europe/Berlin",
                Shift,
                "2026-10-24T23:45:00Z",
                &[
                    "2026-10-25T02:00:00+02:00",
                    "2026-10-25T02:30:00+02:00",
                    "2026-10-25T02:00:00+01:00",
                    "2026-10-25T02:30:00+01:00",
                    "2026-10-25T03:00:00+01:00",
                ],
            ),
            // In the middle of the second pass, the first is over.
            (
                "30 2 * * *",
                "Europe/Berlin",
                Shift,
                "2026-10-25T01:00:00Z",
                &["2026-10-26T02:30:00+01:00"],
            ),
            // New York, forward on 8 March 2026, back on 1 November 2026.
            (
                "15 2 * * *",
                "America/New_York",
                Shift,
                "2026-03-07T12:00:00Z",
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:15:00-04:00"],
            ),
            (
                "15 1 * * *",
                "America/New_York",
                Shift,
                "2026-10-31T12:00:00Z",
                &["2026-11-01T01:15:00-04:00", "2026-11-02T01:15:00-05:00"],
            ),
            (
                "0 0,1 * * *",
                "America/New_York",
                Shift,
                "2026-11-01T03:00:00Z",
                &[
                    "2026-11-01T00:00:00-04:00",
                    "2026-11-01T01:00:00-04:00",
                    "2026-11-02T00:00:00-05:00",
                ],
            ),
            // Lord Howe, by half an hour: forward on 4 October 2026 from 02:00 to 02:30, back on 5 April 2026 from 02:00 to 01:30.
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                Shift,
                "2026-10-03T00:00:00Z",
                &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
            ),
            (
                "45 2 * * *",
                "Australia/Lord_Howe",
                Skip,
                "2026-10-03T00:00:00Z",
                &["2026-10-04T02:45:00+11:00"],
            ),
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                Shift,
                "2026-04-04T12:00:00Z",
                &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
            ),
            (
                "*/15 * * * *",
                "Australia/Lord_Howe",
                Shift,
                "2026-04-04T14:25:00Z",
                &[
                    "2026-04-05T01:30:00+11:00",
                    "2026-04-05T01:45:00+11:00",
                    "2026-04-05T01:30:00+10:30",
                    "2026-04-05T01:45:00+10:30",
                    "2026-04-05T02:00:00+10:30",
                ],
            ),
            // Without such changes.
            (
                "30 2 * * *",
                "Asia/Kolkata",
                Shift,
                "2026-03-28T12:00:00Z",
                &["2026-03-29T02:30:00+05:30", "2026-03-30T02:30:00+05:30"],
            ),
            (
                "30 2 * * *",
                "UTC",
                Skip,
                "2026-03-28T12:00:00Z",
                &["2026-03-29T02:30:00+00:00"],
            ),
            // At midnight: Santiago forward on 6 September 2026, back on 5 April 2026 to 23:00 of the 4th.
            (
                "@daily",
                "America/Santiago",
                Shift,
                "2026-09-05T12:00:00Z",
                &["2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"],
            ),
            (
                "@daily",
                "America/Santiago",
                Skip,
                "2026-09-05T12:00:00Z",
                &["2026-09-07T00:00:00-03:00"],
            ),
            (
                "30 23 * * *",
                "America/Santiago",
                Shift,
                "2026-04-04T12:00:00Z",
                &["2026-04-04T23:30:00-03:00", "2026-04-05T23:30:00-04:00"],
            ),
            (
                "30 * * * *",
                "America/Santiago",
                Shift,
                "2026-04-05T02:00:00Z",
                &[
                    "2026-04-04T23:30:00-03:00",
                    "2026-04-04T23:30:00-04:00",
                    "2026-04-05T00:30:00-04:00",
                ],
            ),
            // Only that day of the week: the shifted one still belongs to Sunday.
            (
                "0 0 * * sun",
                "America/Santiago",
                Shift,
                "2026-09-01T12:00:00Z",
                &["2026-09-06T01:00:00-03:00", "2026-09-13T00:00:00-03:00"],
            ),
            // Beirut, forward on 29 March 2026 from 00:00 to 01:00.
            (
                "0 0 * * *",
                "Asia/Beirut",
                Shift,
                "2026-03-28T12:00:00Z",
                &["2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"],
            ),
            // Samoa left out 30 December 2011.
            (
                "0 9 * * *",
                "Pacific/Apia",
                Shift,
                "2011-12-29T18:00:00Z",
                &[
                    "2011-12-29T09:00:00-10:00",
                    "2011-12-31T00:00:00+14:00",
                    "2011-12-31T09:00:00+14:00",
                ],
            ),
            (
                "0 9 * * *",
                "Pacific/Apia",
                Skip,
                "2011-12-29T18:00:00Z",
                &["2011-12-29T09:00:00-10:00", "2011-12-31T09:00:00+14:00"],
            ),
        ];
        for (cron, zone, dst, after, expected) in ROWS {
            assert_eq!(
                next(cron, zone, *dst, after, expected.len()),
                *expected,
                "`{cron}` in {zone}, {dst:?}, after {after}"
            );
        }
    }

    #[test]
    fn leap_days_and_ends_of_months() {
        let utc = |cron, after, count| next(cron, "UTC", Dst::Shift, after, count);
        assert_eq!(
            utc("0 12 29 2 *", "2096-02-29T12:00:00Z", 1),
            ["2104-02-29T12:00:00+00:00"]
        );
        assert_eq!(
            utc("0 0 L * *", "2027-12-31T00:00:00Z", 3),
            [
                "2028-01-31T00:00:00+00:00",
                "2028-02-29T00:00:00+00:00",
                "2028-03-31T00:00:00+00:00"
            ]
        );
        assert_eq!(
            utc("0 0 31 * *", "2026-01-31T00:00:00Z", 2),
            ["2026-03-31T00:00:00+00:00", "2026-05-31T00:00:00+00:00"]
        );
        // 29 February on a Sunday, by the rule that both must fit where one begins with `*`.
        assert_eq!(
            utc("0 0 29 2 */7", "2088-03-01T00:00:00Z", 1),
            ["2128-02-29T00:00:00+00:00"]
        );
        assert_eq!(
            utc("59 23 31 12 *", "2026-12-31T23:58:59.999Z", 1),
            ["2026-12-31T23:59:00+00:00"]
        );
    }

    #[test]
    fn fire_times_are_in_order_and_each_once() {
        for zone in [
            "Europe/Berlin",
            "Australia/Lord_Howe",
            "America/Santiago",
            "America/Havana",
            "Asia/Gaza",
            "UTC",
        ] {
            for cron in ["*/7 * * * *", "0,30 0-4 * * *", "15 23 * * *", "@hourly"] {
                let timing = timing(cron, zone, Dst::Shift);
                let start = at("2026-01-01T00:00:00Z");
                let end = at("2027-01-01T00:00:00Z");
                let mut last = start;
                let mut sampled = 0;
                for fire in timing.after(start).take_while(|fire| fire.at < end) {
                    assert!(fire.at > last, "`{cron}` in {zone}: {} after {last}", fire.at);
                    // Asked one by one it is the same; not for all of them, since every question reads three days.
                    if sampled % 1009 == 0 {
                        assert_eq!(timing.next(last), Some(fire), "`{cron}` in {zone} after {last}");
                    }
                    sampled += 1;
                    last = fire.at;
                }
                assert!(sampled >= 365, "`{cron}` in {zone}: {sampled}");
            }
        }
    }

    #[test]
    fn what_is_missed_is_made_up_for_within_bounds() {
        let now = at("2026-06-01T12:00:00Z");
        let minutes_ago = |minutes: u64| now.minus(Duration::from_secs(60 * minutes));
        let policy = |which, at_most| CatchUpPolicy {
            which,
            at_most,
            within: Duration::from_secs(3600),
            put_off: Duration::ZERO,
        };
        let choose = |which, at_most, ago: &[u64]| {
            let (run, missed) = policy(which, at_most).choose(ago.iter().map(|ago| minutes_ago(*ago)), now);
            let run: Vec<u64> = run.iter().map(|at| now.since(*at).as_secs() / 60).collect();
            (run, missed.map_or(0, |missed| missed.count))
        };
        // On time, whatever is made up for; five minutes late too.
        for which in CatchUp::ALL {
            assert_eq!(choose(*which, 10, &[0]), (vec![0], 0));
            assert_eq!(choose(*which, 10, &[5]), (vec![5], 0));
        }
        assert_eq!(choose(CatchUp::None, 10, &[6]), (vec![], 1));
        assert_eq!(choose(CatchUp::None, 10, &[2, 1, 0]), (vec![0], 2));
        assert_eq!(choose(CatchUp::Last, 10, &[90, 30, 6]), (vec![6], 2));
        assert_eq!(choose(CatchUp::Last, 10, &[90]), (vec![], 1));
        assert_eq!(choose(CatchUp::All, 10, &[90, 60, 30, 0]), (vec![60, 30, 0], 1));
        assert_eq!(choose(CatchUp::All, 2, &[50, 40, 30, 20]), (vec![30, 20], 2));
        assert_eq!(choose(CatchUp::All, 2, &[]), (vec![], 0));
        let (_, missed) = policy(CatchUp::Last, 10).choose([90, 80, 3].map(minutes_ago).into_iter(), now);
        let missed = missed.unwrap();
        assert_eq!((missed.first, missed.last), (minutes_ago(90), minutes_ago(80)));
    }
}
