//! The three services as processes, from a dropped file to rows in Spanner and one notice.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::time::Duration;
use tasuki_relay::names::{self, RunId};
use tasuki_tests::deployment::{Chaos, Dataset, Delivery, Deployment, PIPELINE, Setup};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::model_server::Script;
use tokio_util::sync::CancellationToken;

pub(crate) const EMULATORS: &[Needs] = &[Needs::Spanner, Needs::PubSub];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_dropped_file_becomes_rows_in_spanner_and_one_notice", EMULATORS, a_dropped_file),
        trial("doubled_and_cut_deliveries_pay_for_nothing_twice", EMULATORS, doubled_and_cut),
        trial(
            "a_database_that_aborts_at_random_loads_every_row_once",
            &[Needs::SpannerWithFaults, Needs::PubSub],
            aborting,
        ),
        trial("with_only_changed_the_splitter_asks_the_store_and_new_rows_alone_are_paid", EMULATORS, only_changed),
        trial("a_bigquery_table_becomes_rows_in_spanner_and_one_notice", EVERYTHING, a_table),
        trial("with_every_event_lost_the_sweeps_bring_every_row_home", EMULATORS, sweeps_alone),
        trial("services_that_are_killed_stopped_and_terminated_lose_nothing", EMULATORS, blows),
    ]
}

pub(crate) const EVERYTHING: &[Needs] = &[Needs::Spanner, Needs::PubSub, Needs::BigQuery];

pub(crate) const ROWS: u64 = 300;

pub(crate) async fn completes(deployment: &Deployment, run: &RunId, rows: u64) -> Result<()> {
    let state = deployment.end_of(run).await?;
    ensure!(state == "COMPLETE", "the run ended {state}");
    deployment.check_end(run, rows).await
}

/// Every prompt is another one: as many calls as rows.
pub(crate) fn paid_once(deployment: &Deployment, rows: u64) -> Result<()> {
    let calls = deployment.model.tally().calls();
    ensure!(calls == rows, "{calls} calls for {rows} rows");
    Ok(())
}

async fn a_dropped_file() -> Result<()> {
    let deployment = Deployment::start(Script::default(), Setup::default()).await?;
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    paid_once(&deployment, ROWS)?;
    Ok(())
}

async fn doubled_and_cut() -> Result<()> {
    let delivery = Delivery { ack_deadline: Duration::from_secs(1), doubled: 60, seed: 2, ..Delivery::default() };
    let script = Script::default().latency(Duration::from_millis(1_500));
    let deployment = Deployment::start(script, Setup { delivery, ..Setup::default() }).await?;
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    ensure!(deployment.eventarc.again() > 0, "no push was cut: {}", deployment.eventarc.summary());
    paid_once(&deployment, ROWS)?;
    Ok(())
}

async fn aborting() -> Result<()> {
    let setup = Setup { spanner_faults: true, ..Setup::default() };
    let deployment = Deployment::start(Script::default(), setup).await?;
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    paid_once(&deployment, ROWS)?;
    Ok(())
}

async fn only_changed() -> Result<()> {
    let setup = Setup { splitter_reads_the_store: true, ..Setup::default() };
    let deployment = Deployment::start(Script::default(), setup).await?;
    let pipeline = PIPELINE.replace("[run]\n", "[run]\nonly_changed = true\n");
    deployment.storage.put(&deployment.buckets.state, &names::pipeline("words"), pipeline)?;
    let run = deployment.drop_rows("rows.jsonl", 0..100)?;
    completes(&deployment, &run, 100).await?;
    paid_once(&deployment, 100)?;
    let run = deployment.drop_rows("more.jsonl", 50..150)?;
    ensure!(deployment.end_of(&run).await? == "COMPLETE");
    paid_once(&deployment, 150)
}

async fn a_table() -> Result<()> {
    let rows = 3_000;
    let dataset = Dataset::fresh(rows).await?;
    let (rest, read) = Dataset::hosts()?;
    let setup = Setup { variables: dataset.variables(&rest, &read), ..Setup::default() };
    let deployment = Deployment::start(Script::default(), setup).await?;
    let run = deployment.drop_file("entries.run.toml", dataset.run_file())?;
    completes(&deployment, &run, rows).await?;
    paid_once(&deployment, rows)?;
    Ok(())
}

async fn sweeps_alone() -> Result<()> {
    let delivery = Delivery { lost: 100, sweep_every: Duration::from_secs(1), ..Delivery::default() };
    let deployment = Deployment::start(Script::default(), Setup { delivery, ..Setup::default() }).await?;
    for bucket in [&deployment.buckets.inbox, &deployment.buckets.shards, &deployment.buckets.answers] {
        // Sweeps leave what is younger than ten minutes to its event.
        deployment.storage.age(bucket, Duration::from_secs(900));
    }
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    ensure!(deployment.eventarc.lost() > 0, "events were delivered: {}", deployment.eventarc.summary());
    paid_once(&deployment, ROWS)?;
    Ok(())
}

async fn blows() -> Result<()> {
    // Leases of 30 s are the shortest that a service takes: what a killed process held is free then.
    let variables = vec![("TASUKI_LEASE", "30".to_owned()), ("TASUKI_ACK_DEADLINE", "60".to_owned())];
    let delivery = Delivery { sweep_every: Duration::from_secs(2), doubled: 20, seed: 3, ..Delivery::default() };
    let script = Script::default().latency(Duration::from_millis(400));
    let deployment = Deployment::start(script, Setup { delivery, variables, ..Setup::default() }).await?;
    let (rows, quiet, mut chaos) = (600, CancellationToken::new(), Chaos::seeded(4));
    let run = deployment.drop_rows("rows.jsonl", 0..rows)?;
    let rage = async {
        tokio::time::timeout(Duration::from_secs(20), chaos.rage(&deployment, &quiet)).await.unwrap_or(Ok(()))?;
        for service in deployment.services.values() {
            service.signal("CONT").ok();
            if service.has_ended()? {
                service.again().await?;
            }
        }
        anyhow::Ok(())
    };
    let (raged, state) = tokio::join!(rage, deployment.end_of(&run));
    raged?;
    ensure!(state? == "COMPLETE");
    deployment.check_end(&run, rows).await?;
    ensure!(chaos.blows >= 9, "only {} blows", chaos.blows);
    Ok(())
}
