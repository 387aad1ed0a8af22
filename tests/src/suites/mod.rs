//! Conformance suites: what every adapter of a port must do. An error names the step that failed.

pub mod books;
mod model;
mod objects;
pub mod records;
mod rows;

pub use model::{model_suite, questions as model_questions};
pub use objects::objects_suite;
pub use rows::rows_suite;
