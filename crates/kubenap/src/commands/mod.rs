//! One line per command.

mod demo;
mod doctor;
mod nap;
mod render;
mod restore;
mod run;
mod simulate;
mod status;
mod wake;
mod why;

use crate::args::{Args, Command};
use crate::outcome::Outcome;

/// Does what was typed.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let Args { command, cluster } = args;
    match command {
        Command::Run(run) => run::run(*run, &cluster).await,
        Command::Demo(demo) => demo::run(demo, &cluster).await,
        Command::Status(status) => status::run(status, &cluster).await,
        Command::Why(why) => why::run(why, &cluster).await,
        Command::Nap(nap) => nap::run(nap, &cluster).await,
        Command::Wake(wake) => wake::run(wake, &cluster).await,
        Command::Restore(restore) => restore::run(restore, &cluster).await,
        Command::Render(render) => render::run(*render, &cluster).await,
        Command::Simulate(simulate) => simulate::run(simulate, &cluster).await,
        Command::Doctor(doctor) => doctor::run(doctor, &cluster).await,
    }
}
