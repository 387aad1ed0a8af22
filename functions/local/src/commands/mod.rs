//! What each command does.

mod cancel;
mod drive;
mod failures;
mod results;
mod resume;
mod retry;
mod run;
mod runs;
mod schema;
mod serve;
mod status;
mod summary;
mod watch;

use crate::cli::{Cli, Command};
use crate::logs;
use anyhow::{Context, Result};
use clap::Parser;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All that was asked for is done.
    Done,
    /// It is done, and rows failed.
    WithFailures,
    /// It is not done.
    NotDone,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::NotDone => 1,
            Exit::WithFailures => 2,
        })
    }
}

/// The `tasuki` command: reads the command line, does what it says, returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let _ = usage.print(); // there is nowhere else to say it
            return if usage.use_stderr() { Exit::NotDone } else { Exit::Done }.into();
        }
    };
    logs::start();
    match perform(cli) {
        Ok(exit) => exit.into(),
        // Who reads the output has enough of it: `tasuki results | head`.
        Err(error) if is_closed_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            eprintln!("tasuki: {error:#}");
            Exit::NotDone.into()
        }
    }
}

fn perform(cli: Cli) -> Result<Exit> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads to work with")?;
    let dir = &cli.dir;
    let exit = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(dir, args).await,
            Command::Serve(args) => serve::serve(dir, args).await,
            Command::Retry(args) => retry::retry(dir, args).await,
            Command::Cancel(args) => cancel::cancel(dir, args).await,
            Command::Resume(args) => resume::resume(dir, args).await,
            Command::Status(args) => status::status(dir, args).await,
            Command::Results(args) => results::results(dir, args).await,
            Command::Failures(args) => failures::failures(dir, args).await,
            Command::Schema(args) => schema::schema(&args),
        }
    });
    runtime.shutdown_background();
    exit
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    let csv = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<csv::Error>().is_some_and(
            |error| matches!(error.kind(), csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::BrokenPipe),
        )
    };
    error.chain().any(|cause| closed(cause) || csv(cause))
}

/// A word of a command line as a person would type it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A command line of ours as a person would type it.
fn line(dir: &Path, words: &[&str]) -> String {
    let mut line = String::from("tasuki");
    if dir != Path::new(".tasuki") {
        line += &format!(" --dir {}", quoted(&dir.to_string_lossy()));
    }
    for word in words {
        line = line + " " + &quoted(word);
    }
    line
}
