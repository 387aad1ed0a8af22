//! JSON lines: one object a line, and the same wrapped in its origin in a retry file.

use super::json::{JsonFault, object};
use super::{Decoder, fault};
use crate::limits::{COLUMNS_MAX, JSON_DEPTH_MAX, LINE_BYTES_MAX};
use crate::names::RunId;
use crate::ports::SourceRow;
use serde_json::{Map, Value};

/// Longest line of a retry file, in bytes: a row that was a CSV record grows by its names and escapes.
const RETRY_LINE_BYTES_MAX: usize = 8 * LINE_BYTES_MAX;
const MEND: &str = "write one JSON object on one line";

pub(super) struct Jsonl {
    /// The run that the rows failed in, in a retry file.
    parent: Option<RunId>,
    bytes_max: usize,
    /// The start of a line that has not ended, at most one byte (a carriage return) over `bytes_max`.
    line: Vec<u8>,
    /// The line is too long: its rest is not kept.
    too_long: bool,
    /// Lines that have ended.
    lines: u64,
}

impl Jsonl {
    pub(super) fn new(parent: Option<RunId>) -> Jsonl {
        let bytes_max = if parent.is_some() { RETRY_LINE_BYTES_MAX } else { LINE_BYTES_MAX };
        Jsonl { parent, bytes_max, line: Vec::new(), too_long: false, lines: 0 }
    }

    fn keep(&mut self, part: &[u8]) {
        self.too_long |= self.line.len() + part.len() > self.bytes_max + 1;
        if self.too_long {
            self.line.clear();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    /// Ends the line that `part` is the end of.
    fn end_line(&mut self, part: &[u8], rows: &mut Vec<SourceRow>) {
        if self.line.is_empty() && !self.too_long {
            rows.extend(self.row(part));
            return;
        }
        self.keep(part);
        let mut line = std::mem::take(&mut self.line);
        rows.extend(self.row(&line));
        line.clear();
        (self.line, self.too_long) = (line, false);
    }

    /// The row in a whole line; `None` for a blank line and for the first line of a retry file.
    fn row(&mut self, line: &[u8]) -> Option<SourceRow> {
        self.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.too_long || line.len() > self.bytes_max {
            let most = self.bytes_max;
            return Some(fault("too_long", self.lines, format_args!("longer than {most} bytes: shorten the row")));
        }
        let is_parent = self.lines == 1 && self.parent.is_some();
        (!is_parent && !line.trim_ascii().is_empty())
            .then(|| self.parsed(line).unwrap_or_else(|(reason, what)| fault(reason, self.lines, what)))
    }

    fn parsed(&self, line: &[u8]) -> Result<SourceRow, (&'static str, String)> {
        let text = std::str::from_utf8(line).map_err(|error| {
            ("bad_utf8", format!("not UTF-8 at byte {}: save the file as UTF-8", error.valid_up_to() + 1))
        })?;
        let (place, row) = match &self.parent {
            None => (format!("line {}", self.lines), strict(text, JSON_DEPTH_MAX)?),
            Some(parent) => {
                let (ordinal, row) = unwrapped(strict(text, JSON_DEPTH_MAX + 1)?)
                    .ok_or_else(|| ("bad_json", "no row of a retry file: write it with `tasuki retry`".to_owned()))?;
                (format!("row {ordinal} of run {parent}"), row)
            }
        };
        match row.len() {
            0..=COLUMNS_MAX => Ok(SourceRow { place, row: Ok(row) }),
            columns => Err((
                "too_many_columns",
                format!("{columns} columns, at most {COLUMNS_MAX}: leave out those that the pipeline does not name"),
            )),
        }
    }
}

impl Decoder for Jsonl {
    fn push(&mut self, text: &[u8], rows: &mut Vec<SourceRow>) -> Result<(), String> {
        let mut rest = text;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.end_line(&rest[..end], rows);
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        Ok(())
    }

    fn finish(&mut self, rows: &mut Vec<SourceRow>) -> Result<(), String> {
        if self.too_long || !self.line.is_empty() {
            self.end_line(&[], rows);
        }
        Ok(())
    }
}

fn strict(text: &str, depth: usize) -> Result<Map<String, Value>, (&'static str, String)> {
    object(text, depth).map_err(|fault| match fault {
        JsonFault::Syntax(column) => ("bad_json", format!("not JSON at column {column}: {MEND}")),
        JsonFault::NotAnObject => ("bad_json", format!("JSON, but no object: {MEND}")),
        JsonFault::RepeatedName(column) => {
            ("repeated_name", format!("an object has one name twice, before column {column}: leave one of them out"))
        }
        JsonFault::TooDeep => ("too_deep", format!("nested more than {JSON_DEPTH_MAX} deep: flatten the row")),
    })
}

/// `{"ordinal":17,"row":{…}}`
fn unwrapped(mut line: Map<String, Value>) -> Option<(u64, Map<String, Value>)> {
    match (line.get("ordinal")?.as_u64()?, line.remove("row")?) {
        (ordinal, Value::Object(row)) => Some((ordinal, row)),
        _ => None,
    }
}
