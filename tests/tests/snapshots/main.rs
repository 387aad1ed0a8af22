//! The laws of a snapshot: one job, one record, parts that any number of splitters share, and no row lost or doubled.

mod jobs;
mod sharing;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tasuki_relay::claims::{Claimed, Claims, Timing};
use tasuki_relay::clock::{Chance, Clock, Millis};
use tasuki_relay::files_only::FilesOnly;
use tasuki_relay::limits::PART_BYTES_MAX;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Event, Object, Objects, ObjectsError, Snapshots, Verdict, Why};
use tasuki_relay::record::{Content, Header, Plan, ShardLine, Snapshot, Totals, decode};
use tasuki_splitter::{Settings, Splitter};
use tasuki_tests::hooked::{Call, Hook, Hooked, Op};
use tasuki_tests::memory::records::MemoryRecords;
use tasuki_tests::memory::{Act, MemoryObjects, MemoryRows, MemorySnapshots};
use tokio::time::sleep;

const START: Millis = Millis(1_763_620_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What every splitter of a test sees.
struct World {
    clock: Clock,
    objects: Arc<MemoryObjects>,
    event: Event,
}

impl World {
    async fn new(rows_per_shard: u32, source: &str) -> World {
        let clock = Clock::starting_at(START);
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let pipeline = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ id }}}}\"\n[answer.x]\ntype = \"string\"\n\
             [run]\nrows_per_shard = {rows_per_shard}\n[target]\ntable = \"t\"\n"
        );
        objects.create(Bucket::State, &names::pipeline("p"), pipeline.into()).await.expect("new");
        let text = format!("[source]\ntable = \"p.d.t\"\n{source}");
        let meta = objects.create(Bucket::Inbox, "p/a.run.toml", text.into()).await.expect("new");
        World { clock, objects, event: Event { bucket: Bucket::Inbox, name: meta.name, generation: meta.generation } }
    }

    fn splitter(&self, seed: u64, snapshots: impl Snapshots + 'static) -> Arc<Splitter> {
        self.splitter_over(self.objects.clone(), seed, snapshots)
    }

    fn splitter_over(
        &self,
        objects: Arc<dyn Objects>,
        seed: u64,
        snapshots: impl Snapshots + 'static,
    ) -> Arc<Splitter> {
        let records = Arc::new(MemoryRecords::new(self.clock.clone()));
        let (rows, snapshots) = (Arc::new(MemoryRows::new(vec![])), Arc::new(snapshots));
        let (clock, chance) = (self.clock.clone(), Chance::seeded(seed));
        Splitter::new(objects, rows, snapshots, records, clock, chance, Settings::default())
    }

    fn run(&self) -> RunId {
        RunId::of(&Settings::default().inbox, &self.event.name, self.event.generation)
    }

    fn shards(&self) -> Vec<(Header, Vec<ShardLine>)> {
        self.objects.live(Bucket::Shards).iter().map(|shard| decode(&shard.body).expect("shards are whole")).collect()
    }

    async fn state(&self, name: &str) -> Option<Bytes> {
        self.objects.read(Bucket::State, name, None).await.expect("memory").map(|object| object.body)
    }

    /// The law: every row of the source is a line once, the first of each key is asked, and the totals are said once.
    fn check(&self, rows: &[Map<String, Value>]) {
        let shards = self.shards();
        let lines: Vec<&ShardLine> = shards.iter().flat_map(|(_, lines)| lines).collect();
        assert!(lines.iter().map(|line| line.ordinal).eq(0..rows.len() as u64), "every ordinal once, in order");
        let first = Totals { shards: shards.len() as u64, rows: rows.len() as u64 };
        let totals: Vec<_> = shards.iter().map(|(header, _)| header.totals).collect();
        assert_eq!(totals[0], Some(first), "the first shard has the totals");
        assert!(totals[1..].iter().all(Option::is_none), "and no other");
        for (at, (header, lines)) in shards.iter().enumerate() {
            assert_eq!((header.shard.0 as usize, header.rows), (at, lines.len() as u64));
            assert!(lines.first().is_none_or(|line| line.ordinal == header.first));
            assert_eq!(header.refused, None);
        }
        let (mut asked, mut wanted) = (BTreeMap::<String, u32>::new(), BTreeSet::new());
        for line in &lines {
            if let (Content::Row(row), Some(key)) = (&line.content, &line.key) {
                assert_eq!(row["id"], json!(key.to_string()));
                *asked.entry(key.to_string()).or_default() += 1;
            }
        }
        wanted.extend(rows.iter().filter_map(|row| row["id"].as_str()).map(str::to_owned));
        assert!(asked.values().all(|times| *times == 1), "no key is asked twice");
        assert_eq!(asked.into_keys().collect::<BTreeSet<_>>(), wanted, "every key is asked");
    }
}

