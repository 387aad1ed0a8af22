//! Support for the tests that cross crates.

pub mod bigquery_server;
pub mod build;
pub mod collector;
pub mod deployment;
pub mod emulators;
pub mod hooked;
pub mod lines;
pub mod memory;
pub mod model_server;
pub mod oidc;
pub mod proxy;
pub mod quota;
pub mod read_api;
pub mod rest_server;
pub mod sim;
pub mod spanner;
pub mod storage_server;
pub mod suites;
