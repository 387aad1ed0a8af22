//! Support for the tests that cross crates.

pub mod build;
pub mod memory;
pub mod suites;
