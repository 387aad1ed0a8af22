//! Checkpoints: what a shard's earlier holders paid for. A merge of immutable segments: total, commutative, idempotent.

use crate::names::Segment;
use crate::record::{AnswerLine, Bill, CheckpointLine, Counts, GivenBack, Outcome, Spent};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that a shard answers between two checkpoints: bounds what a crash wastes.
pub const ROWS_PER_CHECKPOINT: usize = 25;
/// Longest time between two checkpoints while answers arrive.
pub const CHECKPOINT_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// Epochs in which a row met only server errors while others succeeded, after which it fails.
pub const SERVER_ERROR_EPOCHS: usize = 3;
/// Epochs in which a row was withheld without a success in its run, after which it fails.
pub const WITHHELD_EPOCHS: usize = 3;
/// Deaths with a row's marker as the last word, after which the row fails.
pub const POISON_DEATHS: usize = 2;

/// The segments of one shard, by epoch and sequence. Where two hold a row, the lowest wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoints(BTreeMap<(u32, u32), Vec<CheckpointLine>>);

impl Checkpoints {
    /// Adds a segment. Segments are immutable, so adding one twice changes nothing, and their order does not matter.
    pub fn add(&mut self, segment: &Segment, lines: Vec<CheckpointLine>) {
        self.0.insert((segment.epoch, segment.seq), lines);
    }

    /// Both.
    pub fn merge(mut self, other: Checkpoints) -> Checkpoints {
        self.0.extend(other.0);
        self
    }

    /// The highest epoch that wrote one; 0 when none did.
    pub fn epoch(&self) -> u32 {
        self.0.last_key_value().map_or(0, |((epoch, _), _)| *epoch)
    }

    fn lines(&self) -> impl Iterator<Item = (u32, &CheckpointLine)> {
        self.0.iter().flat_map(|((epoch, _), lines)| lines.iter().map(|line| (*epoch, line)))
    }

    /// The outcome of every row that has one, and the paid answers that lost against it: how many, and what they cost.
    pub fn settled(&self) -> (BTreeMap<u64, AnswerLine>, u64, Bill) {
        let (mut settled, mut wasted, mut bill) = (BTreeMap::<u64, AnswerLine>::new(), 0, Bill::default());
        for (_, line) in self.lines() {
            let line = match line {
                CheckpointLine::Settled(line) => line,
                CheckpointLine::Proof { bill: of, .. } => {
                    wasted += 1;
                    bill += *of;
                    continue;
                }
                CheckpointLine::Unsettled { .. } | CheckpointLine::Marker { .. } => continue,
            };
            match settled.get(&line.ordinal) {
                None => drop(settled.insert(line.ordinal, line.clone())),
                Some(first) if first != line => {
                    wasted += u64::from(line.spent.paid_calls > 0);
                    bill += line.spent.bill();
                }
                Some(_) => (), // the same line again: its first segment was not confirmed
            }
        }
        (settled, wasted, bill)
    }

    /// The calls of all that is in them: of rows with an outcome, of answers that lost, and of rows that were given back, of whose
    /// replies nothing is kept. No rows and no parts: those count when they are loaded.
    pub fn counts(&self) -> Counts {
        let (settled, wasted_answers, wasted) = self.settled();
        let given_back: BTreeMap<u64, Spent> = self
            .lines()
            .filter_map(|(_, line)| match line {
                CheckpointLine::Unsettled { ordinal, spent, .. } => Some((*ordinal, *spent)),
                _ => None,
            })
            .filter(|(ordinal, _)| !settled.contains_key(ordinal))
            .collect();
        let mut counts = Counts::default();
        counts.throw_away(wasted_answers, wasted);
        settled.values().for_each(|line| counts.spend(&line.spent, matches!(line.outcome, Outcome::Failed(_))));
        for mut spent in given_back.into_values() {
            spent.forget_draft();
            counts.spend(&spent, false);
        }
        counts
    }

    /// What a row without an outcome took so far.
    pub fn spent(&self, ordinal: u64) -> Spent {
        let spent = self.lines().filter_map(|(_, line)| match line {
            CheckpointLine::Unsettled { ordinal: of, spent, .. } if *of == ordinal => Some(*spent),
            _ => None,
        });
        spent.last().unwrap_or_default()
    }

