//! What a call may cost at most, before it is made.

use crate::clock::Millis;
use crate::pipeline::{ModelSettings, Pipeline};
use crate::ports::Ask;
use crate::prices::{Catalogue, Tier};
use crate::record::Usage;
use crate::schema::response_schema;

/// Tokens that a question takes beside its text: marks of turns and of roles, and what a provider adds to say what a schema is.
pub(super) const FRAME_TOKENS: u64 = 256;

/// The most tokens that a call can take; `None` when nothing bounds its output.
///
/// A token is a byte at least, so no text has more tokens than bytes; thoughts are within the limit of the output. About four
/// bytes are a token of English prose: what was too much is given back once the call is settled.
pub fn worst_case(ask: &Ask) -> Option<Usage> {
    let output = ask.max_output_tokens.or(ask.pipeline.model.max_output_tokens)?;
    let system = ask.pipeline.system.as_ref().map_or(0, String::len);
    let schema = response_schema(&ask.pipeline).to_string().len();
    let prompt = (ask.prompt.len() + system + schema) as u64 + FRAME_TOKENS;
    Some(Usage { prompt, output: output.into(), ..Usage::default() })
}

/// Why no run with a cap may begin: nobody knows what a call of this pipeline costs. `None` without a cap.
pub fn refuses(pipeline: &Pipeline, now: Millis) -> Option<String> {
    pipeline.run.max_cost?;
    let (catalogue, model) = (Catalogue::shipped(), &pipeline.model);
    if catalogue.price_of(model, now).is_none() {
        return Some(format!(
            "max_cost_usd needs to know what {} costs: write [model] price = {{ input = 0.30, output = 2.50 }}, in dollars for \
             a million tokens",
            model.name
        ));
    }
    let unknown = model.fallback.iter().find(|place| {
        // A region serves the standard tier alone.
        let tier = if place.location.as_deref().is_none_or(|location| location == "global") {
            model.tier
        } else {
            Tier::Standard
        };
        let there = ModelSettings { name: place.model.clone(), price: None, tier, ..model.clone() };
        catalogue.price_of(&there, now).is_none()
    });
    unknown.map(|place| {
        format!("max_cost_usd needs to know what fallback \"{place}\" costs, which is not in prices.toml: remove one of them")
    })
}
