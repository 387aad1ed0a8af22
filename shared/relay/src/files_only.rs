//! A relay that reads files only.

use crate::ports::{Checked, Order, PartRow, RowsError, Snapshots, Taking};
use crate::record::Snapshot;
use crate::source::Source;
use async_trait::async_trait;
use std::ops::Range;

/// No BigQuery: every `*.run.toml` is refused with a sentence.
#[derive(Clone, Copy, Debug)]
pub struct FilesOnly;

fn refused<T>() -> Result<T, RowsError> {
    let why = "this relay reads files only: export the rows as JSON lines (.jsonl) or CSV (.csv), \
               or drop the *.run.toml where the relay runs on Google Cloud";
    Err(RowsError::Refused(why.into()))
}

#[async_trait]
impl Snapshots for FilesOnly {
    async fn check(&self, _source: &Source) -> Result<Checked, RowsError> {
        refused()
    }
    async fn take(&self, _order: &Order) -> Result<Taking, RowsError> {
        refused()
    }
    async fn read(&self, _snapshot: &Snapshot, _part: u32, _rows: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
        refused()
    }
}
