//! The ports in memory.

mod objects;
mod rows;
pub mod records;
//! The ports in memory: deterministic, so that a seed replays.


pub use objects::MemoryObjects;
pub use rows::MemoryRows;
