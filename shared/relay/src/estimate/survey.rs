//! What of a file is to be asked: counted row by row, so that memory grows by a hash for each distinct prompt alone.

use super::{Units, guess};
use crate::pipeline::Pipeline;
use crate::schema::response_schema;
use std::collections::{BTreeMap, BTreeSet};

/// Why a row that could be asked is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// `only_changed`, and the table holds the answer.
    Unchanged,
    /// `reuse_answers`, and an earlier run has paid for the answer.
    Reused,
}

/// A file, as far as it was read.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Rows.
    pub rows: u64,
    /// Rows that fail before they are asked, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Rows whose answer the table holds.
    pub unchanged: u64,
    /// Rows whose answer an earlier run has paid for.
    pub reused: u64,
    /// Rows with the prompt of an earlier row: no calls, or calls like the first.
    pub repeated: Units,
    /// The calls of distinct prompts, by their guessed tokens.
    pub calls: Units,
    /// Guessed tokens of what every call says: the system instruction and the schema.
    pub fixed: f64,
    /// Prompts that were drawn to be counted.
    pub prompts: Draw<String>,
    /// Rows that were drawn to be asked: their ordinals.
    pub sample: Draw<u64>,
    asked: BTreeSet<u128>,
    held: BTreeSet<u128>,
}

impl Survey {
    /// Of a file for this pipeline, with so many prompts and rows drawn from it.
    pub fn new(pipeline: &Pipeline, prompts: usize, sample: usize) -> Survey {
        let system = pipeline.system.as_deref().map_or(0.0, guess);
        Survey {
            rows: 0,
            failed: BTreeMap::new(),
            unchanged: 0,
            reused: 0,
            repeated: Units::default(),
            calls: Units::default(),
            fixed: system + guess(&response_schema(pipeline).to_string()),
            prompts: Draw::new(prompts),
            sample: Draw::new(sample),
            asked: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    /// A row that fails before it is asked.
    pub fn fail(&mut self, reason: &str) {
        self.rows += 1;
        *self.failed.entry(reason.to_owned()).or_default() += 1;
    }

    /// A row that need not be asked.
    pub fn hold(&mut self, held: Held, fingerprint: &str) {
        self.rows += 1;
        self.held.insert(id(fingerprint));
        match held {
            Held::Unchanged => self.unchanged += 1,
            Held::Reused => self.reused += 1,
        }
    }

    /// A row to ask.
    pub fn ask(&mut self, ordinal: u64, prompt: &str, fingerprint: &str) {
        self.rows += 1;
        let id = id(fingerprint);
        if !self.asked.insert(id) {
            self.repeated.add(guess(prompt));
            return;
        }
        self.calls.add(guess(prompt));
        self.prompts.offer(id, || prompt.to_owned());
        self.sample.offer(id, || ordinal);
    }

    /// Rows that fail before they are asked.
    pub fn bad(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many times as much as so many calls take all takes at most, if every repeated prompt is asked each time: their prompts
    /// may be the longer ones. `None` where there is no call to compare with.
    pub fn with_repeats(&self, calls: u64) -> Option<f64> {
        let mean = |units: Units| units.weight / units.count as f64;
        if self.repeated.count == 0 {
            return Some(1.0);
        }
        let longer = (mean(self.repeated) / mean(self.calls)).max(1.0);
        (calls > 0).then(|| 1.0 + longer * self.repeated.count as f64 / calls as f64)
    }

    /// Distinct prompts, also of rows that need not be asked any more: as many as a sample could ever hold.
    pub fn distinct(&self) -> usize {
        self.asked.union(&self.held).count()
    }

    /// Whether a call of this fingerprint is among the calls.
    pub fn asks(&self, fingerprint: &str) -> bool {
        self.asked.contains(&id(fingerprint))
    }
}

/// Fingerprints are 32 hexadecimal digits of a hash. Of anything else nothing is known.
fn id(fingerprint: &str) -> u128 {
    u128::from_str_radix(fingerprint, 16).unwrap_or_default()
}

/// A simple random sample of distinct prompts: those with the smallest hashes. The same file and pipeline give the same, in
/// whatever order the rows come, and a larger sample holds a smaller one.
#[derive(Clone, Debug)]
pub struct Draw<T> {
    most: usize,
    drawn: BTreeMap<u128, T>,
}

impl<T> Draw<T> {
    fn new(most: usize) -> Draw<T> {
        Draw { most, drawn: BTreeMap::new() }
    }

    fn offer(&mut self, id: u128, item: impl FnOnce() -> T) {
        let is_full = self.drawn.len() >= self.most;
        if is_full && self.drawn.last_key_value().is_none_or(|(last, _)| *last < id) {
            return;
        }
        self.drawn.insert(id, item());
        if is_full {
            self.drawn.pop_last();
        }
    }

    /// What was drawn.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.drawn.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(prompts: impl IntoIterator<Item = usize>, sample: usize) -> Survey {
        let pipeline = Pipeline::parse(include_str!("../../../../examples/themes.toml")).unwrap();
        let prompter = crate::prompt::Prompter::new(std::sync::Arc::new(pipeline.clone())).unwrap();
        let mut survey = Survey::new(&pipeline, 3, sample);
        for n in prompts {
            let prompt = format!("prompt {n}");
            survey.ask(n as u64, &prompt, &prompter.fingerprint(&prompt));
        }
        survey
    }

    #[test]
    fn each_distinct_prompt_is_one_call() {
        let mut survey = survey([1, 2, 1, 3, 1], 2);
        survey.fail("missing_key");
        survey.hold(Held::Unchanged, "1");
        survey.hold(Held::Reused, "2");
        assert_eq!((survey.rows, survey.calls.count, survey.repeated.count, survey.bad()), (8, 3, 2, 1));
        assert_eq!((survey.unchanged, survey.reused, survey.distinct()), (1, 1, 5));
    }

    #[test]
    fn repeats_may_be_as_many_calls_more_and_longer_ones() {
        let as_long = survey([1, 2, 1, 3, 1, 2], 0);
        assert_eq!(as_long.with_repeats(3), Some(2.0));
        assert_eq!(as_long.with_repeats(1), Some(4.0), "where answers of before spare two calls");
        assert_eq!((as_long.with_repeats(0), survey([1, 2], 0).with_repeats(0)), (None, Some(1.0)));
        let longer = survey([1, 1_000_000_000, 1_000_000_000], 0);
        assert!(longer.with_repeats(2).is_some_and(|times| times > 1.5), "{longer:?}");
    }

    #[test]
    fn a_sample_is_the_same_in_any_order_and_a_larger_one_holds_it() {
        let drawn = |survey: &Survey| survey.sample.items().copied().collect::<BTreeSet<_>>();
        let (small, back) = (drawn(&survey(0..500, 10)), drawn(&survey((0..500).rev(), 10)));
        assert_eq!((small.len(), &small), (10, &back));
        assert!(small.is_subset(&drawn(&survey(0..500, 100))));
        assert_eq!(drawn(&survey(0..5, 10)).len(), 5, "no more than there are");
        assert!(survey(0..5, 0).sample.items().next().is_none());
    }

    #[test]
    fn every_row_is_drawn_equally_often() {
        // Over 200 files of 50 rows, each of ten places of a tenth of the file: 1,000 draws in ten places.
        let mut places = [0; 10];
        for file in 0..200 {
            let survey = survey((0..50).map(|n| file * 1_000 + n), 5);
            survey.sample.items().for_each(|ordinal| places[(*ordinal % 1_000) as usize / 5] += 1);
        }
        assert!(places.iter().all(|place| (65..=135).contains(place)), "{places:?}");
    }
}
