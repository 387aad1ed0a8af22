//! What a plan says, held against what the run then takes by the server's own count.

use super::*;
use serde_json::json;

const PLAN: &[&str] = &["plan", "rows.jsonl", "--pipeline", "p.toml", "--json"];
/// Dollars of a token of the default model, in and out: prices.toml.
const PRICES: (f64, f64) = (0.30 / 1e6, 2.50 / 1e6);
/// Half of the answers take more; the logarithm's deviation; the pipeline's limit.
const ANSWERS: (f64, f64, u64) = (90.0, 0.6, 512);

/// Six themes, a system instruction of a page; `run` is what stands under `[run]`.
fn themes(run: &str) -> String {
    let system = "You name themes for a catalogue of products and places, in the language of the text. ".repeat(12);
    format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\nsystem = \"{system}\"\ntemplate = \"Text: {{{{ text }}}}\"\n[answer.themes]\n\
         type = \"string\"\ncount = 6\nmax_chars = 40\n[model]\nmax_output_tokens = 512\n[target]\ntable = \"themes\"\n[run]\n{run}\n"
    )
}

/// Texts of 10 to 200 words, a fifth of them Japanese.
fn texts(rows: u64, seed: u64) -> String {
    let text = |row: u64| {
        let drawn = (row + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (seed << 17)) >> 33;
        let word = if drawn.is_multiple_of(5) { "備前焼の急須。" } else { "clay teapot " };
        format!("{seed} {row} {}", word.repeat(10 + (drawn / 5 % 190) as usize))
    };
    (0..rows).map(|row| format!("{}\n", json!({ "id": row.to_string(), "text": text(row) }))).collect()
}

async fn log_normal(rows: u64, seed: u64, run: &str) -> (Desk, ModelServer) {
    let (median, sigma, most) = ANSWERS;
    let (desk, server) = Desk::asking(Script::log_normal(median, sigma, most, seed)).await;
    desk.write("rows.jsonl", texts(rows, seed));
    desk.write("p.toml", themes(run));
    (desk, server)
}

