//! The generator: reads one shard, asks Gemini about every row, writes one answers object.
//!
//! Invariant: it never touches the store. An answers object has every ordinal of its shard with its outcome, or is absent.

mod bill;
mod breaker;
mod budget;
mod cache;
mod collapse;
mod epoch;
mod job;
mod meter;
mod purse;
mod route;
mod row;
mod run;
mod shard;
mod summary;
mod sweep;

use breaker::Breakers;
pub use breaker::{Breaker, COOLDOWN};
pub use meter::Meter;

use collapse::{Collapse, Role};
use purse::Purses;
use run::Runs;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_relay::checkpoint::ROWS_PER_CHECKPOINT;
use tasuki_relay::claims::{Claims, Timing};
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::deadline::Deadline;
use tasuki_relay::jobs::Jobs;
use tasuki_relay::names::{Bucket, ShardId};
use tasuki_relay::pace::Pace;
use tasuki_relay::ports::{Event, Model, Objects, Verdict};
use tokio::sync::{RwLock, Semaphore};
use tracing::Instrument;
use tracing::field::Empty;

/// How a generator is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Calls in flight at most, over all shards of the process.
    pub max_in_flight: usize,
    /// Processes of the generator at most: what a pipeline allows is shared by so many.
    pub processes: u32,
    /// Shards that the process holds at once, cut requests included.
    pub shards_admitted: usize,
    /// How claims keep time.
    pub timing: Timing,
    /// How often a shard looks for `control/<run>/…`.
    pub control_every: Duration,
    /// Answered rows between two checkpoints.
    pub rows_per_checkpoint: usize,
    /// How long calls in flight may bring their answers home when the process stops: Cloud Run kills 10 s after SIGTERM.
    pub stop_grace: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_in_flight: 5_000,
            processes: 1,
            shards_admitted: 128,
            timing: Timing::default(),
            control_every: Duration::from_secs(30),
            rows_per_checkpoint: ROWS_PER_CHECKPOINT,
            stop_grace: Duration::from_secs(4),
        }
    }
}

/// One process of the generator.
pub struct Generator {
    objects: Arc<dyn Objects>,
    model: Arc<dyn Model>,
    clock: Clock,
    settings: Settings,
    claims: Claims,
    pace: Pace,
    breakers: Breakers,
    /// Open when storage takes no checkpoints: what is paid could not be kept.
    storage: Breaker,
    calls: Arc<Semaphore>,
    /// Read by a shard at work, written by one that must run alone.
    alone: RwLock<()>,
    collapse: Arc<Collapse>,
    runs: Runs,
    purses: Purses,
    jobs: Jobs,
    swept: Mutex<sweep::Memory>,
    meter: Arc<Meter>,
}

impl Generator {
    /// A generator over its ports.
    pub fn new(
        objects: Arc<dyn Objects>,
        model: Arc<dyn Model>,
        clock: Clock,
        chance: Chance,
        settings: Settings,
    ) -> Arc<Generator> {
        let objects: Arc<dyn Objects> = Arc::new(Deadline(objects));
        Arc::new(Generator {
            claims: Claims::new(objects.clone(), clock.clone(), chance.clone(), settings.timing),
            pace: Pace::new(clock.clone(), chance.clone(), settings.processes),
            purses: Purses::new(objects.clone(), clock.clone(), chance, settings.timing),
            breakers: Breakers::new(clock.clone()),
            storage: Breaker::new(clock.clone()),
            calls: Arc::new(Semaphore::new(settings.max_in_flight)),
            alone: RwLock::default(),
            collapse: Arc::default(),
            runs: Runs::new(settings.processes),
            jobs: Jobs::new(settings.shards_admitted),
            swept: Mutex::default(),
            meter: Arc::default(),
            objects,
            model,
            clock,
            settings,
        })
    }

    /// What it is doing.
    pub fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// What stopped the machine, if a systemic error did.
    pub fn stopped_by(&self) -> Option<String> {
        self.breakers.stopped().or_else(|| self.storage.stopped())
    }

    pub(crate) fn storage_refuses(&self, what: &str) {
        self.storage.trip(format!("storage takes no checkpoint: {what}"));
    }

    /// Handles an event of the shards bucket. Dropping the returned future does not cut the work: it is paid for. A
    /// redelivery that reaches the process at work waits for it.
    pub async fn handle(self: &Arc<Self>, event: &Event) -> Verdict {
        match ShardId::parse_object(&event.name) {
            Ok(id) if event.bucket == Bucket::Shards => {
                let span = tracing::info_span!("generate", run = %id.run, shard = %id.shard, pipeline = Empty);
                self.jobs.run(&event.name, || self.clone().work(id).instrument(span)).await
            }
            _ => Verdict::NotOurs,
        }
    }

    /// Starts nothing more, checkpoints and releases what is under way, and returns when nothing is.
    pub async fn drain(&self) {
        self.jobs.drain().await;
        self.purses.closed().await;
    }
}
