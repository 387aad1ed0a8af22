//! A dropped `*.run.toml`: which rows of BigQuery a run is about, checked before anything is paid for.

use crate::Splitter;
use crate::plan::{Not, describe, not, rows_per_shard};
use std::collections::BTreeSet;
use tasuki_relay::limits::{PART_BYTES_AIMED, PARTS_MAX, PIPELINE_BYTES_MAX};
use tasuki_relay::names::Bucket;
use tasuki_relay::pipeline::{KeyType, Pipeline};
use tasuki_relay::ports::{Meta, SourceColumn};
use tasuki_relay::record::{Plan, Scan};
use tasuki_relay::source::Source;

impl Splitter {
    /// Reads the file, asks what its source would give, and plans the scan of it.
    pub(crate) async fn scan(&self, plan: &mut Plan, file: &str, input: &Meta, pipeline: &Pipeline) -> Result<(), Not> {
        if input.size > PIPELINE_BYTES_MAX as u64 {
            return Err(Not::Refused(format!("{file} has more than {PIPELINE_BYTES_MAX} bytes")));
        }
        let Some(object) = self.objects.read(Bucket::Inbox, &input.name, Some(input.generation)).await? else {
            return Err(Not::Refused("superseded: the file was overwritten or deleted before it was read".into()));
        };
        let text = String::from_utf8(object.body.into()).map_err(|_| Not::Refused(format!("{file} is not UTF-8")))?;
        let source = Source::parse(&text).map_err(|problems| Not::Refused(problems.in_file(file)))?;
        let checked = self.snapshots.check(&source).await.map_err(not)?;
        if let Some(problem) = problem(&checked.columns, pipeline) {
            return Err(Not::Refused(problem));
        }
        plan.rows_per_shard = pipeline.run.rows_per_shard.unwrap_or_else(|| rows_per_shard("", checked.bytes));
        plan.scan = Some(Scan { source, parts: parts(checked.bytes) });
        Ok(())
    }
}

/// Parts of a snapshot of a source of so many bytes: a guess, as a query may give more than it reads. What it gives is looked at
/// when it is there.
fn parts(bytes: u64) -> u32 {
    bytes.div_ceil(PART_BYTES_AIMED).clamp(1, PARTS_MAX.into()) as u32
}

/// Why a source of these columns does not suit the pipeline.
fn problem(columns: &[SourceColumn], pipeline: &Pipeline) -> Option<String> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(column.name.to_lowercase())) {
        return Some(format!("the source has the column {:?} twice: name one otherwise", twice.name));
    }
    let names: BTreeSet<String> = columns.iter().map(|column| column.name.clone()).collect();
    let needed: BTreeSet<&String> = std::iter::once(&pipeline.key).chain(&pipeline.columns).collect();
    let absent: Vec<String> =
        needed.into_iter().filter(|name| !names.contains(*name)).map(|name| describe(name, &names)).collect();
    if !absent.is_empty() {
        return Some(format!("the source has not {}: mend the pipeline or the source", absent.join(", nor ")));
    }
    let key = columns.iter().find(|column| column.name == pipeline.key)?;
    let (needs, mend) = match pipeline.key_type {
        KeyType::String => ("STRING", "CAST(… AS STRING)"),
        KeyType::Integer => ("INT64", "CAST(… AS INT64)"),
    };
    (key.key != Some(pipeline.key_type)).then(|| {
        format!("the key {:?} is no {needs}: write {mend} in a query, or set key_type in the pipeline", pipeline.key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(columns: &[(&str, Option<KeyType>)]) -> Vec<SourceColumn> {
        columns.iter().map(|(name, key)| SourceColumn { name: (*name).into(), key: *key }).collect()
    }

    #[test]
    fn a_source_must_have_the_columns_of_the_pipeline_and_a_key_of_its_type() {
        let text = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{ title }}\"\n[answer.x]\ntype = \"string\"\n[target]\ntable = \"t\"\n";
        let pipeline = Pipeline::parse(text).unwrap();
        let problem = |given: &[(&str, Option<KeyType>)]| problem(&columns(given), &pipeline).unwrap_or_default();
        let (string, integer) = (Some(KeyType::String), Some(KeyType::Integer));
        assert_eq!(problem(&[("id", string), ("title", None)]), "");
        assert!(problem(&[("id", string), ("titles", None)]).contains("\"title\" (it has \"titles\")"));
        assert!(problem(&[("ID", string), ("title", None)]).contains("\"id\" (it has \"ID\")"));
        assert!(problem(&[("id", integer), ("title", None)]).contains("no STRING"));
        assert!(problem(&[("id", None), ("title", None)]).contains("no STRING"));
        assert!(problem(&[("id", string), ("title", None), ("Title", None)]).contains("twice"));
    }

    #[test]
    fn parts_grow_with_the_source_up_to_the_limit() {
        assert_eq!([0, 1, PART_BYTES_AIMED, PART_BYTES_AIMED + 1].map(parts), [1, 1, 1, 2]);
        assert_eq!(parts(u64::MAX), PARTS_MAX);
    }
}