async fn planned(desk: &Desk, more: &[&str]) -> Value {
    let done = desk.tasuki(&[PLAN, more].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn within(span: &Value, truth: f64) -> bool {
    (number(&span["least"])..=number(&span["most"])).contains(&truth)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sample_nothing_is_asked_the_prompts_are_near_and_the_answers_within_their_range() {
    let (desk, server) = log_normal(1_000, 7, "").await;
    let plan = planned(&desk, &[]).await;
    assert_eq!((server.tally().calls(), server.tally().counted()), (0, 64), "no generation call");
    assert!(!desk.path(".tasuki").exists(), "and nothing is left behind");
    assert_eq!(
        (&plan["calls"], &plan["tokens_from"], &plan["sample"]),
        (&json!(1_000), &json!("countTokens"), &Value::Null)
    );
    assert_eq!(plan, planned(&desk, &[]).await, "the same file gives the same plan");
    assert_eq!(desk.run().await.code, Some(0));
    let (input, output) = server.tally().tokens();
    let off = number(&plan["input_tokens"]["likely"]) / input as f64 - 1.0;
    assert!(off.abs() < 0.10, "input is {off:+.3} off: {plan}");
    assert!(within(&plan["output_tokens"], output as f64), "{output}: {plan}");
    let cost = input as f64 * PRICES.0 + output as f64 * PRICES.1;
    assert!(within(&plan["cost_usd"]["standard"], cost), "{cost}: {plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_prompts_are_guessed_and_the_guess_holds() {
    let (desk, server) = log_normal(300, 3, "").await;
    let keyless = Desk { dir: desk.dir, model: None, chat: None };
    let plan = planned(&keyless, &[]).await;
    assert_eq!((&plan["tokens_from"], server.tally().counted()), (&json!("guess"), 0));
    let refused = keyless.tasuki(&[PLAN, &["--sample", "10"]].concat()).await;
    assert!(refused.code == Some(1) && refused.err.contains("set GEMINI_API_KEY"), "{refused:?}");
    let desk = Desk { dir: keyless.dir, model: Some((server.base(), "a-key".to_owned())), chat: None };
    assert_eq!(desk.run().await.code, Some(0));
    let (input, output) = server.tally().tokens();
    assert!(within(&plan["input_tokens"], input as f64) && within(&plan["output_tokens"], output as f64), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_sample_of_100_the_cost_is_within_a_tenth_of_what_the_run_then_costs() {
    for seed in 1..=5 {
        let (desk, server) = log_normal(3_000, seed, "").await;
        let plan = planned(&desk, &["--sample", "100"]).await;
        assert_eq!(server.tally().calls(), 100);
        let before = server.tally().tokens();
        let cost = |(input, output): (u64, u64)| input as f64 * PRICES.0 + output as f64 * PRICES.1;
        let paid = number(&plan["sample"]["paid_usd"]);
        assert!((paid - cost(before)).abs() < 1e-9, "what the sample cost is told: {paid}");
        assert_eq!(desk.run().await.code, Some(0));
        let after = server.tally().tokens();
        let truth = cost((after.0 - before.0, after.1 - before.1));
        let told = &plan["cost_usd"]["standard"];
        let off = number(&told["likely"]) / truth - 1.0;
        eprintln!("seed {seed}: {truth:.4} dollars, the plan was {:+.1} % off: {told}", 100.0 * off);
        assert!(off.abs() < 0.10, "seed {seed}: {off:+.3} off: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_samples_answers_are_kept_and_the_same_sample_is_paid_once() {
    for kept in ["reuse_answers = true", "only_changed = true"] {
        let (desk, server) = log_normal(100, 5, kept).await;
        let done = desk.tasuki(&["plan", "rows.jsonl", "--pipeline", "p.toml", "--sample", "20"]).await;
        assert!(done.code == Some(0) && done.err.contains("20 rows are asked now, and paid for"), "{done:?}");
        assert!(done.out.contains("a run does not ask them again"), "{done:?}");
        let again = desk.tasuki(&[PLAN, &["--sample", "20"]].concat()).await;
        assert!(again.err.contains("nothing more is paid"), "{again:?}");
        let plan: Value = serde_json::from_str(&again.out).unwrap();
        assert_eq!((&plan["calls"], server.tally().calls()), (&json!(80), 20), "{kept}: {plan}");
        assert_eq!(plan["sample"]["answered"], json!(20));
        let status = desk.newest().await;
        assert_eq!((&status["loaded"], &status["run"]), (&json!(20), &plan["sample"]["run"]), "it is a run of its own");
        assert_eq!(desk.run().await.code, Some(0));
        assert_eq!(server.tally().calls(), 100, "{kept}: the run asks the others");
        assert_eq!(planned(&desk, &[]).await["calls"], json!(0), "{kept}: and then there are none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_asked_is_no_call() {
    let (desk, server) = Desk::asking(Script::default()).await;
    let rows = [
        r#"{"id": "1", "text": "tea"}"#,
        r#"{"id": "2", "text": "tea"}"#,
        r#"{"id": "2", "text": "wool"}"#,
        r#"{"id": "3"}"#,
        r#"{"text": "no key"}"#,
        "{",
        r#"{"id": "4", "text": "wool"}"#,
    ];
    desk.write("rows.jsonl", rows.join("\n"));
    desk.write("p.toml", pipeline("max_in_flight = 10"));
    let plan = planned(&desk, &[]).await;
    let failures = json!({ "bad_json": 1, "duplicate_key": 1, "missing_column": 1, "missing_key": 1 });
    assert_eq!((&plan["rows"], &plan["bad"], &plan["failures"]), (&json!(7), &json!(4), &failures));
    assert_eq!((&plan["repeated"], &plan["calls"]), (&json!(1), &json!(2)));
    assert_eq!((desk.run().await.code, server.tally().calls()), (Some(2), 2), "and the run asks as many");

    desk.write("p.toml", pipeline("").replace("{{ text }}", "{{ texts }}"));
    let refused = desk.tasuki(PLAN).await;
    assert!(refused.code == Some(1) && refused.err.contains("no row has the column \"texts\""), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_price_is_unknown_and_a_pipelines_own_price_counts() {
    let desk = Desk::new().with_rows(10, "");
    let own =
        |price: &str| pipeline("").replace("[target]", &format!("[model]\nname = \"gemini-9-tea\"\n{price}\n[target]"));
    desk.write("p.toml", own("max_output_tokens = 100"));
    let plan = planned(&desk, &[]).await;
    assert_eq!(plan["cost_usd"], json!({ "standard": null, "flex": null, "priority": null }), "{plan}");
    let told = desk.tasuki(&["plan", "rows.jsonl", "--pipeline", "p.toml"]).await;
    assert!(
        ["unknown  (standard", "unknown  (flex)", "unknown  (priority)"].iter().all(|tier| told.out.contains(tier)),
        "{told:?}"
    );
    desk.write("p.toml", own("max_output_tokens = 100\nprice = { input = 1, output = 10 }"));
    let plan = planned(&desk, &[]).await;
    let told = |plan: &Value, what: &str| plan["assumptions"].to_string().contains(what);
    assert!(!told(&plan, "max_cost_usd"), "{plan}");
    let most = number(&plan["input_tokens"]["most"]) / 1e6 + number(&plan["output_tokens"]["most"]) / 1e5;
    assert!((number(&plan["cost_usd"]["standard"]["most"]) - most).abs() < 1e-9, "{plan}");
    let price = "max_output_tokens = 100\nprice = { input = 1, output = 10 }";
    for (cap, what) in
        [("0.0001", "would be parked on its way"), ("0.005", "may be too little"), ("5", "$5.00 is enough")]
    {
        desk.write("p.toml", own(price).replace("[run]", &format!("[run]\nmax_cost_usd = {cap}")));
        let plan = planned(&desk, &[]).await;
        assert!(told(&plan, what), "{cap}: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_count_costs_the_plan_its_precision_alone() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let desk = Desk { model: Some((format!("http://{nobody}"), "a-key".to_owned())), ..Desk::new().with_rows(10, "") };
    let plan = planned(&desk, &[]).await;
    assert_eq!(plan["tokens_from"], json!("guess"));
    assert!(plan["assumptions"][0].as_str().unwrap().contains("counted none: "), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_more_rows_than_there_are_is_the_sample_of_all() {
    for kept in ["", "reuse_answers = true"] {
        let (desk, server) = log_normal(30, 5, kept).await;
        planned(&desk, &["--sample", "100"]).await;
        assert_eq!(server.tally().calls(), 30);
        let again = desk.tasuki(&[PLAN, &["--sample", "200"]].concat()).await;
        assert!(again.code == Some(0) && server.tally().calls() == 30, "{kept}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_no_more_than_is_so() {
    let (desk, _server) = log_normal(1, 5, "reuse_answers = true").await;
    let done = desk.tasuki(&["plan", "rows.jsonl", "--pipeline", "p.toml", "--sample", "5"]).await;
    assert!(done.err.contains("1 row is asked now"), "{done:?}");
    let known = desk.tasuki(&["plan", "rows.jsonl", "--pipeline", "p.toml"]).await;
    assert!(known.out.contains("there is none to count") && !known.out.contains("with a key"), "{known:?}");
    desk.write("rows.jsonl", texts(30, 6));
    let few = desk.tasuki(&["plan", "rows.jsonl", "--pipeline", "p.toml", "--sample", "1"]).await;
    assert!(
        few.out.contains("± unknown") && few.out.contains("too few to tell") && !few.out.contains("95 of 100"),
        "{few:?}"
    );
}
