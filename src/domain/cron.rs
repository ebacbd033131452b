//! Cron expressions of five fields: which local minutes they name. No time zone, no present.
//!
//! `minute hour day-of-month month day-of-week`, each a `*`, a value, a range `a-b`, a step `*/n`, `a-b/n` or `a/n`, or a list of
//! those. Months and weekdays have names of three letters. `L` is the last day of the month. As in every cron, a date counts when
//! it fits both the day of the month and the weekday if one of them begins with `*`, and else when it fits either.

use std::fmt;

/// Longest expression.
const MAX_CHARS: usize = 200;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Short names, and what they stand for.
const NAMES: [(&str, &str); 8] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@minutely", "* * * * *"),
];

/// What is wrong with an expression, and how it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronProblem {
    /// The stable code of the finding: `cron_fields`, `cron_field`, `cron_never`.
    pub finding: &'static str,
    /// What is wrong, naming the field.
    pub message: String,
    /// What is allowed there.
    pub hint: String,
}

/// One of the five.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
    /// The number of the first name.
    first: u8,
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        least: 0,
        most: 59,
        names: &[],
        first: 0,
    },
    Field {
        name: "hour",
        least: 0,
        most: 23,
        names: &[],
        first: 0,
    },
    Field {
        name: "day of the month",
        least: 1,
        most: 31,
        names: &[],
        first: 0,
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &MONTHS,
        first: 1,
    },
    Field {
        name: "day of the week",
        least: 0,
        most: 7,
        names: &WEEKDAYS,
        first: 0,
    },
];

