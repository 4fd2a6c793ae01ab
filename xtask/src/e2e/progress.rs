//! Lines for the person who waits: what is being done, and for how many seconds.

use std::io::{self, Write as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A line to standard error; data alone goes to standard output.
pub(crate) fn say(line: &str) {
    // With nobody to read it there is nobody to tell.
    drop(writeln!(io::stderr(), "{line}"));
}

/// Runs a command that may take minutes, its output shown, with a line at the start, every half minute, and at the end.
pub(crate) async fn run(what: &str, command: &mut Command) -> Result<()> {
    say(&format!("{what} …"));
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start: {what}"))?;
    let mut ticks = interval(Duration::from_secs(30));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.with_context(|| format!("wait for: {what}"))?,
            _ = ticks.tick() => say(&format!("{what} … {} s", begun.elapsed().as_secs())),
        }
    };
    if !status.success() {
        bail!("{what}: ended with {status} (its output is above)");
    }
    say(&format!("{what}: {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}
