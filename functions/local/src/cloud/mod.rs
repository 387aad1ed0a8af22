//! The commands against a deployment: its buckets and its store instead of the folder and SQLite.

mod deployment;
mod doctor;
mod plan;
mod run;
mod site;

use crate::cli::{self, Command};
use crate::commands::{Exit, cancel, cost, failures, results, resume, runs, status};
use anyhow::{Result, bail};
use deployment::Deployment;
use site::Deployed;
use std::path::Path;
use std::time::Duration;

/// How long a cancelled run is waited for: a worker looks for the marker with each heartbeat (30 s), the sweep comes each minute.
const SEALED_WITHIN: Duration = Duration::from_secs(150);

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Does what the command says with the deployment that `file` describes.
pub(crate) async fn perform(file: &Path, command: Command) -> Result<Exit> {
    if matches!(command, Command::Serve(_)) {
        bail!("serve works in a folder: in a deployment the services run what is dropped. Leave out --deployment");
    }
    let deployment = Deployment::read(file).map_err(anyhow::Error::msg)?;
    tasuki_google::connect::install_tls();
    if let Command::Doctor(args) = command {
        return doctor::doctor(&deployment, args).await;
    }
    let site = &Deployed::open(file, deployment).await?;
    match command {
        Command::Run(args) => run::run(site, args).await,
        Command::Plan(args) => plan::plan(site, args).await,
        Command::Retry(args) => run::retry(site, args).await,
        Command::Cancel(args) => cancelled(site, args).await,
        Command::Resume(args) => resume::deployed(site, args).await,
        Command::Status(args) => status::status(site, args).await,
        Command::Cost(args) => cost::cost(site, args).await,
        Command::Results(args) => results::results(site, args).await,
        Command::Failures(args) => failures::failures(site, args).await,
        Command::Doctor(_) | Command::Serve(_) | Command::Schema(_) => {
            unreachable!("they work on no deployment's runs")
        }
    }
}

async fn cancelled(site: &Deployed, args: cli::Cancel) -> Result<Exit> {
    let run = runs::pick(site, Some(&args.run)).await?;
    if cancel::mark(site, &run).await? {
        eprintln!("the services seal the run, which may take two minutes; Ctrl-C ends the waiting, not that");
        cancel::wait(site, &run, (SEALED_WITHIN, LOOK_EVERY)).await?;
    }
    cancel::report(site, &runs::one(site, &run.run).await?, args.json).await
}
