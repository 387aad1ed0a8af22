//! What a run is, decided once.

use crate::Splitter;
use std::collections::BTreeSet;
use tasuki_relay::limits::{ROWS_PER_SHARD, ROWS_SCOUTED};
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Event, Meta, Rows, RowsError, Why};
use tasuki_relay::prices::Catalogue;
use tasuki_relay::record::{Input, Parent, Plan};
use tasuki_relay::rows::retry_parent;
use tasuki_relay::source;
use tasuki_relay::write::{Written, create_once};

/// Bytes of a typical row, and shards that a large file should come to (protocol.md 3.3).
const ROW_BYTES: u64 = 300;
const SHARDS_AIMED: u64 = 20_000;
/// gzip makes rows of text about so many times smaller.
const GZIP_FACTOR: u64 = 5;

/// How like an absent column's name another must be to be named, in thousandths.
const LIKE: u32 = 850;

/// Why a plan is not made as asked for.
pub(crate) enum Not {
    /// The run is refused: a person must mend something.
    Refused(String),
    /// Later perhaps.
    Later(Why),
}

impl<E: Into<Why>> From<E> for Not {
    fn from(error: E) -> Not {
        Not::Later(error.into())
    }
}

pub(crate) fn not(error: RowsError) -> Not {
    match error {
        RowsError::Refused(why) => Not::Refused(why),
        RowsError::Gone => Not::Refused("superseded: the file was overwritten or deleted before it was read".into()),
        RowsError::Systemic(what) => Not::Later(Why::Systemic(what)),
        error @ (RowsError::Unknown(_) | RowsError::TooLarge) => Not::Later(Why::Unconfirmed(error.to_string())),
    }
}

impl Splitter {
    /// Creates the plan, or follows the one that was created first.
    pub(crate) async fn make_plan(
        &self,
        run: &RunId,
        dropped: &Dropped,
        event: &Event,
        live: Option<Meta>,
    ) -> Result<Plan, Why> {
        let mut plan = Plan {
            run: run.clone(),
            input: Input { name: event.name.clone(), generation: event.generation, size: 0 },
            pipeline: dropped.pipeline.clone(),
            pipeline_text: String::new(),
            source_time: self.clock.now(),
            run_time: self.clock.now(),
            rows_per_shard: *ROWS_PER_SHARD.end(),
            parent: None,
            scan: None,
            refused: None,
        };
        match self.fill(&mut plan, dropped, event, live).await {
            Ok(()) => (),
            Err(Not::Refused(why)) => plan.refused = Some(why),
            Err(Not::Later(why)) => return Err(why),
        }
        let body = serde_json::to_vec_pretty(&plan).expect("a plan is plain data");
        match create_once(&*self.objects, Bucket::State, &names::plan(run), body.into()).await? {
            Written::Won(_) | Written::Identical(_) => Ok(plan),
            Written::Foreign(first) => serde_json::from_slice(&first.body)
                .map_err(|_| Why::Systemic(format!("the plan of run {run} is corrupt"))),
        }
    }

    async fn fill(&self, plan: &mut Plan, dropped: &Dropped, event: &Event, live: Option<Meta>) -> Result<(), Not> {
        if self.objects.stat(Bucket::State, &names::cancel(&plan.run)).await?.is_some() {
            return Err(Not::Refused("cancelled".into()));
        }
        let input = match live {
            Some(live) if live.generation == event.generation => live,
            Some(_) => return Err(Not::Refused("superseded: the file was overwritten before it was read".into())),
            None => return Err(Not::Refused("source_gone: the file was deleted before it was read".into())),
        };
        (plan.input.size, plan.source_time, plan.run_time) = (input.size, input.created, input.created);
        let pipeline = self.pipeline(plan, dropped).await?;
        if dropped.file.to_ascii_lowercase().ends_with(source::SUFFIX) {
            return self.scan(plan, &dropped.file, &input, &pipeline).await;
        }
        plan.rows_per_shard = pipeline.run.rows_per_shard.unwrap_or_else(|| rows_per_shard(&dropped.file, input.size));
        plan.parent = retry_parent(&*self.objects, &input).await.map_err(not)?;
        if let Some(Parent { parent }) = &plan.parent {
            let parent = self
                .plan(parent)
                .await?
                .ok_or_else(|| Not::Refused(format!("its parent, run {parent}, is not known here")))?;
            plan.source_time =
                self.found_snapshot(&parent.run).await?.map_or(parent.source_time, |found| found.source_time);
        }
        scout(&*self.rows, &input, &pipeline).await.map_err(not)
    }

