//! The records port on Spanner: the conformance suite, and what only Spanner can do wrong.

use anyhow::{Result, ensure};
use futures::future::join_all;
use libtest_mimic::Trial;
use std::sync::Arc;
use tasuki_google::connect::Endpoint;
use tasuki_google::records::{SpannerBooks, SpannerRecords};
use tasuki_relay::ddl;
use tasuki_relay::names::ShardIndex;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Loaded, Part, Records, RecordsError, RunState};
use tasuki_tests::build::{answer, failed, part, pipeline, run_id, with_totals};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::proxy::Proxy;
use tasuki_tests::spanner::Database;
use tasuki_tests::suites::books;
use tasuki_tests::suites::records::records_suite;

pub(crate) const S0: ShardIndex = ShardIndex(0);
/// Of a part's commit alone: no other request names this column of the ledger.
pub(crate) const COMMIT: &[u8] = b"generation";
/// Transactions at once, where the test does not look at them.
pub(crate) const AT_ONCE: usize = 8;

/// The tables that the suite's pipelines name, but for that of a run without rows.
const SUITE: [&str; 14] = [
    "once",
    "eight",
    "ends",
    "more",
    "refused",
    "at_once",
    "cancelled",
    "newer",
    "unchanged",
    "notice",
    "large",
    "parked",
    "early",
    "late",
];

pub fn trials() -> Vec<Trial> {
    use Needs::{Spanner, SpannerWithFaults};
    vec![
        trial("spanner_keeps_the_contract", &[Spanner], || contract(Spanner)),
        trial("spanner_keeps_the_contract_among_aborts", &[SpannerWithFaults], || contract(SpannerWithFaults)),
        trial("spanner_is_told_of_as_books_must", &[Spanner], told),
        trial("twenty_shards_of_a_run_load_at_once", &[Spanner], || twenty(Spanner)),
        trial("twenty_shards_of_a_run_load_at_once_among_aborts", &[SpannerWithFaults], || twenty(SpannerWithFaults)),
        trial("two_processes_load_a_shard_once", &[Spanner], || doubled(Spanner)),
        trial("two_processes_load_a_shard_once_among_aborts", &[SpannerWithFaults], || doubled(SpannerWithFaults)),
        trial("a_lost_reply_is_no_second_load", &[Spanner], a_lost_reply_is_no_second_load),
    ]
}

pub(crate) async fn open(database: &Database, at_once: usize) -> Result<Arc<SpannerRecords>> {
    let endpoint = Endpoint::emulator(&database.host);
    Ok(Arc::new(SpannerRecords::connect(&database.name, endpoint, at_once, None).await?))
}

/// A fresh database with the pipeline's table, and the store on it.
pub(crate) async fn with_table(pipeline: &Pipeline) -> Result<(Database, Arc<SpannerRecords>)> {
    let database = Database::fresh(Needs::Spanner).await?;
    make(&database, pipeline).await?;
    let records = open(&database, AT_ONCE).await?;
    Ok((database, records))
}

pub(crate) async fn make(database: &Database, pipeline: &Pipeline) -> Result<()> {
    database.apply(&ddl::target(pipeline).ddl()).await
}

pub(crate) async fn count(database: &Database, what: &str) -> Result<i64> {
    let rows = database.query(&format!("SELECT COUNT(*) FROM {what}")).await?;
    Ok(rows[0][0].as_str().unwrap_or_default().parse()?)
}

async fn contract(needs: Needs) -> Result<()> {
    let database = Database::fresh(needs).await?;
    for table in SUITE {
        make(&database, &pipeline(table)).await?;
    }
    records_suite(&*open(&database, AT_ONCE).await?).await;
    Ok(())
}

async fn told() -> Result<()> {
    let (database, records) = with_table(&pipeline(books::TABLE)).await?;
    let reader = SpannerBooks::connect(&database.name, Endpoint::emulator(&database.host), None).await?;
    books::books_suite(&*records, &reader).await;
    Ok(())
}

