//! `tasuki resume`

use super::Exit;
use super::drive::{self, End};
use super::follow::follow;
use super::report::exit_of;
use super::runs::{self, Run};
use super::summary::Summary;
use crate::cli;
use crate::home::Home;
use crate::model;
use crate::relay::{Plan, Relay};
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;
use tasuki_relay::budget::{self, Ledger};
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::ObjectsError;
use tasuki_relay::prices::picodollars;

const NO_SIGNALS: &str = "signals cannot be listened for";

/// A run that may be resumed.
pub(crate) struct Parked {
    run: Run,
    pipeline: Pipeline,
    /// What it may cost from now on, in dollars.
    max_cost: Option<f64>,
}

/// Finds the run; `Err` with how the command ends when it is not parked, which is told.
pub(crate) async fn parked(site: &dyn Site, args: &cli::Resume) -> Result<Result<Parked, Exit>> {
    let run = runs::pick(site, Some(&args.run)).await?;
    let Some(pipeline) = runs::pipeline(site, &run.run).await? else {
        bail!("run {} has no valid pipeline: there is nothing to resume", run.run)
    };
    if run.parked.is_none() {
        let mend = if run.is_ended() { String::new() } else { format!(": {}", site.line(&["status", run.short()])) };
        eprintln!("run {} is {}, not parked{mend}", run.run, run.state);
        return Ok(Err(shown(site, &run, &pipeline, args.json, None).await?));
    }
    check_max_cost(site, &run, &pipeline, args.max_cost).await?;
    Ok(Ok(Parked { run, pipeline, max_cost: args.max_cost }))
}

/// A run that has spent its budget would be parked at once again, unless it gets more than it has cost.
async fn check_max_cost(site: &dyn Site, run: &Run, pipeline: &Pipeline, max_cost: Option<f64>) -> Result<()> {
    match max_cost {
        Some(_) if pipeline.run.max_cost.is_none() => {
            bail!("run {} has no budget ([run] max_cost_usd): resume it without --max-cost", run.run)
        }
        Some(dollars) => {
            let spent = spent(site, run).await?;
            if picodollars(dollars) <= spent {
                bail!("run {} has cost {} by now: --max-cost must be more", run.run, budget::usd(spent));
            }
        }
        None => {
            let why = run.parked.as_ref().map_or("", |(_, why)| why);
            if budget::is_spent_up(why) && !is_raised(site, run).await? {
                let resume = run.resume(site).unwrap_or_default();
                bail!(
                    "run {}: {why}; it would be parked again at once: go on with {resume}, N dollars in all",
                    run.run
                );
            }
        }
    }
    Ok(())
}

/// What the run has cost: its ledger knows of calls that are not loaded yet. Who may not read that sees what is loaded.
async fn spent(site: &dyn Site, run: &Run) -> Result<u64> {
    let ledger = match site.objects().read(Bucket::State, &names::budget(&run.run), None).await {
        Err(ObjectsError::Denied(_)) => None,
        found => found?.and_then(|object| Ledger::parse(&object.body, object.meta.created)),
    };
    Ok(ledger.map_or(0, |ledger| ledger.spent()).max(run.counts().cost))
}

/// The budget was raised after the run was parked, and it was not resumed.
async fn is_raised(site: &dyn Site, run: &Run) -> Result<bool> {
    let objects = site.objects();
    let marker = objects.stat(Bucket::State, &names::parked(&run.run)).await?;
    let raised = control::max_cost(&*objects, &run.run).await?;
    Ok(raised.is_some_and(|(_, raised)| marker.is_none_or(|marker| raised.created > marker.created)))
}

impl Parked {
    /// Removes the marker that was seen, once the run may cost what it is to.
    pub(crate) async fn unmark(&self, site: &dyn Site) -> Result<()> {
        let run = &self.run;
        if let Some(dollars) = self.max_cost {
            control::set_max_cost(&*site.objects(), &run.run, dollars).await.context("--max-cost cannot be written")?;
            eprintln!("run {} may cost {} in all", run.run, budget::usd(picodollars(dollars)));
        }
        let Some((marker, why)) = &run.parked else { return Ok(()) };
        if !control::resume(&*site.objects(), &run.run, *marker).await.context("the marker cannot be removed")? {
            bail!("run {} was parked anew meanwhile: see {}", run.run, site.line(&["status", run.short()]));
        }
        eprintln!("run {} is no longer parked ({})", run.run, if why.is_empty() { "no reason was given" } else { why });
        Ok(())
    }

    /// Tells how it went on.
    pub(crate) async fn report(&self, site: &dyn Site, end: End, took: Duration, json: bool) -> Result<Exit> {
        let found = runs::one(site, &self.run.run).await?;
        if let End::NotDone(why) = end {
            eprintln!("{why}; what came is kept: {}", site.line(&["status", self.run.short()]));
        }
        let rows = found.counts().rows().saturating_sub(self.run.counts().rows());
        shown(site, &found, &self.pipeline, json, Some((rows, took))).await
    }
}

/// In the folder: goes on with the run here, or follows who serves there.
pub(crate) async fn resume(dir: &Path, args: cli::Resume) -> Result<Exit> {
    let home = Home::existing(dir)?;
    let parked = match parked(&home, &args).await? {
        Ok(parked) => parked,
        Err(exit) => return Ok(exit),
    };
    let (run, pipeline) = (&parked.run, &parked.pipeline);
    let chosen = model::choose(pipeline.model.provider, pipeline.run.max_in_flight)?;
    if let Some(other) = home.answerer_of(&run.run).filter(|other| *other != chosen.answerer) {
        bail!("run {} was begun with {other}: to go on with it {}", run.run, other.mend(pipeline.model.provider));
    }
    let stop = Stop::listen().context(NO_SIGNALS)?;
    let lock = home.lock("resume", None).await?;
    // Whoever drives only a run of its own would leave this one lying, neither parked nor at work.
    if let Err(holder) = lock.as_ref()
        && !holder.serves()
    {
        return Err(home.in_use(holder));
    }
    parked.unmark(&home).await?;
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
            follow(&home, &run.run, stop).await?
        }
    };
    parked.report(&home, end, started.elapsed(), args.json).await
}

/// Against a deployment: its sweeps go on with the run, and are followed.
#[cfg(feature = "cloud")]
pub(crate) async fn deployed(site: &dyn Site, args: cli::Resume) -> Result<Exit> {
    let parked = match parked(site, &args).await? {
        Ok(parked) => parked,
        Err(exit) => return Ok(exit),
    };
    let stop = Stop::listen().context(NO_SIGNALS)?;
    parked.unmark(site).await?;
    eprintln!("the services go on with it within a minute, and are followed");
    let started = site.clock().instant();
    let end = follow(site, &parked.run.run, stop).await?;
    parked.report(site, end, started.elapsed(), args.json).await
}

async fn shown(
    site: &dyn Site,
    run: &Run,
    pipeline: &Pipeline,
    json: bool,
    took: Option<(u64, Duration)>,
) -> Result<Exit> {
    Summary { site, run, called: &run.file, pipeline, json }.show(took).await?;
    Ok(exit_of(run))
}