    /// In how many epochs a row was given back for a server error while another row of the shard was answered.
    pub fn server_error_epochs(&self, ordinal: u64) -> usize {
        let answered: BTreeSet<u32> =
            self.lines().filter(|(_, line)| is_answer(line)).map(|(epoch, _)| epoch).collect();
        self.given_back(ordinal, GivenBack::ServerError).intersection(&answered).count()
    }

    /// In how many epochs a row was withheld.
    pub fn withheld_epochs(&self, ordinal: u64) -> usize {
        self.given_back(ordinal, GivenBack::Withheld).len()
    }

    fn given_back(&self, ordinal: u64, reason: GivenBack) -> BTreeSet<u32> {
        let given_back = self.lines().filter(|(_, line)| {
            matches!(line, CheckpointLine::Unsettled { ordinal: of, why, .. } if *of == ordinal && *why == reason)
        });
        given_back.map(|(epoch, _)| epoch).collect()
    }

    /// The rows whose marker was the last word of [`POISON_DEATHS`] epochs: they kill their process.
    pub fn poisonous(&self) -> BTreeSet<u64> {
        let mut last_words = BTreeMap::<u32, u64>::new();
        for (epoch, line) in self.lines() {
            match line {
                CheckpointLine::Marker { ordinal } => {
                    last_words.insert(epoch, *ordinal);
                }
                CheckpointLine::Settled(_) | CheckpointLine::Unsettled { .. } | CheckpointLine::Proof { .. } => {
                    last_words.remove(&epoch);
                }
            }
        }
        let mut deaths = BTreeMap::<u64, usize>::new();
        last_words.values().for_each(|ordinal| *deaths.entry(*ordinal).or_default() += 1);
        deaths.into_iter().filter(|(_, deaths)| *deaths >= POISON_DEATHS).map(|(ordinal, _)| ordinal).collect()
    }
}

