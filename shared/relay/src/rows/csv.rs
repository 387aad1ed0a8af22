//! CSV: separated by commas, with a header. Every value is a string.

use super::{Decoder, fault};
use crate::limits::{COLUMNS_MAX, LINE_BYTES_MAX};
use crate::ports::SourceRow;
use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Room for fields' text: one byte more than is allowed, since the reader stops when its room is full.
const TEXT_ROOM: usize = LINE_BYTES_MAX + 1;
/// Room for fields' ends: enough to tell that a header has too many.
const ENDS_ROOM: usize = COLUMNS_MAX + 2;
/// Room at first; it doubles as records need it.
const FIRST_ROOM: usize = 4 << 10;

pub(super) struct Csv {
    reader: Reader,
    header: Option<Vec<String>>,
    /// The text of the fields so far, one after another, in the first `used` bytes.
    text: Vec<u8>,
    used: usize,
    /// The ends of the fields in `text`.
    ends: Vec<usize>,
    /// Fields of the record so far, also of those that found no room.
    found: usize,
    too_long: bool,
    /// The line that is being read, and the one on which the record began.
    line: u64,
    start: u64,
    within_record: bool,
}

impl Default for Csv {
    fn default() -> Csv {
        Csv {
            reader: Reader::new(),
            header: None,
            text: vec![0; FIRST_ROOM],
            used: 0,
            ends: vec![0; ENDS_ROOM],
            found: 0,
            too_long: false,
            line: 1,
            start: 1,
            within_record: false,
        }
    }
}

impl Decoder for Csv {
    fn push(&mut self, text: &[u8], rows: &mut Vec<SourceRow>) -> Result<(), String> {
        let mut rest = text;
        loop {
            if !self.within_record {
                // Line ends between records: of blank lines, and what CRLF leaves.
                let skip = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                self.advance(&mut rest, skip);
                self.start = self.line;
            }
            if rest.is_empty() {
                return Ok(()); // To the reader no bytes would mean the end of the file.
            }
            self.within_record = true;
            let ends_from = self.found.min(ENDS_ROOM - 1);
            let (result, read, written, ended) =
                self.reader.read_record(rest, &mut self.text[self.used..], &mut self.ends[ends_from..]);
            self.advance(&mut rest, read);
            self.used += written;
            self.found += ended;
            match result {
                ReadRecordResult::OutputFull => self.make_room(),
                ReadRecordResult::Record => {
                    rows.extend(self.record()?);
                    (self.used, self.found, self.too_long, self.within_record) = (0, 0, false, false);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputEndsFull | ReadRecordResult::End => {}
            }
        }
    }

    fn finish(&mut self, rows: &mut Vec<SourceRow>) -> Result<(), String> {
        if self.within_record {
            // Ends the record as the last line's missing line end would, unless it is within quotes.
            self.push(b"\n", rows)?;
        }
        match (&self.header, self.within_record) {
            (None, false) => Err("has no header: write the names of the columns in its first line".to_owned()),
            (None, true) => Err("has a quote in its header that is never closed: close it".to_owned()),
            (Some(_), true) => {
                rows.push(fault("bad_csv", self.start, "a quote in this record is never closed: close it"));
                Ok(())
            }
            (Some(_), false) => Ok(()),
        }
    }
}

impl Csv {
    fn advance(&mut self, rest: &mut &[u8], read: usize) {
        let (done, left) = rest.split_at(read);
        self.line += done.iter().filter(|byte| **byte == b'\n').count() as u64;
        *rest = left;
    }

    /// More room for text, up to the limit; beyond it the text is not kept.
    fn make_room(&mut self) {
        if self.text.len() < TEXT_ROOM {
            self.text.resize((2 * self.text.len()).min(TEXT_ROOM), 0);
        } else {
            (self.too_long, self.used) = (true, 0);
        }
    }

    /// The row of a record that has ended; `None` for a line of spaces and for the header.
    fn record(&mut self) -> Result<Option<SourceRow>, String> {
        let columns = self.header.as_ref().map(Vec::len);
        let blank = self.found == 1 && !self.too_long && self.text[..self.used].trim_ascii().is_empty();
        // Spaces alone are a value where there is one column, as nothing else can be.
        if blank && columns != Some(1) {
            return Ok(None);
        }
        let Some(header) = &self.header else {
            self.header = Some(self.header_of_record()?);
            return Ok(None);
        };
        let start = self.start;
        let (expected, found) = (header.len(), self.found);
        if self.too_long {
            let what = format_args!("longer than {LINE_BYTES_MAX} bytes: shorten the record, or close its quote");
            return Ok(Some(fault("too_long", start, what)));
        }
        if found != expected {
            let what =
                format!("{found} fields, but the header has {expected}: quote fields that hold commas or quotes");
            return Ok(Some(fault("bad_csv", start, what)));
        }
        let mut row = Map::new();
        for (at, (name, field)) in header.iter().zip(self.fields()).enumerate() {
            let Ok(value) = std::str::from_utf8(field) else {
                let what = format!("not UTF-8 in field {}: save the file as UTF-8", at + 1);
                return Ok(Some(fault("bad_utf8", start, what)));
            };
            row.insert(name.clone(), Value::String(value.to_owned()));
        }
        Ok(Some(SourceRow { place: format!("line {start}"), row: Ok(row) }))
    }

    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends[..self.found.min(ENDS_ROOM)]).map(|(start, end)| &self.text[start..*end])
    }

    /// The names of the columns. The errors give positions only: where the header is missing, its text is a row's.
    fn header_of_record(&self) -> Result<Vec<String>, String> {
        if self.too_long {
            return Err(format!("has a header longer than {LINE_BYTES_MAX} bytes: shorten it"));
        }
        if self.found > COLUMNS_MAX {
            return Err(format!(
                "has more than {COLUMNS_MAX} columns: leave out those that the pipeline does not name"
            ));
        }
        let separator = self.text[..self.used].iter().find(|byte| matches!(byte, b';' | b'\t'));
        if let (1, Some(separator)) = (self.found, separator) {
            let found = if *separator == b';' { "semicolons" } else { "tabs" };
            return Err(format!("separates its columns by {found}: separate them by commas"));
        }
        let mut names = Vec::with_capacity(self.found);
        let mut seen = BTreeMap::new();
        for (at, field) in (1..).zip(self.fields()) {
            let name = std::str::from_utf8(field)
                .map_err(|_| format!("is not UTF-8 in column {at} of its header: save it as UTF-8"))?;
            if name.trim().is_empty() {
                return Err(format!("has no name for column {at} in its header: write one"));
            }
            if let Some(other) = seen.insert(name, at) {
                return Err(format!("has one name for columns {other} and {at} in its header: rename one of them"));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }
}
