//! A plan as text and as JSON. Numbers are rounded to what is known of them.

use super::Planned;
use super::sample::Asked;
use crate::commands::Exit;
use crate::show::{self, dollars, number};
use anyhow::Result;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::time::Duration;
use tasuki_relay::clock::Clock;
use tasuki_relay::estimate::{Estimate, GUESS_OFF, Source, Span, Survey};
use tasuki_relay::pipeline::Thinking;
use tasuki_relay::prices::{self, Catalogue};

/// Digits of a number that are told: no estimate has more.
const DIGITS: i32 = 3;

/// Calls that may follow others because of their answers' form, over those that are made at first: 200 always may, and a quarter
/// of all calls, which they are among (`FormBudget::of_run` of the generator).
const RETRIES_ALWAYS: f64 = 200.0;
const RETRIES_SHARE: f64 = 0.25;
/// About so many bytes are a token of a prompt.
const BYTES_OF_A_TOKEN: f64 = 4.0;

/// A plan that is told.
pub(super) struct Told<'a> {
    pub(super) planned: &'a Planned<'a>,
    pub(super) survey: &'a Survey,
    pub(super) estimate: &'a Estimate,
    /// Why no prompt was counted, if not for want of a key.
    pub(super) not_counted: Option<String>,
    /// The rows that were asked for it.
    pub(super) sample: Option<&'a Asked>,
}

