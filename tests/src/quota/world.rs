//! The quota and its clients: events in the order of their times.

use super::Policy;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Calls per second that the quota lets through, before its curve.
const QUOTA: f64 = 1_000.0;
/// Seconds of the quota that can be saved up.
const BURST: f64 = 1.0;
/// An answer takes so long, a rejection as long as the world says; a fifth more or less.
const LATENCY: f64 = 0.5;
/// After each step the clients have so long to find the new quota: utilisation leaves it out.
const SETTLE: f64 = 30.0;
/// Time between two steps, and of one wave of the sine.
const PERIOD: f64 = 120.0;
/// Jain's index is taken over windows of so many seconds too: see [`Outcome::fairness_low`].
const WINDOW: f64 = 60.0;

/// How the quota changes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// It does not.
    Constant,
    /// × 0.5 and × 2 in turn.
    Steps,
    /// ± 30 %.
    Sine,
    /// Nothing passes for 60 s.
    Outage,
}

impl Curve {
    /// All of them.
    pub const ALL: [Curve; 4] = [Curve::Constant, Curve::Steps, Curve::Sine, Curve::Outage];

    /// The quota at a second.
    fn quota(self, at: f64) -> f64 {
        match self {
            Curve::Steps if (at / PERIOD) as u64 % 2 == 1 => QUOTA * 0.5,
            Curve::Sine => QUOTA * (1.0 + 0.3 * (at / PERIOD * std::f64::consts::TAU).sin()),
            Curve::Outage if (240.0..300.0).contains(&at) => 0.0,
            _ => QUOTA,
        }
    }

    /// Whether this second counts for utilisation.
    fn counts(self, at: f64) -> bool {
        match self {
            Curve::Steps => at < PERIOD || at % PERIOD >= SETTLE,
            Curve::Outage => self.quota(at) > 0.0,
            _ => true,
        }
    }
}

/// One simulation.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// How the quota changes.
    pub curve: Curve,
    /// Clients that share it. Each starts within the first second.
    pub clients: u32,
    /// How long.
    pub seconds: f64,
    /// How long a rejection takes, as a share of an answer's time.
    pub rejects_in: f64,
    /// Decides latencies and starts.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Calls that passed, of those that could have, in the seconds that count.
    pub utilisation: f64,
    /// Rejected calls, of all calls.
    pub rejected: f64,
    /// Jain's index of the calls of each client that passed: 1 = all the same.
    pub fairness: f64,
    /// The lowest of any minute.
    pub fairness_low: f64,
    /// Calls that were sent.
    pub calls: u64,
}

#[derive(Clone, Copy)]
enum Event<C> {
    Wake,
    Reply(C, bool),
}

struct Entry<C>(Duration, u64, usize, Event<C>);

impl<C> PartialEq for Entry<C> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<C> Eq for Entry<C> {}
impl<C> PartialOrd for Entry<C> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<C> Ord for Entry<C> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A token bucket.
struct Bucket {
    tokens: f64,
    filled: f64,
}

impl Bucket {
    fn take(&mut self, curve: Curve, now: f64) -> bool {
        let quota = curve.quota(now);
        self.tokens = (self.tokens + (now - self.filled) * quota).min((quota * BURST).max(1.0));
        self.filled = now;
        let passes = self.tokens >= 1.0 && quota > 0.0;
        self.tokens -= if passes { 1.0 } else { 0.0 };
        passes
    }
}

struct Client<P> {
    policy: P,
    wakes_at: Option<Duration>,
    passed: u64,
    passed_in_window: u64,
}

/// Runs a world to its end.
pub fn run<P: Policy>(world: World, mut policy: impl FnMut(u64) -> P) -> Outcome {
    let mut chance = fastrand::Rng::with_seed(world.seed);
    let mut events = BinaryHeap::new();
    let mut count = 0;
    let mut clients: Vec<Client<P>> = Vec::new();
    for client in 0..world.clients as usize {
        let starts = Duration::from_secs_f64(chance.f64());
        let policy = policy(chance.u64(..));
        clients.push(Client { policy, wakes_at: Some(starts), passed: 0, passed_in_window: 0 });
        count += 1;
        events.push(Reverse(Entry(starts, count, client, Event::Wake)));
    }
    let mut bucket = Bucket { tokens: QUOTA * BURST, filled: 0.0 };
    let (mut calls, mut rejected, mut useful, mut fairness_low, mut window) = (0u64, 0u64, 0u64, 1f64, WINDOW);
    while let Some(Reverse(Entry(now, _, index, event))) = events.pop() {
        let at = now.as_secs_f64();
        if at >= world.seconds {
            break;
        }
        if at >= window {
            if world.curve.quota(window - WINDOW) > 0.0 {
                fairness_low = fairness_low.min(jain(clients.iter().map(|client| client.passed_in_window)));
            }
            clients.iter_mut().for_each(|client| client.passed_in_window = 0);
            window += WINDOW;
        }
        let client = &mut clients[index];
        match event {
            // An earlier wake has come since.
            Event::Wake if client.wakes_at != Some(now) => continue,
            Event::Wake => client.wakes_at = None,
            Event::Reply(call, true) => client.policy.answered(now, call),
            Event::Reply(call, false) => client.policy.rejected(now, call),
        }
        while let Some(next) = client.policy.permit_at(now) {
            if next > now {
                if client.wakes_at.is_none_or(|wakes| next < wakes) {
                    client.wakes_at = Some(next);
                    count += 1;
                    events.push(Reverse(Entry(next, count, index, Event::Wake)));
                }
                break;
            }
            let call = client.policy.send(now);
            let passes = bucket.take(world.curve, at);
            calls += 1;
            rejected += u64::from(!passes);
            client.passed += u64::from(passes);
            client.passed_in_window += u64::from(passes);
            useful += u64::from(passes && world.curve.counts(at));
            let takes = LATENCY * (0.8 + 0.4 * chance.f64()) * if passes { 1.0 } else { world.rejects_in };
            count += 1;
            events.push(Reverse(Entry(now + Duration::from_secs_f64(takes), count, index, Event::Reply(call, passes))));
        }
    }
    const STEP: f64 = 0.01;
    let moments = (0..(world.seconds / STEP) as u64).map(|n| n as f64 * STEP);
    let possible: f64 = moments.filter(|at| world.curve.counts(*at)).map(|at| world.curve.quota(at) * STEP).sum();
    Outcome {
        utilisation: useful as f64 / possible,
        rejected: rejected as f64 / calls as f64,
        fairness: jain(clients.iter().map(|client| client.passed)),
        fairness_low,
        calls,
    }
}

/// Jain's index of fairness: (Σx)² / (n Σx²).
fn jain(shares: impl Iterator<Item = u64>) -> f64 {
    let (n, sum, squares) = shares.fold((0.0, 0.0, 0.0), |(n, sum, squares), share| {
        let share = share as f64;
        (n + 1.0, sum + share, squares + share * share)
    });
    if squares == 0.0 { 1.0 } else { sum * sum / (n * squares) }
}
