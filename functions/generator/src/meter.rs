//! What the generator is doing, for a progress bar: counters that only tell, and decide nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use tasuki_relay::record::{Outcome, Spent};

/// Counters of a process.
#[derive(Debug, Default)]
pub struct Meter {
    /// Calls in flight.
    pub in_flight: AtomicU64,
    /// Calls sent.
    pub calls: AtomicU64,
    /// Replies that said "busy".
    pub busy: AtomicU64,
    /// Rows that got an answer.
    pub answered: AtomicU64,
    /// Rows that failed.
    pub failed: AtomicU64,
    /// Rows that shared the call of another one.
    pub collapsed: AtomicU64,
    /// Input tokens.
    pub tokens_in: AtomicU64,
    /// Output tokens, thoughts included.
    pub tokens_out: AtomicU64,
    /// What the paid calls cost, as far as their price is known: picodollars.
    pub cost: AtomicU64,
    /// Paid calls whose price is not known.
    pub unpriced: AtomicU64,
    /// Rows that took an answer of an earlier run.
    pub reused: AtomicU64,
    /// Why the model was last unavailable.
    trouble: Mutex<Option<String>>,
}

impl Meter {
    /// Why the model could last not be reached, or failed; no text of a row.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn unavailable(&self, why: &str) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    pub(crate) fn sent(&self) {
        self.calls.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn returned(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn turned_away(&self) {
        self.busy.fetch_add(1, Relaxed);
    }

    pub(crate) fn shared(&self) {
        self.collapsed.fetch_add(1, Relaxed);
    }

    pub(crate) fn paid(&self, cost: Option<u64>) {
        match cost {
            Some(cost) => self.cost.fetch_add(cost, Relaxed),
            None => self.unpriced.fetch_add(1, Relaxed),
        };
    }

    pub(crate) fn settled(&self, outcome: &Outcome, spent: &Spent) {
        match outcome {
            Outcome::Answer(_) => self.answered.fetch_add(1, Relaxed),
            Outcome::Failed(_) => self.failed.fetch_add(1, Relaxed),
            Outcome::Unchanged(_) => 0,
        };
        self.reused.fetch_add(spent.reused.into(), Relaxed);
        self.tokens_in.fetch_add(spent.usage.prompt, Relaxed);
        self.tokens_out.fetch_add(spent.usage.output + spent.usage.thought, Relaxed);
    }
}
