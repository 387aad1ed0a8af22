//! What models cost, how they think and until when they answer: `prices.toml` at the root, read once.

use crate::budget::Worst;
use crate::clock::Millis;
use crate::pipeline::{Field, ModelSettings, Pipeline, Place, Problems, Provider, Thinking};
use crate::record::Usage;
use serde::Deserialize;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// A model that retires within so long is warned of: a data team's next run may be in a month.
const WARN_DAYS: u64 = 60;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Picodollars a token in a dollar a million tokens.
const PICO_PER_UNIT: f64 = 1e6;
/// Picodollars in a dollar.
const PICO: f64 = 1e12;

/// From dollars. What is too much for 64 bits (18 million dollars) is the most that they hold.
pub fn picodollars(dollars: f64) -> u64 {
    (dollars * PICO).round() as u64
}

/// From picodollars.
pub fn dollars(picodollars: u64) -> f64 {
    picodollars as f64 / PICO
}

/// How a call is served, and priced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// As always.
    #[default]
    Standard,
    /// For half the price, when there is room.
    Flex,
    /// Before others, for more.
    Priority,
}

impl Tier {
    /// As pipelines and services write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Standard => "standard",
            Tier::Flex => "flex",
            Tier::Priority => "priority",
        }
    }

    /// The inverse of [`Tier::as_str`].
    pub fn parse(text: &str) -> Option<Tier> {
        [Tier::Standard, Tier::Flex, Tier::Priority].into_iter().find(|tier| tier.as_str() == text)
    }
}

/// The price of a token, in picodollars (10⁻¹² $): $0.30 a million are 300,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt, but for what was cached.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of thoughts.
    pub thought: u64,
    /// Of what was cached of the prompt.
    pub cached: u64,
}

impl Price {
    /// From dollars for a million tokens. Without prices of their own thoughts cost as output, and what is cached as the rest.
    pub fn per_million(input: f64, output: f64, thought: Option<f64>, cached: Option<f64>) -> Price {
        let pico = |dollars: f64| (dollars * PICO_PER_UNIT).round() as u64;
        let (thought, cached) = (thought.unwrap_or(output), cached.unwrap_or(input));
        Price { input: pico(input), output: pico(output), thought: pico(thought), cached: pico(cached) }
    }

    /// What these tokens cost, in picodollars.
    pub fn of(&self, tokens: impl Tokens) -> u64 {
        let parts = tokens.priced(self);
        parts.iter().fold(0, |sum: u64, (tokens, price)| sum.saturating_add(tokens.saturating_mul(*price)))
    }
}

/// Tokens that cost: those that a call took, or may take at most.
pub trait Tokens {
    /// How many of each kind, and the price of one.
    fn priced(&self, price: &Price) -> [(u64, u64); 4];
}

/// `prompt` includes `cached`.
impl Tokens for Usage {
    fn priced(&self, price: &Price) -> [(u64, u64); 4] {
        let fresh = self.prompt.saturating_sub(self.cached);
        [(fresh, price.input), (self.cached, price.cached), (self.output, price.output), (self.thought, price.thought)]
    }
}

/// The dearest that they can be: nobody knows what of the prompt is cached, nor how much of the output will be thoughts.
impl Tokens for Worst {
    fn priced(&self, price: &Price) -> [(u64, u64); 4] {
        let (prompt, output) = (price.input.max(price.cached), price.output.max(price.thought));
        [(self.prompt, prompt), (self.output, output), (0, 0), (0, 0)]
    }
}

/// Until when a model answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Long enough, as far as the catalogue knows.
    Long,
    /// It retires on this day (`2026-10-20`), soon.
    Ends(String),
    /// It retired on this day.
    Ended(String),
}

/// The models that are known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    model: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// From less to more.
    thinks: Option<Vec<Thinking>>,
    thinks_by_default: Option<Thinking>,
    retires: Option<toml::value::Datetime>,
    #[serde(default)]
    prices: Vec<Dated>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dated {
    tier: Tier,
    input: f64,
    output: f64,
    thought: Option<f64>,
    cached: Option<f64>,
    from: toml::value::Datetime,
    #[expect(dead_code, reason = "for people, and the file's own test")]
    read: toml::value::Datetime,
    #[expect(dead_code, reason = "for people, and the file's own test")]
    source: String,
}

