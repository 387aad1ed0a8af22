//! `[run] max_cost_usd` over several generators: never exceeded, nearly all of it used, and what crashed processes held is not lost.
//! `TASUKI_SEED=n` replays one seed, `TASUKI_SEEDS=n` tries so many.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "seeds are for a person's eye, and a test may unwrap")]

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_generator::{Generator, Settings};
use tasuki_relay::budget::{self, Ledger};
use tasuki_relay::checkpoint::CHECKPOINT_EVERY;
use tasuki_relay::clock::{Chance, Clock, Millis};
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, RunId, ShardId, ShardIndex};
use tasuki_relay::ports::{Ask, Event, Fault, Generation, Meta, Model, Object, Objects, ObjectsError, Reply, Verdict};
use tasuki_relay::prices::Price;
use tasuki_relay::record::{AnswerLine, Content, Header, Input, Key, Outcome, Plan, ShardLine, Usage, decode, encode};
use tasuki_tests::memory::MemoryObjects;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const START: Millis = Millis(1_767_225_600_000);
const SHARDS: u32 = 20;
const ROWS: u64 = 40;
const PROCESSES: usize = 4;
const OUTPUT_MAX: u64 = 200;
/// A row costs about 40 + 100 tokens.
const PRICE: Price = Price { input: 1_000_000, output: 2_000_000, thought: 2_000_000, cached: 1_000_000 };
const SEEDS: u64 = 12;
/// Nothing here takes longer: leases and re-deliveries included.
const PATIENCE: Duration = Duration::from_secs(3_600);

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("TASUKI_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TASUKI_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

fn run() -> RunId {
    RunId::of("inbox", "p/a.jsonl", 1)
}

/// What the model was asked, and what that costs from the moment at which the call arrives.
struct Paid {
    chance: Chance,
    cost: AtomicU64,
    /// Of these calls nothing may be stored: their process died while they were under way, or soon after.
    lost: AtomicU64,
    calls: Mutex<BTreeMap<String, u32>>,
    /// No call may lift the cost above this, and what was lost.
    cap: AtomicU64,
    /// By how much one did. Kept for the end: who asks is a task whose panic nobody sees.
    over: AtomicU64,
}

/// The calls of a process: what each cost, and when its reply came.
type Calls = Arc<Mutex<Vec<(u64, Option<Instant>)>>>;

/// The model, as one process sees it.
struct Scripted(Arc<Paid>, Arc<AtomicBool>, Calls);

#[async_trait]
impl Model for Scripted {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let Scripted(paid, dead, calls) = self;
        if dead.load(Relaxed) {
            return std::future::pending().await;
        }
        if paid.chance.below(20) == 0 {
            sleep(paid.chance.up_to(Duration::from_millis(200))).await;
            return Err(Fault::Busy { retry_after: None });
        }
        let usage =
            Usage { prompt: 20 + paid.chance.below(40), output: paid.chance.below(OUTPUT_MAX + 1), ..Usage::default() };
        let cost = PRICE.of(usage);
        let sum = paid.cost.fetch_add(cost, Relaxed) + cost;
        let cap = paid.cap.load(Relaxed) + paid.lost.load(Relaxed);
        paid.over.fetch_max(sum.saturating_sub(cap), Relaxed);
        *paid.calls.lock().unwrap().entry(ask.prompt.clone()).or_default() += 1;
        let nth = {
            let mut calls = calls.lock().unwrap();
            calls.push((cost, None));
            calls.len() - 1
        };
        sleep(Duration::from_millis(200) + paid.chance.up_to(Duration::from_secs(4))).await;
        if dead.load(Relaxed) {
            return std::future::pending().await;
        }
        calls.lock().unwrap()[nth].1 = Some(Clock::starting_at(START).instant());
        let text = json!({"theme": "x"}).to_string();
        Ok(Reply { text, finish: Some("STOP".into()), usage, model: "m".into(), ..Reply::default() })
    }
}

/// Storage as one process sees it: a dead one gets no reply, and writes of the budget fail as often as is said, before their effect
/// or after it.
struct Port {
    objects: Arc<MemoryObjects>,
    dead: Arc<AtomicBool>,
    chance: Chance,
    faults_percent: u64,
}

