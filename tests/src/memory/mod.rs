//! The ports in memory: deterministic, so that a seed replays.

mod model;
mod objects;
pub mod records;
mod rows;
mod snapshots;

pub use model::MemoryModel;
pub use objects::MemoryObjects;
pub use rows::MemoryRows;
pub use snapshots::{Act, MemorySnapshots};
