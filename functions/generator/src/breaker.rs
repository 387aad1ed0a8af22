//! The breaker: a systemic error stops the machine and fails no row.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::Clock;
use tasuki_relay::pipeline::ModelSettings;
use tokio::time::Instant;

/// How long the machine stands still before one call tries again.
pub const COOLDOWN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Tripped {
    what: Option<String>,
    /// When the next call may try.
    probe_at: Option<Instant>,
}

/// Open after a systemic error; after a cooldown one call at a time probes, and the first success closes it.
#[derive(Debug)]
pub struct Breaker {
    clock: Clock,
    state: Mutex<Tripped>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(clock: Clock) -> Breaker {
        Breaker { clock, state: Mutex::default() }
    }

    /// A call may start. Otherwise: what stopped the machine, and what to do.
    pub fn admit(&self) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(what) = &state.what else { return Ok(()) };
        let now = self.clock.instant();
        match state.probe_at {
            Some(at) if now < at => Err(what.clone()),
            _ => {
                state.probe_at = Some(now + COOLDOWN);
                Ok(())
            }
        }
    }

    /// What stopped the machine, without starting a probe.
    pub fn stopped(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = state.probe_at.is_some_and(|at| self.clock.instant() < at);
        state.what.clone().filter(|_| waiting)
    }

    /// Something stopped the machine, and nothing has shown yet that it is over.
    pub fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).what.is_some()
    }

    /// A systemic error: somebody must act.
    pub fn trip(&self, what: String) {
        if !self.is_open() {
            tracing::error!(alert = "systemic", "{what}");
        }
        self.trip_quietly(what);
    }

    /// The same, where it is told otherwise.
    pub(crate) fn trip_quietly(&self, what: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Tripped { what: Some(what), probe_at: Some(self.clock.instant() + COOLDOWN) };
    }

    /// The model answered: whatever it was is over.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.what.is_some() {
            *state = Tripped::default();
        }
    }
}

/// A breaker for each place that is asked: a key or a location that one pipeline has wrong stops the runs that share it, and no other.
#[derive(Debug)]
pub(crate) struct Breakers {
    clock: Clock,
    all: Mutex<BTreeMap<String, Arc<Breaker>>>,
}

impl Breakers {
    pub fn new(clock: Clock) -> Breakers {
        Breakers { clock, all: Mutex::default() }
    }

    /// The breaker of the model and place that these settings ask.
    pub fn of(&self, model: &ModelSettings) -> Arc<Breaker> {
        let place = format!("{:?} {} {:?} {:?}", model.provider, model.name, model.location, model.tier);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(place).or_insert_with(|| Arc::new(Breaker::new(self.clock.clone()))).clone()
    }

    /// One that nobody shares.
    pub fn another(&self) -> Breaker {
        Breaker::new(self.clock.clone())
    }

    /// What stopped one of them.
    pub fn stopped(&self) -> Option<String> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).values().find_map(|breaker| breaker.stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_call_probes_after_the_cooldown_and_a_success_closes() {
        let breaker = Breaker::new(Clock::system());
        assert!(breaker.admit().is_ok());
        breaker.trip("the key is refused".into());
        assert_eq!(breaker.admit(), Err("the key is refused".to_owned()));
        tokio::time::advance(COOLDOWN).await;
        assert_eq!((breaker.admit().is_ok(), breaker.admit().is_ok()), (true, false), "one probe at a time");
        breaker.close();
        assert!(breaker.admit().is_ok() && breaker.stopped().is_none());
    }
}
