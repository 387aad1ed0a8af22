//! Rows of a file: sniffed, decoded and checked as a stream.
//!
//! A dropped file flows in chunks through `[gunzip]` and the decoder of its format, so that memory does not grow with it.

mod csv;
mod format;
mod gunzip;
mod json;
mod jsonl;

pub use format::suffix_problem;

use crate::deadline::Deadline;
use crate::limits::{FILE_BYTES_MAX, FILE_ROWS_MAX, GZIP_RATIO_FROM_BYTES, GZIP_RATIO_MAX};
use crate::ports::{Meta, Objects, ObjectsError, RowFault, RowStream, Rows, RowsError, SourceRow};
use crate::record::Parent;
use crate::{names::Bucket, rows::format::Kind};
use async_trait::async_trait;
use bytes::Bytes;
use format::{Format, HEAD_BYTES};
use gunzip::Gunzip;
use std::sync::Arc;

/// Bytes that are read at a time: a few thousand rows, and few requests.
const CHUNK_BYTES: usize = 1 << 20;

/// Rows of dropped files: `.jsonl`, `.csv`, each also `.gz`, and `.retry.jsonl`.
pub struct ObjectRows {
    objects: Arc<dyn Objects>,
    chunk: usize,
    caps: Caps,
}

/// Limits of a whole file; see [`crate::limits`].
#[derive(Clone, Copy)]
struct Caps {
    bytes: u64,
    rows: u64,
    ratio: u64,
    ratio_from_bytes: u64,
}

const CAPS: Caps =
    Caps { bytes: FILE_BYTES_MAX, rows: FILE_ROWS_MAX, ratio: GZIP_RATIO_MAX, ratio_from_bytes: GZIP_RATIO_FROM_BYTES };

impl ObjectRows {
    /// Reads the inbox of `objects`. A read that hangs is one that was not confirmed.
    pub fn new(objects: Arc<dyn Objects>) -> ObjectRows {
        ObjectRows { objects: Arc::new(Deadline(objects)), chunk: CHUNK_BYTES, caps: CAPS }
    }
}

#[async_trait]
impl Rows for ObjectRows {
    async fn open(&self, input: &Meta) -> Result<Box<dyn RowStream>, RowsError> {
        let file = file_of(input);
        let refuse = |what: String| RowsError::Refused(format!("{file} {what}"));
        let format = Format::of(file).map_err(RowsError::Refused)?;
        if input.size > self.caps.bytes {
            return Err(refuse(format!("has more than {} bytes: split it into several files", self.caps.bytes)));
        }
        let head = read(self.objects.as_ref(), input, 0, HEAD_BYTES).await?;
        let text = format.sniff(file, &head).map_err(refuse)?;
        let decoder: Box<dyn Decoder> = match format.kind {
            Kind::Jsonl => Box::new(jsonl::Jsonl::new(None)),
            Kind::Csv => Box::new(csv::Csv::default()),
            Kind::Retry => Box::new(jsonl::Jsonl::new(Some(format::parent(&text).map_err(refuse)?.parent))),
        };
        Ok(Box::new(FileStream {
            objects: self.objects.clone(),
            input: input.clone(),
            chunk: self.chunk,
            caps: self.caps,
            at: 0,
            gunzip: format.gzip.then(|| Gunzip::new(self.caps)),
            mark: if text.starts_with(format::MARK) { format::MARK.len() } else { 0 },
            decoder,
            rows: 0,
            ended: false,
        }))
    }
}

/// The run whose failed rows `input` holds: the first line of a `.retry.jsonl` file; `None` for every other file.
///
/// # Errors
/// `Refused` when that line is something else; `Gone` and `Unknown` as for reading rows.
pub async fn retry_parent(objects: &dyn Objects, input: &Meta) -> Result<Option<Parent>, RowsError> {
    let file = file_of(input);
    if !Format::of(file).is_ok_and(|format| format.kind == Kind::Retry) {
        return Ok(None);
    }
    let head = read(objects, input, 0, HEAD_BYTES).await?;
    format::parent(&head).map(Some).map_err(|what| RowsError::Refused(format!("{file} {what}")))
}

