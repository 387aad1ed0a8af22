//! What others do, as far as their code or documents say.

use super::Policy;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A fixed number of calls in flight; each that is rejected waits with its place, exponentially longer from 1 s to 60 s, with full
/// jitter (Google's retry strategy, as its SDKs have it).
pub struct Backoff {
    chance: fastrand::Rng,
    most: u32,
    taken: u32,
    /// Calls that wait: until when, and how often they were rejected.
    waiting: BinaryHeap<Reverse<(Duration, u32)>>,
}

impl Backoff {
    /// At most so many calls in flight or waiting.
    pub fn new(most: u32, seed: u64) -> Backoff {
        Backoff { chance: fastrand::Rng::with_seed(seed), most, taken: 0, waiting: BinaryHeap::new() }
    }
}

impl Policy for Backoff {
    type Call = u32;
    fn permit_at(&mut self, now: Duration) -> Option<Duration> {
        let again = self.waiting.peek().map(|Reverse((at, _))| now.max(*at));
        if self.taken < self.most { Some(now) } else { again }
    }
    fn send(&mut self, now: Duration) -> u32 {
        if self.waiting.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            return self.waiting.pop().map_or(0, |Reverse((_, rejections))| rejections);
        }
        self.taken += 1;
        0
    }
    fn answered(&mut self, _: Duration, _: u32) {
        self.taken -= 1;
    }
    fn rejected(&mut self, now: Duration, rejections: u32) {
        let most = 2f64.powi(rejections.min(6) as i32).min(60.0);
        let wait = Duration::from_secs_f64(self.chance.f64() * most);
        self.waiting.push(Reverse((now + wait, rejections + 1)));
    }
}

/// A fixed number of calls in flight, and 10 s without calls after a rejection (Curator's `seconds_to_pause_on_rate_limit`).
pub struct Pause {
    most: u32,
    in_flight: u32,
    until: Duration,
}

impl Pause {
    const FOR: Duration = Duration::from_secs(10);

    /// At most so many calls in flight.
    pub fn new(most: u32) -> Pause {
        Pause { most, in_flight: 0, until: Duration::ZERO }
    }
}

impl Policy for Pause {
    type Call = ();
    fn permit_at(&mut self, now: Duration) -> Option<Duration> {
        (self.in_flight < self.most).then(|| now.max(self.until))
    }
    fn send(&mut self, _: Duration) {
        self.in_flight += 1;
    }
    fn answered(&mut self, _: Duration, (): ()) {
        self.in_flight -= 1;
    }
    fn rejected(&mut self, now: Duration, (): ()) {
        self.in_flight -= 1;
        self.until = now + Pause::FOR;
    }
}

/// Calls in flight × 0.75 at the first rejection of a burst, with 2 s without calls; + 1 after 25 answers (Data Designer).
pub struct Parallel {
    ceiling: f64,
    most: f64,
    in_flight: u32,
    answers: u32,
    cut: Duration,
    until: Duration,
}

impl Parallel {
    const COOLDOWN: Duration = Duration::from_secs(2);

    /// Begins with so many calls in flight, and never has more.
    pub fn new(most: u32) -> Parallel {
        let most = f64::from(most);
        Parallel { ceiling: most, most, in_flight: 0, answers: 0, cut: Duration::ZERO, until: Duration::ZERO }
    }
}

impl Policy for Parallel {
    type Call = Duration;
    fn permit_at(&mut self, now: Duration) -> Option<Duration> {
        (f64::from(self.in_flight) + 1.0 <= self.most.max(1.0)).then(|| now.max(self.until))
    }
    fn send(&mut self, now: Duration) -> Duration {
        self.in_flight += 1;
        now
    }
    fn answered(&mut self, _: Duration, _: Duration) {
        self.in_flight -= 1;
        self.answers += 1;
        if self.answers.is_multiple_of(25) {
            self.most = (self.most + 1.0).min(self.ceiling);
        }
    }
    fn rejected(&mut self, now: Duration, sent: Duration) {
        self.in_flight -= 1;
        if sent >= self.cut {
            (self.most, self.cut, self.until) = ((self.most * 0.75).max(1.0), now, now + Parallel::COOLDOWN);
        }
    }
}
