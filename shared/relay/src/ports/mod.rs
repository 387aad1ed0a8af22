//! The ports: what a leg may do, drawn by what the legs need. Adapters are thin; a conformance suite runs on each.
//!
//! A port call has three ways to go wrong: it failed before its effect, its effect happened and the reply was lost, or it
//! hung. An adapter need not tell them apart: it says `Unknown`, and the caller reads back ([`crate::write`]).

mod events;
mod model;
mod objects;
mod records;
mod rows;

pub use events::{Event, Verdict, Why};
pub use model::{Ask, CountTokens, Fault, Model, Reply};
pub use objects::{Generation, Meta, Object, Objects, ObjectsError};
pub use records::{Announcement, Fingerprints, Loaded, Notice, Part, Records, RecordsError, RunRow, RunState};
pub use rows::{
    Checked, Order, PartRow, RowFault, RowStream, Rows, RowsError, Snapshots, SourceColumn, SourceRow, Taking,
};
