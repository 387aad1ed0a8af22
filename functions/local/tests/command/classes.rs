//! Every class of what a model can say, in one run: how the row ends, and what it took (protocol.md 4).

use super::*;
use serde_json::json;
use std::collections::BTreeMap;
use tasuki_tests::model_server::RetryEncoding::{Header, Parts, Text};

const PIPELINE: &str = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{ text }}\"\n[answer.themes]\ntype = \"string\"\n\
    count = 2\ndistinct = true\n[model]\nmax_output_tokens = 50\nretry_output_tokens = 100\n[target]\ntable = \"themes\"\n";

/// What the model says to the first call about a row, and to those that follow; how the row ends; and calls: all, and those of which
/// nobody knows whether they are paid.
type Case = (Act, Act, &'static str, u64, u64);

fn busy(encoding: tasuki_tests::model_server::RetryEncoding) -> Act {
    Act::Busy { retry_after: Some(Duration::from_secs(1)), encoding }
}

fn error(code: u16, status: &str) -> Act {
    let message = if code == 503 { "The model is overloaded." } else { "no" };
    Act::Status(code, json!({"error": {"code": code, "status": status, "message": message}}).to_string())
}

fn says(text: &str) -> Act {
    Act::Answer(text.to_owned())
}

fn ends(reason: &str) -> Act {
    Act::BlockedAnswer(reason.to_owned())
}

fn cases() -> Vec<Case> {
    let within = |code, status: &str| Act::ErrorIn200(code, status.to_owned());
    let half = || Act::MaxTokens("{\"themes\": [\"te".to_owned());
    let loaded = "loaded";
    vec![
        // Not paid, and no attempt of the row.
        (busy(Text), Act::Auto, loaded, 2, 0),
        (busy(Parts), Act::Auto, loaded, 2, 0),
        (busy(Header), Act::Auto, loaded, 2, 0),
        (error(503, "UNAVAILABLE"), Act::Auto, loaded, 2, 0),
        (error(500, "INTERNAL"), Act::Auto, loaded, 2, 0),
        (within(429, "RESOURCE_EXHAUSTED"), Act::Auto, loaded, 2, 0),
        (within(503, "UNAVAILABLE"), Act::Auto, loaded, 2, 0),
        (within(500, "INTERNAL"), Act::Auto, loaded, 2, 0),
        (error(400, "INVALID_ARGUMENT"), Act::Auto, "rejected", 1, 0),
        // Perhaps paid.
        (error(504, "DEADLINE_EXCEEDED"), Act::Auto, loaded, 2, 1),
        (Act::Reset, Act::Auto, loaded, 2, 1),
        (Act::Cut(30), Act::Auto, loaded, 2, 1),
        (Act::Cut(30), Act::Cut(0), "timeout", 2, 2),
        // Paid, and no answer.
        (Act::Garbage, Act::Auto, loaded, 2, 0),
        (Act::Garbage, Act::Garbage, "malformed", 2, 0),
        (Act::Empty, Act::Auto, loaded, 2, 0),
        (says("[1, 2]"), says("{\"themes\": \"tea\"}"), "malformed", 2, 0),
        (half(), Act::Auto, loaded, 2, 0),
        (half(), half(), "truncated", 2, 0),
        (Act::Blocked("SAFETY".to_owned()), Act::Auto, "blocked_prompt:SAFETY", 1, 0),
        (ends("SPII"), Act::Auto, "blocked_answer:SPII", 1, 0),
        (ends("RECITATION"), Act::Auto, loaded, 2, 0),
        (ends("RECITATION"), ends("RECITATION"), "blocked_answer:RECITATION", 2, 0),
        (ends("BRAND_NEW"), Act::Auto, loaded, 2, 0),
        (ends("BRAND_NEW"), ends("BRAND_NEW"), "unknown_finish:BRAND_NEW", 2, 0),
        // An answer, for all that stands around it.
        (says("\u{feff}{\"themes\": [\"tea\", \"wool\"]}"), Act::Auto, loaded, 1, 0),
        (says("```json\n{\"themes\": [\"tea\", \"wool\"]}\n```\nEnjoy!"), Act::Auto, loaded, 1, 0),
        (Act::MaxTokens("{\"themes\": [\"tea\", \"wool\"]}   ".to_owned()), Act::Auto, loaded, 1, 0),
        (says("{\"themes\": [\"tea\", \"ＴＥＡ\", \"tea \", \"wool\"]}"), Act::Auto, loaded, 1, 0),
    ]
}

fn row_of(prompt: &str) -> usize {
    let (_, rest) = prompt.split_once("row ").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_class_of_reply_ends_as_the_table_says() {
    let rows = cases();
    let (desk, server) = Desk::asking(Script::acting(move |call| {
        let (first, then, ..) = &rows[row_of(&call.prompt)];
        if call.nth == 1 && !call.prompt.contains("there already") { first.clone() } else { then.clone() }
    }))
    .await;
    let rows = cases();
    desk.write("rows.jsonl", lines(0..rows.len() as u64));
    desk.write("p.toml", PIPELINE);
    let done = desk.run().await;
    assert_eq!(done.code, Some(2), "{done:?}");

    let failures = desk.tasuki(&["failures", "--format", "jsonl"]).await.out;
    let failures = failures.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let reasons: BTreeMap<usize, String> = failures
        .map(|row| (row["ordinal"].as_u64().unwrap() as usize, row["reason"].as_str().unwrap().to_owned()))
        .collect();
    let mut calls = BTreeMap::<usize, u64>::new();
    server.tally().by_prompt().iter().for_each(|(prompt, count)| *calls.entry(row_of(prompt)).or_default() += count);
    for (row, (first, then, end, asked, _)) in rows.iter().enumerate() {
        let ended = reasons.get(&row).map_or("loaded", String::as_str);
        assert_eq!((ended, calls[&row]), (*end, *asked), "row {row}: {first:?}, then {then:?}");
    }
    let ambiguous: u64 = rows.iter().map(|row| row.4).sum();
    let status = desk.newest().await;
    assert_eq!(status["ambiguous_calls"], json!(ambiguous), "{status}");
    // What was cut is in the server's count alone: the three replies that broke off.
    let (prompt, output) = server.tally().tokens();
    let ours = |kind: &str| status["tokens"][kind].as_u64().unwrap();
    let cut = (prompt - ours("prompt"), output - ours("output"));
    assert!((1..=3 * 200).contains(&cut.0) && (1..=3 * 40).contains(&cut.1), "{cut:?}");
}
