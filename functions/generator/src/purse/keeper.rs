//! Keeps a purse: leases from the run's ledger by compare-and-swap, renews, gives back, and parks the run at its cap.

use super::{Purse, Reached, Till, locked};
use crate::purse::settle::stored;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_relay::budget::{self, Ledger, Need};
use tasuki_relay::checkpoint::CHECKPOINT_EVERY;
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Generation, ObjectsError};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Between two looks at the ledger, with as much jitter again: Cloud Storage takes about one change a second of an object.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A purse that no shard holds is kept for so long: the next shard's event is often on its way.
const LINGER: Duration = Duration::from_secs(5);
/// Attempts to give a slice back. One that is not counts as spent until it is settled.
const GIVE_BACK_TIMES: u32 = 3;
/// The ledger stays the same for so long before crashed slices are settled from what is stored: what the living were paid for last
/// is in checkpoints by then.
const QUIET_FOR: Duration = CHECKPOINT_EVERY.saturating_mul(2);

/// What the keeper knows between two looks.
struct Keeper {
    purse: Arc<Purse>,
    renew_at: Option<Instant>,
    /// No look before.
    not_before: Instant,
    /// The ledger of a starved process, since when it is like that.
    quiet: Option<(Ledger, Instant)>,
    /// When the rate was measured last, and what had been spent until then in all.
    measured: (Instant, u64),
    rate: u64,
    /// Spent in slices that are over.
    before: u64,
}

/// The ledger as it was read: `None` in place of its generation where there is none yet.
struct Read {
    ledger: Ledger,
    generation: Option<Generation>,
    cap: u64,
}

/// What a look leases.
struct Leased {
    need: Need,
    /// What may be spent beyond what is spent and reserved, once it is written.
    free: u64,
    /// What was granted until now; `None` where the ledger need not be written.
    before: Option<u64>,
}

impl Purse {
    /// Works until no shard holds the purse.
    pub(super) async fn keep(self: Arc<Self>, open: Arc<Mutex<BTreeMap<RunId, Arc<Purse>>>>, stop: CancellationToken) {
        let _gone = self.gone.clone().drop_guard();
        let now = self.tools.clock.instant();
        let mut keeper = Keeper {
            purse: self.clone(),
            renew_at: None,
            not_before: now,
            quiet: None,
            measured: (now, 0),
            rate: 0,
            before: 0,
        };
        let mut idle_since = None;
        loop {
            let now = self.tools.clock.instant();
            let (holders, waits) = {
                let till = self.till();
                (till.holders, till.waiting.iter().any(|waiter| !waiter.tell.is_closed()))
            };
            let leave_at = (holders == 0).then(|| *idle_since.get_or_insert(now) + LINGER);
            if leave_at.is_none() {
                idle_since = None;
            } else if leave_at <= Some(now) || stop.is_cancelled() {
                let mut open = locked(&open);
                if self.till().holders == 0 {
                    open.remove(&self.run);
                    break;
                }
                continue;
            }
            let look_at = if waits { Some(keeper.not_before) } else { keeper.renew_at };
            if look_at.is_some_and(|at| at <= now) {
                keeper.look().await;
                continue;
            }
            let at = look_at.into_iter().chain(leave_at).min();
            tokio::select! {
                biased;
                () = self.wake.notified() => (),
                () = stop.cancelled(), if holders == 0 => (),
                () = sleep_until(at.unwrap_or(now)), if at.is_some() => (),
            }
        }
        keeper.give_back().await;
    }
}

impl Keeper {
    /// One look at the ledger, and what follows from it.
    async fn look(&mut self) {
        if let Err(error) = self.try_look().await {
            tracing::warn!(run = %self.purse.run, "the run's budget could not be leased, and is tried again: {error}");
        }
        let pause = LOOK_EVERY + self.purse.tools.chance.up_to(LOOK_EVERY);
        self.not_before = self.purse.tools.clock.instant() + pause;
        self.renew_at = self.renew_at.map(|at| at.max(self.not_before));
        self.purse.serve();
    }

