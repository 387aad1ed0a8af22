//! BigQuery's Storage Read API on 127.0.0.1: rows that are made when they are read, as many as a test wants, in no memory.
//!
//! The messages are those of google/cloud/bigquery/storage/v1, as far as Tasuki reads and writes them; gRPC is HTTP/2 with five
//! bytes before each message.

use anyhow::Context;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Rows of a message.
const BATCH: u64 = 1_000;
/// Streams of a session at most: as many as Tasuki asks for.
const STREAMS: u64 = 4;
const MESSAGE_HEAD: usize = 5;

/// The key of a row.
pub fn key(part: u32, pos: u64) -> String {
    format!("k{part:04}-{pos:08}")
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct ReadApi {
    hosts: Vec<String>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    /// By reader and part: sessions.
    reads: Mutex<BTreeMap<(usize, u32), u32>>,
    /// Nothing follows the first message of a stream.
    held: watch::Sender<bool>,
}

impl ReadApi {
    /// Listens once for each reader, so that they are told apart.
    pub async fn start(readers: usize) -> anyhow::Result<ReadApi> {
        let (shared, stop) =
            (Arc::new(Shared { reads: Mutex::default(), held: watch::Sender::new(false) }), CancellationToken::new());
        let mut hosts = Vec::new();
        for reader in 0..readers {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
            hosts.push(listener.local_addr()?.to_string());
            let (shared, until) = (shared.clone(), stop.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = shared.clone();
                    let service = service_fn(move |request| reply(shared.clone(), reader, request));
                    let connection = http2::Builder::new(TokioExecutor::new());
                    let connection = connection.serve_connection(TokioIo::new(stream), service);
                    tokio::spawn(until.clone().run_until_cancelled_owned(connection));
                }
            }));
        }
        Ok(ReadApi { hosts, shared, _stop: stop.drop_guard() })
    }

    /// `host:port` of a reader.
    pub fn host(&self, reader: usize) -> &str {
        &self.hosts[reader]
    }

    /// How often each reader began to read each part.
    pub fn reads(&self) -> BTreeMap<(usize, u32), u32> {
        self.shared.reads().clone()
    }

    /// From now on each stream says nothing more after its first message, until it is let go.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }
}

impl Shared {
    fn reads(&self) -> MutexGuard<'_, BTreeMap<(usize, u32), u32>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages of a stream: a reply of `ReadRows` for each batch.
    fn rows(self: Arc<Self>, part: u32, rows: Range<u64>) -> BoxStream<'static, Bytes> {
        let batches = rows.clone().step_by(BATCH as usize).enumerate();
        let batches = stream::iter(batches.map(move |(at, from)| (at, from..rows.end.min(from + BATCH))));
        let message = move |(at, rows): (usize, Range<u64>)| {
            let shared = self.clone();
            async move {
                if at > 0 {
                    let _ = shared.held.subscribe().wait_for(|held| !held).await;
                }
                let batch = ArrowBytes { bytes: encoded(part, rows.clone()).1 };
                framed(&ReadRowsResponse { batch: Some(batch), row_count: (rows.end - rows.start) as i64 })
            }
        };
        batches.then(message).boxed()
    }
}

/// Some rows as Arrow's stream format: the schema, and what follows it.
fn encoded(part: u32, rows: Range<u64>) -> (Vec<u8>, Vec<u8>) {
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.clone().map(|pos| key(part, pos))));
    let texts = rows.clone().map(|pos| format!("entry {pos} of part {part}, and some more words for it"));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let parts: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| part.into())));
    let positions: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.map(|pos| pos as i64)));
    let columns = [("id", keys), ("text", texts), ("tasuki_part", parts), ("tasuki_pos", positions)];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("memory takes everything");
    let schema = writer.get_ref().clone();
    writer.write(&batch).expect("memory takes everything");
    let text = writer.get_ref()[schema.len()..].to_vec();
    (schema, text)
}

type Reply = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

