//! One shard under its claim: what its rows share, and why they may have to stop.

use crate::budget::FormBudget;
use crate::purse::Stake;
use crate::run::Run;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::claims::Lease;
use tasuki_relay::names::ShardId;
use tasuki_relay::ports::Why;
use tasuki_relay::prices::Tier;
use tokio_util::sync::CancellationToken;

/// Why a shard stops before its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Halt {
    /// The process stops.
    Stopping,
    /// The lease is over or lost.
    LeaseLost,
    /// A systemic error.
    Systemic(String),
    /// The budget of retries is spent.
    Spent,
    /// The run is parked.
    Parked,
    /// A person cancelled the run: it is sealed.
    Cancelled,
    /// `[run] give_up_after` has passed: it is sealed.
    GaveUp,
}

impl Halt {
    /// The reason with which rows are sealed; `None` where they are given back.
    pub fn seal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Halt::Cancelled => Some(("cancelled", "the run was cancelled")),
            Halt::GaveUp => Some(("gave_up", "[run] give_up_after has passed")),
            Halt::Stopping | Halt::LeaseLost | Halt::Systemic(_) | Halt::Spent | Halt::Parked => None,
        }
    }

    /// How long calls in flight may still bring their answers home: they are paid.
    pub fn grace(&self, stop: Duration, tier: Tier) -> Duration {
        match self {
            Halt::Stopping => stop,
            Halt::LeaseLost | Halt::Cancelled => Duration::from_secs(10),
            Halt::Systemic(_) | Halt::Spent | Halt::Parked | Halt::GaveUp => crate::row::call_limit(tier),
        }
    }

    pub fn why(&self) -> Why {
        match self {
            Halt::Stopping => Why::Stopping,
            Halt::LeaseLost => Why::LostClaim,
            Halt::Systemic(what) => Why::Systemic(what.clone()),
            Halt::Spent | Halt::Parked | Halt::Cancelled | Halt::GaveUp => Why::Spent,
        }
    }
}

pub(crate) struct Job {
    pub id: ShardId,
    pub run: Arc<Run>,
    pub lease: Arc<Lease>,
    pub form: FormBudget,
    /// Where its calls take their money from; `None` when nothing caps the run.
    pub purse: Option<Stake>,
    halt: Mutex<Option<Halt>>,
    halted: CancellationToken,
    retries: AtomicU32,
    rejected: AtomicU32,
    waited_ms: AtomicU64,
}

impl Job {
    /// `rows` to ask; the shard may retry a tenth of them, and ten, after server errors: more would be a storm.
    pub fn new(id: ShardId, run: Arc<Run>, lease: Arc<Lease>, purse: Option<Stake>, rows: usize) -> Job {
        Job {
            id,
            run,
            lease,
            form: FormBudget::of_shard(),
            purse,
            halt: Mutex::default(),
            halted: CancellationToken::new(),
            retries: AtomicU32::new(10 + rows as u32 / 10),
            rejected: AtomicU32::new(0),
            waited_ms: AtomicU64::new(0),
        }
    }

    /// Stops the shard. The first reason stays, but a seal overrides.
    pub fn halt(&self, why: Halt) {
        let mut halt = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
        if halt.as_ref().is_none_or(|first| first.seal().is_none() && why.seal().is_some()) {
            *halt = Some(why);
        }
        self.halted.cancel();
    }

    pub fn halted(&self) -> Option<Halt> {
        self.halt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when the shard is halted.
    pub async fn until_halted(&self) {
        self.halted.cancelled().await;
    }

    /// Sleeps; false when the shard was halted meanwhile.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.until_halted() => false,
            () = tokio::time::sleep(time) => true,
        }
    }

    /// The model said that it is busy.
    pub fn turn_away(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// A row waited so long before a call might start.
    pub fn wait(&self, time: Duration) {
        self.waited_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// How often the model said that it is busy, and how many milliseconds all rows together waited.
    pub fn paced(&self) -> (u32, u64) {
        (self.rejected.load(Ordering::Relaxed), self.waited_ms.load(Ordering::Relaxed))
    }

    /// Takes one retry from the budget.
    pub fn take_retry(&self) -> bool {
        self.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
