use super::{Bill, Spent, Usage};
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Counters of a part, or of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Parts.
    pub shards: u64,
    /// Answers that are in the target.
    pub loaded: u64,
    /// Rows that failed, cancelled ones included.
    pub failed: u64,
    /// Rows that failed because a person cancelled the run.
    pub cancelled: u64,
    /// Rows whose answer was there already.
    pub unchanged: u64,
    /// Rows of which a newer run's answer is in the target.
    pub superseded: u64,
    /// Calls that the model charged for, those of answers that were thrown away too.
    pub paid_calls: u64,
    /// Calls of which nobody knows.
    pub ambiguous_calls: u64,
    /// Paid answers that were thrown away.
    pub wasted_answers: u64,
    /// Tokens of all that was paid.
    pub usage: Usage,
    /// What all of it cost, as far as prices are known: picodollars.
    pub cost: u64,
    /// Paid calls whose price is not known.
    pub unpriced_calls: u64,
    /// Answers that were taken from the cache.
    pub reused_answers: u64,
    /// Answers that two processes paid for at the same time, because the cache had none yet.
    pub duplicate_prompts: u64,
    /// Of all that was paid, for rows that have an answer: see [`Spent::retries`].
    pub retries: Bill,
    /// Likewise: see [`Spent::salvage`].
    pub salvage: Bill,
    /// Of all that was paid: for rows that failed, and for answers that were thrown away.
    pub waste: Bill,
}

impl Counts {
    /// The columns that a store keeps them in, in the order of [`Counts::values`].
    pub const COLUMNS: [&str; 35] = [
        "shards",
        "loaded",
        "failed",
        "cancelled",
        "unchanged",
        "superseded",
        "paid_calls",
        "ambiguous_calls",
        "wasted_answers",
        "prompt_tokens",
        "output_tokens",
        "thought_tokens",
        "cached_tokens",
        "cost",
        "unpriced_calls",
        "reused_answers",
        "duplicate_prompts",
        "retry_calls",
        "retry_prompt_tokens",
        "retry_output_tokens",
        "retry_thought_tokens",
        "retry_cached_tokens",
        "retry_cost",
        "salvage_calls",
        "salvage_prompt_tokens",
        "salvage_output_tokens",
        "salvage_thought_tokens",
        "salvage_cached_tokens",
        "salvage_cost",
        "waste_calls",
        "waste_prompt_tokens",
        "waste_output_tokens",
        "waste_thought_tokens",
        "waste_cached_tokens",
        "waste_cost",
    ];

    /// All of them, in the order of [`Counts::COLUMNS`].
    pub fn values(&self) -> [u64; 35] {
        let rows = [self.shards, self.loaded, self.failed, self.cancelled, self.unchanged, self.superseded];
        let calls = [self.paid_calls, self.ambiguous_calls, self.wasted_answers];
        let Usage { prompt, output, thought, cached } = self.usage;
        let tokens = [prompt, output, thought, cached];
        let bill = [self.cost, self.unpriced_calls, self.reused_answers, self.duplicate_prompts];
        let classes = [self.retries, self.salvage, self.waste].map(|class| class.values());
        let all = [&rows[..], &calls, &tokens, &bill, classes.as_flattened()].concat();
        all.try_into().expect("as many as there are columns")
    }

    /// The inverse of [`Counts::values`].
    pub fn of(values: [u64; 35]) -> Counts {
        let [shards, loaded, failed, cancelled, unchanged, superseded, values @ ..] = values;
        let [paid_calls, ambiguous_calls, wasted_answers, prompt, output, thought, cached, values @ ..] = values;
        let [cost, unpriced_calls, reused_answers, duplicate_prompts, classes @ ..] = values;
        let (classes, _) = classes.as_chunks::<6>();
        let [retries, salvage, waste] = [0, 1, 2].map(|at| Bill::of(classes[at]));
        let usage = Usage { prompt, output, thought, cached };
        Counts {
            shards,
            loaded,
            failed,
            cancelled,
            unchanged,
            superseded,
            paid_calls,
            ambiguous_calls,
            wasted_answers,
            usage,
            cost,
            unpriced_calls,
            reused_answers,
            duplicate_prompts,
            retries,
            salvage,
            waste,
        }
    }

    /// Counts what a row took. Of a row that failed all is waste.
    pub fn spend(&mut self, spent: &Spent, failed: bool) {
        self.paid_calls += u64::from(spent.paid_calls);
        self.ambiguous_calls += u64::from(spent.ambiguous_calls);
        self.usage += spent.usage;
        self.cost = self.cost.saturating_add(spent.cost);
        self.unpriced_calls += u64::from(spent.unpriced_calls);
        self.reused_answers += u64::from(spent.reused);
        self.duplicate_prompts += u64::from(spent.duplicates);
        if failed {
            self.waste += spent.bill();
        } else {
            self.retries += spent.retries;
            self.salvage += spent.salvage;
        }
    }

    /// Counts paid answers that were thrown away.
    pub fn throw_away(&mut self, answers: u64, bill: Bill) {
        self.wasted_answers += answers;
        self.paid_calls += bill.calls;
        self.usage += bill.usage;
        self.cost = self.cost.saturating_add(bill.cost);
        self.waste += bill;
    }

    /// All that was paid.
    pub fn bill(&self) -> Bill {
        Bill { calls: self.paid_calls, usage: self.usage, cost: self.cost }
    }

    /// What it cost in picodollars; `None` when a part of that is not known.
    pub fn known_cost(&self) -> Option<u64> {
        (self.unpriced_calls == 0).then_some(self.cost)
    }

    /// What is left of it without retries, salvage and waste: the calls whose replies became answers.
    pub fn answers(&self) -> Bill {
        [self.retries, self.salvage, self.waste].into_iter().fold(self.bill(), Bill::without)
    }

    /// Rows with an outcome.
    pub fn rows(&self) -> u64 {
        self.loaded + self.failed + self.unchanged + self.superseded
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.shards += more.shards;
        self.loaded += more.loaded;
        self.failed += more.failed;
        self.cancelled += more.cancelled;
        self.unchanged += more.unchanged;
        self.superseded += more.superseded;
        self.paid_calls += more.paid_calls;
        self.ambiguous_calls += more.ambiguous_calls;
        self.wasted_answers += more.wasted_answers;
        self.usage += more.usage;
        self.cost = self.cost.saturating_add(more.cost); // a cap is held by it: a forged sum must not begin anew
        self.unpriced_calls += more.unpriced_calls;
        self.reused_answers += more.reused_answers;
        self.duplicate_prompts += more.duplicate_prompts;
        self.retries += more.retries;
        self.salvage += more.salvage;
        self.waste += more.waste;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_a_column_of_its_own() {
        let values = std::array::from_fn(|at| at as u64);
        let counts = Counts::of(values);
        assert_eq!(counts.values(), values);
        let column = |name| Counts::COLUMNS.iter().position(|column| *column == name).unwrap() as u64;
        assert_eq!((counts.superseded, counts.usage.cached), (column("superseded"), column("cached_tokens")));
        assert_eq!((counts.wasted_answers, counts.usage.prompt), (column("wasted_answers"), column("prompt_tokens")));
        assert_eq!((counts.cost, counts.duplicate_prompts), (column("cost"), column("duplicate_prompts")));
        assert_eq!(
            (counts.retries.calls, counts.salvage.usage.thought),
            (column("retry_calls"), column("salvage_thought_tokens"))
        );
        assert_eq!(
            (counts.waste.usage.cached, counts.waste.cost),
            (column("waste_cached_tokens"), column("waste_cost"))
        );
    }
}
