//! The generator's line: one for each answers object, with all that its shard took. Its fields are in the telemetry's table
//! (`tasuki_google::telemetry`).

use std::collections::BTreeMap;
use tasuki_relay::record::{AnswerLine, Header, Outcome, Spent};

/// Picodollars in a microdollar: a shard costs thousands of these.
const PICO_IN_MICRO: u64 = 1_000_000;

/// What the lines of a shard do not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    /// Times that the shard was claimed; 0 when it needed no call.
    pub epochs: u32,
    /// Replies that said "busy", since the last claim.
    pub rejected: u32,
    /// Time that rows waited for their turn to call, since the last claim: all together.
    pub waited_ms: u64,
    /// Calls in flight of the process now.
    pub in_flight: u64,
}

/// Totals of a shard's lines.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    answered: u64,
    failed: u64,
    unchanged: u64,
    /// Failed rows by the first word of their reason: what follows a colon is the model's.
    reasons: BTreeMap<String, u64>,
    spent: Spent,
    /// Of the rows that were asked, in order.
    latencies: Vec<u64>,
}

impl Summary {
    fn of<'a>(lines: impl IntoIterator<Item = &'a AnswerLine>) -> Summary {
        let mut summary = Summary::default();
        for line in lines {
            match &line.outcome {
                Outcome::Answer(_) => summary.answered += 1,
                Outcome::Unchanged(_) => summary.unchanged += 1,
                Outcome::Failed(failed) => {
                    let reason = failed.reason.split(':').next().unwrap_or_default();
                    *summary.reasons.entry(reason.to_owned()).or_default() += 1;
                    summary.failed += 1;
                }
            }
            summary.spent.attempts += line.spent.attempts;
            summary.spent.paid_calls += line.spent.paid_calls;
            summary.spent.ambiguous_calls += line.spent.ambiguous_calls;
            summary.spent.usage += line.spent.usage;
            summary.spent.cost += line.spent.cost;
            summary.spent.reused += line.spent.reused;
            summary.spent.latency_ms += line.spent.latency_ms;
            if line.spent.attempts > 0 {
                summary.latencies.push(line.spent.latency_ms);
            }
        }
        summary.latencies.sort_unstable();
        summary
    }

    /// `malformed=2,timeout=1`.
    fn reasons(&self) -> String {
        let each = self.reasons.iter().map(|(reason, rows)| format!("{reason}={rows}"));
        each.collect::<Vec<_>>().join(",")
    }

    /// The latency that so many hundredths of the rows that were asked do not exceed; 0 when none was.
    fn latency(&self, hundredths: usize) -> u64 {
        let rank = (self.latencies.len() * hundredths).div_ceil(100);
        rank.checked_sub(1).and_then(|at| self.latencies.get(at)).copied().unwrap_or(0)
    }
}

pub(crate) fn log(header: &Header, lines: &BTreeMap<u64, AnswerLine>, effort: Effort) {
    let (run, shard) = (&header.run, header.shard);
    let summary = Summary::of(lines.values());
    let Spent { attempts, paid_calls, ambiguous_calls, usage, cost, reused, latency_ms, .. } = summary.spent;
    tracing::info!(
        leg = "generator", %run, %shard, pipeline = header.pipeline, rows = lines.len() as u64,
        answered = summary.answered, failed = summary.failed, unchanged = summary.unchanged, reasons = summary.reasons(),
        calls = attempts + effort.rejected, paid_calls, ambiguous_calls, rejected = effort.rejected, waited_ms = effort.waited_ms,
        in_flight = effort.in_flight, wasted = header.wasted_answers,
        epochs = effort.epochs, prompt_tokens = usage.prompt, output_tokens = usage.output,
        thought_tokens = usage.thought, cached_tokens = usage.cached, reused, cost_microusd = (cost + header.wasted.cost) / PICO_IN_MICRO, latency_sum_ms = latency_ms,
        latency_p50_ms = summary.latency(50), latency_p95_ms = summary.latency(95),
        latency_max_ms = summary.latency(100), "generated shard {shard} of run {run}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tasuki_relay::record::{Answer, Failed, Usage};

    fn line(outcome: Outcome, attempts: u32, latency_ms: u64) -> AnswerLine {
        let usage = Usage { prompt: 10 * u64::from(attempts), ..Usage::default() };
        let spent = Spent { attempts, paid_calls: attempts, usage, latency_ms, ..Spent::default() };
        AnswerLine { ordinal: 0, key: None, outcome, spent }
    }

    fn answered(latency_ms: u64) -> AnswerLine {
        let answer = Answer { values: Default::default(), fingerprint: "f".into(), model: "m".into() };
        line(Outcome::Answer(answer), 1, latency_ms)
    }

    fn failed(reason: &str, attempts: u32) -> AnswerLine {
        line(
            Outcome::Failed(Failed { reason: reason.into(), message: "canary".into() }),
            attempts,
            7 * u64::from(attempts),
        )
    }

    #[test]
    fn what_the_model_calls_a_reason_is_not_counted_apart() {
        let lines =
            [failed("blocked_prompt:SAFETY", 1), failed("blocked_prompt:canary", 1), failed("duplicate_key", 0)];
        let summary = Summary::of(&lines);
        assert_eq!(summary.reasons(), "blocked_prompt=2,duplicate_key=1");
        assert_eq!((summary.failed, summary.spent.attempts, summary.spent.usage.prompt), (3, 2, 20));
    }

    #[test]
    fn latencies_are_those_of_rows_that_were_asked() {
        let mut lines: Vec<AnswerLine> = (1..=100).map(answered).collect();
        lines.extend([failed("duplicate_key", 0), line(Outcome::Unchanged("f".into()), 0, 0)]);
        let summary = Summary::of(&lines);
        assert_eq!([50, 95, 100].map(|hundredths| summary.latency(hundredths)), [50, 95, 100]);
        assert_eq!((summary.answered, summary.unchanged, summary.spent.latency_ms), (100, 1, 5_050));
        assert_eq!(Summary::of(&[]).latency(95), 0);
    }
}