impl Port {
    async fn call<T>(
        &self,
        name: &str,
        effect: impl Future<Output = Result<T, ObjectsError>>,
    ) -> Result<T, ObjectsError> {
        sleep(Duration::from_millis(5) + self.chance.up_to(Duration::from_millis(40))).await;
        if self.dead.load(Relaxed) {
            return std::future::pending().await;
        }
        let fault = name == names::budget(&run()) && self.chance.below(100) < self.faults_percent;
        let unknown = || ObjectsError::Unknown("a fault".into());
        if fault && self.chance.below(2) == 0 {
            return Err(unknown());
        }
        let done = effect.await;
        if fault { Err(unknown()) } else { done }
    }
}

#[async_trait]
impl Objects for Port {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        self.call(name, self.objects.create(bucket, name, body)).await
    }
    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        self.call(name, self.objects.replace(bucket, name, body, expected)).await
    }
    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        self.call(name, self.objects.remove(bucket, name, expected)).await
    }
    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        self.call("", self.objects.stat(bucket, name)).await
    }
    async fn read(&self, bucket: Bucket, name: &str, at: Option<Generation>) -> Result<Option<Object>, ObjectsError> {
        self.call("", self.objects.read(bucket, name, at)).await
    }
    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        at: Generation,
        from: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        self.call("", self.objects.read_range(bucket, name, at, from, most)).await
    }
    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        self.call("", self.objects.list(bucket, prefix, after, most)).await
    }
}

struct Process {
    generator: Arc<Generator>,
    dead: Arc<AtomicBool>,
    calls: Calls,
}

impl Process {
    /// Dies. What its calls cost that were under way, or came home so late that they may be in no checkpoint.
    fn crash(&self, now: Instant) -> u64 {
        self.dead.store(true, Relaxed);
        let calls = self.calls.lock().unwrap();
        let late = |home: &Option<Instant>| home.is_none_or(|home| now.duration_since(home) < 2 * CHECKPOINT_EVERY);
        calls.iter().filter(|(_, home)| late(home)).map(|(cost, _)| cost).sum()
    }
}

struct World {
    clock: Clock,
    objects: Arc<MemoryObjects>,
    paid: Arc<Paid>,
    processes: Vec<Process>,
    events: Vec<Event>,
    faults_percent: u64,
}

impl World {
    /// A run of [`SHARDS`] shards with this cap.
    async fn new(seed: u64, cap: u64, faults_percent: u64) -> World {
        println!("TASUKI_SEED={seed}");
        let clock = Clock::starting_at(START);
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let paid = Arc::new(Paid {
            chance: Chance::seeded(seed),
            cost: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            calls: Mutex::default(),
            cap: AtomicU64::new(cap),
            over: AtomicU64::new(0),
        });
        let mut world = World { clock, objects, paid, processes: Vec::new(), events: Vec::new(), faults_percent };
        world.plan(cap).await;
        world.restart();
        world
    }

    /// New processes in place of all.
    fn restart(&mut self) {
        let process = |_| {
            let dead = Arc::new(AtomicBool::new(false));
            let chance = Chance::seeded(self.paid.chance.below(u64::MAX));
            let (objects, faults_percent) = (self.objects.clone(), self.faults_percent);
            let port = Arc::new(Port { objects, dead: dead.clone(), chance: chance.clone(), faults_percent });
            let calls = Calls::default();
            let model = Arc::new(Scripted(self.paid.clone(), dead.clone(), calls.clone()));
            let settings = Settings { processes: PROCESSES as u32, max_in_flight: 20, ..Settings::default() };
            Process { generator: Generator::new(port, model, self.clock.clone(), chance, settings), dead, calls }
        };
        self.processes = (0..PROCESSES).map(process).collect();
    }

