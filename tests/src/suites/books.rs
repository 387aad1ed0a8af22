//! What every adapter of the books must tell of a run, however large it is.

use crate::build::{answer, failed, part, pipeline, run_id};
use std::collections::BTreeSet;
use tasuki_relay::books::{Books, LoadedParts};
use tasuki_relay::names::ShardIndex;
use tasuki_relay::ports::{Loaded, Part, Records};
use tasuki_relay::record::{Bill, Counts, Outcome};

/// Table of the suite's pipeline.
pub const TABLE: &str = "told";
/// More answers than an adapter reads at once.
const SHARDS: u32 = 12;

/// Runs every check on a fresh store, which has the table [`TABLE`]. Panics where the adapter is wrong.
pub async fn books_suite(records: &dyn Records, books: &dyn Books) {
    nothing_is_told_of_a_run_that_is_not_known(books).await;
    loaded_parts_and_answerers_are_told_whole(records, books).await;
}

async fn nothing_is_told_of_a_run_that_is_not_known(books: &dyn Books) {
    assert_eq!(books.loaded_parts(&run_id(-1)).await, Ok(LoadedParts::default()));
    assert_eq!(books.answerers(&pipeline(TABLE), &run_id(-1)).await, Ok(Vec::new()));
    assert_eq!(books.answerers(&pipeline("absent"), &run_id(-1)).await, Ok(Vec::new()));
}

/// A thousand rows; the last one failed, and every tenth was answered by the fallback.
fn thousand(number: i64, shard: u32) -> Part {
    let row = |row: i64| {
        let outcome = match (answer("f"), row) {
            (_, 999) => failed("malformed"),
            (Outcome::Answer(mut answer), row) if row % 10 == 0 => {
                answer.model = "other-001@eu".into();
                Outcome::Answer(answer)
            }
            (outcome, _) => outcome,
        };
        (i64::from(shard) * 1_000 + row, outcome)
    };
    part(&pipeline(TABLE), number, ShardIndex(shard), (0..1_000).map(row).collect())
}

async fn loaded_parts_and_answerers_are_told_whole(records: &dyn Records, books: &dyn Books) {
    let (mut sum, mut shards) = (Counts::default(), BTreeSet::new());
    // All but one, which comes from a newer run.
    for shard in (0..SHARDS).filter(|shard| *shard != 3) {
        let mut part = thousand(1, shard);
        (part.header.wasted_answers, part.header.wasted) = (1, Bill { calls: 1, cost: 5, ..Bill::default() });
        let Ok(Loaded::Now(counts)) = records.load(&part).await else { panic!("shard {shard} is not loaded") };
        sum += counts;
        shards.insert(ShardIndex(shard));
    }
    records.load(&thousand(2, 3)).await.expect("loads");
    let told = books.loaded_parts(&run_id(1)).await.expect("answers");
    assert_eq!((&told.shards, &told.counts), (&shards, &sum));
    let row = books.run(&run_id(1)).await.expect("answers").expect("knows the run");
    assert_eq!(row.counts, told.counts, "the same as the sum of the counters");

    let answerers = |model: u64, other: u64| vec![("model-001".to_owned(), model), ("other-001@eu".to_owned(), other)];
    let parts = u64::from(SHARDS) - 1;
    let all = books.answerers(&pipeline(TABLE), &run_id(1)).await;
    assert_eq!(all, Ok(answerers(899 * parts, 100 * parts)));
    assert_eq!(books.answerers(&pipeline(TABLE), &run_id(2)).await, Ok(answerers(899, 100)));
    // A newer run takes the rows over.
    records.load(&thousand(3, 0)).await.expect("loads");
    let left = books.answerers(&pipeline(TABLE), &run_id(1)).await;
    assert_eq!(left, Ok(answerers(899 * (parts - 1), 100 * (parts - 1))));
}
