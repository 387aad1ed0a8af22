//! `[model]` and `[run]`: what is asked, where, for how much, and how a run goes about it.

use super::parse::check_commit;
use super::read::Section;
use super::{DEFAULT_MODEL, ModelSettings, Place, Provider, RunSettings, Thinking, is_location};
use crate::limits::ROWS_PER_SHARD;
use crate::prices::{Price, Tier};
use std::ops::RangeInclusive;
use toml::Spanned;

const MODEL: &[&str] = &[
    "provider",
    "name",
    "location",
    "temperature",
    "max_output_tokens",
    "retry_output_tokens",
    "thinking",
    "tier",
    "fallback",
    "price",
    "requests_per_minute",
    "tokens_per_minute",
];
const PRICE: &[&str] = &["input", "output", "thought", "cached"];
const RUN: &[&str] = &[
    "rows_per_shard",
    "max_in_flight",
    "paid_retries",
    "give_up_after",
    "only_changed",
    "reuse_answers",
    "max_cost_usd",
];
const PROVIDERS: &[(&str, Provider)] = &[("google", Provider::Google), ("openai", Provider::OpenAi)];
const TIERS: &[(&str, Tier)] = &[("standard", Tier::Standard), ("flex", Tier::Flex), ("priority", Tier::Priority)];
const THINKING: &[(&str, Thinking)] =
    &[("minimal", Thinking::Minimal), ("low", Thinking::Low), ("medium", Thinking::Medium), ("high", Thinking::High)];

/// What a ceiling may be: the largest is beyond any quota, and is there so that a slip of the hand is told.
const PER_MINUTE: RangeInclusive<u32> = 1..=1_000_000_000;

/// Most dollars that a million tokens may cost, and a run: both are beyond anything, and are there so that a slip is told.
const DOLLARS: RangeInclusive<f64> = 0.0..=100_000.0;
/// Fewest dollars that a million tokens may cost, if anything: far below the least of `prices.toml` (0.03), and above what one
/// token of any model costs. A price for one token would be rounded to nothing, and a cap on the cost be without effect.
const DOLLARS_LEAST: f64 = 0.001;
/// Places that a fallback may name: each takes a minute to be found wanting.
const FALLBACKS_MAX: usize = 5;

pub(super) fn model(top: &Section<'_>) -> ModelSettings {
    let defaults = ModelSettings::default();
    let Some(table) = top.section("model", MODEL) else { return defaults };
    let provider = table.choice("provider", PROVIDERS).map_or(Provider::Google, Spanned::into_inner);
    let (most, retry) = output_tokens(&table);
    let thinking = table.choice("thinking", THINKING).map(Spanned::into_inner);
    let per_minute = |field| table.integer(field, PER_MINUTE).map(Spanned::into_inner);
    let location = location(&table, provider);
    let own = Place { model: name(&table, provider), location: location.clone() };
    ModelSettings {
        provider,
        temperature: table.number("temperature", 0.0..=2.0).map(Spanned::into_inner),
        max_output_tokens: most,
        retry_output_tokens: retry,
        thinking: thinking.or(defaults.thinking.filter(|_| provider == Provider::Google)),
        tier: tier(&table, provider, location.as_deref()),
        fallback: fallback(&table, provider, &own),
        name: own.model,
        price: table.section("price", PRICE).and_then(|table| price(&table)),
        requests_per_minute: per_minute("requests_per_minute"),
        tokens_per_minute: per_minute("tokens_per_minute"),
        location,
    }
}

