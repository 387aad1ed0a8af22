//! A generator or loader by itself: what it does when it is told to stop, when storage refuses, when a notice cannot be sent.

mod engine;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tasuki_generator::{Generator, Settings};
use tasuki_loader::Loader;
use tasuki_relay::claims::{Claimed, Claims, Timing};
use tasuki_relay::clock::{Chance, Clock, Millis};
use tasuki_relay::files_only::FilesOnly;
use tasuki_relay::names::{self, Bucket, RunId, ShardId, ShardIndex};
use tasuki_relay::ports::{
    Announcement, Ask, Event, Fault, Generation, Model, Notice, Objects, ObjectsError, Reply, RunState, Verdict, Why,
};
use tasuki_relay::record::{
    Answer, AnswerLine, Content, Header, Input, Key, Outcome, Plan, ShardLine, Spent, Totals, decode, encode,
};
use tasuki_relay::rows::ObjectRows;
use tasuki_relay::sweep::Sweep;
use tasuki_splitter::Splitter;
use tasuki_tests::hooked::{Call, Hooked, Op};
use tasuki_tests::memory::{MemoryObjects, records::MemoryRecords};
use tokio::time::{sleep, timeout};

const START: Millis = Millis(1_767_225_600_000);
const PIPELINE: &str = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{ n }}\"\n[answer.theme]\ntype = \"string\"\n\
    [target]\ntable = \"t\"\n";

fn run(n: i64) -> RunId {
    RunId::of("inbox", "p/a.jsonl", n)
}

fn header(run: &RunId, shard: u32, rows: u64) -> Header {
    Header {
        run: run.clone(),
        shard: ShardIndex(shard),
        pipeline: "p".into(),
        input: "p/a.jsonl".into(),
        first: 0,
        rows,
        digest: String::new(),
        source_time: START,
        run_time: START,
        totals: Some(Totals { shards: 1, rows }),
        refused: None,
        wasted_answers: 0,
        wasted: Default::default(),
    }
}

async fn put(objects: &MemoryObjects, bucket: Bucket, name: &str, body: impl Into<Bytes>) {
    objects.create(bucket, name, body.into()).await.expect("a new name");
}

/// An open run with one shard of so many rows.
async fn begin(objects: &MemoryObjects, run: &RunId, rows: u64) -> Event {
    begin_as(objects, run, rows, PIPELINE).await
}

async fn begin_as(objects: &MemoryObjects, run: &RunId, rows: u64, pipeline: &str) -> Event {
    let input = Input { name: "p/a.jsonl".into(), generation: 1, size: 1 };
    let plan = Plan {
        run: run.clone(),
        input,
        pipeline: "p".into(),
        pipeline_text: pipeline.into(),
        source_time: START,
        run_time: START,
        rows_per_shard: 100,
        parent: None,
        scan: None,
        refused: None,
    };
    put(objects, Bucket::State, &names::plan(run), serde_json::to_vec(&plan).expect("plain data")).await;
    put(objects, Bucket::State, &names::open(run), "{}").await;
    let line = |n: u64| {
        let row = json!({"id": format!("k{n}"), "n": n}).as_object().cloned().unwrap_or_default();
        ShardLine { ordinal: n, key: Some(Key::Text(format!("k{n}"))), content: Content::Row(Arc::new(row)) }
    };
    let lines: Vec<ShardLine> = (0..rows).map(line).collect();
    let name = ShardId { run: run.clone(), shard: ShardIndex(0) }.object();
    put(objects, Bucket::Shards, &name, encode(&header(run, 0, rows), &lines)).await;
    Event { bucket: Bucket::Shards, name, generation: 1 }
}

/// Replies after a while, as it is told.
struct Told<F>(F, AtomicU64);

impl<F: Fn(u64) -> (u64, Result<Reply, Fault>) + Send + Sync> Told<F> {
    fn new(says: F) -> Arc<Told<F>> {
        Arc::new(Told(says, AtomicU64::new(0)))
    }
}

