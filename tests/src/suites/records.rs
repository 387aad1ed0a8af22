//! What every adapter of the records port must do. Sees the store through the port alone.

use crate::build::{answer, failed, part, pipeline, refusal, run_id, unchanged, with_totals};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use tasuki_relay::names::ShardIndex;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Loaded, Part, Records, RecordsError, RunRow, RunState};
use tasuki_relay::record::{Bill, Counts, Key, Usage};

/// Runs every check on a fresh store. Panics where the adapter is wrong.
pub async fn records_suite(records: &dyn Records) {
    a_part_is_loaded_once(records).await;
    every_count_is_kept_in_a_place_of_its_own(records).await;
    eight_loads_of_one_part_load_it_once(records).await;
    a_run_ends_when_shards_and_rows_agree(records).await;
    a_run_with_more_rows_than_promised_stays_open(records).await;
    an_empty_run_completes(records).await;
    a_refused_run_fails(records).await;
    the_refusal_shard_ends_a_run_at_once(records).await;
    a_cancelled_row_makes_a_cancelled_run(records).await;
    the_newer_run_stays_in_either_order(records).await;
    an_unchanged_row_confirms_the_answer_that_it_saw(records).await;
    a_part_of_failures_loads_without_a_target(records).await;
    a_notice_is_due_until_it_is_marked(records).await;
    a_run_is_parked_and_resumed(records).await;
    a_run_may_be_parked_before_it_is_known(records).await;
    an_ended_run_is_not_parked(records).await;
    a_part_too_large_for_one_commit_is_refused(records).await;
    unknown_names_are_no_errors(records).await;
}

const S0: ShardIndex = ShardIndex(0);

async fn load(records: &dyn Records, part: &Part) -> Counts {
    match records.load(part).await.expect("loads") {
        Loaded::Now(counts) => counts,
        Loaded::Already => panic!("shard {} was loaded before", part.id),
    }
}

async fn finish(records: &dyn Records, number: i64) -> RunRow {
    records.finish(&run_id(number)).await.expect("answers").expect("knows the run")
}

async fn fingerprint(records: &dyn Records, pipeline: &Pipeline, key: i64) -> Option<String> {
    records.fingerprints(pipeline, &[Key::Integer(key)]).await.expect("answers").remove(&Key::Integer(key))
}

async fn notices(records: &dyn Records, number: i64) -> Vec<String> {
    let due = records.unpublished(Some(&run_id(number))).await.expect("answers");
    due.into_iter().map(|ended| ended.event_id).collect()
}

async fn a_part_is_loaded_once(records: &dyn Records) {
    let target = pipeline("once");
    let mut one = part(&target, 100, S0, vec![(1, answer("f1")), (2, failed("malformed")), (3, answer("f3"))]);
    one.lines[2].spent.salvage = Bill { calls: 1, cost: 9, ..Bill::default() };
    let counts = load(records, &one).await;
    let usage = |rows: u64| Usage { prompt: 10 * rows, output: 2 * rows, thought: 0, cached: 0 };
    let bill = Counts {
        cost: 21_000_000,
        waste: Bill { calls: 1, usage: usage(1), cost: 7_000_000 },
        salvage: one.lines[2].spent.salvage,
        ..Counts::default()
    };
    assert_eq!(counts, Counts { shards: 1, loaded: 2, failed: 1, paid_calls: 3, usage: usage(3), ..bill });

    let before = finish(records, 100).await;
    assert_eq!((before.state, before.counts, before.ended_at), (RunState::Running, counts, None));
    assert_eq!((before.pipeline.as_str(), before.input.as_str()), ("themes", "themes/rows.jsonl"));
    assert_eq!((before.source_time, before.run_time), (one.header.source_time, one.header.run_time));

    let mut other = part(&target, 100, S0, vec![(1, answer("other")), (4, answer("f4"))]);
    other.generation = 2;
    assert_eq!(records.load(&one).await, Ok(Loaded::Already));
    assert_eq!(records.load(&other).await, Ok(Loaded::Already), "the ledger decides, whatever the object holds");
    assert_eq!(finish(records, 100).await, before);
    let keys = [1, 2, 3, 4].map(Key::Integer);
    let expected = BTreeMap::from([(Key::Integer(1), "f1".to_owned()), (Key::Integer(3), "f3".to_owned())]);
    assert_eq!(records.fingerprints(&target, &keys).await, Ok(expected));
}

