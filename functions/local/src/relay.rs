//! The embedded relay: splitter, generator and loader over one folder, and the stand-in for Eventarc that drives them.
//!
//! Each leg has a queue of events (`relay/drive.rs`). What an earlier process left is found by the legs' sweeps.

mod drive;

use crate::home::{Home, Lock};
use anyhow::{Context, Result};
use async_trait::async_trait;
use drive::Drive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tasuki_generator::{Generator, Meter};
use tasuki_loader::Loader;
use tasuki_relay::claims::Timing;
use tasuki_relay::clock::Chance;
use tasuki_relay::files_only::FilesOnly;
use tasuki_relay::leg::Leg;
use tasuki_relay::names::{Bucket, RunId};
use tasuki_relay::ports::{Announcement, Event, Generation, Model, Notice};
use tasuki_relay::rows::ObjectRows;
use tasuki_splitter::Splitter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// Files that are split at once.
const SPLITS: usize = 4;
/// Parts that are loaded at once: SQLite has one writer, and one more part is read meanwhile.
const PARTS: usize = 2;
/// Most shards that are held at once: each holds its rows in memory, about 100 KB.
const SHARDS_MAX: usize = 4_096;
/// Rows of a shard where the pipeline does not say (for small files).
const ROWS_PER_SHARD: usize = 100;
/// How often a cancelled run is looked for.
const CONTROL_EVERY: Duration = Duration::from_secs(1);
/// How long calls in flight may bring their answers home when a person stops the relay: most do; a call may take 120 s, and
/// what is cut is asked, and paid for, again.
pub const STOP_GRACE: Duration = Duration::from_secs(30);
/// How long saving what came may take after that.
const STOP_SAVING: Duration = Duration::from_secs(10);
/// What a relay reports.
#[derive(Clone, Debug)]
pub enum News {
    /// A run reached its end state, or was parked.
    Announced(Box<Announcement>),
    /// A systemic error: nothing goes on until a person acts. Says what to do.
    Stopped(String),
    /// Something is tried again and again.
    Waiting(String),
}

/// What a relay drives, and how much at once.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only this run; `None` = all.
    pub only: Option<RunId>,
    /// Calls in flight at most.
    pub max_in_flight: usize,
    /// Rows of a shard, where known: together with the calls in flight it says how many shards are held at once.
    pub rows_per_shard: Option<u32>,
}

/// A relay at work.
pub struct Relay {
    splitter: Arc<Splitter>,
    generator: Arc<Generator>,
    loader: Arc<Loader>,
    /// What it reports.
    pub news: UnboundedReceiver<News>,
    inbox: UnboundedSender<Event>,
    pending: [Arc<AtomicUsize>; 3],
    stop: CancellationToken,
    _lock: Lock,
}

