//! The embedded relay: splitter, generator and loader over one folder, and the stand-in for Eventarc that drives them.
//!
//! Each leg has a queue. An event is delivered on its own task, so many at once as the leg admits, and again after a pause
//! when the leg says "later". What an earlier process left is found by the legs' sweeps.

use crate::home::{Home, Lock};
use anyhow::{Context, Result};
use async_trait::async_trait;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tasuki_generator::{Generator, Meter};
use tasuki_loader::Loader;
use tasuki_relay::claims::Timing;
use tasuki_relay::clock::Chance;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Ended, Event, Generation, Model, Notice, Objects, Verdict, Why};
use tasuki_relay::rows::ObjectRows;
use tasuki_relay::sweep::{REDRIVES_MAX, Sweep};
use tasuki_splitter::Splitter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
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
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Pauses before an event is delivered again: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The pause when a leg only had no room.
const AGAIN_WHEN_FULL: Duration = Duration::from_millis(100);
/// How often the rest of a long backlog is asked for once the queue is empty.
const REFILL_EVERY: Duration = Duration::from_millis(500);

/// What a relay reports.
#[derive(Clone, Debug)]
pub enum News {
    /// A run reached its end state.
    Ended(Box<Ended>),
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
        let settings =
            tasuki_splitter::Settings { timing, splits_admitted: SPLITS, ..tasuki_splitter::Settings::default() };
        let splitter = Splitter::new(objects.clone(), rows, store.clone(), clock.clone(), chance.clone(), settings);
        let rows_per_shard = plan.rows_per_shard.map_or(ROWS_PER_SHARD, |rows| rows as usize);
        let shards_admitted = (2 * plan.max_in_flight / rows_per_shard + 8).min(SHARDS_MAX);
        let settings = tasuki_generator::Settings {
            max_in_flight: plan.max_in_flight,
            shards_admitted,
            timing,
            control_every: CONTROL_EVERY,
            ..tasuki_generator::Settings::default()
        };
        let generator = Generator::new(objects.clone(), model, clock.clone(), chance, settings);
        let (tell, news) = unbounded_channel();
        let loader = Loader::new(objects.clone(), store, Arc::new(Announce(tell.clone())), clock, PARTS);

        let legs = [
            (Leg::Splitter(splitter.clone(), objects.clone()), SPLITS),
            (Leg::Generator(generator.clone()), shards_admitted),
            (Leg::Loader(loader.clone()), PARTS),
        ];
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

    /// Starts nothing more, brings home what is paid for, gives the claims back, and then the lock.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::join!(self.splitter.drain(), self.generator.drain(), self.loader.drain());
    }
}

struct Announce(UnboundedSender<News>);

#[async_trait]
impl Notice for Announce {
    async fn publish(&self, ended: &Ended) -> Result<(), String> {
        // Nobody listens any more when the process stops: what ended is in the store.
        let _ = self.0.send(News::Ended(Box::new(ended.clone())));
        Ok(())
    }
}

#[derive(Clone)]
enum Leg {
    Splitter(Arc<Splitter>, Arc<dyn Objects>),
    Generator(Arc<Generator>),
    Loader(Arc<Loader>),
}

impl Leg {
    async fn handle(&self, event: &Event) -> Verdict {
        match self {
            Leg::Splitter(splitter, _) => splitter.handle(event).await,
            Leg::Generator(generator) => generator.handle(event).await,
            Leg::Loader(loader) => loader.handle(event).await,
        }
    }

    async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Result<Vec<Event>, Why> {
        match self {
            Leg::Splitter(splitter, objects) => {
                let mut due = splitter.due(sweep, only).await?;
                if only.is_none() {
                    // A file that nobody has opened may still be growing: who watches the inbox says when it is whole.
                    let mut opened = Vec::new();
                    for event in due {
                        let open = names::open(&splitter.run_of(&event.name, event.generation));
                        if objects.stat(Bucket::State, &open).await?.is_some() {
                            opened.push(event);
                        }
                    }
                    due = opened;
                }
                Ok(due)
            }
            Leg::Generator(generator) => Ok(generator.due(sweep, only).await?),
            Leg::Loader(loader) => loader.due(sweep, only).await,
        }
    }
}

