use super::*;

const ROWS: u64 = 600;
const IN_FLIGHT: u64 = 20;
/// Two shards of 50 rows hold 20 calls in flight, each with fewer than 25 answers in no checkpoint yet.
const WASTE: u64 = IN_FLIGHT + 2 * 24;

async fn slow() -> (Desk, ModelServer) {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(100))).await;
    (desk.with_rows(ROWS, &format!("rows_per_shard = 50\nmax_in_flight = {IN_FLIGHT}")), server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_goes_on_at_once_and_pays_again_at_most_the_waste_bound() {
    let (desk, server) = slow().await;
    let mut run = desk.start(RUN);
    until_called(&server, 400).await;
    run.start_kill().unwrap();
    run.wait().await.unwrap();
    let status = desk.tasuki(&["status"]).await.out;
    assert!(status.contains("not running: resume with tasuki run rows.jsonl --pipeline p.toml"), "{status}");

    let resumed = Instant::now();
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(resumed.elapsed() < Duration::from_secs(20), "no lease is waited for: {:?}", resumed.elapsed());
    let calls = server.tally().calls();
    assert!((ROWS..=ROWS + WASTE).contains(&calls), "{calls} calls");
    let results = desk.tasuki(&["results", "--format", "jsonl"]).await.out;
    assert_eq!(results.lines().count() as u64, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_cleanly_and_the_same_command_pays_nothing_twice() {
    let (desk, server) = slow().await;
    let run = desk.start(RUN);
    until_called(&server, 200).await;
    signal(&run, "-INT");
    let stopped = ended(run).await;
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    assert!(stopped.err.contains("Go on with:\n  tasuki run rows.jsonl --pipeline p.toml"), "{stopped:?}");
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), ROWS), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_six_seconds_are_waited_for_and_paid_once() {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_secs(6))).await;
    let desk = desk.with_rows(10, "max_in_flight = 8");
    let run = desk.start(RUN);
    until_called(&server, 8).await;
    signal(&run, "-INT");
    let stopped = ended(run).await;
    assert!(stopped.err.contains("waiting up to 30 s for 8 calls in flight; Ctrl-C again ends at once"), "{stopped:?}");
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), 10), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_reached_is_told_with_its_address_and_the_reason() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("http://{closed}/secret-path");
    let desk = Desk { model: Some((base, "a-key".into())), ..Desk::new() }.with_rows(30, "");
    let run = desk.start(RUN);
    tokio::time::sleep(Duration::from_secs(15)).await;
    signal(&run, "-INT");
    let done = ended(run).await;
    let reason = format!("cannot be reached (http://{closed}: connection refused");
    assert_eq!(done.err.matches(&reason).count(), 1, "{done:?}");
    assert!(!done.err.contains("secret-path") && !done.err.contains("a-key"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_is_resumed_whole() {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(200))).await;
    let desk = desk.with_rows(450, "rows_per_shard = 1\nmax_in_flight = 10");
    let run = desk.start(RUN);
    until_called(&server, 15).await;
    until("the split", || {
        fs::read_dir(desk.path(".tasuki/shards"))
            .unwrap()
            .flatten()
            .next()
            .is_some_and(|run| fs::read_dir(run.path()).unwrap().count() == 450)
    })
    .await;
    signal(&run, "-TERM");
    assert_eq!(ended(run).await.code, Some(1));
    drop(server);
    let server = ModelServer::start(Script::default()).await.unwrap();
    let desk = Desk { model: Some((server.base(), "a-key".into())), ..desk };
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(desk.newest().await["loaded"], 450);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_stops_the_run_and_fails_no_row() {
    let refused = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = refused.clone();
    let script = Script::acting(move |_| match still.load(std::sync::atomic::Ordering::SeqCst) {
        true => Act::Status(401, r#"{"error":{"code":401,"status":"UNAUTHENTICATED"}}"#.into()),
        false => Act::Auto,
    });
    let (desk, _server) = Desk::asking(script).await;
    let desk = desk.with_rows(120, "");
    let done = desk.run().await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains("nothing failed; the same command resumes") && done.err.contains("GEMINI_API_KEY"),
        "{done:?}"
    );
    assert_eq!(desk.newest().await["failed"], 0);
    refused.store(false, std::sync::atomic::Ordering::SeqCst);
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(desk.newest().await["loaded"], 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_end_says_so_instead_of_waiting_for_ever() {
    let (desk, server) = slow().await;
    let run = desk.start(RUN);
    until_called(&server, 100).await;
    signal(&run, "-INT");
    ended(run).await;
    let folder = |bucket: &str| fs::read_dir(desk.path(bucket)).unwrap().flatten().next().map(|run| run.path());
    let (shards, answers) = (folder(".tasuki/shards").unwrap(), folder(".tasuki/answers"));
    let answered = |name: &String| answers.as_ref().is_some_and(|answers| answers.join(name).exists());
    let left = (0..12).map(|shard| format!("{shard:08}.ndjson")).find(|name| !answered(name));
    fs::write(shards.join(left.expect("it was stopped halfway")), "junk").unwrap();
    let done = desk.run().await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("corrupt") && done.err.contains("tasuki cancel"), "{done:?}");
}
