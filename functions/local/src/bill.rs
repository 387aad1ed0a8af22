//! What a run cost, as people and programs are told. Only sums up what the store has; what is not known is never told as 0.

use crate::show::{dollars, number};
use serde_json::{Value, json};
use tasuki_relay::clock::Millis;
use tasuki_relay::pipeline::{Pipeline, Place};
use tasuki_relay::prices::{self, Catalogue};
use tasuki_relay::record::{Bill, Counts};

/// How the cost is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// Nobody charges: the stand-in answered.
    StandIn,
    /// Each call has its price, of the day when the run began.
    Calls,
    /// A version without prices wrote the run: its tokens at list price, on the day when it began.
    ListPrice,
}

impl Basis {
    fn as_str(self) -> &'static str {
        match self {
            Basis::StandIn => "stand_in",
            Basis::Calls => "calls",
            Basis::ListPrice => "list_price",
        }
    }
}

/// What a run cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) basis: Basis,
    /// With the cost that the basis says.
    pub(crate) counts: Counts,
    /// Of a run that is not at its end.
    pub(crate) so_far: Option<SoFar>,
    /// The price of every model is known that may have been asked: what has none did not tell its tokens.
    pub(crate) all_priced: bool,
}

/// What the cost of a run that is not at its end has in it, and what it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SoFar {
    /// Of all that was paid: what is stored and not loaded yet.
    pub(crate) not_loaded: Bill,
    pub(crate) missing: Missing,
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Only what is nowhere yet: calls in flight, and replies since the last checkpoint.
    InFlight,
    /// That, and so many objects, which are more than were read.
    Unread(usize),
    /// All that is not loaded: this person may not read it.
    NotLoaded,
}

impl Missing {
    fn text(self) -> String {
        match self {
            Missing::InFlight => "without calls in flight".to_owned(),
            Missing::Unread(objects) => format!("without {} objects that were not read", number(objects as u64)),
            Missing::NotLoaded => "without what is not loaded yet".to_owned(),
        }
    }

    fn note(self) -> String {
        let flight = "calls in flight, and replies since their shard's last checkpoint";
        let missing = match self {
            Missing::InFlight => format!("{flight}, are not in this"),
            Missing::Unread(objects) => {
                format!("{flight}, and what is in {} further objects, are not in this", number(objects as u64))
            }
            Missing::NotLoaded => {
                "what is paid for and not loaded yet is not in this, for want of the right to read it".to_owned()
            }
        };
        format!("the run is not at its end: {missing}")
    }
}

impl Cost {
    /// Of the stand-in's answers.
    pub(crate) fn nothing(counts: Counts) -> Cost {
        let bill = |bill: Bill| Bill { cost: 0, ..bill };
        let (retries, salvage, waste) = (bill(counts.retries), bill(counts.salvage), bill(counts.waste));
        let counts = Counts { cost: 0, unpriced_calls: 0, ambiguous_calls: 0, retries, salvage, waste, ..counts };
        Cost { basis: Basis::StandIn, counts, so_far: None, all_priced: false }
    }

    /// As each call was priced.
    pub(crate) fn recorded(counts: Counts) -> Cost {
        Cost { basis: Basis::Calls, counts, so_far: None, all_priced: false }
    }

    /// Of a run that a version without prices wrote; `list` is its model's price then.
    pub(crate) fn at_list_price(counts: Counts, list: Option<prices::Price>) -> Cost {
        let counts = match list {
            Some(price) => Counts { cost: price.of(counts.usage), ..counts },
            None => Counts { unpriced_calls: counts.bill().calls, ..counts },
        };
        Cost { basis: Basis::ListPrice, counts, so_far: None, all_priced: false }
    }

    /// Of a run that is not at its end.
    pub(crate) fn so_far(self, so_far: Option<SoFar>) -> Cost {
        Cost { so_far: so_far.filter(|_| self.basis != Basis::StandIn), ..self }
    }

    /// With what is known of the models' prices.
    pub(crate) fn with_prices(self, all_priced: bool) -> Cost {
        Cost { all_priced, ..self }
    }

