//! The deterministic simulator and its tests: `docs/testing.md` describes it.

#![expect(
    clippy::print_stdout,
    reason = "a trace and a seed's replay command are read by people"
)]

mod conformance;
mod crashes;
mod defects;
mod seeds;
