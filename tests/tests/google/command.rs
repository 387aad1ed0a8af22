//! The `tasuki` command against a deployment: the services as processes, the storage stand-in, Spanner's emulator.

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use std::time::Duration;
use tasuki_google::objects::LocalFile;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::ObjectsError;
use tasuki_tests::deployment::{Dataset, Delivery, Deployment, Desk, Done, PIPELINE, Setup, ended};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::model_server::{Act, CallInfo, Script};
use tasuki_tests::storage_server::{Fault, On, Op, StorageServer, fresh_buckets, objects_on};

const EMULATORS: &[Needs] = &[Needs::Spanner, Needs::PubSub];
const EVERYTHING: &[Needs] = &[Needs::Spanner, Needs::PubSub, Needs::BigQuery];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("command: a file is run in the deployment, looked at, and paid for once", EMULATORS, a_file_is_run),
        trial("command: failed rows are told and asked again as a run of their own", EMULATORS, failed_rows),
        trial("command: a cancelled run keeps its answers and fails the rest", EMULATORS, a_cancelled_run),
        trial("command: a parked run says so and goes on when it is resumed", EMULATORS, a_parked_run),
        trial(
            "command: four generators keep a run's budget together, and go on with a greater one",
            EMULATORS,
            a_budget,
        ),
        trial("command: rows of BigQuery are run by a file that names them", EVERYTHING, rows_of_bigquery),
        trial("command: a file of any size goes up once, and only as it was read", &[Needs::Nothing], a_large_file),
        trial("command: a plan asks nothing, and a sample of it is asked by the services once", EMULATORS, a_plan),
        trial("command: who stops following is told how to follow again", EMULATORS, following_ends),
        trial("command: nothing is started with a pipeline that is not deployed", EMULATORS, another_pipeline),
    ]
}

const RUN: &[&str] = &["run", "rows.jsonl", "--pipeline", "words.toml"];

fn json(done: &Done) -> Result<Value> {
    serde_json::from_str(&done.out).with_context(|| format!("{done:?}"))
}

