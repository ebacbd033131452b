//! The deterministic simulator.

pub mod memory;
