//! `[run] max_cost_usd`: parked at the cap, and resumed with a greater one.

use super::*;

/// Rows that cost about $0.000025 each, at the test server's count of tokens.
fn pipeline(run: &str) -> String {
    format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ text }}}}\"\n[answer.theme]\ntype = \"string\"\n\
         [model]\nmax_output_tokens = 20\nprice = {{ input = 1, output = 2 }}\n[target]\ntable = \"themes\"\n\
         [run]\nrows_per_shard = 20\nmax_in_flight = 4\n{run}\n"
    )
}

async fn desk(run: &str) -> (Desk, ModelServer) {
    let (desk, server) = Desk::asking(Script::default().latency(Duration::from_millis(20))).await;
    desk.write("rows.jsonl", lines(0..200));
    desk.write("p.toml", pipeline(run));
    (desk, server)
}

/// Microdollars by the server's own count.
fn cost(server: &ModelServer) -> u64 {
    let (prompt, output) = server.tally().tokens();
    prompt + 2 * output
}

fn minus(all: (u64, u64), before: (u64, u64)) -> (u64, u64) {
    (all.0 - before.0, all.1 - before.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_spent_its_budget_is_parked_and_a_greater_one_brings_it_to_its_end() {
    let (desk, server) = desk("").await;
    assert_eq!(desk.run().await.code, Some(0));
    let (all, before) = (cost(&server), server.tally().tokens());
    let cap = all / 2;
    desk.write("p.toml", pipeline(&format!("max_cost_usd = {}", cap as f64 / 1e6)));
    let parked = desk.run().await;
    let spent = cost(&server) - all;
    assert!(spent <= cap && 2 * spent >= cap, "{spent} of {cap} microdollars: {parked:?}");
    assert!(parked.code == Some(1) && parked.err.contains("the run is parked: the budget of $0.0"), "{parked:?}");
    let newest = desk.newest().await;
    let run = newest["run"].as_str().unwrap();
    let greater = format!("tasuki resume {} --max-cost N", &run[..9]);
    assert!(newest["state"] == "PARKED" && parked.err.contains(&greater), "{newest} {parked:?}");
    let told: Value = serde_json::from_str(&desk.tasuki(&["cost", run, "--json"]).await.out).unwrap();
    let (tokens, stored) = (server.tally().tokens(), &told["total"]);
    assert_eq!(stored["prompt_tokens"].as_u64().zip(stored["output_tokens"].as_u64()), Some(minus(tokens, before)));
    assert!((told["cost_at_least_usd"].as_f64().unwrap() - spent as f64 / 1e6).abs() < 1e-12, "{told}");
    let status = desk.tasuki(&["status", run]).await;
    assert!(status.out.contains(" is spent ($0.0") && status.out.contains(&greater), "{status:?}");

    let calls = server.tally().calls();
    let refused = desk.tasuki(&["resume", run]).await;
    assert!(refused.code == Some(1) && refused.err.contains("parked again at once: go on with"), "{refused:?}");
    let too_little = desk.tasuki(&["resume", run, "--max-cost", "0.000001"]).await;
    assert!(too_little.code == Some(1) && too_little.err.contains("--max-cost must be more"), "{too_little:?}");
    let word = desk.tasuki(&["resume", run, "--max-cost", "much"]).await;
    assert!(word.code != Some(0) && word.err.contains("an amount in dollars, like 12.5"), "{word:?}");
    assert_eq!((server.tally().calls(), &desk.newest().await["state"]), (calls, &"PARKED".into()));

    let done = desk.tasuki(&["resume", run, "--max-cost", "1", "--json"]).await;
    let told: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &told["state"], &told["loaded"]), (Some(0), &"COMPLETE".into(), &200.into()), "{done:?}");
    assert_eq!(server.tally().calls(), 400, "each row is paid once a run");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_command_held_of_the_budget_is_free_again_when_it_goes_on() {
    // A bit more than all rows cost: it is reached if what was held counts as spent.
    let (desk, server) = desk("max_cost_usd = 0.02").await;
    let mut run = desk.start(RUN);
    until_called(&server, 60).await;
    run.kill().await.unwrap();
    let done = desk.run().await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let ledger = desk.path(&format!(".tasuki/state/claims/{}/budget", desk.newest().await["run"].as_str().unwrap()));
    let ledger: Value = serde_json::from_slice(&fs::read(ledger).unwrap()).unwrap();
    assert_eq!(ledger["slices"], serde_json::json!({}), "{ledger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_budget_takes_none() {
    let (desk, _server) = desk("").await;
    let run = desk.start(RUN);
    until("a run", || desk.path(".tasuki/state/open").read_dir().is_ok_and(|mut open| open.next().is_some())).await;
    let name = desk.newest().await["run"].as_str().unwrap().to_owned();
    desk.write(&format!(".tasuki/state/control/{name}/parked"), "enough\n");
    ended(run).await;
    let resumed = desk.tasuki(&["resume", &name, "--max-cost", "5"]).await;
    assert!(resumed.code == Some(1) && resumed.err.contains("resume it without --max-cost"), "{resumed:?}");
}
