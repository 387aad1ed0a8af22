//! Where a run asks: its own model first, and the fallbacks of its pipeline while that one is gone or busy for long.

use crate::breaker::{Breaker, Breakers};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::budget;
use tasuki_relay::calls::call_limit;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::pace::HOLD_MAX;
use tasuki_relay::pipeline::{Pipeline, Place};
use tasuki_relay::ports::{Ask, Fault, Reply};
use tasuki_relay::prices::{Catalogue, Price, Tier};
use tasuki_relay::record::Usage;
use tasuki_relay::stand_in::StandIn;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// A model that gave no answer for so long, and turned calls away all the while, is busy for long. Longer than a minute's quota
/// takes to come back in part, and shorter than a person waits.
const BUSY_LONG: Duration = Duration::from_secs(30);

/// A place that is asked.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its place among the routes of its run, from 0.
    pub rank: usize,
    /// What its model is; `None` for the pipeline's own.
    fallback: Option<Place>,
    /// The pipeline with this model in place of its own.
    pub pipeline: Arc<Pipeline>,
    /// By tier.
    prices: [Option<Price>; 3],
    /// The machine's, which all runs share that ask here.
    pub machine: Arc<Breaker>,
    /// Open while the next one is asked instead.
    breaker: Breaker,
    left: Mutex<Left>,
    has_answered: AtomicBool,
    turning_away: Mutex<Option<TurningAway>>,
}

/// A time in which a model answers nothing and turns calls away.
#[derive(Clone, Copy, Debug)]
struct TurningAway {
    since: Instant,
    /// When it did last.
    last: Instant,
    /// No call is sent before: the model said so.
    until: Instant,
}

/// Why another place is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Left {
    /// It turned calls away: it may be waited for.
    #[default]
    Busy,
    /// It takes no calls.
    Gone,
}

/// The routes of a run, at least one.
#[derive(Debug)]
pub(crate) struct Routes {
    clock: Clock,
    all: Vec<Route>,
    /// Another one is to be asked.
    moved: Notify,
}

impl Route {
    fn new(rank: usize, pipeline: &Arc<Pipeline>, fallback: Option<Place>, machine: &Breakers, now: Millis) -> Route {
        let catalogue = Catalogue::shipped();
        let mut pipeline = pipeline.clone();
        if let Some(place) = &fallback {
            let model = &mut Arc::make_mut(&mut pipeline).model;
            *model = catalogue.fallback(model, place);
        }
        let price = |tier| pipeline.model.price.or_else(|| catalogue.price(&pipeline.model.name, tier, now));
        let prices = [Tier::Standard, Tier::Flex, Tier::Priority].map(price);
        Route {
            rank,
            fallback,
            machine: machine.of(&pipeline.model),
            breaker: machine.another(),
            pipeline,
            prices,
            left: Mutex::default(),
            has_answered: AtomicBool::new(false),
            turning_away: Mutex::default(),
        }
    }

    /// What a call cost that came back with this, in picodollars; `None` when nobody knows: it may have been charged, does not tell its
    /// tokens, or has no known price.
    pub fn cost(&self, said: &Result<Reply, Fault>) -> Option<u64> {
        match said {
            Ok(reply) if reply.model == StandIn::MODEL => Some(0),
            Ok(reply) if reply.usage == Usage::default() => None,
            Ok(reply) => {
                // A call of the priority tier may be served as a standard one.
                let tier = reply.tier.unwrap_or(self.pipeline.model.tier);
                self.prices[tier as usize].map(|price| price.of(reply.usage))
            }
            Err(Fault::Ambiguous(_) | Fault::Garbled(_)) => None,
            Err(Fault::Busy { .. } | Fault::Unavailable(_) | Fault::Invalid(_) | Fault::Systemic(_)) => Some(0),
        }
    }

    /// Who gave this reply, as the target table has it: `gemini-3.5-flash-lite-001`, of a fallback with its place.
    pub fn answerer(&self, reply: &Reply) -> String {
        match self.fallback.as_ref().and_then(|place| place.location.as_deref()) {
            Some(location) => format!("{}@{location}", reply.model),
            None => reply.model.clone(),
        }
    }

    /// Sends the question here. What was lowered of its thinking stays so, as far as this model can.
    pub fn readdress(&self, ask: &mut Ask) {
        let (here, there) = (&self.pipeline.model, &ask.pipeline.model);
        if here.name != there.name || here.location != there.location {
            let least = Catalogue::shipped().least_thinking(&here.name);
            let thinking = there.thinking.min(here.thinking).max(here.thinking.and(least));
            let model = &mut Arc::make_mut(&mut ask.pipeline).model;
            *model = here.clone();
            model.thinking = thinking;
        }
    }

    fn leave(&self, why: Left, what: &str) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = why;
        self.breaker.trip_quietly(what.to_owned());
    }

    fn is_gone(&self) -> bool {
        self.breaker.is_open() && *self.left.lock().unwrap_or_else(PoisonError::into_inner) == Left::Gone
    }

    /// It has answered, this process knows.
    pub fn has_answered(&self) -> bool {
        self.has_answered.load(Relaxed)
    }
}

