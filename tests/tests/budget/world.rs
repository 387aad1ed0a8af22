//! A run over several generators, whose processes can die.

use crate::ports::{Calls, Fate, Faulty, Paid, Scripted};
use crate::wrong::{Bent, Wrong};
use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_generator::{Generator, Settings};
use tasuki_relay::budget::{self, Eyes, Ledger, Slice};
use tasuki_relay::clock::{Chance, Clock, Millis};
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, RunId, ShardId, ShardIndex};
use tasuki_relay::ports::{Event, Objects, Verdict};
use tasuki_relay::prices::Price;
use tasuki_relay::record::{
    AnswerLine, CheckpointLine, Content, Header, Input, Key, Outcome, Plan, ShardLine, decode, decode_lines, encode,
};
use tasuki_tests::hooked::Hooked;
use tasuki_tests::memory::MemoryObjects;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub const START: Millis = Millis(1_767_225_600_000);
pub const SHARDS: u32 = 20;
pub const ROWS: u64 = 40;
const PROCESSES: usize = 4;
/// A row costs about 40 + 1,000 tokens.
pub const PRICE: Price = Price { input: 1_000_000, output: 2_000_000, cached: 1_000_000 };
/// Nothing here takes longer: leases and re-deliveries included.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    pub wrong: Option<Wrong>,
}

pub fn run() -> RunId {
    RunId::of("inbox", "p/a.jsonl", 1)
}

fn prompt(ordinal: u64) -> String {
    format!("row {ordinal} of the file")
}

/// The owners of slices that were not renewed for so long.
pub fn unrenewed(ledger: &Ledger, now: Millis, lease: Duration) -> BTreeSet<String> {
    let eyes = Eyes { owner: "", now, lease, others_are_dead: false };
    let alone = |(owner, slice): (&String, &Slice)| Ledger {
        slices: [(owner.clone(), slice.clone())].into(),
        ..Ledger::default()
    };
    let old = ledger.slices.iter().filter(|slice| alone(*slice).all_dead(eyes));
    old.map(|(owner, _)| owner.clone()).collect()
}

pub struct Process {
    pub generator: Arc<Generator>,
    pub fate: Arc<Fate>,
    calls: Calls,
}

pub struct World {
    pub clock: Clock,
    pub objects: Arc<MemoryObjects>,
    pub paid: Arc<Paid>,
    pub processes: Vec<Process>,
    setup: Setup,
    events: Vec<Event>,
    faults_percent: u64,
}

impl Process {
    /// What its calls of these prompts cost.
    fn cost(&self, of: impl Fn(&str) -> bool) -> u64 {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(prompt, _)| of(prompt)).map(|(_, cost)| cost).sum()
    }
}

impl World {
    /// A run of [`SHARDS`] shards with this cap.
    pub async fn new(setup: Setup, cap: u64, faults_percent: u64) -> World {
        let clock = Clock::starting_at(START);
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let paid = Arc::new(Paid {
            chance: Chance::seeded(setup.seed),
            cost: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            calls: Mutex::default(),
            cap: AtomicU64::new(cap),
            over: AtomicU64::new(0),
        });
        let (processes, events) = (Vec::new(), Vec::new());
        let mut world = World { clock, objects, paid, processes, setup, events, faults_percent };
        world.plan(cap, setup.wrong).await;
        world.restart();
        world
    }

    /// New processes in place of all.
    pub fn restart(&mut self) {
        self.processes = (0..PROCESSES).map(|_| self.process()).collect();
    }

    /// Another process, which nobody delivers to.
    pub fn process(&self) -> Process {
        let fate = Arc::new(Fate::default());
        let chance = Chance::seeded(self.paid.chance.below(u64::MAX));
        let (objects, clock, wrong) = (self.objects.clone(), self.clock.clone(), self.setup.wrong);
        let bent = Hooked::new(self.objects.clone(), Bent { objects, clock, wrong });
        let faults_percent = self.faults_percent;
        let port = Hooked::new(bent, Faulty { fate: fate.clone(), chance: chance.clone(), faults_percent, wrong });
        let calls = Calls::default();
        let model = Arc::new(Scripted(self.paid.clone(), fate.clone(), calls.clone()));
        let settings = Settings { processes: PROCESSES as u32, max_in_flight: 20, ..Settings::default() };
        Process { generator: Generator::new(port, model, self.clock.clone(), chance, settings), fate, calls }
    }

