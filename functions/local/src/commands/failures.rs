//! `tasuki failures`

use super::results::TABLE_ROWS;
use super::{Exit, line, runs};
use crate::cli::{self, Format};
use crate::home::Home;
use crate::show;
use anyhow::Result;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;

/// Reasons of rows that no prompt can be made of: `retry` leaves them out.
const NEVER_ASKED: [&str; 12] = [
    "bad_json",
    "bad_csv",
    "bad_utf8",
    "repeated_name",
    "too_deep",
    "too_long",
    "too_many_columns",
    "missing_key",
    "null_key",
    "bad_key",
    "duplicate_key",
    "missing_column",
];

pub(crate) async fn failures(dir: &Path, args: cli::Rows) -> Result<Exit> {
    let home = Home::existing(dir)?;
    let run = runs::pick(&home, args.run.as_deref()).await?;
    let in_table = args.format == Format::Table;
    let limit = args.limit.unwrap_or(if in_table { TABLE_ROWS } else { u64::MAX });
    let failed = home.reader().failures(&run.run, limit)?;
    let key = |row: &crate::store::FailureRow| row.key.as_ref().map(ToString::to_string).unwrap_or_default();
    match args.format {
        Format::Table => {
            let mut out = stdout().lock();
            let count = run.counts().failed;
            writeln!(
                out,
                "run {} of pipeline {}, {}: {} failed",
                run.run,
                run.pipeline,
                run.state,
                show::rows(count, "")
            )?;
            if let Some(refused) = &run.refused {
                writeln!(out, "the run was refused: {refused}")?;
            }
            if !failed.is_empty() {
                let head = ["key", "ordinal", "reason", "message"].map(str::to_owned);
                let row = |row: &crate::store::FailureRow| {
                    vec![key(row), row.ordinal.to_string(), row.reason.clone(), row.message.clone()]
                };
                writeln!(out, "{}", show::whole_table(head.into(), failed.iter().map(row)))?;
                if count > failed.len() as u64 {
                    writeln!(out, "the first {}: more with --limit", failed.len())?;
                }
                let reasons = home.reader().failure_reasons(&run.run)?;
                match reasons.iter().all(|(reason, _)| NEVER_ASKED.contains(&reason.as_str())) {
                    true => writeln!(out, "none of them can be asked: mend them in the file, and drop that")?,
                    false => {
                        let again = line(&home.dir, &["retry", run.short()]);
                        writeln!(out, "ask again about those that can be asked: {again}")?;
                    }
                }
            }
        }
        Format::Jsonl => {
            let mut out = BufWriter::new(stdout().lock());
            for row in &failed {
                show::json_line(&mut out, &show::failure_json(row))?;
            }
            out.flush()?;
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(stdout().lock());
            csv.write_record(["key", "ordinal", "reason", "message", "attempts"])?;
            for row in &failed {
                let (ordinal, attempts) = (row.ordinal.to_string(), row.attempts.to_string());
                csv.write_record([&key(row), &ordinal, &row.reason, &row.message, &attempts])?;
            }
            csv.flush()?;
        }
    }
    Ok(Exit::Done)
}
