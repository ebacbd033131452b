//! The deterministic simulator and its tests: `docs/testing.md` describes it.

mod conformance;
mod crashes;
mod defects;
mod seeds;
