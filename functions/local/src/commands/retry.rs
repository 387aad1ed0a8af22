//! `tasuki retry`

use super::Exit;
use crate::cli;
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) async fn retry(_dir: &Path, _args: cli::Retry) -> Result<Exit> {
    bail!("not yet")
}
