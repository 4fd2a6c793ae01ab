//! A process that stands still for a while: to everybody else it hangs.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Stands still until this is dropped.
pub(crate) struct Frozen(Pid);

impl Frozen {
    /// Stops it.
    pub(crate) fn new(process: Pid) -> Result<Self> {
        kill_process(process, Signal::STOP).context("stop a process")?;
        Ok(Self(process))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // One that is gone needs no waking.
        kill_process(self.0, Signal::CONT).unwrap_or(());
    }
}
