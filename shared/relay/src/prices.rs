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
mod tests {
    use super::*;
    use crate::pipeline::DEFAULT_MODEL;

    /// Noon of 2026-11-20, 2026-12-31 and 2027-01-01.
    const DAYS: [Millis; 3] = [Millis(1_795_176_000_000), Millis(1_798_718_400_000), Millis(1_798_804_800_000)];

    #[test]
    fn the_file_says_what_the_models_cost() {
        let price = |model: &str, tier| Catalogue::shipped().price(model, tier, DAYS[0]);
        let standard = Price { input: 300_000, output: 2_500_000, thought: 2_500_000, cached: 30_000 };
        assert_eq!(price(DEFAULT_MODEL, Tier::Standard), Some(standard));
        assert_eq!(price("gemini-3.5-flash-lite-001", Tier::Standard), Some(standard), "a version");
        assert_eq!(price("gemini-3.5-flash-lite", Tier::Flex).map(|price| price.input), Some(150_000));
        assert_eq!(price("gemini-3.5-flash-lite", Tier::Priority), None, "unknown is not 0");
        assert_eq!(price("gemini-3.5-flash-lite-pro", Tier::Standard), None);
        assert_eq!(price("gemini-3.7-flash", Tier::Standard), None);
    }

    #[test]
    fn a_price_counts_from_its_day_on() {
        let input = DAYS.map(|day| Catalogue::shipped().price("gemini-3.8-flash", Tier::Standard, day).unwrap().input);
        assert_eq!(input, [750_000, 750_000, 1_500_000]);
        assert_eq!(Catalogue::shipped().price("gemini-3.8-flash", Tier::Standard, Millis(0)), None);
    }

    #[test]
    fn what_is_cached_is_not_paid_twice_and_thoughts_are_output() {
        let price = Price::per_million(0.30, 2.50, None, Some(0.03));
        let usage = Usage { prompt: 600, output: 100, thought: 20, cached: 400 };
        assert_eq!(price.of(usage), 200 * 300_000 + 400 * 30_000 + 120 * 2_500_000);
        assert_eq!(Price::per_million(0.30, 2.50, None, None).of(usage), 600 * 300_000 + 120 * 2_500_000);
    }

    #[test]
    fn thoughts_may_have_a_price_of_their_own_and_the_dearest_is_set_aside() {
        let entry = "[[model]]\nname = \"m\"\nprices = [{ tier = \"standard\", input = 1, output = 2, thought = 5, \
            from = 2026-01-01, read = 2026-01-01, source = \"page\" }]";
        let listed = toml::from_str::<Catalogue>(entry).unwrap().price("m", Tier::Standard, DAYS[0]).unwrap();
        assert_eq!(listed, Price::per_million(1.0, 2.0, Some(5.0), None));
        let usage = Usage { prompt: 10, output: 100, thought: 1_000, cached: 0 };
        assert_eq!(listed.of(usage), (10 + 200 + 5_000) * 1_000_000);
        let worst = Worst { prompt: 10, output: 100 };
        assert_eq!(listed.of(worst), (10 + 500) * 1_000_000, "all of it may be thoughts");
        let cheap = Price::per_million(1.0, 2.0, Some(0.0), Some(3.0));
        assert_eq!(cheap.of(worst), (30 + 200) * 1_000_000, "or none, and all of the prompt cached");
    }

    #[test]
    fn a_model_is_warned_of_before_it_retires() {
        let catalogue: Catalogue = toml::from_str("[[model]]\nname = \"m\"\nretires = 2027-01-19").unwrap();
        // Sixty days before are 2026-11-20.
        let before = Millis(DAYS[0].0 - 24 * 60 * 60 * 1_000);
        assert_eq!(catalogue.life("m", before), Life::Long);
        assert_eq!(catalogue.life("m", DAYS[0]), Life::Ends("2027-01-19".into()));
        assert_eq!(
            catalogue.life("m", Millis(DAYS[0].0 + 60 * 24 * 60 * 60 * 1_000)),
            Life::Ended("2027-01-19".into())
        );
        assert_eq!(Catalogue::shipped().life("gemini-2.5-flash", DAYS[0]), Life::Ended("2026-10-20".into()));
        assert_eq!(Catalogue::shipped().life("whatever", DAYS[0]), Life::Long);
    }

