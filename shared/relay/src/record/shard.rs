use super::{Bill, Failed, Key};
use crate::clock::Millis;
use crate::names::{RunId, ShardId, ShardIndex};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The first line of a shard object, and of its answers object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The run.
    pub run: RunId,
    /// The shard.
    pub shard: ShardIndex,
    /// The pipeline's name.
    pub pipeline: String,
    /// The inbox object's name.
    pub input: String,
    /// The first ordinal.
    pub first: u64,
    /// Ordinals: `first..first + rows`, one line each.
    pub rows: u64,
    /// SHA-256 of the source rows, in hexadecimal: two writers of a shard compare this, never the bytes.
    pub digest: String,
    /// See [`super::Plan::source_time`].
    pub source_time: Millis,
    /// See [`super::Plan::run_time`].
    pub run_time: Millis,
    /// What the whole run is. Exactly one shard of a run carries it: a file's last, a snapshot's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// Why the run is refused. Such a shard has no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// In an answers object: paid answers that were thrown away because another for the same row was durable first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wasted_answers: u64,
    /// What those cost, as far as anybody knows.
    #[serde(default, skip_serializing_if = "Bill::is_nothing")]
    pub wasted: Bill,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Header {
    /// The shard that this is the header of.
    pub fn id(&self) -> ShardId {
        ShardId { run: self.run.clone(), shard: self.shard }
    }
}

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Shards, this one included.
    pub shards: u64,
    /// Rows: used, failed and unchanged ones.
    pub rows: u64,
}

/// Where a retried row comes from. The first line of a `*.retry.jsonl` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run that the rows failed in.
    pub parent: RunId,
}

/// One ordinal of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardLine {
    /// Position in the source, from 0; blank lines do not count.
    pub ordinal: u64,
    /// The row's key, where it has one.
    pub key: Option<Key>,
    /// What there is.
    pub content: Content,
}

/// What a shard says of an ordinal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A row to ask about. Always with a key.
    Row(Arc<Map<String, Value>>),
    /// Not usable.
    Failed(Failed),
    /// The store holds the answer to this fingerprint already. Always with a key.
    Unchanged(String),
}
