//! A pipeline: what a user writes, once it is valid. A value that exists is valid.

mod columns;
mod parse;
mod problems;
pub(crate) mod read;
mod settings;

pub use parse::{CHOICES_MAX, MUTATIONS_PER_PART, VALUES_MAX};
pub use problems::{Field, Problem, Problems};

use crate::prices::{Price, Tier};
use serde_json::Value;
use std::time::Duration;

/// A valid pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// `[a-z][a-z0-9-]{0,30}`.
    pub name: String,
    /// The column that identifies a row; also the key column of the target table: `[A-Za-z][A-Za-z0-9_]{0,127}`.
    pub key: String,
    /// What the key is.
    pub key_type: KeyType,
    /// System instruction.
    pub system: Option<String>,
    /// The template, which compiles.
    pub template: String,
    /// The columns that the template names, sorted.
    pub columns: Vec<String>,
    /// Answer columns, in the order of the file; at least one.
    pub answer: Vec<AnswerColumn>,
    /// `[model]`.
    pub model: ModelSettings,
    /// `[run]`.
    pub run: RunSettings,
    /// `[target] table`: `[A-Za-z][A-Za-z0-9_]{0,127}`.
    pub table: String,
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// At most [`crate::limits::KEY_BYTES_MAX`] bytes of UTF-8.
    String,
    /// 64 bits with a sign.
    Integer,
}

/// One `[answer.<name>]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerColumn {
    /// `[A-Za-z][A-Za-z0-9_]{0,127}`, none of [`RESERVED_COLUMNS`], not the key.
    pub name: String,
    /// What each value is.
    pub value_type: ValueType,
    /// Exactly so many, as an array; `None` = a single value.
    pub count: Option<u32>,
    /// No two equal values in the array.
    pub distinct: bool,
    /// Longest string in characters.
    pub max_chars: Option<u32>,
    /// The strings that a value may be; none twice, also not in another width.
    pub one_of: Option<Vec<String>>,
    /// A regular expression (the syntax of the crate `regex-lite`) that matches each whole value; it compiles.
    pub pattern: Option<String>,
    /// For the model.
    pub description: Option<String>,
}

/// What an answer value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Text, never empty.
    String,
    /// 64 bits with a sign.
    Integer,
    /// A finite 64-bit float.
    Number,
    /// true or false.
    Boolean,
}

/// Columns of every target table that Tasuki writes itself.
pub const RESERVED_COLUMNS: &[&str] = &[
    "run",
    "run_time",
    "ordinal",
    "source_time",
    "model",
    "fingerprint",
    "prompt_tokens",
    "output_tokens",
    "thought_tokens",
    "cached_tokens",
    "cost",
    "committed_at",
];

/// `[model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// Whose messages it speaks.
    pub provider: Provider,
    /// Default [`DEFAULT_MODEL`].
    pub name: String,
    /// Where Vertex AI answers: see [`is_location`]; `None` = where the deployment says. No part of the fingerprint: a model gives
    /// the same answers everywhere.
    pub location: Option<String>,
    /// 0..=2; `None` = the model's own.
    pub temperature: Option<f64>,
    /// 1..=65,536; `None` = the model's own.
    pub max_output_tokens: Option<u32>,
    /// Asked once more with so many when an answer is truncated; `None` = a truncated answer fails.
    pub retry_output_tokens: Option<u32>,
    /// How much the model may think; `None` = nothing is said of it, only where the provider is not Google.
    pub thinking: Option<Thinking>,
    /// How calls are served and priced. No part of the fingerprint.
    pub tier: Tier,
    /// Asked in this order when the model is gone or busy for long. No part of the fingerprint: their answers are answers.
    pub fallback: Vec<Place>,
    /// What a token of the model costs, in place of what the catalogue says.
    pub price: Option<Price>,
    /// Calls in a minute at most, over all processes; `None` = what the model takes. No part of the fingerprint, like all pacing.
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute at most (prompts, answers, thoughts), over all processes; `None` = what the model takes.
    pub tokens_per_minute: Option<u32>,
}

impl Default for ModelSettings {
    fn default() -> ModelSettings {
        ModelSettings {
            provider: Provider::Google,
            name: DEFAULT_MODEL.to_owned(),
            location: None,
            temperature: None,
            max_output_tokens: None,
            retry_output_tokens: None,
            thinking: Some(Thinking::Minimal),
            tier: Tier::Standard,
            fallback: Vec::new(),
            price: None,
            requests_per_minute: None,
            tokens_per_minute: None,
        }
    }
}

/// Whose messages a model speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// Gemini, on Vertex AI or the Gemini API.
    #[default]
    Google,
    /// Chat completions, as OpenAI has them and others took over.
    OpenAi,
}

/// A model, and where it is asked: `model@location` or `model`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// See [`ModelSettings::name`].
    pub model: String,
    /// See [`ModelSettings::location`].
    pub location: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{}@{location}", self.model),
            None => f.write_str(&self.model),
        }
    }
}

/// `gemini-3.5-flash-lite`: the cheapest current model that thinks minimally by default (peers.md 5.4).
pub const DEFAULT_MODEL: &str = "gemini-3.5-flash-lite";

/// `global`, `us`, `eu`, or the name of a region like `europe-west4`. Which model is served where:
/// <https://docs.cloud.google.com/gemini-enterprise-agent-platform/resources/locations>.
pub fn is_location(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let is_region = |(continent, rest): (&str, &str)| {
        let place = rest.trim_end_matches(|last: char| last.is_ascii_digit());
        is_word(continent) && is_word(place) && place.len() < rest.len()
    };
    // 63 bytes: it becomes a part of a host name.
    name.len() <= 63 && (matches!(name, "global" | "us" | "eu") || name.split_once('-').is_some_and(is_region))
}

/// `thinkingConfig.thinkingLevel`, from less to more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thinking {
    /// The default: thoughts are paid as output.
    Minimal,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
}

impl Thinking {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Thinking::Minimal => "MINIMAL",
            Thinking::Low => "LOW",
            Thinking::Medium => "MEDIUM",
            Thinking::High => "HIGH",
        }
    }
}

/// `[run]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSettings {
    /// [`crate::limits::ROWS_PER_SHARD`]; `None` = from the size of the input.
    pub rows_per_shard: Option<u32>,
    /// Calls in flight at most, over all processes, 1..=100,000; default 5,000.
    pub max_in_flight: u32,
    /// Paid calls that may follow a malformed answer, 0..=5; default 1.
    pub paid_retries: u32,
    /// Rows without an outcome so long after the start of the run fail `gave_up`; `None` = never.
    pub give_up_after: Option<Duration>,
    /// Ask only about rows whose prompt, schema or model settings differ from those of the answer in the target; default false.
    pub only_changed: bool,
    /// Take answers that an earlier run paid for to the same question, and keep those of this one; default false.
    pub reuse_answers: bool,
    /// At this cost the run is parked, in picodollars; `None` = never.
    pub max_cost: Option<u64>,
}

impl Default for RunSettings {
    fn default() -> RunSettings {
        RunSettings {
            rows_per_shard: None,
            max_in_flight: 5_000,
            paid_retries: 1,
            give_up_after: None,
            only_changed: false,
            reuse_answers: false,
            max_cost: None,
        }
    }
}

/// The value of an answer column.
pub type Values = serde_json::Map<String, Value>;
