//! The generator's sweep: finds by listing what an event should have brought.

use crate::Generator;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use tasuki_relay::claims::Standing;
use tasuki_relay::control;
use tasuki_relay::leg::Leg;
use tasuki_relay::names::{self, Bucket, RunId, ShardId};
use tasuki_relay::ports::{Event, Meta, ObjectsError, Verdict, Why};
use tasuki_relay::sweep::{Due, Marks, PAGE, REDRIVES_MAX, Redriven, Sweep, open_runs};

/// Shards that a sweep drives at once.
const AT_ONCE: usize = 16;

/// What a process remembers between sweeps.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    redriven: Redriven,
    marks: Marks,
    /// Runs that were seen parked, until a sweep finds that nothing of theirs is due: so long it is due whatever its age, as
    /// what is listed may be turned away, or not be reached before the sweep is cut.
    parked: BTreeSet<RunId>,
}

impl Memory {
    /// Forgets the runs that are no longer open.
    fn keep(&mut self, open: &[RunId]) {
        self.redriven.keep_of(open);
        self.marks.keep(open);
        self.parked.retain(|run| open.contains(run));
    }
}

impl Generator {
    /// Drives again the shards of open runs that have no answers. Returns how many.
    ///
    /// # Errors
    /// The first failure, after all that could be done was done.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, Why> {
        self.due(Sweep::ByAge, None).await.drive(self, AT_ONCE).await
    }

    /// The shards without answers that are due, as events: of all open runs, or of one.
    pub async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Due {
        let mut due = Due::default();
        let runs = match open_runs(&*self.objects, only).await {
            Ok(runs) => runs,
            Err(error) => {
                due.fail("the open runs", error.into());
                return due;
            }
        };
        for run in &runs {
            if let Err(error) = self.due_of(sweep, run, &mut due.events).await {
                due.fail(&format!("run {run}"), error.into());
            }
        }
        if only.is_none() {
            self.memory(|memory| memory.keep(&runs));
        }
        due
    }

    async fn due_of(&self, sweep: Sweep, run: &RunId, due: &mut Vec<Event>) -> Result<(), ObjectsError> {
        if control::parked_by(&*self.objects, run).await?.is_some() {
            self.saw_parked(run);
            return Ok(());
        }
        let resumed = self.memory(|memory| memory.parked.contains(run));
        let sweep = if resumed { Sweep::Now } else { sweep };
        let (prefix, before) = (names::shards(run), due.len());
        let most = before + REDRIVES_MAX;
        let mut after = Some(names::before(run, self.memory(|memory| memory.marks.first(run))));
        while due.len() < most {
            let shards = self.objects.list(Bucket::Shards, &prefix, after.as_deref(), PAGE).await?;
            let answers = self.objects.list(Bucket::Answers, &prefix, after.as_deref(), PAGE).await?;
            let answered: BTreeSet<String> = answers.into_iter().map(|meta| meta.name).collect();
            let claims = after.as_ref().map(|after| names::claims_after(after));
            let claims = self.objects.list(Bucket::State, &names::claims(run), claims.as_deref(), PAGE).await?;
            let claimed: BTreeSet<String> = claims.into_iter().map(|meta| meta.name).collect();
            if claimed.contains(&names::budget(run))
                && let Err(error) = self.settle_dead(run).await
            {
                tracing::warn!(%run, "the budget of crashed processes is not settled: {error}");
            }
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
        if due.len() == before {
            self.memory(|memory| memory.parked.remove(run));
        }
        Ok(())
    }

    /// The events of a parked run are acknowledged: once it is resumed, the sweep drives all its shards.
    pub(crate) fn saw_parked(&self, run: &RunId) {
        self.memory(|memory| memory.parked.insert(run.clone()));
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

#[async_trait]
impl Leg for Generator {
    async fn handle(self: Arc<Self>, event: &Event) -> Verdict {
        Generator::handle(&self, event).await
    }
    async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Due {
        Generator::due(self, sweep, only).await
    }
    fn drove(&self, event: &Event) {
        self.memory(|memory| memory.redriven.drove(&event.name, self.clock.now()));
    }
    async fn sweep(self: Arc<Self>) -> Result<usize, Why> {
        Generator::sweep(&self).await
    }
    async fn drain(&self) {
        Generator::drain(self).await;
    }
    fn trouble(&self) -> Option<String> {
        self.meter.trouble()
    }
}
