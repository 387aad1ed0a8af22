//! How far a run is: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use crate::logs;
use crate::show::{dollars, number};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;
use tasuki_relay::clock::Clock;
use tasuki_relay::prices;
use tokio::time::Instant;

/// How often the bar is drawn anew.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The rate is that of so long.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Fewer rows say nothing of what the others cost.
const DONE_MIN: u64 = 20;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) done: u64,
    /// Rows, once the file was read to its end.
    pub(crate) total: Option<u64>,
    pub(crate) failed: u64,
    /// Calls, where they can be seen.
    pub(crate) in_flight: Option<u64>,
    /// Replies that said "busy".
    pub(crate) busy: u64,
    pub(crate) tokens: (u64, u64),
    /// Picodollars; `None` when a part of it is not known.
    pub(crate) spent: Option<u64>,
}

impl Shown {
    /// What all rows come to, if the others are like those that are done; `None` when that cannot be told, or is told already.
    fn projected(&self) -> Option<u64> {
        let (spent, total) = (u128::from(self.spent?), self.total?);
        let goes_on = self.done >= DONE_MIN && total > self.done;
        goes_on.then(|| spent * u128::from(total) / u128::from(self.done)).and_then(|sum| u64::try_from(sum).ok())
    }
}

pub(crate) struct Progress {
    clock: Clock,
    bar: Option<ProgressBar>,
    /// When how many rows were done, over the last [`RATE_OVER`].
    past: VecDeque<(Instant, u64)>,
    lined: Instant,
    last: Shown,
}

impl Progress {
    pub(crate) fn start(clock: &Clock) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::no_length().with_style(style(false)));
        logs::around(bar.clone());
        Progress { clock: clock.clone(), bar, past: VecDeque::new(), lined: clock.instant(), last: Shown::default() }
    }

    /// Shows the state of things.
    pub(crate) fn show(&mut self, shown: Shown) {
        let now = self.clock.instant();
        self.past.push_back((now, shown.done));
        while self.past.front().is_some_and(|(then, _)| now.duration_since(*then) > RATE_OVER) {
            self.past.pop_front();
        }
        let text = text(&shown, self.rate());
        match &self.bar {
            Some(bar) => {
                if let (Some(total), None) = (shown.total, bar.length()) {
                    bar.set_style(style(true));
                    bar.set_length(total);
                }
                bar.set_message(text);
                bar.set_position(shown.done);
            }
            None if now.duration_since(self.lined) >= LINE_EVERY && shown != self.last => {
                (self.lined, self.last) = (now, shown);
                let of = shown.total.map(|total| format!(" of {}", number(total))).unwrap_or_default();
                eprintln!("{}{of} rows done, {text}", number(shown.done));
            }
            None => (),
        }
    }

    /// Writes a line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Rows per second.
    fn rate(&self) -> f64 {
        let (Some((first, from)), Some((last, to))) = (self.past.front(), self.past.back()) else { return 0.0 };
        let time = last.duration_since(*first).as_secs_f64();
        if time > 0.0 { to.saturating_sub(*from) as f64 / time } else { 0.0 }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        logs::around(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = match with_total {
        true => "{bar:24.cyan/dim} {human_pos} of {human_len} rows, {wide_msg}",
        false => "{spinner} {human_pos} rows done, {wide_msg}",
    };
    ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("━━─")
}

fn text(shown: &Shown, rate: f64) -> String {
    let mut text = format!("{} failed, {} rows/s", number(shown.failed), number(rate.round() as u64));
    if let Some(total) = shown.total.filter(|total| rate > 0.0 && *total > shown.done) {
        let left = Duration::from_secs_f64(((total - shown.done) as f64 / rate).min(1e9));
        text += &format!(", {} left", HumanDuration(left));
    }
    if let Some(calls) = shown.in_flight {
        text += &format!(", {} in flight", number(calls));
    }
    if shown.tokens != (0, 0) {
        text += &format!(", {} + {} tokens", number(shown.tokens.0), number(shown.tokens.1));
    }
    if let Some(spent) = shown.spent.filter(|spent| *spent > 0) {
        text += &format!(", {} spent", dollars(prices::dollars(spent)));
        if let Some(sum) = shown.projected() {
            text += &format!(", about {} in all", dollars(prices::dollars(sum)));
        }
    }
    if shown.busy > 0 {
        text += &format!(", {} times turned away", number(shown.busy));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_there_is_to_say() {
        let (total, in_flight) = (Some(1_050), Some(1_200));
        let shown = Shown { done: 50, total, failed: 2, in_flight, busy: 0, tokens: (10, 20), spent: None };
        assert_eq!(text(&shown, 10.0), "2 failed, 10 rows/s, 2 minutes left, 1,200 in flight, 10 + 20 tokens");
        assert_eq!(text(&Shown::default(), 0.0), "0 failed, 0 rows/s");
    }

    #[test]
    fn what_all_rows_will_cost_is_told_once_twenty_are_done_and_only_if_it_is_known() {
        let told = |done, spent| {
            let shown = Shown { done, total: Some(100), spent, ..Shown::default() };
            text(&shown, 0.0).replacen("0 failed, 0 rows/s", "", 1)
        };
        let cents = |cents: u64| Some(cents * 10_000_000_000);
        assert_eq!(told(20, cents(42)), ", $0.42 spent, about $2.10 in all");
        assert_eq!(told(19, cents(42)), ", $0.42 spent");
        assert_eq!(told(100, cents(42)), ", $0.42 spent", "that is all of it");
        assert_eq!([told(50, None), told(50, Some(0))], ["", ""]);
        let shown = Shown { done: 50, total: Some(u64::MAX), spent: Some(u64::MAX), ..Shown::default() };
        assert_eq!(shown.projected(), None, "more than there is");
        assert_eq!(Shown { total: None, ..shown }.projected(), None);
    }
}
