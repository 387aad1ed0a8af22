//! What a process takes, as Linux counts it.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use tasuki_relay::clock::Clock;

/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// `/proc` counts CPU in hundredths of a second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// What a process took, its threads included, its children not.
#[derive(Debug)]
pub struct Took {
    /// From its start to its end.
    pub wall: Duration,
    /// CPU in its own code.
    pub user: Duration,
    /// CPU in the kernel for it.
    pub system: Duration,
    /// Most memory in bytes; the last [`LOOK_EVERY`] may be missed.
    pub peak_bytes: u64,
}

impl Took {
    /// All its CPU.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Runs a process to its end. One that fails is an error.
pub fn run(command: &mut Command) -> Result<Took> {
    let clock = Clock::system();
    let started = clock.instant();
    let mut child = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
    let (stat, status) = (format!("/proc/{}/stat", child.id()), format!("/proc/{}/status", child.id()));
    let mut peak_bytes = 0;
    // A process that has ended keeps its counters until it is waited for.
    let (user, system) = loop {
        let line = fs::read_to_string(&stat).context("the bench needs Linux: /proc")?;
        let (state, user, system) = counters(&line)?;
        if state == "Z" {
            break (user, system);
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        peak_bytes = text.lines().find_map(high_water).unwrap_or(0).max(peak_bytes);
        sleep(LOOK_EVERY);
    };
    let wall = started.elapsed();
    let ended = child.wait()?;
    ensure!(ended.success(), "{command:?} ended with {ended}");
    Ok(Took { wall, user, system, peak_bytes })
}

/// State, user and system CPU of a line of `/proc/<pid>/stat`: its fields 3, 14 and 15. The second may hold anything.
fn counters(stat: &str) -> Result<(&str, Duration, Duration)> {
    let (_, fields) = stat.rsplit_once(") ").context("not a line of /proc/<pid>/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| Ok::<_, anyhow::Error>(TICK * fields.get(field - 3).context("a short line")?.parse()?);
    Ok((fields[0], ticks(14)?, ticks(15)?))
}

/// The bytes of a line `VmHWM:    1234 kB`.
fn high_water(line: &str) -> Option<u64> {
    line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1_024)
}
