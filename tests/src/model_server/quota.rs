//! A quota that clients are not told: a token bucket.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::Clock;

/// Seconds of the quota that can be saved up, and are at the start.
const BURST: f64 = 1.0;

/// Calls per second, and how long it takes to reject one.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Calls per second.
    pub per_second: f64,
    /// A rejection takes so long.
    pub rejects_in: Duration,
}

/// What is left of it.
pub(super) struct Bucket {
    quota: Quota,
    clock: Clock,
    /// Calls that may pass, and when they were counted.
    left: Mutex<(f64, tokio::time::Instant)>,
}

impl Bucket {
    pub(super) fn new(quota: Quota) -> Bucket {
        let clock = Clock::system();
        let left = Mutex::new((quota.per_second * BURST, clock.instant()));
        Bucket { quota, clock, left }
    }

    /// Lets a call pass, or tells how long its rejection takes.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let (mut left, now) = (self.left.lock().unwrap_or_else(PoisonError::into_inner), self.clock.instant());
        let more = now.duration_since(left.1).as_secs_f64() * self.quota.per_second;
        *left = ((left.0 + more).min(self.quota.per_second * BURST), now);
        if left.0 < 1.0 {
            return Err(self.quota.rejects_in);
        }
        left.0 -= 1.0;
        Ok(())
    }
}
