//! The tests of the tests: each wrong variant of the ledger is caught, in worlds that the right one survives.

use crate::scenarios::{self, play};
use crate::world::Setup;
use crate::wrong::Wrong;

/// Worlds that a variant may take to be caught.
const SEEDS: u64 = 50;

/// Finds a world in which the variant is caught by `by`, and makes sure that the right ledger survives that world.
fn is_caught(wrong: Wrong, by: &str, scenario: impl AsyncFn(Setup) -> anyhow::Result<()>) {
    for seed in 0..SEEDS {
        let Err(violation) = play(&scenario, Setup { seed, wrong: Some(wrong) }) else { continue };
        println!("seed {seed}: {wrong:?}: {violation:#}");
        if !violation.to_string().contains(by) {
            continue;
        }
        if let Err(right) = play(&scenario, Setup { seed, wrong: None }) {
            panic!("the right ledger fails too, seed {seed}: {right:#}");
        }
        return;
    }
    panic!("{wrong:?} was not caught in {SEEDS} worlds");
}

#[test]
fn writing_without_a_precondition_loses_what_others_hold() {
    is_caught(Wrong::WrittenWithoutPrecondition, "above the cap", scenarios::parked_and_resumed);
}

#[test]
fn believing_a_write_that_failed_spends_what_others_hold() {
    is_caught(Wrong::FailureBelieved, "above the cap", scenarios::faults);
}

#[test]
fn believing_a_slice_that_could_not_be_renewed_spends_it_after_it_was_settled() {
    is_caught(Wrong::FailureBelieved, "above the cap", scenarios::cut_off);
}

#[test]
fn a_call_whose_output_is_not_set_aside_lifts_the_cost_above_the_cap() {
    is_caught(Wrong::OutputNotSetAside, "above the cap", scenarios::parked_and_resumed);
}

#[test]
fn giving_a_crashed_slice_back_unsettled_spends_it_twice() {
    is_caught(Wrong::CrashedSliceGivenBack, "above the cap", scenarios::crash_of_one);
}

#[test]
fn settling_without_the_checkpoints_spends_what_is_in_them_twice() {
    is_caught(Wrong::SettledWithoutCheckpoints, "above the cap", scenarios::crash_of_one);
}

#[test]
fn settling_twice_loses_money() {
    is_caught(Wrong::SettledTwice, "settled is not what was paid", scenarios::parked_and_resumed);
}

#[test]
fn a_ledger_that_begins_at_zero_forgets_what_was_paid() {
    is_caught(Wrong::BeginsAtZero, "above the cap", scenarios::deleted);
}

#[test]
fn a_ledger_that_begins_at_zero_at_work_forgets_what_is_stored() {
    is_caught(Wrong::BeginsAtZero, "above the cap", scenarios::deleted_at_work);
}

#[test]
fn the_cap_of_before_parks_a_run_again_that_was_resumed() {
    is_caught(Wrong::CapOfBefore, "parked again", scenarios::parked_and_resumed);
}

#[test]
fn the_cap_of_before_spends_more_than_a_cap_that_was_lowered() {
    is_caught(Wrong::CapOfBefore, "above the cap", scenarios::lowered);
}
