//! `cargo bench -p tasuki-tests [-- --rows N …]`: `tasuki run` against a scripted model server, beside a bare loop of the same
//! calls in the same minutes. Tables, never assertions: only a wrong result is an error.
//!
//! The model server, the command and the loop are processes of their own, so that what each takes is counted alone.

mod bare;
mod command;
mod machine;
mod model;
mod process;
mod rows;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use process::Took;
use std::path::PathBuf;
use std::time::Duration;

/// Measures `tasuki run`.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench -p tasuki-tests --", disable_help_subcommand = true)]
struct Options {
    /// Rows of the file
    #[arg(long, global = true, default_value_t = 30_000)]
    rows: u32,
    /// Milliseconds that the model takes for a call
    #[arg(long, global = true, default_value_t = 2_000)]
    latency_ms: u64,
    /// Calls in flight at most
    #[arg(long, global = true, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Calls per second that the model takes, untold; with 1 s of it saved up. The bare loop then backs off, as SDKs do
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    quota: Option<u32>,
    /// Milliseconds that a rejection takes
    #[arg(long, global = true, default_value_t = 50)]
    reject_ms: u64,
    /// How often all is measured
    #[arg(long, global = true, default_value_t = 1)]
    rounds: u32,
    /// A command built before, measured instead of the one here; several are compared
    #[arg(long, value_name = "FILE")]
    tasuki: Vec<PathBuf>,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The processes that this program starts from itself.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Model,
    #[command(hide = true)]
    Bare { base: String, certificate: String, input: String },
}

impl Options {
    /// No relay is faster: each call takes its time, no more than so many run at once, and no more pass the quota.
    fn ideal(&self) -> Duration {
        let by_quota = self.quota.map_or(Duration::ZERO, |quota| Duration::from_secs(1) * self.rows / quota);
        by_quota.max(Duration::from_millis(self.latency_ms) * self.rows / self.in_flight)
    }

    /// The same options for a part.
    fn arguments(&self) -> Vec<String> {
        let Options { rows, latency_ms, in_flight, reject_ms, .. } = self;
        let mut all = vec![format!("--rows={rows}"), format!("--latency-ms={latency_ms}")];
        all.extend([format!("--in-flight={in_flight}"), format!("--reject-ms={reject_ms}")]);
        all.extend(self.quota.map(|quota| format!("--quota={quota}")));
        all
    }
}

/// One line of the table.
struct Line {
    /// From the start of the work to its end: see [`command::measure`] and [`bare::measure`].
    wall: Duration,
    took: Took,
}

/// What is measured: a command, or the bare loop.
struct Entry {
    name: String,
    command: Option<PathBuf>,
    lines: Vec<Line>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.part {
        Some(Part::Model) => return model::serve(&options),
        Some(Part::Bare { base, certificate, input }) => return bare::run(&options, base, certificate, input),
        None if !options.bench => return Ok(()), // `cargo test --benches`: a bench is no test
        None => (),
    }
    let Options { rows, latency_ms, in_flight, .. } = options;
    let folder = tempfile::tempdir()?;
    let input = rows::write(folder.path(), rows)?;
    let commands = if options.tasuki.is_empty() { vec![command::build()?] } else { options.tasuki.clone() };
    let mut entries: Vec<Entry> = vec![Entry { name: "bare loop".to_owned(), command: None, lines: Vec::new() }];
    entries.extend(commands.into_iter().map(|command| {
        let name = command.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Entry { name: format!("{name} run"), command: Some(command), lines: Vec::new() }
    }));
    say(&format!(
        "\n{rows} rows of {:.0} bytes, {latency_ms} ms a call, {in_flight} in flight: {:.2} s at best\n{}\n",
        input.metadata()?.len() as f64 / f64::from(rows),
        options.ideal().as_secs_f64(),
        machine::describe(),
    ))?;
    say(&format!(
        "{:<16} {:>8} {:>8} {:>10} {:>11} {:>9} {:>8} {:>8}",
        "", "wall s", "× best", "process s", "CPU ms/row", "user s", "system s", "peak MB"
    ))?;
    for _ in 0..options.rounds {
        for Entry { name, command, lines } in &mut entries {
            let server = model::Server::start(&options)?;
            let line = match command {
                Some(command) => command::measure(&options, command, &server, &input, folder.path())?,
                None => bare::measure(&options, &server, &input)?,
            };
            let (calls, rejected) = server.calls()?;
            ensure!(
                calls - rejected == u64::from(rows),
                "{name}: {rows} rows took {calls} calls: this measures something else"
            );
            show(name, &line, &options)?;
            if options.quota.is_some() {
                let share = 100.0 * rejected as f64 / calls as f64;
                say(&format!("{:<16} {rejected} of {calls} calls rejected: {share:.2} %", ""))?;
            }
            lines.push(line);
        }
    }
    say("\nmedians, as multiples of the first line's:")?;
    let columns: [fn(&Line) -> f64; 3] =
        [|line| line.wall.as_secs_f64(), |line| line.took.cpu().as_secs_f64(), |line| line.took.peak_bytes as f64];
    for Entry { name, lines, .. } in &entries {
        let [wall, cpu, peak] = columns.map(|of| median(lines, of) / median(&entries[0].lines, of));
        say(&format!("{name:<16} wall {wall:.2}, CPU {cpu:.2}, memory {peak:.2}"))?;
    }
    say(&machine::load())
}

fn show(name: &str, Line { wall, took }: &Line, options: &Options) -> Result<()> {
    say(&format!(
        "{name:<16} {:>8.2} {:>8.3} {:>10.2} {:>11.4} {:>9.2} {:>8.2} {:>8.0}",
        wall.as_secs_f64(),
        wall.as_secs_f64() / options.ideal().as_secs_f64(),
        took.wall.as_secs_f64(),
        took.cpu().as_secs_f64() * 1_000.0 / f64::from(options.rows),
        took.user.as_secs_f64(),
        took.system.as_secs_f64(),
        took.peak_bytes as f64 / 1e6,
    ))
}

fn median(lines: &[Line], of: fn(&Line) -> f64) -> f64 {
    let mut values: Vec<f64> = lines.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a line of the report.
fn say(text: &str) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").context("stdout is closed")
}