/// The model answered in this epoch.
fn is_answer(line: &CheckpointLine) -> bool {
    matches!(
        line,
        CheckpointLine::Settled(AnswerLine { outcome: Outcome::Answer(_), spent: Spent { reused: 0, .. }, .. })
            | CheckpointLine::Proof { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{RunId, ShardId, ShardIndex};
    use crate::record::{Answer, Failed};
    use proptest::prelude::*;

    fn segment(epoch: u32, seq: u32) -> Segment {
        Segment { shard: ShardId { run: RunId::of("b", "n", 1), shard: ShardIndex(0) }, epoch, seq }
    }

    fn answer(ordinal: u64, model: &str) -> CheckpointLine {
        let answer = Answer { values: Default::default(), fingerprint: String::new(), model: model.to_owned() };
        let spent = Spent { attempts: 1, paid_calls: 1, ..Spent::default() };
        CheckpointLine::Settled(AnswerLine { ordinal, key: None, outcome: Outcome::Answer(answer), spent })
    }

    fn back(ordinal: u64, why: GivenBack) -> CheckpointLine {
        CheckpointLine::Unsettled { ordinal, spent: Spent { attempts: 3, ..Spent::default() }, why }
    }

    fn any_line() -> impl Strategy<Value = CheckpointLine> {
        let failed = Outcome::Failed(Failed { reason: "malformed".into(), message: String::new() });
        prop_oneof![
            (0..6u64, "[ab]").prop_map(|(ordinal, model)| answer(ordinal, &model)),
            (0..6u64).prop_map(move |ordinal| CheckpointLine::Settled(AnswerLine {
                ordinal,
                key: None,
                outcome: failed.clone(),
                spent: Spent::default()
            })),
            (0..6u64).prop_map(|ordinal| back(ordinal, GivenBack::ServerError)),
            (0..6u64).prop_map(|ordinal| CheckpointLine::Marker { ordinal }),
        ]
    }

    /// Segments with distinct names, as storage holds them.
    fn segments() -> impl Strategy<Value = BTreeMap<(u32, u32), Vec<CheckpointLine>>> {
        proptest::collection::btree_map((1..4u32, 0..4u32), proptest::collection::vec(any_line(), 0..5), 0..8)
    }

    fn collect<'a>(of: impl Iterator<Item = (&'a (u32, u32), &'a Vec<CheckpointLine>)>) -> Checkpoints {
        let mut all = Checkpoints::default();
        of.for_each(|((epoch, seq), lines)| all.add(&segment(*epoch, *seq), lines.clone()));
        all
    }

    proptest! {
        #[test]
        fn a_merge_is_total_commutative_and_idempotent(all in segments(), cut in 0..8usize) {
            let whole = collect(all.iter());
            let (left, right) = (collect(all.iter().take(cut)), collect(all.iter().skip(cut)));
            prop_assert_eq!(left.clone().merge(right.clone()).settled(), whole.settled());
            prop_assert_eq!(right.merge(left).poisonous(), whole.poisonous());
            prop_assert_eq!(collect(all.iter().rev()), whole.clone());
            prop_assert_eq!(whole.clone().merge(whole.clone()), whole);
        }
    }

    #[test]
    fn the_lowest_epoch_and_sequence_wins_and_the_loser_is_counted_as_waste() {
        let mut all = Checkpoints::default();
        all.add(&segment(2, 1), vec![answer(7, "late")]);
        all.add(&segment(1, 9), vec![answer(7, "first"), answer(8, "other")]);
        all.add(&segment(1, 10), vec![answer(8, "other")]);
        let (settled, wasted, bill) = all.settled();
        assert!(matches!(&settled[&7].outcome, Outcome::Answer(answer) if answer.model == "first"));
        assert_eq!((settled.len(), wasted, bill.calls), (2, 1, 1), "the same line twice is no waste");
    }

    #[test]
    fn what_was_paid_is_counted_once_also_of_rows_that_were_given_back() {
        let mut all = Checkpoints::default();
        let costs = |cost| Spent { paid_calls: 1, cost, ..Spent::default() };
        let settled = |ordinal, cost| match answer(ordinal, "m") {
            CheckpointLine::Settled(line) => CheckpointLine::Settled(AnswerLine { spent: costs(cost), ..line }),
            other => other,
        };
        let back = |ordinal, cost| CheckpointLine::Unsettled { ordinal, spent: costs(cost), why: GivenBack::Stopped };
        all.add(&segment(1, 0), vec![settled(1, 1), back(2, 10), back(3, 100)]);
        all.add(&segment(2, 0), vec![settled(1, 1), settled(2, 30), back(3, 400)]);
        all.add(&segment(3, 0), vec![settled(2, 1_000)]);
        let counts = all.counts();
        assert_eq!((counts.cost, counts.paid_calls, counts.rows()), (1 + 30 + 400 + 1_000, 4, 0));
        assert_eq!((counts.retries.cost, counts.waste.cost, counts.wasted_answers), (400, 1_000, 1));
    }

    #[test]
    fn a_server_error_counts_only_in_epochs_in_which_others_succeeded() {
        let mut all = Checkpoints::default();
        all.add(&segment(1, 0), vec![back(1, GivenBack::ServerError)]);
        all.add(&segment(2, 0), vec![back(1, GivenBack::ServerError), answer(2, "m")]);
        all.add(&segment(3, 0), vec![answer(3, "m"), back(1, GivenBack::Stopped)]);
        assert_eq!(all.server_error_epochs(1), 1);
        assert_eq!(all.spent(1).attempts, 3);
    }

    #[test]
    fn only_a_marker_that_was_the_last_word_at_two_deaths_is_poison() {
        let mut all = Checkpoints::default();
        let marker = |ordinal| vec![CheckpointLine::Marker { ordinal }];
        all.add(&segment(5, 0), marker(1));
        all.add(&segment(5, 1), vec![answer(1, "m")]);
        all.add(&segment(5, 2), marker(2));
        all.add(&segment(6, 0), marker(3));
        assert!(all.poisonous().is_empty());
        all.add(&segment(7, 0), marker(2));
        assert_eq!(all.poisonous(), BTreeSet::from([2]));
    }
}
