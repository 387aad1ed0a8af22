//! Values for tests, made without the legs that usually make them.

use serde_json::json;
use std::sync::Arc;
use tasuki_relay::clock::Millis;
use tasuki_relay::names::{RunId, ShardId, ShardIndex};
use tasuki_relay::pipeline::{AnswerColumn, KeyType, ModelSettings, Pipeline, RunSettings, ValueType};
use tasuki_relay::ports::Part;
use tasuki_relay::record::{Answer, AnswerLine, Failed, Header, Key, Outcome, Spent, Totals, Usage};

/// An answer column; `count` makes it an array.
pub fn column(name: &str, value_type: ValueType, count: Option<u32>) -> AnswerColumn {
    AnswerColumn {
        name: name.into(),
        value_type,
        count,
        distinct: false,
        max_chars: None,
        one_of: None,
        pattern: None,
        description: None,
    }
}

/// A pipeline with an integer key `id`, two `themes` and a `score`, whose target is `table`.
pub fn pipeline(table: &str) -> Pipeline {
    Pipeline {
        name: "themes".into(),
        key: "id".into(),
        key_type: KeyType::Integer,
        system: None,
        template: "{{ name }}".into(),
        columns: vec!["name".into()],
        answer: vec![column("themes", ValueType::String, Some(2)), column("score", ValueType::Number, None)],
        model: ModelSettings::default(),
        run: RunSettings::default(),
        table: table.into(),
    }
}

/// The run of the `number`th version of a dropped file.
pub fn run_id(number: i64) -> RunId {
    RunId::of("inbox", "themes/rows.jsonl", number)
}

/// A shard of run `number` with a line for each (key, outcome), on ordinals from `shard` × 1,000. Its source_time and
/// run_time are `number` seconds, so that a greater number is a newer run. Each line took one paid call of 12 tokens.
pub fn part(pipeline: &Pipeline, number: i64, shard: ShardIndex, rows: Vec<(i64, Outcome)>) -> Part {
    let run = run_id(number);
    let first = u64::from(shard.0) * 1_000;
    let time = Millis(number.unsigned_abs() * 1_000);
    let header = Header {
        run: run.clone(),
        shard,
        pipeline: pipeline.name.clone(),
        input: format!("{}/rows.jsonl", pipeline.name),
        first,
        rows: rows.len() as u64,
        digest: "00".repeat(32),
        source_time: time,
        run_time: time,
        totals: None,
        refused: None,
        wasted_answers: 0,
        wasted: Default::default(),
    };
    let usage = Usage { prompt: 10, output: 2, thought: 0, cached: 0 };
    let spent = Spent { attempts: 1, paid_calls: 1, usage, cost: 7_000_000, latency_ms: 5, ..Spent::default() };
    let line = |(ordinal, (key, outcome))| AnswerLine { ordinal, key: Some(Key::Integer(key)), outcome, spent };
    let lines = (first..).zip(rows).map(line).collect();
    Part { id: ShardId { run, shard }, generation: 1, header, pipeline: Arc::new(pipeline.clone()), lines }
}

/// The same part with the run's totals in its header.
pub fn with_totals(mut part: Part, shards: u64, rows: u64) -> Part {
    part.header.totals = Some(Totals { shards, rows });
    part
}

/// An empty part that refuses its run.
pub fn refusal(pipeline: &Pipeline, number: i64, shard: ShardIndex, reason: &str) -> Part {
    let mut part = part(pipeline, number, shard, vec![]);
    part.header.refused = Some(reason.into());
    part
}

/// An answer that fits [`pipeline`].
pub fn answer(fingerprint: &str) -> Outcome {
    let values = json!({"themes": ["a", "b"], "score": 0.5}).as_object().cloned().unwrap_or_default();
    Outcome::Answer(Answer { values, fingerprint: fingerprint.into(), model: "model-001".into() })
}

/// A failure.
pub fn failed(reason: &str) -> Outcome {
    Outcome::Failed(Failed { reason: reason.into(), message: "because".into() })
}

/// An answer that is in the store already.
pub fn unchanged(fingerprint: &str) -> Outcome {
    Outcome::Unchanged(fingerprint.into())
}
