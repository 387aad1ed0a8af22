//! The commands against a deployment: its buckets and its store instead of the folder and SQLite.

mod deployment;
mod site;

use crate::cli::Command;
use crate::commands::{Exit, cancel, failures, results, status};
use anyhow::{Result, bail};
use deployment::Deployment;
use site::Deployed;
use std::path::Path;
use std::time::Duration;

/// Does what the command says with the deployment that `file` describes.
pub(crate) async fn perform(file: &Path, command: Command) -> Result<Exit> {
    let deployment = Deployment::read(file).map_err(anyhow::Error::msg)?;
    tasuki_google::connect::install_tls();
    match command {
        Command::Status(args) => status::status(&Deployed::open(file, deployment).await?, args).await,
        Command::Results(args) => results::results(&Deployed::open(file, deployment).await?, args).await,
        Command::Failures(args) => failures::failures(&Deployed::open(file, deployment).await?, args).await,
        _ => bail!("not yet"),
    }
}