    #[test]
    fn a_model_that_would_think_more_than_is_said_begins_no_run() {
        let refuses = |name: &str, thinking| {
            let model = ModelSettings { name: name.into(), thinking: Some(thinking), ..ModelSettings::default() };
            Catalogue::shipped().refuses_model(&model, DAYS[0]).pop().map(|(_, why)| why)
        };
        let why = refuses("gemini-3.7-flash", Thinking::Minimal).unwrap();
        assert!(why.contains("thinks at \"medium\"") && why.ends_with("\"low\" or \"medium\" or \"high\""), "{why}");
        assert_eq!(refuses("gemini-3.7-flash", Thinking::Low), None);
        assert_eq!(refuses(DEFAULT_MODEL, Thinking::Minimal), None);
        assert_eq!(refuses("whatever", Thinking::Minimal), None);
        let retired = refuses("gemini-2.5-flash", Thinking::Minimal).unwrap();
        assert!(retired.contains("retired on 2026-10-20: name another one"), "{retired}");
        let place = Place { model: "gemini-2.5-pro".into(), location: Some("eu".into()) };
        let falls_back = ModelSettings { fallback: vec![place], ..ModelSettings::default() };
        let retired = Catalogue::shipped().refuses_model(&falls_back, DAYS[0]).remove(0).1;
        assert!(retired.contains("gemini-2.5-pro@eu retired on 2026-10-20: remove it"), "{retired}");
        let warns = |name: &str| {
            let model = ModelSettings { name: name.into(), ..ModelSettings::default() };
            Catalogue::shipped().warns(&model, DAYS[0])
        };
        assert!(warns("gemini-9").unwrap().contains("not in prices.toml"));
        assert_eq!(warns(DEFAULT_MODEL), None);
        assert_eq!(Catalogue::shipped().least_thinking("gemini-3.7-flash"), Some(Thinking::Low));
    }

    #[test]
    fn all_that_is_known_against_a_pipeline_is_told_at_once_each_at_its_place() {
        let text = "name = 'p'\nkey = 'id'\n[prompt]\ntemplate = '{{ t }}'\n[answer.a]\ntype = 'string'\n[model]\n\
            name = 'gemini-3.7-flash'\nmax_output_tokens = 9\nfallback = ['gemini-3.5-flash', 'gemini-2.5-pro@eu']\n\
            [run]\nmax_cost_usd = 5\n[target]\ntable = 't'\n";
        let told = |text: &str| {
            let problems = Catalogue::shipped().refuses(&Pipeline::parse(text).unwrap(), text, DAYS[0]);
            problems.map(|problems| problems.in_file("p.toml")).unwrap_or_default()
        };
        let all = told(text);
        let starts = [
            "p.toml:7:2: gemini-3.7-flash cannot think", // where [model] thinking would stand
            "p.toml:8:8: max_cost_usd needs",
            "p.toml:10:33: gemini-2.5-pro@eu retired on 2026-10-20",
            "p.toml:10:33: max_cost_usd needs",
        ];
        assert_eq!(all.lines().count(), starts.len(), "{all}");
        assert!(all.lines().zip(starts).all(|(line, start)| line.starts_with(start)), "{all}");
        assert_eq!(
            told(&text.replace("3.7", "3.5").replace(", 'gemini-2.5-pro@eu'", "@eu'").replace("flash'@eu", "flash@eu")),
            ""
        );
    }

    #[test]
    fn a_cap_on_the_cost_needs_the_price_of_every_model_that_may_be_asked() {
        let mut pipeline = Pipeline::parse(include_str!("../../../examples/themes.toml")).unwrap();
        let place =
            |model: &str, location: Option<&str>| Place { model: model.into(), location: location.map(str::to_owned) };
        let refuses = |pipeline: &Pipeline| {
            let told = Catalogue::shipped().refuses_cap(pipeline, DAYS[0]).into_iter().map(|(_, why)| why);
            Some(told.collect::<Vec<_>>().join("\n")).filter(|told| !told.is_empty())
        };
        pipeline.model.name = "mine".into();
        assert_eq!(refuses(&pipeline), None, "without a cap nobody needs a price");
        pipeline.run.max_cost = Some(picodollars(5.0));
        let why = refuses(&pipeline).unwrap();
        assert!(why.contains("write [model.price] for mine, or remove max_cost_usd"), "{why}");
        pipeline.model.fallback = vec![place(DEFAULT_MODEL, Some("eu")), place("theirs", Some("us"))];
        let why = refuses(&pipeline).unwrap();
        assert!(why.contains("for mine, or remove max_cost_usd\n") && why.contains("remove theirs@us from"), "{why}");
        assert!(!why.contains("that of gemini"), "its price is known: {why}");
        pipeline.model.price = Some(Price::per_million(0.0, 0.0, None, None));
        let why = refuses(&pipeline).unwrap();
        assert!(
            !why.contains("for mine") && why.contains("that of theirs@us (tier standard;"),
            "its model's alone: {why}"
        );
        assert!(why.contains("whose price it has (gemini-3.5-flash-lite, gemini-3.5-flash,"), "{why}");
        assert!(why.contains("or add its price to prices.toml") && why.ends_with("or remove max_cost_usd"), "{why}");
        pipeline.model.fallback.pop();
        assert_eq!(refuses(&pipeline), None);
        pipeline.model.tier = Tier::Priority;
        assert_eq!(refuses(&pipeline), None, "in eu only the standard tier is served, and its price is known");
        pipeline.model.fallback = vec![place(DEFAULT_MODEL, Some("global"))];
        assert!(refuses(&pipeline).unwrap().contains("(tier priority; "), "a price of another tier is none");
        pipeline.model.fallback = vec![place("mine", Some("global"))];
        assert_eq!(refuses(&pipeline), None, "the same model costs the same elsewhere");
        pipeline.model.fallback = vec![place("mine", Some("eu"))];
        assert!(refuses(&pipeline).unwrap().contains("mine@eu (tier standard; "), "there it is another tier");
    }
}
