//! The store: parts loaded in one transaction, runs and their ends, and what is announced.

use super::Generation;
use crate::clock::Millis;
use crate::names::{RunId, ShardId, ShardIndex};
use crate::pipeline::Pipeline;
use crate::record::{AnswerLine, Counts, Header, Key};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All that one answers object brings to the store: loaded in one transaction.
#[derive(Clone, Debug)]
pub struct Part {
    /// The shard.
    pub id: ShardId,
    /// The generation of the answers object.
    pub generation: Generation,
    /// Its header.
    pub header: Header,
    /// Whose target table it goes to.
    pub pipeline: Arc<Pipeline>,
    /// One line per ordinal, in order.
    pub lines: Vec<AnswerLine>,
}

/// What came of loading a part.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one for each load, looked at and dropped")]
pub enum Loaded {
    /// Its transaction committed now.
    Now(Counts),
    /// Its ledger row was there already: nothing was changed.
    Already,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// These rows breach a constraint: ordinal and code. Nothing was committed.
    #[error("the store rejects {} rows", .0.len())]
    Rejected(Vec<(u64, String)>),
    /// A missing table or column, or one of another type: no row's fault. Says what to do.
    #[error("{0}")]
    Systemic(String),
    /// Perhaps committed: the ledger is the answer.
    #[error("the store did not confirm: {0}")]
    Unknown(String),
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunState {
    /// Parts are being loaded.
    Running,
    /// It stands still, paid for no further, until a person resumes it ([`crate::control`]). What was answered is loaded still.
    Parked,
    /// Every row has its outcome.
    Complete,
    /// Refused.
    Failed,
    /// Cancelled by a person.
    Cancelled,
}

impl RunState {
    /// As it stands in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Running => "RUNNING",
            RunState::Parked => "PARKED",
            RunState::Complete => "COMPLETE",
            RunState::Failed => "FAILED",
            RunState::Cancelled => "CANCELLED",
        }
    }

    /// The inverse of [`RunState::as_str`].
    pub fn parse(text: &str) -> Option<RunState> {
        [RunState::Running, RunState::Parked, RunState::Complete, RunState::Failed, RunState::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == text)
    }

    /// An end state: it never changes again.
    pub fn has_ended(self) -> bool {
        !matches!(self, RunState::Running | RunState::Parked)
    }
}

/// One row of Runs with the sum of its counters.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The run.
    pub run: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The inbox object's name.
    pub input: String,
    /// See [`Header::source_time`].
    pub source_time: Millis,
    /// See [`Header::run_time`].
    pub run_time: Millis,
    /// Where it stands.
    pub state: RunState,
    /// Why it was refused.
    pub refused: Option<String>,
    /// Rows, once the header with the totals was loaded.
    pub expected_rows: Option<u64>,
    /// Shards, likewise.
    pub expected_shards: Option<u64>,
    /// When its first part was loaded.
    pub opened_at: Millis,
    /// When it reached its end state.
    pub ended_at: Option<Millis>,
    /// The sum of its counters.
    pub counts: Counts,
}

/// The notice that a run ended or was parked, with an id that is the same however often it is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// `<run>:<end state>`, or `<run>:parked:<generation of the marker>`.
    pub event_id: String,
    /// What is announced: an end state, or PARKED.
    pub state: RunState,
    /// The run as it stands: one that was parked may have gone on since.
    pub run: RunRow,
}

/// What the store holds already: all that a splitter asks of it, and only for pipelines with `only_changed`.
#[async_trait]
pub trait Fingerprints: Send + Sync {
    /// The fingerprints of target rows by key; absent keys are absent. For a target that does not exist yet: none.
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError>;
}

/// The store.
#[async_trait]
pub trait Records: Fingerprints {
    /// Loads a part in one transaction: ledger, target rows, failures, counters, totals ([`crate::settle`] decides which).
    async fn load(&self, part: &Part) -> Result<Loaded, RecordsError>;
    /// With a strong read of the counters: takes the run from RUNNING or PARKED to its end state if all is loaded, in one
    /// transaction with its outbox row. Returns the run as it stands then; `None` for an unknown run.
    async fn finish(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError>;
    /// Which of these shards have a ledger row.
    async fn ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<BTreeSet<ShardIndex>, RecordsError>;
    /// Takes the run of `header` from RUNNING to PARKED, in one transaction with an outbox row for this marker, which comes
    /// once. A run of which no part is loaded becomes known by it; an ended one stays as it is.
    async fn park(&self, header: &Header, marker: Generation) -> Result<(), RecordsError>;
    /// Takes the run from PARKED to RUNNING; in any other state it stays as it is.
    async fn resume(&self, run: &RunId) -> Result<(), RecordsError>;
    /// The outbox: notices that are not marked published; of all runs, or of one.
    async fn unpublished(&self, run: Option<&RunId>) -> Result<Vec<Announcement>, RecordsError>;
    /// Marks a notice published.
    async fn mark_published(&self, event_id: &str) -> Result<(), RecordsError>;
}

/// Tells the world that a run ended or was parked. At least once, with a stable id.
#[async_trait]
pub trait Notice: Send + Sync {
    /// Publishes; an error is tried again by the sweep.
    async fn publish(&self, announcement: &Announcement) -> Result<(), String>;
}