    async fn plan(&mut self, cap: u64, wrong: Option<Wrong>) {
        let output = Wrong::output_set_aside(wrong);
        let dollars = budget::usd(cap);
        let text = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"row {{{{ n }}}} of the file\"\n[answer.theme]\ntype = \"string\"\n\
             [model]\nmax_output_tokens = {output}\nprice = {{ input = 1, output = 2 }}\n[target]\ntable = \"t\"\n\
             [run]\nmax_cost_usd = {}\n",
            dollars.trim_start_matches('$')
        );
        let plan = Plan {
            run: run(),
            input: Input { name: "p/a.jsonl".into(), generation: 1, size: 1 },
            pipeline: "p".into(),
            pipeline_text: text,
            source_time: START,
            run_time: START,
            rows_per_shard: ROWS as u32,
            parent: None,
            scan: None,
            refused: None,
        };
        self.put(Bucket::State, &names::plan(&run()), serde_json::to_vec(&plan).unwrap()).await;
        self.put(Bucket::State, &names::open(&run()), "{}").await;
        for shard in 0..SHARDS {
            let line = |n: u64| {
                let row = json!({"id": format!("k{n}"), "n": n}).as_object().cloned().unwrap();
                ShardLine { ordinal: n, key: Some(Key::Text(format!("k{n}"))), content: Content::Row(Arc::new(row)) }
            };
            let first = u64::from(shard) * ROWS;
            let lines: Vec<ShardLine> = (first..first + ROWS).map(line).collect();
            let header = Header {
                run: run(),
                shard: ShardIndex(shard),
                pipeline: "p".into(),
                input: "p/a.jsonl".into(),
                first,
                rows: ROWS,
                digest: String::new(),
                source_time: START,
                run_time: START,
                totals: None,
                refused: None,
                wasted_answers: 0,
                wasted: Default::default(),
            };
            let name = ShardId { run: run(), shard: ShardIndex(shard) }.object();
            self.put(Bucket::Shards, &name, encode(&header, &lines)).await;
            self.events.push(Event { bucket: Bucket::Shards, name, generation: 1 });
        }
    }

    async fn put(&self, bucket: Bucket, name: &str, body: impl Into<Bytes>) {
        self.objects.create(bucket, name, body.into()).await.expect("a new name");
    }

    /// Delivers every shard until it is done or its run is parked: to a living process, again and again.
    pub async fn deliver(&self) -> anyhow::Result<()> {
        let mut deliveries = JoinSet::new();
        for (at, event) in self.events.iter().cloned().enumerate() {
            let processes: Vec<_> =
                self.processes.iter().map(|process| (process.generator.clone(), process.fate.clone())).collect();
            deliveries.spawn(async move {
                for turn in at.. {
                    let (generator, fate) = &processes[turn % PROCESSES];
                    let died = async {
                        while !fate.dead.load(Relaxed) {
                            sleep(Duration::from_secs(1)).await;
                        }
                    };
                    tokio::select! {
                        biased;
                        () = died => (),
                        verdict = generator.handle(&event) => if verdict == Verdict::Done { return },
                    }
                    sleep(Duration::from_secs(5)).await;
                }
            });
        }
        let all = async {
            while let Some(end) = deliveries.join_next().await {
                end.unwrap();
            }
        };
        timeout(PATIENCE, all).await.context("not every shard is done, and the run is not parked")
    }

    /// What is paid and stored.
    pub fn stored_cost(&self) -> u64 {
        let stored = self.stored();
        self.processes.iter().map(|process| process.cost(|prompt| stored.contains(prompt))).sum()
    }

    /// This process dies. What it paid and nobody stored is lost.
    pub fn crash(&self, nth: usize) {
        let process = &self.processes[nth];
        process.fate.dead.store(true, Relaxed);
        let stored = self.stored();
        self.paid.lost.fetch_add(process.cost(|prompt| !stored.contains(prompt)), Relaxed);
    }

    /// The prompts whose answers are stored.
    fn stored(&self) -> BTreeSet<String> {
        let answers = self.objects.live(Bucket::Answers);
        let answers = answers.iter().flat_map(|object| decode::<Header, AnswerLine>(&object.body).expect("whole").1);
        let segments = self.objects.live(Bucket::State);
        let segments = segments.iter().filter(|object| object.meta.name.starts_with(&names::checkpoints(&run())));
        let segments = segments.flat_map(|object| decode_lines::<CheckpointLine>(&object.body).expect("whole"));
        let settled =
            segments.filter_map(|line| if let CheckpointLine::Settled(line) = line { Some(line) } else { None });
        answers.chain(settled).map(|line| prompt(line.ordinal)).collect()
    }

    /// Why the run is parked.
    pub async fn parked(&self) -> Option<String> {
        let marker = self.objects.read(Bucket::State, &names::parked(&run()), None).await.unwrap()?;
        Some(String::from_utf8(marker.body.to_vec()).unwrap())
    }

    /// `tasuki resume --max-cost`.
    pub async fn resume(&self, cap: u64) {
        self.paid.cap.store(cap, Relaxed);
        self.cap(cap).await;
        let marker = control::parked_by(&*self.objects, &run()).await.unwrap().unwrap();
        assert!(control::resume(&*self.objects, &run(), marker).await.unwrap());
    }

    /// A person writes another cap.
    pub async fn cap(&self, cap: u64) {
        let usd = tasuki_relay::prices::dollars(cap);
        control::set_max_cost(&*self.objects, &run(), usd).await.unwrap();
    }

    pub fn ledger(&self) -> Ledger {
        let object = self.objects.find(Bucket::State, &names::budget(&run())).unwrap();
        let live = self.objects.live(Bucket::State);
        let object = live.iter().find(|live| live.meta.name == object.name).unwrap();
        Ledger::parse(&object.body, object.meta.created).unwrap()
    }

    pub fn cost(&self) -> u64 {
        self.paid.cost.load(Relaxed)
    }

    /// No call lifted the cost above the cap of its time, and what a crash had lost until then.
    pub fn check_capped(&self) -> anyhow::Result<()> {
        let over = self.paid.over.load(Relaxed);
        ensure!(over == 0, "{over} picodollars above the cap; {} are paid in all", self.cost());
        Ok(())
    }

    /// Nobody holds what is not spent, and nothing that was paid is forgotten but what a crash lost: that may be known, or not.
    pub fn check_settled(&self) -> anyhow::Result<()> {
        let (ledger, cost) = (self.ledger(), self.cost());
        ensure!(ledger.committed() == ledger.spent(), "a slice is left that is not spent: {ledger:?}");
        let known = cost - self.paid.lost.load(Relaxed)..=cost;
        ensure!(known.contains(&ledger.spent()), "settled is not what was paid: {} of {known:?}", ledger.spent());
        Ok(())
    }

    pub fn answered(&self) -> usize {
        let answers = self.objects.live(Bucket::Answers);
        let lines = answers.iter().flat_map(|object| decode::<Header, AnswerLine>(&object.body).expect("whole").1);
        lines.filter(|line| matches!(line.outcome, Outcome::Answer(_))).count()
    }
}