#[async_trait]
impl<F: Fn(u64) -> (u64, Result<Reply, Fault>) + Send + Sync> Model for Told<F> {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        self.1.fetch_add(1, Relaxed);
        let (seconds, said) = self.0(ask.prompt.parse().unwrap_or(0));
        sleep(Duration::from_secs(seconds)).await;
        said
    }
}

fn answer() -> Result<Reply, Fault> {
    let text = json!({"theme": "x"}).to_string();
    Ok(Reply { text, finish: Some("STOP".into()), model: "m".into(), ..Reply::default() })
}

fn generator(objects: Arc<dyn Objects>, model: Arc<dyn Model>, clock: &Clock) -> Arc<Generator> {
    Generator::new(objects, model, clock.clone(), Chance::seeded(1), Settings::default())
}

fn world() -> (Clock, Arc<MemoryObjects>) {
    let clock = Clock::starting_at(START);
    (clock.clone(), Arc::new(MemoryObjects::new(clock)))
}

/// The rows' outcomes: "ok" or a reason.
fn outcomes(objects: &MemoryObjects) -> Vec<String> {
    let answers = objects.live(Bucket::Answers);
    let lines = answers.iter().flat_map(|object| decode::<Header, AnswerLine>(&object.body).expect("whole").1);
    let told = |line: AnswerLine| match line.outcome {
        Outcome::Failed(failed) => failed.reason,
        Outcome::Answer(_) | Outcome::Unchanged(_) => "ok".into(),
    };
    lines.map(told).collect()
}

