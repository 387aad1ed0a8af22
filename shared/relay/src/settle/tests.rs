use super::*;
use crate::names::ShardId;
use crate::pipeline::{AnswerColumn, KeyType, ModelSettings, RunSettings, ValueType};
use crate::record::{Bill, Failed, Usage};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

type Target = BTreeMap<Key, Existing>;

fn pipeline(columns: usize) -> Pipeline {
    let column = |number| AnswerColumn {
        name: format!("answer_{number}"),
        value_type: ValueType::String,
        count: None,
        distinct: false,
        max_chars: None,
        one_of: None,
        pattern: None,
        description: None,
    };
    Pipeline {
        name: "themes".into(),
        key: "id".into(),
        key_type: KeyType::Integer,
        system: None,
        template: "{{ name }}".into(),
        columns: vec!["name".into()],
        answer: (0..columns).map(column).collect(),
        model: ModelSettings::default(),
        run: RunSettings {
            rows_per_shard: None,
            max_in_flight: 1,
            paid_retries: 1,
            give_up_after: None,
            only_changed: true,
            ..RunSettings::default()
        },
        table: "themes".into(),
    }
}

fn part_of(run: i64, source_time: u64, lines: Vec<AnswerLine>) -> Part {
    let run = RunId::of("inbox", "themes/rows.jsonl", run);
    let header = Header {
        run: run.clone(),
        shard: ShardIndex(0),
        pipeline: "themes".into(),
        input: "themes/rows.jsonl".into(),
        first: 0,
        rows: lines.len() as u64,
        digest: String::new(),
        source_time: Millis(source_time),
        run_time: Millis(source_time),
        totals: None,
        refused: None,
        wasted_answers: 3,
        wasted: Bill::default(),
    };
    let id = ShardId { run, shard: ShardIndex(0) };
    Part { id, generation: 1, header, pipeline: Arc::new(pipeline(1)), lines }
}

fn line(ordinal: u64, key: Option<i64>, outcome: Outcome) -> AnswerLine {
    let usage = Usage { prompt: 10, output: 2, thought: 1, cached: 4 };
    let spent = Spent { attempts: 2, paid_calls: 1, ambiguous_calls: 1, usage, latency_ms: 5, ..Spent::default() };
    AnswerLine { ordinal, key: key.map(Key::Integer), outcome, spent }
}

fn answer(fingerprint: &str) -> Outcome {
    let values = json!({"answer_0": "x"}).as_object().unwrap().clone();
    Outcome::Answer(Answer { values, fingerprint: fingerprint.into(), model: "m".into() })
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(Failed { reason: reason.into(), message: "because".into() })
}

fn unchanged(fingerprint: &str) -> Outcome {
    Outcome::Unchanged(fingerprint.into())
}

fn target(run: i64, time: u64, fingerprint: &str) -> Target {
    let existing = Existing {
        source_time: Millis(time),
        run_time: Millis(time),
        run: RunId::of("inbox", "themes/rows.jsonl", run),
        fingerprint: fingerprint.into(),
    };
    [(Key::Integer(1), existing)].into()
}

/// (loaded, unchanged, superseded, failed) of one line with key 1 in a run of time 5.
fn outcome_of(outcome: Outcome, target: &Target) -> (u64, u64, u64, u64) {
    let part = part_of(1, 5, vec![line(0, Some(1), outcome)]);
    let counts = settle(&part, target).counts;
    (counts.loaded, counts.unchanged, counts.superseded, counts.failed)
}

/// What a store does with it.
fn apply(part: &Part, target: &mut Target) -> Counts {
    let settled = settle(part, target);
    let stamp = |fingerprint: &str| Existing {
        source_time: part.header.source_time,
        run_time: part.header.run_time,
        run: part.id.run.clone(),
        fingerprint: fingerprint.to_owned(),
    };
    for upsert in &settled.upserts {
        target.insert(upsert.key.clone(), stamp(&upsert.answer.fingerprint));
    }
    for touch in &settled.touches {
        let fingerprint = target[touch.key].fingerprint.clone();
        target.insert(touch.key.clone(), stamp(&fingerprint));
    }
    settled.counts
}

#[test]
fn an_answer_stays_if_its_run_is_the_newer_one() {
    assert_eq!(outcome_of(answer("f"), &Target::new()), (1, 0, 0, 0));
    assert_eq!(outcome_of(answer("f"), &target(2, 4, "f")), (1, 0, 0, 0));
    assert_eq!(outcome_of(answer("f"), &target(2, 6, "f")), (0, 0, 1, 0));
    assert_eq!(outcome_of(answer("f"), &target(1, 5, "f")), (1, 0, 0, 0), "its own run");
}

