//! An answers object as a part to load. Answers are untrusted: what is not whole is not loaded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::names::ShardId;
use tasuki_relay::pipeline::{KeyType, ModelSettings, Pipeline, RunSettings};
use tasuki_relay::ports::{Loaded, Object, Part};
use tasuki_relay::record::{self, AnswerLine, Content, Corrupt, Failed, Header, Outcome, ShardLine, Spent};
use tasuki_relay::settle::CHANGED_MEANWHILE;

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

/// The loader's lines: one for each part, and one for each reason that rows of it failed for. Their fields are in the
/// telemetry's table (`tasuki_google::telemetry`).
pub(crate) fn log(part: &Part, loaded: &Loaded, commit: Duration) {
    let Loaded::Now(counts) = loaded else { return };
    let (run, shard, pipeline) = (&part.id.run, part.id.shard, &part.header.pipeline);
    tracing::info!(
        leg = "loader", %run, %shard, pipeline, rows = part.lines.len() as u64,
        loaded = counts.loaded, failed = counts.failed, cancelled = counts.cancelled, unchanged = counts.unchanged,
        superseded = counts.superseded, commit_ms = commit.as_millis() as u64, "loaded shard {shard} of run {run}"
    );
    for (reason, failed_rows) in reasons(&part.lines, counts.failed) {
        tracing::info!(%run, %shard, pipeline, reason, failed_rows, "{failed_rows} rows of shard {shard} failed: {reason}");
    }
}

/// Failed rows by the first word of their reason: what follows a colon is the model's or the store's. Rows that failed
/// only when their target was read were `unchanged` until then.
fn reasons(lines: &[AnswerLine], failed: u64) -> BTreeMap<&str, u64> {
    let mut reasons = BTreeMap::new();
    for line in lines {
        if let Outcome::Failed(failed) = &line.outcome {
            *reasons.entry(failed.reason.split(':').next().unwrap_or_default()).or_default() += 1;
        }
    }
    let settled = failed.saturating_sub(reasons.values().sum());
    if settled > 0 {
        *reasons.entry(CHANGED_MEANWHILE).or_default() += settled;
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failed_row_has_a_reason_of_ours() {
        let failed = |reason: &str| Outcome::Failed(Failed { reason: reason.into(), message: "canary".into() });
        let outcomes = [
            failed("store_rejected:OUT_OF_RANGE"),
            failed("store_rejected:canary"),
            failed("malformed"),
            Outcome::Unchanged("f".into()),
        ];
        let lines = outcomes.map(|outcome| AnswerLine { ordinal: 0, key: None, outcome, spent: Spent::default() });
        let three = BTreeMap::from([("malformed", 1), ("store_rejected", 2)]);
        assert_eq!(reasons(&lines, 3), three);
        assert_eq!(
            reasons(&lines, 4),
            BTreeMap::from([(CHANGED_MEANWHILE, 1), ("malformed", 1), ("store_rejected", 2)])
        );
        assert_eq!(reasons(&lines[3..], 0), BTreeMap::new());
    }
}
