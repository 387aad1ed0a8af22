//! Support for the tests that cross crates.

pub mod memory;
pub mod suites;
