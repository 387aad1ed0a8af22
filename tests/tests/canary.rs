//! I12: no text of a row, prompt or answer reaches a log.

use std::collections::BTreeMap;
use tasuki_google::telemetry::{FIELDS, Traceparent};
use tasuki_tests::lines::{Lines, camel, of_deployed_legs, relay};
use tasuki_tests::sim::model::CANARY;

fn without_canary(text: &str) {
    assert!(!text.contains(CANARY), "{}", text.lines().find(|line| line.contains(CANARY)).unwrap_or_default());
}

#[test]
fn no_row_text_reaches_a_log() {
    let lines = Lines::default();
    let everything =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
    tracing::subscriber::with_default(everything, || relay(0..60));
    let text = lines.text();
    without_canary(&text);
    assert!(text.contains("generated shard") && text.contains("loaded shard"), "the legs do log");
}

#[test]
fn no_row_text_reaches_the_lines_of_a_deployed_leg_and_each_leg_tells_all_its_numbers() {
    let text = of_deployed_legs(|| relay(0..20));
    without_canary(&text);
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(leg) = line["leg"].as_str() else { continue };
        let (_, fields) = FIELDS.iter().find(|(known, _)| *known == leg).expect("a leg of the table");
        for field in *fields {
            assert!(line[camel(field)].is_u64(), "{leg} does not tell {field}: {line}");
        }
        let labels = &line["logging.googleapis.com/labels"];
        let run = labels["run"].as_str().expect("a line says of which run it is");
        assert!(labels["pipeline"].is_string() && (leg == "splitter" || labels["shard"].is_string()), "{line}");
        let trace = format!("projects/p/traces/{}", Traceparent::of_run(run).trace_id());
        assert_eq!(line["logging.googleapis.com/trace"], trace, "{line}");
        *told.entry(leg.to_owned()).or_default() += 1;
    }
    assert_eq!(told.len(), FIELDS.len(), "every leg told something: {told:?}");
}
