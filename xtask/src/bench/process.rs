//! What the kernel says of a process: memory, processor time; and how many files this one may have open.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory and processor time of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident now, in bytes.
    pub(crate) resident: u64,
    /// The most that was ever resident, in bytes.
    pub(crate) peak: u64,
    /// Processor time so far.
    pub(crate) busy: Duration,
}

/// Of a process by its number.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let read = |what: &str| {
        let path = format!("/proc/{pid}/{what}");
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let status = read("status")?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).with_context(|| format!("/proc/{pid}/status has no {name}"))
    };
    let stat = read("stat")?;
    // The name may contain anything, so the fields are counted from its closing bracket: utime and stime.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    // The kernel's user-visible clock always ticks a hundred times a second.
    Ok(Usage { resident: bytes("VmRSS")?, peak: bytes("VmHWM")?, busy: Duration::from_millis(ticks * 10) })
}

/// As many as the system allows: each held request is one here too.
pub(crate) fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::usage;

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).expect("this process");
        assert!(usage.resident > 100_000 && usage.peak >= usage.resident);
    }
}
