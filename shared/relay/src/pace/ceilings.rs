//! Ceilings that a user sets: calls and tokens in a minute, kept evenly within it. Pure.

use super::meter::Meter;
use crate::pipeline::ModelSettings;
use std::time::Duration;

/// Tokens of a byte of the prompt, before a reply tells: English has four bytes a token, and answers and thoughts come on top.
const TOKENS_PER_BYTE: f64 = 1.0 / 3.0;
/// The weight of one more reply in their mean.
const WEIGHT: f64 = 0.05;

/// The share of one process in what a pipeline allows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// Calls per second.
    calls: Option<f64>,
    /// Tokens per second, of prompts, answers and thoughts.
    tokens: Option<f64>,
}

impl Ceilings {
    /// `[model] requests_per_minute` and `tokens_per_minute`, shared by so many processes.
    pub fn of(model: &ModelSettings, processes: u32) -> Ceilings {
        let share = |per_minute: Option<u32>| per_minute.map(|n| f64::from(n) / 60.0 / f64::from(processes.max(1)));
        Ceilings { calls: share(model.requests_per_minute), tokens: share(model.tokens_per_minute) }
    }
}

/// What calls to one model have used of their ceilings.
#[derive(Debug)]
pub(super) struct Used {
    calls: Meter,
    tokens: Meter,
    tokens_per_byte: f64,
}

impl Default for Used {
    fn default() -> Used {
        Used { calls: Meter::default(), tokens: Meter::default(), tokens_per_byte: TOKENS_PER_BYTE }
    }
}

impl Used {
    /// The earliest time from `now` at which a call under these ceilings may start.
    pub fn due(&self, now: Duration, ceilings: &Ceilings) -> Duration {
        let calls = ceilings.calls.map_or(now, |_| self.calls.due(now));
        calls.max(ceilings.tokens.map_or(now, |_| self.tokens.due(now)))
    }

    /// A call with a prompt of so many bytes starts. Returns its tokens, as estimated.
    pub fn take(&mut self, now: Duration, ceilings: &Ceilings, bytes: usize) -> f64 {
        let tokens = bytes as f64 * self.tokens_per_byte;
        if let Some(rate) = ceilings.calls {
            self.calls.take(now, 1.0, rate);
        }
        if let Some(rate) = ceilings.tokens {
            self.tokens.take(now, tokens, rate);
        }
        tokens
    }

    /// The call of so many bytes, whose tokens were estimated, had so many.
    pub fn settle(&mut self, ceilings: &Ceilings, bytes: usize, estimated: f64, tokens: u64) {
        if let Some(rate) = ceilings.tokens {
            self.tokens.correct(tokens as f64 - estimated, rate);
        }
        if tokens > 0 {
            self.tokens_per_byte += WEIGHT * (tokens as f64 / bytes.max(1) as f64 - self.tokens_per_byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes of calls of `tokens` tokens each, sent when they may be, and settled half a second later. Calls in each minute.
    fn minutes(
        requests_per_minute: Option<u32>,
        tokens_per_minute: Option<u32>,
        tokens: u64,
        processes: u32,
    ) -> Vec<u64> {
        let model = ModelSettings { requests_per_minute, tokens_per_minute, ..ModelSettings::default() };
        let (ceilings, mut used) = (Ceilings::of(&model, processes), Used::default());
        let (mut now, mut calls, mut flying) = (Duration::ZERO, vec![0; 5], std::collections::VecDeque::new());
        while now < Duration::from_secs(300) {
            while flying.front().is_some_and(|(back, _)| *back <= now) {
                let (_, estimated) = flying.pop_front().unwrap();
                used.settle(&ceilings, 300, estimated, tokens);
            }
            match used.due(now, &ceilings) {
                due if due > now => now = due.min(flying.front().map_or(due, |(back, _)| *back)),
                _ => {
                    calls[now.as_secs() as usize / 60] += 1;
                    flying.push_back((now + Duration::from_millis(500), used.take(now, &ceilings, 300)));
                }
            }
        }
        calls
    }

    #[test]
    fn a_ceiling_of_calls_is_kept_in_each_minute_and_used() {
        for calls in minutes(Some(600), None, 1, 1) {
            assert!((599..=601).contains(&calls), "{calls}");
        }
        assert!(
            minutes(Some(600), None, 1, 4).iter().all(|calls| (149..=151).contains(calls)),
            "a quarter for each of four"
        );
    }

    #[test]
    fn a_ceiling_of_tokens_is_kept_though_a_prompt_does_not_tell_them() {
        // 300 bytes are taken for 100 tokens at first, and are 1,000.
        for calls in minutes(None, Some(600_000), 1_000, 1).into_iter().skip(1) {
            assert!((590..=605).contains(&calls), "{calls}");
        }
        assert!(minutes(None, Some(600_000), 1_000, 1)[0] <= 610, "what was estimated too low is made up for");
    }

    #[test]
    fn without_ceilings_nothing_waits() {
        let (mut used, now) = (Used::default(), Duration::from_secs(9));
        (0..1_000).for_each(|_| assert!(used.take(now, &Ceilings::default(), 1 << 20) > 0.0));
        assert_eq!(used.due(now, &Ceilings::default()), now);
    }
}