static SHIPPED: LazyLock<Catalogue> =
    LazyLock::new(|| toml::from_str(include_str!("../../../prices.toml")).expect("a test reads it"));

impl Catalogue {
    /// The one that this version came with.
    pub fn shipped() -> &'static Catalogue {
        &SHIPPED
    }

    /// A price on a day; `None` when it is not known.
    pub fn price(&self, model: &str, tier: Tier, now: Millis) -> Option<Price> {
        let today = day(now, 0);
        let prices = self.entry(model)?.prices.iter().filter(|price| price.tier == tier);
        let newest =
            prices.filter(|price| price.from.to_string() <= today).max_by_key(|price| price.from.to_string())?;
        Some(Price::per_million(newest.input, newest.output, newest.thought, newest.cached))
    }

    /// What the pipeline says that its model costs, or what is known of it on a day.
    pub fn price_of(&self, model: &ModelSettings, now: Millis) -> Option<Price> {
        model.price.or_else(|| self.price(&model.name, model.tier, now))
    }

    /// What the pipeline's settings are where it falls back to this place.
    pub fn fallback(&self, model: &ModelSettings, place: &Place) -> ModelSettings {
        // Other tiers are served in one place alone: see the pipeline's own rule.
        let elsewhere = place.location.as_deref().is_some_and(|location| location != "global");
        let tier = if elsewhere { Tier::Standard } else { model.tier };
        // The pipeline's price is that of its model, as it is served there.
        let is_same = place.model == model.name && tier == model.tier;
        ModelSettings {
            name: place.model.clone(),
            location: place.location.clone(),
            // It may not be able to think so little.
            thinking: model.thinking.max(model.thinking.and(self.least_thinking(&place.model))),
            tier,
            price: model.price.filter(|_| is_same),
            ..model.clone()
        }
    }

    /// Until when the model answers.
    pub fn life(&self, model: &str, now: Millis) -> Life {
        let Some(end) = self.entry(model).and_then(|entry| entry.retires) else { return Life::Long };
        match end.to_string() {
            end if end <= day(now, 0) => Life::Ended(end),
            end if end <= day(now, WARN_DAYS) => Life::Ends(end),
            _ => Life::Long,
        }
    }

    /// Why no run may begin with the pipeline of this text: a model has retired, thinks more than it should, or has no known price
    /// where the cost is capped. All at once. A run that has its plan is not asked: a newer catalogue must not strand it.
    pub fn refuses(&self, pipeline: &Pipeline, text: &str, now: Millis) -> Option<Problems> {
        let mut found = self.refuses_model(&pipeline.model, now);
        found.extend(self.refuses_cap(pipeline, now));
        Problems::at(text, found)
    }

    /// Models that have retired, or cannot think so little. Not told of a model that is not known.
    fn refuses_model(&self, model: &ModelSettings, now: Millis) -> Vec<(Field, String)> {
        if model.provider != Provider::Google {
            return Vec::new(); // a name is what the endpoint makes of it
        }
        let ended = |name: &str| match self.life(name, now) {
            Life::Ended(day) => Some(day),
            Life::Long | Life::Ends(_) => None,
        };
        let own = ended(&model.name)
            .map(|day| (NAME, format!("{} retired on {day}: name another one in [model]", model.name)))
            .or_else(|| Some((Field(&["model", "thinking"], None), self.refuses_thinking(model)?)));
        let others = model.fallback.iter().enumerate().filter_map(|(at, place)| {
            let day = ended(&place.model)?;
            Some((fallback_field(at), format!("{place} retired on {day}: remove it from [model] fallback")))
        });
        own.into_iter().chain(others).collect()
    }

    fn refuses_thinking(&self, model: &ModelSettings) -> Option<String> {
        let entry = self.entry(&model.name)?;
        let thinking = model.thinking?;
        let levels = entry.thinks.as_ref().filter(|levels| !levels.contains(&thinking))?;
        let word = |level: &Thinking| format!("{:?}", level.as_str().to_lowercase());
        let by_default = entry.thinks_by_default.as_ref().map_or_else(|| "nobody knows how".to_owned(), word);
        Some(format!(
            "{} cannot think at {} (by itself it thinks at {by_default}, and thoughts are paid as output): \
             write [model] thinking = {}",
            model.name,
            word(&thinking),
            levels.iter().map(word).collect::<Vec<_>>().join(" or ")
        ))
    }

    /// Models of a pipeline with `max_cost_usd` whose price is not known: nothing could be set aside for a call.
    fn refuses_cap(&self, pipeline: &Pipeline, now: Millis) -> Vec<(Field, String)> {
        if pipeline.run.max_cost.is_none() {
            return Vec::new();
        }
        let model = &pipeline.model;
        let own = self.price_of(model, now).is_none().then(|| {
            let mend = format!("(tier {}): write [model.price] for {}", model.tier.as_str(), model.name);
            (NAME, format!("that of {} {mend}", model.name))
        });
        let others = model.fallback.iter().enumerate();
        let others =
            others.filter_map(|(at, place)| Some((fallback_field(at), self.refuses_unpriced(model, place, now)?)));
        let needs = "max_cost_usd needs the price of each call, and prices.toml has not";
        let told = |(field, what)| (field, format!("{needs} {what}, or remove max_cost_usd"));
        own.into_iter().chain(others).map(told).collect()
    }

    /// What can be done about a fallback whose price is not known.
    fn refuses_unpriced(&self, model: &ModelSettings, place: &Place, now: Millis) -> Option<String> {
        let there = self.fallback(model, place);
        if self.price_of(&there, now).is_some() {
            return None;
        }
        let (own, tier) = (&model.name, there.tier.as_str());
        // Of another provider's models it has none.
        let others = self.model.iter().filter(|_| model.provider == Provider::Google);
        let known = others.map(|entry| entry.name.as_str()).filter(|name| {
            self.price(name, there.tier, now).is_some() && !matches!(self.life(name, now), Life::Ended(_))
        });
        let known: Vec<&str> = known.collect();
        let instead = match known.is_empty() {
            true => String::new(),
            false => format!("name one there whose price it has ({}), ", known.join(", ")),
        };
        Some(format!(
            "that of {place} (tier {tier}; [model.price] is that of {own} in its tier alone): remove {place} from \
             [model] fallback, {instead}or add its price to prices.toml and build Tasuki anew"
        ))
    }

    /// What a person who begins a run should know of this model.
    pub fn warns(&self, model: &ModelSettings, now: Millis) -> Option<String> {
        if model.provider != Provider::Google {
            return self.price_of(model, now).is_none().then(|| {
                format!("nobody knows here what {} costs: write [model.price], or costs stay unknown", model.name)
            });
        }
        match self.life(&model.name, now) {
            Life::Ends(day) => Some(format!("{} retires on {day}: later runs need another one in [model]", model.name)),
            Life::Long if self.entry(&model.name).is_none() => {
                Some(format!("{} is not in prices.toml: nobody knows here what it costs or how it thinks", model.name))
            }
            Life::Long | Life::Ended(_) => None,
        }
    }

    /// The least that the model can think, where that is known.
    pub fn least_thinking(&self, model: &str) -> Option<Thinking> {
        self.entry(model)?.thinks.as_ref()?.iter().min().copied()
    }

    /// `gemini-x` also stands for its versions, like `gemini-x-001`.
    fn entry(&self, model: &str) -> Option<&Entry> {
        let is_version = |rest: &str| rest.starts_with('-') && rest[1..].bytes().all(|b| b.is_ascii_digit());
        let names =
            |entry: &&Entry| model.strip_prefix(&entry.name).is_some_and(|rest| rest.is_empty() || is_version(rest));
        self.model.iter().find(names)
    }
}

const NAME: Field = Field(&["model", "name"], None);

fn fallback_field(at: usize) -> Field {
    Field(&["model", "fallback"], Some(at))
}

/// The day so many days later, like `2026-10-20`.
fn day(now: Millis, later: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(now.0) + DAY * later as u32;
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("2026-10-20".len());
    text
}

#[cfg(test)]
mod tests;
