use super::*;

/// The command is refused with these words, and nothing was begun.
async fn refused(desk: &Desk, words: &[&str], told: &[&str]) {
    let done = desk.tasuki(words).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    for told in told {
        assert!(done.err.contains(told), "{told:?} in {}", done.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_told_at_once_with_its_place() {
    let desk = Desk::new();
    desk.write("rows.xlsx", "PK");
    desk.write("p.toml", "name = \"P\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{ a\"\n[answer.x]\ntype = \"text\"\n");
    let told = ["rows.xlsx", "save it as CSV", "p.toml:1:8:", "p.toml:4:", "p.toml:6:"];
    refused(&desk, &["run", "rows.xlsx", "--pipeline", "p.toml"], &told).await;
    refused(&desk, &["run", "absent.jsonl", "--pipeline", "none.toml"], &["absent.jsonl", "none.toml"]).await;
    assert!(!desk.path(".tasuki").exists());
    refused(&desk, &["results"], &[".tasuki is not there", "tasuki run"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_is_refused_in_the_users_words() {
    let desk = Desk::new().with_rows(3, "");
    desk.write("csv.jsonl", "id,text\n1,a\n");
    refused(&desk, &["run", "csv.jsonl", "--pipeline", "p.toml"], &["csv.jsonl holds CSV: rename it to csv.csv"]).await;
    for command in [&["status", "r"][..], &["failures"], &["status", "--json"]] {
        let shown = desk.tasuki(command).await;
        let is_named = shown.out.contains("csv.jsonl holds CSV: rename it to csv.csv");
        assert!(is_named, "{command:?}: {shown:?}");
    }
    assert_eq!(desk.newest().await["file"], "csv.jsonl");
    desk.write("other.jsonl", "{\"id\":\"1\",\"body\":\"a\"}\n");
    let told = ["other.jsonl", "the column \"text\"", "mend the pipeline or the file"];
    refused(&desk, &["run", "other.jsonl", "--pipeline", "p.toml"], &told).await;
    refused(&desk, &["run", "other.jsonl", "--pipeline", "p.toml"], &["the column \"text\""]).await;
    let newest = desk.newest().await;
    assert_eq!(newest["state"], "FAILED");
    let retry = desk.tasuki(&["retry", newest["run"].as_str().unwrap()]).await;
    assert!(retry.out.contains("it was refused: no row has the column"), "{retry:?}");
    refused(&desk, &["--dir", "./.tasuki", "status", "rx"], &["`tasuki --dir ./.tasuki status` shows all"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_take_the_answers_is_told_before_any_is_paid_for() {
    let (desk, server) = Desk::asking(Script::default()).await;
    let desk = desk.with_rows(3, "");
    assert_eq!(desk.run().await.code, Some(0));
    let other = pipeline("").replace("type = \"string\"", "type = \"integer\"");
    desk.write("p.toml", &other);
    desk.write("pipelines/p.toml", &other);
    let told = ["table themes", "has column theme of type TEXT, the pipeline wants INTEGER", "another [target] table"];
    refused(&desk, RUN, &told).await;
    refused(&desk, &["serve", "--pipelines", "pipelines"], &told).await;
    assert_eq!((server.tally().calls(), fs::read_dir(desk.path(".tasuki/inbox/p")).unwrap().count()), (3, 1));
    desk.write("p.toml", pipeline("").replace("\"themes\"", "\"SQLite_x\""));
    refused(&desk, RUN, &["SQLite keeps such names for itself"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_not_advised_and_what_is_damaged_is_named() {
    let desk = Desk::new().with_rows(0, "");
    desk.write("rows.jsonl", lines(0..1) + &lines(0..1));
    assert_eq!(desk.run().await.code, Some(2));
    let failures = desk.tasuki(&["failures"]).await;
    assert!(failures.out.contains(": 1 row failed") && !failures.out.contains("tasuki retry"), "{failures:?}");
    assert!(failures.out.contains("mend them in the file"), "{failures:?}");
    let mut logged = desk.command(&["status"]);
    logged.env("TASUKI_LOG", "a=b=c").stdout(Stdio::piped()).stderr(Stdio::piped());
    assert!(ended(logged.spawn().unwrap()).await.err.contains("TASUKI_LOG is no level"));
    desk.write(".tasuki/tasuki.db", "no database, but many more bytes than a header has".repeat(20));
    refused(&desk, &["status"], &[".tasuki/tasuki.db: the SQLite store cannot be used"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_cannot_work_is_told_before_anything_starts() {
    let desk = Desk { model: Some(("localhost".into(), "a-key".into())), ..Desk::new() }.with_rows(3, "");
    refused(&desk, RUN, &["GOOGLE_GEMINI_BASE_URL"]).await;
    let desk = Desk { model: Some(("http://127.0.0.1:9".into(), String::new())), ..desk };
    refused(&desk, RUN, &["GEMINI_API_KEY too"]).await;
    assert!(!desk.path(".tasuki").exists());
}

#[test]
fn a_newcomers_build_has_none_of_googles_crates() {
    let tree = |more: &[&str]| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo
            .args(["tree", "--locked", "--offline", "-p", "tasuki", "-e", "normal,build", "--prefix", "none"])
            .args(more);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let names = String::from_utf8(output.stdout).unwrap();
        names.lines().filter(|line| line.contains("google")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(tree(&[]), Vec::<String>::new());
    assert!(!tree(&["--features", "cloud"]).is_empty(), "the feature is what brings them");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_and_serve_say_where_they_work() {
    let desk = Desk::new();
    let doctor = desk.tasuki(&["doctor"]).await;
    assert!(doctor.code == Some(1) && doctor.err.contains("--deployment FILE"), "{doctor:?}");
    desk.write("tasuki.json", "{\"version\": 1}");
    let wrong = desk.tasuki(&["--deployment", "tasuki.json", "status"]).await;
    let says = if cfg!(feature = "cloud") { "state_bucket is missing" } else { "--features cloud" };
    assert!(wrong.code == Some(1) && wrong.err.contains(says), "{wrong:?}");
    let both = desk.tasuki(&["--deployment", "tasuki.json", "--dir", "here", "status"]).await;
    assert!(both.code == Some(1) && both.err.contains("--dir"), "{both:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_is_refused_with_an_api_key_before_anything_is_begun() {
    let (desk, server) = Desk::asking(Script::default()).await;
    let desk = desk.with_rows(1, "");
    desk.write("p.toml", pipeline("").replace("[target]", "[model]\nlocation = \"eu\"\n[target]"));
    let done = desk.run().await;
    assert!(done.code == Some(1) && done.err.contains(": [model] location is for Vertex AI"), "{done:?}");
    let falls_back = "[model]\nfallback = [\"gemini-3.5-flash\", \"gemini-3.5-flash-lite@eu\"]\n[target]";
    desk.write("p.toml", pipeline("").replace("[target]", falls_back));
    let done = desk.run().await;
    let named = "[model] fallback: the location eu of gemini-3.5-flash-lite@eu is for Vertex AI";
    assert!(done.code == Some(1) && done.err.contains(named) && done.err.lines().count() == 2, "{done:?}");
    assert_eq!((server.tally().calls(), desk.path(".tasuki").exists()), (0, false));
}
