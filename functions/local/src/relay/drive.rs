//! The stand-in for Eventarc: delivers the events of one leg, many at once, and again when the leg says "later".

use super::News;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tasuki_generator::Generator;
use tasuki_loader::Loader;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Event, Generation, Objects, Verdict, Why};
use tasuki_relay::sweep::{REDRIVES_MAX, Sweep};
use tasuki_splitter::Splitter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Pauses before an event is delivered again: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The pause when a leg only had no room.
const AGAIN_WHEN_FULL: Duration = Duration::from_millis(100);
/// How often the rest of a long backlog is asked for once the queue is empty.
const REFILL_EVERY: Duration = Duration::from_millis(500);

/// One leg of the relay.
#[derive(Clone)]
pub(super) enum Leg {
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
pub(super) struct Drive {
    pub(super) leg: Leg,
    pub(super) at_once: usize,
    pub(super) only: Option<RunId>,
    pub(super) stop: CancellationToken,
    pub(super) tell: UnboundedSender<News>,
    /// Events that are not done.
    pub(super) pending: Arc<AtomicUsize>,
}

struct Delivery {
    event: Event,
    pause: Duration,
}

impl Drive {
    /// Runs until it is stopped.
    pub(super) async fn run(self, mut events: UnboundedReceiver<Event>) {
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
                let trouble = match &self.leg {
                    Leg::Generator(generator) => generator.meter().trouble(),
                    Leg::Splitter(..) | Leg::Loader(_) => None,
                };
                let trouble = trouble.map(|why| format!(" ({why})")).unwrap_or_default();
                News::Waiting(format!(
                    "the model keeps failing, or cannot be reached{trouble}: its rows are asked again"
                ))
            }
            Why::LiveClaim | Why::Full | Why::Stopping | Why::LostClaim => return,
        };
        let _ = self.tell.send(news);
    }
}
