//! `tasuki resume`

use super::drive::{self, End};
use super::runs::{self, Run};
use super::summary::Summary;
use super::{Exit, line};
use crate::cli;
use crate::home::Home;
use crate::model;
use crate::relay::{Plan, Relay};
use crate::signals::Stop;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;
use tasuki_relay::control;
use tasuki_relay::pipeline::Pipeline;

pub(crate) async fn resume(dir: &Path, args: cli::Resume) -> Result<Exit> {
    let home = Home::existing(dir)?;
    let run = runs::pick(&home, Some(&args.run)).await?;
    let Some(pipeline) = runs::pipeline(&home, &run.run).await? else {
        bail!("run {} has no valid pipeline: there is nothing to resume", run.run)
    };
    let Some((marker, why)) = run.parked.clone() else {
        let mend = if run.is_ended() { String::new() } else { format!(": {}", line(dir, &["status", run.short()])) };
        eprintln!("run {} is {}, not parked{mend}", run.run, run.state);
        return shown(&home, &run, &pipeline, args.json, None).await;
    };
    let chosen = model::choose(pipeline.run.max_in_flight)?;
    if let Some(other) = home.answerer_of(&run.run).filter(|other| *other != chosen.answerer) {
        bail!("run {} was begun with {other}: to go on with it {}", run.run, other.mend());
    }
    let stop = Stop::listen().context("signals cannot be listened for")?;
    let lock = home.lock("resume", Some(chosen.answerer)).await?;
    if !control::resume(&*home.objects, &run.run, marker).await.context("the marker cannot be removed")? {
        bail!("run {} was parked anew meanwhile: see {}", run.run, line(dir, &["status", run.short()]));
    }
    eprintln!("run {} is no longer parked ({})", run.run, if why.is_empty() { "no reason was given" } else { &why });
    let started = home.clock.instant();
    let end = match lock {
        Ok(lock) => {
            let (max_in_flight, rows_per_shard) = (pipeline.run.max_in_flight as usize, pipeline.run.rows_per_shard);
            let plan = Plan { only: Some(run.run.clone()), max_in_flight, rows_per_shard };
            let relay = Relay::start(&home, lock, chosen.model, plan)?;
            drive::to_its_end(&home, relay, &run.run, stop).await?
        }
        Err(holder) => {
            eprintln!("{holder} works in {}: it goes on with the run within a minute, and is followed", dir.display());
            drive::follow(&home, &run.run, stop).await?
        }
    };
    let found = runs::one(&home, &run.run).await?;
    if let End::NotDone(why) = end {
        eprintln!("{why}; what came is kept: {}", line(dir, &["status", run.short()]));
    }
    let rows = found.counts().rows().saturating_sub(run.counts().rows());
    shown(&home, &found, &pipeline, args.json, Some((rows, started.elapsed()))).await
}

async fn shown(home: &Home, run: &Run, pipeline: &Pipeline, json: bool, took: Option<(u64, Duration)>) -> Result<Exit> {
    Summary { home, run, called: &run.file, pipeline, json }.show(took).await?;
    Ok(drive::exit(run))
}
