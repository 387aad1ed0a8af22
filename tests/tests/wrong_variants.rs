//! The tests of the tests: each wrong variant of the protocol (protocol.md 7) is caught, in worlds that the right one survives. The
//! ledger of a budget has its own: `budget/wrong_variants.rs`.

use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::clock::Chance;
use tasuki_tests::sim::faults::{Call, Fault, Faults};
use tasuki_tests::sim::model::Storm;
use tasuki_tests::sim::wrong::Wrong;
use tasuki_tests::sim::{self, ByHand, START, Setup, draw};

/// Worlds that a variant may take to be caught.
const SEEDS: u64 = 400;

/// A small world: one file of plain rows, an event service that loses nothing.
fn plain(seed: u64, rows: u64, sweeps: bool) -> Setup {
    Setup {
        seed,
        pipeline: draw::pipeline(false),
        files: vec![(Duration::ZERO, "p/a.jsonl".to_owned(), draw::plain_file(rows))],
        sweeps,
        ..Setup::default()
    }
}

fn fault(call: (&str, u64), fault: Fault) -> (Call, Fault) {
    ((call.0.to_owned(), call.1), fault)
}

/// Finds a world in which the variant is caught by `by`, and makes sure that the right protocol survives that world.
fn is_caught(wrong: Wrong, by: &str, world: impl Fn(u64) -> (Setup, Vec<(Call, Fault)>)) {
    for seed in 0..SEEDS {
        let (setup, faults) = world(seed);
        let bent = Setup { wrong: Some(wrong), ..setup.clone() };
        let Err(violation) = sim::run(bent, &Arc::new(Faults::of(faults.clone()))) else { continue };
        if !violation.contains(by) {
            continue;
        }
        match sim::run(setup, &Arc::new(Faults::of(faults))) {
            Ok(_) => return,
            Err(right) if right.contains("never met") => continue, // the right protocol has no such call in this world
            Err(right) => panic!("the right protocol fails too:\n{right}"),
        }
    }
    panic!("{wrong:?} was not caught in {SEEDS} worlds");
}

// With sweeps off: they heal these.

#[test]
fn acknowledging_an_event_whose_claim_is_alive_loses_a_shard() {
    is_caught(Wrong::AckOnLiveClaim, "I10", |seed| {
        (
            Setup { doubled_percent: 50, ..plain(seed, 12, false) },
            vec![fault(("generator create claims", 0), Fault::DiesAfter)],
        )
    });
}

#[test]
fn taking_ones_own_write_for_somebody_elses_loses_a_shard() {
    is_caught(Wrong::OwnWriteReadAsForeign, "I10", |seed| {
        (plain(seed, 12, false), vec![fault(("generator create claims", 1), Fault::Lost)])
    });
}

#[test]
fn looking_for_completion_only_with_the_totals_leaves_runs_open() {
    is_caught(Wrong::CompletionOnlyWithTotals, "I10", |seed| (plain(seed, 22, false), vec![]));
}

#[test]
fn not_looking_for_completion_when_the_part_is_loaded_leaves_runs_open() {
    is_caught(Wrong::NoCompletionWhenLoaded, "I10", |seed| {
        (plain(seed, 12, false), vec![fault(("loader load", seed % 3), Fault::DiesAfter)])
    });
}

// With sweeps on.

#[test]
fn a_ledger_row_outside_the_transaction_loads_rows_twice() {
    is_caught(Wrong::LedgerOutsideTheTransaction, "I", |seed| {
        // The right protocol has no second call to meet this fault at: for it, the same death comes right after the load.
        (plain(seed, 12, true), vec![fault(("loader load", 1), Fault::DiesAfter)])
    });
}

#[test]
fn working_without_a_claim_pays_twice() {
    is_caught(Wrong::NoClaim, "I6", |seed| (Setup { doubled_percent: 60, ..plain(seed, 22, true) }, vec![]));
}

