//! I12: no text of a row, prompt or answer reaches a log.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tasuki_google::telemetry::{FIELDS, Settings, Traceparent, subscriber};
use tasuki_relay::clock::Chance;
use tasuki_tests::sim::faults::Faults;
use tasuki_tests::sim::model::CANARY;
use tasuki_tests::sim::{self, draw};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;
    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// Runs of the relay in memory, without and with a fault, whose rows, prompts and answers hold the canary.
fn relay(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let chance = Chance::seeded(seed);
        let calm = Arc::new(Faults::default());
        sim::run(draw::setup(seed), &calm).expect("a calm world holds");
        let faults = calm.and_one_more(&chance).unwrap_or_default();
        sim::run(draw::setup(seed), &Arc::new(faults)).expect("a world with a fault holds");
    }
}

fn text_of(lines: &Lines) -> String {
    let text = String::from_utf8(lines.0.lock().expect("nobody panics with it").clone()).expect("logs are text");
    assert!(!text.contains(CANARY), "{}", text.lines().find(|line| line.contains(CANARY)).unwrap_or_default());
    text
}

#[test]
fn no_row_text_reaches_a_log() {
    let lines = Lines::default();
    let everything =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
    tracing::subscriber::with_default(everything, || relay(0..60));
    let text = text_of(&lines);
    assert!(text.contains("generated shard") && text.contains("loaded shard"), "the legs do log");
}

#[test]
fn no_row_text_reaches_the_lines_of_a_deployed_leg_and_each_leg_tells_all_its_numbers() {
    let lines = Lines::default();
    let (project, filter) = (Some("p".to_owned()), Some("trace".to_owned()));
    let settings = Settings { name: "tasuki-test", project, filter, otlp: None };
    tracing::subscriber::with_default(subscriber(&settings, lines.clone()).unwrap(), || relay(0..20));
    let text = text_of(&lines);
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

/// As Cloud Logging shows a field: `bad_rows` is `badRows`.
fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
}
