use super::Totals;
use crate::clock::Millis;
use crate::names::RunId;
use serde::{Deserialize, Serialize};

/// Where the rows of a run lie that reads BigQuery: fixed once, so that every splitter cuts the same shards.
///
/// A row is (part, position in the part). Shards are runs of `rows_per_shard` within a part, numbered part by part, and so are
/// ordinals: the rows of each part alone say where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The run.
    pub run: RunId,
    /// The id of the job that took it.
    pub job: String,
    /// How old the rows are: when that job began to read.
    pub source_time: Millis,
    /// Rows by part.
    pub rows: Vec<u64>,
}

/// Where a part stands in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Its number.
    pub part: u32,
    /// Its rows; at least one.
    pub rows: u64,
    /// The ordinal of its first row.
    pub first: u64,
    /// Its first shard.
    pub shard: u32,
    /// Its shards.
    pub shards: u32,
}

impl Snapshot {
    /// Keeps the first `most` rows by (part, position). Parts are drawn by a hash of the key, so these are rows from all over
    /// the source, and the same ones whoever asks.
    pub fn keep(&mut self, most: u64) {
        let mut left = most;
        for rows in &mut self.rows {
            *rows = left.min(*rows);
            left -= *rows;
        }
    }

    /// The size of the run: an empty one is one empty shard.
    pub fn totals(&self, rows_per_shard: u32) -> Totals {
        let shards: u64 = self.rows.iter().map(|rows| rows.div_ceil(rows_per_shard.into())).sum();
        Totals { shards: shards.max(1), rows: self.rows.iter().sum() }
    }

    /// The parts that have rows, in order.
    pub fn parts(&self, rows_per_shard: u32) -> impl Iterator<Item = SnapshotPart> {
        let (mut first, mut shard) = (0, 0);
        let part = move |(part, rows): (usize, &u64)| {
            let shards = rows.div_ceil(rows_per_shard.into()) as u32;
            let here = SnapshotPart { part: part as u32, rows: *rows, first, shard, shards };
            (first, shard) = (first + rows, shard + shards);
            here
        };
        self.rows.iter().enumerate().map(part).filter(|part| part.rows > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(rows: Vec<u64>) -> Snapshot {
        Snapshot { run: RunId::of("b", "n", 1), job: "j".into(), source_time: Millis(0), rows }
    }

    proptest! {
        #[test]
        fn parts_follow_each_other_without_a_gap(rows in proptest::collection::vec(0..50u64, 0..20), rows_per_shard in 1..9u32) {
            let snapshot = snapshot(rows);
            let (mut first, mut shard) = (0, 0);
            for part in snapshot.parts(rows_per_shard) {
                prop_assert_eq!((part.first, part.shard), (first, shard));
                (first, shard) = (first + part.rows, shard + part.shards);
            }
            let totals = snapshot.totals(rows_per_shard);
            prop_assert_eq!((totals.rows, totals.shards), (first, u64::from(shard).max(1)));
        }

        #[test]
        fn of_more_rows_the_first_are_kept(rows in proptest::collection::vec(0..50u64, 0..20), most in 0..300u64) {
            let (all, mut kept) = (snapshot(rows.clone()), snapshot(rows));
            kept.keep(most);
            prop_assert_eq!(kept.totals(1).rows, all.totals(1).rows.min(most));
            let cut = all.rows.iter().zip(&kept.rows).position(|(all, kept)| all != kept);
            prop_assert!(cut.is_none_or(|cut| kept.rows[cut + 1..].iter().all(|rows| *rows == 0)));
        }
    }
}
