//! The relay in memory, by seed: `TASUKI_SEED=n` replays one world.

use std::sync::Arc;
use tasuki_relay::clock::Chance;
use tasuki_tests::sim::faults::Faults;
use tasuki_tests::sim::{self, Report, draw};

/// Worlds of the normal test run; `TASUKI_SEEDS=n` asks for another number.
const SEEDS: u64 = 300;
/// Faults of a world at most.
const FAULTS_MAX: u64 = 4;

/// The world of a seed without faults, then with one fault more at a time, each at a call that the last world made.
fn worlds(seed: u64) -> Result<Vec<Report>, String> {
    let chance = Chance::seeded(seed.wrapping_add(1));
    let mut faults = Arc::new(Faults::default());
    let mut reports = vec![sim::run(draw::setup(seed), &faults)?];
    for _ in 0..=chance.below(FAULTS_MAX) {
        let Some(more) = faults.and_one_more(&chance) else { break };
        faults = Arc::new(more);
        reports.push(sim::run(draw::setup(seed), &faults)?);
    }
    Ok(reports)
}

#[test]
fn every_row_of_every_world_ends_exactly_once() {
    if let Some(seed) = std::env::var("TASUKI_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return drop(worlds(seed).unwrap_or_else(|violation| panic!("{violation}")));
    }
    let seeds = std::env::var("TASUKI_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let failed: Vec<String> = (0..seeds).filter_map(|seed| worlds(seed).err()).collect();
    let first: Vec<&String> = failed.iter().take(3).collect();
    assert!(failed.is_empty(), "{} of {seeds} worlds failed; replay one with TASUKI_SEED=n:\n{first:#?}", failed.len());
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..10 {
        for (first, again) in worlds(seed).unwrap().iter().zip(&worlds(seed).unwrap()) {
            assert_eq!(
                first.trace.iter().zip(&again.trace).position(|(a, b)| a != b),
                None,
                "seed {seed}: the traces part here"
            );
            assert!(first == again, "seed {seed}");
        }
    }
}