impl Told<'_> {
    pub(super) fn print(&self) -> Result<Exit> {
        match self.planned.json {
            true => show::json_line(&mut stdout().lock(), &self.json())?,
            false => stdout().write_all(self.text().as_bytes())?,
        }
        Ok(Exit::Done)
    }

    fn text(&self) -> String {
        let (survey, estimate, model) = (self.survey, self.estimate, &self.planned.pipeline.model);
        let what = if self.sample.is_some() { "after a sample" } else { "nothing was asked, nothing is paid" };
        let (input, pipeline) = (self.planned.input.display(), &self.planned.pipeline.name);
        let mut lines = vec![format!("PLAN  {input} with pipeline {pipeline}, model {}: {what}", model.name)];
        let mut line = |name: &str, value: &str, more: &str| {
            lines.push(format!("  {name:<11}{value:>12}  {more}").trim_end().to_owned());
        };
        let counts: [(&str, u64, String); 4] = [
            ("bad", survey.bad(), format!("fail before they are asked: {}", reasons(survey))),
            ("unchanged", survey.unchanged, "not asked again".into()),
            ("reused", survey.reused, "an earlier run has paid for their answers".into()),
            ("repeated", survey.repeated.count, "have the prompt of another row".into()),
        ];
        line("rows", &number(survey.rows), "");
        for (name, count, more) in counts.iter().filter(|(_, count, _)| *count > 0) {
            line(name, &number(*count), more);
        }
        let more = if self.may_repeat() { format!("to {}", number(self.calls_most())) } else { String::new() };
        line("calls", &number(estimate.calls), &more);
        for (name, span) in [("input", estimate.input), ("output", estimate.output)] {
            let (value, more) = spread(self.upto(span), |tokens| number(rounded(tokens) as u64));
            line(name, &value, &format!("{more} tokens"));
        }
        for (at, (tier, cost)) in estimate.cost.iter().enumerate() {
            let (value, more) = cost.map_or(("unknown".into(), String::new()), |cost| spread(self.upto(cost), money));
            let own = if *tier == model.tier { ", this pipeline's tier" } else { "" };
            let more = format!("{more} ({}{own})", tier.as_str());
            line(if at == 0 { "cost" } else { "" }, &value, more.trim_start());
        }
        let (value, more) = spread(self.upto(estimate.time), time);
        line("time", &value, &more);
        lines.push(String::new());
        lines.extend(self.assumptions().iter().map(|each| format!("- {each}")));
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Value {
        let (survey, estimate, pipeline) = (self.survey, self.estimate, &self.planned.pipeline);
        let span = |span: Span| {
            let Span { likely, least, most } = self.upto(span);
            json!({ "likely": likely, "least": least, "most": most })
        };
        let costs = estimate.cost.iter().map(|(tier, cost)| (tier.as_str().to_owned(), json!(cost.map(span))));
        let sample = self.sample.map(|asked| {
            json!({ "run": asked.run, "rows": asked.rows, "answered": asked.answered,
                "paid_usd": asked.paid.map(prices::dollars) })
        });
        let source = match estimate.source {
            Source::Guess => "guess",
            Source::Counted(_) => "countTokens",
            Source::Answers(_) => "sample",
        };
        json!({
            "file": self.planned.input.display().to_string(), "pipeline": pipeline.name, "model": pipeline.model.name,
            "tier": pipeline.model.tier.as_str(), "rows": survey.rows, "bad": survey.bad(), "failures": survey.failed,
            "unchanged": survey.unchanged, "reused": survey.reused, "repeated": survey.repeated.count,
            "calls": estimate.calls, "calls_most": self.calls_most(),
            "input_tokens": span(estimate.input), "output_tokens": span(estimate.output),
            "tokens_from": source, "cost_usd": Value::Object(costs.collect()), "time_s": span(estimate.time),
            "sample": sample, "assumptions": self.assumptions(),
        })
    }

    /// Repeated prompts may be asked again: without `reuse_answers` those alone are asked once that are in flight together.
    fn may_repeat(&self) -> bool {
        self.survey.repeated.count > 0 && !self.planned.pipeline.run.reuse_answers
    }

    /// Calls, if every repeated prompt is asked each time.
    fn calls_most(&self) -> u64 {
        self.estimate.calls + if self.may_repeat() { self.survey.repeated.count } else { 0 }
    }

    /// The span with the repeated prompts in its upper end: nobody knows how many of them are asked again.
    fn upto(&self, span: Span) -> Span {
        if !self.may_repeat() {
            return span;
        }
        let times = self.survey.with_repeats(self.estimate.calls);
        Span { likely: None, most: span.most.zip(times).map(|(most, times)| most * times), ..span }
    }

    /// Calls that may be paid for to mend answers, at most.
    fn retries_most(&self) -> f64 {
        (RETRIES_ALWAYS + RETRIES_SHARE * self.calls_most() as f64) / (1.0 - RETRIES_SHARE)
    }

    /// What the numbers rest on, a line each.
    fn assumptions(&self) -> Vec<String> {
        let mut told = self.of_the_tokens();
        told.push(self.of_the_prices());
        told.extend(self.of_the_fallbacks());
        told.extend(self.of_the_cap());
        told.push(self.of_the_time());
        told.extend(self.of_the_rows());
        told
    }

    fn of_the_tokens(&self) -> Vec<String> {
        let (estimate, model) = (self.estimate, &self.planned.pipeline.model);
        if let Source::Answers(answers) = estimate.source {
            let bar = match self.may_repeat() {
                _ if estimate.output.most.is_none() => "too few to tell how far off that may be",
                true => "the ranges hold the truth in 95 of 100 samples",
                false => "± holds the truth in 95 of 100 samples",
            };
            return vec![format!(
                "tokens and cost: from {answers} answers to rows drawn at random, their retries included; {bar}"
            )];
        }
        let input = match (estimate.source, &self.not_counted) {
            (Source::Counted(prompts), _) => {
                format!(
                    "input: the model counted {prompts} prompts (countTokens, free); the others' tokens follow from their texts"
                )
            }
            (_, why) => {
                let off = (GUESS_OFF * 100.0).round();
                let why = match why {
                    Some(why) => format!("the model counted none: {why}"),
                    None if self.planned.counter.is_some() => "there is none to count".to_owned(),
                    None => "with a key the model would count some, free".to_owned(),
                };
                format!("input: guessed, four ASCII characters or one other letter a token, ± {off} %; {why}")
            }
        };
        let thoughts = match model.thinking {
            Some(Thinking::Minimal) => "hardly a thought",
            _ => "thoughts included",
        };
        let mut told = vec![
            input,
            format!(
                "output: what the answer's form allows, {thoughts}; no answer was looked at. To know better: {}",
                self.planned.try_sample
            ),
        ];
        if estimate.output.most.is_none() {
            told.push("no upper end: nothing bounds an answer. [model] max_output_tokens would".to_owned());
        }
        told.push("each call is made once: what follows a malformed or cut answer comes on top".to_owned());
        told
    }

    /// What the fallbacks of the pipeline do to its cost.
    fn of_the_fallbacks(&self) -> Option<String> {
        let places = &self.planned.pipeline.model.fallback;
        let names: Vec<String> = places.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| {
            format!(
                "fallbacks: the rows that {} may answer cost its own price, which is not in this",
                names.join(" or ")
            )
        })
    }

    fn of_the_prices(&self) -> String {
        let model = &self.planned.pipeline.model;
        match model.price {
            Some(_) => "prices: [model.price] of the pipeline".to_owned(),
            None if self.sample.is_some() => {
                "prices: list prices of prices.toml; one that is not there is unknown".to_owned()
            }
            None => "prices: list prices of prices.toml, no part of a prompt cached; one that is not there is unknown"
                .to_owned(),
        }
    }

    /// The worst case of the last call, which must fit under a cap as well: each byte of its prompt a token, and the longest answer.
    fn set_aside(&self, most: f64) -> f64 {
        let (model, day) = (&self.planned.pipeline.model, Clock::system().now());
        let price = Catalogue::shipped().price_of(model, day).map_or(0, |price| price.output.max(price.thought));
        let answer = prices::dollars(price.saturating_mul(model.max_output_tokens.unwrap_or(0).into()));
        answer + BYTES_OF_A_TOKEN * most / self.calls_most().max(1) as f64
    }

    /// Whether the run would be parked on its way.
    fn of_the_cap(&self) -> Option<String> {
        let (model, cap) = (&self.planned.pipeline.model, self.planned.pipeline.run.max_cost?);
        let cap = prices::dollars(cap);
        let (_, cost) = self.estimate.cost.iter().find(|(tier, _)| *tier == model.tier)?;
        let most = cost.and_then(|cost| self.upto(cost).most);
        let with_retries = 1.0 + self.retries_most() / self.calls_most().max(1) as f64;
        let then = match cost {
            Some(cost) if cost.least > cap => "is less than the run costs: it would be parked on its way",
            _ if most.is_some_and(|most| most * with_retries + self.set_aside(most) <= cap) => "is enough",
            _ if most.is_some_and(|most| most <= cap) => {
                "may be too little if many answers are asked again for their form: the run would then be parked on its way"
            }
            _ => "may be too little: the run would then be parked on its way",
        };
        Some(format!("[run] max_cost_usd: {} {then}", dollars(cap)))
    }

    fn of_the_time(&self) -> String {
        let (pipeline, (short, long)) = (&self.planned.pipeline, self.estimate.latency);
        let measured = match self.sample {
            Some(_) => "the middle half of the sample's calls",
            None => "a guess",
        };
        let (short, long) = (time(short), time(long));
        let mut limits = vec![format!("{} calls in flight", number(pipeline.run.max_in_flight.into()))];
        let mut limit = |most: Option<u32>, what: &str| {
            limits.extend(most.map(|most| format!("{} {what} a minute", number(most.into()))));
        };
        limit(pipeline.model.requests_per_minute, "calls");
        limit(pipeline.model.tokens_per_minute, "tokens");
        let limits = limits.join(", ");
        format!(
            "time: a call takes {short} to {long} ({measured}), with {limits}, if the model takes as many: nobody knows that before"
        )
    }

    fn of_the_rows(&self) -> Vec<String> {
        let (run, mut told) = (&self.planned.pipeline.run, Vec::new());
        if self.may_repeat() {
            told.push(
                "repeated prompts: asked once while they are in flight together, and again later. The lower ends count each \
                 prompt once, the upper ends every row; with [run] reuse_answers it is once"
                    .to_owned(),
            );
        }
        if self.planned.home.is_none() && (run.only_changed || run.reuse_answers) {
            told.push("every row counts as a call: nobody looked for answers that are there already".to_owned());
        }
        if let Some(asked) = self.sample {
            let paid = asked.paid.map_or("an unknown price".to_owned(), |paid| dollars(prices::dollars(paid)));
            let again = match self.planned.keeps_answers() {
                true => "a run does not ask them again, and they are in none of the numbers above",
                false => {
                    "a run asks them again, and they are in the numbers above: [run] reuse_answers = true saves that"
                }
            };
            told.push(format!(
                "sample: run {} asked {}, {} answered, paid {paid}. Its answers are in table {}: {again}",
                asked.run,
                show::rows(asked.rows, ""),
                number(asked.answered),
                self.planned.pipeline.table
            ));
        }
        told
    }
}