    async fn plan(&mut self, cap: u64) {
        let dollars = budget::usd(cap);
        let text = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"row {{{{ n }}}} of the file\"\n[answer.theme]\ntype = \"string\"\n\
             [model]\nmax_output_tokens = {OUTPUT_MAX}\nprice = {{ input = 1, output = 2 }}\n[target]\ntable = \"t\"\n\
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
    async fn deliver(&self) {
        let mut deliveries = JoinSet::new();
        for (at, event) in self.events.iter().cloned().enumerate() {
            let processes: Vec<_> =
                self.processes.iter().map(|process| (process.generator.clone(), process.dead.clone())).collect();
            deliveries.spawn(async move {
                for turn in at.. {
                    let (generator, dead) = &processes[turn % PROCESSES];
                    let died = async {
                        while !dead.load(Relaxed) {
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
        timeout(PATIENCE, all).await.unwrap();
    }

    /// Why the run is parked.
    async fn parked(&self) -> Option<String> {
        let marker = self.objects.read(Bucket::State, &names::parked(&run()), None).await.unwrap()?;
        Some(String::from_utf8(marker.body.to_vec()).unwrap())
    }

    async fn resume(&self, cap: u64) {
        let usd = tasuki_relay::prices::dollars(cap);
        self.paid.cap.store(cap, Relaxed);
        control::set_max_cost(&*self.objects, &run(), usd).await.unwrap();
        let marker = control::parked_by(&*self.objects, &run()).await.unwrap().unwrap();
        assert!(control::resume(&*self.objects, &run(), marker).await.unwrap());
    }

    fn ledger(&self) -> Ledger {
        let object = self.objects.find(Bucket::State, &names::budget(&run())).unwrap();
        let live = self.objects.live(Bucket::State);
        let object = live.iter().find(|live| live.meta.name == object.name).unwrap();
        Ledger::parse(&object.body, object.meta.created).unwrap()
    }

    fn cost(&self) -> u64 {
        self.paid.cost.load(Relaxed)
    }

    /// No call lifted the cost above the cap of its time, and what a crash had lost until then.
    fn assert_capped(&self, seed: u64) {
        let over = self.paid.over.load(Relaxed);
        assert_eq!(over, 0, "seed {seed}: picodollars above the cap; {} are paid in all", self.cost());
    }

    fn answered(&self) -> usize {
        let answers = self.objects.live(Bucket::Answers);
        let lines = answers.iter().flat_map(|object| decode::<Header, AnswerLine>(&object.body).expect("whole").1);
        lines.filter(|line| matches!(line.outcome, Outcome::Answer(_))).count()
    }
}

/// About half of what the rows cost.
const CAP: u64 = 100_000_000_000;

#[tokio::test(start_paused = true)]
async fn twenty_shards_in_four_processes_never_cost_more_than_the_cap_and_go_on_with_a_greater_one() {
    for seed in seeds() {
        let world = World::new(seed, CAP, 0).await;
        world.deliver().await;
        let why = world.parked().await.expect("the run is parked");
        assert!(why.starts_with("the budget of $0.10 is spent ($0.0"), "{why}");
        let cost = world.cost();
        assert!(cost <= CAP && cost * 100 >= CAP * 95, "seed {seed}: {cost} of {CAP}");
        println!(
            "seed {seed}: {:.2} % used after {:?}",
            cost as f64 * 100.0 / CAP as f64,
            world.clock.now().since(START)
        );
        sleep(Duration::from_secs(30)).await;
        let ledger = world.ledger();
        assert!(ledger.slices.is_empty() && ledger.settled == cost, "all is given back: {ledger:?}, {cost}");

        world.resume(4 * CAP).await;
        world.deliver().await;
        assert_eq!((world.parked().await, world.answered()), (None, (u64::from(SHARDS) * ROWS) as usize));
        let calls = world.paid.calls.lock().unwrap().clone();
        assert!(calls.values().all(|calls| *calls == 1), "each row is paid once");
        sleep(Duration::from_secs(30)).await;
        assert_eq!(world.ledger().settled, world.cost());
        world.assert_capped(seed);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_replies_of_storage_neither_exceed_the_cap_nor_lose_money() {
    for seed in seeds() {
        let world = World::new(seed, CAP, 30).await;
        world.deliver().await;
        assert!(world.parked().await.is_some());
        let cost = world.cost();
        assert!(cost <= CAP && cost * 100 >= CAP * 90, "seed {seed}: {cost} of {CAP}");
        world.assert_capped(seed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crashed_process_held_counts_as_spent_until_it_is_settled_and_is_used_then() {
    for seed in seeds() {
        let world = World::new(seed, CAP, 0).await;
        let crash = async {
            sleep(Duration::from_secs(8)).await;
            world.paid.lost.store(world.processes[0].crash(world.clock.instant()), Relaxed);
            let held = world.ledger().committed();
            sleep(Duration::from_secs(60)).await;
            assert!(world.ledger().committed() >= held, "seed {seed}: nothing of it is free yet");
        };
        futures::join!(world.deliver(), crash);
        assert!(world.parked().await.is_some());
        sleep(Duration::from_secs(30)).await;
        let (cost, ledger) = (world.cost(), world.ledger());
        assert!(ledger.slices.is_empty() && ledger.settled <= CAP.min(cost), "seed {seed}: {ledger:?}, {cost}");
        assert!(ledger.settled * 100 >= CAP * 95, "seed {seed}: {ledger:?}");
        let lost = world.paid.lost.load(Relaxed);
        assert!(cost <= CAP + lost, "seed {seed}: {cost} of {CAP}, and {lost} that the crash lost");
        world.assert_capped(seed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_settles_a_run_whose_processes_all_crashed() {
    let mut world = World::new(1, CAP, 0).await;
    let crash = async {
        sleep(Duration::from_secs(8)).await;
        world.processes.iter().for_each(|process| process.dead.store(true, Relaxed));
    };
    tokio::select! { () = world.deliver() => panic!("it is not done"), () = crash => () }
    sleep(Duration::from_secs(100)).await;
    world.restart();
    let sweep = async || world.processes[0].generator.due(tasuki_relay::sweep::Sweep::ByAge, None).await;
    sweep().await;
    assert!(!world.ledger().slices.is_empty(), "their leases are not over");
    sleep(Duration::from_secs(60)).await;
    sweep().await;
    let ledger = world.ledger();
    assert!(ledger.slices.is_empty() && ledger.settled > 0 && ledger.settled <= world.cost(), "{ledger:?}");
    world.assert_capped(1);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_process_gives_its_money_back() {
    let world = World::new(1, CAP, 0).await;
    let stop = async {
        sleep(Duration::from_secs(8)).await;
        let all = world.processes.iter().map(|process| process.generator.drain());
        timeout(Duration::from_secs(8), futures::future::join_all(all)).await.expect("Cloud Run kills after 10 s");
    };
    tokio::select! { () = world.deliver() => panic!("it is not done"), () = stop => () }
    let ledger = world.ledger();
    // What was still under way counts at its worst.
    assert!(ledger.slices.is_empty() && ledger.settled >= world.cost() && ledger.settled < CAP, "{ledger:?}");
    world.assert_capped(1);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_deleted_by_hand_is_made_anew_from_what_is_stored() {
    let mut world = World::new(1, CAP, 0).await;
    world.deliver().await;
    sleep(Duration::from_secs(30)).await;
    world.objects.remove(Bucket::State, &names::budget(&run()), None).await.unwrap();
    world.restart();
    world.resume(CAP + CAP / 10).await;
    world.deliver().await;
    assert!(world.parked().await.is_some() && world.cost() > CAP);
    world.assert_capped(1);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_cap_has_no_budget_object() {
    let world = World::new(1, CAP, 0).await;
    let plan = world.objects.find(Bucket::State, &names::plan(&run())).unwrap();
    let live = world.objects.live(Bucket::State);
    let body = live.iter().find(|live| live.meta.name == plan.name).unwrap();
    let text = String::from_utf8(body.body.to_vec()).unwrap().replace("[run]\\nmax_cost_usd = 0.10\\n", "");
    assert!(!text.contains("max_cost_usd"), "{text}");
    world.objects.replace(Bucket::State, &plan.name, text.into(), plan.generation).await.unwrap();
    world.paid.cap.store(u64::MAX / 2, Relaxed);
    world.deliver().await;
    assert_eq!(world.answered(), (u64::from(SHARDS) * ROWS) as usize);
    let names: Vec<String> = world.objects.live(Bucket::State).into_iter().map(|object| object.meta.name).collect();
    assert!(!names.iter().any(|name| name.ends_with("/budget")), "{names:?}");
    world.assert_capped(1);
}
