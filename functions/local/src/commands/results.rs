//! `tasuki results`

use super::Exit;
use super::runs::{self, Run};
use crate::cli::{self, Format};
use crate::show::{self, ResultLine, plain};
use crate::site::Site;
use anyhow::{Result, bail};
use std::io::{BufWriter, Write, stdout};
use std::ops::ControlFlow;
use tasuki_relay::books::ResultRow;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::stand_in::StandIn;

/// Rows of a table: more are for programs.
pub(crate) const TABLE_ROWS: u64 = 50;

pub(crate) async fn results(site: &dyn Site, args: cli::Rows) -> Result<Exit> {
    let (run, pipeline) = match &args.run {
        Some(name) => {
            let run = runs::pick(site, Some(name)).await?;
            let pipeline = runs::pipeline(site, &run.run).await?;
            (run, pipeline)
        }
        None => newest(site).await?,
    };
    let Some(pipeline) = pipeline else {
        bail!(
            "run {} has no answers: {}",
            run.run,
            run.refused.as_deref().unwrap_or("it has no pipeline yet, wait a moment")
        );
    };
    match args.format {
        Format::Table => table(site, &run, &pipeline, args.limit.unwrap_or(TABLE_ROWS)).await?,
        Format::Jsonl | Format::Csv => {
            stream(site, &run, &pipeline, args.format, args.limit.unwrap_or(u64::MAX)).await?;
        }
    }
    Ok(Exit::Done)
}

/// The newest run that can have answers.
async fn newest(site: &dyn Site) -> Result<(Run, Option<Pipeline>)> {
    let mut first = None;
    for run in runs::all(site).await? {
        if run.refused.is_none()
            && let Some(pipeline) = runs::pipeline(site, &run.run).await?
        {
            return Ok((run, Some(pipeline)));
        }
        first.get_or_insert(run);
    }
    match first {
        Some(run) => Ok((run, None)),
        None => bail!("{} holds no run yet", site.name()),
    }
}

/// The key, the answers, the model; of which run is said above.
async fn table(site: &dyn Site, run: &Run, pipeline: &Pipeline, limit: u64) -> Result<()> {
    let head = head(pipeline).chain(["model".to_owned()]).collect();
    let (mut rows, mut stand_in) = (Vec::new(), false);
    let mut each = |row: ResultRow| {
        stand_in |= row.model == StandIn::MODEL;
        let key = std::iter::once(row.key.to_string());
        let values = row.values.iter().map(|(_, value)| plain(value));
        rows.push(key.chain(values).chain([row.model.clone()]).collect::<Vec<_>>());
        ControlFlow::Continue(())
    };
    site.books().results(pipeline, &run.run, limit.saturating_add(1), &mut each).await?;
    let (more, none) = (rows.len() as u64 > limit, rows.is_empty());
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut out = stdout().lock();
    writeln!(out, "run {} of pipeline {}, {}", run.run, run.pipeline, run.state)?;
    writeln!(out, "{}", show::table(head, rows))?;
    if let Some(why) = replaced(run).filter(|_| none && limit > 0) {
        writeln!(out, "{why}")?;
    }
    if more {
        let all = site.line(&["results", run.short(), "--format", "csv"]);
        writeln!(out, "the first {limit}: more with --limit, all with {all}")?;
    }
    if stand_in {
        writeln!(out, "{}", StandIn::note(pipeline.model.provider))?;
    }
    Ok(())
}

/// Why a run that brought answers has none left.
pub(super) fn replaced(run: &Run) -> Option<String> {
    let brought = run.counts().loaded + run.counts().unchanged;
    (brought > 0).then(|| format!("newer runs have replaced its {}", show::rows(brought, "")))
}

/// The key column and the answer columns.
fn head(pipeline: &Pipeline) -> impl Iterator<Item = String> {
    std::iter::once(pipeline.key.clone()).chain(pipeline.answer.iter().map(|column| column.name.clone()))
}

/// For programs. That an answer is the stand-in's is said on stderr, before the first of them.
async fn stream(site: &dyn Site, run: &Run, pipeline: &Pipeline, format: Format, limit: u64) -> Result<()> {
    let (mut out, mut csv) = match format {
        Format::Csv => (None, Some(csv::Writer::from_writer(stdout().lock()))),
        Format::Table | Format::Jsonl => (Some(BufWriter::new(stdout().lock())), None),
    };
    if let Some(csv) = &mut csv {
        csv.write_record(head(pipeline).chain(["run".to_owned(), "model".to_owned()]))?;
    }
    let (mut written, mut stand_in, mut none) = (Ok(()), false, limit > 0);
    let mut each = |row: ResultRow| {
        none = false;
        if row.model == StandIn::MODEL && !std::mem::replace(&mut stand_in, true) {
            eprintln!("{}", StandIn::note(pipeline.model.provider));
        }
        written = match (&mut out, &mut csv) {
            (Some(out), _) => show::json_line(out, &ResultLine { key: &pipeline.key, row: &row }),
            (None, Some(csv)) => csv.write_record(show::result_fields(&row)).map_err(Into::into),
            (None, None) => Ok(()),
        };
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    site.books().results(pipeline, &run.run, limit, &mut each).await?;
    written?;
    if let Some(why) = replaced(run).filter(|_| none) {
        eprintln!("{why}");
    }
    out.as_mut().map_or(Ok(()), Write::flush)?;
    Ok(csv.as_mut().map_or(Ok(()), csv::Writer::flush)?)
}
