use super::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::AddAssign;

/// One ordinal of an answers object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerLine {
    /// Position in the source, from 0.
    pub ordinal: u64,
    /// The row's key, where it has one.
    pub key: Option<Key>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it took.
    #[serde(default, skip_serializing_if = "Spent::is_nothing")]
    pub spent: Spent,
}

/// How a row ended in the generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer.
    Answer(Answer),
    /// With a reason.
    Failed(Failed),
    /// The store holds the answer to this fingerprint.
    Unchanged(String),
}

/// A valid answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// One value per answer column.
    pub values: Map<String, Value>,
    /// Hash of all that was asked: a row with the same fingerprint need not be asked again.
    pub fingerprint: String,
    /// The version of the model that answered.
    pub model: String,
}

/// Why a row failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// A word for programs: `duplicate_key`, `malformed`, `blocked_prompt:SAFETY`, …
    pub reason: String,
    /// A sentence for people, without the row's text.
    pub message: String,
}

/// What a row took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spent {
    /// Calls sent for this row.
    pub attempts: u32,
    /// Calls that the model charged for.
    pub paid_calls: u32,
    /// Calls of which nobody knows whether they were charged.
    pub ambiguous_calls: u32,
    /// Tokens of the paid calls.
    pub usage: Usage,
    /// From the first call to the last reply, in milliseconds.
    pub latency_ms: u64,
}

impl Spent {
    /// No call was made.
    pub fn is_nothing(&self) -> bool {
        *self == Spent::default()
    }
}

/// Tokens, as `usageMetadata` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// `promptTokenCount`, cached ones included.
    pub prompt: u64,
    /// `candidatesTokenCount`.
    pub output: u64,
    /// `thoughtsTokenCount`.
    pub thought: u64,
    /// `cachedContentTokenCount`.
    pub cached: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.prompt += more.prompt;
        self.output += more.output;
        self.thought += more.thought;
        self.cached += more.cached;
    }
}

/// One line of a checkpoint segment; `A` is an [`AnswerLine`], owned where it is read and borrowed where it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointLine<A = AnswerLine> {
    /// A row that has its outcome.
    Settled(A),
    /// A row that was given back without one when its shard was released.
    Unsettled {
        /// The row.
        ordinal: u64,
        /// What it took so far.
        spent: Spent,
        /// Why it was given back.
        why: GivenBack,
    },
    /// The model answered about this row of another shard: it is not down.
    Proof {
        /// The row.
        ordinal: u64,
    },
    /// A call about this row is about to start, in a shard that is suspected of killing its process.
    Marker {
        /// The row.
        ordinal: u64,
    },
}

/// Why a row was given back without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenBack {
    /// Its process stopped, or the machine did.
    Stopped,
    /// The last that the model said of it was a server error, and the shard's budget of retries was spent.
    ServerError,
    /// The model refused it (400) and no row of the run has succeeded: it may be the request that is wrong, not the row.
    Withheld,
}

/// Counters of a part, or of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Parts.
    pub shards: u64,
    /// Answers that are in the target.
    pub loaded: u64,
    /// Rows that failed, cancelled ones included.
    pub failed: u64,
    /// Rows that failed because a person cancelled the run.
    pub cancelled: u64,
    /// Rows whose answer was there already.
    pub unchanged: u64,
    /// Rows of which a newer run's answer is in the target.
    pub superseded: u64,
    /// Calls that the model charged for.
    pub paid_calls: u64,
    /// Calls of which nobody knows.
    pub ambiguous_calls: u64,
    /// Paid answers that were thrown away.
    pub wasted_answers: u64,
    /// Tokens.
    pub usage: Usage,
}

impl Counts {
    /// The columns that a store keeps them in, in the order of [`Counts::values`].
    pub const COLUMNS: [&str; 13] = [
        "shards",
        "loaded",
        "failed",
        "cancelled",
        "unchanged",
        "superseded",
        "paid_calls",
        "ambiguous_calls",
        "wasted_answers",
        "prompt_tokens",
        "output_tokens",
        "thought_tokens",
        "cached_tokens",
    ];

    /// All of them, in the order of [`Counts::COLUMNS`].
    pub fn values(&self) -> [u64; 13] {
        let Usage { prompt, output, thought, cached } = self.usage;
        [
            self.shards,
            self.loaded,
            self.failed,
            self.cancelled,
            self.unchanged,
            self.superseded,
            self.paid_calls,
            self.ambiguous_calls,
            self.wasted_answers,
            prompt,
            output,
            thought,
            cached,
        ]
    }

    /// The inverse of [`Counts::values`].
    pub fn of(values: [u64; 13]) -> Counts {
        let [shards, loaded, failed, cancelled, unchanged, superseded, values @ ..] = values;
        let [paid_calls, ambiguous_calls, wasted_answers, prompt, output, thought, cached] = values;
        let usage = Usage { prompt, output, thought, cached };
        Counts {
            shards,
            loaded,
            failed,
            cancelled,
            unchanged,
            superseded,
            paid_calls,
            ambiguous_calls,
            wasted_answers,
            usage,
        }
    }

    /// Rows with an outcome.
    pub fn rows(&self) -> u64 {
        self.loaded + self.failed + self.unchanged + self.superseded
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.shards += more.shards;
        self.loaded += more.loaded;
        self.failed += more.failed;
        self.cancelled += more.cancelled;
        self.unchanged += more.unchanged;
        self.superseded += more.superseded;
        self.paid_calls += more.paid_calls;
        self.ambiguous_calls += more.ambiguous_calls;
        self.wasted_answers += more.wasted_answers;
        self.usage += more.usage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_a_column_of_its_own() {
        let values = std::array::from_fn(|at| at as u64);
        let counts = Counts::of(values);
        assert_eq!(counts.values(), values);
        let column = |name| Counts::COLUMNS.iter().position(|column| *column == name).unwrap() as u64;
        assert_eq!((counts.superseded, counts.usage.cached), (column("superseded"), column("cached_tokens")));
        assert_eq!((counts.wasted_answers, counts.usage.prompt), (column("wasted_answers"), column("prompt_tokens")));
    }
}
