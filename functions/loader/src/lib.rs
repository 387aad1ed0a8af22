//! The loader: reads one answers object and loads it into the store in one transaction.
//!
//! Invariant: a part is loaded if and only if its ledger row is there; whatever is uncertain is decided by reading it.

mod park;
mod part;
mod sweep;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_relay::clock::Clock;
use tasuki_relay::deadline::Deadline;
use tasuki_relay::jobs::Jobs;
use tasuki_relay::names::{self, Bucket, RunId, ShardId};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{
    Announcement, Event, Notice, Objects, Part, Records, RecordsError, RunRow, RunState, Verdict, Why,
};
use tasuki_relay::record::Plan;
use tokio::time::timeout;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// Pipelines that a process remembers.
const PIPELINES_KEPT: usize = 64;
/// A notice may take so long.
const NOTICE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// One process of the loader.
pub struct Loader {
    objects: Arc<dyn Objects>,
    records: Arc<dyn Records>,
    notice: Arc<dyn Notice>,
    clock: Clock,
    pipelines: tokio::sync::Mutex<BTreeMap<RunId, Arc<Pipeline>>>,
    jobs: Jobs,
    swept: Mutex<sweep::Memory>,
    stopped_by: Mutex<Option<String>>,
}

impl Loader {
    /// A loader over its ports. It loads at most `parts_admitted` parts at once.
    pub fn new(
        objects: Arc<dyn Objects>,
        records: Arc<dyn Records>,
        notice: Arc<dyn Notice>,
        clock: Clock,
        parts_admitted: usize,
    ) -> Arc<Loader> {
        Arc::new(Loader {
            objects: Arc::new(Deadline(objects)),
            records: Arc::new(Deadline(records)),
            notice,
            clock,
            pipelines: tokio::sync::Mutex::default(),
            jobs: Jobs::new(parts_admitted),
            swept: Mutex::default(),
            stopped_by: Mutex::default(),
        })
    }

    /// Handles an event of the answers bucket.
    pub async fn handle(self: &Arc<Self>, event: &Event) -> Verdict {
        match ShardId::parse_object(&event.name) {
            Ok(id) if event.bucket == Bucket::Answers => {
                let span = tracing::info_span!("load", run = %id.run, shard = %id.shard, pipeline = Empty);
                self.jobs.run(&event.name, || self.clone().work(id).instrument(span)).await
            }
            _ => Verdict::NotOurs,
        }
    }

    /// Starts nothing more and returns when nothing is under way.
    pub async fn drain(&self) {
        self.jobs.drain().await;
    }

