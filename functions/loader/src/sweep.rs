//! The loader's sweep: parts without a ledger row, runs that are complete, notices that were not sent.

use crate::{Loader, unconfirmed};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use tasuki_relay::leg::Leg;
use tasuki_relay::names::{self, Bucket, RunId, ShardId, ShardIndex};
use tasuki_relay::ports::{Event, Generation, RunState, Verdict, Why};
use tasuki_relay::sweep::{Due, Marks, PAGE, REDRIVES_MAX, Redriven, Sweep, open_runs};

/// Parts that a sweep loads at once.
const AT_ONCE: usize = 4;

/// What a process remembers between sweeps.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    redriven: Redriven,
    marks: Marks,
    /// The markers that the store knows of.
    parked: BTreeMap<RunId, Generation>,
}

impl Memory {
    /// The marker by which the run was parked last.
    pub fn parked_by(&self, run: &RunId) -> Option<Generation> {
        self.parked.get(run).copied()
    }

    pub fn parked(&mut self, run: &RunId, marker: Generation) {
        self.parked.insert(run.clone(), marker);
    }

    /// Forgets the runs that are no longer open.
    fn keep(&mut self, open: &[RunId]) {
        self.redriven.keep_of(open);
        self.marks.keep(open);
        self.parked.retain(|run, _| open.contains(run));
    }

    pub fn forget(&mut self, run: &RunId) {
        self.parked.remove(run);
        self.marks.forget(run);
        self.redriven.forget(&names::shards(run));
    }
}

impl Loader {
    /// Loads what is due, completes runs, and publishes what was not. Returns how many parts it drove.
    ///
    /// # Errors
    /// The first failure, after all that could be done was done.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, Why> {
        let driven = self.due(Sweep::ByAge, None).await.drive(self, AT_ONCE).await;
        let mut failed = None;
        for announcement in self.records.unpublished(None).await.map_err(unconfirmed)? {
            failed = failed.or(self.publish(&announcement).await.err());
        }
        driven.and_then(|driven| failed.map_or(Ok(driven), Err))
    }

    /// The parts without a ledger row that are due, as events: of all open runs, or of one. Completes runs and parks them on its
    /// way: an `open/` that a late splitter made again for an ended run is removed.
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
            if let Err(why) = self.see_to(sweep, run, &mut due.events).await {
                due.fail(&format!("run {run}"), why);
            }
        }
        if only.is_none() {
            self.memory(|memory| memory.keep(&runs));
        }
        due
    }

    async fn see_to(&self, sweep: Sweep, run: &RunId, due: &mut Vec<Event>) -> Result<(), Why> {
        self.due_of(sweep, run, due).await?;
        let state = self.complete(run).await?.map(|row| row.state);
        if state.is_some_and(RunState::has_ended) { Ok(()) } else { self.mark_parked(run, state).await }
    }

    async fn due_of(&self, sweep: Sweep, run: &RunId, due: &mut Vec<Event>) -> Result<(), Why> {
        let (prefix, most) = (names::shards(run), due.len() + REDRIVES_MAX);
        let mut after = Some(names::before(run, self.memory(|memory| memory.marks.first(run))));
        while due.len() < most {
            let answers = self.objects.list(Bucket::Answers, &prefix, after.as_deref(), PAGE).await?;
            let shards: Vec<ShardIndex> =
                answers.iter().filter_map(|meta| ShardId::parse_object(&meta.name).ok()).map(|id| id.shard).collect();
            let ledger = self.records.ledgered(run, &shards).await.map_err(unconfirmed)?;
            for meta in &answers {
                let Ok(id) = ShardId::parse_object(&meta.name) else { continue };
                if ledger.contains(&id.shard) {
                    self.memory(|memory| memory.marks.done(run, id.shard.0));
                } else if due.len() < most
                    && self.memory(|memory| memory.redriven.due(sweep, &meta.name, meta.created, self.clock.now()))
                {
                    due.push(Event { bucket: Bucket::Answers, name: meta.name.clone(), generation: meta.generation });
                }
            }
            after = answers.last().map(|meta| meta.name.clone());
            if answers.len() < PAGE {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.swept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Leg for Loader {
    async fn handle(self: Arc<Self>, event: &Event) -> Verdict {
        Loader::handle(&self, event).await
    }
    async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Due {
        Loader::due(self, sweep, only).await
    }
    fn drove(&self, event: &Event) {
        self.memory(|memory| memory.redriven.drove(&event.name, self.clock.now()));
    }
    async fn sweep(self: Arc<Self>) -> Result<usize, Why> {
        Loader::sweep(&self).await
    }
    async fn drain(&self) {
        Loader::drain(self).await;
    }
}
