//! `tasuki cancel`

use super::Exit;
use super::drive::{self, End};
use super::runs::{self, Run};
use crate::cli;
use crate::home::Home;
use crate::model::NoModel;
use crate::relay::{Plan, Relay};
use crate::show::{self, number};
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result};
use bytes::Bytes;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::write::create_once;
use tokio::time::sleep;

/// How long another process is waited for: it looks for the marker every second, and calls in flight have 10 seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(crate) async fn cancel(dir: &Path, args: cli::Cancel) -> Result<Exit> {
    let home = Home::existing(dir)?;
    let run = runs::pick(&home, Some(&args.run)).await?;
    if !mark(&home, &run).await? {
        return report(&home, &run, args.json).await;
    }
    match home.lock("cancel", None).await? {
        Ok(lock) => {
            let stop = Stop::listen().context("signals cannot be listened for")?;
            let plan = Plan { only: Some(run.run.clone()), max_in_flight: 1, rows_per_shard: Some(1) };
            let relay = Relay::start(&home, lock, Arc::new(NoModel), plan)?;
            if let End::NotDone(why) = drive::to_its_end(&home, relay, &run.run, stop).await? {
                eprintln!(
                    "{why}\nthe run is marked as cancelled, its rows are not sealed yet: the same command goes on"
                );
            }
        }
        Err(holder) => {
            let which = if holder.serves() { "" } else { ", if that is the one it works on" };
            eprintln!("{holder} works in {}: it seals the run{which}", home.dir.display());
            wait(&home, &run, (PATIENCE, LOOK_EVERY)).await?;
            if !holder.serves() && !runs::one(&home, &run.run).await?.is_ended() {
                eprintln!("it has not sealed this one: give the same command again when it is done");
            }
        }
    }
    report(&home, &runs::one(&home, &run.run).await?, args.json).await
}

/// Marks the run as cancelled; `false`, and says so, if it is at its end already.
pub(crate) async fn mark(site: &dyn Site, run: &Run) -> Result<bool> {
    if run.is_ended() {
        eprintln!("run {} is {} already: there is nothing to cancel", run.run, run.state);
        return Ok(false);
    }
    let marked = create_once(&*site.objects(), Bucket::State, &names::cancel(&run.run), Bytes::new()).await;
    marked.context("the cancel marker cannot be written")?;
    Ok(true)
}

/// Waits for whoever works on the run to end it: so long at most, and looks so often.
pub(crate) async fn wait(site: &dyn Site, run: &Run, (most, every): (Duration, Duration)) -> Result<()> {
    let asked = site.clock().instant();
    while site.clock().instant().duration_since(asked) < most && !runs::one(site, &run.run).await?.is_ended() {
        sleep(every).await;
    }
    Ok(())
}

/// Tells how the run stands.
pub(crate) async fn report(site: &dyn Site, run: &Run, json: bool) -> Result<Exit> {
    if json {
        show::json_line(&mut stdout().lock(), &run.json(site).await?)?;
    } else if run.is_ended() {
        let counts = run.counts();
        let (loaded, cancelled) = (number(counts.loaded), number(counts.cancelled));
        writeln!(
            stdout(),
            "{}  run {}: {loaded} rows are loaded and stay, {cancelled} are cancelled",
            run.state,
            run.run
        )?;
        if counts.cancelled > 0 {
            writeln!(stdout(), "ask about those after all: {}", site.line(&["retry", run.short()]))?;
        }
    } else {
        writeln!(
            stdout(),
            "run {} is marked as cancelled and not sealed yet: look again with {}",
            run.run,
            site.line(&["status", run.short()])
        )?;
    }
    Ok(if run.is_ended() { Exit::Done } else { Exit::NotDone })
}
