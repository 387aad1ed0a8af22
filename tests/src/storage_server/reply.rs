use super::fault::Fault;
use super::store::Stored;
use bytes::Bytes;
use data_encoding::BASE64;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::http::request::Parts;
use hyper::http::response::Builder;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::time::Duration;

/// The connection is to be broken.
#[derive(Debug, thiserror::Error)]
#[error("cut on demand")]
pub(super) struct Cut;

/// A whole body, or one that breaks.
pub(super) type Bodies = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Cut>>>>;

pub(super) type Reply = Response<Bodies>;

pub(super) fn whole(builder: Builder, body: impl Into<Bytes>) -> Reply {
    builder.body(Either::Left(Full::new(body.into()))).expect("headers of plain text")
}

pub(super) fn json_reply(value: &Value) -> Reply {
    whole(Response::builder().header("content-type", "application/json"), value.to_string())
}

pub(super) fn error(status: StatusCode, message: &str) -> Reply {
    let body = json!({ "error": { "code": status.as_u16(), "message": message } });
    whole(Response::builder().status(status).header("content-type", "application/json"), body.to_string())
}

/// Some bytes of a resumable upload have come.
pub(super) fn incomplete(received: usize) -> Reply {
    let builder = Response::builder().status(StatusCode::PERMANENT_REDIRECT);
    let range = |end| format!("bytes=0-{end}");
    whole(received.checked_sub(1).map(range).into_iter().fold(builder, |builder, it| builder.header("range", it)), "")
}

/// A body, or the part of it that the header Range asks for.
///
/// What is stored as `gzip` goes out as it is only to who accepts that; else unpacked and whole, Range or not, while size and
/// checksum remain those of the stored bytes ("Transcoding of gzip-compressed files" of Cloud Storage's documentation).
pub(super) fn media(stored: &Stored, head: &Parts, fault: Option<Fault>) -> Reply {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoding = stored.content_encoding.as_deref();
    let is_packed = encoding == Some("gzip");
    let as_stored = !is_packed || header("accept-encoding").is_some_and(|all| all.contains("gzip"));
    let body = stored.body.bytes();
    let (body, range) = if as_stored { (body, header("range")) } else { (unpacked(&body), None) };
    let size = body.len();
    let Some(asked) = range.map_or(Some(0..size), |range| parse_range(range, size)) else {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "the range begins behind the end");
    };
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut builder = Response::builder()
        .status(status)
        .header("content-type", &stored.content_type)
        .header("x-goog-generation", stored.generation)
        .header("x-goog-metageneration", 1)
        .header("x-goog-stored-content-length", stored.body.len())
        .header("x-goog-stored-content-encoding", encoding.unwrap_or("identity"))
        .header("x-goog-storage-class", "STANDARD");
    if is_packed && as_stored {
        builder = builder.header("content-encoding", "gzip");
    }
    if fault != Some(Fault::NoChecksum) {
        let wrong = || BASE64.encode(&[0xff; 4]);
        let sum = if fault == Some(Fault::WrongChecksum) { wrong() } else { stored.crc32c_text() };
        builder = builder.header("x-goog-hash", format!("crc32c={sum}"));
    }
    for (name, value) in &stored.metadata {
        builder = builder.header(format!("x-goog-meta-{name}"), value);
    }
    if range.is_some() {
        builder = builder.header("content-range", format!("bytes {}-{}/{size}", asked.start, asked.end - 1));
    }
    whole(builder, body.slice(asked))
}

/// The text in gzip data; as it is, if it is none.
fn unpacked(body: &Bytes) -> Bytes {
    let mut text = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(body.as_ref()).read_to_end(&mut text);
    read.map_or_else(|_| body.clone(), |_| text.into())
}

/// `bytes=a-b` and `bytes=a-`; `None` when it begins behind the end.
fn parse_range(range: &str, size: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok().filter(|first| *first < size)?;
    let end = if last.is_empty() { size } else { last.parse::<usize>().ok()?.saturating_add(1).min(size) };
    Some(first..end)
}

/// The fields of an object that `fields` names; all of them without it.
pub(super) fn picked(object: Value, fields: Option<&str>) -> Value {
    let (Value::Object(all), Some(fields)) = (&object, fields) else { return object };
    let wanted = fields.split(',');
    Value::Object(wanted.filter_map(|name| Some((name.to_owned(), all.get(name)?.clone()))).collect::<Map<_, _>>())
}

/// The same reply, which promises its whole body and breaks after `bytes` of it.
pub(super) async fn cut(reply: Reply, bytes: usize) -> Reply {
    use http_body_util::BodyExt;
    let (mut parts, body) = reply.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    parts.headers.insert("content-length", body.len().into());
    let first = stream::iter([Ok(Frame::data(body.slice(..bytes.min(body.len()))))]);
    // The pause lets the first bytes out: a body that breaks at once is a reply that never began.
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(Cut)
    });
    Response::from_parts(parts, Either::Right(StreamBody::new(first.chain(broken).boxed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_with_the_object() {
        assert_eq!(parse_range("bytes=0-3", 10), Some(0..4));
        assert_eq!(parse_range("bytes=8-11", 10), Some(8..10));
        assert_eq!(parse_range("bytes=3-", 10), Some(3..10));
        assert_eq!(parse_range("bytes=10-11", 10), None);
        assert_eq!(parse_range("bytes=0-0", 0), None);
    }
}
