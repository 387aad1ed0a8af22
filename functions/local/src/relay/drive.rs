//! The stand-in for Eventarc: delivers the events of one leg, many at once, and again when the leg says "later".

use super::News;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tasuki_relay::leg::Leg;
use tasuki_relay::names::RunId;
use tasuki_relay::ports::{Event, Generation, Verdict, Why};
use tasuki_relay::sweep::{Due, REDRIVES_MAX, Sweep};
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

/// Delivers the events of one leg.
pub(super) struct Drive {
    pub(super) leg: Arc<dyn Leg>,
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
        let Due { events, failed } = self.leg.due(sweep, self.only.as_ref()).await;
        events.iter().for_each(|event| self.leg.drove(event)); // the queue delivers them until they are done
        if let Some(why) = &failed {
            self.report(why);
        }
        let more = events.len() >= REDRIVES_MAX || failed.is_some();
        (events, more)
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
                let trouble = self.leg.trouble();
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