fn reasons(survey: &Survey) -> String {
    let each = survey.failed.iter().map(|(reason, count)| format!("{reason} {}", number(*count)));
    each.collect::<Vec<_>>().join(", ")
}

/// A likely number and its error bar, or a range.
fn spread(span: Span, text: impl Fn(f64) -> String) -> (String, String) {
    match (span.likely, span.most) {
        (Some(likely), Some(most)) => {
            let error = most - likely;
            let share = if likely > 0.0 { 100.0 * error / likely } else { 0.0 };
            (text(likely), format!("± {} ({} %)", text(error), percent(share)))
        }
        (Some(likely), None) => (text(likely), "± unknown".to_owned()),
        (None, Some(most)) => (text(span.least), format!("to {}", text(most))),
        (None, None) => (text(span.least), "at least, without an upper end,".to_owned()),
    }
}

/// `0.4`, `13`.
fn percent(share: f64) -> String {
    if share < 1.0 { format!("{share:.1}") } else { format!("{share:.0}") }
}

fn money(sum: f64) -> String {
    dollars(rounded(sum))
}

fn time(seconds: f64) -> String {
    let seconds = rounded(seconds);
    show::time(Duration::from_millis(match seconds {
        0.0..60.0 => (seconds * 1e3) as u64,
        _ => seconds as u64 * 1_000,
    }))
}

