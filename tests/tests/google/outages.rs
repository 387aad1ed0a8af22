//! Services that cannot be reached for a while, end to end: the run goes on when they are back, and nothing is paid for twice.

use crate::end_to_end::{EMULATORS, EVERYTHING, ROWS, completes, paid_once};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::time::Duration;
use tasuki_relay::names::{self, RunId};
use tasuki_tests::deployment::{Dataset, Delivery, Deployment, Setup};
use tasuki_tests::emulators::trial;
use tasuki_tests::model_server::Script;
use tasuki_tests::proxy::Proxy;
use tasuki_tests::storage_server::{Fault, On};

/// Longer than one call to any of them may hang unnoticed by the tests' deliveries: pushes are cut after 10 s.
const OUTAGE: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_millis(100);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_outage_of_storage_is_outlived", EMULATORS, storage),
        trial("spanner_and_pubsub_that_refuse_connections_are_outlived", EMULATORS, || {
            spanner_and_pubsub(Proxy::refuse)
        }),
        trial("spanner_and_pubsub_that_hang_are_outlived", EMULATORS, || spanner_and_pubsub(Proxy::hang)),
        trial("bigquery_that_refuses_connections_and_then_hangs_is_outlived", EVERYTHING, bigquery),
    ]
}

async fn start(variables: Vec<(&'static str, String)>) -> Result<Deployment> {
    let delivery = Delivery { sweep_every: Duration::from_secs(2), ..Delivery::default() };
    let script = Script::default().latency(Duration::from_millis(300));
    Deployment::start(script, Setup { delivery, variables, ..Setup::default() }).await
}

async fn some_calls(deployment: &Deployment) {
    while deployment.model.tally().calls() < ROWS / 4 {
        tokio::time::sleep(LOOK).await;
    }
}

async fn storage() -> Result<()> {
    let deployment = start(vec![]).await?;
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    some_calls(&deployment).await;
    deployment.storage.fault(On::any(), u32::MAX, Fault::Status(503));
    tokio::time::sleep(OUTAGE).await;
    deployment.storage.heal(); // what was answered meanwhile is in memory, and written now
    completes(&deployment, &run, ROWS).await?;
    paid_once(&deployment, ROWS)
}

/// Spanner while shards are loaded, Pub/Sub when the run ends.
async fn spanner_and_pubsub(vanish: fn(&Proxy)) -> Result<()> {
    let deployment = start(vec![]).await?;
    let (spanner, pubsub) = (&deployment.proxies.spanner, &deployment.proxies.pubsub);
    vanish(pubsub);
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    some_calls(&deployment).await;
    vanish(spanner);
    tokio::time::sleep(OUTAGE).await;
    let [loaded] = deployment.numbers(&run, "SUM(loaded)").await?;
    ensure!(loaded < ROWS, "all was loaded without Spanner");
    spanner.open();
    while deployment.state(&run).await?.as_deref() != Some("COMPLETE") {
        for service in deployment.services.values() {
            service.is_alive()?;
        }
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(OUTAGE).await;
    ensure!(deployment.notices(&run).await?.is_empty(), "a notice came without Pub/Sub");
    pubsub.open();
    completes(&deployment, &run, ROWS).await?;
    paid_once(&deployment, ROWS)
}

/// Its REST API while the run is planned, the Storage Read API while the rows are read.
async fn bigquery() -> Result<()> {
    let (rows, dataset) = (600, Dataset::fresh(600).await?);
    let (rest, read) = Dataset::hosts()?;
    let (rest, read) = (Proxy::start(rest).await?, Proxy::start(read).await?);
    let deployment = start(dataset.variables(&rest.host(), &read.host())).await?;
    let there = |name: String| deployment.storage.names(&deployment.buckets.state).contains(&name);
    rest.refuse();
    read.hang();
    let run: RunId = deployment.drop_file("entries.run.toml", dataset.run_file())?;
    tokio::time::sleep(OUTAGE).await;
    ensure!(there(names::open(&run)) && !there(names::plan(&run)), "the run was planned without BigQuery");
    rest.open();
    while !there(names::snapshot(&run)) {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(OUTAGE).await;
    ensure!(deployment.storage.names(&deployment.buckets.shards).is_empty(), "rows were read without BigQuery");
    read.open();
    completes(&deployment, &run, rows).await?;
    paid_once(&deployment, rows)
}
