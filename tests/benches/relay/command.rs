//! `tasuki run` as a process.

use crate::{Line, Options, model, process};
use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Builds the command as its users get it, and tells where it is.
pub fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "-p", "tasuki", "--message-format=json-render-diagnostics"]);
    // What cargo told this process about its own package would make it build dependencies again that look at it.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        cargo.env_remove(name);
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output()?;
    ensure!(built.status.success(), "the command cannot be built");
    let messages = built.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut executables = messages.filter_map(|message: Value| message["executable"].as_str().map(PathBuf::from));
    executables.next().context("cargo built no command")
}

/// Runs it over `input` in a new folder within `folder`, which it leaves there: Linux's ext4 takes long to create files soon after
/// thousands of others were deleted. Wall time is from the creation of the inbox object to the run's end, which
/// follows its last row into the store.
pub fn measure(options: &Options, tasuki: &Path, server: &model::Server, input: &Path, folder: &Path) -> Result<Line> {
    let folder = tempfile::tempdir_in(folder)?.keep();
    let (pipeline, log) = (folder.join("themes.toml"), folder.join("log"));
    let text = include_str!("../../../examples/themes.toml");
    fs::write(&pipeline, format!("{text}\n[run]\nmax_in_flight = {}\n", options.in_flight))?;
    let mut command = Command::new(tasuki);
    command.arg("run").arg(input).arg("--pipeline").arg(&pipeline).arg("--dir").arg(folder.join("home"));
    command.env("GOOGLE_GEMINI_BASE_URL", &server.base).env("SSL_CERT_FILE", &server.certificate);
    command.env("GEMINI_API_KEY", "none").env("NO_PROXY", "127.0.0.1");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log)?);
    let told = || fs::read_to_string(&log).unwrap_or_default();
    let took = process::run(&mut command).with_context(told)?;
    let (rows, wall) = stored(&folder.join("home/tasuki.db"))?;
    ensure!(rows == options.rows, "{rows} of {} rows are in the store", options.rows);
    Ok(Line { wall, took })
}

/// Answers in the store, and the time that the run took.
fn stored(database: &Path) -> Result<(u32, Duration)> {
    let store = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT (SELECT COUNT(*) FROM row_themes), unixepoch(ended_at, 'subsec') - unixepoch(run_time, 'subsec') \
               FROM Runs WHERE state = 'COMPLETE'";
    let (rows, seconds) = store.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((rows, Duration::from_secs_f64(seconds)))
}
