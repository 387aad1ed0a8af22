use super::*;
use crate::pipeline::{DEFAULT_MODEL, Thinking};

/// 2026-11-20.
const NOW: Millis = Millis(1_795_176_000_000);
const CALLS: Units = Units { count: 1_000, weight: 100_000.0 };

fn pipeline(fields: &str) -> Pipeline {
    let text = include_str!("../../../../examples/themes.toml");
    let text = text.replace("[model]\n", &format!("[model]\n{fields}\n"));
    Pipeline::parse(&text).unwrap()
}

fn of(fields: &str, evidence: &Evidence) -> Estimate {
    estimate(&pipeline(fields), CALLS, 300.0, evidence, NOW)
}

fn cost(estimate: &Estimate, tier: Tier) -> Option<Span> {
    estimate.cost.iter().find(|(of, _)| *of == tier).unwrap().1
}

#[test]
fn without_any_count_the_prompt_is_a_guess_and_the_answer_a_range() {
    let plan = of("", &Evidence::default());
    assert_eq!((plan.calls, plan.source), (1_000, Source::Guess));
    assert_eq!(plan.input, Span { likely: Some(400_000.0), least: 240_000.0, most: Some(560_000.0) });
    assert_eq!((plan.output.likely, plan.output.least), (None, 9_000.0));
    let standard = cost(&plan, Tier::Standard).unwrap();
    assert_eq!(pipeline("").model.name, DEFAULT_MODEL);
    assert!((standard.least - (240_000.0 * 0.30 + 9_000.0 * 2.50) / 1e6).abs() < 1e-9, "{standard:?}");
    assert_eq!(cost(&plan, Tier::Flex).map(|flex| flex.least), Some(standard.least / 2.0));
}

#[test]
fn an_unknown_price_is_none_and_a_price_of_ones_own_is_that_of_its_tier() {
    let unknown = of("", &Evidence::default());
    assert_eq!(cost(&unknown, Tier::Priority), None, "unknown, and not 0");
    let own = of("price = { input = 1.0, output = 2.0 }", &Evidence::default());
    assert_eq!(own.cost.len(), 1);
    assert!((cost(&own, Tier::Standard).unwrap().least - (240_000.0 + 2.0 * 9_000.0) / 1e6).abs() < 1e-9);
}

#[test]
fn thoughts_of_their_own_price_are_in_the_upper_end_of_a_model_that_thinks() {
    let of = |thought: &str, thinking| {
        let mut pipeline = pipeline(&format!("price = {{ input = 0, output = 2.0{thought} }}"));
        pipeline.model.thinking = Some(thinking);
        cost(&estimate(&pipeline, CALLS, 300.0, &Evidence::default(), NOW), Tier::Standard).unwrap()
    };
    let dearer = ", thought = 4.0";
    let (same, more) = (of("", Thinking::High), of(dearer, Thinking::High));
    assert_eq!((more.least, more.most), (same.least, same.most.map(|most| 2.0 * most)));
    assert_eq!(of(dearer, Thinking::Minimal), of("", Thinking::Minimal), "hardly a thought");
}

#[test]
fn counted_prompts_take_the_place_of_the_guess() {
    let counted = [80.0, 90.0, 110.0, 120.0].map(|weight| Known { weight, value: 350.0 + weight }).to_vec();
    let plan = of("", &Evidence { counted, ..Evidence::default() });
    assert_eq!(plan.source, Source::Counted(4));
    assert!((plan.input.likely.unwrap() - 450_000.0).abs() < 1e-6, "{:?}", plan.input);
    assert_eq!(plan.output.likely, None);
}

#[test]
fn answers_tell_all_of_it_with_an_error_bar() {
    let answer = |n: u64| Observed {
        weight: 100.0,
        usage: Usage { prompt: 500, output: 80 + n % 40, thought: 5, cached: 0 },
        seconds: 1.0 + n as f64 / 100.0,
    };
    let plan = of("", &Evidence { answers: (0..100).map(answer).collect(), ..Evidence::default() });
    assert_eq!((plan.source, plan.input.likely), (Source::Answers(100), Some(500_000.0)));
    let (output, standard) = (plan.output.likely.unwrap(), cost(&plan, Tier::Standard).unwrap());
    assert!((output / 102_500.0 - 1.0).abs() < 0.03, "{output}");
    assert!((standard.likely.unwrap() - (500_000.0 * 0.30 + output * 2.50) / 1e6).abs() < 1e-9);
    assert!(standard.least < standard.likely.unwrap() && standard.most.unwrap() < 1.1 * standard.likely.unwrap());
    assert_eq!(plan.latency, (1.25, 1.74));
}

#[test]
fn an_answer_without_an_end_has_a_cost_without_one() {
    let mut pipeline = pipeline("");
    (pipeline.answer[0].max_chars, pipeline.model.max_output_tokens) = (None, None);
    let plan = estimate(&pipeline, CALLS, 300.0, &Evidence::default(), NOW);
    assert_eq!((plan.output.most, cost(&plan, Tier::Standard).unwrap().most), (None, None));
    assert!(plan.time.most.is_some());
}

#[test]
fn what_asks_nothing_costs_nothing() {
    let plan = estimate(&pipeline(""), Units::default(), 300.0, &Evidence::default(), NOW);
    assert_eq!((plan.calls, plan.input.most, plan.output.most), (0, Some(0.0), Some(0.0)));
    assert_eq!((cost(&plan, Tier::Standard).unwrap().most, plan.time.most), (Some(0.0), Some(0.0)));
}
