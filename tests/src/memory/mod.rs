//! The ports in memory: deterministic, so that a seed replays.

mod model;
mod objects;
pub mod records;
mod rows;

pub use model::MemoryModel;
pub use objects::MemoryObjects;
pub use rows::MemoryRows;
