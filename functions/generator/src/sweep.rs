//! The generator's sweep: finds by listing what an event should have brought.

use crate::Generator;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use tasuki_relay::claims::Standing;
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, RunId, ShardId};
use tasuki_relay::ports::{Event, Meta, ObjectsError};
use tasuki_relay::sweep::{Marks, PAGE, REDRIVES_MAX, Redriven, Sweep, drive, open_runs};

/// Shards that a sweep drives at once.
const AT_ONCE: usize = 16;

/// What a process remembers between sweeps.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    redriven: Redriven,
    marks: Marks,
    /// Runs that were parked when they were last looked at, or whose backlog of that time is not driven yet.
    parked: BTreeSet<RunId>,
}

impl Memory {
    /// Forgets the runs that are no longer open.
    fn keep(&mut self, open: &[RunId]) {
        self.redriven.keep(open);
        self.parked.retain(|run| open.contains(run));
    }
}

impl Generator {
    /// Drives again the shards of open runs that have no answers. Returns how many.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, ObjectsError> {
        let due = self.due(Sweep::ByAge, None).await?;
        Ok(drive(due, AT_ONCE, |event| async move { self.handle(&event).await }).await)
    }

    /// The shards without answers that are due, as events: of all open runs, or of one.
    pub async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Result<Vec<Event>, ObjectsError> {
        let mut due = Vec::new();
        let runs = open_runs(&*self.objects, only).await?;
        for run in &runs {
            // What hinders one run must not hinder the others.
            if let Err(error) = self.due_of(sweep, run, &mut due).await {
                tracing::warn!(%run, "the sweep could not see to run {run}: {error}");
            }
        }
        if only.is_none() {
            self.memory(|memory| memory.keep(&runs));
        }
        Ok(due)
    }

    async fn due_of(&self, sweep: Sweep, run: &RunId, due: &mut Vec<Event>) -> Result<(), ObjectsError> {
        if control::parked_by(&*self.objects, run).await?.is_some() {
            self.memory(|memory| memory.parked.insert(run.clone()));
            return Ok(());
        }
        // The events of a parked run were acknowledged: once it is resumed all its shards are due, whatever their age.
        let resumed = self.memory(|memory| memory.parked.contains(run));
        let sweep = if resumed { Sweep::Now } else { sweep };
        let (prefix, most) = (names::shards(run), due.len() + REDRIVES_MAX);
        let mut after = Some(names::before(run, self.memory(|memory| memory.marks.first(run))));
        while due.len() < most {
            let shards = self.objects.list(Bucket::Shards, &prefix, after.as_deref(), PAGE).await?;
            let answers = self.objects.list(Bucket::Answers, &prefix, after.as_deref(), PAGE).await?;
            let answered: BTreeSet<String> = answers.into_iter().map(|meta| meta.name).collect();
            let claims = after.as_ref().map(|after| names::claims_after(after));
            let claims = self.objects.list(Bucket::State, &names::claims(run), claims.as_deref(), PAGE).await?;
            let claimed: BTreeSet<String> = claims.into_iter().map(|meta| meta.name).collect();
            for shard in &shards {
                let Ok(id) = ShardId::parse_object(&shard.name) else { continue };
                if answered.contains(&shard.name) {
                    self.memory(|memory| memory.marks.done(run, id.shard.0));
                } else if due.len() < most && self.is_due(sweep, &id, shard, &claimed).await? {
                    due.push(Event { bucket: Bucket::Shards, name: shard.name.clone(), generation: shard.generation });
                }
            }
            after = shards.last().map(|meta| meta.name.clone());
            if shards.len() < PAGE {
                break;
            }
        }
        if due.len() < most {
            self.memory(|memory| memory.parked.remove(run));
        }
        Ok(())
    }

    async fn is_due(
        &self,
        sweep: Sweep,
        id: &ShardId,
        shard: &Meta,
        claimed: &BTreeSet<String>,
    ) -> Result<bool, ObjectsError> {
        if self.jobs.has(&shard.name) {
            return Ok(false);
        }
        let claim = id.claim();
        let standing = if claimed.contains(&claim) { self.claims.standing(&claim).await? } else { None };
        Ok(match standing {
            Some(Standing::Live | Standing::Ended) => false,
            Some(Standing::Free(_)) => true,
            None => self.memory(|memory| memory.redriven.due(sweep, &shard.name, shard.created, self.clock.now())),
        })
    }

    fn memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.swept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
