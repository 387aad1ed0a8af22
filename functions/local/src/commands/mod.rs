//! What each command does.

mod answerers;
pub(crate) mod cancel;
pub(crate) mod cost;
pub(crate) mod drive;
pub(crate) mod failures;
pub(crate) mod follow;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod results;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod runs;
mod schema;
mod serve;
pub(crate) mod status;
pub(crate) mod summary;
mod watch;

use crate::cli::{Cli, Command};
use crate::home::Home;
use crate::logs;
use anyhow::{Context, Result, bail};
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
    let cli = match Cli::read() {
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
    let exit = runtime.block_on(async {
        match (cli.deployment, cli.command) {
            (_, Command::Schema(args)) => schema::schema(&args),
            (Some(file), command) => deployed(&file, command).await,
            (None, command) => in_the_folder(&cli.dir, command).await,
        }
    });
    runtime.shutdown_background();
    exit
}

async fn in_the_folder(dir: &Path, command: Command) -> Result<Exit> {
    match command {
        Command::Run(args) => run::run(dir, args).await,
        Command::Plan(args) => plan::plan(dir, args).await,
        Command::Serve(args) => serve::serve(dir, args).await,
        Command::Retry(args) => retry::retry(dir, args).await,
        Command::Cancel(args) => cancel::cancel(dir, args).await,
        Command::Resume(args) => resume::resume(dir, args).await,
        Command::Status(args) => status::status(&Home::existing(dir)?, args).await,
        Command::Cost(args) => cost::cost(&Home::existing(dir)?, args).await,
        Command::Results(args) => results::results(&Home::existing(dir)?, args).await,
        Command::Failures(args) => failures::failures(&Home::existing(dir)?, args).await,
        Command::Doctor(_) => bail!("doctor looks at a deployment: name its file with --deployment FILE"),
        Command::Schema(args) => schema::schema(&args),
    }
}

#[cfg(feature = "cloud")]
use crate::cloud::perform as deployed;

/// A build of this size has none of Google's clients.
#[cfg(not(feature = "cloud"))]
async fn deployed(file: &Path, _: Command) -> Result<Exit> {
    bail!(
        "{}: this tasuki was built without Google's clients: build it with `cargo build --release -p tasuki --features cloud`, \
         or leave --deployment and TASUKI_DEPLOYMENT out to work on the folder",
        file.display()
    )
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