/// The file's name without its folder.
fn file_of(input: &Meta) -> &str {
    input.name.rsplit('/').next().unwrap_or(&input.name)
}

/// `most` bytes from `at`, or those to the end of the object; never fewer.
async fn read(objects: &dyn Objects, input: &Meta, at: u64, most: usize) -> Result<Bytes, RowsError> {
    let due = input.size.saturating_sub(at).min(most as u64);
    if due == 0 {
        return Ok(Bytes::new());
    }
    match objects.read_range(Bucket::Inbox, &input.name, input.generation, at, due as usize).await {
        Ok(Some(chunk)) if chunk.len() as u64 == due => Ok(chunk),
        Ok(Some(chunk)) => Err(RowsError::Unknown(format!("{} of {due} bytes came from byte {at} on", chunk.len()))),
        Ok(None) => Err(RowsError::Gone),
        Err(error @ (ObjectsError::Unknown(_) | ObjectsError::Denied(_) | ObjectsError::Precondition)) => {
            Err(RowsError::Unknown(error.to_string()))
        }
    }
}

/// Takes decoded text in pieces of any size and makes rows of it.
trait Decoder: Send {
    /// Adds the rows that end in `text`. The error says what the file "has" or "holds" that refuses it.
    fn push(&mut self, text: &[u8], rows: &mut Vec<SourceRow>) -> Result<(), String>;
    /// Adds what is left at the end of the file.
    fn finish(&mut self, rows: &mut Vec<SourceRow>) -> Result<(), String>;
}

fn fault(reason: &'static str, line: u64, what: impl std::fmt::Display) -> SourceRow {
    let place = format!("line {line}");
    let message = format!("{place}: {what}");
    SourceRow { place, row: Err(RowFault { reason, message, key: None }) }
}

struct FileStream {
    objects: Arc<dyn Objects>,
    input: Meta,
    chunk: usize,
    caps: Caps,
    /// The offset of the next chunk.
    at: u64,
    gunzip: Option<Gunzip>,
    /// Bytes of the byte order mark that are still to be dropped.
    mark: usize,
    decoder: Box<dyn Decoder>,
    /// Rows so far.
    rows: u64,
    ended: bool,
}

impl FileStream {
    /// The next piece of text; `None` at the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, RowsError> {
        loop {
            let unpacked = self.gunzip.as_mut().map_or(Ok(None), Gunzip::pull).map_err(|what| self.refused(what))?;
            if unpacked.is_some() {
                return Ok(unpacked);
            }
            let chunk = read(self.objects.as_ref(), &self.input, self.at, self.chunk).await?;
            self.at += chunk.len() as u64;
            match &mut self.gunzip {
                None => return Ok((!chunk.is_empty()).then_some(chunk)),
                Some(gunzip) if chunk.is_empty() => return gunzip.finish().map_err(|what| self.refused(what)),
                Some(gunzip) => gunzip.feed(chunk),
            }
        }
    }

    fn refused(&self, what: String) -> RowsError {
        RowsError::Refused(format!("{} {what}", file_of(&self.input)))
    }

    async fn rows(&mut self) -> Result<Option<Vec<SourceRow>>, RowsError> {
        let mut rows = Vec::new();
        while rows.is_empty() && !self.ended {
            let decoded = match self.piece().await? {
                Some(text) => {
                    let mark = self.mark.min(text.len());
                    self.mark -= mark;
                    self.decoder.push(&text[mark..], &mut rows)
                }
                None => {
                    self.ended = true;
                    self.decoder.finish(&mut rows)
                }
            };
            decoded.map_err(|what| self.refused(what))?;
        }
        self.rows += rows.len() as u64;
        if self.rows > self.caps.rows {
            return Err(self.refused(format!("has more than {} rows: split it into several files", self.caps.rows)));
        }
        Ok((!rows.is_empty()).then_some(rows))
    }
}

#[async_trait]
impl RowStream for FileStream {
    async fn next(&mut self) -> Result<Option<Vec<SourceRow>>, RowsError> {
        let rows = self.rows().await;
        self.ended |= rows.is_err();
        rows
    }
}

#[cfg(test)]
mod tests;
