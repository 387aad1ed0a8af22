use super::*;
use std::io::Write;

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_copied_moved_or_written_slowly_are_run_once_and_whole() {
    let desk = Desk::new().with_rows(10, "");
    desk.write("pipelines/p.toml", pipeline(""));
    desk.write("moved.jsonl", lines(100..110));
    let old = std::time::SystemTime::now() - Duration::from_secs(90 * 24 * 3_600);
    fs::File::options().append(true).open(desk.path("moved.jsonl")).unwrap().set_modified(old).unwrap();
    let serve = desk.start(&["serve", "--pipelines", "pipelines"]);
    let inbox = desk.path(".tasuki/inbox/p");
    until("the inbox", || inbox.exists()).await;
    fs::copy(desk.path("rows.jsonl"), inbox.join("copied.jsonl")).unwrap();
    fs::rename(desk.path("moved.jsonl"), inbox.join("moved.jsonl")).unwrap();
    fs::write(inbox.join("editor.jsonl~"), "junk").unwrap();
    let mut slow = fs::File::create(inbox.join("slow.jsonl")).unwrap();
    for part in 0..4 {
        slow.write_all(lines(200 + part * 10..210 + part * 10).as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    let start = Instant::now();
    while count_ended(&desk, "COMPLETE").await < 3 {
        assert!(start.elapsed() < PATIENCE, "{:?}", desk.tasuki(&["status"]).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status: Value = serde_json::from_str(&desk.tasuki(&["status", "--json"]).await.out).unwrap();
    let runs = status["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3, "each file once: {status}");
    let loaded = |file: &str| runs.iter().find(|run| run["input"] == file).unwrap()["loaded"].clone();
    assert_eq!([loaded("p/copied.jsonl"), loaded("p/moved.jsonl"), loaded("p/slow.jsonl")], [10, 10, 40]);

    // A run of the same folder is handed to the one who serves it, and followed.
    desk.write("more.jsonl", lines(500..520));
    let followed = desk.tasuki(&["run", "more.jsonl", "--pipeline", "pipelines/p.toml"]).await;
    assert!(followed.code == Some(0) && followed.out.contains("COMPLETE"), "{followed:?}");
    // With another version of the pipeline it would be another run than it says.
    desk.write("p.toml", pipeline("paid_retries = 3"));
    let other = desk.run().await;
    assert!(other.code == Some(1) && other.err.contains("--pipelines"), "{other:?}");

    desk.write("pipelines/p.toml", "name = 3");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    desk.write("pipelines/p.toml", pipeline(""));
    fs::create_dir(inbox.join("folder")).unwrap();
    std::os::unix::fs::symlink(desk.path("rows.jsonl"), inbox.join("link.jsonl")).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    signal(&serve, "-INT");
    let served = ended(serve).await;
    assert_eq!((served.code, served.out.lines().count()), (Some(0), 4), "a line for each run: {served:?}");
    assert!(served.err.contains("p.toml:1:") && served.err.contains("still counts"), "a bad edit is told: {served:?}");
    assert!(served.err.contains("in order again"), "and its mend: {served:?}");
    for name in ["folder", "link.jsonl"] {
        assert_eq!(served.err.matches(&format!("{name}: not a file")).count(), 1, "{served:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_goes_on_with_what_was_stopped() {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(200))).await;
    let desk = desk.with_rows(200, "rows_per_shard = 20\nmax_in_flight = 20");
    desk.write("pipelines/p.toml", fs::read(desk.path("p.toml")).unwrap());
    let mut run = desk.start(RUN);
    until_called(&server, 60).await;
    run.start_kill().unwrap();
    run.wait().await.unwrap();
    let serve = desk.start(&["serve", "--pipelines", "pipelines"]);
    let start = Instant::now();
    while count_ended(&desk, "COMPLETE").await < 1 {
        assert!(start.elapsed() < PATIENCE, "it does not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(server.tally().calls() <= 200 + 20 + 2 * 24);
    drop(serve);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_all_pipelines_are_told_before_anything_starts() {
    let desk = Desk::new();
    desk.write("pipelines/a.toml", pipeline("max_in_flight = 0"));
    desk.write("pipelines/b.toml", "name = \"B\"");
    desk.write("pipelines/c.toml", pipeline(""));
    desk.write("pipelines/d.toml", pipeline(""));
    let done = desk.tasuki(&["serve", "--pipelines", "pipelines"]).await;
    assert_eq!(done.code, Some(1));
    for told in ["a.toml:10:", "b.toml:1:", "d.toml: pipelines/c.toml has the name p too"] {
        assert!(done.err.contains(told), "{told}: {}", done.err);
    }
    assert!(!desk.path(".tasuki").exists());
}