/// To [`DIGITS`] digits.
fn rounded(number: f64) -> f64 {
    if number <= 0.0 {
        return 0.0;
    }
    let unit = 10_f64.powi(number.log10().floor() as i32 + 1 - DIGITS);
    (number / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;
    use tasuki_relay::clock::Millis;
    use tasuki_relay::estimate::{Evidence, estimate};
    use tasuki_relay::pipeline::Pipeline;

    /// What is told of a file with these prompts, by the number of each: as JSON, and as text.
    fn told(run: &str, prompts: impl IntoIterator<Item = u64>) -> (Value, String) {
        let text = include_str!("../../../../../examples/themes.toml");
        let pipeline = Pipeline::parse(&format!("{text}\n[run]\n{run}\n")).unwrap();
        let mut survey = Survey::new(&pipeline, 0, 0);
        for (ordinal, prompt) in (0..).zip(prompts) {
            survey.ask(ordinal, &format!("prompt {prompt}"), &format!("{prompt:032x}"));
        }
        let estimate = estimate(&pipeline, survey.calls, survey.fixed, &Evidence::default(), Millis(1_795_176_000_000));
        let planned = Planned {
            input: Path::new("rows.jsonl"),
            pipeline: Arc::new(pipeline),
            counter: None,
            home: None,
            try_sample: String::new(),
            json: true,
        };
        let told = planned.told(&survey, &estimate, None);
        (told.json(), told.text())
    }

    #[test]
    fn repeated_prompts_are_in_the_upper_ends_unless_answers_are_reused() {
        let most = |json: &Value| json["cost_usd"]["standard"]["most"].as_f64().unwrap();
        let (once, _) = told("", [1, 2]);
        let (twice, text) = told("", [1, 2, 1, 2]);
        assert_eq!((&twice["calls"], &twice["calls_most"], &twice["repeated"]), (&json!(2), &json!(4), &json!(2)));
        assert!((most(&twice) / most(&once) - 2.0).abs() < 1e-9, "{once} {twice}");
        assert_eq!(twice["cost_usd"]["standard"]["least"], once["cost_usd"]["standard"]["least"]);
        let (reused, _) = told("reuse_answers = true", [1, 2, 1, 2]);
        assert_eq!((&reused["calls_most"], &reused["cost_usd"]), (&json!(2), &once["cost_usd"]));
        assert!(text.contains("  to 4\n") && text.contains("the upper ends every row"), "{text}");
    }

    #[test]
    fn a_cap_is_enough_only_with_room_for_retries() {
        let most = told("", 0..100).0["cost_usd"]["standard"]["most"].as_f64().unwrap();
        let of_the_cap = |cap: f64| told(&format!("max_cost_usd = {cap}"), 0..100).1;
        // 100 calls, 300 that may follow them, and the worst case of the last: 512 tokens, and a prompt of four times its tokens.
        let last = 512.0 * 2.5e-6 + 4.0 * most / 100.0;
        let roomy = of_the_cap(4.01 * most + last);
        assert!(roomy.contains(" is enough\n"), "{roomy}");
        let close = of_the_cap(4.01 * most);
        assert!(close.contains(" may be too little if many answers are asked again"), "{close}");
    }

    #[test]
    fn no_number_has_more_digits_than_are_known() {
        assert_eq!([0.0, 1_774_812.0, 0.012_345, 9.996].map(rounded)[..2], [0.0, 1_770_000.0]);
        assert_eq!(
            (money(0.012_345), money(9.996), money(1_234.5)),
            ("$0.0123".into(), "$10.00".into(), "$1230.00".into())
        );
        assert_eq!((time(0.5), time(200.4)), ("500 ms".into(), "3m 20s".into()));
    }

    #[test]
    fn a_span_is_told_as_what_it_is() {
        let told = |likely, most| spread(Span { likely, least: 90.0, most }, |n| format!("{n}"));
        assert_eq!(told(Some(100.0), Some(110.0)), ("100".into(), "± 10 (10 %)".into()));
        assert_eq!(told(Some(100.0), None).1, "± unknown");
        assert_eq!(told(None, Some(110.0)), ("90".into(), "to 110".into()));
        assert!(told(None, None).1.contains("without an upper end"));
    }
}
