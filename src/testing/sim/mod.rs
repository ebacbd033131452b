//! The deterministic simulator: the scheduler, the driver, the repositories and the queue handling as they are in production,
//! in several processes at once, on virtual time, over storage that fails in every way that it may.
//!
//! A seed says everything: what is asked for, how long everything takes, what goes wrong and when ([`Scenario`]). One thread,
//! tokio's paused clock and seeded chance make the same seed the same history, to the last byte. [`simulate()`] plays it and
//! answers what was not as it must be. `docs/testing.md` says how to read and repeat one.
//!
//! A process is a `usecase::Context` with its own ports, clock and runner ([`process`]). It dies when its ports stop
//! answering: everything of it that anybody can see goes through them.

pub mod memory;
pub mod process;

mod callers;
mod check;
mod clock;
mod graphs;
mod history;
mod judge;
mod link;
mod people;
mod random;
mod rest;
mod runner;
mod scenario;
mod simulate;
mod site;
mod slip;
mod tally;
mod trace;
mod triggers;

pub use process::{Ground, Host};
pub use scenario::{Request, Scenario, Settings, Then};
pub use simulate::{Verdict, simulate};
pub use site::{CrashAt, Weather};
pub use slip::Slip;
pub use tally::Tally;
pub use triggers::{HookStory, ScheduleStory};