impl Routes {
    /// Of a pipeline; prices are those of `now`.
    pub fn new(pipeline: &Arc<Pipeline>, machine: &Breakers, clock: &Clock, now: Millis) -> Routes {
        let places = std::iter::once(None).chain(pipeline.model.fallback.iter().cloned().map(Some));
        let all = places.enumerate().map(|(rank, place)| Route::new(rank, pipeline, place, machine, now)).collect();
        Routes { clock: clock.clone(), all, moved: Notify::new() }
    }

    /// Where the next call goes: the first place that is not left, or may be tried again; where all are left, the first that is only
    /// busy, whose gate knows when.
    pub fn pick(&self) -> &Route {
        let admits = |route: &&Route| self.all.len() == 1 || route.breaker.admit().is_ok();
        let open = self.all.iter().find(admits);
        open.or_else(|| self.all.iter().find(|route| !route.is_gone())).unwrap_or(&self.all[0])
    }

    /// What stopped the machine for every place of the run.
    pub fn stopped(&self) -> Option<String> {
        let stopped = self.all.iter().map(|route| route.machine.stopped());
        stopped.collect::<Option<Vec<String>>>()?.into_iter().next()
    }

    /// What a call may cost at most, wherever it goes and whatever tier serves it, in picodollars. `None` when nobody knows.
    pub fn worst_case(&self, ask: &Ask) -> Option<u64> {
        let usage = budget::worst_case(ask)?;
        let worst = self.all.iter().map(|route| {
            let asked = route.prices[route.pipeline.model.tier as usize]?.of(usage);
            Some(route.prices[Tier::Standard as usize].map_or(asked, |price| price.of(usage).max(asked)))
        });
        worst.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// Ends when [`Routes::pick`] may choose otherwise than before this call.
    pub fn moves(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// The model of this route is gone, or does not take calls of this project. False when there is no other to ask.
    pub fn gone(&self, route: &Route, what: &str) -> bool {
        self.leave(route, Left::Gone, what)
    }

    fn leave(&self, route: &Route, why: Left, what: &str) -> bool {
        let mut others = self.all.iter().filter(|other| other.rank != route.rank && !other.is_gone());
        let Some(other) = others.next() else { return false };
        if !route.breaker.is_open() {
            let (model, other) = (&route.pipeline.model.name, &other.pipeline.model.name);
            tracing::warn!("{model} is not asked for now ({what}): {other} is");
        }
        route.leave(why, what);
        self.moved.notify_waiters();
        true
    }

    /// What came of a call to this route.
    pub fn note(&self, route: &Route, said: &Result<Reply, Fault>) {
        let mut turning_away = route.turning_away.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, long) = (self.clock.instant(), busy_long(route.pipeline.model.tier));
        match said {
            Ok(_) => {
                route.has_answered.store(true, Relaxed);
                // What was sent before the model said so may still be answered.
                if turning_away.is_some_and(|away| away.until > now && away.is_long(long)) {
                    return;
                }
                *turning_away = None;
                if route.breaker.is_open() {
                    route.breaker.close();
                    self.moved.notify_waiters();
                }
            }
            Err(Fault::Busy { .. } | Fault::Unavailable(_)) => {
                let hold = match said {
                    Err(Fault::Busy { retry_after: Some(told) }) => *told,
                    _ => Duration::ZERO,
                };
                // After a pause that is ours it is another time.
                let before = turning_away.filter(|away| now.duration_since(away.last.max(away.until)) < 2 * long);
                let mut away = before.unwrap_or(TurningAway { since: now, last: now, until: now });
                (away.last, away.until) = (now, away.until.max(now + hold.min(HOLD_MAX)));
                *turning_away = Some(away);
                if away.is_long(long) {
                    self.leave(route, Left::Busy, "it turns every call away for long");
                }
            }
            Err(_) => (),
        }
    }
}

impl TurningAway {
    /// As far as it is known now.
    fn is_long(&self, long: Duration) -> bool {
        self.last.max(self.until).duration_since(self.since) >= long
    }
}

/// See [`BUSY_LONG`]; where answers take longer, in proportion.
fn busy_long(tier: Tier) -> Duration {
    let times = call_limit(tier).as_secs() / call_limit(Tier::Standard).as_secs();
    BUSY_LONG * u32::try_from(times).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tasuki_relay::pipeline::Thinking;

    const TEXT: &str = "name = 'p'\nkey = 'id'\n[prompt]\ntemplate = '{{ t }}'\n[answer.a]\ntype = 'string'\n\
        [model]\nfallback = ['gemini-3.7-flash@eu', 'other']\n[target]\ntable = 't'\n";

    /// 2026-11-20.
    const NOW: Millis = Millis(1_795_176_000_000);

    fn routes() -> Routes {
        let pipeline = Arc::new(Pipeline::parse(TEXT).unwrap());
        Routes::new(&pipeline, &Breakers::new(Clock::system()), &Clock::system(), NOW)
    }

    fn reply(model: &str) -> Reply {
        Reply { model: model.into(), ..Reply::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_place_is_asked_until_the_first_answers_again() {
        let routes = routes();
        assert_eq!(routes.pick().rank, 0);
        let moves = routes.moves();
        assert!(routes.gone(&routes.all[0], "404"));
        assert!(moves.now_or_never().is_some(), "who waits for the first goes on to the next");
        assert_eq!(routes.pick().rank, 1);
        tokio::time::advance(crate::COOLDOWN).await;
        assert_eq!([routes.pick().rank, routes.pick().rank], [0, 1], "one call tries the first again");
        routes.note(&routes.all[0], &Ok(reply("m")));
        assert_eq!(routes.pick().rank, 0);
        assert!(routes.gone(&routes.all[2], "404") && routes.gone(&routes.all[1], "404"));
        assert!(!routes.gone(&routes.all[0], "404"), "when all are gone there is none to ask");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fallback_that_is_gone_leaves_the_busy_one_to_its_pace() {
        let routes = routes();
        routes.leave(&routes.all[0], Left::Busy, "busy");
        assert!(routes.gone(&routes.all[1], "403") && routes.gone(&routes.all[2], "404"));
        assert_eq!(routes.pick().rank, 0);
    }

    #[test]
    fn a_fallback_is_asked_to_think_no_less_than_it_can() {
        let routes = routes();
        let pipeline = routes.all[0].pipeline.clone();
        let mut ask = Ask { pipeline, prompt: String::new(), row: Arc::default(), max_output_tokens: None };
        routes.all[1].readdress(&mut ask);
        assert_eq!(
            (ask.pipeline.model.name.as_str(), ask.pipeline.model.thinking),
            ("gemini-3.7-flash", Some(Thinking::Low))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_only_turns_away_is_left_after_a_while_and_one_answer_counts() {
        let routes = routes();
        let busy = || routes.note(&routes.all[0], &Err(Fault::Busy { retry_after: None }));
        busy();
        tokio::time::advance(BUSY_LONG / 2).await;
        routes.note(&routes.all[0], &Ok(reply("m")));
        busy();
        tokio::time::advance(BUSY_LONG / 2).await;
        busy();
        assert_eq!(routes.pick().rank, 0);
        tokio::time::advance(BUSY_LONG).await;
        busy();
        assert_eq!(routes.pick().rank, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_says_that_it_will_turn_away_for_long_is_left_at_once_and_until_then() {
        let (routes, minute) = (routes(), Duration::from_secs(65));
        let held = |hold| routes.note(&routes.all[0], &Err(Fault::Busy { retry_after: Some(hold) }));
        held(BUSY_LONG / 2);
        assert_eq!(routes.pick().rank, 0, "a pause of seconds is waited for");
        held(minute);
        assert_eq!(routes.pick().rank, 1);
        routes.note(&routes.all[0], &Ok(reply("m")));
        assert_eq!(routes.pick().rank, 1, "an answer to what was asked before ends no pause");
        tokio::time::advance(minute).await;
        assert_eq!([routes.pick().rank, routes.pick().rank], [0, 1], "one call tries the first again");
        routes.note(&routes.all[0], &Ok(reply("m")));
        assert_eq!(routes.pick().rank, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_that_the_model_names_belong_to_the_time_in_which_it_turns_away() {
        let routes = routes();
        let held = || routes.note(&routes.all[0], &Err(Fault::Busy { retry_after: Some(BUSY_LONG * 2 / 3) }));
        held();
        tokio::time::advance(BUSY_LONG * 2 / 3).await;
        assert_eq!(routes.pick().rank, 0);
        held();
        assert_eq!(routes.pick().rank, 1);
    }

    #[test]
    fn each_place_has_its_price_its_name_and_the_least_thinking_that_it_can() {
        let routes = routes();
        let usage = tasuki_relay::record::Usage { prompt: 1_000_000, ..Default::default() };
        let reply = Reply { usage, ..reply("m-001") };
        assert_eq!(routes.all[0].cost(&Ok(reply.clone())), Some(300_000_000_000));
        assert_eq!(routes.all[1].cost(&Ok(reply.clone())), None, "unknown is not 0");
        assert_eq!(routes.all[1].cost(&Ok(Reply { model: StandIn::MODEL.into(), ..reply.clone() })), Some(0));
        let names: Vec<String> = routes.all.iter().map(|route| route.answerer(&reply)).collect();
        assert_eq!(names, ["m-001", "m-001@eu", "m-001"]);
        let thinking: Vec<_> = routes.all.iter().map(|route| route.pipeline.model.thinking).collect();
        assert_eq!(thinking, [Some(Thinking::Minimal), Some(Thinking::Low), Some(Thinking::Minimal)]);
    }
}