fn lines(done: &Done) -> Result<Vec<Value>> {
    done.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

async fn newest(desk: &Desk) -> Result<Value> {
    let mut status = json(&desk.tasuki(&["status", "--json"]).await?)?;
    Ok(status["runs"][0].take())
}

/// Two calls at once, a look at the marker every 7.5 s, a sweep every second: much is left when a run is cancelled.
fn slow() -> Setup {
    let set = [("TASUKI_MAX_IN_FLIGHT", "2"), ("TASUKI_LEASE", "30"), ("TASUKI_ACK_DEADLINE", "60")];
    let delivery = Delivery { sweep_every: Duration::from_secs(1), ..Delivery::default() };
    Setup { delivery, variables: set.map(|(name, value)| (name, value.to_owned())).into(), ..Setup::default() }
}

async fn a_file_is_run() -> Result<()> {
    let deployment = Deployment::start(Script::default(), Setup::default()).await?;
    let desk = deployment.desk()?;
    let none = desk.tasuki(&["status"]).await?;
    ensure!(none.code == Some(0) && none.out.contains("holds no run yet"), "{none:?}");

    desk.write_rows("rows.jsonl", 0..300)?;
    let done = desk.tasuki(RUN).await?;
    ensure!(done.code == Some(0) && done.out.starts_with("COMPLETE"), "{done:?}\n{}", deployment.logs());
    ensure!(done.out.contains("gcloud spanner databases execute-sql"), "{done:?}");
    let again = desk.tasuki(RUN).await?;
    ensure!(again.code == Some(0) && again.err.contains("nothing is paid"), "{again:?}");
    ensure!(deployment.model.tally().calls() == 300, "{} calls", deployment.model.tally().calls());

    let status = newest(&desk).await?;
    ensure!(status["state"] == "COMPLETE" && status["loaded"] == 300 && status["failed"] == 0, "{status}");
    let run = status["run"].as_str().context("a run")?.to_owned();
    deployment.check_end(&run.parse()?, 300).await?;
    let one = desk.tasuki(&["status", &run[..9]]).await?;
    ensure!(one.out.contains("COMPLETE") && one.out.contains(&run), "{one:?}");
    let results = lines(&desk.tasuki(&["results", "--format", "jsonl"]).await?)?;
    ensure!(results.len() == 300 && results[7]["id"] == "k000007", "by key: {:?}", results.get(7));
    ensure!(results[7]["words"].as_array().is_some_and(|words| words.len() == 2), "{}", results[7]);
    let table = desk.tasuki(&["results", &run, "--limit", "3"]).await?;
    ensure!(table.out.contains("k000002") && table.out.contains("the first 3"), "{table:?}");
    ensure!(!table.out.contains("stand-in"), "a deployment has no stand-in: {table:?}");

    let anew = desk.tasuki(&[RUN, &["--again", "--json"]].concat()).await?;
    ensure!(json(&anew)?["state"] == "COMPLETE" && json(&anew)?["run"] != run.as_str(), "{anew:?}");
    ensure!(deployment.model.tally().calls() == 600, "{} calls", deployment.model.tally().calls());
    Ok(())
}

/// Blocks every tenth row, while it is told to.
fn blocking(call: &CallInfo) -> Act {
    if call.prompt.ends_with('7') && call.nth == 1 { Act::Blocked("SAFETY".into()) } else { Act::Auto }
}

async fn a_plan() -> Result<()> {
    let deployment = Deployment::start(Script::default(), Setup::default()).await?;
    let mut desk = deployment.desk()?;
    desk.set("GOOGLE_GEMINI_BASE_URL", deployment.model.base());
    desk.write_rows("rows.jsonl", 0..300)?;
    let plan = ["plan", "rows.jsonl", "--pipeline", "words.toml", "--json"];
    let free = desk.tasuki(&plan).await?;
    let told = json(&free)?;
    ensure!(told["calls"] == 300 && told["tokens_from"] == "countTokens", "{free:?}");
    let tally = deployment.model.tally();
    ensure!((tally.calls(), tally.counted()) == (0, 64), "{} calls, {} counts", tally.calls(), tally.counted());
    let sample = [&plan[..], &["--sample", "40"]].concat();
    for paid in ["are asked now, and paid for", "nothing more is paid"] {
        let done = desk.tasuki(&sample).await?;
        ensure!(done.code == Some(0) && done.err.contains(paid), "{done:?}\n{}", deployment.logs());
        let told = json(&done)?;
        ensure!(told["sample"]["answered"] == 40 && told["tokens_from"] == "sample", "{told}");
        ensure!(tally.calls() == 40, "{} calls", tally.calls());
    }
    let done = desk.tasuki(RUN).await?;
    ensure!(done.code == Some(0), "{done:?}\n{}", deployment.logs());
    let (input, _) = tally.tokens();
    let off = told["input_tokens"]["likely"].as_f64().context("a number")? / (input as f64 * 300.0 / 340.0) - 1.0;
    ensure!(off.abs() < 0.10, "{off}: {told}");
    Ok(())
}

async fn failed_rows() -> Result<()> {
    let deployment = Deployment::start(Script::acting(blocking), Setup::default()).await?;
    let desk = deployment.desk()?;
    desk.write_rows("rows.jsonl", 0..100)?;
    let done = desk.tasuki(RUN).await?;
    ensure!(done.code == Some(2) && done.out.contains("blocked_prompt:SAFETY 10"), "{done:?}");
    let failures = lines(&desk.tasuki(&["failures", "--format", "jsonl"]).await?)?;
    ensure!(failures.len() == 10 && failures[1]["ordinal"] == 17 && failures[1]["key"] == "k000017", "{failures:?}");
    let table = desk.tasuki(&["failures"]).await?;
    ensure!(table.out.contains("retry") && table.out.contains("k000097"), "{table:?}");

    let parent = newest(&desk).await?["run"].as_str().context("a run")?.to_owned();
    let cost = json(&desk.tasuki(&["cost", &parent, "--json"]).await?)?;
    let classes = ["answers", "retries", "salvage", "waste"].map(|class| cost["bill"][class]["calls"].as_u64());
    ensure!(classes == [90, 0, 0, 10].map(Some), "{cost}");
    // The default model's list price, by the server's own count.
    let (input, output) = deployment.model.tally().tokens();
    let paid = (input as f64 * 0.30 + output as f64 * 2.50) / 1e6;
    ensure!(cost["cost_usd"].as_f64().is_some_and(|told| (told - paid).abs() < 1e-12), "{paid}: {cost}");
    let retried = desk.tasuki(&["retry", &parent, "--json"]).await?;
    let told = json(&retried)?;
    ensure!(retried.code == Some(0) && told["loaded"] == 10 && told["run"] != parent.as_str(), "{retried:?}");
    let nothing = desk.tasuki(&["retry", &parent]).await?;
    ensure!(nothing.code == Some(0) && nothing.out.contains("nothing to retry"), "{nothing:?}");
    ensure!(deployment.model.tally().calls() == 110, "{} calls", deployment.model.tally().calls());
    Ok(())
}

async fn a_cancelled_run() -> Result<()> {
    let deployment = Deployment::start(Script::default().latency(Duration::from_secs(3)), slow()).await?;
    let desk = deployment.desk()?;
    desk.write_rows("rows.jsonl", 0..60)?;
    let run = desk.start(&[RUN, &["--json"]].concat())?;
    while deployment.model.tally().calls() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let name = newest(&desk).await?["run"].as_str().context("a run")?.to_owned();
    let cancelled = desk.tasuki(&["cancel", &name[..9]]).await?;
    ensure!(
        cancelled.code == Some(0) && cancelled.out.starts_with("CANCELLED"),
        "{cancelled:?}\n{}",
        deployment.logs()
    );
    let calls = deployment.model.tally().calls();
    ensure!(calls < 60, "every row was asked: {calls}");
    let followed = ended(run).await?;
    ensure!(followed.code == Some(1) && json(&followed)?["state"] == "CANCELLED", "{followed:?}");
    let twice = desk.tasuki(&["cancel", &name]).await?;
    ensure!(twice.code == Some(0) && twice.err.contains("nothing to cancel"), "{twice:?}");
    Ok(())
}

/// The types of the run's notices, sorted, each once.
async fn kinds(deployment: &Deployment, run: &RunId) -> Result<Vec<String>> {
    let kind = |notice: &Value| notice["attributes"]["ce-type"].as_str().unwrap_or_default().to_owned();
    let mut kinds: Vec<String> = deployment.notices(run).await?.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup(); // at least once, with one id: a sweep may be faster than the loader that is about to publish
    Ok(kinds)
}

/// A marker as a budget will write it: the services stand still, say so, and go on when a person says so.
async fn a_parked_run() -> Result<()> {
    let mut setup = slow();
    setup.delivery.sweep_every = Duration::from_secs(2);
    let deployment = Deployment::start(Script::default().latency(Duration::from_millis(500)), setup).await?;
    let desk = deployment.desk()?;
    let run = deployment.drop_rows("rows.jsonl", 0..60)?;
    deployment.storage.put(&deployment.buckets.state, &names::parked(&run), "the budget is reached")?;
    while kinds(&deployment, &run).await? != ["tasuki.run.parked"] {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let calls = deployment.model.tally().calls();
    let status = desk.tasuki(&["status", run.as_str()]).await?;
    ensure!(status.out.contains("PARKED") && status.out.contains("the budget is reached; go on with"), "{status:?}");
    let followed = desk.tasuki(&["status", run.as_str(), "--follow"]).await?;
    ensure!(followed.code == Some(1) && followed.err.contains("the run is parked"), "{followed:?}");
    ensure!(deployment.model.tally().calls() == calls && calls < 60, "{calls} calls and more while it was parked");
    let done = desk.tasuki(&["resume", run.as_str(), "--json"]).await?;
    let told = json(&done)?;
    ensure!(
        done.code == Some(0) && told["state"] == "COMPLETE" && told["loaded"] == 60,
        "{done:?}\n{}",
        deployment.logs()
    );
    ensure!(deployment.model.tally().calls() == 60, "{} calls", deployment.model.tally().calls());
    let twice = desk.tasuki(&["resume", run.as_str()]).await?;
    ensure!(twice.err.contains("is COMPLETE, not parked"), "{twice:?}");
    deployment.end_of(&run).await?;
    let kinds = kinds(&deployment, &run).await?;
    ensure!(kinds == ["tasuki.run.completed", "tasuki.run.parked"], "{kinds:?}");
    Ok(())
}

/// The cap of a run over 20 shards, in microdollars; its 400 rows cost about 17 each, by the model server's own count.
const CAP: u64 = 4_000;

async fn a_budget() -> Result<()> {
    let mut setup = Setup { more_generators: 3, ..Setup::default() };
    setup.delivery.sweep_every = Duration::from_secs(2);
    let script = Script::default().latency(Duration::from_millis(200));
    let deployment = Deployment::start(script, setup).await?;
    let desk = deployment.desk()?;
    let capped = format!(
        "[model]\nmax_output_tokens = 20\nprice = {{ input = 1, output = 2 }}\n[run]\nmax_in_flight = 20\nmax_cost_usd = {}\n",
        CAP as f64 / 1e6
    );
    let text = PIPELINE.replace("[run]\n", &capped);
    deployment.storage.put(&deployment.buckets.state, &names::pipeline("words"), text)?;
    let run = deployment.drop_rows("rows.jsonl", 0..400)?;
    while kinds(&deployment, &run).await? != ["tasuki.run.parked"] {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let tally = deployment.model.tally();
    let (prompt, output) = tally.tokens();
    let cost = prompt + 2 * output;
    ensure!(cost <= CAP && cost * 2 >= CAP, "{cost} of {CAP} microdollars");
    let shards = deployment.storage.names(&deployment.buckets.shards).len();
    ensure!(shards == 20, "{shards} shards");

    told_to_the_token(&desk, &run, (prompt, output)).await?;
    // Who may not list answers sees what is loaded, and that this is not all.
    deployment.storage.fault(On::op(Op::List).bucket(&deployment.buckets.answers), u32::MAX, Fault::Status(403));
    let told = desk.tasuki(&["cost", run.as_str()]).await?;
    ensure!(told.code == Some(0) && told.out.contains("for want of the right to read it"), "{told:?}");
    deployment.storage.heal();
    let status = desk.tasuki(&["status", run.as_str()]).await?;
    ensure!(status.out.contains("the budget of $0.004 is spent") && status.out.contains("--max-cost N"), "{status:?}");
    let refused = desk.tasuki(&["resume", run.as_str()]).await?;
    ensure!(refused.code == Some(1) && refused.err.contains("parked again at once"), "{refused:?}");
    let done = desk.tasuki(&["resume", run.as_str(), "--max-cost", "1", "--json"]).await?;
    let told = json(&done)?;
    ensure!(
        done.code == Some(0) && told["state"] == "COMPLETE" && told["loaded"] == 400,
        "{done:?}\n{}",
        deployment.logs()
    );
    ensure!(tally.calls() == 400, "{} calls: each row is paid once", tally.calls());
    Ok(())
}

/// Within seconds all that was paid is in answers or checkpoints, and told.
async fn told_to_the_token(desk: &Desk, run: &RunId, (prompt, output): (u64, u64)) -> Result<()> {
    let mut told = Value::Null;
    for _ in 0..50 {
        told = json(&desk.tasuki(&["cost", run.as_str(), "--json"]).await?)?;
        if told["total"]["prompt_tokens"] == prompt && told["total"]["output_tokens"] == output {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("{prompt} and {output} tokens were paid: {told}")
}

async fn following_ends() -> Result<()> {
    let deployment = Deployment::start(Script::default().latency(Duration::from_secs(5)), Setup::default()).await?;
    let desk = deployment.desk()?;
    desk.write_rows("rows.jsonl", 0..40)?;
    let run = desk.start(RUN)?;
    while deployment.model.tally().calls() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = run.id().context("it is at work")?.to_string();
    ensure!(std::process::Command::new("kill").args(["-INT", &pid]).status()?.success());
    let stopped = ended(run).await?;
    ensure!(stopped.code == Some(1) && stopped.err.contains("the services go on"), "{stopped:?}");
    ensure!(stopped.err.contains("tasuki --deployment tasuki.json run rows.jsonl"), "{stopped:?}");
    let name = newest(&desk).await?["run"].as_str().context("a run")?.to_owned();
    let followed = desk.tasuki(&["status", &name, "--follow"]).await?;
    ensure!(followed.code == Some(0) && followed.out.contains("COMPLETE"), "{followed:?}");
    ensure!(deployment.model.tally().calls() == 40, "{} calls", deployment.model.tally().calls());
    Ok(())
}

async fn another_pipeline() -> Result<()> {
    let deployment = Deployment::start(Script::default(), Setup::default()).await?;
    let desk = deployment.desk()?;
    desk.write_rows("rows.jsonl", 0..5)?;
    let text = std::fs::read_to_string(desk.path("words.toml"))?;
    desk.write("words.toml", &text.replace("Two words", "Two other words"))?;
    let refused = desk.tasuki(RUN).await?;
    ensure!(refused.code == Some(1) && refused.err.contains("another text"), "{refused:?}");
    desk.write("words.toml", &text.replace("\"words\"", "\"unknown\""))?;
    let refused = desk.tasuki(RUN).await?;
    ensure!(refused.code == Some(1) && refused.err.contains("terraform apply"), "{refused:?}");
    desk.write("words.toml", &text.replace("count = 2", "count = -2"))?;
    let refused = desk.tasuki(&["run", "rows.xlsx", "--pipeline", "words.toml"]).await?;
    ensure!(refused.err.contains("rows.xlsx") && refused.err.contains("count"), "all at once: {refused:?}");
    ensure!(deployment.storage.names(&deployment.buckets.inbox).is_empty(), "something was dropped");
    Ok(())
}

async fn rows_of_bigquery() -> Result<()> {
    let dataset = Dataset::fresh(200).await?;
    let (rest, read) = Dataset::hosts()?;
    let setup = Setup { variables: dataset.variables(&rest, &read), ..Setup::default() };
    let deployment = Deployment::start(Script::default(), setup).await?;
    let desk = deployment.desk()?;
    desk.write("rows.run.toml", &dataset.run_file())?;
    let words = &["run", "rows.run.toml", "--pipeline", "words.toml"];
    let refused = desk.tasuki(words).await?;
    ensure!(refused.code == Some(1) && refused.err.contains("reads no BigQuery"), "{refused:?}");
    let mut file = deployment.file();
    file["bigquery_sources"] = serde_json::json!(["tasuki-test.any"]);
    desk.write("tasuki.json", &file.to_string())?;
    let done = desk.tasuki(&[&words[..], &["--json"]].concat()).await?;
    let told = json(&done)?;
    ensure!(done.code == Some(0) && told["loaded"] == 200, "{done:?}\n{}", deployment.logs());
    let run = told["run"].as_str().context("a run")?;
    deployment.check_end(&run.parse()?, 200).await
}

async fn a_large_file() -> Result<()> {
    let buckets = fresh_buckets();
    let storage =
        StorageServer::start(&[&buckets.inbox, &buckets.shards, &buckets.answers, &buckets.state].map(String::as_str))
            .await?;
    let objects = objects_on(&storage.host(), &buckets).await?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("rows.jsonl");
    // More than one request takes, and than the client keeps.
    let body: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(&path, &body)?;
    let file = LocalFile::read(&path, b"salt").await?;
    storage.fault(On::op(Op::Append), 1, Fault::Status(503));
    let written = objects.upload(Bucket::Inbox, "p/a", &file, None).await?;
    ensure!(written.size == 20_000_000 && storage.body(&buckets.inbox, "p/a").is_some_and(|there| there == body));
    ensure!(storage.faults_left() == 0, "the upload was not broken");
    let twice = objects.upload(Bucket::Inbox, "p/a", &file, None).await;
    ensure!(twice == Err(ObjectsError::Precondition), "{twice:?}");
    objects.upload(Bucket::Inbox, "p/a", &file, Some(written.generation)).await?;

    let same = LocalFile::read(&path, b"salt").await?;
    let other = LocalFile::read(&path, b"other salt").await?;
    ensure!(
        same.sha256() == file.sha256() && other.sha256() != file.sha256(),
        "the name is the bytes and the pipeline"
    );
    Ok(())
}
