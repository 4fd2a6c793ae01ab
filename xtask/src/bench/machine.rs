//! What the numbers were taken on: processors, memory, kernel. No names.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// The machine.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// The load of the last minute when the run began: what else went on.
    pub(crate) load: f64,
    /// The day of the run.
    pub(crate) day: String,
}

/// Reads it from the kernel.
pub(crate) fn describe() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
    let cpus = read("/proc/cpuinfo")?;
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(value);
    let memory = read("/proc/meminfo")?;
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let load = read("/proc/loadavg")?;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        model: model.unwrap_or_else(|| "unknown".to_owned()),
        memory_gib: (kib.unwrap_or(0) + (1 << 19)) >> 20,
        kernel: kernel.trim().split(['-', '+']).next().unwrap_or_default().to_owned(),
        load: load.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        day: jiff::Zoned::now().strftime("%Y-%m-%d").to_string(),
    })
}