async fn reply(shared: Arc<Shared>, reader: usize, request: Request<Incoming>) -> Result<Reply, hyper::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let message = body.get(MESSAGE_HEAD..).unwrap_or_default();
    let messages = match method.as_str() {
        "CreateReadSession" => open(&shared, reader, message),
        "ReadRows" => read(shared, message),
        _ => None,
    };
    // 3, INVALID_ARGUMENT: for what is not understood here.
    let (messages, status) = messages.map_or_else(|| (stream::empty().boxed(), "3"), |messages| (messages, "0"));
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let frames = messages.map(Frame::data).chain(stream::iter([Frame::trailers(trailers)])).map(Ok);
    let mut reply = Response::new(StreamBody::new(frames.boxed()));
    reply.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(reply)
}

/// A session on the rows of a part, which says in the names of its streams what they hold.
fn open(shared: &Shared, reader: usize, message: &[u8]) -> Option<BoxStream<'static, Bytes>> {
    let wanted = CreateReadSessionRequest::decode(message).ok()?;
    let (part, rows) = restriction(&wanted.session?.options?.restriction)?;
    *shared.reads().entry((reader, part)).or_default() += 1;
    let piece = (rows.end - rows.start).div_ceil(STREAMS.min(wanted.streams_max.max(1) as u64)).max(1);
    let starts = rows.clone().step_by(piece as usize);
    let names = starts.map(|from| format!("sessions/s/streams/{part}-{from}-{}", rows.end.min(from + piece)));
    let session = ReadSession {
        schema: Some(ArrowBytes { bytes: encoded(0, 0..0).0 }),
        options: None,
        streams: names.map(|name| ReadStream { name }).collect(),
    };
    let message = framed(&session);
    Some(stream::iter([message]).boxed())
}

/// The rows of a stream, from an offset on.
fn read(shared: Arc<Shared>, message: &[u8]) -> Option<BoxStream<'static, Bytes>> {
    let wanted = ReadRowsRequest::decode(message).ok()?;
    let numbers = wanted.stream.rsplit('/').next()?.split('-').map(str::parse);
    let [part, from, to] = numbers.collect::<Result<Vec<u64>, _>>().ok()?.try_into().ok()?;
    Some(shared.rows(part as u32, from + wanted.offset as u64..to))
}

/// `tasuki_part = 3 AND tasuki_pos >= 100 AND tasuki_pos < 120`.
fn restriction(text: &str) -> Option<(u32, Range<u64>)> {
    let rest = text.strip_prefix("tasuki_part = ")?;
    let (part, rest) = rest.split_once(" AND tasuki_pos >= ")?;
    let (from, to) = rest.split_once(" AND tasuki_pos < ")?;
    Some((part.parse().ok()?, from.parse().ok()?..to.parse().ok()?))
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(MESSAGE_HEAD + message.encoded_len());
    bytes.put_u8(0); // not compressed
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).expect("a buffer grows");
    bytes.freeze()
}

#[derive(Message)]
struct CreateReadSessionRequest {
    #[prost(message, optional, tag = "2")]
    session: Option<ReadSession>,
    #[prost(int32, tag = "3")]
    streams_max: i32,
}

#[derive(Message)]
struct ReadSession {
    #[prost(message, optional, tag = "5")]
    schema: Option<ArrowBytes>,
    #[prost(message, optional, tag = "8")]
    options: Option<TableReadOptions>,
    #[prost(message, repeated, tag = "10")]
    streams: Vec<ReadStream>,
}

#[derive(Message)]
struct TableReadOptions {
    #[prost(string, tag = "2")]
    restriction: String,
}

#[derive(Message)]
struct ReadStream {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Message)]
struct ReadRowsRequest {
    #[prost(string, tag = "1")]
    stream: String,
    #[prost(int64, tag = "2")]
    offset: i64,
}

#[derive(Message)]
struct ReadRowsResponse {
    #[prost(message, optional, tag = "4")]
    batch: Option<ArrowBytes>,
    #[prost(int64, tag = "6")]
    row_count: i64,
}

/// `ArrowSchema`, and as far as it matters here `ArrowRecordBatch`.
#[derive(Message)]
struct ArrowBytes {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
}
