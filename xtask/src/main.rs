//! The project's own commands: `cargo xtask e2e` runs the end-to-end tests on a real Kubernetes, `cargo xtask bench` measures there.

mod e2e;
mod bench;

use std::process::ExitCode;

use clap::Parser;

/// Commands for working on `KubeNap` itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    E2e(e2e::Args),
    Bench(bench::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::E2e(args) => e2e::run(args).await,
        Xtask::Bench(args) => bench::run(args).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            e2e::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
