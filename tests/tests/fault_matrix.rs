//! Rows of the fault matrix (protocol.md 8) that seeds meet rarely, each as a world of its own.

use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::limits::PART_BYTES_MAX;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::RunState;
use tasuki_tests::memory::Act;
use tasuki_tests::sim::faults::{ALL, Fault, Faults};
use tasuki_tests::sim::model::{CANARY, Storm};
use tasuki_tests::sim::{self, ByHand, Report, START, Setup, Table, draw};

const MINUTE: Duration = Duration::from_secs(60);

fn row(n: u64, act: &str) -> String {
    format!("{{\"id\": \"k{n}\", \"act\": \"{act}-{n} {CANARY}\"}}\n")
}

/// A file whose rows make the model do this, in turn.
fn rows(acts: &[&str]) -> String {
    acts.iter().zip(0..).map(|(act, n)| row(n, act)).collect()
}

fn world(seed: u64, text: String) -> Setup {
    Setup {
        seed,
        pipeline: draw::pipeline(false),
        files: vec![(Duration::ZERO, "p/a.jsonl".to_owned(), text)],
        sweeps: true,
        ..Setup::default()
    }
}

fn run(setup: Setup, faults: impl IntoIterator<Item = (&'static str, u64, Fault)>) -> Report {
    let faults = faults.into_iter().map(|(kind, at, fault)| ((kind.to_owned(), at), fault));
    sim::run(setup, &Arc::new(Faults::of(faults))).unwrap_or_else(|violation| panic!("{violation}"))
}

fn asks(report: &Report) -> usize {
    report.trace.iter().filter(|(kind, _)| kind == "generator ask").count()
}

fn only_state(report: &Report) -> RunState {
    assert_eq!(report.runs.len(), 1, "{report:?}");
    *report.runs.values().next().expect("one run")
}

fn failed(report: &Report, reason: &str) -> u64 {
    report.failures.get(reason).copied().unwrap_or(0)
}

#[test]
fn a_row_that_kills_its_process_fails_as_poison_and_the_others_load() {
    for seed in 0..5 {
        let report = run(world(seed, rows(&["answer", "answer", "kills", "answer", "answer", "answer", "answer"])), []);
        assert_eq!((failed(&report, "poison"), report.loaded.len()), (1, 6), "seed {seed}");
        assert_eq!(only_state(&report), RunState::Complete);
    }
}

#[test]
fn processes_that_die_for_another_reason_poison_no_row() {
    let deaths = (0..6).map(|n| ("generator create ckpt", n, Fault::DiesBefore));
    let report = run(world(1, draw::plain_file(20)), deaths);
    assert_eq!((report.loaded.len(), report.failures.len()), (20, 0));
}

#[test]
fn a_revoked_right_stops_the_machine_and_fails_no_row() {
    let storm = Storm { from: START, to: START + 30 * MINUTE, systemic: true };
    let report = run(Setup { storm: Some(storm), ..world(1, draw::plain_file(30)) }, []);
    assert_eq!((report.loaded.len(), report.failures.len(), report.paid), (30, 0, 30));
    assert!(asks(&report) < 30 + 200, "the breaker keeps calls off a model that refuses them: {}", asks(&report));
}

#[test]
fn a_storm_of_429_fails_no_row() {
    let storm = Storm { from: START, to: START + 30 * MINUTE, systemic: false };
    let report = run(Setup { storm: Some(storm), ..world(1, draw::plain_file(30)) }, []);
    assert_eq!((report.loaded.len(), report.failures.len(), report.paid), (30, 0, 30));
}

#[test]
fn a_burst_of_server_errors_costs_a_bounded_number_of_calls() {
    let report = run(world(1, rows(&["down"; 25])), []);
    assert_eq!((report.loaded.len(), report.failures.len()), (25, 0));
    assert!(asks(&report) <= 25 * 3 + 15, "two errors and an answer for each row: {}", asks(&report));
}

#[test]
fn a_row_of_server_errors_fails_after_three_epochs_in_which_others_succeeded() {
    let report = run(world(1, rows(&["answer", "dead", "answer", "answer", "answer"])), []);
    assert_eq!((failed(&report, "server_error"), report.loaded.len()), (1, 4));
}

#[test]
fn one_refused_row_fails_alone() {
    let report = run(world(1, rows(&["answer", "answer", "invalid", "answer", "answer", "answer"])), []);
    assert_eq!((failed(&report, "rejected"), report.loaded.len(), report.paid), (1, 5, 5));
}

#[test]
fn a_request_that_is_refused_for_fifty_rows_is_no_rows_fault() {
    let setup = Setup { until: Some(20 * MINUTE), ..world(1, rows(&["invalid"; 120])) };
    let report = run(setup, []);
    assert_eq!((report.failures.len(), report.loaded.len()), (0, 0), "{:?}", report.failures);
}

#[test]
fn a_run_of_one_refused_row_ends() {
    let report = run(world(1, rows(&["invalid"])), []);
    assert_eq!((failed(&report, "rejected"), only_state(&report)), (1, RunState::Complete));
}

#[test]
fn a_model_that_never_replies_fails_the_row_after_two_calls() {
    let report = run(world(1, rows(&["answer", "hangs", "answer"])), []);
    assert_eq!((failed(&report, "timeout"), report.loaded.len(), report.paid), (1, 2, 4));
}

#[test]
fn identical_prompts_in_flight_are_one_call() {
    let text: String = (0..20).map(|n| format!("{{\"id\": \"k{n}\", \"act\": \"answer-0 {CANARY}\"}}\n")).collect();
    let report = run(world(1, text), []);
    assert_eq!(report.loaded.len(), 20);
    assert_eq!(report.paid + report.collapsed, 20);
    assert!(report.paid <= 4, "at most one a shard and process: {}", report.paid);
}

#[test]
fn a_file_without_rows_is_a_complete_run() {
    let report = run(world(1, String::new()), []);
    assert_eq!((only_state(&report), report.paid), (RunState::Complete, 0));
}

#[test]
fn a_file_without_the_columns_is_refused_before_any_call() {
    let report = run(world(1, "{\"id\": \"k1\", \"other\": 2}\n".to_owned()), []);
    assert_eq!((only_state(&report), report.paid), (RunState::Failed, 0));
}

#[test]
fn a_run_without_a_pipeline_is_refused() {
    let files = vec![(Duration::ZERO, "unknown/a.jsonl".to_owned(), draw::plain_file(3))];
    let report = run(Setup { files, ..world(1, String::new()) }, []);
    assert_eq!((only_state(&report), report.paid), (RunState::Failed, 0));
}

#[test]
fn a_run_cancelled_before_its_plan_asks_nothing() {
    let report = run(Setup { cancel_at: Some(Duration::ZERO), ..world(1, draw::plain_file(30)) }, []);
    assert_eq!((only_state(&report), report.paid), (RunState::Failed, 0), "refused `cancelled`");
}

#[test]
fn a_cancelled_run_keeps_what_was_paid_and_fails_the_rest() {
    let storm = Storm { from: START + Duration::from_secs(4), to: START + 60 * MINUTE, systemic: false };
    let report = run(Setup { cancel_at: Some(MINUTE), storm: Some(storm), ..world(1, draw::plain_file(40)) }, []);
    assert_eq!(only_state(&report), RunState::Cancelled);
    assert_eq!(report.loaded.len() as u64 + failed(&report, "cancelled"), 40);
    assert_eq!(report.paid, report.loaded.len() as u64, "what was paid is loaded");
}

#[test]
fn a_run_that_gives_up_is_sealed() {
    let storm = Storm { from: START, to: START + 200 * MINUTE, systemic: false };
    let pipeline = draw::pipeline(false).replace("[run]\n", "[run]\ngive_up_after = \"30m\"\n");
    let setup = Setup { pipeline, storm: Some(storm), until: Some(120 * MINUTE), ..world(1, draw::plain_file(12)) };
    let report = run(setup, []);
    assert_eq!((only_state(&report), failed(&report, "gave_up")), (RunState::Complete, 12));
}

#[test]
fn a_corrupt_answers_object_fails_its_rows_and_ends_the_run() {
    let hand = vec![(Duration::from_millis(750), ByHand::CorruptsAnswers)];
    for seed in 0..10 {
        let report = run(Setup { by_hand: hand.clone(), ..world(seed, draw::plain_file(12)) }, []);
        let corrupt = failed(&report, "answers_corrupt");
        assert_eq!(report.loaded.len() as u64 + corrupt, 12, "seed {seed}");
    }
}

#[test]
fn a_row_that_the_store_rejects_fails_in_the_same_transaction() {
    let report = run(Setup { rejected_key: Some("k3".into()), ..world(1, draw::plain_file(12)) }, []);
    assert_eq!((failed(&report, "store_rejected:CHECK"), report.loaded.len()), (1, 11));
}

#[test]
fn a_store_that_is_down_for_an_hour_is_waited_for() {
    let down = (0..25).map(|n| ("loader load", n, Fault::Fails));
    let report = run(world(1, draw::plain_file(12)), down);
    assert_eq!((report.loaded.len(), report.paid), (12, 12));
}

#[test]
fn claims_deleted_by_hand_are_claimed_anew_and_checkpoints_are_used() {
    let storm = Storm { from: START + Duration::from_secs(3), to: START + 6 * MINUTE, systemic: false };
    let hand = vec![(2 * MINUTE, ByHand::Removes(Bucket::State, "claims/".into()))];
    let report = run(Setup { by_hand: hand, storm: Some(storm), ..world(1, draw::plain_file(20)) }, []);
    assert_eq!((report.loaded.len(), report.paid), (20, 20));
}

#[test]
fn a_file_that_is_overwritten_before_its_plan_is_a_failed_run_beside_the_new_one() {
    let again = (Duration::from_millis(0), "p/a.jsonl".to_owned(), draw::plain_file(7));
    let mut setup = world(3, draw::plain_file(12));
    setup.files.push(again);
    let report = run(setup, []);
    let mut states: Vec<&str> = report.runs.values().map(|state| state.as_str()).collect();
    states.sort_unstable();
    assert_eq!((states, report.loaded.len(), report.paid), (vec!["COMPLETE", "FAILED"], 7, 7));
}

#[test]
fn the_newer_of_two_runs_stays_whichever_is_loaded_last() {
    for seed in 0..10 {
        let storm = Storm { from: START + Duration::from_secs(seed), to: START + 5 * MINUTE, systemic: false };
        let mut setup = Setup { storm: Some(storm), ..world(seed, draw::plain_file(12)) };
        setup.files.push((MINUTE, "p/b.jsonl".to_owned(), draw::plain_file(12)));
        let report = run(setup, []);
        let runs: std::collections::BTreeSet<_> = report.loaded.values().collect();
        assert_eq!((runs.len(), report.loaded.len()), (1, 12), "seed {seed}: all rows are the newer run's");
    }
}

#[test]
fn only_changed_rows_are_asked_again() {
    let changed = draw::plain_file(12).replace("answer-3 ", "answer-3x ");
    let mut setup = Setup { pipeline: draw::pipeline(true), ..world(1, draw::plain_file(12)) };
    setup.files.push((5 * MINUTE, "p/b.jsonl".to_owned(), changed));
    let report = run(setup, []);
    assert_eq!((report.loaded.len(), report.paid), (12, 13));
}

#[test]
fn a_pipeline_that_changes_after_the_plan_changes_nothing() {
    let other = draw::pipeline(false).replace("{{ act }}", "malformed-9 {{ act }}");
    let hand = vec![
        (MINUTE, ByHand::Removes(Bucket::State, names::pipeline("p"))),
        (MINUTE, ByHand::Puts(Bucket::State, names::pipeline("p"), other)),
    ];
    let storm = Storm { from: START, to: START + 4 * MINUTE, systemic: false };
    let report = run(Setup { by_hand: hand, storm: Some(storm), ..world(1, draw::plain_file(10)) }, []);
    assert_eq!((report.loaded.len(), report.paid), (10, 10), "no call was malformed");
}

#[test]
fn every_event_lost_only_delays_the_run() {
    let report = run(Setup { dropped_percent: 100, ..world(1, draw::plain_file(30)) }, []);
    assert_eq!((report.loaded.len(), report.paid), (30, 30));
    assert!(report.ended.since(START) < 60 * MINUTE, "ended {}", report.ended);
}

#[test]
fn a_clock_that_goes_ahead_costs_money_only() {
    for seed in 0..10 {
        let setup = Setup { skewed: true, doubled_percent: 60, ..world(seed, draw::plain_file(20)) };
        let report = run(setup, []);
        assert_eq!((report.loaded.len(), only_state(&report)), (20, RunState::Complete), "seed {seed}");
    }
}

#[test]
fn a_source_that_goes_while_it_is_split_fails_the_rows_that_were_not_read() {
    let mut with_holes = 0;
    for seed in 0..20 {
        // The splitter dies while its shards are being written; before another takes over, the file is gone.
        let hand = vec![(Duration::from_secs(20), ByHand::Purges(Bucket::Inbox, "p/".into()))];
        let setup = Setup { by_hand: hand, ..world(seed, draw::plain_file(42)) };
        let report = run(setup, [("splitter create shards", 5, Fault::DiesBefore)]);
        let gone = failed(&report, "source_gone");
        assert_eq!(report.paid, report.loaded.len() as u64, "seed {seed}");
        match only_state(&report) {
            // The shard with the totals was written before the process died: the file's size is known.
            RunState::Complete => assert_eq!(report.loaded.len() as u64 + gone, 42, "seed {seed}"),
            state => assert_eq!(state, RunState::Failed, "seed {seed}"),
        }
        with_holes += u64::from(gone > 0);
    }
    assert!(with_holes > 0, "in some world a lower shard is missing below a higher one");
}

#[test]
fn a_retry_is_as_old_as_its_parent_and_overwrites_nothing_newer() {
    let parent = RunId::of("inbox", "p/a.jsonl", 2); // the pipeline was written first, this file second
    let retry = format!(
        "{{\"parent\":\"{parent}\"}}\n{{\"ordinal\":3,\"row\":{{\"id\":\"k3\",\"act\":\"answer-99 {CANARY}\"}}}}\n"
    );
    let retried = |newer: bool| {
        let mut setup = world(1, rows(&["answer", "answer", "answer", "cut", "answer"]));
        if newer {
            setup.files.push((2 * MINUTE, "p/b.jsonl".to_owned(), draw::plain_file(5)));
        }
        setup.files.push((5 * MINUTE, "p/c.retry.jsonl".to_owned(), retry.clone()));
        run(setup, [])
    };
    let alone = retried(false);
    assert_eq!(
        (alone.loaded.len(), failed(&alone, "truncated"), alone.paid),
        (5, 1, 6),
        "the failed row is loaded now"
    );
    let beside = retried(true);
    assert_eq!(beside.loaded["k3"], beside.loaded["k0"], "the newer run's answer stays");
}

#[test]
fn rows_of_server_errors_end_however_many_and_wherever_they_are() {
    for acts in [
        vec!["answer", "dead", "dead", "answer", "answer"],
        vec!["answer", "dead", "dead", "dead", "answer"],
        vec!["answer", "answer", "answer", "answer", "answer", "dead"], // alone in its shard
    ] {
        let dead = acts.iter().filter(|act| **act == "dead").count();
        let report = run(world(1, rows(&acts)), []);
        assert_eq!(
            (failed(&report, "server_error") as usize, report.loaded.len()),
            (dead, acts.len() - dead),
            "{acts:?}"
        );
    }
}

#[test]
fn rows_of_server_errors_do_not_keep_the_others_waiting() {
    let pipeline = draw::pipeline(false).replace("[run]\n", "[run]\nmax_in_flight = 1\n");
    let report = run(Setup { pipeline, ..world(1, rows(&["dead", "dead", "dead", "answer", "answer"])) }, []);
    assert_eq!((failed(&report, "server_error"), report.loaded.len()), (3, 2));
}

#[test]
fn one_call_in_flight_is_enough() {
    let pipeline = draw::pipeline(false).replace("[run]\n", "[run]\nmax_in_flight = 1\n");
    let report = run(Setup { pipeline, ..world(1, draw::plain_file(30)) }, []);
    assert_eq!((report.loaded.len(), report.paid), (30, 30));
}

#[test]
fn a_run_whose_every_request_is_refused_stops_no_other_run() {
    let mut setup = Setup { until: Some(10 * MINUTE), ..world(1, rows(&["invalid"; 120])) };
    let good: String = (200..300).map(|n| row(n, "answer")).collect();
    setup.files.push((MINUTE, "p/b.jsonl".to_owned(), good));
    let report = run(setup, []);
    assert_eq!((report.loaded.len(), report.failures.len()), (100, 0), "{:?}", report.failures);
}

#[test]
fn a_parked_run_stands_still_is_announced_and_goes_on_when_it_is_resumed() {
    let by_hand = vec![
        (Duration::ZERO, ByHand::Parks),
        (25 * MINUTE, ByHand::Looks),
        (25 * MINUTE, ByHand::Resumes),
        (40 * MINUTE, ByHand::Looks), // the world lasts so long
    ];
    let parked = Setup { by_hand, ..world(1, draw::plain_file(20)) };
    let still = run(Setup { until: Some(24 * MINUTE), ..parked.clone() }, []);
    assert_eq!((still.paid, only_state(&still)), (0, RunState::Parked));
    assert!(still.notices.len() == 1 && still.notices.iter().all(|id| id.contains(":parked:")), "{:?}", still.notices);
    let soon = run(Setup { until: Some(28 * MINUTE), ..parked.clone() }, []);
    assert_eq!((soon.paid, only_state(&soon)), (20, RunState::Complete), "its shards are due whatever their age");
    assert_eq!(run(parked, []).notices.len(), 2);
}

#[test]
fn a_run_that_is_parked_while_it_is_asked_keeps_what_was_paid_for() {
    let pipeline = draw::pipeline(false).replace("[run]\n", "[run]\nmax_in_flight = 1\n");
    let seconds = |seconds| Duration::from_secs(seconds);
    let by_hand = vec![(seconds(20), ByHand::Parks), (10 * MINUTE, ByHand::Looks), (10 * MINUTE, ByHand::Resumes)];
    let setup = Setup { pipeline, by_hand, ..world(1, draw::plain_file(150)) };
    let parked = run(Setup { until: Some(9 * MINUTE), ..setup.clone() }, []);
    assert!((1..150).contains(&parked.paid) && only_state(&parked) == RunState::Parked, "{} were paid", parked.paid);
    let all = run(setup, []);
    assert_eq!((all.paid, all.loaded.len(), only_state(&all)), (150, 150, RunState::Complete));
}

#[test]
fn a_parked_run_whose_rows_need_no_call_completes() {
    let by_hand = vec![(Duration::ZERO, ByHand::Parks)];
    let text = "{\"id\": null, \"act\": \"answer\"}\n".repeat(7);
    let report = run(Setup { by_hand, ..world(1, text) }, []);
    assert_eq!((failed(&report, "null_key"), only_state(&report)), (7, RunState::Complete));
}

#[test]
fn a_parked_run_can_be_cancelled() {
    let storm = Storm { from: START, to: START + 10 * MINUTE, systemic: false };
    let setup = Setup {
        by_hand: vec![(MINUTE, ByHand::Parks)],
        storm: Some(storm),
        cancel_at: Some(3 * MINUTE),
        ..world(1, draw::plain_file(20))
    };
    assert_eq!(only_state(&run(setup, [])), RunState::Cancelled);
}

#[test]
fn shards_that_land_late_do_not_keep_a_run_open_whose_source_is_gone() {
    for seed in 0..10 {
        let hand = vec![(Duration::from_secs(20), ByHand::Purges(Bucket::Inbox, "p/".into()))];
        let setup = Setup { by_hand: hand, ..world(seed, draw::plain_file(42)) };
        let late = [("splitter create shards", 5, Fault::Late), ("splitter create shards", 7, Fault::Late)];
        assert_eq!(run(setup, late).runs.len(), 1, "seed {seed}: it ended");
    }
}

#[test]
fn splitters_that_share_a_table_lose_and_double_no_row_whatever_goes_wrong_at_a_snapshot() {
    let table = Table {
        rows: draw::plain_file(40),
        parts: 2,
        bytes: Some(2 * PART_BYTES_MAX + 1), // it is cut again
        fit: 2,                              // and read by halves
        jobs: vec![Act::Takes(Duration::from_secs(20)), Act::Fails("backendError")],
    };
    let file = (Duration::ZERO, "p/a.run.toml".to_owned(), "[source]\ntable = \"p.d.t\"\n".to_owned());
    for (seed, fault) in (0..).zip(ALL) {
        for at in ["splitter check", "splitter take", "splitter read part", "splitter create plans"] {
            let setup = Setup { files: vec![file.clone()], table: Some(table.clone()), ..world(seed, String::new()) };
            let report = run(Setup { doubled_percent: 100, ..setup }, [(at, 0, fault)]);
            assert_eq!((report.loaded.len(), only_state(&report)), (40, RunState::Complete), "{at}: {fault:?}");
        }
    }
}
