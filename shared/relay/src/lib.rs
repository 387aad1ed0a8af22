//! What the legs of the relay share.
//!
//! Start with [`names`] (what an object is called), [`record`] (what is in it) and [`ports`] (what a leg may do).
//! Pure logic lives apart from I/O: everything here that awaits does so on a port or on the [`clock`].

pub mod answer;
pub mod books;
pub mod budget;
pub mod calls;
pub mod checkpoint;
pub mod claims;
pub mod clock;
pub mod control;
pub mod ddl;
pub mod deadline;
pub mod estimate;
pub mod files_only;
pub mod gemini;
pub mod jobs;
pub mod leg;
pub mod limits;
pub mod names;
pub mod openai;
pub mod outcome;
pub mod pace;
pub mod pipeline;
pub mod ports;
pub mod prices;
pub mod prompt;
pub mod record;
pub mod router;
pub mod rows;
pub mod schema;
pub mod settle;
pub mod source;
pub mod stand_in;
pub mod stored;
pub mod sweep;
pub mod write;
