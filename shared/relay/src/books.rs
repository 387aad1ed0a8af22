//! What an operator asks of the store, whichever it is. Rows come one by one: a run may have more than fit in memory.

use crate::names::{RunId, ShardIndex};
use crate::pipeline::Pipeline;
use crate::ports::{RecordsError, RunRow};
use crate::record::{Counts, Key};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// A row that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// Position in the source.
    pub ordinal: u64,
    /// The row's key, where it has one. A store may have an integer as its decimal digits.
    pub key: Option<Key>,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Calls sent for it.
    pub attempts: u32,
}

/// A row of a target table.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRow {
    /// Its key.
    pub key: Key,
    /// Answer columns in the pipeline's order; arrays decoded; null where the row is older than the column.
    pub values: Vec<(String, Value)>,
    /// The run that wrote or confirmed it last.
    pub run: RunId,
    /// The version of the model that answered.
    pub model: String,
    /// Its position in that run's source.
    pub ordinal: u64,
}

/// The parts of a run that are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedParts {
    /// Which.
    pub shards: BTreeSet<ShardIndex>,
    /// What they come to: exactly these.
    pub counts: Counts,
}

/// Takes the rows of an answer; no more are asked for once it breaks.
pub type Each<'a, T> = &'a mut dyn FnMut(T) -> ControlFlow<()>;

/// The books of a store, to look at while others write it. Its futures stay on the thread of the command that asks.
#[async_trait(?Send)]
pub trait Books {
    /// All runs of which a part is loaded, newest first.
    async fn runs(&self) -> Result<Vec<RunRow>, RecordsError>;
    /// One run, if a part of it is loaded.
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError>;
    /// The parts of the run that are loaded now, and their counts: all of one moment.
    async fn loaded_parts(&self, run: &RunId) -> Result<LoadedParts, RecordsError>;
    /// The failed rows of a run by ordinal, `limit` at most.
    async fn failures(&self, run: &RunId, limit: u64, each: Each<'_, FailureRow>) -> Result<(), RecordsError>;
    /// How many rows of a run failed for which reason, the most frequent first.
    async fn failure_reasons(&self, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError>;
    /// The rows of the pipeline's target table that `run` wrote or confirmed last, `limit` at most, always in the same order:
    /// the one that the store reads best. None where there is no such table.
    async fn results(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        limit: u64,
        each: Each<'_, ResultRow>,
    ) -> Result<(), RecordsError>;
    /// How many of the rows of [`Books::results`] each model answered, by the column `model`; the most first. It reads all those
    /// rows.
    async fn answerers(&self, pipeline: &Pipeline, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError>;
    /// The failed rows of the run, by ordinal, whose keys a newer run has answered: one of a newer file, or a retry. Answers
    /// of the model `but` are none.
    async fn answered_since(
        &self,
        pipeline: &Pipeline,
        run: &RunRow,
        but: Option<&str>,
    ) -> Result<BTreeSet<u64>, RecordsError>;
}
