//! Replies that are lost after their requests had their effect, in front of each service, end to end: nothing is done twice.

use crate::end_to_end::{EMULATORS, EVERYTHING, ROWS, completes, paid_once};
use crate::records::COMMIT;
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::time::Duration;
use tasuki_tests::deployment::{Dataset, Delivery, Deployment, Setup};
use tasuki_tests::emulators::trial;
use tasuki_tests::model_server::Script;
use tasuki_tests::proxy::Proxy;
use tasuki_tests::storage_server::{Fault, On, Op};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("replies_of_storage_that_are_lost_pay_for_nothing_twice", EMULATORS, storage),
        trial("replies_of_spanner_that_are_lost_load_nothing_twice", EMULATORS, spanner),
        trial("replies_of_pubsub_that_are_lost_are_one_notice_told_again", EMULATORS, pubsub),
        trial("replies_of_the_model_that_are_lost_are_counted_and_asked_once_more", EMULATORS, model),
        trial("a_bigquery_job_whose_reply_is_lost_is_followed_and_not_started_again", EVERYTHING, bigquery),
    ]
}

/// Sweeps come soon: some of what is lost only they find.
async fn start(variables: Vec<(&'static str, String)>) -> Result<Deployment> {
    let delivery = Delivery { sweep_every: Duration::from_secs(2), ..Delivery::default() };
    Deployment::start(Script::default(), Setup { delivery, variables, ..Setup::default() }).await
}

async fn storage() -> Result<()> {
    let deployment = start(vec![]).await?;
    let (storage, buckets) = (&deployment.storage, &deployment.buckets);
    for bucket in [&buckets.shards, &buckets.answers, &buckets.state] {
        storage.fault(On::op(Op::Insert).bucket(bucket), 6, Fault::LostReply);
        storage.fault(On::op(Op::Insert).bucket(bucket), 4, Fault::DoneThenStatus(503));
    }
    storage.fault(On::op(Op::Remove).bucket(&buckets.state), 1, Fault::LostReply); // the loader closes the run
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    ensure!(storage.faults_left() == 0, "{} faults were not met", storage.faults_left());
    paid_once(&deployment, ROWS)
}

async fn spanner() -> Result<()> {
    const OUTBOX: &[u8] = b"Outbox";
    let deployment = start(vec![]).await?;
    let proxy = &deployment.proxies.spanner;
    proxy.lose(COMMIT, 6);
    proxy.lose(OUTBOX, 3); // the commit of the run's end, what is due, the commit that a notice is out
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    ensure!((proxy.lost(COMMIT), proxy.lost(OUTBOX)) == (6, 3), "not all replies were lost");
    paid_once(&deployment, ROWS)
}

async fn pubsub() -> Result<()> {
    const NOTICE: &[u8] = b"ce-id";
    let deployment = start(vec![]).await?;
    let proxy = &deployment.proxies.pubsub;
    proxy.lose(NOTICE, 2);
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?; // one id, however often
    let heard = deployment.notices(&run).await?.len();
    ensure!(proxy.lost(NOTICE) == 2 && heard >= 3, "{} replies were lost, {heard} notices came", proxy.lost(NOTICE));
    paid_once(&deployment, ROWS)
}

async fn model() -> Result<()> {
    const CALL: &[u8] = b":generateContent";
    let deployment = start(vec![]).await?;
    let (proxy, lost) = (&deployment.proxies.model, 9);
    proxy.lose(CALL, lost);
    let run = deployment.drop_rows("rows.jsonl", 0..ROWS)?;
    completes(&deployment, &run, ROWS).await?;
    ensure!(proxy.lost(CALL) == lost, "only {} replies were lost", proxy.lost(CALL));
    let sums = "SUM(ambiguous_calls), SUM(paid_calls), SUM(loaded), SUM(failed)";
    let [ambiguous, paid, loaded, failed] = deployment.numbers(&run, sums).await?;
    ensure!(ambiguous == u64::from(lost), "{ambiguous} ambiguous calls for {lost} lost replies");
    ensure!(paid == loaded, "{paid} calls are counted as paid for {loaded} answers");
    // A row whose second reply was lost as well is not asked again.
    let calls = deployment.model.tally().calls();
    ensure!(calls == ROWS + ambiguous - failed, "{calls} calls, {ambiguous} ambiguous, {failed} rows failed");
    Ok(())
}

async fn bigquery() -> Result<()> {
    const INSERTION: &[u8] = b"\"jobId\":\"run-"; // no dry run has an id
    let (rows, dataset) = (600, Dataset::fresh(600).await?);
    let (rest, read) = Dataset::hosts()?;
    let proxy = Proxy::start(rest).await?;
    proxy.lose(INSERTION, 1);
    let deployment = start(dataset.variables(&proxy.host(), &read)).await?;
    let run = deployment.drop_file("entries.run.toml", dataset.run_file())?;
    completes(&deployment, &run, rows).await?;
    ensure!(proxy.lost(INSERTION) == 1, "no job was inserted");
    ensure!(proxy.seen(INSERTION) == 1, "{} jobs were inserted", proxy.seen(INSERTION));
    paid_once(&deployment, rows)
}
