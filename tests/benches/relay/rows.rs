//! The file that is asked about: the same in every run of the bench, and no two rows alike.

use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Characters of a description: with its other columns a row has about 300.
const DESCRIPTION: usize = 230;
const WORDS: [&str; 16] = [
    "harbour",
    "quiet",
    "lamp",
    "woven",
    "autumn",
    "staff",
    "copper",
    "linen",
    "battery",
    "ferry",
    "ticket",
    "breeze",
    "茶葉",
    "手作り",
    "夕暮れ",
    "木の器",
];

/// Writes so many rows for the example pipeline, as JSON lines.
pub fn write(folder: &Path, rows: u32) -> Result<PathBuf> {
    let path = folder.join("rows.jsonl");
    let mut file = BufWriter::new(File::create(&path)?);
    let mut chance = fastrand::Rng::with_seed(1);
    for id in 0..rows {
        let mut description = String::with_capacity(DESCRIPTION + 20);
        while description.chars().count() < DESCRIPTION {
            write!(description, "{} ", WORDS[chance.usize(..WORDS.len())])?;
        }
        let row = serde_json::json!({
            "id": format!("p-{id:06}"), "name": format!("Entry {id}"), "category": "things", "description": description,
        });
        writeln!(file, "{row}")?;
    }
    file.flush().context("the rows cannot be written")?;
    Ok(path)
}
