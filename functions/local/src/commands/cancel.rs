//! `tasuki cancel`

use super::drive::{self, End};
use super::runs::{self, Run};
use super::{Exit, line};
use crate::cli;
use crate::home::Home;
use crate::model::NoModel;
use crate::relay::{Plan, Relay};
use crate::show::{self, number};
use crate::signals::Stop;
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
    if run.is_ended() {
        eprintln!("run {} is {} already: there is nothing to cancel", run.run, run.state);
        return report(&home, &run, args.json).await;
    }
    create_once(&*home.objects, Bucket::State, &names::cancel(&run.run), Bytes::new())
        .await
        .context("the cancel marker cannot be written")?;
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
            eprintln!("{holder} works in {}: it seals the run", home.dir.display());
            let asked = home.clock.instant();
            while home.clock.instant().duration_since(asked) < PATIENCE && !runs::one(&home, &run.run).await?.is_ended()
            {
                sleep(LOOK_EVERY).await;
            }
        }
    }
    report(&home, &runs::one(&home, &run.run).await?, args.json).await
}

async fn report(home: &Home, run: &Run, json: bool) -> Result<Exit> {
    if json {
        show::json_line(&mut stdout().lock(), &run.json(home).await?)?;
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
            writeln!(stdout(), "ask about those after all: {}", line(&home.dir, &["retry", run.short()]))?;
        }
    } else {
        writeln!(
            stdout(),
            "run {} is marked as cancelled and not sealed yet: look again with {}",
            run.run,
            line(&home.dir, &["status", run.short()])
        )?;
    }
    Ok(if run.is_ended() { Exit::Done } else { Exit::NotDone })
}
