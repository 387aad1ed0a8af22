use async_trait::async_trait;
use std::sync::Arc;
use tasuki_relay::ports::{Meta, RowStream, Rows, RowsError, SourceRow};

/// Rows of a batch: few, so that short sources have several.
const BATCH: usize = 3;

/// The same rows for every input.
#[derive(Clone, Debug)]
pub struct MemoryRows(Arc<[SourceRow]>);

impl MemoryRows {
    /// A source that holds `rows`.
    pub fn new(rows: Vec<SourceRow>) -> MemoryRows {
        MemoryRows(rows.into())
    }
}

#[async_trait]
impl Rows for MemoryRows {
    async fn open(&self, _input: &Meta) -> Result<Box<dyn RowStream>, RowsError> {
        Ok(Box::new(MemoryStream { rows: self.0.clone(), at: 0 }))
    }
}

struct MemoryStream {
    rows: Arc<[SourceRow]>,
    at: usize,
}

#[async_trait]
impl RowStream for MemoryStream {
    async fn next(&mut self) -> Result<Option<Vec<SourceRow>>, RowsError> {
        let batch: Vec<_> = self.rows.iter().skip(self.at).take(BATCH).cloned().collect();
        self.at += batch.len();
        Ok((!batch.is_empty()).then_some(batch))
    }
}
