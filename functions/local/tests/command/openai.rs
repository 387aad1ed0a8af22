//! Pipelines that name another provider: who answers them, and how they end.

use super::*;
use tasuki_tests::model_server::RetryEncoding;

const PIPELINE: &str = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"A theme of {{ text }}\"\n[answer.theme]\ntype = \"string\"\n\
    [model]\nprovider = \"openai\"\nname = \"org/m:8b\"\nmax_output_tokens = 100\n[model.price]\ninput = 1.0\noutput = 2.0\n\
    [target]\ntable = \"themes\"\n";

async fn desk(rows: u64, act: impl Fn(&CallInfo) -> Act + Send + Sync + 'static) -> (Desk, ModelServer) {
    let server = ModelServer::start(Script::acting(act)).await.unwrap();
    let desk = Desk { chat: Some(server.chat_base()), ..Desk::new() };
    desk.write("rows.jsonl", lines(0..rows));
    desk.write("p.toml", PIPELINE);
    (desk, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_completions_answer_a_run_whatever_they_come_to() {
    let (desk, server) = desk(20, |call| {
        assert!(call.chat && call.model == "org/m:8b", "{call:?}");
        let is = |row: u64| call.prompt.contains(&format!("row {row};"));
        match call.nth {
            1 if is(1) => Act::Answer("no JSON".to_owned()),
            1 if is(2) => Act::Busy { retry_after: Some(Duration::from_secs(1)), encoding: RetryEncoding::Header },
            1 if is(3) => Act::Status(500, String::new()),
            _ if is(4) => Act::Refused("I will not.".to_owned()),
            _ if is(5) => Act::MaxTokens("{\"theme".to_owned()),
            _ if is(6) => Act::Blocked(String::new()),
            _ => Act::Auto,
        }
    })
    .await;
    let done = desk.run().await;
    assert_eq!(done.code, Some(2), "three rows fail: {done:?}");
    let run = desk.newest().await;
    assert_eq!((&run["loaded"], &run["failed"]), (&17.into(), &3.into()), "{run}");
    let failures = desk.tasuki(&["failures", "--format", "jsonl"]).await.out;
    for reason in ["blocked_answer:SAFETY", "truncated", "blocked_prompt:content_filter"] {
        assert!(failures.contains(reason), "{reason}: {failures}");
    }
    assert!(!failures.contains("I will not"), "{failures}");
    // Rows 1, 2 and 3 were asked again; the others once.
    assert_eq!(server.tally().calls(), 23);
    assert_eq!(server.tally().by_prompt().values().filter(|calls| **calls == 2).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_missing_stops_the_run_and_fails_no_row() {
    let (desk, _server) = desk(3, |call| match &call.authorization {
        None => Act::Status(401, String::new()),
        Some(_) => Act::Auto,
    })
    .await;
    let done = desk.run().await;
    assert!(done.code == Some(1) && done.err.contains("set OPENAI_API_KEY"), "{done:?}");
    let mut with_key = desk.command(RUN);
    let done = with_key.env("OPENAI_API_KEY", "k").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let done = ended(done).await;
    assert!(done.code == Some(0) && done.out.contains("3"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_the_stand_in_answers_and_says_how_to_get_one() {
    let (mut desk, server) = desk(5, |_| Act::Auto).await;
    let base = desk.chat.take();
    let done = desk.run().await;
    assert!(done.code == Some(0) && done.err.contains("OPENAI_BASE_URL"), "{done:?}");
    assert_eq!(server.tally().calls(), 0);
    desk.chat = base;
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), 5), "another run: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_pipelines_of_both_providers() {
    let gemini = ModelServer::start(Script::default()).await.unwrap();
    let (mut desk, chat) = desk(4, |_| Act::Auto).await;
    desk.model = Some((gemini.base(), "a-key".to_owned()));
    desk.write("pipelines/p.toml", PIPELINE);
    desk.write("pipelines/g.toml", pipeline("").replace("name = \"p\"", "name = \"g\"").replace("themes", "others"));
    let serve = desk.start(&["serve", "--pipelines", "pipelines"]);
    for name in ["p", "g"] {
        let inbox = desk.path(&format!(".tasuki/inbox/{name}"));
        until("the inbox", || inbox.exists()).await;
        fs::copy(desk.path("rows.jsonl"), inbox.join("rows.jsonl")).unwrap();
    }
    let start = Instant::now();
    while count_ended(&desk, "COMPLETE").await < 2 {
        assert!(start.elapsed() < PATIENCE, "{:?}", desk.tasuki(&["status"]).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((gemini.tally().calls(), chat.tally().calls()), (4, 4));
    // Whoever asks with other models than those who serve would get mixed answers.
    desk.chat = None;
    desk.write("more.jsonl", lines(10..12));
    let other = desk.tasuki(&["run", "more.jsonl", "--pipeline", "p.toml"]).await;
    assert!(other.code == Some(1) && other.err.contains("the OpenAI-compatible endpoint answers"), "{other:?}");
    drop(serve);
}
