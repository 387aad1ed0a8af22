//! The law of the splitter: no row is lost or doubled, whatever the size of the file and of the shards.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::files_only::FilesOnly;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::ports::{Event, Objects, RowFault, SourceRow, Verdict};
use tasuki_relay::record::{Content, Header, ShardLine, Totals, decode};
use tasuki_splitter::{Settings, Splitter};
use tasuki_tests::memory::records::MemoryRecords;
use tasuki_tests::memory::{MemoryObjects, MemoryRows};

/// A key of few, or a row that is none.
fn source() -> impl Strategy<Value = Vec<Option<u8>>> {
    proptest::collection::vec(proptest::option::weighted(0.9, 0..60u8), 0..120)
}

/// A pipeline of one column.
fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ id }}}}\"\n[answer.x]\ntype = \"string\"\n{more}\n\
         [target]\ntable = \"t\"\n"
    )
}

/// The objects after these rows were dropped and split.
async fn dropped(pipeline: String, rows: Vec<SourceRow>) -> Arc<MemoryObjects> {
    let clock = Clock::system();
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    objects.create(Bucket::State, &names::pipeline("p"), pipeline.into()).await.expect("new");
    let file = objects
        .create(Bucket::Inbox, "p/a.jsonl", Bytes::from_static(b"the rows come from memory"))
        .await
        .expect("new");
    let rows = Arc::new(MemoryRows::new(rows));
    let records = Arc::new(MemoryRecords::new(clock.clone()));
    let files = Arc::new(FilesOnly);
    let splitter = Splitter::new(objects.clone(), rows, files, records, clock, Chance::seeded(1), Settings::default());
    let event = Event { bucket: Bucket::Inbox, name: "p/a.jsonl".into(), generation: file.generation };
    assert_eq!(splitter.handle(&event).await, Verdict::Done);
    objects
}

async fn split(rows: &[Option<u8>], rows_per_shard: u32) -> Vec<(Header, Vec<ShardLine>)> {
    let source = rows.iter().map(|row| SourceRow {
        place: "line".into(),
        row: match row {
            Some(key) => Ok(json!({"id": format!("k{key}")}).as_object().expect("an object").clone()),
            None => Err(RowFault { reason: "bad_json", message: "no JSON".into(), key: None }),
        },
    });
    let objects = dropped(pipeline(&format!("[run]\nrows_per_shard = {rows_per_shard}")), source.collect()).await;
    objects.live(Bucket::Shards).iter().map(|shard| decode(&shard.body).expect("shards are whole")).collect()
}

#[tokio::test]
async fn a_run_with_a_cap_and_a_model_without_a_price_is_refused_before_anything_is_asked() {
    let more = "[model]\nname = \"own\"\nmax_output_tokens = 9\n[run]\nmax_cost_usd = 5";
    let objects = dropped(pipeline(more), Vec::new()).await;
    let shards = objects.live(Bucket::Shards);
    let (header, lines): (Header, Vec<ShardLine>) = decode(&shards[0].body).expect("whole");
    let why = header.refused.expect("refused");
    assert!(
        why.contains("pipelines/p.toml:") && why.contains(": max_cost_usd") && why.contains("[model.price] for own"),
        "{why}"
    );
    assert_eq!((shards.len(), lines), (1, Vec::new()));
}

proptest! {
    #[test]
    fn sharding_loses_and_doubles_no_row(rows in source(), rows_per_shard in 1..40u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let shards = runtime.block_on(split(&rows, rows_per_shard));
        let lines: Vec<&ShardLine> = shards.iter().flat_map(|(_, lines)| lines).collect();
        prop_assert_eq!(lines.iter().map(|line| line.ordinal).collect::<Vec<_>>(), (0..rows.len() as u64).collect::<Vec<_>>());
        for (header, lines) in &shards {
            prop_assert_eq!((header.first, header.rows), (lines.first().map_or(0, |line| line.ordinal), lines.len() as u64));
            prop_assert!(lines.len() <= rows_per_shard as usize);
        }
        let totals: Vec<Totals> = shards.iter().filter_map(|(header, _)| header.totals).collect();
        prop_assert_eq!(totals, vec![Totals { shards: shards.len() as u64, rows: rows.len() as u64 }]);
        prop_assert!(shards.last().is_some_and(|(header, _)| header.totals.is_some()), "the last shard has the totals");

        let mut seen = BTreeSet::new();
        for (row, line) in rows.iter().zip(lines) {
            let is_first = row.is_some_and(|key| seen.insert(key));
            prop_assert_eq!(is_first, matches!(line.content, Content::Row(_)), "the first row of a key is asked, no other");
        }
    }
}
