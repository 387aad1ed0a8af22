//! The ports in memory: deterministic, so that a seed replays.

mod objects;
pub mod records;
mod rows;

pub use objects::MemoryObjects;
pub use rows::MemoryRows;
