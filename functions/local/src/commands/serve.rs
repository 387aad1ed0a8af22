//! `tasuki serve`

use super::Exit;
use crate::cli;
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) async fn serve(_dir: &Path, _args: cli::Serve) -> Result<Exit> {
    bail!("not yet")
}