    async fn try_look(&mut self) -> Result<(), ObjectsError> {
        let purse = self.purse.clone();
        let mut read = self.read().await?;
        self.forfeit(&read.ledger);
        if read.ledger.slices.keys().any(|owner| *owner != purse.owner)
            && read.ledger.all_dead(purse.eyes())
            && self.purse.till().granted == 0
        {
            // Nobody works: what is stored is all that there is.
            read.ledger.settle(purse.eyes(), stored(&*purse.tools.objects, &purse.run).await?);
        }
        self.measure();
        let mut ledger = read.ledger;
        let Leased { need, free, before } = self.lease(&mut ledger, read.cap);
        if let Some(before) = before
            && !self.write(ledger.clone(), read.generation, before).await?
        {
            return Ok(()); // another was faster: the next look sees what it wrote
        }
        let starved = need.next > 0 && free < need.next && need.reserved == 0;
        if !starved {
            self.quiet = None;
            return Ok(());
        }
        if ledger.may_get_more(purse.eyes()) {
            return Ok(()); // others may give back what they do not need
        }
        if ledger.can_settle(purse.eyes()) {
            self.settle_dead(ledger).await
        } else {
            self.park(&ledger, read.cap, need.next).await
        }
    }

    /// The ledger and the cap as they are now. A run that has no ledger may have been begun without one, or have lost it.
    async fn read(&self) -> Result<Read, ObjectsError> {
        let (objects, run) = (&*self.purse.tools.objects, &self.purse.run);
        let name = names::budget(run);
        let (object, cap) = futures::join!(objects.read(Bucket::State, &name, None), self.cap());
        let cap = cap?;
        let Some(object) = object? else {
            let ledger = Ledger { settled: stored(objects, run).await?, ..Ledger::default() };
            return Ok(Read { ledger, generation: None, cap });
        };
        let generation = Some(object.meta.generation);
        let ledger = match Ledger::parse(&object.body, object.meta.created) {
            Some(ledger) => ledger,
            None => Ledger { settled: stored(objects, run).await?, ..Ledger::default() },
        };
        Ok(Read { ledger, generation, cap })
    }

    /// The cap as it is now: a person's, or the pipeline's.
    async fn cap(&self) -> Result<u64, ObjectsError> {
        let cap = control::max_cost(&*self.purse.tools.objects, &self.purse.run).await?;
        Ok(cap.map_or(self.purse.max_cost, |(cap, _)| cap))
    }

    /// The slice was taken for a crashed process's, and settled: what is under way now is nobody's but ours.
    fn forfeit(&mut self, ledger: &Ledger) {
        let mut till = self.purse.till();
        if till.granted > 0 && !ledger.slices.contains_key(&self.purse.owner) {
            tracing::warn!(run = %self.purse.run, "this process's slice of the budget was settled without it");
            let under_way = till.reserved;
            self.before += till.spent;
            till.end();
            till.spent = under_way;
        }
    }

    /// How fast money goes: what was spent since the last measure, and half of what was known, whichever is more.
    fn measure(&mut self) {
        let now = self.purse.tools.clock.instant();
        let spent = self.before + self.purse.till().spent;
        let seconds = now.duration_since(self.measured.0).as_secs();
        if seconds >= 1 {
            let rate = spent.saturating_sub(self.measured.1) / seconds;
            self.rate = rate.max(self.rate / 2);
            self.measured = (now, spent);
        }
    }

    /// Leases what is needed. One step under the till's lock: what goes back must not be taken by a call in between.
    fn lease(&self, ledger: &mut Ledger, cap: u64) -> Leased {
        let purse = &self.purse;
        let renews = self.renew_at.is_none_or(|at| at <= purse.tools.clock.instant());
        let mut till = purse.till();
        let need = till.need(self.rate);
        let free = ledger.lease(purse.eyes(), need, cap);
        let changes = renews || free != till.free();
        let before = changes.then(|| self.lower(&mut till, ledger));
        Leased { need, free, before }
    }

    /// What goes back by this ledger is gone for us before it is written. Returns what was granted until now.
    fn lower(&self, till: &mut Till, ledger: &Ledger) -> u64 {
        let before = till.granted;
        till.granted = self.granted(ledger).min(before);
        before
    }

    fn granted(&self, ledger: &Ledger) -> u64 {
        ledger.slices.get(&self.purse.owner).map_or(0, |slice| slice.granted)
    }

