//! `tasuki failures`

use super::Exit;
use crate::cli;
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) async fn failures(_dir: &Path, _args: cli::Rows) -> Result<Exit> {
    bail!("not yet")
}
