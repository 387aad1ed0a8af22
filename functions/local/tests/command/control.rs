use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::io::{AsyncBufReadExt, BufReader};

async fn slow() -> (Desk, ModelServer) {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(500))).await;
    (desk.with_rows(400, "rows_per_shard = 20\nmax_in_flight = 20"), server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_refused_and_told_who_works_while_others_may_look() {
    let (desk, server) = slow().await;
    let first = desk.start(RUN);
    until_called(&server, 50).await;
    desk.write("other.jsonl", lines(1_000..1_010));
    let second = desk.tasuki(&["run", "other.jsonl", "--pipeline", "p.toml"]).await;
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains(&format!("`tasuki run` (process {})", first.id().unwrap())), "{second:?}");
    let status = desk.tasuki(&["status"]).await;
    assert!(status.code == Some(0) && status.out.contains("working: `tasuki run`"), "{status:?}");
    for look in [&["results"][..], &["results", "--format", "jsonl"], &["failures"], &["status", "r"]] {
        let seen = desk.tasuki(look).await;
        assert_eq!(seen.code, Some(0), "{look:?}: {seen:?}");
    }
    assert_eq!(count_ended(&desk, "COMPLETE").await, 0, "the first is still at work");
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_seals_a_run_at_work_and_keeps_its_answers() {
    let (desk, server) = slow().await;
    let run = desk.start(RUN);
    until_called(&server, 100).await;
    let cancelled = desk.tasuki(&["cancel", "r", "--json"]).await;
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    let told: Value = serde_json::from_str(&cancelled.out).unwrap();
    let count = |name: &str| told[name].as_u64().unwrap();
    assert_eq!(told["state"], "CANCELLED");
    assert!(count("loaded") >= 60 && count("cancelled") > 0, "{told}");
    assert_eq!(count("loaded") + count("cancelled"), 400);
    let run = ended(run).await;
    assert!(run.code == Some(1) && run.out.contains("CANCELLED"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_stopped_run_asks_no_model() {
    let (desk, server) = slow().await;
    let run = desk.start(RUN);
    until_called(&server, 100).await;
    signal(&run, "-INT");
    ended(run).await;
    let calls = server.tally().calls();
    let cancelled = desk.tasuki(&["cancel", "r"]).await;
    assert_eq!((cancelled.code, server.tally().calls()), (Some(0), calls), "{cancelled:?}");
    let newest = desk.newest().await;
    assert_eq!((&newest["state"], &newest["rows"]), (&"CANCELLED".into(), &400.into()), "{newest}");
    assert!(newest["loaded"].as_u64() >= Some(80), "what was paid for is kept: {newest}");
    let again = desk.tasuki(&["cancel", "r"]).await;
    assert!(again.code == Some(0) && again.err.contains("CANCELLED already"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_asks_the_failed_rows_only_and_its_answers_are_as_old_as_the_file() {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    let (desk, server) = Desk::asking(Script::acting(move |call| match is_mended.load(SeqCst) {
        true => Act::Auto,
        false => run::blocking_row_7(call),
    }))
    .await;
    let desk = desk.with_rows(30, "rows_per_shard = 10");
    desk.write("rows.jsonl", lines(0..30) + &lines(3..4)); // a key twice: no retry mends that
    assert_eq!(desk.run().await.code, Some(2));
    let parent = desk.newest().await;
    let name = parent["run"].as_str().unwrap();
    let calls = server.tally().calls();
    assert_eq!(desk.tasuki(&["retry", name]).await.code, Some(2), "it is still blocked");
    let shown = desk.tasuki(&["retry", name]).await;
    assert!(shown.code == Some(2) && shown.err.contains("nothing is paid"), "{shown:?}");
    assert_eq!(server.tally().calls(), calls + 1, "the same retry again is the same run");
    mended.store(true, SeqCst);
    let done = desk.tasuki(&["retry", &name[..10], "--again", "--json"]).await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), calls + 2), "{done:?}");
    let answered = desk.tasuki(&["retry", name]).await;
    assert!(
        answered.code == Some(0)
            && answered.out.contains("nothing to retry, all failed rows that can be asked are answered by now"),
        "{answered:?}"
    );
    let retry: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&retry["loaded"], &retry["source_time"]), (&1.into(), &parent["source_time"]), "{retry}");
    assert_ne!((&retry["run"], &retry["run_time"]), (&parent["run"], &parent["run_time"]));
    let nothing = desk.tasuki(&["retry", retry["run"].as_str().unwrap()]).await;
    assert!(nothing.code == Some(0) && nothing.out.contains("nothing to retry"), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_was_stopped_goes_on_with_all_its_rows() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let (desk, server) = Desk::asking(
        Script::acting(move |_| if is_slow.load(SeqCst) { Act::Auto } else { Act::Blocked("SAFETY".into()) })
            .latency(Duration::from_millis(100)),
    )
    .await;
    let desk = desk.with_rows(60, "rows_per_shard = 20\nmax_in_flight = 5");
    assert_eq!(desk.run().await.code, Some(2));
    slow.store(true, SeqCst);
    let parent = desk.newest().await["run"].as_str().unwrap().to_owned();
    let calls = server.tally().calls();
    let retry = desk.start(&["retry", &parent]);
    until_called(&server, calls + 40).await;
    signal(&retry, "-INT");
    assert_eq!(ended(retry).await.code, Some(1));
    let first = desk.newest().await;
    assert!(first["loaded"].as_u64() >= Some(20), "a part of it is in the table: {first}");
    let done = desk.tasuki(&["retry", &parent]).await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), calls + 60), "{done:?}");
    let newest = desk.newest().await;
    assert_eq!((&newest["run"], &newest["loaded"]), (&first["run"], &60.into()), "{newest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_reads_rows_that_were_thought_unchanged_from_the_file() {
    let (desk, _server) = Desk::asking(Script::default()).await; // the stand-in's answers never count as unchanged
    let desk = desk.with_rows(5, "only_changed = true");
    assert_eq!(desk.run().await.code, Some(0));
    assert_eq!(desk.tasuki(&[RUN, &["--again"]].concat()).await.code, Some(0));
    let newest = desk.newest().await;
    assert_eq!(newest["unchanged"], 5);
    let run = newest["run"].as_str().unwrap();
    let store = rusqlite::Connection::open(desk.path(".tasuki/tasuki.db")).unwrap();
    let failure = "INSERT INTO Failures (run, ordinal, key, reason, message, attempts) VALUES (?, 3, '3', 'changed_meanwhile', '', 0)";
    store.execute(failure, [run]).unwrap();
    let retry = desk.tasuki(&["retry", run, "--json"]).await;
    let told: Value = serde_json::from_str(&retry.out).unwrap();
    assert_eq!((retry.code, &told["rows"]), (Some(0), &1.into()), "{retry:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_stopped_while_it_reads_the_failed_rows_leaves_none_of_them() {
    let (desk, _server) = Desk::asking(Script::acting(|_| Act::Blocked("SAFETY".into()))).await;
    let desk = desk.with_rows(10, "");
    assert_eq!(desk.run().await.code, Some(2));
    let run = desk.newest().await["run"].as_str().unwrap().to_owned();
    let shard = desk.path(&format!(".tasuki/shards/{run}/00000000.ndjson"));
    fs::remove_file(&shard).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&shard).status().unwrap().success()); // to read it takes for ever
    let retry = desk.start(&["retry", &run]);
    let rows = desk.path(&format!(".tasuki/tmp/retry-{}.jsonl", retry.id().unwrap()));
    until("the file of failed rows", || rows.exists()).await;
    signal(&retry, "-INT");
    let stopped = ended(retry).await;
    assert!(!rows.exists(), "{stopped:?}");
    assert!(stopped.code == Some(1) && stopped.err.contains("nothing was started"), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_works_on_another_run_is_promised_for_none_that_is_resumed_or_cancelled() {
    let (desk, server) = slow().await;
    let run = desk.start(RUN);
    until_called(&server, 20).await;
    let name = desk.newest().await["run"].as_str().unwrap().to_owned();
    let marker = format!(".tasuki/state/control/{name}/parked");
    desk.write(&marker, "enough\n");
    assert_eq!(ended(run).await.code, Some(1));
    desk.write("other.jsonl", lines(1_000..1_400));
    let calls = server.tally().calls();
    let other = desk.start(&["run", "other.jsonl", "--pipeline", "p.toml"]);
    until_called(&server, calls + 1).await;
    let resumed = desk.tasuki(&["resume", &name]).await;
    assert!(desk.path(&marker).exists(), "it stays parked: {resumed:?}");
    let holder = format!("is in use by `tasuki run` (process {})", other.id().unwrap());
    assert!(resumed.code == Some(1) && resumed.err.contains(&holder), "{resumed:?}");
    let mut cancel = desk.start(&["cancel", &name]);
    let told = BufReader::new(cancel.stderr.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    assert!(told.ends_with("it seals the run, if that is the one it works on"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_stands_still_until_it_is_resumed() {
    let (desk, server) = slow().await;
    let run = desk.start(RUN);
    until_called(&server, 50).await;
    let name = desk.newest().await["run"].as_str().unwrap().to_owned();
    desk.write(&format!(".tasuki/state/control/{name}/parked"), "the budget is reached\n");
    let parked = ended(run).await;
    let resume = format!("tasuki resume {}", &name[..9]);
    assert!(parked.code == Some(1) && parked.err.contains("the run is parked"), "{parked:?}");
    assert!(parked.err.contains(&resume), "{parked:?}");
    let calls = server.tally().calls();
    assert!(calls < 400, "{calls}");
    assert_eq!(
        (desk.run().await.code, server.tally().calls()),
        (Some(1), calls),
        "the same command does not resume it"
    );
    let newest = desk.newest().await;
    assert_eq!((&newest["state"], &newest["parked"]), (&"PARKED".into(), &"the budget is reached".into()));
    let status = desk.tasuki(&["status", "r"]).await;
    assert!(status.out.contains(&format!("the budget is reached; go on with {resume}")), "{status:?}");
    let resumed = desk.tasuki(&["resume", &name[..9], "--json"]).await;
    let told: Value = serde_json::from_str(&resumed.out).unwrap();
    assert_eq!((resumed.code, &told["state"], &told["loaded"]), (Some(0), &"COMPLETE".into(), &400.into()));
    assert_eq!(server.tally().calls(), 400, "what was paid for was kept");
    let again = desk.tasuki(&["resume", "r"]).await;
    assert!(again.code == Some(0) && again.err.contains("COMPLETE, not parked"), "{again:?}");
}
