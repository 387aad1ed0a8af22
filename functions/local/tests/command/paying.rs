//! What a run costs, for what, and whom it pays.

use super::*;
use serde_json::json;
use tasuki::store::Reader;
use tasuki_relay::record::{Bill, Counts, Usage};

const THEMES: &str = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"Six themes of {{ text }}\"\n[answer.themes]\n\
    type = \"string\"\ncount = 6\ndistinct = true\n[target]\ntable = \"themes\"\n";

/// The counters of the newest run.
fn counts(desk: &Desk) -> Counts {
    let runs = Reader::open(&desk.path(".tasuki/tasuki.db")).runs().unwrap();
    runs[0].counts
}

fn row_of(call: &CallInfo) -> u64 {
    let (_, rest) = call.prompt.split_once("row ").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_in_one_class_and_the_sums_are_the_servers_own_to_the_token() {
    let (desk, server) = Desk::asking(Script::acting(|call| match row_of(call) {
        row if row % 20 == 7 => Act::Blocked("SAFETY".to_owned()),
        row if row % 5 == 0 && call.nth == 1 => Act::Answer("I would rather not".to_owned()),
        row if row % 5 == 1 && !call.prompt.contains("there already") => {
            Act::Answer(json!({"themes": ["a", "b", "c", "d"]}).to_string())
        }
        _ => Act::Auto,
    }))
    .await;
    desk.write("rows.jsonl", lines(0..200));
    desk.write("p.toml", THEMES);
    let done = desk.run().await;
    assert_eq!(done.code, Some(2), "{done:?}");
    let counts = counts(&desk);
    let calls = [counts.answers(), counts.retries, counts.salvage, counts.waste].map(|class| class.calls);
    assert_eq!((calls, server.tally().calls()), ([190, 40, 40, 10], 280));
    let (prompt, output) = server.tally().tokens();
    assert_eq!(counts.usage, Usage { prompt, output, ..Usage::default() });
    // The default model's list price in picodollars a token.
    assert_eq!(counts.cost, prompt * 300_000 + output * 2_500_000);
    let mut sum = Bill::default();
    [counts.answers(), counts.retries, counts.salvage, counts.waste].into_iter().for_each(|class| sum += class);
    assert_eq!((sum, counts.unpriced_calls), (counts.bill(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_prompt_is_paid_on_its_first_row_and_each_row_has_its_cost() {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(200))).await;
    let line = |id: u64| format!("{{\"id\":\"{id}\",\"text\":\"the same row 1;\"}}\n");
    desk.write("rows.jsonl", (0..10).map(line).collect::<String>());
    desk.write("p.toml", THEMES);
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 1));
    let store = rusqlite::Connection::open(desk.path(".tasuki/tasuki.db")).unwrap();
    let mut select = store.prepare("SELECT cost, prompt_tokens FROM themes ORDER BY CAST(id AS INTEGER)").unwrap();
    let costs: Vec<(f64, i64)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let (prompt, output) = server.tally().tokens();
    let cost = (prompt as f64 * 0.30 + output as f64 * 2.50) / 1e6;
    assert!((costs[0].0 - cost).abs() < 1e-12 && costs[0].1 == prompt as i64, "{costs:?}");
    assert!(costs[1..].iter().all(|row| *row == (0.0, 0)), "{costs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_price_has_a_cost_that_nobody_knows_unless_the_pipeline_says_it() {
    let (desk, server) = Desk::asking(Script::default()).await;
    desk.write("rows.jsonl", lines(0..10));
    desk.write("p.toml", THEMES.replace("[target]", "[model]\nname = \"own\"\n[target]"));
    assert_eq!(desk.run().await.code, Some(0));
    assert_eq!((counts(&desk).cost, counts(&desk).unpriced_calls), (0, 10));
    let price = "[model]\nname = \"own\"\nprice = { input = 1, output = 2 }\n[target]";
    desk.write("p.toml", THEMES.replace("[target]", price));
    assert_eq!(desk.run().await.code, Some(0));
    let (prompt, output) = server.tally().tokens();
    assert_eq!((counts(&desk).cost, counts(&desk).unpriced_calls), ((prompt + 2 * output) / 2 * 1_000_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_model_is_left_for_the_fallback_and_each_row_says_who_answered() {
    let (desk, server) = Desk::asking(Script::acting(|call| match call.model.as_str() {
        "gemini-3.5-flash" => Act::Auto,
        _ => Act::Status(404, json!({"error": {"code": 404, "status": "NOT_FOUND"}}).to_string()),
    }))
    .await;
    desk.write("rows.jsonl", lines(0..300));
    let model = "[model]\nfallback = [\"gemini-3.5-flash\"]\n[run]\nmax_in_flight = 20\n[target]";
    desk.write("p.toml", THEMES.replace("[target]", model));
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.err.contains("gemini-3.5-flash is"), "it is said: {}", done.err);
    assert!(server.tally().calls() <= 300 + 20, "{}", server.tally().calls());
    let store = rusqlite::Connection::open(desk.path(".tasuki/tasuki.db")).unwrap();
    let count = "SELECT count(*) FROM themes WHERE model = 'gemini-3.5-flash-001'";
    assert_eq!(store.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 300);
    let (prompt, output) = server.tally().tokens();
    assert_eq!(counts(&desk).cost, prompt * 1_500_000 + output * 9_000_000, "at the fallback's price");
    assert_eq!(told_answerers(&desk, &done).await, json!({"gemini-3.5-flash-001": 300}));
}

/// Who answered the newest run's rows: all that tell it, tell the same. `done` is the end of the command that ran it.
async fn told_answerers(desk: &Desk, done: &Done) -> Value {
    let run = desk.newest().await["run"].as_str().unwrap().to_owned();
    let mut all = Vec::new();
    for command in ["status", "cost"] {
        let json = desk.tasuki(&[command, &run, "--json"]).await.out;
        all.push(serde_json::from_str::<Value>(&json).unwrap()["answerers"].clone());
    }
    assert_eq!(all[0], all[1]);
    let answerers = all[0].as_object().cloned().unwrap_or_default();
    for text in [&done.out, &desk.tasuki(&["status", &run]).await.out, &desk.tasuki(&["cost", &run]).await.out] {
        let line = text.lines().find(|line| line.trim_start().starts_with("answered by"));
        assert_eq!(line.is_some(), !answerers.is_empty(), "{text}");
        for (model, rows) in &answerers {
            assert!(line.unwrap().contains(&format!("{model} {rows}")), "{text}");
        }
    }
    all.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_dies_halfway_and_its_fallback_are_told_with_the_rows_that_each_answered() {
    let answered = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (desk, _server) = Desk::asking(Script::acting(move |call| match call.model.as_str() {
        "gemini-3.5-flash" => Act::Auto,
        _ if answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 100 => Act::Auto,
        _ => Act::Status(404, json!({"error": {"code": 404, "status": "NOT_FOUND"}}).to_string()),
    }))
    .await;
    desk.write("rows.jsonl", lines(0..300));
    let model = "[model]\nfallback = [\"gemini-3.5-flash\"]\n[run]\nmax_in_flight = 20\n[target]";
    desk.write("p.toml", THEMES.replace("[target]", model));
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let both = json!({"gemini-3.5-flash-001": 200, "gemini-3.5-flash-lite-001": 100});
    assert_eq!(told_answerers(&desk, &done).await, both, "{done:?}");

    // A newer run takes some of the rows over.
    let first = desk.newest().await["run"].as_str().unwrap().to_owned();
    desk.write("rows.jsonl", lines(0..30));
    desk.write("p.toml", THEMES);
    let done = desk.run().await;
    assert_eq!(done.code, Some(1), "the model that is left is dead: {done:?}");
    desk.write("p.toml", THEMES.replace("[target]", "[model]\nname = \"gemini-3.5-flash\"\n[target]"));
    let done = desk.run().await;
    assert_eq!((done.code, told_answerers(&desk, &done).await), (Some(0), Value::Null), "one model alone: {done:?}");
    let status = desk.tasuki(&["status", &first]).await.out;
    assert!(status.contains(", 30 replaced by newer runs"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_reuse_answers_a_run_again_and_a_prompt_rolled_back_cost_nothing() {
    let (desk, server) = Desk::asking(Script::default()).await;
    desk.write("rows.jsonl", lines(0..50));
    let reusing = THEMES.replace("[target]", "[run]\nreuse_answers = true\n[target]");
    desk.write("p.toml", &reusing);
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 50));
    let again = desk.tasuki(&[RUN, &["--again"]].concat()).await;
    assert_eq!((again.code, server.tally().calls()), (Some(0), 50), "{again:?}");
    assert_eq!((counts(&desk).reused_answers, counts(&desk).loaded, counts(&desk).cost), (50, 50, 0));
    desk.write("p.toml", reusing.replace("Six themes", "Six names"));
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 100));
    desk.write("p.toml", &reusing);
    desk.write("rows.jsonl", lines(0..60));
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 110), "only the new rows are asked");
    assert_eq!(counts(&desk).reused_answers, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_answers_any_more_are_planned_as_calls_paid_once_more_and_kept() {
    let (desk, server) = Desk::asking(Script::default()).await;
    desk.write("rows.jsonl", lines(0..5));
    desk.write("p.toml", THEMES.replace("[target]", "[run]\nreuse_answers = true\n[target]"));
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 5));
    let planned = async || {
        let plan = desk.tasuki(&["plan", "rows.jsonl", "--pipeline", "p.toml", "--json"]).await;
        let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
        (plan["calls"].as_u64().unwrap(), plan["reused"].as_u64().unwrap())
    };
    assert_eq!(planned().await, (0, 5));
    for folder in std::fs::read_dir(desk.path(".tasuki/state/cache")).unwrap() {
        for kept in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            std::fs::write(kept.unwrap().path(), "spoiled").unwrap();
        }
    }
    assert_eq!(planned().await, (5, 0));
    let again = [RUN, &["--again"]].concat();
    assert_eq!((desk.tasuki(&again).await.code, server.tally().calls()), (Some(0), 10));
    assert_eq!((counts(&desk).reused_answers, counts(&desk).duplicate_prompts), (0, 0));
    assert_eq!((planned().await, desk.tasuki(&again).await.code, server.tally().calls()), ((0, 5), Some(0), 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_prompt_that_is_known_counts_as_reused_in_each_of_its_rows() {
    let (desk, server) = Desk::asking(Script::default()).await;
    let rows =
        |row: u64| format!("{}\n", serde_json::json!({ "id": row.to_string(), "text": format!("tea {}", row % 10) }));
    desk.write("rows.jsonl", (0..300).map(rows).collect::<String>());
    desk.write("p.toml", THEMES.replace("[target]", "[run]\nreuse_answers = true\n[target]"));
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(0), 10));
    assert_eq!(desk.tasuki(&[RUN, &["--again"]].concat()).await.code, Some(0));
    assert_eq!((server.tally().calls(), counts(&desk).reused_answers), (10, 300));
}
