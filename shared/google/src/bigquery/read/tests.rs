use super::*;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_ipc::writer::StreamWriter;
use google_cloud_bigquery::model::{
    ArrowRecordBatch, ArrowSchema, CreateReadSessionRequest, ReadRowsRequest, ReadRowsResponse, ReadStream,
};
use google_cloud_bigquery::stub;
use google_cloud_gax::error::rpc::Status;
use google_cloud_gax::options::RequestOptions;
use google_cloud_gax::response::Response;
use google_cloud_gax::streaming::ResponseStream;
use std::sync::{Arc, Mutex};

/// Two streams of a part of 20 rows, in batches of 5; the first reading of each stream breaks after one batch.
#[derive(Debug)]
struct Server {
    rows: u64,
    breaks_with: Option<Code>,
    readings: Mutex<Vec<(String, i64)>>,
    restrictions: Mutex<Vec<String>>,
}

fn failed(code: Code) -> Error {
    Error::service(Status::default().set_code(code).set_message("a secret"))
}

/// The rows at these positions as Arrow's stream format: the schema, and what follows it.
fn encoded(positions: Range<i64>) -> (Vec<u8>, Vec<u8>) {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(positions.clone().map(|pos| format!("k{pos}"))));
    let parts: ArrayRef = Arc::new(Int64Array::from_iter_values(positions.clone().map(|_| 3)));
    let pos: ArrayRef = Arc::new(Int64Array::from_iter_values(positions));
    let batch = RecordBatch::try_from_iter([("id", ids), (sql::PART, parts), (sql::POS, pos)]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    let schema = writer.get_ref().clone();
    writer.write(&batch).unwrap();
    let text = writer.get_ref()[schema.len()..].to_vec();
    (schema, text)
}

impl stub::Read for Server {
    async fn create_read_session(
        &self,
        request: CreateReadSessionRequest,
        _options: RequestOptions,
    ) -> google_cloud_gax::Result<Response<ReadSession>> {
        let session = request.read_session.unwrap();
        self.restrictions.lock().unwrap().push(session.read_options.unwrap().row_restriction);
        let mut schema = encoded(0..0).0;
        schema.extend_from_slice(END_OF_STREAM); // as bqemulator has it
        let streams = ["a", "b"].map(|name| ReadStream::new().set_name(name));
        Ok(Response::from(
            ReadSession::new().set_arrow_schema(ArrowSchema::new().set_serialized_schema(schema)).set_streams(streams),
        ))
    }

    async fn read_rows(
        &self,
        request: ReadRowsRequest,
        _options: RequestOptions,
    ) -> google_cloud_gax::Result<ResponseStream<ReadRowsResponse>> {
        let mut readings = self.readings.lock().unwrap();
        let is_first = readings.iter().all(|(name, _)| *name != request.read_stream);
        readings.push((request.read_stream.clone(), request.offset));
        let half = self.rows as i64 / 2;
        let start = if request.read_stream == "a" { 0 } else { half };
        let batches = (request.offset..half).step_by(5).map(|at| {
            let text = encoded(start + at..start + half.min(at + 5)).1;
            let batch = ArrowRecordBatch::new().set_serialized_record_batch(text);
            Ok(ReadRowsResponse::new().set_arrow_record_batch(batch).set_row_count(half.min(at + 5) - at))
        });
        let replies: Vec<_> = match self.breaks_with {
            Some(code) if is_first => batches.take(1).chain([Err(failed(code))]).collect(),
            _ => batches.collect(),
        };
        let (send, receive) = tokio::sync::mpsc::channel(replies.len().max(1));
        replies.into_iter().for_each(|reply| send.try_send(reply).unwrap());
        Ok(ResponseStream::from(receive))
    }
}

fn reading(rows: u64, breaks_with: Option<Code>) -> (Arc<Server>, Reading) {
    let server = Server { rows, breaks_with, readings: Mutex::default(), restrictions: Mutex::default() };
    let server = Arc::new(server);
    let client = Read::from_stub::<Server>(server.clone());
    (server, Reading { client, parent: "projects/p".into(), tables: "projects/p/datasets/d/tables/".into() })
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_resumes_at_its_offset() {
    let (server, reading) = reading(20, Some(Code::Unavailable));
    let mut rows = reading.read("run-r-snap-1", 3, 100..120).await.unwrap();
    rows.sort_by_key(|row| row.pos);
    let ids: Vec<_> = rows.into_iter().map(|row| (row.pos, row.row.unwrap()["id"].clone())).collect();
    assert_eq!(ids, (0..20).map(|pos| (pos, format!("k{pos}").into())).collect::<Vec<_>>(), "each row once");
    let mut readings = server.readings.lock().unwrap().clone();
    readings.sort();
    assert_eq!(readings, [("a".into(), 0), ("a".into(), 5), ("b".into(), 0), ("b".into(), 5)]);
    let restriction = "tasuki_part = 3 AND tasuki_pos >= 100 AND tasuki_pos < 120";
    assert_eq!(*server.restrictions.lock().unwrap(), [restriction]);
}

#[tokio::test(start_paused = true)]
async fn more_rows_than_were_asked_for_are_not_kept() {
    let (_, reading) = reading(20, None);
    assert!(matches!(reading.read("j", 3, 0..19).await, Err(RowsError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_apart_by_their_code_and_their_text_stays_here() {
    let (_, gone) = reading(20, Some(Code::NotFound));
    assert_eq!(gone.read("j", 3, 0..20).await, Err(RowsError::Gone));
    let (_, denied) = reading(20, Some(Code::PermissionDenied));
    let error = denied.read("j", 3, 0..20).await.unwrap_err();
    assert!(
        matches!(&error, RowsError::Systemic(text) if text.contains("PERMISSION_DENIED") && !text.contains("secret"))
    );
}
