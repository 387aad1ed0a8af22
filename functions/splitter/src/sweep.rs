//! The splitter's sweep: dropped files whose event was lost, splits that did not end.

use crate::Splitter;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tasuki_relay::claims::Standing;
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::ports::{Event, Meta, Why};
use tasuki_relay::sweep::{FIRST_AGE, PAGE, REDRIVES_MAX, Sweep, drive, open_runs};

/// Splits that a sweep drives at once.
const AT_ONCE: usize = 4;
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(serde::Deserialize)]
struct Open {
    name: String,
    generation: i64,
}

impl Splitter {
    /// Drives again what is due. Returns how many splits.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, Why> {
        let due = self.due(Sweep::ByAge, None).await?;
        Ok(drive(due, AT_ONCE, |event| async move { self.handle(&event).await }).await)
    }

    /// Inbox objects without a plan, and open runs whose split did not end, as events.
    pub async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Result<Vec<Event>, Why> {
        let mut due = Vec::new();
        let runs = open_runs(&*self.objects, only).await?;
        for run in runs.iter().filter(|run| !self.jobs.has(&names::split(run))) {
            let unfinished = match self.claims.standing(&names::split(run)).await? {
                Some(Standing::Live | Standing::Ended) => None,
                Some(Standing::Free(_)) => self.open(run).await?,
                None => self.open(run).await?.filter(|(meta, _)| self.is_due(sweep, run, meta)),
            };
            due.extend(unfinished.map(|(_, event)| event));
        }
        let mut after = None::<String>;
        while due.len() < REDRIVES_MAX {
            let page = self.objects.list(Bucket::Inbox, "", after.as_deref(), PAGE).await?;
            for meta in page.iter().filter(|meta| self.is_of_age(sweep, meta)) {
                let run = self.run_of(&meta.name, meta.generation);
                let wanted = only.is_none_or(|only| *only == run) && !self.jobs.has(&names::split(&run));
                // Its turn first: the inbox holds files for weeks, and nearly all of them have their plan.
                if wanted
                    && self.is_due(sweep, &run, meta)
                    && self.objects.stat(Bucket::State, &names::plan(&run)).await?.is_none()
                {
                    due.push(Event { bucket: Bucket::Inbox, name: meta.name.clone(), generation: meta.generation });
                }
            }
            after = page.last().map(|meta| meta.name.clone());
            if page.len() < PAGE {
                break;
            }
        }
        due.dedup();
        Ok(due)
    }

    async fn open(&self, run: &RunId) -> Result<Option<(Meta, Event)>, Why> {
        let Some(object) = self.objects.read(Bucket::State, &names::open(run), None).await? else { return Ok(None) };
        let open: Option<Open> = serde_json::from_slice(&object.body).ok();
        Ok(open.map(|Open { name, generation }| (object.meta, Event { bucket: Bucket::Inbox, name, generation })))
    }

    /// A dropped file whose event may be lost, and that the inbox keeps long enough to split it.
    fn is_of_age(&self, sweep: Sweep, meta: &Meta) -> bool {
        let age = self.clock.now().since(meta.created);
        let is_recent = age < self.settings.inbox_retention.saturating_sub(DAY);
        is_recent && (sweep == Sweep::Now || age >= FIRST_AGE) && Dropped::parse_object(&meta.name).is_ok()
    }

    /// By run, not by name: another version of a file is another run.
    fn is_due(&self, sweep: Sweep, run: &RunId, meta: &Meta) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        swept.due(sweep, run.as_str(), meta.created, self.clock.now())
    }
}