async fn every_count_is_kept_in_a_place_of_its_own(records: &dyn Records) {
    let usage = |from: u64| Usage { prompt: from, output: from + 20, thought: from + 40, cached: from + 60 };
    let bill = |from: u64| Bill { calls: from, usage: usage(from + 1), cost: from + 5 };
    let mut one = part(&pipeline("once"), 777, S0, vec![(901, answer("f1")), (902, failed("malformed"))]);
    let spent = &mut one.lines[0].spent;
    (spent.paid_calls, spent.ambiguous_calls, spent.unpriced_calls, spent.reused, spent.duplicates) =
        (900, 11, 12, 13, 14);
    (spent.usage, spent.cost) = (usage(10_000), 1 << 50);
    (spent.retries, spent.salvage) = (bill(100), bill(200));
    (one.header.wasted_answers, one.header.wasted) = (3, bill(300));
    let counts = load(records, &one).await;
    assert_eq!(finish(records, 777).await.counts, counts, "the store keeps what was loaded");
    let of_calls = Counts::COLUMNS.iter().zip(counts.values()).skip_while(|(column, _)| **column != "paid_calls");
    let numbers: BTreeSet<u64> = of_calls.clone().map(|(_, value)| value).collect();
    assert_eq!(numbers.len(), of_calls.count(), "no two are alike, or mixing them up would not be seen: {counts:?}");
    assert_eq!((counts.duplicate_prompts, counts.retries, counts.cost - (1 << 50)), (14, bill(100), 7_000_000 + 305));
}

async fn eight_loads_of_one_part_load_it_once(records: &dyn Records) {
    let one = part(&pipeline("eight"), 110, S0, (0..20).map(|key| (key, answer("f"))).collect());
    let loads = join_all((0..8).map(|_| records.load(&one))).await;
    let now = loads.iter().filter(|loaded| matches!(loaded, Ok(Loaded::Now(_)))).count();
    let already = loads.iter().filter(|loaded| matches!(loaded, Ok(Loaded::Already))).count();
    assert_eq!((now, already), (1, 7));
    assert_eq!(finish(records, 110).await.counts.loaded, 20);
}

async fn a_run_ends_when_shards_and_rows_agree(records: &dyn Records) {
    let target = pipeline("ends");
    let shard = |index: u32, key| part(&target, 120, ShardIndex(index), vec![(key, answer("f"))]);
    load(records, &with_totals(shard(17, 17), 3, 3)).await;
    let open = finish(records, 120).await;
    assert_eq!((open.state, open.expected_shards, open.expected_rows), (RunState::Running, Some(3), Some(3)));
    load(records, &shard(1, 1)).await; // the same counter as shard 17
    assert_eq!(finish(records, 120).await.state, RunState::Running);
    assert!(notices(records, 120).await.is_empty());
    load(records, &shard(2, 2)).await;

    let run = run_id(120);
    let rows = join_all((0..4).map(|_| records.finish(&run))).await;
    let rows: Vec<RunRow> = rows.into_iter().map(|row| row.expect("answers").expect("knows the run")).collect();
    assert_eq!((rows[0].state, rows[0].counts.shards, rows[0].counts.loaded), (RunState::Complete, 3, 3));
    assert!(rows[0].ended_at.is_some());
    assert!(rows.iter().all(|row| *row == rows[0]), "the transition happens once");
    assert_eq!(notices(records, 120).await, [format!("{run}:complete")]);

    let there = records.ledgered(&run, &[0, 1, 2, 3, 17].map(ShardIndex)).await.expect("answers");
    assert_eq!(there.into_iter().collect::<Vec<_>>(), [1, 2, 17].map(ShardIndex));
}

