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
    /// Calls sent for this row, without those that the model had no place for.
    pub attempts: u32,
    /// Calls that the model charged for.
    pub paid_calls: u32,
    /// Calls of which nobody knows whether they were charged.
    pub ambiguous_calls: u32,
    /// Tokens of the paid calls.
    pub usage: Usage,
    /// What the paid calls cost, as far as their price is known: picodollars, see [`crate::prices::Price`].
    #[serde(skip_serializing_if = "is_zero")]
    pub cost: u64,
    /// Paid calls whose price is not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub unpriced_calls: u32,
    /// Of the paid calls: those of whose replies nothing was kept, and which others followed.
    #[serde(skip_serializing_if = "Bill::is_nothing")]
    pub retries: Bill,
    /// Of the paid calls: those that asked only for what an earlier answer lacked.
    #[serde(skip_serializing_if = "Bill::is_nothing")]
    pub salvage: Bill,
    /// Answers that were taken from the cache: 1 or 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub reused: u32,
    /// Paid answers that another process had paid for meanwhile: 1 or 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicates: u32,
    /// From the first call to the last reply, in milliseconds.
    pub latency_ms: u64,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Spent {
    /// No call was made.
    pub fn is_nothing(&self) -> bool {
        *self == Spent::default()
    }

    /// All its paid calls.
    pub fn bill(&self) -> Bill {
        Bill { calls: self.paid_calls.into(), usage: self.usage, cost: self.cost }
    }

    /// What was kept of its replies is gone, with the process that kept it: those calls came to nothing.
    pub fn forget_draft(&mut self) {
        self.retries = self.bill().without(self.salvage);
    }

    /// What the row cost in picodollars; `None` when a part of it is not known.
    pub fn known_cost(&self) -> Option<u64> {
        (self.unpriced_calls == 0).then_some(self.cost)
    }
}

/// What some paid calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bill {
    /// How many.
    pub calls: u64,
    /// Their tokens.
    pub usage: Usage,
    /// What they cost, as far as their price is known: picodollars.
    pub cost: u64,
}

impl Bill {
    /// There are none.
    pub fn is_nothing(&self) -> bool {
        *self == Bill::default()
    }

    /// What is left without a part of it.
    pub fn without(self, part: Bill) -> Bill {
        let Usage { prompt, output, thought, cached } = part.usage;
        Bill {
            calls: self.calls.saturating_sub(part.calls),
            usage: Usage {
                prompt: self.usage.prompt.saturating_sub(prompt),
                output: self.usage.output.saturating_sub(output),
                thought: self.usage.thought.saturating_sub(thought),
                cached: self.usage.cached.saturating_sub(cached),
            },
            cost: self.cost.saturating_sub(part.cost),
        }
    }

    /// Calls, tokens by kind, cost.
    pub(super) fn values(&self) -> [u64; 6] {
        let Usage { prompt, output, thought, cached } = self.usage;
        [self.calls, prompt, output, thought, cached, self.cost]
    }

    /// The inverse of [`Bill::values`].
    pub(super) fn of([calls, prompt, output, thought, cached, cost]: [u64; 6]) -> Bill {
        Bill { calls, usage: Usage { prompt, output, thought, cached }, cost }
    }
}

impl AddAssign for Bill {
    fn add_assign(&mut self, more: Bill) {
        self.calls += more.calls;
        self.usage += more.usage;
        self.cost = self.cost.saturating_add(more.cost);
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
        /// What that took.
        #[serde(default, skip_serializing_if = "Bill::is_nothing")]
        bill: Bill,
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
