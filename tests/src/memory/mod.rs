//! The ports in memory: deterministic, so that a seed replays.

mod objects;
mod rows;

pub use objects::MemoryObjects;
pub use rows::MemoryRows;
