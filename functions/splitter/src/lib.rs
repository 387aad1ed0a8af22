//! The splitter: reads one dropped file, or the rows of BigQuery that it names, and writes its plan and its shards.
//!
//! Invariant: the first plan is the plan, and the first snapshot the snapshot. The split's end is its claim marked `ended`,
//! never a shard.

mod lines;
mod parts;
mod plan;
mod scan;
mod snapshot;
mod split;
mod sweep;
mod writer;

pub use lines::Lines;
pub use plan::scout;
pub use writer::SHARDS_AT_ONCE;

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_relay::claims::{Claimed, Claims, Standing, Timing};
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::deadline::Deadline;
use tasuki_relay::jobs::Jobs;
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::ports::{Event, Fingerprints, Meta, Objects, Rows, Snapshots, Verdict, Why};
use tasuki_relay::record::{Plan, Snapshot};
use tasuki_relay::write::create_once;
use tracing::Instrument;

/// How a splitter is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The real name of the inbox bucket: part of every run's identity.
    pub inbox: String,
    /// How claims keep time.
    pub timing: Timing,
    /// Files split at once.
    pub splits_admitted: usize,
    /// How long the inbox keeps an object: nothing older than this, less a day, is taken up by the sweep.
    pub inbox_retention: Duration,
    /// Sweeps take up files that nobody has opened. Not where somebody else says when a file is whole.
    pub sweeps_inbox: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            inbox: "inbox".into(),
            timing: Timing::default(),
            splits_admitted: 8,
            inbox_retention: Duration::from_secs(45 * 24 * 3_600),
            sweeps_inbox: true,
        }
    }
}

/// One process of the splitter.
pub struct Splitter {
    objects: Arc<dyn Objects>,
    rows: Arc<dyn Rows>,
    snapshots: Arc<dyn Snapshots>,
    stored: Arc<dyn Fingerprints>,
    clock: Clock,
    settings: Settings,
    claims: Claims,
    jobs: Jobs,
    swept: Mutex<tasuki_relay::sweep::Redriven>,
}

impl Splitter {
    /// A splitter over its ports. `stored` is only asked by pipelines with `only_changed`.
    pub fn new(
        objects: Arc<dyn Objects>,
        rows: Arc<dyn Rows>,
        snapshots: Arc<dyn Snapshots>,
        stored: Arc<dyn Fingerprints>,
        clock: Clock,
        chance: Chance,
        settings: Settings,
    ) -> Arc<Splitter> {
        let objects: Arc<dyn Objects> = Arc::new(Deadline(objects));
        Arc::new(Splitter {
            claims: Claims::new(objects.clone(), clock.clone(), chance, settings.timing),
            jobs: Jobs::new(settings.splits_admitted),
            stored: Arc::new(Deadline(stored)),
            snapshots: Arc::new(Deadline(snapshots)),
            swept: Mutex::default(),
            objects,
            rows,
            clock,
            settings,
        })
    }

    /// The run that this version of an inbox object is.
    pub fn run_of(&self, name: &str, generation: i64) -> RunId {
        RunId::of(&self.settings.inbox, name, generation)
    }

    /// Handles an event of the inbox.
    pub async fn handle(self: &Arc<Self>, event: &Event) -> Verdict {
        match Dropped::parse_object(&event.name) {
            Ok(dropped) if event.bucket == Bucket::Inbox => {
                let run = self.run_of(&event.name, event.generation);
                let name = names::split(&run);
                let span = tracing::info_span!("split", %run, pipeline = dropped.pipeline);
                self.jobs.run(&name, || self.clone().work(run, dropped, event.clone()).instrument(span)).await
            }
            _ => Verdict::NotOurs,
        }
    }

    /// Starts nothing more, gives unfinished splits back, and returns when nothing is under way.
    pub async fn drain(&self) {
        self.jobs.drain().await;
    }

    async fn work(self: Arc<Self>, run: RunId, dropped: Dropped, event: Event) -> Result<Verdict, Why> {
        let name = names::split(&run);
        if matches!(self.claims.standing(&name).await?, Some(Standing::Ended)) {
            return Ok(Verdict::Done);
        }
        let live = self.objects.stat(Bucket::Inbox, &event.name).await?;
        let was_open = self.objects.stat(Bucket::State, &names::open(&run)).await?.is_some();
        if live.is_none() && !was_open && self.plan(&run).await?.is_none() {
            return Ok(Verdict::Done); // dropped and deleted before anything began
        }
        let claim = match self.claim(&name).await? {
            Claimed::Won(claim) => claim,
            Claimed::Ended => return Ok(Verdict::Done),
            Claimed::Live | Claimed::Free(_) => return Err(Why::LiveClaim),
        };
        match self.unless_stopped(self.split_or_snapshot(&run, &dropped, &event, live)).await {
            Ok(None) => claim.end().await?,
            Ok(Some((plan, snapshot))) => {
                // From here on every process that hears of the run works on its parts: the claim is free for them.
                claim.release().await;
                self.split_parts(plan, snapshot).await?;
                self.end(&name).await?;
            }
            Err(why) => {
                claim.release().await;
                return Err(why);
            }
        }
        Ok(Verdict::Done)
    }

    /// Takes a claim, or takes it over when it is free.
    async fn claim(&self, name: &str) -> Result<Claimed, Why> {
        Ok(match self.claims.take(name).await? {
            Claimed::Free(stale) => self.claims.take_over(name, stale, None).await?,
            claimed => claimed,
        })
    }

    /// Marks a split as ended whose parts are.
    async fn end(&self, name: &str) -> Result<(), Why> {
        match self.claim(name).await? {
            Claimed::Won(claim) => Ok(claim.end().await?),
            Claimed::Ended => Ok(()),
            Claimed::Live | Claimed::Free(_) => Err(Why::LiveClaim),
        }
    }

    /// Under the split's claim: opens the run, plans it, and writes its shards; or gives the snapshot whose parts they are in.
    async fn split_or_snapshot(
        &self,
        run: &RunId,
        dropped: &Dropped,
        event: &Event,
        live: Option<Meta>,
    ) -> Result<Option<(Plan, Snapshot)>, Why> {
        let open = serde_json::json!({"name": event.name, "generation": event.generation}).to_string();
        create_once(&*self.objects, Bucket::State, &names::open(run), open.into()).await?;
        let plan = match self.plan(run).await? {
            Some(plan) => plan,
            None => self.make_plan(run, dropped, event, live).await?,
        };
        match (&plan.scan, &plan.refused) {
            (Some(scan), None) => Ok(self.snapshot(&plan, scan).await?.map(|snapshot| (plan, snapshot))),
            _ => self.split(&plan).await.map(|()| None),
        }
    }

    async fn plan(&self, run: &RunId) -> Result<Option<Plan>, Why> {
        let Some(object) = self.objects.read(Bucket::State, &names::plan(run), None).await? else { return Ok(None) };
        let plan = serde_json::from_slice(&object.body);
        plan.map(Some).map_err(|_| Why::Systemic(format!("the plan of run {run} is corrupt: delete it")))
    }
}
