//! Time and chance: the only place that asks the machine for either.
//!
//! Wall time is derived from tokio's clock, so that a test with a paused clock moves both. Chance comes from one seed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A moment in milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// From `earlier` to this moment; zero when `earlier` lies in the future.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment that the system's clock calls `time`; times before 1970 become 1970.
    pub fn of(time: SystemTime) -> Millis {
        Millis(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |past| past.as_millis() as u64))
    }
}

impl std::ops::Add<Duration> for Millis {
    type Output = Millis;
    fn add(self, later: Duration) -> Millis {
        Millis(self.0.saturating_add(later.as_millis() as u64))
    }
}

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

impl std::str::FromStr for Millis {
    type Err = humantime::TimestampError;
    fn from_str(text: &str) -> Result<Millis, Self::Err> {
        humantime::parse_rfc3339(text).map(Millis::of)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(|_| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// Wall time that moves with tokio's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    wall_at_origin: Millis,
}

impl Clock {
    /// The machine's clock. Needs no runtime.
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask")]
    pub fn system() -> Clock {
        Clock { origin: Instant::now(), wall_at_origin: Millis::of(SystemTime::now()) }
    }

    /// A clock that reads `wall` now and moves with tokio's clock: tests pause it, and skew it.
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask")]
    pub fn starting_at(wall: Millis) -> Clock {
        Clock { origin: Instant::now(), wall_at_origin: wall }
    }

    /// The wall time.
    pub fn now(&self) -> Millis {
        self.wall_at_origin + self.instant().duration_since(self.origin)
    }

    /// The monotonic time, for durations and deadlines.
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Chance from one seed, shared by a process. The same seed and the same order of draws give the same run.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<fastrand::Rng>>);

impl Chance {
    /// Chance that replays.
    pub fn seeded(seed: u64) -> Chance {
        Chance(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Chance seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask")]
    pub fn system() -> Chance {
        Chance::seeded(fastrand::u64(..))
    }

    /// A duration drawn evenly from zero to `most`, both included: full jitter. In whole milliseconds, as tokio's timers: finer
    /// ones would be rounded by the moment at which the runtime was started, and not replay.
    pub fn up_to(&self, most: Duration) -> Duration {
        Duration::from_millis(self.draw(|rng| rng.u64(0..=most.as_millis() as u64)))
    }

    /// A number drawn evenly from `0..bound`; `bound` must not be 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.draw(|rng| rng.u64(0..bound))
    }

    /// 128 bits as 32 hexadecimal digits: the name of a process or an attempt.
    pub fn identity(&self) -> String {
        format!("{:032x}", self.draw(|rng| rng.u128(..)))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        // A poisoned generator is still a generator: another thread's panic does not make its numbers wrong.
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_being_written_and_read() {
        let time = Millis(1_763_620_000_123);
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2025-11-20T06:26:40.123Z\"");
        assert_eq!(serde_json::from_str::<Millis>("\"2025-11-20T06:26:40.123Z\"").unwrap(), time);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_moves_with_tokios_clock() {
        let clock = Clock::starting_at(Millis(1_000));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), Millis(6_000));
    }

    #[test]
    fn the_same_seed_draws_the_same_chance() {
        let draws = |seed| (0..20).map(|_| Chance::seeded(seed).below(1_000)).collect::<Vec<_>>();
        assert_eq!(draws(7), draws(7));
    }
}
