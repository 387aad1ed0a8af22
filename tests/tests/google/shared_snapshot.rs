//! A large snapshot of BigQuery over several splitter processes. `TASUKI_SNAPSHOT_ROWS=5000000` for the full size.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::{self, RunId, ShardId, ShardIndex};
use tasuki_relay::record::{Header, Snapshot, SnapshotPart, decode};
use tasuki_tests::deployment::{Delivery, Splitters};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::read_api::key;

const NOTHING: &[Needs] = &[Needs::Nothing];
const SPLITTERS: usize = 3;
/// The one that is killed.
const VICTIM: usize = 2;
const ROWS: u64 = 300_000;
/// Rows of a part: as many as the splitter plans for, or thereabouts.
const PART_ROWS: u64 = 20_000;
const ROWS_PER_SHARD: u32 = 1_000;
/// The shortest that a service takes.
const LEASE: u32 = 30;
/// What a splitter may need, however large the snapshot: the memory that Cloud Run gives unless more is asked for.
const MEMORY_MAX: u64 = 512 << 20;
const LOOK: Duration = Duration::from_millis(100);
/// A limit against hanging, no measurement: the lease of the killed one, and far more than the rows need.
const PATIENCE: Duration = Duration::from_secs(180);
const PATIENCE_FOR_A_THOUSAND_ROWS: Duration = Duration::from_millis(200);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("three_splitters_share_a_snapshot_and_one_is_killed", NOTHING, shared),
        trial("a_splitter_that_is_told_to_stop_while_it_reads_gives_its_part_to_another", NOTHING, stopped),
    ]
}

/// Of a shard's line, what is looked at here.
#[derive(Deserialize)]
struct Line {
    ordinal: u64,
    key: String,
}

fn rows() -> Result<u64> {
    Ok(std::env::var("TASUKI_SNAPSHOT_ROWS").map_or(Ok(ROWS), |rows| rows.parse())?)
}

/// Parts of one size, an empty one among them, and what is left in the last.
fn by_part(rows: u64) -> Vec<u64> {
    let mut parts: Vec<u64> = (0..rows).step_by(PART_ROWS as usize).map(|at| PART_ROWS.min(rows - at)).collect();
    parts.insert(parts.len() / 2, 0);
    parts
}

/// Every row is in the one shard where the snapshot's counts place it, in its order; one header tells the totals.
fn check_shards(world: &Splitters, run: &RunId, rows: &[u64]) -> Result<()> {
    let recorded = world.storage.body(&world.buckets.state, &names::snapshot(run)).context("there is a snapshot")?;
    let snapshot: Snapshot = serde_json::from_slice(&recorded)?;
    ensure!(snapshot.rows == rows, "the snapshot has other rows");
    let totals = snapshot.totals(ROWS_PER_SHARD);
    ensure!(world.shards() as u64 == totals.shards, "{} shards of {}", world.shards(), totals.shards);
    let mut seen = 0;
    for part in snapshot.parts(ROWS_PER_SHARD) {
        for index in 0..part.shards {
            seen += check_shard(world, run, part, index, (part.shard + index == 0).then_some(totals))
                .with_context(|| format!("shard {index} of part {}", part.part))?;
        }
    }
    ensure!(seen == totals.rows, "{seen} rows of {}", totals.rows);
    Ok(())
}

fn check_shard(
    world: &Splitters,
    run: &RunId,
    part: SnapshotPart,
    index: u32,
    totals: Option<tasuki_relay::record::Totals>,
) -> Result<u64> {
    let id = ShardId { run: run.clone(), shard: ShardIndex(part.shard + index) };
    let body = world.storage.body(&world.buckets.shards, &id.object()).context("it is not there")?;
    let (header, lines): (Header, Vec<Line>) = decode(&body)?;
    let from = u64::from(index) * u64::from(ROWS_PER_SHARD);
    let rows = part.rows.min(from + u64::from(ROWS_PER_SHARD)) - from;
    ensure!((header.first, header.rows, header.totals) == (part.first + from, rows, totals), "{header:?}");
    ensure!(lines.len() as u64 == rows, "{} lines", lines.len());
    for (line, pos) in lines.iter().zip(from..) {
        ensure!(line.ordinal == part.first + pos && line.key == key(part.part, pos), "{} {}", line.ordinal, line.key);
    }
    Ok(rows)
}

