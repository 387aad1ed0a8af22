//! What a run cost, as the commands tell it.

use super::*;
use serde_json::json;

const THEMES: &str = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"Six themes of {{ text }}\"\n[answer.themes]\n\
    type = \"string\"\ncount = 6\ndistinct = true\n[target]\ntable = \"themes\"\n";
const CLASSES: [&str; 4] = ["answers", "retries", "salvage", "waste"];

fn row_of(call: &CallInfo) -> u64 {
    let (_, rest) = call.prompt.split_once("row ").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

/// Forty rows: two are blocked, of two answers nothing is kept, of eight a part.
async fn desk() -> (Desk, ModelServer) {
    let (desk, server) = Desk::asking(Script::acting(|call| match row_of(call) {
        row if row % 20 == 7 => Act::Blocked("SAFETY".to_owned()),
        row if row % 20 == 5 && call.nth == 1 => Act::Answer("I would rather not".to_owned()),
        row if row % 5 == 1 && !call.prompt.contains("there already") => {
            Act::Answer(json!({"themes": ["a", "b", "c", "d"]}).to_string())
        }
        _ => Act::Auto,
    }))
    .await;
    desk.write("rows.jsonl", lines(0..40));
    desk.write("p.toml", THEMES);
    (desk, server)
}

async fn cost_json(desk: &Desk) -> Value {
    let done = desk.tasuki(&["cost", "--json"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

fn usd(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no sum"))
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_tells_each_class_and_they_come_to_what_the_server_counted() {
    let (desk, server) = desk().await;
    let done = desk.run().await;
    assert_eq!((done.code, server.tally().calls()), (Some(2), 50), "{done:?}");
    let cost = cost_json(&desk).await;
    assert_eq!(CLASSES.map(|class| cost["bill"][class]["calls"].as_u64().unwrap()), [38, 2, 8, 2], "{cost}");
    let (prompt, output) = server.tally().tokens();
    let sum = |field: &str| CLASSES.iter().map(|class| cost["bill"][class][field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("prompt_tokens"), sum("output_tokens")), (prompt, output));
    // The default model's list price: $0.30 and $2.50 a million.
    let paid = (prompt as f64 * 0.30 + output as f64 * 2.50) / 1e6;
    let classes: f64 = CLASSES.iter().map(|class| usd(&cost["bill"][class]["cost_usd"])).sum();
    for told in
        [usd(&cost["cost_usd"]), usd(&cost["total"]["cost_usd"]), classes, usd(&cost["cost_per_answer_usd"]) * 38.0]
    {
        assert!((told - paid).abs() < 1e-12, "{paid}: {cost}");
    }
    assert_eq!((&cost["cost_basis"], &cost["prices"][0]["basis"]), (&json!("calls"), &json!("list")));
    let status = desk.newest().await;
    assert_eq!((&status["bill"], &status["cost_usd"]), (&cost["bill"], &cost["cost_usd"]));

    let text = desk.tasuki(&["cost"]).await.out;
    for told in ["retries", "salvage", "waste", "total", "per answer", "gemini-3.5-flash-lite, standard: $0.30 in"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    for told in [&done.out, &desk.tasuki(&["status", status["run"].as_str().unwrap()]).await.out] {
        assert!(told.contains("retries $") && told.contains("waste $"), "{told}");
    }
    assert!(done.out.contains("see tasuki cost r"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_run_has_paid_is_told_to_the_token_before_any_of_it_is_loaded_and_after() {
    let (desk, server) = Desk::asking(
        Script::acting(|call| match row_of(call) {
            row if row % 20 == 7 => Act::Blocked("SAFETY".to_owned()),
            row if row % 20 == 5 && call.nth == 1 => Act::Answer("I would rather not".to_owned()),
            _ => Act::Auto,
        })
        .latency(Duration::from_millis(100)),
    )
    .await;
    desk.write("rows.jsonl", lines(0..400));
    desk.write("p.toml", THEMES.replace("[target]", "[run]\nrows_per_shard = 100\nmax_in_flight = 10\n[target]"));
    // Within the first shard, and later: some are loaded, one has checkpoints.
    for calls in [50, 250] {
        let run = desk.start(RUN);
        until_called(&server, calls).await;
        signal(&run, "-INT");
        let stopped = ended(run).await;
        assert_eq!(stopped.code, Some(1), "{stopped:?}");
        let cost = cost_json(&desk).await;
        assert_eq!((told_tokens(&cost["total"]), calls_of(&cost)), (server.tally().tokens(), server.tally().calls()));
        assert_eq!(cost["cost_usd"], Value::Null, "it may still grow");
        let not_loaded = cost["not_loaded"]["calls"].as_u64().unwrap();
        assert_eq!(not_loaded == server.tally().calls(), calls == 50, "{cost}");
        assert!(not_loaded > 0, "{cost}");
        let status = desk.newest().await;
        assert_eq!((&status["bill"], &status["paid_calls"]), (&cost["bill"], &cost["total"]["calls"]));
        let text = desk.tasuki(&["cost"]).await.out;
        assert!(text.contains("calls in flight") && text.contains(" calls, not loaded yet"), "{text}");
    }
    // An answers object that is not loaded counts in place of its shard's checkpoints, which stay.
    let whole = cost_json(&desk).await;
    let store = rusqlite::Connection::open(desk.path(".tasuki/tasuki.db")).unwrap();
    assert!(store.execute("DELETE FROM Ledger", []).unwrap() > 0);
    let cost = cost_json(&desk).await;
    assert_eq!(cost["not_loaded"], cost["total"]);
    assert_eq!((&cost["total"], &cost["bill"]), (&whole["total"], &whole["bill"]), "{cost}");
}

fn told_tokens(bill: &Value) -> (u64, u64) {
    (bill["prompt_tokens"].as_u64().unwrap(), bill["output_tokens"].as_u64().unwrap())
}

fn calls_of(cost: &Value) -> u64 {
    cost["total"]["calls"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cost_that_nobody_knows_is_told_as_unknown_and_takes_no_cap() {
    let (desk, server) = Desk::asking(Script::default()).await;
    desk.write("rows.jsonl", lines(0..10));
    let own = "[model]\nname = \"own\"\nmax_output_tokens = 99\n";
    desk.write("p.toml", THEMES.replace("[target]", &format!("{own}[run]\nmax_cost_usd = 5\n[target]")));
    let refused = desk.run().await;
    assert_eq!((refused.code, server.tally().calls()), (Some(1), 0), "{refused:?}");
    assert!(refused.err.contains("write [model.price] for own, or remove max_cost_usd"), "{refused:?}");

    desk.write("p.toml", THEMES.replace("[target]", &format!("{own}[target]")));
    let done = desk.run().await;
    assert!(done.code == Some(0) && done.out.contains("unknown  10 calls have no known price"), "{done:?}");
    let cost = cost_json(&desk).await;
    let unknown = [
        &cost["cost_usd"],
        &cost["cost_per_answer_usd"],
        &cost["bill"]["answers"]["cost_usd"],
        &cost["prices"][0]["input"],
    ];
    assert_eq!((unknown, &cost["unpriced_calls"]), ([&Value::Null; 4], &json!(10)), "{cost}");
    assert_eq!(desk.newest().await["cost_usd"], Value::Null);
    let text = desk.tasuki(&["cost"]).await.out;
    assert!(text.contains("unknown, it is not in prices.toml") && !text.contains("per answer"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_costs_nothing_and_says_so() {
    let desk = Desk::new().with_rows(5, "");
    assert_eq!(desk.run().await.code, Some(0));
    let cost = cost_json(&desk).await;
    assert_eq!((usd(&cost["cost_usd"]), &cost["cost_basis"], &cost["prices"]), (0.0, &json!("stand_in"), &json!([])));
    let text = desk.tasuki(&["cost"]).await.out;
    assert!(text.contains("stand-in model") && text.contains("cost nothing"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_an_older_version_wrote_is_told_at_list_price() {
    let (desk, server) = desk().await;
    assert_eq!(desk.run().await.code, Some(2));
    let store = rusqlite::Connection::open(desk.path(".tasuki/tasuki.db")).unwrap();
    let columns = tasuki_relay::record::Counts::COLUMNS.into_iter();
    let unknown_then = columns.skip_while(|column| *column != "cost").map(|column| format!("{column} = 0"));
    store.execute(&format!("UPDATE Counters SET {}", unknown_then.collect::<Vec<_>>().join(", ")), []).unwrap();
    let cost = cost_json(&desk).await;
    let (prompt, output) = server.tally().tokens();
    let paid = (prompt as f64 * 0.30 + output as f64 * 2.50) / 1e6;
    assert!((usd(&cost["cost_usd"]) - paid).abs() < 1e-12, "{cost}");
    assert_eq!((&cost["cost_basis"], &cost["bill"]), (&json!("list_price"), &Value::Null));
    let text = desk.tasuki(&["cost"]).await.out;
    assert!(text.contains("an older version") && text.contains("total") && !text.contains("salvage"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_cache_are_counted_and_cost_nothing() {
    let (desk, _server) = Desk::asking(Script::default()).await;
    desk.write("rows.jsonl", lines(0..30));
    desk.write("p.toml", THEMES.replace("[target]", "[run]\nreuse_answers = true\n[target]"));
    assert_eq!(desk.run().await.code, Some(0));
    let again = desk.tasuki(&[RUN, &["--again"]].concat()).await;
    assert!(again.out.contains("reused") && again.out.contains("from the cache"), "{again:?}");
    let cost = cost_json(&desk).await;
    assert_eq!((usd(&cost["cost_usd"]), &cost["reused_answers"]), (0.0, &json!(30)), "{cost}");
    assert!(desk.tasuki(&["cost"]).await.out.contains("30 answers came from the cache and cost nothing"));
}
