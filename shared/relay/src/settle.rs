//! What one part's transaction does, and when a run ends: pure, shared by every adapter of [`crate::ports::Records`].
//!
//! ```text
//! ledger row (run, shard) exists?   → Loaded::Already, nothing else happens
//! existing = the target rows of keys_to_read(part)
//! settle(part, existing)            → upserts, touches, failures, counts: written with the ledger row, or not at all
//! ```

use crate::clock::Millis;
use crate::limits::{COMMIT_BYTES_MAX, MUTATIONS_MAX};
use crate::names::{RunId, ShardIndex};
use crate::pipeline::{Pipeline, RESERVED_COLUMNS};
use crate::ports::{Announcement, Generation, Part, RecordsError, RunRow, RunState};
use crate::record::{Answer, AnswerLine, Counts, Header, Key, Outcome, Spent, Totals};
use std::collections::BTreeMap;
use std::io;

/// Rows of Counters that a run has: parts that commit at the same time rarely wait for each other's counter.
pub const SLOTS: u32 = 16;

/// Reason of a row that failed because a person cancelled its run.
pub const CANCELLED: &str = "cancelled";
/// Reason of a row that was thought unchanged, but whose target row was gone or another when its part was loaded.
pub const CHANGED_MEANWHILE: &str = "changed_meanwhile";
/// Reason of a row whose answers object cannot be right.
pub const ANSWERS_CORRUPT: &str = "answers_corrupt";

/// A target row as it is before the part is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// See [`Header::source_time`].
    pub source_time: Millis,
    /// See [`Header::run_time`].
    pub run_time: Millis,
    /// The run that wrote or confirmed it last.
    pub run: RunId,
    /// Hash of all that was asked.
    pub fingerprint: String,
}

/// An answer to write, whole, over whatever is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Upsert<'a> {
    /// Position in the source.
    pub ordinal: u64,
    /// The target row's key.
    pub key: &'a Key,
    /// What to write.
    pub answer: &'a Answer,
    /// What it took.
    pub spent: Spent,
}

/// A target row that this run confirms: source_time, run_time, run and ordinal become this run's, its answer stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Touch<'a> {
    /// Position in the source.
    pub ordinal: u64,
    /// The target row's key.
    pub key: &'a Key,
}

/// A row of Failures, but for the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Position in the source.
    pub ordinal: u64,
    /// The row's key, where it has one.
    pub key: Option<Key>,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Calls sent for this row.
    pub attempts: u32,
}

/// What the part's transaction writes beside its ledger row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled<'a> {
    /// In order of ordinals.
    pub upserts: Vec<Upsert<'a>>,
    /// In order of ordinals.
    pub touches: Vec<Touch<'a>>,
    /// In order of ordinals.
    pub failures: Vec<Failure>,
    /// To add to the run's counters, and to write into the ledger.
    pub counts: Counts,
}

/// The keys of the target rows that [`settle`] wants to see, sorted, each once.
pub fn keys_to_read(part: &Part) -> Vec<Key> {
    let loads = |line: &&AnswerLine| !matches!(line.outcome, Outcome::Failed(_));
    let mut keys: Vec<Key> = part.lines.iter().filter(loads).filter_map(|line| line.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Decides every line of `part`, given the target rows of [`keys_to_read`] that exist. Each line is counted exactly once.
pub fn settle<'a>(part: &'a Part, existing: &BTreeMap<Key, Existing>) -> Settled<'a> {
    let mut counts = Counts { shards: 1, ..Counts::default() };
    counts.throw_away(part.header.wasted_answers, part.header.wasted);
    let mut settled = Settled { counts, ..Settled::default() };
    for line in &part.lines {
        let target = line.key.as_ref().and_then(|key| existing.get(key));
        settled.add(line, fate(&part.header, line, target));
    }
    settled
}

enum Fate<'a> {
    Upsert(Upsert<'a>),
    Touch(Touch<'a>),
    Superseded,
    Failed { reason: &'a str, message: &'a str },
}

/// The greater of (source_time, run_time, run) stays. Equal means the same run, whose keys are unique: it may write.
fn fate<'a>(header: &Header, line: &'a AnswerLine, target: Option<&Existing>) -> Fate<'a> {
    let mine = (header.source_time, header.run_time, &header.run);
    let newer = |target: &Existing| (target.source_time, target.run_time, &target.run) > mine;
    let ordinal = line.ordinal;
    match (&line.outcome, &line.key) {
        (Outcome::Failed(failed), _) => Fate::Failed { reason: &failed.reason, message: &failed.message },
        (_, None) => Fate::Failed { reason: ANSWERS_CORRUPT, message: "the row has an outcome but no key" },
        (_, Some(_)) if target.is_some_and(newer) => Fate::Superseded,
        (Outcome::Answer(answer), Some(key)) => Fate::Upsert(Upsert { ordinal, key, answer, spent: line.spent }),
        (Outcome::Unchanged(fingerprint), Some(key)) => match target {
            Some(target) if target.fingerprint == *fingerprint => Fate::Touch(Touch { ordinal, key }),
            _ => Fate::Failed {
                reason: CHANGED_MEANWHILE,
                message: "its answer was in the target when the run began and is not any more; `retry` asks again",
            },
        },
    }
}

