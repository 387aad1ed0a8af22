//! What travels in objects: plans and snapshots (JSON), shards, answers and checkpoints (JSON lines).

mod answers;
mod counts;
mod key;
mod plan;
mod shard;
mod snapshot;

pub use answers::{Answer, AnswerLine, Bill, CheckpointLine, Failed, GivenBack, Outcome, Spent, Usage};
pub use counts::Counts;
pub use key::Key;
pub use plan::{Input, Plan, Scan};
pub use shard::{Content, Header, Parent, ShardLine, Totals};
pub use snapshot::{Snapshot, SnapshotPart};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An object that does not hold what its name promises. Says where, never what: the text may be a row's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("corrupt at line {line}: {what}")]
pub struct Corrupt {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// A header and its lines, one JSON text a line.
pub fn encode<'l, H: Serialize, L: Serialize + 'l>(header: &H, lines: impl IntoIterator<Item = &'l L>) -> Vec<u8> {
    let lines = lines.into_iter();
    let mut text = Vec::with_capacity(256 * (lines.size_hint().0 + 2));
    line(&mut text, header);
    lines.for_each(|each| line(&mut text, each));
    text
}

/// The inverse of [`encode`].
pub fn decode<H: DeserializeOwned, L: DeserializeOwned>(text: &[u8]) -> Result<(H, Vec<L>), Corrupt> {
    let mut lines = text.split(|byte| *byte == b'\n').enumerate();
    let (_, first) = lines.next().unwrap_or((0, &[]));
    let header = parse(1, first)?;
    let rest =
        lines.filter(|(_, text)| !text.is_empty()).map(|(at, text)| parse(at + 1, text)).collect::<Result<_, _>>()?;
    Ok((header, rest))
}

/// Lines without a header.
pub fn encode_lines<L: Serialize>(lines: &[L]) -> Vec<u8> {
    let mut text = Vec::with_capacity(256 * lines.len());
    lines.iter().for_each(|each| line(&mut text, each));
    text
}

/// The inverse of [`encode_lines`].
pub fn decode_lines<L: DeserializeOwned>(text: &[u8]) -> Result<Vec<L>, Corrupt> {
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty());
    lines.map(|(at, text)| parse(at + 1, text)).collect()
}

fn line<T: Serialize>(text: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(&mut *text, value).expect("records have string keys and write to memory");
    text.push(b'\n');
}

fn parse<T: DeserializeOwned>(line: usize, text: &[u8]) -> Result<T, Corrupt> {
    serde_json::from_slice(text).map_err(|_| Corrupt { line, what: "not the JSON that belongs here" })
}
