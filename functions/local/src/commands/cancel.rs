//! `tasuki cancel`

use super::Exit;
use crate::cli;
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) async fn cancel(_dir: &Path, _args: cli::Cancel) -> Result<Exit> {
    bail!("not yet")
}
