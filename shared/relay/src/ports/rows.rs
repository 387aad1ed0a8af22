//! Rows of a source, pinned: a file as a stream, BigQuery as a snapshot of parts.

use super::Meta;
use crate::clock::Millis;
use crate::names::RunId;
use crate::pipeline::KeyType;
use crate::record::Snapshot;
use crate::source::Source;
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::ops::Range;

/// One row of a source, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRow {
    /// Where a person finds it: "line 17".
    pub place: String,
    /// Column to value; for a CSV file every value is a string.
    pub row: Result<Map<String, Value>, RowFault>,
}

/// Why a row cannot be used. The row fails; the others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// A word for programs: `bad_json`, `repeated_name`, `bad_csv`, `bad_utf8`, `too_long`, `too_deep`, `too_many_columns`,
    /// `bad_value`.
    pub reason: &'static str,
    /// A sentence for people. Names the place and the mend, never the row's text.
    pub message: String,
    /// The row's key, where it could still be told.
    pub key: Option<Value>,
}

/// Why a source cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The source is unusable, for a reason that a person must mend. Refuses the run.
    #[error("{0}")]
    Refused(String),
    /// The pinned version of the source is gone.
    #[error("the source is gone, or was overwritten")]
    Gone,
    /// A right or a setting is missing: no source's fault. Says what to do.
    #[error("{0}")]
    Systemic(String),
    /// It may work later.
    #[error("the source cannot be read now: {0}")]
    Unknown(String),
    /// So many rows at once do not fit into memory: fewer may.
    #[error("the rows do not fit into memory at once")]
    TooLarge,
}

/// Where rows come from: an object of the inbox, pinned to a generation.
#[async_trait]
pub trait Rows: Send + Sync {
    /// Opens the source at its first row.
    async fn open(&self, input: &Meta) -> Result<Box<dyn RowStream>, RowsError>;
}

/// The rows of one source, in their order.
#[async_trait]
pub trait RowStream: Send {
    /// The next rows, at least one; `None` at the end. Ordinals count from 0 in this order.
    async fn next(&mut self) -> Result<Option<Vec<SourceRow>>, RowsError>;
}

/// What a source would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its columns, in their order.
    pub columns: Vec<SourceColumn>,
    /// Bytes that are read for it: a measure of its size.
    pub bytes: u64,
}

/// A column of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// The keys that it may hold; `None` when it cannot be the key.
    pub key: Option<KeyType>,
}

/// One attempt at a snapshot. The same order is the same job, however often it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The run.
    pub run: RunId,
    /// From 1; the next one only after [`Taking::Failed`], or to cut what was taken again.
    pub attempt: u32,
    /// The rows are those of this earlier attempt, cut into other parts; else the source's.
    pub again: Option<u32>,
    /// Which rows.
    pub source: Source,
    /// Parts, at least 1: a row's is drawn by a hash of its key, so that equal keys are in one part.
    pub parts: u32,
    /// The column of the key.
    pub key: String,
}

/// How an attempt at a snapshot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Its job is at work.
    Pending,
    /// It is there. Its rows are those of all parts: `max_rows` is the caller's.
    Ready {
        /// Where its rows are.
        snapshot: Snapshot,
        /// Their size.
        bytes: u64,
    },
    /// Its job failed for a reason that passes.
    Failed {
        /// When.
        ended: Millis,
        /// A word for people who ask why.
        reason: String,
    },
}

/// A row of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct PartRow {
    /// Its position in the part, from 0: by key.
    pub pos: u64,
    /// Column to value.
    pub row: Result<Map<String, Value>, RowFault>,
}

/// Rows of a table or query, fixed once in parts that are read in any order, by any number of processes.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Whether the source may be read, and what it would give. Reads no row.
    async fn check(&self, source: &Source) -> Result<Checked, RowsError>;
    /// Starts the attempt, unless it was started before, and tells how it stands.
    async fn take(&self, order: &Order) -> Result<Taking, RowsError>;
    /// The rows of a part whose positions are in `rows`, in any order. `Gone` when the snapshot is no longer there, `TooLarge`
    /// when they are more than one and exceed [`crate::limits::PART_BYTES_AT_ONCE`].
    async fn read(&self, snapshot: &Snapshot, part: u32, rows: Range<u64>) -> Result<Vec<PartRow>, RowsError>;
}
