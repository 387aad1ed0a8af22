//! The command line: what can be said, and help that teaches.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const TASTE: &str = "\
Two minutes:
  1. rows        products.jsonl or products.csv, one row with a unique id column a line (.gz is fine)
  2. pipeline    themes.toml: a prompt template with {{ columns }}, and the answer columns that you want
  3. plan        tasuki plan products.jsonl --pipeline themes.toml     what a run will cost and take: free
  4. run         tasuki run products.jsonl --pipeline themes.toml
  5. look        tasuki results; tasuki failures; tasuki status

Without a key a stand-in model answers, free and at once, so that you see the whole way. Then:
  export GEMINI_API_KEY=…        (a key from https://aistudio.google.com/apikey)
  tasuki run products.jsonl --pipeline themes.toml

Stop with Ctrl-C whenever you like: the same command goes on where it stopped. A stop waits up to 30 s for calls in flight;
those that take longer are asked, and perhaps paid for, again.

On Google Cloud (a build with --features cloud) the same commands work on a deployment:
  terraform output -json deployment > tasuki.json
  tasuki --deployment tasuki.json doctor
  tasuki --deployment tasuki.json run products.jsonl --pipeline themes.toml

Exit codes: 0 complete, 2 complete with failed rows, 1 not done.";

const DIR: &str = ".tasuki";

/// An empty variable counts as unset.
fn dir() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|dir| PathBuf::from(if dir.is_empty() { DIR.into() } else { dir }))
}

/// An amount that a run may cost, as in `[run] max_cost_usd`.
fn dollars(text: &str) -> Result<f64, String> {
    let dollars = text.trim_start_matches('$').parse().ok();
    let dollars = dollars.filter(|dollars| (0.0..=100_000.0).contains(dollars) && *dollars > 0.0);
    dollars.ok_or_else(|| "an amount in dollars, like 12.5, of at most 100000".to_owned())
}

/// An empty variable counts as unset: that is decided by who reads it.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Asks Gemini about every row of a file, and puts the answers into a table: each row once, no saved answer paid for twice.
#[derive(Debug, Parser)]
#[command(name = "tasuki", version, after_help = TASTE, max_term_width = 120)]
pub(crate) struct Cli {
    /// The folder that holds the runs: files, answers, and the database tasuki.db
    #[arg(long, global = true, default_value = DIR, env = "TASUKI_DIR", value_name = "DIR", value_parser = dir())]
    pub(crate) dir: PathBuf,
    /// A deployment in Google Cloud instead of the folder: its file, from `terraform output -json deployment > tasuki.json`
    #[arg(long, global = true, env = "TASUKI_DEPLOYMENT", value_name = "FILE", value_parser = file())]
    pub(crate) deployment: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line. One place at most is left in it: what is written there goes before what the environment says.
    pub(crate) fn read() -> Result<Cli, clap::Error> {
        let matches = Cli::command().try_get_matches()?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        let is_written = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        cli.deployment = cli.deployment.filter(|file| !file.as_os_str().is_empty());
        if is_written("dir") && is_written("deployment") {
            let twice = "--dir and --deployment name two places: leave one of them out";
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, twice));
        }
        if is_written("dir") {
            cli.deployment = None;
        }
        Ok(cli)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a pipeline over a file, to the end
    #[command(after_help = "\
Examples:
  tasuki run products.jsonl --pipeline themes.toml
  tasuki run places.csv.gz --pipeline themes.toml --json | jq .loaded

The same bytes, the same pipeline and the same model (Gemini with a key, the stand-in without) are the same run: if it is
unfinished it goes on where it stopped, if it is finished it is shown and nothing is paid (--again makes a new one). With an
edited pipeline it is a new run.

With --deployment the file goes into the inbox, the services work, and the command follows: Ctrl-C stops the following alone.")]
    Run(Run),
    /// Tells what a run would cost and take, before it is begun; asks nothing unless --sample says so
    #[command(after_help = "\
Examples:
  tasuki plan products.jsonl --pipeline themes.toml                  free: nothing is asked
  tasuki plan products.jsonl --pipeline themes.toml --sample 100     asks 100 rows, and pays for them
  tasuki plan products.jsonl --pipeline themes.toml --json | jq .cost_usd.standard

Rows, calls, tokens, the cost in each tier and the time, with what is not known as a range, and what each rests on. Rows that
fail before they are asked, rows with the same prompt, and rows whose answer is there (only_changed, reuse_answers) are no calls.
With a key the model counts some of the prompts (countTokens, free); without one their tokens are guessed.

What an answer takes is not known before one was seen: --sample draws so many rows at random and asks them, as a run of its own.
Its answers are in the table and in `tasuki status`, and a run with only_changed or reuse_answers in its pipeline does not pay for
them again. The same command again is the same sample: nothing more is paid.

Exit codes: 0 told, 1 not.")]
    Plan(Plan),
    /// Watches inbox folders, and runs what is dropped there
    #[command(after_help = "\
Example:
  tasuki serve --pipelines pipelines/          then, elsewhere:
  cp products.jsonl .tasuki/inbox/themes/

A file starts a run once it has not changed for 2 seconds. Hidden files, *~, .tmp, .part, .crdownload and .swp are left alone.
An edited pipeline counts for the files that are dropped after it. The same file dropped again is asked again, unless the
pipeline has only_changed. Ctrl-C and SIGTERM wait up to 30 s for calls in flight; then the exit code is 0.")]
    Serve(Serve),
    /// Asks again about the failed rows of a run, as a run of its own
    #[command(after_help = "\
