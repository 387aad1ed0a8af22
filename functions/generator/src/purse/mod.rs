//! A run's money in this process: `[run] max_cost_usd`. A call takes its worst case from the process's slice before it starts and
//! settles when it is back; the keeper (`keeper.rs`) leases slices from the run's ledger, renews them and gives them back.
//!
//! A run without a cap has no purse, and pays nothing for this.

mod keeper;
mod settle;

use crate::run::Run;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tasuki_relay::budget::{Eyes, Need};
use tasuki_relay::claims::Timing;
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::names::RunId;
use tasuki_relay::ports::Objects;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Slices may take so long to be given back when the process stops: one that is not counts as spent until it is settled.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(2);

/// The cap is reached, nothing is under way, and the run is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached;

/// The purses of a process.
pub(crate) struct Purses {
    tools: Tools,
    open: Arc<Mutex<BTreeMap<RunId, Arc<Purse>>>>,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Tools {
    objects: Arc<dyn Objects>,
    clock: Clock,
    chance: Chance,
    timing: Timing,
}

/// The purse of one run.
pub(crate) struct Purse {
    run: RunId,
    /// The slice's name: another purse of the same run and process has another one.
    owner: String,
    /// The cap that the pipeline says, in picodollars.
    max_cost: u64,
    tools: Tools,
    till: Mutex<Till>,
    /// Somebody waits, or nobody holds the purse any more.
    wake: Notify,
    /// Cancelled when the slice was given back.
    gone: CancellationToken,
}

/// What is in it.
#[derive(Default)]
struct Till {
    /// Shards at work.
    holders: usize,
    granted: u64,
    spent: u64,
    reserved: u64,
    /// Until then a paid call may start: the slice is ours for sure.
    fresh_until: Option<Instant>,
    /// Grows when a slice is over. What was reserved before is settled at its worst.
    period: u64,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    worst: u64,
    tell: oneshot::Sender<Result<Reservation, Reached>>,
}

/// Money for one call. Dropped before it begins it goes back; after that it is spent, unless it is settled.
pub(crate) struct Reservation {
    purse: Arc<Purse>,
    worst: u64,
    period: u64,
    /// What dropping it costs.
    costs: u64,
}

/// A shard at work holds the purse: with the last one the slice is given back.
pub(crate) struct Stake(Arc<Purse>);

impl Purses {
    pub fn new(objects: Arc<dyn Objects>, clock: Clock, chance: Chance, timing: Timing) -> Purses {
        let tools = Tools { objects, clock, chance, timing };
        Purses { tools, open: Arc::default(), stop: CancellationToken::new() }
    }

    /// A stake in the run's purse; `None` when nothing caps the run.
    pub fn stake(&self, id: &RunId, run: &Run) -> Option<Stake> {
        let max_cost = run.pipeline.run.max_cost?;
        let mut open = locked(&self.open);
        let purse = open.entry(id.clone()).or_insert_with(|| {
            let owner = self.tools.chance.identity();
            let purse = Arc::new(Purse {
                run: id.clone(),
                owner,
                max_cost,
                tools: self.tools.clone(),
                till: Mutex::default(),
                wake: Notify::new(),
                gone: CancellationToken::new(),
            });
            tokio::spawn(purse.clone().keep(self.open.clone(), self.stop.clone()));
            purse
        });
        Some(Stake::new(purse.clone()))
    }

    /// This process holds the run's purse.
    pub fn has(&self, id: &RunId) -> bool {
        locked(&self.open).contains_key(id)
    }

    /// Returns when all slices are given back, or it takes too long.
    pub async fn closed(&self) {
        self.stop.cancel();
        let open: Vec<Arc<Purse>> = locked(&self.open).values().cloned().collect();
        let all = futures::future::join_all(open.iter().map(|purse| purse.gone.cancelled()));
        timeout(GIVE_BACK_WITHIN, all).await.ok();
    }
}

impl Purse {
    fn till(&self) -> MutexGuard<'_, Till> {
        locked(&self.till)
    }

