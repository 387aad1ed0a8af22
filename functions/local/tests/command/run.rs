use super::*;

const NOTE: &str = "stand-in model: set GEMINI_API_KEY to ask Gemini";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_key_is_complete_and_every_place_says_that_the_stand_in_answered() {
    let desk = Desk::new().with_rows(25, "rows_per_shard = 10");
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("COMPLETE") && done.out.contains(NOTE), "{done:?}");
    assert!(done.out.contains("words"), "the first answers: {done:?}");

    let table = desk.tasuki(&["results"]).await;
    assert!(table.code == Some(0) && table.out.contains(NOTE) && table.out.contains("theme"), "{table:?}");
    let jsonl = desk.tasuki(&["results", "--format", "jsonl"]).await;
    assert!(jsonl.err.contains(NOTE), "{jsonl:?}");
    let rows: Vec<Value> = jsonl.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 25);
    assert!(jsonl.out.starts_with("{\"id\":\"0\",\"theme\":"), "key, answers, run, model: {}", jsonl.out);
    assert_eq!(rows[3].as_object().unwrap().len(), 4);
    let csv = desk.tasuki(&["results", "--format", "csv"]).await;
    assert_eq!((csv.out.lines().next(), csv.out.lines().count()), (Some("id,theme,run,model"), 26));
    assert!(csv.err.contains(NOTE), "{csv:?}");
    assert!(desk.tasuki(&["status"]).await.out.contains(NOTE));
    assert_eq!(desk.tasuki(&["failures"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_the_same_command_asks_the_model_and_nothing_speaks_of_a_stand_in() {
    let (desk, server) = Desk::asking(Script::default()).await;
    let desk = desk.with_rows(25, "");
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), 25), "{done:?}");
    let results = desk.tasuki(&["results"]).await;
    assert!(![&done.out, &done.err, &results.out].iter().any(|text| text.contains("stand-in")), "{done:?} {results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_the_same_command_asks_gemini_and_without_it_no_paid_answer_is_replaced() {
    let (asking, server) = Desk::asking(Script::default()).await;
    let desk = Desk::new().with_rows(5, "");
    assert_eq!(desk.run().await.code, Some(0));
    let desk = Desk { dir: desk.dir, model: asking.model, chat: None };
    let paid = desk.run().await;
    assert!(paid.code == Some(0) && !paid.out.contains("stand-in"), "{paid:?}");
    assert_eq!((server.tally().calls(), count_ended(&desk, "COMPLETE").await), (5, 2));
    let status: Value = serde_json::from_str(&desk.tasuki(&["status", "--json"]).await.out).unwrap();
    let replaced = desk.tasuki(&["status", status["runs"][1]["run"].as_str().unwrap()]).await;
    assert!(replaced.out.contains("5 of the stand-in model, free"), "also when nothing of it is left: {replaced:?}");

    let desk = Desk { model: None, ..desk };
    desk.write("more.jsonl", lines(0..7));
    for input in ["rows.jsonl", "more.jsonl"] {
        let refused = desk.tasuki(&["run", input, "--pipeline", "p.toml"]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("table themes") && refused.err.contains("holds 5 answers"), "{refused:?}");
    }
    assert_eq!(count_ended(&desk, "COMPLETE").await, 2, "nothing was dropped");
    let name = desk.newest().await["run"].as_str().unwrap().to_owned();
    let results = desk.tasuki(&["results", &name, "--format", "jsonl"]).await;
    assert!(results.out.lines().count() == 5 && !results.out.contains("stand-in"), "{results:?}");
    desk.write("pipelines/p.toml", pipeline(""));
    let serve = desk.tasuki(&["serve", "--pipelines", "pipelines"]).await;
    assert!(serve.code == Some(1) && serve.err.contains("holds 5 answers"), "{serve:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_run_is_never_finished_by_the_stand_in() {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(200))).await;
    let mut desk = desk.with_rows(200, "rows_per_shard = 100\nmax_in_flight = 10");
    let mut run = desk.start(RUN);
    until_called(&server, 12).await;
    run.start_kill().unwrap();
    run.wait().await.unwrap();
    let name = desk.newest().await["run"].as_str().unwrap().to_owned();
    let model = desk.model.take();
    desk.write("pipelines/p.toml", fs::read(desk.path("p.toml")).unwrap());
    let serve = desk.tasuki(&["serve", "--pipelines", "pipelines"]).await;
    assert!(serve.code == Some(1) && serve.err.contains("begun with Gemini"), "{serve:?}");
    assert!(serve.err.contains("GEMINI_API_KEY") && serve.err.contains(&format!("cancel {}", &name[..9])), "{serve:?}");
    let other = desk.run().await;
    assert!(other.err.contains(&format!("run {name} of rows.jsonl was begun with Gemini")), "{other:?}");
    desk.model = model;
    let done = desk.run().await;
    assert!(done.code == Some(0) && !done.out.contains("stand-in") && done.out.contains(&name), "{done:?}");
    assert!(server.tally().calls() >= 200, "every row of it was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_not_handed_to_a_serve_that_answers_otherwise() {
    let (asking, server) = Desk::asking(Script::default()).await;
    let desk = Desk::new().with_rows(5, "");
    desk.write("pipelines/p.toml", pipeline(""));
    let serve = desk.start(&["serve", "--pipelines", "pipelines"]);
    until("the inbox", || desk.path(".tasuki/inbox/p").exists()).await;
    let desk = Desk { dir: desk.dir, model: asking.model, chat: None };
    let refused = desk.run().await;
    assert!(refused.code == Some(1) && refused.err.contains("there the stand-in model answers"), "{refused:?}");
    assert_eq!((server.tally().calls(), count_ended(&desk, "COMPLETE").await), (0, 0));
    drop(serve);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_rows_are_told_with_their_reason_and_the_exit_code_is_2() {
    let (desk, _server) = Desk::asking(Script::acting(blocking_row_7)).await;
    let desk = desk.with_rows(25, "");
    let done = desk.run().await;
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.out.contains("blocked_prompt:SAFETY 1") && done.out.contains("tasuki failures"), "{done:?}");
    let failures = desk.tasuki(&["failures", "--format", "jsonl"]).await.out;
    let failure: Value = serde_json::from_str(&failures).unwrap();
    let told = (&failure["key"], &failure["ordinal"], &failure["reason"]);
    assert_eq!(told, (&"7".into(), &7.into(), &"blocked_prompt:SAFETY".into()));
    let csv = desk.tasuki(&["failures", "--format", "csv"]).await.out;
    assert!(csv.starts_with("key,ordinal,reason,message") && csv.lines().count() == 2, "{csv}");
    assert!(desk.tasuki(&["failures"]).await.out.contains("blocked_prompt:SAFETY"));
}

pub(super) fn blocking_row_7(call: &CallInfo) -> Act {
    if call.prompt.contains("row 7;") { Act::Blocked("SAFETY".into()) } else { Act::Auto }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_is_paid_once_until_somebody_says_again() {
    let (desk, server) = Desk::asking(Script::default()).await;
    let desk = desk.with_rows(10, "");
    assert_eq!(desk.run().await.code, Some(0));
    fs::copy(desk.path("rows.jsonl"), desk.path("same.jsonl")).unwrap();
    for input in ["rows.jsonl", "same.jsonl"] {
        let shown = desk.tasuki(&["run", input, "--pipeline", "p.toml"]).await;
        assert_eq!((shown.code, server.tally().calls()), (Some(0), 10), "{shown:?}");
        assert!(shown.out.contains("COMPLETE") && shown.err.contains("nothing is paid"), "{shown:?}");
    }
    let first = desk.newest().await["run"].as_str().unwrap().to_owned();
    let again = desk.tasuki(&[RUN, &["--again"]].concat()).await;
    assert_eq!((again.code, server.tally().calls()), (Some(0), 20), "{again:?}");
    let old = desk.tasuki(&["results", &first]).await;
    assert!(old.out.contains("newer runs have replaced its 10 rows"), "{old:?}");
    desk.write("p.toml", pipeline("paid_retries = 2"));
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 30), "an edited pipeline is a new run");
    assert_eq!(count_ended(&desk, "COMPLETE").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_one_json_object_and_a_closed_pipe_is_no_error() {
    let desk = Desk::new().with_rows(3_000, "");
    let done = desk.tasuki(&[RUN, &["--json"]].concat()).await;
    let told: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&told["state"], &told["loaded"], &told["rows"]), (&"COMPLETE".into(), &3_000.into(), &3_000.into()));
    let program = format!("'{}' results --format jsonl | head -1", env!("CARGO_BIN_EXE_tasuki"));
    let mut head = std::process::Command::new("bash");
    let head = head.args(["-c", &format!("set -o pipefail; {program}")]);
    let head = head.current_dir(desk.dir.path()).output().unwrap();
    assert!(head.status.success() && !String::from_utf8_lossy(&head.stderr).contains("panicked"), "{head:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_file_packed_with_gzip_runs_too_and_a_folder_can_be_named() {
    let desk = Desk::new().with_rows(0, "");
    desk.write("rows.csv", "id,text\n1,one word\n2,二つの言葉\n");
    assert!(std::process::Command::new("gzip").arg(desk.path("rows.csv")).status().unwrap().success());
    let done = desk.tasuki(&["--dir", "else where", "run", "rows.csv.gz", "-p", "p.toml"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("tasuki --dir 'else where' results"), "{done:?}");
    let sql = r#"sqlite3 'else where/tasuki.db' 'SELECT "id", "theme" FROM "themes" LIMIT 5'"#;
    assert!(done.out.contains(sql), "{done:?}");
    assert!(desk.path("else where/tasuki.db").exists() && !desk.path(".tasuki").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn help_teaches() {
    let desk = Desk::new();
    let help = desk.tasuki(&["--help"]).await;
    assert!(help.code == Some(0) && help.out.contains("GEMINI_API_KEY") && help.out.contains("tasuki run"), "{help:?}");
    for command in ["run", "plan", "serve", "retry", "cancel", "status", "results", "failures"] {
        let help = desk.tasuki(&[command, "--help"]).await;
        assert!(help.code == Some(0) && help.out.contains("Example"), "{command}: {help:?}");
    }
    let mut empty = desk.command(&["status"]);
    let empty = ended(empty.env("TASUKI_DIR", "").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).await;
    assert!(empty.err.contains(".tasuki is not there"), "an empty variable counts as unset: {empty:?}");
    assert_eq!(desk.tasuki(&["fly"]).await.code, Some(1), "2 is for failed rows");
}
