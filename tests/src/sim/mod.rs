//! The relay in memory: three legs with several processes each, an event service that loses, doubles, delays and cuts, and
//! ports that fail by seed. One seed decides time, chance and faults, so that a failing world can be replayed.

mod check;
pub mod draw;
pub mod faults;
pub mod model;
pub mod node;
pub mod wrong;

use crate::memory::Act;
use crate::memory::{MemoryObjects, MemorySnapshots, records::MemoryRecords};
use bytes::Bytes;
use faults::{Fault, Faults};
use model::{Script, Storm};
use node::{NodeModel, NodeNotice, NodeObjects, NodeRecords, NodeSnapshots, Process};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_generator::{Generator, Settings};
use tasuki_loader::Loader;
use tasuki_relay::clock::{Chance, Clock, Millis};
use tasuki_relay::control;
use tasuki_relay::files_only::FilesOnly;
use tasuki_relay::leg as relay;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Announcement, Event, Generation, Objects, RunState, Snapshots, Verdict, Why};
use tasuki_relay::rows::ObjectRows;
use tasuki_splitter::Splitter;
use tokio::time::{sleep, timeout};
use wrong::Wrong;

/// The moment at which every world starts: 2026-01-01T00:00:00Z.
pub const START: Millis = Millis(1_767_225_600_000);
/// A push is cut after so long: Eventarc's default.
const PUSH_DEADLINE: Duration = Duration::from_secs(10);
/// Time that reading a piece of a snapshot takes: so long that other splitters join in.
const READING: Duration = Duration::from_secs(3);
/// Deliveries of an event before it is dead.
const DELIVERIES_MAX: u32 = 100;
/// Processes of a leg.
const PROCESSES: u64 = 2;
/// No world lasts longer: 10 minutes, two sweeps, a lease, the capped age of a re-drive, a storm, and a wide backlog.
const PATIENCE: Duration = Duration::from_secs(5 * 3_600);
/// Rows between two checkpoints.
pub const ROWS_PER_CHECKPOINT: usize = 3;

/// A leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// Of the inbox.
    Splitter,
    /// Of the shards.
    Generator,
    /// Of the answers.
    Loader,
}

impl Leg {
    /// As faults name it.
    pub fn name(self) -> &'static str {
        match self {
            Leg::Splitter => "splitter",
            Leg::Generator => "generator",
            Leg::Loader => "loader",
        }
    }
}

/// How a world is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Decides everything that is drawn.
    pub seed: u64,
    /// The pipeline's text.
    pub pipeline: String,
    /// Files dropped one after another: when, name, text.
    pub files: Vec<(Duration, String, String)>,
    /// Sweeps heal lost events.
    pub sweeps: bool,
    /// Of 100 events so many are never delivered.
    pub dropped_percent: u64,
    /// Of 100 events so many are delivered several times.
    pub doubled_percent: u64,
    /// Of 100 deliveries so many come up to 20 minutes late.
    pub late_percent: u64,
    /// When a person cancels the first run.
    pub cancel_at: Option<Duration>,
    /// The model's bad time.
    pub storm: Option<Storm>,
    /// Rows between two checkpoints; 0 = [`ROWS_PER_CHECKPOINT`].
    pub rows_per_checkpoint: usize,
    /// A wrong variant.
    pub wrong: Option<Wrong>,
    /// One generator's clock goes ten minutes ahead.
    pub skewed: bool,
    /// What a hand does in storage, and when.
    pub by_hand: Vec<(Duration, ByHand)>,
    /// A key that a constraint of the target rejects.
    pub rejected_key: Option<String>,
    /// What every `*.run.toml` names.
    pub table: Option<Table>,
    /// The world is over then, whatever is open.
    pub until: Option<Duration>,
}

/// A table in BigQuery.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its rows, as JSON lines.
    pub rows: String,
    /// Parts that its size comes to.
    pub parts: u32,
    /// What a snapshot of it comes to, where that is more than its size.
    pub bytes: Option<u64>,
    /// Rows that fit into memory at once.
    pub fit: u64,
    /// What becomes of the first jobs.
    pub jobs: Vec<Act>,
}

/// What a hand does in storage.
#[derive(Clone, Debug)]
pub enum ByHand {
    /// Writes an object.
    Puts(Bucket, String, String),
    /// Removes every object whose name starts so.
    Removes(Bucket, String),
    /// Removes those objects with all their versions.
    Purges(Bucket, String),
    /// Writes garbage as the answers of the first shard that has none.
    CorruptsAnswers,
    /// Parks the first run, as a budget does.
    Parks,
    /// Looks why the first run is parked.
    Looks,
    /// Resumes the first run, as it was when it was looked at.
    Resumes,
}