/// Rows with these keys; `None` is NULL.
fn rows(keys: impl IntoIterator<Item = Option<u16>>) -> Vec<Map<String, Value>> {
    let row = |(n, key): (usize, Option<u16>)| json!({"id": key.map(|key| format!("k{key}")), "n": n});
    keys.into_iter().enumerate().map(row).map(|row| row.as_object().expect("an object").clone()).collect()
}

fn distinct(count: u16) -> Vec<Map<String, Value>> {
    rows((0..count).map(Some))
}

proptest! {
    #[test]
    fn splitting_a_snapshot_loses_and_doubles_no_row(
        keys in proptest::collection::vec(proptest::option::weighted(0.9, 0..60u16), 0..150),
        rows_per_shard in 1..20u32,
        parts in 1..9u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (world, rows) = (World::new(rows_per_shard, "").await, rows(keys));
            let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", parts);
            assert_eq!(world.splitter(1, snapshots).handle(&world.event).await, Verdict::Done);
            world.check(&rows);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_rows_with_one_key_the_first_by_position_wins() {
    let (world, rows) = (World::new(10, "").await, rows([Some(1), Some(2), Some(1)]));
    let snapshots = MemorySnapshots::new(world.clock.clone(), rows, "id", 1);
    assert_eq!(world.splitter(1, snapshots).handle(&world.event).await, Verdict::Done);
    let what = |line: &ShardLine| match &line.content {
        Content::Failed(failed) => failed.reason.clone(),
        Content::Row(row) => row["n"].to_string(),
        Content::Unchanged(_) => "unchanged".into(),
    };
    let lines: Vec<String> = world.shards()[0].1.iter().map(what).collect();
    assert_eq!(lines, ["0", "duplicate_key", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_no_rows_is_one_empty_shard_with_totals() {
    let world = World::new(10, "").await;
    let snapshots = MemorySnapshots::new(world.clock.clone(), vec![], "id", 3);
    assert_eq!(world.splitter(1, snapshots).handle(&world.event).await, Verdict::Done);
    let shards = world.shards();
    assert_eq!((shards.len(), shards[0].0.totals), (1, Some(Totals { shards: 1, rows: 0 })));
}

#[tokio::test(start_paused = true)]
async fn the_rows_are_as_old_as_the_job() {
    let world = World::new(10, "").await;
    let snapshots = MemorySnapshots::new(world.clock.clone(), distinct(30), "id", 3);
    sleep(MINUTE * 7).await;
    assert_eq!(world.splitter(1, snapshots).handle(&world.event).await, Verdict::Done);
    let times: BTreeSet<_> = world.shards().iter().map(|(header, _)| (header.source_time, header.run_time)).collect();
    assert_eq!(times, BTreeSet::from([(START + MINUTE * 7, START)]));
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_as_old_as_the_snapshot_that_its_rows_come_from() {
    let world = World::new(10, "").await;
    let snapshots = MemorySnapshots::new(world.clock.clone(), distinct(30), "id", 3);
    let splitter = world.splitter(1, snapshots);
    sleep(MINUTE * 7).await;
    assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
    let parent = json!({"parent": world.run()}).to_string();
    let meta = world.objects.create(Bucket::Inbox, "p/a.retry.jsonl", parent.into()).await.expect("new");
    let event = Event { bucket: Bucket::Inbox, name: meta.name.clone(), generation: meta.generation };
    assert_eq!(splitter.handle(&event).await, Verdict::Done);
    let plan = world.state(&names::plan(&splitter.run_of(&meta.name, meta.generation))).await.expect("a plan");
    let plan: Plan = serde_json::from_slice(&plan).expect("plain data");
    assert_eq!((plan.source_time, plan.refused), (START + MINUTE * 7, None));
}

#[tokio::test(start_paused = true)]
async fn of_more_rows_than_asked_for_the_first_parts_are_taken() {
    let world = World::new(10, "max_rows = 25\n").await;
    let snapshots = MemorySnapshots::new(world.clock.clone(), distinct(100), "id", 8);
    assert_eq!(world.splitter(1, snapshots.clone()).handle(&world.event).await, Verdict::Done);
    let first: Vec<_> = snapshots.parts(8).into_iter().flatten().take(25).collect();
    world.check(&first);
    assert!(snapshots.reads().len() < 8, "no part is read of which no row is taken");
}

#[tokio::test(start_paused = true)]
async fn an_ended_split_is_not_begun_again() {
    let world = World::new(10, "").await;
    let snapshots = MemorySnapshots::new(world.clock.clone(), distinct(30), "id", 3);
    assert_eq!(world.splitter(1, snapshots.clone()).handle(&world.event).await, Verdict::Done);
    let written = world.objects.versions(Bucket::State).len();
    assert_eq!(world.splitter(2, snapshots.clone()).handle(&world.event).await, Verdict::Done);
    assert_eq!((world.objects.versions(Bucket::State).len(), snapshots.reads().len()), (written, 3));
}

#[tokio::test(start_paused = true)]
async fn the_first_record_is_the_snapshot_whatever_the_source_holds_later() {
    let (world, rows) = (World::new(10, "").await, distinct(30));
    let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 3);
    let others = Claims::new(world.objects.clone(), world.clock.clone(), Chance::seeded(9), Timing::default());
    let Ok(Claimed::Won(held)) = others.take(&names::split_part(&world.run(), 0)).await else {
        panic!("the claim is new")
    };
    assert_eq!(world.splitter(1, snapshots.clone()).handle(&world.event).await, Verdict::Later(Why::LiveClaim));
    let record = world.state(&names::snapshot(&world.run())).await.expect("it is there");
    let first: Snapshot = serde_json::from_slice(&record).expect("plain data");
    assert_eq!(first.rows.iter().sum::<u64>(), 30);
    held.release().await;
    let other = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 3).script([Act::Refused("asked again")]);
    assert_eq!(world.splitter(2, other.clone()).handle(&world.event).await, Verdict::Done);
    assert_eq!(
        (other.jobs().len(), other.reads().len()),
        (0, 1),
        "only the part that was left is read, and no job made"
    );
    world.check(&rows);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_source_is_refused_with_its_place_and_files_alone_with_a_sentence() {
    for (source, snapshots, why) in [
        ("max_row = 1\n", true, "a.run.toml:3:1: unknown field \"max_row\" in [source]: did you mean \"max_rows\"?"),
        ("query = \"SELECT 1\"\n", true, "query and table exclude each other"),
        ("", false, "this relay reads files only"),
    ] {
        let world = World::new(10, source).await;
        let memory = MemorySnapshots::new(world.clock.clone(), distinct(3), "id", 1);
        let splitter = if snapshots { world.splitter(1, memory.clone()) } else { world.splitter(1, FilesOnly) };
        assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
        let plan: Plan =
            serde_json::from_slice(&world.state(&names::plan(&world.run())).await.expect("a plan")).unwrap();
        assert!(plan.refused.as_deref().is_some_and(|refused| refused.contains(why)), "{:?}", plan.refused);
        let shards = world.shards();
        assert_eq!((shards.len(), shards[0].0.refused.clone()), (1, plan.refused));
        assert!(memory.jobs().is_empty(), "nothing is paid for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_parts_that_are_too_large_is_cut_again_once_and_its_rows_stay_as_old() {
    for (bytes, jobs, parts) in [(2 * PART_BYTES_MAX, 1, 2), (2 * PART_BYTES_MAX + 1, 2, 65)] {
        let (world, rows) = (World::new(10, "").await, distinct(100));
        let mut snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 2)
            .script([Act::Takes(SECOND * 20), Act::Takes(SECOND * 20)]);
        snapshots.bytes = Some(bytes);
        assert_eq!(world.splitter(1, snapshots.clone()).handle(&world.event).await, Verdict::Done);
        world.check(&rows);
        let recorded = world.state(&names::snapshot(&world.run())).await.expect("a record");
        let recorded: Snapshot = serde_json::from_slice(&recorded).expect("plain data");
        assert_eq!((snapshots.jobs().len(), recorded.rows.len()), (jobs, parts));
        assert_eq!((recorded.job.as_str(), recorded.source_time), (snapshots.jobs()[jobs - 1].as_str(), START));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_fails_is_made_again_from_the_same_rows() {
    let (world, rows) = (World::new(10, "").await, distinct(100));
    let mut snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 1).script([
        Act::Takes(Duration::ZERO),
        Act::Fails("backendError"),
        Act::Lost,
    ]);
    snapshots.bytes = Some(PART_BYTES_MAX + 1);
    let splitter = world.splitter(1, snapshots.clone());
    while splitter.handle(&world.event).await != Verdict::Done {
        sleep(MINUTE).await;
    }
    world.check(&rows);
    let again: Vec<_> = snapshots.orders().iter().map(|order| (order.attempt, order.again, order.parts)).collect();
    assert_eq!(again, [(1, None, 1), (2, Some(1), 33), (3, Some(1), 33)]);
}

/// The cut's job is refused, or fails until no other is started; or the snapshot itself took all jobs.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_cut_again_is_taken_as_it_is() {
    let (taken, fails) = (Act::Takes(Duration::ZERO), Act::Fails("backendError"));
    let failing = |times| vec![fails.clone(); times];
    for (script, whole, jobs) in [
        (vec![taken.clone(), Act::Refused("bytesBilledLimitExceeded")], 1, 2),
        ([vec![taken.clone()], failing(9)].concat(), 1, 5),
        ([failing(3), vec![taken.clone()], failing(9)].concat(), 4, 5),
        ([failing(4), vec![taken]].concat(), 5, 5),
    ] {
        let (world, rows) = (World::new(10, "").await, distinct(100));
        let mut snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 1).script(script);
        snapshots.bytes = Some(PART_BYTES_MAX + 1);
        let splitter = world.splitter(1, snapshots.clone());
        while splitter.handle(&world.event).await != Verdict::Done {
            sleep(MINUTE).await;
        }
        world.check(&rows);
        let recorded = world.state(&names::snapshot(&world.run())).await.expect("a record");
        let recorded: Snapshot = serde_json::from_slice(&recorded).expect("plain data");
        assert_eq!(recorded.job, names::snapshot_job(&world.run(), whole));
        assert_eq!((recorded.rows.len(), snapshots.jobs().len()), (1, jobs));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_do_not_fit_into_memory_at_once_are_read_in_smaller_pieces() {
    for fit in [1, 7, 99, 100, 101] {
        let (world, rows) = (World::new(10, "").await, distinct(100));
        let mut snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 1);
        snapshots.fit = fit;
        assert_eq!(world.splitter(1, snapshots.clone()).handle(&world.event).await, Verdict::Done);
        world.check(&rows);
        assert_eq!(snapshots.reads().len() == 1, fit >= 100, "{fit}");
    }
}
