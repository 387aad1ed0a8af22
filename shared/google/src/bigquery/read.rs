//! The Storage Read API: the rows of a part, from several streams at once, as Arrow. No order is promised.

use super::json;
use super::settings::{STREAMS, Settings};
use super::sql;
use crate::connect::Endpoint;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use futures::future::try_join_all;
use google_cloud_bigquery::Error;
use google_cloud_bigquery::client::Read;
use google_cloud_bigquery::model::read_session::TableReadOptions;
use google_cloud_bigquery::model::{DataFormat, ReadSession};
use google_cloud_bigquery::read::retry_policy::RetryableErrors;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use tasuki_relay::limits::PART_BYTES_AT_ONCE;
use tasuki_relay::ports::{PartRow, RowsError};

/// Attempts at opening a session: the caller comes again anyway.
const SESSION_ATTEMPTS: u32 = 3;
/// What bqemulator puts behind a schema, and BigQuery does not: the end of an Arrow stream.
const END_OF_STREAM: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Reads snapshots.
#[derive(Debug)]
pub struct Reading {
    client: Read,
    /// `projects/<project>`: who pays.
    parent: String,
    /// `projects/<project>/datasets/<dataset>/tables/`.
    tables: String,
}

impl Reading {
    pub async fn new(
        endpoint: Endpoint,
        settings: &Settings,
    ) -> Result<Reading, google_cloud_gax::client_builder::Error> {
        let builder = Read::builder().with_credentials(endpoint.credentials);
        let builder = match endpoint.url {
            Some(url) => builder.with_endpoint(url),
            None => builder,
        };
        let staging = &settings.staging;
        Ok(Reading {
            client: builder.with_retry_policy(RetryableErrors.with_attempt_limit(SESSION_ATTEMPTS)).build().await?,
            parent: format!("projects/{}", settings.project),
            tables: format!("projects/{}/datasets/{}/tables/", staging.project, staging.dataset),
        })
    }

    /// The rows of a part whose positions are in `rows`.
    pub async fn read(&self, job: &str, part: u32, rows: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
        let options = TableReadOptions::new().set_row_restriction(sql::restriction(part, &rows));
        let wanted = ReadSession::new()
            .set_data_format(DataFormat::Arrow)
            .set_table(format!("{}{}", self.tables, sql::table_id(job)))
            .set_read_options(options);
        let request = self.client.create_read_session().set_parent(&self.parent).set_read_session(wanted);
        let session = request.set_max_stream_count(STREAMS).send().await.map_err(fault)?;
        let schema = session.arrow_schema().map(|schema| schema.serialized_schema.clone()).unwrap_or_default();
        // More rows than were asked for would be another table, and might be any number.
        let wanted = rows.end - rows.start;
        let left = Left { rows: AtomicU64::new(wanted), bytes: AtomicU64::new(room(wanted)) };
        let streams = session.streams.iter().map(|stream| self.stream(&stream.name, &schema, &left));
        Ok(try_join_all(streams).await?.into_iter().flatten().collect())
    }

    /// One stream. The reader resumes at its offset when the connection breaks, at most ten times without a row.
    async fn stream(&self, name: &str, schema: &[u8], left: &Left) -> Result<Vec<PartRow>, RowsError> {
        let mut decoder = StreamDecoder::new();
        let schema = schema.strip_suffix(END_OF_STREAM).unwrap_or(schema);
        decoder.decode(&mut Buffer::from(schema)).map_err(|_| garbled())?;
        let mut replies = self.client.read_rows().set_read_stream(name).into_reader();
        let mut rows = Vec::new();
        while let Some(reply) = replies.next().await.transpose().map_err(fault)? {
            let Some(batch) = reply.arrow_record_batch() else { continue };
            take(&left.bytes, batch.serialized_record_batch.len() as u64).ok_or(RowsError::TooLarge)?;
            let mut text = Buffer::from(batch.serialized_record_batch.as_ref());
            while !text.is_empty() {
                let Some(batch) = decoder.decode(&mut text).map_err(|_| garbled())? else { continue };
                let enough = take(&left.rows, batch.num_rows() as u64);
                enough.ok_or_else(|| RowsError::Unknown("more rows came than the part has".into()))?;
                rows.extend(part_rows(&batch)?);
            }
        }
        Ok(rows)
    }
}

/// What may still come, over all streams of a reading.
struct Left {
    rows: AtomicU64,
    bytes: AtomicU64,
}

/// Bytes that so many rows may come to. One row alone is never too large: BigQuery's rows have at most 100 MB.
fn room(rows: u64) -> u64 {
    if rows > 1 { PART_BYTES_AT_ONCE } else { u64::MAX }
}

/// `None` when less is left.
fn take(left: &AtomicU64, more: u64) -> Option<u64> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more)).ok()
}

/// The rows of a batch, without the columns of the snapshot.
fn part_rows(batch: &RecordBatch) -> Result<Vec<PartRow>, RowsError> {
    let positions = batch.column_by_name(sql::POS).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let positions = positions.ok_or_else(garbled)?;
    let rows = json::rows(batch, &[sql::PART, sql::POS]);
    let part_row = |(pos, row): (&i64, _)| Ok(PartRow { pos: u64::try_from(*pos).map_err(|_| garbled())?, row });
    positions.values().iter().zip(rows).map(part_row).collect()
}

fn garbled() -> RowsError {
    RowsError::Unknown("the Storage Read API sent what cannot be read".into())
}

/// By code alone: messages may quote.
fn fault(error: Error) -> RowsError {
    match error.status().map(|status| status.code) {
        Some(Code::NotFound) => RowsError::Gone,
        Some(code @ (Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented)) => {
            let what = "BigQuery does not let the splitter read the snapshot";
            RowsError::Systemic(format!("{what} ({}): check its account's rights", code.name()))
        }
        Some(code) => RowsError::Unknown(format!("the Storage Read API says {}", code.name())),
        None => RowsError::Unknown("the Storage Read API did not answer".into()),
    }
}

#[cfg(test)]
mod tests;