type Running = (Arc<Process>, Arc<dyn relay::Leg>);

/// A world.
pub struct World {
    /// How it was set up.
    pub setup: Setup,
    /// Its chance.
    pub chance: Chance,
    /// Its true time.
    pub clock: Clock,
    /// Storage.
    pub objects: Arc<MemoryObjects>,
    /// The store.
    pub records: Arc<MemoryRecords>,
    /// The tables.
    pub snapshots: Option<Arc<MemorySnapshots>>,
    /// The model.
    pub model: Script,
    /// What goes wrong.
    pub faults: Arc<Faults>,
    nodes: Mutex<BTreeMap<(Leg, u64), Running>>,
    meters: Mutex<Vec<Arc<tasuki_generator::Meter>>>,
    waste: AtomicU64,
    deliveries: AtomicU32,
    delivered: Mutex<BTreeMap<String, u32>>,
    notices: Mutex<BTreeMap<RunId, BTreeSet<String>>>,
    seen: Mutex<check::Seen>,
    violation: Mutex<Option<String>>,
    log: Mutex<Vec<String>>,
    /// The marker that was looked at, and those that were resumed.
    looked_at: Mutex<Option<Generation>>,
    resumed: Mutex<BTreeSet<Generation>>,
    /// How much longer faults may keep a generator from seeing that its run is parked.
    blind_ms: AtomicU64,
}

/// What a world came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Port calls in their order.
    pub trace: Vec<faults::Call>,
    /// Calls that the model charged for.
    pub paid: u64,
    /// Rows that shared a call.
    pub collapsed: u64,
    /// Paid calls whose reply was no answer, by script.
    pub by_script: u64,
    /// Ended runs with their states.
    pub runs: BTreeMap<RunId, RunState>,
    /// When it ended.
    pub ended: Millis,
    /// Every fault that was met.
    pub log: Vec<String>,
    /// Rows that failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Rows that were loaded, by key, with the run that did.
    pub loaded: BTreeMap<String, RunId>,
    /// The ids of all notices.
    pub notices: BTreeSet<String>,
}

/// Runs a world to its end, and looks at every invariant on the way.
///
/// # Errors
/// The first violation, with the faults that were scheduled.
pub fn run(setup: Setup, faults: &Arc<Faults>) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let seed = setup.seed;
    runtime.map_err(|error| error.to_string())?.block_on(async {
        sleep(Duration::from_millis(1)).await; // from here on time stands at a tick of the runtime's timer, whenever that was started
        let world = World::new(setup, faults.clone());
        world.clone().live().await;
        let violation = world.violation.lock().expect("a panic ends the test").clone();
        violation.map_or_else(
            || Ok(world.report()),
            |violation| {
                let met = world.log.lock().expect("a panic ends the test").join("\n  ");
                Err(format!("seed {seed}: {violation}\nscheduled:{}\nmet:\n  {met}", world.faults.list()))
            },
        )
    })
}

impl Table {
    fn snapshots(self, clock: Clock) -> MemorySnapshots {
        let rows = self.rows.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut snapshots = MemorySnapshots::new(clock, rows, "id", self.parts).script(self.jobs);
        (snapshots.latency, snapshots.bytes, snapshots.fit) = (READING, self.bytes, self.fit);
        snapshots
    }
}

impl Setup {
    pub(crate) fn parks(&self) -> bool {
        self.by_hand.iter().any(|(_, hand)| matches!(hand, ByHand::Parks))
    }

    /// The texts of all rows.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let tables = self.table.iter().map(|table| table.rows.as_str());
        self.files.iter().map(|(_, _, text)| text.as_str()).chain(tables)
    }
}