    fn eyes(&self) -> Eyes<'_> {
        let Timing { lease, others_are_dead, .. } = self.tools.timing;
        Eyes { owner: &self.owner, now: self.tools.clock.now(), lease, others_are_dead }
    }

    /// Gives money to those who wait, in their order, as long as there is enough.
    fn serve(self: &Arc<Self>) {
        let now = self.tools.clock.instant();
        let mut late = Vec::new(); // dropped without the lock: their money goes back
        let mut till = self.till();
        while let Some(waiter) = till.waiting.pop_front() {
            if waiter.tell.is_closed() {
                continue;
            }
            let Some(reservation) = self.take(&mut till, waiter.worst, now) else {
                till.waiting.push_front(waiter);
                break;
            };
            late.extend(waiter.tell.send(Ok(reservation)).err());
        }
        drop(till);
        drop(late);
    }

    fn take(self: &Arc<Self>, till: &mut Till, worst: u64, now: Instant) -> Option<Reservation> {
        if !till.is_fresh(now) || till.free() < worst {
            return None;
        }
        till.reserved += worst;
        Some(Reservation { purse: self.clone(), worst, period: till.period, costs: 0 })
    }
}

impl Till {
    fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| now < until)
    }

    fn free(&self) -> u64 {
        self.granted.saturating_sub(self.spent.saturating_add(self.reserved))
    }

    fn need(&self, rate: u64) -> Need {
        let waiting = || self.waiting.iter().filter(|waiter| !waiter.tell.is_closed()).map(|waiter| waiter.worst);
        Need {
            spent: self.spent,
            reserved: self.reserved,
            next: waiting().next().unwrap_or(0),
            waiting: waiting().fold(0, u64::saturating_add),
            rate,
        }
    }

    /// The slice is over: what is under way of it counts at its worst.
    fn end(&mut self) -> u64 {
        let spent = self.spent.saturating_add(self.reserved);
        (self.granted, self.spent, self.reserved, self.fresh_until) = (0, 0, 0, None);
        self.period += 1;
        spent
    }
}

impl Stake {
    fn new(purse: Arc<Purse>) -> Stake {
        purse.till().holders += 1;
        Stake(purse)
    }

    /// Sets the worst case of a call aside; waits while others may still give back what they do not need.
    pub async fn reserve(&self, worst: u64) -> Result<Reservation, Reached> {
        let told = {
            let mut till = self.0.till();
            if till.waiting.is_empty()
                && let Some(reservation) = self.0.take(&mut till, worst, self.0.tools.clock.instant())
            {
                return Ok(reservation);
            }
            let (tell, told) = oneshot::channel();
            till.waiting.push_back(Waiter { worst, tell });
            told
        };
        self.0.wake.notify_one();
        told.await.unwrap_or(Err(Reached)) // nobody is left who would lease more
    }
}

impl Clone for Stake {
    fn clone(&self) -> Stake {
        Stake::new(self.0.clone())
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        self.0.till().holders -= 1;
        self.0.wake.notify_one();
    }
}

impl Reservation {
    /// The slice that it is of is ours for sure: a call may begin.
    pub fn is_fresh(&self) -> bool {
        let now = self.purse.tools.clock.instant();
        let till = self.purse.till();
        till.period == self.period && till.is_fresh(now)
    }

    /// The call begins: from now on the money is spent, unless it is settled.
    pub fn begin(mut self) -> Reservation {
        self.costs = self.worst;
        self
    }

    /// The call cost so much; `None` when nobody knows: its worst case then.
    pub fn settle(mut self, actual: Option<u64>) {
        self.costs = actual.unwrap_or(self.worst);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut till = self.purse.till();
        if till.period == self.period {
            till.reserved = till.reserved.saturating_sub(self.worst);
            till.spent = till.spent.saturating_add(self.costs);
        }
        let waits = !till.waiting.is_empty();
        drop(till);
        if waits {
            self.purse.serve();
            self.purse.wake.notify_one();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
