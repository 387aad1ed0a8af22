//! What infra/ reads off the logs is what the services write: a field or a word that is renamed breaks a test, not a dashboard.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tasuki_tests::lines::{camel, of_deployed_legs, relay};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is in the braces of `name = {` of monitoring.tf, line by line: `key = value`.
fn map_of(name: &str) -> Vec<(String, String)> {
    let text = read(&root().join("infra/monitoring.tf"));
    let (_, rest) = text.split_once(&format!("\n  {name} = {{\n")).unwrap_or_else(|| panic!("no map {name}"));
    let (inside, _) = rest.split_once("\n  }\n").expect("it ends");
    let entries = inside.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    let pairs = entries.filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

/// All identifiers that follow `mark`.
fn words_after(text: &str, mark: &str) -> BTreeSet<String> {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words = text.split(mark).skip(1).map(|rest| rest.split(ends).next().unwrap_or_default());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Lines of runs with failed rows, refused runs, faults.
fn lines() -> Vec<Value> {
    let text = of_deployed_legs(|| relay(0..40));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_field_that_a_metric_or_an_alert_reads_is_written() {
    let lines = lines();
    let numbers = map_of("numbers");
    assert_eq!(numbers.len(), 3, "a leg each: {numbers:?}");
    for (leg, fields) in numbers {
        let of_leg: Vec<&Value> = lines.iter().filter(|line| line["leg"] == leg.as_str()).collect();
        assert!(!of_leg.is_empty(), "the {leg} tells nothing");
        let fields: Vec<String> = serde_json::from_str(&fields).expect("a list of names");
        for line in of_leg {
            assert!(line["pipeline"].is_string(), "{line}");
            for field in &fields {
                assert!(line[camel(field)].is_u64(), "the {leg} does not tell {field}: {line}");
            }
        }
    }
    let reasons: Vec<&Value> = lines.iter().filter(|line| line["failedRows"].is_u64()).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|line| line["reason"].is_string()), "{reasons:?}");

    let terraform = fs::read_dir(root().join("infra")).expect("infra").filter_map(|entry| Some(entry.ok()?.path()));
    let terraform = terraform.filter(|path| path.extension().is_some_and(|kind| kind == "tf"));
    let asked: BTreeSet<String> = terraform.flat_map(|path| words_after(&read(&path), "jsonPayload.")).collect();
    let written: BTreeSet<String> =
        lines.iter().filter_map(Value::as_object).flat_map(|line| line.keys().cloned()).collect();
    assert!(asked.contains("alert") && asked.is_subset(&written), "{asked:?} of {written:?}");
}

#[test]
fn every_failed_row_is_counted_under_one_reason() {
    let lines = lines();
    let sum = |field: &str| lines.iter().filter_map(|line| line[field].as_u64()).sum::<u64>();
    let failed = lines.iter().filter(|line| line["leg"] == "loader").filter_map(|line| line["failed"].as_u64());
    assert_eq!(sum("failedRows"), failed.sum::<u64>());
}

#[test]
fn every_word_of_alarm_has_an_alert_that_says_what_to_do() {
    let sources = ["functions", "shared"].map(|folder| root().join(folder)).into_iter().flat_map(rust_sources);
    let logged: BTreeSet<String> = sources.flat_map(|path| words_after(&read(&path), "alert = \"")).collect();
    let watched: BTreeSet<String> = map_of("log_alerts").into_iter().map(|(word, _)| word).collect();
    assert_eq!(logged, watched);
    let told = read(&root().join("shared/google/src/telemetry/mod.rs"));
    assert!(
        logged.iter().all(|word| told.contains(&format!("`{word}`"))),
        "the table of fields lacks one of {logged:?}"
    );
}

fn rust_sources(folder: PathBuf) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(&folder).expect("a folder of the repository").filter_map(|entry| Some(entry.ok()?.path()));
    let found = entries.flat_map(|path| match path.is_dir() {
        true => rust_sources(path),
        false => vec![path],
    });
    found.filter(|path| path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs")).collect()
}
