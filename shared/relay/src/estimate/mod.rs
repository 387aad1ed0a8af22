//! What a run will come to, before it is begun. Pure: who reads the rows, has prompts counted and asks a sample is elsewhere.
//!
//! [`Survey`] says what is to be asked; [`estimate`] what that takes, from what there is: nothing, counted prompts, or answers.

mod likely;
mod output;
mod pace;
mod survey;
mod text;

pub use likely::{Known, Likely, Units, predict};
pub use output::output_of;
pub use pace::{latency_of, seconds};
pub use survey::{Draw, Held, Survey};
pub use text::guess;

use crate::clock::Millis;
use crate::pipeline::{ModelSettings, Pipeline};
use crate::prices::{Catalogue, Price, Tier, dollars};
use crate::record::Usage;

/// By how much the guess of [`guess`] may be off, as a share of it: texts of one language lie within a third of it.
pub const GUESS_OFF: f64 = 0.4;

/// A number that is not known yet: the most likely one where there is one, and what it lies between.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// `None` where all of the range is as likely.
    pub likely: Option<f64>,
    /// At least.
    pub least: f64,
    /// At most; `None` where nothing sets an end.
    pub most: Option<f64>,
}

impl Span {
    fn plus(self, more: Span) -> Span {
        let both = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        Span {
            likely: both(self.likely, more.likely),
            least: self.least + more.least,
            most: both(self.most, more.most),
        }
    }

    fn times(self, factor: f64) -> Span {
        let scaled = |number: f64| number * factor;
        Span { likely: self.likely.map(scaled), least: scaled(self.least), most: self.most.map(scaled) }
    }
}

impl From<Likely> for Span {
    fn from(Likely { value, error }: Likely) -> Span {
        let most = (value + error).is_finite().then_some(value + error);
        Span { likely: Some(value), least: (value - error).max(0.0), most }
    }
}

/// A call that was made: what its prompt was guessed to be, and what it took, with those that had to follow it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Guessed tokens of the prompt.
    pub weight: f64,
    /// What it took.
    pub usage: Usage,
    /// From the first call to the last reply.
    pub seconds: f64,
}

/// Where the tokens of prompts are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A rule of thumb.
    Guess,
    /// So many prompts that the model has counted.
    Counted(usize),
    /// So many answers.
    Answers(usize),
}

/// What is known of calls like those to come.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Prompts that the model has counted: their tokens by their guesses.
    pub counted: Vec<Known>,
    /// Calls that were made.
    pub answers: Vec<Observed>,
}

/// What is likely of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Calls.
    pub calls: u64,
    /// Tokens of the prompts.
    pub input: Span,
    /// Where those are known from.
    pub source: Source,
    /// Tokens of answers and thoughts.
    pub output: Span,
    /// In dollars, by tier; `None` where the price is not known.
    pub cost: Vec<(Tier, Option<Span>)>,
    /// In seconds.
    pub time: Span,
    /// Seconds that a call takes: those of the middle half of the answers, or a guess.
    pub latency: (f64, f64),
}

/// What `calls` of the survey's pipeline take. `fixed` = [`Survey::fixed`].
pub fn estimate(pipeline: &Pipeline, calls: Units, fixed: f64, evidence: &Evidence, now: Millis) -> Estimate {
    let of = |value: fn(Usage) -> u64| known(&evidence.answers, |usage| value(usage) as f64);
    let from_answers = |sample: Vec<Known>| predict(&sample, calls).map(Span::from);
    let (input, source) = match from_answers(of(|usage| usage.prompt)) {
        Some(span) => (span, Source::Answers(evidence.answers.len())),
        None => input(calls, fixed, &evidence.counted),
    };
    let output = from_answers(of(|usage| usage.output + usage.thought))
        .unwrap_or_else(|| output_of(pipeline).times(calls.count as f64));
    let cost = prices(pipeline, now).into_iter().map(|(tier, price)| {
        let cost = price.map(|price| {
            let cost = |usage: Usage| dollars(price.of(usage));
            let bare = || input.times(dollars(price.input)).plus(paid_output(&pipeline.model, output, price));
            from_answers(known(&evidence.answers, cost)).unwrap_or_else(bare)
        });
        (tier, cost)
    });
    let latency = quartiles(&evidence.answers).unwrap_or_else(|| latency_of(pipeline));
    let each = |tokens: f64| tokens / calls.count.max(1) as f64;
    // What has no end counts by its beginning here: the pace is a range of latencies first.
    let most = input.most.unwrap_or(input.least) + output.most.unwrap_or(output.least);
    let time = pace::span(pipeline, calls.count, (each(input.least + output.least), each(most)), latency);
    Estimate { calls: calls.count, input, source, output, cost: cost.collect(), time, latency }
}

fn known(answers: &[Observed], value: impl Fn(Usage) -> f64) -> Vec<Known> {
    answers.iter().map(|call| Known { weight: call.weight, value: value(call.usage) }).collect()
}

/// The cost of answers that nobody has seen: at least that of answers alone, at most that of the dearer of answers and thoughts.
fn paid_output(model: &ModelSettings, tokens: Span, price: Price) -> Span {
    let dearest = if output::thinks(model) { price.output.max(price.thought) } else { price.output };
    Span { most: tokens.most.map(|most| most * dollars(dearest)), ..tokens.times(dollars(price.output)) }
}

/// Tokens of prompts that nobody has answered.
fn input(calls: Units, fixed: f64, counted: &[Known]) -> (Span, Source) {
    let rest = calls.without(counted.iter().map(|prompt| prompt.weight));
    if let Some(likely) = predict(counted, rest) {
        let there: f64 = counted.iter().map(|prompt| prompt.value).sum();
        return (Likely { value: likely.value + there, ..likely }.into(), Source::Counted(counted.len()));
    }
    let value = calls.weight + calls.count as f64 * fixed;
    (Likely { value, error: GUESS_OFF * value }.into(), Source::Guess)
}

/// The price of each tier. A price of the pipeline's own is that of its tier, and says nothing of others.
fn prices(pipeline: &Pipeline, now: Millis) -> Vec<(Tier, Option<Price>)> {
    let (model, catalogue) = (&pipeline.model, Catalogue::shipped());
    match model.price {
        Some(price) => vec![(model.tier, Some(price))],
        None => [Tier::Standard, Tier::Flex, Tier::Priority]
            .map(|tier| (tier, catalogue.price(&model.name, tier, now)))
            .to_vec(),
    }
}

/// The first and third quartile of the time that calls took.
fn quartiles(answers: &[Observed]) -> Option<(f64, f64)> {
    let mut seconds: Vec<f64> = answers.iter().map(|call| call.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds.get(((seconds.len() as f64 - 1.0) * share).round() as usize).copied();
    Some((at(0.25)?, at(0.75)?))
}

#[cfg(test)]
mod tests;
