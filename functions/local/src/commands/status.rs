//! `tasuki status`

use super::Exit;
use crate::cli;
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) async fn status(_dir: &Path, _args: cli::Status) -> Result<Exit> {
    bail!("not yet")
}
