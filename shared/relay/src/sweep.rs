//! Which objects a sweep drives again, and when.

use crate::clock::Millis;
use crate::names::{self, Bucket, RunId};
use crate::ports::{Event, Objects, ObjectsError};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

/// Most objects that one sweep drives again per run: a sweep works inside a request.
pub const REDRIVES_MAX: usize = 200;
/// Objects in one page of a listing (Cloud Storage: 1,000 at most).
pub const PAGE: usize = 1_000;

const MINUTE: Duration = Duration::from_secs(60);

/// Which objects without a successor a sweep takes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// All, at once: the embedded relay when it starts, and when a person cancels.
    Now,
    /// Those whose age says that their event may be lost: at 10, 20, 40, 60, 60 … minutes. A queue is not a loss.
    ByAge,
}

/// The ages at which an object without a claim is driven again.
fn thresholds() -> impl Iterator<Item = Duration> {
    let hourly = (0..).map(|n| MINUTE * 100 + MINUTE * 60 * n); // 40 + 60, and then every 60
    [FIRST_AGE, MINUTE * 20, MINUTE * 40].into_iter().chain(hourly)
}

/// The age below which nothing is driven again.
pub const FIRST_AGE: Duration = Duration::from_secs(600);

/// Whether a threshold lies after `last` (the age at the last re-drive) and not after `age`.
fn is_due(last: Option<Duration>, age: Duration) -> bool {
    thresholds()
        .take_while(|threshold| *threshold <= age)
        .last()
        .is_some_and(|passed| last.is_none_or(|last| last < passed))
}

/// Remembers at which age this process drove an object again. A new process starts over: one more re-drive each.
#[derive(Debug, Default)]
pub struct Redriven(BTreeMap<String, Duration>);

impl Redriven {
    /// Whether the object is to be driven again now; remembers that it was.
    pub fn due(&mut self, sweep: Sweep, name: &str, created: Millis, now: Millis) -> bool {
        let age = now.since(created);
        let due = sweep == Sweep::Now || is_due(self.0.get(name).copied(), age);
        if due {
            self.0.insert(name.to_owned(), age);
        }
        due
    }

    /// Forgets the objects of runs that are no longer open. Their names start with the run's.
    pub fn keep(&mut self, open: &[RunId]) {
        let open: BTreeSet<&str> = open.iter().map(RunId::as_str).collect();
        self.0.retain(|name, _| name.split('/').next().is_some_and(|run| open.contains(run)));
    }

    /// Forgets what starts with `prefix`: its run has ended.
    pub fn forget(&mut self, prefix: &str) {
        self.0.retain(|name, _| !name.starts_with(prefix));
    }
}

/// Hands what is due to its leg, `at_once` at a time, and waits for all. Returns how many there were.
pub async fn drive<V, F: Future<Output = V>>(due: Vec<Event>, at_once: usize, handle: impl Fn(Event) -> F) -> usize {
    let driven = due.len();
    futures::stream::iter(due).map(handle).buffer_unordered(at_once).for_each(|_| async {}).await;
    driven
}

/// The open runs, or `only` that one if it is open.
pub async fn open_runs(objects: &dyn Objects, only: Option<&RunId>) -> Result<Vec<RunId>, ObjectsError> {
    if let Some(run) = only {
        let open = objects.stat(Bucket::State, &names::open(run)).await?;
        return Ok(open.map(|_| run.clone()).into_iter().collect());
    }
    let (mut runs, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = objects.list(Bucket::State, names::OPEN, after.as_deref(), PAGE).await?;
        runs.extend(page.iter().filter_map(|meta| names::parse_open(&meta.name).ok()));
        after = page.last().map(|meta| meta.name.clone());
        if page.len() < PAGE {
            return Ok(runs);
        }
    }
}

/// The low-water mark of a run: shards below it are done, as far as this process knows.
///
/// It moves over consecutive numbers only: shards are written in parallel, so a higher one may be there before a lower.
#[derive(Debug, Default)]
pub struct Marks(BTreeMap<RunId, u32>);

impl Marks {
    /// The first shard that is not known to be done.
    pub fn first(&self, run: &RunId) -> u32 {
        self.0.get(run).copied().unwrap_or(0)
    }

    /// `shard` is done: moves the mark if it stands there.
    pub fn done(&mut self, run: &RunId, shard: u32) {
        let mark = self.0.entry(run.clone()).or_default();
        if *mark == shard {
            *mark += 1;
        }
    }

    /// Forgets an ended run.
    pub fn forget(&mut self, run: &RunId) {
        self.0.remove(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_driven_again_at_10_20_40_and_then_every_60_minutes() {
        let mut redriven = Redriven::default();
        let due: Vec<u64> =
            (0..=240).filter(|minute| redriven.due(Sweep::ByAge, "x", Millis(0), Millis(minute * 60_000))).collect();
        assert_eq!(due, [10, 20, 40, 100, 160, 220]);
    }

    #[test]
    fn a_new_process_drives_an_old_object_once() {
        let mut redriven = Redriven::default();
        assert!(redriven.due(Sweep::ByAge, "x", Millis(0), Millis(3_000_000)));
        assert!(!redriven.due(Sweep::ByAge, "x", Millis(0), Millis(3_060_000)));
    }
}