async fn a_run_with_more_rows_than_promised_stays_open(records: &dyn Records) {
    let rows = vec![(1, answer("f")), (2, answer("f"))];
    load(records, &with_totals(part(&pipeline("more"), 130, S0, rows), 1, 1)).await;
    assert_eq!(finish(records, 130).await.state, RunState::Running);
}

async fn an_empty_run_completes(records: &dyn Records) {
    load(records, &with_totals(part(&pipeline("empty"), 140, S0, vec![]), 1, 0)).await;
    assert_eq!(finish(records, 140).await.state, RunState::Complete);
    assert_eq!(fingerprint(records, &pipeline("empty"), 1).await, None);
}

async fn a_refused_run_fails(records: &dyn Records) {
    let target = pipeline("refused");
    load(records, &with_totals(refusal(&target, 150, ShardIndex(1), "source_gone"), 2, 1)).await;
    let open = finish(records, 150).await;
    assert_eq!((open.state, open.refused.as_deref()), (RunState::Running, Some("source_gone")));
    load(records, &part(&target, 150, S0, vec![(1, failed("source_gone"))])).await;
    assert_eq!(finish(records, 150).await.state, RunState::Failed);
    assert_eq!(notices(records, 150).await, [format!("{}:failed", run_id(150))]);
}

async fn the_refusal_shard_ends_a_run_at_once(records: &dyn Records) {
    let target = pipeline("at_once");
    load(records, &with_totals(part(&target, 160, S0, vec![(1, answer("f"))]), 9, 900)).await;
    assert_eq!(finish(records, 160).await.state, RunState::Running);
    load(records, &refusal(&target, 160, ShardIndex::REFUSAL, "split_nondeterministic")).await;
    let failed = finish(records, 160).await;
    assert_eq!((failed.state, failed.refused.as_deref()), (RunState::Failed, Some("split_nondeterministic")));

    // A late shard still gets its outcome; the end stays what it was.
    load(records, &part(&target, 160, ShardIndex(1), vec![(2, answer("f"))])).await;
    let late = finish(records, 160).await;
    assert_eq!((late.state, late.ended_at, late.counts.loaded), (RunState::Failed, failed.ended_at, 2));
    assert_eq!(notices(records, 160).await.len(), 1);

    // Beside another refused shard, in either order, it is the one that counts.
    for (number, shards) in [(161, [ShardIndex(3), ShardIndex::REFUSAL]), (162, [ShardIndex::REFUSAL, ShardIndex(3)])] {
        for shard in shards {
            load(records, &refusal(&target, number, shard, &format!("by {shard}"))).await;
        }
        let failed = finish(records, number).await;
        assert_eq!((failed.state, failed.refused.as_deref()), (RunState::Failed, Some("by 99999999")));
    }
}

async fn a_cancelled_row_makes_a_cancelled_run(records: &dyn Records) {
    let rows = vec![(1, answer("f")), (2, failed("cancelled")), (3, failed("malformed"))];
    let counts = load(records, &with_totals(part(&pipeline("cancelled"), 170, S0, rows), 1, 3)).await;
    assert_eq!((counts.loaded, counts.failed, counts.cancelled), (1, 2, 1));
    let run = finish(records, 170).await;
    assert_eq!((run.state, run.counts), (RunState::Cancelled, counts));
    assert_eq!(notices(records, 170).await, [format!("{}:cancelled", run_id(170))]);
}

