//! When the next call may start: backoff after a busy reply, and a hold when the server names a time.

use crate::clock::{Chance, Clock};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest first wait after a busy reply: quotas are counted by the minute, overloads pass in seconds.
const BASE: Duration = Duration::from_secs(1);
/// The longest wait that is ours to choose (Google's retry strategy: cap 60 s).
const CAP: Duration = Duration::from_secs(60);
/// The longest wait that is the server's to choose: a wrong one must not stop the relay for a day.
const HOLD_MAX: Duration = Duration::from_secs(600);

/// Stands before a model: every call waits for [`Pace::ready`] first.
#[derive(Debug)]
pub struct Pace {
    clock: Clock,
    chance: Chance,
    held_until: Mutex<Option<Instant>>,
}

impl Pace {
    /// Nothing is held.
    pub fn new(clock: Clock, chance: Chance) -> Pace {
        Pace { clock, chance, held_until: Mutex::new(None) }
    }

    /// Waits while a hold that the server asked for lasts.
    pub async fn ready(&self) {
        // Read again after waiting: the hold may have grown.
        while let Some(until) = self.held().filter(|until| *until > self.clock.instant()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// How long this call waits after its `consecutive`-th busy reply in a row (from 1), with full jitter. `retry_after`
    /// comes on top, so that those who were told the same moment do not return in it, and holds all other calls too.
    pub fn busy(&self, consecutive: u32, retry_after: Option<Duration>) -> Duration {
        let told = retry_after.unwrap_or_default().min(HOLD_MAX);
        if !told.is_zero() {
            let until = self.clock.instant() + told;
            let mut held = self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
            *held = Some(held.map_or(until, |before| before.max(until)));
        }
        told + self.chance.up_to(backoff(consecutive.saturating_sub(1), BASE, CAP))
    }

    fn held(&self) -> Option<Instant> {
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `base` doubled `attempt` times (from 0), at most `cap`. Never overflows.
pub fn backoff(attempt: u32, base: Duration, cap: Duration) -> Duration {
    2u32.checked_pow(attempt).and_then(|factor| base.checked_mul(factor)).map_or(cap, |wait| wait.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace() -> Pace {
        Pace::new(Clock::system(), Chance::seeded(1))
    }

    proptest! {
        #[test]
        fn a_backoff_never_overflows_shrinks_or_passes_its_cap(attempt in any::<u32>(), base in 1..u64::MAX, cap in any::<u64>()) {
            let at = |attempt| backoff(attempt, Duration::from_millis(base), Duration::from_millis(cap));
            prop_assert!(at(attempt) <= Duration::from_millis(cap));
            prop_assert!(at(attempt) <= at(attempt.saturating_add(1)));
        }

        #[test]
        fn a_busy_call_waits_as_told_and_never_much_longer(consecutive in any::<u32>(), told in proptest::option::of(any::<u64>())) {
            let told = told.map(Duration::from_millis);
            let wait = pace().busy(consecutive, told);
            let least = told.unwrap_or_default().min(HOLD_MAX);
            prop_assert!(least <= wait && wait <= least + CAP, "{wait:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_stops_every_call_until_it_ends() {
        let (pace, start) = (pace(), Clock::system().instant());
        pace.busy(1, Some(Duration::from_secs(30)));
        pace.busy(1, Some(Duration::from_secs(5)));
        pace.ready().await;
        assert_eq!(start.elapsed().as_secs(), 30);
        pace.busy(1, None);
        pace.ready().await;
        assert_eq!(start.elapsed().as_secs(), 30, "only a time that the server names holds other calls");
    }

    #[test]
    fn the_wait_doubles_until_its_cap() {
        let waits = (0..9).map(|attempt| backoff(attempt, BASE, CAP).as_secs());
        assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
