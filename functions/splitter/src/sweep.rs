//! The splitter's sweep: dropped files whose event was lost, splits that did not end.

use crate::Splitter;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tasuki_relay::claims::Standing;
use tasuki_relay::leg::Leg;
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::ports::{Event, Meta, Verdict, Why};
use tasuki_relay::sweep::{Due, FIRST_AGE, PAGE, REDRIVES_MAX, Redriven, Sweep, open_runs};

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
    ///
    /// # Errors
    /// The first failure, after all that could be done was done.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, Why> {
        self.due(Sweep::ByAge, None).await.drive(self, AT_ONCE).await
    }

    /// Inbox objects without a plan, and open runs whose split did not end, as events.
    pub async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Due {
        let (mut due, mut seen) = (Due::default(), BTreeSet::new());
        let opened = self.due_of_open(sweep, only, &mut due, &mut seen).await;
        let dropped = match only.is_some() || self.settings.sweeps_inbox {
            true => self.due_of_inbox(sweep, only, &mut due, &mut seen).await,
            false => Ok(true),
        };
        match (opened, dropped) {
            (Ok(()), Ok(true)) if only.is_none() => self.redriven(|redriven| redriven.keep(&seen)),
            (Err(why), _) | (_, Err(why)) => due.fail("the open runs or the inbox", why),
            _ => (),
        }
        due
    }

    /// Open runs whose split did not end.
    async fn due_of_open(
        &self,
        sweep: Sweep,
        only: Option<&RunId>,
        due: &mut Due,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), Why> {
        for run in open_runs(&*self.objects, only).await? {
            seen.insert(run.to_string());
            match self.unfinished(sweep, &run).await {
                Ok(event) => due.events.extend(event),
                Err(why) => due.fail(&format!("run {run}"), why),
            }
        }
        Ok(())
    }

    async fn unfinished(&self, sweep: Sweep, run: &RunId) -> Result<Option<Event>, Why> {
        let name = names::split(run);
        if self.jobs.has(&name) {
            return Ok(None);
        }
        let unfinished = match self.claims.standing(&name).await? {
            Some(Standing::Live | Standing::Ended) => None,
            Some(Standing::Free(_)) => self.open(run).await?,
            None => self.open(run).await?.filter(|(meta, _)| self.is_due(sweep, run, meta)),
        };
        Ok(unfinished.map(|(_, event)| event))
    }

    /// Inbox objects without a plan. False when there are more than one sweep looks at.
    async fn due_of_inbox(
        &self,
        sweep: Sweep,
        only: Option<&RunId>,
        due: &mut Due,
        seen: &mut BTreeSet<String>,
    ) -> Result<bool, Why> {
        let mut after = None::<String>;
        while due.events.len() < REDRIVES_MAX {
            let page = self.objects.list(Bucket::Inbox, "", after.as_deref(), PAGE).await?;
            for meta in page.iter().filter(|meta| self.is_of_age(sweep, meta)) {
                let run = self.run_of(&meta.name, meta.generation);
                seen.insert(run.to_string());
                let (name, generation) = (meta.name.clone(), meta.generation);
                let event = Event { bucket: Bucket::Inbox, name, generation };
                let wanted = only.is_none_or(|only| *only == run) && !self.jobs.has(&names::split(&run));
                // Its turn first: the inbox holds files for weeks, and nearly all of them have their plan.
                if !wanted || due.events.contains(&event) || !self.is_due(sweep, &run, meta) {
                    continue;
                }
                match self.objects.stat(Bucket::State, &names::plan(&run)).await {
                    Ok(Some(_)) => self.redriven(|redriven| redriven.drove(run.as_str(), self.clock.now())),
                    Ok(None) => due.events.push(event),
                    Err(error) => due.fail(&format!("run {run}"), error.into()),
                }
            }
            after = page.last().map(|meta| meta.name.clone());
            if page.len() < PAGE {
                return Ok(true);
            }
        }
        Ok(false)
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
        self.redriven(|redriven| redriven.due(sweep, run.as_str(), meta.created, self.clock.now()))
    }

    /// How many files and runs the sweeps remember: of those only that were there when they were last listed.
    pub fn remembered(&self) -> usize {
        self.redriven(|redriven| redriven.len())
    }

    fn redriven<T>(&self, look: impl FnOnce(&mut Redriven) -> T) -> T {
        look(&mut self.swept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Leg for Splitter {
    async fn handle(self: Arc<Self>, event: &Event) -> Verdict {
        Splitter::handle(&self, event).await
    }
    async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Due {
        Splitter::due(self, sweep, only).await
    }
    fn drove(&self, event: &Event) {
        let run = self.run_of(&event.name, event.generation);
        self.redriven(|redriven| redriven.drove(run.as_str(), self.clock.now()));
    }
    async fn sweep(self: Arc<Self>) -> Result<usize, Why> {
        Splitter::sweep(&self).await
    }
    async fn drain(&self) {
        Splitter::drain(self).await;
    }
}
