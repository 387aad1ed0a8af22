//! The ports: what a leg may do, drawn by what the legs need. Adapters are thin; a conformance suite runs on each.
//!
//! A port call has three ways to go wrong: it failed before its effect, its effect happened and the reply was lost, or it
//! hung. An adapter need not tell them apart: it says `Unknown`, and the caller reads back ([`crate::write`]).

use crate::clock::Millis;
use crate::names::{Bucket, RunId, ShardId, ShardIndex};
use crate::pipeline::{KeyType, Pipeline};
use crate::record::{AnswerLine, Counts, Header, Key, Snapshot, Usage};
use crate::source::Source;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The version of an object. Every write of a name gets another one; they need not be consecutive.
pub type Generation = i64;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its name within the bucket.
    pub name: String,
    /// Its version.
    pub generation: Generation,
    /// When this version was written, by the server's clock.
    pub created: Millis,
    /// Bytes.
    pub size: u64,
}

/// An object, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What is known of it.
    pub meta: Meta,
    /// Its bytes.
    pub body: Bytes,
}

/// Why an object call did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// The object exists already (create), or its generation is another (replace). 412, and 403 for a writer without the
    /// right to delete.
    #[error("the object is there already, or another version of it")]
    Precondition,
    /// Not allowed, whatever the state of the object.
    #[error("not allowed: {0}")]
    Denied(String),
    /// Failed, perhaps after its effect. 429, 5xx, a timeout, a lost connection.
    #[error("storage did not confirm: {0}")]
    Unknown(String),
}

/// Objects in the four buckets. Immutable but for claims, `splits/`, `open/` and `control/`.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Creates `name` if it is absent.
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError>;
    /// Overwrites `name` if its generation is `expected` (compare-and-swap).
    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError>;
    /// Removes `name` if its generation is `expected`, or whatever it is. An absent object is removed already.
    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError>;
    /// What is known of the live version; `None` when absent.
    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError>;
    /// The whole object, at `generation` or its live version; `None` when that is absent.
    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError>;
    /// At most `most` bytes from `offset` of that version; fewer only at its end; `None` when that version is gone.
    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError>;
    /// At most `most` live objects whose names start with `prefix` and are greater than `after`, in order of their names.
    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError>;
}

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

/// One question to the model.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked of every row of the run: system instruction, schema, settings.
    pub pipeline: Arc<Pipeline>,
    /// The template, rendered with the row.
    pub prompt: String,
    /// The row. Only the stand-in model looks at it.
    pub row: Arc<Map<String, Value>>,
    /// Output tokens at most, where it differs from the pipeline's.
    pub max_output_tokens: Option<u32>,
}

/// A reply that the model finished, for better or worse. Classified by [`crate::outcome`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The answer's text (all parts that are not thoughts); empty when there is none.
    pub text: String,
    /// `finishReason` as the model wrote it: STOP, MAX_TOKENS, SAFETY, …
    pub finish: Option<String>,
    /// `promptFeedback.blockReason` as the model wrote it.
    pub blocked: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// `modelVersion`, or the model that was asked for.
    pub model: String,
}

/// Why there is no reply. No variant carries text of the row: messages of the API may echo it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// 429, and the 503 that says "overloaded". Not paid, never an attempt of the row.
    #[error("the model is busy")]
    Busy {
        /// RetryInfo or Retry-After.
        retry_after: Option<Duration>,
    },
    /// 500, 502, 503, or no connection at all. Not paid.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
    /// 504, timeout, reset after sending. Perhaps paid.
    #[error("no reply: {0}")]
    Ambiguous(String),
    /// A 200 whose body is no reply. Paid.
    #[error("the reply is not readable: {0}")]
    Garbled(String),
    /// 400 INVALID_ARGUMENT. Not paid.
    #[error("the model refused the request: {0}")]
    Invalid(String),
    /// 401, 403, 404, billing, API_KEY_INVALID, FAILED_PRECONDITION: no row's fault. Not paid. Says what to do.
    #[error("{0}")]
    Systemic(String),
}

/// A model.
#[async_trait]
pub trait Model: Send + Sync {
    /// Asks once. Never retries: who pays decides.
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault>;
}

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

/// An object was finalized: a hint that there may be work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub bucket: Bucket,
    /// Its name.
    pub name: String,
    /// Its version.
    pub generation: Generation,
}

/// What a handler says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done, now or earlier, or never to be done: acknowledge (200).
    Done,
    /// Not an event of ours: acknowledge (204).
    NotOurs,
    /// Deliver it again (503).
    Later(Why),
}

/// Why an event is to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another process holds the claim.
    LiveClaim,
    /// This process holds as many shards as it admits.
    Full,
    /// This process is stopping.
    Stopping,
    /// A systemic error stopped the machine. Says what to do.
    Systemic(String),
    /// The shard's budget of retries is spent.
    Spent,
    /// A port did not confirm.
    Unconfirmed(String),
    /// The claim was lost to another process.
    LostClaim,
}

impl From<ObjectsError> for Why {
    fn from(error: ObjectsError) -> Why {
        match error {
            ObjectsError::Denied(what) => Why::Systemic(format!("storage does not allow it: {what}")),
            ObjectsError::Precondition | ObjectsError::Unknown(_) => Why::Unconfirmed(error.to_string()),
        }
    }
}