async fn shared() -> Result<()> {
    let (rows, clock) = (rows()?, Clock::system());
    let parts = by_part(rows);
    // Pushes that are cut soon: the next delivery brings another process in.
    let delivery =
        Delivery { ack_deadline: Duration::from_secs(2), sweep_every: Duration::from_secs(1), ..Delivery::default() };
    let world = Splitters::start(SPLITTERS, parts.clone(), LEASE, delivery).await?;
    let patience = PATIENCE + PATIENCE_FOR_A_THOUSAND_ROWS * (rows / 1_000) as u32;
    // The first may be through before the last has heard of the run.
    world.read.hold(true);
    let (start, run) = (clock.instant(), world.drop_run()?);
    let (mut killed, mut memory) = (false, vec![0; SPLITTERS]);
    while !world.has_ended(&run) {
        for (most, service) in memory.iter_mut().zip(&world.services) {
            service.is_alive()?;
            *most = service.peak_memory().unwrap_or_default().max(*most);
        }
        let readers: BTreeSet<usize> = world.read.reads().keys().map(|(reader, _)| *reader).collect();
        if readers.len() == SPLITTERS && !killed {
            world.read.hold(false);
        }
        if !killed && world.shards() as u64 > rows / 1_000 / 3 {
            world.read.hold(true);
            tokio::time::sleep(Duration::from_secs(1)).await; // each is in the middle of a part now
            memory[VICTIM] = world.services[VICTIM].peak_memory().unwrap_or_default();
            world.services[VICTIM].signal("KILL")?;
            killed = true;
            world.services[VICTIM].again().await?;
            world.read.hold(false);
        }
        let waited = clock.instant().duration_since(start);
        let told = || format!("{} shards; {}\n{}", world.shards(), world.eventarc.summary(), world.logs());
        ensure!(waited < patience, "not done after {waited:?}: {}", told());
        tokio::time::sleep(LOOK).await;
    }
    let took = clock.instant().duration_since(start);
    ensure!(killed, "none was killed");
    check_shards(&world, &run, &parts)?;

    let (reads, mut shares) = (world.read.reads(), vec![0; SPLITTERS]);
    let mut by_part: BTreeMap<u32, u32> = BTreeMap::new();
    for ((reader, part), times) in &reads {
        shares[*reader] += times;
        *by_part.entry(*part).or_default() += times;
    }
    // The one that was killed worked on one part, which is read again. Nobody else reads what another holds.
    let again: u32 = by_part.values().map(|times| times - 1).sum();
    ensure!(again == 1, "parts are read again {again} times: {reads:?}");
    ensure!(by_part.len() == parts.iter().filter(|rows| **rows > 0).count(), "parts were not read: {by_part:?}");
    ensure!(shares.iter().all(|share| *share > 0), "one had nothing to do: {shares:?}");
    ensure!(world.bigquery.jobs().len() == 1, "{:?}", world.bigquery.jobs());
    let mib: Vec<u64> = memory.iter().map(|bytes| bytes >> 20).collect();
    eprintln!("{rows} rows in {took:?}; parts read by each: {shares:?}, again {again}; peak memory in MiB: {mib:?}");
    ensure!(memory.iter().all(|bytes| *bytes < MEMORY_MAX), "{mib:?} MiB");
    Ok(())
}

async fn stopped() -> Result<()> {
    // Nobody outlives this lease here: the part must be given back.
    let delivery = Delivery { sweep_every: Duration::from_secs(1), ..Delivery::default() };
    let world = Splitters::start(2, vec![PART_ROWS], 600, delivery).await?;
    world.read.hold(true);
    let run = world.drop_run()?;
    let reader = loop {
        if let Some(((reader, _), _)) = world.read.reads().pop_first() {
            break reader;
        }
        tokio::time::sleep(LOOK).await;
    };
    tokio::time::sleep(Duration::from_millis(500)).await; // the first rows are there
    world.services[reader].signal("TERM")?;
    let ended = async {
        while !world.services[reader].has_ended()? {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    // Cloud Run kills a process 10 s after SIGTERM: a stop takes 8 s at most.
    let ended = tokio::time::timeout(Duration::from_secs(8), ended).await;
    ended.with_context(|| format!("it does not stop:\n{}", world.logs()))??;
    world.services[reader].is_alive()?; // it ended with 0
    world.read.hold(false);
    let clock = Clock::system();
    let start = clock.instant();
    while !world.has_ended(&run) {
        ensure!(clock.instant().duration_since(start) < PATIENCE, "{}\n{}", world.eventarc.summary(), world.logs());
        tokio::time::sleep(LOOK).await;
    }
    let readers: Vec<usize> = world.read.reads().keys().map(|(reader, _)| *reader).collect();
    ensure!(readers == [0, 1], "read by {readers:?}");
    check_shards(&world, &run, &[PART_ROWS])
}