    /// Dollars; `None` when a part of it is not known.
    pub(crate) fn usd(&self) -> Option<f64> {
        self.known(self.counts.bill()).filter(|_| self.so_far.is_none())
    }

    /// Dollars of an answer that is in the store, or was until a newer run's took its place.
    pub(crate) fn usd_per_answer(&self) -> Option<f64> {
        let answers = self.counts.loaded + self.counts.superseded;
        self.usd().filter(|_| answers > 0).map(|usd| usd / answers as f64)
    }

    /// A class of calls and what it came to: `answers` first, then what was paid besides. None where nobody counted by class.
    pub(crate) fn classes(&self) -> Option<[(&'static str, Bill); 4]> {
        let Counts { retries, salvage, waste, .. } = self.counts;
        let answers = self.counts.answers();
        (self.basis != Basis::ListPrice).then_some([
            ("answers", answers),
            ("retries", retries),
            ("salvage", salvage),
            ("waste", waste),
        ])
    }

    fn known(&self, bill: Bill) -> Option<f64> {
        let known = bill.calls == 0 || self.counts.unpriced_calls == 0;
        known.then(|| prices::dollars(bill.cost))
    }

    /// `$0.42`, `at least $0.42`, `unknown`.
    pub(crate) fn sum(&self, bill: Bill) -> String {
        match self.known(bill) {
            Some(usd) => dollars(usd),
            None if bill.cost == 0 => "unknown".to_owned(),
            None => format!("at least {}", dollars(prices::dollars(bill.cost))),
        }
    }

    /// The sum of all, and in a few words what of it brought no answer of its own.
    pub(crate) fn in_short(&self) -> (String, String) {
        let classes = self.classes().map(|[_, rest @ ..]| rest).into_iter().flatten();
        let mut words: Vec<String> = classes
            .filter(|(_, bill)| bill.calls > 0)
            .map(|(name, bill)| format!("{name} {}", self.sum(bill)))
            .collect();
        match self.basis {
            Basis::Calls => (),
            Basis::StandIn => words = Vec::new(),
            Basis::ListPrice => words.push("at list price".to_owned()),
        }
        if self.counts.unpriced_calls > 0 {
            let what = if self.all_priced { "did not tell their tokens" } else { "have no known cost" };
            words.push(format!("{} {what}", calls(self.counts.unpriced_calls)));
        }
        let sum = self.sum(self.counts.bill());
        let so_far = self.so_far.map(|so_far| format!(" so far, {}", so_far.missing.text()));
        (sum + &so_far.unwrap_or_default(), words.join(", "))
    }

    /// There is more to tell than the sum.
    pub(crate) fn has_parts(&self) -> bool {
        self.basis != Basis::StandIn && !(self.in_short().1.is_empty() && self.notes().is_empty())
    }

    /// What else there is to know of the sum.
    pub(crate) fn notes(&self) -> Vec<(&'static str, String)> {
        let Counts { reused_answers, duplicate_prompts, ambiguous_calls, unpriced_calls, .. } = self.counts;
        // The store counts both together.
        let unpriced = match self.all_priced {
            true => "paid calls did not tell their tokens: they may have been charged, and there is nothing to mend",
            false => {
                "paid calls have no known cost: the price is unknown (write [model.price] into the pipeline), or the reply did \
                 not tell its tokens (it may have been charged)"
            }
        };
        let all = [
            ("reused", reused_answers, "answers came from the cache and cost nothing"),
            ("duplicates", duplicate_prompts, "answers were paid for twice: another process asked the same meanwhile"),
            ("ambiguous", ambiguous_calls, "calls may have been charged: at most so many calls beyond this"),
            ("unpriced", unpriced_calls, unpriced),
        ];
        let told = all.into_iter().filter(|(_, count, _)| *count > 0);
        let told = told.map(|(name, count, what)| (name, format!("{} {what}", number(count))));
        self.so_far.iter().flat_map(|so_far| self.notes_so_far(so_far)).chain(told).collect()
    }

    fn notes_so_far(&self, SoFar { not_loaded, missing }: &SoFar) -> impl Iterator<Item = (&'static str, String)> {
        let of = format!("{} of it, {}, not loaded yet", self.sum(*not_loaded), calls(not_loaded.calls));
        let not_loaded = (not_loaded.calls > 0).then_some(("not loaded", of));
        [("so far", missing.note())].into_iter().chain(not_loaded)
    }

    /// `{answers: {calls, …}, retries, salvage, waste}`; null where nobody counted by class.
    pub(crate) fn json(&self) -> Value {
        let Some(classes) = self.classes() else { return Value::Null };
        classes.into_iter().map(|(name, bill)| (name.to_owned(), self.class_json(bill))).collect()
    }

    /// One class, or the total.
    pub(crate) fn class_json(&self, bill: Bill) -> Value {
        json!({
            "calls": bill.calls, "prompt_tokens": bill.usage.prompt, "cached_tokens": bill.usage.cached,
            "output_tokens": bill.usage.output, "thought_tokens": bill.usage.thought, "cost_usd": self.known(bill),
        })
    }

    /// Of the total what is not loaded yet; null where nothing can be.
    pub(crate) fn not_loaded_json(&self) -> Value {
        self.so_far.map_or(Value::Null, |so_far| self.class_json(so_far.not_loaded))
    }

    /// `calls`, `list_price`, `stand_in`.
    pub(crate) fn basis_json(&self) -> Value {
        self.basis.as_str().into()
    }
}

fn calls(count: u64) -> String {
    format!("{} call{}", number(count), if count == 1 { "" } else { "s" })
}

/// What a model of the pipeline costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    /// `model` or `model@location`.
    pub(crate) place: String,
    /// `standard`.
    pub(crate) tier: String,
    /// `pipeline` where its `[model.price]` says it, else `list`.
    pub(crate) basis: &'static str,
    pub(crate) price: Option<prices::Price>,
}

