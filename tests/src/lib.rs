//! Support for the tests that cross crates.

pub mod bigquery_server;
pub mod build;
pub mod cut;
pub mod deployment;
pub mod emulators;
pub mod memory;
pub mod model_server;
pub mod oidc;
pub mod quota;
pub mod sim;
pub mod spanner;
pub mod storage_server;
pub mod suites;