/// Delivers the events of one leg.
struct Drive {
    leg: Leg,
    at_once: usize,
    only: Option<RunId>,
    stop: CancellationToken,
    tell: UnboundedSender<News>,
    /// Events that are not done.
    pending: Arc<AtomicUsize>,
}

struct Delivery {
    event: Event,
    pause: Duration,
}

impl Drive {
    async fn run(self, mut events: UnboundedReceiver<Event>) {
        let mut queue: VecDeque<Delivery> = VecDeque::new();
        let mut known: BTreeSet<(String, Generation)> = BTreeSet::new();
        let (mut at_work, mut later) = (JoinSet::new(), JoinSet::new());
        let ticks = |every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut sweeps, mut refills) = (ticks(SWEEP_EVERY), ticks(REFILL_EVERY));
        let (mut sweep, mut backlog) = (Sweep::Now, false);
        loop {
            self.pending.store(known.len(), Relaxed);
            while at_work.len() < self.at_once
                && let Some(delivery) = queue.pop_front()
            {
                let leg = self.leg.clone();
                at_work.spawn(async move { (leg.handle(&delivery.event).await, delivery) });
            }
            let found = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(done) = at_work.join_next() => {
                    match done {
                        Ok((Verdict::Later(why), delivery)) => self.again(why, delivery, &mut later),
                        Ok((Verdict::Done | Verdict::NotOurs, Delivery { event, .. })) => {
                            known.remove(&(event.name, event.generation));
                        }
                        Err(_) => backlog = true, // its task was cut: the sweep finds it again
                    }
                    continue;
                }
                Some(Ok(delivery)) = later.join_next() => {
                    queue.push_back(delivery);
                    continue;
                }
                Some(event) = events.recv() => vec![event],
                _ = sweeps.tick() => {
                    let (found, more) = self.due(std::mem::replace(&mut sweep, Sweep::ByAge)).await;
                    backlog |= more;
                    found
                }
                _ = refills.tick(), if backlog && queue.is_empty() => {
                    let (found, more) = self.due(Sweep::Now).await;
                    backlog = more;
                    found
                }
            };
            let new = found.into_iter().filter(|event| known.insert((event.name.clone(), event.generation)));
            queue.extend(new.map(|event| Delivery { event, pause: AGAIN.0 }));
        }
    }

    /// What is due, and whether there may be more.
    async fn due(&self, sweep: Sweep) -> (Vec<Event>, bool) {
        match self.leg.due(sweep, self.only.as_ref()).await {
            Ok(due) => {
                let more = due.len() >= REDRIVES_MAX;
                (due, more)
            }
            Err(why) => {
                self.report(&why);
                (Vec::new(), true)
            }
        }
    }

    fn again(&self, why: Why, delivery: Delivery, later: &mut JoinSet<Delivery>) {
        self.report(&why);
        let pause = if why == Why::Full { AGAIN_WHEN_FULL } else { delivery.pause };
        let next = if why == Why::Full { delivery.pause } else { (2 * pause).min(AGAIN.1) };
        later.spawn(async move {
            sleep(pause).await;
            Delivery { event: delivery.event, pause: next }
        });
    }

    fn report(&self, why: &Why) {
        let news = match why {
            Why::Systemic(what) => News::Stopped(what.clone()),
            Why::Unconfirmed(what) => News::Waiting(what.clone()),
            Why::Spent => {
                News::Waiting("the model keeps failing, or cannot be reached: its rows are asked again".to_owned())
            }
            Why::LiveClaim | Why::Full | Why::Stopping | Why::LostClaim => return,
        };
        let _ = self.tell.send(news);
    }
}
