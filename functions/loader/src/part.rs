//! An answers object as a part to load. Answers are untrusted: what is not whole is not loaded.

use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::names::ShardId;
use tasuki_relay::pipeline::{KeyType, ModelSettings, Pipeline, RunSettings};
use tasuki_relay::ports::{Loaded, Object, Part};
use tasuki_relay::record::{self, AnswerLine, Content, Corrupt, Failed, Header, Outcome, ShardLine, Spent};

/// Reads an answers object: its header names the shard, and every ordinal is there once, in order.
pub(crate) fn read(id: &ShardId, answers: &Object, pipeline: Arc<Pipeline>) -> Result<Part, Corrupt> {
    let (header, lines) = record::decode::<Header, AnswerLine>(&answers.body)?;
    if header.id() != *id {
        return Err(Corrupt { line: 1, what: "the header of another shard" });
    }
    if lines.len() as u64 != header.rows {
        return Err(Corrupt { line: lines.len() + 1, what: "another number of rows than the header says" });
    }
    let expected = header.first..;
    if let Some((at, _)) = lines.iter().zip(expected).enumerate().find(|(_, (line, ordinal))| line.ordinal != *ordinal)
    {
        return Err(Corrupt { line: at + 2, what: "an ordinal that does not belong here" });
    }
    if let Some(at) = lines.iter().position(|line| !matches!(line.outcome, Outcome::Failed(_)) && line.key.is_none()) {
        return Err(Corrupt { line: at + 2, what: "an answer without a key" });
    }
    Ok(Part { id: id.clone(), generation: answers.meta.generation, header, pipeline, lines })
}

/// The part of a shard whose answers object is corrupt: its rows fail `answers_corrupt`, ordinals and totals are the shard's.
pub(crate) fn without_answers(id: &ShardId, answers: &Object, shard: &Object, pipeline: Arc<Pipeline>) -> Option<Part> {
    let (header, lines) = record::decode::<Header, ShardLine>(&shard.body).ok()?;
    let lines = lines.into_iter().map(|ShardLine { ordinal, key, content }| {
        let outcome = match content {
            Content::Failed(failed) => Outcome::Failed(failed),
            Content::Unchanged(fingerprint) => Outcome::Unchanged(fingerprint),
            Content::Row(_) => Outcome::Failed(Failed {
                reason: "answers_corrupt".into(),
                message: "the answers object of its shard is corrupt: retry the run".into(),
            }),
        };
        AnswerLine { ordinal, key, outcome, spent: Spent::default() }
    });
    let lines = lines.collect();
    (header.id() == *id).then(|| Part { id: id.clone(), generation: answers.meta.generation, header, pipeline, lines })
}

/// Turns answers that the store rejects into failures. Returns how many.
pub(crate) fn reject(part: &mut Part, rows: &[(u64, String)]) -> usize {
    let mut rejected = 0;
    for (ordinal, code) in rows {
        let line = ordinal.checked_sub(part.header.first).and_then(|at| part.lines.get_mut(at as usize));
        if let Some(line) = line.filter(|line| !matches!(line.outcome, Outcome::Failed(_))) {
            let message = "the target table does not take this row".to_owned();
            line.outcome = Outcome::Failed(Failed { reason: format!("store_rejected:{code}"), message });
            rejected += 1;
        }
    }
    rejected
}

/// Stands for the pipeline of a run that was refused before it had a valid one: no row of it is ever loaded.
pub(crate) fn no_pipeline(name: &str) -> Pipeline {
    Pipeline {
        name: name.to_owned(),
        key: "key".into(),
        key_type: KeyType::String,
        system: None,
        template: String::new(),
        columns: Vec::new(),
        answer: Vec::new(),
        model: ModelSettings::default(),
        run: RunSettings::default(),
        table: "refused".into(),
    }
}

/// The loader's line: one for each part. Its fields are in the telemetry's table (`tasuki_google::telemetry`).
pub(crate) fn log(part: &Part, loaded: &Loaded, commit: Duration) {
    if let Loaded::Now(counts) = loaded {
        let (run, shard) = (&part.id.run, part.id.shard);
        tracing::info!(
            leg = "loader", %run, %shard, pipeline = part.header.pipeline, rows = part.lines.len() as u64,
            loaded = counts.loaded, failed = counts.failed, cancelled = counts.cancelled, unchanged = counts.unchanged,
            superseded = counts.superseded, commit_ms = commit.as_millis() as u64, "loaded shard {shard} of run {run}"
        );
    }
}