async fn twenty(needs: Needs) -> Result<()> {
    let (database, target) = (Database::fresh(needs).await?, pipeline("themes"));
    make(&database, &target).await?;
    let records = open(&database, 20).await?;
    let shard = |index: u32| {
        let rows = (0..5).map(|row| (i64::from(index) * 5 + row, answer("f"))).collect();
        let part = part(&target, 1, ShardIndex(index), rows);
        if index == 19 { with_totals(part, 20, 100) } else { part }
    };
    let load = |part: Part| {
        let records = records.clone();
        tokio::spawn(async move {
            let loaded = records.load(&part).await;
            (loaded, records.finish(&part.id.run).await)
        })
    };
    for done in join_all((0..20).map(|index| load(shard(index)))).await {
        let (loaded, finished) = done?;
        ensure!(matches!(loaded, Ok(Loaded::Now(counts)) if counts.loaded == 5), "{loaded:?}");
        ensure!(finished.is_ok(), "{finished:?}");
    }
    let run = records.finish(&run_id(1)).await?;
    let run = run.map(|run| (run.state, run.counts.shards, run.counts.loaded, run.counts.usage.prompt));
    ensure!(run == Some((RunState::Complete, 20, 100, 1_000)), "{run:?}");
    ensure!(count(&database, "themes").await? == 100);
    ensure!(count(&database, "Counters").await? == 16);
    ensure!(records.unpublished(None).await?.len() == 1);
    Ok(())
}

async fn doubled(needs: Needs) -> Result<()> {
    let (database, target) = (Database::fresh(needs).await?, pipeline("themes"));
    make(&database, &target).await?;
    let processes = [open(&database, 5).await?, open(&database, 5).await?];
    let one = part(&target, 1, S0, vec![(1, answer("f")), (2, failed("malformed")), (3, answer("f"))]);
    let loads = (0..10).map(|index| {
        let (records, part) = (processes[index % 2].clone(), one.clone());
        tokio::spawn(async move { records.load(&part).await })
    });
    let mut now = 0;
    for loaded in join_all(loads).await {
        match loaded?? {
            Loaded::Now(_) => now += 1,
            Loaded::Already => (),
        }
    }
    let run =
        processes[0].finish(&run_id(1)).await?.map(|run| (run.counts.shards, run.counts.loaded, run.counts.failed));
    ensure!((now, run) == (1, Some((1, 2, 1))), "{now} loads, {run:?}");
    ensure!(count(&database, "Ledger").await? == 1 && count(&database, "Failures").await? == 1);
    Ok(())
}

/// The connection breaks when the commit is done and its reply on the way. Whatever the client makes of it, the part is
/// loaded once.
async fn a_lost_reply_is_no_second_load() -> Result<()> {
    let target = pipeline("themes");
    let (database, direct) = with_table(&target).await?;
    let proxy = Proxy::start(database.host.clone()).await?;
    let mut through = database.clone();
    through.host = proxy.host();
    let records = open(&through, 1).await?;
    let one = part(&target, 1, S0, vec![(1, answer("f")), (2, answer("f"))]);

    proxy.lose(COMMIT, 1);
    let loaded = records.load(&one).await;
    ensure!(proxy.lost(COMMIT) == 1, "no commit went by");
    ensure!(
        matches!(loaded, Ok(Loaded::Now(_) | Loaded::Already) | Err(RecordsError::Unknown(_))),
        "a part that is loaded was refused: {loaded:?}"
    );
    ensure!(records.ledgered(&one.id.run, &[S0]).await?.contains(&S0), "the ledger decides");
    ensure!(records.load(&one).await? == Loaded::Already);
    let run = direct.finish(&one.id.run).await?.map(|run| (run.counts.shards, run.counts.loaded));
    ensure!(run == Some((1, 2)), "{run:?}");
    Ok(())
}