async fn the_newer_run_stays_in_either_order(records: &dyn Records) {
    let target = pipeline("newer");
    let of = |number, key, fingerprint: &str| part(&target, number, S0, vec![(key, answer(fingerprint))]);
    assert_eq!(load(records, &of(180, 1, "older")).await.loaded, 1);
    assert_eq!(load(records, &of(181, 1, "newer")).await.loaded, 1);
    assert_eq!(fingerprint(records, &target, 1).await.as_deref(), Some("newer"));

    assert_eq!(load(records, &of(183, 2, "newer")).await.loaded, 1);
    let counts = load(records, &of(182, 2, "older")).await;
    assert_eq!((counts.loaded, counts.superseded, counts.paid_calls), (0, 1, 1));
    assert_eq!(fingerprint(records, &target, 2).await.as_deref(), Some("newer"));

    // source_time decides before run_time: a retry started later writes rows that are as old as its parent's.
    let mut retry = of(184, 2, "retry");
    retry.header.source_time = of(182, 2, "older").header.source_time;
    assert_eq!(load(records, &retry).await.superseded, 1);
}

async fn an_unchanged_row_confirms_the_answer_that_it_saw(records: &dyn Records) {
    let target = pipeline("unchanged");
    load(records, &part(&target, 190, S0, vec![(1, answer("f")), (2, answer("g"))])).await;
    let seen = part(&target, 192, S0, vec![(1, unchanged("f")), (2, unchanged("f")), (3, unchanged("f"))]);
    let counts = load(records, &with_totals(seen, 1, 3)).await;
    assert_eq!((counts.unchanged, counts.failed, counts.loaded, counts.superseded), (1, 2, 0, 0));
    assert_eq!(finish(records, 192).await.state, RunState::Complete);

    // Confirmed by run 192, the answer is newer than run 191.
    let between = part(&target, 191, S0, vec![(1, answer("h")), (2, answer("h"))]);
    let counts = load(records, &between).await;
    assert_eq!((counts.superseded, counts.loaded), (1, 1));
    assert_eq!(fingerprint(records, &target, 1).await.as_deref(), Some("f"));
    assert_eq!(fingerprint(records, &target, 2).await.as_deref(), Some("h"));

    let late = part(&target, 189, S0, vec![(1, unchanged("f")), (2, unchanged("f"))]);
    assert_eq!(load(records, &late).await.superseded, 2, "the target is newer, whatever its fingerprint");
}

async fn a_part_of_failures_loads_without_a_target(records: &dyn Records) {
    // A plan whose pipeline could not be read names no table.
    let mut one =
        with_totals(part(&pipeline(""), 200, S0, vec![(1, failed("bad_json")), (2, failed("bad_json"))]), 1, 2);
    one.lines[0].key = None;
    one.header.wasted_answers = 2;
    one.header.wasted = Bill { calls: 2, cost: 3, ..Bill::default() };
    let counts = load(records, &one).await;
    assert_eq!((counts.failed, counts.wasted_answers, counts.rows()), (2, 2, 2));
    assert_eq!((counts.waste.calls, counts.cost), (4, 14_000_003), "what was thrown away was paid, too");
    assert_eq!(finish(records, 200).await.state, RunState::Complete);
}

async fn a_notice_is_due_until_it_is_marked(records: &dyn Records) {
    let target = pipeline("notice");
    for number in [210, 211] {
        load(records, &with_totals(part(&target, number, S0, vec![]), 1, 0)).await;
        finish(records, number).await;
    }
    let due = records.unpublished(None).await.expect("answers");
    let ours = due.iter().filter(|ended| [run_id(210), run_id(211)].contains(&ended.run.run)).count();
    assert_eq!(ours, 2);
    let ended = records.unpublished(Some(&run_id(210))).await.expect("answers");
    assert_eq!(ended[0].run, finish(records, 210).await);

    for _ in 0..2 {
        records.mark_published(&ended[0].event_id).await.expect("marks, and marks again");
        finish(records, 210).await;
        assert!(notices(records, 210).await.is_empty());
    }
    assert_eq!(notices(records, 211).await.len(), 1);
}