#[test]
fn an_unchanged_row_confirms_only_the_answer_that_it_saw() {
    assert_eq!(outcome_of(unchanged("f"), &target(2, 4, "f")), (0, 1, 0, 0));
    assert_eq!(outcome_of(unchanged("f"), &target(2, 6, "f")), (0, 0, 1, 0));
    assert_eq!(outcome_of(unchanged("f"), &target(2, 6, "g")), (0, 0, 1, 0));
    assert_eq!(outcome_of(unchanged("f"), &target(2, 4, "g")), (0, 0, 0, 1));
    assert_eq!(outcome_of(unchanged("f"), &Target::new()), (0, 0, 0, 1));

    let part = part_of(1, 5, vec![line(0, Some(1), unchanged("f"))]);
    assert_eq!(settle(&part, &Target::new()).failures[0].reason, CHANGED_MEANWHILE);
}

#[test]
fn a_failure_keeps_its_key_reason_message_and_attempts() {
    let part = part_of(1, 5, vec![line(7, Some(1), failed("malformed")), line(8, None, failed("bad_json"))]);
    let failures = settle(&part, &Target::new()).failures;
    let failure = |ordinal, key, reason: &str| Failure {
        ordinal,
        key,
        reason: reason.into(),
        message: "because".into(),
        attempts: 2,
    };
    assert_eq!(failures, [failure(7, Some(Key::Integer(1)), "malformed"), failure(8, None, "bad_json")]);
}

#[test]
fn an_answer_without_a_key_fails_instead_of_vanishing() {
    let part = part_of(1, 5, vec![line(0, None, answer("f"))]);
    let settled = settle(&part, &Target::new());
    assert_eq!((settled.counts.failed, settled.failures[0].reason.as_str()), (1, ANSWERS_CORRUPT));
}

#[test]
fn everything_that_was_spent_is_counted_whatever_came_of_it() {
    let lines = vec![
        line(0, Some(1), answer("f")),
        line(1, Some(2), failed(CANCELLED)),
        line(2, Some(3), unchanged("f")),
        line(3, None, failed("bad_json")),
    ];
    let counts = settle(&part_of(1, 5, lines), &target(2, 6, "f")).counts;
    assert_eq!(counts.usage, Usage { prompt: 40, output: 8, thought: 4, cached: 16 });
    assert_eq!((counts.shards, counts.paid_calls, counts.ambiguous_calls, counts.wasted_answers), (1, 4, 4, 3));
    assert_eq!((counts.superseded, counts.failed, counts.cancelled), (1, 3, 1));
}

#[test]
fn keys_are_read_sorted_and_only_where_a_target_row_matters() {
    let lines = vec![
        line(0, Some(3), answer("f")),
        line(1, Some(1), unchanged("f")),
        line(2, Some(2), failed("malformed")),
        line(3, None, failed("bad_json")),
    ];
    assert_eq!(keys_to_read(&part_of(1, 5, lines)), [Key::Integer(1), Key::Integer(3)]);
}

#[test]
fn a_run_ends_when_shards_and_rows_agree_and_not_before() {
    let counts = Counts { shards: 2, loaded: 3, failed: 1, ..Counts::default() };
    let totals = |shards, rows| Some(Totals { shards, rows });
    assert_eq!(end_state(None, totals(2, 4), &counts), Some(RunState::Complete));
    for expected in [None, totals(2, 5), totals(3, 4), totals(1, 4)] {
        assert_eq!(end_state(None, expected, &counts), None);
        assert_eq!(end_state(Some(ShardIndex::REFUSAL), expected, &counts), Some(RunState::Failed));
    }
    assert_eq!(end_state(Some(ShardIndex(2)), totals(3, 4), &counts), None);
    assert_eq!(end_state(Some(ShardIndex(2)), totals(2, 4), &counts), Some(RunState::Failed));
    assert_eq!(end_state(Some(ShardIndex(2)), totals(1, 2), &counts), Some(RunState::Failed), "a shard came late");
    let cancelled = Counts { cancelled: 1, ..counts };
    assert_eq!(end_state(None, totals(2, 4), &cancelled), Some(RunState::Cancelled));
    assert_eq!(end_state(Some(ShardIndex(1)), totals(2, 4), &cancelled), Some(RunState::Failed));
}

