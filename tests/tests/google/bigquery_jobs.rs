//! What bqemulator has not: dry runs with tables and bytes, jobs by id, faults. Against a scripted REST server.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tasuki_google::bigquery::{BigQuery, Settings};
use tasuki_google::connect::Endpoint;
use tasuki_relay::clock::Millis;
use tasuki_relay::names::RunId;
use tasuki_relay::ports::{Order, RowsError, Snapshots, Taking};
use tasuki_relay::source::Source;
use tasuki_tests::bigquery_server::{BigQueryServer, CANARY, ENDED, Insert, LOCATION, PROJECT, STARTED, Script};
use tasuki_tests::emulators::{Needs, trial};

pub fn trials() -> Vec<Trial> {
    const NOTHING: &[Needs] = &[Needs::Nothing];
    vec![
        trial("bigquery jobs: a dry run reads nothing and decides what may be read", NOTHING, dry_runs),
        trial("bigquery jobs: a lost reply is the same job", NOTHING, a_lost_reply_is_the_same_job),
        trial("bigquery jobs: a job that another process inserted is followed", NOTHING, a_race_is_one_job),
        trial("bigquery jobs: a job is pending until it is done", NOTHING, a_long_job),
        trial("bigquery jobs: a job that fails passes or refuses by its reason", NOTHING, failing_jobs),
        trial("bigquery jobs: rights and settings that are missing refuse no run", NOTHING, missing_rights),
        trial("bigquery jobs: a count that is not whole is no count", NOTHING, counts),
        trial("bigquery jobs: a server that is gone may come back", NOTHING, a_server_that_is_gone),
    ]
}

fn script(inserts: impl IntoIterator<Item = Insert>) -> Script {
    let statistics = json!({
        "totalBytesProcessed": "5000",
        "query": {
            "statementType": "SELECT",
            "referencedTables": [{"projectId": PROJECT, "datasetId": "shop", "tableId": "products"}],
            "schema": {"fields": [{"name": "id", "type": "STRING"}]},
        },
    });
    let inserts: VecDeque<Insert> = inserts.into_iter().collect();
    Script { dry_run: Ok(statistics), inserts, counts: (true, vec![3, 0, 4]), bytes: 1_234, has_staging: true }
}

async fn start(inserts: impl IntoIterator<Item = Insert>) -> Result<(BigQueryServer, BigQuery)> {
    let server = BigQueryServer::start(script(inserts)).await?;
    let adapter = adapter(&server.host()).await?;
    Ok((server, adapter))
}

async fn adapter(host: &str) -> Result<BigQuery> {
    let staging = format!("{PROJECT}.staging").parse()?;
    let mut settings = Settings::new(PROJECT, vec![format!("{PROJECT}.shop").parse()?], staging);
    settings.bytes_max = 6_000;
    Ok(BigQuery::new(settings, Endpoint::emulator(host), Endpoint::emulator(host)).await?)
}

fn source() -> Source {
    Source::parse("[source]\nquery = \"SELECT id FROM shop.products\"\n").expect("a valid source")
}

fn order(attempt: u32) -> Order {
    Order { run: RunId::of("b", "n", 1), attempt, again: None, source: source(), parts: 3, key: "id".into() }
}

fn job(attempt: u32) -> String {
    tasuki_relay::names::snapshot_job(&order(1).run, attempt)
}

async fn dry_runs() -> Result<()> {
    let (server, adapter) = start([]).await?;
    let checked = adapter.check(&source()).await?;
    ensure!(checked.bytes == 5_000 && checked.columns.len() == 1, "{checked:?}");
    let call = server.calls().pop().context("a call")?;
    ensure!(call.what == "POST /jobs" && call.body["configuration"]["dryRun"] == true, "{call:?}");
    ensure!(call.body["configuration"]["query"]["query"] == "SELECT id FROM shop.products", "the query as it is");
    ensure!(call.body["jobReference"] == json!({"projectId": PROJECT, "location": LOCATION}), "{call:?}");

    type Change = fn(&mut Value);
    let changes: [(Change, &str); 3] = [
        (|s| s["query"]["referencedTables"][0]["datasetId"] = json!("secret"), "tasuki-test.secret.products"),
        (|s| s["query"]["statementType"] = json!("CREATE_TABLE_AS_SELECT"), "only one SELECT"),
        (|s| s["totalBytesProcessed"] = json!("6001"), "at most 6000"),
    ];
    for (change, why) in changes {
        let mut changed = script([]);
        changed.dry_run = changed.dry_run.map(|mut statistics| {
            change(&mut statistics);
            statistics
        });
        server.change(|script| *script = changed);
        let refused = adapter.check(&source()).await;
        ensure!(matches!(&refused, Err(RowsError::Refused(text)) if text.contains(why)), "{refused:?}");
    }
    for (status, reason, is_refused) in
        [(400, "invalidQuery", true), (403, "accessDenied", true), (503, "backendError", false)]
    {
        server.change(|script| script.dry_run = Err((status, reason)));
        let error = adapter.check(&source()).await.expect_err("no dry run");
        ensure!(matches!(error, RowsError::Refused(_)) == is_refused, "{error:?}");
        ensure!(error.to_string().contains(&format!("{reason} at [1:7]")), "{error}");
        ensure!(!error.to_string().contains(CANARY), "{error}");
    }
    ensure!(server.jobs().is_empty(), "no job was made");
    Ok(())
}

