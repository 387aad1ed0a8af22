//! Which objects a sweep drives again, and when.

use crate::clock::Millis;
use crate::leg::Leg;
use crate::names::{self, Bucket, RunId};
use crate::ports::{Event, Meta, Objects, ObjectsError, Verdict, Why};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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

/// Remembers when this process drove an object again. A new process starts over: one more re-drive each.
#[derive(Debug, Default)]
pub struct Redriven(BTreeMap<String, Millis>);

impl Redriven {
    /// Whether the object is to be driven again now.
    pub fn due(&self, sweep: Sweep, name: &str, created: Millis, now: Millis) -> bool {
        let last = self.0.get(name).map(|last| last.since(created));
        sweep == Sweep::Now || is_due(last, now.since(created))
    }

    /// The object is driven now. One that is only listed, or turned away, has not had its turn.
    pub fn drove(&mut self, name: &str, now: Millis) {
        self.0.insert(name.to_owned(), now);
    }

    /// Forgets all but these.
    pub fn keep(&mut self, listed: &BTreeSet<String>) {
        self.0.retain(|name, _| listed.contains(name));
    }

    /// Forgets the objects of runs that are no longer open. Their names start with the run's.
    pub fn keep_of(&mut self, open: &[RunId]) {
        let open: BTreeSet<&str> = open.iter().map(RunId::as_str).collect();
        self.0.retain(|name, _| name.split('/').next().is_some_and(|run| open.contains(run)));
    }

    /// How many it remembers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// It remembers none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what starts with `prefix`: its run has ended.
    pub fn forget(&mut self, prefix: &str) {
        self.0.retain(|name, _| !name.starts_with(prefix));
    }
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Due {
    /// What is to be driven.
    pub events: Vec<Event>,
    /// The first failure, behind which there may be more that is due.
    pub failed: Option<Why>,
}

impl Due {
    /// `what` could not be looked at. What hinders one run must not hinder the others: the sweep goes on.
    pub fn fail(&mut self, what: &str, why: Why) {
        tracing::warn!("the sweep could not see to {what}: {why:?}");
        self.failed.get_or_insert(why);
    }

    /// Hands all to the leg, `at_once` at a time, and waits for them. What it turns away stays due. Returns how many it took.
    ///
    /// # Errors
    /// The failure that was met while this was looked for.
    pub async fn drive(self, leg: &Arc<impl Leg>, at_once: usize) -> Result<usize, Why> {
        let handled = futures::stream::iter(self.events).map(|event| async move {
            let verdict = leg.clone().handle(&event).await;
            let taken = !matches!(verdict, Verdict::Later(Why::Full | Why::Stopping));
            if taken {
                leg.drove(&event);
            }
            usize::from(taken)
        });
        let taken = handled.buffer_unordered(at_once).fold(0, |taken, one| async move { taken + one }).await;
        self.failed.map_or(Ok(taken), Err)
    }
}

/// The open runs, or `only` that one if it is open.
pub async fn open_runs(objects: &dyn Objects, only: Option<&RunId>) -> Result<Vec<RunId>, ObjectsError> {
    if let Some(run) = only {
        let open = objects.stat(Bucket::State, &names::open(run)).await?;
        return Ok(open.map(|_| run.clone()).into_iter().collect());
    }
    let open = list(objects, Bucket::State, names::OPEN, None).await?;
    Ok(open.iter().filter_map(|meta| names::parse_open(&meta.name).ok()).collect())
}

/// All objects whose names start with `prefix` and are greater than `after`, in order of their names.
pub async fn list(
    objects: &dyn Objects,
    bucket: Bucket,
    prefix: &str,
    mut after: Option<String>,
) -> Result<Vec<Meta>, ObjectsError> {
    let mut all = Vec::new();
    loop {
        let page = objects.list(bucket, prefix, after.as_deref(), PAGE).await?;
        after = page.last().map(|meta| meta.name.clone());
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
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

    /// Forgets the runs that are no longer open.
    pub fn keep(&mut self, open: &[RunId]) {
        self.0.retain(|run, _| open.contains(run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_driven_again_at_10_20_40_and_then_every_60_minutes() {
        let mut redriven = Redriven::default();
        let mut is_driven = |minute: &u64| {
            let now = Millis(minute * 60_000);
            let due = redriven.due(Sweep::ByAge, "x", Millis(0), now);
            if due {
                redriven.drove("x", now);
            }
            due
        };
        assert_eq!((0..=240).filter(&mut is_driven).collect::<Vec<_>>(), [10, 20, 40, 100, 160, 220]);
    }

    #[test]
    fn an_object_that_was_not_driven_stays_due() {
        let redriven = Redriven::default();
        assert!((10..15).all(|minute| redriven.due(Sweep::ByAge, "x", Millis(0), Millis(minute * 60_000))));
    }

    #[test]
    fn a_new_process_drives_an_old_object_once() {
        let mut redriven = Redriven::default();
        assert!(redriven.due(Sweep::ByAge, "x", Millis(0), Millis(3_000_000)));
        redriven.drove("x", Millis(3_000_000));
        assert!(!redriven.due(Sweep::ByAge, "x", Millis(0), Millis(3_060_000)));
    }
}
