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
    refused(&desk, &["run", "csv.jsonl", "--pipeline", "p.toml"], &["csv.jsonl holds CSV", "rename it"]).await;
    desk.write("other.jsonl", "{\"id\":\"1\",\"body\":\"a\"}\n");
    let told = ["other.jsonl", "the column \"text\"", "mend the pipeline or the file"];
    refused(&desk, &["run", "other.jsonl", "--pipeline", "p.toml"], &told).await;
    refused(&desk, &["run", "other.jsonl", "--pipeline", "p.toml"], &["the column \"text\""]).await;
    assert_eq!(desk.newest().await["state"], "FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_cannot_work_is_told_before_anything_starts() {
    let desk = Desk { model: Some(("localhost".into(), "a-key".into())), ..Desk::new() }.with_rows(3, "");
    refused(&desk, RUN, &["GOOGLE_GEMINI_BASE_URL"]).await;
    let desk = Desk { model: Some(("http://127.0.0.1:9".into(), String::new())), ..desk };
    refused(&desk, RUN, &["GEMINI_API_KEY too"]).await;
    assert!(!desk.path(".tasuki").exists());
}