    /// What stopped the loader, if the last part met a systemic error. Says what to do.
    pub fn stopped_by(&self) -> Option<String> {
        self.stopped_by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn work(self: Arc<Self>, id: ShardId) -> Result<Verdict, Why> {
        let Some(answers) = self.objects.read(Bucket::Answers, &id.object(), None).await? else {
            return Ok(Verdict::Done);
        };
        let pipeline = self.pipeline(&id.run).await?;
        Span::current().record("pipeline", &pipeline.name);
        let part = match part::read(&id, &answers, pipeline.clone()) {
            Ok(part) => part,
            Err(corrupt) => {
                tracing::error!(alert = "corrupt", shard = %id, "an answers object is corrupt ({corrupt}): its rows fail");
                let shard = self.objects.read(Bucket::Shards, &id.object(), None).await?;
                match shard.and_then(|shard| part::without_answers(&id, &answers, &shard, pipeline)) {
                    Some(part) => part,
                    None => {
                        tracing::error!(alert = "corrupt", shard = %id, "its shard object is gone or corrupt too: the run cannot end");
                        return Ok(Verdict::Done);
                    }
                }
            }
        };
        self.load(part).await?;
        self.complete(&id.run).await?;
        Ok(Verdict::Done)
    }

    /// Loads the part, or finds it loaded. Rows that the store rejects become failures of the same transaction.
    async fn load(&self, mut part: Part) -> Result<(), Why> {
        loop {
            let started = self.clock.instant();
            let result = self.records.load(&part).await;
            *self.stopped_by.lock().unwrap_or_else(PoisonError::into_inner) = match &result {
                Err(RecordsError::Systemic(what)) => Some(what.clone()),
                _ => None,
            };
            match result {
                Ok(loaded) => {
                    part::log(&part, &loaded, started.elapsed());
                    return Ok(());
                }
                Err(RecordsError::Rejected(rows)) if part::reject(&mut part, &rows) > 0 => (), // fewer answers each time: it ends
                Err(RecordsError::Rejected(_)) => {
                    return Err(Why::Systemic("the store rejects rows that hold no answers".into()));
                }
                Err(RecordsError::Systemic(what)) => {
                    tracing::error!(alert = "systemic", "{what}");
                    return Err(Why::Systemic(what));
                }
                Err(RecordsError::Unknown(what)) => {
                    let ledger = self.records.ledgered(&part.id.run, &[part.id.shard]).await.map_err(unconfirmed)?;
                    return if ledger.contains(&part.id.shard) { Ok(()) } else { Err(Why::Unconfirmed(what)) };
                }
            }
        }
    }

    /// Takes the run to its end state if all of it is loaded, announces that, and closes the run.
    async fn complete(&self, run: &RunId) -> Result<Option<RunRow>, Why> {
        let row = self.records.finish(run).await.map_err(unconfirmed)?;
        if row.as_ref().is_some_and(|row| row.state.has_ended()) {
            self.publish_all(run).await?;
            self.objects.remove(Bucket::State, &names::open(run), None).await?;
            self.memory(|memory| memory.forget(run));
        }
        Ok(row)
    }

    async fn publish_all(&self, run: &RunId) -> Result<(), Why> {
        for announcement in self.records.unpublished(Some(run)).await.map_err(unconfirmed)? {
            self.publish(&announcement).await?;
        }
        Ok(())
    }

    async fn publish(&self, announcement: &Announcement) -> Result<(), Why> {
        let published = timeout(NOTICE_DEADLINE, self.notice.publish(announcement)).await;
        published.unwrap_or_else(|_| Err("timed out".into())).map_err(Why::Unconfirmed)?;
        log_news(announcement);
        self.records.mark_published(&announcement.event_id).await.map_err(unconfirmed)
    }

    async fn pipeline(&self, run: &RunId) -> Result<Arc<Pipeline>, Why> {
        let mut pipelines = self.pipelines.lock().await;
        if let Some(known) = pipelines.get(run) {
            return Ok(known.clone());
        }
        let plan = self.objects.read(Bucket::State, &names::plan(run), None).await?;
        let plan = plan.ok_or_else(|| Why::Unconfirmed(format!("run {run} has no plan")))?;
        let plan: Plan = serde_json::from_slice(&plan.body)
            .map_err(|_| Why::Systemic(format!("the plan of run {run} is corrupt")))?;
        let pipeline = match Pipeline::parse(&plan.pipeline_text) {
            Ok(pipeline) => Arc::new(pipeline),
            Err(_) if plan.refused.is_some() => Arc::new(part::no_pipeline(&plan.pipeline)),
            Err(_) => return Err(Why::Systemic(format!("the pipeline of run {run} is not valid here"))),
        };
        if pipelines.len() >= PIPELINES_KEPT {
            pipelines.clear();
        }
        pipelines.insert(run.clone(), pipeline.clone());
        Ok(pipeline)
    }
}

/// A line for the end of a run, or for its standing still, as often as its notice is sent. Why it was refused stands in Runs: it
/// may name columns.
fn log_news(Announcement { state, run: RunRow { run, pipeline, .. }, .. }: &Announcement) {
    let word = state.as_str();
    match state {
        RunState::Failed => {
            tracing::error!(alert = "run_failed", %run, pipeline, state = word, "run {run} ended {word}: its row in Runs says why");
        }
        RunState::Parked => tracing::warn!(%run, pipeline, state = word, "run {run} is parked: its marker says why"),
        _ => tracing::info!(%run, pipeline, state = word, "run {run} ended {word}"),
    }
}

fn unconfirmed(error: RecordsError) -> Why {
    Why::Unconfirmed(error.to_string())
}