    /// Writes the ledger in place of the version that was read, and takes what it grants: only then is what comes ours. Meanwhile
    /// calls come home and start: only what was granted changes. `before` = what [`Keeper::lower`] returned. False when another
    /// was faster.
    async fn write(&mut self, mut ledger: Ledger, over: Option<Generation>, before: u64) -> Result<bool, ObjectsError> {
        let purse = &self.purse;
        ledger.attempt = purse.tools.chance.identity();
        let granted = self.granted(&ledger);
        let sent = purse.tools.clock.instant();
        let written = put(purse, &ledger, over).await;
        let mut till = purse.till();
        match written {
            Ok(()) => {
                let timing = purse.tools.timing;
                till.granted = granted;
                till.fresh_until = Some(sent + timing.lease.saturating_sub(timing.guard));
                self.renew_at = Some(sent + timing.heartbeat);
                Ok(true)
            }
            Err(ObjectsError::Precondition) => {
                till.granted = before;
                Ok(false)
            }
            Err(error) => Err(error), // what was to go back may be gone; the next look tells
        }
    }

    /// Settles the slices of crashed processes from what is stored, once the others have had time to store what they were paid for.
    async fn settle_dead(&mut self, ledger: Ledger) -> Result<(), ObjectsError> {
        let now = self.purse.tools.clock.instant();
        let since = self.quiet.take().filter(|(quiet, _)| quiet.is_like(&ledger)).map_or(now, |(_, since)| since);
        self.quiet = Some((ledger, since));
        if now.duration_since(since) < QUIET_FOR {
            return Ok(());
        }
        let purse = self.purse.clone();
        let spent = stored(&*purse.tools.objects, &purse.run).await?;
        let Read { mut ledger, generation, .. } = self.read().await?;
        if self.quiet.as_ref().is_none_or(|(quiet, _)| !quiet.is_like(&ledger)) {
            return Ok(()); // somebody works again: what he was paid for since may not be among what is stored
        }
        ledger.settle(purse.eyes(), spent);
        self.quiet = None;
        let before = self.lower(&mut purse.till(), &ledger);
        self.write(ledger, generation, before).await.map(drop)
    }

    async fn park(&mut self, ledger: &Ledger, cap: u64, next: u64) -> Result<(), ObjectsError> {
        if self.cap().await? != cap {
            return Ok(()); // a person has just set another one: the next look leases by that
        }
        let purse = &self.purse;
        let why = budget::spent_up(cap, ledger.spent(), next);
        control::park(&*purse.tools.objects, &purse.run, &why).await?;
        tracing::warn!(run = %purse.run, "the run is parked: {why}");
        let waiting = std::mem::take(&mut purse.till().waiting);
        for waiter in waiting {
            waiter.tell.send(Err(Reached)).ok(); // it may have been halted
        }
        Ok(())
    }

    /// Ends the slice: what was not spent is the others'.
    async fn give_back(self) {
        let purse = &self.purse;
        if purse.till().granted == 0 && self.renew_at.is_none() {
            return;
        }
        let spent = purse.till().end();
        for _ in 0..GIVE_BACK_TIMES {
            let given_back = async {
                let Read { mut ledger, generation, .. } = self.read().await?;
                if !ledger.slices.contains_key(&purse.owner) {
                    return Ok(());
                }
                ledger.close(&purse.owner, spent);
                ledger.attempt = purse.tools.chance.identity();
                put(purse, &ledger, generation).await
            };
            if given_back.await.is_ok() {
                return;
            }
            sleep(purse.tools.chance.up_to(LOOK_EVERY)).await;
        }
    }
}

/// Creates the ledger, or writes it over the version that was read. A reply that was lost is decided by a read.
///
/// # Errors
/// `Precondition` when another was faster; others when nothing is known, or nothing was written.
async fn put(purse: &Purse, ledger: &Ledger, over: Option<Generation>) -> Result<(), ObjectsError> {
    let (objects, name) = (&purse.tools.objects, names::budget(&purse.run));
    let body = Bytes::from(serde_json::to_vec(ledger).expect("a ledger is plain data"));
    let written = match over {
        None => objects.create(Bucket::State, &name, body).await,
        Some(seen) => objects.replace(Bucket::State, &name, body, seen).await,
    };
    let Err(error) = written else { return Ok(()) };
    let found = objects.read(Bucket::State, &name, None).await?;
    let is_ours = |body: &[u8]| Ledger::parse(body, Default::default()).is_some_and(|it| it.attempt == ledger.attempt);
    match found {
        Some(found) if is_ours(&found.body) => Ok(()),
        Some(found) if Some(found.meta.generation) != over => Err(ObjectsError::Precondition),
        _ => Err(error),
    }
}
