//! The ports in memory.

pub mod records;
