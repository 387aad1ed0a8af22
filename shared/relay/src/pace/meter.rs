//! A rate, kept evenly: each unit takes its time, and little time can be saved up.

use std::time::Duration;

/// Time that may be saved up: what a busy machine is late by, not a burst.
const SLACK: Duration = Duration::from_millis(50);

/// How far a rate is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// When the time of all that was taken is over.
    due: Duration,
}

impl Meter {
    /// Nothing is taken, and nothing saved up, at `now`.
    pub fn starting(now: Duration) -> Meter {
        Meter { due: now }
    }

    /// The earliest time from `now` at which more may be taken.
    pub fn due(&self, now: Duration) -> Duration {
        self.due.max(now)
    }

    /// More could have been taken than was.
    pub fn lags(&self, now: Duration) -> bool {
        self.due + SLACK < now
    }

    /// Takes `units` at `rate` units per second.
    pub fn take(&mut self, now: Duration, units: f64, rate: f64) {
        self.due = self.due.max(now.saturating_sub(SLACK)) + time(units, rate);
    }

    /// So many of the units that were taken were `more`, or fewer where that is negative.
    pub fn correct(&mut self, more: f64, rate: f64) {
        let time = time(more.abs(), rate);
        self.due = if more > 0.0 { self.due + time } else { self.due.saturating_sub(time) };
    }
}

/// At most a day: a wrong count must not stop a model for ever.
fn time(units: f64, rate: f64) -> Duration {
    Duration::from_secs_f64((units / rate).clamp(0.0, 86_400.0))
}