async fn a_run_is_parked_and_resumed(records: &dyn Records) {
    let target = pipeline("parked");
    let first = with_totals(part(&target, 230, S0, vec![(1, answer("f"))]), 2, 2);
    load(records, &first).await;
    let running = finish(records, 230).await;
    let id = |marker: i64| format!("{}:parked:{marker}", run_id(230));
    for _ in 0..2 {
        records.park(&first.header, 7).await.expect("parks, and parks again");
        assert_eq!(finish(records, 230).await, RunRow { state: RunState::Parked, ..running.clone() });
        assert_eq!(notices(records, 230).await, [id(7)]);
    }
    let due = records.unpublished(Some(&run_id(230))).await.expect("answers");
    assert_eq!((due[0].state, &due[0].run), (RunState::Parked, &finish(records, 230).await));
    records.mark_published(&id(7)).await.expect("marks");
    records.park(&first.header, 7).await.expect("parks");
    assert!(notices(records, 230).await.is_empty(), "it was published");

    for _ in 0..2 {
        records.resume(&run_id(230)).await.expect("resumes, and resumes again");
        assert_eq!(finish(records, 230).await, running);
    }
    records.park(&first.header, 9).await.expect("parks");
    assert_eq!(notices(records, 230).await, [id(9)], "another marker is another notice");

    // What is there is loaded, and with the last of it the run ends.
    load(records, &part(&target, 230, ShardIndex(1), vec![(2, answer("f"))])).await;
    assert_eq!(finish(records, 230).await.state, RunState::Complete);
}

async fn a_run_may_be_parked_before_it_is_known(records: &dyn Records) {
    let first = with_totals(part(&pipeline("early"), 231, S0, vec![(1, answer("f"))]), 1, 1);
    records.park(&first.header, 7).await.expect("parks");
    let parked = finish(records, 231).await;
    assert_eq!(
        (parked.state, parked.counts, parked.input.as_str()),
        (RunState::Parked, Counts::default(), "themes/rows.jsonl")
    );
    assert_eq!((parked.source_time, parked.run_time), (first.header.source_time, first.header.run_time));
    assert_eq!(notices(records, 231).await.len(), 1);
    records.resume(&run_id(231)).await.expect("resumes");
    load(records, &first).await;
    assert_eq!(finish(records, 231).await.state, RunState::Complete);
}

async fn an_ended_run_is_not_parked(records: &dyn Records) {
    let only = with_totals(part(&pipeline("late"), 232, S0, vec![]), 1, 0);
    load(records, &only).await;
    let ended = finish(records, 232).await;
    records.park(&only.header, 7).await.expect("answers");
    records.resume(&run_id(232)).await.expect("answers");
    assert_eq!((finish(records, 232).await, notices(records, 232).await.len()), (ended, 1));
}

async fn a_part_too_large_for_one_commit_is_refused(records: &dyn Records) {
    let rows = (0..6_000).map(|key| (key, answer("f"))).collect();
    let large = part(&pipeline("large"), 220, S0, rows);
    assert!(matches!(records.load(&large).await, Err(RecordsError::Systemic(_))));
    assert_eq!(records.finish(&run_id(220)).await, Ok(None), "nothing was committed");
}

async fn unknown_names_are_no_errors(records: &dyn Records) {
    assert_eq!(records.finish(&run_id(-1)).await, Ok(None));
    assert_eq!(records.ledgered(&run_id(-1), &[S0]).await, Ok(Default::default()));
    assert_eq!(records.resume(&run_id(-1)).await, Ok(()));
    assert_eq!(records.unpublished(Some(&run_id(-1))).await, Ok(vec![]));
    assert_eq!(records.mark_published("none:complete").await, Ok(()));
    assert_eq!(fingerprint(records, &pipeline("not_yet"), 1).await, None);
}