/// A cron expression. Equal texts are equal expressions; the text is kept as it was written, with single blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// Whether a date counts when it fits day or weekday, because both are restricted.
    either_day: bool,
    every_hour: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<CronProblem>> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.chars().count() > MAX_CHARS {
            return Err(vec![fields(format!(
                "the expression is longer than {MAX_CHARS} characters"
            ))]);
        }
        let meant = if text.starts_with('@') {
            let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
            found.map(|(_, meant)| *meant).ok_or_else(|| {
                let known: Vec<_> = NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
                vec![CronProblem {
                    finding: "cron_fields",
                    message: format!("`{text}` is not a known name"),
                    hint: format!("known are {}", known.join(", ")),
                }]
            })?
        } else {
            text.as_str()
        };
        let parts: Vec<&str> = meant.split(' ').filter(|part| !part.is_empty()).collect();
        if parts.len() != FIELDS.len() {
            let message = match parts.len() {
                0 => "the expression is empty".to_owned(),
                6 | 7 => format!(
                    "the expression has {} fields; seconds and years are not supported",
                    parts.len()
                ),
                1 => "the expression has 1 field instead of 5".to_owned(),
                found => format!("the expression has {found} fields instead of 5"),
            };
            return Err(vec![fields(message)]);
        }
        let mut problems = Vec::new();
        let mut read = [0u64; 5];
        let mut last_day = false;
        for ((field, part), bits) in FIELDS.iter().zip(&parts).zip(&mut read) {
            for item in part.split(',') {
                if field.name == "day of the month" && item.eq_ignore_ascii_case("l") {
                    last_day = true;
                    continue;
                }
                match field.item(item) {
                    Ok(found) => *bits |= found,
                    Err(problem) => problems.push(problem),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let [minutes, hours, days, months, weekdays] = read;
        // 7 is Sunday too.
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let cron = Self {
            minutes,
            hours,
            days,
            last_day,
            months,
            weekdays,
            either_day: !parts[2].starts_with('*') && !parts[4].starts_with('*'),
            every_hour: parts[1].starts_with('*'),
            text,
        };
        if cron.has_dates() {
            Ok(cron)
        } else {
            Err(vec![CronProblem {
                finding: "cron_never",
                message: format!("`{}` never comes: none of its months has such a day", cron.text),
                hint: "February has 29 days at most, and April, June, September and November have 30; `L` is the last day of \
                       any month"
                    .to_owned(),
            }])
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the hour begins with `*`, so that it follows the clock on the wall hour by hour and names no time of the day.
    #[must_use]
    pub const fn every_hour(&self) -> bool {
        self.every_hour
    }

    /// Whether a date counts. `weekday` is 0 for Sunday; `last` is the number of days in the month.
    #[must_use]
    pub const fn on_date(&self, month: u8, day: u8, last: u8, weekday: u8) -> bool {
        if self.months >> month & 1 == 0 {
            return false;
        }
        let by_day = self.days >> day & 1 == 1 || (self.last_day && day == last);
        let by_weekday = self.weekdays >> weekday & 1 == 1;
        if self.either_day {
            by_day || by_weekday
        } else {
            by_day && by_weekday
        }
    }

    /// The hours and minutes of a date that counts, in order.
    pub fn times(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        let hours = (0..24u8).filter(|hour| self.hours >> hour & 1 == 1);
        hours.flat_map(|hour| {
            let minutes = (0..60u8).filter(|minute| self.minutes >> minute & 1 == 1);
            minutes.map(move |minute| (hour, minute))
        })
    }

    /// Whether there is any date. Every month begins on every weekday now and then, so only the days of months matter.
    fn has_dates(&self) -> bool {
        const DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        self.either_day
            || (1..=12u8).zip(DAYS).any(|(month, last)| {
                let days = self.days & ((1u64 << (last + 1)) - 1);
                self.months >> month & 1 == 1 && (days != 0 || self.last_day)
            })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn fields(message: String) -> CronProblem {
    CronProblem {
        finding: "cron_fields",
        message,
        hint:
            "write `minute hour day-of-month month day-of-week`, as in `30 6 * * mon-fri`, or a name such as `@hourly`"
                .to_owned(),
    }
}

impl Field {
    fn problem(&self, message: String) -> CronProblem {
        let names = match self.names {
            [] => String::new(),
            [first, .., last] => format!(", or a name from `{first}` to `{last}`"),
            [only] => format!(", or `{only}`"),
        };
        let last_day = if self.most == 31 { ", `L` for the last day" } else { "" };
        CronProblem {
            finding: "cron_field",
            message: format!("{}: {message}", self.name),
            hint: format!(
                "allowed are `*`, numbers from {} to {}{names}{last_day}, ranges such as `{}-{}`, steps such as `*/{}`, and \
                 lists of those with `,`",
                self.least,
                self.most,
                self.least + 1,
                self.least + 4,
                if self.most > 12 { 5 } else { 2 },
            ),
        }
    }

    fn value(&self, text: &str) -> Result<u8, CronProblem> {
        if let Some(place) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.first + u8::try_from(place).unwrap_or_default());
        }
        let number = Some(text)
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u32>().ok());
        match number {
            Some(number) if (u32::from(self.least)..=u32::from(self.most)).contains(&number) => {
                Ok(u8::try_from(number).unwrap_or_default())
            }
            Some(number) => Err(self.problem(format!("`{number}` is not from {} to {}", self.least, self.most))),
            None if text.is_empty() => Err(self.problem("a value is missing".to_owned())),
            None if text.contains(['#', 'W', 'w', 'L', 'l', '?']) => {
                Err(self.problem(format!("`{text:.30}` is not supported")))
            }
            None => Err(self.problem(format!("`{text:.30}` is not a value"))),
        }
    }

    /// The values of one item of a list, as bits.
    fn item(&self, item: &str) -> Result<u64, CronProblem> {
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((range, step)) => {
                let number = step
                    .parse::<u8>()
                    .ok()
                    .filter(|step| *step > 0 && *step <= self.most - self.least && !item.contains('+'));
                let refused = || {
                    self.problem(format!(
                        "`{step:.30}` is not a step from 1 to {}",
                        self.most - self.least
                    ))
                };
                (range, Some(number.ok_or_else(refused)?))
            }
        };
        // Sunday is there once: as 0.
        let most = if self.most == 7 { 6 } else { self.most };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.least, most),
            None if step.is_some() => (self.value(range)?, most),
            None => {
                let value = self.value(range)?;
                (value, value)
            }
            Some((from, to)) => {
                let (from, to) = (self.value(from)?, self.value(to)?);
                // `fri-sun`: written out, Sunday ends a week.
                let to = if self.most == 7 && to == 0 && from > 0 { 7 } else { to };
                (from, to)
            }
        };
        if from > to {
            return Err(self.problem(format!(
                "the range `{range:.30}` ends before it begins; write it as a list of two ranges"
            )));
        }
        Ok((from..=to)
            .step_by(usize::from(step.unwrap_or(1)))
            .fold(0, |bits, value| bits | 1 << value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = Cron::parse(text).expect_err(text);
        problems.into_iter().map(|problem| problem.message).collect()
    }

    fn times(text: &str) -> usize {
        Cron::parse(text).expect(text).times().count()
    }

    #[test]
    fn fields_name_minutes() {
        for (text, count) in [
            ("* * * * *", 24 * 60),
            ("*/15 * * * *", 24 * 4),
            ("5/20 3 * * *", 3),
            ("0-10/5,59 1,2 * * *", 8),
            ("0 8-18/2 * * *", 6),
            ("@hourly", 24),
            ("@Daily", 1),
            ("  0   6 *  * 1-5 ", 1),
        ] {
            assert_eq!(times(text), count, "{text}");
        }
        assert_eq!(Cron::parse(" 0   6 * * 1-5").unwrap().as_str(), "0 6 * * 1-5");
    }

    #[test]
    fn dates_are_those_of_cron() {
        let on = |text: &str, month, day, last, weekday| Cron::parse(text).unwrap().on_date(month, day, last, weekday);
        // 13 November 2026 is a Friday. Both restricted: either counts.
        assert!(on("0 0 13 * fri", 11, 13, 30, 5));
        assert!(on("0 0 13 * fri", 11, 20, 30, 5));
        assert!(on("0 0 13 * fri", 10, 13, 31, 2));
        assert!(!on("0 0 13 * fri", 10, 14, 31, 3));
        // One begins with `*`: both must fit.
        assert!(!on("0 0 */2 * fri", 11, 20, 30, 5));
        assert!(on("0 0 */2 * fri", 11, 13, 30, 5));
        // The last day, and lists with it.
        assert!(on("0 0 L * *", 2, 28, 28, 6) && on("0 0 L * *", 2, 29, 29, 0) && !on("0 0 L * *", 2, 28, 29, 6));
        assert!(on("0 0 15,L * *", 4, 15, 30, 3) && on("0 0 15,l * *", 4, 30, 30, 4));
        // Sunday is 0, 7 and `sun`, at either end of a range.
        for text in [
            "0 0 * * 0",
            "0 0 * * 7",
            "0 0 * * SUN",
            "0 0 * * fri-sun",
            "0 0 * * 5-7",
            "0 0 * * sun-mon",
        ] {
            assert!(on(text, 11, 15, 30, 0), "{text}");
            assert!(!on(text, 11, 18, 30, 3), "{text}");
        }
        assert!(on("0 0 * jan,Dec *", 12, 1, 31, 2) && !on("0 0 * jan,dec *", 11, 1, 30, 0));
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_field() {
        assert_eq!(
            problems("60 24 0 13 8"),
            [
                "minute: `60` is not from 0 to 59",
                "hour: `24` is not from 0 to 23",
                "day of the month: `0` is not from 1 to 31",
                "month: `13` is not from 1 to 12",
                "day of the week: `8` is not from 0 to 7",
            ]
        );
        for (text, part) in [
            ("", "empty"),
            ("* * * *", "4 fields instead of 5"),
            ("0 0 6 * * *", "seconds and years are not supported"),
            ("@reboot", "not a known name"),
            ("x * * * *", "minute: `x` is not a value"),
            ("1,,2 * * * *", "minute: a value is missing"),
            ("10-5 * * * *", "ends before it begins"),
            ("*/0 * * * *", "not a step from 1 to 59"),
            ("*/+5 * * * *", "not a step"),
            ("*/90 * * * *", "not a step"),
            ("0 0 * * 5#2", "`5#2` is not supported"),
            ("0 0 15W * *", "`15W` is not supported"),
            ("0 0 ? * *", "`?` is not supported"),
            ("-1 * * * *", "minute: a value is missing"),
            ("٣ * * * *", "is not a value"),
            (&"1,".repeat(200), "longer than 200"),
        ] {
            assert!(problems(text)[0].contains(part), "{text}: {:?}", problems(text));
        }
    }

    #[test]
    fn what_never_comes_is_refused() {
        for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "* * 31 nov *"] {
            assert_eq!(Cron::parse(never).unwrap_err()[0].finding, "cron_never", "{never}");
        }
        for comes in ["0 0 29 2 *", "0 0 31 * *", "0 0 30 2 mon", "0 0 L 2 *", "0 0 31 2,3 *"] {
            assert!(Cron::parse(comes).is_ok(), "{comes}");
        }
    }
}