impl Relay {
    /// Starts on what is left over from earlier, and then on every event of the folder.
    pub fn start(home: &Home, lock: Lock, model: Arc<dyn Model>, plan: Plan) -> Result<Relay> {
        let (objects, clock, chance) = (home.objects.clone(), home.clock.clone(), Chance::system());
        let store = Arc::new(home.store(&lock)?);
        let timing = Timing { others_are_dead: true, ..Timing::default() };
        let rows = Arc::new(ObjectRows::new(objects.clone()));
        let settings = tasuki_splitter::Settings {
            timing,
            splits_admitted: SPLITS,
            sweeps_inbox: false, // a file may still be growing: who watches the inbox says when it is whole
            ..tasuki_splitter::Settings::default()
        };
        let (files, chances) = (Arc::new(FilesOnly), chance.clone());
        let splitter = Splitter::new(objects.clone(), rows, files, store.clone(), clock.clone(), chances, settings);
        let rows_per_shard = plan.rows_per_shard.map_or(ROWS_PER_SHARD, |rows| rows as usize);
        let shards_admitted = (2 * plan.max_in_flight / rows_per_shard + 8).min(SHARDS_MAX);
        let settings = tasuki_generator::Settings {
            max_in_flight: plan.max_in_flight,
            shards_admitted,
            timing,
            control_every: CONTROL_EVERY,
            stop_grace: STOP_GRACE,
            ..tasuki_generator::Settings::default()
        };
        let generator = Generator::new(objects.clone(), model, clock.clone(), chance, settings);
        let (tell, news) = unbounded_channel();
        let loader = Loader::new(objects.clone(), store, Arc::new(Announce(tell.clone())), clock, PARTS);

        let legs: [(Arc<dyn Leg>, usize); 3] =
            [(splitter.clone(), SPLITS), (generator.clone(), shards_admitted), (loader.clone(), PARTS)];
        let (stop, pending) = (CancellationToken::new(), [(); 3].map(|()| Arc::default()));
        let queues = legs.into_iter().zip(&pending).map(|((leg, at_once), pending)| {
            let (send, events) = unbounded_channel();
            let (only, stop, tell) = (plan.only.clone(), stop.clone(), tell.clone());
            tokio::spawn(Drive { leg, at_once, only, stop, tell, pending: Arc::clone(pending) }.run(events));
            send
        });
        let [inbox, shards, answers] = <[_; 3]>::try_from(queues.collect::<Vec<_>>()).expect("three legs");
        let mut events = objects.events().context("another relay of this process drives the folder")?;
        let dropped = inbox.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                // A leg that has stopped needs no events.
                let _ = match event.bucket {
                    Bucket::Inbox => inbox.send(event),
                    Bucket::Shards => shards.send(event),
                    Bucket::Answers => answers.send(event),
                    Bucket::State => Ok(()),
                };
            }
        });
        Ok(Relay { splitter, generator, loader, news, inbox: dropped, pending, stop, _lock: lock })
    }

    /// Hands a dropped file to the splitter.
    pub fn announce(&self, name: String, generation: Generation) {
        let _ = self.inbox.send(Event { bucket: Bucket::Inbox, name, generation });
    }

    /// The run that this version of an inbox object is.
    pub fn run_of(&self, name: &str, generation: Generation) -> RunId {
        self.splitter.run_of(name, generation)
    }

    /// What the generator is doing.
    pub fn meter(&self) -> Arc<Meter> {
        self.generator.meter()
    }

    /// Files that are, or wait to be, split.
    pub fn splitting(&self) -> usize {
        self.pending[0].load(Relaxed)
    }

    /// Nothing is under way, waits, or waits to be tried again.
    pub fn is_idle(&self) -> bool {
        self.pending.iter().all(|pending| pending.load(Relaxed) == 0)
    }

    /// What a person reads when the relay is to stop.
    pub fn stopping(&self) -> String {
        let calls = self.meter().in_flight.load(Relaxed);
        let plural = if calls == 1 { "" } else { "s" };
        match calls {
            0 => "stopping".to_owned(),
            _ => format!(
                "stopping: waiting up to {} s for {calls} call{plural} in flight; Ctrl-C again ends at once",
                STOP_GRACE.as_secs()
            ),
        }
    }

    /// Starts nothing more, brings home what is paid for, gives the claims back, and then the lock.
    pub async fn stop(self) {
        self.stop.cancel();
        let drained = async { tokio::join!(self.splitter.drain(), self.generator.drain(), self.loader.drain()) };
        // What is not saved by then is treated as after a crash.
        let _ = tokio::time::timeout(STOP_GRACE + STOP_SAVING, drained).await;
    }
}

struct Announce(UnboundedSender<News>);

#[async_trait]
impl Notice for Announce {
    async fn publish(&self, announcement: &Announcement) -> Result<(), String> {
        // Nobody listens any more when the process stops: what ended is in the store.
        let _ = self.0.send(News::Announced(Box::new(announcement.clone())));
        Ok(())
    }
}
