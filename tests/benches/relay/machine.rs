//! Where figures come from. What cannot be read is left out.

use std::fs;

/// The machine's name, processor, cores and load.
pub fn describe() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}: {}, {cores} cores, {}", name.trim(), model.trim_start_matches([' ', '\t', ':']), load())
}

/// Runnable processes, on average over the last minute.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", load.split(' ').next().unwrap_or_default())
}