/// Leaves the shard as if four holders had died while they asked its rows.
async fn suspect(objects: &MemoryObjects, event: &Event) {
    let id = ShardId::parse_object(&event.name).expect("a shard");
    let body = json!({"owner": "o", "attempt": "a", "epoch": 4, "state": "released", "working": true, "deaths": 4, "last_segment": null});
    put(objects, Bucket::State, &id.claim(), body.to_string()).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_told_to_stop_stops_though_answers_keep_coming_home() {
    let (clock, objects) = world();
    let event = begin(&objects, &run(1), 40).await;
    let generator = generator(objects.clone(), Told::new(|n| (3 * (n + 1), answer())), &clock);
    let (at_work, its_event) = (generator.clone(), event.clone());
    let work = tokio::spawn(async move { at_work.handle(&its_event).await });
    sleep(Duration::from_secs(1)).await;
    timeout(Duration::from_secs(5), generator.drain()).await.expect("Cloud Run kills after 10 s");
    assert_eq!(work.await.unwrap(), Verdict::Later(Why::Stopping));
    let saved = objects.live(Bucket::State).iter().any(|object| object.meta.name.starts_with("ckpt/"));
    assert!(saved, "the answer that came home is in a checkpoint");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_sealed_though_calls_are_slow() {
    let (clock, objects) = world();
    let event = begin(&objects, &run(1), 40).await;
    let generator = generator(objects.clone(), Told::new(|_| (100, answer())), &clock);
    let work = tokio::spawn(async move { generator.handle(&event).await });
    sleep(Duration::from_secs(1)).await;
    put(&objects, Bucket::State, &names::cancel(&run(1)), Bytes::new()).await;
    // Seen within 30 s; calls in flight have 10 s more.
    assert_eq!(timeout(Duration::from_secs(45), work).await.unwrap().unwrap(), Verdict::Done);
    assert_eq!(outcomes(&objects), vec!["cancelled"; 40]);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_shard_hears_a_stop_and_its_row_is_not_poison() {
    let (clock, objects) = world();
    let event = begin(&objects, &run(1), 3).await;
    suspect(&objects, &event).await;
    for _ in 0..3 {
        let busy = Told::new(|_| (1, Err(Fault::Busy { retry_after: None })));
        let generator = generator(objects.clone(), busy, &clock);
        let (at_work, its_event) = (generator.clone(), event.clone());
        tokio::spawn(async move { at_work.handle(&its_event).await });
        sleep(Duration::from_secs(60)).await;
        timeout(Duration::from_secs(8), generator.drain()).await.expect("it hears the stop");
    }
    let calm = generator(objects.clone(), Told::new(|_| (1, answer())), &clock);
    assert_eq!(calm.handle(&event).await, Verdict::Done);
    assert_eq!(outcomes(&objects), ["ok"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_systemic_error_in_a_suspect_shard_poisons_no_row() {
    let (clock, objects) = world();
    let event = begin(&objects, &run(1), 3).await;
    suspect(&objects, &event).await;
    let revoked = Arc::new(AtomicBool::new(true));
    let is_revoked = revoked.clone();
    let model = Told::new(move |_| match is_revoked.load(Relaxed) {
        true => (1, Err(Fault::Systemic("the key was revoked".into()))),
        false => (1, answer()),
    });
    let generator = generator(objects.clone(), model, &clock);
    for _ in 0..4 {
        assert!(matches!(generator.handle(&event).await, Verdict::Later(Why::Systemic(_))));
        sleep(Duration::from_secs(61)).await;
    }
    revoked.store(false, Relaxed);
    assert_eq!(generator.handle(&event).await, Verdict::Done);
    assert_eq!(outcomes(&objects), ["ok"; 3]);
}

/// Storage that takes no new object whose name starts like that, and no claim on it under which work begins.
fn refuses(objects: &Arc<MemoryObjects>, prefix: &'static str) -> Arc<dyn Objects> {
    let refuse = move |call: &mut Call| {
        let begins_work = || String::from_utf8_lossy(&call.body).contains("\"working\":true");
        match call.generation {
            _ if call.op != Op::Write || !call.name.starts_with(prefix) => Ok(()),
            None => Err(ObjectsError::Denied("403".into())),
            Some(_) if begins_work() => Err(ObjectsError::Unknown("503, before its effect".into())),
            Some(_) => Ok(()),
        }
    };
    Hooked::new(objects.clone(), refuse)
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_to_write_checkpoints_stops_the_machine_before_it_pays_again() {
    let (clock, objects) = world();
    let event = begin(&objects, &run(1), 100).await;
    let model = Told::new(|n| (1 + n / 20, answer()));
    let storage = refuses(&objects, "ckpt/");
    let settings = Settings { max_in_flight: 10, ..Settings::default() };
    let generator = Generator::new(storage, model.clone(), clock, Chance::seeded(1), settings);
    for _ in 0..20 {
        assert!(matches!(generator.handle(&event).await, Verdict::Later(Why::Systemic(_))));
        sleep(Duration::from_secs(61)).await;
    }
    assert!(generator.stopped_by().is_none(), "its cooldown is over");
    let asked = model.1.load(Relaxed);
    assert!(asked <= 25 + 10, "until the first checkpoint, and those in flight then: {asked}");
}

#[tokio::test(start_paused = true)]
async fn work_under_way_here_is_not_due_to_the_sweep() {
    let (clock, objects) = world();
    let event = begin(&objects, &run(1), 5).await;
    let generator = generator(objects.clone(), Told::new(|_| (100, answer())), &clock);
    let at_work = generator.clone();
    tokio::spawn(async move { at_work.handle(&event).await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(generator.due(Sweep::Now, None).await.events, []);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_run_stays_due_until_its_shards_are_seen_to() {
    let (clock, objects) = world();
    let (resumed, other) = (begin(&objects, &run(1), 5).await, begin(&objects, &run(2), 5).await);
    let settings = Settings { shards_admitted: 1, ..Settings::default() };
    let model = Told::new(|_| (50, answer()));
    let generator = Generator::new(objects.clone(), model, clock, Chance::seeded(1), settings);
    let due = async || -> Vec<String> {
        generator.due(Sweep::ByAge, None).await.events.into_iter().map(|event| event.name).collect()
    };
    put(&objects, Bucket::State, &names::parked(&run(1)), "").await;
    assert_eq!(generator.handle(&resumed).await, Verdict::Done, "its event is acknowledged");
    objects.remove(Bucket::State, &names::parked(&run(1)), None).await.expect("memory");

    let at_work = generator.clone();
    let work = tokio::spawn(async move { at_work.handle(&other).await });
    for _ in 0..3 {
        sleep(Duration::from_secs(15)).await;
        assert_eq!(due().await, [resumed.name.as_str()], "a sweep that is cut before it drives");
        assert_eq!(generator.sweep().await, Ok(0), "there is no room");
    }
    assert_eq!(work.await.unwrap(), Verdict::Done);
    assert_eq!(generator.sweep().await, Ok(1));
    assert_eq!(outcomes(&objects), ["ok"; 10]);
    assert_eq!(due().await, [""; 0]);
    let next = ShardId { run: run(1), shard: ShardIndex(1) };
    put(&objects, Bucket::Shards, &next.object(), encode(&header(&run(1), 1, 0), &[] as &[ShardLine])).await;
    assert_eq!(due().await, [""; 0], "its event brings it: the run is like any other again");
}

/// Cannot announce this run.
struct Mute(RunId);

#[async_trait]
impl Notice for Mute {
    async fn publish(&self, announcement: &Announcement) -> Result<(), String> {
        if announcement.run.run == self.0 { Err("the topic is gone".into()) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_cannot_be_sent_keeps_no_other_run_from_being_loaded() {
    let (clock, objects) = world();
    let records = Arc::new(MemoryRecords::new(clock.clone()));
    let mut runs: Vec<RunId> = (0..4).map(run).collect();
    runs.sort();
    for run in &runs {
        begin(&objects, run, 1).await;
        let answer = Answer {
            values: json!({"theme": "x"}).as_object().cloned().unwrap_or_default(),
            fingerprint: "f".into(),
            model: "m".into(),
        };
        let line = AnswerLine {
            ordinal: 0,
            key: Some(Key::Text("k".into())),
            outcome: Outcome::Answer(answer),
            spent: Spent::default(),
        };
        let name = ShardId { run: run.clone(), shard: ShardIndex(0) }.object();
        put(&objects, Bucket::Answers, &name, encode(&header(run, 0, 1), &[line])).await;
    }
    let loader = Loader::new(objects, records.clone(), Arc::new(Mute(runs[0].clone())), clock, 4);
    for _ in 0..30 {
        sleep(Duration::from_secs(60)).await;
        loader.sweep().await.ok();
    }
    let ended = records.look(|state| state.runs.values().filter(|run| run.row.state == RunState::Complete).count());
    assert_eq!(ended, 4);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_failed_before_its_effect_loses_no_lease() {
    let (clock, objects) = world();
    let (name, timing) = (ShardId { run: run(1), shard: ShardIndex(0) }.claim(), Timing::default());
    let before = Claims::new(objects.clone(), clock.clone(), Chance::seeded(1), timing);
    let Claimed::Won(gone) = before.take(&name).await.unwrap() else { panic!("nobody else is here") };
    gone.release().await;
    let claims = Claims::new(refuses(&objects, "claims/"), clock, Chance::seeded(2), timing);
    let Claimed::Free(stale) = claims.take(&name).await.unwrap() else { panic!("it was released") };
    let Claimed::Won(claim) = claims.take_over(&name, stale, None).await.unwrap() else { panic!("it is free") };
    let lease = claim.lease();
    lease.begin();
    sleep(Duration::from_secs(1)).await;
    assert!(lease.may_spend(), "nobody else wrote the claim");
}

/// Storage that cannot read what is of this run.
fn blind(objects: &Arc<MemoryObjects>, run: RunId) -> Arc<dyn Objects> {
    let see = move |call: &mut Call| {
        let looks = matches!(call.op, Op::Stat | Op::Read | Op::List);
        if looks && call.name.contains(run.as_str()) { Err(ObjectsError::Unknown("blind".into())) } else { Ok(()) }
    };
    Hooked::new(objects.clone(), see)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_turned_away_is_due_with_the_next_sweep() {
    let (clock, objects) = world();
    for n in 0..5 {
        begin(&objects, &run(n), 1).await;
    }
    let settings = Settings { shards_admitted: 1, ..Settings::default() };
    let model = Told::new(|_| (30, answer()));
    let generator = Generator::new(objects.clone(), model, clock.clone(), Chance::seeded(1), settings);
    sleep(MINUTE * 11).await;
    for sweep in 1..=5 {
        assert_eq!(generator.sweep().await, Ok(1), "the others are turned away");
        assert_eq!(objects.live(Bucket::Answers).len(), sweep);
        sleep(MINUTE / 2).await;
    }
}

/// Runs by name: the sweeps look at them in this order.
fn sorted(runs: impl IntoIterator<Item = RunId>) -> Vec<RunId> {
    let mut runs: Vec<RunId> = runs.into_iter().collect();
    runs.sort();
    runs
}

fn splitter(objects: Arc<dyn Objects>, clock: &Clock) -> Arc<Splitter> {
    let records = Arc::new(MemoryRecords::new(clock.clone()));
    let rows = Arc::new(ObjectRows::new(objects.clone()));
    let (chance, settings) = (Chance::seeded(1), tasuki_splitter::Settings::default());
    Splitter::new(objects, rows, Arc::new(FilesOnly), records, clock.clone(), chance, settings)
}

async fn drop_file(objects: &MemoryObjects, name: &str) -> (RunId, Generation) {
    let meta = objects.create(Bucket::Inbox, name, "{\"id\": \"k\", \"n\": 1}\n".into()).await.expect("a new name");
    (RunId::of("inbox", name, meta.generation), meta.generation)
}

#[tokio::test(start_paused = true)]
async fn what_hinders_one_run_hinders_no_other_in_the_splitters_sweep_and_is_told() {
    let (clock, objects) = world();
    put(&objects, Bucket::State, &names::pipeline("p"), PIPELINE).await;
    let mut runs = Vec::new();
    for n in 0..6 {
        let (run, generation) = drop_file(&objects, &format!("p/{n}.jsonl")).await;
        if n % 2 == 0 {
            let open = json!({"name": format!("p/{n}.jsonl"), "generation": generation}).to_string();
            put(&objects, Bucket::State, &names::open(&run), open).await; // begun, and its process died
        }
        runs.push(run);
    }
    sleep(MINUTE * 11).await;
    let first = sorted([&runs[0], &runs[2], &runs[4]].map(Clone::clone)).swap_remove(0);
    let swept = splitter(blind(&objects, first), &clock).sweep().await;
    assert_eq!(swept, Err(Why::Unconfirmed("storage did not confirm: blind".into())));
    assert_eq!(objects.live(Bucket::Shards).len(), 5, "every other file is split");
}

#[tokio::test(start_paused = true)]
async fn what_hinders_one_run_is_told_by_every_sweep() {
    let (clock, objects) = world();
    let runs = sorted((0..3).map(run));
    for run in &runs {
        begin(&objects, run, 1).await;
    }
    sleep(MINUTE * 11).await;
    let blind = blind(&objects, runs[0].clone());
    let failed = Err(Why::Unconfirmed("storage did not confirm: blind".into()));
    assert_eq!(generator(blind.clone(), Told::new(|_| (1, answer())), &clock).sweep().await, failed);
    assert_eq!(objects.live(Bucket::Answers).len(), 2);
    sleep(MINUTE * 11).await;
    let records = Arc::new(MemoryRecords::new(clock.clone()));
    let loader = Loader::new(blind, records.clone(), Arc::new(Mute(run(99))), clock, 4);
    assert_eq!(loader.sweep().await, failed);
    assert_eq!(records.look(|state| state.ledger.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn the_splitters_sweep_remembers_only_what_is_there() {
    let (clock, objects) = world();
    put(&objects, Bucket::State, &names::pipeline("p"), PIPELINE).await;
    let splitter = splitter(objects.clone(), &clock);
    for n in 0..4 {
        drop_file(&objects, &format!("p/{n}.jsonl")).await;
    }
    sleep(MINUTE * 11).await;
    assert_eq!((splitter.sweep().await, splitter.remembered()), (Ok(4), 4));
    for name in ["p/0.jsonl", "p/1.jsonl", "p/2.jsonl"] {
        objects.remove(Bucket::Inbox, name, None).await.expect("memory");
    }
    for open in objects.live(Bucket::State).iter().filter(|object| object.meta.name.starts_with("open/")) {
        objects.remove(Bucket::State, &open.meta.name, None).await.expect("memory"); // the runs ended
    }
    assert_eq!((splitter.sweep().await, splitter.remembered()), (Ok(0), 1));
}
