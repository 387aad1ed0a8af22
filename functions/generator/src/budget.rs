//! What may be paid for form: calls that follow a paid one because its answer had not the form that was asked for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A floor, and a share of the calls that were paid. A prompt that the model cannot follow costs each row once, not twice.
#[derive(Debug)]
pub(crate) struct FormBudget {
    floor: u64,
    /// In hundredths of the paid calls.
    share: u64,
    paid: AtomicU64,
    taken: AtomicU64,
}

impl FormBudget {
    /// Of one shard under one claim: a shard may be a hard one.
    pub fn of_shard() -> FormBudget {
        FormBudget::new(20, 50)
    }

    /// Of a run in this process: one answer in five may be malformed and is mended.
    pub fn of_run() -> FormBudget {
        FormBudget::new(200, 25)
    }

    fn new(floor: u64, share: u64) -> FormBudget {
        FormBudget { floor, share, paid: AtomicU64::new(0), taken: AtomicU64::new(0) }
    }

    /// A call was paid.
    pub fn paid(&self) {
        self.paid.fetch_add(1, Relaxed);
    }

    /// One more may follow.
    pub fn is_left(&self) -> bool {
        self.taken.load(Relaxed) < self.floor + self.paid.load(Relaxed) * self.share / 100
    }

    /// One follows.
    pub fn take(&self) {
        self.taken.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_every_answer_is_malformed_a_share_of_the_rows_is_paid_twice() {
        let budget = FormBudget::new(10, 25);
        for _ in 0..1_000 {
            budget.paid();
            if budget.is_left() {
                budget.take();
                budget.paid();
            }
        }
        let taken = budget.taken.load(Relaxed);
        // taken = 10 + (1,000 + taken) / 4
        assert!((340..=350).contains(&taken), "{taken}");
    }
}