fn name(table: &Section<'_>, provider: Provider) -> String {
    if provider == Provider::OpenAi {
        table.needs("name", "the model's name as the endpoint has it, like name = \"gpt-5-mini\"");
    }
    let Some(name) = table.string("name") else { return DEFAULT_MODEL.to_owned() };
    match provider {
        Provider::Google if !is_model_name(name.get_ref()) => table.problem(
            name.span().start,
            "the model's name is made of letters, digits, '.', '-', '_' and '@', like gemini-3.5-flash-lite",
        ),
        // It stands in a body, not in an address.
        Provider::OpenAi if name.get_ref().is_empty() || name.get_ref().len() > NAME_BYTES_MAX => {
            table.problem(name.span().start, format_args!("the model's name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        Provider::Google | Provider::OpenAi => (),
    }
    (*name.get_ref()).to_owned()
}

fn location(table: &Section<'_>, provider: Provider) -> Option<String> {
    let location = table.string("location")?;
    if provider == Provider::OpenAi {
        table.problem(location.span().start, "location is for Google's models: remove it, the endpoint has its place");
    } else if !is_location(location.get_ref()) {
        let message = "location is \"global\", \"us\", \"eu\", or a region like \"europe-west4\"";
        table.problem(location.span().start, message);
    }
    Some((*location.get_ref()).to_owned())
}

fn output_tokens(table: &Section<'_>) -> (Option<u32>, Option<u32>) {
    let most = table.integer("max_output_tokens", 1..=65_536).map(Spanned::into_inner);
    let retry = table.integer("retry_output_tokens", 1..=65_536);
    match (most, &retry) {
        (None, Some(_)) => {
            table.needs("max_output_tokens", "max_output_tokens = 512, so that retry_output_tokens exceeds it");
        }
        (Some(most), Some(retry)) if *retry.get_ref() <= most => table.problem(
            retry.span().start,
            format_args!("retry_output_tokens must exceed max_output_tokens ({most}), or be removed"),
        ),
        _ => {}
    }
    (most, retry.map(Spanned::into_inner))
}

/// Vertex AI serves flex and priority in `global` alone
/// (<https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/flex-paygo> and `…/priority-paygo`).
fn tier(table: &Section<'_>, provider: Provider, location: Option<&str>) -> Tier {
    let Some(tier) = table.choice("tier", TIERS) else { return Tier::Standard };
    let elsewhere = provider == Provider::Google && location.is_some_and(|location| location != "global");
    if *tier.get_ref() != Tier::Standard && elsewhere {
        let message = "flex and priority are served in one place: write location = \"global\", or tier = \"standard\"";
        table.problem(tier.span().start, message);
    }
    tier.into_inner()
}

/// `own` is the place of the model itself.
fn fallback(table: &Section<'_>, provider: Provider, own: &Place) -> Vec<Place> {
    let words = table.strings("fallback").unwrap_or_default();
    if let (true, Some(at)) = (words.len() > FALLBACKS_MAX, table.place("fallback")) {
        table.problem(at, format_args!("fallback names {} places: {FALLBACKS_MAX} at most", words.len()));
    }
    let mut places: Vec<Place> = Vec::new();
    for word in words {
        let (text, at) = (*word.get_ref(), word.span().start);
        let place = place(text, provider);
        let valid = match provider {
            Provider::Google => is_model_name(&place.model),
            Provider::OpenAi => (1..=NAME_BYTES_MAX).contains(&text.len()),
        };
        if !valid {
            table.problem(
                at,
                format_args!("{text:?} is no place: write \"gemini-3.5-flash-lite@eu\", or a model alone"),
            );
        } else if place == *own {
            table.problem(at, format_args!("{text:?} is the model itself, which is asked anyway: remove it"));
        } else if places.contains(&place) {
            table.problem(at, format_args!("{text:?} stands there twice: remove one"));
        }
        places.push(place);
    }
    places
}

/// What follows the last @ is a location if it can be one: names of models may have an @ too.
fn place(text: &str, provider: Provider) -> Place {
    match text.rsplit_once('@').filter(|(_, location)| provider == Provider::Google && is_location(location)) {
        Some((model, location)) => Place { model: model.to_owned(), location: Some(location.to_owned()) },
        None => Place { model: text.to_owned(), location: None },
    }
}

fn price(table: &Section<'_>) -> Option<Price> {
    const LIKE: &str = "in dollars for a million tokens";
    table.needs("input", &format!("input = 0.30, {LIKE}"));
    table.needs("output", &format!("output = 2.50, {LIKE}"));
    let dollars = |field| {
        let price = table.amount(field, DOLLARS, ", in dollars for a million tokens")?;
        let (at, price) = (price.span().start, price.into_inner());
        if price > 0.0 && price < DOLLARS_LEAST {
            let message = format_args!(
                "{field} is a price in dollars for a million tokens, not for one: write 0, or {DOLLARS_LEAST} or more"
            );
            table.problem(at, message);
        }
        Some(price)
    };
    let [input, output, thought, cached] = ["input", "output", "thought", "cached"].map(dollars);
    Some(Price::per_million(input?, output?, thought, cached))
}

/// Most bytes of a model's name.
const NAME_BYTES_MAX: usize = 128;

/// The name becomes a part of a URL's path.
fn is_model_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
}

/// `model` is what was read of `[model]`.
pub(super) fn run(top: &Section<'_>, answer_columns: usize, model: &ModelSettings) -> RunSettings {
    let table = top.section("run", RUN);
    let table = table.as_ref();
    let rows = table.and_then(|table| table.integer("rows_per_shard", ROWS_PER_SHARD));
    check_commit(top, rows.as_ref(), answer_columns);
    let give_up_after = table.and_then(|table| table.string("give_up_after"));
    let give_up_after = give_up_after.and_then(|text| {
        let duration = humantime::parse_duration(text.get_ref()).ok().filter(|duration| !duration.is_zero());
        if duration.is_none() {
            top.problem(text.span().start, "give_up_after must be a duration like \"6h\" or \"1h 30m\"");
        }
        duration
    });
    let integer = |field, range| table.and_then(|table| table.integer(field, range)).map(Spanned::into_inner);
    let boolean = |field| table.and_then(|table| table.boolean(field)).is_some_and(Spanned::into_inner);
    let defaults = RunSettings::default();
    RunSettings {
        rows_per_shard: rows.map(Spanned::into_inner),
        max_in_flight: integer("max_in_flight", 1..=100_000).unwrap_or(defaults.max_in_flight),
        paid_retries: integer("paid_retries", 0..=5).unwrap_or(defaults.paid_retries),
        give_up_after,
        only_changed: boolean("only_changed"),
        reuse_answers: boolean("reuse_answers"),
        max_cost: table.and_then(|table| max_cost(table, model)),
    }
}

/// Before a call its worst case is set aside: without a limit of its output that would be dollars.
fn max_cost(table: &Section<'_>, model: &ModelSettings) -> Option<u64> {
    let dollars = table.number("max_cost_usd", DOLLARS)?;
    if model.max_output_tokens.is_none() {
        let message = "max_cost_usd sets the worst case of each call aside: write [model] max_output_tokens = 512, \
                       or what an answer takes at most";
        table.problem(dollars.span().start, message);
    }
    Some(crate::prices::picodollars(*dollars.get_ref()))
}
