//! Support for the tests that cross crates.

pub mod bigquery_server;
pub mod build;
pub mod emulators;
pub mod memory;
pub mod model_server;
pub mod sim;
pub mod suites;