Example:
  tasuki failures r5x && tasuki retry r5x

The same retry again is the same run: unfinished it goes on, finished it is shown and nothing is paid (--again asks anew).
Rows that a newer run has answered are left out. Rows that failed before they could be asked (no key, twice the same key, no
JSON) need a mended file: drop that.
The pipeline is the one stored now: `tasuki run` and `tasuki serve` store it. Newer answers of other runs stay.")]
    Retry(Retry),
    /// Stops a run for good: its answers are kept, the other rows fail as cancelled
    #[command(after_help = "Example:\n  tasuki cancel r5x")]
    Cancel(Cancel),
    /// Goes on with a parked run, to its end
    #[command(after_help = "\
Example:
  tasuki status r5x && tasuki resume r5x
  tasuki resume r5x --max-cost 20

A run is parked when something says that no more is to be paid for it: `tasuki status` shows why. What was answered is kept.
One that has spent its [run] max_cost_usd needs a greater one to go on.
Where another process works in the folder, that one goes on with the run within a minute, and is followed.")]
    Resume(Resume),
    /// Shows all runs, or one
    #[command(after_help = "Examples:\n  tasuki status\n  tasuki status r5x --json")]
    Status(Status),
    /// Shows what a run cost: answers, retries, salvage, waste
    #[command(after_help = "\
Examples:
  tasuki cost                                  the newest run
  tasuki cost r5x --json | jq .bill.waste

Answers are the calls whose replies became answers; retries, those that brought nothing of use and were followed by others;
salvage, those that asked only for what an answer lacked; waste, all calls of rows that failed and answers that were thrown away.
Each call has the price of the day on which its run began. What is not known is told as unknown, never as 0.")]
    Cost(Cost),
    /// Shows the answers of a run
    #[command(after_help = "\
Examples:
  tasuki results                               the newest run
  tasuki results r5x --format csv > themes.csv
  tasuki results --format jsonl | head -3")]
    Results(Rows),
    /// Shows the rows of a run that failed, and why
    #[command(after_help = "Examples:\n  tasuki failures\n  tasuki failures r5x --format jsonl")]
    Failures(Rows),
    /// Checks a deployment without changing anything: settings, rights, tables, model; says what to do
    #[command(after_help = "\
Examples:
  tasuki --deployment tasuki.json doctor
  tasuki --deployment tasuki.json doctor --json | jq '.checks[] | select(.state != \"ok\")'

Works with your own credentials (gcloud auth application-default login). What you have no right to see is told as unknown,
with the permission that it takes. No call is paid for. The exit code is 1 where a check fails, else 0.")]
    Doctor(Doctor),
    /// Writes the tables that pipelines need in Spanner, as DDL; only for Tasuki in Google Cloud
    #[command(after_help = "\
Examples:
  tasuki schema pipelines/*.toml                                what they need, on stdout
  tasuki schema pipelines/*.toml --out infra/schema/targets     one file a table
  tasuki schema pipelines/*.toml --out infra/schema/targets --check     exits with 1 where a file is not up to date

Name all pipelines that share a table at once. Applying a file twice changes nothing. A change that would lose answers (a
dropped column, another type) is refused: the migration to run by hand is told.")]
    Schema(Schema),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The rows: .jsonl or .csv, each also .gz; in a deployment also a .run.toml that names rows of BigQuery
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// The pipeline: a TOML file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) pipeline: PathBuf,
    /// Makes a new run where this one is finished (an unfinished one is resumed). All rows are asked, and paid for, again;
    /// with only_changed in the pipeline, only those whose question has changed
    #[arg(long)]
    pub(crate) again: bool,
    /// Ends with one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The rows: .jsonl or .csv, each also .gz
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// The pipeline: a TOML file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) pipeline: PathBuf,
    /// Asks so many rows (1 to 1,000), drawn at random, and pays for them: their answers tell what the others will take
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u16).range(1..=1_000), allow_negative_numbers = true)]
    pub(crate) sample: Option<u16>,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder with the pipelines, one .toml file each
    #[arg(long, value_name = "DIR")]
    pub(crate) pipelines: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The run, or the start of its name
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Asks, and pays for, the same rows again where this retry is finished
    #[arg(long)]
    pub(crate) again: bool,
    /// Ends with one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The run, or the start of its name
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Ends with one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The run, or the start of its name
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// What the run may cost from now on, in dollars and in all: more than it has cost
    #[arg(long, value_name = "USD", value_parser = dollars, allow_negative_numbers = true)]
    pub(crate) max_cost: Option<f64>,
    /// Ends with one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The run, or the start of its name; all runs without it
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Stays with the run until it ends, and ends as `run` does
    #[arg(long, requires = "run", conflicts_with = "json")]
    pub(crate) follow: bool,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cost {
    /// The run, or the start of its name; the newest without it
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rows {
    /// The run, or the start of its name; the newest without it
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// As a table for people, or as JSON lines or CSV for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Rows at most [default: 50 in a table, else all]
    #[arg(long, value_name = "ROWS")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// The pipelines: TOML files
    #[arg(value_name = "PIPELINE", required = true)]
    pub(crate) pipelines: Vec<PathBuf>,
    /// The folder for one file a table; stdout without it
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Writes nothing, and fails where a file is not up to date
    #[arg(long, requires = "out")]
    pub(crate) check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Jsonl,
    Csv,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
