//! `weft schedules`: when a cron expression fires. Asks no server and no storage.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, output};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{Shown, Timestamp};
use crate::usecase::schedule::{MAX_PREVIEWED, next_times};

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub(super) enum Schedules {
    /// Show the next times at which a cron expression fires, and what happens where clocks are changed
    Preview(Preview),
}

/// Flags of `weft schedules preview`.
#[derive(Debug, Args)]
pub(super) struct Preview {
    /// `minute hour day-of-month month day-of-week`, as `0 6 * * mon-fri`, or a name as `@hourly`
    #[arg(value_name = "CRON")]
    cron: String,
    /// A name of the IANA database, as `Europe/Berlin`
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// What becomes of local times that don't exist: `shift` or `skip`
    #[arg(long, value_name = "RULE", default_value = "shift")]
    dst: String,
    /// How many times, 1 to 50
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: usize,
    /// After this time instead of now, as `2026-03-28T12:00:00Z`
    #[arg(long, value_name = "TIME")]
    after: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Schedules {
    pub(super) fn run(self) -> Outcome {
        let Self::Preview(preview) = self;
        preview.run()
    }
}

impl Preview {
    fn run(self) -> Outcome {
        let after = match &self.after {
            None => SystemClock.now(),
            Some(text) => Timestamp::parse(text).map_err(|_| {
                Failure::new(format!("`{text}` is not a time")).hint("write it as `2026-03-28T12:00:00Z`")
            })?,
        };
        let count = self.count.clamp(1, MAX_PREVIEWED);
        let times =
            next_times(&self.cron, &self.time_zone, Some(&self.dst), after, count).map_err(|findings| Failure {
                findings: findings.clone(),
                ..Failure::new(format!("the schedule has {} finding(s)", findings.len()))
            })?;
        if self.json {
            let items: Vec<_> = times
                .iter()
                .map(|time| json!({"at": time.at, "local": time.local, "shown": time.shown}))
                .collect();
            output::json(&json!({"fireTimes": items}));
        } else {
            let rows: Vec<Vec<String>> = times
                .iter()
                .map(|time| {
                    let remark = match time.shown {
                        Shown::Regular => "",
                        Shown::Shifted => "the local time doesn't exist that day",
                        Shown::FirstPass => "the local time comes twice, this is the first",
                        Shown::SecondPass => "the local time comes twice, this is the second",
                    };
                    vec![time.at.to_string(), time.local.clone(), remark.to_owned()]
                })
                .collect();
            output::table(&["UTC", "LOCAL", ""], &rows);
        }
        Ok(ExitCode::SUCCESS)
    }
}
