//! When the next call may start. One gate for each model, location and tier stands before the model port, for all shards of a process:
//! [`Law`] learns what the model takes, [`Ceilings`] are what the user allows.

mod ceilings;
mod law;
mod meter;

pub use ceilings::Ceilings;
pub use law::{Law, Ticket};

use crate::clock::{Chance, Clock};
use crate::pipeline::{ModelSettings, Provider};
use crate::prices::Tier;
use ceilings::Used;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The longest first wait after a server error.
const BASE: Duration = Duration::from_secs(1);
/// The longest wait that is ours to choose (Google's retry strategy: cap 60 s).
const CAP: Duration = Duration::from_secs(60);
/// The longest wait that is the server's to choose: a wrong one must not stop the relay for a day.
pub const HOLD_MAX: Duration = Duration::from_secs(600);
/// Processes that were told the same moment return within so long after it, each at its own.
const RETURNS_WITHIN: Duration = Duration::from_secs(1);

/// A model, where it is asked, and how it is served: each has limits of its own.
type Place = (Provider, String, Option<String>, Tier);

/// The gates of a process.
#[derive(Debug)]
pub struct Pace {
    clock: Clock,
    chance: Chance,
    processes: u32,
    gates: Mutex<BTreeMap<Place, Arc<Gate>>>,
}

impl Pace {
    /// Nothing is known of any model. Ceilings are shared by so many processes.
    pub fn new(clock: Clock, chance: Chance, processes: u32) -> Pace {
        Pace { clock, chance, processes, gates: Mutex::default() }
    }

    /// The gate of a model.
    pub fn gate(&self, model: &ModelSettings) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry((model.provider, model.name.clone(), model.location.clone(), model.tier));
        gate.or_insert_with(|| Arc::new(Gate::new(self.clock.clone(), self.chance.clone()))).clone()
    }

    /// The share of this process in what a pipeline allows.
    pub fn ceilings(&self, model: &ModelSettings) -> Ceilings {
        Ceilings::of(model, self.processes)
    }

    /// How long a call waits after its `consecutive`-th server error in a row (from 1), with full jitter.
    pub fn after_error(&self, consecutive: u32) -> Duration {
        self.chance.up_to(backoff(consecutive.saturating_sub(1), BASE, CAP))
    }
}

/// Stands before one model: every call passes it, in the order in which they came.
#[derive(Debug)]
pub struct Gate {
    clock: Clock,
    chance: Chance,
    start: Instant,
    turn: tokio::sync::Mutex<()>,
    replied: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    law: Law,
    used: Used,
}

impl Gate {
    fn new(clock: Clock, chance: Chance) -> Gate {
        let start = clock.instant();
        Gate {
            clock,
            chance,
            start,
            turn: tokio::sync::Mutex::default(),
            replied: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Waits until a call with a prompt of so many bytes may start.
    pub async fn pass(self: &Arc<Gate>, ceilings: Ceilings, bytes: usize) -> Permit {
        let _turn = self.turn.lock().await;
        loop {
            let now = self.now();
            let at = {
                let State { law, used } = &mut *self.state();
                let at = law.permit_at(now).map(|at| at.max(used.due(now, &ceilings)));
                if at.is_some_and(|at| at <= now) {
                    let (ticket, estimated) = (law.on_send(now), used.take(now, &ceilings, bytes));
                    return Permit { gate: self.clone(), ceilings, bytes, estimated, ticket: Some(ticket) };
                }
                at
            };
            let until = async {
                match at {
                    // In whole milliseconds, as tokio's timers: finer ones would not replay.
                    Some(at) => {
                        sleep_until(self.start + Duration::from_millis(at.as_nanos().div_ceil(1_000_000) as u64)).await
                    }
                    None => std::future::pending().await,
                }
            };
            // A reply may move the time, either way.
            tokio::select! {
                biased;
                () = self.replied.notified() => (),
                () = until => (),
            }
        }
    }

    /// Calls per second that may start; `None` while the model has rejected nothing.
    pub fn rate(&self) -> Option<f64> {
        self.state().law.rate()
    }

    fn now(&self) -> Duration {
        self.clock.instant().duration_since(self.start)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that may start, or is in flight. Dropped, it had no reply that tells anything about limits.
#[derive(Debug)]
#[must_use = "a call that is not made must not count as one"]
pub struct Permit {
    gate: Arc<Gate>,
    ceilings: Ceilings,
    bytes: usize,
    estimated: f64,
    ticket: Option<Ticket>,
}

impl Permit {
    /// The model answered, and says how many tokens that took, prompt included.
    pub fn answered(mut self, tokens: u64) {
        self.end(|permit, state, now, ticket| {
            state.law.on_ok(now, ticket);
            state.used.settle(&permit.ceilings, permit.bytes, permit.estimated, tokens);
        });
    }

    /// The model is busy. `retry_after` holds all its calls; some jitter comes on top, so that those who were told the same
    /// moment do not return in it.
    pub fn rejected(mut self, retry_after: Option<Duration>) {
        let told = retry_after.map(|told| told.min(HOLD_MAX)).filter(|told| !told.is_zero());
        let hold = told.map(|told| told + self.gate.chance.up_to(told.min(RETURNS_WITHIN)));
        self.end(|permit, state, now, ticket| {
            state.law.on_rejected(now, ticket, hold);
            state.used.settle(&permit.ceilings, permit.bytes, permit.estimated, 0);
        });
    }

    fn end(&mut self, tell: impl FnOnce(&Permit, &mut State, Duration, Ticket)) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.gate.now();
            tell(self, &mut self.gate.state(), now, ticket);
            self.gate.replied.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(|_, state, _, _| state.law.on_lost());
    }
}

/// `base` doubled `attempt` times (from 0), at most `cap`. Never overflows.
pub fn backoff(attempt: u32, base: Duration, cap: Duration) -> Duration {
    2u32.checked_pow(attempt).and_then(|factor| base.checked_mul(factor)).map_or(cap, |wait| wait.min(cap))
}

#[cfg(test)]
mod tests;
