//! A plan as text and as JSON. Numbers are rounded to what is known of them.

use super::Planned;
use super::sample::Asked;
use crate::commands::Exit;
use crate::show::{self, dollars, number};
use anyhow::Result;
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::time::Duration;
use tasuki_relay::estimate::{Estimate, GUESS_OFF, Source, Span, Survey};
use tasuki_relay::pipeline::Thinking;
use tasuki_relay::prices;

/// Digits of a number that are told: no estimate has more.
const DIGITS: i32 = 3;

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
            ("repeated", survey.repeated, "have the prompt of another row".into()),
        ];
        line("rows", &number(survey.rows), "");
        for (name, count, more) in counts.iter().filter(|(_, count, _)| *count > 0) {
            line(name, &number(*count), more);
        }
        line("calls", &number(estimate.calls), "");
        for (name, span) in [("input", estimate.input), ("output", estimate.output)] {
            let (value, more) = spread(span, |tokens| number(rounded(tokens) as u64));
            line(name, &value, &format!("{more} tokens"));
        }
        for (at, (tier, cost)) in estimate.cost.iter().enumerate() {
            let (value, more) = cost.map_or(("unknown".into(), String::new()), |cost| spread(cost, money));
            let own = if *tier == model.tier { ", this pipeline's tier" } else { "" };
            let more = format!("{more} ({}{own})", tier.as_str());
            line(if at == 0 { "cost" } else { "" }, &value, more.trim_start());
        }
        let (value, more) = spread(estimate.time, time);
        line("time", &value, &more);
        lines.push(String::new());
        lines.extend(self.assumptions().iter().map(|each| format!("- {each}")));
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Value {
        let (survey, estimate, pipeline) = (self.survey, self.estimate, &self.planned.pipeline);
        let span = |span: Span| json!({ "likely": span.likely, "least": span.least, "most": span.most });
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
            "unchanged": survey.unchanged, "reused": survey.reused, "repeated": survey.repeated,
            "calls": estimate.calls, "input_tokens": span(estimate.input), "output_tokens": span(estimate.output),
            "tokens_from": source, "cost_usd": Value::Object(costs.collect()), "time_s": span(estimate.time),
            "sample": sample, "assumptions": self.assumptions(),
        })
    }

    /// What the numbers rest on, a line each.
    fn assumptions(&self) -> Vec<String> {
        let mut told = self.of_the_tokens();
        told.push(self.of_the_prices());
        told.extend(self.of_the_cap());
        told.push(self.of_the_time());
        told.extend(self.of_the_rows());
        told
    }

    fn of_the_tokens(&self) -> Vec<String> {
        let (estimate, model) = (self.estimate, &self.planned.pipeline.model);
        if let Source::Answers(answers) = estimate.source {
            let bar = "± holds the truth in 95 of 100 samples";
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
                let why = why.as_ref().map_or("with a key the model would count some, free".to_owned(), |why| {
                    format!("the model counted none: {why}")
                });
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

    /// Whether the run would be parked on its way.
    fn of_the_cap(&self) -> Option<String> {
        let (model, cap) = (&self.planned.pipeline.model, self.planned.pipeline.run.max_cost?);
        let cap = prices::dollars(cap);
        let (_, cost) = self.estimate.cost.iter().find(|(tier, _)| *tier == model.tier)?;
        let then = match cost {
            Some(cost) if cost.least > cap => "is less than the run costs: it would be parked on its way",
            Some(cost) if cost.most.is_some_and(|most| most <= cap) => "is enough",
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
        if self.survey.repeated > 0 && !run.reuse_answers {
            told.push(
                "repeated prompts: asked once while they are in flight together; [run] reuse_answers makes that always"
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
