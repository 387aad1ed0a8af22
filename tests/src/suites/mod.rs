//! Conformance suites: what every adapter of a port must do.

mod objects;
mod rows;
pub mod records;
//! Conformance suites: what every adapter of a port must do. An error names the step that failed.


pub use objects::objects_suite;
pub use rows::rows_suite;