async fn a_lost_reply_is_the_same_job() -> Result<()> {
    let (server, adapter) = start([Insert::Lost]).await?;
    let lost = adapter.take(&order(1)).await;
    ensure!(matches!(lost, Err(RowsError::Unknown(_))), "{lost:?}");
    let Taking::Ready { snapshot, bytes } = adapter.take(&order(1)).await? else { anyhow::bail!("it is done") };
    ensure!(bytes == 1_234, "{bytes}");
    ensure!(snapshot.job == job(1) && snapshot.source_time == Millis(STARTED), "{snapshot:?}");
    ensure!(snapshot.rows == [3, 0, 4], "{snapshot:?}");
    ensure!(server.jobs() == [job(1)], "{:?}", server.jobs());

    let inserts: Vec<Value> =
        server.calls().into_iter().filter(|call| call.what == "POST /jobs").map(|call| call.body).collect();
    ensure!(inserts.len() == 1, "inserted once");
    let query = &inserts[0]["configuration"]["query"];
    let sql = query["query"].as_str().context("SQL")?;
    for part in
        ["CREATE TABLE `tasuki-test.staging.run_", "expiration_timestamp", "INTERVAL 45 DAY", "GENERATE_ARRAY(0, 3, 1)"]
    {
        ensure!(sql.contains(part), "{sql}");
    }
    ensure!(query["maximumBytesBilled"] == "6000" && query["useLegacySql"] == false, "{query}");
    ensure!(inserts[0]["jobReference"]["location"] == LOCATION, "a job is found where it was made");
    Ok(())
}

async fn a_race_is_one_job() -> Result<()> {
    let (server, adapter) = start([Insert::Raced]).await?;
    let taking = adapter.take(&order(1)).await?;
    ensure!(matches!(taking, Taking::Ready { .. }) && server.jobs().len() == 1, "{taking:?}");
    Ok(())
}

async fn a_long_job() -> Result<()> {
    let (server, adapter) = start([Insert::Runs(3)]).await?;
    for _ in 0..3 {
        ensure!(adapter.take(&order(1)).await? == Taking::Pending);
    }
    ensure!(matches!(adapter.take(&order(1)).await?, Taking::Ready { .. }));
    ensure!(server.jobs().len() == 1);
    Ok(())
}

async fn failing_jobs() -> Result<()> {
    let (server, adapter) = start([Insert::Fails("backendError"), Insert::Fails("resourcesExceeded")]).await?;
    for _ in 0..2 {
        let failed = Taking::Failed { ended: Millis(ENDED), reason: "backendError at [1:7]".into() };
        ensure!(adapter.take(&order(1)).await? == failed, "it stays failed, and no job follows by itself");
    }
    let refused = adapter.take(&order(2)).await.expect_err("refused");
    ensure!(matches!(&refused, RowsError::Refused(why) if why.contains("resourcesExceeded")), "{refused:?}");
    ensure!(!refused.to_string().contains(CANARY), "{refused}");
    ensure!(server.jobs() == [job(1), job(2)]);
    Ok(())
}

async fn missing_rights() -> Result<()> {
    for insert in
        [Insert::Refused(403, "accessDenied"), Insert::Refused(404, "notFound"), Insert::Refused(401, "authError")]
    {
        let (_server, adapter) = start([insert]).await?;
        let error = adapter.take(&order(1)).await;
        ensure!(matches!(error, Err(RowsError::Systemic(_))), "{error:?}");
    }
    let (server, adapter) = start([]).await?;
    server.change(|script| script.has_staging = false);
    let error = adapter.check(&source()).await;
    ensure!(matches!(error, Err(RowsError::Systemic(_))), "{error:?}");
    server.change(|script| script.has_staging = true);
    adapter.check(&source()).await.context("a mended setting is found mended")?;
    let (_server, adapter) = start([Insert::Refused(403, "rateLimitExceeded")]).await?;
    let error = adapter.take(&order(1)).await;
    ensure!(matches!(error, Err(RowsError::Unknown(_))), "{error:?}");
    Ok(())
}

async fn counts() -> Result<()> {
    let (server, adapter) = start([]).await?;
    for counts in [(false, vec![]), (true, vec![1, 2, 3, 4])] {
        server.change(|script| script.counts = counts);
        let error = adapter.take(&order(1)).await;
        ensure!(matches!(error, Err(RowsError::Unknown(_))), "{error:?}");
    }
    server.change(|script| script.counts = (true, vec![]));
    let Taking::Ready { snapshot: empty, .. } = adapter.take(&order(1)).await? else { anyhow::bail!("it is done") };
    ensure!(empty.rows == [0, 0, 0], "{empty:?}");
    Ok(())
}

async fn a_server_that_is_gone() -> Result<()> {
    let (server, adapter) = start([]).await?;
    adapter.check(&source()).await?;
    drop(server);
    let error = adapter.take(&order(1)).await.expect_err("nobody answers");
    ensure!(matches!(error, RowsError::Unknown(_)), "{error:?}");
    ensure!(!error.to_string().contains("127.0.0.1"), "{error}");
    Ok(())
}