impl World {
    fn new(setup: Setup, faults: Arc<Faults>) -> Arc<World> {
        let (chance, clock) = (Chance::seeded(setup.seed), Clock::starting_at(START));
        Arc::new(World {
            objects: Arc::new(MemoryObjects::new(clock.clone())),
            records: Arc::new(MemoryRecords::new(clock.clone())),
            snapshots: setup.table.clone().map(|table| Arc::new(table.snapshots(clock.clone()))),
            model: Script::new(chance.clone(), setup.storm),
            nodes: Mutex::default(),
            meters: Mutex::default(),
            waste: AtomicU64::new(0),
            deliveries: AtomicU32::new(0),
            delivered: Mutex::default(),
            notices: Mutex::default(),
            seen: Mutex::default(),
            violation: Mutex::default(),
            log: Mutex::default(),
            looked_at: Mutex::default(),
            resumed: Mutex::default(),
            blind_ms: AtomicU64::new(0),
            setup,
            chance,
            clock,
            faults,
        })
    }

    async fn live(self: Arc<Self>) {
        let pipeline = Bytes::from(self.setup.pipeline.clone());
        self.objects.create(Bucket::State, &names::pipeline("p"), pipeline).await.expect("a new store takes it");
        let (mut files, mut by_hand) = (self.setup.files.clone(), self.setup.by_hand.clone());
        if let Some(key) = &self.setup.rejected_key {
            self.records.reject(tasuki_relay::record::Key::Text(key.clone()));
        }
        let (mut next_sweep, mut cancel) = (Duration::from_secs(60), self.setup.cancel_at);
        loop {
            let age = self.clock.now().since(START);
            while let Some((_, name, text)) = files.first().filter(|(at, ..)| *at <= age).cloned() {
                files.remove(0);
                self.put_file(&name, text).await;
            }
            if cancel.is_some_and(|at| at <= age) {
                cancel = None;
                self.cancel_first_run().await;
            }
            while let Some((_, hand)) = by_hand.first().filter(|(at, _)| *at <= age).cloned() {
                by_hand.remove(0);
                self.do_by_hand(hand).await;
            }
            for event in self.objects.take_events() {
                self.clone().publish(event);
            }
            if self.setup.sweeps && next_sweep <= age {
                next_sweep += Duration::from_secs(60);
                for leg in [Leg::Splitter, Leg::Generator, Leg::Loader] {
                    self.clone().sweep(leg);
                }
            }
            if self.violation.lock().expect("a panic ends the test").is_some() {
                return;
            }
            if files.is_empty() && cancel.is_none() && by_hand.is_empty() && self.is_over() {
                return self.check_end();
            }
            if self.setup.until.is_some_and(|until| age >= until) {
                return;
            }
            if age > PATIENCE {
                return self.violate(format!("I10: not over after {PATIENCE:?}: {}", self.what_is_missing()));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    async fn put_file(&self, name: &str, text: String) {
        let live = self.objects.stat(Bucket::Inbox, name).await.ok().flatten();
        let put = match live {
            Some(live) => self.objects.replace(Bucket::Inbox, name, text.into(), live.generation).await,
            None => self.objects.create(Bucket::Inbox, name, text.into()).await,
        };
        put.expect("nobody else writes the inbox");
    }

    async fn do_by_hand(&self, hand: ByHand) {
        match hand {
            ByHand::Puts(bucket, name, text) => drop(self.objects.create(bucket, &name, text.into()).await),
            ByHand::Removes(bucket, prefix) => {
                for object in
                    self.objects.live(bucket).into_iter().filter(|object| object.meta.name.starts_with(&prefix))
                {
                    self.objects.remove(bucket, &object.meta.name, None).await.ok();
                }
            }
            ByHand::Purges(bucket, prefix) => self.objects.purge(bucket, &prefix),
            ByHand::CorruptsAnswers => {
                if let Some(shard) = self.objects.live(Bucket::Shards).first() {
                    self.objects.create(Bucket::Answers, &shard.meta.name, "{\"half a".into()).await.ok();
                }
            }
            ByHand::Parks | ByHand::Looks | ByHand::Resumes => self.do_to_first_run(hand).await,
        }
        self.check();
    }

    async fn do_to_first_run(&self, hand: ByHand) {
        let Some(run) = self.first_run() else { return };
        let (objects, looked_at) = (&*self.objects, || self.looked_at.lock().expect("a panic ends the test"));
        match hand {
            ByHand::Parks => drop(control::park(objects, &run, "the test says so").await),
            ByHand::Looks => {
                let seen = control::parked_by(objects, &run).await.ok().flatten();
                *looked_at() = seen;
            }
            _ => {
                let Some(seen) = *looked_at() else { return };
                self.resumed.lock().expect("a panic ends the test").insert(seen);
                if self.setup.wrong == Some(Wrong::ResumesWhatever) {
                    objects.remove(Bucket::State, &names::parked(&run), None).await.ok();
                } else {
                    control::resume(objects, &run, seen).await.ok();
                }
            }
        }
    }

    pub(crate) fn first_run(&self) -> Option<RunId> {
        let first = self.objects.versions(Bucket::Inbox).into_iter().next()?;
        Some(RunId::of("inbox", &first.meta.name, first.meta.generation))
    }

    async fn cancel_first_run(&self) {
        if let Some(run) = self.first_run() {
            self.objects.create(Bucket::State, &names::cancel(&run), Bytes::new()).await.ok();
        }
    }

    /// Delivers an event as the event service does: not at all, late, several times.
    fn publish(self: Arc<Self>, event: Event) {
        let percent = |of: u64| self.chance.below(100) < of;
        if percent(self.setup.dropped_percent) {
            return;
        }
        let copies = if percent(self.setup.doubled_percent) { 2 + self.chance.below(4) } else { 1 };
        for _ in 0..copies {
            let late =
                if percent(self.setup.late_percent) { Duration::from_secs(1_200) } else { Duration::from_secs(1) };
            let delay = self.chance.up_to(late);
            self.deliveries.fetch_add(1, Relaxed);
            tokio::spawn(self.clone().deliver(event.clone(), delay));
        }
    }

    async fn deliver(self: Arc<Self>, event: Event, delay: Duration) {
        sleep(delay).await;
        for delivery in 0..DELIVERIES_MAX {
            let leg = match event.bucket {
                Bucket::Inbox => Leg::Splitter,
                Bucket::Shards => Leg::Generator,
                Bucket::Answers | Bucket::State => Leg::Loader,
            };
            *self.delivered.lock().expect("a panic ends the test").entry(event.name.clone()).or_default() += 1;
            let (_, node) = self.pick(leg);
            let verdict = timeout(PUSH_DEADLINE, node.handle(&event)).await;
            let acknowledged = match verdict {
                Ok(Verdict::Done | Verdict::NotOurs) => true,
                Ok(Verdict::Later(Why::LiveClaim)) => {
                    matches!(self.setup.wrong, Some(Wrong::AckOnLiveClaim | Wrong::OwnWriteReadAsForeign))
                }
                Ok(Verdict::Later(_)) | Err(_) => false,
            };
            if acknowledged {
                break;
            }
            let backoff = Duration::from_secs(10) * 2u32.pow(delivery.min(6));
            sleep(backoff.min(Duration::from_secs(600))).await;
        }
        self.deliveries.fetch_sub(1, Relaxed);
    }

    fn sweep(self: Arc<Self>, leg: Leg) {
        let (_, node) = self.pick(leg);
        tokio::spawn(async move { timeout(Duration::from_secs(600), node.sweep()).await });
    }

    /// A process of the leg; a dead one is replaced first.
    fn pick(self: &Arc<Self>, leg: Leg) -> Running {
        let slot = (leg, self.chance.below(PROCESSES));
        let mut nodes = self.nodes.lock().expect("a panic ends the test");
        match nodes.get(&slot) {
            Some((process, node)) if !process.is_dead() && !process.is_leaving() => (process.clone(), node.clone()),
            _ => {
                let fresh = self.start(leg, slot.1);
                nodes.insert(slot, fresh.clone());
                fresh
            }
        }
    }

    /// SIGTERM.
    pub(crate) fn stop(&self, process: &Arc<Process>) {
        let nodes = self.nodes.lock().expect("a panic ends the test");
        let node = nodes.values().find(|(at, _)| Arc::ptr_eq(at, process)).map(|(_, node)| node.clone());
        if let Some(node) = node.filter(|_| !process.is_leaving()) {
            process.leave(async move { node.drain().await });
        }
    }

    fn start(self: &Arc<Self>, leg: Leg, slot: u64) -> Running {
        let process = Process::new(self.clone(), leg);
        let skew = if self.setup.skewed && slot == 0 { Duration::from_secs(600) } else { Duration::ZERO };
        let clock = Clock::starting_at(self.clock.now() + skew);
        let objects: Arc<dyn Objects> = Arc::new(NodeObjects(process.clone()));
        let records = Arc::new(NodeRecords(process.clone()));
        let chance = Chance::seeded(self.chance.below(u64::MAX));
        let node: Arc<dyn relay::Leg> = match leg {
            Leg::Splitter => {
                let rows = Arc::new(ObjectRows::new(objects.clone()));
                let settings = tasuki_splitter::Settings::default();
                let snapshots: Arc<dyn Snapshots> = match &self.snapshots {
                    Some(snapshots) => Arc::new(NodeSnapshots(process.clone(), snapshots.clone())),
                    None => Arc::new(FilesOnly),
                };
                Splitter::new(objects, rows, snapshots, records, clock, chance, settings)
            }
            Leg::Generator => {
                let rows_per_checkpoint = self.rows_per_checkpoint();
                let settings =
                    Settings { max_in_flight: 20, shards_admitted: 6, rows_per_checkpoint, ..Settings::default() };
                let generator = Generator::new(objects, Arc::new(NodeModel(process.clone())), clock, chance, settings);
                self.meters.lock().expect("a panic ends the test").push(generator.meter());
                generator
            }
            Leg::Loader => Loader::new(objects, records, Arc::new(NodeNotice(process.clone())), clock, 4),
        };
        (process, node)
    }

    /// A fault was met: notes it, and what it may waste.
    pub(crate) fn met(&self, kind: &str, fault: Fault, process: &Process) {
        self.log.lock().expect("a panic ends the test").push(format!("{} {kind}: {fault:?}", self.clock.now()));
        if kind.starts_with("generator") {
            self.blind_ms.fetch_add((faults::STALL + PUSH_DEADLINE * 6).as_millis() as u64, Relaxed);
        }
        let about =
            |what: &str| kind.starts_with("generator") && kind.ends_with(what) && process.asked.load(Relaxed) > 0;
        let in_flight = process.in_flight.load(Relaxed);
        let waste = if kind == "generator ask" {
            1
        } else if about("claims") {
            in_flight + self.rows_per_checkpoint() as u64 - 1 // another may take over before these are checkpointed
        } else if about("ckpt") || about("answers") {
            in_flight + draw::ROWS_PER_SHARD // what was not checkpointed is lost with its process
        } else {
            0
        };
        self.waste.fetch_add(waste, Relaxed);
    }

    fn rows_per_checkpoint(&self) -> usize {
        match self.setup.rows_per_checkpoint {
            0 => ROWS_PER_CHECKPOINT,
            rows => rows,
        }
    }

    /// Calls that a script wastes.
    pub(crate) fn allow_waste(&self, calls: u64) {
        self.waste.fetch_add(calls, Relaxed);
    }

    /// What a dying process takes with it: its calls in flight, and what its shards had not checkpointed.
    pub(crate) fn count_death(&self, process: &Process) {
        if process.asked.load(Relaxed) > 0 {
            let unsaved = (ROWS_PER_CHECKPOINT as u64 - 1) * self.objects.live(Bucket::Shards).len() as u64;
            self.waste.fetch_add(process.in_flight.load(Relaxed) + unsaved, Relaxed);
        }
    }

    pub(crate) fn count_stall(&self, process: &Process) {
        self.count_death(process);
    }

    pub(crate) fn announce(&self, announcement: &Announcement) {
        self.notices
            .lock()
            .expect("a panic ends the test")
            .entry(announcement.run.run.clone())
            .or_default()
            .insert(announcement.event_id.clone());
    }

    pub(crate) fn violate(&self, what: String) {
        self.violation.lock().expect("a panic ends the test").get_or_insert(what);
    }

    fn report(&self) -> Report {
        let bill = self.model.bill();
        let state = |row: &crate::memory::records::Run| row.row.state;
        Report {
            trace: self.faults.trace(),
            paid: bill.paid,
            collapsed: self
                .meters
                .lock()
                .expect("a panic ends the test")
                .iter()
                .map(|meter| meter.collapsed.load(Relaxed))
                .sum(),
            by_script: bill.by_script,
            runs: self.records.look(|all| all.runs.iter().map(|(run, row)| (run.clone(), state(row))).collect()),
            ended: self.clock.now(),
            log: self.log.lock().expect("a panic ends the test").clone(),
            failures: self.records.look(|all| {
                let mut reasons = BTreeMap::new();
                all.failures.values().for_each(|row| *reasons.entry(row.reason.clone()).or_default() += 1);
                reasons
            }),
            notices: self.notices.lock().expect("a panic ends the test").values().flatten().cloned().collect(),
            loaded: self.records.look(|all| {
                let rows = all.targets.values().flatten();
                rows.map(|(key, row)| (key.to_string(), row.run.clone())).collect()
            }),
        }
    }
}