    async fn pipeline(&self, plan: &mut Plan, dropped: &Dropped) -> Result<Pipeline, Not> {
        let name = names::pipeline(&dropped.pipeline);
        let Some(object) = self.objects.read(Bucket::State, &name, None).await? else {
            return Err(Not::Refused(format!("there is no pipeline {}: store it as {name}", dropped.pipeline)));
        };
        let text = String::from_utf8(object.body.into()).map_err(|_| Not::Refused(format!("{name} is not UTF-8")))?;
        let pipeline = Pipeline::parse(&text).map_err(|problems| Not::Refused(problems.in_file(&name)))?;
        plan.pipeline_text = text;
        if pipeline.name != dropped.pipeline {
            return Err(Not::Refused(format!(
                "{name} holds the pipeline {}: its name and its file's must be the same",
                pipeline.name
            )));
        }
        let (catalogue, now) = (Catalogue::shipped(), self.clock.now());
        if let Some(problems) = catalogue.refuses(&pipeline, &plan.pipeline_text, now) {
            return Err(Not::Refused(problems.in_file(&name)));
        }
        Ok(pipeline)
    }
}

/// Looks at the first rows: a column that none of them has is a mistake of the pipeline or of the file, not of a row. `Refused`
/// says which.
pub async fn scout(rows: &dyn Rows, input: &Meta, pipeline: &Pipeline) -> Result<(), RowsError> {
    let mut rows = rows.open(input).await?;
    let (mut seen, mut looked_at) = (BTreeSet::new(), 0);
    while looked_at < ROWS_SCOUTED {
        let Some(batch) = rows.next().await? else { break };
        for row in batch.into_iter().take((ROWS_SCOUTED - looked_at) as usize) {
            looked_at += 1;
            seen.extend(row.row.into_iter().flatten().map(|(column, _)| column));
        }
    }
    let needed = std::iter::once(&pipeline.key).chain(&pipeline.columns);
    let absent: BTreeSet<&str> = needed.filter(|column| !seen.contains(*column)).map(String::as_str).collect();
    if absent.is_empty() || seen.is_empty() {
        return Ok(()); // no usable row at all: each fails with its own reason
    }
    let absent: Vec<String> = absent.into_iter().map(|column| describe(column, &seen)).collect();
    Err(RowsError::Refused(format!(
        "no row has {} (looked at {looked_at}): mend the pipeline or the file (the first line of a CSV file names its columns)",
        absent.join(", nor "),
    )))
}

/// An absent column, and the one that may be meant. Others are not listed: the first line of a CSV file without a header is a
/// row, and no row's text goes into a message.
pub(crate) fn describe(absent: &str, seen: &BTreeSet<String>) -> String {
    let likeness =
        |column: &&String| (strsim::jaro_winkler(&column.to_lowercase(), &absent.to_lowercase()) * 1_000.0) as u32;
    let nearest = seen.iter().max_by_key(likeness).filter(|column| likeness(column) >= LIKE);
    let hint = nearest.map(|column| format!(" (it has {column:?})")).unwrap_or_default();
    format!("the column {absent:?}{hint}, which the pipeline needs")
}

/// Rows of a shard where the pipeline does not say: small files in shards of 100, large ones in about 20,000 shards.
pub(crate) fn rows_per_shard(file: &str, size: u64) -> u32 {
    let factor = if file.to_ascii_lowercase().ends_with(".gz") { GZIP_FACTOR } else { 1 };
    let rows = size.saturating_mul(factor) / ROW_BYTES;
    (rows / SHARDS_AIMED).clamp(100, u64::from(*ROWS_PER_SHARD.end())) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_per_shard_grow_with_the_file() {
        assert_eq!(rows_per_shard("a.jsonl", 9_000_000), 100);
        assert_eq!(rows_per_shard("a.jsonl", 300 * 20_000 * 250), 250);
        assert_eq!(rows_per_shard("a.csv.GZ", 300 * 20_000 * 100), 500);
        assert_eq!(rows_per_shard("a.jsonl", u64::MAX), 1_000);
    }
}
