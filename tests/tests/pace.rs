//! The pace against a hidden quota, in simulated time: how much of it is used, how many calls are rejected, how evenly clients share.
//!
//! `TASUKI_PACE=all` takes more seeds, and prints the table with what others do:
//! `TASUKI_PACE=all cargo test -p tasuki-tests --test pace -- --nocapture --test-threads 1`

#![expect(clippy::print_stdout, reason = "the table and the seeds are for a person's eye")]

use tasuki_tests::quota::{Adaptive, Backoff, Curve, Outcome, Parallel, Pause, World, run};

/// Calls in flight, over all clients: the default of `[run] max_in_flight`.
const IN_FLIGHT: u32 = 5_000;
/// A run's length in seconds; that of the others in the normal test run.
const SECONDS: f64 = 600.0;
const SECONDS_OF_OTHERS: f64 = 200.0;
/// A rejection takes as long as an answer (nothing is known sooner), or a tenth of it.
const REJECTS_IN: [f64; 2] = [1.0, 0.1];

fn all() -> bool {
    std::env::var("TASUKI_PACE").is_ok_and(|what| what == "all")
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    if all() { 1..=5 } else { 1..=1 }
}

/// The worst of each figure over some seeds.
fn worst(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let worse = |a: Outcome, b: Outcome| Outcome {
        utilisation: a.utilisation.min(b.utilisation),
        rejected: a.rejected.max(b.rejected),
        fairness: a.fairness.min(b.fairness),
        fairness_low: a.fairness_low.min(b.fairness_low),
        calls: a.calls.max(b.calls),
    };
    outcomes.reduce(worse).expect("there are seeds")
}

fn worlds(clients: u32, curve: Curve, rejects_in: f64) -> impl Iterator<Item = World> {
    seeds().map(move |seed| World { curve, clients, seconds: SECONDS, rejects_in, seed })
}

fn adaptive(clients: u32, curve: Curve, rejects_in: f64) -> Outcome {
    worst(worlds(clients, curve, rejects_in).map(|world| run(world, |_| Adaptive::new(IN_FLIGHT / clients))))
}

fn line(clients: u32, curve: Curve, rejects_in: f64, name: &str, outcome: Outcome) {
    let Outcome { utilisation, rejected, fairness, fairness_low, calls } = outcome;
    println!(
        "| {clients} | {curve:?} | {rejects_in} | {name} | {:.1} % | {:.2} % | {fairness:.2} | {fairness_low:.2} | {calls} |",
        100.0 * utilisation,
        100.0 * rejected,
    );
}

/// The aims, in every curve: so much used, no more rejected, and as even as this.
fn reaches(clients: u32, utilisation: f64, rejected: f64, fairness: f64) {
    println!("seeds {:?}, the worst of them", seeds());
    for rejects_in in REJECTS_IN.into_iter().take(if all() { 2 } else { 1 }) {
        for curve in Curve::ALL {
            let outcome = adaptive(clients, curve, rejects_in);
            line(clients, curve, rejects_in, "Tasuki", outcome);
            let fine =
                outcome.utilisation >= utilisation && outcome.rejected <= rejected && outcome.fairness >= fairness;
            assert!(fine, "{clients} clients, {curve:?}, a rejection takes {rejects_in} of an answer: {outcome:?}");
        }
    }
}

#[test]
fn one_client_uses_its_quota_and_is_rarely_rejected() {
    reaches(1, 0.95, 0.01, 1.0);
}

#[test]
fn five_clients_share_a_quota_fairly_without_talking_to_each_other() {
    reaches(5, 0.90, 0.025, 0.9);
}

#[test]
fn fifty_clients_share_a_quota_fairly_without_talking_to_each_other() {
    reaches(50, 0.90, 0.05, 0.9);
}

/// What the table says of the others is no promise of ours, but one thing is: none of them does it too, or the law is not needed.
#[test]
fn what_others_do_does_not_reach_the_aims() {
    let clients: &[u32] = if all() { &[1, 5, 50] } else { &[1] };
    let curves: &[Curve] = if all() { &Curve::ALL } else { &[Curve::Steps] };
    for rejects_in in REJECTS_IN.into_iter().take(if all() { 2 } else { 1 }) {
        let mut reached = [0; 3];
        for &clients in clients {
            for &curve in curves {
                let most = IN_FLIGHT / clients;
                let seconds = if all() { SECONDS } else { SECONDS_OF_OTHERS };
                let worlds = || worlds(clients, curve, rejects_in).map(|world| World { seconds, ..world });
                let others = [
                    ("backoff", worst(worlds().map(|world| run(world, |seed| Backoff::new(most, seed))))),
                    ("10 s pause", worst(worlds().map(|world| run(world, |_| Pause::new(most))))),
                    ("× 0.75, + 1", worst(worlds().map(|world| run(world, |_| Parallel::new(most))))),
                ];
                for (other, (name, outcome)) in others.into_iter().enumerate() {
                    line(clients, curve, rejects_in, name, outcome);
                    let aims = if clients == 1 { (0.95, 0.01) } else { (0.90, 0.05) };
                    reached[other] += usize::from(outcome.utilisation >= aims.0 && outcome.rejected <= aims.1);
                }
            }
        }
        assert!(reached.iter().all(|worlds| *worlds < clients.len() * curves.len()), "{reached:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let world = World { curve: Curve::Sine, clients: 5, seconds: 60.0, rejects_in: 1.0, seed: 7 };
    assert_eq!(run(world, |_| Adaptive::new(1_000)), run(world, |_| Adaptive::new(1_000)));
}
