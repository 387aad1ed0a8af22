//! Where a run asks: its own model first, and the fallbacks of its pipeline while that one is gone or busy for long.

use crate::breaker::Breaker;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::budget;
use tasuki_relay::clock::{Clock, Millis};
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
    /// Open while the next one is asked instead.
    breaker: Breaker,
    /// Since when it has turned calls away without an answer.
    turning_away: Mutex<Option<Instant>>,
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
    fn new(rank: usize, pipeline: &Arc<Pipeline>, fallback: Option<Place>, clock: &Clock, now: Millis) -> Route {
        let catalogue = Catalogue::shipped();
        let mut pipeline = pipeline.clone();
        if let Some(place) = &fallback {
            let model = &mut Arc::make_mut(&mut pipeline).model;
            *model = catalogue.fallback(model, place);
        }
        let price = |tier| pipeline.model.price.or_else(|| catalogue.price(&pipeline.model.name, tier, now));
        let prices = [Tier::Standard, Tier::Flex, Tier::Priority].map(price);
        let (breaker, turning_away) = (Breaker::new(clock.clone()), Mutex::default());
        Route { rank, fallback, pipeline, prices, breaker, turning_away }
    }

    /// What a reply of this place cost, in picodollars; `None` when nobody knows.
    pub fn cost(&self, reply: &Reply) -> Option<u64> {
        if reply.model == StandIn::MODEL {
            return Some(0);
        }
        // A call of the priority tier may be served as a standard one.
        let tier = reply.tier.unwrap_or(self.pipeline.model.tier);
        self.prices[tier as usize].map(|price| price.of(reply.usage))
    }

    /// What a call cost that came back with this; `None` when nobody knows: it may have been charged, or does not tell its tokens.
    pub fn known_cost(&self, said: &Result<Reply, Fault>) -> Option<u64> {
        match said {
            Ok(reply) if reply.usage == Usage::default() && reply.model != StandIn::MODEL => None,
            Ok(reply) => self.cost(reply),
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

    /// Sends the question here.
    pub fn readdress(&self, ask: &mut Ask) {
        let (here, there) = (&self.pipeline.model, &ask.pipeline.model);
        if here.name != there.name || here.location != there.location {
            let thinking = there.thinking.min(here.thinking);
            let model = &mut Arc::make_mut(&mut ask.pipeline).model;
            *model = here.clone();
            model.thinking = thinking;
        }
    }
}

impl Routes {
    /// Of a pipeline; prices are those of `now`.
    pub fn new(pipeline: &Arc<Pipeline>, clock: &Clock, now: Millis) -> Routes {
        let places = std::iter::once(None).chain(pipeline.model.fallback.iter().cloned().map(Some));
        let all = places.enumerate().map(|(rank, place)| Route::new(rank, pipeline, place, clock, now)).collect();
        Routes { clock: clock.clone(), all, moved: Notify::new() }
    }

    /// Where the next call goes: the first place that is not known to be gone, or may be tried again.
    pub fn pick(&self) -> &Route {
        let (last, others) = self.all.split_last().expect("a run has a model");
        others.iter().find(|route| route.breaker.admit().is_ok()).unwrap_or(last)
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
        let Some(next) = self.all.get(route.rank + 1) else { return false };
        if !route.breaker.is_open() {
            let (model, place) = (&route.pipeline.model.name, &next.fallback);
            let next = place.as_ref().map(Place::to_string).unwrap_or_default();
            tracing::warn!("{model} is not asked for now ({what}): {next} is");
        }
        route.breaker.trip_quietly(what.to_owned());
        self.moved.notify_waiters();
        true
    }

    /// What came of a call to this route.
    pub fn note(&self, route: &Route, said: &Result<Reply, Fault>) {
        let mut turning_away = route.turning_away.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Ok(_) => {
                *turning_away = None;
                if route.breaker.is_open() {
                    route.breaker.close();
                    self.moved.notify_waiters();
                }
            }
            Err(Fault::Busy { .. } | Fault::Unavailable(_)) => {
                let now = self.clock.instant();
                let since = *turning_away.get_or_insert(now);
                if now.duration_since(since) >= BUSY_LONG {
                    self.gone(route, "it has turned every call away for long");
                }
            }
            Err(_) => (),
        }
    }
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
        Routes::new(&pipeline, &Clock::system(), NOW)
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
        assert!(!routes.gone(&routes.all[2], "404"), "after the last there is none");
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

    #[test]
    fn each_place_has_its_price_its_name_and_the_least_thinking_that_it_can() {
        let routes = routes();
        let usage = tasuki_relay::record::Usage { prompt: 1_000_000, ..Default::default() };
        let reply = Reply { usage, ..reply("m-001") };
        assert_eq!(routes.all[0].cost(&reply), Some(300_000_000_000));
        assert_eq!(routes.all[1].cost(&reply), None, "unknown is not 0");
        assert_eq!(routes.all[1].cost(&Reply { model: StandIn::MODEL.into(), ..reply.clone() }), Some(0));
        let names: Vec<String> = routes.all.iter().map(|route| route.answerer(&reply)).collect();
        assert_eq!(names, ["m-001", "m-001@eu", "m-001"]);
        let thinking: Vec<_> = routes.all.iter().map(|route| route.pipeline.model.thinking).collect();
        assert_eq!(thinking, [Some(Thinking::Minimal), Some(Thinking::Low), Some(Thinking::Minimal)]);
    }
}