#[test]
fn a_part_is_refused_one_mutation_over_the_limit() {
    let wide = |rows: u64, columns: usize| {
        let mut part = part_of(1, 5, (0..rows).map(|n| line(n, Some(n as i64), answer("f"))).collect());
        part.pipeline = Arc::new(pipeline(columns));
        part
    };
    let per_answer = mutations_per_answer(&pipeline(35));
    let fits = ((MUTATIONS_MAX - BOOKKEEPING_COLUMNS) / per_answer) as u64;
    assert!(check_commit(&wide(fits, 35), 0).is_ok());
    assert!(
        matches!(check_commit(&wide(fits + 1, 35), 0), Err(RecordsError::Systemic(mend)) if mend.contains("rows_per_shard"))
    );
}

#[test]
fn the_estimate_of_a_commit_is_not_below_the_text_that_it_writes() {
    let mut long = line(0, Some(1), answer("f"));
    if let Outcome::Answer(answer) = &mut long.outcome {
        answer.values.insert("answer_0".into(), json!("x".repeat(10_000)));
    }
    assert!(commit_bytes(&part_of(1, 5, vec![long.clone(); 3])) > 30_000);
    assert!(commit_bytes(&part_of(1, 5, vec![long])) < 20_000);
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let fingerprint = prop_oneof![Just("f"), Just("g")];
    prop_oneof![
        fingerprint.clone().prop_map(answer),
        fingerprint.prop_map(unchanged),
        prop_oneof![Just("malformed"), Just(CANCELLED)].prop_map(failed),
    ]
}

fn any_lines() -> impl Strategy<Value = Vec<AnswerLine>> {
    let row = (proptest::option::weighted(0.9, 0..40i64), any_outcome());
    proptest::collection::vec(row, 0..40)
        .prop_map(|rows| (0..).zip(rows).map(|(ordinal, (key, outcome))| line(ordinal, key, outcome)).collect())
}

fn any_answers() -> impl Strategy<Value = Vec<AnswerLine>> {
    proptest::collection::btree_set(0..10i64, 0..10)
        .prop_map(|keys| (0..).zip(keys).map(|(ordinal, key)| line(ordinal, Some(key), answer("f"))).collect())
}

fn any_target() -> impl Strategy<Value = Target> {
    let row = (0..3i64, 0..10u64, prop_oneof![Just("f"), Just("g")]);
    proptest::collection::btree_map(0..40i64, row, 0..40).prop_map(|rows| {
        let existing = |(run, time, fingerprint)| target(run, time, fingerprint).remove(&Key::Integer(1)).unwrap();
        rows.into_iter().map(|(key, row)| (Key::Integer(key), existing(row))).collect()
    })
}

proptest! {
    #[test]
    fn every_line_is_counted_exactly_once(lines in any_lines(), target in any_target()) {
        let part = part_of(1, 5, lines);
        let settled = settle(&part, &target);
        let counts = settled.counts;
        prop_assert_eq!(counts.rows(), part.lines.len() as u64);
        prop_assert_eq!(counts.loaded, settled.upserts.len() as u64);
        prop_assert_eq!(counts.unchanged, settled.touches.len() as u64);
        prop_assert_eq!(counts.failed, settled.failures.len() as u64);
        let mut ordinals: Vec<u64> = settled.upserts.iter().map(|row| row.ordinal)
            .chain(settled.touches.iter().map(|row| row.ordinal))
            .chain(settled.failures.iter().map(|row| row.ordinal)).collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        prop_assert_eq!(ordinals.len() as u64 + counts.superseded, counts.rows());
    }

    #[test]
    fn two_runs_in_either_order_leave_the_same_winner(
        first in any_answers(), second in any_answers(), start in any_target(), times in (0..3u64, 0..3u64),
    ) {
        let (first, second) = (part_of(10, times.0, first), part_of(11, times.1, second));
        let (mut forth, mut back) = (start.clone(), start);
        apply(&first, &mut forth);
        apply(&second, &mut forth);
        apply(&second, &mut back);
        apply(&first, &mut back);
        prop_assert_eq!(forth, back);
    }

    #[test]
    fn no_part_makes_a_target_row_older(lines in any_lines(), start in any_target()) {
        let part = part_of(1, 5, lines);
        let mut after = start.clone();
        apply(&part, &mut after);
        for (key, was) in &start {
            let is = &after[key];
            prop_assert!((is.source_time, is.run_time, &is.run) >= (was.source_time, was.run_time, &was.run));
        }
    }
}
