//! `tasuki status`

use super::answerers::Answerers;
use super::drive::End;
use super::report::exit_of;
use super::runs::{self, Run};
use super::{Exit, cost, follow};
use crate::bill::Basis;
use crate::cli;
use crate::show::{self, number};
use crate::signals::Stop;
use crate::site::{Driver, Site};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{Write, stdout};
use tasuki_relay::record::Counts;
use tasuki_relay::stand_in::StandIn;

pub(crate) async fn status(site: &dyn Site, args: cli::Status) -> Result<Exit> {
    let driver = site.driver()?;
    match args.run {
        Some(name) if args.follow => follow(site, runs::pick(site, Some(&name)).await?).await,
        Some(name) => one(site, runs::pick(site, Some(&name)).await?, &driver, args.json).await,
        None => all(site, &driver, args.json).await,
    }
}

async fn all(site: &dyn Site, driver: &Driver, json: bool) -> Result<Exit> {
    let runs = runs::all(site).await?;
    if json {
        let mut list = Vec::with_capacity(runs.len());
        for run in &runs {
            list.push(run.json_in_list(site).await?);
        }
        let working = match driver {
            Driver::Process(holder) => json!({ "command": holder.command, "pid": holder.pid }),
            Driver::Services => "services".into(),
            Driver::Nobody => Value::Null,
        };
        show::json_line(&mut stdout().lock(), &json!({ "runs": list, "working": working }))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    if runs.is_empty() {
        writeln!(text, "{} holds no run yet", site.name())?;
    } else {
        let head = ["run", "state", "pipeline", "input", "rows", "loaded", "failed", "started"].map(str::to_owned);
        writeln!(text, "{}", show::table(head.into(), runs.iter().map(cells)))?;
    }
    if let Driver::Process(holder) = driver {
        writeln!(text, "working: {holder}")?;
    }
    for run in runs.iter().filter(|run| !run.is_ended()) {
        match run.resume(site) {
            Some(resume) => writeln!(text, "{} is parked: go on with {resume}", run.short())?,
            None if matches!(driver, Driver::Nobody) => {
                writeln!(text, "{} is not running: resume with {}", run.short(), resume(site, run))?;
            }
            None => (),
        }
    }
    for run in &runs {
        if runs::is_stand_in(site, run).await? {
            writeln!(text, "{}", StandIn::NOTE)?;
            break;
        }
    }
    stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

fn cells(run: &Run) -> Vec<String> {
    let counts = run.counts();
    let rows = match run.expected() {
        Some(expected) if expected != counts.rows() => format!("{} of {}", number(counts.rows()), number(expected)),
        _ => number(counts.rows()),
    };
    let started =
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(run.run_time.0));
    vec![
        run.short().to_owned(),
        run.state.to_owned(),
        run.pipeline.clone(),
        run.file.clone(),
        rows,
        number(counts.loaded),
        number(counts.failed),
        started.to_string(),
    ]
}

async fn one(site: &dyn Site, run: Run, driver: &Driver, json: bool) -> Result<Exit> {
    if json {
        show::json_line(&mut stdout().lock(), &run.json(site).await?)?;
        return Ok(Exit::Done);
    }
    let (counts, mut text) = (run.counts(), String::new());
    let mut say = |name: &str, value: String| writeln!(text, "{name:<12}{value}");
    say("run", run.run.to_string())?;
    say("state", run.state.to_owned())?;
    if let Some(refused) = &run.refused {
        say("refused", refused.clone())?;
    }
    say("pipeline", run.pipeline.clone())?;
    say("input", run.file.clone())?;
    let expected = match run.expected() {
        None if runs::is_split(site, &run.run).await? => runs::totals(site, &run.run).await?.map(|totals| totals.rows),
        known => known,
    };
    let of = expected.map_or_else(|| " so far".to_owned(), |rows| format!(" of {}", number(rows)));
    say("rows", number(counts.rows()) + &of)?;
    say("loaded", number(counts.loaded))?;
    if let Some(text) = Answerers::of(site, &run).await?.and_then(|answerers| answerers.text(&run)) {
        say("answered by", text)?;
    }
    let reasons = site.books().failure_reasons(&run.run).await?;
    let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{reason} {}", number(*count))).collect();
    say("failed", format!("{}  {}", number(counts.failed), reasons.join(", ")).trim_end().to_owned())?;
    say("unchanged", number(counts.unchanged))?;
    say("superseded", number(counts.superseded))?;
    let cost = cost::of(site, &run).await?;
    let stand_in = cost.basis == Basis::StandIn;
    let Counts { paid_calls, ambiguous_calls, wasted_answers, usage, .. } = cost.counts;
    let calls = [paid_calls, ambiguous_calls, wasted_answers].map(number);
    let paid = runs::paid(stand_in);
    say("calls", format!("{} {paid}, {} ambiguous, {} wasted", calls[0], calls[1], calls[2]))?;
    let usage = [usage.prompt, usage.cached, usage.output, usage.thought].map(number);
    say("tokens", format!("{} in ({} cached), {} out, {} thought", usage[0], usage[1], usage[2], usage[3]))?;
    let (sum, of_it) = cost.in_short();
    say("cost", format!("{sum}  {of_it}").trim_end().to_owned())?;
    for (name, note) in cost.notes().into_iter().filter(|_| !stand_in) {
        say(name, note)?;
    }
    say("started", run.run_time.to_string())?;
    if let Some(ended) = run.row.as_ref().and_then(|row| row.ended_at) {
        say("ended", ended.to_string())?;
    }
    if let (Some((_, why)), Some(resume)) = (&run.parked, run.resume(site)) {
        let why = if why.is_empty() { "no reason was given" } else { why };
        say("parked", format!("{why}; go on with {resume}"))?;
    }
    match driver {
        _ if run.is_ended() || run.parked.is_some() => (),
        Driver::Services => say("follow", site.line(&["status", run.short(), "--follow"]))?,
        Driver::Process(holder) => say("working", holder.to_string())?,
        Driver::Nobody => say("stopped", format!("resume with {}", resume(site, &run)))?,
    }
    if stand_in {
        say("note", StandIn::NOTE.to_owned())?;
    }
    stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Stays with a run until it ends.
async fn follow(site: &dyn Site, run: Run) -> Result<Exit> {
    let stop = Stop::listen().context("signals cannot be listened for")?;
    if let End::NotDone(why) = follow::follow(site, &run.run, stop).await? {
        eprintln!("{why}");
        return Ok(Exit::NotDone);
    }
    let run = runs::one(site, &run.run).await?;
    one(site, run.clone(), &site.driver()?, false).await?;
    Ok(exit_of(&run))
}

fn resume(site: &dyn Site, run: &Run) -> String {
    site.command_of(&run.run).unwrap_or_else(|| site.line(&["serve", "--pipelines", "DIR"]))
}
