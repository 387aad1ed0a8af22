//! What a file is: by its suffix, and by its first bytes, which must agree.

use crate::record::Parent;
use std::io::Read;

/// Bytes of the start that tell what a file is.
pub(super) const HEAD_BYTES: usize = 4 << 10;
/// The byte order mark of UTF-8, which some programs write first.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";
const ALLOWED: &str = ".jsonl, .csv, .jsonl.gz, .csv.gz";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Jsonl,
    Csv,
    /// JSON lines as `tasuki retry` writes them.
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) kind: Kind,
    pub(super) gzip: bool,
}

/// Why a file of this name cannot be read, and the mend; `None` when it can. Its bytes are asked later.
pub fn suffix_problem(file: &str) -> Option<String> {
    Format::of(file).err()
}

impl Format {
    /// By the suffix, in small or capital letters.
    pub(super) fn of(file: &str) -> Result<Format, String> {
        let name = file.to_ascii_lowercase();
        let (name, gzip) = name.strip_suffix(".gz").map_or((name.as_str(), false), |name| (name, true));
        let kind = match name {
            _ if name.ends_with(".retry.jsonl") && gzip => {
                return Err(format!("{file}: a retry file is read unpacked only: run gunzip on it"));
            }
            _ if name.ends_with(".retry.jsonl") => Kind::Retry,
            _ if name.ends_with(".jsonl") => Kind::Jsonl,
            _ if name.ends_with(".csv") => Kind::Csv,
            _ => {
                let mend = match name.rsplit_once('.').map_or("", |(_, suffix)| suffix) {
                    "ndjson" => "rename it to .jsonl",
                    "json" => "write one JSON object per line and name it .jsonl",
                    "tsv" | "txt" | "xls" | "xlsx" | "ods" => "save it as CSV with commas and name it .csv",
                    "toml" => "a *.run.toml names rows of BigQuery, which only a relay on Google Cloud reads",
                    _ => "write it in one of these formats",
                };
                return Err(format!("{file} is none of {ALLOWED}: {mend}"));
            }
        };
        Ok(Format { kind, gzip })
    }

    /// Compares the first bytes of `file` with its suffix; returns its first text. The error says what the file holds.
    pub(super) fn sniff(self, file: &str, head: &[u8]) -> Result<Vec<u8>, String> {
        let gzip = head.starts_with(b"\x1f\x8b");
        let text = if gzip { unpacked(head) } else { head.to_vec() };
        if let Some(problem) = foreign(&text) {
            return Err(problem.to_owned());
        }
        let is_csv = match told(&text)? {
            Some(Kind::Csv) => true,
            Some(_) => false,
            None => self.kind == Kind::Csv,
        };
        let mut holds = Vec::new();
        if gzip != self.gzip {
            holds.push(if gzip { "gzip data" } else { "no gzip data" });
        }
        if is_csv != (self.kind == Kind::Csv) {
            holds.push(if is_csv { "CSV" } else { "JSON lines" });
        }
        if holds.is_empty() {
            return Ok(text);
        }
        let mend = match (self.kind, is_csv) {
            (Kind::Retry, _) => "write it with `tasuki retry`".to_owned(),
            (_, is_csv) => format!("rename it to {}", self.renamed(file, is_csv, gzip)),
        };
        Err(format!("holds {}: {mend}", holds.join(" and ")))
    }

    fn renamed(self, file: &str, is_csv: bool, gzip: bool) -> String {
        let suffix = if self.kind == Kind::Csv { ".csv".len() } else { ".jsonl".len() };
        let stem = &file[..file.len() - suffix - if self.gzip { ".gz".len() } else { 0 }];
        format!("{stem}{}{}", if is_csv { ".csv" } else { ".jsonl" }, if gzip { ".gz" } else { "" })
    }
}

/// The run in the first line of a retry file.
pub(super) fn parent(head: &[u8]) -> Result<Parent, String> {
    let text = head.strip_prefix(MARK).unwrap_or(head);
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let bad = |_| "does not begin with the run that its rows come from: write it with `tasuki retry`".to_owned();
    serde_json::from_slice(line).map_err(bad)
}

/// The text at the start of gzip data that may be cut off.
fn unpacked(head: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // An error says that the head is cut off, or that the data are damaged: who reads on will meet it at its place.
    let _ = flate2::read::MultiGzDecoder::new(head).take(HEAD_BYTES as u64).read_to_end(&mut text);
    text
}

/// What a file holds that is no UTF-8 text.
fn foreign(text: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| text.starts_with(magic);
    match text {
        _ if starts(b"PAR1") => Some("holds Parquet: export it as JSON lines (.jsonl) or CSV (.csv)"),
        _ if starts(b"PK\x03\x04") => Some(
            "holds a zip archive or an Excel workbook: save it as CSV (.csv), packed with gzip (.csv.gz) if at all",
        ),
        _ if starts(b"\x1f\x8b") => Some("is packed with gzip twice: unpack it once"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => Some("holds UTF-16: save it as UTF-8"),
        _ => None,
    }
}

/// What the first line of a text tells of it; `None` when that may be either. An error for JSON that is not one object a line.
fn told(text: &[u8]) -> Result<Option<Kind>, String> {
    let text = text.strip_prefix(MARK).unwrap_or(text).trim_ascii_start();
    let (line, cut) = match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], false),
        None => (text, true),
    };
    let looks_like_csv = || {
        line.iter().any(|byte| matches!(byte, b',' | b';' | b'\t'))
            && !line.iter().any(|byte| matches!(byte, b'{' | b'}'))
            && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err()
    };
    match line.trim_ascii() {
        [b'[', ..] => Err("holds one JSON array: write one object per line and name it .jsonl".to_owned()),
        [b'{'] if !cut => {
            Err("holds a JSON object over several lines: write one object per line and name it .jsonl".to_owned())
        }
        [b'{', ..] => Ok(Some(Kind::Jsonl)),
        _ if looks_like_csv() => Ok(Some(Kind::Csv)),
        _ => Ok(None),
    }
}
