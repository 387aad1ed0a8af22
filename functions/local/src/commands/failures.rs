//! `tasuki failures`

use super::Exit;
use super::results::TABLE_ROWS;
use super::runs::{self, Run};
use crate::cli::{self, Format};
use crate::show;
use crate::site::Site;
use anyhow::Result;
use std::io::{BufWriter, Write, stdout};
use std::ops::ControlFlow;
use tasuki_relay::books::FailureRow;

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

pub(crate) async fn failures(site: &dyn Site, args: cli::Rows) -> Result<Exit> {
    let run = runs::pick(site, args.run.as_deref()).await?;
    match args.format {
        Format::Table => table(site, &run, args.limit.unwrap_or(TABLE_ROWS)).await?,
        Format::Jsonl | Format::Csv => stream(site, &run, args.format, args.limit.unwrap_or(u64::MAX)).await?,
    }
    Ok(Exit::Done)
}

async fn table(site: &dyn Site, run: &Run, limit: u64) -> Result<()> {
    let mut failed = Vec::new();
    let mut each = |row: FailureRow| {
        failed.push(vec![key(&row), row.ordinal.to_string(), row.reason, row.message]);
        ControlFlow::Continue(())
    };
    site.books().failures(&run.run, limit, &mut each).await?;
    let (mut out, count) = (stdout().lock(), run.counts().failed);
    let rows = show::rows(count, "");
    writeln!(out, "run {} of pipeline {}, {}: {rows} failed", run.run, run.pipeline, run.state)?;
    if let Some(refused) = &run.refused {
        writeln!(out, "the run was refused: {refused}")?;
    }
    let shown = failed.len() as u64;
    if shown == 0 {
        return Ok(());
    }
    let head = ["key", "ordinal", "reason", "message"].map(str::to_owned);
    writeln!(out, "{}", show::whole_table(head.into(), failed))?;
    if count > shown {
        writeln!(out, "the first {shown}: more with --limit")?;
    }
    let reasons = site.books().failure_reasons(&run.run).await?;
    match reasons.iter().all(|(reason, _)| NEVER_ASKED.contains(&reason.as_str())) {
        true => writeln!(out, "none of them can be asked: mend them in the file, and drop that")?,
        false => {
            let again = site.line(&["retry", run.short()]);
            writeln!(out, "ask again about those that can be asked: {again}")?;
        }
    }
    Ok(())
}

/// For programs: row by row, since there may be more than fit in memory.
async fn stream(site: &dyn Site, run: &Run, format: Format, limit: u64) -> Result<()> {
    let (mut out, mut csv) = match format {
        Format::Csv => (None, Some(csv::Writer::from_writer(stdout().lock()))),
        Format::Table | Format::Jsonl => (Some(BufWriter::new(stdout().lock())), None),
    };
    if let Some(csv) = &mut csv {
        csv.write_record(["key", "ordinal", "reason", "message", "attempts"])?;
    }
    let mut written = Ok(());
    let mut each = |row: FailureRow| {
        let (ordinal, attempts) = (row.ordinal.to_string(), row.attempts.to_string());
        written = match (&mut out, &mut csv) {
            (Some(out), _) => show::json_line(out, &show::failure_json(&row)),
            (None, Some(csv)) => {
                csv.write_record([&key(&row), &ordinal, &row.reason, &row.message, &attempts]).map_err(Into::into)
            }
            (None, None) => Ok(()),
        };
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    site.books().failures(&run.run, limit, &mut each).await?;
    written?;
    out.as_mut().map_or(Ok(()), Write::flush)?;
    Ok(csv.as_mut().map_or(Ok(()), csv::Writer::flush)?)
}

fn key(row: &FailureRow) -> String {
    row.key.as_ref().map(ToString::to_string).unwrap_or_default()
}
