//! How long a run takes, as far as the user's own limits and the model's latency tell. What the model takes is not known before.

use super::Span;
use super::output::thinks;
use crate::pipeline::Pipeline;

/// Seconds that an answer takes, where nobody has measured: with hardly a thought, and with more. A guess, said to be one.
const SECONDS: (f64, f64) = (0.5, 3.0);
const SECONDS_THINKING: (f64, f64) = (2.0, 30.0);
/// Calls in flight double in so many seconds at the start (ARCHITECTURE.md, "How fast a model is asked").
const DOUBLES_IN: f64 = 0.1;

/// Seconds that one call takes, shortest and longest, where nobody has measured.
pub fn latency_of(pipeline: &Pipeline) -> (f64, f64) {
    if thinks(&pipeline.model) { SECONDS_THINKING } else { SECONDS }
}

/// Seconds of so many calls of so many tokens each, if one takes `latency`.
pub fn seconds(pipeline: &Pipeline, calls: u64, tokens: f64, latency: f64) -> f64 {
    if calls == 0 {
        return 0.0;
    }
    let model = &pipeline.model;
    let in_flight = f64::from(pipeline.run.max_in_flight).min(calls as f64);
    let mut rate = in_flight / latency.max(1e-3);
    if let Some(most) = model.requests_per_minute {
        rate = rate.min(f64::from(most) / 60.0);
    }
    if let Some(most) = model.tokens_per_minute {
        rate = rate.min(f64::from(most) / 60.0 / tokens.max(1.0));
    }
    (calls as f64 / rate).max(latency) + DOUBLES_IN * in_flight.log2()
}

/// The same for a range of latencies and of tokens a call.
pub(super) fn span(pipeline: &Pipeline, calls: u64, tokens: (f64, f64), latency: (f64, f64)) -> Span {
    let (least, most) = (seconds(pipeline, calls, tokens.0, latency.0), seconds(pipeline, calls, tokens.1, latency.1));
    Span { likely: None, least, most: Some(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(fields: &str) -> Pipeline {
        let text = include_str!("../../../../examples/themes.toml");
        Pipeline::parse(&text.replace("[model]\n", &format!("[model]\n{fields}\n"))).unwrap()
    }

    #[test]
    fn the_tightest_of_the_limits_sets_the_pace() {
        let time = |fields: &str| seconds(&pipeline(fields), 30_000, 700.0, 2.0).round();
        // 5,000 in flight for 2 s each, and a second for the ramp.
        assert_eq!(time(""), 13.0);
        assert_eq!(time("requests_per_minute = 6000"), 301.0);
        assert_eq!(time("tokens_per_minute = 2100000"), 601.0);
        assert_eq!(time("requests_per_minute = 6000\ntokens_per_minute = 2100000"), 601.0);
    }

    #[test]
    fn one_call_takes_as_long_as_it_takes_and_none_takes_none() {
        assert_eq!(seconds(&pipeline(""), 1, 700.0, 2.0), 2.0);
        assert_eq!(seconds(&pipeline(""), 0, 700.0, 2.0), 0.0);
        assert!(latency_of(&pipeline("")).1 < 10.0);
    }
}
