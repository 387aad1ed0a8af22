//! Answers that are not right: what is kept, what is asked again, what it costs.

use super::*;
use serde_json::json;

const THEMES: &str = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"Six themes of {{ text }}\"\n[answer.themes]\ntype = \"string\"\n\
    count = 6\ndistinct = true\n[model]\nmax_output_tokens = 100\nretry_output_tokens = 200\nthinking = \"low\"\n[run]\nrows_per_shard = 20\n[target]\ntable = \"themes\"\n";
const WHOLE: &str = r#"{"themes": ["tea", "wool", "「京都」", "a \"b\"", "雨", "x, y]"]}"#;

/// How many values the call asks for.
fn asked(call: &CallInfo) -> u64 {
    let themes = &call.request["generationConfig"]["responseSchema"]["properties"]["themes"];
    assert_eq!(themes["minItems"], themes["maxItems"]);
    themes["minItems"].as_u64().unwrap()
}

/// The row that a prompt is about: `words of row 7;`.
fn row_of(call: &CallInfo) -> u64 {
    let (_, rest) = call.prompt.split_once("row ").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

async fn desk(rows: u64, act: impl Fn(&CallInfo) -> Act + Send + Sync + 'static) -> (Desk, ModelServer) {
    let (desk, server) = Desk::asking(Script::acting(act)).await;
    desk.write("rows.jsonl", lines(0..rows));
    desk.write("p.toml", THEMES);
    (desk, server)
}

async fn answers(desk: &Desk) -> Vec<Vec<String>> {
    let rows = desk.tasuki(&["results", "--format", "jsonl"]).await;
    let themes = |line: &str| serde_json::from_str::<Value>(line).unwrap()["themes"].clone();
    rows.out.lines().map(|line| serde_json::from_value(themes(line)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_at_any_byte_costs_one_more_call_for_what_is_missing() {
    // Row n's first answer ends after n bytes.
    let bytes = WHOLE.len() as u64;
    let (desk, server) = desk(bytes, |call| match call.prompt.contains("there already") {
        false if asked(call) == 6 && call.nth == 1 => {
            let end = WHOLE.floor_char_boundary(row_of(call) as usize);
            Act::MaxTokens(WHOLE[..end].to_owned())
        }
        _ => Act::Auto,
    })
    .await;
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let answers = answers(&desk).await;
    assert!(answers.iter().all(|themes| themes.len() == 6), "{answers:?}");
    // All six came whole before the brackets at the end: those rows needed no second call.
    let whole = answers.iter().filter(|themes| themes[5] == "x, y]").count() as u64;
    assert_eq!((whole, server.tally().calls()), (2, 2 * bytes - 2));
    let kept = answers.iter().filter(|themes| themes[0] == "tea").count() as u64;
    assert_eq!(kept, bytes - r#"{"themes": ["tea""#.len() as u64, "what came whole was kept");
    let status = desk.newest().await;
    assert_eq!(status["paid_calls"], json!(2 * bytes - 2), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_malformed_answer_only_what_is_missing_is_asked_for_and_the_kept_ones_are_named() {
    let (desk, server) = desk(10, |call| match asked(call) {
        6 => Act::Answer(
            "Sure!\n```json\n{\"themes\": [\"tea\", \"wool\", \"tea\", \"ｔｅａ\", 7, \"\"]}\n```".to_owned(),
        ),
        4 if call.prompt.contains(r#"{"themes":["tea","wool"]}"#) => {
            Act::Answer(r#"{"themes": ["a", "wool", "b", "c", "d", "e"]}"#.to_owned())
        }
        _ => Act::Status(400, "{}".to_owned()),
    })
    .await;
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), 20), "{done:?}");
    assert_eq!(answers(&desk).await, vec![vec!["tea", "wool", "a", "b", "c", "d"]; 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_that_eat_the_answer_are_bounded_and_then_there_are_fewer() {
    let (desk, server) = desk(5, |call| {
        let config = &call.request["generationConfig"];
        assert_eq!(config["maxOutputTokens"], 100, "more tokens would be more thoughts");
        if config["thinkingConfig"]["thinkingLevel"] == "MINIMAL" {
            return Act::Auto;
        }
        let usage = json!({"promptTokenCount": 10, "candidatesTokenCount": 1, "thoughtsTokenCount": 99});
        let candidate = json!({"finishReason": "MAX_TOKENS", "content": {"parts": [{"text": "{\"th"}]}});
        Act::Body(json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}).to_string())
    })
    .await;
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(0), 10), "{done:?}");
    assert_eq!(desk.newest().await["tokens"]["thought"], json!(5 * 99), "they are paid and reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_fifth_malformed_and_a_twentieth_blocked_every_other_row_is_answered() {
    let (desk, server) = desk(1_000, |call| match row_of(call) {
        row if row % 20 == 7 => Act::Blocked("SAFETY".to_owned()),
        row if row % 5 == 0 && call.nth == 1 => Act::Answer("I would rather not".to_owned()),
        _ => Act::Auto,
    })
    .await;
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(2), 1_200), "{done:?}");
    let status = desk.newest().await;
    assert_eq!((&status["loaded"], &status["failed"]), (&json!(950), &json!(50)), "{status}");
    assert!(done.out.contains("blocked_prompt:SAFETY 50"), "{done:?}");
    // The default model's list price, by the server's own count: $0.30 and $2.50 a million.
    let (input, output) = server.tally().tokens();
    let cost = (input as f64 * 0.30 + output as f64 * 2.50) / 1e6;
    assert!((status["cost_usd"].as_f64().unwrap() - cost).abs() < 1e-9, "{cost}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_the_model_cannot_follow_is_not_paid_for_twice() {
    let (desk, server) = desk(1_000, |_| Act::Answer("No.".to_owned())).await;
    let done = desk.run().await;
    assert_eq!(done.code, Some(2), "{done:?}");
    let calls = server.tally().calls();
    // Of the run: 200 and a quarter of the calls; calls in flight may be past it.
    assert!((1_000 + 200..1_000 + 200 + calls / 4 + 20).contains(&calls), "{calls}");
    let failures = desk.tasuki(&["failures", "--format", "jsonl"]).await.out;
    assert!(failures.contains("too many answers of this run are malformed"), "{failures}");
}
