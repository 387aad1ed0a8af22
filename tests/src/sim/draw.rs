//! Worlds drawn by seed: what is dropped, what the model says, what the event service does.

use super::model::{ACTS, CANARY, Storm};
use super::{ByHand, START, Setup, Table};
use crate::memory::Act;
use std::fmt::Write;
use std::time::Duration;
use tasuki_relay::clock::Chance;
use tasuki_relay::limits::PART_BYTES_MAX;

/// Rows of a shard in every world.
pub const ROWS_PER_SHARD: u64 = 5;

/// The pipeline of every world.
pub fn pipeline(only_changed: bool) -> String {
    format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ act }}}}\"\n[answer.theme]\ntype = \"string\"\n\
         [run]\nrows_per_shard = {ROWS_PER_SHARD}\nonly_changed = {only_changed}\n[target]\ntable = \"t\"\n"
    )
}

/// A file of `rows` rows, as JSON lines: most of them plain, some with a bad key, a text that is none, or a prompt that another
/// row has too.
pub fn file(rows: u64, chance: &Chance) -> String {
    let mut text = String::new();
    for row in 0..rows {
        let key = if chance.below(20) == 0 { row / 2 } else { row };
        let act = if chance.below(3) == 0 { ACTS[chance.below(ACTS.len() as u64) as usize] } else { "answer" };
        let about = if chance.below(10) == 0 { 0 } else { row };
        match chance.below(30) {
            0 => writeln!(text, "{{\"id\": {CANARY}"),
            1 => writeln!(text, "{{\"id\": null, \"act\": \"{act}-{about} {CANARY}\"}}"),
            2 => writeln!(text, "{{\"id\": \"k{key}\"}}"),
            _ => writeln!(text, "{{\"id\": \"k{key}\", \"act\": \"{act}-{about} {CANARY}\"}}"),
        }
        .expect("memory takes text");
    }
    text
}

/// A file of rows that the model answers at once, each with its own prompt.
pub fn plain_file(rows: u64) -> String {
    (0..rows).map(|row| format!("{{\"id\": \"k{row}\", \"act\": \"answer-{row} {CANARY}\"}}\n")).collect()
}

/// The world of a seed.
pub fn setup(seed: u64) -> Setup {
    let chance = Chance::seeded(seed ^ 0x7461_7375_6b69);
    let one_in = |n: u64| chance.below(n) == 0;
    let within = |seconds: u64| chance.up_to(Duration::from_secs(seconds));
    let mut files = vec![(Duration::ZERO, "p/a.jsonl".to_owned(), file(chance.below(35), &chance))];
    if one_in(4) {
        files.push((within(400), "p/b.jsonl".to_owned(), file(chance.below(25), &chance)));
    }
    if one_in(8) {
        files.push((within(30), "p/a.jsonl".to_owned(), file(chance.below(20), &chance)));
    }
    if one_in(15) {
        files.push((within(60), "p/refused.csv".to_owned(), "id,other\n1,2\n".to_owned()));
    }
    let table = one_in(4).then(|| {
        files[0] = (Duration::ZERO, "p/a.run.toml".to_owned(), "[source]\ntable = \"p.d.t\"\n".to_owned());
        table(&chance)
    });
    files.sort_by_key(|(at, ..)| *at);
    let storm = one_in(6).then(|| {
        let from = START + within(20);
        Storm { from, to: from + within(1_800), systemic: one_in(2) }
    });
    let by_hand = if one_in(4) { parkings(&chance) } else { Vec::new() };
    Setup {
        seed,
        by_hand,
        table,
        pipeline: budgeted(seed, reusing(seed, pipeline(one_in(4)))),
        files,
        sweeps: true,
        dropped_percent: if one_in(8) { 100 } else { chance.below(3) * 10 },
        doubled_percent: chance.below(4) * 10,
        late_percent: chance.below(3) * 10,
        cancel_at: one_in(7).then(|| within(90)),
        storm,
        skewed: one_in(20),
        ..Setup::default()
    }
}

/// In every third world what was answered before is taken from the cache. Drawn apart, so that the rest of a world stays as it was.
fn reusing(seed: u64, pipeline: String) -> String {
    match Chance::seeded(seed ^ 0x6361_6368_6500).below(3) {
        0 => pipeline.replace("only_changed", "reuse_answers = true\nonly_changed"),
        _ => pipeline,
    }
}

/// Every third world has a budget that is never reached: its object meets the faults of claims. Drawn apart, likewise.
fn budgeted(seed: u64, pipeline: String) -> String {
    const MODEL: &str =
        "[model]\nmax_output_tokens = 1000\nprice = { input = 1, output = 2 }\n[run]\nmax_cost_usd = 1000\n";
    match Chance::seeded(seed ^ 0x6275_6467_6574).below(3) {
        0 => pipeline.replace("[run]\n", MODEL),
        _ => pipeline,
    }
}

/// A table whose snapshot may have to be cut again, may not fit into memory at once, and whose first jobs may fail.
fn table(chance: &Chance) -> Table {
    let parts = 1 + chance.below(6) as u32;
    let jobs = (0..chance.below(3)).map(|_| match chance.below(4) {
        0 => Act::Fails("backendError"),
        1 => Act::Lost,
        _ => Act::Takes(chance.up_to(Duration::from_secs(100))),
    });
    Table {
        rows: file(chance.below(35), chance),
        parts,
        bytes: (chance.below(3) == 0).then(|| u64::from(parts) * PART_BYTES_MAX + 1),
        fit: 1 + chance.below(12),
        jobs: jobs.collect(),
    }
}

/// A run that is parked and resumed, once or twice, by people who may look at one parking and resume during the next. The last
/// of them sees what he resumes.
fn parkings(chance: &Chance) -> Vec<(Duration, ByHand)> {
    let mut hands = Vec::new();
    let mut at = Duration::ZERO;
    for _ in 0..=chance.below(2) {
        for hand in [ByHand::Parks, ByHand::Looks, ByHand::Resumes] {
            at += chance.up_to(Duration::from_secs(if chance.below(2) == 0 { 5 } else { 900 }));
            hands.push((at, hand));
        }
        if chance.below(2) == 0 {
            hands.extend([(at, ByHand::Parks), (at + Duration::from_secs(40), ByHand::Resumes)]);
            at += Duration::from_secs(40);
        }
    }
    hands.extend([(at, ByHand::Looks), (at, ByHand::Resumes)]);
    hands
}

/// The rows of a file that reach the model and are charged: usable ones, with the first of each key, that it does not refuse.
pub fn rows_to_ask(text: &str) -> u64 {
    let mut keys = std::collections::BTreeSet::new();
    let rows = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let first = rows.filter(|row| row["id"].as_str().is_some_and(|key| keys.insert(key.to_owned())));
    let usable = first.filter(|row| row["act"].as_str().is_some_and(|act| !act.starts_with("invalid")));
    usable.count() as u64
}
