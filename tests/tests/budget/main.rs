//! `[run] max_cost_usd` over several generators: never exceeded, nearly all of it used, and what crashed processes held is not lost.
//! `TASUKI_SEED=n` replays one seed, `TASUKI_SEEDS=n` tries so many.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "seeds are for a person's eye, and a test may unwrap")]

mod ports;
mod scenarios;
mod world;
mod wrong;
mod wrong_variants;

use scenarios::play;
use world::Setup;

const SEEDS: u64 = 12;

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("TASUKI_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TASUKI_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

fn holds(scenario: impl AsyncFn(Setup) -> anyhow::Result<()>) {
    for seed in seeds() {
        println!("TASUKI_SEED={seed}");
        if let Err(violation) = play(&scenario, Setup { seed, wrong: None }) {
            panic!("seed {seed}: {violation:#}");
        }
    }
}

#[test]
fn twenty_shards_in_four_processes_never_cost_more_than_the_cap_and_go_on_with_a_greater_one() {
    holds(scenarios::parked_and_resumed);
}

#[test]
fn lost_replies_of_storage_neither_exceed_the_cap_nor_lose_money() {
    holds(scenarios::faults);
}

#[test]
fn what_a_crashed_process_held_counts_as_spent_until_it_is_settled_and_is_used_then() {
    holds(scenarios::crash_of_one);
}

#[test]
fn a_process_that_cannot_renew_its_slice_spends_nothing_of_it_once_it_may_be_settled() {
    holds(scenarios::cut_off);
}

#[test]
fn a_sweep_settles_a_run_whose_processes_all_crashed() {
    holds(scenarios::crash_of_all);
}

#[test]
fn a_stopped_process_gives_its_money_back() {
    holds(scenarios::stop);
}

#[test]
fn a_ledger_that_is_deleted_by_hand_is_made_anew_from_what_is_stored() {
    holds(scenarios::deleted);
}

#[test]
fn a_ledger_that_is_deleted_at_work_costs_no_more_than_was_held_and_not_stored() {
    holds(scenarios::deleted_at_work);
}

#[test]
fn a_cap_that_is_lowered_holds_for_all_that_is_leased_from_then_on() {
    holds(scenarios::lowered);
}

#[test]
fn a_run_without_a_cap_has_no_budget_object() {
    holds(scenarios::without_a_cap);
}