#[test]
fn spending_without_looking_at_the_lease_pays_twice() {
    is_caught(Wrong::LeaseNotRechecked, "I6", |seed| {
        let storm = Storm { from: START, to: START + Duration::from_secs(400), systemic: false };
        // One shard of more rows than the faults excuse: a call that looks whether the storm is over may be lost with each.
        let (rows, rows_per_checkpoint) = (40, 1);
        let mut setup =
            Setup { storm: Some(storm), rows_per_checkpoint, doubled_percent: 100, ..plain(seed, rows, true) };
        let of_a_shard = format!("rows_per_shard = {}", draw::ROWS_PER_SHARD);
        setup.pipeline = setup.pipeline.replace(&of_a_shard, &format!("rows_per_shard = {rows}"));
        (setup, (1..9).map(|beat| fault(("generator replace claims", beat), Fault::Fails)).collect())
    });
}

#[test]
fn reading_the_splits_end_off_a_shard_leaves_holes() {
    is_caught(Wrong::SplitEndReadOffAShard, "I10", |seed| {
        (plain(seed, 32, true), vec![fault(("splitter create shards", 6), Fault::DiesBefore)])
    });
}

#[test]
fn a_plan_before_its_open_marker_is_lost_by_the_sweeps() {
    is_caught(Wrong::PlanBeforeOpen, "I10", |seed| {
        (
            Setup { dropped_percent: 100, ..plain(seed, 12, true) },
            vec![fault(("splitter create plans", 0), Fault::DiesAfter)],
        )
    });
}

#[test]
fn an_open_marker_that_stays_keeps_the_sweeps_busy_for_ever() {
    is_caught(Wrong::OpenNotCleared, "I10", |seed| (plain(seed, 12, true), vec![]));
}

#[test]
fn not_looking_for_answers_after_the_claim_pays_twice() {
    is_caught(Wrong::AnswersReadOnlyBeforeTheClaim, "I6", |seed| {
        // One process looks for answers, finds none, and is slow until the other has finished and its lease is over.
        let slow =
            [("read shards", 0), ("stat control", 4), ("stat control", 5), ("create claims", 1), ("read claims", 0)];
        let slow = slow.map(|(what, at)| fault((&format!("generator {what}"), at), Fault::Slow));
        (Setup { doubled_percent: 100, ..plain(seed, 5, true) }, slow.to_vec())
    });
}

#[test]
fn an_end_state_that_is_set_whatever_the_state_is_changes() {
    is_caught(Wrong::EndNotConditional, "I8", |seed| (Setup { doubled_percent: 80, ..plain(seed, 12, true) }, vec![]));
}

#[test]
fn resuming_a_parking_that_nobody_has_seen_is_caught() {
    is_caught(Wrong::ResumesWhatever, "I15", |seed| {
        let hands = [ByHand::Parks, ByHand::Looks, ByHand::Resumes, ByHand::Parks, ByHand::Resumes, ByHand::Looks];
        let by_hand = (1..).zip(hands.into_iter().chain([ByHand::Resumes]));
        let by_hand = by_hand.map(|(second, hand)| (Duration::from_secs(second), hand)).collect();
        (Setup { by_hand, ..plain(seed, 12, true) }, vec![])
    });
}

// And what the variants above take for granted.

#[test]
fn worlds_differ_by_seed() {
    let calls = |seed| sim::run(plain(seed, 12, true), &Arc::default()).unwrap().trace;
    assert_ne!(calls(1), calls(2));
}

#[test]
fn without_faults_and_duplicates_every_call_that_is_paid_is_a_row() {
    for seed in 0..40 {
        let chance = Chance::seeded(seed);
        let setup = Setup {
            files: vec![(Duration::ZERO, "p/a.jsonl".to_owned(), draw::file(30, &chance))],
            ..plain(seed, 0, true)
        };
        let asked = draw::rows_to_ask(&setup.files[0].2);
        let report = sim::run(setup, &Arc::default()).unwrap();
        assert_eq!(report.paid, asked - report.collapsed + report.by_script, "seed {seed} (I7)");
    }
}