impl<'a> Settled<'a> {
    fn add(&mut self, line: &'a AnswerLine, fate: Fate<'a>) {
        self.counts.spend(&line.spent, matches!(fate, Fate::Failed { .. }));
        match fate {
            Fate::Upsert(upsert) => {
                self.counts.loaded += 1;
                self.upserts.push(upsert);
            }
            Fate::Touch(touch) => {
                self.counts.unchanged += 1;
                self.touches.push(touch);
            }
            Fate::Superseded => self.counts.superseded += 1,
            Fate::Failed { reason, message } => {
                self.counts.failed += 1;
                self.counts.cancelled += u64::from(reason == CANCELLED);
                self.failures.push(Failure {
                    ordinal: line.ordinal,
                    key: line.key.clone(),
                    reason: reason.to_owned(),
                    message: message.to_owned(),
                    attempts: line.spent.attempts,
                });
            }
        }
    }
}

/// The row of Counters that a shard's counts are added to.
pub fn slot(shard: ShardIndex) -> u32 {
    shard.0 % SLOTS
}

/// The end state that an open run reaches now, if it does, parked or not: what is loaded is loaded.
///
/// `refused` is the greatest shard whose header says so: [`ShardIndex::REFUSAL`] ends the run at once, any other once all
/// shards of the totals are there. Every other end waits until the sum of the counters equals what the totals promise, in
/// shards and in rows.
pub fn end_state(refused: Option<ShardIndex>, expected: Option<Totals>, counts: &Counts) -> Option<RunState> {
    if refused == Some(ShardIndex::REFUSAL) {
        return Some(RunState::Failed);
    }
    let expected = expected?;
    let reached = match refused {
        // The totals of a source that is gone count what was there; a late writer may have added to it.
        Some(_) => counts.shards >= expected.shards,
        None => expected == Totals { shards: counts.shards, rows: counts.rows() },
    };
    reached.then_some(match refused {
        Some(_) => RunState::Failed,
        None if counts.cancelled > 0 => RunState::Cancelled,
        None => RunState::Complete,
    })
}

/// `<run>:<state>` in lower case: the same however often the notice is published.
pub fn event_id(run: &RunId, state: RunState) -> String {
    format!("{run}:{}", state.as_str().to_ascii_lowercase())
}

/// `<run>:parked:<generation of the marker>`: a run that is parked again is announced again.
pub fn parked_id(run: &RunId, marker: Generation) -> String {
    format!("{}:{marker}", event_id(run, RunState::Parked))
}

/// The notice of an outbox row: its id says what it announces. `None` for an id that is none of ours.
pub fn announcement(event_id: String, run: RunRow) -> Option<Announcement> {
    let state = RunState::parse(&event_id.split(':').nth(1)?.to_ascii_uppercase())?;
    Some(Announcement { event_id, state, run })
}

/// Columns of Failures: run, ordinal, key, reason, message, attempts.
const FAILURE_COLUMNS: usize = 6;
/// Columns of one row each of Runs, Ledger and Counters, rounded up.
const BOOKKEEPING_COLUMNS: usize = 96;
/// Bytes of a row's fixed columns (times, numbers, the run's name), rounded up.
const ROW_BYTES: usize = 256;

/// Mutations of one answer: the key, the answer columns and ours.
pub fn mutations_per_answer(pipeline: &Pipeline) -> usize {
    1 + pipeline.answer.len() + RESERVED_COLUMNS.len()
}

/// Mutations that loading `part` takes at most, counted per column as Spanner does. `indexed` are those that one answer
/// takes in the indexes which a user has added to the target.
pub fn mutations(part: &Part, indexed: usize) -> usize {
    let answer = mutations_per_answer(&part.pipeline).max(FAILURE_COLUMNS) + indexed;
    let of = |line: &AnswerLine| match line.outcome {
        Outcome::Answer(_) => answer,
        // A touch writes fewer columns than the failure that it may become.
        Outcome::Unchanged(_) => FAILURE_COLUMNS + indexed,
        Outcome::Failed(_) => FAILURE_COLUMNS,
    };
    BOOKKEEPING_COLUMNS + part.lines.iter().map(of).sum::<usize>()
}

/// Bytes that the commit of `part` takes, estimated from above: its lines as JSON, and the fixed columns of each row.
pub fn commit_bytes(part: &Part) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(ROW_BYTES * (part.lines.len() + 3));
    serde_json::to_writer(&mut count, &part.lines).expect("records have string keys and counting cannot fail");
    count.0
}

/// Refuses a part that one Spanner commit cannot take. Every adapter asks before it commits: what is too large in
/// the cloud is too large in the embedded relay, where it is noticed first. `indexed`: see [`mutations`].
pub fn check_commit(part: &Part, indexed: usize) -> Result<(), RecordsError> {
    let check = |what, is: usize, most: usize| match is <= most {
        true => Ok(()),
        false => Err(RecordsError::Systemic(format!(
            "shard {} needs {is} {what} in one commit, more than {most}: lower `rows_per_shard` under [run] in pipeline {}",
            part.id, part.pipeline.name
        ))),
    };
    check("mutations", mutations(part, indexed), MUTATIONS_MAX)?;
    check("bytes", commit_bytes(part), COMMIT_BYTES_MAX)
}

#[cfg(test)]
mod tests;