impl Price {
    /// Of the pipeline's model and those that it falls back to, on a day.
    pub(crate) fn all(pipeline: &Pipeline, day: Millis) -> Vec<Price> {
        let catalogue = Catalogue::shipped();
        let fallbacks = pipeline.model.fallback.iter().map(|place| catalogue.fallback(&pipeline.model, place));
        let models = std::iter::once(pipeline.model.clone()).chain(fallbacks);
        let told = models.map(|model| Price {
            tier: format!("{:?}", model.tier).to_lowercase(),
            basis: if model.price.is_some() { "pipeline" } else { "list" },
            price: catalogue.price_of(&model, day),
            place: Place { model: model.name, location: model.location }.to_string(),
        });
        told.collect()
    }

    /// `gemini-3.5-flash-lite, standard: $0.30 in, $0.03 cached, $2.50 out for a million tokens, list price`.
    pub(crate) fn text(&self) -> String {
        let Price { place, tier, basis, price } = self;
        let Some(price) = price else { return format!("{place}, {tier}: unknown, it is not in prices.toml") };
        let [input, cached, output, thought] = per_million(price).map(dollars);
        let thought = if price.thought == price.output { String::new() } else { format!(", {thought} thought") };
        let basis = if *basis == "list" { "list price" } else { "[model.price] of the pipeline" };
        format!("{place}, {tier}: {input} in, {cached} cached, {output} out{thought} for a million tokens, {basis}")
    }

    pub(crate) fn json(&self) -> Value {
        let per_million = self.price.as_ref().map(per_million);
        json!({
            "model": self.place, "tier": self.tier, "basis": self.price.map(|_| self.basis),
            "input": per_million.map(|price| price[0]), "cached": per_million.map(|price| price[1]),
            "output": per_million.map(|price| price[2]), "thought": per_million.map(|price| price[3]),
        })
    }
}

/// Dollars for a million tokens: in, cached, out, thoughts.
fn per_million(price: &prices::Price) -> [f64; 4] {
    let tokens = [price.input, price.cached, price.output, price.thought];
    tokens.map(|token| prices::dollars(token.saturating_mul(1_000_000)))
}

#[cfg(test)]
mod tests;
