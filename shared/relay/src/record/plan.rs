use super::Parent;
use crate::clock::Millis;
use crate::names::RunId;
use crate::ports::Generation;
use crate::source::Source;
use serde::{Deserialize, Serialize};

/// What a run is. Embeds everything that later legs need. The first plan is the plan: who finds one follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The run.
    pub run: RunId,
    /// The pinned input.
    pub input: Input,
    /// The pipeline's name.
    pub pipeline: String,
    /// The whole text of the pipeline; empty when it could not be read.
    pub pipeline_text: String,
    /// How old the rows are: the greater one wins in the store. The inbox object's creation; for a retry the parent's; where
    /// there is a [`super::Snapshot`], its own replaces it.
    pub source_time: Millis,
    /// Creation of the run's own inbox object: breaks ties of `source_time`.
    pub run_time: Millis,
    /// Rows of a shard, fixed here.
    pub rows_per_shard: u32,
    /// The run whose failed rows these are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Where the rows come from when not from the inbox object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// Why nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Rows of BigQuery, as they are to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Which rows.
    pub source: Source,
    /// Parts of the snapshot: at least 1, at most [`crate::limits::PARTS_MAX`].
    pub parts: u32,
}

/// An inbox object at a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// `<pipeline>/<file>`.
    pub name: String,
    /// Its version.
    pub generation: Generation,
    /// Bytes.
    pub size: u64,
}
